"""No mail is lost, whatever happens to the agent: one story, its events in their order, mails arriving all the while.

The last tests say what became of every mail and every commit, and for how long each loop was silent in each event.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import LAB, ROOT, Local, Machine, eventually

from tests.lab import beats
from tests.lab.feeder import Feeder, faults, ids_in
from tests.lab.host import run
from tests.lab.lab import copy_of_the_agent

UNIT = "pm2-cloud-agent.service"
# Calls that are in hand when the orchestrator is killed are paid for and forgotten: agent_draft_concurrency of them.
CALLS_IN_HAND = 4
INTO_THE_DRAFT_LOOP = re.compile(r"^def _draft\(.*:\n", re.MULTILINE)
BROKEN = {
    "crashes": '    raise RuntimeError("this release was broken on purpose")\n',
    "hangs": "    import time\n\n    time.sleep(3600)\n",
}


class Story:
    """The mails, the beats, and when what happened."""

    def __init__(self, machine: Machine, local: Local, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        self.feeder = Feeder(LAB, local)
        self.watch = beats.Watch(LAB)
        self.events: list[tuple[str, float, float]] = []
        # How often the orchestrator was ended without a chance to write down what it had paid for.
        self.kills = 0
        self.first = self.current()
        self.rows_before = rows(local)

    def current(self) -> str:
        """The name of the release that `current` points to."""
        return Path(self.machine.run(f"readlink {self.machine.root}/current").strip()).name

    @contextlib.contextmanager
    def event(self, name: str) -> Iterator[None]:
        """Something that happens, to the next beat of both loops after it."""
        began = time.time()
        print(f"\n{name} … ", end="", flush=True)
        yield
        done = time.time()
        eventually(lambda: self._last_beats() > done, 120, f"a beat of both loops after: {name}")
        # To the first beat after it and not beyond: what happens next is the next event's.
        self.events.append((name, began, self._last_beats()))
        print(f"{time.time() - began:.0f} s, {len(self.feeder.accepted)} mails so far", flush=True)

    def _last_beats(self) -> float:
        """When the loop that was silent for longer beat last; 0.0 while the machine does not answer."""
        files = " ".join(f"{self.machine.root}/state/{loop}.json" for loop in beats.LOOPS)
        status, output = self.machine.try_run(f"sudo stat --format=%.6Y {files}")
        return min(map(float, output.split())) if status == 0 else 0.0

    def release(self, version: str, fault: str = "") -> Path:
        """The agent's sources as another version, one with a fault perhaps."""
        source = copy_of_the_agent(self.folder / version / "agent")
        (source / "cloud_agent" / "__init__.py").write_text(f'__version__ = "{version}"\n')
        cli = source / "cloud_agent" / "cli.py"
        text, places = INTO_THE_DRAFT_LOOP.subn(lambda begin: begin[0] + fault, cli.read_text())
        assert places == 1
        cli.write_text(text)
        return source


def ansible(playbook: str, *variables: str) -> list[str]:
    """The command that runs a playbook with the settings that molecule.yml has."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), playbook, "--inventory=inventories/local"]
    settings = (f"lab_name={LAB.name}", "agent_draft_interval_seconds=1", "agent_sync_interval_seconds=1")
    return [*command, *(f"--extra-vars={variable}" for variable in (*settings, *variables))]


def environment() -> dict[str, str]:
    """That of an operator's terminal: what Molecule sets for Ansible is not there."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}


def play(playbook: str, *variables: str) -> subprocess.CompletedProcess[str]:
    command = ansible(playbook, *variables)
    return subprocess.run(
        command, cwd=ROOT / "ansible", env=environment(), capture_output=True, text=True, timeout=900, check=False
    )


