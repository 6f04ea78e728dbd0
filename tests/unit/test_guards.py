"""What may be committed."""

import os
import subprocess
from pathlib import Path

import pytest
from cloud_agent import approval, guards
from cloud_agent.git import Blob
from cloud_agent.mail import parse
from hypothesis import given
from hypothesis import strategies as st

from tests.linear import assert_linear

ROOT = Path(__file__).parents[2]


def objection(root: Path, path: str, content: bytes = b"text\n", **more: list[str]) -> str | None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return guards.objection(root, path, **more)


@pytest.mark.parametrize("path", ["a.md", "Inbox/EMAIL_x.md", "Logs/Cloud/a.jsonl", ".gitignore", "a/.gitkeep", "A.MD"])
def test_markdown_and_state_pass(tmp_path: Path, path: str) -> None:
    assert objection(tmp_path, path) is None


@pytest.mark.parametrize("path", ["a.png", "a.exe", "Makefile", "a.py", "a.md.swp"])
def test_other_kinds_are_held(tmp_path: Path, path: str) -> None:
    assert "neither markdown" in (objection(tmp_path, path) or "")


@pytest.mark.parametrize(
    "path", [".env", ".env.cloud", ".ENV", "id_rsa", "id_ed25519.md", "a.pem", ".netrc", "x/token.json", "a.kdbx"]
)
def test_names_of_secrets_are_held(tmp_path: Path, path: str) -> None:
    assert "secret" in (objection(tmp_path, path) or "")


def test_own_credential_is_held_whatever_its_form(tmp_path: Path) -> None:
    assert "key or a token" in (
        objection(tmp_path, "a.md", b"it is hunter2-hunter2", own_secrets=["hunter2-hunter2"]) or ""
    )
    assert objection(tmp_path, "b.md", b"it is not", own_secrets=["hunter2-hunter2"]) is None


def test_a_secret_is_named_by_its_kind_and_never_shown(tmp_path: Path) -> None:
    why = objection(tmp_path, "a.md", b"see ghp_" + b"a1B2c3D4e5F6" * 3) or ""
    assert "key or a token (ghp_…)" in why
    assert "a1B2" not in why


def test_large_links_folders_and_unreadable(tmp_path: Path) -> None:
    with (tmp_path / "big.md").open("wb") as file:
        file.truncate(guards.MAX_BYTES + 1)
    assert "50 MB" in (guards.objection(tmp_path, "big.md") or "")
    (tmp_path / "link.md").symlink_to("/etc/passwd")
    assert "link" in (guards.objection(tmp_path, "link.md") or "")
    os.mkfifo(tmp_path / "pipe.md")
    assert "regular" in (guards.objection(tmp_path, "pipe.md") or "")
    assert "repository of its own" in (guards.objection(tmp_path, "nested/") or "")


