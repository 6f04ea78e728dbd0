"""The call to Claude: one mail, no tools, a structured answer that we read and validate ourselves.

Not `messages.parse`, nor the SDK's message object: a truncated, refused or odd answer must still have its usage
recorded. What is asked stands in `request`, what ends a call that does not end in `wire`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import anthropic
import httpx2
from pydantic import ValidationError

from cloud_agent.mail import one_line, shown
from cloud_agent.request import (
    MAX_TOKENS,
    SCHEMA,
    Reply,
    Task,
    system_text,
    user_text,
)
from cloud_agent.usage import Usage
from cloud_agent.wire import CONNECT_SECONDS, Wire

DEADLINE_SECONDS = 240.0  # of one draft, all tries and pauses; MAX_TOKENS at the slowest model's pace fit in
TRIES = 3
LONGEST_PAUSE = 30.0  # seconds between two tries; who asks for more is left to the next pass
LONGEST_RETRY_AFTER = 3600.0  # the SDK itself would honour a Retry-After of a day

# What the API says when no mail can be answered until a person has acted. `error_code` where it sends one (SDK,
# anthropic.types.shared), its words otherwise: spend limits that the owner has set are plain 400s.
_MONEY_CODES = ("enforced_spend_limit_reached", "contract_spend_limit_reached")
_MONEY = re.compile(r"credit balance|spend(?:ing)? limit|usage limits|billing", re.IGNORECASE)
_ACCOUNT = re.compile(r"organization", re.IGNORECASE)
_MODEL = re.compile(
    r"\bmodel\b|max_tokens|output_config|output_format|structured output|json_schema|cache_control|extra inputs",
    re.IGNORECASE,
)
# ... and when it is this mail, although the words for the model may stand in it too.
_MAIL = re.compile(r"too long|too large|context limit|context window|content filter", re.IGNORECASE)
# A gateway gave up waiting for the API, which may have answered it since.
_GATEWAY_TIMEOUTS = (502, 504, 524)
_OVERLOAD = (429, 503, 529)


@dataclass(frozen=True)
class Answer:
    """What came back: a valid reply, or why there is none. Its usage was paid for either way."""

    model: str
    usage: Usage
    reply: Reply | None
    fault: str = ""


class Drafter(Protocol):
    """Whatever can draft: Claude, or a stand-in in tests. May raise the three errors below."""

    def draft(self, task: Task) -> Answer: ...


class TryLater(Exception):
    """Overload, rate limit, outage: the mail stays in the inbox and is tried again.

    `retry_after`: seconds for which the API wants to be left alone, 0 where it did not say, an hour at most. `sent`:
    the request went out and no answer came, so that it may have been paid for. `overload`: it is the API's or the
    network's state and would be the same for any mail; without it this mail may be the cause.
    """

    def __init__(self, message: str, retry_after: float = 0.0, sent: bool = False, overload: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.sent = sent
        self.overload = overload


class Refused(Exception):
    """Key, permission, money or model name: no mail can be drafted until a person mends it. The message says how."""


class Unanswerable(Exception):
    """The API will not take this mail. The message is its reason."""


class Claude:
    """Claude through the SDK, with our own retries and one deadline around it.

    `sleep` waits so many seconds and returns true when the wait was cut short because the agent is to stop.
    """

    def __init__(
        self,
        api_key: str,
        model: str,
        base_url: str | None = None,
        sleep: Callable[[float], object] = time.sleep,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        self.model = model
        self.sleep = sleep
        self.deadline = deadline
        self.key_is_sendable = api_key.isascii() and api_key.isprintable()
        self.wire = Wire()
        self.client = anthropic.Anthropic(
            api_key=api_key,
            auth_token=None,
            base_url=base_url,
            max_retries=0,
            http_client=self.wire.http,
            default_headers={"accept-encoding": "identity"},
        )

    def draft(self, task: Task) -> Answer:
        """Draft a reply. Raises TryLater, Refused or Unanswerable; each of TRIES waits longer (1 s, 2 s).

        A request that went out and was not answered is not repeated at once: each repetition might be paid for too.
        """
        if not self.key_is_sendable:
            raise Refused("CLAUDE_API_KEY holds characters that no key has: copy it from Claude's console again")
        ends = time.monotonic() + self.deadline
        for attempt in range(TRIES):
            try:
                return self._once(task, ends - time.monotonic())
            except TryLater as error:
                pause = max(2.0**attempt, error.retry_after)
                too_late = pause > LONGEST_PAUSE or time.monotonic() + pause >= ends
                if error.sent or attempt == TRIES - 1 or too_late:
                    raise
                if self.sleep(pause):
                    raise TryLater("the agent was asked to stop", error.retry_after, overload=True) from error
        raise AssertionError("the loop returns or raises")

    def _once(self, task: Task, seconds: float) -> Answer:
        with self.wire.call(seconds) as call:
            try:
                response = self.client.messages.with_raw_response.create(
                    model=self.model,
                    max_tokens=MAX_TOKENS,
                    system=_system(task),
                    messages=[{"role": "user", "content": user_text(task)}],
                    output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
                    timeout=httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
                )
            except anthropic.APIStatusError as error:
                raise problem(error) from error
            except anthropic.APIConnectionError as error:
                why = f"no answer within {self.deadline:g} s" if call.ended else _cause(error)
                raise TryLater(f"{self.client.base_url.host}: {why}", sent=call.sent, overload=not call.sent) from error
        try:
            return read_answer(response.http_response.content, self.model)
        except NotTheMessagesAPI as error:
            what = f"what answers at {self.client.base_url.host} is not the Messages API: {error}"
            raise TryLater(what, overload=True) from error
        except BrokenAnswer as error:
            is_json = "json" in response.headers.get("content-type", "")  # else it is a page of a proxy
            what = f"{self.client.base_url.host} sent a broken answer: {error}"
            raise TryLater(what, sent=is_json, overload=not is_json) from error


class NotTheMessagesAPI(Exception):
    """JSON, but of something else."""


class BrokenAnswer(Exception):
    """No JSON, or not all of it."""


def read_answer(body: bytes, model: str) -> Answer:
    """Read the body of a response with status 200; `model` is the one that was asked for. Pure.

    Raises BrokenAnswer or NotTheMessagesAPI. With its usage in it, whatever else is odd is a fault of the answer.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BrokenAnswer(f"{type(error).__name__}, {len(body)} bytes") from error
    used = data.get("usage") if isinstance(data, dict) else None
    if not isinstance(used, dict) or "input_tokens" not in used:
        raise NotTheMessagesAPI("its answer names no usage")
    names = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    counts = [used.get(name) or 0 for name in names]
    if not all(isinstance(count, int) and 0 <= count < 10**9 for count in counts):
        raise NotTheMessagesAPI("its usage is no count of tokens")
    blocks = data.get("content")
    # A thinking block may come first: only text blocks count, all of them.
    texts = [
        block["text"]
        for block in (blocks if isinstance(blocks, list) else ())
        if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)
    ]
    named = data.get("model")
    reply, fault = read_reply(shown("".join(texts)), str(data.get("stop_reason") or ""))
    return Answer(
        one_line(shown(named))[:100] if isinstance(named, str) and named else model, Usage(*counts), reply, fault
    )


