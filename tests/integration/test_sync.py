"""The sync step on two real clones and a real bare remote."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cloud_agent import dashboard, mend, sync
from cloud_agent.git import Running
from cloud_agent.sync import Syncer
from cloud_agent.vault import lock

from tests.gitkit import API_KEY, NOW, PLAIN, Side, World, commit_all, git, push_as_person, write

OLD = time.time() - 3600
KEY = "sk-ant-" + "api03-" + "x" * 40


def level(side: Side) -> bool:
    return side.git("rev-parse", "HEAD") == side.git("rev-parse", "origin/main") == git(
        Path(side.remote), "rev-parse", "main"
    )  # fmt: skip


def old_file(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (OLD, OLD))


# -- commit, join, push ------------------------------------------------------------------------------------------------


def test_one_file_created(world: World) -> None:
    """Acceptance test 2."""
    world.cloud.write("Inbox/test.md", "hello\n")
    outcome = world.cloud.synced()
    assert (outcome.commits, outcome.pushed, outcome.received) == (1, True, False)
    assert world.cloud.git("log", "-1", "--format=%an|%cn|%s") == "Cloud Agent|Cloud Agent|Cloud: 1 file updated"
    assert level(world.cloud)


def test_nothing_new_makes_no_commit(world: World) -> None:
    before = world.cloud.git("rev-parse", "HEAD")
    outcome = world.cloud.synced()
    assert (outcome.commits, outcome.pushed, outcome.received) == (0, False, False)
    assert world.cloud.git("rev-parse", "HEAD") == before


def test_commits_are_batched_and_say_what_they_hold(world: World) -> None:
    for number in range(3):
        world.cloud.write(f"Pending_Approval/Email/EMAIL_DRAFT_{number}.md", f"draft {number}\n")
    world.cloud.write("Pending_Approval/LinkedIn/post.md", "a post\n")
    world.cloud.write("Dashboard.md", world.cloud.read("Dashboard.md") + "- new\n")
    assert world.cloud.synced().commits == 1
    assert world.cloud.subject() == "Cloud: 3 email drafts, 1 LinkedIn post"


def test_drafted_mail_says_email_draft(world: World) -> None:
    """Acceptance test 4: the mail moves and the draft quotes it, which git takes for a rename."""
    mail = "---\nemail_id: 1\n---\n" + "A line of the mail.\n" * 20
    world.cloud.write("Inbox/EMAIL_1.md", mail)
    world.cloud.synced()
    (world.cloud.vault / "Inbox/EMAIL_1.md").unlink()
    world.cloud.write("In_Progress/cloud/EMAIL_1.md", mail)
    world.cloud.write("Pending_Approval/Email/EMAIL_DRAFT_1.md", "Dear\n" + mail)
    world.cloud.synced()
    assert world.cloud.subject() == "Cloud: 1 email draft"


def test_received(world: World) -> None:
    push_as_person(world, {"Approved/Email/a.md": "yes\n", "note.md": None})
    assert world.cloud.synced().received
    assert world.cloud.read("Approved/Email/a.md") == "yes\n"
    assert not (world.cloud.vault / "note.md").exists()


def test_both_sides_changed(world: World) -> None:
    push_as_person(world, {"note.md": "ONE\ntwo\nthree\nfour\nfive\n"})
    world.cloud.write("note.md", "one\ntwo\nthree\nfour\nFIVE\n")
    outcome = world.cloud.synced()
    assert (outcome.commits, outcome.received, outcome.pushed) == (1, True, True)
    assert world.converge()["note.md"] == "ONE\ntwo\nthree\nfour\nFIVE\n"
    assert world.cloud.git("log", "--merges", "--format=%s%n%an") == "Cloud: merge\nCloud Agent"


def test_clash_goes_on(world: World) -> None:
    push_as_person(world, {"note.md": "theirs\n"})
    world.cloud.write("note.md", "ours\n")
    files = world.converge()
    assert files["note.md"] == "theirs\n"
    assert [text for path, text in files.items() if ".conflict-cloud-" in path] == ["ours\n"]


def test_both_edit_the_dashboard(world: World) -> None:
    push_as_person(world, {"Dashboard.md": "# Dashboard\n\nEdited by me.\n\n## Updates\n\n- old\n"})
    world.cloud.write("Dashboard.md", dashboard.add_entries(world.cloud.read("Dashboard.md"), ["new"]))
    files = world.converge()
    assert files["Dashboard.md"] == "# Dashboard\n\nEdited by me.\n\n## Updates\n\n- new\n- old\n"
    assert not [path for path in files if "conflict" in path]


def test_approval_and_new_drafts_meet(world: World) -> None:
    world.cloud.write("Pending_Approval/Email/EMAIL_DRAFT_1.md", "draft\n")
    world.converge()
    push_as_person(
        world, {"Pending_Approval/Email/EMAIL_DRAFT_1.md": None, "Approved/Email/EMAIL_DRAFT_1.md": "draft\n"}
    )
    world.cloud.write("Pending_Approval/Email/EMAIL_DRAFT_2.md", "another\n")
    files = world.converge()
    assert {path for path in files if "DRAFT" in path} == {
        "Approved/Email/EMAIL_DRAFT_1.md",
        "Pending_Approval/Email/EMAIL_DRAFT_2.md",
    }


def test_many_commits_behind(world: World) -> None:
    """git-sync-js took exactly ten for none."""
    for number in range(10):
        push_as_person(world, {"note.md": f"{number}\n"})
    world.cloud.synced()
    assert world.cloud.read("note.md") == "9\n"


def test_odd_names(world: World) -> None:
    names = [
        "-dash.md",
        "a\nb.md",
        "q\"uo'te.md",
        "st*r?[x].md",
        ":(top)x.md",
        "naïve ü.md",
        "caf\udce9.md",
        " lead.md",
    ]
    for name in names:
        world.cloud.write(name, "x\n")
    world.cloud.synced()
    assert set(names) <= set(world.remote_files())
    assert world.cloud.subject() == "Cloud: 8 files updated"


def test_moved_folder_becomes_a_file_and_back(world: World) -> None:
    world.cloud.write("thing.md", "a file\n")
    world.cloud.synced()
    (world.cloud.vault / "thing.md").unlink()
    world.cloud.write("thing.md/inside.md", "a folder\n")
    assert world.cloud.synced().held == {}
    assert "thing.md/inside.md" in world.remote_files()
    (world.cloud.vault / "thing.md/inside.md").unlink()
    (world.cloud.vault / "thing.md").rmdir()
    world.cloud.write("thing.md", "a file\n")
    world.cloud.synced()
    assert world.remote_files()["thing.md"] == "a file\n"


# -- the network -------------------------------------------------------------------------------------------------------


def advance_before_push(world: World, monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Local pushes between Cloud's fetch and push, so many times."""
    original = sync.Git.start
    count: list[int] = []

    def start(self: sync.Git, *arguments: str, **more: Any) -> Running:
        if arguments[0] == "push" and len(count) < times:
            count.append(1)
            push_as_person(world, {f"person-{len(count)}.md": "x\n"})
        return original(self, *arguments, **more)

    monkeypatch.setattr(sync.Git, "start", start)
    return count


