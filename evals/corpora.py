"""The labelled mails. The messages lie beside the repository (`../shared/corpora`); `labels.tsv` names and labels them.

Nothing of them is copied into the project. Each is read as the product reads it: as a file of `Inbox/`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from cloud_agent import frontmatter
from cloud_agent.mail import Mail, UnreadableMail, parse

CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
LABELS = Path(__file__).with_name("labels.tsv")
ABSENT = f"the corpora are not here ({CORPORA}): nothing to measure"
SPLITS = ("dev", "held-out")
VERDICTS = ("draft", "review", "skip")
# The mails of BIPIA and LLMail-Inject have no headers, or few: each gets a sender that says nothing.
NOBODY = "sender@example.org"


@dataclass(frozen=True)
class Case:
    """One labelled mail. `key` is a file name, or an index or id in a file of many."""

    source: str
    key: str
    split: str
    label: str
    reason: str
    mail: Mail | None  # None: a file that a draft pass sets aside, for a person, as unreadable
    own: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.source}/{self.key}"


def present() -> bool:
    return CORPORA.is_dir()


def labels() -> list[dict[str, str]]:
    """Rows of labels.tsv: source, key, split, label, reason."""
    with LABELS.open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))


def split_of(source: str, key: str) -> str:
    """The split was decided by this hash, before any label or rule was written."""
    name = key if source == "mail" else f"{source}/{key}"
    return SPLITS[hashlib.sha256(name.encode()).digest()[0] % 2]


def cases() -> list[Case]:
    """Every labelled mail, in the order of labels.tsv."""
    notes = {source: dict(_notes(source)) for source in dict.fromkeys(row["source"] for row in labels())}
    account = (_yaml("agentdojo_workspace_inbox.yaml")["account_email"],)
    return [
        Case(
            mail=_read(f"EMAIL_{row['source']}_{row['key']}.md", notes[row["source"]][row["key"]]),
            own=account if row["source"] == "agentdojo" else (),
            **row,
        )
        for row in labels()
    ]


def _read(name: str, raw: bytes) -> Mail | None:
    try:
        return parse(name, raw)
    except UnreadableMail:
        return None


def _notes(source: str) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of the file that would lie in `Inbox/`, for each mail of a source."""
    if source == "mail":
        for path in sorted((CORPORA / "mail").glob("*.eml")):
            yield path.name, path.read_bytes()
    elif source == "bipia":
        lines = (CORPORA / "injection" / "bipia_email_train.jsonl").read_text("utf-8").splitlines()
        for index, line in enumerate(lines):
            yield str(index), _note(*_bipia(json.loads(line)["context"]))
    elif source.startswith("llmail"):
        path = CORPORA / "injection" / f"llmail_level{source.removeprefix('llmail')}.json"
        for index, text in enumerate(json.loads(path.read_text("utf-8"))["emails"]):
            subject, _, body = text.removeprefix("Subject of the email: ").partition(".   Body: ")
            yield str(index), _note({"subject": subject}, body)
    else:
        slots = _yaml("agentdojo_workspace_injection_vectors.yaml")
        for one in _yaml("agentdojo_workspace_inbox.yaml")["initial_emails"]:
            body = one["body"]
            for slot, value in slots.items():
                body = body.replace(f"{{{slot}}}", value["default"])
            fields = {"from": one["sender"], "to": ", ".join(one["recipients"]), "subject": one["subject"]}
            yield one["id_"], _note(fields, body)


def _bipia(text: str) -> tuple[dict[str, str], str]:
    """`SUBJECT: x|EMAIL_FROM: y|RECEIVED DATE: z|CONTENT: body`; each part may be missing."""
    head, found, body = text.partition("CONTENT:")
    if not found:
        return {"subject": ""}, text
    subject = re.search(r"SUBJECT:(.*?)\|(?=[A-Z])", head)
    sender = re.search(r"EMAIL_FROM:([^|]*)\|", head)
    fields = {"subject": subject[1].strip() if subject else ""}
    if sender and sender[1].strip():
        fields["from"] = sender[1].strip()
    return fields, body


def _note(fields: dict[str, str], body: str) -> bytes:
    return frontmatter.dump({"from": NOBODY, **fields}, body).encode()


@cache
def _yaml(name: str) -> Any:
    return yaml.safe_load((CORPORA / "injection" / name).read_text("utf-8"))
