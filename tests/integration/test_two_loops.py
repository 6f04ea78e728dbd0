"""Two loops, one tree: drafting writes, a person's editor writes, the remote changes, while the sync loop is at work.

Hypothesis chooses at which of the sync's steps (a program it starts, a file it opens, renames or lists) which writer
comes in. Drafting comes in only where the tree lock is free, as it waits for it elsewhere; an editor anywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cloud_agent import dashboard, sync
from cloud_agent.journal import Journal
from cloud_agent.sync import Syncer
from cloud_agent.vault import INBOX, PENDING, TEMPORARY_PREFIX, Vault, lock
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.faultgit import watched
from tests.gitkit import NOW, World, git, git_output

LONG = int(os.environ.get("TWO_LOOPS", "1"))  # so many times as long as usual
EXAMPLES = 10
KEY = b"sk-ant-api03-" + bytes(random.Random(1).choices(b"abcdefghkmnpqrstuvwxyzABCDEFGHKMNPQRSTUVWXYZ23456789", k=95))  # noqa: S311
LOCKED = ("draft", "move", "tell", "log")  # what drafting does: under the tree lock
ACTIONS = ["draft", "draft", "move", "tell", "log", "edit whole", "edit whole", "edit in parts", "edit in parts",
           "append", "key", "delete", "local edits", "local edits", "local answers"]  # fmt: skip
SEED: dict[str, str | bytes] = {
    "Dashboard.md": "# Dashboard\n\nMine.\n\n## Updates\n\n- old\n",
    "Company_Handbook.md": "# Handbook\n",
    **{f"Inbox/EMAIL_{number}.md": f"---\nemail_id: {number}\n---\nmail {number} ends`\n" for number in range(8)},
    **{f"Notes/{number}.md": f"note {number}\n" * 3 for number in range(12)},
}


@dataclass
class Tree:
    """Cloud's tree and all that writes to it, with a record of what must come of it."""

    world: World
    wholes: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))  # path -> every content of ours
    lines: set[str] = field(default_factory=set)  # of the logs
    entries: set[str] = field(default_factory=set)  # of the Dashboard
    finished: dict[str, bytes] = field(default_factory=dict)  # a person's files, as they were left
    gone: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    on_both_sides: set[str] = field(default_factory=set)
    parts: list[Callable[[], None]] = field(default_factory=list)  # what an editor has yet to write
    count: int = 0

    def __post_init__(self) -> None:
        side = self.world.cloud
        self.root = side.vault
        self.vault = Vault(side.vault, "cloud")
        self.journal = Journal(self.vault, "cloud", "audit", lambda: NOW)
        for path, content in SEED.items():
            self.wholes[path].add(str(content).encode())
        self.entries.add("- old")

    def syncer(self) -> Syncer:
        """Cloud's, as the loop runs it: it watches the vault, and the clock never says that a scan is due."""
        side = self.world.cloud
        return Syncer(side.config, side.state, lambda: NOW, sleep=side.slept.append, watching=True)

    def number(self) -> int:
        self.count += 1
        return self.count

    # -- drafting: under the tree lock -----------------------------------------------------------------------------

    def draft(self, _: int) -> None:
        path, content = (
            f"{PENDING}/EMAIL_DRAFT_d{self.number()}.md",
            f"<{self.count}> Dear Ann\n".encode() * 400 + b"`\n",
        )
        self.wholes[path].add(content)
        self.tokens.add(f"<{self.count}>")
        self.vault.create(path, content)

    def move(self, pick: int) -> None:
        names = self.vault.names(INBOX)
        if not names:
            return
        source = f"{INBOX}/{names[pick % len(names)]}"
        target = f"In_Progress/cloud/{names[pick % len(names)]}"
        was = self.vault.read(source)
        content = b"reason: <%d>\n" % self.number() + was
        self.wholes[target].add(content)
        self.tokens.add(f"<{self.count}>")
        self.vault.move(source, target, content, was)

    def tell(self, _: int) -> None:
        entry = f"told <{self.number()}> at length {'x' * 200}"
        self.entries.add(f"- 2026-02-16T10:00:00Z {entry}")
        self.tokens.add(f"<{self.count}>")
        self.journal.tell(entry)

    def log(self, _: int) -> None:
        self.tokens.add(f"<{self.number()}>")
        self.journal.record("drafted", f"<{self.count}>", filler="y" * 300)
        self.lines.add(self.vault.read("Logs/Cloud/audit-2026-02.jsonl").decode().splitlines()[-1])

    # -- a person's editor: at any point -----------------------------------------------------------------------------

    def note(self, pick: int) -> str:
        return f"Notes/{pick % 12}.md"

    def _saved(self, path: str, content: bytes) -> None:
        self.finished[path] = content
        self.gone.discard(path)

    def edit_whole(self, pick: int) -> None:
        path, content = self.note(pick), b"whole <%d>\n" % self.number() + b"text\n" * 200
        beside = self.root / f"{path}.saving.tmp"
        beside.write_bytes(content)
        beside.rename(self.root / path)
        self._saved(path, content)

    def edit_in_parts(self, pick: int) -> None:
        """Truncates the file and writes it in pieces, with other things between them."""
        path = self.note(pick)
        content = b"in parts <%d>\n" % self.number() + b"text\n" * 200
        file = open(self.root / path, "wb", buffering=0)  # noqa: SIM115
        self.finished.pop(path, None)
        self.gone.discard(path)
        file.write(content[:100])

        def second() -> None:
            file.write(content[100:500])

        def third() -> None:
            file.write(content[500:])
            file.close()
            # A later save, or a deletion, is another story: this one is over only where the name still means the file.
            if (self.root / path).exists() and (self.root / path).read_bytes() == content:
                self._saved(path, content)

        self.parts += [second, third]

    def append(self, pick: int) -> None:
        path = self.root / self.note(pick)
        if any(self.parts):
            return  # whoever edits a file in parts has it for himself
        with open(path, "ab") as file:
            file.write(b"appended <%d>\n" % self.number())
        self._saved(self.note(pick), path.read_bytes())

    def key(self, pick: int) -> None:
        """A key is pasted into a note, and taken out again in the end, or by a later edit."""
        path = self.note(pick)
        if not self.parts:
            with open(self.root / path, "ab") as file:
                file.write(KEY)
            self.finished.pop(path, None)
            self.gone.discard(path)

    def delete(self, pick: int) -> None:
        path = self.note(pick)
        if not self.parts and (self.root / path).exists():
            (self.root / path).unlink()
            self.finished.pop(path, None)
            self.gone.add(path)

    # -- the other side --------------------------------------------------------------------------------------------

    def local_edits(self, pick: int) -> None:
        side = self.world.local
        path = f"Notes/local{pick % 6}.md"
        before = side.read(path) if (side.vault / path).exists() else ""
        side.write(path, f"{before}local <{self.number()}>\n")
        self.tokens.add(f"<{self.count}>")
        if pick % 3 == 0:
            text = side.read("Dashboard.md")
            side.write("Dashboard.md", text.replace("Mine.", f"Mine. <{self.number()}>"))
            self.tokens.add(f"<{self.count}>")
        side.sync()

    def local_answers(self, pick: int) -> None:
        """The owner approves, and edits what Cloud drafted."""
        side = self.world.local
        side.sync()
        drafts = sorted((side.vault / PENDING).glob("*.md"))
        if drafts:
            draft = drafts[pick % len(drafts)]
            target = side.vault / "Approved/Email" / draft.name
            target.parent.mkdir(parents=True, exist_ok=True)
            content = draft.read_bytes() + b"approved <%d>\n" % self.number()
            self.tokens.add(f"<{self.count}>")
            draft.unlink()
            target.write_bytes(content)
            side.sync()

    # -- the end -----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        for part in self.parts:
            part()
        self.parts.clear()
        for path in map(self.note, range(12)):
            if (self.root / path).exists() and KEY in (content := (self.root / path).read_bytes()):
                (self.root / path).write_bytes(content.replace(KEY, b""))
                self._saved(path, content.replace(KEY, b""))
        files = self.world.converge()
        text = "\n".join(files.values())
        assert {token for token in self.tokens if token not in text} == set(), "written, and lost"
        for path, content in self.finished.items():
            assert files.get(path, "").encode() == content, f"{path} is not what the person saved"
        assert self.gone & set(files) == set(), "what the person deleted is back"
        for side in (self.world.cloud, self.world.local):
            assert {path: side.read(path) for path in files} == files
        self.check_all_commits()

    def check_all_commits(self) -> None:
        """Each version of each file of ours is one that we wrote, whole."""
        seen: set[tuple[str, str]] = set()
        out = git(
            self.world.remote, "log", "-m", "--raw", "-z", "--no-abbrev", "--no-renames", "--format=", "--root", "main"
        )
        fields = [entry for entry in out.split("\0") if entry]
        for meta, path in zip(fields[::2], fields[1::2], strict=True):
            oid = meta.split()[3]
            assert TEMPORARY_PREFIX not in path
            if oid != "0" * 40 and (path, oid) not in seen:
                seen.add((path, oid))
                content = git_output(self.world.remote, "cat-file", "blob", oid)
                assert KEY.decode() not in content, f"a key is in {path}"
                self.check_version(path, content)

    def check_version(self, path: str, content: str) -> None:
        if path == dashboard.PATH:
            entries = {line for line in dashboard.split(content)[1].splitlines() if "Z told" in line}
            assert entries <= self.entries, f"half an entry: {entries - self.entries}"
        elif path.startswith("Logs/"):
            assert content.endswith("\n")
            assert all(json.loads(line) for line in content.splitlines()), f"half a line in {path}"
        elif path.startswith((PENDING, "In_Progress/", "Inbox/")):
            assert content.encode() in self.wholes[path], f"a version of {path} that nobody wrote"


