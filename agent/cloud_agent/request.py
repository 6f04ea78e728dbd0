"""What is asked of Claude about one mail: the prompt, the handbook, the conversation, the mail. Pure functions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cloud_agent import content, frontmatter, models
from cloud_agent.mail import Mail, one_line, shown
from cloud_agent.usage import Usage

MAX_TOKENS = 8192  # of an answer, thinking included
MAX_MAIL_CHARACTERS = 100_000
MAX_EARLIER_CHARACTERS = 30_000
LEAST_CHARACTERS = 500  # of an earlier mail; a shorter piece of one tells nothing
CACHE_SECONDS = 300.0  # a written prefix lives 5 minutes from its last use
CACHE_WRITE_FACTOR, CACHE_READ_FACTOR = 1.25, 0.1  # of the input price; some models read for less
# What the API puts around a request of ours: roles, the instruction to keep to the schema. The thousand is generous.
OVERHEAD_TOKENS = 1000

# `<` before our tag names, as a stranger might write it to end or open a fence. Replacing that one character can never
# assemble another tag, as removing the tag could.
_FENCE = re.compile(r"<(?=\s*+/?\s*+(?:untrusted_|handbook))", re.IGNORECASE)


class Reply(BaseModel):
    """The structured answer. No field of it names a recipient, a subject, a path or a status."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["reply", "review", "notify"]
    reason: str
    body: str
    confidence: Literal["low", "medium", "high"]
    missing_facts: list[str]


SCHEMA: dict[str, object] = {**Reply.model_json_schema(), "additionalProperties": False}


@dataclass(frozen=True)
class Earlier:
    """A mail of the same conversation, or a draft of ours, which may not have been sent. `text` is what a person sees
    of it: of a mail, its `content.text`."""

    kind: Literal["mail", "draft"]
    author: str
    date: str
    text: str


@dataclass(frozen=True)
class Task:
    """One mail to draft a reply to. `earlier` is oldest first; `cache` asks the API to keep prompt and handbook."""

    mail: Mail
    handbook: str
    earlier: tuple[Earlier, ...] = ()
    cache: bool = False


def system_text(handbook: str) -> str:
    """The same for each mail, so that it can be cached: no date, nothing of the mail."""
    return f"{prompt()}\n\n<handbook>\n{shown(handbook).strip()}\n</handbook>"


def user_text(task: Task) -> str:
    """The conversation and the mail as a person would see them, fenced as untrusted data.

    The fences are named by a hash of all that is in them, so that nobody can write their end into a mail. What was
    hidden in a body or a header is not in it.
    """
    headers = [f"From: {task.mail.sender}", f"Subject: {task.mail.subject}"]
    more = ("to", "cc", "date", "received", "priority", "attachments")
    headers += [f"{name.capitalize()}: {task.mail.fields[name]}" for name in more if task.mail.fields.get(name)]
    letter = "\n".join(map(_header, headers)) + "\n\n" + shortened(task.mail.content.text.strip(), MAX_MAIL_CHARACTERS)
    parts = [(f"untrusted_earlier_{one.kind}", text) for one, text in _earlier(task.earlier)]
    parts.append(("untrusted_mail", letter))
    safe = [(name, _FENCE.sub("&lt;", shown(text))) for name, text in parts]
    token = hashlib.sha256("\0".join(text for _, text in safe).encode()).hexdigest()[:16]
    fenced = [f"<{name}_{token}>\n{text}\n</{name}_{token}>" for name, text in safe]
    before = "The conversation so far, oldest first.\n\n" + "\n\n".join(fenced[:-1]) + "\n\n" if fenced[:-1] else ""
    return f"{before}Draft a reply to this mail.\n\n{fenced[-1]}"


def shortened(text: str, limit: int) -> str:
    """Head and tail of a text that is longer than `limit` characters, and between them how much was left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n\n[... {len(text) - 2 * half} characters left out here ...]\n\n{text[-half:]}"


def cacheable(handbook: str, model: str) -> bool:
    """Whether prompt and handbook together are long enough for the API to cache them.

    By four characters a token, which is few tokens for most text: where this says yes, it is so. A wrong no costs the
    saving, a wrong yes costs nothing, since the API then caches nothing and charges nothing for it.
    """
    return len(system_text(handbook)) / 4 >= models.cache_minimum(model)


def pays(calls_in_sight: int, seconds_since_last: float | None, at_once: int) -> bool:
    """Whether marking the prefix for the cache costs less than sending it plain to each of the calls in sight.

    `seconds_since_last` is the time since the last call that was marked, `at_once` how many calls start before the
    first of them has answered: no mail waits for another one's cache. Per token of the prefix, with 1 for the input
    price:

    * The cache is warm (the last marked call is less than 5 minutes old; reading renews them): each call reads, 0.1
      instead of 1. It pays for a single call.
    * It is cold: those that start at once each write, 1.25, as there is nothing to be read yet; the others read. With
      n calls, c of them at once: 1.25 c + 0.1 (n - c) < n, that is n > 1.28 c. One mail alone does not pay; four at
      once pay from six on.
    """
    if calls_in_sight < 1:
        return False
    if seconds_since_last is not None and 0 <= seconds_since_last < CACHE_SECONDS:
        return True
    writes = min(at_once, calls_in_sight)
    return CACHE_WRITE_FACTOR * writes + CACHE_READ_FACTOR * (calls_in_sight - writes) < calls_in_sight


def worst_case(task: Task) -> Usage:
    """The most tokens that one call for this task can use.

    A token of the models' vocabularies stands for at least one byte of UTF-8, so there are no more of them than bytes
    in what is sent; the rest is what the API adds. The answer ends at MAX_TOKENS, thinking included. A cached prefix
    is either read or written, and writing is dearer.
    """
    fixed = len(system_text(task.handbook).encode())
    more = len(user_text(task).encode()) + len(str(SCHEMA).encode()) + OVERHEAD_TOKENS
    if task.cache:
        return Usage(input=more, cache_write=fixed, output=MAX_TOKENS)
    return Usage(input=fixed + more, output=MAX_TOKENS)


@cache
def prompt() -> str:
    return _prompt_file()[1].strip()


@cache
def _prompt_file() -> tuple[dict[str, str], str]:
    return frontmatter.read(resources.files("cloud_agent").joinpath("prompt.md").read_text("utf-8"))


# What a draft is stamped with: the number that a person raises with each change, and the text it stands for.
PROMPT_VERSION = f"{_prompt_file()[0]['version']}-{hashlib.sha256(prompt().encode()).hexdigest()[:8]}"


def _earlier(parts: Sequence[Earlier]) -> list[tuple[Earlier, str]]:
    """The newest parts of the conversation that fit, oldest first; where some do not, the first one kept says so."""
    kept: list[tuple[Earlier, str]] = []
    room = MAX_EARLIER_CHARACTERS
    for one in reversed(parts):
        if room < LEAST_CHARACTERS:
            break
        text = shortened(one.text.strip(), room)
        room -= len(text)
        kept.append((one, "\n".join((_header(f"From: {one.author}"), _header(f"Date: {one.date}"), "", text))))
    kept.reverse()
    if left_out := len(parts) - len(kept):
        one, text = kept[0]
        kept[0] = (one, f"[... {left_out} earlier part{'' if left_out == 1 else 's'} left out here ...]\n\n{text}")
    return kept


def _header(line: str) -> str:
    return one_line(content.read(line, "text/plain").text)
