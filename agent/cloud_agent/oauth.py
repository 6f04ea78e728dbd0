"""Access tokens for a mailbox, by a refresh token (RFC 6749 §6), refused where they could send.

Nothing here puts a token into a message of an error or a log.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from cloud_agent.config import OAuth
from cloud_agent.mail import one_line
from cloud_agent.mailbox import Refused, Unreachable
from cloud_agent.state import read_json

READ_SECONDS = 30.0
MOST_ANSWER_BYTES = 1_000_000
# A token is renewed this long before it ends, or the server would refuse it in the middle of a pass.
MARGIN_SECONDS = 60.0

# Scopes that let mail be sent, of Google ("Choose Gmail API scopes": full access, send, compose, modify, and the
# settings, which can forward) and of Microsoft (SMTP.Send, Mail.Send, EWS, full_access_as_app); of others what says so.
_SENDS = re.compile(
    r"send|smtp|submission|mail\.google\.com|gmail\.(?:modify|compose|insert|settings)|addons.*compose|EWS\.|full_access",
    re.I,
)
# RFC 6749 §5.2: what no waiting mends.
_FINAL = ("invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope", "unsupported_grant_type")

# Where not the token is to blame. What else is told has the token replaced.
_CLIENT = "set IMAP_OAUTH_CLIENT_ID and IMAP_OAUTH_CLIENT_SECRET right, those that the token was made with"
_MEND = {
    "invalid_client": _CLIENT,
    "unauthorized_client": _CLIENT,
    "invalid_scope": "set IMAP_OAUTH_SCOPE right, or leave it out",
}


class Http:
    """GET and POST without redirects, which would carry a token to another host. Proxies as in the environment."""

    def __init__(self, ca_file: Path | None = None) -> None:
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect)

    def open(
        self, url: str, headers: Mapping[str, str] | None = None, data: bytes | None = None
    ) -> tuple[int, IO[bytes]]:
        """(status, body to be read). Raises Unreachable."""
        request = urllib.request.Request(url, data=data, headers=dict(headers or {}))  # noqa: S310 (config.py: https)
        try:
            answer = self._opener.open(request, timeout=READ_SECONDS)
        except urllib.error.HTTPError as error:
            return error.code, error
        except (OSError, HTTPException) as error:
            host = urllib.parse.urlsplit(url).hostname
            raise Unreachable(f"{host} cannot be reached ({_reason(error)})") from None
        return answer.status, answer

    @staticmethod
    def parse(body: IO[bytes]) -> dict[str, Any] | None:
        """An answer that is a JSON object; None where it is none. Raises Unreachable."""
        try:
            answer = json.loads(body.read(MOST_ANSWER_BYTES))
        except (OSError, HTTPException) as error:
            raise Unreachable(f"an answer broke off ({_reason(error)})") from None
        except (ValueError, RecursionError):
            return None
        return answer if isinstance(answer, dict) else None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__


class Tokens:
    """The access token of one account, renewed when it is about to end."""

    def __init__(
        self, settings: OAuth, http: Http, keep: Path, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`keep`: where a new refresh token is kept that the provider gave instead of the one in the settings."""
        self._settings = settings
        self._http = http
        self._keep = keep
        self._monotonic = monotonic
        self._token = ""
        self._ends = 0.0

    def access(self) -> str:
        """A token that can be used now. Raises Refused, and Unreachable."""
        if not self._token or self._monotonic() >= self._ends:
            self._renew()
        return self._token

    def forget(self) -> None:
        """The token was refused: the next one is a new one."""
        self._token = ""

    def _renew(self) -> None:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self._refresh_token(),
            "client_id": self._settings.client_id,
            **({"client_secret": self._settings.client_secret} if self._settings.client_secret else {}),
            **({"scope": self._settings.scope} if self._settings.scope else {}),
        }
        status, body = self._http.open(self._settings.token_url, data=urllib.parse.urlencode(form).encode())
        with body:
            answer = self._http.parse(body) or {}
        error = one_line(str(answer.get("error", "")))[:80]
        if status in (400, 401, 403) and error in _FINAL:
            if error == "invalid_grant":  # of the others the token is not the cause: it may be the last one there is
                self._keep.unlink(missing_ok=True)  # the one in the settings may be newer
            mend = _MEND.get(error, "get a new one (docs/mailbox.md)")
            raise Refused(f"the token endpoint refuses the refresh token ({error}): {mend}")
        token = answer.get("access_token")
        if status != 200 or not isinstance(token, str) or not token:
            raise Unreachable(f"the token endpoint gave no token (status {status}{f', {error}' if error else ''})")
        sending = [scope[:80] for scope in one_line(str(answer.get("scope", ""))).split() if _SENDS.search(scope)][:5]
        if sending:
            raise Refused(
                f"the refresh token can send mail (its scope: {', '.join(sending)}): revoke it, and get one that may"
                " read only (docs/mailbox.md)"
            )
        self._token = token
        try:
            seconds = float(answer.get("expires_in", 300))
        except (TypeError, ValueError):
            seconds = 300.0
        self._ends = self._monotonic() + max(seconds - MARGIN_SECONDS, 1.0)
        renewed = answer.get("refresh_token")
        if isinstance(renewed, str) and renewed and renewed != form["refresh_token"]:
            self._write(json.dumps({"of": self._origin(), "refresh_token": renewed}).encode())

    def _refresh_token(self) -> str:
        """The one that the provider gave last, unless the settings were given another one since."""
        kept = read_json(self._keep)
        renewed = kept.get("refresh_token")
        return (
            renewed if kept.get("of") == self._origin() and isinstance(renewed, str) else self._settings.refresh_token
        )

    def _write(self, content: bytes) -> None:
        temporary = self._keep.with_name(f".{self._keep.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fsync(descriptor)
        os.rename(temporary, self._keep)

    def _origin(self) -> str:
        return hashlib.sha256(self._settings.refresh_token.encode()).hexdigest()
