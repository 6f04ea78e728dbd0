"""What there is to tell, and in what words: from a real vault, its beats and alerts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import time, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cloud_agent import status
from cloud_agent.alerting import facts, ledger
from cloud_agent.alerting.compose import compose
from cloud_agent.alerting.ledger import Delivery
from cloud_agent.alerting.settings import Alerts
from cloud_agent.claude import Refused
from cloud_agent.config import MaildirBox
from cloud_agent.vault import NEEDS_ACTION, PENDING

from tests.helpers import NOON, Desk


@pytest.fixture
def living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose loops live and whose owner is told."""
    monkeypatch.setattr(status, "is_loop_process", lambda pid, loop: True)
    desk = Desk(tmp_path, alerts=Alerts({"a": "json://localhost"}))
    beat(desk)
    return desk


@pytest.fixture
def watching(tmp_path: Path, living: Desk) -> Desk:
    """The same with a mailbox, whose loop lives too."""
    living.config = replace(living.config, mailbox=MaildirBox(tmp_path / "Maildir"))
    beat(living, "watch")
    return living


def beat(desk: Desk, *loops: str, result: Any = "ok") -> None:
    for loop in loops or ("draft", "sync"):
        desk.state.beat(loop, 1, desk.clock(), desk.clock(), result)


def so(desk: Desk, known: Any = None) -> dict[str, str]:
    return dict(facts.gather(desk.config, desk.state, known or {}, desk.clock()))


def said(desk: Desk, digest: bool = False) -> str:
    kept = ledger.observe(ledger.Ledger(), so(desk), desk.config.alerts, desk.clock())
    return str(compose(Delivery("a", tuple(kept.causes), digest), kept, desk.config, desk.state, desk.clock()))


def test_nothing_to_tell(living: Desk) -> None:
    assert so(living) == {}
    living.put("x")
    assert so(living) == {}, "a mail in the inbox is drafting's to see to"


def test_drafts_and_mails_that_need_a_person(living: Desk) -> None:
    living.put("x", subject="A question")
    living.put("y", subject="[URGENT] Rent")
    living.put("z", priority="High")
    living.put("list", list_id="<a.b>", subject="News")
    living.run()
    assert so(living) == {
        "draft EMAIL_DRAFT_x.md": "draft",
        "draft EMAIL_DRAFT_y.md": "urgent",
        "draft EMAIL_DRAFT_z.md": "urgent",
        "person EMAIL_list.md": "person",
    }
    living.move(f"{PENDING}/EMAIL_DRAFT_x.md", "Approved/Email/EMAIL_DRAFT_x.md")
    living.write(f"{PENDING}/EMAIL_DRAFT_y.conflict-cloud-1234.md", "a copy is no draft of its own")
    assert "draft EMAIL_DRAFT_x.md" not in so(living)
    assert len(so(living)) == 3


def test_the_words_of_drafts_and_mails(living: Desk) -> None:
    living.put("x", from_='"Ann @all" <ann@example.org>', subject="See http://evil.example/x")
    living.put("y", subject="[URGENT] Rent")
    living.put("list", from_="Bob <bob@example.org>", list_id="<a.b>", subject="News")
    living.run()
    assert said(living) == (
        "cloud: URGENT, 2 drafts wait, 1 mail needs a person\n"
        "2 drafts wait:\n"
        "• ann@example[.]org\n  [URGENT] Rent\n  A question.\n"
        "• Ann [@]all (ann@example[.]org)\n  See http[:]//evil[.]example/x\n  A question.\n\n"
        "1 mail needs a person:\n"
        "• Bob (bob@example[.]org)\n  News\n"
        "  mail of a list: whether to answer it is a person's decision: it has List-ID (RFC 2919)"
    )


def test_the_body_is_told_only_where_the_owner_wants_it(living: Desk) -> None:
    living.put("x", body="My PIN is 1234.")
    living.put("list", list_id="<a.b>", body="<p>Hello</p>\n\nhttp://evil.example")
    living.run()
    assert "call" not in said(living) and "Hello" not in said(living) and "PIN" not in said(living)
    living.config = replace(living.config, alerts=Alerts({"a": "json://localhost"}, body=True))
    assert "  “Dear Ann, I will call you.”" in said(living), "of a draft the reply, not the mail below it"
    assert "http[:]//evil[.]example" in said(living)
    assert "PIN" not in said(living)


def test_many_drafts_are_counted_and_few_named(living: Desk) -> None:
    for number in range(40):
        living.put(f"n{number:02}", subject=f"Question {number}", message_id=f"<{number}@x>")
    living.run()
    text = said(living)
    assert text.startswith("cloud: 40 drafts wait\n• ann@example[.]org\n  Question 0\n")
    assert text.endswith("… and 35 more")
    assert len(text) < 1000


