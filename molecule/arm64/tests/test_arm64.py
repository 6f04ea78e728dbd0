"""Everything on the machine is arm64, as on Oracle's A1, and a mail is drafted there end to end."""

from __future__ import annotations

import time

from conftest import LOOPS, ROOT, Local, Machine, eventually

# In seconds. The emulation is about ten times slower than the machine it stands for.
PATIENCE = 600


def test_machine_is_arm64(machine: Machine) -> None:
    assert machine.run("uname -m") == "aarch64"
    assert machine.run("dpkg --print-architecture") == "arm64"
    # Not a claim of its own: what is installed is of no other kind.
    other = machine.run("dpkg-query --show --showformat='${Package} ${Architecture}\\n'").splitlines()
    assert {line.split()[1] for line in other} == {"all", "arm64"}


def test_programs_are_arm64(machine: Machine) -> None:
    assert machine.run("node -p process.arch") == "arm64"
    python = f"{machine.root}/current/venv/bin/python"
    assert machine.run(f"{python} -c 'import platform; print(platform.machine())'") == "aarch64"


def test_wheels_only(machine: Machine) -> None:
    for compiler in ("gcc", "cc", "g++", "make", "rustc", "cargo"):
        assert not machine.host.exists(compiler), compiler
    extensions = machine.run(f"find {machine.root}/current/venv/lib -name '*.so'").splitlines()
    assert extensions, "some of what the agent needs is compiled: it comes in wheels"
    # What has a tag for a platform is for this one.
    tags = machine.run(f"grep -h ^Tag: {machine.root}/current/venv/lib/python3.11/site-packages/*.dist-info/WHEEL")
    platforms = {tag.rpartition("-")[2] for tag in tags.splitlines()} - {"any"}
    assert platforms
    assert all(platform.endswith("_aarch64") for platform in platforms), platforms


def test_loops_stay_online(machine: Machine) -> None:
    eventually(machine.online, PATIENCE, "both loops online")
    before = machine.loops()
    time.sleep(30)
    after = machine.loops()
    for loop in LOOPS:
        assert after[loop]["pid"] == before[loop]["pid"], f"{loop} was restarted"


def test_mail_is_drafted_end_to_end(machine: Machine, local: Local) -> None:
    machine.write("Inbox/EMAIL_test_001.md", (ROOT / "tests" / "mails" / "EMAIL_test_001.md").read_bytes())
    draft = "Pending_Approval/Email/EMAIL_DRAFT_test_001.md"
    eventually(lambda: local.has(draft), PATIENCE, "the draft, pushed")
    text = (local.path / draft).read_text()
    assert "john.doe@example.com" in text
    assert "1 email draft" in local.git("log", "-1", "--format=%s", "--", draft)


def test_boot(machine: Machine) -> None:
    booted = "stat -c %Z /proc/1"  # the kernel is this host's
    before = machine.run(booted)
    machine.try_run("sudo reboot")
    eventually(lambda: before not in machine.try_run(booted)[1], PATIENCE, "the machine going down")
    eventually(machine.online, PATIENCE, "both loops online after a reboot")
    assert machine.run(booted) != before
