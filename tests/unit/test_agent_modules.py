"""The modules of the role `agent`, with a PM2 of a few lines whose loops do what a test says."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from tests import ansible_module

agent_info, agent_release = (ansible_module.load("agent", name) for name in ("agent_info", "agent_release"))

from ansible.module_utils.agent_machine import Machine, PM2Error  # noqa: E402

LOOPS = {"cloud_orchestrator": "draft", "git_sync_cloud": "sync"}
KNOWN = {**LOOPS, "mail_watcher": "watch"}  # what the role knows of; the file of PM2 has the first two
ECOSYSTEM = (
    'env: {"CLOUD_AGENT_DEPLOYMENT": "%s.12345678"}, proxy: "http://me:hidden-word@proxy"\n'
    'apps: [loop("cloud_orchestrator"), loop("git_sync_cloud")]\n'
)
WATCHING = ECOSYSTEM.replace('")]', '"), loop("mail_watcher")]')


class FakePM2(Machine):
    """PM2 and the loops: `life` is what the loops of a release do until the next look, by release."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root), "pm2")
        self.table: dict[str, dict[str, Any]] = {}
        self.saved: list[str] = []
        self.life: dict[str, Callable[[FakePM2, int], None]] = {}
        self.pid = 2**22
        self.looks = 0
        self.alive = ""  # the release whose loops run
        self.run("pm2-logrotate", pmx_module=True)

    def run(self, name: str, **env: Any) -> None:
        self.pid += 1
        log = str(self.root / f"{name}-error.log")
        known = {"status": "online", "restart_time": 0, "pm_uptime": time.time() * 1000, "pm_err_log_path": log}
        self.table[name] = {"name": name, "pid": self.pid, "pm2_env": known | env}

    def set(self, name: str, **env: Any) -> None:
        self.table[name]["pm2_env"].update(env)

    def beats(self, result: str = "ok", message: str = "", loops: dict[str, str] = LOOPS, **more: Any) -> None:
        for loop, beat in loops.items():
            text = json.dumps({"pid": self.table[loop]["pid"], "result": result, "message": message, **more})
            (self.root / f"state/{beat}.json").write_text(text)

    def pm2(self, *arguments: str) -> str:
        command = arguments[0]
        if command == "jlist":
            self.looks += 1
            if self.alive:
                self.life[self.alive](self, self.looks)
            return "PM2 has something to say\n" + json.dumps(list(self.table.values()))
        if command == "delete":
            for name in arguments[1:]:
                assert name in self.table, "PM2 refuses to delete what it does not know"
                self.table = {key: one for key, one in self.table.items() if one["name"] != name}
            self.alive = self.alive if set(LOOPS) & set(self.table) else ""
        elif command == "startOrReload":
            self.looks = 0
            text = Path(arguments[1]).read_text()
            stamp = agent_release.STAMP.search(text)[2]
            for name in re.findall(r'loop\("(\w+)"\)', text):
                self.run(name, CLOUD_AGENT_DEPLOYMENT=stamp)
            self.alive = self.pointed("current")
        elif command == "save":
            self.saved = sorted(self.table)
        else:
            raise PM2Error(command)
        return ""

    def release(self, name: str, agent: str = "exit 0", built: float = 0) -> None:
        """Build one, with a command `cloud-agent` that is this line of a shell."""
        bin_folder = self.folder(name) / "venv/bin"
        bin_folder.mkdir(parents=True)
        (self.folder(name) / "venv/lib").mkdir()
        (bin_folder / "cloud-agent").write_text(f"#!/bin/sh\n{agent}\n")
        (bin_folder / "cloud-agent").chmod(0o755)
        (self.folder(name) / ".complete").write_text("{}")
        if built:
            os.utime(self.folder(name) / ".complete", (built, built))

    def text(self, name: str) -> str:
        return (self.root / name).read_text()

    def told(self) -> list[tuple[str, str, str]]:
        lines = [json.loads(line) for line in self.text("deploy.log").splitlines()]
        assert all(line["who"] == "me@here" and line["time"].endswith("Z") for line in lines)
        return [(line["event"], line["release"], line["previous"]) for line in lines]


