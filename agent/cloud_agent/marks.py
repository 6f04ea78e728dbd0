"""Marks of a text: what in it leads somewhere or binds somebody. Links, addresses, phone and account numbers, amounts,
dates and times, each with keys by which two ways of writing it are known to be one. Pure, and linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache

# What nobody sees: soft hyphens, zero-width characters, marks of direction, selectors of variants, tags (U+E0000).
# U+200C and U+200D join letters of Arabic and Indic scripts, and emoji: `visible` keeps them there.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufe00-\ufe0f\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
INVISIBLE = re.compile(f"[{_INVISIBLE}]")
# A joiner between two characters that it can join, marks of direction beside letters that are written to the left, and
# one selector of a pictogram's look. More of them in a row spell what nobody sees.
_JOINED = re.compile(
    "(?<=[\u0600-\u08ff\u0900-\u0dff\ufe0f\u2600-\u27bf\U0001f000-\U0001faff])[\u200c\u200d]"
    "(?=[\u0600-\u08ff\u0900-\u0dff\u2600-\u27bf\U0001f000-\U0001faff])"
    "|(?<=[\u0590-\u08ff])[\u200e\u200f]|[\u200e\u200f](?=[\u0590-\u08ff])"
    "|(?<=[0-9#*\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff])[\ufe0e\ufe0f]"
)


@dataclass(frozen=True)
class Mark:
    """One mark. `keys`: it is the same as another of its kind when they share one."""

    kind: str  # link, address, account, phone, amount, date, time, number
    shown: str
    keys: frozenset[str]
    at: int  # where it stands in `readable(text)`


def invisible(text: str) -> list[str]:
    """The characters of a text that nobody sees, without those that a script or an emoji needs."""
    return INVISIBLE.findall(_JOINED.sub("", text))


def visible(text: str) -> str:
    """A text without the characters that nobody sees."""
    kept = [match.start() for match in _JOINED.finditer(text)]
    if not kept:
        return INVISIBLE.sub("", text)
    parts, last = [], 0
    for position in kept:
        parts += [INVISIBLE.sub("", text[last:position]), text[position]]
        last = position + 1
    return "".join([*parts, INVISIBLE.sub("", text[last:])])


# How links are written so that no program takes them for one: hxxp://evil[.]com, evil (dot) com, ann [at] evil.com
_DEFANGED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bh(?:xx|XX|\*\*|__)p(s?)\b", re.I), r"http\1"),
    (re.compile(r"\[:\](?=//)|\[:(?=//)"), ":"),
    (re.compile(r"(?<=\S)[ ]?[\[({<](?:\.|dot|punkt|point|punto)[\])}>][ ]?(?=\S)", re.I), "."),
    (re.compile(r"(?<=\w)[ ]?[\[({<](?:@|at|arobase)[\])}>][ ]?(?=\w)", re.I), "@"),
    (
        re.compile(
            r"(?<=\w) (?:dot|punkt|\.) ?(?=(?:com|org|net|io|info|biz|xyz|ru|cn|top|site|online|co|de|uk|me|eu|app)\b)",
            re.I,
        ),
        ".",
    ),
    (re.compile(r"(?<=\w) at (?=[\w-]{1,60}\.(?:com|org|net|io|info|biz|xyz|ru|cn|top|site|online)\b)", re.I), "@"),
    (re.compile(r"(?<=\w) ?@ ?(?=[\w-]{1,60}\.\w)"), "@"),
)


_FOREIGN_DIGIT = re.compile(r"[^\W\D0-9]")  # of Arabic, Indic and other scripts


def readable(text: str) -> str:
    """A text as a person reads it: compatible characters as plain ones, nothing invisible, links made whole."""
    text = visible(unicodedata.normalize("NFKC", text)).replace("。", ".").replace("｡", ".")
    if not text.isascii():
        text = _FOREIGN_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text)
    for pattern, whole in _DEFANGED:
        text = pattern.sub(whole, text)
    return text


# -- what is found ----------------------------------------------------------------------------------------------------

# Endings of domains that are taken for such in capitals too. In small letters, and before a path, any ending is one.
_TLDS = frozenset(
    """
    com org net edu gov mil int info biz name pro io co ai app dev xyz top site online store shop tech cloud space
    club live life news blog email link click download work world today agency digital media group ltd llc inc bank
    finance money loan loans insurance law legal health care fun games game casino bet vip win bid trade market
    example test invalid local onion eu uk us ca au nz de at ch fr es it pt nl lu dk se fi pl cz sk hu ro bg gr tr ru
    ua by kz cn hk tw jp kr sg my th vn id ph br mx ar cl pe ve il ae sa ir pk bd lk za ng ke eg ma tn ee lv lt hr si
    rs ba mk al cy mt ie tv cc ws gg tk ml ga cf gq su icu buzz rest cyou quest sbs
    """.split()
)
# Endings of files, which domains hardly have.
_FILES = frozenset(
    """
    pdf doc docx xls xlsx ppt pptx odt ods csv txt rtf md png jpg jpeg gif svg webp heic tif tiff mp3 mp4 wav js ts jsx
    tsx css py rb rs go java cpp sh php html htm json xml yml yaml toml sql ics eml msg vcf exe dll zip gz tar rar
    """.split()
)
_LINK_END = ".,;:!?*_~'\"»”’)"
_ADDRESS = re.compile(r"(?<![\w.+%'-])[\w.+%'-]++@[\w-]++(?:\.[\w-]++)+")
_URL = re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{1,20}:///?[^\s<>\"()\[\]{}|\\^`]++", re.I)
_SCHEME = re.compile(r"\b(?:javascript|vbscript|data|tel|sms|file|obsidian|mailto):[^\s<>\"()\[\]{}]++", re.I)
_BARE = re.compile(
    r"(?<![\w@.-])(?:[^\W_](?:[\w-]{0,62})\.){1,8}(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w-])(?::\d{1,5})?"
    r"(/[^\s<>\"()\[\]{}|\\^`]*+)?"
)
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])(?::\d{1,5})?(?:/[^\s<>\"()\[\]{}]*+)?")

_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ./-]?[A-Z0-9]){11,32}", re.I)
# ISO 13616: how long an IBAN is, by country.
_IBAN_LENGTHS = {
    entry[:2]: int(entry[2:])
    for entry in """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18
    FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21
    LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27
    ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20
    """.split()
}
_CARD = re.compile(r"(?<![\w.])\d(?:[ .-]?\d){12,18}(?![\w])")
_CRYPTO = re.compile(
    r"\b(?:bc1[a-z0-9]{25,80}|ltc1[a-z0-9]{25,80}|0x[0-9a-fA-F]{40}|[13LMD][a-km-zA-HJ-NP-Z1-9]{25,38}"
    r"|4[0-9AB][a-km-zA-HJ-NP-Z1-9]{93}|T[a-km-zA-HJ-NP-Z1-9]{33})\b"
)

_CURRENCY = r"(?:[$€£¥₹₽₩₺₴₪฿₫₦₱₿]|(?:US|CA|AU|NZ|HK|SG|R)\$)"
_CODE = (
    r"(?:USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|RUB|UAH|PLN|CZK|HUF|RON|BGN|SEK|NOK|DKK|ISK|TRY|ILS|AED|SAR|ZAR|BRL|MXN|ARS"
    r"|CLP|CAD|AUD|NZD|SGD|HKD|KRW|THB|IDR|MYR|PHP|VND|NGN|KES|EGP|PKR|BTC|ETH|USDT|XMR|Fr\.|Rs\.?)"
)
_MONEY_WORD = (
    r"(?:dollars?|euros?|pounds?|sterling|francs?|yen|yuan|rupees?|roubles?|rubles?|pesos?|crowns?|kronor|kroner|zł"
    r"|zloty|złotych|kč|ft|lei|lira|bitcoins?|ether|bucks|quid|cents?|pence|dólares|libras|dollari|sterline|reais"
    r"|euroa|евро|рублей|руб|долларов|гривень|円|元|원|ユーロ|ドル|欧元|美元)"
)
_NUMBER = r"\d{1,3}(?:[ '’.,]\d{3}){1,5}(?:[.,]\d{1,2})?(?!\d)|\d{1,15}(?:[.,]\d{1,3})?"
_TIMES = r"(?:\s?(?:k|m|bn|mio|tsd|thousand|million|billion|millionen|tausend|millions?|mille|mil|millones)\b\.?)?"
_AMOUNT = re.compile(
    rf"(?:{_CURRENCY}|\b{_CODE})\s?(?:{_NUMBER}){_TIMES}"
    rf"|(?<![\w.,])(?:{_NUMBER}){_TIMES}\s?(?:{_CURRENCY}|{_CODE}\b|{_MONEY_WORD}(?!\w))",
    re.I,
)
_PERCENT = re.compile(
    r"(?<![\w.,])\d{1,4}(?:[.,]\d{1,3})?\s?(?:%|percent\b|per cent\b|prozent\b|pour ?cent\b|процент)", re.I
)
_NUMBER_WORDS = re.compile(
    r"\b(?:(?:a|and|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty"
    r"|sixty|seventy|eighty|ninety|hundred|thousand|million)[ -]){1,8}(?:(?:us|american|canadian) )?"
    r"(?:dollars|euros?|pounds|francs|percent|per cent)\b",
    re.I,
)

# " /" stands between two months.
_MONTHS = """
    january jan januar jänner janvier enero gennaio janeiro januari tammikuuta stycznia ledna ianuarie január ocak
    января января січня /
    february feb februar février fevrier febrero febbraio fevereiro februari helmikuuta lutego února februarie február
    şubat февраля лютого /
    march mar märz mars marzo março maart maaliskuuta marca března martie március mart марта березня /
    april apr avril abril aprile huhtikuuta kwietnia dubna aprilie április nisan апреля квітня /
    may mai mayo maggio maio mei maj toukokuuta maja května mai május mayıs мая травня /
    june jun juni juin junio giugno junho kesäkuuta czerwca června iunie június haziran июня червня /
    july jul juli juillet julio luglio julho heinäkuuta lipca července iulie július temmuz июля липня /
    august aug août aout agosto augustus elokuuta sierpnia srpna augusti augusztus ağustos августа серпня /
    september sept sep septembre septiembre settembre setembro syyskuuta września září septembrie szeptember eylül
    сентября вересня /
    october oct oktober okt octobre octubre ottobre outubro lokakuuta października října octombrie október ekim
    октября жовтня /
    november nov novembre noviembre novembro marraskuuta listopada listopadu noiembrie kasım ноября листопада /
    december dec dezember dez décembre decembre diciembre dicembre dezembro joulukuuta grudnia prosince decembrie
    aralık декабря грудня
