"""The one place that writes: what it lets through, and what a kill leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cloud_agent.index import Index
from cloud_agent.vault import ForbiddenPath, Vault
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import Desk, Killed, KillingOS

ALLOWED = [
    "Dashboard.md",
    "Pending_Approval/Email/EMAIL_DRAFT_x.md",
    "In_Progress/cloud/EMAIL_x.md",
    "Needs_Action/Email/EMAIL_x.md",
    "Done/Email/EMAIL_x.md",
    "Done/Skipped/EMAIL_x.md",
    "Logs/API_Usage/2026-02-16.md",
    "Logs/Cloud/audit-2026-02.jsonl",
    "Logs/Cloud/unparseable/x.md",
]
FORBIDDEN = [
    "Approved/Email/EMAIL_DRAFT_x.md",
    "Rejected/Email/EMAIL_DRAFT_x.md",
    "Company_Handbook.md",
    "Inbox/EMAIL_x.md",
    "Pending_Approval/Email/note.md",
    "Pending_Approval/LinkedIn/EMAIL_DRAFT_x.md",
    "In_Progress/local/EMAIL_x.md",
    "Done/Email/EMAIL_DRAFT_x.md",
    "Needs_Action/Email/note.md",
    "Dashboard.md/x.md",
    "Pending_Approval/Email/../../Approved/Email/EMAIL_DRAFT_x.md",
    "Pending_Approval/Email/EMAIL_DRAFT_../../../Approved/Email/EMAIL_DRAFT_x.md",
    "/etc/EMAIL_DRAFT_x.md",
    "../Dashboard.md",
    "./Dashboard.md",
    "Done//Email/EMAIL_x.md",
    "Done/Email/EMAIL_\0.md",
    ".git/config",
    "",
]


@pytest.mark.parametrize("path", ALLOWED)
def test_clouds_rows(vault: Vault, path: str) -> None:
    vault.create(path, b"content")
    assert vault.read(path) == b"content"


@pytest.mark.parametrize("path", FORBIDDEN)
def test_nothing_else_is_written(vault: Vault, path: str) -> None:
    for write in (vault.create, vault.replace, vault.append, vault.place, vault.write_numbered):
        with pytest.raises(ForbiddenPath):
            write(path, b"x")
    assert list(vault.root.rglob("*")) == []


@given(st.text("./DonePigEMAIL_RFTx\0", max_size=40))
def test_no_path_leaves_the_vault(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    root = tmp_path_factory.mktemp("v") / "vault"
    root.mkdir()
    for folder in ("Pending_Approval/Email/EMAIL_DRAFT_", "Done/Email/EMAIL_"):
        try:
            Vault(root).create(f"{folder}{path}", b"x")
        except (ForbiddenPath, OSError):
            continue
        assert [entry.parent for entry in root.rglob("*.md")] in ([], [(root / folder).parent])
    assert os.listdir(root.parent) == ["vault"]


@pytest.mark.parametrize("path", ["Approved/Email/EMAIL_DRAFT_x.md", "Done/Email/EMAIL_x.md", "Dashboard.md"])
def test_cloud_removes_mail_from_its_own_folders_only(vault: Vault, path: str) -> None:
    target = vault.root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("a person's")
    with pytest.raises(ForbiddenPath):
        vault.remove(path, was=b"x")
    with pytest.raises(ForbiddenPath):
        vault.move(path, "Needs_Action/Email/EMAIL_x.md", b"x", was=b"x")
    assert target.read_text() == "a person's"


@pytest.mark.parametrize("link", ["Done", "Done/Email"])
def test_a_linked_folder_is_not_followed(vault: Vault, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    (outside / "Email").mkdir(parents=True)
    (outside / "EMAIL_x.md").write_text("x")
    (vault.root / link).parent.mkdir(exist_ok=True)
    (vault.root / link).symlink_to(outside)
    for use in (lambda: vault.create("Done/Email/EMAIL_x.md", b"x"), lambda: vault.names("Done/Email")):
        with pytest.raises(ForbiddenPath):
            use()
    assert sorted(path.name for path in outside.rglob("*")) == ["EMAIL_x.md", "Email"]
    if link == "Done":
        with pytest.raises(ForbiddenPath):
            Index(vault).refresh()


def test_a_linked_file_is_neither_read_nor_written_through(vault: Vault, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (vault.root / "Inbox").mkdir()
    (vault.root / "Logs/Cloud").mkdir(parents=True)
    for link in ("Inbox/EMAIL_x.md", "Dashboard.md", "Logs/Cloud/audit.jsonl"):
        (vault.root / link).symlink_to(secret)
    with pytest.raises(OSError):
        vault.read("Inbox/EMAIL_x.md")
    assert vault.names("Inbox") == []
    with pytest.raises(ForbiddenPath):
        vault.replace("Dashboard.md", b"x")
    with pytest.raises(OSError):
        vault.append("Logs/Cloud/audit.jsonl", b"x")
    assert secret.read_text() == "secret"


def test_a_pipe_or_a_folder_is_no_file(vault: Vault) -> None:
    os.mkfifo(vault.root / "pipe.md")
    (vault.root / "folder.md").mkdir()
    for name in ("pipe.md", "folder.md"):
        with pytest.raises(OSError):
            vault.read(name)


def test_nothing_is_overwritten(vault: Vault) -> None:
    path = "Pending_Approval/Email/EMAIL_DRAFT_x.md"
    vault.create(path, b"the owner's")
    with pytest.raises(FileExistsError):
        vault.create(path, b"ours")
    assert vault.write_numbered(path, b"ours") == "Pending_Approval/Email/EMAIL_DRAFT_x.2.md"
    assert vault.read(path) == b"the owner's"
    assert [entry.name for entry in (vault.root / path).parent.iterdir() if entry.name.startswith(".")] == []


def test_a_move_takes_the_next_name_unless_the_content_is_the_same(vault: Vault) -> None:
    (vault.root / "Inbox").mkdir()
    (vault.root / "Done/Email/EMAIL_x.md").mkdir(parents=True)  # taken by a folder
    target = "Done/Email/EMAIL_x.md"
    for content, expected in ((b"1", "EMAIL_x.2.md"), (b"2", "EMAIL_x.3.md"), (b"1", "EMAIL_x.2.md")):
        (vault.root / "Inbox/EMAIL_x.md").write_bytes(content)
        assert vault.move("Inbox/EMAIL_x.md", target, content, was=content) == f"Done/Email/{expected}"
        assert not (vault.root / "Inbox/EMAIL_x.md").exists()


def test_a_mail_that_was_written_to_meanwhile_stays(vault: Vault) -> None:
    (vault.root / "Inbox").mkdir()
    (vault.root / "Inbox/EMAIL_x.md").write_bytes(b"first part, second part")
    with pytest.raises(OSError, match="written to meanwhile"):
        vault.move("Inbox/EMAIL_x.md", "Done/Email/EMAIL_x.md", b"first part", was=b"first part")
    assert vault.read("Inbox/EMAIL_x.md") == b"first part, second part"


@pytest.mark.parametrize("was", [b"mail", None], ids=["edited", "gone"])
def test_a_mail_is_annotated_where_it_lies_unless_it_was_written_to_meanwhile(vault: Vault, was: bytes | None) -> None:
    path = "In_Progress/cloud/EMAIL_x.md"
    vault.create(path, b"mail")
    assert vault.move(path, path, b"annotated", was=b"mail") == path
    assert vault.read(path) == b"annotated"
    if was is None:
        (vault.root / path).unlink()
    with pytest.raises(OSError):
        vault.move(path, path, b"annotated again", was=b"mail")
    assert [entry.name for entry in (vault.root / path).parent.iterdir()] == ([] if was is None else ["EMAIL_x.md"])
    (vault.root / "Inbox").mkdir()
    (vault.root / "Inbox/EMAIL_x.md").write_bytes(b"a person's")
    with pytest.raises(ForbiddenPath):
        vault.move("Inbox/EMAIL_x.md", "Inbox/EMAIL_x.md", b"ours", was=b"a person's")


@pytest.mark.parametrize("operation", ["create", "replace", "move", "annotate"])
def test_a_kill_leaves_the_old_or_the_new_never_a_part(tmp_path: Path, operation: str) -> None:
    for kill_at in range(20):
        root = tmp_path / str(kill_at)
        for folder in ("Inbox", "Done/Email", "Needs_Action/Email"):
            (root / folder).mkdir(parents=True)
        for path in ("Dashboard.md", "Needs_Action/Email/EMAIL_x.md"):
            (root / path).write_bytes(b"old")
        (root / "Inbox/EMAIL_x.md").write_bytes(b"mail")
        vault = Vault(root)
        try:
            with KillingOS(kill_at):
                if operation == "create":
                    vault.create("Done/Email/EMAIL_x.md", b"mail")
                elif operation == "replace":
                    vault.replace("Dashboard.md", b"new")
                elif operation == "annotate":
                    vault.move("Needs_Action/Email/EMAIL_x.md", "Needs_Action/Email/EMAIL_x.md", b"new", was=b"old")
                else:
                    vault.move("Inbox/EMAIL_x.md", "Done/Email/EMAIL_x.md", b"mail", was=b"mail")
            killed = False
        except Killed:
            killed = True
        seen = {path.name: path.read_bytes() for path in (root / "Done/Email").glob("*.md")}
        assert seen in ({}, {"EMAIL_x.md": b"mail"})
        for path in ("Dashboard.md", "Needs_Action/Email/EMAIL_x.md"):
            assert (root / path).read_bytes() in (b"old", b"new")
        assert (root / "Inbox/EMAIL_x.md").exists() or seen
        if not killed:
            return
    raise AssertionError("it never came to an end")


def test_a_log_has_its_header_once(vault: Vault) -> None:
    for row in (b"a\n", b"b\n"):
        vault.append("Logs/API_Usage/2026-02-16.md", row, b"header\n")
    assert vault.read("Logs/API_Usage/2026-02-16.md") == b"header\na\nb\n"


def test_a_row_that_was_cut_off_is_ended(vault: Vault) -> None:
    path = "Logs/API_Usage/2026-02-16.md"
    vault.append(path, b"a\n", b"header\n")
    (vault.root / path).write_bytes(b"header\na\n| torn")
    vault.append(path, b"b\n", b"header\n")
    assert vault.read(path) == b"header\na\n| torn\nb\n"


def test_an_idle_pass_reads_no_stored_file(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 5: a pass costs what is new, not what is stored."""
    for number in range(20):
        desk.write(f"Done/Email/EMAIL_{number}.md", f"---\nemail_id: {number}\nsubject: s\n---\nx\n")
    for folder in desk.vault.rglob("*"):
        if folder.is_dir():
            os.utime(folder, (1_000_000_000, 1_000_000_000))
    desk.run()
    read: list[str] = []
    real = Vault.read
    monkeypatch.setattr(Vault, "read", lambda self, path: (read.append(path), real(self, path))[1])
    with monkeypatch.context() as patched:
        patched.setattr(Index, "_list", lambda *_: pytest.fail("a folder was listed that had not changed"))
        desk.run()
    assert read == []
    desk.write("Done/Email/EMAIL_new.md", "---\nemail_id: new\nsubject: s\n---\nx\n")
    desk.run()
    assert read == ["Done/Email/EMAIL_new.md"]


def test_a_file_in_the_place_of_a_folder_is_told(vault: Vault) -> None:
    (vault.root / "Pending_Approval").mkdir()
    (vault.root / "Pending_Approval/Email").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        vault.write_numbered("Pending_Approval/Email/EMAIL_DRAFT_x.md", b"x")
