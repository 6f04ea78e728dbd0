"""Two clones and a remote under everything that people, programs and machines do to them; in the end all is level.

The machine's rules are edits, a person's plain git, syncs, syncs that are killed, and damage. What must hold after it
is in `Life.check`. `make test` takes a few examples, always the same; `SOAK_MINUTES=60` takes others for that long
(`make soak`), prints how far it is, and with `SOAK_SEED=n` begins where a failure was.
"""

from __future__ import annotations

import atexit
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from cloud_agent import dashboard, guards
from cloud_agent.sync import Outcome, Syncer
from cloud_agent.vault import TEMPORARY_PREFIX
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.faultgit import AFTER, BEFORE, BETWEEN, DURING, FULL, KILLS, REAL_GIT, Fault, FaultGit
from tests.gitkit import NOW, PERSON, Side, World, git, git_output

SOAK_MINUTES = float(os.environ.get("SOAK_MINUTES", "0"))
KEEP = bool(os.environ.get("KEEP"))  # the folders of a failed example
SOAK_SEED = int(os.environ.get("SOAK_SEED", "0"))
EXAMPLES, STEPS = 20, 14
STORIES_A_SEED = 10
MOST_COPIES = 10  # of one file

SEED: dict[str, str | bytes] = {
    "Dashboard.md": "# Dashboard\n\nMine.\n\n## Updates\n\n- old\n",
    "Company_Handbook.md": "# Handbook\n\nBe kind.\n",
    **{f"Notes/{name}": f"{name} 1\n{name} 2\n{name} 3\n" for name in ("a.md", "b.md", "c.md")},
    **{f"Archive/{number}.md": f"kept {number}\n" for number in range(12)},
    "Pending_Approval/Email/EMAIL_DRAFT_1.md": "---\nstatus: pending\n---\nDear Ann\n",
    "Logs/Cloud/sync.jsonl": '{"at": "0"}\n',
}
FOLDERS = ["Inbox", "Pending_Approval/Email", "Approved/Email", "Done/Email", "Notes"]
NAMES = ["a.md", "b.md", "c.md", "EMAIL_DRAFT_1.md", "-d.md", 'é "ü\n.md']
KEY = b"sk-ant-api03-" + bytes(random.Random(1).choices(b"abcdefghkmnpqrstuvwxyzABCDEFGHKMNPQRSTUVWXYZ23456789", k=95))  # noqa: S311
HELD = ".env.local"  # never synced, and never cleaned up
NOISE = ".obsidian/workspace.json"
TOKEN = re.compile(rb"<\d{1,6}>")  # what a side wrote once, nobody else wrote
HALF_DONE = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")
LOCKS = ["index", "HEAD", "ORIG_HEAD", "config", "packed-refs", "refs/heads/main", "refs/remotes/origin/main"]
CLASHES = [
    "merge",
    "rebase",
    "rebase --apply",
    "cherry-pick",
    "revert",
    "merge --no-commit",
    "rebase edit",
    "autostash",
]
DAMAGE = [
    *(f"lock {name}" for name in LOCKS), "detached", "another branch", "orphan branch", "orphan branch with a commit",
    "staged", "index emptied", "index broken", "index deleted", "HEAD is emptied", "a ref is emptied",
    "an object only here is emptied", "an object the remote has is emptied",
]  # fmt: skip
EDITS = ["write", "write", "edit", "edit", "insert", "log", "log", "dashboard", "dashboard", "delete", "move", "move",
         "case", "move folder", "file to folder", "folder to file", "line ends", "binary", "mode", "noise", "secret",
         "held"]  # fmt: skip

SIDES = st.sampled_from(["cloud", "local"])
PICKS = st.integers(0, 9999)  # which one, of as many as there are: a draw never depends on what is on disk

told: Counter[str] = Counter()  # what was done, for whoever waits


