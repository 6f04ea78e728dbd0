"""A Maildir that something else fills (mbsync, getmail, procmail, a mail server): its files are read and left there.

A message is known by its unique name, the part of the file's name before `:` (maildir(5)), whatever folder and flags
it has. Which ones are done is kept in the state folder, a line for each that comes (+) or goes (-), and a digest of the
set in the vault. The lines are read up to where they have that digest: what follows was not recorded as taken. Where
they never have it one of the two is not what it was, and the folder is gone over by the times of its files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from cloud_agent.config import MaildirBox
from cloud_agent.mailbox import AT_ONCE, LARGE_BYTES, Arrived, Position, Unreachable, look_back, parse_time
from cloud_agent.state import Clock, iso
from cloud_agent.vault import write_whole
from cloud_agent.watch import ADVICE

log = logging.getLogger("cloud_agent.maildir")

_ARRIVED: int = flags.CREATE | flags.MOVED_TO | flags.CLOSE_WRITE | flags.ONLYDIR


class Maildir:
    """The source."""

    def __init__(self, box: MaildirBox, state: Path, clock: Clock, since_days: float) -> None:
        self.name = f"maildir:{box.path}"
        self.root = box.path
        self.clock = clock
        self.since_days = since_days
        self.cache = state / "watch-maildir.txt"
        self.done: set[str] | None = None  # unique names
        self.digest = 0
        self.inotify: INotify | None = None
        self.silent = False

    def messages(self, position: Position | None, recorded: datetime | None) -> Iterator[Arrived]:
        """See Source."""
        if self.inotify is not None:
            self.inotify.read(timeout=0)  # what they tell is looked for below
        begin = parse_time((position or {}).get("begin", ""))
        since = None
        if begin is None or position is None:
            begin = since = self.clock() - timedelta(days=self.since_days)
        elif self.done is None and not self._load(position.get("done", "")):
            since = look_back(begin, recorded)
        if since is not None:
            self._begin(unique for unique, path in self._files() if _written(path) < since)
            yield Arrived("", self._position(begin))
        assert self.done is not None
        gone, fresh = set(self.done), dict[str, str]()
        for unique, path in self._files():  # what is done is not kept: people have 200,000 mails
            gone.discard(unique)
            if unique not in self.done:
                fresh[unique] = path
        for unique in gone:
            self._note("-", unique)
        unreadable = ""
        for unique in sorted(fresh):
            try:
                content = _content(Path(fresh[unique]))
            except OSError as error:  # it holds nothing up, and is tried again
                unreadable = f"{fresh[unique]} cannot be read ({error.strerror}): give it to the agent's user"
                continue
            if content is None:
                continue  # renamed meanwhile: its flags changed. The next pass finds it.
            self._note("+", unique)
            yield Arrived(f"file {unique}", self._position(begin), content)
        if gone:
            yield Arrived("", self._position(begin))
        if unreadable:
            raise Unreachable(unreadable)

    def listen(self) -> int | None:
        """See Source."""
        if self.inotify is None:
            try:
                self.inotify = INotify(nonblocking=True)
                for name in ("new", "cur"):
                    self.inotify.add_watch(f"{self.root}/{name}", _ARRIVED)
            except (OSError, AttributeError) as error:
                self.close()
                if not self.silent:
                    why = ADVICE.get(getattr(error, "errno", None) or 0, str(error))
                    log.warning("a mail may wait for the next pass (WATCH_INTERVAL_SECONDS): %s", why)
                self.silent = True
                return None
            return AT_ONCE  # what came before the watch
        fileno: int = self.inotify.fileno()
        return fileno

    def close(self) -> None:
        """See Source."""
        if self.inotify is not None:
            self.inotify.close()
            self.inotify = None
        self.done = None

    leave = close

    def _files(self) -> Iterator[tuple[str, str]]:
        """Unique name, path. What is moved from `new` to `cur` meanwhile comes once or twice, and is not missed."""
        for folder in ("new", "cur"):
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                            yield entry.name.split(":")[0], entry.path
            except OSError as error:
                raise Unreachable(
                    f"the Maildir cannot be read ({error}): correct MAILDIR_PATH, or its rights"
                ) from None

    def _position(self, begin: datetime) -> Position:
        return {"begin": iso(begin), "done": f"{self.digest:032x}"}

    # -- what is done ----------------------------------------------------------------------------------------------

    def _note(self, sign: str, unique: str) -> None:
        """Before the position that counts it is recorded. Raises OSError."""
        assert self.done is not None
        with open(self.cache, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{sign}{unique}\n")
        self.done ^= {unique}
        self.digest ^= _digest(unique)

    def _begin(self, done: Iterable[str]) -> None:
        """Keep this set alone. Raises OSError."""
        self.done = set(done)
        self.digest = 0
        for unique in self.done:
            self.digest ^= _digest(unique)
        lines = "".join(f"+{unique}\n" for unique in self.done)
        write_whole(self.cache, lines.encode("utf-8", "surrogateescape"))

    def _load(self, recorded: str) -> bool:
        """Whether the set that was recorded is known, and read."""
        done: set[str] = set()
        best: set[str] | None = None if recorded != f"{0:032x}" else set()
        digest = 0
        with contextlib.suppress(OSError), open(self.cache, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                unique = line[1:].rstrip("\n")
                done ^= {unique}
                digest ^= _digest(unique)
                if f"{digest:032x}" == recorded:
                    best = set(done)
        if best is not None:
            self._begin(best)
        return best is not None


def _digest(unique: str) -> int:
    """Of a set: of its names by XOR, so that it grows and shrinks with it."""
    return int.from_bytes(hashlib.sha256(unique.encode("utf-8", "surrogateescape")).digest()[:16], "big")


def _written(path: str) -> datetime:
    """When a file was delivered; long ago where it is gone."""
    try:
        return datetime.fromtimestamp(os.stat(path, follow_symlinks=False).st_mtime, UTC)
    except OSError:
        return datetime.fromtimestamp(0, UTC)


def _content(path: Path) -> bytes | Path | None:
    """The message, or where it lies if it is large; None where it is gone. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                return None
            return file.read() if about.st_size < LARGE_BYTES else path
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
