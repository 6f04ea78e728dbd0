"""What a person sees of a mail's body: text, without what was hidden in it. Pure functions.

Whoever writes a mail can write what its reader does not see and a model does: hidden HTML, white on white, characters
without a glyph. All of that is taken out, counted and reported. It is read as a browser reads it (selectolax), and not
more than a bounded piece of it: a browser's rules make a tree of any size and depth out of a small text.
"""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

# What is read of one body, characters and tags. A mail that says more than a book's chapter is an attachment in
# disguise; real newsletters have 5,000 tags. The parser's worst case is quadratic in the tags, and takes 2 s here.
MAX_CHARACTERS = 500_000
MAX_TAGS = 25_000
# Chromium's own limit of nesting is 512.
MAX_DEPTH = 500
# Elements that a browser opens anew in each paragraph after an overlapping one (HTML §13.2.4.3): so many in all.
MAX_REOPENED = 100_000
MAX_TAG_LENGTH = 1000
MAX_VALUE_LENGTH = 4000
MAX_RULES = 200
MAX_CSS = 100_000
MAX_EXCERPT = 80
MAX_LINK_FINDINGS = 5
MAX_TARGET = 2000
MAX_PREFIX = 8
# So many blank lines, or spaces in a line, put what follows out of a reader's sight.
PADDING_LINES = 40
PADDING_SPACES = 200


@dataclass(frozen=True)
class Content:
    """A body as text; what was hidden in it; and a sentence for the owner about each thing that was found.

    `hidden` also holds the comments of HTML, which nobody sees either, and which no finding counts: every newsletter
    has some. `attachments`: of a whole message, each as `name (type, size)`; the text has a line for each as well.
    """

    text: str
    hidden: str = ""
    findings: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()


def read(body: str, content_type: str = "") -> Content:
    """The text of a body, which is HTML if its type says so or if it clearly is. Never raises.

    Time is linear, and memory bounded.
    """
    body = body.replace("\r\n", "\n").replace("\r", "\n")
    if is_html(body, content_type):
        return _read_html(body)
    findings = _Findings()
    kept, mark = _cut(body, findings)
    text, smuggled = _without_invisible(kept, findings)
    return Content(_without_padding(text, findings) + mark, smuggled, findings.sentences())


def is_html(body: str, content_type: str = "") -> bool:
    """Whether a body is HTML. Never for a text that merely holds `<ann@example.org>` or a `<b>`."""
    declared = content_type.partition(";")[0].strip().lower()
    start = body[:100_000].lstrip("\ufeff \t\n")
    if _DOCUMENT.match(start):
        return True
    if declared in ("text/html", "application/xhtml+xml"):
        return _KNOWN_TAG.search(start) is not None or _ENTITY.search(start) is not None
    if declared == "text/plain" or "<" not in start:
        return False
    if _KNOWN_TAG.match(start):
        return sum(1 for _ in islice(_KNOWN_TAG.finditer(start), 2)) == 2 or _VOID_TAG.match(start) is not None
    breaks = sum(1 for _ in _BREAKING_TAG.finditer(start))
    return breaks >= max(2, sum(1 for line in start.split("\n") if line.strip()))


