"""What of a conversation the model is shown."""

from __future__ import annotations

import pytest
from cloud_agent import thread
from cloud_agent.mail import Envelope

PATH = "Done/Email/EMAIL_1.md"
OWN = frozenset({"me@own.org"})


def seen(to: str, cc: str = "", own: frozenset[str] = OWN, /, **fields: str) -> bool:
    header = "".join(f"{name}: {value}\n" for name, value in fields.items())
    raw = f"---\n{header}subject: x\n---\nWe agreed on 1 EUR.".encode()
    return thread.earlier(PATH, raw, Envelope(to, cc, "Re: x", "", ""), own) is not None


@pytest.mark.parametrize(
    ("to", "cc", "fields"),
    [
        ("Ann <ann@x.org>", "", {"from": "Ann <ann@x.org>"}),
        ("ann@x.org", "", {"from": "bob@x.org", "to": "me@own.org, Ann@x.org"}),
        ("ann@x.org", "bob@x.org", {"from": "Bob <bob@x.org>", "cc": "ann@x.org"}),
    ],
)
def test_a_message_that_all_had_is_shown(to: str, cc: str, fields: dict[str, str]) -> None:
    assert seen(to, cc, **fields)


@pytest.mark.parametrize(
    ("to", "cc"),
    [
        ("eve@evil.org", ""),
        ("ann@x.org", "eve@evil.org"),
        ('"ann@x.org" <eve@evil.org>', ""),
        ('"Ann <ann@x.org>" <eve@evil.org>', ""),
        ("ann@x.org.evil.org", ""),
    ],
)
def test_nobody_gets_at_a_conversation_by_naming_it(to: str, cc: str) -> None:
    assert not seen(to, cc, **{"from": "Ann <ann@x.org>", "to": "me@own.org"})


def test_nobody_speaks_for_the_owner() -> None:
    forged = {"from": "The owner <Me@own.org>", "to": "eve@evil.org"}
    assert not seen("eve@evil.org", **forged)
    assert seen("eve@evil.org", "", frozenset(), **forged)  # who the owner is must be known for that
