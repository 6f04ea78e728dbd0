"""What the watch over the vault tells: nothing of what changed is left out, and a quiet vault costs no look at it."""

import contextlib
import ctypes
import errno
import logging
import os
import random
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cloud_agent import watch
from cloud_agent.vault import TEMPORARY_PREFIX, Vault
from cloud_agent.watch import Watch, unfit
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

Tree = dict[str, tuple[int, bytes]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "vault").mkdir()
    return tmp_path / "vault"


@pytest.fixture
def open_watch(root: Path) -> Iterator[Callable[[], Watch]]:
    """A watch over what the vault holds by now: asked once, so that the next answer is what changed since."""
    opened: list[Watch] = []

    def make() -> Watch:
        opened.append(Watch(root))
        assert opened[-1].changed() is None
        return opened[-1]

    yield make
    for each in opened:
        each.close()


# -- files -------------------------------------------------------------------------------------------------------------


def test_nothing_is_known_at_first_and_nothing_has_changed_then(root: Path) -> None:
    (root / "a.md").write_text("1")
    vault = Watch(root)
    assert vault.changed() is None
    assert vault.changed() == set()
    vault.close()


def test_a_file_is_told_of_whatever_is_done_to_it(root: Path, open_watch: Callable[[], Watch]) -> None:
    vault = open_watch()
    file = root / "a.md"
    file.write_text("1")
    assert vault.changed() == {"a.md"}
    with file.open("a") as more:
        more.write("2")
    assert vault.changed() == {"a.md"}
    file.chmod(0o755)
    assert vault.changed() == {"a.md"}
    file.rename(root / "b.md")
    assert vault.changed() == {"a.md", "b.md"}
    (root / "b.md").unlink()
    assert vault.changed() == {"b.md"}
    (root / "link.md").symlink_to("b.md")
    assert vault.changed() == {"link.md"}
    assert vault.changed() == set()


