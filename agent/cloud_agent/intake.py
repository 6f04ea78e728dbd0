"""Intake: whole messages (RFC 5322) become `Inbox/EMAIL_*.md`, each message one file.

`convert` is pure: the same message makes the same file, whoever brings it. `Intake` writes it, once, wherever the mail
has moved since.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO

from cloud_agent import aside, frontmatter, gate, letter, message
from cloud_agent.config import Config
from cloud_agent.content import Content
from cloud_agent.journal import Journal
from cloud_agent.kept import keep
from cloud_agent.mail import DRAFT_PREFIX, MAIL_PREFIX, encode, one_line, shown
from cloud_agent.state import Clock, State, iso
from cloud_agent.vault import DONE, IN_PROGRESS, INBOX, NEEDS_ACTION, PENDING, SKIPPED, ForbiddenPath, Vault, lock

log = logging.getLogger("cloud_agent.intake")

# What is taken of one message. Providers stop at 150 MB at most; what is read of it has bounds of its own (message.py).
MAX_BYTES = 160_000_000
MAX_FIELDS = 60  # beyond those of DESIGN §3; whoever writes a mail writes its header

# The fields of DESIGN §3 as a message has them, in the order in which they stand in the note.
_FIELDS = (
    "from subject to cc reply_to message_id in_reply_to references date return_path auto_submitted precedence list_id"
    " list_unsubscribe x_auto_response_suppress content_type"
).split()
_TEXT_CUT = f"the message is larger than {MAX_BYTES // 1_000_000} MB: its end was not taken"
_HEADER_CUT = "the message's header is too large: fields at its end were not read"


class NoMessage(Exception):
    """What was brought is no message; the text says why, and what to do."""


@dataclass(frozen=True)
class Entry:
    """A message as a mail of the vault. `fields`: its front matter, texts and lists of texts."""

    email_id: str
    fields: Mapping[str, str | list[str]]
    content: Content

    @property
    def name(self) -> str:
        return f"{MAIL_PREFIX}{self.email_id}.md"

    def note(self) -> bytes:
        """The file: strict YAML, then what a person sees of the message, in a block that Obsidian does not render."""
        return encode(shown(frontmatter.dump(self.fields, letter.write(self.content))))


@dataclass(frozen=True)
class Taken:
    """The mail was written to `path`."""

    path: str


@dataclass(frozen=True)
class Known:
    """The mail was taken in before, and lies at `path` by now, or its draft does."""

    path: str


@dataclass(frozen=True)
class SetAside:
    """A message that cannot be converted: kept whole; the note at `path` says where, and the reason."""

    path: str
    reason: str


# -- the message -------------------------------------------------------------------------------------------------------


def convert(raw: bytes) -> Entry:
    """Read one message. Pure; raises NoMessage."""
    return _entry(raw, *_head(raw))


def _head(raw: bytes) -> tuple[dict[str, str], str]:
    """The header fields of a message, and its id. Raises NoMessage."""
    if why := _objection(raw):
        raise NoMessage(why)
    headers = {name: one_line(shown(value)) for name, value in message.fields(raw).items()}
    return headers, identity(raw[:MAX_BYTES], headers)


def _entry(raw: bytes, headers: Mapping[str, str], email_id: str) -> Entry:
    findings = [_TEXT_CUT] if len(raw) > MAX_BYTES else []
    raw = raw[:MAX_BYTES]
    if message.header_is_too_large(raw):
        findings.append(_HEADER_CUT)
    seen = message.content(raw)
    fields: dict[str, str | list[str]] = {"email_id": email_id}
    fields |= {name: headers[name] for name in ("from", "subject") if headers.get(name)}
    if is_urgent(headers):
        fields["priority"] = "high"
    if moment := _moment(headers.get("received", "").rpartition(";")[2]):
        fields["received"] = iso(moment)
    others = [name for name in headers if gate.reads(name) and name not in _FIELDS]
    fields |= {name: headers[name] for name in (*_FIELDS[2:], *others[:MAX_FIELDS]) if headers.get(name)}
    if seen.attachments:
        fields["attachments"] = list(seen.attachments)
    if flags := [*seen.findings, *findings]:
        fields["flags"] = [one_line(flag) for flag in flags]
    fields["message_sha256"] = hashlib.sha256(raw).hexdigest()
    return Entry(email_id, fields, seen)


def _objection(raw: bytes) -> str:
    """Why this is no message, and what to do; nothing where it is one."""
    if not raw[:1000].strip(_NOTHING) and not raw.strip(_NOTHING):  # a copy of it all only where it may be empty
        return "it is empty: look whether what was to bring it has run"
    if message.has_header(raw):
        return ""
    if b"\0" in raw[:1000]:
        return "it is a binary file: save the message as text, with its header (.eml), and not as .msg or .pst"
    return (
        "it does not begin with a header field such as `From:`: save the whole message with its header (“show "
        "original”, .eml); a note of your own goes to Inbox/ as EMAIL_….md"
    )


_NOTHING = b"\0\t\n\r "


def identity(raw: bytes, headers: Mapping[str, str]) -> str:
    """The id of a message: its day, and a hash of it. Who passes mail on changes line ends, and an mbox has a line
    before a message and one after it: that makes it no other."""
    digest = hashlib.sha256()
    tail = raw[-1000:]
    end = len(raw) - len(tail) + len(tail.rstrip(b"\r\n"))
    for place in range(message.start(raw), end, _CHUNK):  # piece by piece: a copy of it all may be large
        piece = raw[place : min(place + _CHUNK, end)]
        if piece.endswith(b"\r") and raw[place + _CHUNK : place + _CHUNK + 1] == b"\n":
            piece = piece[:-1]
        digest.update(piece.replace(b"\r\n", b"\n"))
    short = digest.hexdigest()[:16]
    day = _moment(headers.get("received", "").rpartition(";")[2]) or _moment(headers.get("date", ""))
    return f"{day.date().isoformat()}-{short}" if day else short


_CHUNK = 1_000_000


def _moment(value: str) -> datetime | None:
    """The time that a header field says, in UTC; None where it says none."""
    try:
        moment = parsedate_to_datetime(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


_URGENT = re.compile(r"high|urgent|[12]\b", re.I)


def is_urgent(headers: Mapping[str, str]) -> bool:
    """Whether its sender calls a message urgent: Importance (RFC 2156 §5.3.6), X-Priority, Priority."""
    names = ("importance", "x_priority", "priority", "x_msmail_priority")
    return any(_URGENT.match(headers.get(name, "").strip()) for name in names)


# -- the vault ---------------------------------------------------------------------------------------------------------

# Where a mail lies under its name, and its draft, once Cloud or the owner has moved it; and In_Progress/*.
_MAILS = (INBOX, NEEDS_ACTION, DONE, SKIPPED)
_DRAFTS = (PENDING, "Approved/Email", "Rejected/Email", DONE)


class Intake:
    """Takes messages in, beside the running loops."""

    def __init__(self, config: Config, state: State, clock: Clock) -> None:
        self.vault = Vault(config.vault_path, config.agent_name, intake=True)
        self.state = state
        self.keep = config.keep
        self.journal = Journal(self.vault, config.agent_name, "audit", clock, state)

    def take(self, raw: bytes) -> Taken | Known | SetAside:
        """Write a message into the inbox, unless it was taken in before. The file is whole and on disk, or not there.

        Raises NoMessage; and OSError or ForbiddenPath where the vault cannot be written: it can be tried again.
        """
        try:
            headers, email_id = _head(raw)
            if known := self._known(email_id):  # nothing else need be read: a Maildir is taken in again and again
                return Known(known)
            entry = _entry(raw, headers, email_id)
            content = entry.note()
        except (NoMessage, OSError, ForbiddenPath):
            raise
        except Exception as error:
            log.exception("a message cannot be converted: this is a fault of the program")
            return self.set_aside(raw, f"it cannot be converted ({type(error).__name__})")
        with lock(self.state.tree_lock):
            if known := self._known(email_id):
                return Known(known)
            if self.keep is not None:  # first: a mail that is there is not looked at again
                keep(self.keep, email_id, raw)
            return Taken(self.vault.write_numbered(f"{INBOX}/{entry.name}", content))

    def set_aside(self, raw: bytes, reason: str) -> Known | SetAside:
        """Keep what cannot be taken in, where a person finds it with the reason. Raises as `take` does."""
        email_id = identity(raw, {})
        with lock(self.state.tree_lock):
            if known := self._known(email_id):
                return Known(known)
            return SetAside(aside.keep(self.vault, self.journal, f"{MAIL_PREFIX}{email_id}.md", raw, reason), reason)

    def _known(self, email_id: str) -> str:
        """Where a mail of this id lies, or its draft. By its name alone: it costs the same however much is stored, and
        where a person has given it another one, the draft pass knows it by its fields."""
        in_progress = self.vault.folders(IN_PROGRESS)
        places = [f"{folder}/{MAIL_PREFIX}{email_id}.md" for folder in (*_MAILS, *in_progress)]
        places += [f"{folder}/{DRAFT_PREFIX}{email_id}.md" for folder in _DRAFTS]
        return next((path for path in places if self.vault.is_file(path)), "")


# -- files -------------------------------------------------------------------------------------------------------------


def messages(path: Path) -> Iterator[bytes | OSError]:
    """The messages of a file: one, or those of an mbox; of a Maildir, all of `new` and `cur`, or why it cannot be had.
    Of each at most MAX_BYTES + 1 bytes, which `convert` takes for too many. Raises OSError."""
    if path.is_dir():
        for folder in ("new", "cur"):  # in this order: mail programs move from one to the other meanwhile
            for entry in sorted((path / folder).iterdir()):
                if not entry.name.startswith("."):
                    try:
                        with entry.open("rb") as file:
                            raw = read(file)
                    except OSError as error:  # another user's, or renamed since: the others are to be had
                        yield error
                    else:
                        yield raw
        return
    with path.open("rb") as file:
        yield from _split(file)


def read(file: BinaryIO) -> bytes:
    """One message; what is longer is read to its end, so that who writes it into a pipe is not stopped."""
    raw = file.read(MAX_BYTES + 1)
    while len(raw) > MAX_BYTES and file.read(_CHUNK):
        pass
    return raw


# A line that begins a message of an mbox (RFC 4155): an address, and a date.
_FROM_LINE = re.compile(rb"From \S+ .{0,60}\d\d:\d\d.{0,60}\r?\n")
_FIELD_LINE = re.compile(rb">?From |[!-9;-~]{1,100}[ \t]*:")


def _split(file: BufferedReader) -> Iterator[bytes]:
    """The messages of an mbox, which begin with a `From ` line after an empty one, and a header field below it: people
    write "From here it is 12:30 to …" as well. A file without is one message."""
    if _FROM_LINE.match(file.peek().lstrip(_NOTHING)) is None:
        yield read(file)
        return
    one = BytesIO()  # what is in it is not copied when it is given away
    blank, begins = False, b""
    for line in iter(lambda: file.readline(_CHUNK), b""):
        if not one.tell() and not line.strip(_NOTHING):
            continue
        if begins and _FIELD_LINE.match(line):
            yield one.getvalue()
            one = BytesIO()
        _add(one, begins)
        begins = line if blank and _FROM_LINE.fullmatch(line) else b""
        blank = line in (b"\n", b"\r\n")
        if not begins:
            _add(one, line)
    _add(one, begins)
    yield one.getvalue()


def _add(one: BytesIO, line: bytes) -> None:
    if one.tell() <= MAX_BYTES:
        one.write(line[: MAX_BYTES + 1 - one.tell()])
