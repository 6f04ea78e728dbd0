"""Git run with a deadline, an identity and no surprises."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_agent.git import Git, GitError, classify, ssh_command

from tests import gitkit


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    gitkit.git(tmp_path, "init", "-q", "--initial-branch=main", "vault")
    return tmp_path / "vault"


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


def living(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if word in command and int(entry.name) != os.getpid():
                found.append(command)
    return found


@pytest.mark.parametrize("scheme", ["git", "http"])
def test_deadline_kills_a_silent_remote(repository: Path, silent_server: int, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{silent_server}/vault.git"
    began = time.monotonic()
    with pytest.raises(GitError) as caught:
        Git(repository, "cloud").run("fetch", url, deadline=0.5)
    assert time.monotonic() - began < 5
    assert caught.value.kind == "offline"
    time.sleep(0.1)
    assert living(url) == [], "the helper outlived git"


def test_deadline_kills_a_silent_ssh(repository: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet-ssh"
    seconds = f"4242.{os.getpid()}"  # this run's own
    quiet.write_text(f"#!/bin/sh\nsleep {seconds} &\nwait\n")
    quiet.chmod(0o755)
    git = Git(repository, "cloud")
    git.environment["GIT_SSH_COMMAND"] = str(quiet)
    began = time.monotonic()
    with pytest.raises(GitError, match="did not complete"):
        git.run("fetch", "git@example.invalid:x/y.git", deadline=0.5)
    assert time.monotonic() - began < 5
    time.sleep(0.1)
    assert living(f"sleep\x00{seconds}") == []


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("git@github.com: Permission denied (publickey).\nfatal: Could not read from remote repository.", "refused"),
        ("ERROR: Permission to a/b.git denied to deploy key\nfatal: Could not read from remote repository.", "refused"),
        ("ERROR: The key you are authenticating with has been marked as read only.\nfatal: Could not read from remote",
         "refused"),
        ("fatal: Authentication failed for 'https://github.com/a/b.git/'", "refused"),
        ("fatal: could not read Username for 'https://github.com': terminal prompts disabled", "refused"),
        ("fatal: unable to access 'https://x/': The requested URL returned error: 403", "refused"),
        ("Host key verification failed.\nfatal: Could not read from remote repository.", "host key"),
        ("No ED25519 host key is known for github.com and you have requested strict checking.", "host key"),
        ("ERROR: Repository not found.\nfatal: Could not read from remote repository.", "missing"),
        ("fatal: '/x.git' does not appear to be a git repository\nfatal: Could not read from remote", "missing"),
        ("fatal: repository 'https://github.com/a/b.git/' not found", "missing"),
        ("fatal: unable to access 'https://x/': SSL certificate problem: unable to get local issuer certificate",
         "certificate"),
        ("fatal: unable to access 'https://x/': server certificate verification failed.", "certificate"),
        (" ! [rejected]        HEAD -> main (fetch first)\nerror: failed to push some refs to 'x'", "rejected"),
        (" ! [rejected]        HEAD -> main (non-fast-forward)", "rejected"),
        (" ! [remote rejected] HEAD -> main (cannot lock ref 'refs/heads/main')", "rejected"),
        (" ! [remote rejected] HEAD -> main (pre-receive hook declined)", "declined"),
        ("ssh: Could not resolve hostname github.com: Temporary failure in name resolution", "offline"),
        ("ssh: connect to host github.com port 22: Connection timed out", "offline"),
        ("ssh: connect to host github.com port 22: Network is unreachable", "offline"),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", "offline"),
        ("kex_exchange_identification: Connection closed by remote host", "offline"),
        ("fatal: the remote end hung up unexpectedly", "offline"),
        ("git did not complete in 60 s", "offline"),
        ("error: file write error: No space left on device", "disk"),
        ("fatal: bad object 0123", "broken"),
    ],
)  # fmt: skip
def test_what_the_remote_said(stderr: str, kind: str) -> None:
    assert classify(stderr)[0] == kind
    assert (classify(stderr)[1] != "") == (kind != "git")


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        (
            "fatal: Unable to create '/v/.git/index.lock': File exists.\n\nAnother git process seems to be running",
            "busy",
        ),
        ("fatal: cannot lock ref 'HEAD': is at 1 but expected 2", "busy"),
        ("fatal: cannot open 'x': No such file or directory", "git"),  # no word about the remote
        ("error: unable to write file: No space left on device", "disk"),
    ],
)
def test_what_a_local_command_said(stderr: str, kind: str) -> None:
    assert GitError(["commit"], 128, stderr).kind == kind


def test_error_keeps_a_token_to_itself() -> None:
    error = GitError(["fetch"], 128, "fatal: unable to access 'https://me:s3cret@host/x.git': Could not resolve host")
    assert "s3cret" not in str(error) + error.stderr
    assert error.kind == "offline"


def test_identity_and_no_configuration(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty HOME: git must not ask who we are (a missing identity looks like a conflict to others)."""
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    git = Git(repository, "cloud")
    git.run("commit", "--allow-empty", "-m", "x")
    said = git.run("log", "-1", "--format=%an|%cn|%ae").strip()
    assert said == "Cloud Agent|Cloud Agent|cloud-agent@personal-ai-employee.invalid"