def test_what_is_written_to_a_file_that_stays_open_is_told_each_time(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    vault = open_watch()
    with (root / "a.md").open("w") as file:
        for _ in range(3):
            file.write("line\n")
            file.flush()
            assert vault.changed() == {"a.md"}
            assert vault.changed() == set()


def test_reading_is_no_change(root: Path, open_watch: Callable[[], Watch]) -> None:
    (root / "a").mkdir()
    (root / "a/b.md").write_text("1")
    vault = open_watch()
    (root / "a/b.md").read_bytes()
    os.listdir(root / "a")
    (root / "a/b.md").stat()
    assert vault.changed() == set()


def test_a_quiet_vault_is_not_looked_through(
    root: Path, open_watch: Callable[[], Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a").mkdir()
    vault = open_watch()
    monkeypatch.setattr(os, "scandir", None)
    (root / "a/b.md").write_text("1")
    assert vault.changed() == {"a/b.md"}
    assert vault.changed() == set()


def test_a_name_that_is_no_utf8_is_told_as_the_file_system_spells_it(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    vault = open_watch()
    os.mkdir(os.fsencode(root) + b"/\xff")
    assert vault.changed() == {"\udcff"}
    Path(root, "\udcff", "\udcfe.md").write_text("1")
    assert vault.changed() == {"\udcff/\udcfe.md"}


def test_half_written_files_of_ours_are_not_told_but_the_name_they_get_is(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    watched, vault = open_watch(), Vault(root)
    vault.replace("Dashboard.md", b"1")
    assert watched.changed() == {"Dashboard.md"}
    vault.create("Done/Email/EMAIL_1.md", b"1")
    assert watched.changed() == {"Done"}
    vault.create("Done/Email/EMAIL_2.md", b"1")
    assert watched.changed() == {"Done/Email/EMAIL_2.md"}
    (root / ".cloud-agent-1.tmp").mkdir()
    assert watched.changed() == {".cloud-agent-1.tmp"}


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_new_folder_stands_for_what_was_made_in_it_and_is_watched_from_then_on(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    vault = open_watch()
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/c/d.md").write_text("1")
    assert vault.changed() == {"a"}
    (root / "a/b/c/d.md").write_text("2")
    assert vault.changed() == {"a/b/c/d.md"}


def test_a_moved_folder_is_told_under_both_names_and_then_under_the_new_one(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "c").mkdir()
    vault = open_watch()
    (root / "a").rename(root / "c/a")
    assert vault.changed() == {"a", "c/a"}
    (root / "c/a/b/d.md").write_text("1")
    assert vault.changed() == {"c/a/b/d.md"}


def test_a_folder_moved_into_one_that_is_not_watched_yet_keeps_its_watch(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    (root / "a/b").mkdir(parents=True)
    vault = open_watch()
    (root / "c").mkdir()
    (root / "a").rename(root / "c/a")
    assert vault.changed() == {"a", "c"}
    (root / "c/a/b/d.md").write_text("1")
    assert vault.changed() == {"c/a/b/d.md"}


def test_a_folder_moved_out_is_let_go_and_watched_again_when_it_is_back(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    (root / "a/b").mkdir(parents=True)
    vault = open_watch()
    (root / "a").rename(root.parent / "out")
    assert vault.changed() == {"a"}
    (root.parent / "out/b/c.md").write_text("1")
    assert vault.changed() == set()
    (root.parent / "out").rename(root / "d")
    assert vault.changed() == {"d"}
    (root / "d/b/c.md").write_text("2")
    assert vault.changed() == {"d/b/c.md"}


def test_a_folder_removed_and_made_anew_is_watched(root: Path, open_watch: Callable[[], Watch]) -> None:
    (root / "a/b").mkdir(parents=True)
    vault = open_watch()
    shutil.rmtree(root / "a")
    (root / "a/b").mkdir(parents=True)
    assert "a" in (vault.changed() or ())
    (root / "a/b/c.md").write_text("1")
    assert vault.changed() == {"a/b/c.md"}


def test_a_folder_that_gives_way_to_a_file_and_to_a_link_is_not_followed(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    (root / "a").mkdir()
    vault = open_watch()
    (root / "a").rename(root.parent / "out")
    (root / "a").write_text("1")
    assert vault.changed() == {"a"}
    (root / "a").unlink()
    (root / "a").symlink_to(root.parent / "out")
    assert vault.changed() == {"a"}
    (root / "a/b.md").write_text("1")
    assert vault.changed() == set()


def test_a_folder_moved_out_that_a_link_leads_to_from_its_old_place_is_let_go(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    (root / "a").mkdir()
    vault = open_watch()
    (root / "a").rename(root.parent / "out")
    (root / "a").symlink_to(root.parent / "out")
    assert vault.changed() == {"a"}
    (root / "a/b.md").write_text("1")
    assert vault.changed() == set()


def test_folders_that_changed_places_are_both_watched(root: Path, open_watch: Callable[[], Watch]) -> None:
    (root / "a").mkdir()
    (root / "b/c").mkdir(parents=True)
    vault = open_watch()
    exchange(root / "a", root / "b")
    assert vault.changed() == {"a", "b"}
    (root / "b/d.md").write_text("1")
    (root / "a/c/d.md").write_text("1")
    assert vault.changed() == {"a/c/d.md", "b/d.md"}


def test_a_folder_that_is_put_below_its_own_old_name_is_watched(root: Path, open_watch: Callable[[], Watch]) -> None:
    (root / "a").mkdir()
    vault = open_watch()
    (root / "a/b").mkdir()
    (root / "a").rename(root / "c")
    (root / "a").mkdir()
    (root / "c").rename(root / "a/b")
    assert vault.changed() == {"a", "c", "a/b"}
    (root / "a/b/b/d.md").write_text("1")
    assert vault.changed() == {"a/b/b/d.md"}


def test_a_folder_that_takes_the_place_of_the_one_it_was_in_is_watched(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    (root / "a/b/c").mkdir(parents=True)
    vault = open_watch()
    (root / "a").rename(root / "d")
    (root / "d/b").rename(root / "a")
    assert {"a", "d"} <= (vault.changed() or set())
    for path in ("a/e.md", "a/c/e.md", "d/e.md"):
        (root / path).write_text("1")
    assert vault.changed() == {"a/e.md", "a/c/e.md", "d/e.md"}


def test_the_vaults_git_folder_is_not_watched_and_a_nested_one_stands_for_its_folder(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    (root / ".git").mkdir()
    (root / "a").mkdir()
    vault = open_watch()
    (root / ".git/index").write_text("1")
    (root / ".git").rename(root.parent / "out")
    assert vault.changed() == set()
    (root / "a/.git").mkdir()
    assert vault.changed() == {"a"}
    (root / "a/.git/index").write_text("1")
    assert vault.changed() == set()


# -- what is not known -------------------------------------------------------------------------------------------------


def is_precise(vault: Watch, root: Path) -> bool:
    """Whether the answers are exact; to be asked after a None."""
    (root / "precise.md").write_text("1")
    return vault.changed() == {"precise.md"}


def test_more_events_than_the_kernel_queues_are_not_known_and_the_next_ones_are(
    root: Path, open_watch: Callable[[], Watch]
) -> None:
    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if room > 200_000:
        pytest.skip(f"this machine queues {room} events")
    files = [root / "a.md", root / "b.md"]
    for file in files:
        file.touch()
    vault = open_watch()
    for number in range(room + 1):  # of two events in a row that are alike, the kernel queues one
        os.chmod(files[number % 2], 0o600)
    assert vault.changed() is None
    assert is_precise(vault, root)


def test_more_paths_than_are_worth_remembering_are_not_known_and_the_next_ones_are(
    root: Path, open_watch: Callable[[], Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST_PATHS", 10)
    vault = open_watch()
    for number in range(11):
        (root / f"{number}.md").touch()
    assert vault.changed() is None
    assert is_precise(vault, root)


def test_a_vault_that_went_away_is_watched_again_when_it_is_back(
    root: Path, open_watch: Callable[[], Watch], caplog: pytest.LogCaptureFixture
) -> None:
    vault = open_watch()
    root.rename(root.parent / "out")
    assert [vault.changed(), vault.changed()] == [None, None]
    (root.parent / "out").rename(root)
    assert vault.changed() is None
    assert is_precise(vault, root)
    assert not caplog.records


@pytest.mark.parametrize("kept", [True, False], ids=["moved", "removed"])
def test_another_folder_in_the_vaults_place_is_watched(root: Path, open_watch: Callable[[], Watch], kept: bool) -> None:
    vault = open_watch()
    if kept:
        root.rename(root.parent / "out")
    else:
        root.rmdir()
    root.mkdir()
    assert vault.changed() is None
    assert is_precise(vault, root)


def test_another_folder_in_the_place_of_one_above_the_vault_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "home/vault"
    root.mkdir(parents=True)
    vault = Watch(root)
    vault.changed()
    (tmp_path / "home").rename(tmp_path / "out")
    root.mkdir(parents=True)
    assert vault.changed() is None
    assert is_precise(vault, root)
    vault.close()


class Faulty(watch.INotify):  # type: ignore[misc]
    """inotify that runs out of watches, or refuses one folder."""

    room = 0
    refused = ""
    error = errno.ENOSPC
    asked = 0

    def add_watch(self, path: str, mask: int) -> int:
        Faulty.asked += 1
        Faulty.room -= 1
        if Faulty.room < 0 or path.endswith(Faulty.refused or "\0"):
            raise OSError(Faulty.error, os.strerror(Faulty.error))
        return int(super().add_watch(path, mask))


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[Faulty]:
    for name, value in {"room": 1000, "refused": "", "error": errno.ENOSPC, "asked": 0}.items():
        monkeypatch.setattr(Faulty, name, value)
    monkeypatch.setattr(watch, "INotify", Faulty)
    return Faulty


def test_without_watches_everything_is_to_be_looked_at_and_it_is_told_once_how_to_have_more(
    root: Path, faulty: type[Faulty], caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        (root / name).mkdir()
    faulty.room = 2
    before = len(os.listdir("/proc/self/fd"))
    vault = Watch(root)
    answers = [vault.changed() for _ in range(watch.PATIENCE)]
    assert set(answers) == {None}
    assert faulty.asked == 3, "it costs nothing to ask again"
    assert len(os.listdir("/proc/self/fd")) == before, "the watches it had are given back"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "fs.inotify.max_user_watches" in caplog.text

    answers = [vault.changed() for _ in range(watch.PATIENCE)]
    assert faulty.asked == 4, "after a while it is tried again"
    assert len(caplog.records) == 1

    faulty.room = 1000
    with caplog.at_level(logging.INFO):
        while vault.changed() is None:
            pass
    assert "watched again" in caplog.text
    assert is_precise(vault, root)
    vault.close()


def test_a_new_folder_for_which_no_watch_is_left_is_not_missed(
    root: Path, faulty: type[Faulty], caplog: pytest.LogCaptureFixture
) -> None:
    vault = Watch(root)
    vault.changed()
    faulty.room = 1
    (root / "a/b").mkdir(parents=True)
    assert [vault.changed(), vault.changed()] == [None, None]
    assert "fs.inotify.max_user_watches" in caplog.text
    vault.close()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "fs.inotify.max_user_instances"),
        (OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)), os.strerror(errno.ENOSYS)),
        (AttributeError("inotify_init1"), "this system has no inotify"),
    ],
    ids=["instances", "kernel", "system"],
)
def test_without_inotify_everything_is_to_be_looked_at_and_it_is_told_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, told: str
) -> None:
    def fail(nonblocking: bool) -> None:
        raise error

    monkeypatch.setattr(watch, "INotify", fail)
    vault = Watch(root)
    assert [vault.changed(), vault.changed(), vault.changed()] == [None, None, None]
    assert told in caplog.text
    assert len(caplog.records) == 1
    vault.close()


@pytest.mark.parametrize(("enterable", "expected"), [(False, {"b/c.md"}), (True, None)])
def test_a_folder_that_cannot_be_listed_hides_nothing_that_can_be_seen(
    root: Path, faulty: type[Faulty], monkeypatch: pytest.MonkeyPatch, enterable: bool, expected: set[str] | None
) -> None:
    """Files of one that can be entered are seen by who knows their names, as git does."""
    for name in "ab":
        (root / name).mkdir()
    faulty.refused, faulty.error = "/a", errno.EACCES
    monkeypatch.setattr(os, "access", lambda path, mode: enterable)
    vault = Watch(root)
    vault.changed()
    (root / "b/c.md").write_text("1")
    assert vault.changed() == expected
    vault.close()


def test_a_folder_that_becomes_readable_is_watched(root: Path, faulty: type[Faulty]) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a").chmod(0)
    faulty.refused, faulty.error = "/a", errno.EACCES  # root may read everything
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        vault = Watch(root)
        vault.changed()
    faulty.refused = ""
    (root / "a").chmod(0o700)
    assert vault.changed() == {"a"}
    (root / "a/b/c.md").write_text("1")
    assert vault.changed() == {"a/b/c.md"}
    vault.close()


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /srv rw shared:1 - nfs4 host:/srv rw
31 30 0:41 / /srv/local rw - xfs /dev/vdb rw
32 27 0:42 / /home/a\\040b rw - fuse.sshfs host: rw
33 27 0:43 / /over rw - nfs4 host:/x rw
34 33 0:44 / /over rw - tmpfs tmpfs rw
35 27 0:45 / /disk rw - btrfs /dev/vdc rw
36 35 0:46 / /disk/vault/Files rw - ext4 /dev/vdd rw
"""


@pytest.mark.parametrize(
    ("root", "why"),
    [
        ("/vault", ""),
        ("/srv/local", ""),
        ("/srv/local/vault", ""),
        ("/over/vault", ""),
        ("/disk/vault2", ""),
        ("/srv/vault", "its file system, nfs4, may be written to from elsewhere"),
        ("/srv/localvault", "its file system, nfs4, may be written to from elsewhere"),
        ("/home/a b/vault", "its file system, fuse.sshfs, may be written to from elsewhere"),
        ("/disk/vault", "/disk/vault/Files is a mount of its own: mount it outside of the vault"),
    ],
)
def test_file_systems_that_others_write_to_are_known(root: str, why: str) -> None:
    assert unfit(MOUNTS, root) == why


def test_on_a_file_system_that_others_write_to_everything_is_to_be_looked_at(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "_LOCAL", frozenset())
    vault = Watch(root)
    assert [vault.changed(), vault.changed()] == [None, None]
    assert len(caplog.records) == 1
    assert "may be written to from elsewhere" in caplog.text
    vault.close()


def test_a_closed_watch_holds_nothing(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    vault = Watch(root)
    vault.changed()
    vault.close()
    assert len(os.listdir("/proc/self/fd")) == before


# -- any sequence ------------------------------------------------------------------------------------------------------


def exchange(one: Path, other: Path) -> None:
    """Swap two names: renameat2(2) with RENAME_EXCHANGE."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def snapshot(root: Path, path: str = "") -> Tree:
    """Path -> type, mode and content of what is at `path` and below it. Nothing is behind a symbolic link."""
    found: Tree = {}
    if any((root / parent).is_symlink() for parent in Path(path).parents):
        return found
    waiting = [path] if path else os.listdir(root)
    while waiting:
        path = waiting.pop()
        file = root / path
        if file.name.startswith(TEMPORARY_PREFIX):
            continue
        try:
            mode = file.lstat().st_mode
            if stat.S_ISDIR(mode):
                found[path] = mode, b""
                waiting += [f"{path}/{name}" for name in os.listdir(file)]
            else:
                link = stat.S_ISLNK(mode)
                found[path] = mode, os.fsencode(os.readlink(file)) if link else file.read_bytes()
        except OSError:  # it went away meanwhile
            continue
    return found


def is_covered(path: str, answer: set[str]) -> bool:
    return path in answer or any(str(parent) in answer for parent in Path(path).parents)


class Disk:
    """What can be done to a vault, and to a folder beside it. What cannot be done is left undone."""

    def __init__(self, above: Path) -> None:
        self.root = above / "vault"
        self.out = above / "out"
        self.out.mkdir()
        for folder in ("a/a", "a/b", "b/a"):
            (self.root / folder).mkdir(parents=True)
            (self.root / folder / "a").write_text(folder)

    def do(self, what: str, one: str, other: str) -> None:
        with contextlib.suppress(OSError, shutil.Error):
            getattr(self, what)(self.root / one, self.root / other)

    def write(self, one: Path, other: Path) -> None:
        one.write_text(str(other))

    def append(self, one: Path, other: Path) -> None:
        with one.open("a") as file:
            file.write("more")

    def delete(self, one: Path, other: Path) -> None:
        one.unlink()

    def mkdir(self, one: Path, other: Path) -> None:
        one.mkdir()

    def mkdirs(self, one: Path, other: Path) -> None:
        one.mkdir(parents=True)

    def rmdir(self, one: Path, other: Path) -> None:
        one.rmdir()

    def rmtree(self, one: Path, other: Path) -> None:
        shutil.rmtree(one)

    def rename(self, one: Path, other: Path) -> None:
        one.rename(other)

    def move_into_new(self, one: Path, other: Path) -> None:
        other.mkdir()
        one.rename(other / one.name)

    def take_the_place_of_the_one_above(self, one: Path, other: Path) -> None:
        one.parent.rename(other)
        (other / one.name).rename(one.parent)

    def exchange(self, one: Path, other: Path) -> None:
        exchange(one, other)

    def replace(self, one: Path, other: Path) -> None:
        temporary = one.parent / f"{TEMPORARY_PREFIX}1.tmp"
        temporary.write_text(str(other))
        temporary.rename(one)

    def chmod(self, one: Path, other: Path) -> None:
        one.chmod(one.stat().st_mode ^ 0o010)

    def symlink(self, one: Path, other: Path) -> None:
        one.symlink_to(other)

    def move_out(self, one: Path, other: Path) -> None:
        one.rename(self.out / other.name)

    def move_in(self, one: Path, other: Path) -> None:
        (self.out / other.name).rename(one)

    def write_outside(self, one: Path, other: Path) -> None:
        (self.out / one.name / other.name).write_text("outside")


ACTIONS = [name for name in vars(Disk) if not name.startswith("_") and name != "do"]
PATHS = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join)


class Life(RuleBasedStateMachine):
    """Anything happens to the vault; whenever it is asked, the watch has told of every difference."""

    @initialize()
    def begin(self) -> None:
        self.above = Path(tempfile.mkdtemp(prefix="watch-"))
        self.disk = Disk(self.above)
        self.vault = Watch(self.disk.root)
        assert self.vault.changed() is None
        self.known = snapshot(self.disk.root)

    @rule(actions=st.lists(st.tuples(st.sampled_from(ACTIONS), PATHS, PATHS), min_size=1, max_size=6))
    def act_and_ask(self, actions: list[tuple[str, str, str]]) -> None:
        for action in actions:
            self.disk.do(*action)
        self.ask()

    def ask(self) -> None:
        answer = self.vault.changed()
        assert answer is not None, "nothing happened that it could not tell"
        now = snapshot(self.disk.root)
        different = {path for path in self.known.keys() | now.keys() if self.known.get(path) != now.get(path)}
        assert {path for path in different if not is_covered(path, answer)} == set()
        self.known = now

    def teardown(self) -> None:
        try:
            assert self.vault.changed() == set()
        finally:
            self.vault.close()
            shutil.rmtree(self.above)


Life.TestCase.settings = settings(
    max_examples=60, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLife = Life.TestCase


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_that_follows_the_answers_ends_up_the_same_while_others_write(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    disk = Disk(tmp_path)
    vault = Watch(disk.root)

    def write() -> None:
        for _ in range(3000):
            one, other = ("/".join(chance.choices("ab", k=chance.randint(1, 3))) for _ in "12")
            disk.do(chance.choice(ACTIONS), one, other)

    copy: Tree = {}

    def follow() -> None:
        answer = vault.changed()
        if answer is None:
            copy.clear()
            copy.update(snapshot(disk.root))
            return
        for path in answer:
            for known in [known for known in copy if is_covered(known, {path})]:
                del copy[known]
            copy.update(snapshot(disk.root, path))

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        follow()
    follow()
    assert copy == snapshot(disk.root)
    vault.close()
