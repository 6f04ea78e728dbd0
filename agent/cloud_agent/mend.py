"""Whatever is on disk becomes the one state that the rest of the sync expects.

After `mend`: HEAD is symbolic to our branch (which may be unborn), the branch is what the files on disk were made
from, nothing is half done, the index can be read, no lock of a killed git is left, the remote is ours. A commit that
stood elsewhere is kept as refs/cloud-agent/join/<its id>: the exchange joins it and deletes the ref.

mend merges nothing and overwrites no file that somebody wrote, but for one with conflict markers, which is put aside
first, and one that a power loss emptied. Each step first keeps and then changes: killed between any two, it is done
again from the start, and loses nothing. Damage to the objects is heal.py's.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cloud_agent import gitfiles, guards
from cloud_agent.config import Config
from cloud_agent.git import Git, GitError, blob_id, nul_ended
from cloud_agent.mail import shown
from cloud_agent.vault import AUDIT, DONE, NEEDS_ACTION, PENDING, SKIPPED, TEMPORARY_PREFIX, UNPARSEABLE, write_whole

log = logging.getLogger("cloud_agent.mend")

JOIN = "refs/cloud-agent/join/"
STALE_LOCK_SECONDS = 10.0
# The looks at a lock without a holder: most are gone after the first. Together STALE_LOCK_SECONDS.
_PAUSES = (0.25, 0.75, 1.5, 2.5, 5.0)
# A lock with a holder is waited for no longer than this: the drafting loop waits too.
_HELD_SECONDS = 1.0
# Clocks are set now and then: what was written so shortly before the boot may have been written after it.
_BOOT_MARGIN = 5.0
HOUR = 3600.0
_EMPTY_BLOBS = tuple(hashlib.new(name, b"blob 0\0", usedforsecurity=False).hexdigest() for name in ("sha1", "sha256"))
# Of a merge, a cherry-pick, a revert, a rebase and a bisect that is not ended.
_MARKS = ("MERGE_HEAD", "MERGE_AUTOSTASH", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "BISECT_LOG",
          "BISECT_START", "rebase-merge", "rebase-apply", "sequencer")  # fmt: skip
_WITH_THEM = ("MERGE_MODE", "MERGE_MSG", "AUTO_MERGE", "BISECT_NAMES", "BISECT_TERMS", "BISECT_RUN", "BISECT_HEAD",
              "BISECT_EXPECTED_REV", "BISECT_ANCESTORS_OK", "BISECT_FIRST_PARENT")  # fmt: skip
_ENDED = {"MERGE_HEAD": "merge", "CHERRY_PICK_HEAD": "cherry-pick", "REVERT_HEAD": "revert", "rebase-merge": "rebase",
          "rebase-apply": "rebase", "BISECT_START": "bisect", "BISECT_LOG": "bisect"}  # fmt: skip


class NotNow(Exception):
    """The working tree cannot be touched now: somebody else is at work in it. Nothing is lost by waiting."""


class Boot(NamedTuple):
    """The machine's current boot: an id that no other boot has, and when it was (seconds since 1970)."""

    id: str
    time: float


Pause = Callable[[float], object]
Check = Callable[[str, bytes], str | None]


