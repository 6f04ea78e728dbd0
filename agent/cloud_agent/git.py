"""Git, run with a deadline, an explicit identity and no surprises from the machine's configuration."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

# GitPython looks for git when it is imported and must not fail there: our own errors say what to do.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
from git.cmd import Git as GitCommand
from git.exc import GitCommandNotFound

LOCAL_DEADLINE = 120.0
NETWORK_DEADLINE = 60.0

Kinds = tuple[tuple[str, str, str], ...]

# What a failed call means: its stderr, the kind, and what to do. These hold for every command,
_LOCAL_KINDS: Kinds = (
    (r"no space left|disk quota|file system is full", "disk", "the disk is full: free some space"),
    (
        r"unable to create '[^']*\.lock'|another git process|cannot lock ref|unable to lock|could not lock",
        "busy",
        "another git is at work in the vault: it is waited for",
    ),
)
# and these for a call to the remote.
_REMOTE_KINDS: Kinds = (
    (
        r"permission denied \(|authentication failed|could not read username|access denied|key.* not authori[sz]ed"
        r"|permission to .* denied|marked as read.only|returned error: 40[13]|write access to repository not granted",
        "refused",
        "the remote refuses our key: register the deploy key with write access (README, Your own machine)",
    ),
    (
        r"host key verification failed|remote host identification has changed|no .* host key is known",
        "host key",
        "the remote's host key is not the pinned one: check it, then correct deploy_key_known_hosts",
    ),
    (
        r"repository not found|does not appear to be a git repository|not found$|no such (file|remote)|does not exist",
        "missing",
        "there is no such repository: correct GIT_REMOTE_URL, or create it",
    ),
    (
        r"certificate|ssl_error|unable to get local issuer|self.signed",
        "certificate",
        "the remote's certificate is not trusted: add the CA that signed it (extra CA certificates, base role)",
    ),
    (
        r"hook declined|protected branch|branch is protected",
        "declined",
        "the remote's own rules refuse the push: let the deploy key push to this branch (branch protection, hooks)",
    ),
    (
        r"\[rejected\]|\[remote rejected\]|fetch first|non-fast-forward|failed to update ref",
        "rejected",
        "the remote took no push: what it has is joined and tried again",
    ),
    (
        r"could not resolve|failure in name|connection (refused|timed out|reset|closed)|timed out|unreachable|no route"
        r"|timeout:|could not read from remote|unable to access|early eof|broken pipe|hung up|did not complete in",
        "offline",
        "the remote cannot be reached: nothing to do, it is tried again",
    ),
)


class GitError(Exception):
    """A git command failed. `kind` is one of the kinds above or "git"; the message says what to do."""

    def __init__(self, arguments: Sequence[str], status: int, stderr: str) -> None:
        stderr = re.sub(r"://[^/@\s]+@", "://", stderr)  # a URL may hold a token, and this goes into the vault's logs
        said = " ".join(line.strip() for line in stderr.splitlines() if line.strip())[-400:]
        self.kind, mend = classify(stderr, remote=arguments[0] in ("fetch", "push"))
        self.stderr = stderr
        super().__init__(f"{mend or 'git failed'} (git {arguments[0]} ended with {status}: {said})")


def classify(stderr: str, *, remote: bool = True) -> tuple[str, str]:
    """The kind of a failure and what to do about it; `remote`: of a call to the remote. Pure."""
    text = stderr.lower()
    for pattern, kind, mend in (*_REMOTE_KINDS, *_LOCAL_KINDS) if remote else _LOCAL_KINDS:
        if re.search(pattern, text, re.MULTILINE):
            return kind, mend
    return "git", ""


class Git:
    """Git in one working tree. Every call has a deadline; nothing asks for input, nothing is paged or signed."""

    def __init__(
        self, tree: Path, agent_name: str, ssh_key: Path | None = None, control_folder: Path | None = None
    ) -> None:
        self.tree = tree
        self.agent_name = agent_name
        name = f"{agent_name.title()} Agent"
        self.environment = {
            # Said outright: neither a repository around the vault, nor what a hook that starts us has set.
            "GIT_DIR": str(tree / ".git"),
            "GIT_WORK_TREE": str(tree),
            "GIT_INDEX_FILE": str(tree / ".git" / "index"),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_EDITOR": "true",
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": "cloud-agent@personal-ai-employee.invalid",
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": "cloud-agent@personal-ai-employee.invalid",
            "GIT_SSH_COMMAND": ssh_command(ssh_key, control_folder),
        }
        self._command = GitCommand(str(tree))

    def run(
        self, *arguments: str, stdin: bytes | None = None, deadline: float = LOCAL_DEADLINE, index: str | None = None
    ) -> str:
        """Standard output as text (file names that are no UTF-8 survive). Raises GitError.

        `index` is another index file than the working tree's; `deadline` is seconds.
        """
        status, out, err = self.attempt(*arguments, stdin=stdin, deadline=deadline, index=index)
        if status != 0:
            raise GitError(arguments, status, err)
        return out

    def attempt(
        self, *arguments: str, stdin: bytes | None = None, deadline: float = LOCAL_DEADLINE, index: str | None = None
    ) -> tuple[int, str, str]:
        """(exit status, standard output, standard error); the status is not judged."""
        status, out, err = self.attempt_bytes(*arguments, stdin=stdin, deadline=deadline, index=index)
        return status, out.decode("utf-8", "surrogateescape"), err

    def attempt_bytes(
        self, *arguments: str, stdin: bytes | None = None, deadline: float = LOCAL_DEADLINE, index: str | None = None
    ) -> tuple[int, bytes, str]:
        # fmt: off
        command = [
            "git", "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "core.autocrlf=false",
            "-c", "core.quotePath=false", "-c", "gc.autoDetach=true", *arguments,
        ]
        # fmt: on
        with tempfile.TemporaryFile() as file:
            if stdin is not None:
                file.write(stdin)
                file.seek(0)
            try:
                running = self._command.execute(
                    command,
                    istream=file if stdin is not None else None,
                    as_process=True,
                    env=self.environment if index is None else {**self.environment, "GIT_INDEX_FILE": index},
                    start_new_session=True,  # PM2's SIGINT to our process group must not tear a git command apart
                )
            except GitCommandNotFound as error:
                raise GitError(arguments, 127, "git is not installed: apt-get install git") from error
            assert running.proc is not None  # GitPython ends the process when `running` goes
            status, out, err = _finish(running.proc, deadline)
        return status, out, err.decode("utf-8", "replace")

    def tip(self, ref: str) -> str | None:
        """The commit of a ref, None where there is no such ref."""
        status, out, _ = self.attempt("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        return out.strip() if status == 0 else None


def nul_ended(lines: Iterable[str]) -> bytes:
    """Standard input for git's `-z`: names that are no UTF-8 survive."""
    return "".join(f"{line}\0" for line in lines).encode("utf-8", "surrogateescape")


def _finish(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, bytes, bytes]:
    """Wait for a command, and kill all of its process group at the deadline: ssh and helpers too."""
    try:
        out, err = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 124, b"", f"git did not complete in {deadline:g} s".encode()
    return process.returncode, out, err


def ssh_command(key: Path | None, control_folder: Path | None) -> str:
    """The ssh that git uses: our key alone, pinned host keys, no prompt, one connection kept between cycles."""
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ConnectTimeout=15",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=3",
    ]
    if key is not None:
        options.append("IdentitiesOnly=yes")
    # A socket's path may have 108 bytes; ssh appends some while it makes one.
    if control_folder is not None and re.fullmatch(r"[\w./+-]{1,39}", str(control_folder)):
        options += ["ControlMaster=auto", f"ControlPath={control_folder}/ssh-%C", "ControlPersist=300"]
    identity = f"-i {shlex.quote(str(key))} " if key is not None else ""
    return f"ssh {identity}" + " ".join(f"-o '{option}'" for option in options)
