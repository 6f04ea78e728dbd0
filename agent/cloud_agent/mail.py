"""One mail as it lies in `Inbox/EMAIL_*.md`, and what a reply to it is addressed to. Pure functions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from email.utils import formataddr
from functools import cached_property

from cloud_agent import frontmatter, letter, message
from cloud_agent.content import Content
from cloud_agent.marks import visible

MAIL_PREFIX = "EMAIL_"
DRAFT_PREFIX = "EMAIL_DRAFT_"
# A mail to more people than this is an announcement: whom to answer is the owner's choice.
MAX_COPIES = 20
MAX_REFERENCES = 50

# Fields of a note that a message may not set: ours; and `received`, a date in a note and a trace in a message.
_NOTES_OWN = frozenset(
    "email_id decision reason drafted_as draft_id kept status received priority attachments expires sha256 flags"
    " message_sha256".split()
)

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}(?<!\.)")
# All of these are linear in a header's length: whoever writes a mail writes its headers.
_ATOM = r'[^\s@<>(),;:"\[\]\\]'
_ADDRESS = re.compile(rf"(?<!{_ATOM}){_ATOM}++@{_ATOM}++")
_QUOTED = re.compile(r'"(?>(?:\\.|[^"\\])*)"')
_QUOTES_CLOSED = re.compile(r'(?>(?:[^"]|"(?>(?:\\.|[^"\\])*)")*)')
# One entry of an address list: a comma inside quotes separates nothing. Newlines were taken out before.
_ADDRESS_PART = re.compile(r'(?>(?:"(?>(?:\\.|[^"\\])*)"|[^,;"])+)')
# What mail programs put before the subject of a reply (RFC 5322 §3.6.5 has only "Re: "), also as Re[2]: or RE(3):
_REPLY_PREFIXES = re.compile(
    r"(?:\s*(?:re|aw|antw|sv|vs|odp|rif|r|ref|res|rép|ynt|yit|atb|bls|vá|回复|回覆|答复|答覆|返信|回信)"
    r"\s*(?:\[\d+\]|\(\d+\))?\s*[:：])+\s*",
    re.IGNORECASE,
)


class UnreadableMail(Exception):
    """The file is no mail that can be read as text; the message is the reason."""


@dataclass(frozen=True)
class Mail:
    """What a mail says of itself. All text; addresses as written.

    `body` is what stands below the front matter, as it is: HTML, or a whole message (`is_message`) with its header.
    `source`: the bytes of the body, where they say more than `body`: of a whole message, and of what is no UTF-8.
    `is_letter`: intake has read the message before, and the body is what letter.write made of it; `flags` are its
    findings.
    """

    email_id: str
    fields: dict[str, str]
    body: str
    source: bytes = field(default=b"", repr=False, compare=False)
    is_message: bool = False
    is_letter: bool = False
    flags: tuple[str, ...] = ()

    @property
    def sender(self) -> str:
        return self.fields.get("from", "")

    @property
    def subject(self) -> str:
        return self.fields.get("subject", "")

    @property
    def put_back(self) -> bool:
        """Whether it was decided about before: a person who lays it into the inbox again wants a draft all the same."""
        return bool(self.fields.get("decision"))

    @property
    def slug(self) -> str:
        return slug(self.email_id)

    @property
    def draft_name(self) -> str:
        return f"{DRAFT_PREFIX}{self.slug}.md"

    @cached_property
    def content(self) -> Content:
        """What a person sees of the mail, without what was hidden in it."""
        if self.is_letter:
            return letter.read(shown(self.body), self.flags)
        source = self.source or encode(shown(self.body))
        if self.is_message:
            return message.content(source)
        get = self.fields.get
        return message.body(source, get("content_type", ""), get("content_transfer_encoding", ""))

    def fingerprint(self) -> str:
        """The same for two copies of one mail, whatever was annotated since: who wrote what."""
        parts = (self.sender, self.subject, self.body.strip())
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

    def try_key(self) -> str:
        """What failed tries are counted by: this text under this id."""
        return f"{self.slug}-{self.fingerprint()}"


@dataclass(frozen=True)
class Envelope:
    """To whom a reply goes and how it threads: set by code alone, from the mail's headers (RFC 5322 §3.6)."""

    to: str
    cc: str
    subject: str
    in_reply_to: str
    references: str