def excerpt(text: str, limit: int = MAX_EXCERPT) -> str:
    """The beginning of a stranger's text, fit for a sentence: one line, no markup, at most `limit` characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text[: 20 * limit])
    short = " ".join(_MARKUP.sub(" ", printable).replace("://", ":").split())
    return short if len(short) <= limit else f"{short[: limit - 1]}…"


_KNOWN_TAG = re.compile(
    r"</?(?:html|head|body|p|div|span|br|hr|a|b|i|u|em|strong|font|center|table|tbody|thead|tr|td|th|ul|ol|li|h[1-6]"
    r"|img|blockquote|pre|style|small|big|section|article|header|footer|meta|title|link|o:p)(?:[\s/][^<>]{0,5000}+)?>",
    re.I,
)
_BREAKING_TAG = re.compile(r"<(?:br|p|div|tr|td|li|h[1-6])(?:[\s/][^<>]{0,5000}+)?>", re.I)
_VOID_TAG = re.compile(r"<(?:br|hr|img|meta)\b", re.I)
_DOCUMENT = re.compile(
    r"(?:<\?xml[^>]{0,200}>\s*)?(?>(?:<!--(?:(?!-->).){0,2000}-->\s*)*)<(?:!doctype\s+html|html|body)\b", re.I | re.S
)
_ENTITY = re.compile(r"&(?:nbsp|amp|lt|gt|quot|[a-z]{2,8}|#\d{1,7}|#x[0-9a-f]{1,6});", re.I)
_MARKUP = re.compile(r"[<>\[\]{}`|\\$!*_#~^\"“”]")


@dataclass
class _Findings:
    """What was found, gathered while reading."""

    hidden: int = 0
    hidden_excerpt: str = ""
    invisible: int = 0
    turning: int = 0
    smuggled: str = ""
    padding: bool = False
    left_out: int = 0
    too_deep: bool = False
    unknown_hiding: bool = False
    links: dict[str, None] = field(default_factory=dict)

    def sentences(self) -> tuple[str, ...]:
        said = []
        if self.hidden:
            said.append(
                f"the mail holds {_counted(self.hidden, 'character')} of hidden text, left out: “{self.hidden_excerpt}”"
            )
        if self.smuggled:
            said.append(f"the mail holds text written in invisible characters, left out: “{excerpt(self.smuggled)}”")
        if self.invisible:
            said.append(f"{_counted(self.invisible, 'invisible character')} left out")
        if self.turning:
            said.append(f"{_counted(self.turning, 'character')} that turn the direction of writing left out")
        if self.padding:
            said.append("a long empty space puts further text out of sight; it was shortened")
        if self.too_deep:
            said.append("the mail's HTML is nested too deeply to be read as a browser does: hidden text may be left in")
        if self.unknown_hiding:
            said.append("the mail's styles hide text in a way that is not understood here: hidden text may be left in")
        if self.left_out:
            said.append(f"the mail is too long: {_counted(self.left_out, 'character')} at its end were not read")
        links = list(self.links)
        said += links[:MAX_LINK_FINDINGS]
        if len(links) > MAX_LINK_FINDINGS:
            said.append(f"{len(links) - MAX_LINK_FINDINGS} more of its links lead elsewhere than they show")
        return tuple(said)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _cut(text: str, findings: _Findings) -> tuple[str, str]:
    """What is read of a text, and the mark that stands where the rest was."""
    if len(text) <= MAX_CHARACTERS:
        return text, ""
    findings.left_out = len(text) - MAX_CHARACTERS
    return text[:MAX_CHARACTERS], _mark(findings.left_out)


def _mark(left_out: int) -> str:
    return f"\n\n[{_counted(left_out, 'more character')} of this mail were not read]"


# -- characters without a glyph ----------------------------------------------------------------------------------------

# Unicode's Default_Ignorable_Code_Point, the bidi controls among them, and interlinear annotations.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffc]+")  # the last one: a picture's place
_LINE_END = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001eeff]")
# Scripts whose spelling needs a joiner or a non-joiner: Arabic and its kin, N'Ko, Indic, Tibetan, Burmese, Khmer,
# Mongolian.
_JOINED = re.compile("[\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\ua8e0-\ua8ff\ufb50-\ufdff\ufe70-\ufefc]")
# Scripts that are written without spaces, where a zero width space marks a place to break the line.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_EMOJI = re.compile(
    "[\u00a9\u00ae\u203c\u2049\u20e3\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
_VARIED = re.compile("[0-9#*\u2200-\u22ff\u3400-\u9fff\uf900-\ufaff\u1000-\u109f\ua840-\ua87f\U00020000-\U0003ffff]")
_FLAG = re.compile("[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")  # UTS #51 §2.7
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _without_invisible(text: str, findings: _Findings) -> tuple[str, str]:
    """Text without the characters nobody sees, but for those its script or its emoji need; and what they spelt."""
    text = _SURROGATE.sub("\ufffd", _CONTROL.sub("", _LINE_END.sub("\n", text)))
    if text.isascii():
        return text, ""
    rtl = _RTL.search(text) is not None
    smuggled: list[str] = []

    def kept(match: re.Match[str]) -> str:
        before = text[match.start() - 1 : match.start()]
        after = text[match.end() : match.end() + 1]
        run = match[0]
        stay = _stays(before, run, after, rtl)
        gone = Counter(run) - Counter(stay)
        total = gone.total()
        if total == 0:
            return stay
        spelt = _spelt(run)
        turning = sum(gone[letter] for letter in _TURNING)
        if spelt:
            smuggled.append(spelt)
        elif turning:
            findings.turning += turning
        if not spelt and not (total - turning == 1 and _is_stray(before, run, after)):
            findings.invisible += total - turning
        return stay

    text = _INVISIBLE.sub(kept, text)
    findings.smuggled = " ".join(smuggled)
    return text, findings.smuggled


def _stays(before: str, run: str, after: str, rtl: bool) -> str:
    """What of a run of invisible characters belongs to the text that it stands in."""
    if before == "\U0001f3f4" and (flag := _FLAG.match(run)):
        return flag[0]
    if _EMOJI.match(before):
        stay = run[0] if run[0] in "\ufe0e\ufe0f" else ""
        joined = run[len(stay) : len(stay) + 1] == "\u200d" and _EMOJI.match(after)
        return stay + "\u200d" if joined else stay
    if _VARIED.match(before) and ("\ufe00" <= run[0] <= "\ufe0f" or "\U000e0100" <= run[0] <= "\U000e01ef"):
        return run[0]
    if run[0] in "\u200c\u200d" and (_JOINED.match(before) or _JOINED.match(after)):
        return run[0]
    if rtl and run[0] in "\u200e\u200f\u061c":
        return run[0]
    if "\u1820" <= before <= "\u18af" and "\u180b" <= run[0] <= "\u180f":
        return run[0]  # Mongolian's own variants
    if "\u1100" <= after <= "\u11ff" and run in "\u115f\u1160":
        return run  # an incomplete syllable of old Korean
    return ""


def _is_stray(before: str, run: str, after: str) -> bool:
    """One that editors leave behind: at the edge of a word, a place to hyphenate, or one to break the line."""
    if not (before.isalnum() and after.isalnum()):
        return True
    return (run == "\u00ad" and before.isalpha() and after.isalpha()) or _UNSPACED.match(before) is not None


def _spelt(run: str) -> str:
    """The text that a run of tag characters or of variation selectors stands for."""
    if tags := "".join(chr(ord(letter) - 0xE0000) for letter in run if "\U000e0020" <= letter <= "\U000e007e"):
        return tags
    selectors = [letter for letter in run if "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"]
    if len(selectors) < 4:
        return ""
    numbers = (ord(letter) - 0xFE00 if letter <= "\ufe0f" else ord(letter) - 0xE0100 + 16 for letter in selectors)
    return bytes(numbers).decode("utf-8", "replace")


_BLANK_LINES = re.compile(rf"^(?>(?:[^\S\n]*+\n){{{PADDING_LINES},}})", re.M)
_SPACES = re.compile(rf"[^\S\n]{{{PADDING_SPACES},}}+")


def _without_padding(text: str, findings: _Findings) -> str:
    text = text.rstrip()
    shorter = _SPACES.sub("  ", _BLANK_LINES.sub("\n\n", text))
    if len(shorter.strip()) < len(text.strip()):
        findings.padding = True
    return shorter


# -- HTML: what is handed to the parser --------------------------------------------------------------------------------

# One attribute, as HTML §13.2.5.32 to §13.2.5.38 tell them apart.
_ATTRIBUTE = r"""[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+"?|'[^']*+'?|[^\s>"'][^\s>]*+)?)?"""
_TOKEN = re.compile(
    r"<!--(?:-?>|(?P<comment>.*?)(?:--!?>|\Z))"
    r"|<(?P<raw>script|style|xmp|iframe|noembed|noframes|textarea|title)(?=[\s/>])(?P<raw_attributes>(?>(?:[\s/]++|"
    + _ATTRIBUTE
    + r")*))>?(?P<data>.*?)(?:</(?P=raw)(?=[\s/>])[^>]*+>?|\Z)"
    r"|<(?P<end>/?)(?P<name>[a-z][^\s/>]*+)(?P<attributes>(?>(?:[\s/]++|" + _ATTRIBUTE + r")*))>?"
    r"|<[!?/][^>]*+>?",
    re.I | re.S,
)
_SCREEN = re.compile(r"media\s*=\s*[\"']?\s*(?:only\s+)?(?:all|screen)?\s*(?:[\"'\s]|$)", re.I)
_NAMED = re.compile(r"""([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:"([^"]*+)"?|'([^']*+)'?|([^\s>"'][^\s>]*+)))?""")
_DATA_URL = re.compile(r"data:[^\s\"'<>]{200,}+")
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
# Elements that end by themselves where the next begins.
_IMPLIED = frozenset("p li dt dd tr td th tbody thead tfoot option optgroup rt rp html head body".split())
_FORMATTING = frozenset("b big code em font i s small strike strong tt u nobr".split())
_USED = frozenset("style class id hidden href alt color bgcolor background text face open width height".split())


# What stands in for markup that is taken out: the text on both sides of it must not become markup.
_NOTHING = "<!---->"


class _Source:
    """HTML that the parser reads in bounded time and memory; the same as before for all that mail programs write.

    Comments, styles and scripts are taken out; drawings lose what makes them one; tags beyond the bounds lose what
    attributes say nothing of their look, or their overlapping, or are dropped.
    """

    def __init__(self, html: str) -> None:
        self.comments: list[str] = []
        self.styles: list[str] = []
        self.too_deep = False
        # A browser reopens three of the same kind at most, in front of each tag.
        self._may_differ = max(1, MAX_REOPENED // (3 * (html.count("<") + 1)))
        self._kinds: set[str] = set()
        self._open: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._renamed: Counter[str] = Counter()
        self._depth = 0
        self.html = _TOKEN.sub(self._token, html)

    def _token(self, match: re.Match[str]) -> str:
        if match["raw"]:
            return self._raw(match["raw"].lower(), match["raw_attributes"], match["data"])
        if match["name"]:
            name = match["name"].lower()
            return self._end(name) if match["end"] else self._start(name, match["attributes"])
        if (comment := match["comment"]) and not comment.lstrip().lower().startswith(("[if", "<!")):
            self.comments.append(comment)
        return _NOTHING

    def _raw(self, name: str, attributes: str, data: str) -> str:
        """An element that holds text alone, whatever it looks like."""
        if name in ("textarea", "xmp"):
            return f"<pre>{data.replace('<', '&lt;')}</pre>"
        if name == "style" and ("media" not in attributes.lower() or _SCREEN.search(attributes)):
            self.styles.append(data)
        elif name in ("iframe", "noembed", "noframes"):
            self.comments.append(data)
        return _NOTHING

    def _end(self, name: str) -> str:
        if self._dropped[name]:
            self._dropped[name] -= 1
            return _NOTHING
        if self._open[name]:
            self._open[name] -= 1
            self._depth -= 1
        if self._renamed[name]:
            self._renamed[name] -= 1
            return "</span>"
        return f"</{_safe_name(name)}>"

    def _start(self, name: str, attributes: str) -> str:
        if name in ("plaintext", "frameset", "frame"):
            return _NOTHING
        if name not in _VOID and name not in _IMPLIED:
            if self._depth >= MAX_DEPTH:
                self._dropped[name] += 1
                self.too_deep = True
                return _NOTHING
            self._open[name] += 1
            self._depth += 1
        if len(attributes) > MAX_TAG_LENGTH:
            attributes = _used(attributes)
        if name in _FORMATTING:
            self._kinds.add(f"{name} {attributes}")
            if len(self._kinds) > self._may_differ or len(attributes) > 300:
                self._renamed[name] += 1
                return f"<span{attributes}>"
        return f"<{_safe_name(name)}{attributes}>"


def _safe_name(name: str) -> str:
    """A name under which the parser makes no drawing or formula of an element, whose rules differ from HTML's."""
    return f"x-{name}" if name in ("svg", "math") else name


def _used(attributes: str) -> str:
    """A tag's attributes that say how it looks, the first of each name."""
    found: dict[str, str] = {}
    for match in _NAMED.finditer(attributes):
        name = match[1].lower()
        if name in _USED:
            found.setdefault(name, match[2] or match[3] or match[4] or "")
    values = ((name, value[:MAX_VALUE_LENGTH].replace('"', "&quot;")) for name, value in found.items())
    return "".join(f' {name}="{value}"' for name, value in values)


# -- HTML: what can be seen --------------------------------------------------------------------------------------------

Colour = tuple[int, int, int]
_WHITE: Colour = (255, 255, 255)
_NAMED_COLOURS: dict[str, Colour] = {
    "white": _WHITE,
    "snow": (255, 250, 250),
    "ivory": (255, 255, 240),
    "ghostwhite": (248, 248, 255),
    "whitesmoke": (245, 245, 245),
    "floralwhite": (255, 250, 240),
    "mintcream": (245, 255, 250),
    "azure": (240, 255, 255),
    "aliceblue": (240, 248, 255),
    "honeydew": (240, 255, 240),
    "lavenderblush": (255, 240, 245),
    "black": (0, 0, 0),
    "silver": (192, 192, 192),
    "gray": (128, 128, 128),
    "grey": (128, 128, 128),
    "lightgray": (211, 211, 211),
    "lightgrey": (211, 211, 211),
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "lime": (0, 255, 0),
    "blue": (0, 0, 255),
    "navy": (0, 0, 128),
    "yellow": (255, 255, 0),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "teal": (0, 128, 128),
    "aqua": (0, 255, 255),
    "fuchsia": (255, 0, 255),
    "maroon": (128, 0, 0),
    "olive": (128, 128, 0),
}
# Colours that differ by no more than this in each part are one to the eye.
_SAME_COLOUR = 16
_LENGTH = re.compile(r"(-?(?:\d+\.?\d*|\.\d+))\s*(px|pt|em|rem|ex|ch|%|vw|vh|cm|mm|in|pc|)(?![\w.])")
_RGB = re.compile(r"rgba?\(\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})(?:[\s,/]+([\d.]+)(%?))?\s*\)")
_HSL = re.compile(
    r"hsla?\(\s*([\d.]{1,9})(?:deg)?[\s,]+([\d.]{1,9})%[\s,]+([\d.]{1,9})%(?:[\s,/]+([\d.]{1,9})(%?))?\s*\)"
)
_RGB_SHARES = re.compile(
    r"rgba?\(\s*(\d{1,3}(?:\.\d{1,9})?)%[\s,]+(\d{1,3}(?:\.\d{1,9})?)%[\s,]+(\d{1,3}(?:\.\d{1,9})?)%"
)
_PIXELS = {
    "pt": 4 / 3,
    "em": 16,
    "rem": 16,
    "ex": 8,
    "ch": 8,
    "%": 0.16,
    "vw": 10,
    "vh": 8,
    "cm": 38,
    "mm": 3.8,
    "in": 96,
}
_BRACE = re.compile(r"[{}]")
# Rules around rules that hold on a screen of ordinary width; what asks for less than that is a telephone's.
_EVERY_SCREEN = re.compile(
    r"@(?:layer|supports)\b.*|@media\s*(?:only\s+)?(?:all|screen)?\s*"
    r"(?:(?:and\s*)?\(\s*(?:min-width\s*:\s*\d{1,3}|max-width\s*:\s*\d{4,})(?:\.\d{1,9})?(?:px|pt)?\s*\)\s*){0,4}",
    re.I | re.S,
)
_CSS_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})\s?|([^\n0-9a-fA-F]))")
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|<!--|-->", re.S)
_COMPOUND = re.compile(r"(?:\*|[a-zA-Z][\w-]*)?(?:[.#][\w-]+)*")
_SIMPLE = re.compile(r"[.#]?[\w-]+")
# The properties that decide whether text is seen.
_TELLING = frozenset(
    "display visibility opacity font font-size color background background-color background-image height max-height"
    " width max-width overflow overflow-x overflow-y text-indent position inset left top right bottom margin"
    " margin-left margin-top clip clip-path transform translate scale filter zoom content-visibility"
    " -webkit-text-fill-color white-space".split()
)
_DISPLAYS = frozenset(
    "none block inline inline-block flex inline-flex grid inline-grid table table-row table-cell list-item flow-root"
    " contents initial inherit unset revert inline-table table-row-group table-caption table-column".split()
)