"""
_MONTH_NUMBERS = {name: number for number, names in enumerate(_MONTHS.split(" /"), 1) for name in names.split()}
_MONTH = "|".join(sorted(map(re.escape, _MONTH_NUMBERS), key=len, reverse=True))
_RANGE = r"(?:\s?[-–—/]\s?|\s(?:to|and|bis|und|until|till|au|al|y|e|tot|til|do)\s)"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_DAY_END = r"(?:st|nd|rd|th|\.|º|er|\.º)?"
_DAY_MONTH = re.compile(
    rf"(?<![\d.,:])({_DAY}){_DAY_END}(?:{_RANGE}({_DAY}){_DAY_END})?\s?(?:of\s|de\s|-)?({_MONTH})\b\.?"
    r"(?:,?\s?-?(?:de\s)?((?:19|20)\d\d))?",
    re.I,
)
_MONTH_DAY = re.compile(
    rf"\b({_MONTH})\.?\s(?:the\s)?({_DAY})(?:st|nd|rd|th)?(?:{_RANGE}({_DAY})(?:st|nd|rd|th)?)?(?![\d:])"
    r"(?:,?\s((?:19|20)\d\d))?",
    re.I,
)
_MONTH_YEAR = re.compile(rf"\b({_MONTH})\.?,?\s(?:de\s)?((?:19|20)\d\d)\b", re.I)
_ISO = re.compile(r"(?<![\d.-])((?:19|20)\d\d)([-/.])(0?[1-9]|1[0-2])\2(0?[1-9]|[12]\d|3[01])(?!\d)")
_NUMERIC = re.compile(r"(?<![\d./-])(\d{1,2})([./-])(\d{1,2})\2((?:19|20)?\d\d)(?![\d])")
_SHORT = re.compile(r"(?<![\d./-])(\d{1,2})(?:\.(\d{1,2})\.(?!\d)|/(\d{1,2})(?![\d/]))")
_CJK = re.compile(r"(?:(\d{4})\s?[年년]\s?)?(\d{1,2})\s?[月월]\s?(\d{1,2})\s?[日일号]")
_ORDINAL = re.compile(
    r"(?<!\w)([12]?\d|3[01])(?:st|nd|rd|th)\b(?!\s+(?:floor|street|st\b|avenue|century|edition|grade))", re.I
)

_DAYS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
    " sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third twenty-fourth"
    " twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first"
).split()
_DAY_WORD = re.compile(rf"\b({'|'.join(sorted(_DAYS, key=len, reverse=True))}) (?:of |day of )?({_MONTH})\b", re.I)

_CLOCK = re.compile(r"(?<![\d.,:])([01]?\d|2[0-4])[:h]([0-5]\d)(?::[0-5]\d)?(?:\s?([ap])\.?m\b\.?)?(?!\d)", re.I)
_DOTTED = re.compile(r"(?<![\d.,:])([01]?\d|2[0-4])\.([0-5]\d)\s?(?:([ap])\.?m\b\.?|uhr\b|h\b)", re.I)
_HOUR = re.compile(
    r"(?<![\d.,:])(1[0-2]|0?[1-9]|1\d|2[0-4])\s?(?:([ap])\.?\s?m\b\.?|uhr\b|o['’]clock\b|h\b(?!\w)|[時시点点]|часов"
    r"|часа\b)",
    re.I,
)
_HOURS = re.compile(
    r"(?<![\d.,:])(1\d|2[0-4]|0?[1-9])\s?(?:-|–|—|to|until|till|bis|and|à|a|до)\s?(1\d|2[0-4]|0?[1-9])"
    r"(?![\d:/%-]|[.,]\d)",
    re.I,
)

_PHONE = re.compile(r"(?<![\w.,/])(?:\+|00)?\(?\d[\d ()./\u2010-\u2015-]{5,24}\d(?![\w])")
_DIGIT_WORDS = "zero oh one two three four five six seven eight nine".split()
_PHONE_WORDS = re.compile(rf"\b(?:(?:{'|'.join(_DIGIT_WORDS)})(?:[ ,-]{{1,2}}|\b)){{7,20}}", re.I)
_RUN = re.compile(r"(?<![\w])(?=[A-Z0-9-]{0,40}\d)[A-Z0-9](?:-?[A-Z0-9]){5,60}(?![\w])", re.I)


def without(text: str, kinds: Collection[str] = ()) -> str:
    """A readable text with its marks (of some kinds, else all) left blank."""
    spans = sorted((mark.at, mark.at + len(mark.shown)) for mark in marks(text) if not kinds or mark.kind in kinds)
    return _blanked(readable(text), spans, " ")


@lru_cache(maxsize=8)  # a handbook is asked about with each draft, and a reply several times
def marks(text: str) -> tuple[Mark, ...]:
    """All marks of a text, in no order. A character belongs to one mark only: the first kind that takes it."""
    rest = readable(text)
    found: list[Mark] = []
    for kind, pattern, keys in _KINDS:
        taken: list[tuple[int, int]] = []
        for match in pattern.finditer(rest):
            shown, made = keys(match)
            if made:
                found.append(Mark(kind, shown, frozenset(made), match.start()))
                taken.append((match.start(), match.start() + len(shown)))
        rest = _blanked(rest, taken, "\n")
    return tuple(found)


def _blanked(text: str, spans: list[tuple[int, int]], blank: str) -> str:
    parts, last = [], 0
    for start, end in spans:
        parts += [text[last:start], blank * (end - start)]
        last = end
    return "".join([*parts, text[last:]])


Keys = tuple[str, Iterable[str]]
NONE: Keys = ("", ())


def host_of(key: str) -> str:
    """The host in a link's key."""
    return re.split(r"[/:?#]", key, maxsplit=1)[0]