def test_configuration_of_the_machine_does_not_matter(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text(
        "[user]\nname=Me\nemail=me@x\n[commit]\ngpgSign=true\n[core]\nautocrlf=true\neditor=false\n"
        f"hooksPath={tmp_path}/hooks\n"
    )
    hook = tmp_path / "hooks" / "pre-commit"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (repository / "a.md").write_bytes(b"x\r\n")
    git = Git(repository, "cloud")
    git.run("add", "a.md")
    git.run("commit", "-m", "x")
    assert git.attempt_bytes("cat-file", "blob", "HEAD:a.md")[1] == b"x\r\n"
    assert git.run("log", "-1", "--format=%an").strip() == "Cloud Agent"


def test_variables_of_a_hook_do_not_lead_astray(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gitkit.git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / "index"))
    Git(repository, "cloud").run("commit", "--allow-empty", "-m", "x")
    assert (repository / ".git" / "refs" / "heads" / "main").exists()


def test_repository_around_the_vault_is_left_alone(tmp_path: Path) -> None:
    gitkit.git(tmp_path, "init", "-q", ".")
    (tmp_path / "vault").mkdir()
    status, _, _ = Git(tmp_path / "vault", "cloud").attempt("rev-parse", "--git-dir")
    assert status != 0


def test_names_that_are_no_utf8_survive(repository: Path) -> None:
    name = b"caf\xe9 \n'*.md".decode("utf-8", "surrogateescape")
    gitkit.write(repository, name, "x")
    git = Git(repository, "cloud")
    git.run("update-index", "--add", "-z", "--stdin", stdin=f"{name}\0".encode("utf-8", "surrogateescape"))
    assert git.run("ls-files", "-z") == f"{name}\0"


def test_failure_names_command_and_words(repository: Path) -> None:
    with pytest.raises(GitError, match=r"git cat-file ended with 128: .*nonsense"):
        Git(repository, "cloud").run("cat-file", "blob", "nonsense")


def test_ssh_uses_our_key_alone_and_never_asks(tmp_path: Path) -> None:
    command = ssh_command(Path("/k e/id"), Path("/opt/x/state"))
    assert "-i '/k e/id'" in command
    for option in ("IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=yes", "ControlPersist"):
        assert option in command
    assert "ControlPath=/opt/x/state/ssh-%C" in command
    # ssh would take the blank for an end, and a socket's path is short: git starts ssh in the vault.
    for folder in ("/a b/state", "/" + "x" * 60):
        assert "ControlPath=.git/ssh-%C" in ssh_command(None, Path(folder))
