"""What users of unattended git sync suffer: one group of tests for each entry of `research/sync.md` §3, by its number.

Each goes through the public surface: a cycle, or the installed command, on real repositories.
"""

import contextlib
import ctypes
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import string
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cloud_agent import git as agent_git
from cloud_agent import sync
from cloud_agent.sync import Outcome, Syncer

from tests.gitkit import MARKERS, NOW, PERSON, PLAIN, Side, World, commit_all, git, push_as_person

GIT = shutil.which("git") or "git"
OLD = time.time() - 3600


def random_text(length: int, characters: str = string.ascii_letters + string.digits, seed: int = 7) -> str:
    """As a key is made: the guards know a placeholder when they see one."""
    return "".join(random.Random(seed).choices(characters, k=length))  # noqa: S311


KEY = f"sk-ant-api03-{random_text(93)}AA"
ALERT = "sync"


# -- what the tests share ----------------------------------------------------------------------------------------------


def daemon(side: Side, clock: Callable[[], datetime] = lambda: NOW) -> Syncer:
    """A syncer as the loop has it: one object for all cycles, with the file watcher."""
    return Syncer(side.config, side.state, clock, sleep=side.slept.append, watching=True)


def synced(syncer: Syncer) -> Outcome:
    outcome = syncer.cycle()
    assert outcome.result == "ok", outcome.message
    return outcome


def healed(side: Side, cycles: int = 4) -> None:
    """Cycles until it is in step again, with what a kill left behind made old: nobody is asked for anything."""
    syncer = side.syncer()
    for _ in range(cycles):
        for lock in (side.vault / ".git").rglob("*.lock"):
            os.utime(lock, (OLD, OLD))
        outcome = syncer.cycle()
        if outcome.result == "ok":
            return
    raise AssertionError(f"not in step after {cycles} cycles: {outcome.message}")


def agent(side: Side, *arguments: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command, with more in its environment."""
    return subprocess.run(
        side.command(*arguments), cwd=side.home, env={**PLAIN, **environment}, check=False, capture_output=True,
        text=True, timeout=timeout,
    )  # fmt: skip


def status(side: Side) -> dict:
    return json.loads(agent(side, "status", "--json").stdout)


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
    return found


def at_work_in(folder: Path) -> list[int]:
    """Processes whose working directory lies there."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                found.append(int(entry.name))
    return found


@dataclass
class Loop:
    """A running `cloud-agent sync` with an hour between its cycles; `ask` is SIGUSR1."""

    side: Side
    process: subprocess.Popen[str]
    cycles: int = 0

    def beat(self) -> dict:
        with contextlib.suppress(OSError, ValueError):
            beat = json.loads((self.side.home / "state" / "sync.json").read_text())
            if beat["pid"] == self.process.pid:
                return dict(beat)
        return {"cycle": 0}

    def reach(self, cycle: int) -> dict:
        wait_for(lambda: self.beat()["cycle"] >= cycle or self.process.poll() is not None)
        assert self.process.poll() is None, "the loop has ended"
        self.cycles = self.beat()["cycle"]
        return self.beat()

    def ask(self) -> dict:
        """A cycle at once; its beat."""
        self.process.send_signal(signal.SIGUSR1)
        return self.reach(self.cycles + 1)

    def stop(self, seconds: float = 10, number: int = signal.SIGTERM) -> tuple[str, str]:
        """(standard output, standard error) of the loop, which must end cleanly within these seconds."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0
        return out, err


@contextmanager
def running(side: Side, command: str = "sync", **environment: str) -> Iterator[Loop]:
    with subprocess.Popen(
        side.command(command), cwd=side.home, env={**PLAIN, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield Loop(side, process)
        finally:
            process.kill()  # and its output is not read to the end: what it left running may hold that open


def wrapped(folder: Path, program: str, script: str) -> dict[str, str]:
    """An environment in which `program` is a script of ours; `$REAL` in it is the real one."""
    bin_folder = folder / f"bin-{program}"
    bin_folder.mkdir(exist_ok=True)
    (bin_folder / program).write_text(f"#!/bin/sh\nREAL={shlex.quote(shutil.which(program) or program)}\n{script}\n")
    (bin_folder / program).chmod(0o755)
    return {"PATH": f"{bin_folder}:{PLAIN['PATH']}"}


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """What would hang for ever fails instead."""

    def ring(*_: object) -> None:
        raise AssertionError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def short_deadlines(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for module in (sync, agent_git):
        monkeypatch.setattr(module, "NETWORK_DEADLINE", seconds, raising=False)


def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def silent_server() -> Iterator[str]:
    """A git URL whose server takes the connection and then says nothing, for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"git://127.0.0.1:{server.getsockname()[1]}/vault.git"


def refuse_pushes(world: World, why: str) -> Path:
    """The remote's own rules refuse every push, until the hook is removed."""
    hook = world.remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\necho {shlex.quote(why)} >&2\nexit 1\n")
    hook.chmod(0o755)
    return hook


def has_markers(files: dict[str, str]) -> list[str]:
    return [path for path, text in files.items() if any(line.startswith(MARKERS) for line in text.splitlines())]


def copies(files: object) -> list[str]:
    return sorted(path for path in files if ".conflict-" in path)  # type: ignore[attr-defined]


def told(side: Side) -> list[str]:
    """The entries below `## Updates`."""
    return [line for line in side.read("Dashboard.md").partition("## Updates")[2].splitlines() if line.startswith("- ")]


def objects_of(side: Side) -> set[Path]:
    """The files of the object store."""
    return {path for path in (side.vault / ".git/objects").rglob("*") if path.is_file() and "info" not in path.parts}


def count_loose(side: Side) -> int:
    return int(side.git("count-objects").split()[0])


def everything_ever_pushed(world: World) -> str:
    return git(world.remote, "log", "--all", "-p", "-m", "--format=%H %s %b", "--text")


# -- 1: a conflict leaves it stuck, or destroys work -------------------------------------------------------------------


def test_01_a_conflict_neither_stops_nor_destroys(world: World) -> None:
    """obsidian-git#558 (the conflict commit reverted other files), GitJournal#241 #582 #993 (the remote's edits were
    overwritten), ViscousPot/GitSync#800 #1055 (detached HEAD afterwards)."""
    seed = {f"Notes/{name}.md": f"{name}, first\n" for name in ("same", "theirs", "ours", "gone here", "gone there")}
    push_as_person(world, {**seed, "picture.canvas": "\0first"})  # type: ignore[dict-item]
    world.converge()
    push_as_person(
        world,
        {
            "Notes/same.md": "same, by local\n",
            "Notes/theirs.md": "theirs, by local\n",
            "Notes/gone here.md": "kept by local\n",
            "Notes/gone there.md": None,
            "Notes/new.md": "new, by local\n",
            "picture.canvas": "\0local",
        },
    )
    cloud = world.cloud
    for name, text in {"same": "same, by cloud", "ours": "ours, by cloud", "new": "new, by cloud"}.items():
        cloud.write(f"Notes/{name}.md", f"{text}\n")
    cloud.write("Notes/gone there.md", "kept by cloud\n")
    cloud.write("picture.canvas", "\0cloud")
    (cloud.vault / "Notes/gone here.md").unlink()
    assert cloud.synced().pushed
    files = world.converge()
    # what one side alone had changed is as that side left it: no other file was reverted by the conflict
    assert files["Notes/theirs.md"] == "theirs, by local\n"
    assert files["Notes/ours.md"] == "ours, by cloud\n"
    # the remote's version has the name, ours lies beside it
    assert (files["Notes/same.md"], files["Notes/new.md"]) == ("same, by local\n", "new, by local\n")
    assert {files[path] for path in copies(files)} == {"same, by cloud\n", "new, by cloud\n", "\0cloud"}
    assert (files["Notes/gone here.md"], files["Notes/gone there.md"]) == ("kept by local\n", "kept by cloud\n")
    # and it goes on: nobody has settled anything
    assert cloud.git("symbolic-ref", "HEAD") == "refs/heads/main"
    cloud.write("Inbox/after.md", "after\n")
    push_as_person(world, {"Notes/after.md": "after, by local\n"})
    assert {"Inbox/after.md", "Notes/after.md"} <= set(world.converge())


def test_01_the_loop_lives_through_a_conflict(world: World) -> None:
    """gitwatch#88 ("it just crashes"), markdown-vault-mcp#231 (diverged until someone logs in)."""
    with running(world.cloud) as loop:
        loop.reach(1)
        for number in range(3):
            push_as_person(world, {"note.md": f"local {number}\n"})
            world.cloud.write("note.md", f"cloud {number}\n")
            assert loop.ask()["result"] == "ok"
            assert world.remote_files()["note.md"] == f"local {number}\n"
            assert f"cloud {number}\n" in world.remote_files().values()
        _, err = loop.stop()
    assert "Traceback" not in err
    world.converge()


@pytest.mark.parametrize("when", ["before", "after"])
def test_01_a_kill_while_receiving_reverts_nothing(world: World, when: str) -> None:
    """obsidian-git#593: the branch moved, the files had not yet, and the next commit undid what the remote had sent.

    Killed before, or after, each single git command of a cycle that receives.
    """
    log = world.root / "calls"
    script = (
        'echo "$1" >> "$CALLS"; n=$(wc -l < "$CALLS")\n'
        '[ "$n" = "$KILL_AT" ] && [ "$KILL_WHEN" = before ] && { kill -9 $PPID; exit 137; }\n'
        '"$REAL" "$@"; s=$?\n'
        '[ "$n" = "$KILL_AT" ] && [ "$KILL_WHEN" = after ] && kill -9 $PPID\n'
        "exit $s"
    )
    environment = wrapped(world.root, "git", script)
    killed = 0
    for number in range(1, 60):
        push_as_person(world, {"note.md": f"from the remote {number}\n", f"Notes/{number}.md": "new\n"})
        world.cloud.write("Inbox/mine.md", f"mine {number}\n")
        log.write_text("")
        done = agent(
            world.cloud, "sync", "--once", CALLS=str(log), KILL_AT=str(number), KILL_WHEN=when, **environment
        )  # fmt: skip
        healed(world.cloud)
        files = world.remote_files()
        assert files["note.md"] == f"from the remote {number}\n", f"reverted by a kill {when} command {number}"
        assert files["Inbox/mine.md"] == f"mine {number}\n"
        assert f"Notes/{number}.md" in files
        assert not has_markers(files)
        if done.returncode == 0:
            break
        killed += done.returncode == -signal.SIGKILL
    assert done.returncode == 0, done.stderr
    assert killed >= 3, "the wrapper did not kill"
    world.converge()


# -- 2: index.lock -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "index.lock",
        "HEAD.lock",
        "ORIG_HEAD.lock",
        "FETCH_HEAD.lock",
        "config.lock",
        "packed-refs.lock",
        "shallow.lock",
        "refs/heads/main.lock",
        "refs/remotes/origin/main.lock",
        "objects/maintenance.lock",
    ],
)
def test_02_a_lock_left_behind_stops_nothing(world: World, name: str) -> None:
    """obsidian-git#186 (backups silently stopped), k8s git-sync PR#914 (shallow.lock, a crash loop), opencode#42597."""
    lock = world.cloud.vault / ".git" / name
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    os.utime(lock, (OLD, OLD))
    world.cloud.write("Inbox/a.md", "a\n")
    push_as_person(world, {"theirs.md": "x\n"})
    healed(world.cloud)
    assert "Inbox/a.md" in world.remote_files()
    assert world.cloud.read("theirs.md") == "x\n"
    assert ALERT not in world.cloud.state.alerts()


