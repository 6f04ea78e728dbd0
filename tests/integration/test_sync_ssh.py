"""The sync over ssh: a real sshd, a real deploy key, a pinned host key, one connection kept between cycles."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cloud_agent import dashboard, status, sync
from cloud_agent.sync import Outcome

from tests import sshd
from tests.gitkit import NOW, Side, World, git, push_as_person
from tests.integration.conftest import SEED

# CI installs it; without it there, nothing of this would be tested and nobody would know.
pytestmark = pytest.mark.skipif(sshd.PROGRAM is None and "CI" not in os.environ, reason=sshd.INSTALL_IT)

OTHER_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a shorter name than pytest's: the socket of the kept connection lies in it."""
    made = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sshd.Sshd]:
    with sshd.Sshd(folder / "sshd", folder) as running:
        monkeypatch.setenv("PATH", f"{running.bin}:{os.environ['PATH']}")
        yield running


@pytest.fixture
def ssh_world(folder: Path, server: sshd.Sshd) -> World:
    """Cloud reaches the remote over ssh; Local by its path, as another machine whose connection does not matter."""
    made = World(folder)
    made.seed(SEED)
    use(made.cloud, server, server.url(made.remote.name))
    return made


def use(side: Side, server: sshd.Sshd, url: str) -> None:
    side.set_remote(url)
    side.config = replace(side.config, git_ssh_key_path=server.key)
    with side.env_file.open("a") as file:
        file.write(f"GIT_SSH_KEY_PATH={server.key}\n")


def alert(side: Side) -> str:
    return side.state.alerts().get("sync", {}).get("message", "")


def shown(side: Side) -> str:
    """What `cloud-agent status` prints."""
    return status.render(status.collect(side.config, NOW))


def not_synced(side: Side, kind: str, advice: str) -> Outcome:
    """A cycle that does not get through, and says so: on the Dashboard, where somebody has to do something."""
    outcome = side.sync()
    assert outcome.result == "later"
    assert alert(side).startswith(f"{kind}: "), alert(side)
    assert advice in outcome.message
    assert advice in shown(side)
    assert (dashboard.plain(advice) in side.read("Dashboard.md")) == (kind != "offline")
    return outcome


def synced_again(side: Side, world: World, path: str) -> None:
    side.synced()
    assert alert(side) == ""
    assert path in world.remote_files()


def master(server: sshd.Sshd, side: Side) -> int:
    """The process that keeps the connection."""
    (path,) = (side.home / "state").glob("ssh-*")
    done = subprocess.run(["ssh", "-S", path, "-O", "check", "x"], check=True, capture_output=True, text=True)
    return int(done.stderr.partition("pid=")[2].rstrip(")\r\n"))


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts, as the kernel does for it, and says nothing; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_both_directions(ssh_world: World) -> None:
    push_as_person(ssh_world, {"Inbox/theirs.md": "theirs\n"})
    ssh_world.cloud.write("Inbox/ours.md", "ours\n")
    outcome = ssh_world.cloud.synced()
    assert (outcome.received, outcome.pushed) == (True, True)
    assert ssh_world.cloud.read("Inbox/theirs.md") == "theirs\n"
    assert ssh_world.remote_files()["Inbox/ours.md"] == "ours\n"
    ssh_world.converge()


def test_first_sync_into_an_empty_folder(ssh_world: World, server: sshd.Sshd, folder: Path) -> None:
    late = Side(folder / "late", server.url(ssh_world.remote.name), "cloud-2")
    use(late, server, late.remote)
    late.synced()
    assert late.files() == set(ssh_world.remote_files())


def test_the_installed_command(ssh_world: World, server: sshd.Sshd) -> None:
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    environment = {**os.environ, "HOME": "/nonexistent"}
    command = ssh_world.cloud.command("sync", "--once")
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Inbox/a.md" in ssh_world.remote_files()
    assert server.authentications() == 1  # … which did not keep the command from ending


def test_one_connection_serves_all_cycles(ssh_world: World, server: sshd.Sshd) -> None:
    syncer = ssh_world.cloud.syncer()
    for number in range(3):
        push_as_person(ssh_world, {f"Inbox/theirs-{number}.md": "x\n"})
        ssh_world.cloud.write(f"Inbox/ours-{number}.md", "x\n")
        assert syncer.cycle().result == "ok"
        assert syncer.cycle().result == "ok"
    assert server.authentications() == 1
    assert {f"Inbox/ours-{number}.md" for number in range(3)} <= set(ssh_world.remote_files())


def test_refused_key(ssh_world: World, server: sshd.Sshd) -> None:
    server.authorize("")
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    not_synced(ssh_world.cloud, "refused", "register the deploy key")
    assert ssh_world.cloud.slept == []  # trying again at once would not help
    server.authorize("write")
    synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")


def test_key_that_may_only_read(ssh_world: World, server: sshd.Sshd) -> None:
    server.authorize("read")
    push_as_person(ssh_world, {"Inbox/theirs.md": "theirs\n"})
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    outcome = not_synced(ssh_world.cloud, "refused", "with write access")
    assert not outcome.pushed
    assert ssh_world.cloud.read("Inbox/theirs.md") == "theirs\n"  # what can be done is done
    assert "Inbox/a.md" not in ssh_world.remote_files()
    server.authorize("write")  # which a connection that was let in as a reader does not learn of
    synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")


def test_key_that_is_taken_away_while_its_connection_is_kept(ssh_world: World, server: sshd.Sshd) -> None:
    ssh_world.cloud.synced()
    server.authorize("")
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    ssh_world.cloud.synced()  # it was let in before
    (kept,) = (ssh_world.cloud.home / "state").glob("ssh-*")
    an_hour_ago = NOW.timestamp() - 3601
    os.utime(kept, (an_hour_ago, an_hour_ago))
    ssh_world.cloud.write("Inbox/b.md", "b\n")
    not_synced(ssh_world.cloud, "refused", "register the deploy key")