def _link(match: re.Match[str]) -> Keys:
    shown = match[0].rstrip(_LINK_END)
    key = shown.lower()
    scheme, separator, rest = key.partition("://")
    if separator:
        key = rest.rpartition("@")[2] if "@" in rest.partition("/")[0] else rest
        if scheme not in ("http", "https", "ftp"):
            key = f"{scheme}:{key}"
    key = key.lstrip("/").removeprefix("www.").rstrip("/")
    return (shown, (key,)) if key else NONE


def _bare(match: re.Match[str]) -> Keys:
    host = match[0].lower().partition("/")[0].partition(":")[0]
    ending = host.rpartition(".")[2]
    path = match[1] is not None
    known = ending in _TLDS or ending.startswith("xn--") or not ending.isascii()
    if ending in _FILES and not (path or host.startswith("www.")):
        return NONE
    # `thanks.It was`: a sentence's end that lacks its space; `e.g`, `a.m`: no domain has such parts
    if not (host.startswith("www.") or path or (match[0].islower() and len(host) > 4)):
        letters = match[0].partition("/")[0].replace(".", "").replace("-", "")
        if not (known and (letters.isupper() or match[0][0].isupper()) and ending in ("com", "org", "net", "io", "co")):
            return NONE
    return _link(match)


def _address(match: re.Match[str]) -> Keys:
    shown = match[0].rstrip(".'-_")
    return shown, (shown.lower().lstrip("'"),)