def test_02_the_lock_of_a_commit_whose_editor_is_open_stays(world: World) -> None:
    """gitwatch#69, k8s git-sync PR#986: and the other way round, git-sync-js deletes a lock that somebody holds.

    `git commit -a` keeps index.lock while its editor is open, with no descriptor on it, for as long as the person
    thinks. Nothing may take it away, and after a minute `status` says what is waited for and since when.
    """
    side, moment = world.local, [NOW]
    side.write("note.md", "by the person\n")
    fifo = world.root / "editor"
    os.mkfifo(fifo)
    editor = {**PERSON, "GIT_EDITOR": f"sh -c 'echo a message > \"$1\"; cat {fifo}' --"}
    syncer = Syncer(side.config, side.state, lambda: moment[0], sleep=side.slept.append)
    person = subprocess.Popen(
        [GIT, "commit", "-a"], cwd=side.vault, env=editor, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        lock = side.vault / ".git/index.lock"
        wait_for(lambda: lock.exists() and bool(children(person.pid)))
        os.utime(lock, (OLD, OLD))
        side.write("Inbox/since.md", "written meanwhile\n")
        for _ in range(4):
            assert syncer.cycle().result == "later"
            assert lock.exists(), "the lock of a living git was deleted"
            moment[0] += timedelta(minutes=5)
        alert = side.state.alerts()[ALERT]
        assert str(person.pid) in alert["message"] or "index.lock" in alert["message"]
        assert alert["since"] < f"{moment[0]:%Y-%m-%dT%H:%M:%SZ}"
        fifo.write_text("")
        assert person.wait(20) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(person.pid, signal.SIGKILL)
        person.wait()
    assert syncer.cycle().result == "ok"
    assert ALERT not in side.state.alerts()
    assert {
        "note.md": "by the person\n",
        "Inbox/since.md": "written meanwhile\n",
    }.items() <= world.remote_files().items()


class Created:
    """What is created in the folders of a repository, by name, through inotify: nothing is missed, however short."""

    CREATE, MOVED_TO = 0x100, 0x80

    def __init__(self, folder: Path) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self.libc.inotify_init1(os.O_NONBLOCK)
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            assert self.libc.inotify_add_watch(self.descriptor, os.fsencode(path), self.CREATE | self.MOVED_TO) >= 0

    def names(self) -> list[str]:
        found, content = [], b""
        with contextlib.suppress(BlockingIOError):
            content = os.read(self.descriptor, 1 << 20)
        while content:
            (length,) = struct.unpack_from("I", content, 12)
            found.append(os.fsdecode(content[16 : 16 + length].rstrip(b"\0")))
            content = content[16 + length :]
        return found

    def __enter__(self) -> "Created":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


@pytest.mark.parametrize("watching", [False, True])
def test_02_looking_takes_no_lock(world: World, watching: bool) -> None:
    """Codewhale#5617, decocms/studio PR#4039: `git status` writes the index where a file was touched; a person's
    `git commit` in that moment fails."""
    side = world.cloud
    syncer = daemon(side) if watching else side.syncer()
    synced(syncer)
    with Created(side.vault / ".git") as created:
        for number in range(3):
            os.utime(side.vault / "note.md", (OLD + number, OLD + number))  # touched, not changed
            synced(syncer)
        assert [name for name in created.names() if name.endswith(".lock")] == []
        os.utime(side.vault / "note.md")
        side.git("status")
        assert "index.lock" in created.names(), "this test sees no lock at all"


def test_02_a_persons_git_does_not_fail_beside_the_loop(world: World) -> None:
    """obsidian-git#342 #683: `Unable to create index.lock`, each time two meet."""
    side = world.local
    with running(side) as loop:
        loop.reach(1)
        for number in range(60):
            loop.process.send_signal(signal.SIGUSR1)
            os.utime(side.vault / "note.md", (OLD + number, OLD + number))
            side.git("add", "-A")  # writes the index; asserts its exit status
            if number % 10 == 0:
                loop.reach(loop.cycles + 1)
        loop.stop()
    assert ALERT not in side.state.alerts(), "a person at work for a moment is no failure"


# -- 3: commits that never leave the machine, silently -----------------------------------------------------------------


def test_03_refused_pushes_are_told_since_when_and_why(world: World) -> None:
    """markdown-vault-mcp#1287 (success for hours while pushes are refused), #1330 #1345 (the cause in no log), #1300
    (a pull that works hid the push that fails)."""
    cloud, moment = world.cloud, [NOW]
    syncer = Syncer(cloud.config, cloud.state, lambda: moment[0], sleep=cloud.slept.append)
    hook = refuse_pushes(world, "no pushes on a Monday")
    for number in range(6):
        cloud.write(f"Inbox/{number}.md", "x\n")
        outcome = syncer.cycle()
        assert (outcome.result, outcome.pushed) == ("later", False)
        moment[0] += timedelta(hours=1)
    alert = cloud.state.alerts()[ALERT]
    assert alert["since"] == "2026-02-16T10:00:00Z", "since it began, not since it was last seen"
    assert "no pushes on a Monday" in alert["message"]
    assert [line for line in told(cloud) if "no pushes on a Monday" in line or "not synced" in line.lower()]
    hook.unlink()
    # the remote's answer comes before anything counts as synced, and nothing new had to be written for it
    assert synced(syncer).pushed
    assert {f"Inbox/{number}.md" for number in range(6)} <= set(world.remote_files())
    assert ALERT not in cloud.state.alerts()


def test_03_status_is_unhealthy_while_commits_stay_here(world: World) -> None:
    """The same through the commands: healthy, then not, with the cause; then healthy, with everything pushed.

    What arrives goes on arriving, and does not hide that nothing leaves.
    """
    side = world.cloud
    with running(side, "draft") as drafting, running(side) as loop:
        wait_for((side.home / "state/draft.json").exists)
        loop.reach(1)
        before = status(side)
        assert before["healthy"], before
        side.write("Inbox/a.md", "a\n")
        time.sleep(1.1)  # the times in a beat are whole seconds
        hook = refuse_pushes(world, "frozen by the owner")
        assert loop.ask()["result"] == "later"
        hook.unlink()
        push_as_person(world, {"theirs.md": "x\n"})
        refuse_pushes(world, "frozen by the owner")
        assert loop.ask()["result"] == "later"
        assert side.read("theirs.md") == "x\n"
        during = status(side)
        assert not during["healthy"]
        assert during["last_sync"] == before["last_sync"], "it counts as synced though nothing was pushed"
        assert any("frozen by the owner" in alert["message"] for alert in during["alerts"])
        told_in_words = agent(side, "status").stdout
        assert "NOT HEALTHY" in told_in_words
        assert "frozen by the owner" in told_in_words
        hook.unlink()
        assert loop.ask()["result"] == "ok"
        after = status(side)
        assert after["healthy"], after
        assert after["last_sync"] > before["last_sync"]
        assert "Inbox/a.md" in world.remote_files()
        _, err = loop.stop()
        drafting.process.kill()
    assert err.count("frozen by the owner") == 1, "the cause is in the log, once"


def test_03_a_push_that_says_nothing_has_not_pushed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """markdown-vault-mcp#957: it counted as pushed before the remote had answered. Here git ends with 0 and the remote
    has nothing."""
    script = 'for word in "$@"; do [ "$word" = push ] && exit 0; done\nexec "$REAL" "$@"'
    environment = wrapped(world.root, "git", script)
    world.cloud.write("Inbox/a.md", "a\n")
    done = agent(world.cloud, "sync", "--once", **environment)
    assert "Inbox/a.md" not in world.remote_files()
    assert done.returncode == 75
    assert status(world.cloud)["last_sync"] is None
    assert agent(world.cloud, "sync", "--once").returncode == 0
    assert "Inbox/a.md" in world.remote_files()


def test_03_a_push_whose_answer_was_lost_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remote took it and the line broke: not told as a failure, and nothing is there twice."""
    script = (
        'for word in "$@"; do [ "$word" = push ] && [ ! -e "$ONCE" ] && { touch "$ONCE"; "$REAL" "$@" > /dev/null\n'
        "echo 'fatal: the remote end hung up unexpectedly' >&2; exit 128; }; done\n"
        'exec "$REAL" "$@"'
    )
    monkeypatch.setenv("ONCE", str(world.root / "once"))
    monkeypatch.setenv("PATH", wrapped(world.root, "git", script)["PATH"])
    world.cloud.write("Inbox/a.md", "a\n")
    world.cloud.synced()
    assert (world.root / "once").exists()
    assert ALERT not in world.cloud.state.alerts()
    subjects = git(world.remote, "log", "--format=%s", "main").splitlines()
    assert subjects.count("Cloud: 1 file updated") == 1


# -- 4: it hangs -------------------------------------------------------------------------------------------------------


@dataclass
class Hang:
    """A way to wait for ever: the remote's address, the environment of the agent, and who it was that waited."""

    remote: str
    environment: dict[str, str] = field(default_factory=dict)
    pids: Path | None = None

    def waiting(self) -> list[int]:
        if self.pids is None or not self.pids.exists():
            return []
        return [pid for pid in map(int, self.pids.read_text().split()) if alive(pid)]


@pytest.fixture(params=["silent server", "ssh sleeps", "git ignores SIGTERM"])
def hang(request: pytest.FixtureRequest, world: World) -> Iterator[Hang]:
    pids = world.root / "pids"
    sleep = f'trap "" TERM INT HUP; echo $$ >> {pids}; while :; do sleep 1000 & echo $! >> {pids}; wait; done'
    if request.param == "silent server":
        with silent_server() as url:
            yield Hang(url)
        return
    if request.param == "ssh sleeps":
        made = Hang("ssh://git@127.0.0.1/vault.git", wrapped(world.root, "ssh", sleep), pids)
    else:
        network = "ls-remote|fetch|push"
        script = f'for word in "$@"; do case "$word" in {network}) {sleep};; esac; done\nexec "$REAL" "$@"'
        made = Hang(str(world.remote), wrapped(world.root, "git", script), pids)
    yield made
    for pid in made.waiting():
        os.kill(pid, signal.SIGKILL)


def test_04_a_remote_that_hangs_is_left_at_the_deadline(
    world: World, hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    """k8s git-sync#115 (`ls-remote` stuck for two hours), #498. And nothing of it goes on running."""
    short_deadlines(monkeypatch, 0.2)
    for name, value in hang.environment.items():
        monkeypatch.setenv(name, value)
    world.cloud.set_remote(hang.remote)
    world.cloud.write("Inbox/a.md", "a\n")
    with within(15):
        outcome = world.cloud.sync()
    assert outcome.result == "later"
    assert "cannot be reached" in outcome.message
    assert hang.pids is None or hang.pids.exists(), "it was not asked at all"
    wait_for(lambda: hang.waiting() == [], 3)
    assert world.cloud.subject() == "Cloud: 1 file updated", "what was written is committed all the same"


def test_04_a_stop_ends_the_loop_at_once_while_the_remote_hangs(world: World, hang: Hang) -> None:
    """k8s git-sync#105. PM2 asks, waits 20 s and then kills; and `status` answers meanwhile."""
    side = world.cloud
    side.set_remote(hang.remote)
    side.write("Inbox/a.md", "a\n")
    with running(side, **hang.environment) as loop:
        if hang.pids is None:
            wait_for(lambda: side.subject() == "Cloud: 1 file updated")
            wait_for(lambda: bool(children(loop.process.pid)))
        else:
            wait_for(lambda: bool(hang.waiting()))
        began = time.monotonic()
        assert not status(side)["healthy"]
        assert time.monotonic() - began < 5
        began = time.monotonic()
        loop.stop(15, signal.SIGINT)
        assert time.monotonic() - began < 4
    wait_for(lambda: hang.waiting() == [] and at_work_in(side.vault) == [], 3)


# -- 5: noise while offline --------------------------------------------------------------------------------------------


def test_05_a_hundred_offline_cycles_are_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """obsidian-git#211 #590 #990: a notice a minute on a train. Here the reasons change, too: refused, no such host."""
    caplog.set_level("INFO")
    cloud = world.cloud
    cloud.write("Inbox/a.md", "a\n")
    cloud.synced()
    caplog.clear()
    commits = int(cloud.git("rev-list", "--count", "HEAD"))
    entries = len(told(cloud))
    urls = [f"git://127.0.0.1:{refused_port()}/vault.git", "git://no-such-host.invalid/vault.git"]
    for number in range(100):
        if number % 10 == 0:
            cloud.set_remote(urls[number // 10 % 2])
            syncer = cloud.syncer()  # and PM2 started it again
        assert syncer.cycle().result == "later"
    ours = [record for record in caplog.records if record.name.startswith("cloud_agent")]
    assert len([record for record in ours if record.levelname in ("WARNING", "ERROR")]) == 1, [r.message for r in ours]
    assert len(ours) <= 3
    assert list(cloud.state.alerts()) == [ALERT]
    assert int(cloud.git("rev-list", "--count", "HEAD")) - commits <= 1
    assert len(told(cloud)) - entries <= 1
    assert cloud.state.alerts()[ALERT]["since"]
    caplog.clear()
    cloud.set_remote(str(world.remote))
    for _ in range(3):
        cloud.synced()
    assert len([record for record in caplog.records if "synced again" in record.message]) == 1
    lines = cloud.read(f"Logs/Cloud/sync-{NOW:%Y-%m}.jsonl").splitlines()
    assert [json.loads(line)["action_type"] for line in lines] == ["sync_failed", "sync_recovered"]
    assert len(told(cloud)) - entries <= 2
    assert int(cloud.git("rev-list", "--count", "HEAD")) - commits <= 2
    assert cloud.state.alerts() == {}


def test_05_offline_for_ever_says_nothing_more_on_the_console(world: World) -> None:
    """The same in the lines that PM2 keeps."""
    world.cloud.set_remote(f"git://127.0.0.1:{refused_port()}/vault.git")
    state = world.cloud.home / "state/sync.json"
    with running(world.cloud) as loop:
        loop.reach(1)
        for _ in range(2):
            loop.ask()
        out, err = loop.stop()
    assert state.exists()
    assert len(err.splitlines()) == 1, err
    assert len(out.splitlines()) <= 3, out


# -- 6: slow on larger vaults ------------------------------------------------------------------------------------------


@dataclass
class Cost:
    """What one cycle asked of the machine: git processes, files and index entries read by git, files read by us."""

    processes: int = 0
    by_git: int = 0
    by_us: int = 0


def cost_of(syncer: Syncer, side: Side, monkeypatch: pytest.MonkeyPatch) -> Cost:
    trace = side.home / "trace"
    trace.unlink(missing_ok=True)
    cost = Cost()
    root = os.fspath(side.vault)

    def counted(real: Callable) -> Callable:
        def call(path: object = ".", *more: object, **others: object) -> object:
            if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(f"{root}/"):
                cost.by_us += "/.git" not in os.fsdecode(path)
            return real(path, *more, **others)

        return call

    with monkeypatch.context() as patch:
        patch.setenv("GIT_TRACE2_EVENT", str(trace))
        for name in ("stat", "lstat", "scandir", "listdir", "open"):
            patch.setattr(os, name, counted(getattr(os, name)))
        synced(syncer)
    for line in trace.read_text().splitlines():
        event = json.loads(line)
        cost.processes += event["event"] == "start"
        if event["event"] == "data" and event["key"].endswith(("cache_nr", "sum_lstat", "visited")):
            cost.by_git += int(event["value"])
    return cost


def grow(side: Side, count: int) -> None:
    for number in range(count):
        side.write(f"Notes/{number % (count // 20)}/{number}.md", f"{number}\n")
    side.synced()
    side.git("gc", "-q")  # or the loop sees to it, in a process of its own


def test_06_an_idle_cycle_costs_the_same_in_a_large_vault(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """obsidian-git#421 (45 minutes of status at 5,900 files), #69 #123 #724; opencode#42597."""
    costs = []
    for count in (100, 2000):
        grow(world.cloud, count)
        syncer = daemon(world.cloud)
        for _ in range(2):  # the first cycle of a process looks at everything
            synced(syncer)
        costs.append(cost_of(syncer, world.cloud, monkeypatch))
    assert costs[0] == costs[1]
    assert costs[0].processes <= 3, "ls-remote and what it starts"
    scan = cost_of(world.cloud.syncer(), world.cloud, monkeypatch)
    assert scan.by_git >= 2000, "this test does not see what git looks at"


def test_06_one_change_takes_as_many_processes_in_a_large_vault(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what we look at ourselves is the file that changed."""
    costs = []
    for count in (100, 2000):
        grow(world.cloud, count)
        syncer = daemon(world.cloud)
        for _ in range(2):
            synced(syncer)
        world.cloud.write("Inbox/a.md", f"{count}\n")
        costs.append(cost_of(syncer, world.cloud, monkeypatch))
        assert world.remote_files()["Inbox/a.md"] == f"{count}\n"
    assert costs[0].processes == costs[1].processes
    assert costs[1].by_us <= costs[0].by_us + 5


# -- 7: noise files conflict every day ---------------------------------------------------------------------------------

WORKSPACE = ".obsidian/workspace.json"


@pytest.mark.parametrize("tracked", [False, True], ids=["never committed", "committed by somebody"])
def test_07_the_workspace_of_obsidian_conflicts_with_nobody(world: World, tracked: bool) -> None:
    """obsidian-git#74 #399 #1051: what is open on which screen, changed all day on two machines.

    Both sides run the loop here; where it was committed once, somebody goes on committing it with plain git, and must
    not meet a conflict on it either.
    """
    push_as_person(world, {".gitignore": "", "Notes/a.md": "a\n"})
    if tracked:
        push_as_person(world, {WORKSPACE: '{"day": "first"}\n'})
    world.cloud.synced()
    third = Side(world.root / "third", str(world.remote), "local")
    third.vault.rmdir()
    git(world.root, "clone", "-q", str(world.remote), str(third.vault))
    for day in range(1, 5):
        for side in (world.cloud, world.local):
            side.write(WORKSPACE, f'{{"day": "{side.agent} {day}"}}\n')
            side.write(".obsidian/workspace-mobile.json", f'{{"day": "{side.agent} {day}"}}\n')
            side.write(f"Notes/{side.agent} {day}.md", "a note\n")
        if tracked:
            third.write(WORKSPACE, f'{{"day": "third {day}"}}\n')
            third.git("add", "-f", WORKSPACE)
            third.git("commit", "-qm", "by obsidian-git")
            third.git("pull", "-q", "--no-rebase", "--no-edit", "origin", "main")  # fails where it clashes
            third.git("push", "-q", "origin", "HEAD:main")
        for side in (world.cloud, world.local, world.cloud):
            assert side.synced().held == {}
            assert side.read(WORKSPACE) == f'{{"day": "{side.agent} {day}"}}\n', "the user's own was overwritten"
    files = world.remote_files()
    assert {f"Notes/{side.agent} {day}.md" for side in (world.cloud, world.local) for day in range(1, 5)} <= set(files)
    assert copies(files) == []
    for side in (world.cloud, world.local):
        assert copies(path.name for path in side.vault.rglob("*")) == []
        assert side.state.alerts() == {}
        assert "workspace" not in side.read("Dashboard.md")
    pushed = everything_ever_pushed(world)
    assert '"cloud ' not in pushed
    assert '"local ' not in pushed
    if tracked:
        assert third.read(WORKSPACE) == '{"day": "third 4"}\n'


def test_07_a_changed_workspace_alone_makes_no_commit(world: World) -> None:
    """gitdoc and git-auto-sync: a history of nothing else."""
    before = world.cloud.git("rev-parse", "HEAD")
    for day in range(3):
        world.cloud.write(".gitignore.d/../" + WORKSPACE, f"{day}")
        (world.cloud.vault / ".gitignore").write_bytes(world.remote_files()[".gitignore"].encode())
        assert (world.cloud.synced().commits, world.cloud.git("rev-parse", "HEAD")) == (0, before)


# -- 8: secrets are pushed ---------------------------------------------------------------------------------------------

SECRETS: dict[str, tuple[str, str]] = {
    # path -> (content before the secret, the secret)
    ".env": ("KEY=", "correct-horse-battery-staple"),
    ".obsidian/plugins/systemsculpt-ai/data.json": (
        '{"openAiApiKey": "',
        f"sk-proj-{random_text(74)}T3BlbkFJ{random_text(74, seed=8)}",
    ),
    ".obsidian/plugins/copilot/data.json": ('{"anthropicApiKey": "', KEY),
    "Notes/github.md": ("my token: ", f"ghp_{random_text(36)}"),
    "Notes/aws.md": ("aws_access_key_id = ", f"AKIA{random_text(16, string.ascii_uppercase + '234567')}"),
    "Notes/server.md": (
        "-----BEGIN OPENSSH " + "PRIVATE KEY-----\n",
        "\n".join(random_text(70, seed=line) for line in range(5)) + "\n-----END OPENSSH " + "PRIVATE KEY-----",
    ),
    "id_ed25519": ("", random_text(70)),
}


def test_08_no_secret_leaves_and_none_is_repeated(world: World) -> None:
    """obsidian-systemsculpt-ai#327, obsidian-copilot#15, obsidian-companion#19 (keys in a plugin's data.json), JabRef
    PR#16651 ("the unattended commit stages everything")."""
    side = world.cloud
    world.cloud.write(".gitignore", "")
    for path, (before, secret) in SECRETS.items():
        side.write(path, f"{before}{secret}\n")
    side.git("add", "-A")  # as a person, or a plugin, has staged it
    side.git("reset", "-q", "--", ".gitignore")
    side.write("Inbox/a.md", "no secret\n")
    shutil.rmtree(side.vault / ".git/objects")  # what that staged is not ours to answer for
    git(world.root, "clone", "-q", "--bare", str(world.remote), str(world.root / "objects.git"))
    shutil.copytree(world.root / "objects.git/objects", side.vault / ".git/objects")
    done = [agent(side, "sync", "--once") for _ in range(2)]
    assert [run.returncode for run in done] == [0, 0], done
    assert world.remote_files()["Inbox/a.md"] == "no secret\n"
    assert not set(SECRETS) & set(world.remote_files())
    entries = "\n".join(told(side)).replace("\\", "")
    for path in SECRETS:
        assert entries.count(Path(path).name) == sum(Path(path).name == Path(other).name for other in SECRETS), path
    said = "".join(run.stdout + run.stderr for run in done) + json.dumps(status(side)) + entries
    pushed = everything_ever_pushed(world)
    stored = git(side.vault, "cat-file", "--batch", "--batch-all-objects")
    for path, (_, secret) in SECRETS.items():
        assert secret not in pushed, f"{path} was pushed"
        assert secret not in stored, f"{path} was committed here"
        assert secret not in said, f"{path} is repeated by who found it"


def test_08_what_was_checked_is_what_is_committed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is saved with a key in it while the cycle is at any one of its git commands: it is not looked at and then
    read again."""
    victim, secret, log = world.cloud.vault / "note.md", world.root / "secret", world.root / "calls"
    secret.write_text(f"{KEY}\n")
    script = (
        'echo x >> "$CALLS"; n=$(wc -l < "$CALLS")\n[ "$n" = "$SAVE_AT" ] && cp "$SECRET" "$VICTIM"\nexec "$REAL" "$@"'
    )
    for name, value in {"CALLS": log, "SECRET": secret, "VICTIM": victim}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PATH", wrapped(world.root, "git", script)["PATH"])
    number, calls = 0, 1
    while number < calls:
        number += 1
        victim.write_text(f"harmless {number}\n")
        log.write_text("")
        monkeypatch.setenv("SAVE_AT", str(number))
        world.cloud.sync()
        calls = len(log.read_text().split())
        assert KEY not in git(world.remote, "log", "-p", "main"), f"pushed: saved at command {number}"
    assert number > 3, "the wrapper was not used"


# -- 9: the robot commits conflict markers -----------------------------------------------------------------------------


def settle_as_told(side: Side) -> None:
    """Whatever still has markers is named on the Dashboard; a person settles it."""
    entries = "\n".join(told(side)).replace("\\", "")
    for path in [*side.vault.glob("*.md"), *side.vault.glob("Notes/*.md")]:
        if has_markers({path.name: path.read_text()}):
            assert f"{path.name}: it holds conflict markers" in entries
            path.write_text("settled\n")


def test_09_a_stash_that_clashed(world: World) -> None:
    """sageox/ox PR#811 (`git add -A` after `git stash pop`), Lexus2016 PR#207. There is no MERGE_HEAD then, and the
    rest of the stash is staged."""
    side = world.local
    side.write("note.md", "one\nstashed\nthree\nfour\nfive\n")
    side.write("Company_Handbook.md", "also from the stash\n")
    side.git("stash", "-q")
    world.cloud.write("note.md", "one\ncloud\nthree\nfour\nfive\n")
    world.cloud.synced()
    side.git("pull", "-q", "origin", "main")
    side.git("stash", "pop", "-q", check=False)
    assert "<<<<<<< " in side.read("note.md"), "there is no clash"
    side.write("Inbox/since.md", "written since\n")
    for _ in range(2):
        side.synced()
        world.cloud.synced()
    files = world.remote_files()
    assert files["Inbox/since.md"] == "written since\n"
    assert files["Company_Handbook.md"] == "also from the stash\n"
    assert "cloud\n" in files["note.md"]
    kept = "\n".join([*files.values(), side.git("stash", "list", "-p")])
    assert "stashed" in kept, "what was stashed is nowhere"
    settle_as_told(side)
    world.converge()


def test_09_markers_that_are_staged_already(world: World) -> None:
    """gsd-2#6077: `git add -A` has taken the conflict off the index; what is left is a file with markers in it."""
    side = world.local
    world.cloud.write("note.md", "one\ncloud\nthree\nfour\nfive\n")
    world.cloud.synced()
    side.write("note.md", "one\nlocal\nthree\nfour\nfive\n")
    commit_all(side.vault)
    side.git("fetch", "-q", "origin")
    side.git("merge", "-q", "origin/main", check=False)
    side.git("add", "-A")
    side.write("Inbox/since.md", "written since\n")
    for _ in range(2):
        side.sync()
        world.cloud.synced()
        files = world.remote_files()
        assert has_markers(files) == []
    assert files["Inbox/since.md"] == "written since\n"
    assert "cloud" in "\n".join(files.values())
    assert "local" in everything_ever_pushed(world)
    settle_as_told(side)
    world.converge()


def test_09_the_half_merge_that_obsidian_git_leaves(world: World) -> None:
    """It leaves the merge open, writes a note that lists the files, and commits no more until a person is done."""
    side = world.local
    world.cloud.write("note.md", "one\ncloud\nthree\nfour\nfive\n")
    world.cloud.write("Notes/clean.md", "merged without a clash\n")
    world.cloud.synced()
    side.write("note.md", "one\nlocal\nthree\nfour\nfive\n")
    commit_all(side.vault, "vault backup")
    side.git("pull", "-q", "--no-rebase", "origin", "main", check=False)
    assert (side.vault / ".git/MERGE_HEAD").exists()
    side.write("conflict-files-obsidian-git.md", "# Conflicts\n\n- [[note.md]]\n")
    side.write("Notes/since.md", "written while it was open\n")
    files = world.converge()
    assert files["Notes/since.md"] == "written while it was open\n"
    assert files["Notes/clean.md"] == "merged without a clash\n"
    both = "\n".join(files.values())
    assert "one\ncloud\n" in both
    assert "one\nlocal\n" in both
    assert not (side.vault / ".git/MERGE_HEAD").exists()
    assert side.git("ls-files", "--unmerged") == ""


def test_09_a_file_with_markers_waits_alone_and_says_so(world: World) -> None:
    """Whoever wrote them: that file waits, is named once, and all else is synced."""
    text = "<<<<<<< Updated upstream\na\n=======\nb\n>>>>>>> Stashed changes\n"
    world.cloud.write("note.md", text)
    for number in range(3):
        world.cloud.write(f"Inbox/{number}.md", "x\n")
        assert list(world.cloud.synced().held) == ["note.md"]
        assert f"Inbox/{number}.md" in world.remote_files()
    assert has_markers(world.remote_files()) == []
    assert len([line for line in told(world.cloud) if "note.md" in line]) == 1


# -- 10: the history grows, and breaks ---------------------------------------------------------------------------------


def empty(path: Path) -> None:
    """What a power loss leaves of a file whose content had not reached the disk."""
    path.chmod(0o644)
    path.write_bytes(b"")


@pytest.mark.parametrize("which", ["the last commit", "all"])
def test_10_objects_emptied_by_a_power_loss(world: World, which: str) -> None:
    """obsidian-git#567, VoronTools#8: `object file is empty`, for ever. The remote has them: they are fetched again."""
    side = world.cloud
    side.write("Notes/a.md", "a\n")
    side.synced()
    before = objects_of(side)
    side.write("Notes/b.md", "b\n")
    side.synced()
    remote_tip = git(world.remote, "rev-parse", "main")
    for path in objects_of(side) - (before if which == "the last commit" else set()):
        empty(path)
    side.write("Notes/c.md", "written since\n")
    side.write("note.md", "edited since\n")
    healed(side)
    files = world.remote_files()
    assert {"Notes/a.md": "a\n", "Notes/b.md": "b\n", "Notes/c.md": "written since\n", "note.md": "edited since\n"}.items() <= files.items()  # fmt: skip  # noqa: E501
    assert git(world.remote, "merge-base", "--is-ancestor", remote_tip, "main") == "", "the history was thrown away"
    assert copies(files) == []
    world.converge()
    assert side.git("fsck", "--no-dangling", "--no-progress") == ""


def test_10_an_unpushed_commit_emptied_by_a_power_loss(world: World) -> None:
    """Nobody else has it; but what it held lies in the files."""
    side = world.cloud
    side.set_remote(f"git://127.0.0.1:{refused_port()}/vault.git")
    before = objects_of(side)
    side.write("Notes/unpushed.md", "only here\n")
    side.write("note.md", "edited, only here\n")
    assert side.sync().result == "later"
    for path in objects_of(side) - before:
        empty(path)
    side.set_remote(str(world.remote))
    healed(side)
    files = world.converge()
    assert files["Notes/unpushed.md"] == "only here\n"
    assert files["note.md"] == "edited, only here\n" or "edited, only here\n" in files.values()
    assert side.git("fsck", "--no-dangling", "--no-progress") == ""


@pytest.mark.parametrize(
    "name", ["HEAD", "refs/heads/main", "refs/remotes/origin/main", "index", "config", "packed-refs", "FETCH_HEAD"]
)
@pytest.mark.parametrize("content", [b"", b"\0" * 41], ids=["empty", "zeros"])
def test_10_a_file_of_git_emptied_by_a_power_loss(world: World, name: str, content: bytes) -> None:
    """The same for the files that name commits: an empty one, or one of zeros as some file systems leave it."""
    side = world.cloud
    side.write("Notes/a.md", "a\n")
    side.synced()
    remote_tip = git(world.remote, "rev-parse", "main")
    (side.vault / ".git" / name).write_bytes(content)
    side.write("Notes/b.md", "written since\n")
    push_as_person(world, {"theirs.md": "x\n"})
    healed(side)
    files = world.converge()
    assert {"Notes/a.md": "a\n", "Notes/b.md": "written since\n", "theirs.md": "x\n"}.items() <= files.items()
    assert copies(files) == []
    assert git(world.remote, "merge-base", "--is-ancestor", remote_tip, "main") == ""


def test_10_loose_objects_are_packed_in_the_background(world: World) -> None:
    """obsidian-git#947, gitdoc#3, git-auto-sync's todo ("these constant small commits"): 20,000 small commits never
    packed are 486 MiB instead of 11."""
    side = world.cloud
    stream = []
    for number in range(1200):  # 3,600 objects
        stream.append(
            f"commit refs/heads/main\ncommitter C <c@example.org> {1700000000 + number} +0000\ndata 1\nx\n"
            + ("from refs/heads/main^0\n" if number == 0 else "")
            + f"M 644 inline Notes/day.md\ndata {len(str(number)) + 1}\n{number}\n\n"
        )
    git(side.vault, "-c", "fastimport.unpackLimit=100000", "fast-import", "--quiet", stdin="".join(stream))
    side.git("reset", "-q", "--hard")
    assert count_loose(side) > 3000
    side.write("Inbox/a.md", "a\n")
    syncer = side.syncer()
    synced(syncer)
    for number in range(3):
        side.write("Inbox/a.md", f"{number}\n")
        synced(syncer)
    wait_for(lambda: count_loose(side) < 1000 and at_work_in(side.vault) == [], 30)
    assert side.git("fsck", "--no-dangling", "--no-progress") == ""
    assert world.remote_files()["Notes/day.md"] == "1199\n"


# -- 11: conflict copies multiply --------------------------------------------------------------------------------------


def test_11_copies_of_one_note_are_bounded_and_none_is_copied_again(world: World) -> None:
    """syncthing#2282 -> maxConflicts. Every day the same note is changed on both sides, and nobody tidies up."""
    for day in range(1, 26):
        push_as_person(world, {"note.md": f"local {day}\n"})
        world.cloud.write("note.md", f"cloud {day}\n")
        world.cloud.synced()
    files = world.converge()
    assert 1 <= len(copies(files)) <= 10
    lines = {line for text in files.values() for line in text.splitlines()}
    assert {"local 25", "cloud 25", "cloud 1"} <= lines, "a line that nobody removed is in no file"
    pushed = everything_ever_pushed(world)
    assert all(f"+cloud {day}\n" in pushed for day in range(1, 26)), "a version is in no commit"
    # both sides edit a copy: still one marker a name
    copy = copies(files)[0]
    push_as_person(world, {copy: "copy, by local\n"})
    world.cloud.write(copy, "copy, by cloud\n")
    files = world.converge()
    assert all(path.count(".conflict-") == 1 for path in copies(files))
    lines = {line for text in files.values() for line in text.splitlines()}
    assert {"copy, by local", "copy, by cloud"} <= lines


def test_11_a_copy_is_told_and_what_a_person_removes_stays_removed(world: World) -> None:
    """A copy that nobody knows of is lost work all the same."""
    push_as_person(world, {"note.md": "local\n"})
    world.cloud.write("note.md", "cloud\n")
    world.cloud.synced()
    (copy,) = copies(world.converge())
    entries = [line for line in told(world.cloud) if "conflict" in line]
    assert len(entries) == 1
    assert "note" in entries[0]
    push_as_person(world, {"note.md": "local and cloud\n", copy: None})
    for _ in range(2):
        files = world.converge()
        assert copies(files) == []
    assert files["note.md"] == "local and cloud\n"


def test_11_two_who_settle_the_same_conflict_make_one_copy(world: World) -> None:
    """Syncthing and git-annex: a name made from the content, or each resolver adds its own."""
    push_as_person(world, {"note.md": "theirs\n"})
    clones = []
    for name in ("one", "two"):
        clone = Side(world.root / name, str(world.remote))
        shutil.rmtree(clone.vault)
        shutil.copytree(world.cloud.vault, clone.vault)
        clone.write("note.md", "ours\n")
        clones.append(clone)
    for clone in (*clones, *clones):
        clone.synced()
    files = world.converge()
    assert [files[path] for path in copies(files)] == ["ours\n"]


def test_11_a_maintained_file_is_never_copied(world: World) -> None:
    """markdown-vault-mcp#1395: for a file that a program keeps, a copy is wrong."""
    month = f"Logs/Cloud/sync-{NOW:%Y-%m}.jsonl"
    for day in range(5):
        push_as_person(
            world, {"Dashboard.md": f"# Dashboard\n\nDay {day}.\n\n## Updates\n\n- old\n", month: f'"l{day}"\n'}
        )
        world.cloud.write("Dashboard.md", f"# Dashboard\n\nMine.\n\n## Updates\n\n- day {day}\n- old\n")
        world.cloud.write(month, f'"c{day}"\n')
        files = world.converge()
        assert copies(files) == []
        assert "Day " in files["Dashboard.md"]
        assert f"- day {day}" in files["Dashboard.md"]


# -- 12: a mass deletion from an empty side ----------------------------------------------------------------------------


def fill(world: World, count: int = 40) -> None:
    for number in range(count):
        world.cloud.write(f"Notes/{number}.md", f"{number}\n")
    world.converge()


def test_12_our_side_was_emptied(world: World) -> None:
    """vdirsyncer#42. Held, told, everything else goes on; and what it says brings the files back does so."""
    fill(world)
    side = world.cloud
    before = world.remote_files()
    for entry in side.vault.iterdir():
        if entry.name != ".git":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for number in range(3):
        side.write("Inbox/new.md", f"{number}\n")
        done = agent(side, "sync", "--once")
        assert done.returncode == 0, done.stderr
    files = world.remote_files()
    assert set(before) - set(files) == set(), "a deletion was pushed"
    assert files["Inbox/new.md"] == "2\n"
    alerts = [alert["message"] for alert in status(side)["alerts"]]
    assert any("deleted files" in alert and "--allow-deletions" in alert for alert in alerts)
    (entry,) = [line for line in told(side) if "deleted files" in line]
    command = re.search(r"git checkout [-. ]+", entry)
    assert command, entry
    subprocess.run(shlex.split(command[0]), cwd=side.vault, env=PERSON, check=True, capture_output=True)
    side.synced()
    assert {
        path: text for path, text in world.remote_files().items() if path in before and path.startswith("Notes/")
    } == {path: text for path, text in before.items() if path.startswith("Notes/")}
    assert (side.vault / "Notes/0.md").exists()
    assert status(side)["alerts"] == []


def test_12_the_folder_itself_was_emptied(world: World) -> None:
    """A disk that is not mounted: an empty folder, without .git. The vault arrives anew, and nothing is deleted."""
    fill(world)
    before = world.remote_files()
    shutil.rmtree(world.cloud.vault)
    world.cloud.vault.mkdir()
    healed(world.cloud)
    assert world.remote_files().items() >= before.items()
    assert world.cloud.read("Notes/0.md") == "0\n"


def test_12_the_remotes_side_was_emptied_by_a_person(world: World) -> None:
    """A person's word counts, so it arrives; but it is told, with the command that brings everything back."""
    fill(world)
    before = world.remote_files()
    side = world.local
    side.git("rm", "-q", "-r", ".")
    side.git("commit", "-qm", "oops")
    side.git("push", "-q", "origin", "HEAD:main")
    world.cloud.synced()
    assert not (world.cloud.vault / "Notes/0.md").exists()
    entries = [line for line in told(world.cloud) if "delet" in line]
    assert len(entries) == 1
    assert re.search(r"\b4\d\b", entries[0]), f"how many: {entries[0]}"
    command = entries[0].replace("\\", "").rpartition(": ")[2].strip("`")
    assert command.startswith("git "), entries[0]
    subprocess.run(["sh", "-ec", command], cwd=world.cloud.vault, env=PERSON, check=True, capture_output=True)
    files = world.converge()
    assert {path: files.get(path) for path in before if path.startswith("Notes/")} == {
        path: text for path, text in before.items() if path.startswith("Notes/")
    }


# -- 13: the daemon leaks ----------------------------------------------------------------------------------------------


@dataclass
class Held:
    """What a process holds: open descriptors, threads, children (zombies too), resident KiB."""

    descriptors: int
    threads: int
    children: int
    resident: int

    @classmethod
    def of(cls, pid: int) -> "Held":
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        return cls(
            len(os.listdir(f"/proc/{pid}/fd")), int(facts["Threads"]), len(children(pid)),
            int(facts["VmRSS"].split()[0]),
        )  # fmt: skip


def test_13_two_hundred_cycles_leave_nothing_behind(world: World) -> None:
    """GitPython#1208 (6,000 `git cat-file` children), #60, #718; airflow PR#54997, packit PR#1384.

    Idle cycles, sent and received ones, conflicts, and a remote that is away.
    """
    side = world.cloud
    away = world.root / "away.git"
    with running(side) as loop:
        loop.reach(1)

        def round_of_cycles(number: int) -> None:
            for step in range(10):
                if step in (2, 5):
                    side.write(f"Notes/{number % 7}.md", f"{number} {step}\n")
                if step == 5:
                    push_as_person(world, {"note.md": f"local {number}\n"})
                if step == 7:
                    world.remote.rename(away)
                loop.ask()
                if step == 7:
                    away.rename(world.remote)

        for number in range(4):
            round_of_cycles(number)
        before = Held.of(loop.process.pid)
        for number in range(20):
            round_of_cycles(number)
        loop.ask()
        after = Held.of(loop.process.pid)
        assert loop.cycles >= 240
        loop.stop()
    assert after.descriptors <= before.descriptors + 2, (before, after)
    assert after.threads <= before.threads + 1, (before, after)
    assert after.children <= before.children + 1, (before, after)
    assert after.resident <= before.resident + 2048, (before, after)
    assert world.remote_files()["note.md"] == "local 19\n"


def test_13_nothing_of_it_runs_after_a_stop(world: World) -> None:
    """gitwatch#69: six processes left after the stop, each with its lock."""
    slow = 'case " $* " in *" push "*) sleep 0.5;; esac\nexec "$REAL" "$@"'
    side = world.cloud
    with running(side, **wrapped(world.root, "git", slow)) as loop:
        loop.reach(1)
        for number in range(3):
            side.write("Inbox/a.md", f"{number}\n")
            loop.ask()
        side.write("Inbox/a.md", "last\n")
        loop.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: bool(children(loop.process.pid)))
        loop.stop()
    wait_for(lambda: at_work_in(side.vault) == [], 5)
    assert list((side.vault / ".git").rglob("*.lock")) == []


# -- 14: a missing identity looks like a conflict ----------------------------------------------------------------------

NOBODY = {"HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "EMAIL": "", "LOGNAME": "", "USER": ""}


def both_sides_changed(world: World) -> None:
    """A merge commit has to be made, and a clash copied."""
    push_as_person(world, {"note.md": "local\n", "theirs.md": "x\n"})
    world.cloud.write("note.md", "cloud\n")
    world.cloud.write("Inbox/a.md", "a\n")


def assert_joined(world: World, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert "identity" not in done.stdout + done.stderr
    assert {"Inbox/a.md", "theirs.md"} <= set(world.remote_files())
    names = git(world.remote, "log", "--format=%an|%cn|%ae|%ce", "--grep=^Cloud: ", "main").splitlines()
    address = "cloud-agent@personal-ai-employee.invalid"
    assert set(names) == {f"Cloud Agent|Cloud Agent|{address}|{address}"}


@pytest.mark.parametrize(
    "setting", ["none", "user.useConfigOnly=true", "user.name=", "user.email=", "author.name=", "committer.email="]
)
def test_14_no_identity_anywhere(world: World, setting: str) -> None:
    """markdown-vault-mcp#1362: the first divergence stopped with "Committer identity unknown", told as a conflict."""
    if setting != "none":
        world.cloud.git("config", *setting.split("=", 1))
    both_sides_changed(world)
    assert_joined(world, agent(world.cloud, "sync", "--once", **NOBODY))


def test_14_no_home_at_all(world: World) -> None:
    both_sides_changed(world)
    done = subprocess.run(
        ["env", "-u", "HOME", *world.cloud.command("sync", "--once")], cwd=world.cloud.home, check=False,
        env={**PLAIN, "GIT_CONFIG_NOSYSTEM": "1"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert_joined(world, done)


def test_14_a_host_name_that_nobody_resolves(world: World) -> None:
    """git asks for the full host name when it has to make an address up; that waits for the resolver, or fails."""
    separate = ["unshare", "--uts", "--map-root-user"]
    if subprocess.run([*separate, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine allows no name space of its own")
    both_sides_changed(world)
    code = "import os, socket, sys; socket.sethostname('nowhere'); os.execvp(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [*separate, sys.executable, "-c", code, *world.cloud.command("sync", "--once")], cwd=world.cloud.home,
        env={**PLAIN, **NOBODY}, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert_joined(world, done)


@pytest.mark.parametrize(
    "stderr",
    [
        "Committer identity unknown\n\n*** Please tell me who you are.\n",
        "Author identity unknown\n\n*** Please tell me who you are.\n",
        "fatal: unable to auto-detect email address (got 'root@nowhere.(none)')\n",
        "fatal: empty ident name (for <a@example.org>) not allowed\n",
        "fatal: no email was given and auto-detection is disabled\n",
        "fatal: unable to look up current user in the passwd file: no such user\n",
    ],
)
def test_14_a_missing_identity_is_told_as_one(stderr: str) -> None:
    """Should git ever ask for one all the same, the message says what is missing; it is no conflict and no outage."""
    kind, mend = agent_git.classify(stderr, remote=False)
    assert kind == "identity"
    assert mend