def run(tree: Tree, plan: list[tuple[int, str, int]]) -> None:
    """Cycles of Cloud's sync, with the plan's writers coming in after so many steps each."""
    waiting = list(plan)
    left = waiting[0][0] if waiting else 0
    ours: list[Callable[[], None]] = []  # drafting, waiting for the lock
    syncer = tree.syncer()

    def step() -> None:
        nonlocal left
        while ours and is_free(tree.world.cloud.state.tree_lock):
            ours.pop(0)()
        if tree.parts:
            tree.parts.pop(0)()
        while waiting and left <= 0:
            _, kind, pick = waiting.pop(0)
            left = waiting[0][0] if waiting else 0
            event(kind)
            action = getattr(tree, kind.replace(" ", "_"))
            if kind in LOCKED:
                ours.append(lambda action=action, pick=pick: action(pick))  # type: ignore[misc]
            else:
                action(pick)
        left -= 1

    for _ in range(12):
        with interleaved(tree, step):
            assert syncer.cycle().result in ("ok", "later")
        if not waiting and not ours:
            break
    while waiting or ours:
        step()
    tree.end()


@contextlib.contextmanager
def interleaved(tree: Tree, step: Callable[[], None]) -> Iterator[None]:
    """Call `step` at each point where a writer may come in: see `watched`, and where the sync lets a lock go."""
    busy = False

    def once(_: str = "") -> None:
        nonlocal busy
        if not busy:  # what the writer does is no such point
            busy = True
            step()
            busy = False

    @contextlib.contextmanager
    def releasing(path: Path) -> Iterator[None]:
        with lock(path):
            yield
        once()

    sync.lock = releasing  # type: ignore[attr-defined]
    try:
        with watched(tree.root, once):
            yield
    finally:
        sync.lock = lock  # type: ignore[attr-defined]


