"""Both sides write, move and delete at random while their syncs are killed at random; then all comes together."""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cloud_agent import mend

from tests.gitkit import PLAIN, Side, World, git

SEEDS = range(int(os.environ.get("SYNC_STORMS", "2")))  # for as long as one likes
ROUNDS = 12
FOLDERS = ["Inbox", "Approved/Email", "Done/Email", "Notes"]


class Author:
    """Somebody who writes lines that exist once, and remembers which ones nobody removed."""

    def __init__(self, side: Side, dice: random.Random) -> None:
        self.side = side
        self.dice = dice
        self.number = 0
        self.written: set[str] = set()
        self.removed: set[str] = set()

    def files(self) -> list[Path]:
        return [path for folder in FOLDERS for path in sorted((self.side.vault / folder).glob("*.md"))]

    def line(self) -> str:
        self.number += 1
        text = f"{self.side.agent}-{self.number}"
        self.written.add(text)
        return text

    def act(self) -> None:
        files = self.files()
        choice = self.dice.random()
        with contextlib.suppress(FileNotFoundError):  # the sync brings a deletion at this very moment
            if choice < 0.4 or not files:
                name = f"{self.dice.choice(FOLDERS)}/{self.dice.randrange(12)}.md"
                self.add_line(self.side.vault / name)
            elif choice < 0.75:
                self.add_line(self.dice.choice(files))
            elif choice < 0.9:
                source = self.dice.choice(files)
                target = self.side.vault / self.dice.choice(FOLDERS) / source.name
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    source.rename(target)
            else:
                victim = self.dice.choice(files)
                self.removed |= set(victim.read_text().splitlines())
                victim.unlink()

    def add_line(self, path: Path) -> None:
        """Appends, as an editor that saves does: the whole new file under the old name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if path.exists() else ""
        beside = path.with_name(".cloud-agent-storm.tmp")
        beside.write_text(f"{before}{self.line()}\n")
        beside.rename(path)


def kill_at_random(side: Side, dice: random.Random) -> None:
    """`cloud-agent sync --once`, killed with all its gits as the kernel does it when memory is short, or not."""
    process = subprocess.Popen(
        side.command("sync", "--once"), cwd=side.home, env=PLAIN, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(0.15 + dice.random() * 0.45)
    except subprocess.TimeoutExpired:
        children = children_of(process.pid) if dice.random() < 0.5 else []
        for pid in [process.pid, *children]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found += [int(entry.name), *children_of(int(entry.name))]
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_storm(world: World, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)  # noqa: S311
    authors = [Author(world.cloud, dice), Author(world.local, dice)]
    for _ in range(ROUNDS):
        author = dice.choice(authors)
        for _ in range(dice.randrange(1, 4)):
            author.act()
        kill_at_random(author.side, dice)
        author.act()
    time.sleep(0.3)  # gits that outlived their parent
    monkeypatch.setattr(mend, "STALE_LOCK_SECONDS", 0.0)  # the locks that are left are nobody's
    committed = {line for side in (world.cloud, world.local) for line in lines_of_history(side)}
    world.converge()
    present = {line for text in world.remote_files().values() for line in text.splitlines()}
    written = set().union(*(author.written for author in authors))
    removed = set().union(*(author.removed for author in authors))
    assert written - removed - present == set(), "a line is lost from the tree"
    reachable = set(git(world.remote, "log", "-p", "-m", "--format=", "main").splitlines())
    assert {line for line in committed if f"+{line}" not in reachable} == set(), "a committed line is unreachable"
    for side in (world.cloud, world.local):
        assert side.git("fsck", "--no-dangling", "--no-progress") == ""


def lines_of_history(side: Side) -> set[str]:
    """Every line that any commit of this side holds, also one that only a reflog knows."""
    added = side.git("log", "-p", "-m", "--format=", "--reflog", "--all").splitlines()
    return {line[1:] for line in added if line.startswith((f"+{side.agent}-",))}
