"""Which paths of the vault were touched since the last question, so that a quiet vault costs no scan.

One inotify watch a folder. The kernel queues an event before the call that caused it returns: whatever finished before
`changed` is called, is in its answer.

Not seen by inotify: a write through a hard link that has another name, a mount made over a folder of the vault later
on. Who asks looks at everything now and then all the same.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import sys
import termios
from pathlib import Path

# Not watchdog, which holds events back for half a second, nor watchfiles, which collects them in a thread.
from inotify_simple import INotify, flags, parse_events  # type: ignore[import-untyped]

from cloud_agent.vault import TEMPORARY_PREFIX

log = logging.getLogger("cloud_agent.watch")

# More paths than this are not remembered: to look at everything is as quick then.
MOST_PATHS = 10_000
# Where watching fails, it is tried again after so many questions.
PATIENCE = 100
CHUNK = 64 * 1024

# What changes a content, a mode or a name. Reading is not among it.
_EVENTS: int = (
    flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB
)
_FOLDER: int = _EVENTS | flags.ONLYDIR | flags.DONT_FOLLOW | flags.EXCL_UNLINK
# The vault itself may be reached by a symbolic link. What becomes of any other folder, the one above it tells.
_ROOT: int = _EVENTS | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR | flags.EXCL_UNLINK
_ROOT_LOST: int = flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED
_ALL_LOST: int = flags.Q_OVERFLOW | flags.UNMOUNT
_ISDIR: int = flags.ISDIR

# File systems that only this machine writes to. On others inotify is silent about what is changed elsewhere.
_LOCAL = frozenset("ext2 ext3 ext4 xfs btrfs zfs f2fs bcachefs jfs nilfs2 tmpfs ramfs overlay".split())
ADVICE = {
    errno.ENOSPC: "inotify has no watch left: set fs.inotify.max_user_watches=524288 with sysctl, and in /etc/sysctl.d",
    errno.EMFILE: "inotify has no room left: set fs.inotify.max_user_instances=512 with sysctl, and in /etc/sysctl.d",
}


class Lost(Exception):
    """What happened since the last question is not known."""


class Watch:
    """The watch over the vault at `root`. Nothing is opened before the first question; one thread asks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tree: _Tree | None = None
        self._wait = 0
        self._trouble = ""

    def changed(self) -> set[str] | None:
        """Files and folders that may have changed since the last call; None: not known, anything may have.

        Paths are relative, with `/`, as the file system spells them (surrogateescape). A folder stands for all that is
        below it. The vault's own `.git` is not looked at; a nested repository's stands for the folder that it is in.
        """
        try:
            if self._tree is not None:
                return self._tree.drain()
        except (Lost, OSError) as reason:
            log.debug("the whole vault is to be looked at: %s", reason)
        self.close()
        self._open()
        return None

    def close(self) -> None:
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    def _open(self) -> None:
        """Watch everything anew. Where that fails it is told once, and not tried again for a while."""
        if self._wait > 0:
            self._wait -= 1
            return
        try:
            self._tree = _Tree(os.fspath(self._root))
        except (Lost, OSError) as error:
            if not self._root.is_dir():
                return  # to look for it costs nothing, and the sync says so
            self._wait = PATIENCE
            why = ADVICE.get(getattr(error, "errno", None) or 0, str(error))
            if why != self._trouble:
                log.warning("the vault is not watched, so that each cycle looks at all its files: %s", why)
                self._trouble = why
            return
        if self._trouble:
            log.info("the vault is watched again")
            self._trouble = ""


class _Folder:
    """A watched folder. Its watch `wd` goes with it when it is moved; `above` and `name` are where it was seen last."""

    __slots__ = ("above", "below", "name", "wd")

    def __init__(self, wd: int) -> None:
        self.wd = wd
        self.above: _Folder | None = None
        self.name = ""
        self.below: dict[str, _Folder] = {}

    def path(self, name: str = "") -> str:
        """The relative path of the folder, or of a name in it."""
        parts = [name] if name else []
        folder = self
        while folder.above is not None:
            parts.append(folder.name)
            folder = folder.above
        return "/".join(reversed(parts))

    def is_at_or_above(self, other: _Folder) -> bool:
        at: _Folder | None = other
        while at is not None and at is not self:
            at = at.above
        return at is self


