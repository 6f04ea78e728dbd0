"""Any state on disk becomes the one that the sync expects, and nothing is lost on the way."""

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cloud_agent import gitfiles, mend
from cloud_agent.git import Git, GitError
from cloud_agent.mend import JOIN, Boot, NotNow, clear_locks, shortened, sweep

from tests.gitkit import World, commit_all, git, push_as_person, tree
from tests.integration.mendkit import assert_mended, each_kill, empty, git_of, kept, mend_of, nuls

LONG_AGO = time.time() - 10 * 24 * 3600
BOOT = Boot("this-boot", time.time() - 3600)
BEFORE_THE_BOOT = BOOT.time - 600

Sleep = Callable[[float], object]


def make(path: Path, content: bytes = b"", when: float = LONG_AGO) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (when, when))
    return path


# -- locks -------------------------------------------------------------------------------------------------------------

LOCKS = ["index.lock", "HEAD.lock", "ORIG_HEAD.lock", "FETCH_HEAD.lock", "config.lock", "packed-refs.lock",
         "shallow.lock", "MERGE_HEAD.lock", "refs/heads/main.lock", "refs/remotes/origin/main.lock",
         "refs/cloud-agent/join/x.lock"]  # fmt: skip


@pytest.mark.parametrize("name", LOCKS)
def test_lock_that_nobody_holds_and_that_does_not_change_is_removed(world: World, name: str) -> None:
    make(world.cloud.vault / ".git" / name)
    facts = mend_of(world.cloud)
    assert facts == [f"{name} was left behind by a killed git: removed"]
    assert sum(world.cloud.slept) == mend.STALE_LOCK_SECONDS
    assert_mended(world.cloud)


def test_age_of_a_lock_is_not_believed(world: World) -> None:
    """A clock may jump: a lock of years ago that changes is held, one of the future that does not is not."""
    lock = make(world.cloud.vault / ".git" / "index.lock", when=0.0)
    looks = iter(range(100))

    def written_to(seconds: float) -> None:
        os.utime(lock, (next(looks), 0))
        lock.write_bytes(b"x" * next(looks))

    with pytest.raises(NotNow, match=r"index\.lock"):
        clear_locks(world.cloud.vault, written_to, None)
    assert lock.exists()
    os.utime(lock, (time.time() + 10**8, time.time() + 10**8))
    clear_locks(world.cloud.vault, world.cloud.slept.append, None)
    assert not lock.exists()


def test_lock_that_goes_while_it_is_looked_at_costs_a_moment(world: World) -> None:
    """A person's commit of this very second does not put the cycle off."""
    lock = make(world.cloud.vault / ".git" / "index.lock")
    slept = []

    def released(seconds: float) -> None:
        slept.append(seconds)
        lock.unlink()

    assert clear_locks(world.cloud.vault, released, None) == []
    assert sum(slept) < 1


def test_lock_taken_again_is_respected(world: World) -> None:
    """Another git takes the lock at the last look: it is that one's."""
    lock = make(world.cloud.vault / ".git" / "index.lock")
    slept = []

    def again(seconds: float) -> None:
        slept.append(seconds)
        if sum(slept) >= mend.STALE_LOCK_SECONDS:
            lock.rename(lock.with_name("old"))
            make(lock)

    with pytest.raises(NotNow):
        clear_locks(world.cloud.vault, again, None)
    assert lock.exists()


def test_lock_from_before_the_boot_is_removed_at_first_sight(world: World) -> None:
    lock = make(world.cloud.vault / ".git" / "index.lock", when=BEFORE_THE_BOOT)
    assert clear_locks(world.cloud.vault, world.cloud.slept.append, BOOT)
    assert not lock.exists()
    assert world.cloud.slept == []


def test_lock_that_somebody_has_open_is_respected(world: World) -> None:
    """No git of the tree, but an editor's own library: libgit2 keeps its lock open."""
    lock = make(world.cloud.vault / ".git" / "index.lock", when=BEFORE_THE_BOOT)
    with lock.open("ab"), pytest.raises(NotNow, match=str(os.getpid())):
        clear_locks(world.cloud.vault, world.cloud.slept.append, BOOT)
    assert lock.exists()