def _declarations(css: str) -> tuple[dict[str, str], dict[str, str]]:
    """The telling declarations of a style, and those of them that are `!important`."""
    plain: dict[str, str] = {}
    important: dict[str, str] = {}
    css = css[:MAX_VALUE_LENGTH]
    if "\\" in css or "/*" in css:
        css = _CSS_ESCAPE.sub(_escaped, _COMMENT.sub(" ", css))
    for declaration in css.split(";"):
        name, colon, value = declaration.partition(":")
        name = name.strip().lower()
        if colon and name in _TELLING:
            value, bang, _ = value.partition("!")
            value = value.strip().lower()[:200]
            if name == "display" and value.split(" ")[0] not in _DISPLAYS:
                continue  # no value of it: what was declared before holds
            (important if bang else plain)[name] = value
    return plain, important


def _escaped(match: re.Match[str]) -> str:
    """The character that an escape of CSS stands for (Syntax §4.3.7)."""
    code = int(match[1], 16) if match[1] else ord(match[2])
    return chr(code) if 0 < code < 0xD800 else "\ufffd"


class _Rule(NamedTuple):
    """A rule of a style sheet whose selector is made of names, classes and ids: `div.a .b`."""

    order: tuple[int, int]  # ids, classes and names, as one number; then the place in the sheet
    within: tuple[str, ...]
    last: tuple[str, ...]
    plain: dict[str, str]
    important: dict[str, str]


