"""What the tests of mend and heal share: a kill between any two steps, and a power loss that tears files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_agent.git import Git
from cloud_agent.heal import heal
from cloud_agent.mend import JOIN, Boot, mend

from tests.gitkit import PERSON, Side, World


class Killed(BaseException):
    """The process ends here: what comes after, cleaning up too, does not happen."""


class Kill:
    """Kills at the `after`th step: a git command, or a change of a file that Python makes. Counts the steps."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.steps = 0

    def step(self) -> None:
        if self.steps >= self.after:
            raise Killed
        self.steps += 1

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*arguments: Any, **options: Any) -> Any:
            self.step()
            return function(*arguments, **options)

        return stepping


@contextlib.contextmanager
def killed(after: int) -> Iterator[Kill]:
    """What runs within is killed before its step number `after`."""
    kill = Kill(after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Git, "attempt_bytes", kill.before(Git.attempt_bytes))
        for module, names in ((os, ("rename", "unlink", "open", "rmdir", "mkdir", "replace")), (shutil, ("copytree",))):
            for name in names:
                patch.setattr(module, name, kill.before(getattr(module, name)))
        with contextlib.suppress(Killed):
            yield kill


def git_of(side: Side) -> Git:
    return Git(side.vault, side.agent, None, side.state.folder)


def mend_of(side: Side, boot: Boot | None = None, **options: Any) -> list[str]:
    return mend(git_of(side), side.config, side.state.folder, sleep=side.slept.append, boot=boot, **options)


def heal_of(side: Side, boot: Boot | None = None, **options: Any) -> list[str]:
    facts = heal(git_of(side), side.config, side.state.folder, sleep=side.slept.append, boot=boot, **options)
    return facts + mend_of(side, boot, healed=True)


def each_kill(world: World, step: Callable[[], object], most: int = 400) -> Iterator[int]:
    """Run `step` killed after so many steps, in the same world each time, and yield after each; the last is whole.

    After every number where SOAK is set, else after every seventh.
    """
    saved = world.root.parent / f"{world.root.name}-saved"
    shutil.copytree(world.root, saved, symlinks=True)
    every = 1 if os.environ.get("SOAK") else 7
    for after in range(0, most, every):
        shutil.rmtree(world.root)
        shutil.copytree(saved, world.root, symlinks=True)
        for side in (world.cloud, world.local):
            side.git("update-index", "-q", "--refresh", check=False)
        whole = False
        with killed(after):
            step()
            whole = True
        yield after
        if whole:
            shutil.rmtree(saved)
            return
    raise AssertionError(f"not done after {most} steps")


def assert_mended(side: Side) -> None:
    """The contract of mend."""
    folder = side.vault / ".git"
    assert side.git("symbolic-ref", "HEAD") == "refs/heads/main"
    left = ("MERGE_HEAD", "rebase-merge", "rebase-apply", "CHERRY_PICK_HEAD", "REVERT_HEAD", "sequencer", "BISECT_LOG",
            "BISECT_START", "MERGE_AUTOSTASH", "REBASE_HEAD", "cloud-agent-ending")  # fmt: skip
    assert [name for name in left if (folder / name).exists()] == []
    assert list(folder.rglob("*.lock")) == []
    assert side.git("ls-files", "--unmerged") == ""
    assert side.git("remote", "get-url", "--push", "origin") == side.remote
    assert not list(side.vault.glob(".cloud-agent-git.*"))
    assert side.git("fsck", "--connectivity-only", "--no-dangling", "--no-progress") == ""


def kept(side: Side) -> set[str]:
    """The commits that HEAD has, and those that are to be joined."""
    refs = side.git("for-each-ref", "--format=%(refname)", JOIN.rstrip("/")).split()
    return set(side.git("rev-list", "HEAD", *refs).split())


def loose(side: Side, revision: str) -> Path:
    """The file of a loose object."""
    oid = side.git("rev-parse", "--verify", revision)
    objects = side.vault / ".git" / "objects"
    path = objects / oid[:2] / oid[2:]
    if not path.exists():  # our commits are packs: a power loss tears one object of git's own commits
        for pack in list((objects / "pack").glob("*.pack")):
            content = pack.read_bytes()
            for file in objects.glob(f"pack/{pack.stem}.*"):
                file.unlink()
            subprocess.run(["git", "unpack-objects", "-q"], cwd=side.vault, input=content, check=True, env=PERSON)
    path.chmod(0o644)
    return path


def empty(path: Path) -> None:
    path.write_bytes(b"")


def nuls(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:12])