def test_ls_remote_beside_us_holds_no_lock(world: World) -> None:
    lock = make(world.cloud.vault / ".git" / "index.lock")
    listening = make(world.root / "ls-remote", b"#!/bin/sh\nexec sleep 60\n")
    listening.chmod(0o755)
    command = ["git", "ls-remote", f"--upload-pack={listening}", str(world.remote)]
    with subprocess.Popen(command, cwd=world.cloud.vault, stdout=subprocess.PIPE) as asking:
        while not Path(f"/proc/{asking.pid}/comm").read_text().startswith("git"):
            time.sleep(0.01)
        clear_locks(world.cloud.vault, world.cloud.slept.append, None)
        assert not lock.exists()
        asking.terminate()


def test_without_proc_a_lock_is_judged_by_its_not_changing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS: who holds it is not known."""
    monkeypatch.setattr(mend, "_processes", lambda: iter(()))
    lock = make(world.cloud.vault / ".git" / "index.lock")
    clear_locks(world.cloud.vault, world.cloud.slept.append, None)
    assert not lock.exists()


def test_stop_ends_the_wait(world: World) -> None:
    lock = make(world.cloud.vault / ".git" / "index.lock")
    with pytest.raises(NotNow, match="stopped"):
        clear_locks(world.cloud.vault, lambda seconds: True, None)
    assert lock.exists()


def test_lock_of_housekeeping_stops_nothing(world: World) -> None:
    folder = world.cloud.vault / ".git"
    locks = [make(folder / name) for name in ("gc.pid", "gc.pid.lock", "objects/maintenance.lock",
                                              "objects/info/commit-graph.lock", "next-index-12.lock")]  # fmt: skip
    assert mend_of(world.cloud) == []
    assert all(lock.exists() for lock in locks)
    sweep(world.cloud.config, time.time())
    assert not any(lock.exists() for lock in locks)


# -- half done ---------------------------------------------------------------------------------------------------------


def clash(world: World) -> str:
    """Both have changed the same line of note.md, and a file of their own each; returns Local's commit."""
    world.cloud.write("note.md", "one\ncloud\nthree\nfour\nfive\n")
    world.cloud.write("cloud.md", "cloud's\n")
    commit_all(world.cloud.vault)
    world.cloud.git("push", "-q", "origin", "HEAD:main")
    world.local.write("note.md", "one\nlocal\nthree\nfour\nfive\n")
    world.local.write("local.md", "local's\n")
    ours = commit_all(world.local.vault)
    world.local.git("fetch", "-q", "origin")
    return ours


@pytest.mark.parametrize(
    "command",
    [
        ["merge", "origin/main"],
        ["rebase", "origin/main"],
        ["rebase", "--apply", "origin/main"],
        ["rebase", "--exec", "false", "HEAD~1"],
        ["cherry-pick", "origin/main"],
        ["revert", "HEAD", "--no-commit"],
        ["bisect", "start", "HEAD", "HEAD~1"],
    ],
    ids=" ".join,
)
def test_half_done_ends_with_every_commit_kept(world: World, command: list[str]) -> None:
    ours = clash(world)
    theirs = world.local.git("rev-parse", "origin/main")
    world.local.git(*command, check=False)
    world.local.write("Inbox/since.md", "written since\n")
    assert mend_of(world.local)
    assert_mended(world.local)
    assert ours in kept(world.local)
    if command[0] in ("merge", "rebase"):
        assert theirs in kept(world.local) | {world.local.git("rev-parse", "origin/main")}
    assert world.local.read("Inbox/since.md") == "written since\n"
    assert mend_of(world.local) == []
    files = world.converge()
    assert ("local.md" in files) == (command[0] != "revert")  # which takes it back
    assert files["cloud.md"] == "cloud's\n"


