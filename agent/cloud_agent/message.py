"""Whole e-mail messages (RFC 5322, MIME) as bytes: their header fields, and what a person sees of them. Pure functions.

Messages are read as they are, not as they should be (RFC 7103): nothing here raises, and no message takes more than
bounded time and memory. What is known of a vault is not known here.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from itertools import islice
from typing import NamedTuple

from cloud_agent import content as content_module
from cloud_agent.content import Content

MAX_HEADER_BYTES = 256_000
MAX_FIELDS = 1000
MAX_FIELD_LENGTH = 20_000
# What is read of a message, once the inner lines of long attachments are taken out. The library takes nine times that
# memory, and a time that grows with the lines and with how deep its parts are nested.
MAX_MESSAGE_BYTES = 8_000_000
MAX_LINES = 100_000
MAX_BOUNDARIES = 100
MAX_BASE64_LINES = 10_000
MAX_PARTS = 200
MAX_LISTED = 20
MAX_TEXT_BYTES = 2_000_000  # of all the texts of a message, as they are encoded

_TOO_LARGE = "the message is too large: its end was not read"

_HEADER = re.compile(rb"([!-9;-~]{1,100})[ \t]*:(.*)", re.DOTALL)
# A BOM, empty lines, the line of an mbox or of a mail drop; each that a message went through may have put its own.
_BEFORE = re.compile(rb"(?>(?:\xef\xbb\xbf|[\r\n]+|>?From [^\n]*\n){0,9})")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_HEADER_END = re.compile(rb"\n\r?\n|\r\r")
# One that is there says that what is read is a message; a person writes `To:` and `Subject:` in a mail's text as well.
_TRACES = frozenset("received return_path mime_version delivered_to dkim_signature".split())
_TELLING = _TRACES | {"from", "message_id", "content_type", "date"}
_COMMON = _TELLING | frozenset(
    "to cc bcc subject reply_to sender in_reply_to references content_transfer_encoding x_mailer user_agent".split()
)
# Fields that hold addresses: a decoded name must not become one.
_ADDRESS_FIELDS = frozenset("from to cc bcc reply_to sender errors_to return_path disposition_notification_to".split())


def looks_like_message(raw: bytes, *, traced: bool = False) -> bool:
    """Whether bytes are a whole message: they begin with header fields, and with ones that only a message has.

    `traced`: with ones that mail programs alone write, and nobody copies who forwards a mail by hand.
    """
    names: set[str] = set()
    for name, _ in _header(raw[:16_384]):
        names.add(name)
        if len(names & _COMMON) >= 2 and names & (_TRACES if traced else _TELLING):
            return True
    return False


def has_header(raw: bytes) -> bool:
    """Whether bytes that are said to be a message begin with a field that messages have, however long those before."""
    return any(name in _COMMON for name, _ in _header(raw))


def start(raw: bytes) -> int:
    """Where a message begins, behind what programs put before it."""
    before = _BEFORE.match(raw)
    return before.end() if before else 0


def header_is_too_large(raw: bytes) -> bool:
    """Whether fields of a message are left out, because of those before them."""
    return len(raw) > MAX_HEADER_BYTES and _HEADER_END.search(raw, 0, MAX_HEADER_BYTES) is None


def fields(raw: bytes) -> dict[str, str]:
    """The header fields of a message, the first of each name; names in lower case with `_` for `-`.

    Values are decoded (RFC 2047), on one line, of a bounded length. Names in address fields stay names: they are
    quoted where what they decode to could be read as an address.
    """
    found: dict[str, bytes] = {}
    for name, value in _header(raw):
        if len(found) >= MAX_FIELDS:
            break
        found.setdefault(name, value)
    declared = re.search(rb"charset\s{0,9}=\s{0,9}\"?([\w.:+-]{1,40})", found.get("content_type", b""), re.I)
    charset = declared[1].decode("ascii", "replace") if declared else ""
    if _codec(charset).replace("-", "_") in _NEVER_UNDECLARED:
        charset = ""  # of the body alone: a header that is read is ASCII's kin, and in these is another text
    return {
        name: _one_line(
            _decoded_words(decode(value[:MAX_FIELD_LENGTH], charset, guess=False), name in _ADDRESS_FIELDS)
        )[:MAX_FIELD_LENGTH]
        for name, value in found.items()
    }


def content(raw: bytes) -> Content:
    """What a person sees of a message: its text, and a line for each attachment. Never raises.

    Of alternatives the plain text is read, unless it is empty or stands in for the HTML.
    """
    findings = []
    raw, cut = _bounded(raw[start(raw) :])
    if cut:
        findings.append(_TOO_LARGE)
    try:
        message = message_from_bytes(raw)
    except Exception:
        # Parts within parts beyond all depth; RFC 7103 §3: what can be shown is shown.
        shown = content_module.read(decode(raw, ""))
        return Content(shown.text, shown.hidden, (*shown.findings, "the message cannot be taken apart: shown as it is"))
    texts: list[Content] = []
    listed: list[_Attachment] = []
    pending: list[_Text] = []
    more = size = 0
    for part in _parts(message):
        if part is None:
            findings.append(f"the message has more than {MAX_PARTS} parts: the others were not read")
        elif isinstance(part, _Text):
            size += len(_written(part.part))
            if size > MAX_TEXT_BYTES:
                findings.append(_TOO_LARGE)
                break
            if pending and pending[0].group != part.group:
                texts += _chosen(pending)
                pending = []
            pending.append(part)
        elif len(listed) < MAX_LISTED:
            listed.append(part)
        else:
            more += 1
    texts += _chosen(pending)
    lines = [text.text.strip("\n") for text in texts if text.text.strip()]
    if listed:
        rest = [f"[{more} more attachments]"] if more else []
        lines.append("\n".join([*(one.line for one in listed), *rest]))
    attachments = [f"{one.name} ({one.details})" if one.name else one.details for one in listed]
    said = dict.fromkeys([*(sentence for text in texts for sentence in text.findings), *findings])
    attachments += [f"{more} more"] if more else []
    hidden = " ".join(text.hidden for text in texts if text.hidden)
    return Content("\n\n".join(lines), hidden, tuple(said), tuple(attachments))


def body(raw: bytes, content_type: str = "", transfer_encoding: str = "") -> Content:
    """What a person sees of a body whose header fields were kept elsewhere: `content_type` as the field's value.

    It may have been decoded before, or converted to plain text or to UTF-8: what it is decides, not what is said of it.
    """
    content_type, encoding = _one_line(content_type), transfer_encoding.strip().lower()
    boundary = re.search(r"boundary\s{0,9}=\s{0,9}(?:\"([^\"]{1,200})\"|([^\s;\"]{1,200}))", content_type, re.I)
    delimiter = f"--{boundary[1] or boundary[2]}".encode() if boundary else b""
    in_parts = bool(delimiter) and content_type.lower().startswith("multipart/") and _is_line(delimiter, raw)
    if in_parts or (encoding == "base64" and _is_base64(raw)) or (encoding == "quoted-printable" and _is_quoted(raw)):
        header = f"Content-Type: {content_type or 'text/plain'}\n"
        if encoding and not in_parts:
            header += f"Content-Transfer-Encoding: {encoding}\n"
        return content(header.encode("utf-8", "replace") + b"\n" + raw)
    charset = re.search(r"charset\s{0,9}=\s{0,9}[\"']?([\w.:+-]{1,40})", content_type, re.I)
    return content_module.read(decode(raw, charset[1] if charset else "", utf8_first=True), content_type)


# -- header fields -----------------------------------------------------------------------------------------------------


def _header(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and unfolded value of each header field, up to the first line that is none."""
    begin = start(raw)
    block = raw[begin : begin + MAX_HEADER_BYTES]
    name, value = "", [b""]
    position = 0
    while position < len(block):
        end = _LINE_END.search(block, position)
        line = block[position : end.start() if end else len(block)]
        position = end.end() if end else len(block)
        if line[:1] in (b" ", b"\t"):
            value.append(line)
            continue
        match = _HEADER.fullmatch(line)
        if match is None:
            break
        if name:
            yield name, b"".join(value).strip()
        name, value = match[1].decode("ascii").lower().replace("-", "_"), [match[2]]
    if name:
        yield name, b"".join(value).strip()