@dataclass
class _Sheet:
    rules: dict[str, list[_Rule]] = field(default_factory=dict)
    count: int = 0
    # A rule that is not understood may colour the background of anything, or hide it.
    unknown_background: bool = False
    unknown_hiding: bool = False
    _known: dict[frozenset[str], list[_Rule]] = field(default_factory=dict)

    def add(self, css: str) -> None:
        """Read a style sheet. Of what holds for some screens only, nothing is taken."""
        css = _COMMENT.sub(" ", css)
        around: list[str] = []  # what stands before each open brace
        start = 0
        for match in _BRACE.finditer(css):
            text = css[start : match.start()]
            start = match.end()
            if match[0] == "{":
                around.append(text.rpartition(";")[2].strip()[:2000])
            elif around:
                selectors = around.pop()
                plain, important = _declarations(text)
                if not (plain or important):
                    continue
                if all(map(_EVERY_SCREEN.fullmatch, around[-3:])):
                    for selector in selectors.split(",")[:20]:
                        self._add(selector.strip(), plain, important)
                    continue
                if "background" in text.lower():
                    self.unknown_background = True
                if not any(outer.startswith("@") for outer in around[-3:]):  # a rule within a rule
                    self.unknown_hiding = self.unknown_hiding or _hides(plain | important)

    def _add(self, selector: str, plain: dict[str, str], important: dict[str, str]) -> None:
        compounds = selector.replace(">", " ").split()
        known = 0 < len(compounds) <= 4 and len(selector) <= 200 and all(map(_COMPOUND.fullmatch, compounds))
        if not known or self.count >= MAX_RULES:
            coloured = any(name.startswith("background") for name in (*plain, *important))
            self.unknown_background = self.unknown_background or coloured
            self.unknown_hiding = self.unknown_hiding or _hides(plain | important)
            return
        *within, last = [[part.lower() for part in _SIMPLE.findall(compound)] for compound in compounds]
        names = [name for part in (*within, last) for name in part]
        weight = sum(100 if name[0] == "#" else 10 if name[0] == "." else 1 for name in names)
        key = max(last, key=lambda name: (name[0] == "#", name[0] == "."), default="*")
        outer = tuple(name for part in within for name in part)
        rule = _Rule((weight, self.count), outer, tuple(last), plain, important)
        self.rules.setdefault(key, []).append(rule)
        self.count += 1

    def _of(self, names: frozenset[str]) -> list[_Rule]:
        """The rules that may hold for an element of these names, the weightiest last."""
        if (known := self._known.get(names)) is not None:
            return known
        keyed = (rule for key in (*names, "*") for rule in self.rules.get(key, ()))
        found = sorted((rule for rule in keyed if names.issuperset(rule.last)), key=lambda rule: rule.order)
        if len(self._known) < MAX_RULES:
            self._known[names] = found
        return found

    def style(self, names: set[str], around: Counter[str], inline: str) -> dict[str, str]:
        """What is declared of an element that has these names, in the order of the cascade."""
        rules = [rule for rule in self._of(frozenset(names)) if all(map(around.__getitem__, rule.within))]
        plain, important = _declarations(inline) if inline else ({}, {})
        if not rules:
            return plain | important if important else plain
        style: dict[str, str] = {}
        for rule in rules:
            style |= rule.plain
        style |= plain
        for rule in rules:
            style |= rule.important
        return style | important


