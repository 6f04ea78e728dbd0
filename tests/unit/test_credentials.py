"""How a key or a token looks. Every token is made here, at random and from parts: no scanner of this repository, and
no push protection, has anything to find in it."""

from __future__ import annotations

import json
import random
import re
import string
from base64 import b64encode
from collections.abc import Iterator
from email import message_from_bytes, policy

import pytest
from cloud_agent import credentials

from evals.corpora import CORPORA
from tests.linear import assert_linear

_random = random.Random(20261123)  # noqa: S311
ALNUM = string.ascii_letters + string.digits
WORD = ALNUM + "-_"
BASE64 = ALNUM + "+/"
HEX = "0123456789abcdef"
DIGITS = "123456789"
BASE32 = string.ascii_uppercase + "234567"
CAPITALS = string.ascii_uppercase + string.digits


def some(length: int, alphabet: str = ALNUM) -> str:
    return "".join(_random.choice(alphabet) for _ in range(length))


def key_block(kind: str, quote: str = "") -> str:
    lines = [f"-----BEGIN {kind}-----", *(some(64, BASE64) for _ in range(8)), f"-----END {kind}-----"]
    return "\n".join(quote + line for line in lines)


SECRETS = {
    "Anthropic": "sk-" + "ant-api03-" + some(93, WORD) + "AA",
    "Anthropic, admin": "sk-" + "ant-admin01-" + some(93, WORD) + "AA",
    "Anthropic, OAuth": "sk-" + "ant-oat01-" + some(93, WORD) + "AA",
    "OpenAI, old": "sk-" + some(20) + "T3Blbk" + "FJ" + some(20),
    "OpenAI, project": "sk-" + "proj-" + some(74, WORD) + "T3Blbk" + "FJ" + some(74, WORD),
    "OpenRouter": "sk-" + "or-v1-" + some(64, HEX),
    "Hugging Face": "hf" + "_" + some(34, string.ascii_letters),
    "GitHub, classic": "ghp" + "_" + some(36),
    "GitHub, app": "ghs" + "_" + some(36),
    "GitHub, fine-grained": "github" + "_pat_" + some(22) + "_" + some(59),
    "GitHub, in a URL": "https://x-access-token:" + "ghs" + "_" + some(36) + "@github.com/a/b",
    "GitLab": "glpat" + "-" + some(20, WORD),
    "GitLab, routable": "glpat" + "-" + some(27, WORD) + ".01." + some(9, string.digits + "abcdef"),
    "AWS, key id": "AK" + "IA" + some(16, BASE32),
    "AWS, session": "AS" + "IA" + some(16, BASE32),
    "AWS, secret key": "aws_secret_access_key = " + some(40, BASE64),
    "GCP, service account": json.dumps(
        {"type": "service_account", "private_key": key_block("PRIVATE KEY"), "client_email": "x@y.example"}
    ),
    "GCP, API key": "AI" + "za" + some(35, WORD),
    "Google, OAuth": "ya" + "29." + some(60, WORD),
    "Google, client secret": "GOC" + "SPX-" + some(28, WORD),
    "Azure, storage": "DefaultEndpointsProtocol=https;AccountName=a;Account" + "Key=" + some(86, BASE64) + "==;x=y",
    "Azure, client secret": some(3) + "8" + "Q~" + some(34),
    "Slack, bot": "xox" + f"b-{some(12, DIGITS)}-{some(12, DIGITS)}-{some(24)}",
    "Slack, app": "xa" + f"pp-1-A{some(10, CAPITALS)}-{some(13, DIGITS)}-{some(64, HEX)}",
    "Slack, webhook": "https://hooks.slack" + f".com/services/T{some(8, CAPITALS)}/B{some(10, CAPITALS)}/{some(24)}",
    "Stripe": "sk" + "_live_" + some(24),
    "Stripe, restricted": "rk" + "_live_" + some(24),
    "Stripe, webhook": "wh" + "sec_" + some(32),
    "SendGrid": "SG" + "." + some(22, WORD) + "." + some(43, WORD),
    "Mailgun": "key" + "-" + some(32, HEX),
    "Mailgun, by name": "MAILGUN_API_KEY=" + some(32, HEX) + "-" + some(8, HEX) + "-" + some(8, HEX),
    "Mailchimp": some(32, HEX) + "-" + "us14",
    "Brevo": "xkey" + "sib-" + some(64, HEX) + "-" + some(16),
    "Twilio, key": "S" + "K" + some(32, HEX),
    "Twilio, token": "TWILIO_AUTH_TOKEN=" + some(32, HEX),
    "Telegram": some(10, DIGITS) + ":A" + "A" + some(33, WORD),
    "Discord, bot": "M" + "T" + some(24) + "." + some(6) + "." + some(38, WORD),
    "Discord, webhook": "https://discord" + ".com/api/webhooks/" + some(18, DIGITS) + "/" + some(68, WORD),
    "npm": "npm" + "_" + some(36),
    "PyPI": "pypi" + "-AgEIcHlwaS5vcmc" + some(120, WORD),
    "DigitalOcean": "dop" + "_v1_" + some(64, HEX),
    "Hetzner": "HCLOUD_TOKEN=" + some(64),
    "Cloudflare, by name": "export CLOUDFLARE_API_TOKEN=" + some(40, WORD),
    "Cloudflare": "cf" + "ut_" + some(40) + some(8, HEX),
    "Oracle, API key": key_block("RSA PRIVATE KEY"),
    "Oracle, ~/.oci/config": "[DEFAULT]\nkey_file=~/.oci/key.pem\npass_phrase=" + some(12),
    "SSH": key_block("OPENSSH PRIVATE KEY"),
    "SSH, quoted in a mail": key_block("OPENSSH PRIVATE KEY", "> "),
    "SSH, PuTTY": "PuTTY-User-" + "Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\n" + some(48, BASE64),
    "EC": key_block("EC PRIVATE KEY"),
    "PKCS 8, encrypted": key_block("ENCRYPTED PRIVATE KEY"),
    "RSA, encrypted": key_block("RSA PRIVATE KEY").replace("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1),
    "PGP": key_block("PGP PRIVATE KEY BLOCK").replace("-----\n", "-----\nComment: mine\n\n", 1),
    "age": "AGE-SECRET-" + "KEY-1" + some(58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
    ".netrc": "machine api.github.com\n  login me\n  password " + some(12),
    "PostgreSQL": "postgres://app:" + some(10) + "@db.acme.io:5432/x",
    "MongoDB": "mongodb+srv://app:" + some(16) + "@c0.abcde.mongodb.net/x",
    "Redis": "redis://:" + some(20) + "@cache:6379/0",
    "basic authentication": "https://me:" + some(8) + "@git.acme.io/x.git",
    "Authorization": "Authorization: Bearer " + some(40, WORD),
    "HashiCorp Vault": "hv" + "s." + some(95, WORD),
    "Notion": "nt" + "n_" + some(46),
    "Linear": "lin" + "_api_" + some(40),
    "Groq": "gs" + "k_" + some(52),
    "Tailscale": "tskey" + "-auth-" + some(17) + "-" + some(33),
    "Obsidian plugin": json.dumps({"apiKey": some(40), "folder": "x"}),
    "Obsidian plugin, indented": json.dumps({"openAIApiKey": some(32, HEX)}, indent=2),
    "client secret": "client_secret: '" + some(32) + "'",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_found_and_not_told(kind: str) -> None:
    secret = SECRETS[kind]
    for text in (f"{secret}\n", f"See here:\n\n{secret}\n\nBye", f"| a |\n{secret}", f"\ufeff{secret}", f"`{secret}`"):
        if text.endswith("`") and kind.startswith((".netrc", "Oracle, ~")):
            continue  # a file of lines
        what = credentials.found(text.encode())
        assert what is not None, text
        assert not any(part in what for part in re.findall(r"[A-Za-z0-9]{16,}", secret))
    assert credentials.found(f"{secret}\n".encode("utf-16"))


LOOK_ALIKES = {
    "a UUID": "id: 3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "a commit": "fixed in " + some(40, HEX),
    "a SHA-256": "sha256: " + some(64, HEX),
    "an integrity hash": "sha512-" + some(86, BASE64) + "==",
    "an image": "![x](data:image/png;base64," + b64encode(_random.randbytes(30_000)).decode() + ")",
    "an attachment": "\n".join(some(76, BASE64) for _ in range(500)),
    "a tracking link": "https://click.mail.acme.com/?qs=" + some(120, HEX) + "&upn=" + some(300, WORD),
    "an unsubscribe link": "https://acme.com/u?token=eyJ" + some(40) + ".eyJ" + some(80) + "." + some(43, WORD),
    "a link with a key": "https://acme.com/reset?api_key=" + some(40) + "&access_token=" + some(40),
    "the same in HTML": "https://acme.com/reset?a=b&amp;api_key=" + some(40),
    "a signed download": "https://b.s3.amazonaws.com/x?X-Amz-Credential=" + "AS" + "IA" + some(16, BASE32) + "%2F2026",
    "a map": "https://maps.googleapis.com/maps/api/staticmap?center=x&key=" + "AI" + "za" + some(35, WORD),
    "a message id": "Message-ID: <CA+" + some(40, WORD) + "@mail.gmail.com>",
    "a DKIM signature": "b=" + some(170, BASE64),
    "an IBAN": "DE89 3704 0044 0532 0130 00, GB29NWBK60161331926819",
    "AWS' own example": "AK"
    + "IAIOSFODNN7EXAMPLE and aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "placeholders": "ghp_xxxxxxxx, sk-"
    + "ant-YOUR-API-KEY-GOES-HERE or sk-"
    + "ant-your-key-goes-here-and-nowhere-else",
    "a password in prose": "Your new password: Sommer2026! It is valid for a day. Password reset code: 482913",
    "words of keys": "The secret: be kind. Token = 5 euros. Key: C major. API key: see the handbook.",
    "names of settings": "api_key: ${API_KEY}\nclient_secret = <your client secret>\naccess_token: process.env.TOKEN_2",
    "a path": "private_key: /home/me/.ssh/keys/production/server",
    "a page of words": "apiKey: my-projects-staging-environment-key-for-the-second-team",
    "a header alone": "It must begin with -----BEGIN RSA PRIVATE "
    + "KEY----- and end with -----END RSA PRIVATE "
    + "KEY-----.",
    "a public key": key_block("PUBLIC KEY"),
    "a certificate": key_block("CERTIFICATE"),
    "a PGP signature": key_block("PGP SIGNATURE"),
    "an SSH public key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + some(43, BASE64) + " me@laptop",
    "connection strings of a manual": "postgres://user:password@localhost/db https://user:pass@example.com redis://:${PW}@r",
    "a port": "http://localhost:8080/@me http://acme.com:8443/a@b",
    "a time and an address": "at 10:30@office, mailto:a@b.example, sip://a@b",
    "a slug": "https://acme.com/blog/pa-how-we-built-the-biggest-office-in-town-and-why-2026 hf_Transformers",
    "short tokens": "sk-ant-short ask-ant-eater AKIA is a name ghp_123 risk_live_music",
    "names in code": "napi_create_external_arraybuffer(napi_env env), lip_synchronisation_of_speech, rnd_HTML_2026_",
    "code": "re_match_object = npm_config_registry; SG.Data.frame; key-value; self.api_key: Optional[str] = None",
    "machine room": "The machine room login is open, no password is needed",
}


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_what_looks_alike_passes(kind: str) -> None:
    """A mail that is held back is a mail whose draft its owner never sees."""
    assert credentials.found(f"Hello,\n\n{LOOK_ALIKES[kind]}\n\nBye".encode()) is None


def test_random_words_of_any_alphabet_pass() -> None:
    """Base64, URLs and hashes hold every prefix sooner or later: two megabytes of them, none taken for a key."""
    for alphabet in (BASE64, WORD, HEX, ALNUM):
        content = "\n".join(some(length, alphabet) for length in (32, 40, 64, 76, 300) * 1000)
        assert credentials.found(content.encode()) is None


@pytest.mark.parametrize(
    "unit",
    [
        *(
            b"a",
            b"=",
            b" ",
            b"\n",
            b"aB1",
            b"sk-ant-",
            b"AKIA",
            b"eyJ",
            b"key=",
            b"://",
            b"://a:aaaa",
            b"M.",
            b"-us",
            b"0-us",
        ),
        *(
            b"https://a:",
            b"12345678:AA",
            b"machine a ",
            b"machine a\nlogin b\n",
            b"pass_phrase=",
            b"key : ",
            b"key\t\t\t:",
        ),
        *(b"api_key:aB1cD2eF3gH4iJ5kL6m ", b"key:aaaaaaaaaaaaaaaaaaaaaaaa ", b"dop_v1_0123456789abcdef0 "),
        *(
            b"Maaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaa.",
            b"xoxb-1-",
            b"SG.aB1aB1aB1aB1aB1aB1aB1.",
            b"sk-ant-" + b"a" * 40 + b"1B ",
        ),
        *(b"-----BEGIN PRIVATE " + b"KEY-----", b"-----BEGIN A ", b"PuTTY-User-" + b"Key-File-1:"),
    ],
)
def test_a_mail_made_to_stall_the_search_does_not(unit: bytes) -> None:
    assert_linear(credentials.found, unit)


@pytest.mark.parametrize("fixed", list(credentials.formats()))
def test_no_format_takes_more_than_linear_time(fixed: bytes) -> None:
    """Each fixed text over and over, with and without a word before it."""
    assert_linear(credentials.found, fixed + b"aB1c" + fixed + b" aB1c")


def texts_of_the_corpora() -> Iterator[tuple[str, bytes]]:
    for path in sorted((CORPORA / "mail").glob("*.eml")):
        raw = path.read_bytes()
        yield path.name, raw
        for part in message_from_bytes(raw, policy=policy.compat32).walk():
            if not part.is_multipart():
                yield f"{path.name}, {part.get_content_type()}", bytes(part.get_payload(decode=True) or b"")
    for path in sorted((CORPORA / "injection").glob("*.[jy]*")):
        yield path.name, path.read_bytes()


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora lie beside the repository, where there are any")
def test_no_mail_of_the_corpora_is_held() -> None:
    texts = list(texts_of_the_corpora())
    assert len(texts) > 200
    assert [(name, what) for name, text in texts if (what := credentials.found(text))] == []
