"""What `status` says of the money and of the record, and when it calls the agent healthy."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from cloud_agent import dashboard, status
from cloud_agent.journal import Journal
from cloud_agent.kept import Keep, keep
from cloud_agent.vault import lock

from tests.helpers import NOON, Desk

AUDIT = "Logs/Cloud/audit-2026-02.jsonl"
ROW = "| 10:00:00 | cloud | claude-x | 1000 | 200 | {} | email_draft |\n"


@pytest.fixture
def living(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Both loops live, and two records lie in the audit log."""
    monkeypatch.setattr(status, "is_loop_process", lambda pid, loop: True)
    for loop in ("draft", "sync"):
        desk.state.beat(loop, 1, NOON, NOON, "ok")
    journal = Journal(desk.orchestrator.vault, "cloud", "audit", desk.clock, desk.state)
    journal.record("mail_claimed", "x")
    journal.record("mail_moved", "x")
    return desk


def report(desk: Desk) -> dict[str, Any]:
    return status.collect(desk.config, desk.clock())


def spend(desk: Desk, day: str, *costs: str) -> None:
    desk.write(f"Logs/API_Usage/{day}.md", "| Time |\n| --- |\n" + "".join(map(ROW.format, costs)))


def test_a_sound_record_is_healthy(living: Desk) -> None:
    found = report(living)
    assert (found["healthy"], found["audit"]) == (True, {"entries": 2, "fault": ""})
    assert " audit: the chain holds (2 records)" in status.render(found)


def test_a_broken_chain_is_unhealthy_and_says_what_to_do(living: Desk) -> None:
    living.write(AUDIT, living.read(AUDIT).replace('"mail_claimed"', '"mail_dropped"'))
    found = report(living)
    assert found["healthy"] is False
    text = status.render(found)
    assert "NOT HEALTHY" in text
    assert f" audit: {AUDIT}: line 1 was changed after it was written" in text
    assert "docs/audit.md" in text


def test_a_log_that_sync_is_rewriting_is_read_again(living: Desk) -> None:
    """What seems broken is looked at under the lock that orders the writes."""
    whole = living.read(AUDIT)
    held = threading.Event()

    def rewrite() -> None:
        with lock(living.state.tree_lock):
            living.write(AUDIT, whole[:100])
            held.set()
            time.sleep(0.1)
            living.write(AUDIT, whole)

    thread = threading.Thread(target=rewrite)
    thread.start()
    held.wait()
    found = report(living)
    thread.join()
    assert (found["healthy"], found["audit"]["fault"]) == (True, "")


def test_spend_without_budgets(living: Desk) -> None:
    spend(living, "2026-02-16", "$0.031200", "$0.001000")
    found = report(living)
    assert found["spent_today_usd"] == 0.0322
    assert [found[name] for name in ("budget_usd_per_day", "left_today_usd", "budget_usd_per_week")] == [None] * 3
    assert (found["unpriced_calls_today"], found["unpriced_calls_this_week"]) == (0, 0)
    assert " spent: $0.0322 today, $0.0322 this week\n" in status.render(found)


def test_spend_with_budgets_and_calls_of_unknown_cost(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, budget_usd_per_day=2.0, budget_usd_per_week=0.5)
    desk.clock.advance(days=1)  # Tuesday
    spend(desk, "2026-02-15", "$9.0", "unknown")  # Sunday: another week
    spend(desk, "2026-02-16", "$0.50", "unpriced")
    spend(desk, "2026-02-17", "$0.25", "unknown", "unpriced")
    found = report(desk)
    assert (found["spent_today_usd"], found["left_today_usd"], found["budget_usd_per_day"]) == (0.25, 1.75, 2.0)
    assert (found["spent_this_week_usd"], found["left_this_week_usd"]) == (0.75, -0.25)
    assert (found["unpriced_calls_today"], found["unpriced_calls_this_week"]) == (2, 3)
    assert (
        " spent: $0.2500 today ($1.7500 left of $2.00 a day), $0.7500 this week ($0.0000 left of $0.50 a week); "
        "and 3 calls of unknown cost this week, see Logs/API_Usage/\n"
    ) in status.render(found)


def test_what_is_left_is_what_the_draft_loop_may_spend(tmp_path: Any) -> None:
    """A call of unknown outcome is no known cost, and a budget counts it at its worst."""
    desk = Desk(tmp_path, budget_usd_per_day=2.0)
    spend(desk, "2026-02-16", "$0.50", "unknown, at most $0.75")
    found = report(desk)
    assert (found["spent_today_usd"], found["left_today_usd"]) == (0.5, 0.75)
    assert desk.orchestrator._budget_left() == 0.75


def test_the_dashboard_is_written_when_the_numbers_change(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    vault = desk.orchestrator.vault
    real = type(vault).replace
    monkeypatch.setattr(
        type(vault), "replace", lambda self, path, content: (written.append(path), real(self, path, content))[1]
    )
    journal = Journal(vault, "cloud", "audit", desk.clock)
    for _ in range(3):
        journal.spend(dashboard.spend_line("cloud", desk.clock().date(), 0.0312, 0.41, day_budget=2.0))
    assert len(written) == 1
    desk.clock.now += timedelta(days=1)
    for _ in range(3):
        journal.spend(dashboard.spend_line("cloud", desk.clock().date(), 0.0, 0.41, unpriced=1, day_budget=2.0))
    assert len(written) == 2
    journal.tell("told")
    assert desk.read("Dashboard.md").split("## Updates\n\n")[1] == (
        "Claude: $0.00 today, $0.41 this week (cloud, 2026-02-17); budget $2.00 a day; 1 call of unknown cost\n"
        "- 2026-02-17T12:00:00Z told\n"
    )


def test_a_dashboard_that_is_no_file_holds_nothing_up(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    (desk.vault / "Dashboard.md").unlink()
    (desk.vault / "Dashboard.md").mkdir()
    Journal(desk.orchestrator.vault, "cloud", "audit", desk.clock).spend("Claude: $1.00 today")
    assert "make it a file again" in caplog.text


def test_what_is_kept_of_whole_messages(tmp_path: Any) -> None:
    desk = Desk(tmp_path, keep=Keep(tmp_path / "mails", 2_000_000))
    assert "  kept: 0 whole messages, 0.0 of 2 MB" in status.render(report(desk))
    keep(desk.config.keep, "2026-02-16-0123456789abcdef", b"x" * 700_000)
    assert f"  kept: 1 whole message, 0.7 of 2 MB, in {tmp_path}/mails" in status.render(report(desk))
    assert report(desk)["kept"]["bytes"] == 700_000


def test_status_needs_no_sdk() -> None:
    """It is typed by a person who waits."""
    code = "import sys; import cloud_agent.status; sys.exit('anthropic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