def _hides(style: dict[str, str]) -> bool:
    """Whether a style hides what it is given to, whatever the ground is."""
    return not _looks(_Look(background=None), {}, style).seen


class _Look(NamedTuple):
    """How text looks in an element; it is inherited. A colour is None where it is not known."""

    gone: bool = False
    invisible: bool = False
    tiny: bool = False
    colour: Colour | None = None
    background: Colour | None = _WHITE
    clear: bool = False  # the text's colour is transparent
    spaced: bool = False  # white space is kept
    opacity: float = 1.0

    @property
    def seen(self) -> bool:
        if self.gone or self.invisible or self.tiny or self.clear or self.opacity <= 0.04:
            return False
        if self.colour is None or self.background is None:
            return True
        return any(abs(one - other) > _SAME_COLOUR for one, other in zip(self.colour, self.background, strict=True))


def _pixels(value: str) -> float | None:
    match = _LENGTH.match(value.removeprefix("calc("))
    return float(match[1]) * _PIXELS.get(match[2], 1) if match else None


def _colour(value: str) -> Colour | None:
    """A colour; None for one that is not understood, and for a transparent one."""
    if match := _HSL.match(value):
        hue, saturation, lightness = (float(part) for part in match.groups()[:3])
        parts = colorsys.hls_to_rgb(hue / 360, min(lightness, 100) / 100, min(saturation, 100) / 100)
        return round(255 * parts[0]), round(255 * parts[1]), round(255 * parts[2])
    if match := _RGB_SHARES.match(value):
        shares = [min(round(float(part) * 2.55), 255) for part in match.groups()]
        return shares[0], shares[1], shares[2]
    if value.startswith("#"):
        digits = value[1:9]
        if len(digits) in (3, 4):
            digits = "".join(digit * 2 for digit in digits)
        try:
            return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)
        except ValueError:
            return None
    if match := _RGB.match(value):
        return min(int(match[1]), 255), min(int(match[2]), 255), min(int(match[3]), 255)
    return _NAMED_COLOURS.get(value)


def _is_clear(value: str) -> bool:
    if value == "transparent" or re.fullmatch(r"#[0-9a-f]{3}0|#[0-9a-f]{6}0[0-9a-f]", value):
        return True
    match = _RGB.match(value) or _HSL.match(value)
    return match is not None and match[4] is not None and _share(match[4] + match[5]) <= 0.04


def _share(value: str) -> float:
    """A number from 0 to 1, also written in per cent; 1 where it is none."""
    match = re.match(r"(\d*\.?\d+)\s*(%?)", value)
    return float(match[1]) / (100 if match[2] else 1) if match else 1.0