@pytest.mark.parametrize(
    "command", [["rebase", "--autostash"], ["rebase", "--apply", "--autostash"], ["merge", "--autostash"]], ids=" ".join
)
def test_what_was_put_away_as_an_automatic_stash_comes_back(world: World, command: list[str]) -> None:
    clash(world)
    world.local.write("Company_Handbook.md", "# Handbook\n\nBe kind. Not committed.\n")
    world.local.git(*command, "origin/main", check=False)
    assert "Not committed" not in world.local.read("Company_Handbook.md")
    files = world.converge()
    assert "Not committed" in files["Company_Handbook.md"]
    assert not world.local.git("log", "--format=%s", "--grep", "^WIP on|^index on", "-E")


def test_automatic_stash_passes_the_guards(world: World) -> None:
    """A stash is nobody's commit: what the guards hold back is put aside, not joined."""
    clash(world)
    world.local.write("Company_Handbook.md", "a secret\n")
    world.local.write("Dashboard.md", "# Dashboard\n\nFine.\n\n## Updates\n\n- old\n")
    world.local.git("rebase", "--autostash", "origin/main", check=False)
    facts = mend_of(world.local, check=lambda path, content: "no secrets" if b"secret" in content else None)
    joined = world.local.git("for-each-ref", "--format=%(refname)", JOIN[:-1]).split()
    changed = {path for ref in joined for path in world.local.git("diff", "--name-only", f"{ref}~1", ref).split()}
    assert "Dashboard.md" in changed
    assert "Company_Handbook.md" not in changed
    assert any("Company_Handbook.md" in fact and "no secrets" in fact for fact in facts)
    aside = world.local.vault / ".git" / "cloud-agent-aside"
    assert any(path.read_bytes() == b"a secret\n" for path in aside.iterdir() if path.is_file())


def test_patches_of_a_git_am_are_put_aside(world: World) -> None:
    world.local.write("new.md", "x\n")
    commit_all(world.local.vault)
    world.local.write("note.md", "patched\n")
    commit_all(world.local.vault)
    patch = world.local.git("format-patch", "--stdout", "HEAD~1")
    world.local.git("reset", "-q", "--hard", "HEAD~1")
    world.local.write("note.md", "another\n")
    commit_all(world.local.vault)
    make(world.root / "mail", patch.encode() + b"\n")
    world.local.git("am", str(world.root / "mail"), check=False)
    assert (world.local.vault / ".git" / "rebase-apply").exists()
    mend_of(world.local)
    assert_mended(world.local)
    assert b"patched" in (world.local.vault / ".git" / "cloud-agent-aside" / "rebase-apply" / "0001").read_bytes()


def test_settled_merge_takes_nothing_from_the_index_that_the_guards_have_not_seen(world: World) -> None:
    """What a person staged while merging is committed by the next step, which looks at it, and not by the merge."""
    clash(world)
    world.local.git("merge", "origin/main", check=False)
    world.local.write("note.md", "one\nsettled\nthree\nfour\nfive\n")
    world.local.write("staged.md", "staged\n")
    world.local.git("add", "-A")
    mend_of(world.local)
    assert_mended(world.local)
    assert len(world.local.git("rev-list", "--parents", "-1", "HEAD").split()) == 3
    files = tree(world.local.vault)
    assert "staged.md" not in files
    assert "settled" not in files["note.md"]
    assert files["cloud.md"] == "cloud's\n"
    files = world.converge()
    assert files["note.md"] == "one\nsettled\nthree\nfour\nfive\n"
    assert files["staged.md"] == "staged\n"
    assert not [path for path in files if "conflict" in path]


def test_settled_merge_keeps_what_one_side_deleted_deleted(world: World) -> None:
    world.local.write("old.md", "x\n")
    world.converge()
    clash(world)
    push_from_cloud(world, delete="old.md")
    world.local.git("fetch", "-q", "origin")
    world.local.git("merge", "origin/main", check=False)
    world.local.write("note.md", "settled\n")
    mend_of(world.local)
    assert "old.md" not in tree(world.local.vault)