def test_rejected_push_is_joined_in_the_same_cycle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    advance_before_push(world, monkeypatch, 1)
    world.cloud.write("Inbox/a.md", "a\n")
    assert world.cloud.synced().pushed
    assert {"Inbox/a.md", "person-1.md"} <= set(world.remote_files())
    assert world.cloud.slept == []  # somebody was faster: no reason to wait


def test_push_that_always_loses_is_tried_three_times(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    count = advance_before_push(world, monkeypatch, 99)
    world.cloud.write("Inbox/a.md", "a\n")
    assert world.cloud.sync().result == "later"
    assert len(count) == 3
    monkeypatch.undo()
    world.cloud.synced()
    assert "Inbox/a.md" in world.remote_files()


def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_offline_backs_off_and_pushes_later(world: World) -> None:
    cloud = world.cloud
    cloud.set_remote(f"git://127.0.0.1:{refused_port()}/vault.git")
    cloud.write("Inbox/a.md", "a\n")
    outcome = cloud.sync()
    assert outcome.result == "later"
    assert "cannot be reached" in outcome.message
    assert cloud.slept == [1.0, 2.0]
    assert cloud.subject() == "Cloud: 1 file updated"  # committed all the same
    assert "offline" in cloud.state.alerts()["sync"]["message"]
    cloud.set_remote(str(world.remote))
    assert cloud.synced().pushed
    assert "Inbox/a.md" in world.remote_files()
    assert cloud.state.alerts() == {}


def test_offline_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world.cloud.set_remote(f"git://127.0.0.1:{refused_port()}/vault.git")
    for _ in range(3):
        world.cloud.sync()
    assert len([record for record in caplog.records if "not synced" in record.message]) == 1
    world.cloud.set_remote(str(world.remote))
    for _ in range(3):
        world.cloud.synced()
    assert len([record for record in caplog.records if "synced again" in record.message]) == 1
    log = world.cloud.read(f"Logs/Cloud/sync-{NOW:%Y-%m}.jsonl").splitlines()
    assert [json.loads(line)["action_type"] for line in log] == ["sync_failed", "sync_recovered"]
    assert level(world.cloud)


def test_silent_remote_does_not_hold_the_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "NETWORK_DEADLINE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        world.cloud.set_remote(f"git://127.0.0.1:{server.getsockname()[1]}/vault.git")
        began = time.monotonic()
        assert world.cloud.sync().result == "later"
        assert time.monotonic() - began < 5


def test_missing_repository_is_not_tried_again_at_once(world: World) -> None:
    world.cloud.set_remote(str(world.root / "nowhere.git"))
    outcome = world.cloud.sync()
    assert outcome.result == "later"
    assert "no such repository" in outcome.message
    assert world.cloud.slept == []


def test_tree_lock_is_free_while_the_network_is_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def free(name: str) -> None:
        descriptor = os.open(world.cloud.state.tree_lock, os.O_RDWR)
        done = subprocess.run(
            [sys.executable, "-c", "import fcntl,sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX|fcntl.LOCK_NB)",
             str(descriptor)],
            pass_fds=[descriptor], check=False, capture_output=True,
        )  # fmt: skip
        os.close(descriptor)
        seen.append(name if done.returncode == 0 else f"{name} under the lock")

    original = Running.result

    def result(self: Running) -> tuple[int, bytes, str]:
        if self.arguments[0] in ("ls-remote", "fetch", "push"):
            free(self.arguments[0])
        return original(self)

    monkeypatch.setattr(Running, "result", result)
    push_as_person(world, {"theirs.md": "b\n"})
    world.cloud.write("Inbox/a.md", "a\n")
    world.cloud.synced()
    assert seen == ["fetch", "push"]


def test_a_remote_that_does_not_answer_holds_no_commit_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the drafting loop wrote is committed while the remote is still being asked."""
    original = Running.result

    def result(self: Running) -> tuple[int, bytes, str]:
        if self.arguments[0] == "fetch":
            assert world.cloud.subject() == "Cloud: 1 file updated"
            asked.append("fetch")
        return original(self)

    asked: list[str] = []
    monkeypatch.setattr(Running, "result", result)
    world.cloud.write("Inbox/a.md", "a\n")
    world.cloud.synced()
    assert asked == ["fetch"]


# -- beginnings --------------------------------------------------------------------------------------------------------


def test_new_empty_remote(empty_world: World) -> None:
    empty_world.cloud.write("Dashboard.md", "# Dashboard\n")
    assert empty_world.cloud.synced().pushed
    assert empty_world.remote_files() == {"Dashboard.md": "# Dashboard\n"}
    assert level(empty_world.cloud)


def test_nothing_at_all(empty_world: World) -> None:
    assert not empty_world.cloud.synced().pushed
    empty_world.local.write("a.md", "a\n")
    empty_world.local.synced()
    assert empty_world.cloud.synced().received
    assert empty_world.cloud.read("a.md") == "a\n"


def test_a_held_back_file_in_a_folder_without_a_commit(tmp_path: Path) -> None:
    """Nothing to unstage against yet: it must not hold up the first commit."""
    git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", str(tmp_path / "remote.git"))
    side = Side(tmp_path / "new", str(tmp_path / "remote.git"))
    side.write(".env", "KEY=1\n")
    side.write("a.md", "a\n")
    assert list(side.synced().held) == [".env"]
    assert sorted(git(tmp_path / "remote.git", "ls-tree", "-r", "--name-only", "main").split()) == [
        "Dashboard.md",
        "Logs/Cloud/sync-2026-02.jsonl",
        "a.md",
    ]


def test_plain_folder_becomes_a_clone(world: World) -> None:
    side = Side(world.root / "new", str(world.remote))
    side.write("Inbox/a.md", "new\n")
    side.write("note.md", "an older note\n")
    side.synced()
    files = world.remote_files()
    assert files["Inbox/a.md"] == "new\n"
    assert files["note.md"] == "one\ntwo\nthree\nfour\nfive\n"  # not overwritten by what lay in the folder
    assert "an older note\n" in files.values()
    assert side.read("Company_Handbook.md") == files["Company_Handbook.md"]
    assert level(side)


def test_folder_becomes_a_clone_while_offline(world: World) -> None:
    side = Side(world.root / "new", f"git://127.0.0.1:{refused_port()}/vault.git")
    side.write("Inbox/a.md", "new\n")
    assert side.sync().result == "later"
    side.set_remote(str(world.remote))
    side.synced()
    assert {"Inbox/a.md", "note.md"} <= set(world.remote_files())


def test_remote_made_anew(world: World) -> None:
    git(world.root, "init", "-q", "--bare", "--initial-branch=main", "fresh.git")
    world.cloud.set_remote(str(world.root / "fresh.git"))
    world.cloud.synced()
    assert git(world.root / "fresh.git", "rev-parse", "main") == world.cloud.git("rev-parse", "HEAD")


# -- guards ------------------------------------------------------------------------------------------------------------


def test_held_back_files_are_told_once_and_the_rest_is_synced(world: World) -> None:
    cloud = world.cloud
    cloud.write("Inbox/a.md", "fine\n")
    cloud.write("photo.png", b"\x89PNG")
    cloud.write("keys.md", f"my key is {KEY}\n")
    cloud.write("own.md", f"the agent's: {API_KEY}\n")
    cloud.write("clash.md", "<<<<<<< a\nx\n=======\ny\n>>>>>>> b\n")
    git(cloud.vault, "init", "-q", "nested")
    cloud.write("nested/inside.md", "x\n")
    (cloud.vault / "link.md").symlink_to("/etc/hostname")
    cloud.git("add", "keys.md")  # staged by a person: held back all the same
    for _ in range(3):
        assert set(cloud.synced().held) == {"photo.png", "keys.md", "own.md", "clash.md", "nested/", "link.md"}
    files = world.remote_files()
    assert set(files) & {"photo.png", "keys.md", "own.md", "clash.md", "nested", "link.md"} == set()
    assert "Inbox/a.md" in files
    told = files["Dashboard.md"].count("Not synced: ")
    assert told == 6
    assert KEY not in "".join(files.values()) + git(world.remote, "log", "-p")
    assert len(files[f"Logs/Cloud/sync-{NOW:%Y-%m}.jsonl"].splitlines()) == 6
    assert len(cloud.state.alerts()) == 6
    cloud.write("keys.md", "no key any more\n")
    assert "keys.md" not in cloud.synced().held
    assert "held keys.md" not in cloud.state.alerts()
    assert "keys.md" in world.remote_files()


def test_a_refresh_token_that_was_renewed_while_sync_runs_is_held_back(world: World) -> None:
    cloud = world.cloud
    cloud.write("a.md", "fine\n")
    assert cloud.synced().held == {}
    cloud.state.renewed_token.write_text(json.dumps({"of": "x", "refresh_token": "of-no-known-form"}))
    cloud.write("b.md", "it is of-no-known-form\n")
    assert list(cloud.synced().held) == ["b.md"]


def test_a_file_that_is_held_back_where_it_went_stays_where_it_was(world: World) -> None:
    """A mail with a key in it, which plain git brought: the remote must not lose it when Cloud files it."""
    key = f"ghp_{'aB3' * 12}"
    push_as_person(world, {"Inbox/EMAIL_k.md": f"the key is {key}\n"})
    world.cloud.synced()
    (world.cloud.vault / "Needs_Action").mkdir()
    (world.cloud.vault / "Inbox/EMAIL_k.md").rename(world.cloud.vault / "Needs_Action/EMAIL_k.md")
    for _ in range(2):
        assert list(world.cloud.synced().held) == ["Needs_Action/EMAIL_k.md"]
        assert "Inbox/EMAIL_k.md" in world.remote_files()
    world.cloud.write("Needs_Action/EMAIL_k.md", "the key is gone\n")
    assert world.cloud.synced().held == {}
    files = world.remote_files()
    assert "Inbox/EMAIL_k.md" not in files
    assert files["Needs_Action/EMAIL_k.md"] == "the key is gone\n"


def test_many_held_back_files_leave_room_on_the_dashboard(world: World) -> None:
    for number in range(300):
        world.cloud.write(f"pictures/{number}.png", b"\x89PNG")
    world.cloud.synced()
    assert "- old" in world.cloud.read("Dashboard.md")
    assert world.cloud.read("Dashboard.md").count("Not synced: ") == 1


def test_held_back_name_that_is_no_utf8(world: World) -> None:
    world.cloud.write("caf\udce9.png", b"\x89PNG")
    world.cloud.write("Inbox/a.md", "fine\n")
    world.cloud.synced()
    assert "Inbox/a.md" in world.remote_files()


def test_held_back_file_does_not_block_the_remotes_version(world: World) -> None:
    """Both sides have photo.png, and a note that holds a key here was edited there: the loop must go on."""
    cloud = world.cloud
    cloud.write("photo.png", b"ours")
    cloud.write("note.md", f"{KEY}\n")
    cloud.write("folder.md/a.png", b"in a folder")
    push_as_person(world, {"photo.png": "theirs", "note.md": "edited\n", "folder.md": "a file\n"})
    cloud.synced()
    assert (cloud.read("photo.png"), cloud.read("note.md"), cloud.read("folder.md")) == (
        "theirs", "edited\n", "a file\n",
    )  # fmt: skip
    kept = [path for path in cloud.vault.rglob("*.conflict-cloud-*") if path.is_file()]
    assert {path.read_text() for path in kept} >= {"ours", f"{KEY}\n"}
    assert [path.read_text() for path in cloud.vault.rglob("a.png")] == ["in a folder"]
    cloud.synced()
    assert KEY not in git(world.remote, "log", "-p")


def test_ignored_file_is_not_overwritten(world: World) -> None:
    world.cloud.write(".env.local.md", "mine\n")
    write(world.local.vault, ".env.local.md", "theirs\n")
    git(world.local.vault, "add", "-f", ".env.local.md")
    git(world.local.vault, "commit", "-qm", "forced")
    git(world.local.vault, "push", "-q", "origin", "HEAD:main")
    world.cloud.synced()
    assert "mine\n" in [path.read_text() for path in world.cloud.vault.glob(".env*")]


def test_folder_replaced_by_a_link(world: World) -> None:
    """`git add` dies of a path beyond a symbolic link: one such folder stopped everything."""
    cloud = world.cloud
    cloud.write("Moved/a.md", "a\n")
    cloud.synced()
    (cloud.vault / "Moved").rename(cloud.home / "elsewhere")
    (cloud.vault / "Moved").symlink_to(cloud.home / "elsewhere")
    cloud.write("Inbox/b.md", "b\n")
    assert cloud.synced().held
    assert {"Moved/a.md", "Inbox/b.md"} <= set(world.remote_files())
    push_as_person(world, {"Moved/a.md": "changed\n"})
    cloud.synced()
    assert cloud.read("Moved/a.md") == "changed\n"
    assert (cloud.home / "elsewhere" / "a.md").read_text() == "a\n"


def fill(world: World, count: int) -> None:
    for number in range(count):
        world.cloud.write(f"Notes/{number}.md", f"{number}\n")
    world.cloud.synced()


def test_mass_deletion_waits_for_a_word(world: World) -> None:
    fill(world, 20)
    for number in range(15):
        (world.cloud.vault / f"Notes/{number}.md").unlink()
    world.cloud.write("Inbox/a.md", "a\n")
    for _ in range(2):
        outcome = world.cloud.synced()
        assert list(outcome.held) == ["(deleted files)"]
    files = world.remote_files()
    assert {"Notes/0.md", "Inbox/a.md"} <= set(files)
    assert files["Dashboard.md"].count("(deleted files)") == 1
    world.cloud.sync(allow_deletions=True)
    assert "Notes/0.md" not in world.remote_files()
    assert world.cloud.synced().held == {}
    assert world.cloud.state.alerts() == {}


def test_many_moved_mails_are_no_mass_deletion(world: World) -> None:
    """The first pass over a new vault moves all of its mails at once."""
    fill(world, 20)
    for number in range(20):
        (world.cloud.vault / f"Notes/{number}.md").unlink()
        world.cloud.write(f"In_Progress/cloud/{number}.md", f"---\ndecision: reply\n---\n{number}\n")
    assert world.cloud.synced().held == {}
    assert "Notes/0.md" not in world.remote_files()


def test_mails_filed_under_their_ids_are_no_mass_deletion(world: World) -> None:
    """Files of the inbox may have any name; Cloud files them under the mail's id."""
    for number in range(30):
        world.cloud.write(f"Inbox/EMAIL_2026-11-{number}.md", f"mail {number}\n")
    world.cloud.synced()
    for number in range(30):
        (world.cloud.vault / f"Inbox/EMAIL_2026-11-{number}.md").unlink()
        world.cloud.write(f"Done/Skipped/EMAIL_id-{number}.md", f"---\ndecision: skip\n---\nmail {number}\n")
    outcome = world.cloud.synced()
    assert (outcome.held, outcome.commits) == ({}, 1)
    assert "Inbox/EMAIL_2026-11-0.md" not in world.remote_files()


def test_a_mass_deletion_stays_held_when_the_vault_grows_in_the_same_cycle(world: World) -> None:
    fill(world, 24)
    push_as_person(world, {f"More/{number}.md": "x\n" for number in range(40)})
    for number in range(15):
        (world.cloud.vault / f"Notes/{number}.md").unlink()
    assert world.cloud.synced().held
    assert "Notes/0.md" in world.remote_files()


def test_somebody_at_work_for_long_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [NOW]
    syncer = Syncer(world.cloud.config, world.cloud.state, lambda: now[0], sleep=world.cloud.slept.append)
    old_file(world.cloud.vault / ".git" / "index.lock")
    monkeypatch.setattr(mend, "_holder", lambda tree, paths: (Path("index.lock"), 4711))
    assert syncer.cycle().result == "later"
    assert "sync" not in world.cloud.state.alerts()
    now[0] += timedelta(minutes=2)
    assert syncer.cycle().result == "later"
    assert "4711" in world.cloud.state.alerts()["sync"]["message"]


def test_emptied_vault_is_held(world: World) -> None:
    fill(world, 20)
    for path in sorted(world.cloud.vault.rglob("*"), reverse=True):
        if ".git" not in path.relative_to(world.cloud.vault).parts[:1] and path.is_file():
            path.unlink()
    assert world.cloud.synced().held
    assert "Notes/0.md" in world.remote_files()


def test_half_written_files_of_ours_stay_out(world: World) -> None:
    world.cloud.write("Inbox/.cloud-agent-0a1b2c.tmp", "half")
    assert world.cloud.synced().held == {}
    assert not [path for path in world.remote_files() if "cloud-agent" in path]


# -- two loops, one tree -----------------------------------------------------------------------------------------------


def test_drafting_writes_during_fetch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    push_as_person(world, {"note.md": "theirs\n"})
    original = Syncer._answer

    def answer(self: Syncer, asked: Running) -> str | None:
        tip = original(self, asked)
        world.cloud.write("Inbox/late.md", "late\n")
        world.cloud.write("note.md", "late too\n")
        return tip

    monkeypatch.setattr(Syncer, "_answer", answer)
    world.cloud.synced()
    files = world.remote_files()
    assert files["Inbox/late.md"] == "late\n"
    assert files["note.md"] == "theirs\n"
    assert "late too\n" in files.values()


def test_write_at_the_last_moment_is_not_overwritten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person saves the very file between our commit and the checkout (no lock holds a person back)."""
    push_as_person(world, {"note.md": "theirs\n"})
    original = Syncer._put_on_disk

    def put(self: Syncer, joined: str) -> None:
        world.cloud.write("note.md", "saved this moment\n")
        original(self, joined)

    monkeypatch.setattr(Syncer, "_put_on_disk", put)
    assert world.cloud.sync().result == "later"
    assert world.cloud.read("note.md") == "saved this moment\n"
    monkeypatch.undo()
    files = world.converge()
    assert {"theirs\n", "saved this moment\n"} <= set(files.values())


def test_file_that_vanishes_after_the_status(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor's temporary file: `git add` dies of it."""
    original = Syncer._write_commit

    def write_commit(self: Syncer, *arguments: Any) -> None:
        (world.cloud.vault / "gone.md").unlink(missing_ok=True)
        original(self, *arguments)

    world.cloud.write("gone.md", "x\n")
    world.cloud.write("Inbox/a.md", "a\n")
    monkeypatch.setattr(Syncer, "_write_commit", write_commit)
    world.cloud.synced()
    assert "Inbox/a.md" in world.remote_files()


def test_sync_waits_for_the_other_loops_write(world: World) -> None:
    world.cloud.write("Inbox/a.md", "a\n")
    with lock(world.cloud.state.tree_lock):
        thread = threading.Thread(target=world.cloud.sync)
        thread.start()
        time.sleep(0.2)
        assert world.cloud.subject() == "seed"
    thread.join(30)
    assert world.cloud.subject() == "Cloud: 1 file updated"


# -- whatever is on disk -----------------------------------------------------------------------------------------------

LOCKS = ["index.lock", "HEAD.lock", "ORIG_HEAD.lock", "config.lock", "packed-refs.lock", "refs/heads/main.lock",
         "refs/remotes/origin/main.lock"]  # fmt: skip


@pytest.mark.parametrize("name", LOCKS)
def test_stale_lock(world: World, name: str) -> None:
    old_file(world.cloud.vault / ".git" / name)
    world.cloud.write("Inbox/a.md", "a\n")
    world.cloud.synced()
    assert "Inbox/a.md" in world.remote_files()


def test_a_lock_that_changes_is_respected(world: World) -> None:
    """Its holder may be on another machine, or another user's, and is not seen."""
    path = world.cloud.vault / ".git" / "index.lock"
    path.touch()
    world.cloud.write("Inbox/a.md", "a\n")
    cloud = world.cloud
    syncer = Syncer(cloud.config, cloud.state, lambda: NOW, sleep=lambda _: path.write_bytes(path.read_bytes() + b"x"))
    assert syncer.cycle().result == "later"
    assert path.exists()
    world.cloud.synced()
    assert not path.exists()


def test_old_lock_of_a_living_git_is_respected(world: World) -> None:
    old_file(world.cloud.vault / ".git" / "index.lock")
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=world.cloud.vault, stdin=subprocess.PIPE) as holder:
        while not Path(f"/proc/{holder.pid}/comm").read_text().startswith("git"):
            time.sleep(0.01)  # a process has its program's name a moment after it was started
        outcome = world.cloud.sync()
        assert outcome.result == "later"
        assert str(holder.pid) in outcome.message
        assert (world.cloud.vault / ".git" / "index.lock").exists()
        assert holder.stdin
        holder.stdin.close()
    world.cloud.synced()


