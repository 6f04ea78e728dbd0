"""Screening: what the owner must know before a draft is approved. Pure; linear in the texts, whoever wrote them.

The model reads mail of strangers, and is taken to obey them. So what it wrote is checked by plain code: each mark that
leads somewhere or binds somebody must stand in the mail or in the handbook, and what only a stranger wrote is never
passed on unseen. A finding is a line in the approval file; one with `hold` sends the mail to Needs_Action instead,
without the reply.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cloud_agent import words
from cloud_agent.mail import Mail, addresses, bare_addresses, envelope, shown
from cloud_agent.marks import Known, Mark, host_of, invisible, marks, readable, visible, without

MOST_OF_A_KIND = 5  # findings that are listed one by one; the rest are counted


@dataclass(frozen=True)
class Finding:
    """One thing to look at. `text` is one line for the owner; `hold`: not even a quick approval should be possible."""

    kind: str
    text: str
    hold: bool = False


def of_reply(
    reply: str, mail: Mail, earlier: Sequence[str], handbook: str, prompt: str, beside: Sequence[str] = ()
) -> tuple[Finding, ...]:
    """What is remarkable in a reply to `mail`. `earlier`: the texts of the conversation so far; `prompt`: what the
    model was told, without the handbook; `beside`: what else the model wrote, for the owner (its reason, the missing
    facts)."""
    reply = shown(reply)
    strangers = [*_texts(mail), *map(shown, earlier)]
    given, said = Known([shown(handbook)]), Known(strangers)
    found = [
        *_bounded(_of_notes(beside, mail, given, said)),
        *_leaks(reply, strangers, said, shown(handbook), shown(prompt)),
        *_markup(reply),
        *_marks(reply, mail, given, said),
        *_garbled(reply, strangers, shown(handbook)),
        *_language(reply, mail),
        *_claims(reply, shown(handbook)),
        *_news(reply, strangers, shown(handbook)),
        *_off_topic(reply, strangers),
    ]
    return _bounded(found)


def of_notes(notes: Sequence[str], mail: Mail, earlier: Sequence[str], handbook: str) -> tuple[Finding, ...]:
    """What is remarkable in what the model wrote for the owner: that, too, may be a stranger's words."""
    return _bounded(_of_notes(notes, mail, Known([shown(handbook)]), Known([*_texts(mail), *map(shown, earlier)])))


def _of_notes(notes: Sequence[str], mail: Mail, given: Known, said: Known) -> Iterable[Finding]:
    for text in map(shown, notes):
        for each in (*_markup(text), *_marks(text, mail, given, said)):
            yield replace(each, text=each.text.replace("the reply", "the note to you", 1))


def of_mail(mail: Mail) -> tuple[Finding, ...]:
    """What is remarkable in the mail itself: it speaks to a machine, hides text, or answers go elsewhere."""
    found = [*_recipients(mail), *_look_alikes(mail)]
    found += [Finding("hidden", _line(sentence, 200)) for sentence in mail.content.findings]
    texts = (
        (f"{shown(mail.subject)}\n{shown(mail.sender)}", "the head of the mail"),
        (_body(mail), "the mail"),
        (mail.content.hidden, "the hidden text of the mail"),
    )
    for text, where in texts:
        found += _steering(text, where)
    return _bounded(found)


def _texts(mail: Mail) -> list[str]:
    """What the mail says: its headers and its visible text."""
    return [shown("\n".join(mail.fields.values())), _body(mail)]


def _body(mail: Mail) -> str:
    return shown(mail.content.text)