def parse(name: str, raw: bytes) -> Mail:
    """Read a mail file; `name` is its file name, whose stem stands in for a missing `email_id`.

    A note that names no sender and holds a whole message (a `.eml` that somebody laid into the inbox, perhaps below our
    own annotation) has the message's header fields as its own, but for those that the note sets itself. Below
    a sender, a message is read as one too, and sets no field.

    Raises UnreadableMail for what is no text or says nothing at all.
    """
    fields, body = read_note(raw)
    names_sender = bool(fields.get("from", "").strip())
    # Only intake writes this field: a message's own does not count, and who can write notes needs none of it.
    is_letter = bool(fields.get("message_sha256"))
    is_message = not is_letter and message.looks_like_message(encode(body[:_HEAD]), traced=names_sender)
    if b"\0" in raw and not is_message:
        raise UnreadableMail("it is a binary file, not text")
    if not body.strip() and not fields.get("subject", "").strip():
        raise UnreadableMail("it has neither a subject nor a body")
    email_id = note_id(name, fields)
    source = b"" if body.isascii() or _is_utf8(raw) else _body_bytes(raw)
    if is_message and not names_sender:
        headers = message.fields(source or encode(body[: message.MAX_HEADER_BYTES]))
        headers = {key: value for key, value in headers.items() if key not in _NOTES_OWN}
        fields = headers | {key: value for key, value in fields.items() if value.strip() or key not in headers}
    fields = {key: one_line(shown(value)) for key, value in fields.items()}
    if not is_letter:
        return Mail(email_id, fields, body, source, is_message)
    fields.pop("flags", None)  # our words, and the fields are taken for the sender's
    flags = frontmatter.items(shown(decode(raw)), "flags")
    return Mail(email_id, fields, body, source, is_letter=True, flags=flags)


_HEAD = 16_384


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _body_bytes(raw: bytes) -> bytes:
    """The bytes below the front matter; line ends become one newline."""
    return encode(frontmatter.read(decode(raw))[1])


def read_note(raw: bytes) -> tuple[dict[str, str], str]:
    """Fields and body of a note as clean text, which can always be encoded. Never fails."""
    fields, body = frontmatter.read(shown(decode(raw)))
    return {key: shown(value) for key, value in fields.items()}, body


def note_id(name: str, fields: Mapping[str, str]) -> str:
    """The `email_id` of a mail or a draft, or what its file name stands for."""
    return frontmatter.inert(fields.get("email_id", "").strip() or shown(stem_id(name)))


def decode(raw: bytes) -> str:
    """Bytes of a note as text; what is not UTF-8 survives a round trip through `encode`."""
    return raw.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def shown(text: str) -> str:
    """Text for a person or the model: what is no Unicode character (a byte that is no UTF-8) becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def one_line(text: str) -> str:
    """A header value without line breaks and control characters, so that it can never add a header."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", text).strip()


def is_mail_name(name: str) -> bool:
    """Whether a file of this name is a mail, and not a draft."""
    return name.startswith(MAIL_PREFIX) and not name.startswith(DRAFT_PREFIX)


def stem_id(name: str) -> str:
    """The id that a file name stands for: `EMAIL_test_001.md` and `EMAIL_DRAFT_test_001.md` are both `test_001`."""
    return name.removesuffix(".md").removeprefix(DRAFT_PREFIX).removeprefix(MAIL_PREFIX)


