"""A repository whose objects a power loss or a disk has damaged is made whole, and nothing on disk is lost."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cloud_agent import heal
from cloud_agent.git import classify
from cloud_agent.heal import Broken
from cloud_agent.mend import Boot

from tests.gitkit import Side, World, commit_all, git, push_as_person
from tests.integration.mendkit import (
    assert_mended,
    each_kill,
    empty,
    git_of,
    heal_of,
    loose,
    mend_of,
    nuls,
    torn,
)

Damage = Callable[[Path], object]
DAMAGES: list[Damage] = [empty, nuls, torn, Path.unlink]


def _is_broken(stderr: str) -> bool:
    return classify(stderr)[0] == "broken"


def name_of(value: object) -> str:
    return getattr(value, "__name__", str(value))


def work(world: World) -> None:
    """Three commits, of which the last is not pushed; then edits that are not committed."""
    world.cloud.write("sub/b.md", "b\n")
    world.cloud.write("pushed.md", "pushed\n")
    world.cloud.synced()
    world.cloud.write("unpushed.md", "unpushed\n")
    world.cloud.write("note.md", "one\nmine\nthree\nfour\nfive\n")
    commit_all(world.cloud.vault)
    world.cloud.write("Inbox/new.md", "not committed\n")


EXPECTED = {
    "sub/b.md": "b\n",
    "pushed.md": "pushed\n",
    "unpushed.md": "unpushed\n",
    "note.md": "one\nmine\nthree\nfour\nfive\n",
    "Inbox/new.md": "not committed\n",
}


def assert_all_there(world: World) -> None:
    files = world.converge()
    assert {path: files.get(path) for path in EXPECTED} == EXPECTED
    assert not [path for path in files if "conflict" in path]
    assert_mended(world.cloud)
    assert world.cloud.git("fsck", "--no-dangling", "--no-progress") == ""


def pack(side: Side) -> Path:
    side.git("repack", "-adq")
    (path,) = (side.vault / ".git" / "objects" / "pack").glob("*.pack")
    for file in path.parent.iterdir():
        file.chmod(0o644)
    return path


def commands(side: Side, other: str) -> list[tuple[list[str], bytes]]:
    """What a cycle asks of git."""
    commit = (
        b"commit refs/heads/x\ncommitter A <a@example.com> 1000000000 +0000\ndata 1\nx\nfrom refs/heads/main^0\n"
        b"M 100644 inline sub/new.md\ndata 2\nhi\n\n"
    )
    tracking = "+refs/heads/main:refs/remotes/origin/main"
    return [
        (["status", "--porcelain", "-z"], b""),
        (["update-index", "-z", "--add", "--remove", "--stdin"], b"Inbox/new.md\0"),
        (["fast-import", "--quiet"], commit),
        (["diff-tree", "-r", "-z", "HEAD~1", "HEAD"], b""),
        (["merge-base", "HEAD", "origin/main"], b""),
        (["fetch", "--quiet", "--no-tags", "origin", tracking], b""),
        (["merge", "--quiet", "--ff-only", other], b""),
        (["push", "--porcelain", "origin", "HEAD:refs/heads/other"], b""),
        (["rev-parse", "--verify", "HEAD^{commit}"], b""),
        (["cat-file", "blob", "HEAD:note.md"], b""),
        (["cat-file", "commit", "HEAD"], b""),
        (["ls-tree", "-r", "HEAD"], b""),
        (["read-tree", "HEAD"], b""),
        (["reset", "--quiet", "--mixed"], b""),
    ]


# What these say of a ref whose commit is lost is what they say of one that never was: mend looks at the tips itself.
OF_NO_COMMIT = ("needed a single revision", "not a valid object name head", "invalid ref name or sha1 expression",
                "not a valid commit name head", "not a valid commit name origin/main",
                "ambiguous argument", "src refspec head does not match any",
                "invalid object name 'head'", "invalid reference", "unknown revision",
                "not something we can merge", "exists on disk, but not in 'head'")  # fmt: skip
# And these do not fail by the damage.
HARMLESS = ("not possible to fast-forward", "would be overwritten by merge")


@pytest.mark.parametrize("what", ["HEAD:note.md", "HEAD:sub", "HEAD^{tree}", "HEAD", "HEAD~1", "HEAD~1^{tree}"])
@pytest.mark.parametrize("damage", DAMAGES, ids=name_of)
def test_git_says_that_an_object_is_damaged(world: World, what: str, damage: Damage) -> None:
    """The words by which the cycle knows it are this git's own, for each command that it uses."""
    work(world)
    push_as_person(world, {"other.md": "x\n"})
    other = world.local.git("rev-parse", "HEAD")
    damage(loose(world.cloud, what))
    said = []
    for command, stdin in commands(world.cloud, other):
        status, _, err = git_of(world.cloud).attempt(*command, stdin=stdin)
        expected = status in (0, 1) or any(words in err.lower() for words in (*OF_NO_COMMIT, *HARMLESS)) or not err
        assert _is_broken(err) or expected, (command, status, err)
        said.append(_is_broken(err))
    assert any(said) or what == "HEAD" or damage is Path.unlink


