"""Git, run with a deadline, an explicit identity and no surprises from the machine's configuration."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import selectors
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# GitPython looks for git when it is imported and must not fail there: our own errors say what to do.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
from git.cmd import Git as GitCommand
from git.exc import GitCommandNotFound

LOCAL_DEADLINE = 120.0
NETWORK_DEADLINE = 60.0
LONGEST_CALL = 3600.0
# When a stop is asked for, the step in hand is ended all the same, unless the remote is silent for so long.
PATIENCE_AT_STOP = 2.0

_GIT = (
    "git", "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "core.autocrlf=false",
    "-c", "core.quotePath=false", "-c", "gc.auto=0", "-c", "gc.autoDetach=false", "-c", "maintenance.auto=false",
    # One small pack a commit, until `gc` joins them: half the time of as many files as there are objects.
    "-c", "fastimport.unpackLimit=1",
    "-c", "protocol.version=0",  # for so small a question, version 2 only adds a round trip
)  # fmt: skip
_UNNAMED = "refs/cloud-agent/unnamed"
# A command that is waited for looks up so often whether a stop is asked for.
_LOOK_UP = 0.25
_REMOTE_COMMANDS = ("ls-remote", "fetch", "push", "clone")

# What git 2.39 says of a broken repository, met by breaking one in every way (tests/integration/test_heal.py). Looked
# for in lower case, in lines that are not the remote's.
_BROKEN = re.compile(
    r"^(?!remote: ).*(?:"
    r"loose object [0-9a-f]+ .*is corrupt|corrupt loose object|object file .+ is empty"
    r"|unable to unpack [0-9a-f]+ header|header for [0-9a-f]+ too long|inflate: |garbage at end of loose object"
    r"|unable to (?:parse|stream) [0-9a-f]{40}"
    r"|hash mismatch|bad object|bad tree object|not a tree object|failed to unpack tree object|bad file$"
    r"|invalid sha1 pointer|unable to (?:read|find) (?:tree |sha1 file of .*)?\(?[0-9a-f]{40}"
    r"|could not read [0-9a-f]{40}"
    r"|could not parse (?:object|head)|not a valid (?:commit|object) name [0-9a-f]{40}|(?:cannot|failed to) read object"
    r"|error reading from .+\.pack"
    r"|missing (?:blob|tree|commit|necessary)(?: ?objects?| [0-9a-f]{40})"
    r"|invalid object [0-7]+ [0-9a-f]{40}|error building trees"
    r"|unknown object type|can't load tree|[0-9a-f]{40}: not a valid sha1"
    r"|is not a git packfile|far too short to be a packfile|does not match index|packfile .+ cannot be accessed"
    r"|wrong index v\d|index file .+ is too small|non-monotonic index|packed object [0-9a-f]+ .*is corrupt"
    r"|did not send all necessary objects|unresolved deltas"
    r"|index file (?:smaller than expected|corrupt|open failed)|bad signature 0x|bad index (?:version|file)"
    r"|unknown index entry|unordered stage entries|broken index|cache entry has null sha1"
    r"|fatal: not a git repository|bad config line|unterminated line in|unexpected line in|ignoring broken ref"
    r"|bad ref for|reference broken|invalid head\b|bad shallow line|corrupt merge_head"
    r")",
    re.MULTILINE,
)

Kinds = tuple[tuple[str, str, str], ...]

# What a failed call means: its stderr, the kind, and what to do. These hold for every command,
_LOCAL_KINDS: Kinds = (
    (r"no space left|disk quota|file system is full", "disk", "the disk is full: free some space"),
    (
        r"unable to create '[^']*\.lock'|another git process|cannot lock ref|unable to lock|could not lock",
        "busy",
        "another git is at work in the vault: it is waited for",
    ),
    (
        r"please tell me who you are|empty ident name|unable to auto-detect email|identity unknown"
        r"|no email was given|unable to look up current user",
        "identity",
        "git knows no author: unset GIT_AUTHOR_* and GIT_COMMITTER_* in the loop's environment",
    ),
)
# and these for a call to the remote.
_REMOTE_KINDS: Kinds = (
    (r"a stop was asked for", "stopped", "the loop is being stopped: it goes on after its next start"),
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
        r"could not resolve|unable to look up|failure in name|name or service not known|no address associated"
        r"|connection (refused|timed out|reset|closed)|timed out|unreachable|no route"
        r"|timeout:|could not read from remote|unable to access|early eof|broken pipe|hung up|did not complete in"
        r"|unexpected disconnect|sideband|bad line length",
        "offline",
        "the remote cannot be reached: nothing to do, it is tried again",
    ),
)


class GitError(Exception):
    """A git command failed. `kind` is one of the kinds above or "git"; the message says what to do."""

    def __init__(self, arguments: Sequence[str], status: int, stderr: str) -> None:
        stderr = re.sub(r"://[^/@\s]+@", "://", stderr)  # a URL may hold a token, and this goes into the vault's logs
        told = [line.strip() for line in stderr.splitlines() if not re.search(r"\d+%", line)]  # all but progress
        said = " ".join(filter(None, told))[-400:]
        self.kind, mend = classify(stderr, remote=arguments[0] in _REMOTE_COMMANDS)
        self.stderr = stderr
        super().__init__(f"{mend or 'git failed'} (git {arguments[0]} ended with {status}: {said})")


def classify(stderr: str, *, remote: bool = True) -> tuple[str, str]:
    """The kind of a failure and what to do about it; `remote`: of a call to the remote. Pure."""
    text = stderr.lower()
    if _BROKEN.search(text):
        return "broken", "the clone is damaged: it is healed in the next cycle, for which the remote must be reached"
    for pattern, kind, mend in (*_REMOTE_KINDS, *_LOCAL_KINDS) if remote else _LOCAL_KINDS:
        if re.search(pattern, text, re.MULTILINE):
            return kind, mend
    return "git", ""


@dataclass(frozen=True)
class Blob:
    """A file in a tree: its mode and the id of its content."""

    mode: str
    oid: str


Changes = dict[str, Blob | None]  # path -> the new file, None where it was deleted


Stdin = bytes | Iterable[bytes]


class _CutShort(Exception):
    """A command has taken too long."""


class Running:
    """A command that was started; `result` waits for it, `cancel` ends it."""

    def __init__(self, git: Git, arguments: Sequence[str], stdin: Stdin | None, deadline: float, index: str | None):
        self._git, self.arguments, self._deadline = git, arguments, deadline
        self._began = self._heard = time.monotonic()
        self._file = None
        if stdin is not None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by result and cancel)
            self._file.writelines([stdin] if isinstance(stdin, bytes) else stdin)
            self._file.seek(0)
        try:
            running = git.command.execute(
                [*_GIT, *arguments],
                istream=self._file,
                as_process=True,
                env=git.environment if index is None else {**git.environment, "GIT_INDEX_FILE": index},
                start_new_session=True,  # PM2's SIGINT to our process group must not tear a git command apart
            )
        except GitCommandNotFound as error:
            raise GitError(arguments, 127, "git is not installed: apt-get install git") from error
        assert running.proc is not None
        self._running = running  # GitPython ends the process when this goes
        self._process: subprocess.Popen[bytes] = running.proc

    def result(self) -> tuple[int, bytes, str]:
        """(exit status, standard output, standard error); 124 at the deadline.

        A call to the remote may take longer for as long as it tells of progress, and is cut short by a stop.
        """
        try:
            out, err = self._drain()
        except _CutShort as reason:
            return 124, b"", str(reason)
        finally:
            self.cancel()
        return self._process.returncode, out, err.decode("utf-8", "replace")

    def cancel(self) -> None:
        """End it; nothing happens to one that has ended."""
        if self._process.poll() is None:
            self._kill()
            self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr, self._file):
            if pipe is not None:
                pipe.close()

    def _drain(self) -> tuple[bytes, bytes]:
        """All that it says until it has ended. Not until its standard error is closed: an ssh that stays behind for the
        next call holds that open. (communicate(timeout=…) would poll for the exit, a millisecond a command.)"""
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        texts: dict[int, bytearray] = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
        out, err = texts
        with contextlib.ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            for descriptor in texts:
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            waited_for = {out}
            if hasattr(os, "pidfd_open"):  # Linux: readable when the process has ended
                ended = os.pidfd_open(process.pid)
                stack.callback(os.close, ended)
                selector.register(ended, selectors.EVENT_READ)
                waited_for.add(ended)
            while waited_for:
                for key, _ in selector.select(_LOOK_UP):
                    if key.fd not in texts or not _read_some(key.fd, texts[key.fd]):
                        selector.unregister(key.fd)
                        waited_for.discard(key.fd)
                    self._heard = time.monotonic()
                if waited_for:
                    self._check_time()
        process.wait()
        while _read_some(err, texts[err]):
            pass
        return bytes(texts[out]), bytes(texts[err])

    def _check_time(self) -> None:
        now = time.monotonic()
        remote = self.arguments[0] in _REMOTE_COMMANDS
        silent = now - (self._heard if remote else self._began) > self._deadline
        if silent or now - self._began > LONGEST_CALL:
            raise _CutShort(f"git did not complete in {self._deadline:g} s")
        if remote and now - self._heard > PATIENCE_AT_STOP and self._git.stopping():
            raise _CutShort("git was given up: a stop was asked for")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # all of its process group: ssh and helpers too


def _read_some(descriptor: int, into: bytearray) -> bool:
    """Whether something came; False at the end, and when there is nothing now."""
    try:
        chunk = os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return False
    into += chunk
    return bool(chunk)


class Git:
    """Git in one working tree. Every call has a deadline; nothing asks for input, nothing is paged or signed.

    A call to the remote is given up once `stopping` says so.
    """

    def __init__(
        self,
        tree: Path,
        agent_name: str,
        ssh_key: Path | None = None,
        control_folder: Path | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.tree = tree
        self.agent_name = agent_name
        self.stopping = stopping
        name, address = f"{agent_name.title()} Agent", "cloud-agent@personal-ai-employee.invalid"
        self.identity = f"{name} <{address}>"
        self.environment = {
            # Said outright: neither a repository around the vault, nor what a hook that starts us has set.
            "GIT_DIR": str(tree / ".git"),
            "GIT_WORK_TREE": str(tree),
            "GIT_INDEX_FILE": str(tree / ".git" / "index"),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_DEFAULT_REF_FORMAT": "files",  # git 3 may choose another, and we read refs
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_EDITOR": "true",
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": address,
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": address,
            "GIT_SSH_COMMAND": ssh_command(ssh_key, control_folder),
        }
        self.command = GitCommand(str(tree))

    def start(
        self, *arguments: str, stdin: Stdin | None = None, deadline: float = LOCAL_DEADLINE, index: str | None = None
    ) -> Running:
        """Start a command and go on; `index` is another index file than the working tree's, `deadline` seconds."""
        return Running(self, arguments, stdin, deadline, index)

    def in_background(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command that nobody waits for, at the lowest priority; it outlives us."""
        return subprocess.Popen(
            ["nice", "-n", "19", *_GIT, *arguments],
            cwd=self.tree,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def run(
        self, *arguments: str, stdin: Stdin | None = None, deadline: float = LOCAL_DEADLINE, index: str | None = None
    ) -> str:
        """Standard output as text (file names that are no UTF-8 survive). Raises GitError."""
        status, out, err = self.attempt(*arguments, stdin=stdin, deadline=deadline, index=index)
        if status != 0:
            raise GitError(arguments, status, err)
        return out

    def attempt(
        self, *arguments: str, stdin: Stdin | None = None, deadline: float = LOCAL_DEADLINE, index: str | None = None
    ) -> tuple[int, str, str]:
        """(exit status, standard output, standard error); the status is not judged."""
        status, out, err = self.attempt_bytes(*arguments, stdin=stdin, deadline=deadline, index=index)
        return status, out.decode("utf-8", "surrogateescape"), err

    def attempt_bytes(
        self, *arguments: str, stdin: Stdin | None = None, deadline: float = LOCAL_DEADLINE, index: str | None = None
    ) -> tuple[int, bytes, str]:
        return self.start(*arguments, stdin=stdin, deadline=deadline, index=index).result()

    def tip(self, ref: str) -> str | None:
        """The commit of a ref, None where there is no such ref."""
        status, out, _ = self.attempt("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        return out.strip() if status == 0 else None

    def commit(
        self,
        parents: Sequence[str],
        changes: Changes,
        message: str,
        when: float,
        ref: str | None = None,
        content: Callable[[str], bytes | None] | None = None,
    ) -> str:
        """Make the commit that has the first parent's files with `changes` (relative to it) and return its id.

        `ref` is moved to it, and must stand at the first parent; without one the commit is nobody's yet. `when` is
        seconds since 1970. `content` gives the bytes of new blobs by path, None for a path that is to be left out;
        without it the blobs are in the store already. One `git fast-import`: it reads and writes only the folders that
        changed, while `read-tree` and `write-tree` take ten times as long in a vault of 50,000 files. Raises GitError.
        """
        branch = ref or _UNNAMED
        encoded = message.encode("utf-8", "surrogateescape")

        def stream() -> Iterator[bytes]:
            yield f"commit {branch}\nmark :1\ncommitter {self.identity} {int(when)} +0000\n".encode()
            yield b"data %d\n%s\n" % (len(encoded), encoded)
            for number, parent in enumerate(parents):
                yield f"{'merge' if number else 'from'} {parent}\n".encode()
            # Removals first: a folder may take a removed file's name.
            for path in (path for path, blob in changes.items() if blob is None):
                yield b"D %s\n" % _quoted(path)
            for path, blob in changes.items():
                if blob is None:
                    continue
                if content is None:
                    yield b"M %s %s %s\n" % (blob.mode.encode(), blob.oid.encode(), _quoted(path))
                elif (data := content(path)) is not None:
                    yield b"M %s inline %s\ndata %d\n" % (blob.mode.encode(), _quoted(path), len(data))
                    yield data + b"\n"
            yield b"\nget-mark :1\n"
            if ref is None:
                yield f"reset {branch}\nfrom {'0' * 40}\n\n".encode()  # no name is left behind

        return self.run("fast-import", "--quiet", stdin=stream()).strip()


def _quoted(path: str) -> bytes:
    """A path for fast-import."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'.encode("utf-8", "surrogateescape")


def blob_id(content: bytes) -> str:
    """The id that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content), usedforsecurity=False).hexdigest()


def nul_ended(lines: Iterable[str]) -> bytes:
    """Standard input for git's `-z`: names that are no UTF-8 survive."""
    return "".join(f"{line}\0" for line in lines).encode("utf-8", "surrogateescape")


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
    if control_folder is not None:
        # A socket's path may have 108 bytes, and ssh appends some while it makes one; git starts ssh in the vault.
        folder = control_folder if re.fullmatch(r"[\w./+-]{1,39}", str(control_folder)) else ".git"
        options += ["ControlMaster=auto", f"ControlPath={folder}/ssh-%C", "ControlPersist=300"]
    identity = f"-i {shlex.quote(str(key))} " if key is not None else ""
    return f"ssh {identity}" + " ".join(f"-o '{option}'" for option in options)