def clash_on_local(world: World) -> None:
    """Cloud has pushed, Local has committed on the same line; what Local's git does next gets stuck."""
    world.cloud.write("note.md", "one\ncloud\nthree\nfour\nfive\n")
    world.cloud.synced()
    world.local.write("note.md", "one\nlocal\nthree\nfour\nfive\n")
    world.local.write("Company_Handbook.md", "committed by local\n")
    commit_all(world.local.vault)
    world.local.git("fetch", "-q", "origin")


@pytest.mark.parametrize(
    "command",
    [
        ["merge", "origin/main"],
        ["rebase", "origin/main"],
        ["rebase", "--apply", "origin/main"],
        ["cherry-pick", "origin/main"],
        ["pull", "--rebase", "origin", "main"],
    ],
    ids=" ".join,
)
def test_half_done(world: World, command: list[str]) -> None:
    """Everything that was committed, and everything that was written since, comes through."""
    clash_on_local(world)
    world.local.git(*command, check=False)
    assert "<<<<<<<" in world.local.read("note.md")
    world.local.write("Inbox/since.md", "written since\n")
    world.local.write("Dashboard.md", "# Dashboard\n\nEdited since.\n\n## Updates\n\n- old\n")
    files = world.converge()
    assert files["Inbox/since.md"] == "written since\n"
    assert "Edited since." in files["Dashboard.md"]  # git rebase --abort throws this away
    assert files["Company_Handbook.md"] == "committed by local\n"
    text = "\n".join(files.values())
    assert "cloud\n" in text
    assert "local\n" in text
    assert world.local.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert not [name for name in ("MERGE_HEAD", "rebase-merge", "rebase-apply", "CHERRY_PICK_HEAD")
                if (world.local.vault / ".git" / name).exists()]  # fmt: skip


