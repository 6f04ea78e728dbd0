"""How a key or a token looks: what must not leave in a note.

A table of formats, each with a fixed text by which it is known, and four rules for what has none (private keys, a URL
with a password, a netrc line, a named key with a random value). No rule goes by the word "password" or by entropy
alone: a vault is full of mail. The formats are facts, set down here from what the issuers publish and from the rules of
betterleaks and kingfisher (2026-11). A detector itself does not fit beside the sync loop, which may take 40 MB and has
26: kingfisher 1.5.0 adds 43 MB, betterleaks 28 to 65 MB, detect-secrets 22 MB (and has had no release since 2024-05).
So kingfisher stands over this table in the tests: what it knows by form alone must be found here.

Every pattern fails within a bounded number of characters, so that a search takes time in proportion to the content,
whoever wrote it.
"""

from __future__ import annotations

import re
from functools import cache

# Prefixes, each at the start of a word, then what follows them. {w} is [A-Za-z0-9_-].
_FORMATS = r"""
sk-ant-                                     {w}{20,}
sk-proj- sk-svcacct- sk-admin- sk-None-     {w}{40,}
sk-or-v                                     {w}{32,}
sk-                                         [A-Za-z0-9]{32,}
sk-api- sk-lf-                              {w}{32,}
csk-                                        [a-z0-9]{48}
napi_                                       [A-Za-z0-9]{60,}
gsk_ rpa_                                   [A-Za-z0-9]{28,}
xai-                                        {w}{60,}
pplx- llx-                                  [A-Za-z0-9]{40,}
tgp_v1_ wandb_v1_ pa-                       {w}{43,}
nvapi-                                      {w}{50,}
hf_ api_org_                                [A-Za-z]{34}
r8_                                         [A-Za-z0-9]{37}
lsv2_pt_ lsv2_sk_                           [A-Fa-f0-9]{32}
pcsk_ nyk_ vtwn_ polar_at_ polar_oat_ polar_pat_ prf_ unkey_ pina_   {w}{20,}
sk_car_ waka_                               {w}{20,}
apk_ apk_user_ cog_                            [A-Za-z0-9+/]{48,}
ghp_ gho_ ghu_ ghs_ ghr_                    [A-Za-z0-9]{36,}
github_pat_                                 [A-Za-z0-9_]{60,}
glpat- gldt- glrt- glrtr- glft- glsoat- glcbt- glagent- glimt- glffct- gloas- glptt- GR1348941   {w}{20,}
BBDC-                                       [A-Za-z0-9+/@_=-]{30,}
bkua_ bkps_ bkpat_ bkaj_                            {w}{40,}
ATATT ATCTT ATBB ATAT                       [A-Za-z0-9_=-]{28,}
AKIA ASIA ABIA ACCA                         [A-Z2-7]{16}(?![A-Za-z0-9])
ABSK                                        [A-Za-z0-9+/]{100,}
bedrock-api-key-                            [A-Za-z0-9+/]{28,}
AIza                                        {w}{35}
AQ.Ab8RN6                                   {w}{40,}
ya29.                                       {w}{40,}
GOCSPX-                                     {w}{28}
1//0                                        {w}{60,}
xoxb- xoxa- xoxp- xoxr- xoxs- xoxo- xoxc- xoxe- xapp-   [A-Za-z0-9%-]{20,}
xoxd-                                       [A-Za-z0-9%+/=]{40,}
xoxe.xoxp- xoxe.xoxb-                       [A-Za-z0-9-]{40,}
hooks.slack.com/services/ hooks.slack.com/workflows/   [A-Za-z0-9+/]{40,}
discord.com/api/webhooks/ discordapp.com/api/webhooks/   [0-9]{17,20}/{w}{60,}
sk_live_ rk_live_ sk_prod_ whsec_           [A-Za-z0-9+/]{20,}
sq0atp- sq0csp-                             {w}{22,}
EAAM EAAC EAAB EAAG                         [A-Za-z0-9]{90,}
shpat_ shpca_ shppa_ shpss_                 [A-Fa-f0-9]{32}
shippo_live_                                [A-Fa-f0-9]{40}
EZAK                                        [A-Za-z0-9]{54}
duffel_live_                                [A-Za-z0-9_=-]{40,}
FLWSECK- FLWSECK_LIVE-                      [A-Za-z0-9]{12,}
pdl_live_apikey_                            [a-z0-9]{26}_
xnd_production_ mercury_production_ persona_production_   {w}{20,}
aact_prod_                                  [A-Za-z0-9]{20,}
SG.                                         [A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_.=-]{39,}
key-                                        [a-f0-9]{32}(?![A-Za-z0-9])
xkeysib- xsmtpsib-                          [A-Fa-f0-9]{64}-
mlsn.                                       [A-Za-z0-9]{30,}
re_                                         [A-Za-z0-9]{8}_[A-Za-z0-9]{24}
os_v2_app_ os_v2_org_                       [a-z2-7]{100,}
SK                                          [A-Fa-f0-9]{32}(?![A-Za-z0-9])
npm_                                        [A-Za-z0-9]{36}
pypi-AgEIcHlwaS5vcmc pypi-AgENdGVzdC5weXBpLm9yZ   {w}{50,}
rubygems_                                   [a-f0-9]{48}
CLOJARS_                                    [A-Za-z0-9]{60}
packagist_ort_ packagist_out_ packagist_acs_ packagist_ack_   [a-f0-9]{64}
dckr_pat_ dckr_oat_                         {w}{27,}
SWMTKN-1- SWMKEY-1-                         [A-Za-z0-9+/_-]{40,}
dop_v1_ doo_v1_ dor_v1_                     [a-f0-9]{64}
HRKU-                                       {w}{36,}
cfut_ cfat_ cfk_                            [A-Za-z0-9]{40,}
v1.0-                                       [a-f0-9]{24}-[a-f0-9]{140,}
ddp_ ddo_                                   [A-Za-z0-9]{36}
vcp_ vca_ vcr_ vci_ vck_                    {w}{50,}
rnd_                                        [A-Za-z0-9]{28,}
ucat_                                       [A-Z0-9a-z]{24,}
tk-us-                                      {w}{48}
pscale_pw_ pscale_oauth_ pscale_tkn_        [A-Za-z0-9_.=-]{32,}
sbp_                                        {w}{40,}
CCDB1_                                      {w}{60,}
AstraCS:                                    [A-Za-z0-9:]{20,}
hvs. hvb. hvr.                              {w}{80,}
tskey-auth- tskey-api- tskey-client-        {w}{16,}
dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit.   [A-Za-z0-9._-]{40,}
pul-                                        [a-f0-9]{40}
pnu_ pnb_                                   [A-Za-z0-9]{36}
ico-                                        [A-Za-z0-9]{32}
sntryu_                                     [a-f0-9]{64}
sntrys_eyJ                                  [A-Za-z0-9+/=_]{60,}
glsa_                                       [A-Za-z0-9]{32}_[A-Fa-f0-9]{8}
glc_                                        [A-Za-z0-9+/=]{32,}
dapi                                        [a-f0-9]{32}
dt0c01.                                     [A-Za-z0-9]{24}\.[A-Za-z0-9]{60,}
NRAK-                                       [A-Z0-9]{27}
phx_                                        {w}{40,}
essu_                                       {w}{36,}
sgp_                                        [A-Za-z0-9_]{40,}
lin_api_ lin_oauth_                         [A-Za-z0-9]{40,}
ntn_                                        [A-Za-z0-9]{40,}
figd_ figo_                                 {w}{38,}
PMAK-                                       [a-fA-F0-9]{24}-[a-fA-F0-9]{34}
PMAT-                                       [A-Za-z0-9]{26}
apify_api_                                  [A-Za-z0-9]{34,}
CCIPAT_ CCIPRJ_                             [A-Za-z0-9_]{20,24}_[a-z0-9]{40}
AIK_CI_                                     [A-Za-z0-9]{20,}
ion_                                        [A-Za-z0-9]{42}
fio-u-                                      [A-Za-z0-9_=-]{60,}
lip_                                        [A-Za-z0-9_]{16,}
samsara_api_                                [A-Za-z0-9]{26}
rootly_                                     [a-f0-9]{64}
rdme_                                       [a-z0-9]{70}
mergify_application_key_                    {w}{40,}
sm_aat_ sm_pat_ sm_sat_                     [A-Za-z0-9]{16,}
csa_                                        [A-Za-z0-9]{33,}
tss_                                        {w}{20,}
zpka_                                       [a-z0-9]{32}_[a-f0-9]{8}
API-                                        [A-Z0-9]{26}(?![A-Za-z0-9])
BSA                                         {w}{24,28}(?![A-Za-z0-9_-])
sha256~                                     {w}{43}
p8e-                                        [a-z0-9]{32}(?![A-Za-z0-9])
A3-                                         [A-Z0-9]{6}-[A-Z0-9]{6}-?[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}
ops_eyJ                                     [A-Za-z0-9+/=_-]{100,}
ext_                                        [A-Za-z0-9]{5}\.[A-Za-z0-9]{4}\.acc_[A-Za-z0-9._-]{4,20}\.
wrka                                        [a-z]{1,3}-eyJ[A-Za-z0-9._-]{40,}
configcat-sdk-1/                            {w}{22}/{w}{22}
s-s4t2af- s-s4t2ud-                         [a-f0-9]{64}
_gitlab_session=                            [a-z0-9]{32}
fm2_ fo1_                                   [A-Za-z0-9+/=_-]{40,}
sl. sl.u.                                   {w}{120,}
api_live. api_live_us. api_live_ca.         [A-Za-z0-9_.-]{20,}
pat                                         [A-Za-z0-9]{14}\.[a-f0-9]{64}
pat. sat.                                   {w}{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}
gcntfy-                                     {w}{74,}
AGE-SECRET-KEY-1 AGE-SECRET-KEY-PQ-1        [QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58,}
"""

