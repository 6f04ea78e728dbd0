"""A folder of an IMAP account, read and never changed: EXAMINE and BODY.PEEK (RFC 9051 §6.3.3, §6.4.5).

A message is known by (UIDVALIDITY, UID). UIDs grow and are never given twice, so that what is new is what has a UID
above the last one taken (§2.3.1.1). Where the server numbers its messages anew, or goes back to earlier numbers (it was
restored from a backup), the folder is gone over by date of arrival.

IDLE (RFC 2177) only wakes the loop. What counts is the search in each pass, at least once per interval: a server or a
middlebox that falls silent costs an interval, and no mail.
"""

from __future__ import annotations

import contextlib
import imaplib
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from imapclient import IMAPClient, SocketTimeout  # type: ignore[import-untyped]
from imapclient.exceptions import LoginError  # type: ignore[import-untyped]

from cloud_agent.config import ImapBox
from cloud_agent.mailbox import (
    AT_ONCE,
    LARGE_BYTES,
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
from cloud_agent.oauth import Tokens
from cloud_agent.state import Clock, iso

log = logging.getLogger("cloud_agent.imap")

CONNECT_SECONDS = 15.0
READ_SECONDS = 30.0
# A command ends after so long, however slowly its answer dribbles in.
COMMAND_SECONDS = 120.0
LOGOUT_SECONDS = 2.0
# imaplib keeps what the server says unasked, as long as a connection lives.
LONGEST_CONNECTION_SECONDS = 6 * 3600.0
# Of one FETCH: messages, and bytes.
MOST_AT_ONCE = 50
PART_BYTES = 1_000_000
# A search answers in one line: a million messages, where imaplib stops at some 140,000.
imaplib._MAXLINE = 10_000_000  # type: ignore[attr-defined]

# RFC 5530: what passes by itself, though it is said to a login. Others say it in words.
_PASSING = re.compile(r"\[(?:UNAVAILABLE|INUSE|LIMIT|SERVERBUG|CONTACTADMIN)\]|temporar|try again|too many", re.I)
# A command was answered by NO or BAD, or by what IMAPClient cannot read: its parser asserts and indexes. The connection
# is still good, unless it is an abort.
_BAD_ANSWERS = (imaplib.IMAP4.error, AssertionError, ValueError, LookupError)


@dataclass(frozen=True)
class Place:
    """How far a folder was read: all UIDs up to `uid` are done. Up to `until` only what arrived since `since` matters.

    `begin`: when this mailbox was watched first, or what was asked for then (WATCH_SINCE_DAYS).
    """

    uidvalidity: int
    uid: int
    begin: datetime
    since: datetime
    until: int = 0

    def as_position(self) -> Position:
        return {
            "uidvalidity": str(self.uidvalidity),
            "uid": str(self.uid),
            "begin": iso(self.begin),
            "since": iso(self.since),
            "until": str(self.until),
        }


def read_place(position: Position) -> Place | None:
    """None for what was not written by `as_position`."""
    begin, since = parse_time(position.get("begin", "")), parse_time(position.get("since", ""))
    try:
        uidvalidity, uid, until = (int(position.get(name, "")) for name in ("uidvalidity", "uid", "until"))
    except ValueError:
        return None
    if begin is None or since is None:
        return None
    return Place(uidvalidity, uid, begin, since, until)


def place(
    last: Place | None, recorded: datetime | None, uidvalidity: int, uidnext: int, now: datetime, since_days: float
) -> Place:
    """Where to go on in a folder that is as the server says.

    | last                                      | is read                                              |
    | ---                                       | ---                                                  |
    | none: the first start                     | what arrives from now on, or in the last since_days  |
    | of this UIDVALIDITY, its UID below uidnext| what has a UID above                                 |
    | another UIDVALIDITY, or a UID not given   | what arrived since `look_back`                       |
    | yet: the numbers mean other messages now  |                                                      |
    """
    if last is None:
        begin = now - timedelta(days=since_days)
        return Place(uidvalidity, 0 if since_days else uidnext - 1, begin, begin, uidnext - 1)
    if last.uidvalidity == uidvalidity and last.uid < uidnext:
        return last
    return Place(uidvalidity, 0, last.begin, look_back(last.begin, recorded), uidnext - 1)


def portions(sizes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """UIDs to be fetched together: [(uid, bytes), …] -> [uid, …], at most MOST_AT_ONCE and about PART_BYTES each."""
    portion: list[int] = []
    total = 0
    for uid, size in sizes:
        if portion and (len(portion) >= MOST_AT_ONCE or total + size > PART_BYTES):
            yield portion
            portion, total = [], 0
        portion.append(uid)
        total += size
    if portion:
        yield portion


class Imap:
    """The source. Not thread-safe."""

    def __init__(
        self,
        box: ImapBox,
        tokens: Tokens | None,
        folder: Path,
        clock: Clock,
        since_days: float,
        monotonic: Callable[[], float],
    ) -> None:
        """`folder`: where large messages lie while they are fetched."""
        self.name = f"imap:{box.user}@{box.host}/{box.folder}"
        self.box = box
        self.tokens = tokens
        self.clock = clock
        self.since_days = since_days
        self.monotonic = monotonic
        self.spool = folder / "watch-fetch.eml"
        self.client: IMAPClient | None = None
        self.state: tuple[int, int] = (0, 0)  # UIDVALIDITY, UIDNEXT when the folder was opened
        self.ends = 0.0
        self.idling = False
        self.tries: dict[int, int] = {}

    # -- the source ------------------------------------------------------------------------------------------------

    def messages(self, position: Position | None, recorded: datetime | None) -> Iterator[Arrived]:
        """See Source."""
        with self._trouble():
            client, fresh = self._connected()
        last = read_place(position) if position is not None else None
        if fresh or last is None:
            last = place(last, recorded, *self.state, self.clock(), self.since_days)
            yield Arrived("", last.as_position())
        while True:
            with self._trouble():
                uids = self._search(client, last)
            for start in range(0, len(uids), MOST_AT_ONCE * 4):
                yield from self._fetch(client, last, uids[start : start + MOST_AT_ONCE * 4])
            if last.uid >= last.until:
                return
            # Gone over by date; from here on by UID alone.
            last = replace(last, uid=last.until)
            yield Arrived("", last.as_position())

    def listen(self) -> int | None:
        """IDLE, where the server has it."""
        client = self.client
        if client is None:
            return None
        with self._trouble(), self._deadline(client, READ_SECONDS):
            if not client.has_capability("IDLE"):
                return None
            client.idle()
            self.idling = True
            if self._has_read_ahead(client):
                return AT_ONCE
            fileno: int = client.socket().fileno()
            return fileno

    def close(self) -> None:
        """See Source."""
        client, self.client, self.idling = self.client, None, False
        if client is not None:
            with contextlib.suppress(Exception):
                client.shutdown()

    def leave(self) -> None:
        """End in good manners."""
        client = self.client
        if client is not None:
            with contextlib.suppress(Exception), self._deadline(client, LOGOUT_SECONDS):
                if self.idling:
                    client.idle_done()
                client.logout()
        self.close()

    # -- the connection --------------------------------------------------------------------------------------------

    def _connected(self) -> tuple[IMAPClient, bool]:
        """(a connection with the folder open and no IDLE, whether it is a new one)."""
        if self.client is not None and self.monotonic() >= self.ends:
            self.leave()
        if self.client is not None:
            with self._deadline(self.client, READ_SECONDS):
                if self.idling:
                    self.client.idle_done()
                    self.idling = False
                else:  # a search alone sees what the server told of before: Dovecot's is one or two intervals late
                    self.client.noop()
            return self.client, False
        box = self.box
        secrets = self.tokens.access() if self.tokens is not None else box.password
        client = IMAPClient(
            box.host,
            box.port,
            ssl=box.tls == "implicit",
            ssl_context=self._context() if box.tls == "implicit" else None,
            timeout=SocketTimeout(CONNECT_SECONDS, READ_SECONDS),
        )
        self.client = client
        # It would write all that is fetched, and tokens, into texts for a log that nobody reads.
        client._imap.debug = 0
        with self._deadline(client, COMMAND_SECONDS):
            if box.tls == "starttls":
                client.starttls(self._context())
            self._log_in(client, secrets)
            opened = self._open_folder(client)
            uidvalidity = int(opened.get(b"UIDVALIDITY", 0))
            uidnext = int(opened.get(b"UIDNEXT", 0)) or max(client.search(["UID", "*"]), default=0) + 1
        self.state = uidvalidity, uidnext
        self.ends = self.monotonic() + LONGEST_CONNECTION_SECONDS
        return client, True

    def _open_folder(self, client: IMAPClient) -> dict[bytes, Any]:
        try:
            opened: dict[bytes, Any] = client.select_folder(self.box.folder, readonly=True)
            return opened
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as error:
            if _PASSING.search(str(error)):
                raise
            raise Misset(f"the folder {self.box.folder} cannot be opened ({error}): correct IMAP_FOLDER") from None

    def _log_in(self, client: IMAPClient, secret: str) -> None:
        try:
            if self.tokens is not None:
                client.oauth2_login(self.box.user, secret)
            elif client.has_capability("AUTH=PLAIN"):  # LOGIN takes ASCII, and imaplib does not quote the user
                client.plain_login(self.box.user, secret)
            else:
                client.login(self.box.user, secret)
        except LoginError as error:
            if isinstance(error.__context__, imaplib.IMAP4.abort):
                raise Unreachable(f"the connection broke off at the login: {error}") from None
            if self.tokens is not None:
                self.tokens.forget()
            if _PASSING.search(str(error)):
                raise Unreachable(f"no login for now: {error}") from None
            mend = "get a new refresh token" if self.tokens is not None else "set IMAP_USER and IMAP_PASSWORD right"
            raise Refused(f"the server refuses the login ({error}): {mend}, then restart mail_watcher") from None

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.box.ca_file is not None:
            context.load_verify_locations(self.box.ca_file)
        return context

    @contextlib.contextmanager
    def _deadline(self, client: IMAPClient, seconds: float) -> Iterator[None]:
        """End the connection after so long, whatever is waited for: a timeout counts from one byte to the next."""

        def end() -> None:
            with contextlib.suppress(OSError, AttributeError, TypeError):  # there may be none any more
                # socket's own method: SSLSocket.shutdown would first forget its TLS under the thread that reads from it
                socket.socket.shutdown(client.socket(), socket.SHUT_RDWR)

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        """What a connection can fail with, as Unreachable."""
        try:
            yield
        except (Unreachable, Refused):
            raise
        except ssl.SSLCertVerificationError as error:
            raise Misset(
                f"{self.box.host} does not prove who it is ({error.verify_message}): correct IMAP_HOST, or name its CA"
                " in IMAP_CA_FILE"
            ) from error
        except (OSError, *_BAD_ANSWERS) as error:
            why = f"{str(error) or type(error).__name__}{_mend(error, self.box)}"
            raise Unreachable(f"{self.box.host}: {why}") from error

    def _has_read_ahead(self, client: IMAPClient) -> bool:
        """Whether what IDLE waits for came together with its beginning: then it lies in buffers, and no socket that
        can be read tells of it."""
        sock = client.socket()
        sock.setblocking(False)
        try:
            return bool(client._imap.file.peek(1))
        except OSError:  # TLS says so where there is nothing
            return False
        finally:
            sock.settimeout(READ_SECONDS)

    # -- messages --------------------------------------------------------------------------------------------------

    def _search(self, client: IMAPClient, last: Place) -> list[int]:
        """UIDs that are new, in order."""
        low = last.uid + 1
        with self._deadline(client, COMMAND_SECONDS):
            if low <= last.until:
                # By the server's date without time and zone (§6.4.4); `_sizes` looks at the time.
                found = client.search(["UID", f"{low}:{last.until}", "SINCE", (last.since - timedelta(days=1)).date()])
                return sorted(uid for uid in found if low <= uid <= last.until)
            # `n:*` has the last message in it even where that is below n (§9, sequence-set).
            return sorted(uid for uid in client.search(["UID", f"{low}:*"]) if uid >= low)

    def _fetch(self, client: IMAPClient, last: Place, uids: list[int]) -> Iterator[Arrived]:
        """The messages of these UIDs. One that is gone meanwhile, or moved, is no more this folder's."""

        def reached(uid: int) -> Position:
            return replace(last, uid=uid).as_position()

        if not uids:
            return
        with self._trouble():
            sizes = self._sizes(client, last, uids)
        for portion in portions(sizes):
            with self._trouble():
                bodies = self._bodies(client, portion)
            for uid in portion:
                name = f"message {self.state[0]}/{uid}"
                body = bodies.pop(uid, None)
                if body == b"":  # as Dovecot answers for one that was deleted meanwhile
                    body = self._again(uid, "the server gives nothing of it")
                if isinstance(body, str):
                    yield Arrived(name, reached(uid), missed=body)
                elif body is not None and len(body) >= LARGE_BYTES:
                    spool = Spool(self.spool)
                    try:
                        with self._trouble():
                            whole = self._in_parts(client, uid, body, spool)
                        if whole:
                            yield Arrived(name, reached(uid), spool.content)
                    finally:
                        spool.close()
                elif body is not None:
                    yield Arrived(name, reached(uid), body)
        yield Arrived("", reached(uids[-1]))

    def _sizes(self, client: IMAPClient, last: Place, uids: list[int]) -> list[tuple[int, int]]:
        try:
            with self._deadline(client, COMMAND_SECONDS):
                told = client.fetch(uids, ["RFC822.SIZE", "INTERNALDATE"])
        except imaplib.IMAP4.abort:
            raise
        except _BAD_ANSWERS:  # about one of them, but which
            return [(uid, PART_BYTES) for uid in uids]
        sizes = []
        for uid in uids:
            about = told.get(uid, {})
            arrived = about.get(b"INTERNALDATE")
            # imapclient gives local time, naive.
            early = isinstance(arrived, datetime) and arrived.astimezone(UTC) < last.since
            if about and not (uid <= last.until and early):
                sizes.append((uid, min(int(about.get(b"RFC822.SIZE", 0)), LARGE_BYTES)))
        return sizes

    def _bodies(self, client: IMAPClient, uids: list[int]) -> dict[int, bytes | str]:
        """UID -> at most the first LARGE_BYTES, or why it cannot be had. None of an UID: the message is gone."""
        try:
            return dict(self._part(client, uids, 0, LARGE_BYTES))
        except imaplib.IMAP4.abort:
            raise
        except _BAD_ANSWERS as error:  # because of one of them, but which
            if len(uids) > 1:
                bodies: dict[int, bytes | str] = {}
                for uid in uids:
                    bodies |= self._bodies(client, [uid])
                return bodies
            return {uids[0]: self._again(uids[0], f"the server cannot give it ({error})")}

    def _again(self, uid: int, why: str) -> str:
        """Count that a message could not be had. Raises Unreachable: a new connection may know better."""
        self.tries[uid] = self.tries.get(uid, 0) + 1
        if self.tries[uid] < TRIES:
            raise Unreachable(f"message {uid}: {why}")
        del self.tries[uid]
        return why

    def _part(self, client: IMAPClient, uids: list[int], start: int, length: int) -> dict[int, bytes]:
        with self._deadline(client, COMMAND_SECONDS):
            found: dict[int, dict[bytes, Any]] = client.fetch(uids, [f"BODY.PEEK[]<{start}.{length}>"])
        # Some servers leave the start out. A message that is answered for is not gone, though it come without a body.
        names = (f"BODY[]<{start}>".encode(), *((b"BODY[]",) if not start else ()))
        return {
            uid: next((about[name] for name in names if about.get(name)), b"")
            for uid, about in found.items()
            if uid in uids
        }

    def _in_parts(self, client: IMAPClient, uid: int, beginning: bytes, spool: Spool) -> bool:
        """Whether it is still there to its end."""
        spool.write(beginning)
        while spool.size < MOST_BYTES:
            part = self._part(client, [uid], spool.size, min(PART_BYTES, MOST_BYTES - spool.size)).get(uid)
            if part is None:
                return False
            if not part:  # its end, or it was deleted meanwhile: then what was fetched is cut
                with self._deadline(client, COMMAND_SECONDS):
                    return uid in client.search(["UID", str(uid)])
            spool.write(part)
        return True


def _mend(error: Exception, box: ImapBox) -> str:
    """What to look at after this failure, for who has just set the mailbox; "" where that is not known. Pure."""
    if isinstance(error, socket.gaierror):
        return ": if that lasts, look at IMAP_HOST, and at this machine's network"
    if isinstance(error, ConnectionRefusedError):
        return f": nothing answers at port {box.port}: if that lasts, look at IMAP_HOST and IMAP_PORT"
    if isinstance(error, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
        return f": port {box.port} does not begin with TLS: look at IMAP_PORT and IMAP_TLS (993 implicit, 143 starttls)"
    if isinstance(error, ssl.SSLError | TimeoutError):
        return f": if that lasts, look at IMAP_PORT ({box.port}) and IMAP_TLS ({box.tls}), and at firewalls between"
    return ""
