"""A stand-in of Claude's Messages API: real HTTP, the real wire format, no model.

It checks a request as the API does (key, version header, known parameters, the shape of messages and of the output
schema), answers with a thinking block before the text, as current models do, and keeps a prompt cache. The text it
writes is recognisably not Claude's. It can also fail in the ways that networks and proxies do: see Answer. Standard
library only: the demo runs it on the git host with the distribution's Python.

    python3 messages_api.py --host 0.0.0.0 --port 8080 --latency 1.0
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

KNOWN_PARAMETERS = frozenset(
    "model max_tokens messages system metadata stop_sequences stream thinking tool_choice tools output_config"
    " cache_control service_tier inference_geo container".split()
)
SIGNATURE = "(Written by the stand-in of the Messages API, not by Claude.)"


CACHE_SECONDS = 300.0
CACHE_MINIMUM_TOKENS = 1024


@dataclass
class Answer:
    """What the server sends back: an HTTP status, a body, extra headers, seconds to wait before.

    `raw` is sent instead of the body as JSON. `cut` closes the connection after so many bytes of the body. `dribble`
    sends one byte in so many seconds: of the body, or with `from_the_start` of the headers too.
    """

    status: int
    body: Json
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    raw: bytes | None = None
    cut: int | None = None
    dribble: float = 0.0
    from_the_start: bool = False


Behaviour = Callable[[Json], Answer]


def error(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    """An error as the API words it: {"type": "error", "error": {"type", "message"}, "request_id"}."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": f"req_{uuid.uuid4().hex[:24]}"}
    return Answer(status, body, headers or {})


def message(request: Json, text: str, *, stop_reason: str = "end_turn", thinking: bool = True) -> Answer:
    """A successful answer with usage counted from the real lengths, four characters a token."""
    prompt = json.dumps([request.get("system", ""), request["messages"]], ensure_ascii=False)
    content: list[Json] = []
    if thinking:
        content.append({"type": "thinking", "thinking": "Reading the mail.", "signature": "c3RhbmQtaW4="})
    content.append({"type": "text", "text": text})
    return Answer(
        200,
        {
            "id": f"msg_{uuid.uuid4().hex[:24]}",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": len(prompt) // 4,
                "output_tokens": len(text) // 4 + 5,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "service_tier": "standard",
            },
        },
    )


def thinking_only(request: Json) -> Answer:
    """A model that thought until its tokens were used up."""
    made = message(request, "", stop_reason="max_tokens")
    made.body["content"] = made.body["content"][:1]
    return made


def spend_limit() -> Answer:
    """The monthly limit of the organization's tier, a 429 that no waiting mends."""
    made = error(
        429, "rate_limit_error", "You have reached the monthly limit of your usage tier.", {"retry-after": "60"}
    )
    made.body["error"]["details"] = {"error_code": "enforced_spend_limit_reached"}
    return made


def page(html: str = "<html>Log in to the network</html>", status: int = 200) -> Answer:
    """What a proxy or a hotel's network answers instead."""
    return Answer(status, {}, {"content-type": "text/html"}, raw=html.encode())


def draft_for(request: Json) -> Answer:
    """The default behaviour: a short, polite reply to the mail in the request, in the schema that was asked for."""
    user = text_of(request["messages"][-1]["content"])
    sender = re.search(r"^From: *(.*)$", user, re.MULTILINE)
    subject = re.search(r"^Subject: *(.*)$", user, re.MULTILINE)
    local_part = re.split(r"[.@ ]", sender[1].split("<")[0].strip() if sender else "")[0].strip('"')
    body = (
        f"Dear {local_part.capitalize() or 'Sir or Madam'},\n\n"
        f"thank you for your message about “{subject[1].strip() if subject else 'your request'}”. "
        "I have read it and will come back to you with an answer shortly.\n\n"
        f"Kind regards\n\n{SIGNATURE}"
    )
    answer = {
        "decision": "reply",
        "reason": "A person asks a question that expects an answer.",
        "body": body,
        "confidence": "medium",
        "missing_facts": ["the facts that the answer needs: the stand-in knows none"],
    }
    return message(request, json.dumps(answer, ensure_ascii=False))


def text_of(content: Any) -> str:
    """The text of a message's content, which is a string or a list of blocks."""
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content if block.get("type") == "text")


def check(request: Any, headers: dict[str, str]) -> Answer | None:
    """Refuse what the real API refuses (SDK 2.12, API version 2026-10-21); None when the request is well-formed."""
    bearer = headers.get("authorization", "").removeprefix("Bearer ").strip()
    if not (bearer or headers.get("x-api-key", "").strip()):
        return error(401, "authentication_error", "authentication is required: no API key was sent")
    if not headers.get("anthropic-version"):
        return error(400, "invalid_request_error", "anthropic-version: header is required")
    if not isinstance(request, dict):
        return error(400, "invalid_request_error", "the body is not a JSON object")
    for name in request:
        if name not in KNOWN_PARAMETERS:
            return error(400, "invalid_request_error", f"{name}: Extra inputs are not permitted")
    for name, kind in (("model", str), ("max_tokens", int), ("messages", list)):
        if not isinstance(request.get(name), kind):
            return error(400, "invalid_request_error", f"{name}: Field required")
    if request["max_tokens"] < 1 or not request["messages"]:
        return error(400, "invalid_request_error", "messages: at least one message is required")
    for one in request["messages"]:
        if not isinstance(one, dict) or one.get("role") not in ("user", "assistant", "system"):
            return error(400, "invalid_request_error", "messages.0.role: Input should be 'user' or 'assistant'")
        if not text_of(one.get("content", "")).strip():
            return error(400, "invalid_request_error", "messages: text content blocks must be non-empty")
    blocks = request.get("system", "")
    if not isinstance(blocks, str):
        if not isinstance(blocks, list) or not all(
            isinstance(block, dict) and block.get("type") == "text" and block.get("text") for block in blocks
        ):
            return error(400, "invalid_request_error", "system: Input should be a string or a list of text blocks")
        if any(block.get("cache_control", {"type": "ephemeral"}).get("type") != "ephemeral" for block in blocks):
            return error(400, "invalid_request_error", "system.0.cache_control.type: Input should be 'ephemeral'")
    output_format = request.get("output_config", {}).get("format")
    if output_format is not None:
        if output_format.get("type") != "json_schema":
            return error(400, "invalid_request_error", "output_config.format.type: Input should be 'json_schema'")
        if (fault := schema_fault(output_format.get("schema"))) is not None:
            return error(400, "invalid_request_error", f"output_config.format.schema: {fault}")
    return None