# Formats whose fixed text stands inside: the text, the pattern.
_INNER = {
    b":AA": rb"(?<![A-Za-z0-9])[0-9]{8,10}:(AA[A-Za-z0-9_-]{32,})",  # Telegram's bots
    # Discord's bots
    b".": rb"(?<![A-Za-z0-9_.-])([MNO][A-Za-z0-9]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38})(?![A-Za-z0-9_.-])",
    b"Q~": rb"(?<![A-Za-z0-9_~.-])([A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})(?![A-Za-z0-9_~.-])",  # Azure's
    b"-us": rb"(?<![A-Za-z0-9_-])([a-f0-9]{32}-us[0-9]{1,2})(?![A-Za-z0-9_-])",  # Mailchimp's
    b".atlasv1.": rb"(?<![A-Za-z0-9])([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,})",  # HCP Terraform's
    b"_mmk": rb"(?<![A-Za-z0-9_])([A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk)",  # MaxMind's
}

# Prefixes of API keys that stand in links for all to see: a map's image, a download signed for one reader.
_SIGNED_LINK = re.compile(rb"(?:[?&;]key=|Credential(?:=|%3D)|AccessKeyId(?:=|%3D))$", re.I)
_IN_LINKS = frozenset((b"AIza", b"AKIA", b"ASIA"))
# Words joined by hyphens: your-key-goes-here, or a page's address that begins like a token.
_PART = rb"(?:[A-Z]?[a-z]{1,20}|[A-Z]{1,20}|[0-9]{1,4})"
_SLUG = re.compile(rb"(?:%s[-_]+)+(?:%s)?" % (_PART, _PART))
# Letters, digits and capitals in turn, as in no word of any language.
_TURNS = re.compile(rb"[a-z][A-Z0-9]|[A-Z][0-9]|[0-9][A-Za-z]")