def slug(email_id: str) -> str:
    """A file name part for an id: the id where it is safe, else a readable rest of it with a hash.

    Never a path: no separator, no leading dot, bounded length. Never one that makes a mail's file name a draft's.
    """
    if _SLUG.fullmatch(email_id) and not f"{MAIL_PREFIX}{email_id}".startswith(DRAFT_PREFIX):
        return email_id
    readable = re.sub(r"[^A-Za-z0-9]+", "-", email_id).strip("-")[:40]
    digest = hashlib.sha256(email_id.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return f"{readable}-{digest}" if readable else digest


def addresses(*values: str) -> list[tuple[str, str]]:
    """The (display name, address) pairs of address headers; what is no address is dropped.

    Not `email.utils.getaddresses`: what it makes of a broken header differs between patch releases of Python, and
    recipients must not.
    """
    found = []
    text = visible(one_line(", ".join(values)))  # what nobody sees is no part of a name or an address
    closed = _QUOTES_CLOSED.match(text)
    assert closed is not None  # it matches the empty string
    text = text[: closed.end()] + text[closed.end() :].replace('"', " ")  # a quote that nobody closes quotes nothing
    for part in _ADDRESS_PART.findall(text):
        name, _, angle = part.rpartition("<")
        address = angle.split(">")[0].strip() if name or "<" in part else part.strip()
        if not _ADDRESS.fullmatch(address):
            # `Bob b@x.org` and other things people write; never out of a quoted name
            bare = _ADDRESS.findall(_QUOTED.sub(" ", part))
            if len(bare) != 1:
                continue
            name, address = "", bare[0]
        if address.startswith("%"):  # `<%` begins code of Templater, a plugin of Obsidian
            continue
        found.append((_unquoted(name.strip()), address))
    return found


def bare_addresses(*values: str) -> set[str]:
    """The addresses alone of address headers, in lower case: what tells whether two name the same people."""
    return {address.lower() for _, address in addresses(*values)}


def envelope(mail: Mail, own: Collection[str] = ()) -> Envelope | None:
    """Address the reply: Reply-To before From (RFC 5322 §3.6.2). None when nobody can be replied to.

    With the owner's `own` addresses known, lower case, the others of To and Cc get a copy (§3.6.3: a reply to all), as
    long as they are MAX_COPIES at most; never a Bcc. Without them nobody does: the owner would write to himself.
    """
    recipients = _recipients(mail)
    if not recipients:
        return None
    parent = message_ids(mail.fields.get("message_id", ""))[:1]
    grandparent = message_ids(mail.fields.get("in_reply_to", ""))
    earlier = message_ids(mail.fields.get("references", "")) or (grandparent if len(grandparent) == 1 else [])
    others = others_of(mail, own)
    return Envelope(
        to=", ".join(dict.fromkeys(_format(name, address) for name, address in recipients)),
        cc=", ".join(_format(name, address) for name, address in others) if own and len(others) <= MAX_COPIES else "",
        subject=reply_subject(mail.subject),
        in_reply_to=parent[0] if parent else "",
        references=_bounded(list(dict.fromkeys([*earlier, *parent]))),
    )


def _recipients(mail: Mail) -> list[tuple[str, str]]:
    replies = addresses(mail.fields.get("reply_to", ""))
    return replies if 0 < len(replies) <= MAX_COPIES else addresses(mail.sender)


def _bounded(references: list[str]) -> str:
    """The first of a thread and the last ones: what programs thread by."""
    kept = references if len(references) <= MAX_REFERENCES else [references[0], *references[1 - MAX_REFERENCES :]]
    return " ".join(kept)


def others_of(mail: Mail, own: Collection[str] = ()) -> list[tuple[str, str]]:
    """Who else a mail went to: To and Cc without the `own` addresses and those whom the reply goes to anyway."""
    recipients = _recipients(mail)
    known = {address.lower() for _, address in (*recipients, *addresses(mail.sender))} | set(own)
    found: dict[str, tuple[str, str]] = {}
    for name, address in addresses(mail.fields.get("to", ""), mail.fields.get("cc", "")):
        if address.lower() not in known:
            found.setdefault(address.lower(), (name, address))
    return list(found.values())


def reply_subject(subject: str) -> str:
    """One "Re: ", however many prefixes of whatever language were there (RFC 5322 §3.6.5)."""
    rest = visible(one_line(subject))
    if match := _REPLY_PREFIXES.match(rest):
        rest = rest[match.end() :]
    return frontmatter.inert(f"Re: {rest or '(no subject)'}")


def _unquoted(name: str) -> str:
    if _QUOTED.fullmatch(name):
        return re.sub(r"\\(.)", r"\1", name[1:-1])
    return name


def message_ids(value: str) -> list[str]:
    """The Message-IDs of a header, in its order (RFC 5322 §3.6.4)."""
    return re.findall(r"<(?!%)[^<>\s]{1,990}>", value) or (
        [f"<{value.strip()}>"] if _ADDRESS.fullmatch(value.strip()) else []
    )


def _format(name: str, address: str) -> str:
    # Not ASCII-encoded: this is shown to a person, the sender encodes it (RFC 2047).
    name = frontmatter.inert(name)
    if not name:
        return address
    return formataddr((name, address)) if name.isascii() and address.isascii() else f'"{_quote(name)}" <{address}>'


def _quote(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')
