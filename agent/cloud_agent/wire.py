"""HTTP calls that end: one deadline over connecting, headers and body, and a bound on what is read.

The timeouts of the SDK and of httpx count from one received byte to the next, so a server that dribbles bytes could
hold a call for ever. Here a timer shuts the connection's socket down instead, whatever the call is waiting for. For
that each call has a connection of its own; calls to Claude take seconds, and a connection that lay idle cannot fail
one. httpx tells of the connection through its `trace` extension.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import anthropic
import httpx2

CONNECT_SECONDS = 10.0
MAX_BODY_BYTES = 4_000_000  # an answer of 8192 tokens is some 50 kB
MAX_ENCODED_BYTES = 64_000  # we ask for no encoding; what comes gzipped all the same may grow a thousandfold


class Call:
    """One HTTP request. `sent`: it went out, at least in part. `ended`: the timer ended it."""

    def __init__(self) -> None:
        self.sent = False
        self.ended = False
        self._stream: Any = None

    def end(self) -> None:
        self.ended = True
        if self._stream is not None:
            # socket's own method: SSLSocket.shutdown would first forget its TLS under the thread that reads from it
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._stream.get_extra_info("socket"), socket.SHUT_RDWR)

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._stream = info["return_value"]
            if self.ended:
                self.end()
        elif event.endswith(".send_request_body.started") and info["request"].method != b"CONNECT":
            self.sent = True


class Wire:
    """An HTTP client for the SDK (`http`), whose calls are made within `with wire.call(seconds)`."""

    def __init__(self) -> None:
        self._here = threading.local()
        self.http = anthropic.DefaultHttpxClient(
            limits=httpx2.Limits(max_keepalive_connections=0),
            follow_redirects=False,  # a mail goes to the host that the owner named, and to no other
            event_hooks={"request": [self._watch], "response": [self._bound]},
        )

    @contextlib.contextmanager
    def call(self, seconds: float) -> Iterator[Call]:
        """The requests of this thread end after so many seconds, with an error of httpx."""
        call = self._here.call = Call()
        timer = threading.Timer(seconds, call.end)
        timer.daemon = True
        timer.start()
        try:
            yield call
        finally:
            timer.cancel()
            del self._here.call

    def _watch(self, request: httpx2.Request) -> None:
        request.extensions["trace"] = self._here.call.trace

    def _bound(self, response: httpx2.Response) -> None:
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Bounded(response.stream, MAX_ENCODED_BYTES if encoded else MAX_BODY_BYTES)


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, limit: int) -> None:
        self.stream = stream
        self.limit = limit

    def __iter__(self) -> Iterator[bytes]:
        left = self.limit
        for chunk in self.stream:
            left -= len(chunk)
            if left < 0:
                raise httpx2.ReadError(f"the answer is longer than {self.limit} bytes")
            yield chunk

    def close(self) -> None:
        self.stream.close()