def push_from_cloud(world: World, delete: str) -> None:
    world.cloud.git("rm", "-q", delete)
    commit_all(world.cloud.vault)
    world.cloud.git("push", "-q", "origin", "HEAD:main")


def test_unmerged_files_of_a_stash_stay_as_they_are(world: World) -> None:
    """No merge, so no other commit: the text with the markers is all there is. It is held back, and told."""
    world.local.write("note.md", "stashed\n")
    world.local.git("stash", "-q")
    world.local.write("note.md", "committed\n")
    commit_all(world.local.vault)
    world.local.git("stash", "pop", check=False)
    world.local.write("other.md", "x\n")
    text = world.local.read("note.md")
    assert "<<<<<<<" in text
    world.local.synced()
    assert_mended(world.local)
    assert world.local.read("note.md") == text
    assert world.remote_files()["note.md"] == "committed\n"
    assert world.remote_files()["other.md"] == "x\n"


# -- where HEAD is -----------------------------------------------------------------------------------------------------


def test_former_tip_is_kept_and_the_branch_is_what_is_on_disk(world: World) -> None:
    world.cloud.write("main.md", "not pushed\n")
    ours = commit_all(world.cloud.vault)
    world.cloud.git("checkout", "-q", "--detach", "HEAD~1")
    world.cloud.write("there.md", "x\n")
    there = commit_all(world.cloud.vault)
    world.cloud.write("note.md", "an edit\n")
    mend_of(world.cloud)
    assert_mended(world.cloud)
    assert world.cloud.git("rev-parse", "main") == there
    assert world.cloud.git("for-each-ref", "--format=%(refname)", JOIN[:-1]) == JOIN + ours
    assert world.cloud.git("status", "--porcelain") == "M note.md".rjust(10)


def test_a_look_at_an_old_commit_loses_nothing(world: World) -> None:
    """Detached at an ancestor: the way back is a fast-forward."""
    push_as_person(world, {"later.md": "x\n"})
    world.cloud.synced()
    world.cloud.git("checkout", "-q", "HEAD~1")
    world.cloud.write("note.md", "edited there\n")
    files = world.converge()
    assert files["later.md"] == "x\n"
    assert files["note.md"] == "edited there\n"


def test_orphan_branch_deletes_nothing(world: World) -> None:
    """Who starts an orphan branch and empties it has not deleted our files."""
    world.cloud.git("checkout", "-q", "--orphan", "new")
    world.cloud.git("rm", "-q", "-r", "-f", ".")
    world.cloud.write("Inbox/a.md", "x\n")
    files = world.converge()
    assert {"note.md", "Inbox/a.md"} <= set(files)


def test_unborn_head_with_our_branch_there(world: World) -> None:
    """A HEAD on master, where the branch is main."""
    world.cloud.git("symbolic-ref", "HEAD", "refs/heads/master")
    world.cloud.write("note.md", "edited\n")
    assert world.converge()["note.md"] == "edited\n"
    assert_mended(world.cloud)