_WORD = r"=\?([^?\s]{1,80})\?([bBqQ])\?([^?]*+)\?="
_WORDS = re.compile(rf"{_WORD}(?>(?:\s*+{_WORD})*)")
_ONE_WORD = re.compile(_WORD)
_QUOTED_OR_WORDS = re.compile(rf'("(?>(?:\\.|[^"\\])*)"?)|{_WORDS.pattern}')
_SPECIAL = re.compile(r'[()<>@,;:\\"\[\]]')


def _decoded_words(value: str, addresses: bool) -> str:
    """A value with its encoded words read (RFC 2047)."""
    if "=?" not in value:
        return value
    if not addresses:
        return _WORDS.sub(lambda match: _decoded(match[0]), value)

    def name(match: re.Match[str]) -> str:
        if match[1] is not None:
            return _WORDS.sub(lambda inner: _quoted(_decoded(inner[0])), match[1])
        decoded = _one_line(_decoded(match[0]))
        return f'"{_quoted(decoded)}"' if _SPECIAL.search(decoded) else decoded

    return _QUOTED_OR_WORDS.sub(name, value)


def _quoted(text: str) -> str:
    return re.sub(r'([\\"])', r"\\\1", text)


def _decoded(words: str) -> str:
    """Encoded words that stand side by side; a character may be spread over two of them."""
    pieces: list[tuple[str, bytes]] = []
    for match in _ONE_WORD.finditer(words):
        charset = match[1].partition("*")[0].lower()  # RFC 2231 §5: the language after it
        raw = _base64(match[3]) if match[2] in "bB" else _quoted_printable(match[3])
        if pieces and pieces[-1][0] == charset:
            pieces[-1] = (charset, pieces[-1][1] + raw)
        else:
            pieces.append((charset, raw))
    return "".join(decode(raw, charset, guess=False) for charset, raw in pieces)