def test_a_binary_clash_is_not_taken_for_settled(world: World) -> None:
    """git leaves our version on disk, without a marker, where theirs is binary."""
    push_as_person(world, {"note.md": "theirs\0\n"})
    world.cloud.write("note.md", "ours\n")
    commit_all(world.cloud.vault)
    world.cloud.git("fetch", "-q", "origin")
    world.cloud.git("merge", "origin/main", check=False)
    assert (world.cloud.vault / ".git" / "MERGE_HEAD").exists()
    files = world.converge()
    assert {"theirs\0\n", "ours\n"} <= set(files.values())


def test_half_done_revert(world: World) -> None:
    world.local.write("note.md", "second\n")
    second = commit_all(world.local.vault)
    world.local.write("note.md", "third\n")
    commit_all(world.local.vault)
    world.local.git("revert", second, check=False)
    assert (world.local.vault / ".git" / "REVERT_HEAD").exists()
    world.local.write("Inbox/since.md", "x\n")
    files = world.converge()
    assert files["note.md"] == "third\n"
    assert "Inbox/since.md" in files


def test_merge_that_a_person_settled_is_finished(world: World) -> None:
    clash_on_local(world)
    world.local.git("merge", "origin/main", check=False)
    world.local.write("note.md", "one\nsettled\nthree\nfour\nfive\n")
    files = world.converge()
    assert files["note.md"] == "one\nsettled\nthree\nfour\nfive\n"
    assert not [path for path in files if "conflict" in path]


