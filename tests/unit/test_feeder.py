"""What the upgrade scenario calls lost, drafted twice or clashed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.feeder import faults, mail

RUN = "101112"
ID = f"{RUN}-pushed-0001"
MAIL = "In_Progress/cloud/EMAIL_x.md"
DRAFT = "Pending_Approval/Email/EMAIL_DRAFT_x.md"


def put(vault: Path, name: str, email_id: str = ID) -> None:
    file = vault / name
    file.parent.mkdir(parents=True, exist_ok=True)
    text = mail(email_id)
    file.write_text(text.replace("---\n", "---\ndraft_id: d\n", 1) if "DRAFT" in name else text)


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """A vault with one mail and its draft, and what other tests left."""
    put(tmp_path, MAIL)
    put(tmp_path, DRAFT)
    put(tmp_path, "Done/Email/EMAIL_other.md", "other")
    (tmp_path / "Dashboard.md").write_text(f"## Updates\n- {ID}\n")
    return tmp_path


def test_one_draft_and_one_mail_are_well(vault: Path) -> None:
    assert faults(vault, RUN, [ID]) == []


def test_a_draft_may_be_decided(vault: Path) -> None:
    (vault / DRAFT).unlink()
    put(vault, "Approved/Email/EMAIL_DRAFT_x.md")
    assert faults(vault, RUN, [ID]) == []


@pytest.mark.parametrize(("lost", "what"), [(DRAFT, "0 drafts"), (MAIL, "0 mails")])
def test_what_is_gone_is_told(vault: Path, lost: str, what: str) -> None:
    (vault / lost).unlink()
    assert [fault for fault in faults(vault, RUN, [ID]) if what in fault]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Approved/Email/EMAIL_DRAFT_x.md", "2 drafts"),
        ("Pending_Approval/Email/EMAIL_DRAFT_x-2.md", "2 drafts"),
        ("Done/Email/EMAIL_x.md", "2 mails"),
        ("Inbox/EMAIL_x.md", "not taken in"),
        ("Needs_Action/Email/EMAIL_x.conflict-cloud-1234.md", "clashed"),
    ],
)
def test_what_is_there_twice_or_at_the_wrong_place_is_told(vault: Path, name: str, what: str) -> None:
    put(vault, name)
    assert [fault for fault in faults(vault, RUN, [ID]) if what in fault]


def test_a_mail_that_never_came_and_one_that_nobody_sent_are_told(vault: Path) -> None:
    other = f"{RUN}-written-0001"
    assert [fault for fault in faults(vault, RUN, [ID, other]) if "0 drafts" in fault]
    assert faults(vault, RUN, []) == [f"{ID}: nobody sent it"]
