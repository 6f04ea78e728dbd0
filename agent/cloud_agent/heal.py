"""A repository whose objects are damaged is made whole: by a power loss (emptied objects), or by a failing disk.

The ladder: what is damaged is put aside; what the files on disk still have is made again; the rest is fetched from the
remote; where it has not got it, the branch goes back to its newest commit that is whole; and where nothing helps, a
fresh repository takes over. The files stay as they are all along: what they have and the branch has not is committed
and joined as ever. Each rung can be killed and is climbed again.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from errno import EDQUOT, ENOSPC, EROFS
from pathlib import Path

from cloud_agent import gitfiles
from cloud_agent.config import Config
from cloud_agent.git import NETWORK_DEADLINE, Git, GitError
from cloud_agent.mend import (
    Boot,
    NotNow,
    Pause,
    Repository,
    clear_locks,
    git_at_work,
    this_boot,
    with_environment,
)

log = logging.getLogger("cloud_agent.heal")

# What is to be had anew is the whole history.
FETCH_DEADLINE = 5 * NETWORK_DEADLINE
_WOUND = re.compile(
    r"^(?:missing (?:blob|tree|commit|tag) [0-9a-f]+|broken link .*|error: .*|fatal: .*|bad .*)$",
    re.MULTILINE,
)


class Broken(Exception):
    """The repository is damaged, and what could heal it is out of reach for now: it is tried again."""


def heal(
    git: Git,
    config: Config,
    state: Path,
    *,
    sleep: Pause = time.sleep,
    boot: Boot | Callable[[], Boot | None] | None = this_boot,
    deadline: float = FETCH_DEADLINE,
) -> list[str]:
    """Make a damaged repository whole: a sentence for each thing that was done; none: it was whole.

    To be called after a GitError of kind `broken`, and `mend(healed=True)` after it. It touches nothing but .git, so
    that nobody need wait while it fetches: the whole history, at most once, within `deadline`. Raises Broken where the
    remote is needed and cannot be had, NotNow while another git works here, GitError.
    """
    machine = boot() if callable(boot) else boot
    repository = _Patient(git, config, state, check=None, healed=False)
    repository.finish_take_over()
    repository.facts += clear_locks(config.vault_path, sleep, machine)
    if (pid := git_at_work(config.vault_path)) is not None:
        raise NotNow(f"process {pid} works in the vault: the repository is healed when it is done")
    try:
        if repository.climb(deadline):
            repository.forget_lost()
        else:
            repository.take_over(deadline)
    except (GitError, OSError) as error:  # the folder itself is damaged: objects is a file, or cannot be read
        if getattr(error, "kind", "") in ("disk", "busy") or getattr(error, "errno", 0) in (ENOSPC, EDQUOT, EROFS):
            raise
        repository.did(f"the repository cannot be healed: {' '.join(str(error).split())[-200:]}")
        repository.take_over(deadline)
    return repository.facts


class _Patient(Repository):
    """A damaged repository. Each method is one rung of the ladder, and can be done again."""

    remote_tip: str | None = None

    def climb(self, deadline: float) -> bool:
        """The rungs before the last; True when the repository is whole."""
        self.mend_skeleton()
        self.configure()
        self.put_aside_damaged()
        if not self.wounds():
            return True
        self.make_again()
        wounds = self.wounds()
        if not wounds:
            return True
        missing = sum(line.startswith("missing ") for line in wounds)
        self.did(f"{missing or 'some'} objects are lost that no file on disk has")
        self.fetch_again(deadline)
        if not self.wounds():
            return True
        self.go_back()
        return not self.wounds()

    @property
    def objects(self) -> Path:
        return self.folder / "objects"

    @property
    def fetched(self) -> Path:
        return self.folder / "cloud-agent-fetched"

    # -- what is damaged

    def put_aside_damaged(self) -> None:
        """No object file that is not what its name says stays where git finds it."""
        shutil.rmtree(self.fetched, ignore_errors=True)
        derived = [
            self.objects / "info" / "commit-graph",
            *gitfiles.files_below(self.objects / "info" / "commit-graphs"),
        ]
        for path in [*derived, *(self.objects / "pack").glob("multi-pack-index*")]:
            gitfiles.remove(path)  # it may name what is lost; git makes it anew
        emptied = damaged = 0
        for folder in self.objects.glob("[0-9a-f][0-9a-f]"):
            for path in folder.iterdir():
                if not re.fullmatch(r"[0-9a-f]{38}|[0-9a-f]{62}", path.name):
                    continue
                content = gitfiles.read(path) or b""
                if not content.strip(b"\0"):
                    emptied += 1
                    gitfiles.remove(path)
                elif not gitfiles.object_is_sound(folder.name + path.name, content):
                    damaged += 1
                    self._aside_as(path, f"{folder.name}{path.name}")
        if emptied or damaged:
            self.did(f"{emptied} emptied and {damaged} damaged objects were found: they are out of the way")
        size = 32 if "sha256" in self.settings.get("extensions.objectformat", []) else 20
        for pack in sorted((self.objects / "pack").glob("pack-*.pack")):
            self._mend_pack(pack, size)
        for index in (self.objects / "pack").glob("pack-*.idx"):
            if not index.with_suffix(".pack").exists():
                self._aside_as(index, index.name)

    def _mend_pack(self, pack: Path, size: int) -> None:
        index = pack.with_suffix(".idx")
        if gitfiles.seal_holds(pack, size):
            if not index.exists() or not gitfiles.seal_holds(index, size):
                for beside in (index, pack.with_suffix(".rev"), pack.with_suffix(".bitmap")):
                    gitfiles.remove(beside)
                self.git.run("index-pack", str(pack))
                self.did(f"the index of {pack.name} was damaged: it is made anew")
            return
        # Without its index git does not see the pack; what can be read of it is then unpacked, and it goes aside.
        for beside in pack.parent.glob(f"{pack.stem}.*"):
            if beside != pack:
                self._aside_as(beside, beside.name)
        self.git.attempt("unpack-objects", "-q", "-r", stdin=pack.read_bytes())
        self._aside_as(pack, pack.name)
        self.did(f"{pack.name} was damaged: what could be read of it is kept")

    def _aside_as(self, path: Path, name: str) -> None:
        self.aside.mkdir(exist_ok=True)
        os.rename(path, self.aside / name)

    def wounds(self, *, reflogs: bool = False) -> list[str]:
        """What git fsck finds missing or unreadable from every ref and the index."""
        command = (
            "fsck",
            "--connectivity-only",
            "--no-dangling",
            "--no-progress",
            *(() if reflogs else ("--no-reflogs",)),
        )
        status, out, err = self.git.attempt(*command, deadline=FETCH_DEADLINE)
        if status == 0:
            return []
        said = [found[0] for found in _WOUND.finditer(f"{out}\n{err}")]
        return said or [f"git fsck ended with {status}"]

    # -- what is made again

    def make_again(self) -> None:
        """Write the blobs of the files on disk and the trees of the index: those that are lost among them are back."""
        status, out, _ = self.git.attempt("ls-files", "-z")
        if status != 0:
            return  # a broken index; mend makes it anew
        names = [
            name
            for name in filter(None, out.split("\0"))
            if "\n" not in name
            and (self.tree / name).is_file()
            and not (self.tree / name).is_symlink()
            and os.access(self.tree / name, os.R_OK)
        ]
        paths = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
        self.git.attempt("hash-object", "-w", "--stdin-paths", stdin=paths)
        work = self.folder / "cloud-agent"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        shutil.copy(self.folder / "index", work / "index")
        self.git.attempt("write-tree", "--missing-ok", index=str(work / "index"))

    # -- what is fetched

    def fetch_again(self, deadline: float) -> None:
        """Everything that the remote has, without telling it what we have: that may be lost. Raises Broken."""
        self._fetch_into(self.fetched, deadline)
        packs = self.fetched / "objects" / "pack"
        (self.objects / "pack").mkdir(exist_ok=True)
        # The pack before its index, as git does: without an index it is not seen.
        for path in sorted(packs.glob("pack-*"), key=lambda path: path.suffix == ".idx"):
            if not (self.objects / "pack" / path.name).exists():
                os.rename(path, self.objects / "pack" / path.name)
        self.remote_tip = gitfiles.read_ref(self.fetched, self.branch)
        shutil.rmtree(self.fetched)
        self.did("what the remote has was fetched anew")

    def _fetch_into(self, folder: Path, deadline: float) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        other = with_environment(self.git, GIT_DIR=str(folder), GIT_INDEX_FILE=str(folder / "index"))
        algorithm = (self.settings.get("extensions.objectformat") or ["sha1"])[0]
        kind = [f"--object-format={algorithm}"] if algorithm != "sha1" else []
        other.run("init", "--quiet", f"--initial-branch={self.config.git_branch}", *kind)
        with (folder / "config").open("a") as file:
            file.write("[fetch]\n\tunpackLimit = 1\n[core]\n\tbare = true\n")
        refs = "+refs/heads/*:refs/heads/*"
        try:
            command = ("fetch", "--quiet", "--update-head-ok", "--no-tags", self.config.git_remote_url, refs)
            other.run(*command, deadline=deadline)
        except GitError as error:
            if error.kind == "disk":
                raise
            raise Broken(
                f"the vault's repository is damaged ({self.facts[-1] if self.facts else 'objects are lost'}), and the "
                f"remote, which may have it, cannot be had: it is tried again, and the files are untouched. {error}"
            ) from error

    # -- what is given up

    def go_back(self) -> None:
        """Each ref that is not whole goes back to the newest commit that it had and that is."""
        refs = {name for name in self._all_refs() if gitfiles.read_ref(self.folder, name)}
        whole: set[str] = set()
        if self.remote_tip is not None:
            whole.add(self.remote_tip)
        head = gitfiles.ref_value(gitfiles.read(self.folder / "HEAD") or b"") or ""
        if not head.startswith("refs/") and not self._complete([head], whole):
            found = next(iter(self._complete(self._reflog("HEAD"), whole)), None)
            self.did(f"HEAD's commit {head[:10]} is lost: HEAD is at {found[:10] if found else self.branch} now")
            gitfiles.write(self.folder / "HEAD", f"{found or f'ref: {self.branch}'}\n".encode())
        for name in sorted(refs, key=lambda name: name != self.branch):
            lost = gitfiles.read_ref(self.folder, name)
            value = gitfiles.ref_value(gitfiles.read(self.folder / name) or b"") or ""
            if lost is None or value.startswith("refs/") or self._complete([lost], whole):
                continue
            log.warning("%s: its commit %s, or what it is made of, is lost", name, lost)
            if name == self.remote_branch and self.remote_tip is not None:
                gitfiles.write(self.folder / name, f"{self.remote_tip}\n".encode())
            elif not name.startswith("refs/tags/"):
                self.recover_ref(name, lambda oids: self._first_complete(oids, whole))
        self.rebuild_index()

    def _all_refs(self) -> set[str]:
        loose = (path.relative_to(self.folder).as_posix() for path in gitfiles.files_below(self.folder / "refs"))
        packed = gitfiles.packed_refs(gitfiles.read(self.folder / "packed-refs") or b"")[0]
        return {name for name in (*loose, *packed) if not name.endswith(".lock") and "/." not in name}

    def _complete(self, oids: list[str], whole: set[str]) -> list[str]:
        """Those of these commits of which everything is there, history and all; `whole` learns them."""
        return [oid for oid in oids if self._is_complete(oid, whole)]

    def _first_complete(self, oids: list[str], whole: set[str]) -> list[str]:
        return next(([oid] for oid in oids if self._is_complete(oid, whole)), [])

    def _is_complete(self, oid: str, whole: set[str]) -> bool:
        if oid in whole:
            return True
        command = ("rev-list", "--objects", "--quiet", oid, "--not", *sorted(whole))
        if self.git.attempt(*command, deadline=FETCH_DEADLINE)[0] != 0:
            return False
        whole.add(oid)
        return True

    def forget_lost(self) -> None:
        """Drop the lines of reflogs that name lost commits: git gc and fsck stop at them."""
        if not self.wounds(reflogs=True):
            return
        whole: set[str] = set()
        self._complete([oid for name in self._all_refs() if (oid := gitfiles.read_ref(self.folder, name))], whole)
        status, out, _ = self.git.attempt("rev-list", *sorted(whole)) if whole else (0, "", "")
        held = set(out.split()) if status == 0 else set()
        for path in list(gitfiles.files_below(self.folder / "logs")):
            content = gitfiles.read(path) or b""
            oids = {oid for oid in gitfiles.object_ids(content) if oid.strip("0")} - held
            lost = tuple(oid.encode() for oid in sorted(oids) if not self._is_complete(oid, whole))
            if lost:
                self.keep_copy(f"log-{path.name}", content)
                lines = content.splitlines(keepends=True)
                gitfiles.write(path, b"".join(line for line in lines if not any(oid in line for oid in lost)))

    # -- a fresh repository

    def take_over(self, deadline: float) -> None:
        """A fresh repository takes this one's place: its branch is the newest commit that HEAD was ever at, and that
        the remote has; everything since is on disk, and is committed and joined as ever.

        Not the remote's branch as it was last seen: that may be newer than the files, which would then be taken for
        edits that undo it. Where no such commit is known the branch is unborn, and the files are joined with the
        remote's as a plain folder's are. The former repository is kept whole in the state folder.
        """
        self._fetch_into(self.fresh, deadline)
        fresh = with_environment(self.git, GIT_DIR=str(self.fresh), GIT_INDEX_FILE=str(self.fresh / "index"))
        places = [gitfiles.read_ref(self.folder, name) for name in ("HEAD", self.branch)]
        places += [*self._reflog("HEAD"), *self._reflog(self.branch)]
        tip = gitfiles.read_ref(self.fresh, self.branch)
        known = (
            oid
            for oid in dict.fromkeys(filter(None, places))
            if tip is not None and fresh.attempt("merge-base", "--is-ancestor", oid, tip)[0] == 0
        )
        base = next(known, None)
        for name in self._refs_of(fresh):
            fresh.run("update-ref", "-d", name)
        if tip is not None:
            fresh.run("update-ref", self.remote_branch, tip)
        if base is not None:
            fresh.run("update-ref", self.branch, base)
            fresh.run("read-tree", base, index=str(self.fresh / "index"))
        self._take_settings(fresh)
        os.rename(self.folder, self.former)
        self.finish_take_over()

    def _refs_of(self, git: Git) -> list[str]:
        return git.run("for-each-ref", "--format=%(refname)").split()

    def _take_settings(self, fresh: Git) -> None:
        config = self.folder / "config"
        if fresh.attempt("config", "--file", str(config), "--list")[0] == 0:
            shutil.copyfile(config, self.fresh / "config")
        for name in ("exclude", "attributes"):
            if (self.folder / "info" / name).is_file():
                (self.fresh / "info").mkdir(exist_ok=True)
                shutil.copyfile(self.folder / "info" / name, self.fresh / "info" / name)