def _base64(text: str) -> bytes:
    letters = re.sub(r"[^A-Za-z0-9+/]", "", text)
    letters = letters[:-1] if len(letters) % 4 == 1 else letters
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4))
    except (binascii.Error, ValueError):
        return b""


def _quoted_printable(text: str) -> bytes:
    raw = text.replace("_", " ").encode("utf-8", "surrogateescape")
    return re.sub(rb"=([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), raw)


def _one_line(text: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).split(" ")).strip()


# -- character sets ----------------------------------------------------------------------------------------------------

# What mail programs call a character set, and the larger one that they mean (WHATWG Encoding Standard §4.2).
_ALIASES = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "cp936": "gb18030",
    "ks_c_5601-1987": "cp949",
    "ks_c_5601": "cp949",
    "euc-kr": "cp949",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    "ansi_x3.4-1968": "utf-8",
    "shift_jis": "cp932",
    "x-sjis": "cp932",
    "sjis": "cp932",
    "x-mac-cyrillic": "mac_cyrillic",
    "iso-8859-8-i": "iso-8859-8",
    "iso-8859-6-i": "iso-8859-6",
    "unicode-1-1-utf-7": "utf-7",
    "utf8mb4": "utf-8",
    "cp-850": "cp850",
    "windows-874": "cp874",
    "iso-8859-11": "cp874",
    "iso-8859-9": "cp1254",
    "x-unknown": "utf-8",
    "unknown-8bit": "utf-8",
    "default": "utf-8",
}
# Python's text encodings that are none of mail; one of them is quadratic.
_NO_CHARSETS = frozenset(
    "idna punycode unicode-escape unicode_escape raw-unicode-escape raw_unicode_escape undefined".split()
)
_NEVER_UNDECLARED = ["utf_7", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"]
_SINGLE_BYTE = re.compile(r"(?:iso8859|cp125|cp85|cp43|cp86|koi8|mac|kz1048|ptcp|latin)")


def decode(raw: bytes, charset: str, *, guess: bool = True, utf8_first: bool = False) -> str:
    """Text of bytes: in the declared character set, in UTF-8, in one that is guessed, at last in Windows-1252.

    Whoever declares a set of one byte a character and writes valid UTF-8 means UTF-8.
    """
    codec = _codec(charset)
    if raw.isascii() and (codec in ("", "utf-8") or _SINGLE_BYTE.match(codec)):
        return raw.decode("ascii")
    first = (utf8_first and b"\x1b" not in raw) or _SINGLE_BYTE.match(codec)  # ISO 2022 is no UTF-8 but for its escapes
    tries = ["utf-8", codec] if first else [codec, "utf-8"]
    for name in tries:
        if name:
            try:
                return raw.decode(name)
            except (UnicodeError, ValueError):
                continue
    for name in tries:
        if name and (text := _mostly(raw, name)) is not None:
            return text
    if guess and (name := _guessed(raw)):
        return raw.decode(name, "replace")
    return raw.decode("cp1252", "replace")


def _codec(charset: str) -> str:
    """The name of Python's codec for a declared character set; empty for an unknown one."""
    name = charset.strip().strip("\"'").lower()
    name = _ALIASES.get(name, name)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.:+-]{0,39}", name):
        return ""
    try:
        found = codecs.lookup(name)
        if found.name in _NO_CHARSETS:
            return ""
        "".encode(name)  # some codecs are of no text
    except (LookupError, UnicodeError, ValueError):
        return ""
    return found.name