GARBAGE = {"empty": b"", "NULs": bytes(41), "garbage": b"\x00\xffnonsense\n"}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("where", ["main", "another branch", "detached"])
def test_head_that_a_power_loss_tore(world: World, content: bytes, where: str) -> None:
    """HEAD is again where it was: else the files of another branch would be taken for edits of ours."""
    world.cloud.write("main.md", "on main\n")
    commit_all(world.cloud.vault)
    if where != "main":
        world.cloud.git("checkout", "-q", *(["-b", "idea"] if where == "another branch" else ["--detach"]), "HEAD~1")
        world.cloud.write("idea.md", "x\n")
        commit_all(world.cloud.vault)
    (world.cloud.vault / ".git" / "HEAD").write_bytes(content)
    world.cloud.write("Inbox/a.md", "x\n")
    world.cloud.synced()
    assert_mended(world.cloud)
    files = world.remote_files()
    assert {"main.md", "Inbox/a.md"} <= set(files)
    assert ("idea.md" in files) == (where != "main")


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("name", ["refs/heads/main", "refs/remotes/origin/main", "refs/heads/idea", "refs/tags/v1"])
def test_ref_that_a_power_loss_tore(world: World, name: str, content: bytes) -> None:
    world.cloud.git("branch", "idea")
    world.cloud.git("tag", "v1")
    world.cloud.write("a.md", "committed, not pushed\n")
    tip = commit_all(world.cloud.vault)
    (world.cloud.vault / ".git" / name).write_bytes(content)
    mend_of(world.cloud)
    assert_mended(world.cloud)
    assert world.cloud.git("rev-parse", "HEAD") == tip
    if "tags" not in name:
        assert world.cloud.git("rev-parse", name)
    assert "a.md" in world.converge()


def test_branch_without_reflog_is_what_the_index_was_made_from(world: World) -> None:
    folder = world.cloud.vault / ".git"
    shutil.rmtree(folder / "logs")
    empty(folder / "refs" / "heads" / "main")
    world.cloud.write("note.md", "edited\n")
    mend_of(world.cloud)
    assert world.cloud.git("rev-parse", "main") == world.cloud.git("rev-parse", "origin/main")
    assert world.converge()["note.md"] == "edited\n"


def test_branch_without_reflog_is_not_taken_for_a_newer_one(world: World) -> None:
    """obsidian-git#593: a ref that is ahead of the files shows what was received as deleted."""
    push_as_person(world, {"note.md": "newer\n", "later.md": "x\n"})
    world.cloud.git("fetch", "-q", "origin")
    folder = world.cloud.vault / ".git"
    shutil.rmtree(folder / "logs")
    empty(folder / "refs" / "heads" / "main")
    files = world.converge()
    assert files["later.md"] == "x\n"
    assert files["note.md"] == "newer\n"


def test_packed_refs_that_a_power_loss_tore(world: World) -> None:
    world.cloud.write("a.md", "x\n")
    tip = commit_all(world.cloud.vault)
    world.cloud.git("pack-refs", "--all")
    nuls(world.cloud.vault / ".git" / "packed-refs")
    mend_of(world.cloud)
    assert_mended(world.cloud)
    assert world.cloud.git("rev-parse", "HEAD") == tip


@pytest.mark.parametrize("content", [b"", bytes(60), b"[core\n"], ids=["empty", "NULs", "garbage"])
def test_config_that_a_power_loss_tore(world: World, content: bytes) -> None:
    (world.cloud.vault / ".git" / "config").write_bytes(content)
    world.cloud.write("a.md", "x\n")
    world.cloud.synced()
    assert_mended(world.cloud)
    assert "a.md" in world.remote_files()


def test_all_at_once(world: World) -> None:
    """A power loss takes everything that was just written."""
    world.cloud.write("a.md", "x\n")
    tip = commit_all(world.cloud.vault)
    for name in ("HEAD", "config", "index", "refs/heads/main", "refs/remotes/origin/main", "packed-refs"):
        make(world.cloud.vault / ".git" / name, bytes(40))
    mend_of(world.cloud)
    assert_mended(world.cloud)
    assert world.cloud.git("rev-parse", "HEAD") == tip
    assert "a.md" in world.converge()


def test_config_with_a_second_remote_url(world: World) -> None:
    """git push would go to both."""
    world.cloud.git("config", "--replace-all", "remote.origin.url", "/elsewhere")
    world.cloud.git("config", "--add", "remote.origin.url", world.cloud.remote)
    world.cloud.git("config", "remote.origin.pushurl", "/elsewhere")
    mend_of(world.cloud)
    assert world.cloud.git("config", "--get-all", "remote.origin.url") == world.cloud.remote
    assert_mended(world.cloud)


# -- index -------------------------------------------------------------------------------------------------------------


