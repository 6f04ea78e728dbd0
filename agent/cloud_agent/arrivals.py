"""What wakes the draft loop: something arrived in `Inbox/`, or a person decided about something.

A thread that sleeps in the kernel (inotify). It tells that something happened, not what: a pass looks for itself, and
comes at its interval all the same. So whatever is not known for certain wakes the loop.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

from inotify_simple import Event, INotify, flags  # type: ignore[import-untyped]

from cloud_agent.vault import INBOX, TEMPORARY_PREFIX
from cloud_agent.watch import ADVICE, folders_in, unfit

log = logging.getLogger("cloud_agent.arrivals")

# Where a decision shows, with all folders below.
DECISIONS = ("Pending_Approval", "Approved", "Rejected", "Needs_Action")
# Where watching fails, it is tried again after so long.
PATIENCE_SECONDS = 10.0
# Events of a burst are taken together.
GATHER_SECONDS = 0.02

# A file that appeared under its name (also by link(2)), and one that a writer closed. Reading is not among it.
_ARRIVED: int = flags.CREATE | flags.CLOSE_WRITE | flags.MOVED_TO
_GONE: int = flags.DELETE | flags.MOVED_FROM
_FOLDER: int = flags.ONLYDIR | flags.DONT_FOLLOW | flags.EXCL_UNLINK | flags.DELETE_SELF | flags.MOVE_SELF
# The vault itself may be reached by a symbolic link.
_ROOT: int = (_FOLDER | flags.CREATE | flags.MOVED_TO | _GONE) & ~flags.DONT_FOLLOW
# What says that other folders are to be watched than are, or that events were lost.
_ANEW: int = flags.ISDIR | flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.Q_OVERFLOW


class Arrivals:
    """Calls `wake`, from its own thread, when the loop has something to look at."""

    def __init__(self, root: Path, wake: Callable[[], None]) -> None:
        self._root = os.fspath(root)
        self._wake = wake
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._run, name="arrivals", daemon=True)
        self._trouble = ""
        self._inotify: INotify | None = None
        self._top = -1  # the watch of the root: only folders matter there

    def start(self) -> None:
        """Watch from now on: what happens after this call wakes the loop."""
        self._watch()
        self._thread.start()

    def close(self) -> None:
        os.close(self._ended)
        self._thread.join()
        os.close(self._end)

    def _run(self) -> None:
        while True:
            waiting = [self._end] if self._inotify is None else [self._end, self._inotify.fileno()]
            ready, _, _ = select.select(waiting, [], [], PATIENCE_SECONDS if self._inotify is None else None)
            if self._end in ready:
                break
            events: list[Event] = [] if self._inotify is None else list(self._inotify.read(timeout=0))
            if self._inotify is None or any(event.mask & _ANEW for event in events):
                self._watch()
                if self._inotify is not None:
                    self._wake()  # what happened meanwhile was not seen
            elif any(map(self._matters, events)):
                self._wake()
            time.sleep(GATHER_SECONDS)
        if self._inotify is not None:
            self._inotify.close()

    def _matters(self, event: Event) -> bool:
        """Whether it is about a note; not about a file that Cloud writes before it gives it its name."""
        name: str = event.name
        return event.wd != self._top and name.endswith(".md") and not name.startswith(TEMPORARY_PREFIX)

    def _watch(self) -> None:
        """Watch all folders that matter anew. Where that cannot be had it is told once."""
        if self._inotify is not None:
            self._inotify.close()
        inotify = None
        why = ""
        try:
            inotify = INotify(nonblocking=True)
            self._top = inotify.add_watch(self._root, _ROOT)
            self._add(inotify, f"{self._root}/{INBOX}", _FOLDER | _ARRIVED)
            waiting = [f"{self._root}/{name}" for name in DECISIONS]
            while waiting:
                path = waiting.pop()
                if self._add(inotify, path, _FOLDER | _ARRIVED | _GONE):
                    # After its watch: what is made in it from now on is an event.
                    waiting += [f"{path}/{name}" for name in folders_in(path)]
            mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
            why = unfit(mounts, os.path.realpath(self._root))
        except AttributeError:  # the C library of another system
            why = "this system has no inotify"
        except OSError as error:
            why = ADVICE.get(error.errno or 0, str(error))
            if inotify is not None:
                inotify.close()
                inotify = None
        self._inotify = inotify
        if why and why != self._trouble:
            log.warning("a new mail may wait for the next pass (DRAFT_INTERVAL_SECONDS): %s", why)
        self._trouble = why

    @staticmethod
    def _add(inotify: INotify, path: str, mask: int) -> bool:
        try:
            inotify.add_watch(path, mask)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                return False  # the folder above tells when there is one; one that cannot be read is no pass's either
            raise
        return True