def schema_fault(schema: Any) -> str | None:
    """Structured output takes closed objects without length limits; say what is wrong with a schema, or None."""
    if not isinstance(schema, dict):
        return "an object is required"
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return "For 'object' type, 'additionalProperties' must be explicitly set to false"
    for keyword in ("minLength", "maxLength", "minimum", "maximum", "maxItems"):
        if keyword in schema:
            return f"For '{schema.get('type')}' type, property '{keyword}' is not supported"
    nested = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return next((fault for child in nested if (fault := schema_fault(child)) is not None), None)


class MessagesAPI(ThreadingHTTPServer):
    """The server. `requests` holds every well-formed request; `behaviour` answers them and may be replaced."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], behaviour: Behaviour = draft_for, latency: float = 0.0) -> None:
        super().__init__(address, _Handler)
        self.behaviour = behaviour
        self.latency = latency
        self.requests: list[Json] = []
        self.lock = threading.Lock()
        self.clock = time.monotonic
        self.cache: dict[tuple[str, str], float] = {}

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def answer(self, request: Any, headers: dict[str, str]) -> Answer:
        refusal = check(request, headers)
        if refusal is not None:
            return refusal
        with self.lock:
            self.requests.append(request)
        answer = self.behaviour(request)
        if answer.status == 200 and "usage" in answer.body:
            self._count_cache(request, answer.body["usage"])
        return answer

    def _count_cache(self, request: Json, usage: Json) -> None:
        """Prompt caching as the API reports it: the prefix up to the last marked block of `system`."""
        blocks = request.get("system", "")
        marked = [n for n, block in enumerate(blocks) if isinstance(block, dict) and "cache_control" in block]
        if not marked:
            return
        prefix = text_of(blocks[: marked[-1] + 1])
        tokens = len(prefix) // 4
        if tokens < CACHE_MINIMUM_TOKENS:
            return
        key, now = (request["model"], prefix), self.clock()
        with self.lock:
            warm = now - self.cache.get(key, -CACHE_SECONDS) < CACHE_SECONDS
            self.cache[key] = now
        usage["input_tokens"] -= tokens
        usage["cache_read_input_tokens" if warm else "cache_creation_input_tokens"] += tokens


class _Handler(BaseHTTPRequestHandler):
    server: MessagesAPI
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client left
            super().handle()

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.split("?")[0] != "/v1/messages":
            self._send(error(404, "not_found_error", f"no such path: {self.path}"))
            return
        try:
            request = json.loads(raw)
        except ValueError:
            request = None
        answer = self.server.answer(request, {name.lower(): value for name, value in self.headers.items()})
        time.sleep(answer.delay + (self.server.latency if answer.status == 200 else 0.0))
        self._send(answer)

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(Answer(200, {"status": "ok", "requests": len(self.server.requests)}))
        elif self.path == "/requests":
            with self.server.lock:
                asked = list(self.server.requests)
            self._send(Answer(200, {"requests": asked}))
        else:
            self._send(error(404, "not_found_error", f"no such path: {self.path}"))

    def _send(self, answer: Answer) -> None:
        body = json.dumps(answer.body, ensure_ascii=False).encode() if answer.raw is None else answer.raw
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "request-id": answer.body.get("request_id", f"req_{uuid.uuid4().hex[:24]}"),
        }
        with contextlib.suppress(OSError):  # the client gave up waiting
            if answer.from_the_start:
                self._dribble(f"HTTP/1.1 {answer.status} OK\r\n".encode(), answer.dribble)
            else:
                self.send_response(answer.status)
            for name, value in (headers | answer.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if answer.cut is not None:
                self.wfile.write(body[: answer.cut])
                self.close_connection = True
            elif answer.dribble:
                self._dribble(body, answer.dribble)
            else:
                self.wfile.write(body)

    def _dribble(self, data: bytes, seconds: float) -> None:
        for byte in data:
            self.wfile.write(bytes([byte]))
            time.sleep(seconds)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: the tests read `requests`, the demo shows results."""


@contextlib.contextmanager
def running(behaviour: Behaviour = draft_for, latency: float = 0.0) -> Iterator[MessagesAPI]:
    """A server on a free port of the loopback interface, for the length of a `with` block."""
    server = MessagesAPI(("127.0.0.1", 0), behaviour, latency)
    from tests.standins import serving  # not above: on the lab's git host this file stands alone

    with serving(server):
        yield server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds before an answer, as a model takes")
    options = parser.parse_args()
    server = MessagesAPI((options.host, options.port), latency=options.latency)
    print(f"stand-in of the Messages API on {server.url}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