def test_index_with_a_page_of_nuls(world: World) -> None:
    """git itself does not see it, and reads nonsense."""
    for number in range(200):
        world.cloud.write(f"many/{number}.md", f"{number}\n")
    commit_all(world.cloud.vault)
    index = world.cloud.vault / ".git" / "index"
    content = index.read_bytes()
    index.write_bytes(content[:4096] + bytes(4096) + content[8192:])
    mend_of(world.cloud)
    assert world.cloud.git("status", "--porcelain") == ""


def test_split_index_without_its_base(world: World) -> None:
    world.cloud.git("config", "core.splitIndex", "true")
    world.cloud.git("update-index", "--split-index")
    shared = list((world.cloud.vault / ".git").glob("sharedindex.*"))
    assert shared
    assert mend_of(world.cloud) == []
    for path in shared:
        path.unlink()
    mend_of(world.cloud)
    assert world.cloud.git("status", "--porcelain") == ""


def test_index_without_a_checksum_is_sound(world: World) -> None:
    """index.skipHash, of git 2.40."""
    content = (world.cloud.vault / ".git" / "index").read_bytes()
    assert gitfiles.index_is_sound(content)
    assert gitfiles.index_is_sound(content[:-20] + bytes(20))
    assert not gitfiles.index_is_sound(content[:-1])


# -- what a power loss tore --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tear", [empty, nuls])
def test_file_that_a_power_loss_tore_is_restored(world: World, tear: Callable[[Path], None]) -> None:
    before = world.cloud.read("note.md")
    note = world.cloud.vault / "note.md"
    status = note.stat()
    tear(note)
    when = min(status.st_mtime, BEFORE_THE_BOOT)
    os.utime(note, (when, when))
    facts = mend_of(world.cloud, boot=BOOT)
    assert world.cloud.read("note.md") == before
    assert any("note.md" in fact and "power loss" in fact for fact in facts)
    assert world.cloud.git("status", "--porcelain") == ""
    assert note.stat().st_mode == status.st_mode


def test_file_that_a_person_emptied_stays_empty(world: World) -> None:
    mend_of(world.cloud, boot=BOOT)
    empty(world.cloud.vault / "note.md")
    assert mend_of(world.cloud, boot=BOOT) == []
    assert world.cloud.read("note.md") == ""
    # In a boot that is known, nothing is looked for again; nor where the boot is not known.
    os.utime(world.cloud.vault / "note.md", (BEFORE_THE_BOOT, BEFORE_THE_BOOT))
    assert mend_of(world.cloud, boot=BOOT) == []
    assert mend_of(world.cloud, boot=None) == []
    assert world.cloud.read("note.md") == ""


def test_file_that_is_meant_to_be_empty_or_binary_stays(world: World) -> None:
    world.cloud.write("zeros.md", bytes(100))
    world.cloud.write("some.md", bytes(100) + b"text\n")
    commit_all(world.cloud.vault)
    for path in world.cloud.vault.rglob("*.*"):
        if path.is_file() and ".git/" not in str(path):
            os.utime(path, (BEFORE_THE_BOOT, BEFORE_THE_BOOT))
    world.cloud.write("note.md", "an edit\n")
    assert mend_of(world.cloud, boot=BOOT) == []
    assert (world.cloud.vault / "zeros.md").read_bytes() == bytes(100)


# -- sweep -------------------------------------------------------------------------------------------------------------


def test_sweep(world: World) -> None:
    vault = world.cloud.vault
    now = time.time()
    old = [make(vault / name) for name in (
        ".cloud-agent-1.tmp", "Inbox/.cloud-agent-2.tmp", "Logs/Cloud/.cloud-agent-3.tmp", ".git/fast_import_crash_7",
        "In_Progress/cloud/.cloud-agent-4.tmp", ".git/objects/pack/tmp_pack_abc", ".git/objects/pack/tmp_idx_abc",
    )]  # fmt: skip
    young = [make(vault / name, when=now - 60) for name in ("Inbox/.cloud-agent-5.tmp", ".git/objects/pack/tmp_pack_x")]
    strange = make(vault / "notes/tmp_mine.md")
    assert len(sweep(world.cloud.config, now)) == 1
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in (*young, strange))
    assert sweep(world.cloud.config, now) == []


