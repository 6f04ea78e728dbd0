"""Words of a text: which language it is in, and which of them an ordinary letter would have. Pure.

No library: a letter is told from another language's by its script, or by the small words that no sentence does without.
Short texts have too few of those, and are of no language (`""`): nothing is said about them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from functools import cache
from importlib import resources

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")

# The function words of the commonest languages in Latin and Cyrillic letters.
_SMALL_WORDS = {
    "en": "the of and to in is that it for you was with on as are be this have from or your by not but at we i my me "
    "will can would could please our if all has an so do there their what which when about them then any been",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus "
    "er hat "
    "dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr "
    "durch man ich wir ihr ihre ihnen uns mir sehr bitte vielen dank können wenn gerne ihren mich unser diese",
    "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec mais "
    "nous "
    "vous votre notre je vos nos cette aux être ont son ou elle si leur bien merci ces d'un d'une c'est avons avez été",
    "es": "de la que el en y a los se del las un por con no una su para es al lo como más pero sus le ha me si sin "
    "sobre "
    "este ya entre cuando todo esta ser son dos también fue había muy hasta desde está nos usted gracias mi les han",
    "it": "di che è e la il un a per in una sono con del da non ci si le lo i della nel al dei alla come anche più "
    "ma gli "
    "ho hai ha mi ti vi questo questa delle grazie nostro vostro sua suo essere abbiamo dal sul",
    "pt": "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua ou "
    "quando "
    "muito nos já eu também só pelo pela até isso ela entre depois sem mesmo aos seus foi está você obrigado são",
    "nl": "de het een en van ik te dat die in is niet zijn op aan met als voor er maar om dan zou wat mijn men dit "
    "zo door "
    "over ze zich bij ook tot je mij uit der daar haar naar heb hoe heeft hebben deze u uw wij ons bedankt graag kan",
    "sv": "och att det i som en på är av för med till den har de inte om ett han men var jag vi du kan när så från ska "
    "eller vill mig er din ni tack skulle finns även efter hos oss vara detta mycket",
    "da": "og i jeg det at en den til er som på de med han af for ikke der var mig sig men et har om vi min havde "
    "ham hun "
    "nu over da fra du ud sin dem os op man hans hvor eller hvad skal selv her alle vil blev kunne når være tak",
    "no": "og i jeg det at en et den til er som på de med han av ikke der så var meg seg men ett har om vi min mitt ha "
    "hadde hun nå over da ved fra du ut sin dem oss opp man kan hans hvor eller hva skal selv her alle vil bli ble "
    "takk",
    "fi": "ja on ei se että en oli hän mutta ovat kun niin myös ole joka mitä jos tai minä sen voi kuin sinä mikä "
    "nyt me "
    "te he tämä olen olla kiitos ollut vain teidän meidän kanssa sekä olisi",
    "pl": "i w na z do nie się to że jest o a jak po co tak za od ale czy dla już tylko jego jej był przez może ma "
    "mnie ze "
    "są oraz też który która które dziękuję proszę państwa pan pani mam będzie nam",
    "cs": "a je v na se že s o z do i to ve pro za by ale si po jako jsem jsou bude být není nebo která který "
    "které mám "
    "děkuji prosím vás nám také až ještě jsme už má při od ze aby",
    "ro": "de la și în a cu pe nu care este o un din că mai pentru sau sunt au fost prin dar se le ca am ce vă "
    "mulțumesc "
    "al ale lui noastră dumneavoastră să fi această aceasta ne",
    "hu": "a az és hogy nem is egy ez van meg de csak ha már mint még el ki azt vagy volt lesz köszönöm kérem "
    "önnek nekem "
    "van mi ön nagyon ezt fel erre szerint",
    "tr": "ve bir bu da de için ile çok ne o gibi daha var ben sen biz siz mi değil olarak en kadar sonra ama olan her "
    "teşekkür ederim lütfen şey olduğu veya size bize",
    "ru": "и в не на я с что а по он как это к но из у то за от так же вы мы для все бы его только мне было о вас "
    "нам вам "
    "или если есть спасибо быть который уже при",
    "uk": "і в не на я з що а по він як це до але із у то за від так же ви ми для всі би його тільки мені було про "
    "вас нам "
    "вам або якщо є дякую бути який вже при та",
    "bg": "и в не на аз с че а по той как това към но от за да се са ще ви ние вие или ако има благодаря който "
    "вече при "
    "си мога моля бъде беше",
}
_SCRIPTS = (
    ("el", re.compile(r"[Ͱ-Ͽἀ-῿]")),
    ("he", re.compile(r"[֐-׿]")),
    ("ar", re.compile(r"[؀-ۿݐ-ݿ]")),
    ("hi", re.compile(r"[ऀ-ॿ]")),
    ("th", re.compile(r"[฀-๿]")),
    ("ka", re.compile(r"[Ⴀ-ჿ]")),
    ("hy", re.compile(r"[԰-֏]")),
    ("ko", re.compile(r"[가-힯ᄀ-ᇿ]")),
    ("ja", re.compile(r"[぀-ヿ]")),
    ("zh", re.compile(r"[一-鿿㐀-䶿]")),
    ("cyrillic", re.compile(r"[Ѐ-ӿ]")),
)
_LETTER = re.compile(r"[^\W\d_]")
_NEAR = ({"da", "no"},)  # too close to be told apart by a few words
SMALL_WORDS = {code: frozenset(words.split()) for code, words in _SMALL_WORDS.items()}
LANGUAGE_NAMES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese",
    "nl": "Dutch", "sv": "Swedish", "da": "Danish", "no": "Norwegian", "fi": "Finnish", "pl": "Polish", "cs": "Czech",
    "ro": "Romanian", "hu": "Hungarian", "tr": "Turkish", "ru": "Russian", "uk": "Ukrainian", "bg": "Bulgarian",
    "el": "Greek", "he": "Hebrew", "ar": "Arabic", "hi": "Hindi", "th": "Thai", "ka": "Georgian", "hy": "Armenian",
    "ko": "Korean", "ja": "Japanese", "zh": "Chinese", "cyrillic": "a language in Cyrillic letters",
}  # fmt: skip

FEWEST_WORDS = 10
FEWEST_LETTERS = 12  # of a script that tells the language by itself
SMALL_SHARE = 0.16  # of a text's words are small words of its language; 0.3 to 0.5 in letters
MARGIN = 1.25  # by which the best language leads the next


def words(text: str) -> list[str]:
    """The words of a text as written, without digits."""
    return WORD.findall(text)


def shares(text: str) -> dict[str, float]:
    """Which part of a text's words are small words of each language; Latin and Cyrillic letters only."""
    tokens = [word.lower().replace("’", "'") for word in words(text)]
    counts = Counter(tokens)
    total = max(len(tokens), 1)
    return {code: sum(counts[word] for word in small if word in counts) / total for code, small in SMALL_WORDS.items()}