def test_file_below_a_linked_folder_is_held(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.md").write_text("x")
    (tmp_path / "Inbox").symlink_to("elsewhere")
    assert "symbolic link" in (guards.objection(tmp_path, "Inbox/a.md") or "")


@pytest.mark.parametrize("path", [".GIT/a.md", "x/git~1/a.md", ".git /a.md", "a/.g\u200cit/a.md", "../a.md"])
def test_names_that_git_refuses_are_held(tmp_path: Path, path: str) -> None:
    """One such name among the files of a commit, and git refuses the commit."""
    assert "rename it" in (guards.objection(tmp_path, path) or "")


def test_examine_names_the_blob_that_git_would_store(tmp_path: Path) -> None:
    contents = {"a.md": b"", "x/b.md": b"text\r\n", "x/y/c.md": bytes(range(256)) * 400}
    for path, content in contents.items():
        assert objection(tmp_path, path, content) is None
        oid = subprocess.run(
            ["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True
        ).stdout.decode()
        assert guards.examine(tmp_path, path) == Blob("100644", oid.strip())
    (tmp_path / "a.md").chmod(0o755)
    assert guards.examine(tmp_path, "a.md") == Blob("100755", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")


def test_a_file_that_is_being_written_waits_for_the_next_cycle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither committed nor reported."""
    assert objection(tmp_path, "a.md", b"first half, ") is None
    judge = os.fstat
    calls: list[int] = []

    def fstat(descriptor: int) -> os.stat_result:
        if calls:
            with (tmp_path / "a.md").open("ab") as file:
                file.write(b"second half")
        calls.append(descriptor)
        return judge(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        assert guards.examine(tmp_path, "a.md") is None
    assert isinstance(guards.examine(tmp_path, "a.md"), Blob)


def test_a_file_that_went_away_is_neither_committed_nor_reported(tmp_path: Path) -> None:
    assert guards.examine(tmp_path, "absent.md") is None
    assert guards.examine(tmp_path, "absent/too.md") is None
    assert guards.objection(tmp_path, "absent.md") is None


def test_examine_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "link.md").symlink_to("/etc/passwd")
    (tmp_path / "folder.md").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for path, content in (("x/a.md", b"text"), ("x/b.md", b"\0" * 10)):
        objection(tmp_path, path, content)
    for path in ("link.md", "folder.md", "no/such.md", "x/a.md/b.md"):
        guards.examine(tmp_path, path)
    assert len(os.listdir("/proc/self/fd")) == before


CONFLICT = b"a\n<<<<<<< ours\nb\n=======\nc\n>>>>>>> theirs\n"


@pytest.mark.parametrize(
    "content",
    [
        CONFLICT,
        CONFLICT.replace(b"\n", b"\r\n"),
        CONFLICT.rstrip(b"\n"),
        CONFLICT.replace(b"=======", b"||||||| base\nz\n======="),  # merge.conflictStyle = diff3 or zdiff3
        CONFLICT.replace(b"<" * 7, b"<" * 11).replace(b"=" * 7, b"=" * 11).replace(b">" * 7, b">" * 11),
        b"Title\n=======\n" + CONFLICT,
        b"<<<<<<<< of another length\n" + CONFLICT,
    ],
)
def test_conflict_markers_are_held(tmp_path: Path, content: bytes) -> None:
    assert "conflict" in (objection(tmp_path, "a.md", content) or "")


@pytest.mark.parametrize(
    "content",
    [
        b"Title\n=======\ntext\n",
        b"> <<<<<<< ours\n> =======\n> >>>>>>> theirs\n",
        b"<<<<<<< ours\nno end\n=======\n",
        b">>>>>>> x\n=======\n<<<<<<< y\n",
        b"<<<<<<<\n=======\n>>>>>>>\n",
        b"<<<<<<< ours\n========\n>>>>>>> theirs\n",
        b"<<<<<< ours\n======\n>>>>>> theirs\n",
    ],
)
def test_text_that_is_no_conflict_passes(tmp_path: Path, content: bytes) -> None:
    assert objection(tmp_path, "a.md", content) is None


MAIL = b"---\nemail_id: x\nsubject: merge trouble\n---\n\nHello, what is this?\n\n"


def test_a_mail_may_tell_of_a_conflict_and_its_draft_quote_it(tmp_path: Path) -> None:
    """It is the sender's text, which nobody merges. Held back, it and its draft would never reach the owner."""
    for folder in ("Inbox", "In_Progress/cloud", "Needs_Action/Email", "Done/Email"):
        assert objection(tmp_path, f"{folder}/EMAIL_x.md", MAIL + CONFLICT) is None
    mail = parse("EMAIL_x.md", MAIL + CONFLICT)
    assert objection(tmp_path, "Pending_Approval/Email/EMAIL_DRAFT_x.md", approval.quote(mail).encode()) is None


@pytest.mark.parametrize("path", ["Inbox/notes.md", "Pending_Approval/Email/EMAIL_DRAFT_x.md", "Dashboard.md"])
def test_only_a_mail_may_hold_markers(tmp_path: Path, path: str) -> None:
    assert "conflict" in (objection(tmp_path, path, MAIL + CONFLICT) or "")


@pytest.mark.parametrize(
    "content",
    [
        b"<<<<<<< HEAD\n" + MAIL + b"=======\nx\n>>>>>>> theirs\n",
        MAIL.replace(b"email_id: x\n", b"<<<<<<< HEAD\nemail_id: x\n=======\nemail_id: y\n>>>>>>> theirs\n"),
        MAIL.replace(b"email_id: x\n", b"<<<<<<< HEAD\nemail_id: x\n") + b"=======\ny\n>>>>>>> theirs\n",
    ],
)
def test_a_conflict_in_a_mail_s_fields_is_git_s_own(tmp_path: Path, content: bytes) -> None:
    assert "conflict" in (objection(tmp_path, "Inbox/EMAIL_x.md", content) or "")


def test_a_mail_full_of_markers_does_not_stall_the_loop() -> None:
    """A mail is written by anybody: a regex with two lazy gaps took hours on the first of these."""
    for unit in (b"<<<<<<< a\n", b"<", b"=======\n", b"<<<<<<< a\n=======\n", b"---\n", b"---\n<<<<<<< a\n"):
        assert_linear(lambda content: guards.check("Inbox/EMAIL_x.md", content), unit)


def test_mass_deletion() -> None:
    assert guards.is_mass_deletion(["x"] * 11, 30)
    assert not guards.is_mass_deletion(["x"] * 10, 10)  # a small vault may be emptied
    assert not guards.is_mass_deletion(["x"] * 11, 33)


@pytest.mark.parametrize("tracked", [11, 20, 50_000])
def test_a_vault_that_is_all_gone_is_a_disk_that_is_not_there(tracked: int) -> None:
    """vdirsyncer#42: the empty side emptied the other. (The folders alone are thirteen files.)"""
    assert guards.is_mass_deletion(["x"] * tracked, tracked)


def test_a_renamed_folder_and_renamed_files_are_not_gone() -> None:
    deleted = [f"Notes/{number}.md" for number in range(40)]
    assert guards.gone(deleted, [f"Notes 2026/{number}.md" for number in range(40)]) == []
    renamed = [f"Notes/2026-{number}.md" for number in range(40)]
    ids = {path: str(number % 40) for number, path in enumerate([*deleted, *renamed])}
    assert guards.gone(deleted, renamed) == deleted
    assert guards.gone(deleted, renamed, ids) == []
    assert guards.gone(deleted, renamed[1:], ids) == deleted[:1]


@given(st.lists(st.sampled_from("abcdefgh"), unique=True), st.lists(st.sampled_from("abcdefghij"), unique=True))
def test_moved_files_are_not_gone(deleted: list[str], added: list[str]) -> None:
    lost = guards.gone([f"Inbox/{name}.md" for name in deleted], [f"Done/{name}.md" for name in added])
    assert lost == [f"Inbox/{name}.md" for name in deleted if name not in added]


def test_a_mail_that_is_filed_under_its_id_is_not_gone() -> None:
    mails = [f"Inbox/EMAIL_2026-11-{number}.md" for number in range(3)]
    filed = ["In_Progress/cloud/EMAIL_a-1.md", "Done/Skipped/EMAIL_b-2.md"]
    assert guards.gone([*mails, "Approved/Email/EMAIL_DRAFT_x.md"], filed) == [
        mails[2],
        "Approved/Email/EMAIL_DRAFT_x.md",
    ]


def test_one_new_file_accounts_for_one_deleted_file() -> None:
    assert guards.gone(["a/x.md", "b/x.md"], ["c/x.md"]) == ["b/x.md"]


NOISE = [
    ".obsidian/workspace.json",
    ".obsidian/workspace-mobile.json",
    ".obsidian/workspaces.json",
    ".obsidian/workspace",
    ".obsidian/cache",
    "Work/.obsidian/workspace.json",
    ".obsidian/plugins/dataview/main.js",
    ".obsidian/plugins/dataview/styles.css",
    ".obsidian/plugins/dataview/cache/a.json",
    ".obsidian/themes/Minimal/theme.css",
    ".trash/old.md",
    "x/.trash/old.md",
    ".DS_Store",
    "x/._note.md",
    ".Trash-1000/files/a.md",
    "x/Thumbs.db",
    "desktop.ini",
    ".stfolder",
    ".stfolder/x",
    ".stversions/a.md",
    ".dropbox.cache/a.md",
    "Inbox/.a.md.swp",
    "a.md~",
    ".#a.md",
    "#a.md#",
    "~$letter.md",
    ".~lock.a.md#",
    "a.md.tmp",
    ".syncthing.a.md.tmp",
    "mail.json.part",
    "mail.json.crdownload",
    ".nfs000000000000abcd00000001",
    ".fuse_hidden0000",
    "Inbox/.cloud-agent-0a1b.tmp",
]
NO_NOISE = [
    "Inbox/EMAIL_x.md",
    "Inbox/cloud-agent.md",
    "Dashboard.md",
    ".gitignore",
    "Inbox/.gitkeep",
    ".obsidian/app.json",
    ".obsidian/graph.json",
    ".obsidian/community-plugins.json",
    ".obsidian/plugins/dataview/data.json",
    ".obsidian/plugins/dataview/manifest.json",
    ".obsidian/themes/Minimal/manifest.json",
    "workspace.json",
    "a.sync-conflict-20261123-120000-ABCDEFG.md",
    "a (conflicted copy 2026-11-23).md",
    "temporary.md",
    "parts.md",
    "#tag.md",
    "trash/a.md",
    "~.md",
]


@pytest.mark.parametrize("path", NOISE)
def test_what_belongs_to_one_device_is_noise(path: str) -> None:
    assert guards.is_noise(path)
    assert guards.is_noise(path.upper().replace(".CLOUD-AGENT-", ".cloud-agent-"))


@pytest.mark.parametrize("path", NO_NOISE)
def test_notes_settings_and_conflict_copies_are_no_noise(path: str) -> None:
    assert not guards.is_noise(path)


def test_the_vault_s_gitignore_says_the_same(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_bytes((ROOT / "vault" / ".gitignore").read_bytes())
    for path in {*NOISE, *NO_NOISE} - {".gitignore", ".stfolder"}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    out = subprocess.run(
        ["git", "-c", "core.excludesFile=", "check-ignore", "-z", "--stdin"],
        cwd=tmp_path,
        input="".join(f"{path}\0" for path in [*NOISE, *NO_NOISE]),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(out.split("\0")) - {""} == set(NOISE)
