"""A stand-in for GitHub's REST API: the deploy keys of a repository, and nothing else.

Paths, JSON and errors follow https://docs.github.com/en/rest/deploy-keys/deploy-keys. Standard library only,
Python 3.10: it runs on the git host of tests/lab, where deploy_keys.py reads the same keys file for sshd.

    python3 github_api.py --port 8081 --token-file FILE --keys-file FILE --repositories DIRECTORY

A repository exists when DIRECTORY/<owner>/<name>.git does. The token in FILE may do everything. A test that runs the
server in its own process can have the next requests refused, as GitHub does when it is out of order or out of patience:
see `Server.refusals`.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hmac
import json
import re
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

DOCUMENTATION = "https://docs.github.com/rest/deploy-keys/deploy-keys"
KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
KEYS_PATH = re.compile(r"/repos/(?P<repository>[A-Za-z0-9-]+/[A-Za-z0-9._-]+)/keys(?:/(?P<id>\d+))?")
LARGEST_BODY = 1 << 20  # bytes


class Refusal(Exception):
    """An answer that is an error, as GitHub words it."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        errors: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body: dict[str, Any] = {"message": message, "errors": errors} if errors else {"message": message}
        self.body |= {"documentation_url": DOCUMENTATION, "status": str(status.value)}


def invalid_key(message: str) -> Refusal:
    error = {"resource": "PublicKey", "code": "custom", "field": "key", "message": message}
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "Validation Failed", [error])


def normalize_key(text: object) -> str:
    """`<type> <base64>` of a public key in OpenSSH's format, without its comment. Raises Refusal (422)."""
    parts = text.split() if isinstance(text, str) else []
    if len(parts) >= 2 and parts[0] in KEY_TYPES:
        try:
            blob = base64.b64decode(parts[1], validate=True)
        except binascii.Error:
            blob = b""
        # RFC 4253 §6.6: the key begins with its own type, as a string with its length.
        name = parts[0].encode()
        if blob.startswith(len(name).to_bytes(4, "big") + name):
            return f"{parts[0]} {parts[1]}"
    raise invalid_key("key is invalid. You must supply a key in OpenSSH public key format")


class DeployKeys:
    """The registered keys of all repositories, in a JSON file that appears whole.

    An entry is GitHub's object for the key, plus `repository` ("owner/name").
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def of(self, repository: str) -> list[dict[str, Any]]:
        return [entry for entry in self._read() if entry["repository"] == repository]

    def get(self, repository: str, number: int) -> dict[str, Any]:
        """Raises Refusal (404)."""
        for entry in self.of(repository):
            if entry["id"] == number:
                return entry
        raise Refusal(HTTPStatus.NOT_FOUND, "Not Found")

    def add(self, repository: str, wanted: dict[str, Any], api_url: str) -> dict[str, Any]:
        """Register a key from GitHub's request body. Raises Refusal (422), also for a key in use anywhere."""
        key = normalize_key(wanted.get("key"))
        read_only = wanted.get("read_only", False)
        title = wanted.get("title") or ""
        if not isinstance(read_only, bool) or not isinstance(title, str):
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid request.")
        with self._lock:
            entries = self._read()
            if any(entry["key"] == key for entry in entries):
                raise invalid_key("key is already in use")
            number = 1 + max((entry["id"] for entry in entries), default=0)
            entry = {
                "id": number,
                "key": key,
                "url": f"{api_url}/repos/{repository}/keys/{number}",
                "title": title,
                "verified": True,
                "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "read_only": read_only,
                "added_by": repository.partition("/")[0],
                "last_used": None,
                "enabled": True,
                "repository": repository,
            }
            self._write([*entries, entry])
        return entry

    def remove(self, repository: str, number: int) -> None:
        """Raises Refusal (404)."""
        with self._lock:
            unwanted = self.get(repository, number)
            self._write([entry for entry in self._read() if entry != unwanted])

    def _read(self) -> list[dict[str, Any]]:
        return list(json.loads(self._path.read_text())) if self._path.exists() else []

    def _write(self, entries: list[dict[str, Any]]) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(entries, indent=1))
        beside.replace(self._path)