def this_boot() -> Boot | None:
    """None where the system does not tell (no Linux)."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    except OSError:
        return None
    return Boot(boot_id, float(found[1])) if found else None


def mend(
    git: Git,
    config: Config,
    state: Path,
    *,
    sleep: Pause = time.sleep,
    boot: Boot | Callable[[], Boot | None] | None = this_boot,
    check: Check | None = None,
    healed: bool = False,
) -> list[str]:
    """Bring the repository into the one state that the rest expects; a sentence for each thing that was mended.

    `state` is the state folder. `sleep` waits for a lock; what it returns as true is a stop. `boot` is the machine's
    boot. `check` objects to a file's bytes, as guards do: what it objects to is not taken from a stash. After `heal`
    (`healed`), a commit that cannot be read is passed over; before it, it is a GitError of kind `broken`. Raises
    NotNow while somebody else is at work.
    """
    repository = Repository(git, config, state, check=check, healed=healed)
    machine = boot() if callable(boot) else boot
    repository.finish_take_over()
    repository.facts += clear_locks(config.vault_path, sleep, machine)
    repository.mend_skeleton()
    repository.configure()
    repository.check_tip()
    repository.mend_index()
    repository.end_half_done()
    repository.return_to_branch()
    repository.restore_torn(machine)
    return repository.facts


# -- locks -------------------------------------------------------------------------------------------------------------


class _Look(NamedTuple):
    """What a lock file was at one look. A holder that writes changes it."""

    inode: int
    size: int
    modified: int


def clear_locks(tree: Path, sleep: Pause, boot: Boot | None) -> list[str]:
    """Remove the locks that a killed git left behind and that stop a cycle. Raises NotNow for all others.

    The rule is git-annex' (Assistant/Repair.hs repairStaleLocks): a lock is left behind when no process holds it and
    it does not change while one waits; it waits a minute, we STALE_LOCK_SECONDS. Both are needed: git closes index.lock
    while a hook or an editor runs, so it changes nothing though it is held; and a holder on another machine, or of
    another user, is not seen. The lock's own time stamp is not believed, for a clock may jump, but for one thing: what
    was written before the machine was booted is held by nobody, and is removed at first sight.
    """
    folder = tree / ".git"
    first = now = _locks(folder)
    waited = 0.0
    for pause in _PAUSES:
        if all(_predates(look, boot) for look in now.values()):
            break  # also when there is none
        if waited >= _HELD_SECONDS and (held := _holder(tree, now)):
            raise NotNow(f"{held[0].name} is held by process {held[1]}: waiting for it")
        if sleep(pause):
            raise NotNow("the sync is being stopped")
        waited += pause
        now = _locks(folder)
    held = _holder(tree, now) if now else None
    if held:
        raise NotNow(f"{held[0].name} is held by process {held[1]}: waiting for it")
    facts = []
    for path, look in now.items():
        if not _predates(look, boot) and first.get(path) != look:
            raise NotNow(f"{path.name} is held by somebody: waiting for it")
        facts.append(_tell(f"{path.relative_to(folder)} was left behind by a killed git: removed"))
        gitfiles.remove(path)
    return facts


def _locks(folder: Path) -> dict[Path, _Look]:
    """The locks that stop a cycle; housekeeping's (gc.pid, objects/**) and a partial commit's index stop nothing."""
    found = [path for path in folder.glob("*.lock") if not path.name.startswith(("gc.pid", "next-index-"))]
    found += [path for path in gitfiles.files_below(folder / "refs") if path.name.endswith(".lock")]
    looks = {}
    for path in found:
        with contextlib.suppress(OSError):
            status = path.stat()
            looks[path] = _Look(status.st_ino, status.st_size, status.st_mtime_ns)
    return looks


def _predates(look: _Look, boot: Boot | None) -> bool:
    return boot is not None and look.modified / 1e9 < boot.time - _BOOT_MARGIN


def _holder(tree: Path, paths: Iterable[Path]) -> tuple[Path, int] | None:
    """(a lock, the process that holds it): it has it open, or is a git at work in this tree.

    As far as /proc shows it to this user; elsewhere nothing is known.
    """
    real = {os.path.realpath(path): path for path in paths}
    root = os.path.realpath(tree)
    for pid in _processes():
        try:
            works_here = _is_git(pid) and f"{os.readlink(f'/proc/{pid}/cwd')}/".startswith(f"{root}/")
            if works_here and not _only_asks(pid):
                return next(iter(real.values())), pid
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if (path := real.get(os.readlink(f"/proc/{pid}/fd/{descriptor}"))) is not None:
                        return path, pid
        except OSError:
            continue
    return None


def git_at_work(tree: Path) -> int | None:
    """A running git of somebody else's in this tree."""
    held = _holder(tree, [tree / ".git"])
    return held[1] if held else None


