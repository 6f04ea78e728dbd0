"""The git loop: one idempotent step from whatever is on disk to in step with the remote.

    mend       only where .git is not as the last cycle left it
    commit     what was touched, under the guards; meanwhile the remote is asked for its tip
    join       where the remote's tip is not in our history: fetch, merge in the object store, put on disk
    push       where ours is not the remote's tip; what counts is the remote's answer

Merge, not rebase: what either side committed stays reachable. The tree lock is held only while the working tree is
touched, never across the network. What changed is known from a watcher; every FULL_SCAN_SECONDS git looks at all files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from cloud_agent import dashboard, guards, summary
from cloud_agent.config import Config
from cloud_agent.git import NETWORK_DEADLINE, Blob, Changes, Git, GitError, Running, blob_id, nul_ended
from cloud_agent.heal import Broken, heal
from cloud_agent.journal import Journal
from cloud_agent.mail import shown
from cloud_agent.mend import JOIN, NotNow, mend, sweep
from cloud_agent.mend import shortened as find_shortened
from cloud_agent.merge import EMPTY_TREE, changes, conflict_name, join
from cloud_agent.state import Clock, Result, State, read_json
from cloud_agent.vault import ForbiddenPath, Vault, lock
from cloud_agent.watch import Watch

log = logging.getLogger("cloud_agent.sync")

TRIES = 3
BUSY_SECONDS = 60.0
FULL_SCAN_SECONDS = 600.0
# So many paths fit a command line; for more, git looks at all files.
MOST_PATHS = 500
# From so many on, objects are packed, but no more often than this. git itself would wait for 6,700 loose ones.
LOOSE_OBJECTS = 1000
PACKS = 50
PACK_EVERY_SECONDS = 600.0
# A kept connection goes on with what its key was allowed when it was opened, whatever became of the key since.
CONNECTION_SECONDS = 3600.0
# So many held-back files of one kind are told one by one; more are told in one sentence.
TOLD_SINGLY = 10
# A credential shorter than this would be found in every other note.
SHORTEST_SECRET = 12
# What others' and our own git leave in .git without its meaning anything for us.
_OF_NO_MEANING = re.compile(
    r"FETCH_HEAD|ORIG_HEAD|COMMIT_EDITMSG|MERGE_MSG|gc\.(pid|log).*|fast_import_crash.*|logs|objects|ssh-.*"
)


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


@dataclass
class Status:
    """How the working tree differs from our commit."""

    changed: list[str] = field(default_factory=list)  # new ones too
    deleted: list[str] = field(default_factory=list)
    head: dict[str, Blob] = field(default_factory=dict)  # our commit's version of those that it has


class Syncer:
    """The sync loop's step. `clock`, `sleep`, `stopping` and `jitter` (0 to 1) come from outside.

    `watching` is for a process that runs many cycles: it keeps a watch on the vault, and an idle cycle reads no file.
    """

    def __init__(
        self,
        config: Config,
        state: State,
        clock: Clock,
        sleep: Callable[[float], object] = time.sleep,
        *,
        watching: bool = False,
        stopping: Callable[[], bool] = lambda: False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self.state = state
        self.clock = clock
        self.sleep = sleep
        self.jitter = jitter
        self.vault = Vault(config.vault_path, config.agent_name)
        self.journal = Journal(self.vault, config.agent_name, "sync", clock, state)
        self.git = Git(config.vault_path, config.agent_name, config.git_ssh_key_path, state.folder, stopping)
        self.git_folder = config.vault_path / ".git"
        self.branch = f"refs/heads/{config.git_branch}"
        self.remote_branch = f"refs/remotes/origin/{config.git_branch}"
        remote = urlsplit(config.git_remote_url)
        # In https://TOKEN@host/… the user name is the token.
        in_url = remote.password or (remote.username if remote.scheme in ("http", "https") else "")
        self.set_secrets = [*config.secrets, in_url or ""]
        self.own_secrets = self._secrets()
        self.busy_since: datetime | None = None
        self.watch = Watch(config.vault_path) if watching else None
        self.scanned: datetime | None = None  # when git last looked at all files; None: it must
        self.touched: set[str] = set()  # paths to look at: changed since, or not committed when last seen
        self.seen: object = None  # .git as we left it
        self.ours: str | None = None  # our commit, as long as .git is as we left it
        self.unindexed: list[str] = []  # paths that git's index is to be brought in step with
        self.indexing: Running | None = None
        self.pushing: tuple[str, Running] | None = None  # a joined commit on its way to the remote
        self.contained: str | None = None  # a tip of the remote that is in our history
        self.waiting: list[str] = []  # commits that mend found beside our branch, to be joined
        self.suspect = self.healed = False
        self.packing: subprocess.Popen[bytes] | None = None
        self.packed: datetime | None = None

    def cycle(self, *, allow_deletions: bool = False, underway: Callable[[], object] = lambda: None) -> Outcome:
        """Commit, join and push. Never raises for what time or the owner can mend: the outcome says it.

        `underway` is called once all is committed, before the remote is waited for.
        """
        outcome = Outcome()
        self.own_secrets = self._secrets()
        with lock(self.state.process_lock("sync")):
            try:
                try:
                    if self.suspect:
                        self._heal("it could not be packed")
                    self._cycle(outcome, allow_deletions, underway)
                except GitError as error:
                    if error.kind != "broken":
                        raise
                    self._heal(str(error))
                    self._cycle(outcome, allow_deletions, underway)
            except Broken as broken:
                outcome.result, outcome.message = "later", str(broken)
                self._note_failure("broken", str(broken))
            except NotNow as reason:
                self.seen = None
                outcome.result, outcome.message = "later", str(reason)
                self._note_busy(str(reason))
            except GitError as error:
                outcome.result, outcome.message = "later" if error.kind != "git" else "failed", str(error)
                log.debug("%s", error)
                if error.kind in ("busy", "git", "broken"):
                    self.seen = None
                if error.kind == "busy":
                    self._note_busy(str(error))
                elif error.kind != "stopped":
                    self._note_failure(error.kind, str(error))
            except OSError as error:
                self.seen = None
                kind = "disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "vault"
                mend_it = "the disk is full: free some space" if kind == "disk" else "give the file to the agent's user"
                outcome.result, outcome.message = "failed", f"{error}: {mend_it}"
                self._note_failure(kind, outcome.message)
            else:
                self._note_success()
                self._pack()
            if outcome.commits and outcome.result != "ok":
                os.sync()  # what the remote does not have yet must outlive a power loss: git does not see to that
        return outcome

    def _cycle(self, outcome: Outcome, allow_deletions: bool, underway: Callable[[], object]) -> None:
        try:
            self._drop_connections(CONNECTION_SECONDS)
            with lock(self.state.tree_lock):
                self._mend()
                paths = self._paths_to_look_at()
                # Where something is to be committed, what the remote has new is fetched meanwhile.
                asked = self._ask() if paths == [] else self._fetch()
                try:
                    self._commit(outcome, allow_deletions, paths)
                except BaseException:
                    asked.cancel()
                    raise
            underway()
            self._exchange(asked, outcome, allow_deletions)
        finally:
            if self.pushing is not None:
                self.pushing[1].result()
                self.pushing = None
            self._wait_for_index()

    def _secrets(self) -> list[str]:
        """The settings' secrets, and the refresh token that `watch` was given meanwhile."""
        renewed = str(read_json(self.state.renewed_token).get("refresh_token", ""))
        return [secret for secret in (*self.set_secrets, renewed) if len(secret) >= SHORTEST_SECRET]

    # -- mend ------------------------------------------------------------------------------------------------------

    def _mend(self) -> None:
        """Where .git is not as we left it: on our branch, nothing half done, and all files looked at."""
        if self.seen is not None and self.seen == self._git_state():
            return
        self.ours = self.contained = self.scanned = None
        check = partial(guards.check, own_secrets=self.own_secrets)
        healed, self.healed = self.healed, False
        self._tell_mended(mend(self.git, self.config, self.state.folder, sleep=self.sleep, check=check, healed=healed))
        self.waiting = self.git.run("for-each-ref", "--format=%(objectname)", JOIN).split()
        sweep(self.config, self.clock().timestamp())

    def _heal(self, why: str) -> None:
        log.warning("the clone may be damaged: %s", why)
        self.suspect = False
        self.seen = self.ours = self.contained = self.scanned = None
        told = heal(self.git, self.config, self.state.folder, sleep=self.sleep)
        self.healed = True
        with lock(self.state.tree_lock):
            self._tell_mended(told)

    def _tell_mended(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            self.journal.tell(f"Sync: {dashboard.plain(sentence, 300)}")
            self.journal.record("mended", "vault", what=sentence)

    def _git_state(self) -> object:
        """What tells whether somebody else's git was at work: its files' names, and the stamps of those that we use."""
        try:
            names = sorted(name for name in os.listdir(self.git_folder) if not _OF_NO_MEANING.fullmatch(name))
        except OSError:
            return None
        stamps = []
        for name in ("HEAD", "index", "config", "packed-refs", self.branch, "info/exclude", "info/attributes"):
            try:
                status = os.stat(self.git_folder / name)
                stamps.append((name, status.st_mtime_ns, status.st_ino, status.st_size))
            except OSError:
                stamps.append((name, 0, 0, 0))
        return names, stamps

    def _head(self) -> str | None:
        """Our commit."""
        if self.ours is None:
            self.ours = self.git.tip(self.branch)
        return self.ours

    # -- commit ----------------------------------------------------------------------------------------------------

    def _paths_to_look_at(self) -> list[str] | None:
        """The paths that may differ from our commit, None for all."""
        if self.watch is not None:
            new = self.watch.changed()
            if new is None or any(path.endswith(".gitignore") for path in new):
                self.scanned = None
            else:
                self.touched.update(path for path in new if not guards.is_noise(path))
        fresh = self.scanned and 0 <= (self.clock() - self.scanned).total_seconds() < FULL_SCAN_SECONDS
        if self.watch is None or not fresh or len(self.touched) > MOST_PATHS:
            return None
        return sorted(self.touched)

    def _commit(self, outcome: Outcome, allow_deletions: bool, paths: Sequence[str] | None) -> None:
        """Commit what is new among these paths or all, but not what the guards hold back. Under the tree lock."""
        self._wait_for_index()
        if paths == []:
            return
        status = self._status(paths)
        checked = {path: guards.examine(self.vault.root, path, self.own_secrets) for path in status.changed}
        held = {path: found for path, found in checked.items() if isinstance(found, str)}
        deleted = status.deleted
        lost = [] if allow_deletions else guards.gone(deleted, [path for path in checked if path not in held])
        if lost:
            tracked = 0 if len(lost) <= 10 else len(self.git.run("ls-files", "-z").split("\0")) - 1
            if outcome.deletions_held or guards.is_mass_deletion(lost, tracked):
                outcome.deletions_held = True
                why = (
                    "more than a third of the vault is gone at once: if that is meant, run cloud-agent sync --once "
                    "--allow-deletions; if not, git checkout -- . in the vault brings them back"
                )
                held["(deleted files)"] = why
                deleted = sorted(set(deleted) - set(lost))
            else:
                lost = []
        # What moved and is held back at its new place stays at the old one: it must be somewhere.
        names = {PurePosixPath(path).name for path in held}
        lost += [path for path in deleted if PurePosixPath(path).name in names]
        deleted = [path for path in deleted if PurePosixPath(path).name not in names]
        if self._report_held(held):  # the Dashboard and the log say so now
            more = self._status([dashboard.PATH, self.journal.path()])
            status.head.update(more.head)
            for path in more.changed:
                checked[path] = guards.examine(self.vault.root, path, self.own_secrets)
        outcome.held = held
        good = {path: found for path, found in checked.items() if isinstance(found, Blob)}
        new: dict[str, Blob | None] = {path: blob for path, blob in good.items() if blob != status.head.get(path)}
        new.update((path, None) for path in deleted if path in status.head)
        if new:
            self._write_commit(new, status.head, outcome)
        self._update_index([*good, *deleted])
        self.seen = self._git_state()
        if paths is None:
            self.scanned = self.clock()
        # What was not committed is looked at again, in each cycle, until it is.
        self.touched = {*(path for path in checked if path not in good), *lost}

    def _status(self, paths: Sequence[str] | None) -> Status:
        """How these files, or all, differ from our commit."""
        command = ("status", "--porcelain=v2", "-z", "--untracked-files=all", "--no-renames")
        code, out, _ = self.git.attempt(*command, "--", *paths) if paths is not None else (1, "", "")
        if code != 0:  # a path may lie behind a symbolic link by now, which git refuses to look at
            out = self.git.run(*command)
        found = Status()
        for entry in filter(None, out.split("\0")):
            kind, _, rest = entry.partition(" ")
            if kind == "?":
                path, removed = rest, False
            else:  # "1": XY sub mH mI mW hH hI path; "u", unmerged: XY sub m1 m2 m3 mW h1 h2 h3 path, 2 is HEAD's
                fields = rest.split(" ", 9 if kind == "u" else 7)
                path, removed = fields[-1], "D" in fields[0]
                mode, oid = (fields[3], fields[7]) if kind == "u" else (fields[2], fields[5])
                if oid.strip("0"):
                    found.head[path] = Blob(mode, oid)
            if guards.is_noise(path):
                continue
            file = self.vault.root / path
            # Where a folder has a deleted file's name, the file is gone all the same.
            there = os.path.lexists(file) and not (removed and file.is_dir() and not file.is_symlink())
            (found.changed if there else found.deleted).append(path)
        return found

    def _write_commit(self, new: Changes, head: Mapping[str, Blob], outcome: Outcome) -> None:
        added = [path for path, blob in new.items() if blob is not None and path not in head]
        names = {PurePosixPath(path).name for path in added}
        # A file that moved counts once.
        moved = {path for path, blob in new.items() if blob is None and PurePosixPath(path).name in names}
        message = summary.message(self.config.agent_name, added, new.keys() - moved - {*added})

        def content(path: str) -> bytes | None:
            """What was checked; None for what was written to since: it is checked and committed in the next cycle."""
            with contextlib.suppress(OSError, ForbiddenPath):
                read = self.vault.read(path)
                blob = new[path]
                if blob is not None and blob_id(read) == blob.oid:
                    return read
            self.scanned = None
            return None

        ours = self._head()
        self.ours = self.git.commit(
            [ours] if ours else [], new, message, self.clock().timestamp(), self.branch, content
        )
        outcome.commits += 1
        log.info("committed: %s", message)

    def _update_index(self, paths: Sequence[str]) -> None:
        """Bring git's index in step with the files. A kill before that is harmless: the next status sees it."""
        # A path that went away is no error: --remove. Not so where a folder has its name now.
        folders = [path for path in paths if (self.vault.root / path).is_dir()]
        if folders:
            self.git.run("update-index", "-z", "--force-remove", "--stdin", stdin=nul_ended(folders))
        self.unindexed = sorted({*paths} - {*folders})

    def _start_indexing(self) -> None:
        if self.unindexed and self.indexing is None:
            update = ("update-index", "-z", "--add", "--remove", "--replace", "--stdin")
            self.indexing = self.git.start(*update, stdin=nul_ended(self.unindexed))
            self.unindexed = []

    def _wait_for_index(self) -> None:
        """The index is brought in step while the remote takes the push."""
        self._start_indexing()
        if self.indexing is None:
            return
        running, self.indexing = self.indexing, None
        code, _, err = running.result()
        if code == 0:
            self.seen = self._git_state()
            return
        error = GitError(running.arguments, code, err)
        if error.kind in ("broken", "disk"):
            raise error
        self.seen = None  # an editor was writing a file just then: what is committed is, and all is looked at again

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
                self.journal.record("held_back", path, result="failure", reason=why)
                told = True
        return told

    # -- exchange --------------------------------------------------------------------------------------------------

    def _ask(self) -> Running:
        command = ("ls-remote", "--quiet", self.config.git_remote_url, self.branch)
        return self.git.start(*command, deadline=NETWORK_DEADLINE)

    def _exchange(self, asked: Running, outcome: Outcome, allow_deletions: bool) -> None:
        """Join and push, TRIES times: at once after a rejected push, after a longer and longer wait else."""
        tries = 1 if self._is_known("offline") else TRIES  # one a cycle is enough to see that it is over
        for attempt in range(tries):
            try:
                if attempt:
                    asked = self._ask()
                theirs = self._answer(asked)
                if self.waiting or theirs not in (None, self.contained):
                    if theirs not in (None, self._fetched()):
                        theirs = self._answer(self._fetch())
                    with lock(self.state.tree_lock):
                        self._join([*self.waiting, *([theirs] if theirs else [])], outcome, allow_deletions)
                    self.contained = theirs
                ours = self._head()
                if ours is not None and ours != theirs:
                    self._push(ours)
                    outcome.pushed = True
                    self.contained = ours
                return
            except GitError as error:
                if error.kind in ("offline", "refused"):
                    self._drop_connections()
                if attempt == tries - 1 or error.kind not in ("offline", "rejected", "busy"):
                    raise
                if error.kind != "rejected":
                    self.sleep(2.0**attempt * (0.5 + self.jitter()))
            finally:
                asked.cancel()

    def _fetch(self) -> Running:
        command = ("fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "origin")
        return self.git.start(*command, f"+{self.branch}:{self.remote_branch}", deadline=NETWORK_DEADLINE)

    def _answer(self, asked: Running) -> str | None:
        """The remote's tip, told or fetched; None where it has no such branch yet."""
        code, out, err = asked.result()
        if asked.arguments[0] == "fetch":
            if code == 0:
                return self._fetched()
            if "couldn't find remote ref" in err.lower():
                return None
        if code != 0:
            raise GitError(asked.arguments, code, err)
        for line in out.decode("utf-8", "replace").splitlines():
            oid, _, ref = line.partition("\t")
            if ref == self.branch:
                return oid
        return None

    def _fetched(self) -> str | None:
        # git writes a ref that it has just set as a line in a file of its own.
        with contextlib.suppress(OSError, UnicodeDecodeError):
            line = (self.git_folder / self.remote_branch).read_text()
            if re.fullmatch(r"[0-9a-f]{40}\n", line):
                return line.strip()
        return self.git.tip(self.remote_branch)

    def _start_push(self, tip: str) -> Running:
        command = ("push", "--porcelain", "--progress", "origin", f"{tip}:{self.branch}")
        return self.git.start(*command, deadline=NETWORK_DEADLINE)

    def _push(self, tip: str) -> None:
        """Pushed is what the remote says that it took."""
        begun, self.pushing = self.pushing, None
        if begun is not None and begun[0] != tip:
            begun[1].result()  # what was told of the join is a commit on top of it
            begun = None
        running = begun[1] if begun else self._start_push(tip)
        self._start_indexing()
        code, out, err = running.result()
        said = out.decode("utf-8", "replace")
        # A line a ref: flag, what to what, summary.
        answers = [line for line in said.splitlines() if line.count("\t") == 2]
        if code != 0 or not answers or answers[0][0] not in " *=":
            raise GitError(["push"], code, f"{err}\n{said}")

    def _join(self, others: Sequence[str], outcome: Outcome, allow_deletions: bool) -> None:
        """Bring commits in. Runs under the tree lock."""
        self._commit(outcome, allow_deletions, self._paths_to_look_at())  # what was written while we fetched
        self._wait_for_index()
        told = [self._join_one(self._head(), other, outcome, waited=other in self.waiting) for other in others]
        for other in self.waiting:
            self.git.run("update-ref", "-d", f"{JOIN}{other}")
        self.waiting = []
        self.seen = self._git_state()
        if any(told):
            self._commit(outcome, allow_deletions, self._paths_to_look_at())

    def _join_one(self, ours: str | None, theirs: str, outcome: Outcome, *, waited: bool) -> bool:
        """Join one commit; True when the Dashboard tells something of it now."""
        code, out, err = self.git.attempt("merge-base", ours or theirs, theirs)
        if code not in (0, 1):  # 1: they have none
            raise GitError(["merge-base"], code, err)
        base = out.strip() or None
        if base == theirs and ours is not None:
            return False
        copies: Sequence[tuple[str, str]] = ()
        shortened = None
        if base is None and ours is not None and not waited:  # what mend found here was not made shorter on purpose
            shortened = find_shortened(self.git, ours, theirs)
        if ours is None or base == ours:
            joined, changed = theirs, changes(self.git, ours or EMPTY_TREE, theirs)
        else:
            made = join(self.git, shortened or base, ours, theirs)
            changed, copies = made.changes, made.copies
            message = f"{self.config.agent_name.title()}: merge"
            joined = self.git.commit((ours, theirs), changed, message, self.clock().timestamp())
            if shortened is None and self.pushing is None:
                self.pushing = joined, self._start_push(joined)  # meanwhile it is put on disk
        if shortened is not None and ours is not None:
            self._go_over(ours, theirs, joined)
        else:
            self._put_on_disk(joined)
        outcome.received = True
        for path, copy in copies:
            self.journal.tell(
                f"Both sides changed {dashboard.plain(shown(path))}: what clashed is kept in [[{shown(copy)}]]; "
                "take over what you need, then delete it"
            )
            self.journal.record("conflict_copy", path, copy=copy)
        came = [path for path, blob in changed.items() if blob is not None]
        gone = guards.gone([path for path in changed if changed[path] is None], came)
        left = len(self.git.run("ls-files", "-z").split("\0")) - 1 if len(gone) > 10 else 0
        mass = guards.is_mass_deletion(gone, len(gone) + left)
        if mass:
            back = f"git diff --name-only --diff-filter=D -z {ours} HEAD | xargs -0 git checkout {ours} --"
            what = f"{len(gone)} files were deleted on another machine, more than a third of the vault"
            self.journal.tell(f"{what}; to have them back, in the vault: `{back}`")
        return bool(copies) or mass

    def _put_on_disk(self, joined: str) -> None:
        """Bring the files, and then HEAD, to a commit that holds HEAD."""
        # Refuses, and changes nothing, when it would overwrite a file that was written this very moment.
        command = ("merge", "--quiet", "--ff-only", "--no-overwrite-ignore", joined)
        code, _, err = self.git.attempt(*command)
        if code != 0:
            with self._out_of_the_way(joined):
                code, _, err = self.git.attempt(*command)
        if code != 0:
            error = GitError(command, code, err)
            if error.kind != "git":
                raise error
            raise NotNow(f"the vault is being written to: {' '.join(err.split())[-300:]}")
        self.ours = joined

    @contextlib.contextmanager
    def _out_of_the_way(self, joined: str) -> Iterator[None]:
        """What is never committed keeps no version of the remote's from the disk, and is kept itself."""
        incoming = changes(self.git, self._head() or EMPTY_TREE, joined)
        self._clear_the_way(incoming)
        noise = [path for path in incoming if guards.is_noise(path) and os.path.lexists(self.vault.root / path)]
        # To git the file is as the remote has it, so that it lets it be. A deletion it would carry out all the same.
        lines = [f"{blob.mode} {blob.oid}\t{path}" for path in noise if (blob := incoming[path]) is not None]
        self.git.run("update-index", "-z", "--add", "--index-info", stdin=nul_ended(lines))
        aside = [(self.vault.root / path, self.git_folder / f"noise-{number}") for number, path in enumerate(noise)]
        moved = [pair for pair, path in zip(aside, noise, strict=True) if incoming[path] is None]
        for file, kept in moved:
            os.rename(file, kept)
        try:
            yield
        finally:
            for file, kept in moved:
                file.parent.mkdir(parents=True, exist_ok=True)
                os.rename(kept, file)

    def _go_over(self, ours: str, theirs: str, joined: str) -> None:
        """Take over a history that was made shorter on purpose: the joined files, on top of theirs alone."""
        tree = f"{joined}^{{tree}}"
        if self.git.run("rev-parse", tree) == self.git.run("rev-parse", f"{theirs}^{{tree}}"):
            tip = theirs
        else:
            message = f"{self.config.agent_name.title()}: what was new when the history was shortened"
            tip = self.git.run("commit-tree", tree, "-p", theirs, "-m", message).strip()
        self.git.run("update-ref", f"refs/cloud-agent/kept/{ours}", ours)
        # Killed between these two, the next cycle commits what is on disk, and goes over again.
        code, _, err = self.git.attempt("read-tree", "-m", "-u", ours, tip)
        if code != 0:
            raise NotNow(f"the vault is being written to: {' '.join(err.split())[-300:]}")
        self.git.run("update-ref", "-m", f"{self.config.agent_name}: history shortened", self.branch, tip, ours)
        self.ours = tip
        log.warning("the remote's history was made shorter: taken over; the old one is refs/cloud-agent/kept/%s", ours)

    def _clear_the_way(self, incoming: Changes) -> None:
        """Rename what is held back, or ignored, where the remote's version wants its name.

        What was written since our last commit stays where it is: it is committed in the next cycle.
        """
        folders = {str(parent) for path in incoming for parent in PurePosixPath(path).parents}
        renamed = []
        out = self.git.run("status", "--porcelain=v1", "-z", "--untracked-files=all", "--ignored", "--no-renames")
        for entry in filter(None, out.split("\0")):
            code, path = entry[:2], entry[3:].rstrip("/")
            file = self.vault.root / path
            linked = any((self.vault.root / parent).is_symlink() for parent in PurePosixPath(path).parents)
            if linked or not os.path.lexists(file) or guards.is_noise(path):
                continue
            if code != "!!" and not isinstance(guards.examine(self.vault.root, entry[3:], self.own_secrets), str):
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
            renamed.append(path)
            if link:  # what lay below it is not deleted
                self.git.attempt("checkout-index", "--all", "--quiet")
        if renamed:  # what somebody staged of it is not in the way either
            names = nul_ended(renamed)
            self.git.run("reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=names)

    # -- afterwards ------------------------------------------------------------------------------------------------

    def _pack(self) -> None:
        """Let git pack what piles up, beside the loop: our commits do not start that by themselves."""
        ended = self.packing.poll() if self.packing is not None else 0
        if ended is None:
            return
        self.packing = None
        self.suspect = ended != 0  # packing reads what no cycle reads: the next cycle looks for damage
        due = self.packed is None or abs((self.clock() - self.packed).total_seconds()) > PACK_EVERY_SECONDS
        objects = self.git_folder / "objects"
        try:
            # git's own estimate of loose ones: their names are spread evenly over 256 folders.
            loose = len(os.listdir(objects / "17")) * 256 if (objects / "17").exists() else 0
            packs = sum(name.endswith(".pack") for name in os.listdir(objects / "pack"))
        except OSError:
            return
        if due and (loose > LOOSE_OBJECTS or packs > PACKS):
            self.packed = self.clock()
            limits = (f"gc.auto={LOOSE_OBJECTS}", f"gc.autoPackLimit={PACKS}", "gc.bigPackThreshold=64m")
            options = [part for limit in limits for part in ("-c", limit)]
            self.packing = self.git.in_background(*options, "gc", "--auto", "--quiet")

    def _drop_connections(self, seconds: float = float("-inf")) -> None:
        """The next call is to open a connection of its own: the one that is kept may be what hangs, or is refused.

        With `seconds` only those that are older.
        """
        for folder in (self.state.folder, self.git_folder):
            for socket in folder.glob("ssh-*"):
                with contextlib.suppress(FileNotFoundError):
                    if self.clock().timestamp() - socket.stat().st_mtime > seconds:
                        socket.unlink()

    # -- what the owner reads --------------------------------------------------------------------------------------

    def _is_known(self, kind: str) -> bool:
        return self.state.alerts().get("sync", {}).get("message", "").startswith(f"{kind}:")

    def _note_failure(self, kind: str, message: str) -> None:
        """Tell of a failure when it begins. Nobody need do anything about being offline: the Dashboard is silent."""
        if self._is_known(kind):
            return
        self.state.raise_alert("sync", f"{kind}: {message}", self.clock())
        log.warning("not synced (%s): %s", kind, message)
        with lock(self.state.tree_lock), contextlib.suppress(OSError):
            if kind != "offline":
                self.journal.tell(f"Sync waits for somebody: {dashboard.plain(message, 300)}")
            self.journal.record("sync_failed", kind, result="failure", message=message)

    def _note_busy(self, reason: str) -> None:
        """Somebody else at work is ordinary; for longer than a moment it is a failure, and is told."""
        self.busy_since = self.busy_since or self.clock()
        if (self.clock() - self.busy_since).total_seconds() > BUSY_SECONDS:
            self._note_failure("busy", reason)

    def _note_success(self) -> None:
        self.busy_since = None
        alert = self.state.alerts().get("sync")
        if alert is None:
            return
        offline, since = self._is_known("offline"), alert["since"]
        self.state.clear_alert("sync")
        log.info("synced again; it had failed since %s", since)
        with lock(self.state.tree_lock), contextlib.suppress(OSError):
            if not offline:
                self.journal.tell(f"Sync works again; it had failed since {since}")
            self.journal.record("sync_recovered", "sync", failed_since=since)