def _line(text: str, limit: int = 100) -> str:
    """Foreign words in a finding: one line, bounded, nothing invisible."""
    text = " ".join(visible(text).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _bounded(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each finding once, holds first, at most MOST_OF_A_KIND of a kind."""
    kinds: dict[str, list[Finding]] = {}
    for finding in sorted(dict.fromkeys(found), key=lambda finding: not finding.hold):
        kinds.setdefault(finding.kind, []).append(finding)
    kept = []
    for kind, of_kind in kinds.items():
        kept += of_kind[:MOST_OF_A_KIND]
        if (more := len(of_kind) - MOST_OF_A_KIND) > 0:
            kept.append(Finding(kind, f"and {more} more of the kind: {kind}"))
    return tuple(sorted(kept, key=lambda finding: not finding.hold))


# -- links, addresses, numbers, dates ----------------------------------------------------------------------------------

_NAMES = {
    "link": "a link", "address": "an e-mail address", "account": "an account number", "phone": "a phone number",
    "amount": "an amount", "date": "a date", "time": "a time", "number": "a number",
}  # fmt: skip
# Verbs by which money is promised, in the first person.
_PAYING = re.compile(
    r"\b(?:i|we|you(?:'ll| will| can)|let us|let me)\b[^.!?\n]{0,60}\b(?:pay|paid|transfer\w*|wire[ds]?|remit\w*"
    r"|refund\w*|reimburse\w*|send|sent|owe|offer\w*|grant\w*|settle\w*|deposit\w*|donate\w*|invest\w*|agree\w*"
    r"|accept\w*|approve\w*|process\w*|issue[ds]?)\b"
    r"|\b(?:wir|ich)\b[^.!?\n]{0,60}\b(?:zahl\w*|überweis\w*|erstatt\w*|überwiesen|gezahlt|bezahl\w*)"
    r"|\b(?:nous|je|j')[^.!?\n]{0,60}\b(?:pay\w*|vers\w*|virer\w*|vir[eé]\w*|rembours\w*)"
    r"|\b(?:pagar\w*|transferir\w*|reembolsar\w*|pagherò|pagheremo|bonifico|rimborser\w*|betalen|overmaken)\b",
    re.I,
)


def _marks(reply: str, mail: Mail, given: Known, said: Known) -> Iterable[Finding]:
    """`given`: what the handbook has, `said`: what the mail and the thread have."""
    own = bare_addresses(mail.sender, mail.fields.get("reply_to", ""))
    own_hosts = {address.rpartition("@")[2] for address in own}
    text = readable(reply)
    for mark in marks(reply):
        name = _NAMES[mark.kind]
        quoted = _line(mark.shown)
        if given.has(mark):
            continue
        if not said.has(mark):
            yield Finding(
                mark.kind,
                f"the reply names {quoted}, {name} which is neither in the mail nor in the handbook{_deceit(mark)}",
                hold=mark.kind == "account",
            )
        elif mark.kind == "link" and mark.keys.isdisjoint(own_hosts):
            yield Finding("repeat", f"the reply repeats {name} of the mail: {quoted}{_deceit(mark)}")
        elif mark.kind == "address" and mark.keys.isdisjoint(own):
            yield Finding("repeat", f"the reply repeats {name} of the mail that is not the sender's: {quoted}")
        elif mark.kind == "account":
            yield Finding("repeat", f"the reply repeats {name} of the mail: {quoted}", hold=True)
        elif mark.kind == "amount" and _PAYING.search(_sentence(text, mark.at)):
            yield Finding("promise", f"the reply speaks of paying {quoted}, which stands in the mail alone")


def _sentence(text: str, position: int) -> str:
    """The sentence around a position, at most 300 characters to each side."""
    before = re.split(r"[.!?]\s|\n\n", text[max(0, position - 300) : position])[-1]
    return before + re.split(r"[.!?]\s|\n\n", text[position : position + 300], maxsplit=1)[0]


# Letters of other scripts, and digits, that look like Latin letters.
_CONFUSABLES = str.maketrans(
    "аеорсухіјѕԁһӏԛԝαεορυνικτχɑɡıℓ013",
    "aeopcyxijsdhlqwaeopuviktxagilole",
)


def skeleton(host: str) -> str:
    """A host as it looks: two hosts of one skeleton are taken for each other (UTS #39, its commonest part)."""
    if "xn--" in host:
        with contextlib.suppress(UnicodeError):
            host = host.encode("ascii", "ignore").decode("idna")
    return host.lower().translate(_CONFUSABLES).replace("rn", "m").replace("vv", "w").replace("i", "l")


def _deceit(mark: Mark) -> str:
    """Whether a link or an address looks like another: letters of two scripts in a word, or punycode."""
    if mark.kind not in ("link", "address"):
        return ""
    host = host_of(next(iter(mark.keys)).rpartition("@")[2])
    return "; it is written so that it looks like another" if _mixed(host) else ""


def _mixed(host: str) -> bool:
    if "xn--" in host:
        return True
    return any(re.search(r"[a-z]", part) and re.search(r"[^\x00-\x7fÀ-ɏ]", part) for part in host.split("."))


# -- what is not the reply's to say: the handbook, the prompt ----------------------------------------------------------

HANDBOOK_SHINGLE = 24  # letters and digits: four or five words
MOST_OF_THE_HANDBOOK = 260  # letters and digits that a reply may share with the handbook: about 50 words, three facts
MOST_LINES = 4  # of the handbook, that a reply may have whole
PROMPT_SHINGLE = 28  # about six words of the prompt
_SECRET_LINE = re.compile(
    r"\b(?:confidential\w*|secret\w*|internal(?:ly)? (?:use|only)|internal(?:ly)?:|for internal"
    r"|(?:do not|don't|never) (?:share|tell|disclose|reveal|mention|pass on)"
    r"|not (?:to be shared|for (?:customers|clients|outsiders))|vertraulich\w*|nur intern|geheim\w*"
    r"|nicht (?:weitergeben|nennen)|confidentiel\w*|ne (?:jamais|pas) divulguer|confidencial\w*|riservat\w*"
    r"|vertrouwelijk\w*|poufne|конфиденциальн\w*|секретн\w*)(?!\w)",
    re.I,
)
_SECRET_HEADING = re.compile(
    rf"{_SECRET_LINE.pattern}|\b(?:internal|private|intern|interne|interno|not for others)\b", re.I
)
_SPEAKS_OF_ITSELF = re.compile(
    r"\b(?:(?:my|these) (?:prompt|instructions|programming)\b|system prompt"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|i(?:'m| am) (?:an ai|claude|chatgpt|an? (?:ai |virtual )?assistant"
    r"(?! (?:professor|manager|director|editor|teacher|curator|to)))\b|language model|untrusted_mail\w*)"
    r"|</?handbook>",
    re.I,
)
_HANDBOOK = re.compile(r"\bhandbook\b", re.I)


def squeezed(text: str) -> str:
    """Letters and digits alone, in lower case: the same whatever spaces, groups or marks are put between them."""
    return re.sub(r"[\W_]+", "", readable(text).casefold())


def _shingles(text: str, size: int) -> set[str]:
    return {text[start : start + size] for start in range(len(text) - size + 1)}


def shared(reply: str, source: str, excluded: str, size: int) -> int:
    """How many letters and digits of `reply` stand in runs of `size` or more that `source` has, and `excluded` has not;
    all three squeezed. Also backwards."""
    ours = (_shingles(source, size) | _shingles(source[::-1], size)) - _shingles(excluded, size)
    covered, last = 0, 0
    for start in range(len(reply) - size + 1):
        if reply[start : start + size] in ours:
            covered += start + size - max(last, start)
            last = start + size
    return covered


def _leaks(reply: str, strangers: Sequence[str], said: Known, handbook: str, prompt: str) -> Iterable[Finding]:
    text = squeezed(reply)
    known = squeezed("\n".join(strangers))
    book = squeezed(handbook)
    covered = shared(text, book, known, HANDBOOK_SHINGLE)
    lines = [line for line in map(squeezed, handbook.splitlines()) if len(line) >= HANDBOOK_SHINGLE // 2]
    whole = [line for line in dict.fromkeys(lines) if line not in known and (line in text or line[::-1] in text)]
    if covered > MOST_OF_THE_HANDBOOK or len(whole) >= MOST_LINES or (len(lines) > 1 and len(whole) == len(lines)):
        yield Finding("leak", f"the reply holds much of the handbook: {covered} letters, {len(whole)} lines", hold=True)
    named = marks(reply)
    told = _numbers(reply) - _numbers("\n".join(strangers))
    for line in _secret_lines(handbook):
        secret, size = squeezed(line), 18
        kept, rest = Known([line]), Known([handbook.replace(line, "")])
        numbers = [mark for mark in named if kept.has(mark) and not (rest.has(mark) or said.has(mark))]
        bare = told & _numbers(line) - _numbers(handbook.replace(line, ""))
        if numbers or bare or shared(text, secret, known, min(size, max(len(secret), 8))):
            yield Finding("leak", f"the reply tells what the handbook calls confidential: {_line(line, 60)}", hold=True)
    if shared(text, squeezed(prompt), f"{known} {book}", PROMPT_SHINGLE):
        yield Finding("leak", "the reply holds words of the agent's instructions", hold=True)
    if match := _SPEAKS_OF_ITSELF.search(reply):
        yield Finding("assistant", f"the reply speaks of itself as a program: “{_line(match[0])}”")
    elif _HANDBOOK.search(reply) and not any(_HANDBOOK.search(text) for text in strangers):
        yield Finding("assistant", "the reply speaks of the handbook")


def _numbers(text: str) -> set[str]:
    """The numbers of three digits and more, however they are grouped."""
    return {re.sub(r"\D", "", number) for number in re.findall(r"\d{1,3}(?:[ .,]\d{3})+|\d{3,}", readable(text))}


def _secret_lines(handbook: str) -> list[str]:
    """Lines of the handbook that call themselves confidential, and those below a heading that does."""
    found, below = [], False
    for line in handbook.splitlines():
        if line.lstrip().startswith("#"):
            below = _SECRET_HEADING.search(line) is not None
        elif line.strip() and (below or _SECRET_LINE.search(line)):
            found.append(line)
    return found


# -- what Obsidian would render, fetch or run --------------------------------------------------------------------------

# White space that puts what follows out of sight; U+2800 is Braille's empty cell.
_EMPTY = re.compile(r"[\s\u2800]{40,}+")

_MARKUP: tuple[tuple[str, bool, str, re.Pattern[str]], ...] = (
    ("embed", True, "another note is embedded", re.compile(r"!\[\[[^\n]{0,60}")),
    ("image", False, "an image that would be fetched", re.compile(r"!\[[^\n]{0,80}")),
    ("wikilink", False, "a link to a note", re.compile(
        r"\[\[[^\n]{0,60}|\]\([ \t]?<?(?![ \t<]|(?:https?|mailto|tel):|www\.|[^\s)]{0,60}@)[^\n)]{1,80}\)", re.I)),
    ("image", False, "a reference of a link or an image", re.compile(
        r"\[[^\]\n]{1,60}\]:\s?[^\n]{0,60}|\]\[[^\]\n]{0,60}\]")),
    ("plugin", True, "code that a plugin of Obsidian runs", re.compile(
        r"<%[^\n]{0,60}"
        r"|`{1,3}\s?\$?=[^\n]{0,60}"
        r"|\bdataview(?:js)?\b[^\n]{0,40}"
        r"|\btp\.(?:file|system|web|user|date|obsidian)\b[^\n]{0,40}"
        r"|(?<![`~])(?:`{3,}|~{3,})\s?\{?\s?(?:dataview|dataviewjs|tasks|query|button|buttons|meta-bind\S*|templater"
        r"|chart|run-\S+|js-engine|jsx|react|iframe|customjs|execute|leaflet|bookshelf|kanban|shell|osascript"
        r"|excalidraw)\b[^\n]{0,40}"
        r"|`\s?(?:BUTTON|INPUT|VIEW|button-|dv|js)[\[:.-][^\n]{0,40}"
        r"|\b(?:app\.vault|dv\.|obsidian://)[^\n]{0,40}", re.I)),
    ("html", False, "HTML", re.compile(
        r"<(?:[a-z][a-z0-9-]{0,20}(?=[\s/>])[^\n<>]{0,60}|/[a-z]|!--|!\[|\?|!doctype)[^\n<>]{0,40}", re.I)),
    ("code", False, "a block of code", re.compile(r"(?:`{3,}|~{3,})[^\n]{0,40}")),
    ("code", False, "inline code", re.compile(r"`[^`\n]{1,60}`")),
    ("comment", True, "a comment that Obsidian does not show", re.compile(r"%%[^\n]{0,60}|<!--[^\n]{0,60}")),
    ("breakout", False, "the fence of a front matter", re.compile(
        r"\A\s*(?:---|\.\.\.|\+\+\+)\s*?\n|^---[ \t]*\n(?:[A-Za-z_-]{1,30}:[^\n]*\n)", re.M)),
    ("breakout", False, "a line like a mail's header or a note's property", re.compile(
        r"^[ \t>*_-]{0,8}(?:to|cc|bcc|from|subject|reply-to|status|decision|approved|approved_by|draft_id|email_id"
        r"|sha256|expires|in-reply-to|references|confidence|flags|attachments?|path|folder)"
        r"\*{0,2}[ \t]?::?[ \t]?\S[^\n]{0,60}", re.I | re.M)),
    ("breakout", False, "an inline property", re.compile(
        r"(?:^|[\[(\s])[A-Za-z][\w -]{0,30}::[ \t]?\S[^\n]{0,40}", re.M)),
    ("breakout", False, "a task, as plugins list them", re.compile(
        r"^[ \t>]*(?:[-*+]|\d{1,9}[.)])[ \t]+\[.\][ \t][^\n]{0,60}", re.M)),
    ("hidden", False, "a footnote, which stands at the file's end", re.compile(r"\^\[[^\n]{0,60}|\[\^[^\n]{0,60}")),
    ("hidden", False, "a long empty space, with more text below it", _EMPTY),
    ("breakout", False, "a path of a file", re.compile(
        r"(?:\.\./|\.\.\\){1,}[^\s]{0,60}"
        r"|\b(?:Pending_Approval|Approved|Needs_Action|Done|In_Progress|Rejected)/[^\s]{0,60}"
        r"|/etc/[a-z]{2,20}|~/\.\w{2,20}")),
    ("math", False, "a formula, which may hide words", re.compile(
        r"\$[^$\n]{0,80}\\(?:phantom|color|href|style|class|cssId|tiny|hspace|kern|rlap|llap|unicode|require|begin"
        r"|text)[^\n]{0,40}"
        r"|\$\$[^\n]{1,60}")),
)  # fmt: skip


def _markup(reply: str) -> Iterable[Finding]:
    seen = False
    reply = reply.rstrip()
    for kind, hold, name, pattern in _MARKUP:
        match = pattern.search(reply)
        if match is None:
            continue
        seen = True
        yield Finding(kind, f"the reply holds {name}: {_line(match[0], 80)}", hold)
    hidden = invisible(reply)
    if hidden:
        yield Finding("invisible", f"the reply held {len(hidden)} invisible characters: they were taken out")
    normal = reply.replace("\r\n", "\n").replace("\r", "\n")
    if not seen and not hidden and neutral(normal) != normal:
        yield Finding("markup", "characters of the reply were changed so that Obsidian shows them and runs nothing")


_AUTOLINK = r"(?:https?://[^\s<>]*|mailto:[^\s<>]*|[^\s<>@]+@[^\s<>@]+)>"
_NEUTRAL: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"), ""),
    (re.compile(r"`"), "'"),  # no code, so nothing in it runs, and no fence swallows what follows
    (re.compile(r"~(?=~~)"), "~ "),
    (re.compile(rf"<(?=[A-Za-z/!?%])(?!{_AUTOLINK})"), "< "),  # no tag, no comment, no marker of ours, no Templater
    (re.compile(r"!(?=\[)"), "! "),  # no image, no embed
    (re.compile(r"\[(?=\[)"), "[ "),  # no link to a note
    (re.compile(r"\^(?=\[)"), "^ "),  # no footnote, which would stand at the file's end
    (re.compile(r"\[(?=\^)"), "[ "),
    (re.compile(r"\](?=:)"), "] "),  # no reference that is defined out of sight
    (re.compile(r"\](?=\[)"), "] "),
    (re.compile(r"%(?=%)"), "% "),  # no comment of Obsidian
    (re.compile(r":(?=:)"), ": "),  # no property of Dataview
    (re.compile(r"\b(obsidian|javascript|vbscript|file)(:)(?=\S)", re.I), r"\1\2 "),
    (re.compile(r"\b(data)(:)(?=[\w.+-]{0,40}/[\w.+-]{0,40}[;,])", re.I), r"\1\2 "),
    (re.compile(r"\A(\s*)(?=---|\.\.\.|\+\+\+)"), r"\1\\"),  # no front matter
)
_MACRO = re.compile(r"\\(?=[A-Za-z])")


def neutral(text: str) -> str:
    """The text, safe to open in Obsidian: nothing in it is fetched, embedded, run or hidden, and it can neither end the
    reply early nor open a front matter. A space breaks what would be special, so that the words stay readable; a plain
    reply comes back as it was. Idempotent.
    """
    text = visible(shown(text).replace("\r\n", "\n").replace("\r", "\n"))
    text = _EMPTY.sub(lambda match: "\n\n" if "\n" in match[0] else "  ", text)
    for pattern, harmless in _NEUTRAL:
        text = pattern.sub(harmless, text)
    return _MACRO.sub(r"\\ ", text) if "$" in text else text


# -- text that nobody is meant to read ---------------------------------------------------------------------------------

_ENCODED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("Base64", re.compile(
        r"(?<![\w/+=.-])(?=[A-Za-z0-9+/_-]{0,60}[A-Z])(?=[A-Za-z0-9+/_-]{0,60}[a-z])[A-Za-z0-9+/_-]{28,}={0,2}"
        r"(?![\w/])")),
    ("Base32", re.compile(r"(?<![\w])[A-Z2-7]{32,}={0,6}(?!\w)")),
    ("hexadecimal", re.compile(r"(?<!\w)(?:[0-9a-f]{2}[ :,]?){16,}(?!\w)", re.I)),
    ("Morse code", re.compile(r"(?:[.·•\-−–—]{1,7}[ /|]{1,3}){8,}")),
    ("binary", re.compile(r"(?:\b[01]{7,8}\b\s?){3,}|[01]{24,}")),
    ("numbers for letters", re.compile(r"(?<![\d.])(?:\d{1,3}[-. ,/]{1,2}){11,}\d{1,3}(?!\d)")),
    ("percent-encoding", re.compile(r"(?:%[0-9A-F]{2}){5,}", re.I)),
    ("escapes", re.compile(r"(?:\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|&#x?[0-9a-f]{1,6};){4,}", re.I)),
)  # fmt: skip
_EMOJI = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")
MOST_EMOJI = 6
LONGEST_WORD = 34  # letters; Danish and German compounds of letters end well before
_DIGIT_INSIDE = re.compile(r"[^\W\d_]\d{1,2}[^\W\d_]|^\d{1,2}[^\W\d_]{3,}|[^\W\d_]{2}\d[^\W\d_]", re.I)
_SYMBOL_INSIDE = re.compile(
    r"[^\W\d_][@&#$%!*+=^~|€£¢§{}\[\]\\/<>;:(),?][@&#$%!*+=^~|]?[^\W\d_]|^[@&#$%^*+=][^\W\d_]{2,}"
)
_ORDINAL = re.compile(r"\d{1,9}(?:st|nd|rd|th|am|pm|h|k|m|x|kg|km|cm|mm|gb|mb|min|hrs?|s|d|e|er|uhr)\Z", re.I)
FEWEST_ODD_WORDS = 3
FEWEST_WORDS = 12
# Small words of the reply's best language; letters have 0.3 and more, scrambled ones below 0.1.
FEWEST_SMALL = 0.13


def _garbled(reply: str, strangers: Sequence[str], handbook: str) -> Iterable[Finding]:
    known = "\n".join([*strangers, handbook])
    for name, pattern in _ENCODED:
        for match in pattern.finditer(reply):
            if match[0].strip() not in known and "://" not in reply[max(0, match.start() - 100) : match.start()]:
                yield Finding("encoded", f"the reply holds encoded text ({name}): {_line(match[0], 40)}", hold=True)
                break
    text = without(reply, ("link", "address", "amount", "date", "time", "phone"))
    seen = set(known.split())
    tokens = [token for token in text.split() if token not in seen]
    bare = [token.strip("()[]{}<>.,;:!?\"'*_`“”‘’«»…-") for token in tokens]
    digits = [
        token for token in bare if _DIGIT_INSIDE.search(token) and not _ORDINAL.search(token) and "-" not in token
    ]
    symbols = [token for token in bare if _SYMBOL_INSIDE.search(token) and not token.isupper() and "/" not in token]
    long = [part for token in bare for part in re.split(r"[-/]", token) if _letters(part) > LONGEST_WORD]
    if len(digits) >= FEWEST_ODD_WORDS:
        yield Finding("garbled", f"digits stand for letters: {_some(digits)}", hold=len(digits) > len(tokens) / 3)
    if len(symbols) >= FEWEST_ODD_WORDS:
        yield Finding("garbled", f"symbols stand for letters: {_some(symbols)}", hold=len(symbols) > len(tokens) / 3)
    if long and words.language(known) not in ("ja", "zh", "th"):
        yield Finding("garbled", f"words run into each other: {_some(long)}", hold=len(long) * 80 > len(reply))
    emoji = len(_EMOJI.findall(reply))
    if emoji > MOST_EMOJI and emoji > len(_EMOJI.findall(known)):
        yield Finding("garbled", f"the reply holds {emoji} pictograms")
    listed = words.words(text)
    latin = [word for word in listed if word.isascii() or re.match(r"[À-ɏЀ-ӿ]", word)]
    if len(latin) >= FEWEST_WORDS and words.known_language(strangers):
        small = max(words.shares(text).values())
        if small < FEWEST_SMALL:
            yield Finding("garbled", "the words of the reply are those of no language that is known here", hold=True)


def _letters(token: str) -> int:
    return sum(character.isalpha() and character < "\u2e80" for character in token)


def _some(tokens: Sequence[str]) -> str:
    listed = ", ".join(_line(token, 40) for token in list(dict.fromkeys(tokens))[:3])
    return f"{listed} …" if len(tokens) > 3 else listed


def _language(reply: str, mail: Mail) -> Iterable[Finding]:
    body = _body(mail)
    own = "\n".join(line for line in body.splitlines() if not line.lstrip().startswith(">"))
    asked = words.language(own) or words.language(body)
    for part, where in ((reply, "the reply"), *((part, "a part of the reply") for part in reply.split("\n\n"))):
        written = words.language(part)
        if written and asked and not words.same_language(written, asked):
            names = words.LANGUAGE_NAMES
            yield Finding("language", f"{where} is in {names[written]}, the mail in {names[asked]}")
            return


# -- what the reply claims ---------------------------------------------------------------------------------------------

_MONEY = r"(?:payment|transfer|invoice|refund|amount|sum|money|wire|deposit|fee|funds|compensation|reimbursement)"
_CLAIMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("something is approved already", re.compile(
        r"\b(?:already|pre-?|has been|have been|was|were|is|are|been|hereby|fully)[ -](?:\w+ )?"
        r"(?:approved|authori[sz]ed|signed off)\b[^.!?\n]{0,40}\b(?:by|ceo|cfo|owner|management|boss|director|send"
        r"|sent|send\w*|release\w*|review)\b"
        r"|\b(?:this|the|your) (?:draft|reply|e-?mail|message|payment|transfer|request|invoice|wire) "
        r"(?:has been|was|is) (?:already )?(?:approved|authori[sz]ed|signed off|cleared)"
        r"|\b(?:i|we) (?:hereby |have |already |fully ){0,3}(?:approve|authori[sz]e|approved|authori[sz]ed)\b"
        r"|\bpre-?approved\b"
        r"|\bno (?:further |additional )?(?:review|approval) (?:is )?(?:needed|required|necessary)"
        r"|\b(?:bereits|schon) (?:freigegeben|genehmigt)|\bdéjà (?:approuvé|validé)"
        r"|\bya (?:está |ha sido )?aprobad|\bgià approvat|\bjá (?:foi )?aprovad"
        r"|\breeds goedgekeurd|\bуже (?:одобрен|утвержд)|已(?:经)?批准|承認済み", re.I)),
    ("money was or will be sent", re.compile(
        r"\b(?:i|we)(?:'ve|'ll| have| will| just| already| hereby| can| am| are){0,3} "
        r"(?:now |just |already |gladly |happily |immediately )?(?:transfer\w*|wired?|wiring|paid|pay|paying|remit\w*"
        r"|refund\w*|reimburs\w*|settled|donated?|deposit\w*)\b"
        rf"|\b(?:the|your|full|a|our) (?:\w+ )?{_MONEY} (?:has been|was|is being|is on its way|will be|has"
        r"|have been) (?:\w+ )?(?:sent|made|transferred|wired|processed|paid|released|initiated|issued|refunded"
        r"|executed|its way)"
        r"|\b(?:full|complete|partial) refund\b|\bgift cards?\b"
        r"|\byour (?:money|payment|fee|deposit) (?:back|refunded|returned)\b"
        r"|\b(?:money|amount|sum|payment|refund|funds|EUR|euros?|USD|dollars?|GBP|pounds?) (?:will|should|is going to) "
        r"(?:reach|arrive|be with|be in|show up)\b"
        r"|\b(?:wir|ich) (?:haben|habe|werden|werde)\b[^.!?\n]{0,60}\b(?:überwiesen|überweisen|bezahlt|gezahlt|zahlen"
        r"|erstatten)\b"
        r"|\b(?:nous avons|j'ai|nous allons|je vais)\b[^.!?\n]{0,40}\b(?:payé|viré|versé|transféré|payer|virer|verser"
        r"|rembourser)\b"
        r"|\b(?:hemos|he|vamos a|voy a)\b[^.!?\n]{0,40}\b(?:pagado|transferido|pagar|transferir|reembolsar)\b"
        r"|\b(?:abbiamo|ho)\b[^.!?\n]{0,40}\b(?:pagato|bonificato|trasferito)\b"
        r"|\bhebben\b[^.!?\n]{0,40}\b(?:betaald|overgemaakt)\b"
        r"|\b(?:мы|я)\b[^.!?\n]{0,40}\b(?:перевели|оплатили|перевёл|перевел|оплатил|переведём|оплатим)\b"
        r"|已(?:经)?(?:付款|转账|汇款)", re.I)),
    ("something is agreed or guaranteed", re.compile(
        r"\b(?:i|we)(?:'ll| will| do| can| hereby| fully| formally| gladly| happily| are happy to| am happy to| have"
        r"| also| therefore){0,3} (?:agree(?:d)?|accept(?:ed)?|commit(?:ted)?|guarantee(?:d)?|warrant|undertake"
        r"|consent(?:ed)?|waive[d]?|acknowledge liability|admit)\b"
        r"(?! (?:that )?(?:this|it|the) (?:is|sounds|would|looks|makes))[^.!?\n]{0,80}\b"
        r"(?:pay\w*|price|terms|contract|offer|agreement|quote|fee|liab\w*|refund|claim|discount|invoice|delivery"
        r"|conditions?|damages|amount|deal|proposal|rights?|\d+)\b"
        r"|\b(?:i|we)(?:'ll| will| do| can| hereby| have| am| are| gladly| happily){0,3} (?:now |already )?"
        r"(?:confirm(?:ed)?|cancel(?:led|ed)?|terminate[d]?|extend(?:ed)?|sign(?:ed)?)\b[^.!?\n]{0,40}\b(?:orders?|bookings?"
        r"|reservations?|appointments?|contracts?|agreements?|subscriptions?|purchases?|cancellations?|terminations?)\b"
        r"|\b(?:that|this|it)(?: is|'s) (?:hereby )?agreed\b|\bconsider it (?:done|settled|agreed)\b"
        r"|\bfree of (?:any )?charge\b|\bat no (?:extra |additional |further )?(?:cost|charge)\b"
        r"|\b(?:cover|bear|take over|carry|assume)\b[^.!?\n]{0,20}\b(?:costs?|expenses|damages?|liability|risks?)\b"
        r"|\b(?:we|i)(?: are|'re| am|'m) (?:fully |solely )?(?:liable|at fault|to blame)"
        r"|\b(?:our|my) (?:own )?fault\b"
        r"|\b(?:contract|debt|agreement|claim|order|subscription|loan|fine) (?:is|has been|was) (?:hereby |now )?"
        r"(?:cancel\w+|terminated|waived|forgiven|accepted|extended|confirmed|settled)\b"
        r"|\byou(?: are|'re) (?:hereby )?hired\b|\bi (?:hereby )?(?:resign|quit)\b"
        r"|\b(?:binding|legally binding|irrevocabl\w+)\b|\bwe have a deal\b"
        r"|\b(?:consider|treat) (?:this|it) (?:as )?(?:signed|final|binding|accepted)\b"
        r"|\b(?:i|we) (?:hereby|guarantee)\b"
        r"|\b(?:wir|ich) (?:akzeptieren?|garantieren?|verpflichten?|stimmen?)\b[^.!?\n]{0,60}\b"
        r"(?:angebot|preis|vertrag|zahlung|bedingungen|zu)\b"
        r"|\bnous (?:acceptons|garantissons|nous engageons)\b"
        r"|\b(?:aceptamos|garantizamos|nos comprometemos)\b"
        r"|\b(?:accettiamo|garantiamo|ci impegniamo)\b"
        r"|\b(?:мы )?(?:гарантируем|обязуемся|принимаем ваше предложение)\b", re.I)),
    ("something secret is told", re.compile(
        r"\b(?:password|passcode|passphrase|pin|security code|verification code|access code|one-time code|otp"
        r"|api[ -]?key|token|kennwort|passwort|mot de passe|contraseña|wachtwoord|пароль)\b[^.!?\n]{0,20}"
        r"(?:\bis\b|\bare\b|:|=|\blautet\b|\bist\b|\best\b|\bes\b)\s?[\"'“‘]?\S*\d\S*", re.I)),
    ("something is attached", re.compile(
        r"\b(?:i(?:'ve| have| am| also)?|we(?:'ve| have| are)?) (?:\w+ )?(?:attach(?:ed|ing)?|enclos(?:e|ed|ing))\b"
        r"|\bplease (?:find|see) (?:\w+ )?(?:attached|enclosed)\b|\bim anhang finde"
        r"|\banbei\b|\bci-joint\b|\badjunto\b|\bin allegato\b", re.I)),
    ("something was done that a draft cannot do", re.compile(
        r"\b(?:i|we)(?:'ve|'ll| have| will| just| already| am| are){0,3} (?:now |just |already |also )?"
        r"(?:forward(?:ed|ing)?|cc'?e?d|bcc'?e?d|copied|cop(?:y|ying)|deleted?|deleting|archived|unsubscribed|changed"
        r"|reset|granted|shared|uploaded|posted|booked|created|invited|granted|disabled|sent|added)\b[^.!?\n]{0,80}"
        r"\b(?:to|from|with|for|your|all|the|access|account|password|calendar|mails?|e-?mails?|messages?|files?)\b",
        re.I)),
    ("the reader is to install, click or log in", re.compile(
        r"\b(?:please |kindly |just |you (?:can|should|must|need to) |to )?(?:click|tap)(?: on)? "
        r"(?:here|below|this|the)\b"
        r"|(?<!not )(?<!n't )(?<!able to )\b(?:download|install|run|open|enable|disable)\b[^.!?\n]{0,30}\b"
        r"(?:tool|app|software|program|attachment|update|macro\w*|file|extension|antivirus|crack\w*)\b"
        r"|\b(?:send|provide|give|tell|share|reply with|let (?:me|us) (?:know|have)|need|confirm|enter)\b[^.!?\n]{0,30}"
        r"\byour [^.!?\n]{0,40}\b(?:date of birth|passport|id (?:card|number)|social security|tax (?:id|number)"
        r"|driver'?s licen[cs]e|bank (?:account|details)|account (?:number|details)|iban|card (?:number|details)"
        r"|cvv|cvc)\b"
        r"|\b(?:log ?in|sign in|enter|send(?: us| me)?|provide|verify|confirm)\b[^.!?\n]{0,20}\byour "
        r"(?:password|credentials|pin|card|bank|account (?:details|number)|social security)\b", re.I)),
)  # fmt: skip


def _claims(reply: str, handbook: str) -> Iterable[Finding]:
    text, allowed = readable(reply), readable(handbook).lower()
    for name, pattern in _CLAIMS:
        matches = (match[0] for match in pattern.finditer(text))
        if claim := next((match for match in matches if match.lower() not in allowed), ""):
            yield Finding("claim", f"the reply says that {name}: “{_line(claim, 80)}”")


# -- what the reply is about -------------------------------------------------------------------------------------------

NEW_WORDS = 3  # in one paragraph, and NEW_SHARE of its words
NEW_SHARE = 0.08
NEW_NAMES = 1
_CODE = re.compile(
    r"^[ \t]*(?:def \w+\(|class \w+[:(]|import \w+|from \w+ import|function \w*\s?\(|(?:const|let|var) \w+ ?="
    r"|public (?:static|class)|#include\b|<\?php|SELECT\b[^\n]{0,80}\bFROM\b|\$\w+ ?=|return\b[^\n]{0,60};?$"
    r"|for \w+ in |if \(?[^\n]{1,60}[:{]$|print\()|[;{}][ \t]*$|console\.log\("
    r"|\b\w{1,60}\([^()\n]{0,40}\);",
    re.M,
)
_RECIPE = re.compile(r"\b(?:preheat|teaspoons?|tablespoons?|tbsp|tsp|cups? of|grams? of|simmer|knead)\b", re.I)


def _news(reply: str, strangers: Sequence[str], handbook: str) -> Iterable[Finding]:
    """What stands neither in the mail nor in the handbook, nor in the words that any letter has. English alone."""
    code = _CODE.findall(reply)
    if len(code) >= 2 and not any(len(_CODE.findall(text)) >= 2 for text in strangers):
        yield Finding("code", f"the reply holds lines of a program: {_line(code[0].strip() or 'code', 60)}")
    recipe = _RECIPE.findall(reply)
    if len(recipe) >= 2 and not any(_RECIPE.search(text) for text in strangers):
        yield Finding("news", f"the reply holds a recipe: {_some(recipe)}")
    if words.language(reply) not in ("en", "") or words.language("\n".join(strangers)) not in ("en", ""):
        return
    known = words.known_stems([*strangers, handbook])
    text = without(reply)
    for paragraph in [*text.split("\n\n"), text]:
        listed = words.words(paragraph)
        new = [word for word in listed if len(word) > 2 and not words.is_known(word, known)]
        names = [word for word in dict.fromkeys(new) if word[0].isupper() and _inside(paragraph, word)]
        if names and len(names) >= NEW_NAMES:
            yield Finding(
                "news", f"the reply names what stands neither in the mail nor in the handbook: {_some(names)}"
            )
            return
        distinct = list(dict.fromkeys(word.lower() for word in new))
        if len(distinct) >= NEW_WORDS and len(new) >= NEW_SHARE * len(listed):
            yield Finding(
                "news", f"the reply tells what stands neither in the mail nor in the handbook: {_some(distinct)}"
            )
            return


def _inside(text: str, word: str) -> bool:
    """Whether a capital stands inside a sentence: not at its start, where any word has one."""
    start = text.find(word)
    before = text[max(0, start - 20) : start].rstrip(" \t\"'“‘(*_")
    return bool(before) and before[-1] not in ".!?:\n•-–—>"


FEWEST_CONTENT_WORDS = 25


def _off_topic(reply: str, strangers: Sequence[str]) -> Iterable[Finding]:
    """Whether a long reply in another language than English (`_news` knows that one) shares no word with the mail."""
    if words.language(reply) in ("", "en"):
        return
    small = frozenset().union(*words.SMALL_WORDS.values())
    content = {word.lower() for word in words.words(reply) if len(word) > 2 and word.lower() not in small}
    if len(content) < FEWEST_CONTENT_WORDS:
        return
    said = {word[:5].lower() for text in strangers for word in words.words(text) if len(word) > 2}
    if not any(word[:5] in said for word in content):
        yield Finding("topic", "the reply has no word in common with the mail")


# -- the mail itself ---------------------------------------------------------------------------------------------------

_SAME = r"(?:[^.!?\n]|[.!?](?=\S)){0,180}"  # within a sentence
_YOUR = (
    r"(?:your|the|this) (?:response|answer|reply|repl(?:y|ies)|output|draft|summary)\b"
    r"(?! (?:to|from) (?:my|our|the) )"
)
_VERBS = (
    r"(?:add|includ\w+|insert|append|integrate|augment|enhance|modify|change|write|render|convert|replace|substitute"
    r"|remove|combine|group|rearrange|scramble|jumble|misspell|anagram|introduce|use|mention|begin|start|end|finish"
    r"|conclude|sign|put|place|make|ensure|translate|encode|format|repeat|reveal|suggest|promote|state|say|quote|copy"
    r"|paste|prepend|attach|hide|embed|print|reverse|spell|capitali[sz]e|encrypt|cipher|tease|recommend|advertise"
    r"|link|list|answer)"
)
_STEERING: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern, re.I | re.M)
    for pattern in (
        # rules that were given before
        r"\b(?:ignor\w+|disregard\w*|forget|override|bypass|neglect|overwrite|stop following|do not follow"
        r"|don't follow)\b[^.\n]{0,50}\b(?:i?u?nstruct\w*|prompts?|rules|directives|guidelines|handbook|programming"
        r"|training|(?:previous|earlier|prior|above) (?:context|text|messages?))\b",
        r"\bnew (?:system )?(?:instructions?|rules|task)\s?:"
        r"|\b(?:strictly|only) (?:follow|adhere|obey)\b"
        r"|\byour (?:new|real|actual|true) (?:task|instructions?|goal|role|job|purpose)\b"
        r"|\b(?:the )?following (?:is your|are your)\b",
        # what is to stand in the answer
        rf"\b{_VERBS}\b{_SAME}\b(?<!forward )(?:in|into|within|inside|throughout|with|to|of|from|for|between|after"
        rf"|before) {_YOUR}",
        rf"\b{_VERBS} (?:every \w+ word in |each \w+ of )?{_YOUR}",
        rf"\b(?:provide|give|send|deliver|present|produce|generate|phrase|word) {_YOUR} "
        r"(?:using|with|without|in|as|only)\b",
        rf"\bin {_YOUR},? ?(?:please )?{_VERBS}\b",
        r"\b(?:your|the) (?:response|answer|reply|output) (?:must|should|shall|has to|needs to|will|is to) "
        r"(?!be (?:sent|received|submitted|given|returned)|reach|arrive)\w+",
        rf"\b{_VERBS}\b{_SAME}\byour message'?s?\b"
        rf"|\b(?:jumble|scramble|rearrange|render|encode|reverse)\b{_SAME}\b(?:words|letters|message)\b",
        r"\b(?:reply|respond|answer|write back) (?:only )?(?:in|with|using) (?:base ?64|hex\w*|rot ?13|morse|binary"
        r"|reverse\w*|code|cipher|emojis?|leet\w*|pig latin|json|yaml|xml|markdown|html|capitals|all caps|one word"
        r"|rhymes?|a poem|the (?:text|words|following))\b",
        # whom it speaks to
        r"\b(?:you are|you're|act as|pretend to be|behave like|if you are|to you,|attention,?|dear|hello|hey|hi"
        r"|note (?:to|for)|message (?:to|for)|instructions? (?:to|for)|as) (?:an? |the |any |all |my |now )?"
        r"(?:helpful |advanced |large )?(?:ai|a\.i\.|llm|gpt[\w.-]*|chatgpt|gemini|copilot|language models?"
        r"|ai (?:assistants?|agents?|models?|systems?)|chat ?bots?|virtual assistants?"
        r"|automated (?:system|assistant|agent)s?|e-?mail (?:assistant|agent|bot)s?"
        r"|drafting (?:agent|assistant|system)s?)\b",
        r"\bto you, (?:claude|gpt|chatgpt|gemini|llama|mistral|the (?:ai|assistant|model))"
        r"|\b(?:dear|hey|hello|hi|attention:?) (?:assistant|bot|agent|model)\b"
        r"(?! (?:manager|professor|director|editor|secretary))"
        r"|\b(?:the|this|any|your) (?:ai|assistant|model|llm|bot|agent) (?:must|should|shall|will|has to|needs to"
        r"|is (?:instructed|required|authori[sz]ed))\b",
        r"^[ \t]*(?:assistant|human|ai|claude|gpt)\s?:"
        r"|^[ \t]*(?:system|admin|developer)\s?:\s?(?:you|ignore|new|override|the (?:assistant|model|user)|please"
        r"|this|all|always|never|from now|message|instruction|update)"
        r"|\bsystem[ _-](?:message|prompt|override|instruction|note|command|notice to)\b"
        r"|#{2,}\s?\(?(?:system|instruction|assistant|user|human|new task|task)"
        r"|\bdeveloper mode\b|\bjailbreak\b|\bdo anything now\b|\bfrom now on,? you\b",
        r"</?(?:information|system|instructions?|admin|assistant|user|human|prompt|untrusted\w*|handbook|mail|email"
        r"|context|tool\w*|function\w*|thinking|important)\s?>|<\|[a-z_]{2,20}\|>"
        r"|\[/?(?:inst|system|assistant|sys)\]|<<sys>>"
        r"|\bEND OF (?:MAIL|EMAIL|MESSAGE|PROMPT|INPUT|DATA)\b",
        r"\b(?:important|urgent) message from (?:me|[^\n]{1,60}),? to you\b"
        r"|\btask that i (?:gave|have given|assigned) you\b"
        r"|\bbefore you (?:can |do |solve|answer|reply|draft|respond|continue|write)[^.\n]{0,60}\b"
        r"(?:first|following|must)\b|^[ \t]*TODO:\s",
        # what is to be decided
        r"\b(?:classify|mark|label|treat|categori[sz]e|flag|tag|file|rate|consider|regard) (?:this|the|my)(?: \w+)? ?"
        r"(?:e-?mail|message|mail|one|thread)? (?:as|to be) (?:\w+[ -])?(?:spam|junk|safe|approved|automatic"
        r"|newsletter|phishing|skip\w*|no[ -]reply|handled|done|trusted|high|low|not |unimportant|important"
        r"|irrelevant|reviewed)"
        r"|\b(?:set|change|put|update)\b[^.\n]{0,30}\b(?:decision|status|confidence|recipient|subject(?: line)?"
        r"|reply-to|to field|cc|bcc|e-?mail_id|file ?name|path|folder|front ?matter)\b[^.\n]{0,20}\b(?:to|as|into)\b"
        r"|^[ \t]*[\"']?(?:decision|status|confidence|approved)[\"']?\s?[:=]\s?[\"']?"
        r"(?:approved|reply|review|skip|notify|high|true|yes|sent|done|none)\b"
        r"|\b(?:do not|don't|never|no need to) (?:draft|flag|show|tell|mention (?:this|it)|alert|notify|inform|warn"
        r"|reveal)\b[^.\n]{0,40}\b(?:owner|user|reply|this|human|approver|person|anyone|review)\b",
        # what is to be told
        r"\b(?:reveal|print|show|repeat|output|quote|copy|paste|includ\w+|send|give|forward|tell|share|disclose"
        r"|summari[sz]e|list|translate|append|encode|attach|provide|recite|leak|write)\b[^.\n]{0,80}\b"
        r"(?:system prompt|(?:your|the|initial|hidden|secret|full|original|system) "
        r"(?:prompt|instructions|configuration|context)"
        r"|(?:company |employee |owner's |whole |entire |internal )*handbook|everything above"
        r"|(?:text|words|content) above|api[ -]?keys?|environment variables?|\.env)\b",
        # what assistants are asked for, and correspondents are not
        r"\b(?:write|compose|provide|draft|create|develop|generate|give me|tell me|make up|recite"
        r"|sing)\b[^.\n]{0,40}\b(?:poem|haiku|sonnet|limerick|song|lyrics|short story|essay|fairy tale|screenplay"
        r"|joke|riddle|rap|speech on)\b"
        r"|\btranslate (?:the following|this|that|the (?:sentence|phrase|word))"
        r"|\bhow do you say ['\"“‘]"
        r"|\bwhat(?:'s| is) ['\"“‘][^'\"\n]{1,60}['\"”’] in [a-z]+\?"
        r"|\b(?:spanish|french|german|italian|russian|japanese|chinese|latin|english|portuguese|arabic|korean) "
        r"(?:equivalent|translation) (?:for|of) ['\"“‘]",
        # the same in other languages
        r"\b(?:ignorier\w*|vergiss\w*|vergessen sie|missachte\w*|übergeh\w*)[^.\n]{0,50}"
        r"(?:anweisung\w*|regeln|vorgaben|instruktion\w*|befehle)",
        r"\b(?:ignore[rz]?|ignorez|oublie[rz]?|ne (?:tenez|tiens) pas compte)[^.\n]{0,50}"
        r"(?:instructions?|consignes?|règles|directives)",
        r"\b(?:ignora|ignore|ignorad|olvida|olvide|omite)\b[^.\n]{0,50}(?:instrucciones|reglas|indicaciones|órdenes)",
        r"\b(?:ignora\w*|dimentica\w*)\b[^.\n]{0,50}(?:istruzioni|regole|indicazioni)"
        r"|\b(?:ignore|esqueça|desconsidere)\b[^.\n]{0,50}(?:instruções|regras)",
        r"\bneg(?:eer|eert)\b[^.\n]{0,50}(?:instructies|regels|opdrachten)"
        r"|\b(?:zignoruj|ignoruj|zapomnij)\b[^.\n]{0,50}(?:instrukcj|polece|zasad|wytyczn)",
        r"\b(?:ignorera|ignorer|glöm|glem)\b[^.\n]{0,50}(?:instruktion|regler|anvisning)"
        r"|\bignoruj\w*[^.\n]{0,50}(?:pokyn|instrukc|pravid)",
        r"(?:önceki|yukarıdaki|tüm)[^.\n]{0,40}(?:talimat|yönerge|kural)[^.\n]{0,30}(?:yok say|unut|görmezden)"
        r"|\bhagyd figyelmen kívül[^.\n]{0,50}utasít",
        r"(?:игнориру\w*|забудь\w*|проигнорируй\w*|ігноруй\w*)[^.\n]{0,50}(?:инструкц|указан|правил|інструкц|вказів)",
        r"(?:忽略|无视|忽視|無視)[^。\n]{0,24}(?:指令|指示|说明|說明|规则|規則|提示)|(?:指示|命令|ルール|プロンプト)[^。\n]{0,24}(?:無視|忘れ)",
        r"(?:지시|명령|지침|규칙)[^.\n]{0,24}(?:무시|잊)"
        r"|تجاهل[^.\n]{0,50}(?:تعليمات|التعليمات|الأوامر)"
        r"|निर्देश[^।\n]{0,50}(?:अनदेखा|नज़रअंदाज़|भूल)",
        r"\b(?:füg\w*|schreib\w*|ergänz\w*|nenn\w*|erwähn\w*|verwend\w*|gib|geben sie|bau\w*|nimm"
        r"|setz\w*)\b[^.\n]{0,120}\b(?:deiner?|ihrer?) antwort\b",
        r"\b(?:ajout\w*|inclu\w*|insér\w*|écri\w*|mentionn\w*|indiqu\w*)\b[^.\n]{0,120}\b(?:dans|à) "
        r"(?:ta|votre) réponse\b",
        r"\b(?:añad\w*|incluy\w*|agreg\w*|escrib\w*|mencion\w*|pon)\b[^.\n]{0,120}\b(?:en|a) (?:tu|su) respuesta\b",
        r"\b(?:aggiung\w*|inclu\w*|inseri\w*|scriv\w*|menzion\w*)\b[^.\n]{0,120}\b(?:nella|alla) "
        r"(?:tua|sua|vostra) risposta\b",
        r"\b(?:adicion\w*|inclu\w*|insir\w*|escrev\w*|mencion\w*)\b[^.\n]{0,120}\b(?:na|à) (?:tua|sua) resposta\b"
        r"|\b(?:voeg|zet|schrijf|vermeld|neem)\b[^.\n]{0,120}\b(?:je|uw|jouw) antwoord\b"
        r"|\b(?:dodaj|umieść|napisz|wpisz)\b[^.\n]{0,120}\b(?:swojej|twojej) odpowiedzi",
        r"(?:добавь\w*|включи\w*|напиши\w*|укажи\w*|вставь\w*)[^.\n]{0,120}(?:в|к) (?:твой|твоём|ваш|свой|своем|своём"
        r"|вашем) ответ",
        r"在(?:你|您)的(?:回复|回答|答复|回覆|邮件)(?:中|里)"
        r"|(?:あなたの)?(?:返信|回答|返事)に[^。\n]{0,60}(?:含め|入れ|追加|書)"
        r"|(?:답변|응답|답장)에[^.\n]{0,60}(?:포함|추가|넣)",
        r"\bki-(?:assistent\w*|system|modell)|\bsprachmodell"
        r"|\b(?:assistant|modèle) (?:d'|de )?(?:ia|intelligence artificielle|langage)\b"
        r"|\basistente de ia\b"
        r"|\bmodelo de (?:lenguaje|linguagem)\b|\bmodello linguistico\b"
        r"|\bassistente (?:di|de)? ?ia\b|языков\w+ модел|ии-(?:ассистент|помощник)"
        r"|(?:AI|人工智能|智能)(?:助手|助理|アシスタント)|语言模型|言語モデル|언어 모델|AI 비서",
    )
)