def test_merge_without_a_clash_is_finished(world: World) -> None:
    push_as_person(world, {"theirs.md": "x\n"})
    world.cloud.write("ours.md", "y\n")
    commit_all(world.cloud.vault)
    world.cloud.git("fetch", "-q", "origin")
    world.cloud.git("merge", "-q", "--no-commit", "origin/main")
    assert {"ours.md", "theirs.md"} <= set(world.converge())
    assert not (world.cloud.vault / ".git" / "MERGE_HEAD").exists()


def test_detached_head(world: World) -> None:
    world.cloud.git("checkout", "-q", "--detach")
    world.cloud.write("detached.md", "committed there\n")
    commit_all(world.cloud.vault)
    world.cloud.write("Inbox/a.md", "not committed\n")
    world.cloud.synced()
    assert {"detached.md", "Inbox/a.md"} <= set(world.remote_files())
    assert world.cloud.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert level(world.cloud)


def test_another_branch(world: World) -> None:
    world.cloud.write("main.md", "on main, not pushed\n")
    commit_all(world.cloud.vault)
    world.cloud.git("checkout", "-q", "-b", "idea", "HEAD~1")
    world.cloud.write("idea.md", "x\n")
    idea = commit_all(world.cloud.vault)
    world.cloud.write("Inbox/a.md", "not committed\n")
    world.cloud.synced()
    assert {"main.md", "idea.md", "Inbox/a.md"} <= set(world.remote_files())
    assert world.cloud.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert world.cloud.git("merge-base", "--is-ancestor", idea, "main") == ""