def read_reply(text: str, stop_reason: str) -> tuple[Reply | None, str]:
    """Validate the structured answer. Returns (reply, "") or (None, why there is none). Pure."""
    if stop_reason == "refusal":
        return None, "the model refused to answer this mail"
    if stop_reason in ("max_tokens", "model_context_window_exceeded"):
        return None, f"the answer was cut off ({stop_reason})"
    if not text.strip():
        return None, "the answer has no text"
    try:
        reply = Reply.model_validate_json(text)
    except ValidationError as error:
        return None, f"the answer does not have the agreed form ({error.error_count()} faults)"
    if reply.decision == "reply" and not reply.body.strip():
        return None, "the answer has no text"
    return reply, ""


def problem(error: anthropic.APIStatusError) -> TryLater | Refused | Unanswerable:
    """What an HTTP error of the API means for the mail in hand and for all others. Pure.

    | status                        | what it is about                        | then
    | 401, 403                      | the key                                 | Refused
    | 402; 4xx that speaks of money | credit, or a spend limit                | Refused
    | 404                           | the model's name, or the URL            | Refused
    | 400 on account or model       | e.g. a model without structured output  | Refused
    | 400, 413, 422 otherwise       | this mail, e.g. too long                | Unanswerable
    | 3xx, 4xx not in the API's form| a login page, a proxy                   | TryLater
    | 408, 409, 429, 5xx, 529       | load, outage                            | TryLater
    """
    status, text = error.status_code, _text(error)
    said = f"{status}: {text or 'no reason given'}"
    if status in (401, 403):
        return Refused(f"Claude's API refused the key ({said}): set a valid CLAUDE_API_KEY that may use this model")
    if (
        status == 402
        or error.type == "billing_error"
        or error.error_code in _MONEY_CODES
        or (text and status < 500 and _MONEY.search(text))
    ):
        return Refused(
            f"Claude's API wants payment ({said}): add credit or raise the spend limit in its console (Billing, Limits)"
        )
    if status == 404:
        return Refused(
            f"Claude's API does not know this ({said}): correct CLAUDE_MODEL, or CLAUDE_BASE_URL if you set it"
        )
    if status == 413:
        return Unanswerable(said)
    if status in (400, 422) and text:
        if _MAIL.search(text):
            return Unanswerable(said)
        if _ACCOUNT.search(text):
            return Refused(f"Claude's API refused the account ({said}): look into its console")
        if _MODEL.search(text):
            return Refused(f"Claude's API refused the request for {said}: set another CLAUDE_MODEL")
        return Unanswerable(said)
    if status < 500 and status not in (408, 409, 429):
        why = f"HTTP {status}, not in the form of Claude's API: is a proxy or a login page between?"
        return TryLater(why, overload=True)
    return TryLater(said, retry_after(error), sent=status in _GATEWAY_TIMEOUTS, overload=status in _OVERLOAD)


def retry_after(error: anthropic.APIStatusError) -> float:
    """Seconds that the response asks to wait, at most LONGEST_RETRY_AFTER; 0 where it does not say so in seconds."""
    try:
        seconds = float(error.response.headers.get("retry-after", "0"))
    except ValueError:
        return 0.0
    return min(seconds, LONGEST_RETRY_AFTER) if seconds > 0 else 0.0  # not for a nan


def _system(task: Task) -> str | list[anthropic.types.TextBlockParam]:
    text = system_text(task.handbook)
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}] if task.cache else text


def _text(error: anthropic.APIStatusError) -> str:
    """The API's own words, short, or "" when the answer is not in its form."""
    body: Any = error.body
    inner = body.get("error") if isinstance(body, dict) else None
    text = inner.get("message") if isinstance(inner, dict) else None
    return one_line(shown(text))[:300] if isinstance(text, str) else ""


def _cause(error: anthropic.APIConnectionError) -> str:
    """Why there was no connection; the SDK says no more than that there was none."""
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:300] or type(cause).__name__