def _mostly(raw: bytes, codec: str) -> str | None:
    """The text where all but one byte in a hundred fit the character set: it was cut, or damaged on its way."""
    text = raw.decode(codec, "replace")
    return text if 0 < text.count("\ufffd") * 100 <= len(text) else None


def _guessed(raw: bytes) -> str:
    if sum(byte > 127 for byte in raw[:20_000]) < 8:
        return ""  # too little to tell by
    from charset_normalizer import from_bytes  # its tables take memory that few mails need

    best = from_bytes(raw[:20_000], cp_exclusion=_NEVER_UNDECLARED).best()
    return _codec(best.encoding) if best else ""


# -- parts -------------------------------------------------------------------------------------------------------------


_BASE64_LINES = re.compile(rb"^(?>(?:[A-Za-z0-9+/]{4,998}={0,2}\r?\n){1,1000})", re.M)  # each takes memory
_BOUNDARY = re.compile(rb"boundary[*0-9]{0,4}\s{0,9}=", re.I)
_ELIDED = re.compile(rb"^\[(\d{1,12}) bytes\]$", re.M)


def _bounded(raw: bytes) -> tuple[bytes, bool]:
    """What is read of a message, and whether its end is left out. Of a long attachment the size is kept."""
    if raw.count(b"\n") > MAX_BASE64_LINES:
        raw = _without_long_attachments(raw)
    cut = len(raw) > MAX_MESSAGE_BYTES
    raw = raw[:MAX_MESSAGE_BYTES]
    if raw.count(b"\n") > MAX_LINES:
        raw, cut = b"\n".join(raw.split(b"\n", MAX_LINES)[:MAX_LINES]), True
    boundary = next(islice(_BOUNDARY.finditer(raw), MAX_BOUNDARIES, None), None)
    return (raw[: boundary.start()], True) if boundary else (raw, cut)


def _without_long_attachments(raw: bytes) -> bytes:
    kept, done = [], 0
    for start, end in _base64_runs(raw):
        place = start - 1  # no copies: it may be most of the message
        for _ in range(MAX_BASE64_LINES):
            place = raw.find(b"\n", place + 1, end)
            if place < 0:
                break
        if 0 <= place < end - 1:
            kept += [raw[done : place + 1], b"[%d bytes]\n" % (end - place - 1)]
            done = end
    return b"".join([*kept, raw[done:]])