def _template() -> Path:
    """A seeded world, made once and copied for each example."""
    global _made  # noqa: PLW0603
    if _made is None:
        _made = Path(tempfile.mkdtemp(prefix="states-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        if not KEEP:
            atexit.register(shutil.rmtree, _made, ignore_errors=True)
        (_made / "world").mkdir()
        World(_made / "world").seed(SEED)
    return _made


_made: Path | None = None


class Told:
    """One side's clone, and what the model knows of it."""

    def __init__(self, side: Side, fault: FaultGit) -> None:
        self.side = side
        self.fault = fault
        self.warm: Syncer | None = None
        self.damaged = False  # it lost objects: no plain git, no games with the remote until it is whole again
        self.markers_stay = False  # a broken index forgot which files clash: the owner is told, and settles it

    @property
    def vault(self) -> Path:
        return self.side.vault

    @property
    def dot_git(self) -> Path:
        return self.side.vault / ".git"

    def restart(self) -> None:
        """The loop's process ends; the next one knows what is on disk."""
        if self.warm is not None and self.warm.watch is not None:
            self.warm.watch.close()
        self.warm = None

    def git(self, *arguments: str) -> tuple[bool, str]:
        """Plain git; whether it worked, and its standard output."""
        done = _attempt(self.vault, *arguments)
        return done is not None, done or ""

    def half_done(self) -> bool:
        return any((self.dot_git / name).exists() for name in HALF_DONE)

    def on_branch(self) -> bool:
        head = self.dot_git / "HEAD"
        return head.exists() and head.read_text().strip() == "ref: refs/heads/main" and self.tip("main") is not None

    def tip(self, name: str) -> str | None:
        """The commit of HEAD or of main, as git's files say it; git itself takes too long for each step."""
        text = ""
        path = self.dot_git / (name if name == "HEAD" else f"refs/heads/{name}")
        if path.exists():
            text = path.read_text().strip()
        elif name != "HEAD" and (self.dot_git / "packed-refs").exists():
            found = re.search(rf"^(\w+) refs/heads/{name}$", (self.dot_git / "packed-refs").read_text(), re.M)
            text = found[1] if found else ""
        if text.startswith("ref: refs/heads/"):
            return self.tip(text.removeprefix("ref: refs/heads/"))
        return text if re.fullmatch(r"[0-9a-f]{40}", text) else None

    def all_files(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.vault):
            folders[:] = sorted(name for name in folders if name not in (".git", ".obsidian"))
            for name in sorted(names):
                yield str(Path(folder, name).relative_to(self.vault))

    def files(self, *, movable: bool = False) -> list[str]:
        """Notes that a person may change now: none where git has put markers."""
        found = []
        for path in self.all_files():
            if path.startswith(("Archive/", ".")) or (movable and path.startswith(("Dashboard", "Company", "Logs/"))):
                continue
            if path != dashboard.PATH and not guards.has_conflict_markers(self.read(path)):
                found.append(path)
        return found

    def read(self, path: str) -> bytes:
        return (self.vault / path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        """As an editor that saves: the whole file under its name."""
        target = self.vault / path
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode if target.exists() else None
        beside = target.with_name(".cloud-agent-editor.tmp")
        beside.write_bytes(content)
        if mode is not None:
            beside.chmod(mode)
        beside.rename(target)

    def unsynced(self) -> list[str]:
        """What git says is not committed, but for what never is."""
        lines = self.git("status", "--porcelain", "--untracked-files=all")[1].splitlines()
        return [line for line in lines if not line.endswith((HELD, NOISE)) and TEMPORARY_PREFIX not in line]

    def tokens(self) -> set[bytes]:
        """All that stands in the files. Between a merge's markers it stands for what is in commits."""
        contents = [self.read(path) for path in self.all_files()]
        return {token for text in contents if not guards.has_conflict_markers(text) for token in TOKEN.findall(text)}

    def tips(self) -> list[str]:
        """What is committed here, and what a merge that is not ended yet brings."""
        tips = [self.tip("HEAD"), self.tip("main")]
        merging = self.dot_git / "MERGE_HEAD"
        if merging.exists():
            tips.append(merging.read_text().strip())
        return [tip for tip in tips if tip]


def _attempt(folder: Path, *arguments: str) -> str | None:
    try:
        return git_output(folder, *arguments)
    except AssertionError:
        return None


def tree_tokens(folder: Path, commit: str) -> set[bytes]:
    out = _attempt(folder, "grep", "-a", "-h", "-o", "-E", "<[0-9]{1,6}>", commit)
    return set(TOKEN.findall((out or "").encode()))


class Life(RuleBasedStateMachine):
    """Cloud and Local edit, sync, are killed and damaged, in any order; a phone pushes to the remote as well."""

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir=_template()))
        world = self.root / "w"
        shutil.copytree(_template() / "world", world, symlinks=True)
        self.remote = world / "remote.git"
        self.away = False
        self.sides: dict[str, Told] = {}
        for name in ("cloud", "local"):
            config = world / name / "vault/.git/config"
            config.write_text(config.read_text().replace(str(_template() / "world"), str(world)))
            side = Side(world / name, str(self.remote), name)
            self.sides[name] = Told(side, FaultGit(self.root / f"git-{name}"))
        self.count = 0
        self.needed: set[bytes] = set()  # tokens that must be there in the end
        self.tips: set[str] = set()  # commits that must be reachable in the end
        self.story: list[str] = []
        self.level_at = 0
        self._note()

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        try:
            if sys.exc_info()[0] is None:
                self.all_is_level_in_the_end(restarted=len(self.story) % 2 == 0)
            told["examples"] += 1
        finally:
            for at in self.sides.values():
                at.restart()
            if sys.exc_info()[0] is None or not KEEP:
                shutil.rmtree(self.root, ignore_errors=True)
            _progress()

    # -- the model -------------------------------------------------------------------------------------------------

    def _did(self, what: str, *more: object) -> None:
        told["steps"] += 1
        told[what] += 1
        self.story.append(" ".join(map(str, (what, *more))))

    def _token(self) -> bytes:
        self.count += 1
        token = b"<%d>" % self.count
        self.needed.add(token)
        return token

    def _forget(self, content: bytes) -> None:
        """Somebody saw this, and takes it away."""
        self.needed -= set(TOKEN.findall(content))

    def _note(self) -> None:
        """What the sides have committed by now; a commit on top of one that lost a part cannot be pushed either."""
        for told_of in self.sides.values():
            if not told_of.damaged:
                self.tips |= {tip for name in ("HEAD", "main") if (tip := told_of.tip(name))}

    def _remote_tip(self) -> str | None:
        ref = self.remote / "refs/heads/main"
        return ref.read_text().strip() if ref.exists() else None

    def _reachable(self, folder: Path, *tips: str | None) -> set[str]:
        known = [tip for tip in tips if tip]
        return set((_attempt(folder, "rev-list", *known) or "").split()) if known else set()

    def _only_these_remain(self, *, without: Told | None = None) -> None:
        """History was thrown away on purpose: what neither a clone nor the remote has now is nobody's loss of ours.

        Of a clone that lost objects (`without`) only the files count.
        """
        commits = self._reachable(self.remote, self._remote_tip())
        tokens = tree_tokens(self.remote, "main") if commits else set()
        for told_of in self.sides.values():
            tokens |= told_of.tokens()
            if told_of is not without:
                commits |= self._reachable(told_of.vault, *told_of.tips())
                tokens |= {token for tip in told_of.tips() for token in tree_tokens(told_of.vault, tip)}
        self.tips &= commits
        self.needed &= tokens

    # -- edits -----------------------------------------------------------------------------------------------------

    @rule(edits=st.lists(st.tuples(SIDES, st.sampled_from(EDITS), PICKS, PICKS), min_size=1, max_size=4))
    def edit(self, edits: list[tuple[str, str, int, int]]) -> None:
        for name, kind, pick, other in edits:
            self._edit(self.sides[name], kind, pick, other)
            self._did(f"edit: {kind}", name)

    @rule(kind=st.sampled_from(["edit", "edit", "insert", "line ends", "delete", "move", "file to folder"]),
          against=st.sampled_from(["edit", "edit", "insert", "binary", "delete", "move", "case", "file to folder"]),
          pick=PICKS, other=PICKS)  # fmt: skip
    def both_change_one_file(self, kind: str, against: str, pick: int, other: int) -> None:
        cloud, local = self.sides["cloud"], self.sides["local"]
        common = sorted(set(cloud.files(movable=True)) & set(local.files(movable=True)))
        if common:
            path = common[pick % len(common)]
            self._edit(cloud, kind, pick, other, path)
            self._edit(local, against, pick, other + 1, path)
            self._did(f"both: {kind}/{against}", path)

    def _edit(self, at: Told, kind: str, pick: int, other: int, only: str | None = None) -> None:
        files = [only] if only else at.files(movable=kind in ("delete", "move", "case", "file to folder"))
        if kind == "write":
            path = f"{FOLDERS[pick % len(FOLDERS)]}/{NAMES[other % len(NAMES)]}"
            if not (at.vault / path).exists() and not _below_a_file(at.vault, path):
                lines = [b"line %d %s\n" % (number, self._token()) for number in range(1 + pick % 4)]
                at.write(path, b"".join(lines))
        elif kind == "log":
            path = f"Logs/Cloud/{'sync.jsonl' if pick % 2 else 'day.md'}"
            before = at.read(path) if (at.vault / path).exists() else b""
            if not guards.has_conflict_markers(before):
                at.write(path, before + b'{"at": "%s"}\n' % self._token())
        elif kind == "dashboard":
            self._edit_dashboard(at, pick)
        elif kind == "noise":
            at.write(NOISE, b'{"noise": %d}\n' % pick)
        elif kind == "held":
            at.write(HELD, b"PASSWORD=held-back-%d\n" % pick)
        elif kind == "move folder":
            self._move_folder(at, pick, other)
        elif kind == "folder to file":
            folders = [path for path in at.vault.rglob("*.md") if path.is_dir()]
            if folders and len(inside := list(folders[pick % len(folders)].iterdir())) == 1 and inside[0].is_file():
                folder, content = folders[pick % len(folders)], inside[0].read_bytes()
                if not guards.has_conflict_markers(content):
                    shutil.rmtree(folder)
                    folder.write_bytes(content)
        elif files:
            self._edit_file(at, kind, files[pick % len(files)], other)

    def _edit_file(self, at: Told, kind: str, path: str, other: int) -> None:
        content = at.read(path)
        lines = content.splitlines(keepends=True)
        place = other % (len(lines) + 1)
        end = b"\r\n" if b"\r\n" in content else b"\n"
        if kind == "edit" and lines:
            place %= len(lines)
            self._forget(lines[place])
            lines[place] = b"edited %s%s" % (self._token(), end)
            at.write(path, b"".join(lines))
        elif kind == "insert":
            lines.insert(place, b"inserted %s%s" % (self._token(), end))
            if place and not lines[place - 1].endswith((b"\n", b"\r")):
                lines[place - 1] += end
            at.write(path, b"".join(lines))
        elif kind == "line ends":
            unix = content.replace(b"\r\n", b"\n")
            at.write(path, unix if unix != content else unix.replace(b"\n", b"\r\n"))
        elif kind == "binary":
            at.write(path, content + b"\0\xff %s\n" % self._token())
        elif kind == "secret":
            at.write(path, content + b"key: %s %s\n" % (KEY, self._token()))
        elif kind == "mode":
            (at.vault / path).chmod((at.vault / path).stat().st_mode ^ 0o111)
        elif kind == "delete":
            self._forget(content)
            (at.vault / path).unlink()
        elif kind == "file to folder":
            mode = (at.vault / path).stat().st_mode
            (at.vault / path).unlink()
            at.write(f"{path}/in.md", content)
            (at.vault / path / "in.md").chmod(mode)
        elif kind in ("move", "case"):
            pure = PurePosixPath(path)
            target = str(pure.with_name(pure.name.swapcase().replace(".MD", ".md")))
            if kind == "move":
                target = f"{FOLDERS[other % len(FOLDERS)]}/{pure.name}"
            if not (at.vault / target).exists() and not _below_a_file(at.vault, target):
                (at.vault / target).parent.mkdir(parents=True, exist_ok=True)
                (at.vault / path).rename(at.vault / target)

    def _edit_dashboard(self, at: Told, pick: int) -> None:
        """Each side in the part that is its own."""
        if not (at.vault / dashboard.PATH).is_file():
            return
        text = at.read(dashboard.PATH).decode("utf-8", "surrogateescape")
        if guards.has_conflict_markers(text.encode("utf-8", "surrogateescape")):
            return
        token = self._token().decode()
        if at.side.agent == "cloud":
            text = dashboard.add_entries(text, [f"2026-02-16T10:00:00Z told {token}"])
        else:
            before, section, after = dashboard.split(text)
            before, after = (f"{before}\nMine {token}", after) if pick % 3 else (before, f"# More\n{after}\n{token}")
            text = dashboard.join(before, section, after)
        at.write(dashboard.PATH, text.encode("utf-8", "surrogateescape"))

    def _move_folder(self, at: Told, pick: int, other: int) -> None:
        source = at.vault / FOLDERS[pick % len(FOLDERS)]
        target = at.vault / "Old" / f"{other % 3}"
        files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else []
        if files and not target.exists() and not any(guards.has_conflict_markers(path.read_bytes()) for path in files):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)

    # -- the agent -------------------------------------------------------------------------------------------------

    def _cycle(self, at: Told, *, allow_deletions: bool = False) -> Outcome:
        if at.warm is None:  # as the loop runs: it watches the vault, and the clock never says that a scan is due
            at.warm = Syncer(at.side.config, at.side.state, lambda: NOW, sleep=at.side.slept.append, watching=True)
        outcome = at.warm.cycle(allow_deletions=allow_deletions)
        self._note()
        return outcome

    @rule(name=SIDES, restarted=st.booleans())
    def sync(self, name: str, restarted: bool) -> None:
        at = self.sides[name]
        if restarted:
            at.restart()
        outcome = self._cycle(at)
        self._did(f"sync: {outcome.result}", name)

    @rule(name=SIDES, what=st.sampled_from([*KILLS, DURING, "event", "event"]), call=st.integers(1, 18),
          blocks=st.integers(0, 4))  # fmt: skip
    def a_sync_is_killed(self, name: str, what: str, call: int, blocks: int) -> None:
        at = self.sides[name]
        event = call * 3 + blocks if what == "event" else None
        at.fault.arm(*([Fault(call, what, str(blocks))] if event is None else []))
        ended = at.fault.run(lambda: at.side.syncer().cycle(), event, at.vault)
        at.restart()
        self._note()
        self._did("kill: too late" if ended else f"kill: {what} {(at.fault.calls() or ['-'])[-1]}", name)

    @rule(name=SIDES, call=st.integers(1, 18), blocks=st.integers(0, 4))
    def the_disk_is_full_for_a_moment(self, name: str, call: int, blocks: int) -> None:
        at = self.sides[name]
        at.fault.arm(Fault(call, FULL, str(blocks)))
        at.fault.run(lambda: at.side.syncer().cycle())
        at.restart()
        self._note()
        self._did(f"full: {' '.join(at.fault.done()) or 'too late'}", name)

    @precondition(lambda self: not self.away)
    @rule(name=SIDES, pick=PICKS, kind=st.sampled_from(["new", "line", "delete"]))
    def another_push_comes_between(self, name: str, pick: int, kind: str) -> None:
        at = self.sides[name]
        stream, tokens = self._phone_stream(pick, kind)
        file = self.root / "between"
        file.write_bytes(stream)
        command = f"[ -e {file} ] && env -i git --git-dir={self.remote} fast-import --quiet < {file}; rm -f {file}"
        at.fault.arm(Fault("push", BETWEEN, command))
        at.fault.run(lambda: at.side.syncer().cycle())
        at.restart()
        if file.exists():
            file.unlink()
        elif tokens is not None:
            self._settle_phone(tokens)
        self._note()
        self._did(f"between: {'pushed' if at.fault.done() else 'no push'}", name)

    # -- the phone: commits straight to the remote --------------------------------------------------------------------

    def _phone_stream(self, pick: int, kind: str, path: str | None = None) -> tuple[bytes, tuple[bytes, bytes] | None]:
        """git fast-import's input for one commit; (what it writes, what it takes away)."""
        tip = self._remote_tip()
        names = git(self.remote, "ls-tree", "-r", "-z", "--name-only", "main").split("\0")[:-1] if tip else []
        names = [name for name in names if name.startswith(("Notes/", "Inbox/", "Approved/")) and '"' not in name]
        before = b""
        if path is None and kind != "new" and names:
            path = names[pick % len(names)]
        if path is None:
            path, kind = f"Inbox/phone{pick % 50}.md", "new"
            if any(name.startswith(f"{path}/") for name in names):  # a folder by now
                path = f"Inbox/phone-{self.count}.md"
        if path in names:
            before = git_output(self.remote, "cat-file", "blob", f"main:{path}").encode("utf-8", "surrogateescape")
        self.count += 1
        token = b"<%d>" % self.count
        lines = before.splitlines(keepends=True)
        gone = before if kind == "delete" else b""
        if kind == "line" and lines:
            gone = lines[pick % len(lines)]
            lines[pick % len(lines)] = b"phone %s\n" % token
        else:
            lines.append(b"phone %s\n" % token)
        content = b"".join(lines)
        change = b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(content), content)
        if kind == "delete":
            change, content = b"D %s\n" % path.encode(), b""
        start = b"from refs/heads/main^0\n" if tip else b""
        head = b"commit refs/heads/main\ncommitter Phone <phone@example.com> 1771236000 +0000\ndata 5\nphone\n"
        return head + start + change, (content, gone)

    def _settle_phone(self, tokens: tuple[bytes, bytes]) -> None:
        written, gone = tokens
        self._forget(gone)
        self.needed |= set(TOKEN.findall(written)) & {b"<%d>" % self.count}

    def _phone(self, pick: int, kind: str, path: str | None = None) -> None:
        stream, tokens = self._phone_stream(pick, kind, path)
        subprocess.run(
            [REAL_GIT, "fast-import", "--quiet"],
            cwd=self.remote,
            env=PERSON,
            input=stream,
            check=True,
            capture_output=True,
        )
        if tokens:
            self._settle_phone(tokens)

    @precondition(lambda self: not self.away)
    @rule(pick=PICKS, kind=st.sampled_from(["new", "line", "line", "delete"]))
    def the_phone_pushes(self, pick: int, kind: str) -> None:
        self._phone(pick, kind)
        self._did(f"phone: {kind}")

    # -- a person with plain git -----------------------------------------------------------------------------------

    def _may_use_git(self, at: Told) -> bool:
        clean = not any(guards.has_conflict_markers(at.read(path)) for path in at.all_files())
        # Before a stale lock, plain git stops half-way: a checkout has changed the files, and HEAD is where it was.
        locked = any(at.dot_git.glob("*.lock")) or any((at.dot_git / "refs").rglob("*.lock"))
        whole = not at.damaged and not at.half_done() and not at.markers_stay and not locked
        return whole and clean and at.on_branch()

    def _person_commits(self, at: Told, *, stage_only: bool = False) -> bool:
        """A careful person: no secrets, and no noise."""
        secret = [path for path in at.all_files() if KEY in at.read(path)]
        leave = [f":(exclude,literal){path}" for path in (*secret, NOISE, HELD)]
        at.git("add", "-A", "--", ".", *leave)
        if not stage_only:
            at.git("commit", "-q", "--no-verify", "-m", "by hand")
        self._note()
        return not secret

    @rule(name=SIDES, kind=st.sampled_from(["commit", "commit", "push", "pull", "pull --rebase", "amend"]),
          then=st.sampled_from(["leave", "resolve", "abort"]), commit=st.booleans())  # fmt: skip
    def a_person_uses_git(self, name: str, kind: str, then: str, commit: bool) -> None:
        at = self.sides[name]
        if not self._may_use_git(at):
            return
        if commit or kind == "commit":
            self._person_commits(at)
        if kind == "push":
            at.git("push", "-q", "origin", "HEAD:main")
        elif kind == "amend":
            self._amend(at)
        elif kind == "pull":
            at.git("pull", "-q", "--no-rebase", "--no-edit", "origin", "main")
        elif kind == "pull --rebase":
            self._rebase(at, "pull", "-q", "--rebase", "origin", "main")
        if at.half_done():
            self._after_a_clash(at, "rebase" if "rebase" in kind else "merge", then)
        self._note()
        self._did(f"person: {kind}", name, then)

    def _amend(self, at: Told) -> None:
        old = at.tip("HEAD")
        remote = self.root / "away.git" if self.away else self.remote
        if old is None or _attempt(remote, "merge-base", "--is-ancestor", old, "main") is not None:
            return  # it is pushed
        other = self.sides["local" if at.side.agent == "cloud" else "cloud"]
        if old in self._reachable(other.vault, *other.tips()):
            return  # it was, to a remote that has forgotten it
        if (
            at.git("commit", "-q", "--amend", "--no-verify", "--allow-empty", "-m", "amended")[0]
            and at.tip("HEAD") != old
        ):
            self.tips.discard(old)

    def _rebase(self, at: Told, *command: str) -> None:
        """A rebase that comes to its end replaces what it was about. Merges it would flatten: then it is a merge."""
        at.git("fetch", "-q", "origin")
        if at.git("rev-list", "--merges", "origin/main..HEAD")[1].strip():
            return
        old = at.tip("HEAD")
        at.git(*command)
        self._replaced(at, old)

    def _replaced(self, at: Told, old: str | None) -> None:
        if not at.half_done():
            self.tips -= self._reachable(at.vault, old) - self._reachable(at.vault, at.tip("HEAD"))

    def _after_a_clash(self, at: Told, operation: str, then: str) -> None:
        """Leave it as it is, abort it, or settle it as people do: both versions, or else what lies there."""
        old = at.tip("main")
        if then == "leave":
            return
        if then == "abort":
            at.git(operation, "--abort")
            return
        for _ in range(5):  # a rebase may clash at each commit
            if not at.half_done():
                break
            for path in {entry.partition("\t")[2] for entry in at.git("ls-files", "-u", "-z")[1].split("\0") if entry}:
                stages = [at.git("show", f":{stage}:{path}")[1] for stage in "123"]
                kept = b""
                if (at.vault / path).is_file():
                    lines = at.read(path).splitlines(keepends=True)
                    kept = b"".join(line for line in lines if not line.startswith((b"<<<<<<<", b"=======", b">>>>>>>")))
                    at.write(path, kept)
                    at.git("add", "--", f":(literal){path}")
                else:
                    at.git("rm", "-q", "--cached", "--", f":(literal){path}")
                lost = "".join(stages).encode("utf-8", "surrogateescape")
                self.needed -= set(TOKEN.findall(lost)) - set(TOKEN.findall(kept))
            if operation == "merge":
                at.git("commit", "-q", "--no-verify", "--no-edit")
            elif at.git("-c", "core.editor=true", operation, "--continue")[0] or at.git("ls-files", "-u")[1]:
                continue  # done, or the next clash
            else:
                at.git(operation, "--skip")  # nothing is left of this commit
        if operation == "rebase":
            self._replaced(at, old)

    @precondition(lambda self: not self.away and self._remote_tip() is not None)
    @rule(name=SIDES, how=st.sampled_from(CLASHES),
          then=st.sampled_from(["leave", "leave", "resolve", "abort"]), pick=PICKS)  # fmt: skip
    def a_person_gets_into_a_clash(self, name: str, how: str, then: str, pick: int) -> None:
        at = self.sides[name]
        if not self._may_use_git(at):
            return
        whole = self._person_commits(at)
        there = set(git(self.remote, "ls-tree", "-r", "-z", "--name-only", "main").split("\0"))
        common = [
            path for path in at.files(movable=True) if path in there and path.startswith("Notes/") and at.read(path)
        ]
        if not common or not whole:
            return
        path = common[pick % len(common)]
        self._edit_file(at, "edit", path, 0)
        self._person_commits(at)
        operation = how.partition(" ")[0]
        if how == "revert":
            first = at.tip("HEAD")
            self._edit_file(at, "edit", path, 0)
            self._person_commits(at)
            at.git("revert", "--no-edit", str(first))
        elif how == "rebase edit":
            at.git("-c", "sequence.editor=sed -i 1s/pick/edit/", "rebase", "-q", "-i", "HEAD~1")
        else:
            self._phone(
                0, "line" if how != "merge --no-commit" else "new", None if how == "merge --no-commit" else path
            )
            at.git("fetch", "-q", "origin")
            if how == "autostash":
                self._edit(at, "insert", pick, pick)
                self._rebase(at, "pull", "-q", "--rebase", "--autostash", "origin", "main")
                operation = "rebase"
            elif operation == "rebase":
                self._rebase(at, "rebase", *how.split()[1:], "origin/main")
            elif operation == "merge":
                at.git("merge", "-q", "--no-edit", *how.split()[1:], "origin/main")
            else:
                at.git("cherry-pick", "origin/main")
        if at.half_done():
            self._after_a_clash(at, operation, then)
        self._note()
        self._did(f"clash: {how}, {then}", name)

    # -- damage ----------------------------------------------------------------------------------------------------

    @rule(name=SIDES, kind=st.sampled_from(DAMAGE), pick=PICKS)
    def damage(self, name: str, kind: str, pick: int) -> None:
        at = self.sides[name]
        if kind.startswith("lock "):
            lock = at.dot_git / f"{kind.removeprefix('lock ')}.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.write_bytes(b"")
            _age(lock)
        elif kind == "staged":
            if self._may_use_git(at):
                self._person_commits(at, stage_only=True)
        elif kind.startswith("index "):
            at.markers_stay |= at.half_done()
            index = at.dot_git / "index"
            content = {"emptied": b"", "broken": b"DIRC nonsense", "deleted": None}[kind.removeprefix("index ")]
            index.unlink(missing_ok=True)
            if content is not None:
                index.write_bytes(content)
        elif kind == "HEAD is emptied":
            if at.on_branch():
                (at.dot_git / "HEAD").write_bytes(b"")
        elif kind == "a ref is emptied":
            ref = at.dot_git / ("refs/heads/main" if pick % 2 else "refs/remotes/origin/main")
            if ref.exists():
                ref.write_bytes(b"")
        elif "object" in kind:
            self._empty_an_object(at, pick, pushed="remote" in kind)
        elif self._may_use_git(at):
            if "orphan" in kind:
                at.git("checkout", "-q", "--orphan", "new")
                if "commit" in kind:
                    self._person_commits(at)
            else:  # with a commit on each side of the fork, and something not committed
                self._edit(at, "write", pick, pick // 7)
                self._person_commits(at)
                at.git(
                    "checkout", "-q", *(["--detach"] if kind == "detached" else ["-b", f"idea{self.count}"]), "HEAD~1"
                )
                if pick % 3:
                    self._edit(at, "insert", pick, pick)
                    self._person_commits(at)
                self._edit(at, "insert", pick // 2, pick)
            self._note()
        self._did(f"damage: {kind}", name)

    def _empty_an_object(self, at: Told, pick: int, *, pushed: bool) -> None:
        """As a power loss does: a loose object that is there, and empty."""
        if self.away or self._remote_tip() is None or at.damaged:
            return
        tips = [tip for name in ("HEAD", "main") if (tip := at.tip(name))]
        ours = {line[:40] for line in (_attempt(at.vault, "rev-list", "--objects", *tips) or "").splitlines()}
        theirs = {line[:40] for line in git(self.remote, "rev-list", "--objects", "main").splitlines()}
        loose = sorted(
            path for path in (at.dot_git / "objects").glob("??/*")
            if (oid := path.parent.name + path.name) in ours and (oid in theirs) == pushed
        )  # fmt: skip
        if not loose:
            return
        at.damaged = True
        at.markers_stay |= at.half_done()  # the index is made anew
        if not pushed:
            self._only_these_remain(without=at)
        victim = loose[pick % len(loose)]
        victim.chmod(0o644)
        victim.write_bytes(b"")
        at.restart()
        (at.side.home / "state/boot").unlink(missing_ok=True)  # the machine was booted since

    @rule(kind=st.sampled_from(["away", "away", "back by some", "made anew"]), pick=PICKS)
    def the_remote_changes(self, kind: str, pick: int) -> None:
        if kind == "away" and not self.away:
            self.remote.rename(self.root / "away.git")
            self.away = True
        elif kind == "away":
            self._remote_comes_back()
        elif self.away or self._remote_tip() is None or any(at.damaged for at in self.sides.values()):
            return
        else:
            if kind == "made anew":
                shutil.rmtree(self.remote)
                git(self.root, "init", "-q", "--bare", "--initial-branch=main", str(self.remote))
            else:
                _attempt(self.remote, "update-ref", "refs/heads/main", f"main~{1 + pick % 3}")
            self._only_these_remain()
        self._did(f"remote: {kind}")

    def _remote_comes_back(self) -> None:
        if self.away:
            (self.root / "away.git").rename(self.remote)
            self.away = False

    # -- in the end ------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.story) > self.level_at + 4)
    @rule(restarted=st.booleans())
    def all_is_level_in_the_end(self, restarted: bool) -> None:
        """Nothing fails any more, the person has taken the keys out of the notes: all of it comes together."""
        self._remote_comes_back()
        for at in self.sides.values():
            at.fault.end()
            if restarted:
                at.restart()
            for path in list(at.all_files()):
                if KEY in (content := at.read(path)):
                    at.write(path, content.replace(KEY, b"a key"))
                elif at.markers_stay and guards.has_conflict_markers(content):
                    kept = [
                        line
                        for line in content.splitlines(keepends=True)
                        if not line.startswith((b"<<<", b"===", b">>>"))
                    ]
                    at.write(path, b"".join(kept))
        outcomes: list[Outcome] = []
        for _ in range(8):
            for at in self.sides.values():
                for lock in at.dot_git.rglob("*.lock"):
                    _age(lock)
            outcomes = [self._cycle(at, allow_deletions=True) for at in self.sides.values()]
            tips = {self._remote_tip(), *(at.tip("HEAD") for at in self.sides.values())}
            level = all(outcome.result == "ok" for outcome in outcomes) and len(tips) == 1
            if level and not any(at.unsynced() for at in self.sides.values()):  # a recovery is told after the push
                break
        else:
            dirty = [at.unsynced() for at in self.sides.values()]
            raise AssertionError(f"it does not come together: {outcomes} {dirty}\n{self._report()}")
        self.check()
        for at in self.sides.values():
            at.markers_stay = False
            at.damaged = at.damaged and _attempt(at.vault, "fsck", "--no-dangling", "--no-progress") != ""
        self._did("level", "restarted" if restarted else "")
        self.level_at = len(self.story)

    def check(self) -> None:
        """What must hold once both sides are level."""
        remote = self.remote
        files = git(remote, "ls-tree", "-r", "-z", "--name-only", "main").split("\0")[:-1]
        missing = self.tips - self._reachable(remote, "main")
        self._hold(not missing, f"commits that the remote's branch does not hold: {missing}")
        lost = self.needed - tree_tokens(remote, "main")
        for at in self.sides.values():  # a stash that clashes when it is taken out stays, and git says so to the person
            lost -= tree_tokens(at.vault, "refs/stash")
        self._hold(not lost, f"lost: {sorted(lost)}")
        for at in self.sides.values():
            self._hold(at.on_branch(), f"{at.side.agent} is not on its branch")
            self._hold(not at.half_done(), f"{at.side.agent} has something half done")
            if not at.damaged:  # what no cycle reads is found when it is packed
                self._fsck(at.vault)
        self._fsck(remote)
        for content in all_blobs(remote):
            self._hold(not guards.has_conflict_markers(content), f"committed markers: {content!r}")
            self._hold(KEY not in content and b"held-back" not in content, f"a secret: {content!r}")
            self._hold(b'"noise"' not in content, f"noise: {content!r}")
        copies = Counter(re.sub(r"\.conflict-[^/]*", "", path) for path in files if ".conflict-" in path)
        self._hold(
            not [path for path in files if re.search(r"\.conflict-[^/]*\.conflict-", path)],
            f"a copy of a copy: {files}",
        )
        self._hold(all(count <= MOST_COPIES for count in copies.values()), f"many copies: {copies}")

    def _fsck(self, folder: Path) -> None:
        said = _attempt(folder, "fsck", "--no-dangling", "--no-progress")
        self._hold(said == "", f"git fsck of {folder.parent.name}: {said}")

    def _hold(self, what: bool, why: str) -> None:
        assert what, f"{why}\n{self._report()}"

    def _report(self) -> str:
        return f"in {self.root}: " + "; ".join(self.story)


def all_blobs(folder: Path) -> Iterator[bytes]:
    """The content of each blob that a repository holds."""
    check = git(folder, "cat-file", "--batch-check=%(objecttype) %(objectname)", "--batch-all-objects")
    oids = [line[5:] for line in check.splitlines() if line.startswith("blob ")]
    out = git_output(folder, "cat-file", "--batch=%(objectsize)", "--buffer", stdin="\n".join(oids) + "\n")
    content = out.encode("utf-8", "surrogateescape")
    position = 0
    while position < len(content):
        end = content.index(b"\n", position)
        size = int(content[position:end])
        yield content[end + 1 : end + 1 + size]
        position = end + 2 + size


def _below_a_file(root: Path, path: str) -> bool:
    return any((root / parent).is_file() for parent in PurePosixPath(path).parents)


def _age(path: Path) -> None:
    old = time.time() - 3600
    os.utime(path, (old, old))


_last = time.monotonic()


def _progress(*, now: bool = False) -> None:
    global _last  # noqa: PLW0603
    if SOAK_MINUTES and (now or time.monotonic() - _last > 10):
        _last = time.monotonic()
        kinds: Counter[str] = Counter()
        for what, count in told.items():
            kinds[what.partition(":")[0]] += count
        shown = ", ".join(
            f"{kind} {count}" for kind, count in sorted(kinds.items()) if kind not in ("examples", "steps")
        )
        print(f"{told['examples']} examples, {told['steps']} steps: {shown}", file=sys.__stderr__, flush=True)


_SETTINGS = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck),
    derandomize=True, database=None, print_blob=True,
)  # fmt: skip


