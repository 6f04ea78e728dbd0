"""Alerts by the installed command: the process that sends, and the loops that start it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cloud_agent.alerting import ledger, teller
from cloud_agent.alerting.settings import Alerts
from cloud_agent.state import State

from tests.gitkit import PLAIN, World
from tests.helpers import mail_text
from tests.integration.test_alert_channels import NUMBER, SECRET, Loopback, Server, lives, loopback, server, wait_for

__all__ = ["loopback", "server"]  # fixtures


class Machine:
    """Cloud's side of a world, with alerts by HTTP (and by MCP)."""

    def __init__(self, world: World, loopback: Loopback) -> None:
        self.side = world.cloud
        self.state = State(self.side.home / "state")
        self.set(ALERT_URLS=f"json://{loopback.host}/{SECRET}", SYNC_INTERVAL_SECONDS="1", DRAFT_INTERVAL_SECONDS="1")

    def set(self, **values: str) -> None:
        with self.side.env_file.open("a") as file:
            file.writelines(f"{name}='{value}'\n" for name, value in values.items())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.side.command(*arguments), cwd=self.side.home, env=PLAIN, capture_output=True, text=True, timeout=120
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.side.command(*arguments),
            cwd=self.side.home,
            env=PLAIN,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def draft(self, name: str, subject: str = "[URGENT] Rent") -> None:
        self.side.write(f"Pending_Approval/Email/EMAIL_DRAFT_{name}.md", mail_text(name, subject=subject, to="a@x.org"))

    def watch_a_maildir(self) -> None:
        for name in ("tmp", "new", "cur"):
            (self.side.home / "Maildir" / name).mkdir(parents=True)
        self.set(MAILDIR_PATH=str(self.side.home / "Maildir"), WATCH_INTERVAL_SECONDS="1")

    def kept(self) -> ledger.Ledger:
        return teller.read(self.state)

    def known(self, *names: str, causes: dict[str, ledger.Told] | None = None) -> None:
        """As if these channels had had their first message."""
        moment = datetime.now(UTC) - timedelta(hours=1)
        channels = {name: ledger.Channel(first=2, sent=moment) for name in names}
        self.state.folder.mkdir(exist_ok=True)
        teller._write(self.state, ledger.Ledger(causes or {}, channels))


@pytest.fixture
def machine(world: World, loopback: Loopback) -> Machine:
    return Machine(world, loopback)


@contextlib.contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def channel(machine: Machine) -> str:
    (line,) = [line for line in machine.side.env_file.read_text().splitlines() if line.startswith("ALERT_URLS")]
    from cloud_agent.alerting.settings import channel_name

    return channel_name(line.partition("'")[2].rstrip("'"))


def test_a_test_message_on_each_channel(machine: Machine, server: Server, loopback: Loopback) -> None:
    machine.set(ALERT_MCP_COMMAND=" ".join(server.command()), WHATSAPP_NOTIFICATION_NUMBER="+49 170 1234567")
    done = machine.run("alert", "--test")
    assert (done.returncode, done.stdout) == (0, f"whatsapp: sent\n{channel(machine)}: sent\n")
    assert [to for to, _ in server.calls()] == [NUMBER]
    assert loopback.got[0]["title"] == "cloud: a test"
    loopback.status = 500
    done = machine.run("alert", "--test")
    assert done.returncode == 75
    assert f"{channel(machine)}: NOT SENT: " in done.stdout and "500" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_without_a_channel_it_says_how_to_set_one(world: World) -> None:
    done = world.cloud.run("alert")
    assert done.returncode == 78
    assert "set ALERT_URLS or ALERT_MCP_" in done.stderr


