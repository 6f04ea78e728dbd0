"""A label of a Gmail account over Gmail's API, by a token that may read and nothing else (scope `gmail.readonly`).

Gmail's IMAP knows one permission, full access, with which mail can be sent. The API is asked at each interval.

What is new is what the history says since the last `historyId` ("Synchronize clients with Gmail"). Google keeps history
for a week or more; where it is gone, the label is gone over by date.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from cloud_agent.config import GmailBox
from cloud_agent.mailbox import (
    MOST_BYTES,
    TRIES,
    Arrived,
    Misset,
    Position,
    Refused,
    Spool,
    Unreachable,
    look_back,
    parse_time,
)
from cloud_agent.oauth import Http, Tokens
from cloud_agent.state import Clock, iso

PART_BYTES = 65536
# Labels that Gmail knows by these names; others have an id that has to be asked for.
_SYSTEM = ("INBOX", "SPAM", "TRASH", "UNREAD", "STARRED", "IMPORTANT")
_RAW = re.compile(rb'"raw"\s*:\s*"')
# Its end, or its padding: Google's JSON may write `=` as `\u003d`, and base64url has no backslash.
_RAW_END = re.compile(rb'["\\]')
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Gone(Unreachable):
    """404: a message was deleted, or history is no more; of anything else, a setting is wrong."""


class Broken(Unreachable):
    """A message that is not given as the API gives messages: this one's fault, perhaps, and no other's."""


class Gmail:
    """The source."""

    def __init__(
        self, box: GmailBox, http: Http, tokens: Tokens, folder: Path, clock: Clock, since_days: float
    ) -> None:
        """`folder`: where large messages lie while they are fetched."""
        self.name = f"gmail:{box.user}/{box.label}"
        self.base = f"{box.api_url}/gmail/v1/users/{urllib.parse.quote(box.user)}"
        self.box = box
        self.http = http
        self.tokens = tokens
        self.clock = clock
        self.since_days = since_days
        self.spool = folder / "watch-fetch.eml"
        self.label = box.label.upper() if box.label.upper() in _SYSTEM else ""
        self.tries: dict[str, int] = {}

    def messages(self, position: Position | None, recorded: datetime | None) -> Iterator[Arrived]:
        """See Source."""
        place = position or {}
        label = self._label()
        begin, history = parse_time(place.get("begin", "")), place.get("history", "")
        since = parse_time(place.get("since", ""))  # going over by date is not done yet
        if begin is None or not history.isdecimal():
            begin = self.clock() - timedelta(days=self.since_days)
            history, since = self._history_id(), begin if self.since_days else None
            yield Arrived("", _position(begin, history, since))
        if since is None:
            try:
                yield from self._since_history(label, begin, history)
                return
            except Gone:
                history, since = self._history_id(), look_back(begin, recorded)
                yield Arrived("", _position(begin, history, since))
        for identity in self._since_date(label, since):
            yield from self._message(identity, None)
        yield Arrived("", _position(begin, history, None))
        yield from self._since_history(label, begin, history)

    def listen(self) -> int | None:
        """Gmail pushes to servers of Google's Pub/Sub alone."""
        return None

    def close(self) -> None:
        """See Source: each call has a connection of its own."""

    leave = close

    # -- what is new -----------------------------------------------------------------------------------------------

    def _since_history(self, label: str, begin: datetime, start: str) -> Iterator[Arrived]:
        """Messages that came, or came under the label, after `start`, in order. Raises Gone."""
        page, newest, seen = "", start, set[str]()
        while True:
            answer = self._get(
                "history",
                startHistoryId=start,
                labelId=label,
                historyTypes=["messageAdded", "labelAdded"],
                **({"pageToken": page} if page else {}),
            )
            for record in _dicts(answer.get("history")):
                reached = _position(begin, str(record.get("id", newest)), None)
                # A star and "mark as unread" are labels too: they make no new mail of an old one.
                labelled = [one for one in _dicts(record.get("labelsAdded")) if label in (one.get("labelIds") or ())]
                for change in (*_dicts(record.get("messagesAdded")), *labelled):
                    message = change.get("message")
                    message = message if isinstance(message, dict) else {}
                    identity = str(message.get("id", ""))
                    if label in (message.get("labelIds") or ()) and identity not in seen:
                        seen.add(identity)
                        yield from self._message(identity, None)
                yield Arrived("", reached)
            newest = str(answer.get("historyId", newest))
            page = str(answer.get("nextPageToken", ""))
            if not page:
                break
        if newest != start:
            yield Arrived("", _position(begin, newest, None))

    def _since_date(self, label: str, since: datetime) -> list[str]:
        """Ids of all messages under the label since then, oldest first."""
        found: list[str] = []
        page = ""
        while True:
            answer = self._get(
                "messages",
                labelIds=label,
                q=f"after:{int(since.timestamp())}",
                maxResults="500",
                **({"pageToken": page} if page else {}),
            )
            found += [str(message.get("id", "")) for message in _dicts(answer.get("messages"))]
            page = str(answer.get("nextPageToken", ""))
            if not page:
                return found[::-1]

    def _message(self, identity: str, position: Position | None) -> Iterator[Arrived]:
        """One message, unless it is gone."""
        if not _ID.fullmatch(identity):
            raise Unreachable("Gmail's API names a message by what is no id")
        spool = Spool(self.spool)
        try:
            with self._open(f"messages/{identity}", format="raw", fields="raw") as body:
                decode_raw(body, spool)
            yield Arrived(f"message {identity}", position, spool.content)
        except Gone:
            return
        except Broken as why:
            self.tries[identity] = self.tries.get(identity, 0) + 1
            if self.tries[identity] < TRIES:
                raise
            del self.tries[identity]
            yield Arrived(f"message {identity}", position, missed=str(why))
        finally:
            spool.close()

    def _history_id(self) -> str:
        found = str(self._get("profile").get("historyId", ""))
        if not found.isdecimal():
            raise Unreachable("Gmail's API tells no historyId")
        return found

    def _label(self) -> str:
        if not self.label:
            labels = _dicts(self._get("labels").get("labels"))
            self.label = next((str(one.get("id")) for one in labels if one.get("name") == self.box.label), "")
            if not self.label:
                raise Misset(f"the account has no label {self.box.label}: correct IMAP_FOLDER")
        return self.label

    # -- calls -----------------------------------------------------------------------------------------------------

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        with self._open(path, **query) as body:
            answer = self.http.parse(body)
        if answer is None:  # taken for an empty list, it would lose all that the list has
            raise Unreachable(f"{self.box.api_url} answers with what is none of Gmail's: correct GMAIL_API_URL")
        return answer

    def _open(self, path: str, **query: Any) -> IO[bytes]:
        """The body of an answer with status 200. Raises Gone, Refused, Unreachable."""
        url = f"{self.base}/{path}?{urllib.parse.urlencode(query, doseq=True)}"
        for again in (True, False):
            status, body = self.http.open(url, {"Authorization": f"Bearer {self.tokens.access()}"})
            if status == 200:
                return body
            with body:
                reason = _reason(self.http.parse(body) or {})
            if status == 401 and again:
                self.tokens.forget()
                continue
            if status == 404:
                raise Gone(f"Gmail's API knows nothing of {path} ({reason}): correct IMAP_USER, or GMAIL_API_URL")
            if status == 401 or (status == 403 and "limit" not in reason.lower()):
                raise Refused(f"Gmail's API refuses the token ({reason}): get a new one (docs/mailbox.md)")
            kind = Broken if status == 400 and path.startswith("messages/") else Unreachable
            raise kind(f"Gmail's API answers with status {status} ({reason})")
        raise AssertionError("unreachable")


