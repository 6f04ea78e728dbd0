"""The installed command, as PM2 and a person run it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cloud_agent import cli
from cloud_agent.state import iso, utc_now
from cloud_agent.vault import PENDING

from tests.helpers import Desk, mail_text
from tests.standins import messages_api
from tests.standins.messages_api import MessagesAPI, error

SECRET = "s3cret-of-the-test"


@pytest.fixture
def api() -> Iterator[MessagesAPI]:
    with messages_api.running() as server:
        yield server


class Installed:
    """A desk with its settings file, and the command on it."""

    def __init__(self, command: list[str], root: Path, url: str) -> None:
        self.command = command
        self.root = root
        self.desk = Desk(root)
        self.env_file = root / ".env.cloud"
        self.settings = {
            "VAULT_PATH": str(self.desk.vault),
            "GIT_REMOTE_URL": str(root / "remote.git"),
            "CLAUDE_API_KEY": SECRET,
            "CLAUDE_BASE_URL": url,
            "DRAFT_INTERVAL_SECONDS": "300",
        }
        self.set()
        # nothing of the tests' own environment; a HOME without a git configuration
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(root)}

    def set(self, **changes: str) -> None:
        self.settings |= changes
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        self.env_file.chmod(0o600)

    def run(self, *arguments: str, env_file: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        where = ["--env-file", str(self.env_file)] if env_file else []
        ended = subprocess.run(
            [*self.command, *where, *arguments],
            env=self.environ | environ,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert SECRET not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return ended

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [*self.command, "--env-file", str(self.env_file), *arguments]
        return subprocess.Popen(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.root
        )


@pytest.fixture
def installed(command: list[str], tmp_path: Path, api: MessagesAPI) -> Installed:
    return Installed(command, tmp_path, api.url)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_check(installed: Installed) -> None:
    ended = installed.run("check")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "ready" in ended.stdout
    installed.env_file.chmod(0o644)
    ended = installed.run("check")
    assert ended.returncode == 0
    assert "chmod 600" in ended.stdout


def test_check_names_every_problem_and_no_value(installed: Installed) -> None:
    installed.set(GIT_REMOTE_URL="", SMTP_PASSWORD=SECRET, DRAFT_INTERVAL_SECONDS=SECRET)
    ended = installed.run("check", odoo_password=SECRET)
    assert ended.returncode == 78
    for name in ("GIT_REMOTE_URL", "SMTP_PASSWORD", "DRAFT_INTERVAL_SECONDS", "odoo_password"):
        assert f"problem: {name}" in ended.stdout
    assert "4 to mend" in ended.stdout


@pytest.mark.parametrize("arguments", [("draft",), ("draft", "--once"), ("sync",), ("sync", "--once"), ("status",)])
def test_no_loop_starts_when_check_fails(installed: Installed, arguments: tuple[str, ...]) -> None:
    installed.set(WHATSAPP_SESSION_PATH=SECRET)
    ended = installed.run(*arguments)
    assert ended.returncode == 78
    assert "WHATSAPP_SESSION_PATH" in ended.stderr


def test_env_file_before_and_after_the_command_and_by_default(installed: Installed) -> None:
    path = str(installed.env_file)
    assert installed.run("check", "--env-file", path, env_file=False).returncode == 0
    assert installed.run("--env-file", path, "check", env_file=False).returncode == 0
    assert installed.run("check", env_file=False).returncode == 0  # ./.env.cloud
    elsewhere = installed.root / "elsewhere"
    installed.env_file.rename(elsewhere)
    assert installed.run("check", env_file=False).returncode == 78
    assert installed.run("check", env_file=False, CLOUD_AGENT_ENV_FILE=str(elsewhere)).returncode == 0


def test_draft_once(installed: Installed, api: MessagesAPI) -> None:
    installed.desk.put("test_001")
    assert installed.run("draft", "--once").returncode == 0
    assert installed.desk.names(PENDING) == ["EMAIL_DRAFT_test_001.md"]
    beat = json.loads((installed.root / "state/draft.json").read_text())
    assert beat["result"] == "ok"
    assert {"pid", "cycle", "started", "finished", "result"} <= set(beat)
    assert "underway" not in beat
    assert beat["started"].endswith("Z")
    assert installed.run("draft", "--once").returncode == 0
    assert len(api.requests) == 1


def test_python_m(installed: Installed) -> None:
    installed.command = [sys.executable, "-m", "cloud_agent"]
    assert installed.run("draft", "--once").returncode == 0


def test_draft_once_later_and_refused(installed: Installed, api: MessagesAPI) -> None:
    installed.desk.put()
    api.behaviour = lambda request: error(413, "request_too_large", "too long")
    assert installed.run("draft", "--once").returncode == 75
    api.behaviour = lambda request: error(401, "authentication_error", "invalid x-api-key")
    ended = installed.run("draft", "--once")
    assert ended.returncode == 78
    assert "CLAUDE_API_KEY" in ended.stderr
    assert installed.desk.names("Inbox") == ["EMAIL_x.md"]


def test_what_is_wrong_goes_to_standard_error(installed: Installed, api: MessagesAPI) -> None:
    installed.desk.put()
    assert installed.run("draft", "--once").stderr == ""


def test_status(installed: Installed) -> None:
    ended = installed.run("status")
    assert ended.returncode == 1
    assert "NOT HEALTHY" in ended.stdout
    installed.desk.put()
    installed.run("draft", "--once")
    ended = installed.run("status", "--json")
    report = json.loads(ended.stdout)
    assert ended.returncode == 1  # no loop lives
    assert report["queues"] == {"inbox": 0, "in_progress": 1, "pending_approval": 1, "needs_action": 0}
    assert report["loops"]["draft"]["result"] == "ok"
    assert report["loops"]["draft"]["alive"] is False
    assert report["spent_today_usd"] > 0
    assert report["alerts"] == []
    assert report["audit"] == {"entries": 2, "fault": ""}
    for broken in ("{", "[]", '{"finished": 5, "pid": "x"}'):
        (installed.root / "state/draft.json").write_text(broken)
        assert installed.run("status").returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_loop_cleanly(installed: Installed, number: signal.Signals) -> None:
    installed.desk.put()
    process = installed.start("draft")
    try:
        wait_for((installed.root / "state/draft.json").exists)
        beat = {"pid": process.pid, "finished": iso(utc_now()), "result": "ok", "cycle": 1}
        (installed.root / "state/sync.json").write_text(json.dumps(beat))
        loops = json.loads(installed.run("status", "--json").stdout)["loops"]
        assert loops["draft"]["alive"] is True
        assert loops["sync"]["alive"] is False  # that process is another loop's
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "initialised" in out
    assert "started" in out
    assert "stopped cleanly" in out
    assert "Traceback" not in out


def test_a_signal_during_a_call_keeps_the_mail(installed: Installed, api: MessagesAPI) -> None:
    api.latency = 1.0
    installed.desk.put()
    process = installed.start("draft")
    try:
        wait_for(lambda: api.requests)
        process.terminate()
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    desk = installed.desk
    assert (desk.names("Inbox"), desk.names(PENDING)) in ((["EMAIL_x.md"], []), ([], ["EMAIL_DRAFT_x.md"]))


def test_what_arrives_and_what_is_decided_is_noticed_at_once(installed: Installed, api: MessagesAPI) -> None:
    """The interval is 300 s: nothing of this waits for it."""
    desk = installed.desk
    cycles = lambda: json.loads((installed.root / "state/draft.json").read_text())["cycle"]  # noqa: E731
    process = installed.start("draft")
    try:
        wait_for((installed.root / "state/draft.json").exists)
        desk.put("written")
        (installed.root / "beside").write_text(mail_text("renamed"))
        (installed.root / "beside").rename(desk.vault / "Inbox/EMAIL_renamed.md")
        with (desk.vault / "Inbox/EMAIL_slow.md").open("w") as file:
            file.write(mail_text("slow")[:40])
            file.flush()
            wait_for(lambda: len(desk.names(PENDING)) == 2)
            time.sleep(0.3)
            assert desk.names("Inbox") == ["EMAIL_slow.md"]
            file.write(mail_text("slow")[40:])
        wait_for(lambda: len(desk.names(PENDING)) == 3)
        api.latency = 0.5
        desk.put("before")
        wait_for(lambda: len(api.requests) == 4)
        desk.put("meanwhile")  # comes during a pass
        wait_for(lambda: len(desk.names(PENDING)) == 5)
        desk.move(f"{PENDING}/EMAIL_DRAFT_slow.md", "Rejected/new/folder/EMAIL_DRAFT_slow.md")
        wait_for(lambda: desk.names("Done/Email") == ["EMAIL_slow.md"])
        time.sleep(1)
        passes = cycles()
        time.sleep(2)
        assert cycles() == passes  # its own writing wakes it no more
        process.terminate()
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in out
    assert passes < 25
    assert len(api.requests) == 5


def test_the_loop_goes_on_after_a_failed_pass_and_a_beat_that_cannot_be_written(installed: Installed) -> None:
    installed.set(DRAFT_INTERVAL_SECONDS="1")
    (installed.root / "state/draft.json").mkdir()  # stands for a full disk
    process = installed.start("draft")
    try:
        assert process.stdout is not None
        # A loop that ends says no more, and this would find nothing.
        assert any("the beat cannot be written" in line for line in process.stdout)
        (installed.root / "state/draft.json").rmdir()
        wait_for((installed.root / "state/draft.json").is_file)
        process.terminate()
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0


def test_a_first_step_beats_before_it_is_answered(installed: Installed, api: MessagesAPI) -> None:
    """An upgrade looks for the beats of the new loops; Claude, or a remote out of reach, may take minutes."""
    api.latency = 60
    installed.desk.put("x")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        installed.set(GIT_REMOTE_URL=f"http://127.0.0.1:{silent.getsockname()[1]}/vault.git")
        loops = {name: installed.start(name) for name in ("draft", "sync")}
        try:
            for name, result in (("draft", "ok"), ("sync", "later")):
                path = installed.root / f"state/{name}.json"
                wait_for(path.exists)
                beat = json.loads(path.read_text())
                assert (beat["pid"], beat["cycle"], beat["result"]) == (loops[name].pid, 1, result)
                assert beat["underway"]
            assert not installed.desk.names(PENDING)
        finally:
            for process in loops.values():
                process.kill()


def test_long_steps_beat_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(cli.time, "monotonic", lambda: now[0])
    for at_once, expected in ((True, [0, 30, 60]), (False, [30, 60])):
        beats: list[float] = []
        beat = cli._now_and_then(beats.append, at_once=at_once)
        began = now[0]
        for _ in range(75):
            beat(now[0] - began)
            now[0] += 1
        assert beats == expected


def test_sync_now_without_a_loop(installed: Installed) -> None:
    for beat in ("", json.dumps({"pid": os.getpid()}), json.dumps({"pid": 2**22 + 1})):
        (installed.root / "state/sync.json").write_text(beat)
        ended = installed.run("sync", "--now")
        assert ended.returncode == 75
        assert "no sync loop is running" in ended.stdout


def test_sync_once(installed: Installed) -> None:
    assert installed.run("sync", "--once").returncode == 75  # there is no such remote yet
    subprocess.run(["git", "init", "--quiet", "--bare", str(installed.root / "remote.git")], check=True)
    assert installed.run("sync", "--once").returncode == 0


def test_usage_of_the_command(installed: Installed) -> None:
    assert installed.run("--version", env_file=False).returncode == 0
    assert installed.run("nonsense").returncode == 2
    ended = installed.run("--help", env_file=False)
    for word in ("check", "draft", "sync", "status"):
        assert word in ended.stdout