_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-[0-9]:")
_KEY_BODY = re.compile(rb"[A-Za-z0-9+/]{40}")

_URL = re.compile(rb"://([^\s/:@<>\"'`()\[\]{}|]{0,64}):([^\s/:@<>\"'`()\[\]{}|]{4,200})@([\w.\[-]{1,100})")
_NO_PASSWORD = re.compile(
    rb"(?:my|your|the|some|db|a)?[_-]?"
    rb"(?:pass(?:word|wd|wort|phrase)?|pw|pwd|secret|token|key|api_?key|user(?:name)?|example|"
    rb"changeme|guest|anonymous|x-oauth-basic|postgres|root|admin|test|foo|bar|baz|x+|\*+|\.+)|[$%].*",
    re.I | re.S,
)
_NO_HOST = re.compile(
    rb"localhost|127\.0\.0\.1|\[::1|(?:[\w.-]+\.)?(?:example(?:\.(?:com|org|net))?|test|invalid)", re.I
)

_LINE = rb"(?:\A(?:\xef\xbb\xbf)?|[\n\r])[ \t]{0,8}"
_NETRC = re.compile(_LINE + rb"machine\s{1,9}\S{1,200}\s{1,9}login\s{1,9}\S{1,200}\s{1,9}password\s{1,9}\S{4}")
_PASS_PHRASE = re.compile(_LINE + rb"pass_phrase[ \t]{0,9}=[ \t]{0,9}[^\s<$]{4}")

# What begins a word.
_HEAD = re.compile(rb"(?<![A-Za-z0-9_-])[A-Za-z0-9_]\S")

