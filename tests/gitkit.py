"""Two real clones and a real bare remote, for the tests of the sync loop."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cloud_agent.config import Config
from cloud_agent.state import State
from cloud_agent.sync import Outcome, Syncer

NOW = datetime(2026, 2, 16, 10, 0, tzinfo=UTC)
API_KEY = "a-key-of-no-known-form"
MARKERS = ("<<<<<<< ", ">>>>>>> ")

# What stands in the environment of the machine that runs the tests must not matter.
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_"))}
PERSON = {
    **PLAIN,
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Owner",
    "GIT_AUTHOR_EMAIL": "owner@example.com",
    "GIT_COMMITTER_NAME": "Owner",
    "GIT_COMMITTER_EMAIL": "owner@example.com",
}


def git(folder: Path, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
    """Plain git, as a person runs it. Returns standard output without the last newline."""
    return git_output(folder, *arguments, check=check, stdin=stdin).removesuffix("\n")


def git_output(folder: Path, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=PERSON,
        check=False,
        capture_output=True,
        input=None if stdin is None else stdin.encode(),
        timeout=60,
    )
    assert not check or done.returncode == 0, f"git {arguments}: {done.stderr!r}"
    return done.stdout.decode("utf-8", "surrogateescape")


def write(folder: Path, path: str, text: str | bytes) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))


def tree(folder: Path, commit: str = "HEAD") -> dict[str, str]:
    """Path -> content of a commit."""
    names = [name for name in git(folder, "ls-tree", "-r", "-z", "--name-only", commit).split("\0") if name]
    return {name: git_output(folder, "cat-file", "blob", f"{commit}:{name}") for name in names}


def commit_all(folder: Path, message: str = "by hand") -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


@dataclass
class Side:
    """One clone with an agent of its own: the vault, its state, its settings file."""

    home: Path
    remote: str
    agent: str = "cloud"
    slept: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vault.mkdir(parents=True, exist_ok=True)
        self.state = State(self.home / "state")
        self.set_remote(self.remote)

    @property
    def vault(self) -> Path:
        return self.home / "vault"

    @property
    def env_file(self) -> Path:
        return self.home / ".env.cloud"

    def set_remote(self, remote: str) -> None:
        self.remote = remote
        self.config = Config(
            vault_path=self.vault,
            git_remote_url=remote,
            claude_api_key=API_KEY,
            claude_model="none",
            claude_base_url=None,
            draft_interval_seconds=300,
            draft_concurrency=1,
            sync_interval_seconds=3600,
            git_branch="main",
            git_ssh_key_path=None,
            agent_name=self.agent,
            state_path=self.home / "state",
            budget_usd_per_day=None,
            budget_usd_per_week=None,
        )
        self.env_file.write_text(
            f"VAULT_PATH={self.vault}\nGIT_REMOTE_URL={remote}\nCLAUDE_API_KEY={API_KEY}\nAGENT_NAME={self.agent}\n"
            f"SYNC_INTERVAL_SECONDS=3600\nSTATE_PATH={self.home / 'state'}\n"
        )
        self.env_file.chmod(0o600)

    def syncer(self) -> Syncer:
        return Syncer(self.config, self.state, lambda: NOW, sleep=self.slept.append, jitter=lambda: 0.5)

    def sync(self, *, allow_deletions: bool = False) -> Outcome:
        return self.syncer().cycle(allow_deletions=allow_deletions)

    def synced(self) -> Outcome:
        outcome = self.sync()
        assert outcome.result == "ok", outcome.message
        return outcome

    def write(self, path: str, text: str | bytes) -> None:
        write(self.vault, path, text)

    def read(self, path: str) -> str:
        return (self.vault / path).read_text()

    def git(self, *arguments: str, check: bool = True) -> str:
        return git(self.vault, *arguments, check=check)

    def subject(self, commit: str = "HEAD") -> str:
        return self.git("log", "-1", "--format=%s", commit)

    def files(self) -> set[str]:
        return set(tree(self.vault))

    def command(self, *arguments: str) -> list[str]:
        """The installed command."""
        return [str(Path(sys.executable).with_name("cloud-agent")), "--env-file", str(self.env_file), *arguments]

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.home, env=PLAIN, check=False, capture_output=True, text=True,
            timeout=timeout,
        )  # fmt: skip


@dataclass
class World:
    """A bare remote with a first commit, Cloud and Local."""

    root: Path

    def __post_init__(self) -> None:
        self.remote = self.root / "remote.git"
        git(self.root, "init", "-q", "--bare", "--initial-branch=main", str(self.remote))
        self.cloud = Side(self.root / "cloud", str(self.remote))
        self.local = Side(self.root / "local", str(self.remote), "local")

    def seed(self, files: dict[str, str | bytes]) -> None:
        """Commit and push files, and bring both sides level with them."""
        for path, text in files.items():
            self.cloud.write(path, text)
        for side in (self.cloud, self.local):
            git(side.vault, "init", "-q", "--initial-branch=main")
            git(side.vault, "remote", "add", "origin", str(self.remote))
        commit_all(self.cloud.vault, "seed")
        git(self.cloud.vault, "push", "-q", "origin", "HEAD:main")
        git(self.cloud.vault, "fetch", "-q", "origin")
        git(self.local.vault, "pull", "-q", "origin", "main")

    def remote_files(self) -> dict[str, str]:
        return tree(self.remote, "main")

    def converge(self) -> dict[str, str]:
        """Sync both until they are level; returns the tree that they share, checked."""
        for _ in range(4):
            self.cloud.synced()
            self.local.synced()
            tips = {git(folder, "rev-parse", ref) for folder, ref in self.tips()}
            if len(tips) == 1:
                break
        assert len(tips) == 1, "the sides do not converge"
        files = self.remote_files()
        for path, text in files.items():
            assert not any(line.startswith(MARKERS) for line in text.splitlines()), f"conflict marker in {path}"
        for side in (self.cloud, self.local):
            assert side.git("status", "--porcelain") == ""
        assert git(self.remote, "fsck", "--no-dangling", "--no-progress") == ""
        return files

    def tips(self) -> list[tuple[Path, str]]:
        return [(self.remote, "main"), (self.cloud.vault, "HEAD"), (self.local.vault, "HEAD")]


def push_as_person(world: World, files: dict[str, str | None], message: str = "by hand") -> None:
    """Commit and push from Local with plain git; None deletes."""
    side = world.local
    side.git("pull", "-q", "--rebase", "origin", "main", check=False)
    for path, text in files.items():
        if text is None:
            (side.vault / path).unlink()
        else:
            side.write(path, text)
    commit_all(side.vault, message)
    side.git("push", "-q", "origin", "HEAD:main")