def kill_when(moment: Callable[[], bool], source: Path, *variables: str) -> None:
    """Begin an upgrade, and kill the playbook at that moment."""
    command = ansible("deploy.yml", f"agent_source={source}", *variables)
    output = source.with_name("killed.log")
    with (
        output.open("w") as log,
        subprocess.Popen(command, cwd=ROOT / "ansible", env=environment(), stdout=log, start_new_session=True) as half,
    ):
        eventually(lambda: half.poll() is not None or moment(), 600, "the moment to kill the upgrade")
        assert half.poll() is None, f"the upgrade ended before it could be killed:\n{output.read_text()}"
        os.killpg(half.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def story(machine: Machine, local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    made = Story(machine, local, tmp_path_factory.mktemp("story"))
    made.watch.start()
    made.feeder.start()
    yield made
    made.watch.stop()


def test_nothing_happens(story: Story) -> None:
    with story.event("undisturbed"):
        time.sleep(10)


def test_upgrade(story: Story) -> None:
    source = story.release("90.1")
    with story.event("upgrade"):
        done = play("deploy.yml", f"agent_source={source}")
    assert done.returncode == 0, done.stdout
    assert story.current().startswith("90.1-")


@pytest.mark.parametrize("fault", BROKEN)
def test_failed_upgrade(story: Story, fault: str) -> None:
    before = story.current()
    source = story.release({"crashes": "90.2", "hangs": "90.3"}[fault], BROKEN[fault])
    with story.event(f"upgrade to code that {fault}"):
        done = play("deploy.yml", f"agent_source={source}", "agent_health_seconds=30")
    assert done.returncode != 0, done.stdout
    assert story.current() == before, done.stdout
    if fault == "crashes":
        assert "this release was broken on purpose" in done.stdout, "the logs of the failed release"


def test_rollback(story: Story) -> None:
    assert story.current() != story.first
    with story.event("rollback"):
        done = play("rollback.yml", f"release={story.first}")
    assert done.returncode == 0, done.stdout
    assert story.current() == story.first


def test_kill_of_both_loops(story: Story) -> None:
    with story.event("kill -9 of both loops"):
        pids = [str(app["pid"]) for app in story.machine.loops().values()]
        assert len(pids) == 2
        story.kills += 1
        story.machine.run(f"sudo kill -9 {' '.join(pids)}")


def test_kill_of_pm2(story: Story) -> None:
    with story.event("kill -9 of PM2's daemon"):
        story.kills += 1  # systemd kills what a dead daemon leaves
        story.machine.run(f"sudo kill -9 $(systemctl show --property=MainPID --value {UNIT})")


def test_restart_of_pm2(story: Story) -> None:
    with story.event("systemctl restart of PM2"):
        story.machine.run(f"sudo systemctl restart {UNIT}")


def test_upgrade_killed_while_it_builds(story: Story) -> None:
    before = story.current()
    source = story.release("90.4")
    with story.event("upgrade, killed while it builds"):
        kill_when(lambda: story.machine.try_run(f"ls -d {story.machine.root}/releases/90.4-*/venv")[0] == 0, source)
    refused = play("deploy.yml", f"agent_source={source}")
    assert refused.returncode != 0, refused.stdout
    assert "agent_break_lock" in refused.stdout
    assert story.current() == before


def test_upgrade_killed_while_it_switches(story: Story) -> None:
    """Of code that was in service before the rollback: it need not be built again."""
    before = story.current()
    source = story.folder / "90.1" / "agent"
    with story.event("upgrade, killed while it switches, and again"):
        kill_when(lambda: story.current() != before, source, "agent_break_lock=true")
        # What the dead playbook began on the machine goes on to its end, and nobody comes in between.
        for _ in range(10):
            done = play("deploy.yml", f"agent_source={source}", "agent_break_lock=true")
            if "still at work" not in done.stdout:
                break
            time.sleep(5)
    assert done.returncode == 0, done.stdout
    assert story.current().startswith("90.1-")


def test_reboot(story: Story) -> None:
    machine, release = story.machine, story.current()
    booted = "stat -c %Z /proc/1"
    before = machine.run(booted)
    with story.event("reboot"):
        machine.try_run("sudo reboot")
        eventually(lambda: before not in machine.try_run(booted)[1], 60, "the machine going down")
        eventually(machine.online, 120, "both loops online after a reboot")
    assert story.current() == release


def test_no_mail_was_lost(story: Story, tmp_path: Path) -> None:
    feeder = story.feeder
    feeder.stop()
    counts = Counter(email_id.split("-")[1] for email_id in feeder.accepted)
    print(f"\naccepted: {dict(counts)}; drafts decided: {feeder.decided}; handed over again: {feeder.refused}")
    assert min(counts["pushed"], counts["written"], feeder.decided) > 2, "too few to tell anything"

    def wrong() -> list[str]:
        feeder.local.pull()
        return faults(feeder.local.path, feeder.run, feeder.accepted)

    with contextlib.suppress(AssertionError):  # what is wrong is said below
        eventually(lambda: not wrong(), 60, "one draft for each mail")
    fresh = clone(feeder.local, tmp_path)
    assert faults(fresh, feeder.run, feeder.accepted) == []
    assert story.machine.run(f"find {story.machine.vault}/Inbox -name '*.md'") == ""


def test_no_call_was_paid_for_twice(story: Story, local: Local) -> None:
    port = LAB.ports.messages
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/requests", timeout=30) as answer:
        requests = json.load(answer)["requests"]
    calls = Counter(email_id for asked in requests for email_id in ids_in(json.dumps(asked), story.feeder.run))
    again = {email_id: count for email_id, count in calls.items() if count > 1}
    paid = rows(local) - story.rows_before
    print(f"\ncalls: {calls.total()} for {len(story.feeder.accepted)} mails; rows: {paid}; asked again: {again}")
    assert set(calls) == set(story.feeder.accepted)
    assert calls.total() - len(calls) <= CALLS_IN_HAND * story.kills, again
    # What was paid for is written down, but for what a kill came before.
    assert 0 <= calls.total() - paid <= CALLS_IN_HAND * story.kills


def test_every_commit_reached_the_remote(story: Story, local: Local, tmp_path: Path) -> None:
    machine = story.machine
    # Listed first: the loops go on, and what they commit from now on may still be on its way.
    commits = set(machine.run(f"git -C {machine.vault} log --reflog --format=%H --all").split())

    def missing() -> set[str]:
        local.git("fetch", "--quiet", "origin")
        return commits - set(local.git("rev-list", "origin/main").split())

    with contextlib.suppress(AssertionError):  # which ones is said below
        eventually(lambda: not missing(), 30, "every commit on the remote")
    assert missing() == set()
    print(f"\ncommits that the machine ever had, all on the remote: {len(commits)}")
    assert len(commits) > len(story.feeder.accepted) / 10
    as_agent = f"sudo -u cloud-agent git -C {machine.vault}"
    eventually(lambda: machine.try_run(f"{as_agent} status --porcelain") == (0, ""), 30, "nothing uncommitted")
    status, output = machine.try_run(f"{as_agent} fsck --full")
    assert (status, [line for line in output.splitlines() if not line.startswith("dangling ")]) == (0, [])
    run(["git", "-C", clone(local, tmp_path), "fsck", "--full", "--strict"])


def test_every_loop_came_back(story: Story) -> None:
    seen = story.watch.beats()
    print("\n\n| event | lasted | longest gap: " + " | ".join(beats.LOOPS.values()) + " | from the old to the new | |")
    print("| --- |" + " ---: |" * 5)
    gaps = []
    for name, began, ended in story.events:
        row = [
            measure(seen, loop, began, ended) for measure in (beats.longest_gap, beats.downtime) for loop in beats.LOOPS
        ]
        print(f"| {name} | {ended - began:.0f} s | " + " | ".join(f"{gap:.1f} s" for gap in row) + " |")
        gaps += row
    assert max(gaps) < float("inf")


def rows(local: Local) -> int:
    """How many calls the usage tables of a clone have."""
    return sum(path.read_text().count("| email_draft |") for path in (local.path / "Logs" / "API_Usage").glob("*.md"))


def clone(local: Local, folder: Path) -> Path:
    """A fresh clone of the remote."""
    ssh, url = (local.git("config", name).strip() for name in ("core.sshCommand", "remote.origin.url"))
    run(["git", "clone", "--quiet", "--config", f"core.sshCommand={ssh}", url, folder / "fresh"])
    return folder / "fresh"