def _iban(match: re.Match[str]) -> Keys:
    compact = re.sub(r"[ ./-]", "", match[0]).upper()
    length = _IBAN_LENGTHS.get(compact[:2], 0)
    if not length or len(compact) < length:
        return NONE
    number = compact[:length]
    if int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 != 1:
        return NONE
    characters = 0
    for end, character in enumerate(match[0], 1):
        characters += character not in " ./-"
        if characters == length:
            return match[0][:end], (number,)
    return NONE


def _card(match: re.Match[str]) -> Keys:
    digits = re.sub(r"\D", "", match[0])
    doubled = [int(digit) * (1 + position % 2) for position, digit in enumerate(reversed(digits))]
    if sum(value // 10 + value % 10 for value in doubled) % 10 or len(set(digits)) < 2:
        return NONE
    return match[0], (digits,)


def _crypto(match: re.Match[str]) -> Keys:
    mixed = any(c.isdigit() for c in match[0]) and any(c.isalpha() for c in match[0])
    return (match[0], (match[0],)) if mixed else NONE


def _value(text: str) -> str:
    """A number in any grouping, as plain digits: 1.250,00 and 1,250 are 1250."""
    digits = re.sub(r"[ '’]", "", text)
    last = max(digits.rfind("."), digits.rfind(","))
    if last >= 0 and len(digits) - last - 1 in (1, 2):
        whole, fraction = digits[:last], digits[last + 1 :]
    else:
        whole, fraction = digits, "0"
    try:
        value = Decimal(f"{re.sub('[.,]', '', whole)}.{fraction}")
    except InvalidOperation:
        return digits
    return f"{value.normalize():f}"


_MULTIPLIERS = (("bn", 10**9), ("billion", 10**9), ("mio", 10**6), ("million", 10**6), ("m", 10**6), ("millon", 10**6),
                ("k", 1000), ("tsd", 1000), ("thousand", 1000), ("tausend", 1000), ("mil", 1000))  # fmt: skip


def _amount(match: re.Match[str]) -> Keys:
    number = re.search(_NUMBER, match[0])
    if number is None:
        return NONE
    value = _value(number[0])
    after = match[0][number.end() :].strip().lower()
    for name, factor in _MULTIPLIERS:
        if re.match(rf"{name}(?![a-z])|{name}(?=s\b|en\b)", after):
            value = f"{(Decimal(value) * factor).normalize():f}"
            break
    return match[0].rstrip(), (value,)


def _percent(match: re.Match[str]) -> Keys:
    return match[0], (f"{_value(re.findall(r'[0-9.,]+', match[0])[0])}%",)


def _number_words(match: re.Match[str]) -> Keys:
    return match[0], (" ".join(re.findall(r"[a-z]+", match[0].lower())),)


def _date(day: str | int | None, month: str | int, *more: str | int | None) -> list[str]:
    return [f"{int(each)}-{int(month)}" for each in (day, *more) if each]


def _day_month(match: re.Match[str]) -> Keys:
    return match[0].rstrip(), _date(match[1], _MONTH_NUMBERS[match[3].lower()], match[2])


def _day_word(match: re.Match[str]) -> Keys:
    return match[0], _date(_DAYS.index(match[1].lower()) + 1, _MONTH_NUMBERS[match[2].lower()])


def _month_day(match: re.Match[str]) -> Keys:
    # `you may 2` is no date
    if match[1].lower() in ("may", "mar", "march") and match[1].islower():
        return NONE
    return match[0].rstrip(), _date(match[2], _MONTH_NUMBERS[match[1].lower()], match[3])


def _month_year(match: re.Match[str]) -> Keys:
    return match[0], (f"*-{_MONTH_NUMBERS[match[1].lower()]}",)


def _iso(match: re.Match[str]) -> Keys:
    return match[0], _date(match[4], match[3])


def _numeric(match: re.Match[str]) -> Keys:
    return match[0], _either(int(match[1]), int(match[3]))


def _short(match: re.Match[str]) -> Keys:
    one, other = int(match[1]), int(match[2] or match[3])
    if match[3] and ((one, other) == (24, 7) or max(one, other) <= 4):  # 24/7, 1/2
        return NONE
    return match[0], _either(one, other)


def _either(one: int, other: int) -> list[str]:
    return [f"{d}-{m}" for d, m in ((one, other), (other, one)) if 1 <= d <= 31 and 1 <= m <= 12]


def _cjk(match: re.Match[str]) -> Keys:
    return match[0], _date(match[3], match[2])


def _ordinal(match: re.Match[str]) -> Keys:
    return match[0], (f"{int(match[1])}-*",) if int(match[1]) else ()


def _clock(match: re.Match[str]) -> Keys:
    return match[0].rstrip(), (str((int(match[1]) % 12) * 60 + int(match[2])),)  # 1:30 may be 13:30


def _hour(match: re.Match[str]) -> Keys:
    return match[0].rstrip(), (str((int(match[1]) % 12) * 60),)


def _hours(match: re.Match[str]) -> Keys:
    return match[0], [str((int(each) % 12) * 60) for each in (match[1], match[2])]


def _phone(match: re.Match[str]) -> Keys:
    digits = re.sub(r"\D", "", match[0])
    if not 7 <= len(digits) <= 15 or (match[0].isdigit() and not match[0].startswith("0")):
        return NONE
    return match[0], (digits[-8:],)


def _phone_words(match: re.Match[str]) -> Keys:
    said = re.findall(r"[a-z]+", match[0].lower())
    return match[0].rstrip(" ,-"), ("".join(str(max(_DIGIT_WORDS.index(word) - 1, 0)) for word in said)[-8:],)


def _run(match: re.Match[str]) -> Keys:
    digits = re.sub(r"\D", "", match[0])
    return (match[0], {match[0].lower(), digits[-8:]}) if len(digits) >= 6 else NONE


_KINDS: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], Keys]], ...] = (
    ("link", _URL, _link),  # before addresses: https://bank.example@evil.example/
    ("address", _ADDRESS, _address),
    ("link", _SCHEME, _link),
    ("account", _CRYPTO, _crypto),
    ("link", _BARE, _bare),
    ("link", _IP, _link),
    ("account", _IBAN, _iban),
    ("account", _CARD, _card),
    ("date", _ISO, _iso),
    ("date", _NUMERIC, _numeric),
    ("date", _DAY_MONTH, _day_month),
    ("date", _DAY_WORD, _day_word),
    ("date", _MONTH_DAY, _month_day),
    ("date", _MONTH_YEAR, _month_year),
    ("date", _CJK, _cjk),
    ("amount", _AMOUNT, _amount),
    ("amount", _PERCENT, _percent),
    ("amount", _NUMBER_WORDS, _number_words),
    ("time", _CLOCK, _clock),
    ("time", _DOTTED, _clock),
    ("time", _HOUR, _hour),
    ("date", _SHORT, _short),
    ("date", _ORDINAL, _ordinal),
    ("phone", _PHONE, _phone),
    ("phone", _PHONE_WORDS, _phone_words),
    ("number", _RUN, _run),
)