def page(entries: list[dict[str, Any]], query: dict[str, list[str]]) -> tuple[list[dict[str, Any]], str]:
    """The part of a list that the query's `per_page` (30, at most 100) and `page` (from 1) ask for.

    With the query for the next part, "" at the end.
    """

    def number(name: str, default: int) -> int:
        text = query.get(name, [""])[-1]
        return max(1, int(text)) if text.isdecimal() else default

    size = min(number("per_page", 30), 100)
    current = number("page", 1)
    following = f"per_page={size}&page={current + 1}" if current * size < len(entries) else ""
    return entries[(current - 1) * size : current * size], following


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    server: Server
    more_headers: dict[str, str]
    protocol_version = "HTTP/1.1"
    server_version = "github.com-stand-in"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.more_headers = {}
        # The body is read even for a refusal: it would be taken for the connection's next request.
        length = self.headers.get("Content-Length", "0")
        size = int(length) if length.isdecimal() else LARGEST_BODY + 1
        if size > LARGEST_BODY:
            self.close_connection = True
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"message": "Request body is too large"})
            return
        body = self.rfile.read(size)
        try:
            if self.server.refusals:
                raise self.server.refusals.pop(0)
            status, answer = self._route(body)
        except Refusal as refusal:
            status, answer, self.more_headers = refusal.status, refusal.body, refusal.headers
        self._send(status, answer)

    def _route(self, body: bytes) -> tuple[HTTPStatus, Any]:
        if not self.headers.get("User-Agent"):
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.",
            )
        url = urlsplit(self.path)
        if url.path == "/zen":
            return HTTPStatus.OK, "Keep it logically awesome."
        self._demand_token()
        match = KEYS_PATH.fullmatch(url.path)
        if match is None or not (self.server.repositories / f"{match['repository']}.git").is_dir():
            raise Refusal(HTTPStatus.NOT_FOUND, "Not Found")
        keys, repository = self.server.keys, match["repository"]
        api_url = f"http://{self.headers.get('Host', 'localhost')}"
        if match["id"] is None:
            if self.command == "GET":
                entries, following = page(keys.of(repository), parse_qs(url.query))
                if following:
                    self.more_headers["Link"] = f'<{api_url}{url.path}?{following}>; rel="next"'
                return HTTPStatus.OK, [public(entry) for entry in entries]
            if self.command == "POST":
                return HTTPStatus.CREATED, public(keys.add(repository, parse_body(body), api_url))
        else:
            number = int(match["id"])
            if self.command == "GET":
                return HTTPStatus.OK, public(keys.get(repository, number))
            if self.command == "DELETE":
                keys.remove(repository, number)
                return HTTPStatus.NO_CONTENT, None
        raise Refusal(HTTPStatus.NOT_FOUND, "Not Found")

    def _demand_token(self) -> None:
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if not given:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Requires authentication")
        right = self.server.token_file.read_text().strip()
        known_scheme = scheme.lower() in ("bearer", "token")
        if not known_scheme or not hmac.compare_digest(given.strip().encode(), right.encode()):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Bad credentials")

    def _send(self, status: HTTPStatus, answer: Any) -> None:
        content = b"" if answer is None else (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("X-GitHub-Media-Type", "github.v3; format=json")
        for name, value in self.more_headers.items():
            self.send_header(name, value)
        if answer is not None:
            kind = "text/plain" if isinstance(answer, str) else "application/json"
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def parse_body(body: bytes) -> dict[str, Any]:
    """Raises Refusal (400)."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refusal(HTTPStatus.BAD_REQUEST, "Problems parsing JSON")
    return value


def public(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "repository"}


class Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], keys: DeployKeys, repositories: Path, token_file: Path) -> None:
        super().__init__(address, Handler)
        self.keys = keys
        self.repositories = repositories
        self.token_file = token_file
        self.refusals: list[Refusal] = []  # answers to the next requests, whatever they ask for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--keys-file", type=Path, required=True)
    parser.add_argument("--repositories", type=Path, required=True)
    given = parser.parse_args()
    keys = DeployKeys(given.keys_file)
    Server((given.host, given.port), keys, given.repositories, given.token_file).serve_forever()


if __name__ == "__main__":
    main()