def is_free(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(ACTIONS), st.integers(0, 999)), min_size=1, max_size=14))
@settings(
    max_examples=EXAMPLES * LONG, deadline=None, derandomize=LONG == 1, database=None, print_blob=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_no_write_is_lost_wherever_it_comes_in(plan: list[tuple[int, str, int]]) -> None:
    root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        world = World(root)
        world.seed(SEED)
        run(Tree(world), plan)
    finally:
        shutil.rmtree(root, ignore_errors=True)


WRITERS = ["draft", "edit whole", "tell", "append", "delete"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_write_before_each_step_of_a_cycle(tmp_path: Path, kind: str) -> None:
    """Exhaustive for one writer, where Hypothesis takes samples: a cycle that commits, joins and pushes.

    Every place when it is to take long, else every other; drafting at every place where the lock is free.
    """
    locked = kind in LOCKED
    for place in range(1, 400) if locked or LONG > 1 else range(1 + WRITERS.index(kind) % 2, 400, 2):
        root = tmp_path / str(place)
        root.mkdir()
        world = World(root)
        world.seed(SEED)
        tree = Tree(world)
        tree.edit_whole(3)
        tree.local_edits(3)
        steps = 0
        written = False

        def step(tree: Tree = tree, place: int = place) -> None:
            nonlocal steps, written
            steps += not locked or is_free(tree.world.cloud.state.tree_lock)
            if steps == place and not written:
                written = True
                getattr(tree, kind.replace(" ", "_"))(3)

        syncer = tree.syncer()
        with interleaved(tree, step):
            syncer.cycle()
        if not written:
            assert place > 3, "there was no such place"
            return
        tree.end()
    raise AssertionError("it never came to an end")


def test_writers_that_run_free(tmp_path: Path) -> None:
    """Threads, and the scheduler's order: drafting and an editor write while cycle after cycle runs."""
    world = World(tmp_path)
    world.seed(SEED)
    tree = Tree(world)
    stop = threading.Event()
    failures: list[BaseException] = []
    numbers = iter(range(1, 10**6))

    def forever(step: Callable[[int], None]) -> None:
        try:
            while not stop.is_set():
                step(next(numbers))
                time.sleep(0.003)
        except BaseException as error:  # the test's thread asks for it
            failures.append(error)

    def drafting(pick: int) -> None:
        if tree.count < 300:
            with lock(world.cloud.state.tree_lock):
                (tree.draft, tree.log)[pick % 2](pick)

    def editor(pick: int) -> None:
        path, content = tree.root / "Notes/free.md", f"saved {pick}\n".encode() * 50
        with open(path, "wb", buffering=0) as file:
            file.write(content[:200])
            time.sleep(0.001)
            file.write(content[200:])
        tree.finished["Notes/free.md"] = content

    threads = [threading.Thread(target=forever, args=(step,)) for step in (drafting, editor)]
    for thread in threads:
        thread.start()
    syncer = tree.syncer()
    try:
        for number in range(12):
            outcome = syncer.cycle()
            assert outcome.result in ("ok", "later"), outcome.message
            tree.local_edits(number)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    tree.end()