def test_a_note_that_cannot_be_read_is_named(living: Desk) -> None:
    living.write(f"{NEEDS_ACTION}/EMAIL_x.md", b"\x00\x01")
    living.write(f"{PENDING}/EMAIL_DRAFT_y.md", b"")
    os.symlink("/etc/passwd", living.vault / NEEDS_ACTION / "EMAIL_link.md")
    assert so(living) == {"person EMAIL_x.md": "person", "draft EMAIL_DRAFT_y.md": "draft"}
    assert "• EMAIL_x[.]md" in said(living) and "passwd" not in said(living)


def test_a_file_that_is_known_is_not_opened_again(living: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    living.put("x")
    living.run()
    kept = ledger.observe(ledger.Ledger(), so(living), living.config.alerts, NOON)
    monkeypatch.setattr(facts, "mails_of", lambda *_: pytest.fail("it was opened"))
    assert so(living, kept.causes) == {"draft EMAIL_DRAFT_x.md": "draft"}


def test_credentials_that_are_refused_and_a_budget_that_is_reached(watching: Desk) -> None:
    watching.put("x")

    def refuse(mail: Any) -> Any:
        raise Refused("Claude's API refused the key (401: no)")

    watching.drafter.behave = refuse
    watching.run()
    assert so(watching) == {"alert drafting": "failure"}
    assert "• Claude's API refused the key (401: no)" in said(watching)
    watching.state.raise_alert("budget", "The budget is reached", NOON)
    watching.state.raise_alert("sync", "refused: the remote does not take our key", NOON)
    watching.state.raise_alert("mailbox", "refused: the mailbox does not take the password", NOON)
    watching.state.raise_alert("held a/b.md", "a/b.md is not synced: it holds a key", NOON)
    watching.state.raise_alert("outage", "Claude's API has not answered for a while", NOON)
    assert so(watching) == {
        "alert drafting": "failure",
        "alert budget": "failure",
        "alert sync refused": "failure",
        "alert mailbox refused": "failure",
        "alert held a/b.md": "note",
        "alert outage": "outage",
    }
    assert said(watching).startswith("cloud: 6 faults\n")
    watching.state.raise_alert("sync", "offline: no route", NOON)
    assert so(watching)["alert sync offline"] == "outage"


def test_a_loop_over_a_mailbox_that_stopped_or_fails(watching: Desk) -> None:
    assert so(watching) == {}
    watching.clock.advance(minutes=61)
    beat(watching)
    beat(watching, "watch", result="later")
    assert so(watching) == {"failing watch": "failure"}
    watching.state.raise_alert("mailbox", "offline: imap:you@mail.example/INBOX: no route", NOON)
    assert so(watching) == {"alert mailbox offline": "outage"}, "the alert says why: once"
    assert "• Mail is not fetched: offline: imap:you@mail[.]example/INBOX: no route" in said(watching)
    watching.state.clear_alert("mailbox")
    beat(watching, "watch")
    watching.clock.advance(seconds=2 * 60 + 181)
    beat(watching)
    assert so(watching) == {"stopped watch": "stopped"}
    assert "• The mail watcher has stopped, no sign of life since 2026-02-16T13:01:00Z" in said(watching)


def test_a_mailbox_that_is_configured_no_more_is_no_matter(watching: Desk) -> None:
    watching.state.raise_alert("mailbox", "refused: the mailbox does not take the password", NOON)
    watching.clock.advance(hours=2)
    beat(watching)
    report = status.collect(watching.config, watching.clock())
    assert set(so(watching)) == {"stopped watch", "alert mailbox refused"}
    assert (report["healthy"], set(report["loops"]), len(report["alerts"])) == (False, {"draft", "sync", "watch"}, 1)
    watching.config = replace(watching.config, mailbox=None)
    report = status.collect(watching.config, watching.clock())
    assert so(watching) == {}
    assert (report["healthy"], set(report["loops"]), report["alerts"]) == (True, {"draft", "sync"}, [])
    assert "watch: " not in said(watching, digest=True)


def test_the_digest_and_status_show_the_watcher(watching: Desk) -> None:
    report = status.render(status.collect(watching.config, watching.clock()))
    assert " watch: alive, cycle 1, last ok" in report
    assert "\nwatch: alive" in said(watching, digest=True)


def test_a_loop_that_gives_no_sign_of_life(living: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    living.clock.advance(seconds=2 * 60 + 179)
    assert so(living) == {}
    living.clock.advance(seconds=2)
    assert so(living) == {"stopped sync": "stopped"}
    assert "• Sync has stopped, no sign of life since 2026-02-16T12:00:00Z: look at pm2 list" in said(living)
    monkeypatch.setattr(status, "is_loop_process", lambda pid, loop: False)
    assert so(living) == {"stopped sync": "stopped", "stopped draft": "stopped"}


def test_a_loop_that_fails_for_long(living: Desk) -> None:
    living.clock.advance(minutes=59)
    beat(living, result="later")
    assert so(living) == {}
    living.clock.advance(minutes=2)
    beat(living, "draft", result="later")
    beat(living, "sync", result="failed")
    assert so(living) == {"failing draft": "failure", "failing sync": "failure"}
    assert "• Drafting has not gone well since 2026-02-16T12:00:00Z" in said(living)
    living.state.raise_alert("sync", "offline: no route", NOON)
    assert so(living) == {"failing draft": "failure", "alert sync offline": "outage"}, "the alert says why: once"


def test_nobody_need_draft_on_the_owners_own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "is_loop_process", lambda pid, loop: True)
    desk = Desk(tmp_path, agent_name="local", alerts=Alerts({"a": "json://localhost"}))
    beat(desk, "sync")
    assert so(desk) == {}


@pytest.mark.parametrize(
    ("blocks", "free", "inodes", "inodes_free", "full"),
    [
        (10_000_000, 5_000_000, 1000, 500, False),
        (10_000_000, 400_000, 1000, 500, False),  # 4 %, but 1.5 GiB
        (2_000_000, 200_000, 1000, 500, False),  # less than 1 GiB, but a tenth
        (2_000_000, 90_000, 1000, 500, True),
        (2_000_000, 0, 1000, 500, True),
        (10_000_000, 5_000_000, 1000, 49, True),
        (10_000_000, 5_000_000, 0, 0, False),  # btrfs counts none
    ],
)
def test_a_disk_that_is_nearly_full(blocks: int, free: int, inodes: int, inodes_free: int, full: bool) -> None:
    disk: Any = SimpleNamespace(f_frsize=4096, f_blocks=blocks, f_bavail=free, f_files=inodes, f_favail=inodes_free)
    assert facts.is_nearly_full(disk) is full


def test_a_full_disk_is_told(living: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "is_nearly_full", lambda disk: True)
    assert list(so(living).values()) == ["failure"]
    assert "• The disk is nearly full" in said(living)


def test_the_digest_says_how_everything_is(living: Desk) -> None:
    living.put("x", subject="A question")
    living.run()
    text = said(living, digest=True)
    assert text.startswith("cloud (digest): 1 draft waits\n")
    assert "mail: 0 in the inbox, 1 draft waits for approval, 0 need a person" in text
    assert "draft: alive" in text and "spent: $" in text
    assert "• ann@example[.]org\n  A question\n" in text


def test_a_digest_of_nothing_is_a_sign_of_life(living: Desk) -> None:
    assert said(living, digest=True).startswith("cloud (digest): all is well\nhealthy\n")


def test_status_shows_the_channels_and_what_is_held(living: Desk) -> None:
    from cloud_agent.alerting import teller

    quiet = Alerts({"a": "json://s3cret"}, quiet=(time(0), time(23, 59)))
    living.config = replace(living.config, alerts=quiet)
    report = status.collect(living.config, living.clock())
    assert (report["healthy"], report["told"]["held"]) == (True, True)
    assert "  told: a, nothing yet" in status.render(report)
    kept = ledger.Ledger(channels={"a": ledger.Channel(first=2, failures=5, since=NOON, error="401", sent=NOON)})
    kept = ledger.observe(kept, {"draft x": "draft"}, quiet, NOON)
    teller._write(living.state, kept)
    report = status.collect(living.config, living.clock() + timedelta(minutes=1))
    assert report["healthy"] is False
    assert (
        "  told: a fails since 2026-02-16T12:00:00Z (5 times): 401; 1 to tell, held until the quiet time ends"
        in status.render(report)
    )
    assert "s3cret" not in str(report)


def test_a_look_loads_nothing_heavy() -> None:
    """The loops keep what they import."""
    code = (
        "import sys; import cloud_agent.alerting.teller, cloud_agent.alerting.settings;"
        "sys.exit(', '.join({'mcp', 'apprise', 'anthropic', 'requests', 'asyncio'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_mail_like_a_message_is_read_too(living: Desk) -> None:
    living.write(
        f"{NEEDS_ACTION}/EMAIL_m.md",
        "---\ndecision: review\nreason: why\n---\n\nFrom: Eve <eve@x.example>\nSubject: [URGENT] Hi\n\nText\n",
    )
    assert so(living) == {"person EMAIL_m.md": "urgent"}
    assert "• Eve (eve@x[.]example)\n  [URGENT] Hi\n  why" in said(living)