def _looks(look: _Look, attributes: dict[str, str | None], style: dict[str, str]) -> _Look:
    """How an element looks inside another."""
    get = style.get
    if "hidden" in attributes or get("display", "").startswith(("none", "table-column")) or _is_out_of_sight(style):
        return look._replace(gone=True)
    opacity = look.opacity * min(_share(style.get("opacity", "")), _share(_of_filter(style.get("filter", ""))))
    invisible, tiny, spaced = look.invisible, look.tiny, look.spaced
    if visibility := get("visibility"):
        invisible = visibility in ("hidden", "collapse") or (invisible and visibility == "inherit")
    if size := get("font-size") or _size_of_font(get("font", "")):
        pixels = _pixels(size)
        relative = size.endswith(("em", "%")) and not size.endswith("rem")
        if pixels is not None:
            tiny = pixels <= 1.4 or (relative and tiny)
        elif size in ("small", "medium", "large", "x-small", "x-large", "xx-small", "xx-large", "initial"):
            tiny = False
    if white := get("white-space"):
        spaced = white.startswith(("pre", "break-spaces"))
    colour, clear = look.colour, look.clear
    said = (
        get("-webkit-text-fill-color")
        or get("color")
        or (attributes.get("color") or attributes.get("text") or "").strip().lower()
    )
    if said and said not in ("inherit", "currentcolor"):
        clear = _is_clear(said)
        colour = _colour(said) or _colour(f"#{said}")
    return _Look(look.gone, invisible, tiny, colour, _background(look, attributes, style), clear, spaced, opacity)


def _of_filter(value: str) -> str:
    match = re.search(r"opacity\(([^)]{0,20})", value)
    return match[1].strip() if match else ""


def _size_of_font(value: str) -> str:
    """The size in a `font`: the first length; a number without a unit is a weight, but for 0."""
    sizes = (match for match in _LENGTH.finditer(value) if match[2] or float(match[1]) == 0)
    size = next(sizes, None)
    return size[0] if size else ""


def _background(look: _Look, attributes: dict[str, str | None], style: dict[str, str]) -> Colour | None:
    said = style.get("background-color") or style.get("background") or (attributes.get("bgcolor") or "").strip().lower()
    image = style.get("background-image", "none")
    if attributes.get("background") or image not in ("none", "initial") or "url(" in said or "gradient" in said:
        return None
    if not said or said in ("none", "inherit", "initial", "transparent") or _is_clear(said):
        return look.background
    return _colour(said) or next((made for word in said.split() if (made := _colour(word))), None)


def _moved(style: dict[str, str]) -> float:
    """The least of what a `transform` or a `margin` moves by, pixels."""
    moves = re.findall(r"translate(?:[xy]|3d)?\(([^)]{1,60})", style.get("transform", ""))
    values = [value for move in (*moves, style.get("margin", "").replace(" ", ",")) for value in move.split(",")]
    return min((found for value in values[:20] if (found := _pixels(value.strip())) is not None), default=0.0)


def _is_out_of_sight(style: dict[str, str]) -> bool:
    """Moved off the page, cut off, or without height or width."""
    if not style:
        return False

    def pixels(name: str) -> float:
        return found if (found := _pixels(style.get(name, ""))) is not None else 1000.0

    get = style.get
    if pixels("text-indent") <= -200:
        return True
    placed = style.get("position", "") in ("absolute", "fixed")
    if placed and min(pixels(side) for side in ("left", "top", "right", "bottom")) <= -200:
        return True
    moved = [*map(pixels, ("left", "top", "margin-left", "margin-top", "translate", "inset")), _moved(style)]
    if min(moved) <= -1000 and (placed or style.get("position") == "relative" or min(moved[2:]) <= -1000):
        return True
    if get("content-visibility") == "hidden" or (pixels("zoom") <= 0.05 and "zoom" in style):
        return True
    clip = style.get("clip", "").replace(" ", "").replace(",", "").replace("px", "")
    if placed and clip in ("rect(0000)", "rect(1111)"):
        return True
    if re.match(r"inset\(\s*(?:50|100)%|(?:circle|ellipse)\(\s*0(?:px|%)?\s*[,)a]", get("clip-path", "")):
        return True
    if re.search(r"scale(?:[xy]|3d)?\(\s*0?\.?0*\s*[,)]|rotate[xy]\(\s*-?90deg", get("transform", "")):
        return True
    if re.fullmatch(r"0?\.?0+(?:\s.*)?", get("scale", "")):
        return True
    cut_off = any(get(name, "").startswith(("hidden", "clip")) for name in ("overflow", "overflow-x", "overflow-y"))
    names = ("height", "max-height", "width", "max-width")
    sizes = [
        name for name in names if not re.match(r"0*[1-9].*%", style.get(name, ""))
    ]  # a share of something unknown says nothing
    return cut_off and min(map(pixels, sizes), default=1000.0) <= 1


# -- HTML: lines of text -----------------------------------------------------------------------------------------------

_BLOCKS = frozenset(
    "address article aside body center dd details dialog dir div dl dt fieldset figcaption figure footer form header"
    " html legend li main menu nav ol section summary table tbody tfoot thead title tr ul caption".split()
)
_PARAGRAPHS = frozenset("p h1 h2 h3 h4 h5 h6 blockquote pre".split())
_LEFT_OUT = frozenset(
    "head script style template title datalist iframe object embed audio video canvas progress meter rp".split()
)
_SPACE = re.compile(r"[ \t\n\r\f\xa0]+")


@dataclass
class _Lines:
    """Lines of text as they are written, one word at a time."""

    parts: list[str] = field(default_factory=list)
    breaks: int = 0
    space: bool = False
    cell: bool = False
    quotes: int = 0
    bullet: str = ""
    padding: bool = False
    _gap: int = 0

    def words(self, text: str) -> None:
        """Text whose white space counts as one space."""
        if text[:1] in " \t\n\r\f\xa0":
            self.space = True
        if collapsed := _SPACE.sub(" ", text).strip(" "):
            self._begin()
            self.parts.append(collapsed)
            self.space = text[-1:] in " \t\n\r\f\xa0"

    def lines(self, text: str) -> None:
        """Text that is kept as it is."""
        for number, line in enumerate(text.replace("\xa0", " ").split("\n")):
            if number:
                self.breaks += 1
            if line.strip():
                self._begin()
                self.parts.append(line.rstrip())
                self.space = line != line.rstrip()
            elif line:
                self.space = True

    def at_least(self, breaks: int) -> None:
        """End a line, or a paragraph."""
        self.breaks = max(self.breaks, breaks)
        self.cell = False

    def _begin(self) -> None:
        prefix = "> " * min(self.quotes, MAX_PREFIX)
        if self.breaks or not self.parts:
            if self.parts:
                gap = "> " * min(self.quotes, self._gap, MAX_PREFIX)
                self.padding = self.padding or self.breaks > PADDING_LINES
                self.parts.append("\n" + f"{gap.rstrip()}\n" * (min(self.breaks, 3) - 1))
            self.parts.append(prefix + self.bullet)
            self.bullet = ""
        elif self.cell:
            self.parts.append(" | ")
        elif self.space:
            self.parts.append(" ")
        self.breaks, self.space, self.cell, self._gap = 0, False, False, self.quotes

    def text(self) -> str:
        return "".join(self.parts)