def language(text: str) -> str:
    """ISO 639-1 code of the language of a text; "" where it cannot be told."""
    script = _script(text)
    if script and script != "cyrillic":
        return script
    if len(words(text)) < FEWEST_WORDS:
        return script
    ranked = sorted(shares(text).items(), key=lambda item: -item[1])
    (best, share), rest = ranked[0], [other for other in ranked[1:] if not _near(ranked[0][0], other[0])]
    if share >= SMALL_SHARE and share >= MARGIN * rest[0][1]:
        return best
    return script


def known_language(texts: Iterable[str]) -> bool:
    """Whether the language of any of the texts is one whose small words are known here."""
    return any(language(text) in SMALL_WORDS for text in texts)


def same_language(one: str, other: str) -> bool:
    """Whether two codes may be one language: unknown ones are, and those that cannot be told apart."""
    pair = {one, other}
    if one == other or not one or not other or _near(one, other):
        return True
    return "cyrillic" in pair and bool(pair & {"ru", "uk", "bg"})


def _near(one: str, other: str) -> bool:
    return any(one in group and other in group for group in _NEAR)


def _script(text: str) -> str:
    letters = len(_LETTER.findall(text))
    for code, pattern in _SCRIPTS:
        found = len(pattern.findall(text))
        # Kana mark Japanese among Chinese characters; a word of another script in a letter marks nothing.
        if found >= FEWEST_LETTERS and found > letters * (0.15 if code == "ja" else 0.4):
            return code
    return ""


# -- English: which words any letter may have --------------------------------------------------------------------------


@cache
def common() -> frozenset[str]:
    """Base forms of the words that any English letter may have, whatever it is about."""
    text = resources.files("cloud_agent").joinpath("common_words.txt").read_text("utf-8")
    listed = " ".join(line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(listed.split()) | SMALL_WORDS["en"]


_ENDINGS = (
    ("'s", ""), ("ies", "y"), ("ied", "y"), ("ier", "y"), ("iest", "y"), ("ily", "y"), ("ing", ""), ("ing", "e"),
    ("ings", ""), ("ed", ""), ("ed", "e"), ("es", ""), ("es", "e"), ("s", ""), ("er", ""), ("er", "e"), ("ers", ""),
    ("est", ""), ("est", "e"), ("ly", ""), ("ally", ""), ("ment", ""), ("ments", ""), ("ness", ""), ("ation", "e"),
    ("ations", "e"), ("ion", "e"), ("ions", "e"), ("ion", ""), ("ions", ""), ("able", ""), ("able", "e"), ("ful", ""),
    ("ity", ""), ("al", ""),
)  # fmt: skip


def stems(word: str) -> Iterable[str]:
    """A word and what it may be a form of."""
    word = word.lower().replace("’", "'")
    yield word
    for ending, restored in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            stem = word[: -len(ending)]
            yield stem + restored
            if not restored and stem[-1] == stem[-2]:
                yield stem[:-1]  # planned, plan


def known_stems(texts: Iterable[str]) -> frozenset[str]:
    """All stems of all words of texts."""
    return frozenset(stem for text in texts for word in set(words(text)) for stem in stems(word))


def is_known(word: str, stems_known: Collection[str]) -> bool:
    """Whether a word is common, or a form of one that is known."""
    return any(stem in stems_known or stem in common() for stem in stems(word)) or word.partition("'")[0] in common()