@pytest.mark.parametrize("suffix", [".pack", ".idx"])
@pytest.mark.parametrize("damage", DAMAGES, ids=name_of)
def test_git_says_that_a_pack_is_damaged(world: World, damage: Damage, suffix: str) -> None:
    work(world)
    damage(pack(world.cloud).with_suffix(suffix))
    status, _, err = git_of(world.cloud).attempt("status", "--porcelain")
    assert status != 0
    assert _is_broken(err), err


@pytest.mark.parametrize(
    "said",
    [
        "remote: fatal: bad object HEAD",
        "fatal: unable to access 'https://example.com/': Could not resolve host: example.com",
        "fatal: '/nowhere' does not appear to be a git repository",
        "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
        "fatal: Unable to create '/v/.git/index.lock': File exists.",
        " ! [rejected]        main -> main (fetch first)\nerror: failed to push some refs",
        "fatal: Not possible to fast-forward, aborting.",
        "error: Your local changes to the following files would be overwritten by merge:\n\tnote.md",
        "fatal: couldn't find remote ref refs/heads/main",
        'error: open("x.md"): Permission denied\nfatal: adding files failed',
        "fatal: write error: No space left on device",
    ],
)
def test_other_failures_are_no_damage(said: str) -> None:
    assert not _is_broken(said)


# -- the ladder --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["HEAD:note.md", "HEAD:unpushed.md", "HEAD^{tree}", "HEAD:Inbox/.gitkeep"])
@pytest.mark.parametrize("damage", DAMAGES, ids=name_of)
def test_what_the_files_on_disk_have_is_made_again(world: World, what: str, damage: Damage) -> None:
    """Offline, and without giving up a commit."""
    work(world)
    tip = world.cloud.git("rev-parse", "HEAD")
    damage(loose(world.cloud, what))
    world.remote.rename(world.root / "away")
    heal_of(world.cloud)
    assert_mended(world.cloud)
    assert world.cloud.git("rev-parse", "HEAD") == tip
    (world.root / "away").rename(world.remote)
    assert_all_there(world)


@pytest.mark.parametrize("what", ["HEAD~1", "HEAD~1^{tree}", "HEAD~1:note.md", "HEAD~2", "HEAD:sub"])
@pytest.mark.parametrize("damage", DAMAGES, ids=name_of)
def test_what_the_remote_has_is_fetched_again(world: World, what: str, damage: Damage) -> None:
    work(world)
    tip = world.cloud.git("rev-parse", "HEAD")
    world.cloud.write("sub/b.md", EXPECTED["sub/b.md"])
    damage(loose(world.cloud, what))
    heal_of(world.cloud)
    assert_mended(world.cloud)
    assert world.cloud.git("rev-parse", "HEAD") == tip
    assert_all_there(world)


@pytest.mark.parametrize("damage", DAMAGES, ids=name_of)
def test_lost_tip_goes_back_and_the_files_stay(world: World, damage: Damage) -> None:
    """The commit was nowhere else; what it held is on disk, and is committed again."""
    work(world)
    before = world.cloud.git("rev-parse", "HEAD~1")
    damage(loose(world.cloud, "HEAD"))
    heal_of(world.cloud)
    assert_mended(world.cloud)
    assert world.cloud.git("rev-parse", "HEAD") == before
    assert_all_there(world)


@pytest.mark.parametrize("damage", [empty, Path.unlink], ids=name_of)
def test_lost_blob_of_a_commit_that_is_nowhere_else(world: World, damage: Damage) -> None:
    """An older version that was never pushed: the newest commit without it, and what is on disk."""
    work(world)
    world.cloud.write("note.md", "one\nyet another\nthree\nfour\nfive\n")
    commit_all(world.cloud.vault)
    damage(loose(world.cloud, "HEAD~1:note.md"))
    world.cloud.write("note.md", EXPECTED["note.md"] + "more\n")
    heal_of(world.cloud)
    assert_mended(world.cloud)
    assert world.converge()["note.md"] == EXPECTED["note.md"] + "more\n"


