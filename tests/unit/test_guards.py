"""What may be committed."""

import os
import time
from pathlib import Path

import pytest
from cloud_agent import guards
from hypothesis import given
from hypothesis import strategies as st


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


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
        "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----",
        "sk-ant-" + "api03-" + "a" * 30,
        "ghp_" + "a" * 36,
        "github_pat_" + "a" * 50,
        "glpat-" + "a" * 20,
        "AKIA" + "A" * 16,
        "xoxb-" + "1" * 24,
        "ya29." + "a" * 40,
        "AIza" + "a" * 35,
        "sk_live_" + "a" * 24,
    ],
)
def test_secrets_in_text_are_held(tmp_path: Path, secret: str) -> None:
    assert "key or a token" in (objection(tmp_path, "a.md", f"see {secret} here\n".encode()) or "")


def test_own_credential_is_held_whatever_its_form(tmp_path: Path) -> None:
    assert "key or a token" in (
        objection(tmp_path, "a.md", b"it is hunter2-hunter2", own_secrets=["hunter2-hunter2"]) or ""
    )
    assert objection(tmp_path, "b.md", b"it is not", own_secrets=["hunter2-hunter2"]) is None


@pytest.mark.parametrize("text", ["sk-ant-short", "ask-ant-eater", "AKIA is a name", "ghp_123", "risk_live_music"])
def test_words_that_look_alike_pass(tmp_path: Path, text: str) -> None:
    assert objection(tmp_path, "a.md", text.encode()) is None


def test_large_links_folders_and_unreadable(tmp_path: Path) -> None:
    with (tmp_path / "big.md").open("wb") as file:
        file.truncate(guards.MAX_BYTES + 1)
    assert "50 MB" in (guards.objection(tmp_path, "big.md") or "")
    (tmp_path / "link.md").symlink_to("/etc/passwd")
    assert "link" in (guards.objection(tmp_path, "link.md") or "")
    os.mkfifo(tmp_path / "pipe.md")
    assert "regular" in (guards.objection(tmp_path, "pipe.md") or "")
    assert "repository of its own" in (guards.objection(tmp_path, "nested/") or "")
    assert "cannot be read" in (guards.objection(tmp_path, "absent.md") or "")


def test_file_below_a_linked_folder_is_held(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.md").write_text("x")
    (tmp_path / "Inbox").symlink_to("elsewhere")
    assert "symbolic link" in (guards.objection(tmp_path, "Inbox/a.md") or "")


CONFLICT = b"a\n<<<<<<< ours\nb\n=======\nc\n>>>>>>> theirs\n"


@pytest.mark.parametrize("content", [CONFLICT, CONFLICT.replace(b"\n", b"\r\n"), CONFLICT.rstrip(b"\n")])
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
    ],
)
def test_text_that_is_no_conflict_passes(tmp_path: Path, content: bytes) -> None:
    assert objection(tmp_path, "a.md", content) is None


def test_a_mail_full_of_markers_does_not_stall_the_loop() -> None:
    """A mail is written by anybody: a regex with two lazy gaps took hours on this one."""
    began = time.monotonic()
    assert not guards.has_conflict_markers(b"<<<<<<< a\n" * 100_000 + b"=======\n" * 100_000)
    assert time.monotonic() - began < 2


def test_mass_deletion() -> None:
    assert guards.is_mass_deletion(["x"] * 11, 30)
    assert not guards.is_mass_deletion(["x"] * 10, 10)  # a small vault may be emptied
    assert not guards.is_mass_deletion(["x"] * 11, 33)


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


def test_half_written_files_of_ours_are_ignored() -> None:
    assert guards.is_ours_to_ignore("Inbox/.cloud-agent-0a1b.tmp")
    assert not guards.is_ours_to_ignore("Inbox/cloud-agent.md")