def _processes() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def _is_git(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_bytes().startswith(b"git")


def _only_asks(pid: int) -> bool:
    """Whether this is an ls-remote, or was started by one: our own runs beside mend, and it locks nothing."""
    while pid > 1:
        if b"ls-remote" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return True
        # The name is in brackets and may hold spaces and brackets itself (proc(5)).
        pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    return False


# -- the repository ----------------------------------------------------------------------------------------------------


class Repository:
    """One clone that is being mended. Each method is one repair; it does nothing where nothing is wrong."""

    def __init__(self, git: Git, config: Config, state: Path, *, check: Check | None, healed: bool) -> None:
        self.git = git
        self.config = config
        self.state = state
        self.check = check
        self.healed = healed
        self.tree = config.vault_path
        self.folder = self.tree / ".git"
        self.aside = self.folder / "cloud-agent-aside"
        self.branch = f"refs/heads/{config.git_branch}"
        self.remote_branch = f"refs/remotes/origin/{config.git_branch}"
        self.settings: dict[str, list[str]] = {}
        self.facts: list[str] = []

    def did(self, sentence: str) -> None:
        self.facts.append(_tell(sentence))

    # -- HEAD, config and refs, where git itself refuses to run

    def mend_skeleton(self) -> None:
        """HEAD, config, packed-refs and the refs can be read. A power loss leaves them empty, or full of NULs."""
        if (self.folder / "reftable").is_dir():  # made by git 3, or by hand: what follows reads files
            self.did("the refs were kept as a reftable: they are files now")
            self.git.run("refs", "migrate", "--ref-format=files")
        whole = self._mend_config()
        self._mend_packed_refs()
        self._mend_head()
        if not whole:
            self._init()
        self._mend_refs()

    def _mend_config(self) -> bool:
        """Read .git/config; False when it could not be read, and `git init` is to make it anew."""
        path = self.folder / "config"
        content = gitfiles.read(path)
        if content is None:
            return True
        out, err = "", "it is empty"
        if content.strip(b"\0 \n\t\r"):
            status, out, err = self.git.attempt("config", "--file", str(path), "--null", "--list")
            if status != 0 and "bad config" not in err:
                raise GitError(("config",), status, err)
        if err:
            self.put_aside(path)
            self.did(f".git/config could not be read ({' '.join(err.split())[-100:]}): it is made anew")
            return False
        for entry in filter(None, out.split("\0")):
            key, _, value = entry.partition("\n")
            self.settings.setdefault(key, []).append(value)
        return True

    def _mend_packed_refs(self) -> None:
        content = gitfiles.read(self.folder / "packed-refs")
        sound = gitfiles.packed_refs(content or b"")[1]
        if content is not None and content != sound:
            self.did(f".git/packed-refs was broken: {len(sound.splitlines())} lines of it are kept")
            self.keep_copy("packed-refs", content)
            gitfiles.write(self.folder / "packed-refs", sound)

    def _mend_head(self) -> None:
        """A HEAD that is lost is again where its reflog says it was, so that nothing on disk is taken for an edit."""
        content = gitfiles.read(self.folder / "HEAD")
        whole = all((self.folder / name).is_dir() for name in ("objects", "refs"))
        if content is not None and gitfiles.ref_value(content) is not None and whole:
            return
        if content is None and not (self.folder / "logs" / "HEAD").exists():
            # A plain folder becomes a clone: its files are committed, and joined with the remote's as ever.
            log.info("%s is no clone yet: it becomes one", self.tree)
            self._init()
            return
        if content is None or gitfiles.ref_value(content) is None:
            self.did("HEAD was lost: it is again where its reflog says it was")
            was = self._reflog("HEAD")
            on_branch = not was or was[0] == gitfiles.read_ref(self.folder, self.branch)
            gitfiles.write(self.folder / "HEAD", (f"ref: {self.branch}" if on_branch else was[0]).encode() + b"\n")
        self._init()
        detached = gitfiles.ref_value(gitfiles.read(self.folder / "HEAD") or b"") or ""
        if not detached.startswith("refs/") and not self.readable([detached]):
            gitfiles.write(self.folder / "HEAD", f"ref: {self.branch}\n".encode())

    def _init(self) -> None:
        there = (self.folder / "HEAD").exists()
        command = ("init", "--quiet", f"--initial-branch={self.config.git_branch}")
        status, _, err = self.git.attempt(*command)
        if status != 0 and there:
            err = f"{err}\nfatal: not a git repository"  # what every other command will say
        if status != 0:
            raise GitError(command, status, err)

    def _mend_refs(self) -> None:
        """A loose ref that is garbage, and our branch where it vanished, are again what their reflogs say."""
        lost = []
        for path in gitfiles.files_below(self.folder / "refs"):
            if path.name.startswith(".") or path.name.endswith(".lock"):
                continue
            content = gitfiles.read(path)
            if content is not None and gitfiles.ref_value(content) is None:
                lost.append(path.relative_to(self.folder).as_posix())
        if (
            gitfiles.read_ref(self.folder, self.branch) is None
            and self.branch not in lost
            and self._reflog(self.branch)
        ):
            lost.append(self.branch)
        for name in lost:
            self.recover_ref(name)

    def recover_ref(self, name: str, complete: Callable[[list[str]], list[str]] | None = None) -> str | None:
        """Set a ref to the newest commit that it had and that is there; without one it is removed.

        `complete` keeps of a list of commits those that are there. Without it, one that can be read is enough; and our
        own branch is what it was last in any case: heal brings the commit back, or goes further back.
        """
        known = self._reflog(name)
        if name == self.branch and gitfiles.ref_value(gitfiles.read(self.folder / "HEAD") or b"") == name:
            known += self._reflog("HEAD")
        packed = gitfiles.packed_refs(gitfiles.read(self.folder / "packed-refs") or b"")[0].get(name)
        known = list(dict.fromkeys([*known, *([packed] if packed else [])]))
        if name == self.branch and complete is None:
            found = known[0] if known else self._tracked_state(self._there)
        else:
            found = next(iter((complete or self._there)(known)), None)
            if found is None and name == self.branch:
                found = self._tracked_state(complete or self._there)
        if found is not None:
            self.did(f"{name} was lost: it is {found[:10]} again, where it was last")
            gitfiles.write(self.folder / name, f"{found}\n".encode())
        else:
            self.did(f"{name} was lost, and no commit of it is left: it is removed")
            if packed is not None:
                content = gitfiles.read(self.folder / "packed-refs") or b""
                self.keep_copy("packed-refs", content)
                kept = re.sub(rb"(?m)^[0-9a-f]+ %s\n(\^.*\n)?" % re.escape(os.fsencode(name)), b"", content)
                gitfiles.write(self.folder / "packed-refs", kept)
            gitfiles.remove(self.folder / name)
        return found

    def _tracked_state(self, complete: Callable[[list[str]], list[str]]) -> str | None:
        """The newest commit of the remote's branch that is what the index was made from.

        Any other may be newer than the files: they would be taken for edits that undo it. Then the branch is unborn,
        and what is on disk is joined with the remote's as a plain folder's files are.
        """
        tip = gitfiles.read_ref(self.folder, self.remote_branch)
        for oid in complete(list(dict.fromkeys([*([tip] if tip else []), *self._reflog(self.remote_branch)]))):
            if self.git.attempt("diff-index", "--cached", "--quiet", oid)[0] == 0:
                return oid
        return None

    def _reflog(self, name: str) -> list[str]:
        return gitfiles.reflog(gitfiles.read(self.folder / "logs" / name) or b"")

    def _there(self, oids: list[str]) -> list[str]:
        there = self.readable(oids)
        return [oid for oid in oids if oid in there]

    def readable(self, oids: Iterable[str]) -> set[str]:
        """Those of these commits that can be read, and their trees too."""
        oids = list(oids)
        out = self.git.attempt(
            "cat-file", "--batch-check", stdin="".join(f"{oid}^{{tree}}\n" for oid in oids).encode()
        )[1]  # fmt: skip
        return {oid for oid, answer in zip(oids, out.splitlines(), strict=False) if " tree " in answer}

    # -- what can be asked of git

    def configure(self) -> None:
        wanted = {
            "remote.origin.url": self.config.git_remote_url,
            "remote.origin.fetch": "+refs/heads/*:refs/remotes/origin/*",
            "remote.origin.pushurl": None,
            f"branch.{self.config.git_branch}.remote": "origin",
            f"branch.{self.config.git_branch}.merge": self.branch,
        }
        for key, value in wanted.items():
            if self.settings.get(key, []) == ([] if value is None else [value]):
                continue
            if value is None:
                self.git.run("config", "--local", "--unset-all", key)
            else:
                self.git.run("config", "--local", "--replace-all", key, value)

    def check_tip(self) -> None:
        """HEAD and the remote's branch are commits that can be read, or absent. Raises a GitError that `is_broken`.

        `rev-parse --verify --quiet NAME^{commit}` answers alike for a ref that is absent and for a commit that is lost.
        """
        tips = {gitfiles.read_ref(self.folder, name): name for name in (self.remote_branch, "HEAD")}
        tips.pop(None, None)
        there = self.readable(oid for oid in tips if oid)
        for oid, name in tips.items():
            if oid not in there:
                raise GitError(("cat-file",), 128, f"fatal: bad object {oid} ({name})")

    def mend_index(self) -> None:
        path = self.folder / "index"
        content = gitfiles.read(path)
        if content is None:
            # A clone that was killed before its checkout: the files are not deleted, they never came.
            self.rebuild_index(bring_files=True)
            return
        broken = not gitfiles.index_is_sound(content)
        base = gitfiles.shared_index(content)
        if not broken and base is not None and not (self.folder / base).exists():
            broken = self.git.attempt("ls-files", "--error-unmatch", "--", ".gitignore")[0] not in (0, 1)
        if broken:
            self.did("the index was broken: it is made anew")
            self.keep_copy("index", content)
            self.rebuild_index()

    def rebuild_index(self, *, bring_files: bool = False, tip: str | None = None) -> None:
        """The index as HEAD (or `tip`) has it; nothing on disk is overwritten. `bring_files` adds those that lack.

        It is made beside and renamed: killed in between, no file is seen as deleted that was about to come.
        """
        tip = tip or gitfiles.read_ref(self.folder, "HEAD")
        if tip is None:
            gitfiles.remove(self.folder / "index")
            return
        index = self._index_of(tip)
        if bring_files:
            self.git.attempt("checkout-index", "--all", "--quiet", "-u", index=index)
        os.rename(index, self.folder / "index")

    # -- what somebody's git left half done

    def end_half_done(self) -> None:
        """End what is half done, and keep what it did: an abort would throw away what was written since.

        Our own mark stands from before the first change until after the last: what a kill leaves of an ended merge
        must not pass for one that a person settled.
        """
        marks = [name for name in _MARKS if os.path.lexists(self.folder / name)]
        ours = self.folder / "cloud-agent-ending"
        ending = ours.exists()
        if not marks and not ending:
            if self.git.run("ls-files", "--unmerged", "-z"):
                # Of a stash pop, say. The files stay as they are: those with markers are held back, and told.
                self.did("files were unmerged, without a merge: the index is that of HEAD, the files stay")
                self.rebuild_index()
            return
        what = next((_ENDED[name] for name in marks if name in _ENDED), "rebase")
        heads = gitfiles.object_ids(gitfiles.read(self.folder / "MERGE_HEAD") or b"")
        unsettled = self._unsettled()
        for name in ("rebase-merge/autostash", "rebase-apply/autostash", "MERGE_AUTOSTASH"):
            for oid in gitfiles.object_ids(gitfiles.read(self.folder / name) or b""):
                self._keep_stash(oid)
        if heads and not unsettled and not ending and self._finish_merge(heads):
            self.did("a merge was left half done, without a conflict: it is committed")
        else:
            for oid in heads:
                self.keep(oid, "what was being merged")
            for name in ("rebase-merge/orig-head", "rebase-apply/orig-head"):
                for oid in gitfiles.object_ids(gitfiles.read(self.folder / name) or b""):
                    self.keep(oid, "what was being rebased")
            gitfiles.write(ours, b"")
            self._take_markers_off(unsettled)
            self.did(f"a {what} was left half done: it is ended, and what it left in the files is kept")
        bisect = [f"delete {name}\n" for name in self._refs("refs/bisect")]
        if bisect:
            self.git.run("update-ref", "--stdin", stdin="".join(bisect).encode("utf-8", "surrogateescape"))
        self.rebuild_index()
        for name in (*_WITH_THEM, *marks):
            path = self.folder / name
            if path.is_dir():
                self.put_aside(path)  # of a git am, the patches that are not applied
            else:
                gitfiles.remove(path)
        gitfiles.remove(ours)

    def _unsettled(self) -> dict[str, str]:
        """The unmerged files that have conflict markers, or that nobody touched since git found no way to merge them
        (binary ones) -> the stage that takes their place."""
        stages: dict[str, dict[str, str]] = {}
        for _, oid, stage, path in self._entries("ls-files", "--unmerged", "-z"):
            stages.setdefault(path, {})[stage] = oid
        unsettled = {}
        for path, present in stages.items():
            content = self._content(path)
            if content is None:
                continue
            untouched = blob_id(content) in (present.get("2"), present.get("3"))
            if guards.has_conflict_markers(content) or b"\0" in content or (untouched and self._is_binary(present)):
                unsettled[path] = "2" if "2" in present else "3"
        return unsettled

    def _is_binary(self, stages: dict[str, str]) -> bool:
        return any(b"\0" in self.git.attempt_bytes("cat-file", "blob", oid)[1] for oid in stages.values())

    def _take_markers_off(self, unsettled: dict[str, str]) -> None:
        """A file with markers goes to .git/cloud-agent-aside, and git's own side takes its place: both sides are in
        commits. A file without them is a person's work and stays."""
        for path, stage in unsettled.items():
            content = self._content(path)
            if content is not None:
                kept = self.keep_copy(PurePosixPath(path).name, content)
                self.did(f"{shown(path)} had conflict markers: it lies in {shown(str(kept))} now")
                self.git.run("checkout-index", "--force", f"--stage={stage}", "--", path)

    def _content(self, path: str) -> bytes | None:
        file = self.tree / path
        try:
            return file.read_bytes() if stat.S_ISREG(file.lstat().st_mode) else None
        except OSError:
            return None

    def _finish_merge(self, heads: list[str]) -> bool:
        """Commit a merge that a person settled: what is on disk is committed on top of it, under the guards.

        The merge commit itself takes for each file what one of its parents has, the index's choice where it is one of
        these: so nothing passes the guards by, and nothing that they hold back vanishes from the branch.
        """
        head = gitfiles.read_ref(self.folder, "HEAD")
        if head is None or self.readable(heads) != set(heads):
            return False
        if all(self._contains(head, oid) for oid in heads):
            return True  # killed after the commit
        index: dict[str, tuple[str, str]] = {}
        unmerged = set()
        for mode, oid, stage, path in self._entries("ls-files", "--stage", "-z"):
            index[path] = (mode, oid)
            if stage != "0":
                unmerged.add(path)
        ours = self._tree_of(head)
        theirs = [self._tree_of(oid) for oid in heads]
        lines: list[str] = []
        for path in sorted({*index, *ours, *(path for side in theirs for path in side)}):
            sides = [ours.get(path), *(side.get(path) for side in theirs)]
            chosen = index.get(path)
            if path in unmerged or chosen not in sides:
                chosen = next((side for side in (*sides[1:], sides[0]) if side is not None), None)
            if chosen is None and sides[0] is not None:
                lines.insert(0, f"0 {'0' * len(head)}\t{path}")  # first: a folder may come where the file was
            elif chosen is not None and chosen != sides[0]:
                lines.append(f"{chosen[0]} {chosen[1]}\t{path}")
        tree = self._tree_with(head, lines)
        parents = [part for oid in (head, *heads) for part in ("-p", oid)]
        name = self.config.agent_name.title()
        made = self.git.run("commit-tree", tree, *parents, "-m", f"{name}: merge").strip()
        self.git.run("update-ref", "-m", "cloud-agent: a merge that was settled", "HEAD", made, head)
        return True

    def _keep_stash(self, oid: str) -> None:
        """Keep what a rebase or merge has put away as a commit of its own: the stash's own two are no history."""
        if self._unreadable(oid, "an automatic stash"):
            return
        parent = self.git.run("rev-parse", "--verify", f"{oid}^1").strip()
        before, after = self._tree_of(parent), self._tree_of(oid)
        lines: list[str] = []
        for path in sorted({*before, *after}):
            new = after.get(path)
            if new == before.get(path):
                continue
            if new is None:
                lines.insert(0, f"0 {'0' * len(parent)}\t{path}")
                continue
            content = self.git.attempt_bytes("cat-file", "blob", new[1])[1]
            if self.check is not None and (why := self.check(path, content)) is not None:
                kept = self.keep_copy(PurePosixPath(path).name, content)
                self.did(f"{shown(path)} of an automatic stash is not joined ({why}): it lies in {shown(str(kept))}")
                continue
            lines.append(f"{new[0]} {new[1]}\t{path}")
        if lines:
            tree = self._tree_with(parent, lines)
            said = f"{self.config.agent_name.title()}: edits of an automatic stash"
            # The date of the stash: killed and done again, it is the same commit.
            when = self.git.run("show", "--no-patch", "--format=%ct", oid).strip()
            kept_as = self._commit_at(when, "commit-tree", tree, "-p", parent, "-m", said)
            self.keep(kept_as, "what was put away as an automatic stash")

    def _commit_at(self, when: str, *command: str) -> str:
        dated = with_environment(self.git, GIT_AUTHOR_DATE=f"@{when} +0000", GIT_COMMITTER_DATE=f"@{when} +0000")
        return dated.run(*command).strip()

    def _tree_with(self, commit: str, lines: list[str]) -> str:
        """The tree of a commit with entries of `update-index --index-info` laid over it."""
        index = self._index_of(commit)
        if lines:
            self.git.run("update-index", "-z", "--index-info", stdin=nul_ended(lines), index=index)
        return self.git.run("write-tree", index=index).strip()

    def _index_of(self, commit: str) -> str:
        """A new index file of a commit, beside git's own."""
        work = self.folder / "cloud-agent"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        index = str(work / "index")
        self.git.run("read-tree", commit, index=index)
        return index

    def _tree_of(self, commit: str) -> dict[str, tuple[str, str]]:
        """Path -> (mode, object id)."""
        return {path: (mode, oid) for mode, _, oid, path in self._entries("ls-tree", "-r", "-z", commit)}

    def _entries(self, *command: str) -> Iterator[tuple[str, str, str, str]]:
        """The three fields before the tab and the path, of ls-files --stage or ls-tree."""
        for meta, _, path in (entry.partition("\t") for entry in filter(None, self.git.run(*command).split("\0"))):
            one, two, three = meta.split()
            yield one, two, three, path

    def _refs(self, below: str) -> list[str]:
        return self.git.run("for-each-ref", "--format=%(refname)", below).split()

    # -- back on our branch

    def return_to_branch(self) -> None:
        """From a detached HEAD or another branch: our branch is what is on disk, and its former tip is joined."""
        here = gitfiles.ref_value(gitfiles.read(self.folder / "HEAD") or b"")
        if here == self.branch:
            return
        tip = gitfiles.read_ref(self.folder, "HEAD")
        ours = gitfiles.read_ref(self.folder, self.branch)
        if tip is None:
            if ours is not None:
                # An orphan branch: what it lacks was never deleted from ours.
                self.rebuild_index(bring_files=True, tip=ours)
            self.did(f"HEAD was on a branch without a commit: it is on {self.config.git_branch} again")
        else:
            if ours is not None and ours != tip and not self._unreadable(ours, self.config.git_branch):
                self.keep(ours, self.config.git_branch, within=tip)
            if ours != tip:
                said = "cloud-agent: what is on disk"
                self.git.run("update-ref", "-m", said, self.branch, tip, *([ours] if ours else []))
            self.did(f"HEAD was not on {self.config.git_branch}: what was committed there is joined into it")
        self.git.run("symbolic-ref", "-m", "cloud-agent: back on our branch", "HEAD", self.branch)

    def keep(self, oid: str, what: str, within: str | None = None) -> None:
        """Keep a commit for the exchange to join, unless HEAD (or `within`) has it."""
        if self._unreadable(oid, what):
            return
        tip = within or gitfiles.read_ref(self.folder, "HEAD")
        if tip is None or not self._contains(tip, oid):
            self.git.run("update-ref", f"{JOIN}{oid}", oid)

    def _contains(self, commit: str, other: str) -> bool:
        command = ("merge-base", "--is-ancestor", other, commit)
        status, _, err = self.git.attempt(*command)
        if status not in (0, 1):
            raise GitError(command, status, err)
        return status == 0

    def _unreadable(self, oid: str, what: str) -> bool:
        if self.readable([oid]):
            return False
        if not self.healed:
            raise GitError(("cat-file",), 128, f"fatal: bad object {oid} ({what})")
        self.did(f"{what} ({oid[:10]}) is lost: nothing has it any more")
        return True

    # -- what a power loss tore

    def restore_torn(self, boot: Boot | None) -> None:
        """A tracked file that the power loss before this boot emptied, or left full of NULs, is again what HEAD has.

        git does not sync the files that it checks out to the disk. Looked for once a boot, in files from before it: a
        person's emptied file of today is an edit. Which of the older files are full of NULs is not looked at again:
        they were on disk a day before the last one was written.
        """
        marker = self.state / "boot"
        if boot is None or gitfiles.read(marker) == boot.id.encode():
            return
        head = gitfiles.read_ref(self.folder, "HEAD")
        if head is not None:
            old = {}
            for path, (mode, oid) in self._tree_of(head).items():
                with contextlib.suppress(OSError):
                    status = (self.tree / path).lstat()
                    if mode.startswith("100") and stat.S_ISREG(status.st_mode) and status.st_mtime < boot.time:
                        old[path] = (oid, status)
            newest = max((status.st_mtime for _, status in old.values()), default=0.0)
            for path, (oid, status) in old.items():
                if oid not in _EMPTY_BLOBS and (status.st_size == 0 or status.st_mtime > newest - 24 * HOUR):
                    self._restore_if_torn(path, oid, head)
        write_whole(marker, boot.id.encode())

    def _restore_if_torn(self, path: str, oid: str, head: str) -> None:
        file = self.tree / path
        try:
            with open(file, "rb", buffering=0) as opened:
                mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
                content = opened.read(64)
                if content.strip(b"\0"):
                    return
                content += opened.read()
        except OSError:
            return
        if content.strip(b"\0"):
            return
        algorithm = "sha1" if len(oid) == 40 else "sha256"
        blob = hashlib.new(algorithm, b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        linked = any((self.tree / parent).is_symlink() for parent in PurePosixPath(path).parents[:-1])
        if blob == oid or linked:
            return
        command = ("cat-file", "--filters", f"{head}:{path}")
        status, whole, err = self.git.attempt_bytes(*command)
        if status != 0:
            raise GitError(command, status, err)
        if content:
            self.keep_copy(PurePosixPath(path).name, content)
        temporary = file.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}.tmp"
        gitfiles.write_synced(temporary, whole, mode)
        os.rename(temporary, file)
        self.did(f"{shown(path)} was {'full of NULs' if content else 'empty'} after a power loss: it is restored")

    # -- a fresh repository that took over (heal.py), where it was killed

    @property
    def fresh(self) -> Path:
        return self.tree / f"{TEMPORARY_PREFIX}git.new"

    @property
    def former(self) -> Path:
        return self.tree / f"{TEMPORARY_PREFIX}git.old"

    def finish_take_over(self) -> None:
        """The former .git is renamed when the fresh one is whole: then that takes its place, else it is dropped."""
        if self.former.exists():
            if not self.folder.exists() and self.fresh.exists():
                os.rename(self.fresh, self.folder)
            if self.folder.exists():
                kept = self._move_out(self.former)
                self.did(f"the repository was beyond repair: a fresh one took over, the former is kept in {kept}")
            else:
                os.rename(self.former, self.folder)
        if self.fresh.exists():
            shutil.rmtree(self.fresh)

    def _move_out(self, former: Path) -> Path:
        """Out of the vault, to the state folder, also where that is another file system."""
        kept = self.state / "kept"
        kept.mkdir(parents=True, exist_ok=True)
        target = gitfiles.free_name(kept / time.strftime("git-%Y%m%dT%H%M%SZ", time.gmtime()))
        try:
            os.rename(former, target)
        except OSError:
            part = kept / "git.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(former, part, symlinks=True)
            os.rename(part, target)
            shutil.rmtree(former)
        return target

    # -- aside

    def put_aside(self, path: Path) -> Path:
        """Move something of .git to .git/cloud-agent-aside."""
        self.aside.mkdir(exist_ok=True)
        target = gitfiles.free_name(self.aside / path.name)
        os.rename(path, target)
        return target

    def keep_copy(self, name: str, content: bytes) -> Path:
        """A file of .git/cloud-agent-aside with this content, under a name that is made from it."""
        self.aside.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()[:10]
        stem = os.fsencode(f"{digest}-{name}")[:200]
        path = self.aside / os.fsdecode(stem)
        if not path.exists():
            gitfiles.write(path, content)
        return path


# -- now and then ------------------------------------------------------------------------------------------------------


def sweep(config: Config, now: float) -> list[str]:
    """Remove what killed processes left and what stops nobody; `now` is seconds since 1970. Under the tree lock."""
    tree = config.vault_path
    folder = tree / ".git"
    ours = [tree / name for name in ("", "Inbox", PENDING, NEEDS_ACTION, DONE, SKIPPED, AUDIT, UNPARSEABLE)]
    ours += [tree / "Logs" / "API_Usage", *(path for path in (tree / "In_Progress").glob("*") if not path.is_symlink())]
    old: list[Path] = []
    for place in ours:
        old += _older(place, f"{TEMPORARY_PREFIX}*.tmp", now - HOUR)
    old += [*_older(folder, "fast_import_crash_*", now - HOUR), *_older(folder, ".*.cloud-agent", now - HOUR)]
    day = now - 24 * HOUR
    for place, pattern in (
        (folder, "next-index-*.lock"),
        (folder, "gc.pid*"),  # git itself believes no gc.pid of half a day
        (folder, "sharedindex_*"),
        (folder / "objects", "*.lock"),
        (folder / "objects", "tmp_*"),
        (folder / "objects" / "pack", "tmp_*"),
        (folder / "objects" / "pack", ".tmp-*"),
        (folder / "objects" / "pack", "*.lock"),
        (folder / "objects" / "info", "*.lock"),
        (folder / "objects" / "info" / "commit-graphs", "*.lock"),
        (folder / "objects" / "info" / "commit-graphs", "tmp_*"),
    ):
        old += _older(place, pattern, day)
    old += [
        path for path in gitfiles.files_below(folder / "logs") if path.name.endswith(".lock") and _modified(path) < day
    ]
    if old and _holder(tree, old):
        return []
    for path in old:
        gitfiles.remove(path)
    return (
        [_tell(f"{len(old)} leftovers of killed processes are removed, {shown(old[0].name)} one of them")]
        if old
        else []
    )


def shortened(git: Git, ours: str, theirs: str) -> str | None:
    """The commit of ours from which theirs goes on, where theirs is our history made shorter on purpose.

    Asked where the two have no merge base. Then the one root of theirs has the tree of a commit of ours; the newest
    such commit is the base of the join. An empty tree says nothing. Raises GitError.
    """
    roots = git.run("rev-list", "--max-parents=0", theirs).split()
    if len(roots) != 1:
        return None
    tree = git.run("rev-parse", "--verify", f"{roots[0]}^{{tree}}").strip()
    if not git.run("ls-tree", tree):
        return None
    for line in git.run("log", "--topo-order", "--format=%H %T", ours).splitlines():
        commit, _, its_tree = line.partition(" ")
        if its_tree == tree:
            return commit
    return None


# -- files -------------------------------------------------------------------------------------------------------------


def _tell(sentence: str) -> str:
    log.warning("%s", sentence)
    return sentence


def with_environment(git: Git, **environment: str) -> Git:
    """The same git with more in its environment."""
    other = copy.copy(git)
    other.environment = {**git.environment, **environment}
    return other


def _older(folder: Path, pattern: str, than: float) -> list[Path]:
    if folder.is_symlink():
        return []
    return [
        path for path in folder.glob(pattern) if _modified(path) < than and path.is_file() and not path.is_symlink()
    ]


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return float("inf")