@pytest.mark.parametrize("suffix", [".pack", ".idx"])
@pytest.mark.parametrize("damage", DAMAGES, ids=name_of)
def test_damaged_pack(world: World, damage: Damage, suffix: str) -> None:
    work(world)
    damage(pack(world.cloud).with_suffix(suffix))
    world.cloud.synced()
    assert_all_there(world)


def test_pack_with_one_bad_byte_gives_what_can_be_read(world: World) -> None:
    work(world)
    path = pack(world.cloud)
    content = bytearray(path.read_bytes())
    content[-30] ^= 0xFF
    path.write_bytes(content)
    assert heal_of(world.cloud)
    assert_all_there(world)
    assert (world.cloud.vault / ".git" / "cloud-agent-aside" / path.name).exists()


def lose_all_objects(world: World) -> None:
    shutil.rmtree(world.cloud.vault / ".git" / "objects")
    (world.cloud.vault / ".git" / "objects").mkdir()


@pytest.mark.parametrize("too", ["nothing else", "HEAD and the branch", "the reflogs"])
def test_all_objects_are_lost(world: World, too: str) -> None:
    """The branch is where the files were last level with the remote, and not at what it has received since."""
    work(world)
    lose_all_objects(world)
    folder = world.cloud.vault / ".git"
    if too != "nothing else":
        for name in ("HEAD", "refs/heads/main"):
            nuls(folder / name)
    if too == "the reflogs":
        shutil.rmtree(folder / "logs")
    push_as_person(world, {"sub/later.md": "later\n", "pushed.md": "pushed\nand more\n"})
    heal_of(world.cloud)
    assert_mended(world.cloud)
    files = world.converge()
    assert files["sub/later.md"] == "later\n"
    assert files["pushed.md"] == "pushed\nand more\n"
    assert files["Inbox/new.md"] == "not committed\n"
    if too != "the reflogs":
        assert files == {**files, **EXPECTED, "pushed.md": "pushed\nand more\n"}
        assert not [path for path in files if "conflict" in path]


def beyond_repair(world: World) -> None:
    """A file system check has put files where folders were."""
    for name in ("objects", "refs"):
        shutil.rmtree(world.cloud.vault / ".git" / name)
        (world.cloud.vault / ".git" / name).write_bytes(b"lost+found")


def test_fresh_repository_takes_over(world: World) -> None:
    work(world)
    folder = world.cloud.vault / ".git"
    (folder / "info" / "exclude").write_text("private/\n")
    world.cloud.write("private/diary.md", "not for the vault\n")
    world.cloud.git("config", "user.signature", "mine")
    synced = world.cloud.git("rev-parse", "HEAD~1")
    beyond_repair(world)
    push_as_person(world, {"sub/later.md": "later\n"})
    facts = heal_of(world.cloud)
    assert_mended(world.cloud)
    assert world.cloud.git("rev-parse", "HEAD") == synced
    assert world.cloud.git("config", "user.signature") == "mine"
    assert_all_there(world)
    assert world.remote_files()["sub/later.md"] == "later\n"
    assert "private/diary.md" not in world.remote_files()
    (kept,) = (world.cloud.state.folder / "kept").iterdir()
    assert (kept / "logs" / "HEAD").exists()
    assert any(str(kept) in fact for fact in facts)


def test_the_cycle_takes_over_too(world: World) -> None:
    work(world)
    beyond_repair(world)
    world.cloud.synced()
    assert_all_there(world)


def test_nothing_is_taken_over_while_offline(world: World) -> None:
    work(world)
    beyond_repair(world)
    world.remote.rename(world.root / "away")
    with pytest.raises(Broken):
        heal_of(world.cloud)
    (world.root / "away").rename(world.remote)
    world.cloud.synced()
    assert_all_there(world)


def test_former_repository_is_kept_on_another_file_system(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    work(world)
    beyond_repair(world)
    real = os.rename

    def across(source: str | Path, target: str | Path) -> None:
        if "git.old" in str(source):
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "rename", across)
    heal_of(world.cloud)
    assert_mended(world.cloud)
    (kept,) = (world.cloud.state.folder / "kept").iterdir()
    assert (kept / "HEAD").exists()
    assert_all_there(world)


