"""The git loop: one idempotent step from whatever is on disk to in step with the remote.

Mend, commit what is new under the guards, fetch, join, push. Merge, not rebase: what either side committed stays
reachable. The tree lock is held only while the working tree is touched, never across the network.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from cloud_agent import dashboard, guards, summary
from cloud_agent.config import Config
from cloud_agent.git import NETWORK_DEADLINE, Git, GitError, nul_ended
from cloud_agent.journal import Journal
from cloud_agent.mail import shown
from cloud_agent.merge import EMPTY_TREE, changes, conflict_name, merge_trees
from cloud_agent.state import Clock, Result, State
from cloud_agent.vault import Vault, lock

log = logging.getLogger("cloud_agent.sync")

TRIES = 3
STALE_LOCK_SECONDS = 10.0
BUSY_SECONDS = 60.0
# So many held-back files of one kind are told one by one; more are told in one sentence.
TOLD_SINGLY = 10
# A credential shorter than this would be found in every other note.
SHORTEST_SECRET = 12


@dataclass
class Outcome:
    """What one cycle did. `result` and `message` go into the beat."""

    result: Result = "ok"
    message: str = ""
    commits: int = 0
    received: bool = False
    pushed: bool = False
    deletions_held: bool = False  # once decided, the same for the whole cycle
    held: dict[str, str] = field(default_factory=dict)


class NotNow(Exception):
    """The working tree cannot be touched now: somebody else is at work in it. Nothing is lost by waiting."""


class Syncer:
    """The sync loop's step. `clock` and `sleep` come from outside."""

    def __init__(self, config: Config, state: State, clock: Clock, sleep: Callable[[float], None] = time.sleep) -> None:
        self.config = config
        self.state = state
        self.clock = clock
        self.sleep = sleep
        self.vault = Vault(config.vault_path, config.agent_name)
        self.journal = Journal(self.vault, config.agent_name, "sync", clock)
        self.git = Git(config.vault_path, config.agent_name, config.git_ssh_key_path, state.folder)
        self.git_folder = config.vault_path / ".git"
        self.branch = f"refs/heads/{config.git_branch}"
        self.remote_branch = f"refs/remotes/origin/{config.git_branch}"
        remote = urlsplit(config.git_remote_url)
        # In https://TOKEN@host/… the user name is the token.
        in_url = remote.password or (remote.username if remote.scheme in ("http", "https") else "")
        credentials = (config.claude_api_key, in_url or "")
        self.busy_since: datetime | None = None
        self.own_secrets = [secret for secret in credentials if len(secret) >= SHORTEST_SECRET]

    def cycle(self, *, allow_deletions: bool = False) -> Outcome:
        """Commit, join and push. Never raises for what time or the owner can mend: the outcome says it."""
        outcome = Outcome()
        with lock(self.state.process_lock("sync")):
            try:
                with lock(self.state.tree_lock):
                    self._mend()
                    self._commit(outcome, allow_deletions)
                self._exchange(outcome, allow_deletions)
            except NotNow as reason:
                outcome.result, outcome.message = "later", str(reason)
                self._note_busy(str(reason))
            except GitError as error:
                outcome.result, outcome.message = "later" if error.kind != "git" else "failed", str(error)
                log.debug("%s", error)
                if error.kind == "busy":
                    self._note_busy(str(error))
                else:
                    self._note_failure(error.kind, str(error))
            else:
                self._note_success()
        return outcome

    # -- mend ------------------------------------------------------------------------------------------------------

    def _mend(self) -> None:
        """Bring whatever is on disk into the one state the rest expects: on our branch, nothing half done."""
        self._remove_stale_locks()
        if not (self.git_folder / "HEAD").exists():
            # A plain folder becomes a clone: its files are committed, and joined with the remote's as ever.
            log.info("%s is no clone yet: it becomes one", self.vault.root)
            self.git.run("init", "--quiet", f"--initial-branch={self.config.git_branch}")
        self._configure()
        self._check_index()
        self._end_half_done()
        self._return_to_branch()

    def _configure(self) -> None:
        wanted = {
            "remote.origin.url": self.config.git_remote_url,
            "remote.origin.fetch": "+refs/heads/*:refs/remotes/origin/*",
            f"branch.{self.config.git_branch}.remote": "origin",
            f"branch.{self.config.git_branch}.merge": self.branch,
        }
        _, out, _ = self.git.attempt("config", "--local", "--null", "--list")
        present = dict(entry.partition("\n")[::2] for entry in out.split("\0") if entry)
        for key, value in wanted.items():
            if present.get(key) != value:
                self.git.run("config", "--local", "--replace-all", key, value)

    def _remove_stale_locks(self) -> None:
        locks = [self.git_folder / name for name in ("index.lock", "HEAD.lock", "ORIG_HEAD.lock", "config.lock")]
        locks += [self.git_folder / "packed-refs.lock", *(self.git_folder / "refs").rglob("*.lock")]
        for path in locks:
            try:
                age = time.time() - path.stat().st_mtime
            except FileNotFoundError:
                continue
            holder = _git_process_in(self.vault.root)
            if holder is not None or 0 <= age < STALE_LOCK_SECONDS:
                raise NotNow(f"{path.name} is held by {f'process {holder}' if holder else 'somebody'}: waiting for it")
            log.warning("%s was left behind by a killed git: removed", path)
            path.unlink(missing_ok=True)

    def _end_half_done(self) -> None:
        """End what somebody's git left half done, and keep what it did: an abort would throw away what was written
        since. The commits that it was about are joined like any others."""
        for name, command in (
            ("rebase-merge", "rebase"),
            ("rebase-apply", "rebase"),
            ("MERGE_HEAD", "merge"),
            ("CHERRY_PICK_HEAD", "cherry-pick"),
            ("REVERT_HEAD", "revert"),
        ):
            path = self.git_folder / name
            if not path.exists():
                continue
            settled = self._settle_unmerged()
            if command == "merge" and settled and self.git.tip("HEAD") is not None:
                log.warning("a merge was left half done, without a conflict: it is committed")
                continue
            log.warning("a %s was left half done: it is ended, and what it left in the files is kept", command)
            self.git.attempt(command, "--quit")
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            if self.git.tip("HEAD") is not None:
                self.git.run("reset", "--quiet", "--mixed")

    def _settle_unmerged(self) -> bool:
        """Take conflict markers off the tree; True when there were none, so that a person has settled it all.

        A file with markers goes to .git/cloud-agent-aside, and git's own side takes its place: both sides are in
        commits. A file without them is a person's work and stays.
        """
        settled = True
        entries = self.git.run("ls-files", "--unmerged", "-z").split("\0")
        stages: dict[str, list[str]] = {}
        for meta, _, path in (entry.partition("\t") for entry in entries if entry):
            stages.setdefault(path, []).append(meta.split(" ")[2])
        for path, present in stages.items():
            try:
                content = self.vault.read(path)
            except OSError:
                continue
            if guards.has_conflict_markers(content) or b"\0" in content:
                settled = False
                name = f"{hashlib.sha1(content, usedforsecurity=False).hexdigest()[:10]}-{PurePosixPath(path).name}"
                aside = self.git_folder / "cloud-agent-aside" / name[:200]
                aside.parent.mkdir(exist_ok=True)
                aside.write_bytes(content)
                log.warning("%s had conflict markers: it lies in %s now", shown(path), shown(str(aside)))
                stage = "2" if "2" in present else "3"
                self.git.run("checkout-index", "--force", f"--stage={stage}", "--", path)
        return settled

    def _check_index(self) -> None:
        index = self.git_folder / "index"
        missing = not index.exists()
        status, _, err = self.git.attempt("ls-files", "--cached", "--error-unmatch", "--", ".gitignore")
        if not missing and status in (0, 1):
            return
        if not missing:
            log.warning("the index is broken (%s): it is made anew", err.strip()[-200:])
            index.unlink()
        if self.git.tip("HEAD") is not None:
            self.git.run("reset", "--quiet", "--mixed")
            if missing:  # a clone that was killed before its checkout: the files are not deleted, they never came
                self.git.attempt("checkout-index", "--all", "--quiet")

    def _return_to_branch(self) -> None:
        """From a detached HEAD or another branch: what was committed there is joined into ours."""
        status, ref, _ = self.git.attempt("symbolic-ref", "--quiet", "HEAD")
        if status == 0 and ref.strip() == self.branch:
            return
        here, ours = self.git.tip("HEAD"), self.git.tip(self.branch)
        if here is None:
            self.git.run("symbolic-ref", "HEAD", self.branch)
            if ours is not None:
                self.git.run("reset", "--quiet", "--mixed")
            return
        log.warning("HEAD was not on %s: what was committed there is joined into it", self.config.git_branch)
        self._commit(Outcome(), allow_deletions=False)
        here = self.git.run("rev-parse", "HEAD").strip()
        joined = here if ours is None else self._joined(ours, here)
        self.git.run("update-ref", "--no-deref", "HEAD", here)  # the other branch stays where it is
        self._put_on_disk(joined)
        self.git.run("update-ref", self.branch, joined)
        self.git.run("symbolic-ref", "HEAD", self.branch)

    # -- commit ----------------------------------------------------------------------------------------------------

    def _commit(self, outcome: Outcome, allow_deletions: bool) -> None:
        """Commit what is new, all but what the guards hold back. Runs under the tree lock."""
        changed, deleted = self._status()
        held = {path: why for path in changed if (why := self._objection(path)) is not None}
        lost = [] if allow_deletions else guards.gone(deleted, [path for path in changed if path not in held])
        if lost:
            tracked = len(self.git.run("ls-files", "-z").split("\0")) - 1
            if outcome.deletions_held or guards.is_mass_deletion(lost, tracked):
                outcome.deletions_held = True
                why = (
                    "more than a third of the vault is gone at once: if that is meant, run cloud-agent sync --once "
                    "--allow-deletions; if not, git checkout -- . in the vault brings them back"
                )
                held[f"({len(lost)} deleted files)"] = why
                deleted = sorted(set(deleted) - set(lost))
        if self._report_held(held):
            changed, _ = self._status()  # the Dashboard says so now
        outcome.held = held
        paths = [path for path in changed if path not in held]
        merging = (self.git_folder / "MERGE_HEAD").exists()
        if not paths and not deleted and not merging:
            return
        if held:
            self.git.run("reset", "--quiet")  # nothing held back stays staged by a person
            merging = False
        # A path that went away since the status is no error: --remove.
        update = ("update-index", "-z", "--add", "--remove", "--replace")
        if deleted:
            self.git.run(*update, "--force-remove", "--stdin", stdin=nul_ended(deleted))
        if paths:
            self.git.run(*update, "--stdin", stdin=nul_ended(paths))
        added, others = self._staged()
        if not added and not others and not merging:
            return
        message = summary.message(self.config.agent_name, added, others)
        self.git.run("commit", "--quiet", "--no-verify", "-m", message)
        outcome.commits += 1
        log.info("committed: %s", message)

    def _status(self) -> tuple[list[str], list[str]]:
        """(new or changed files, deleted files)."""
        out = self.git.run("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
        changed: list[str] = []
        deleted: list[str] = []
        for entry in filter(None, out.split("\0")):
            code, path = entry[:2], entry[3:]
            if code == "??" and guards.is_ours_to_ignore(path):
                continue
            file = self.vault.root / path
            # Where a folder has a deleted file's name, the file is gone all the same.
            there = os.path.lexists(file) and not ("D" in code and file.is_dir() and not file.is_symlink())
            (changed if there else deleted).append(path)
        return changed, deleted

    def _objection(self, path: str) -> str | None:
        return guards.objection(self.vault.root, path, self.own_secrets)

    def _staged(self) -> tuple[list[str], list[str]]:
        """(added or moved here, changed or deleted) files of the index against HEAD."""
        fields = self.git.run("diff", "--cached", "-z", "--name-status", "-M").split("\0")
        added: list[str] = []
        others: list[str] = []
        position = 0
        while position < len(fields) - 1:
            kind = fields[position][:1]
            if kind in "RC":
                added.append(fields[position + 2])
                position += 3
            else:
                (added if kind == "A" else others).append(fields[position + 1])
                position += 2
        return added, others

    def _report_held(self, held: dict[str, str]) -> bool:
        """Tell once of each file that is held back; True when the Dashboard was written."""
        by_reason: dict[str, list[str]] = {}
        for path, why in held.items():
            by_reason.setdefault(why, []).append(shown(path))
        for why, paths in by_reason.items():
            if len(paths) > TOLD_SINGLY:
                by_reason[why] = [f"{paths[0]} and {len(paths) - 1} more"]
        current = {path: why for why, paths in by_reason.items() for path in paths}
        for key in [key for key in self.state.alerts() if key.startswith("held ")]:
            if key.removeprefix("held ") not in current:
                self.state.clear_alert(key)
        told = False
        for path, why in current.items():
            if self.state.raise_alert(f"held {path}", f"{path} is not synced: {why}", self.clock()):
                log.warning("%s is held back: %s", path, why)
                self.journal.tell(f"Not synced: {dashboard.plain(path)}: {dashboard.plain(why, 300)}")
                self.journal.record("held_back", path, reason=why)
                told = True
        return told

    # -- exchange --------------------------------------------------------------------------------------------------

    def _exchange(self, outcome: Outcome, allow_deletions: bool) -> None:
        """Fetch, join and push, TRIES times: at once after a rejected push, after a longer and longer wait else."""
        for attempt in range(TRIES):
            try:
                deadline = NETWORK_DEADLINE * 2.0**attempt  # a first sync over a slow line takes its time
                self._fetch(deadline)
                with lock(self.state.tree_lock):
                    self._join(outcome, allow_deletions)
                ours = self.git.tip("HEAD")
                if ours is not None and ours != self.git.tip(self.remote_branch):
                    self.git.run("push", "--quiet", "origin", f"{ours}:{self.branch}", deadline=deadline)
                    outcome.pushed = True
                return
            except GitError as error:
                if attempt == TRIES - 1 or error.kind not in ("offline", "rejected", "busy"):
                    raise
                if error.kind != "rejected":
                    self.sleep(2.0**attempt)

    def _fetch(self, deadline: float) -> None:
        refs = f"+{self.branch}:{self.remote_branch}"
        status, _, err = self.git.attempt("fetch", "--quiet", "--no-tags", "origin", refs, deadline=deadline)
        if status == 0:
            return
        if "couldn't find remote ref" in err.lower():
            # A new, empty remote: what we have is pushed to it.
            self.git.attempt("update-ref", "-d", self.remote_branch)
            return
        raise GitError(["fetch"], status, err)

    def _join(self, outcome: Outcome, allow_deletions: bool) -> None:
        """Bring the remote's commits in. Runs under the tree lock."""
        theirs = self.git.tip(self.remote_branch)
        ours = self.git.tip("HEAD")
        if theirs is None or theirs == ours:
            return
        self._commit(outcome, allow_deletions)  # what was written while we fetched
        ours = self.git.tip("HEAD")
        joined = theirs if ours is None else self._joined(ours, theirs)
        if joined == ours:
            return
        self._put_on_disk(joined)
        outcome.received = True

    def _put_on_disk(self, joined: str) -> None:
        """Bring HEAD and the files to a commit that holds HEAD."""
        # Refuses, and changes nothing, when it would overwrite a file that was written this very moment.
        command = ("merge", "--quiet", "--ff-only", "--no-overwrite-ignore", joined)
        status, _, err = self.git.attempt(*command)
        if status != 0 and self._clear_the_way(joined):
            status, _, err = self.git.attempt(*command)
        if status == 0:
            return
        error = GitError(command, status, err)
        if error.kind != "git":
            raise error
        raise NotNow(f"the vault is being written to: {' '.join(err.split())[-300:]}")

    def _clear_the_way(self, joined: str) -> bool:
        """Rename what is never committed (held back, or ignored) where the remote's version wants its name.

        What was written since our last commit stays where it is: it is committed in the next cycle.
        """
        incoming = changes(self.git, self.git.tip("HEAD") or EMPTY_TREE, joined)
        folders = {str(parent) for path in incoming for parent in PurePosixPath(path).parents}
        out = self.git.run("status", "--porcelain=v1", "-z", "--untracked-files=all", "--ignored", "--no-renames")
        cleared = False
        for entry in filter(None, out.split("\0")):
            code, path = entry[:2], entry[3:].rstrip("/")
            file = self.vault.root / path
            linked = any((self.vault.root / parent).is_symlink() for parent in PurePosixPath(path).parents)
            if linked or not os.path.lexists(file) or (code != "!!" and self._objection(entry[3:]) is None):
                continue
            above = [str(parent) for parent in PurePosixPath(path).parents]
            way = next((name for name in (path, *above) if name in incoming), path if path in folders else None)
            if way is None:
                continue
            link = file.is_symlink()
            regular = file.is_file() and not link and os.access(file, os.R_OK)
            seed = file.read_bytes() if regular else path.encode("utf-8", "surrogateescape")
            oid = hashlib.sha1(seed, usedforsecurity=False).hexdigest()
            kept = conflict_name(way, self.config.agent_name, oid) + path[len(way) :]
            (self.vault.root / kept).parent.mkdir(parents=True, exist_ok=True)
            os.rename(file, self.vault.root / kept)
            log.warning("%s is in the way of the remote's: it is %s now", shown(path), shown(kept))
            if link:  # what lay below it is not deleted
                self.git.attempt("checkout-index", "--all", "--quiet")
            cleared = True
        return cleared

    def _joined(self, ours: str, theirs: str) -> str:
        """The commit that holds both: one of them where it contains the other, else a merge."""
        status, out, _ = self.git.attempt("merge-base", ours, theirs)
        base = out.strip() if status == 0 else None
        if base == theirs:
            return ours
        if base == ours:
            return theirs
        tree = merge_trees(self.git, base, ours, theirs)
        message = f"{self.config.agent_name.title()}: merge"
        return self.git.run("commit-tree", tree, "-p", ours, "-p", theirs, "-m", message).strip()

    # -- what the owner reads --------------------------------------------------------------------------------------

    def _note_failure(self, kind: str, message: str) -> None:
        known = self.state.alerts().get("sync", {}).get("message", "")
        if known.startswith(f"{kind}:"):
            return
        self.state.raise_alert("sync", f"{kind}: {message}", self.clock())
        log.warning("not synced (%s): %s", kind, message)
        with lock(self.state.tree_lock):
            self.journal.record("sync_failed", kind, message=message)

    def _note_busy(self, reason: str) -> None:
        """Somebody else at work is ordinary; for longer than a moment it is a failure, and is told."""
        self.busy_since = self.busy_since or self.clock()
        if (self.clock() - self.busy_since).total_seconds() > BUSY_SECONDS:
            self._note_failure("busy", reason)

    def _note_success(self) -> None:
        self.busy_since = None
        since = self.state.alerts().get("sync", {}).get("since", "")
        if self.state.clear_alert("sync"):
            log.info("synced again; it had failed since %s", since)
            with lock(self.state.tree_lock):
                self.journal.record("sync_recovered", "sync", failed_since=since)


def _git_process_in(tree: Path) -> int | None:
    """A running git that works in this tree, as far as this user may see; None when there is none."""
    root = os.path.realpath(tree)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "comm").read_text().startswith("git"):
                folder = os.readlink(entry / "cwd")
                if folder == root or folder.startswith(f"{root}/"):
                    return int(entry.name)
        except OSError:
            continue
    return None