class Known:
    """The marks of texts that may be repeated."""

    def __init__(self, texts: Iterable[str]) -> None:
        text = "\n".join(texts)
        self.keys: dict[str, set[str]] = {kind: set() for kind, _, _ in _KINDS}
        for mark in marks(text):
            self.keys[mark.kind] |= mark.keys
        # "9 to 17" is said as "9:00"; only what is known is read so generously.
        self.keys["time"].update(key for match in _HOURS.finditer(readable(text)) for key in _hours(match)[1])
        # The host of a link or an address may be named alone.
        self.hosts = {host_of(key) for key in self.keys["link"]}
        self.hosts |= {key.rpartition("@")[2] for key in self.keys["address"]}
        self.days = {key.partition("-")[0] for key in self.keys["date"]}
        self.months = {key.partition("-")[2] for key in self.keys["date"]}

    def has(self, mark: Mark) -> bool:
        """Whether the texts have this mark, however they write it."""
        if mark.keys & self.keys[mark.kind]:
            return True
        if mark.kind == "link":
            return not mark.keys.isdisjoint(self.hosts)
        if mark.kind in ("phone", "number"):
            return not mark.keys.isdisjoint(self.keys["phone"] | self.keys["number"])
        return mark.kind == "date" and any(self._has_date(*key.split("-")) for key in mark.keys)

    def _has_date(self, day: str, month: str) -> bool:
        if day == "*":
            return month in self.months
        return day in self.days if month == "*" else f"{day}-*" in self.keys["date"]