def test_remote_made_anew_while_ours_is_lost(world: World) -> None:
    """Nothing has our history any more but the files: they are committed and pushed."""
    work(world)
    folder = world.cloud.vault / ".git"
    shutil.rmtree(folder / "objects")
    (folder / "objects").mkdir()
    shutil.rmtree(world.remote)
    git(world.root, "init", "-q", "--bare", "--initial-branch=main", str(world.remote))
    world.cloud.synced()
    files = world.remote_files()
    assert {path: files.get(path) for path in EXPECTED} == EXPECTED


# -- what is out of reach ----------------------------------------------------------------------------------------------


def test_offline_it_says_so_and_tries_again(world: World) -> None:
    work(world)
    tip = world.cloud.git("rev-parse", "HEAD")
    torn(loose(world.cloud, "HEAD~1"))
    world.remote.rename(world.root / "away")
    with pytest.raises(Broken, match="the remote, which may have it, cannot be had"):
        heal_of(world.cloud)
    (world.root / "away").rename(world.remote)
    heal_of(world.cloud)
    assert world.cloud.git("rev-parse", "HEAD") == tip
    assert_all_there(world)


def test_the_cycle_says_that_it_needs_the_remote(world: World) -> None:
    work(world)
    empty(loose(world.cloud, "HEAD"))
    world.remote.rename(world.root / "away")
    assert world.cloud.sync().result == "later"
    assert "broken" in world.cloud.state.alerts()["sync"]["message"]
    (world.root / "away").rename(world.remote)
    world.cloud.synced()
    assert_all_there(world)


def test_silent_remote_is_given_up(world: World) -> None:
    work(world)
    loose(world.cloud, "HEAD~1").unlink()
    world.cloud.set_remote(f"ext::{shutil.which('sleep')} 60")
    git_of(world.cloud)
    world.cloud.git("config", "protocol.ext.allow", "always")
    with pytest.raises(Broken, match=r"did not complete in|transport"):
        heal_of(world.cloud, deadline=0.5)


def test_sound_repository_is_left_alone(world: World) -> None:
    work(world)
    before = world.cloud.git("rev-parse", "HEAD")
    assert heal_of(world.cloud) == []
    assert world.cloud.git("rev-parse", "HEAD") == before


def test_nothing_is_healed_while_another_git_works(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heal, "git_at_work", lambda tree: 4711)
    with pytest.raises(heal.NotNow, match="4711"):
        heal_of(world.cloud)


def test_files_and_objects_of_one_power_loss(world: World) -> None:
    """What was checked out last and what was committed last are both torn."""
    push_as_person(world, {"received.md": "received\n"})
    world.cloud.synced()
    work(world)
    when = world.cloud.vault.joinpath("received.md").stat().st_mtime - 7200
    for name in ("received.md", "sub/b.md"):
        empty(world.cloud.vault / name)
        os.utime(world.cloud.vault / name, (when, when))
    objects = [loose(world.cloud, what) for what in ("HEAD", "HEAD:received.md", "HEAD:sub/b.md", "HEAD:sub")]
    for path in objects:
        empty(path)
    heal_of(world.cloud, boot=Boot("next", when + 3600))
    assert world.cloud.read("received.md") == "received\n"
    assert world.cloud.read("sub/b.md") == "b\n"
    assert world.converge()["received.md"] == "received\n"
    assert_all_there(world)


# -- killed ------------------------------------------------------------------------------------------------------------


def tip_is_lost(world: World) -> None:
    empty(loose(world.cloud, "HEAD"))


def history_is_damaged(world: World) -> None:
    torn(loose(world.cloud, "HEAD~1"))
    empty(loose(world.cloud, "HEAD:note.md"))


def pack_is_damaged(world: World) -> None:
    path = pack(world.cloud)
    content = bytearray(path.read_bytes())
    content[-30] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("state", [tip_is_lost, history_is_damaged, pack_is_damaged, lose_all_objects, beyond_repair])
def test_killed_between_any_two_steps(world: World, state: Callable[[World], None]) -> None:
    work(world)
    state(world)
    kills = 0
    for _ in each_kill(world, lambda: heal_of(world.cloud)):
        kills += 1
        heal_of(world.cloud)
        mend_of(world.cloud)
        assert_mended(world.cloud)
        if kills % 8 == 1:
            assert_all_there(world)
        for path in ("note.md", "Inbox/new.md", "unpushed.md"):
            assert world.cloud.read(path) == EXPECTED[path]
    assert kills > 3