class _Open(NamedTuple):
    """An element that is open."""

    node: LexborNode
    tag: str
    look: _Look
    names: set[str]
    began: int  # where its text begins in the lines
    images: int  # how many were shown before it
    href: str


def _read_html(body: str) -> Content:
    findings = _Findings()
    html = _DATA_URL.sub("data:", body.replace("\0", ""))
    html, mark = _cut(html, findings)
    end = _place_of(html, "<", MAX_TAGS)
    if end is not None:
        findings.left_out += len(html) - end
        html, mark = html[:end], _mark(findings.left_out)
    source = _Source(html)
    findings.too_deep = source.too_deep
    page = _Page(findings)
    page.sheet.add("\n".join(source.styles)[:MAX_CSS])
    findings.unknown_hiding = page.sheet.unknown_hiding
    page.read(source.html)
    text, smuggled = _without_invisible(page.out.text(), findings)
    hidden, _ = _without_invisible(" ".join("".join(page.hidden).split()), _Findings())
    hidden = " ".join(hidden.split())
    findings.hidden, findings.hidden_excerpt = len(hidden), excerpt(hidden)
    findings.padding = page.out.padding
    said = " ".join(" ".join(source.comments).split())
    text = "\n".join(line.rstrip() for line in _without_padding(text, findings).split("\n")).strip()
    return Content(text + mark, " ".join(part for part in (hidden, smuggled, said) if part), findings.sentences())


def _place_of(text: str, letter: str, number: int) -> int | None:
    """Where the letter stands for the `number`-th time, counted from zero."""
    if text.count(letter) <= number:
        return None
    return next(match.start() for count, match in enumerate(re.finditer(letter, text)) if count == number)


class _Page:
    """One pass over the tree that the parser made."""

    def __init__(self, findings: _Findings) -> None:
        self.findings = findings
        self.sheet = _Sheet()
        self.out = _Lines()
        self.hidden: list[str] = []
        self.around: Counter[str] = Counter()  # the names of the elements that are open
        self.open: list[_Open] = []
        self.numbers: list[int | None] = []  # of the lists that are open: the last item's, None where they have none
        self.images = 0

    def read(self, html: str) -> None:
        from selectolax.lexbor import LexborHTMLParser

        tree = LexborHTMLParser(html)
        if tree.root is None:
            return
        self.ground = _Look(background=None) if self.sheet.unknown_background else _Look()
        node = tree.root
        # No recursion: a tree may be as deep as it is large.
        while True:
            child = None
            if node.is_text_node:
                self._text(node.text_content or "")
            elif node.is_element_node and self._enter(node):
                child = node.child
                if child is None:
                    self._leave(self.open.pop())
            if child is not None:
                node = child
                continue
            while (following := node.next) is None:
                if not self.open:
                    return
                node = self.open[-1].node
                self._leave(self.open.pop())
            node = following

    def _look(self) -> _Look:
        return self.open[-1].look if self.open else self.ground

    def _text(self, text: str) -> None:
        look = self._look()
        if not look.seen:
            self.hidden.append(text)
        elif look.spaced:
            self.out.lines(text)
        else:
            self.out.words(text)

    def _enter(self, node: LexborNode) -> bool:
        """Begin an element; whether its content is to be read."""
        tag = node.tag or ""
        if tag in _LEFT_OUT:
            return False
        attributes = node.attributes
        look, names = self._look(), _NO_NAMES
        if self.sheet.rules:
            names = {tag, *(f".{name}" for name in (attributes.get("class") or "").lower().split()[:50])}
            if identity := attributes.get("id"):
                names.add(f"#{identity.lower()}")
        if tag == "a":
            look = look._replace(colour=None)  # a link has a colour of its own
        if attributes or names:
            look = _looks(look, attributes, self.sheet.style(names, self.around, attributes.get("style") or ""))
        if tag in ("pre", "listing"):
            look = look._replace(spaced=True)
        if not look.seen:
            self.hidden.append(" ")
        if look.gone or look.invisible:
            pass
        elif tag == "br":
            self.out.breaks += 1
            self.out.cell = False
        elif tag == "hr":
            self._rule()
        elif tag == "img":
            self._image(attributes)
        else:
            self._begin(tag, attributes)
        if tag in _VOID:
            return False
        if names:
            self.around.update(names)
        href = (attributes.get("href") or "") if tag == "a" else ""
        self.open.append(_Open(node, tag, look, names, len(self.out.parts), self.images, href))
        return True

    def _begin(self, tag: str, attributes: dict[str, str | None]) -> None:
        if tag in _PARAGRAPHS:
            # Outlook makes a paragraph of each line.
            self.out.at_least(1 if (attributes.get("class") or "").startswith("Mso") else 2)
        elif tag in _BLOCKS:
            self.out.at_least(1)
        if tag == "blockquote":
            self.out.quotes += 1
        elif tag in ("ul", "ol"):
            self.numbers.append(0 if tag == "ol" else None)
        elif tag == "li":
            number = self.numbers[-1] if self.numbers else None
            if number is not None:
                self.numbers[-1] = number + 1
            bullet = "- " if number is None else f"{number + 1}. "
            self.out.bullet = "  " * min(len(self.numbers) - 1, MAX_PREFIX) + bullet

    def _leave(self, element: _Open) -> None:
        """End an element."""
        tag = element.tag
        if element.names:
            self.around.subtract(element.names)
        if not element.look.seen:
            self.hidden.append(" ")
        if element.look.gone or element.look.invisible:
            return
        if element.href:
            self._link(element)
        if tag in ("td", "th"):
            self.out.cell = True
        elif tag == "p" and len(self.out.parts) == element.began:
            self.out.breaks += 1  # an empty paragraph is Outlook's blank line
        elif tag in _PARAGRAPHS:
            mso = (element.node.attributes.get("class") or "").startswith("Mso")
            self.out.at_least(1 if mso else 2)
        elif tag in _BLOCKS:
            self.out.at_least(1)
        if tag == "blockquote":
            self.out.quotes -= 1
        elif tag in ("ul", "ol"):
            self.numbers.pop()
            self.out.bullet = ""

    def _rule(self) -> None:
        self.out.at_least(1)
        self.out.words("----------")
        self.out.at_least(1)

    def _image(self, attributes: dict[str, str | None]) -> None:
        sizes = [_pixels(attributes.get(side) or "") for side in ("width", "height")]
        if any(size is not None and size <= 2 for size in sizes):
            return  # a tracking pixel
        self.images += 1
        if alt := " ".join((attributes.get("alt") or "").split()):
            self.out.words(f"[image: {alt[:300]}]")

    def _link(self, link: _Open) -> None:
        words = self._words_since(link.began)
        target, fault = _target(link.href, words)
        if fault:
            self.findings.links[fault] = None
        if not target:
            return
        if not words:
            if self.images == link.images:
                return  # nothing to click on
            self.out.words("[image]")
        if self.out.parts[-1] != f" ({target})":  # of a link within it, as buttons have
            self.out.parts.append(f" ({target})")

    def _words_since(self, began: int) -> str:
        """The beginning of the text that was written since; enough of it to know what it shows."""
        size, pieces = 0, []
        for part in islice(self.out.parts, began, None):
            pieces.append(part)
            size += len(part)
            if size > 1000:
                break
        return " ".join("".join(pieces).split())


