"""A stand-in of a mail provider: an OAuth token endpoint (RFC 6749 §6), a token check, and Gmail's API. Real HTTP.

It answers what the agent asks in the providers' wire format, checks tokens and scopes as they do, and can fail as they
can. Requests that would change anything are refused and counted. Standard library only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.standins import serving

Json = dict[str, Any]
READONLY = "https://www.googleapis.com/auth/gmail.readonly"
PAGE = 50  # a page of a list: small, so that there are several


@dataclass
class Message:
    raw: bytes
    labels: list[str]
    arrived: float


@dataclass
class Grant:
    """What a refresh token is good for."""

    scope: str = READONLY
    client_id: str = "client"
    client_secret: str = "secret"


@dataclass
class Account:
    """A mailbox, and what happened in it: [(history id, what, message id, labels added), …]."""

    messages: dict[str, Message] = field(default_factory=dict)
    history: list[tuple[int, str, str, list[str]]] = field(default_factory=list)
    newest: int = 1000
    oldest: int = 0  # history up to this one is no more
    labels: dict[str, str] = field(default_factory=lambda: {"Label_7": "Questions"})

    def deliver(self, raw: bytes, *labels: str, arrived: float | None = None) -> str:
        identity = f"{len(self.messages) + 0x18C0000:016x}"
        self.messages[identity] = Message(raw, list(labels or ("INBOX", "UNREAD")), arrived or time.time())
        self._note("messagesAdded", identity)
        return identity

    def label(self, identity: str, name: str) -> None:
        self.messages[identity].labels.append(name)
        self._note("labelsAdded", identity, name)

    def delete(self, identity: str) -> None:
        del self.messages[identity]
        self._note("messagesDeleted", identity)

    def _note(self, what: str, identity: str, *added: str) -> None:
        self.newest += 7
        self.history.append((self.newest, what, identity, list(added)))


class Provider(ThreadingHTTPServer):
    """The server. `grants`: refresh token -> what it is good for; `fail`: [(status, reason), …] of the next answers."""

    daemon_threads = True

    def __init__(self, user: str = "ann@example.com") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.user = user
        self.account = Account()
        self.grants = {"refresh-1": Grant()}
        self.rotate = False
        self.access: dict[str, str] = {}  # access token -> scope
        self.seconds = 3600
        self.fail: list[tuple[int, str]] = []
        self.asked: list[str] = []  # paths
        self.tokens_given = 0
        self.writes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def token(self, form: dict[str, str]) -> tuple[int, Json]:
        grant = self.grants.get(form.get("refresh_token", ""))
        if form.get("grant_type") != "refresh_token":
            return 400, {"error": "unsupported_grant_type"}
        if grant is None:
            return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
        if (form.get("client_id"), form.get("client_secret", "")) != (grant.client_id, grant.client_secret):
            return 401, {"error": "invalid_client"}
        made = f"access-{secrets.token_hex(8)}"
        self.access[made] = grant.scope
        self.tokens_given += 1
        answer = {"access_token": made, "expires_in": self.seconds, "scope": grant.scope, "token_type": "Bearer"}
        if self.rotate:
            renewed = f"refresh-{secrets.token_hex(8)}"
            self.grants[renewed] = grant
            answer["refresh_token"] = renewed
        return 200, answer

    def get(self, path: str, query: dict[str, list[str]]) -> tuple[int, Json | list[str]]:
        account = self.account
        if path == "profile":
            return 200, {"emailAddress": self.user, "historyId": str(account.newest)}
        if path == "labels":
            return 200, {"labels": [{"id": key, "name": name} for key, name in account.labels.items()]}
        if path == "history":
            return self._history(query)
        if path == "messages":
            after = int(query["q"][0].removeprefix("after:"))
            wanted = query["labelIds"][0]
            found = [key for key, one in account.messages.items() if wanted in one.labels and one.arrived >= after]
            return self._page([{"id": key} for key in reversed(found)], "messages", query)  # newest first
        identity = path.removeprefix("messages/")
        message = account.messages.get(identity)
        if message is None:
            return _error(404, "notFound", "Requested entity was not found.")
        assert query["format"] == ["raw"]
        answer = {"id": identity, "labelIds": message.labels, "snippet": 'the "raw": text'}
        answer["raw"] = base64.urlsafe_b64encode(message.raw).decode()
        fields = query.get("fields", [",".join(answer)])[0].split(",")
        return 200, {name: value for name, value in answer.items() if name in fields}

    def _history(self, query: dict[str, list[str]]) -> tuple[int, Json]:
        account, start, label = self.account, int(query["startHistoryId"][0]), query["labelId"][0]
        if start < account.oldest:
            return _error(404, "notFound", "Requested entity was not found.")
        records = []
        for number, what, identity, added in account.history:
            message = account.messages.get(identity)
            labels = message.labels if message else []
            if number > start and what in {f"{kind.replace('Added', 'sAdded')}" for kind in query["historyTypes"]}:
                if message is not None and label not in labels:
                    continue
                change: Json = {"message": {"id": identity, "labelIds": labels or [label]}}
                if added:
                    change["labelIds"] = added
                records.append({"id": str(number), "messages": [{"id": identity}], what: [change]})
        status, answer = self._page(records, "history", query)
        return status, answer | {"historyId": str(account.newest)}

    @staticmethod
    def _page(items: list[Json], name: str, query: dict[str, list[str]]) -> tuple[int, Json]:
        start = int(query.get("pageToken", ["0"])[0])
        answer: Json = {name: items[start : start + PAGE]} if items else {}
        if start + PAGE < len(items):
            answer["nextPageToken"] = str(start + PAGE)
        return 200, answer


def _error(status: int, reason: str, message: str) -> tuple[int, Json]:
    return status, {"error": {"code": status, "message": message, "errors": [{"reason": reason}]}}


class _Handler(BaseHTTPRequestHandler):
    server: Provider
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = urlsplit(self.path)
        if parts.path != "/token":
            self.server.writes += 1
            self._send(*_error(403, "insufficientPermissions", "Request had insufficient authentication scopes."))
            return
        self._send(*self.server.token({name: values[0] for name, values in parse_qs(raw.decode()).items()}))

    def do_PUT(self) -> None:
        self.do_POST()

    def do_DELETE(self) -> None:
        self.do_POST()

    def do_GET(self) -> None:
        parts, server = urlsplit(self.path), self.server
        query = parse_qs(parts.query)
        server.asked.append(parts.path)
        if parts.path == "/tokeninfo":  # for Dovecot
            known = server.access.get(query["access_token"][0])
            self._send(*((200, {"email": server.user, "active": True}) if known else (401, {"error": "invalid_token"})))
            return
        if server.fail:
            status, reason = server.fail.pop(0)
            self._send(*_error(status, reason, "so it was told to say"))
            return
        scope = server.access.get(self.headers.get("authorization", "").removeprefix("Bearer "))
        prefix = f"/gmail/v1/users/{server.user.replace('@', '%40')}/"
        if scope is None:
            self._send(*_error(401, "authError", "Invalid Credentials"))
        elif READONLY not in scope.split():
            self._send(*_error(403, "insufficientPermissions", "Request had insufficient authentication scopes."))
        elif not parts.path.startswith(prefix):
            self._send(*_error(404, "notFound", parts.path))
        else:
            self._send(*server.get(parts.path.removeprefix(prefix), query))

    def _send(self, status: int, answer: Json | list[str]) -> None:
        body = json.dumps(answer).encode()
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


@contextlib.contextmanager
def running() -> Iterator[Provider]:
    """A server on a free port of the loopback interface."""
    server = Provider()
    with serving(server):
        yield server