def test_check_says_what_is_wrong_and_no_value(machine: Machine) -> None:
    assert machine.run("check").returncode == 0
    machine.set(ALERT_URLS=f"tgram://{SECRET}/")
    done = machine.run("check")
    assert done.returncode == 78
    assert "ALERT_URLS, entry 1: is no URL that Apprise understands" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_check_warns_of_what_could_send(machine: Machine, server: Server) -> None:
    machine.set(IMAP_HOST="mail.example.org", IMAP_USER="you", IMAP_PASSWORD=SECRET)
    machine.set(ALERT_MCP_COMMAND=" ".join(server.command()), WHATSAPP_NOTIFICATION_NUMBER=NUMBER)
    done = machine.run("check")
    warned = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert done.returncode == 0
    for name in ("IMAP_PASSWORD can also send", "ALERT_MCP_COMMAND runs a server on this machine"):
        assert len([line for line in warned if name in line]) == 1, done.stdout
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("sync", "draft", "Drafting has stopped"),
        ("draft", "sync", "Sync has stopped"),
        ("watch", "sync", "Sync has stopped"),
        ("sync", "watch", "The mail watcher has stopped"),
    ],
)
def test_each_loop_tells_of_a_draft_and_that_the_other_has_stopped(
    machine: Machine, loopback: Loopback, name: str, other: str, said: str
) -> None:
    if "watch" in (name, other):
        machine.watch_a_maildir()
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    machine.known(channel(machine), causes={f"stopped {other}": ledger.Told("stopped", hour_ago)})
    machine.draft("x")
    with running(machine.start(name)) as loop:
        wait_for(lambda: len(loopback.got) == 1)
        assert loopback.got[0]["title"] == "cloud: URGENT, a fault, 1 draft waits"
        assert f"{said}, it has not run yet" in loopback.got[0]["message"]
        assert "[URGENT] Rent" in loopback.got[0]["message"]
        wait_for(lambda: "draft EMAIL_DRAFT_x.md" not in ledger.untold(machine.kept(), channel(machine)))
        loop.send_signal(signal.SIGINT)
        logged = loop.communicate(timeout=30)[0]
    assert len(loopback.got) == 1
    assert "told json-" in logged and SECRET not in logged and "Rent" not in logged
    status = machine.run("status")
    assert f"  told: {channel(machine)}, last 20" in status.stdout and SECRET not in status.stdout


def test_ten_at_once_send_one_message(machine: Machine, loopback: Loopback) -> None:
    machine.known(channel(machine))
    machine.draft("x")
    senders = [machine.start("alert") for _ in range(10)]
    for sender in senders:
        sender.communicate(timeout=120)
    assert len(loopback.got) == 1
    machine.run("alert")
    assert len(loopback.got) == 1


def test_a_broken_channel_holds_up_nobody_and_is_visible(machine: Machine, server: Server, loopback: Loopback) -> None:
    machine.set(ALERT_MCP_COMMAND=" ".join(server.command("error")), WHATSAPP_NOTIFICATION_NUMBER=NUMBER)
    machine.known("whatsapp", channel(machine))
    machine.draft("x")
    assert machine.run("alert").returncode == 75
    assert [one["title"] for one in loopback.got] == ["cloud: URGENT, 1 draft waits"]
    status = machine.run("status").stdout
    assert "  told: whatsapp fails since " in status and "not logged in" in status and "; 3 to tell" in status
    assert machine.run("alert").returncode == 0, "it is not tried again at once"
    assert len(server.calls()) == 1


@pytest.mark.parametrize("options", [(), ("--test",)])
def test_what_a_server_leaves_behind_is_ended(machine: Machine, server: Server, options: tuple[str, ...]) -> None:
    machine.set(ALERT_URLS="", ALERT_MCP_COMMAND=" ".join(server.command("deaf")), WHATSAPP_NOTIFICATION_NUMBER=NUMBER)
    machine.known("whatsapp")
    machine.draft("x")
    assert machine.run("alert", *options).returncode == 0
    started = server.noted()[0]
    assert len(server.calls()) == 1
    assert server.noted()[1]["memory"] == resource.getrlimit(resource.RLIMIT_DATA)[0], "ours is not its own"
    wait_for(lambda: not lives(started["pid"]) and not lives(started["child"]), 5)


def test_an_answer_without_end_does_not_take_the_machines_memory(machine: Machine, loopback: Loopback) -> None:
    loopback.endless = True
    machine.known(channel(machine))
    machine.draft("x")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert machine.run("alert").returncode == 75
    assert machine.kept().channels[channel(machine)].failures == 1
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < max(before, 450_000)