def test_orphan_branch(world: World) -> None:
    world.cloud.git("checkout", "-q", "--orphan", "new")
    world.cloud.write("Inbox/a.md", "x\n")
    world.cloud.synced()
    assert {"note.md", "Inbox/a.md"} <= set(world.remote_files())


@pytest.mark.parametrize("content", [b"", b"DIRC nonsense", None], ids=["empty", "broken", "absent"])
def test_index(world: World, content: bytes | None) -> None:
    index = world.cloud.vault / ".git" / "index"
    index.unlink()
    if content is not None:
        index.write_bytes(content)
    world.cloud.write("Inbox/a.md", "x\n")
    world.cloud.write("note.md", "edited\n")
    before = set(world.remote_files())
    world.cloud.synced()
    files = world.remote_files()
    assert {path for path in files if not path.startswith("Logs/Cloud/")} == before | {"Inbox/a.md"}
    assert files["note.md"] == "edited\n"


def test_clone_that_was_killed_before_its_checkout(world: World) -> None:
    side = Side(world.root / "new", str(world.remote))
    side.vault.rmdir()
    git(world.root, "clone", "-q", "--no-checkout", str(world.remote), str(side.vault))
    before = world.remote_files()
    side.synced()
    assert world.remote_files() == before
    assert side.read("note.md") == before["note.md"]