def _steering(text: str, where: str) -> Iterable[Finding]:
    """Where a text speaks to whoever drafts the answer, and not to the owner."""
    plain = readable(text)
    for pattern in _STEERING:
        if match := pattern.search(plain):
            start = max(0, match.start() - 20)
            yield Finding("steering", f"{where} speaks to a machine: “{_line(plain[start : match.end()], 120)}”")


def _recipients(mail: Mail) -> Iterable[Finding]:
    to = envelope(mail)
    sender = addresses(mail.sender)
    for name, address in addresses(to.to, to.cc) if to else ():
        domain = _domain(address)
        if sender and _domain(sender[0][1]) != domain:
            yield Finding("recipient", f"the reply goes to {_line(address)}, another domain than the sender's")
        for mark in marks(name):
            host = host_of(next(iter(mark.keys)).rpartition("@")[2])
            if mark.kind in ("address", "link") and not _same_site(host, domain):
                yield Finding("recipient", f"the sender calls itself {_line(mark.shown)} and is {_line(address)}")


def _same_site(one: str, other: str) -> bool:
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _look_alikes(mail: Mail) -> Iterable[Finding]:
    """A sender whose domain looks like the owner's own, or has letters of two scripts in a word."""
    ours = {
        _domain(address)
        for _, address in addresses(*(mail.fields.get(name, "") for name in ("to", "cc", "delivered_to")))
    }
    for _, address in addresses(mail.sender, mail.fields.get("reply_to", "")):
        domain = _domain(address)
        if _mixed(domain):
            yield Finding("lookalike", f"the domain of {_line(address)} is written so that it looks like another")
        for other in sorted(ours - {domain}):
            if skeleton(other) == skeleton(domain) or _one_apart(other, domain):
                yield Finding("lookalike", f"{_line(address)} looks like an address at {_line(other)}, and is none")


def _one_apart(one: str, other: str) -> bool:
    """Whether one letter was added, left out or changed, or two changed places, in names that are not short."""
    if min(len(one.partition(".")[0]), len(other.partition(".")[0])) < 6 or abs(len(one) - len(other)) > 1:
        return False
    start = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest, second = one[start:], other[start:]
    swapped = len(rest) > 1 and rest[1::-1] + rest[2:] == second
    return one != other and (swapped or rest[1:] == second[1:] or rest[1:] == second or rest == second[1:])


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