def decode_raw(body: IO[bytes], spool: Spool) -> None:
    """The message in `{"raw": "<base64url>"}`, without holding the whole. Raises Unreachable where it is none."""
    seen, found = b"", None
    try:
        while found is None:
            part = body.read(PART_BYTES)
            seen += part
            found = _RAW.search(seen)
            if found is None and (not part or len(seen) > PART_BYTES):
                raise Broken("Gmail's API gave a message without its text")
        left = seen[found.end() :]
        while spool.size < MOST_BYTES:
            end = _RAW_END.search(left)
            text = left[: end.start()] if end else left
            whole = len(text) if end else len(text) - len(text) % 4
            spool.write(base64.urlsafe_b64decode(text[:whole] + b"=" * (-whole % 4)))
            if end:
                return
            part = body.read(PART_BYTES)
            if not part:
                raise Unreachable("a message from Gmail's API broke off")
            left = text[whole:] + part
    except binascii.Error as error:
        raise Broken(f"Gmail's API gave a message in no base64 ({error})") from None
    except (OSError, HTTPException) as error:
        raise Unreachable(f"a message from Gmail's API broke off ({error})") from None


def _position(begin: datetime, history: str, since: datetime | None) -> Position:
    return {"begin": iso(begin), "history": history, "since": iso(since) if since is not None else ""}


def _dicts(found: object) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _reason(answer: Mapping[str, Any]) -> str:
    """What the API says of an error: {"error": {"message", "errors": [{"reason"}]}}."""
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    reasons = ", ".join(str(one.get("reason", "")) for one in _dicts(error.get("errors")))
    return f"{reasons or error.get('status', '')}: {error.get('message', '')}"[:200]
