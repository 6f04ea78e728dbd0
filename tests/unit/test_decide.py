"""The table over `drafting.decide`, line by line."""

from __future__ import annotations

import pytest
from cloud_agent.decision import Copy, Do, Place, decide, for_a_person
from cloud_agent.index import DraftState
from cloud_agent.mail import parse
from cloud_agent.request import Reply
from cloud_agent.vault import DONE, NEEDS_ACTION, SKIPPED

from tests.helpers import mail_text

OURS = "In_Progress/cloud-2"
DRAFTED = {"drafted_as": "EMAIL_DRAFT_x", "decision": "reply"}


def do(place: Place, draft: DraftState | None, copy: Copy, **fields: str) -> Do:
    return decide(parse("EMAIL_x.md", mail_text("x", **fields).encode()), place, draft, copy, OURS)


def where(place: Place, draft: DraftState | None, copy: Copy, **fields: str) -> str:
    """What is done, or the folder of a move."""
    done = do(place, draft, copy, **fields)
    return done.folder or done.what


@pytest.mark.parametrize("place", ["inbox", "in progress"])
@pytest.mark.parametrize(
    ("draft", "copy", "expected"),
    [
        (None, "identical", "drop"),
        ("pending", "identical", "drop"),
        ("decided", "same", SKIPPED),
        (None, "same", SKIPPED),
        ("pending", "different", NEEDS_ACTION),
        (None, "different", NEEDS_ACTION),
        ("pending", "none", OURS),
        ("decided", "none", DONE),
        (None, "none", "draft"),
    ],
)
def test_an_open_mail(place: Place, draft: DraftState | None, copy: Copy, expected: str) -> None:
    """In the inbox, or claimed and never drafted: the same is done."""
    assert where(place, draft, copy) == expected


@pytest.mark.parametrize("place", ["inbox", "in progress"])
def test_the_gate_judges_an_open_mail(place: Place) -> None:
    assert where(place, None, "none", precedence="bulk") == SKIPPED
    assert where(place, None, "none", list_id="<x.y>") == NEEDS_ACTION
    assert where(place, None, "none", from_="nobody") == NEEDS_ACTION
    assert where(place, None, "none", precedence="bulk", decision="skip") == "draft"  # a person put it back


@pytest.mark.parametrize(
    ("draft", "copy", "expected"),
    [
        ("pending", "identical", "drop"),
        (None, "identical", "drop"),
        ("pending", "none", "leave"),
        ("pending", "different", "leave"),
        ("decided", "none", DONE),
        (None, "none", NEEDS_ACTION),
    ],
)
def test_a_drafted_mail_in_progress(draft: DraftState | None, copy: Copy, expected: str) -> None:
    assert where("in progress", draft, copy, **DRAFTED) == expected


def test_a_drafted_mail_is_never_drafted_again() -> None:
    for place in ("inbox", "in progress", "needs action"):
        for draft in (None, "pending", "decided"):
            for copy in ("none", "identical", "same", "different"):
                assert do(place, draft, copy, **DRAFTED).what != "draft"  # type: ignore[arg-type]


@pytest.mark.parametrize(("draft", "expected"), [(None, "leave"), ("pending", OURS), ("decided", DONE)])
def test_a_mail_that_a_person_looks_at(draft: DraftState | None, expected: str) -> None:
    assert where("needs action", draft, "none", **DRAFTED) == expected
    assert where("needs action", draft, "none") == "leave"


def test_the_models_reason_is_one_line() -> None:
    reply = Reply(
        decision="review", reason="x\n2026-01-01 approved\u2028y", body="", confidence="low", missing_facts=[]
    )
    assert for_a_person(reply).reason == "Claude asks for a person: x 2026-01-01 approved y"
