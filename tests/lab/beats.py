"""Watching both loops' beats on a target from outside: how long none came, how long a loop was away.

    Watch(lab).start()         a service on the target that notes every beat from now on, also after a reboot
    beats = Watch(lab).beats() what it saw until now
    longest_gap(beats, "draft", began, ended)

Sent to the target, this file is the service: standard library, Python 3.10. Times are seconds of the wall clock (the
lab's machines share this host's).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.lab import Lab

# The loops by their names in state/, and as PM2 calls them.
LOOPS = {"draft": "cloud_orchestrator", "sync": "git_sync_cloud"}
STATE = Path("/opt/personal-ai-employee/state")
# A place that a reboot keeps.
PROGRAM, NOTES = Path("/var/tmp/beats.py"), Path("/var/tmp/beats.jsonl")
UNIT = Path("/etc/systemd/system/beats.service")
SERVICE = f"""[Unit]
Description=Notes every beat of the loops

[Service]
ExecStart=/usr/bin/python3 {PROGRAM}
Restart=always

[Install]
WantedBy=multi-user.target
"""
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Beat:
    """A loop's word that a cycle of this process has ended, at this time."""

    loop: str
    pid: int
    at: float


def longest_gap(beats: Sequence[Beat], loop: str, began: float, ended: float) -> float:
    """Seconds of the longest time without a beat that reached into the time from `began` to `ended`.

    It is counted whole, from a beat before `began` and to the one after `ended`; without one of these it has no end.
    """
    return max((after - before for before, after, _ in _gaps(beats, loop, began, ended)), default=float("inf"))


def downtime(beats: Sequence[Beat], loop: str, began: float, ended: float) -> float:
    """Seconds of the longest time from a process's last beat to its successor's first one; 0.0 where it stayed."""
    return max((after - before for before, after, new in _gaps(beats, loop, began, ended) if new), default=0.0)


def _gaps(beats: Sequence[Beat], loop: str, began: float, ended: float) -> list[tuple[float, float, bool]]:
    """From when to when there was no beat, and whether another process ended that."""
    own = sorted((beat for beat in beats if beat.loop == loop), key=lambda beat: beat.at)
    first, last = Beat(loop, 0, float("-inf")), Beat(loop, 0, float("inf"))
    return [
        (before.at, after.at, before.pid != after.pid)
        for before, after in pairwise([first, *own, last])
        if before.at < ended and after.at > began
    ]


def read(notes: str) -> list[Beat]:
    """The beats of the service's notes; a line that a reboot cut off is none."""
    found = []
    for line in notes.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            found.append(Beat(*json.loads(line)))
    return found


@dataclass(frozen=True)
class Watch:
    """The service on a target of a lab."""

    lab: Lab
    alias: str = "target"

    def start(self) -> None:
        """Note beats from now on, anew."""
        self.stop()
        for path, text in ((PROGRAM, Path(__file__).read_text()), (UNIT, SERVICE)):
            self._run(["sudo", "tee", str(path)], stdin=text)
        self._run(["sudo", "systemctl", "enable", "--quiet", "--now", UNIT.name])

    def stop(self) -> None:
        """Take the service away, and its notes."""
        self._run(["sudo", "systemctl", "disable", "--quiet", "--now", UNIT.name], check=False)
        self._run(["sudo", "rm", "-f", str(PROGRAM), str(NOTES), str(UNIT)])

    def beats(self) -> list[Beat]:
        return read(self._run(["sudo", "cat", str(NOTES)]))

    def _run(self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True) -> str:
        from tests.lab.host import LabError

        try:
            return self.lab.run_on_target(argv, alias=self.alias, stdin=stdin)
        except LabError:
            if check:
                raise
            return ""


# -- on the target -----------------------------------------------------------------------------------------------------


def watch() -> None:
    seen: dict[str, int] = {}
    while True:
        for loop in LOOPS:
            # The time is the file's, so that how often one looks matters only for beats that follow one another fast.
            with contextlib.suppress(OSError, ValueError, KeyError):
                file = STATE / f"{loop}.json"
                written = file.stat().st_mtime_ns
                if seen.get(loop) != written:
                    beat = [loop, json.loads(file.read_text())["pid"], written / 1e9]
                    seen[loop] = written
                    with NOTES.open("a") as notes:
                        notes.write(json.dumps(beat) + "\n")
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    watch()