@pytest.mark.parametrize("known", ["", OTHER_HOST_KEY], ids=["unknown", "changed"])
def test_host_key_that_is_not_the_pinned_one(ssh_world: World, server: sshd.Sshd, known: str) -> None:
    server.pin(known)
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    not_synced(ssh_world.cloud, "host key", "deploy_key_known_hosts")
    assert server.authentications() == 0  # our key was never shown to it
    server.pin()
    synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")


def test_missing_repository(ssh_world: World, server: sshd.Sshd) -> None:
    use(ssh_world.cloud, server, server.url("other.git"))
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    not_synced(ssh_world.cloud, "missing", "GIT_REMOTE_URL")
    use(ssh_world.cloud, server, server.url(ssh_world.remote.name))
    synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")


def test_push_that_the_remotes_rules_refuse(ssh_world: World) -> None:
    hook(ssh_world, "pre-receive", "echo 'no pushes on Sundays' >&2; exit 1")
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    not_synced(ssh_world.cloud, "declined", "branch protection")
    (ssh_world.remote / "hooks" / "pre-receive").unlink()
    synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")


def test_nobody_listens(ssh_world: World, server: sshd.Sshd) -> None:
    server.stop()
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    not_synced(ssh_world.cloud, "offline", "cannot be reached")
    waits = ssh_world.cloud.slept
    assert len(waits) == sync.TRIES - 1
    assert waits[0] < waits[1]
    server.start()
    synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")


def test_remote_that_accepts_and_says_nothing(
    ssh_world: World, server: sshd.Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ssh_world.cloud.remote
    with silent_server() as port, monkeypatch.context() as impatient:
        impatient.setattr(sync, "NETWORK_DEADLINE", 0.3)
        use(ssh_world.cloud, server, before.replace(f":{server.port}/", f":{port}/"))
        ssh_world.cloud.write("Inbox/a.md", "a\n")
        not_synced(ssh_world.cloud, "offline", "did not complete in")
    use(ssh_world.cloud, server, before)
    synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")


def test_stop_while_the_remote_says_nothing(ssh_world: World, server: sshd.Sshd) -> None:
    """SIGTERM does not wait for the deadline."""
    side = ssh_world.cloud
    with silent_server() as port:
        use(side, server, side.remote.replace(f":{server.port}/", f":{port}/"))
        side.write("Inbox/a.md", "a\n")
        with subprocess.Popen(side.command("sync"), stdout=subprocess.PIPE, text=True) as loop:
            assert loop.stdout
            said = ""
            while "committed" not in said:
                said = loop.stdout.readline()
                assert said, "it ended by itself"
            began = time.monotonic()
            loop.send_signal(signal.SIGTERM)
            assert "stopped cleanly" in loop.stdout.read()
            assert loop.wait() == 0
    assert time.monotonic() - began < 5  # ssh itself would wait for 15 s, the deadline is 60 s


def test_connection_that_broke_between_cycles(ssh_world: World, server: sshd.Sshd) -> None:
    ssh_world.cloud.synced()
    server.drop_connections()
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")
    assert ssh_world.cloud.slept == []


def test_killed_keeper_of_the_connection(ssh_world: World, server: sshd.Sshd) -> None:
    """Its socket stays, and nobody listens on it."""
    ssh_world.cloud.synced()
    os.kill(master(server, ssh_world.cloud), signal.SIGKILL)
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")
    ssh_world.cloud.synced()
    assert server.authentications() == 2  # and a connection is kept again
    assert ssh_world.cloud.slept == []


def test_hanging_keeper_of_the_connection(ssh_world: World, server: sshd.Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket takes every call, and none is answered: a deadline ends that, and the next try goes its own way."""
    monkeypatch.setattr(sync, "NETWORK_DEADLINE", 1.0)
    ssh_world.cloud.synced()
    stuck = master(server, ssh_world.cloud)
    os.kill(stuck, signal.SIGSTOP)
    try:
        ssh_world.cloud.write("Inbox/a.md", "a\n")
        synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")
    finally:
        os.kill(stuck, signal.SIGKILL)


def test_answer_to_a_push_that_got_lost(ssh_world: World) -> None:
    """The remote took it, and the connection broke before it said so: it counts once the remote has said it."""
    once = ssh_world.root / "once"
    hook(ssh_world, "post-receive", f"[ -e {once} ] || {{ touch {once}; kill -KILL $PPID; }}")
    ssh_world.cloud.write("Inbox/a.md", "a\n")
    synced_again(ssh_world.cloud, ssh_world, "Inbox/a.md")
    assert once.exists()
    assert ssh_world.cloud.git("rev-parse", "HEAD") == git(ssh_world.remote, "rev-parse", "main")
    assert git(ssh_world.remote, "log", "--format=%s", "main").splitlines() == ["Cloud: 1 file updated", "seed"]


def test_failure_is_told_once(ssh_world: World, server: sshd.Sshd) -> None:
    """Offline is a state, not an error a minute."""
    server.stop()
    for _ in range(3):
        not_synced(ssh_world.cloud, "offline", "cannot be reached")
    server.start()
    ssh_world.cloud.synced()
    log = "".join(file.read_text() for file in (ssh_world.cloud.vault / "Logs" / "Cloud").iterdir())
    assert log.count("sync_failed") == 1
    assert log.count("sync_recovered") == 1


def hook(world: World, name: str, script: str) -> None:
    file = world.remote / "hooks" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