# A value that some name ends before: `api_key = …`, `"clientSecret": "…"`, `Authorization: Bearer …`.
_VALUE = re.compile(
    rb"""([yYtTnN])["'`*]{0,3}[ \t]{0,3}(?::=|=>|=|:)[ \t]{0,3}["'`*]{0,3}"""
    rb"""(?:(?i:bearer|basic|token)[ ])?([A-Za-z0-9_+/.~-]{20,}={0,2})"""
)
_NAME = re.compile(
    rb"(?:"
    rb"(?:api|secret|private|access|account|master|signing|encryption|service|root)[ _-]?key"
    rb"|(?:client|app|api|consumer|webhook|signing|token|shared|jwt|oauth|access)[ _-]?secret"
    rb"|(?:api|access|auth|bot|refresh|personal|service|deploy|bearer|hcloud|github|gitlab)[ _-]?token"
    rb"|authorization"
    rb")$",
    re.I,
)
# No format is shorter.
SHORTEST = 20
_NAME_LENGTH = 40
_IN_QUERY = re.compile(rb"(?:[?&]|&amp;)[\w.%-]*$")


def found(content: bytes) -> str | None:
    """What looks like a key or a token, in words for the owner and without the secret; None where nothing does."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16", "replace").encode()
    tokens = b"\n".join(word for word in content.split() if len(word) >= SHORTEST)
    if tokens:
        heads = _heads()
        met = (fixed for head in {*_HEAD.findall(tokens)} for fixed in heads.get(head, ()))
        for fixed in (*met, *_INNER):
            if fixed in tokens:
                for match in _pattern(fixed).finditer(tokens):
                    if not _is_placeholder(match[1]) and not _is_public(fixed, tokens, match.start()):
                        return f"{fixed.decode()}…"
    return _private_key(content) or _password(content) or (_named(content) if tokens else None)


@cache
def formats() -> dict[bytes, bytes]:
    """Fixed text -> pattern, whose one group is the rest of the token."""
    patterns = dict(_INNER)
    for line in _FORMATS.strip().splitlines():
        *prefixes, body = line.replace("{w}", "[A-Za-z0-9_-]").split()
        for prefix in prefixes:
            patterns[prefix.encode()] = f"(?<![A-Za-z0-9_-]){re.escape(prefix)}({body})".encode()
    return patterns


@cache
def _heads() -> dict[bytes, list[bytes]]:
    """The prefixes by their first two characters: few notes hold words that begin so."""
    heads: dict[bytes, list[bytes]] = {}
    for prefix in formats().keys() - _INNER.keys():
        heads.setdefault(prefix[:2], []).append(prefix)
    return heads


@cache
def _pattern(fixed: bytes) -> re.Pattern[bytes]:
    """Compiled when its fixed text is first met: most never are."""
    return re.compile(formats()[fixed])


def _private_key(content: bytes) -> str | None:
    """A private key with its body: the header alone, in an explanation or an error message, is none."""
    if b"PRIVATE KEY" not in content and b"PuTTY-User-Key" not in content:
        return None
    for match in _PRIVATE_KEY.finditer(content):
        if _KEY_BODY.search(content, match.end(), match.end() + 300):
            return "a private key"
    return None


def _password(content: bytes) -> str | None:
    if b"://" in content:
        for match in _URL.finditer(content):
            user, password, host = match.groups()
            if password != user and not _NO_PASSWORD.fullmatch(password) and not _NO_HOST.fullmatch(host):
                return "a URL with a password"
    if b"machine" in content and _NETRC.search(content):
        return "a .netrc with a password"
    if b"pass_phrase" in content and _PASS_PHRASE.search(content):
        return "the pass phrase of a key"
    return None


def _named(content: bytes) -> str | None:
    """A random value under the name of a credential. In a URL's query it is a link's own, made for one reader."""
    for match in _VALUE.finditer(content):
        before = content[max(0, match.end(1) - _NAME_LENGTH) : match.end(1)]
        name = _NAME.search(before)
        if name and not _IN_QUERY.search(before) and _is_random(match[2]):
            return f"a value named {name[0].decode()}"
    return None


def _is_placeholder(token: bytes) -> bool:
    return b"EXAMPLE" in token.upper() or _SLUG.fullmatch(token) is not None


def _is_random(value: bytes) -> bool:
    return len(set(value)) >= 8 and len(_TURNS.findall(value)) > 3 and not _is_placeholder(value)


def _is_public(prefix: bytes, content: bytes, start: int) -> bool:
    return prefix in _IN_LINKS and _SIGNED_LINK.search(content[max(0, start - 24) : start]) is not None
