"""Running a step for ever: one interval, clean ends, an early cycle when asked."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable

log = logging.getLogger("cloud_agent")


class Signals:
    """SIGINT and SIGTERM end the loop after the step in hand; SIGUSR1 starts the next one at once."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._wake = threading.Event()

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.request_stop())
        signal.signal(signal.SIGUSR1, lambda *_: self._wake.set())

    def request_stop(self) -> None:
        self.stop.set()
        self._wake.set()

    def sleep(self, seconds: float) -> None:
        """A back-off that a stop cuts short."""
        self.stop.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than until something is asked of us."""
        self._wake.wait(max(0.0, seconds))
        self._wake.clear()


def run(step: Callable[[int], None], interval: float, signals: Signals) -> None:
    """Call `step(cycle number)`, from one start to the next `interval` seconds, until a stop is asked for."""
    cycle = 0
    while not signals.stop.is_set():
        began = time.monotonic()
        cycle += 1
        step(cycle)
        if not signals.stop.is_set():
            signals.wait(interval - (time.monotonic() - began))
    log.info("stopped cleanly")
