"""The gate: which mail is automatic, by its headers."""

from __future__ import annotations

import pytest
from cloud_agent.gate import judge
from cloud_agent.mail import Mail


def verdict(body: str = "text", **fields: str) -> str:
    return judge(Mail("x", {"from": "ann@example.org", **fields}, body)).verdict


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "draft"),
        ({"auto_submitted": "no"}, "draft"),
        ({"auto_submitted": "No; owner"}, "draft"),
        ({"auto_submitted": "auto-replied"}, "skip"),
        ({"auto_submitted": "auto-generated (cron); x=y"}, "skip"),
        ({"auto_submitted": "(a comment) auto-generated"}, "skip"),
        ({"auto_submitted": "(a comment) no"}, "draft"),
        ({"return_path": "<>"}, "skip"),
        ({"return_path": "<ann@example.org>"}, "draft"),
        ({"content_type": "multipart/report; report-type=delivery-status"}, "skip"),
        ({"from": "MAILER-DAEMON@example.org"}, "skip"),
        ({"from": "Mail <postmaster@example.org>"}, "skip"),
        ({"from": "owner-list@example.org"}, "review"),
        ({"from": "feature-request@example.org"}, "review"),
        ({"x_auto_response_suppress": "All"}, "skip"),
        ({"x_auto_response_suppress": "DR, OOF, AutoReply"}, "skip"),
        ({"x_auto_response_suppress": "DR, RN, NRN"}, "draft"),
        ({"x_auto_response_suppress": "None"}, "draft"),
        ({"precedence": "bulk"}, "skip"),
        ({"precedence": "list"}, "skip"),
        ({"list_unsubscribe": "<https://example.org/u>"}, "skip"),
        ({"list_id": "<dev.example.org>"}, "review"),
        ({"list_id": "<dev.example.org>", "precedence": "list"}, "review"),
        ({"list_id": "<news.example.org>", "precedence": "bulk"}, "skip"),
        ({"list_id": "<news.example.org>", "from": "no-reply@example.org"}, "skip"),
        ({"from": "no-reply@example.org"}, "skip"),
        ({"from": "Shop <DoNotReply@example.org>"}, "skip"),
        ({"from": "noreply-42@example.org"}, "skip"),
        ({"from": "no-reply@example.org", "reply_to": "ann@example.org"}, "draft"),
        ({"from": "no-reply@example.org", "reply_to": "noreply@example.org"}, "skip"),
        ({"from": "nora.reply@example.org"}, "draft"),
        ({"from": "newsletter@example.org"}, "draft"),
    ],
)
def test_headers(fields: dict[str, str], expected: str) -> None:
    assert verdict(**fields) == expected


def test_a_bulk_sender_with_a_way_to_unsubscribe() -> None:
    assert verdict("Offers!\n\nUnsubscribe here", **{"from": "newsletter@example.org"}) == "skip"
    assert verdict("Please unsubscribe me from this", **{"from": "ann@example.org"}) == "draft"


def test_every_skip_and_review_has_its_reason() -> None:
    for fields in ({"precedence": "bulk"}, {"list_id": "<x.y>"}, {"from": "no-reply@example.org"}):
        assert judge(Mail("x", {"from": "ann@example.org", **fields}, "text")).reason
