"""The call to Claude: one mail, no tools, a structured answer that we validate ourselves.

`messages.create`, not `messages.parse`: a truncated or refused answer must still have its usage recorded.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Literal, Protocol

import anthropic
from pydantic import BaseModel, ConfigDict, ValidationError

from cloud_agent.mail import Mail, shown
from cloud_agent.usage import Usage

MAX_TOKENS = 8192  # thinking included
TIMEOUT_SECONDS = 120.0
TRIES = 3
LONGEST_RETRY_AFTER = 30.0  # seconds; the SDK itself would honour a Retry-After of a day
MAX_MAIL_CHARACTERS = 400_000


class Reply(BaseModel):
    """The structured answer. No field of it names a recipient, a subject, a path or a status."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["reply", "review"]
    reason: str
    body: str
    confidence: Literal["low", "medium", "high"]
    missing_facts: list[str]


SCHEMA: dict[str, object] = {**Reply.model_json_schema(), "additionalProperties": False}


@dataclass(frozen=True)
class Answer:
    """What came back: a valid reply, or why there is none. Its usage was paid for either way."""

    model: str
    usage: Usage
    reply: Reply | None
    fault: str = ""


class Drafter(Protocol):
    """Whatever can draft: Claude, or a stand-in in tests. May raise the three errors below."""

    def draft(self, mail: Mail, handbook: str) -> Answer: ...


class TryLater(Exception):
    """Overload, rate limit, outage: the mail stays in the inbox and is tried again."""


class Refused(Exception):
    """Key, permission, money or model name: no mail can be drafted until a person mends it. The message says how."""


class Unanswerable(Exception):
    """The API will not take this mail. The message is its reason."""


class Claude:
    """Claude through the SDK, with our own retries and deadlines around it."""

    def __init__(
        self,
        api_key: str,
        model: str,
        base_url: str | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.model = model
        self.sleep = sleep
        self.client = anthropic.Anthropic(
            api_key=api_key, base_url=base_url, timeout=TIMEOUT_SECONDS, max_retries=0, auth_token=None
        )

    def draft(self, mail: Mail, handbook: str) -> Answer:
        """Draft a reply. Raises TryLater, Refused or Unanswerable; each of TRIES waits longer (1 s, 2 s)."""
        for attempt in range(TRIES):
            try:
                return self._once(mail, handbook)
            except (anthropic.RateLimitError, anthropic.APIConnectionError, anthropic.InternalServerError) as error:
                if attempt == TRIES - 1:
                    raise TryLater(_said(error)) from error
                self.sleep(max(2.0**attempt, _retry_after(error)))
            except (anthropic.AuthenticationError, anthropic.PermissionDeniedError) as error:
                raise Refused(f"Claude's API refused the key ({_said(error)}): set a valid CLAUDE_API_KEY") from error
            except anthropic.NotFoundError as error:
                raise Refused(f"Claude's API does not know this ({_said(error)}): correct CLAUDE_MODEL") from error
            except json.JSONDecodeError as error:
                raise TryLater(f"{self.client.base_url.host} sent a broken answer") from error
            except anthropic.APIStatusError as error:
                if error.status_code == 402 or "credit balance" in str(error).lower():
                    raise Refused(f"Claude's API wants payment ({_said(error)}): add credit in its console") from error
                if error.status_code in (408, 409):
                    raise TryLater(_said(error)) from error
                raise Unanswerable(_said(error)) from error
        raise AssertionError("the loop returns or raises")

    def _once(self, mail: Mail, handbook: str) -> Answer:
        message = self.client.messages.create(
            model=self.model,
            max_tokens=MAX_TOKENS,
            system=f"{prompt()}\n\n<handbook>\n{handbook.strip()}\n</handbook>",
            messages=[{"role": "user", "content": user_text(mail)}],
            output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
        )
        used = getattr(message, "usage", None)
        if not isinstance(used, anthropic.types.Usage):  # 200, but a proxy's own page
            raise TryLater(f"what answers at {self.client.base_url.host} is not the Messages API")
        usage = Usage(
            input=used.input_tokens or 0,
            output=used.output_tokens or 0,
            cache_write=used.cache_creation_input_tokens or 0,
            cache_read=used.cache_read_input_tokens or 0,
        )
        # A thinking block may come first: only text blocks count, all of them.
        text = "".join(block.text for block in message.content or () if block.type == "text")
        reply, fault = read_reply(text, message.stop_reason or "")
        return Answer(str(message.model), usage, reply, fault)


def read_reply(text: str, stop_reason: str) -> tuple[Reply | None, str]:
    """Validate the structured answer. Returns (reply, "") or (None, why there is none). Pure."""
    if stop_reason == "refusal":
        return None, "the model refused to answer this mail"
    if stop_reason in ("max_tokens", "model_context_window_exceeded"):
        return None, f"the answer was cut off ({stop_reason})"
    try:
        reply = Reply.model_validate_json(text)
    except ValidationError as error:
        return None, f"the answer does not have the agreed form ({error.error_count()} faults)"
    if reply.decision == "reply" and not reply.body.strip():
        return None, "the answer has no text"
    return reply, ""


def prompt() -> str:
    return resources.files("cloud_agent").joinpath("prompt.md").read_text("utf-8").strip()


def user_text(mail: Mail) -> str:
    """The mail, whole, fenced as untrusted data. Pure.

    The fence's name is a hash of the mail, so that the mail cannot contain its own end; tags of that form are taken
    out until none is left (removing one may assemble another).
    """
    body = shown(mail.body).strip()
    if len(body) > MAX_MAIL_CHARACTERS:
        half = MAX_MAIL_CHARACTERS // 2
        left_out = len(body) - 2 * half
        body = f"{body[:half]}\n\n[... {left_out} characters left out of this very long mail ...]\n\n{body[-half:]}"
    headers = [f"From: {mail.sender}", f"Subject: {mail.subject}"]
    more = ("to", "cc", "date", "received", "priority")
    headers += [f"{name.capitalize()}: {mail.fields[name]}" for name in more if mail.fields.get(name)]
    content = shown("\n".join(headers)) + "\n\n" + body
    while (stripped := re.sub(r"</?untrusted_mail_\w*>", "", content)) != content:
        content = stripped
    tag = f"untrusted_mail_{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    return f"Draft a reply to this mail.\n\n<{tag}>\n{content}\n</{tag}>"


def _said(error: Exception) -> str:
    """The API's own words, short; the SDK's text never holds the key."""
    if isinstance(error, anthropic.APIStatusError):
        body = error.body
        if isinstance(body, dict) and isinstance(body.get("error"), dict):
            return f"{error.status_code}: {body['error'].get('message', '')}"[:300]
        return f"HTTP {error.status_code}"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _retry_after(error: Exception) -> float:
    if not isinstance(error, anthropic.APIStatusError):
        return 0.0
    try:
        return min(float(error.response.headers.get("retry-after", "0")), LONGEST_RETRY_AFTER)
    except ValueError:
        return 0.0