# -- the remote --------------------------------------------------------------------------------------------------------


def remake_remote(world: World) -> None:
    shutil.rmtree(world.remote)
    git(world.root, "init", "-q", "--bare", "--initial-branch=main", str(world.remote))


def test_remote_that_was_force_pushed(world: World) -> None:
    push_as_person(world, {"mine.md": "x\n"})
    world.cloud.synced()
    world.local.git("reset", "-q", "--hard", "HEAD~1")
    world.local.write("instead.md", "x\n")
    commit_all(world.local.vault)
    world.local.git("push", "-q", "--force", "origin", "HEAD:main")
    world.cloud.write("new.md", "x\n")
    assert {"mine.md", "instead.md", "new.md"} <= set(world.converge())


def test_remote_that_was_made_anew_empty(world: World) -> None:
    before = world.remote_files()
    remake_remote(world)
    world.cloud.write("new.md", "x\n")
    assert world.converge() == {**before, "new.md": "x\n"}


def test_remote_that_was_made_anew_with_other_content(world: World) -> None:
    remake_remote(world)
    other = world.root / "other"
    git(world.root, "clone", "-q", str(world.remote), str(other))
    (other / "other.md").write_text("other\n")
    commit_all(other)
    git(other, "push", "-q", "origin", "HEAD:main")
    world.cloud.write("new.md", "x\n")
    assert {"note.md", "other.md", "new.md"} <= set(world.converge())


def shorten(world: World, revision: str = "HEAD") -> str:
    """The documented way: one commit with the tree of `revision`, and the later ones on top."""
    return world.local.git("commit-tree", f"{revision}^{{tree}}", "-m", "History starts here")


def test_shortened_history_is_known_by_its_roots_tree(world: World) -> None:
    for number in range(3):
        world.local.write("note.md", f"{number}\n")
        commit_all(world.local.vault)
    ours = git_of(world.local)
    theirs = shorten(world)
    assert shortened(ours, "HEAD", theirs) == world.local.git("rev-parse", "HEAD")
    theirs = shorten(world, "HEAD~1")
    later = world.local.git("commit-tree", "HEAD^{tree}", "-p", theirs, "-m", "later")
    assert shortened(ours, "HEAD", later) == world.local.git("rev-parse", "HEAD~1")


def test_newest_commit_with_the_tree_is_the_base(world: World) -> None:
    old = world.local.git("rev-parse", "HEAD")
    world.local.write("note.md", "x\n")
    commit_all(world.local.vault)
    world.local.git("revert", "--no-edit", "HEAD")
    again = world.local.git("rev-parse", "HEAD")
    assert world.local.git("rev-parse", f"{old}^{{tree}}") == world.local.git("rev-parse", f"{again}^{{tree}}")
    assert shortened(git_of(world.local), "HEAD", shorten(world)) == again


def test_other_history_is_not_shortened(world: World) -> None:
    empty_tree = git(world.local.vault, "hash-object", "-t", "tree", "-w", "/dev/null")
    blank = world.local.git("commit-tree", empty_tree, "-m", "blank")
    assert shortened(git_of(world.local), blank, blank) is None  # every new repository may start so
    world.local.write("other.md", "x\n")
    world.local.git("add", "-A")
    other = world.local.git("commit-tree", world.local.git("write-tree"), "-m", "other")
    assert shortened(git_of(world.local), "HEAD", other) is None


# -- killed between any two steps --------------------------------------------------------------------------------------


def in_a_merge(world: World) -> None:
    clash(world)
    world.local.git("merge", "origin/main", check=False)


def in_a_settled_merge(world: World) -> None:
    in_a_merge(world)
    world.local.write("note.md", "one\nsettled: cloud and local\nthree\nfour\nfive\n")