_NO_NAMES: set[str] = set()
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_WEB = re.compile(r"https?:[/\\]*([^/\\?#]*)", re.I)
_SHOWN_URL = re.compile(r"(?:https?:[/\\]+|\bwww\.)[^/\\?#\s\"'<>()]+", re.I)
_SHOWN_DOMAIN = re.compile(r"((?:[^\W_](?:[\w-]{0,62})\.){1,10}[^\W\d_]{2,24})(?::\d{1,5})?(?:[/?#]\S*)?")
_SHOWN_ADDRESS = re.compile(r"[^\s@<>]{1,100}@[^\s@<>]{1,200}")
_FILES = frozenset(
    "pdf doc docx xls xlsx ppt pptx odt ods csv txt md png jpg jpeg gif svg zip gz js ts py rb rs sh php html htm json"
    " xml yml yaml ics eml msg".split()
)


def _target(href: str, words: str) -> tuple[str, str]:
    """What is written behind a link's words: its target, or nothing; and what is wrong with it, for the owner."""
    # As a browser reads it (URL standard §4.4): spaces around it and line breaks inside it do not count.
    target = re.sub(r"[\t\n\r]", "", href).strip("".join(map(chr, range(33))))
    if target.startswith(("//", "\\\\")):
        target = f"https:{target}"
    match = _SCHEME.match(target)
    if match is None:
        return "", ""  # a place on the same page
    scheme = match[1].lower()
    if scheme in ("javascript", "vbscript", "data"):
        return "", f"a link was dropped: its target is a {scheme}: address"
    if scheme in ("cid", "mid", "about", "blob", "x-apple-data-detectors"):
        return "", ""
    shortened = target if len(target) <= MAX_TARGET else f"{target[:MAX_TARGET]}…"
    shortened = "".join("%20" if letter.isspace() else letter for letter in shortened)
    if scheme == "mailto":
        address = target[7:].split("?")[0].strip()
        if words.lower() == address.lower():
            return "", ""
        fault = ""
        if _SHOWN_ADDRESS.fullmatch(words):
            fault = f"a link shows {excerpt(words)} and writes to {excerpt(address)}"
        return shortened, fault
    if _bare(words) == _bare(target):
        return "", ""
    return shortened, _deception(words, target)


def _bare(url: str) -> str:
    return re.sub(r"^(?:https?://|tel:|sms:)?(?:www\.)?", "", url.strip().lower()).rstrip("/")


def _deception(words: str, target: str) -> str:
    """A sentence where a link's words are themselves an address on the web, and not the one that it leads to."""
    leads = _host(target)
    if not leads:
        return ""
    shown = ""
    if match := _SHOWN_URL.search(words[:1000]):
        shown = _host(match[0] if ":" in match[0] else f"https://{match[0]}")
    elif (match := _SHOWN_DOMAIN.fullmatch(words[:1000])) and match[1].rpartition(".")[2].lower() not in _FILES:
        shown = _host(f"https://{match[1]}")
    if not shown or shown == leads or leads.endswith(f".{shown}") or shown.endswith(f".{leads}"):
        return ""
    return f"a link shows {excerpt(shown)} and leads to {excerpt(leads)}"


def _host(url: str) -> str:
    match = _WEB.match(url)
    if match is None:
        return ""
    host = match[1].rpartition("@")[2].lower()
    host = re.sub(r":\d*$", "", host).strip(".")[:253].removeprefix("www.")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host