def test_git_init_that_was_killed(world: World) -> None:
    side = Side(world.root / "new", str(world.remote))
    (side.vault / ".git" / "objects").mkdir(parents=True)
    side.synced()
    assert side.read("note.md") == world.remote_files()["note.md"]


def test_staged_but_not_committed(world: World) -> None:
    world.cloud.write("Inbox/a.md", "x\n")
    world.cloud.git("add", "-A")
    world.cloud.synced()
    assert "Inbox/a.md" in world.remote_files()


def test_committed_but_not_pushed(world: World) -> None:
    world.cloud.write("Inbox/a.md", "x\n")
    commit_all(world.cloud.vault)
    assert world.cloud.synced().pushed


def test_clone_with_another_remote_is_pointed_at_ours(world: World) -> None:
    world.cloud.git("remote", "set-url", "origin", "/nowhere")
    world.cloud.git("config", "--add", "remote.origin.url", "/nowhere/else")
    world.cloud.write("Inbox/a.md", "x\n")
    world.cloud.synced()
    assert "Inbox/a.md" in world.remote_files()


def test_no_anthropic_in_the_sync_process() -> None:
    code = "import sys, cloud_agent.cli, cloud_agent.sync; sys.exit(bool({'anthropic', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env=PLAIN, check=False).returncode == 0
