"""The vault on disk. All of Cloud's writing to it goes through this one class.

Cloud may write only in the rows of DESIGN §3 that are Cloud's: `_writable` is that rule, in one place. Every file
appears whole (written beside, synced to disk, renamed). Symbolic links are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cloud_agent.mail import DRAFT_PREFIX, is_mail_name

INBOX = "Inbox"
PENDING = "Pending_Approval/Email"
NEEDS_ACTION = "Needs_Action/Email"
IN_PROGRESS = "In_Progress"
LOCAL = "local"  # the owner's side, and the folder below IN_PROGRESS that is the owner's
DONE = "Done/Email"
SKIPPED = "Done/Skipped"
AUDIT = "Logs/Cloud"
UNPARSEABLE = "Logs/Cloud/unparseable"
HANDBOOK = "Company_Handbook.md"
TEMPORARY_PREFIX = ".cloud-agent-"
_NO_NAMES = frozenset(("", ".", ".."))  # not one part of a path may be any of these

# A mail that nobody has open for writing is taken once it was still for so long: `echo a > x; echo b >> x`.
STILL_SECONDS = 0.1
# Where it cannot be known whether anybody has it open.
UNSURE_SECONDS = 1.0
# Who has had it open for so long, and has written nothing, has forgotten to close it.
LONGEST_WRITE_SECONDS = 60.0


class ForbiddenPath(Exception):
    """Cloud was about to write where it may not. A fault of the program, never to be caught and ignored."""


class Vault:
    """The vault of one agent. Paths are relative, with `/`. Only `intake` lays mails into the inbox."""

    def __init__(self, root: Path, agent_name: str = "cloud", *, intake: bool = False) -> None:
        self.root = root
        self.intake = intake
        self.in_progress = f"{IN_PROGRESS}/{agent_name}"

    def read(self, path: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError, and OSError for a symbolic link or a folder."""
        with self.open(path) as file:
            return file.read()

    def open(self, path: str) -> BinaryIO:
        """A file to be read in parts. Raises as `read` does."""
        descriptor = os.open(self._real(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return open(descriptor, "rb")

    def read_text(self, path: str) -> str:
        """A note as text, "" where there is none; bytes that are no UTF-8 are replaced."""
        try:
            return self.read(path).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.root / path)

    def is_file(self, path: str) -> bool:
        """Whether a regular file lies there, and no link or folder."""
        try:
            return stat.S_ISREG(os.stat(self._real(path), follow_symlinks=False).st_mode)
        except (FileNotFoundError, NotADirectoryError, ForbiddenPath):
            return False

    def folders(self, folder: str) -> list[str]:
        """Paths of the folders in a folder, sorted; none where there is no such folder."""
        try:
            with os.scandir(self.folder(folder)) as entries:
                return sorted(f"{folder}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def names(self, folder: str) -> list[str]:
        """Names of the regular `.md` files of a folder, sorted; none where there is no such folder."""
        try:
            with os.scandir(self.folder(folder)) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if entry.name.endswith(".md")
                    and not entry.name.startswith(".")
                    and entry.is_file(follow_symlinks=False)
                )
        except (FileNotFoundError, NotADirectoryError):
            return []

    def age(self, path: str) -> float:
        """Seconds since a file was last written."""
        return time.time() - os.stat(self._real(path), follow_symlinks=False).st_mtime

    def unfinished(self, path: str, still: float = STILL_SECONDS) -> float:
        """Seconds until a file can be taken for finished, if nobody touches it any more; 0.0: it can be now.

        A script or an editor may be writing it, and may open it again to add more. Raises OSError where it is gone.
        """
        descriptor = os.open(self._real(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            age = time.time() - os.fstat(descriptor).st_mtime
            if age < 0:
                return 0.0  # the clock was set back
            if age < LONGEST_WRITE_SECONDS:
                written = _is_open_for_writing(descriptor)
                still = {True: LONGEST_WRITE_SECONDS, False: still, None: max(still, UNSURE_SECONDS)}[written]
            return max(0.0, still - age)
        finally:
            os.close(descriptor)

    def folder(self, path: str) -> Path:
        """The real path of a folder. Raises ForbiddenPath where a symbolic link leads there."""
        return self._resolve(f"{path}/-").parent

    def create(self, path: str, content: bytes) -> None:
        """Write a new file. Raises FileExistsError rather than overwrite."""
        target = self._writable(path)
        temporary = self._write_beside(target, content)
        try:
            os.link(temporary, target, follow_symlinks=False)
        finally:
            os.unlink(temporary)
        _sync_folder(target.parent)

    def replace(self, path: str, content: bytes) -> None:
        """Write a file that is Cloud's own to rewrite (the Dashboard)."""
        target = self._writable(path)
        if target.is_symlink():
            raise ForbiddenPath(f"{path} is a symbolic link")
        temporary = self._write_beside(target, content)
        os.rename(temporary, target)
        _sync_folder(target.parent)

    def append(self, path: str, content: bytes, header: bytes = b"") -> None:
        """Add to a log of Cloud's in one write; `header` comes first in a new file. A line that is cut off is ended."""
        target = self._writable(path)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(target, flags, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            before = header if not size else b"" if os.pread(descriptor, 1, size - 1) == b"\n" else b"\n"
            left = before + content
            while left:  # a full disk takes a part of it, and only the next write says why
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not size:
            _sync_folder(target.parent)

    def write_numbered(self, path: str, content: bytes) -> str:
        """Create a file under this name, or the next free one; return the name."""
        for candidate in _numbered(path):
            with contextlib.suppress(FileExistsError):
                self.create(candidate, content)
                return candidate
        raise AssertionError("endless candidates")

    def place(self, path: str, content: bytes) -> str:
        """Have a file with this content under this name or the next free one; return the name. Safe to do again."""
        for candidate in _numbered(path):
            if not self.exists(candidate):
                self.create(candidate, content)
                return candidate
            with contextlib.suppress(OSError):  # taken by what cannot be read: a folder, a link
                if self.read(candidate) == content:
                    return candidate
        raise AssertionError("endless candidates")

    def remove(self, path: str, was: bytes) -> None:
        """Remove a mail of which a copy lies elsewhere. Raises OSError when it is not what it `was` any more."""
        origin = self._removable(path)
        if self.read(path) != was:
            raise OSError(errno.EBUSY, "it was written to meanwhile: it stays", path)
        os.unlink(origin)
        _sync_folder(origin.parent)

    def move(self, source: str, target: str, content: bytes, was: bytes) -> str:
        """Move a mail, annotated to `content` from what it `was`, and return where it went; or annotate it in place.

        Never overwrites: a name that is taken by another content gets a number. Killed half-way, the mail stands in
        both places, and the same move done again ends with one.
        """
        self._removable(source)
        if source == target:
            self._rewrite(source, content, was)
            return target
        placed = self.place(target, content)
        self.remove(source, was)
        return placed

    def _rewrite(self, path: str, content: bytes, was: bytes) -> None:
        target = self._writable(path)
        temporary = self._write_beside(target, content)
        try:
            if self.read(path) != was:
                raise OSError(errno.EBUSY, "it was written to meanwhile: it stays as it is", path)
            os.rename(temporary, target)
        except OSError:
            os.unlink(temporary)
            raise
        _sync_folder(target.parent)

    def _writable(self, path: str) -> Path:
        """THE GUARD: the rows of DESIGN §3 that Cloud writes. Returns the real path, its folder made."""
        pure = PurePosixPath(path)
        folder = pure.parent.as_posix()
        allowed = (
            path == "Dashboard.md"
            or (folder == PENDING and pure.name.startswith(DRAFT_PREFIX))
            or (folder in (self.in_progress, NEEDS_ACTION, DONE, SKIPPED) and is_mail_name(pure.name))
            or folder in (UNPARSEABLE, AUDIT, "Logs/API_Usage")
            or (self.intake and folder == INBOX and is_mail_name(pure.name))
        )
        if not allowed:
            raise ForbiddenPath(f"Cloud does not write {path}")
        resolved = self._resolve(path)
        try:
            resolved.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # to `write_numbered` that would be a name that is taken, and so would all others
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(resolved.parent)) from None
        return resolved

    def _removable(self, path: str) -> Path:
        """Cloud takes mail out of the inbox and out of its own folders, and removes nothing else."""
        if PurePosixPath(path).parent.as_posix() not in (INBOX, self.in_progress, NEEDS_ACTION):
            raise ForbiddenPath(f"Cloud does not remove {path}")
        return self._resolve(path)

    def _resolve(self, path: str) -> Path:
        return Path(self._real(path))

    def _real(self, path: str) -> str:
        # No pathlib: it keeps the parts of every path that it sees, and there are many mails.
        parts = path.split("/")
        if "\0" in path or not _NO_NAMES.isdisjoint(parts):
            raise ForbiddenPath(f"not a path inside the vault: {path!r}")
        folder = os.fspath(self.root)
        for part in parts[:-1]:
            folder = f"{folder}/{part}"
            if os.path.islink(folder):
                raise ForbiddenPath(f"{folder} is a symbolic link")
        return f"{self.root}/{path}"

    def _write_beside(self, target: Path, content: bytes) -> Path:
        # The name is ignored by git and by every reader here: a kill leaves at most such a file.
        temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.unlink(temporary)
            raise
        return temporary


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock between processes; the kernel frees it when its holder dies. Waits as long as it takes."""
    descriptor = _locked(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """The same where nobody holds it: whether it was got."""
    descriptor = hold(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def hold(path: Path) -> int | None:
    """Take the lock for as long as this process lives, or its descriptor is open; None where another one has it."""
    try:
        return _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def _locked(path: Path, how: int) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_whole(path: Path, content: bytes) -> None:
    """Write a file of the state folder so that a reader sees the old or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.rename(temporary, path)


def _is_open_for_writing(descriptor: int) -> bool | None:
    """Whether anybody has a file open for writing, or mapped; None where that cannot be known: the file is another
    user's, or its file system has no leases.

    The kernel grants a read lease (fcntl(2), F_SETLEASE) on a file that nobody has open for writing, and on no other.
    Who opens it while the lease is held waits until it is given back, here at once.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None  # no Linux
    try:
        # The signal of a lease that is to be given back: by default SIGIO, which ends a process. This one is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def _numbered(path: str) -> Iterator[str]:
    yield path
    stem = path.removesuffix(".md")
    number = 2
    while True:
        yield f"{stem}.{number}.md"
        number += 1


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
