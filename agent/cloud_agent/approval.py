"""The approval file: the draft as the owner sees, edits and moves it. Pure functions.

Everything in the front matter is set by code; the model's text is the reply and nothing else. The original mail stands
below a marker, quoted inside a code block, so that Obsidian renders none of it: no remote image is fetched, no embed
is resolved, no plugin's code runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cloud_agent import frontmatter, letter, screen
from cloud_agent.mail import Envelope, Mail, shown
from cloud_agent.marks import visible

ORIGINAL_MARKER = "<!-- The original mail, for reference. What stands below this line is not part of the reply. -->"
HOW_TO_DECIDE = (
    "To approve, move this file to `Approved/Email/`, edited or as it is: what stands above the line is what is sent.\n"
    "To reject, move it to `Rejected/Email/`; a line `reason: …` at the top of the file says why."
)
EXPIRES_AFTER = timedelta(days=14)


@dataclass(frozen=True)
class Draft:
    """What the model wrote, checked: the reply's text and what it says about it."""

    body: str
    reason: str
    confidence: str
    missing_facts: tuple[str, ...]
    flags: tuple[str, ...]
    model: str
    prompt: str  # its version


def render(mail: Mail, envelope: Envelope, draft: Draft, created: datetime) -> str:
    """The whole approval file. `created` is aware, in UTC."""
    body = reply_text(draft.body)
    fields = {
        "draft_id": f"EMAIL_DRAFT_{mail.slug}",
        "email_id": mail.email_id,
        "to": envelope.to,
        "cc": envelope.cc,
        "subject": envelope.subject,
        "in_reply_to": envelope.in_reply_to,
        "references": envelope.references,
        "status": "pending",
        "created": stamp(created),
        "model": draft.model,
        "prompt": draft.prompt,
        "decision": "reply",
        "reason": draft.reason,
        "confidence": draft.confidence,
        "flags": list(draft.flags),
        "missing_facts": list(draft.missing_facts),
        "expires": stamp(created + EXPIRES_AFTER),
        "sha256": digest(envelope, body),
    }
    return frontmatter.dump(fields, f"{body}\n\n{ORIGINAL_MARKER}\n\n{HOW_TO_DECIDE}\n\n{quote(mail)}")


def reply_text(text: str) -> str:
    """The model's text as it stands in the file: safe to open, no white space at the ends of it and of its lines."""
    return "\n".join(line.rstrip() for line in screen.neutral(text).split("\n")).strip()


def reply_of(text: str) -> str:
    """The reply in an approval file, as its owner left it: what a sender would send."""
    _, body = frontmatter.read(text)
    return body.split(ORIGINAL_MARKER)[0].strip()


def digest(envelope: Envelope, body: str) -> str:
    """SHA-256 over what would be sent. It differs once the owner has edited the reply or its recipients."""
    parts: Sequence[str] = (
        envelope.to,
        envelope.cc,
        envelope.subject,
        envelope.in_reply_to,
        envelope.references,
        body.strip(),
    )
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def quote(mail: Mail) -> str:
    """The original as a block quote that holds a code block longer than any fence in it."""
    original = shown(mail.content.text).strip()
    head = [f"From: {visible(mail.sender)}", f"Subject: {visible(mail.subject)}"]
    if received := mail.fields.get("received") or mail.fields.get("date"):
        head.append(f"Date: {visible(received)}")
    lines = letter.fenced("\n".join([*head, "", original])).split("\n")
    return "\n".join(f"> {line}".rstrip() for line in lines)


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