@pytest.mark.parametrize(("what", "blocks"), [(BEFORE, 0), (AFTER, 0), (DURING, 0), (DURING, 1), (FULL, 0), (FULL, 1)])
def test_each_call_of_a_cycle_fails(what: str, blocks: int) -> None:
    """A cycle that commits, joins a clash and pushes; every call in a soak, else every seventh."""
    stride = 1 if SOAK_MINUTES else 7
    for call in range(1 + blocks % stride, 100, stride):
        life = Life()
        life.start()  # type: ignore[call-arg]
        cloud, local = life.sides["cloud"], life.sides["local"]
        life.both_change_one_file("edit", "edit", 1, 0)
        life.edit([("local", "move", 0, 2), ("local", "log", 0, 0), ("local", "dashboard", 1, 0)])
        life._person_commits(local)
        local.git("push", "-q", "origin", "HEAD:main")
        life.edit([("cloud", "write", 0, 3), ("cloud", "log", 0, 0), ("cloud", "dashboard", 0, 0)])
        cloud.fault.arm(Fault(call, what, str(blocks)))
        cloud.fault.run(lambda cloud=cloud: cloud.side.syncer().cycle())  # type: ignore[misc]
        life._note()
        life.story.append(f"{what} {call}: {' '.join(cloud.fault.calls())}")
        hit = bool(cloud.fault.done())
        life.teardown()
        if not hit:
            return
    raise AssertionError("the cycle never came to an end")


@pytest.mark.skipif(bool(SOAK_MINUTES), reason="the soak takes other examples")
def test_states() -> None:
    run_state_machine_as_test(Life, settings=_SETTINGS)


@pytest.mark.skipif(not SOAK_MINUTES, reason="set SOAK_MINUTES")
def test_soak() -> None:
    """Seed after seed until the time is over. `SOAK_SEED=n SOAK_MINUTES=0.01` is seed n alone."""
    number = SOAK_SEED or random.SystemRandom().randrange(1, 10**6)
    until = time.monotonic() + SOAK_MINUTES * 60
    while True:
        print(f"SOAK_SEED={number}", file=sys.__stderr__, flush=True)
        one = seed(number)(type("Life", (Life,), {}))
        run_state_machine_as_test(
            one,
            settings=settings(_SETTINGS, max_examples=STORIES_A_SEED, stateful_step_count=STEPS * 2, derandomize=False),
        )
        if time.monotonic() > until:
            break
        number += 1
    _progress(now=True)
    for what, count in sorted(told.items()):
        print(f"{count:7} {what}", file=sys.__stderr__)