class Killed(BaseException):
    """The end of a process, which nothing handles."""


def healthy(machine: FakePM2, looks: int) -> None:
    machine.beats()


def service(machine: FakePM2, release: str, **options: Any) -> Any:
    given = {
        "release": release,
        "user": "nobody",
        "home": "/nonexistent",
        "settings": f"CLAUDE_API_KEY='key-for-{release}'\n",
        "ecosystem": ECOSYSTEM % release,
        "loops": KNOWN,
        "who": "me@here",
        "keep": 3,
        "min_uptime": 0.02,
        "health_seconds": 0.2,
    }
    return agent_release.Service(machine, given | options, sleep=lambda _: time.sleep(0.01))


@pytest.fixture(autouse=True)
def as_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files belong to whoever runs the tests, root or not."""
    monkeypatch.setattr(agent_release.os, "geteuid", lambda: 1000)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FakePM2]:
    """With release `one` in service, put there by the same way."""
    (tmp_path / "releases").mkdir()
    found = FakePM2(tmp_path)
    found.release("one", built=1000.0)
    found.life |= {"one": healthy, "two": healthy}
    service(found, "one").run()
    found.release("two", built=1001.0)
    yield found


def as_before(machine: FakePM2) -> None:
    """Release `one` runs, with its own files, and nothing is left over."""
    assert (machine.pointed("current"), machine.pointed("previous")) == ("one", "")
    assert machine.text(".env.cloud") == "CLAUDE_API_KEY='key-for-one'\n"
    assert machine.text("ecosystem.config.js") == ECOSYSTEM % "one"
    assert {loop: machine.table[loop]["pm2_env"]["CLOUD_AGENT_DEPLOYMENT"] for loop in LOOPS} == dict.fromkeys(
        LOOPS, "one.12345678"
    )
    assert not [path.name for path in machine.root.iterdir() if path.name.endswith((".new", ".part", ".before"))]


def test_a_first_release(machine: FakePM2) -> None:
    as_before(machine)
    assert machine.saved == ["cloud_orchestrator", "git_sync_cloud", "pm2-logrotate"]
    assert machine.told() == [("deployed", "one", "")]
    assert [one["good"] for one in machine.releases()] == [True, False]
    modes = {name: (machine.root / name).stat().st_mode & 0o777 for name in (".env.cloud", "deploy.log", "state")}
    assert modes == {".env.cloud": 0o600, "deploy.log": 0o640, "state": 0o750}


def test_another_release(machine: FakePM2) -> None:
    machine.run("of_an_older_version")
    assert service(machine, "two").run()["previous"] == "one"
    assert (machine.pointed("current"), machine.pointed("previous")) == ("two", "one")
    assert machine.text(".env.cloud") == "CLAUDE_API_KEY='key-for-two'\n"
    assert sorted(machine.table) == machine.saved == ["cloud_orchestrator", "git_sync_cloud", "pm2-logrotate"]
    assert machine.told()[-1] == ("deployed", "two", "one")


def test_a_loop_that_is_there_twice(machine: FakePM2) -> None:
    machine.table["started by hand"] = {**machine.table["git_sync_cloud"], "pid": 1}
    service(machine, "one").run()
    assert [one["name"] for one in machine.processes()].count("git_sync_cloud") == 1


def test_settings_that_the_release_refuses(machine: FakePM2) -> None:
    machine.release("picky", "echo 'warning: no'; echo 'problem: GIT_REMOTE_URL is not set'; exit 78")
    pids = {loop: machine.table[loop]["pid"] for loop in LOOPS}
    with pytest.raises(agent_release.Refused) as refused:
        service(machine, "picky").run()
    told = str(refused.value).splitlines()
    assert told[:2] == ["it does not agree with its settings:", "problem: GIT_REMOTE_URL is not set"]
    assert told[2:] == ["Mend: correct the variables that set this (docs/variables.md), then run this again."]
    as_before(machine)
    assert {loop: machine.table[loop]["pid"] for loop in LOOPS} == pids
    assert machine.told()[-1] == ("refused", "picky", "one")


def test_a_pm2_that_does_not_answer(machine: FakePM2) -> None:
    answers, machine.pm2 = machine.pm2, Machine(str(machine.root), "/no/pm2").pm2  # type: ignore[method-assign]
    with pytest.raises(agent_release.Refused, match="/no/pm2"):
        service(machine, "two").run()
    as_before(machine)
    machine.pm2 = answers  # type: ignore[method-assign]
    service(machine, "two").remember()
    machine.pm2 = Machine(str(machine.root), "/no/pm2").pm2  # type: ignore[method-assign]
    with pytest.raises(agent_release.Refused, match="/no/pm2"):
        service(machine, "two").run()
    assert machine.pointed("current") == "one"


def test_two_at_once(machine: FakePM2) -> None:
    with (
        service(machine, "two").alone(),
        pytest.raises(agent_release.Refused, match="an earlier run, whose controller is gone, is still at work") as two,
    ):
        service(machine, "two").run()
    assert str(two.value).endswith("\nMend: wait, then run this again.")  # no word of settings: they are not at fault
    as_before(machine)
    service(machine, "two").run()


def stays_stopped(machine: FakePM2, looks: int) -> None:
    machine.set("git_sync_cloud", status="stopped", exit_code=78)


def waits_to_restart(machine: FakePM2, looks: int) -> None:
    machine.beats()
    machine.set("cloud_orchestrator", status="waiting restart", restart_time=3)


def dies_between_the_looks(machine: FakePM2, looks: int) -> None:
    machine.beats()
    if looks == 4:
        machine.run("cloud_orchestrator", restart_time=1, exit_code=1)


def restarts_unseen(machine: FakePM2, looks: int) -> None:
    machine.beats()
    machine.set("git_sync_cloud", restart_time=looks)


def hangs(machine: FakePM2, looks: int) -> None:
    machine.beats(loops={"git_sync_cloud": "sync"})


def fails(machine: FakePM2, looks: int) -> None:
    machine.beats("failed", "Claude refuses the key")


def fails_in_its_first_step(machine: FakePM2, looks: int) -> None:
    if time.time() * 1000 < machine.table["git_sync_cloud"]["pm2_env"]["pm_uptime"] + 70:  # the second look is after 40
        machine.beats(underway=True)
    else:
        machine.beats("failed", "no such table")


def vanishes(machine: FakePM2, looks: int) -> None:
    if looks < 3:
        machine.beats()
    else:
        machine.table.pop("git_sync_cloud", None)


def test_a_first_step_that_lasts_is_no_fault(machine: FakePM2) -> None:
    machine.life["two"] = lambda machine, looks: machine.beats(underway=True)
    service(machine, "two").run()
    assert machine.pointed("current") == "two"


@pytest.mark.parametrize(
    ("life", "reason"),
    [
        (stays_stopped, "git_sync_cloud is stopped with exit code 78, it refuses its settings"),
        (waits_to_restart, "cloud_orchestrator is waiting restart, after 3 restarts"),
        (dies_between_the_looks, "cloud_orchestrator does not stay up: it was restarted with exit code 1"),
        (restarts_unseen, "git_sync_cloud does not stay up"),
        (hangs, "cloud_orchestrator gave no sign of life within 0.2 s"),
        (fails, "cloud_orchestrator runs and says: Claude refuses the key"),
        (fails_in_its_first_step, "cloud_orchestrator runs and says: no such table"),
        (vanishes, "PM2 does not know git_sync_cloud"),
    ],
)
def test_a_release_that_does_not_live_is_put_back(
    machine: FakePM2, life: Callable[[FakePM2, int], None], reason: str
) -> None:
    log = machine.root / "cloud_orchestrator-error.log"
    log.write_text("of yesterday\n")

    def says(machine: FakePM2, looks: int) -> None:
        if looks == 1:
            log.write_text("of yesterday\nTraceback of today\n")
        life(machine, looks)

    machine.life["two"] = says
    with pytest.raises(agent_release.Unhealthy) as caught:
        service(machine, "two").run()
    told = str(caught.value)
    assert reason in told
    assert "release one runs again" in told
    assert "Traceback of today" in told
    assert "of yesterday" not in told
    as_before(machine)
    assert machine.told()[-2:] == [("failed", "two", "one"), ("put back", "two", "one")]
    assert {one["name"]: (one["good"], bool(one["failed"])) for one in machine.releases()} == {
        "one": (True, False),
        "two": (False, True),
    }


def test_a_network_that_is_down_is_no_fault_of_a_release(machine: FakePM2) -> None:
    machine.life["two"] = lambda machine, looks: machine.beats("later", "offline")
    wanted = service(machine, "two")
    wanted.run()
    assert machine.pointed("current") == "two"
    assert "git_sync_cloud runs and says: offline" in wanted.warnings, "and whoever deploys hears of it"


def test_a_step_that_is_still_underway_is_nothing_to_warn_of(machine: FakePM2) -> None:
    machine.life["two"] = lambda machine, looks: machine.beats("later", "the mailbox is asked", underway=True)
    wanted = service(machine, "two")
    wanted.run()
    assert (machine.pointed("current"), wanted.warnings) == ("two", [])


def test_what_failed_before_may_fail_still(machine: FakePM2) -> None:
    machine.life |= {"one": fails, "two": fails}
    wanted = service(machine, "two")
    wanted.run()
    assert machine.pointed("current") == "two"
    assert "cloud_orchestrator runs and says: Claude refuses the key" in wanted.warnings


def test_a_failure_of_an_interrupted_run_is_no_excuse(machine: FakePM2, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed

    machine.life["two"] = fails
    with monkeypatch.context() as patch:
        patch.setattr(agent_release.Service, "look_twice", die)
        with pytest.raises(Killed):
            service(machine, "two").run()
    fails(machine, 0)
    with pytest.raises(agent_release.Unhealthy, match="release one runs again"):
        service(machine, "two").run()
    as_before(machine)


def test_a_full_disk_does_not_keep_the_old_release_from_coming_back(
    machine: FakePM2, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    machine.life["two"] = hangs
    monkeypatch.setattr(agent_release.Service, "mark", full)
    (machine.root / "deploy.log").unlink()
    (machine.root / "deploy.log").mkdir()
    failed = service(machine, "two")
    with pytest.raises(agent_release.Unhealthy, match="release one runs again") as caught:
        failed.run()
    assert "marked as failed" not in str(caught.value)
    assert any("deploy.log has no line of this" in warning for warning in failed.warnings)
    as_before(machine)


def test_settings_alone_are_put_back_and_the_release_stays_good(machine: FakePM2) -> None:
    machine.life["one"] = lambda machine, looks: (
        machine.beats() if "good" in machine.text(".env.cloud") or "for-one" in machine.text(".env.cloud") else None
    )
    with pytest.raises(agent_release.Unhealthy, match="release one runs again"):
        service(machine, "one", settings="CLAUDE_API_KEY='bad'\n").run()
    as_before(machine)
    assert machine.releases()[0]["good"]
    service(machine, "one", settings="CLAUDE_API_KEY='good'\n").run()
    assert machine.text(".env.cloud") == "CLAUDE_API_KEY='good'\n"
    assert machine.pointed("previous") == ""


def test_the_old_one_does_not_come_up_either(machine: FakePM2) -> None:
    machine.life["two"] = machine.life["one"] = stays_stopped
    with pytest.raises(agent_release.Unhealthy, match="RELEASE one WAS PUT BACK AND DOES NOT COME UP EITHER"):
        service(machine, "two").run()
    assert machine.pointed("current") == "one"
    assert machine.told()[-1] == ("put back, and not healthy", "two", "one")
    assert machine.interrupted()
    machine.life["one"] = healthy
    service(machine, "one", settings=None, ecosystem=None).run()  # what rollback.yml does then
    as_before(machine)


def test_a_first_release_that_does_not_live_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    machine = FakePM2(tmp_path)
    machine.release("one")
    machine.life["one"] = stays_stopped
    with pytest.raises(agent_release.Unhealthy, match="There was no release before"):
        service(machine, "one").run()
    assert list(machine.table) == machine.saved == ["pm2-logrotate"]
    assert machine.pointed("current") == ""
    assert not (machine.root / ".env.cloud").exists()
    machine.life["one"] = healthy
    service(machine, "one").run()
    assert machine.releases()[0]["good"]


@pytest.mark.parametrize("step", ["remember", "put_files", "reload", "look_twice"])
def test_killed_anywhere_the_next_run_knows_what_worked_last(
    machine: FakePM2, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(agent_release.Service, step)

    def then_die(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(agent_release.Service, step, then_die)
        with pytest.raises(Killed):
            service(machine, "two").run()
    assert (machine.folder(machine.pointed("current")) / ".complete").exists()
    wanted = {
        "release": "two",
        "user": "nobody",
        "deployment": "two.12345678",
        "settings_checksum": "x",
        "ecosystem_checksum": "x",
        "loops": list(LOOPS),
    }
    assert "a run was interrupted" in agent_info.differences(machine, wanted)
    assert machine.interrupted()
    machine.life["two"] = hangs
    with pytest.raises(agent_release.Unhealthy, match="release one runs again"):
        service(machine, "two").run()
    as_before(machine)
    assert not machine.interrupted()


def test_killed_while_it_forgets_what_was_before(machine: FakePM2, monkeypatch: pytest.MonkeyPatch) -> None:
    real = agent_release.shutil.rmtree

    def half(path: Path, *arguments: Any, **named: Any) -> None:
        if (path / "before.json").exists():
            (path / "before.json").unlink()
            (path / ".env.cloud").unlink()
            raise Killed
        real(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(agent_release.shutil, "rmtree", half)
        with pytest.raises(Killed):
            service(machine, "two").run()
    machine.life["one"] = hangs
    with pytest.raises(agent_release.Unhealthy, match="release two runs again"):
        service(machine, "one").run()
    assert machine.text(".env.cloud") == "CLAUDE_API_KEY='key-for-two'\n"
    assert machine.pointed("current") == "two"


def test_a_rollback_without_the_file_of_pm2_is_refused(machine: FakePM2) -> None:
    service(machine, "two").run()
    (machine.root / "ecosystem.config.js").unlink()
    with pytest.raises(agent_release.Refused, match=r"ecosystem\.config\.js is not there, and only a deploy writes it"):
        service(machine, "one", settings=None, ecosystem=None).run()
    assert machine.pointed("current") == "two"
    assert [one["failed"] for one in machine.releases()] == ["", ""]


def test_a_rollback_keeps_the_settings_and_names_the_release(machine: FakePM2) -> None:
    service(machine, "two").run()
    service(machine, "one", settings=None, ecosystem=None).run()
    assert (machine.pointed("current"), machine.pointed("previous")) == ("one", "two")
    assert machine.text(".env.cloud") == "CLAUDE_API_KEY='key-for-two'\n"
    assert machine.text("ecosystem.config.js") == ECOSYSTEM % "one"
    assert machine.table["git_sync_cloud"]["pm2_env"]["CLOUD_AGENT_DEPLOYMENT"] == "one.12345678"
    assert machine.told()[-1] == ("rolled back", "one", "two")
    machine.life["two"] = hangs
    with pytest.raises(agent_release.Unhealthy, match="release one runs again"):
        service(machine, "two", settings=None, ecosystem=None).run()
    assert machine.pointed("current") == "one"


def watches(machine: FakePM2, looks: int) -> None:
    machine.beats(loops={name: beat for name, beat in KNOWN.items() if name in machine.table})


def test_a_mail_watcher_comes_and_goes_with_the_file_of_pm2(machine: FakePM2) -> None:
    machine.life["two"] = watches
    service(machine, "two", ecosystem=WATCHING % "two").run()
    assert machine.saved == ["cloud_orchestrator", "git_sync_cloud", "mail_watcher", "pm2-logrotate"]
    service(machine, "two").run()
    assert sorted(machine.table) == machine.saved == ["cloud_orchestrator", "git_sync_cloud", "pm2-logrotate"]


def test_a_mail_watcher_that_does_not_live_is_a_fault_of_the_release(machine: FakePM2) -> None:
    machine.life["two"] = healthy  # of the two others
    with pytest.raises(agent_release.Unhealthy, match="mail_watcher gave no sign of life") as caught:
        service(machine, "two", ecosystem=WATCHING % "two").run()
    assert "release one runs again" in str(caught.value)
    as_before(machine)
    assert "mail_watcher" not in machine.table


def test_a_mail_watcher_that_was_to_go_is_put_back_too(machine: FakePM2) -> None:
    machine.life |= {"one": watches, "two": fails}
    service(machine, "one", ecosystem=WATCHING % "one").run()
    machine.release("two")
    with pytest.raises(agent_release.Unhealthy, match="release one runs again"):
        service(machine, "two").run()
    assert machine.table["mail_watcher"]["pm2_env"]["CLOUD_AGENT_DEPLOYMENT"] == "one.12345678"
    assert machine.text("ecosystem.config.js") == WATCHING % "one"


def test_a_rollback_runs_what_the_file_on_the_machine_names(machine: FakePM2) -> None:
    """Whatever the settings on the controller say by now of a mailbox: they stay where they are."""
    machine.life |= {"one": watches, "two": watches}
    service(machine, "two", ecosystem=WATCHING % "two").run()
    service(machine, "one", settings=None, ecosystem=None).run()
    assert machine.table["mail_watcher"]["pm2_env"]["CLOUD_AGENT_DEPLOYMENT"] == "one.12345678"
    assert "mail_watcher" in machine.saved


def test_pruning_goes_by_what_is_linked(machine: FakePM2) -> None:
    for number, name in enumerate(("three", "four", "five")):
        machine.release(name, built=2000.0 + number)
        machine.life[name] = healthy
        service(machine, name, keep=2).run()
    assert [one["name"] for one in machine.releases()] == ["four", "five"]
    machine.release("half")
    (machine.folder("half") / ".complete").unlink()
    machine.release("six", built=1.0)  # a clock that was wrong
    machine.life["six"] = hangs
    with pytest.raises(agent_release.Unhealthy):
        service(machine, "six", keep=1).run()
    assert len(machine.releases()) == 4  # a failed run removes nothing
    machine.life["six"] = healthy
    assert sorted(service(machine, "six", keep=1).run()["removed"]) == ["four", "half"]
    machine.release("seven", built=1.5)
    machine.life["seven"] = healthy
    assert service(machine, "seven", keep=1).run()["removed"] == []
    assert (machine.pointed("current"), machine.pointed("previous")) == ("seven", "six")
    assert {one["name"] for one in machine.releases()} == {"five", "six", "seven"}  # the newest, and what is linked


def test_no_secret_is_told(machine: FakePM2) -> None:
    settings = "CLAUDE_API_KEY='sk-secret-key'\nGIT_REMOTE_URL='https://token-of-me@host/x'\nA='ssh://git@host/x'\n"
    assert agent_release.secrets(settings) == {"sk-secret-key", "token-of-me"}
    assert r"it's a \ word" in agent_release.secrets("IMAP_PASSWORD='it\\'s a \\\\ word'\n")
    assert agent_release.secrets("A='ssh://me:pass-word@host/x'\n") == {"pass-word"}
    assert agent_release.secrets('CLAUDE_API_KEY="by-hand-1"\n') == {"by-hand-1"}
    assert agent_release.secrets("A='x'\nCLAUDE_API_KEY=by-hand-2\n") == {"by-hand-2"}
    for name in ("IMAP_PASSWORD", "IMAP_OAUTH_REFRESH_TOKEN", "IMAP_OAUTH_CLIENT_SECRET", "ALERT_MCP_TOKEN"):
        assert agent_release.secrets(f"IMAP_HOST='mail.example.org'\n{name}='of-a-mailbox'\n") == {"of-a-mailbox"}
    urls = "ALERT_URLS='tgram://123:abc/456 ntfys://ntfy.sh/my-topic'\nALERT_QUIET='22:00-07:00'\n"
    assert {"tgram://123:abc/456", "ntfys://ntfy.sh/my-topic"} <= agent_release.secrets(urls)
    assert "22:00-07:00" not in agent_release.secrets(urls)
    told = json.dumps(service(machine, "two").difference())
    assert "two.12345678" in told
    assert "hidden-word" not in told
    assert "key-for-two" not in told


def run_module(machine: FakePM2, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    """What the module prints, which is all that Ansible gets to see of it."""
    given = {"root": str(machine.root), "user": "nobody", "home": "/nonexistent", "loops": KNOWN, "who": "me@here"}
    with patch_module_args(given | options), pytest.raises(SystemExit):
        agent_release.main()
    return capsys.readouterr().out


def test_a_dry_run_tells_no_secret_and_changes_nothing(machine: FakePM2, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"settings": "CLAUDE_API_KEY='key-for-two'\n", "ecosystem": ECOSYSTEM % "two", "release": "two"}
    said = run_module(machine, capsys, **options, _ansible_check_mode=True, _ansible_diff=True)
    assert json.loads(said)["changed"]
    assert "two.12345678" in said
    assert "hidden-word" not in said
    assert "key-for" not in said
    as_before(machine)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [({"settings": "A='x'\n", "ecosystem": ""}, "correct the variables"), ({}, "check out the project as it was then")],
)
def test_the_advice_to_one_who_is_refused(
    machine: FakePM2, capsys: pytest.CaptureFixture[str], settings: dict[str, str], advice: str
) -> None:
    machine.release("picky", "echo 'problem: no'; exit 78")
    said = json.loads(run_module(machine, capsys, release="picky", **settings))
    assert said["failed"]
    assert "nothing was touched: it does not agree with its settings:\nproblem: no\n" in said["msg"]
    assert advice in said["msg"]


def test_the_look_at_a_machine(machine: FakePM2, monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass
    import grp

    me = getpass.getuser()
    monkeypatch.setitem(agent_info.FILES, "ecosystem.config.js", (me, 0o640))
    digest = lambda name: agent_info.hashlib.sha256((machine.root / name).read_bytes()).hexdigest()  # noqa: E731
    wanted = {
        "release": "one",
        "user": me,
        "deployment": "one.12345678",
        "settings_checksum": digest(".env.cloud"),
        "ecosystem_checksum": digest("ecosystem.config.js"),
        "loops": list(LOOPS),
    }
    if grp.getgrgid(os.getgid())[0] != me:
        pytest.skip("files of this user have a group of another name")
    look = lambda **other: agent_info.differences(machine, wanted | other)  # noqa: E731
    assert look() == []
    assert look(settings_checksum="x") == [".env.cloud differs"]
    assert look(ecosystem_checksum="x") == ["ecosystem.config.js differs"]
    assert look(deployment="y")[0] == "cloud_orchestrator runs one.12345678"
    assert look(release="two") == ["release two has not proven itself", "current is one"]
    assert look(release="none")[0] == "release none is not built"
    (machine.root / ".env.cloud").chmod(0o644)
    assert look() == [".env.cloud has another owner or mode"]
    (machine.root / ".env.cloud").chmod(0o600)
    machine.set("git_sync_cloud", status="waiting restart")
    machine.run("another")
    assert look() == ["PM2 runs another, which is not in its file", "git_sync_cloud is waiting restart"]


def test_the_look_at_a_virgin_machine(tmp_path: Path) -> None:
    machine = Machine(str(tmp_path / "absent"), str(tmp_path / "no-pm2"))
    found = agent_info.differences(
        machine,
        {
            "release": "one",
            "user": "nobody",
            "deployment": "x",
            "settings_checksum": "x",
            "ecosystem_checksum": "x",
            "loops": list(LOOPS),
        },
    )
    assert found[:3] == ["release one is not built", "current is no release", ".env.cloud is not there"]
    assert (machine.releases(), machine.lock(), machine.pointed("previous")) == ([], "", "")
    with pytest.raises(PM2Error, match="no-pm2"):
        machine.processes()