class _Tree:
    """One inotify instance and the folders that it watches.

    An event says what was; the path it had may have another folder by now. So events are not replayed: a folder that
    one of them is about is looked up as it is now. What changes after that look causes an event of its own.
    """

    def __init__(self, root: str) -> None:
        """Watch everything below `root`. Raises Lost or OSError where that cannot be had."""
        self._root = root
        try:
            self._inotify = INotify(nonblocking=True)
        except AttributeError as error:  # the C library of another system
            raise Lost("this system has no inotify") from error
        try:
            why = unfit(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"), os.path.realpath(root))
            if why:
                raise Lost(why)
            # Before the watch: another folder put in its place meanwhile is found out by the next question.
            self._identity = self._identify()
            self._top = _Folder(self._inotify.add_watch(root, _ROOT))
            self._folders = {self._top.wd: self._top}
            self._watch_below(self._top)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._inotify.close()

    def drain(self) -> set[str]:
        """What the events that are queued by now are about. Raises Lost, and OSError when a watch cannot be had."""
        if self._identify() != self._identity:
            raise Lost("another folder is in the vault's place")
        touched: set[str] = set()
        folders: dict[tuple[int, str], None] = {}
        # No more than there is now: a writer that never rests would keep us here for ever.
        left = int.from_bytes(fcntl.ioctl(self._inotify, termios.FIONREAD, bytes(4)), sys.byteorder)
        while left > 0:
            data = os.read(self._inotify.fileno(), CHUNK)
            left -= len(data)
            for wd, mask, _, name in parse_events(data):
                self._take(wd, mask, name, touched, folders)
            if len(touched) > MOST_PATHS:
                raise Lost(f"more than {MOST_PATHS} paths changed")
        # After the events, each once: a folder moved to and fro a thousand times is walked through once.
        for wd, name in folders:
            parent = self._folders.get(wd)
            below = None if parent is None else self._settle(parent, name)
            if below is not None:
                self._watch_below(below)
        return touched

    def _identify(self) -> tuple[int, int]:
        status = os.stat(self._root)
        return status.st_dev, status.st_ino

    def _take(self, wd: int, mask: int, name: str, touched: set[str], folders: dict[tuple[int, str], None]) -> None:
        """Note what one event is about: a path in `touched`, a folder to look up in `folders`."""
        if mask & _ALL_LOST or (wd == self._top.wd and mask & _ROOT_LOST):
            raise Lost("too many events at once" if mask & flags.Q_OVERFLOW else "the vault went away")
        folder = self._folders.get(wd)
        # Of no folder of ours: it was moved or removed, and that was told. Without a name: about the folder itself,
        # which the one above tells too.
        if folder is None or not name or _is_temporary(name, mask):
            return
        if name == ".git":
            if folder is not self._top:
                touched.add(folder.path())
            return
        touched.add(folder.path(name))
        if mask & _ISDIR:
            folders[wd, name] = None

    def _watch_below(self, folder: _Folder) -> None:
        """Watch all folders below a watched one. The watch comes first: what is made after the look is an event."""
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            for name in folders_in(self._absolute(folder.path())):
                below = self._settle(folder, name)
                if below is not None:
                    waiting.append(below)

    def _settle(self, parent: _Folder, name: str) -> _Folder | None:
        """Bring what is known of a name in line with what is there now; the folder, if it is one."""
        there = parent.below.get(name)
        wd = self._add_watch(self._absolute(parent.path(name)))
        found = None if wd is None else self._folders.get(wd)
        if found is not None:
            if found.is_at_or_above(parent):
                return None  # `parent` itself was moved: the event that says so is still to come
            if found is there:
                return there
            # It was moved here. Off its old place first: that may be below the folder whose place it takes.
            assert found.above is not None
            del found.above.below[found.name]
        if there is not None:
            self._forget(there)
        if wd is None:
            return None
        if found is None:
            found = self._folders[wd] = _Folder(wd)
        found.above, found.name = parent, name
        parent.below[name] = found
        return found

    def _add_watch(self, path: str) -> int | None:
        """The watch of a folder: the same again for one that has a watch. None where there is no folder."""
        try:
            wd: int = self._inotify.add_watch(path, _FOLDER)
            return wd
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return None
            if error.errno != errno.EACCES:
                raise
            if os.access(path, os.X_OK):  # its files can be seen by who knows their names
                raise Lost(f"{path} cannot be listed: give it to the agent's user") from error
            return None  # nothing in it can be seen until its mode changes, which is an event

    def _forget(self, folder: _Folder) -> None:
        assert folder.above is not None
        del folder.above.below[folder.name]
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            waiting += folder.below.values()
            del self._folders[folder.wd]
            with contextlib.suppress(OSError):  # it ended with the folder
                self._inotify.rm_watch(folder.wd)

    def _absolute(self, path: str) -> str:
        return f"{self._root}/{path}"


def unfit(mounts: str, root: str) -> str:
    """Why inotify does not see all changes below `root`, an absolute path; "" if it does.

    `mounts` is the text of /proc/self/mountinfo: proc(5).
    """
    best, kind = "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split(" ")[4])
        if point.startswith(f"{root}/"):
            return f"{point} is a mount of its own: mount it outside of the vault"
        # Of mounts on the same place the last is the one that is seen.
        if f"{root}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(best):
            best, kind = point, rest.split(" ")[0]
    return "" if kind in _LOCAL else f"its file system, {kind or 'unknown'}, may be written to from elsewhere"


def folders_in(path: str) -> list[str]:
    """Names of the folders in a folder; none where it cannot be read."""
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.name != ".git" and entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # since it is watched: an event
        return []


def _is_temporary(name: str, mask: int) -> bool:
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(".tmp") and not mask & _ISDIR