def _base64_runs(raw: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of the lines of base64 that follow upon one another."""
    start = end = 0
    for match in _BASE64_LINES.finditer(raw):
        if match.start() != end:
            yield start, end
            start = match.start()
        end = match.end()
    yield start, end


class _Text:
    """A part that is shown, or one of several alternatives."""

    def __init__(self, part: Message, group: int) -> None:
        self.part = part
        self.group = group  # 0 for one that has no alternatives

    @property
    def is_plain(self) -> bool:
        return self.part.get_content_type() == "text/plain"

    @property
    def is_html(self) -> bool:
        return self.part.get_content_type() == "text/html"

    def read(self) -> Content:
        return content_module.read(decode(_payload(self.part), _charset(self.part)), self.part.get_content_type())


class _Attachment(NamedTuple):
    """What is said of a part that is not shown: `details` are its type and its size, `line` stands in the text."""

    name: str
    details: str
    line: str


def _parts(message: Message) -> Iterator[_Text | _Attachment | None]:
    """The texts of a message and its attachments, in their order; None where it has too many parts."""
    stack: list[tuple[Message, int, bool]] = [(message, 0, False)]
    seen = groups = 0
    while stack:
        part, group, aside = stack.pop()
        seen += 1
        if seen > MAX_PARTS:
            yield None
            return
        kind = _type(part)
        attached = aside or _disposition(part) == "attachment"
        inner = part.get_payload() if part.is_multipart() else None
        if isinstance(inner, list) and not kind.startswith("message/"):
            if kind == "multipart/alternative" and not group:
                groups += 1
                group = groups
            children = [child for child in inner if isinstance(child, Message)]
            # Of related parts the first is shown, and what it refers to (RFC 2387).
            asides = [aside or (kind == "multipart/related" and number > 0) for number in range(len(children))]
            stack += reversed([(child, group, beside) for child, beside in zip(children, asides, strict=True)])
        elif kind.startswith("message/"):
            yield _attached_message(part, kind)
        elif kind in ("text/plain", "text/html") and not attached:
            yield _Text(part, group)
        elif kind.startswith("multipart/") and not attached:
            yield _Text(part, group)  # its boundary is nowhere in it
        elif kind.startswith("text/") and not attached and not _file_name(part) and kind not in _DATA_TYPES:
            yield _Text(part, group)
        else:
            yield _attachment(part, kind)


_DATA_TYPES = frozenset(
    "text/calendar text/x-vcard text/vcard text/csv text/rfc822-headers text/x-amp-html text/css".split()
)
_STAND_IN = re.compile(
    r"(?:view|read|see|open|display|having trouble|can't see|cannot see|problems? (?:viewing|reading)).{0,80}"
    r"(?:brows|online|html|web)|does not support html|html[- ](?:capable|enabled|compatible|mail|version|format)"
    r"|im browser|dans (?:votre|un) navigateur|en (?:su|el|tu) navegador",
    re.I | re.S,
)


def _chosen(alternatives: list[_Text]) -> list[Content]:
    """What is read of texts that stand side by side: all, or of alternatives the plain ones where they say enough."""
    if not alternatives or not alternatives[0].group:
        return [text.read() for text in alternatives]
    html = [text.read() for text in alternatives if text.is_html]
    plain = [text.read() for text in alternatives if text.is_plain]
    if not html and not plain:
        return [text.read() for text in alternatives]
    if not html or not plain:
        return html or plain
    said = " ".join(text.text for text in plain)
    meant = " ".join(text.text for text in html)
    words, html_words = _words(said), _words(meant)
    length, html_length = sum(map(len, words)), sum(map(len, html_words))
    stub = length * 4 < html_length and length < 2000
    stand_in = length * 2 < html_length and len(said) < 1000 and _STAND_IN.search(said) is not None
    if (not words and html_words) or stub or stand_in:
        return html
    # Mail programs show the HTML: a plain text that says something else, or more, was seen by nobody.
    distinct, known = set(words), set(html_words)
    unseen = _longest_run(words, known | set(_words(" ".join(text.hidden for text in html))))
    if html_words and (len(distinct & known) * 2 < len(distinct) or unseen >= MOST_UNSEEN):
        plain[0] = Content(
            plain[0].text,
            plain[0].hidden,
            (*plain[0].findings, "the mail's plain text, which was read, says something else than its HTML"),
        )
    return plain


# So many words of the plain text in a row, which the HTML has not, say something more.
MOST_UNSEEN = 3


def _longest_run(words: list[str], known: set[str]) -> int:
    """How many words that are not `known` stand closest together: known ones among them take half of one away."""
    longest = run = 0.0
    for word in words:
        run = run + 1 if word not in known else max(0.0, run - 0.5)
        longest = max(longest, run)
    return int(longest)


def _words(text: str) -> list[str]:
    """The words of a text, without those of its URLs."""
    return re.findall(r"[^\W\d_]{2,}", re.sub(r"\w{2,10}://[^\s<>()]+", " ", text.lower()))


def _attachment(part: Message, kind: str) -> _Attachment:
    name = content_module.excerpt(_file_name(part), 120)
    details = f"{kind}, {_size(part)}"
    return _Attachment(name, details, f"[attachment: {f'{name}, ' if name else ''}{details}]")


def _attached_message(part: Message, kind: str) -> _Attachment:
    inner = part.get_payload() if part.is_multipart() else None
    subject = ""
    if kind == "message/rfc822" and isinstance(inner, list) and inner and isinstance(inner[0], Message):
        subject = _decoded_words(_raw_field(inner[0], "subject"), addresses=False)
    name = content_module.excerpt(subject, 120) or content_module.excerpt(_file_name(part), 120)
    return _Attachment(name, kind, f"[attached message: {name}]" if name else f"[attachment: {kind}]")


def _size(part: Message) -> str:
    written = _written(part)
    size = len(written) + sum(int(match[1]) for match in _ELIDED.finditer(written[MAX_BASE64_LINES:]))
    if _raw_field(part, "content-transfer-encoding").strip().lower() == "base64":
        size = size * 3 // 4
    return f"{size:,} bytes" if size < 1000 else f"{size / 1000:,.0f} kB"


# The standard library raises on much that mail holds: each reading has a fallback.


def _raw_field(part: Message, name: str) -> str:
    for key, value in part.raw_items():
        if key.lower() == name:
            return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return ""


def _type(part: Message) -> str:
    try:
        kind = part.get_content_type()
    except Exception:
        kind = "text/plain"
    return kind if re.fullmatch(r"[\w.+-]{1,60}/[\w.+-]{1,100}", kind) else "application/octet-stream"


def _disposition(part: Message) -> str:
    try:
        return part.get_content_disposition() or ""
    except Exception:
        return ""


def _file_name(part: Message) -> str:
    try:
        return _decoded_words((part.get_filename() or "")[:1000], addresses=False)
    except Exception:
        return ""


def _charset(part: Message) -> str:
    try:
        charset = part.get_param("charset")
    except Exception:
        return ""
    return str(charset[2] if isinstance(charset, tuple) else charset or "")


def _written(part: Message) -> bytes:
    """A part's payload as it stands in the message; get_payload() would decode it, and raise."""
    written = getattr(part, "_payload", "")
    return written.encode("utf-8", "surrogateescape") if isinstance(written, str) else b""


def _payload(part: Message) -> bytes:
    try:
        payload = part.get_payload(decode=True)
    except Exception:
        payload = None
    raw = _written(part)
    if isinstance(payload, bytes) and payload != b"".join(raw.splitlines()):
        return payload
    return raw  # it is not in the encoding that it says: the library gives it back as one line


# -- bodies that were kept apart from their header ---------------------------------------------------------------------


def _is_line(delimiter: bytes, raw: bytes) -> bool:
    return re.search(rb"^" + re.escape(delimiter) + rb"[ \t\r]*$", raw, re.M) is not None


def _is_base64(raw: bytes) -> bool:
    letters = b"".join(raw.split())
    lines = re.fullmatch(rb"\s*+(?>(?:[A-Za-z0-9+/]++\r?\n)*)[A-Za-z0-9+/]*+={0,2}\s*+", raw)
    return lines is not None and len(letters) % 4 == 0 and len(letters) > 16  # a word alone is none


def _is_quoted(raw: bytes) -> bool:
    """Whether each `=` is quoted-printable's own (RFC 2045 §6.7): no text that was decoded is like that."""
    return raw.isascii() and re.search(rb"=(?![0-9A-Fa-f]{2}|[ \t]{0,76}\r?\n|\Z)", raw) is None and b"=" in raw
