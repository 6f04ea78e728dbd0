"""The table of credentials.py against a detector that is kept well: what kingfisher knows by its form alone, and among
ordinary words, the table must know too. Raise kingfisher's version in requirements.in, and this test names what is new.
"""

from __future__ import annotations

import random
import re
import string
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import pytest
from cloud_agent import credentials

kingfisher = pytest.importorskip("kingfisher_sdk")

TRIES = 12
WORD = string.ascii_letters + string.digits + "_"

# What the table leaves out on purpose; the rest is what a random text of their pattern does not show.
LEFT_OUT = {
    "no fixed text in it, so that mail would be held: found by its name": "deepseek kimi facebook-access-token zai jwt",
    "it is signed for one reader, as any JSON web token": "miro-access temporal-cloud grafana-api-key",
    "public by design": "posthog-project flutterwave-public devcycle",
    "a test key, which opens nothing": "duffel easypost-test flutterwave-encryption flutterwave-secret shippo",
    "real ones are longer, or of mixed case": "stripe slack square-access huggingface sendgrid-api-token asaas "
    "voyageai vault-service workato authress buildkite-service veles.secrets/openrouter samsara bitbucket-data-center",
    "the pattern allows what is no credential": "gcp-application-default gcp-service-account private-key flyio mongodb",
}


def text_of(pattern: Iterable[Any], choose: random.Random) -> str:
    """A text that the pattern, as Python's own parser reads it, takes; near enough for most."""
    out = []
    for operation, value in pattern:
        name = str(operation)
        if name == "LITERAL":
            out.append(chr(value))
        elif name in ("ANY", "NOT_LITERAL"):
            out.append("x")
        elif name == "IN":
            out.append(choose.choice(_members(value)))
        elif name.endswith("_REPEAT"):
            least, most, inner = value
            times = (
                least if least > 1 else 0 if most > 30 and not least else choose.randint(least, min(most, least + 3))
            )
            out.extend(text_of(inner, choose) for _ in range(times))
        elif name == "SUBPATTERN":
            out.append(text_of(value[3], choose))
        elif name == "BRANCH":
            out.append(text_of(choose.choice(value[1]), choose))
    return "".join(out)


def _members(items: Iterable[Any]) -> list[str]:
    members: set[str] = set()
    negated = False
    for operation, value in items:
        name = str(operation)
        if name == "LITERAL":
            members.add(chr(value))
        elif name == "RANGE":
            members |= {chr(code) for code in range(value[0], min(value[1], 126) + 1)}
        elif name == "CATEGORY":
            members |= set({"D": string.digits, "W": WORD}.get(str(value).removeprefix("CATEGORY_")[0], " "))
        elif name == "NEGATE":
            negated = True
    return sorted(set(WORD) - members if negated else members) or ["x"]


def parsed(pattern: str) -> Any:
    for theirs, ours in ((r"\z", r"\Z"), ("[[:alnum:]]", "[A-Za-z0-9]"), ("[[:alpha:]]", "[A-Za-z]")):
        pattern = pattern.replace(theirs, ours)
    flags = re.VERBOSE if "(?x)" in pattern else 0
    pattern = re.sub(r"\(\?[imsx]+\)", "", pattern)
    pattern = re.sub(r"\(\?-?[imsx]+-?[imsx]*:", "(?:", pattern)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sys.modules["re._parser"].parse(pattern, flags)


def test_what_a_detector_knows_by_form_alone_is_known_here() -> None:
    left_out = [name for names in LEFT_OUT.values() for name in names.split()]
    choose = random.Random(20261123)  # noqa: S311
    rules = kingfisher.Rules(confidence="high", cache=False)
    scanner = kingfisher.Scanner(rules, base64=False)

    def finds(rule: str, text: str) -> list[str]:
        return [found.secret for found in scanner.scan(text) if found.rule_id == rule]

    compared, missed = 0, {}
    for rule in (entry["id"] for entry in rules.metadata() if entry["visible"]):
        pattern = parsed(rules.detail(rule)["pattern"])
        texts = [text_of(pattern, choose) for _ in range(TRIES)]
        tokens = [token for text in texts for token in finds(rule, f"a {text} b")[:1]]
        by_form = [token for token in tokens if finds(rule, f"see it: {token} \n")]
        if not by_form:
            continue
        compared += 1
        unknown = [token for token in by_form if credentials.found(f"see it: {token} \n".encode()) is None]
        if len(unknown) * 4 > len(by_form) and not any(name in rule for name in left_out):
            missed[rule] = unknown[0]
    assert compared > 140
    assert missed == {}
