"""The installed command: exit statuses, signals, two loops at once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gitkit import PLAIN, Side, World


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def cycles(side: Side) -> int:
    try:
        return int(json.loads((side.home / "state" / "sync.json").read_text())["cycle"])
    except FileNotFoundError:
        return 0


def listens(process: subprocess.Popen[str]) -> bool:
    """Whether the process catches SIGUSR1 by now, which would end it before."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGUSR1 - 1) & 1)


@contextmanager
def loop(side: Side) -> Iterator[subprocess.Popen[str]]:
    """A running `cloud-agent sync` with an hour between its cycles."""
    process = subprocess.Popen(
        side.command("sync"), cwd=side.home, env=PLAIN, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_once_synced_and_nothing_to_do(world: World) -> None:
    world.cloud.write("Inbox/a.md", "a\n")
    done = world.cloud.run("sync", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Cloud: 1 file updated" in done.stdout
    assert "Inbox/a.md" in world.remote_files()
    assert world.cloud.run("sync", "--once").returncode == 0
    beat = json.loads((world.cloud.home / "state" / "sync.json").read_text())
    assert beat["result"] == "ok"
    assert {"pid", "cycle", "started", "finished"} <= set(beat)


def test_once_not_synced_for_now(world: World) -> None:
    world.cloud.set_remote(str(world.root / "nowhere.git"))
    done = world.cloud.run("sync", "--once")
    assert done.returncode == 75
    assert "no such repository" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((world.cloud.home / "state" / "sync.json").read_text())["result"] == "later"


def test_once_misconfigured(world: World) -> None:
    world.cloud.env_file.write_text("VAULT_PATH=/nowhere\nSMTP_PASSWORD=x\n")
    done = world.cloud.run("sync", "--once")
    assert done.returncode == 78
    assert "GIT_REMOTE_URL" in done.stderr


def test_once_allow_deletions(world: World) -> None:
    for number in range(20):
        world.cloud.write(f"Notes/{number}.md", f"{number}\n")
    assert world.cloud.run("sync", "--once").returncode == 0
    for number in range(20):
        (world.cloud.vault / f"Notes/{number}.md").unlink()
    assert world.cloud.run("sync", "--once").returncode == 0
    assert "Notes/0.md" in world.remote_files()
    assert world.cloud.run("sync", "--once", "--allow-deletions").returncode == 0
    assert "Notes/0.md" not in world.remote_files()


def test_now_without_a_loop(world: World) -> None:
    done = world.cloud.run("sync", "--now")
    assert done.returncode == 75
    assert "no sync loop is running" in done.stdout + done.stderr


@pytest.mark.parametrize("way", ["--now", "SIGUSR1"])
def test_asked_loop_syncs_at_once_and_stops_cleanly(world: World, way: str) -> None:
    with loop(world.cloud) as process:
        wait_for(lambda: cycles(world.cloud) == 1)
        world.cloud.write("Inbox/a.md", "a\n")
        if way == "--now":
            assert world.cloud.run("sync", "--now").returncode == 0
        else:
            process.send_signal(signal.SIGUSR1)
        wait_for(lambda: cycles(world.cloud) == 2)
        assert "Inbox/a.md" in world.remote_files()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stopped cleanly" in out
    assert err == ""


def test_a_cycle_by_hand_leaves_the_loops_beat_alone(world: World) -> None:
    """`status` and `sync --now` go by the pid in the beat."""
    with loop(world.cloud) as process:
        wait_for(lambda: cycles(world.cloud) == 1)
        world.cloud.write("Inbox/a.md", "a\n")
        assert world.cloud.run("sync", "--once").returncode == 0
        assert world.cloud.run("sync", "--now").returncode == 0
        wait_for(lambda: cycles(world.cloud) == 2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_loop_does_not_allow_deletions_for_ever(world: World) -> None:
    done = world.cloud.run("sync", "--allow-deletions")
    assert done.returncode == 2
    assert "--once" in done.stderr


def test_stop_in_the_middle_of_a_back_off(world: World) -> None:
    """SIGTERM while it is offline: it does not wait for the tries to end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    world.cloud.set_remote(f"git://127.0.0.1:{port}/vault.git")
    world.cloud.write("Inbox/a.md", "a\n")
    with loop(world.cloud) as process:
        wait_for(lambda: world.cloud.subject() == "Cloud: 1 file updated")
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert time.monotonic() - began < 2.5


def test_two_loops_at_once_are_harmless(world: World) -> None:
    with loop(world.cloud) as one, loop(world.cloud) as two:
        # The beat is that of one of them.
        wait_for(lambda: cycles(world.cloud) == 1 and listens(one) and listens(two))
        for number in range(8):
            world.cloud.write(f"Inbox/{number}.md", f"{number}\n")
            for process in (one, two):
                process.send_signal(signal.SIGUSR1)
        wait_for(lambda: {f"Inbox/{number}.md" for number in range(8)} <= set(world.remote_files()))
        for process in (one, two):
            process.send_signal(signal.SIGTERM)
        errors = [process.communicate(timeout=60)[1] for process in (one, two)]
    assert errors == ["", ""]
    assert (one.returncode, two.returncode) == (0, 0)
    assert world.cloud.git("log", "--format=%s").count("Cloud: ") <= 8
    world.converge()


def test_a_burst_of_signals_does_not_wedge_the_loop() -> None:
    """An Event that a signal handler sets while the main thread holds its lock waits for itself, for ever."""
    code = (
        "from cloud_agent.loop import Signals, run\n"
        "signals = Signals(); signals.install(); print('up', flush=True)\n"
        "run(lambda _: None, 3600, signals)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        for _ in range(20_000):
            process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_restart_on_the_same_state(world: World) -> None:
    """Killed and started again, as PM2 does it."""
    for number in range(3):
        with loop(world.cloud) as process:
            wait_for(lambda number=number: cycles(world.cloud) >= 1)
            world.cloud.write(f"Inbox/{number}.md", "x\n")
            os.kill(process.pid, signal.SIGKILL)
        (world.cloud.home / "state" / "sync.json").unlink()
    assert world.cloud.run("sync", "--once").returncode == 0
    assert {f"Inbox/{number}.md" for number in range(3)} <= set(world.remote_files())