def test_a_kill_repeats_a_message_once_at_most(machine: Machine, server: Server) -> None:
    machine.set(ALERT_URLS="", ALERT_MCP_COMMAND=" ".join(server.command("slow")), WHATSAPP_NOTIFICATION_NUMBER=NUMBER)
    machine.known("whatsapp")
    machine.draft("x")
    for number in (1, 2, 3):
        with running(machine.start("alert")):
            if number < 3:
                wait_for(lambda number=number: len(server.calls()) == number)
        told = machine.kept().causes["draft EMAIL_DRAFT_x.md"].told
        assert told == {"whatsapp": min(number, 2)}
        over = {**ledger.dump(machine.kept()), "channels": {}}
        kept = ledger.load(over)
        machine.known("whatsapp", causes=dict(kept.causes))  # the pause is over
    assert len(server.calls()) == 2
    wait_for(lambda: not any(lives(one["pid"]) for one in server.noted()), 5)


def test_a_sender_that_hangs_is_ended_by_its_loop(machine: Machine, tmp_path: Path) -> None:
    from cloud_agent import config

    machine.known(channel(machine))
    machine.draft("x")
    settings = config.load(machine.side.env_file, PLAIN)
    passed = 0.0
    note = tmp_path / "child"
    hang = ["sh", "-c", f"sleep 3600 & echo $! > {note}; wait"]
    looking = teller.Teller(settings, machine.state, lambda: datetime.now(UTC), hang, lambda: passed)
    began = time.monotonic()
    looking.look()
    sender = looking.sender
    assert sender is not None
    wait_for(note.exists)
    wait_for(note.read_text)
    passed = 2 * teller.LONGEST_SECONDS - 1
    looking.look()
    assert sender.poll() is None and looking.sender is sender
    looking.command = ["true"]
    passed += 2
    looking.look()
    assert time.monotonic() - began < 10
    assert sender.poll() is not None
    wait_for(lambda: not lives(int(note.read_text())), 5)


def test_a_look_never_raises_and_never_waits(machine: Machine) -> None:
    from cloud_agent import config
    from cloud_agent.vault import lock

    settings = config.load(machine.side.env_file, PLAIN)
    machine.draft("x")

    def command(*words: str) -> teller.Teller:
        return teller.Teller(settings, machine.state, lambda: datetime.now(UTC), words)

    command("/nowhere/cloud-agent").look()
    with lock(machine.state.folder / "told.lock"):  # somebody has it, and was stopped
        began = time.monotonic()
        command("/bin/false").look()
        assert time.monotonic() - began < 1
    (machine.state.folder / "told.json").unlink()
    (machine.state.folder / "told.json").mkdir()
    marker = machine.state.folder / "started"
    command("touch", str(marker)).look()
    time.sleep(0.5)
    assert not marker.exists(), "what cannot be written down is not sent"


def test_no_credential_of_a_channel_or_a_mailbox_is_committed(machine: Machine, world: World) -> None:
    machine.side.write("note.md", f"json://{Alerts}")
    url = machine.side.env_file.read_text().split("ALERT_URLS='")[1].split("'")[0]
    machine.set(IMAP_HOST="mail.example.org", IMAP_USER="you", IMAP_PASSWORD="of-my-mailbox-1")
    machine.side.write("leak.md", f"I am told by {url}\n")
    machine.side.write("leak2.md", "The password is of-my-mailbox-1.\n")
    machine.run("sync", "--once")
    assert {"note.md", "leak.md", "leak2.md"} & set(world.remote_files()) == {"note.md"}


def test_the_agents_ledger_is_json_of_its_own(machine: Machine) -> None:
    machine.draft("x")
    machine.run("alert")
    kept: dict[str, Any] = json.loads((machine.state.folder / "told.json").read_text())
    assert set(kept) == {"causes", "channels"}
    assert SECRET not in json.dumps(kept)
    assert os.path.exists(machine.state.folder / "told.lock")