def in_a_rebase(world: World) -> None:
    clash(world)
    world.local.write("Company_Handbook.md", "put away\n")
    world.local.git("rebase", "--autostash", "origin/main", check=False)


def on_another_branch(world: World) -> None:
    clash(world)
    world.local.git("checkout", "-q", "-b", "idea", "HEAD~1")
    world.local.write("idea.md", "x\n")
    commit_all(world.local.vault)


def on_an_orphan_branch(world: World) -> None:
    clash(world)
    world.local.git("checkout", "-q", "--orphan", "new")
    world.local.git("rm", "-q", "-r", "-f", ".")


def after_a_power_loss(world: World) -> None:
    clash(world)
    for name in ("HEAD", "config", "index", "refs/heads/main", "refs/remotes/origin/main"):
        make(world.local.vault / ".git" / name, bytes(40))


def in_a_killed_clone(world: World) -> None:
    clash(world)
    (world.local.vault / ".git" / "index").unlink()
    for name in ("note.md", "local.md", "Dashboard.md"):
        (world.local.vault / name).unlink()


STATES = [in_a_merge, in_a_settled_merge, in_a_rebase, on_another_branch, on_an_orphan_branch, after_a_power_loss,
          in_a_killed_clone]  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_killed_between_any_two_steps(world: World, state: Callable[[World], None]) -> None:
    """Mended once more, everything is there: each side's commits, and what was written since."""
    state(world)
    world.local.write("Inbox/since.md", "written since\n")
    before = {
        commit
        for name in ("main", "HEAD", "ORIG_HEAD", "idea", "origin/main")
        for commit in world.local.git("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}", check=False).split()
    }
    kills = 0
    for _ in each_kill(world, lambda: mend_of(world.local, boot=None)):
        kills += 1
        mend_of(world.local)
        assert_mended(world.local)
        assert before <= kept(world.local) | set(world.local.git("rev-list", "origin/main").split())
        assert world.local.read("Inbox/since.md") == "written since\n"
        if kills % 4 != 1 and state is not in_a_settled_merge:
            continue
        files = world.converge()
        assert files["Inbox/since.md"] == "written since\n"
        assert files["local.md"] == "local's\n"
        assert files["cloud.md"] == "cloud's\n"
        assert "Dashboard.md" in files
        text = "\n".join(files.values())
        assert "cloud" in text
        assert "local\n" in text
        if state is in_a_rebase:
            assert files["Company_Handbook.md"] == "put away\n"
        if state is in_a_settled_merge:
            assert not [path for path in files if "conflict" in path]
    assert kills > 2


# -- what it costs, and says -------------------------------------------------------------------------------------------


def test_healthy_repository_costs_few_processes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mend_of(world.cloud, boot=BOOT)
    commands = []
    real = Git.attempt_bytes

    def counting(self: Git, *arguments: str, **options: object) -> tuple[int, bytes, str]:
        commands.append(arguments)
        return real(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Git, "attempt_bytes", counting)
    assert mend_of(world.cloud, boot=BOOT) == []
    assert len(commands) <= 3, commands


def test_each_repair_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.cloud.git("checkout", "-q", "--detach")
    with caplog.at_level(logging.WARNING):
        facts = mend_of(world.cloud)
    assert [record.message for record in caplog.records] == facts
    assert facts == ["HEAD was not on main: what was committed there is joined into it"]


@pytest.mark.parametrize("name", ["HEAD", "origin/main"])
def test_lost_tip_is_no_absent_ref(world: World, name: str) -> None:
    """rev-parse answers alike for both; a lost tip is not to be committed over."""
    push_as_person(world, {"other.md": "x\n"})
    world.cloud.git("fetch", "-q", "origin")
    oid = world.cloud.git("rev-parse", name)
    (world.cloud.vault / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(GitError) as raised:
        mend_of(world.cloud)
    assert raised.value.kind == "broken"
