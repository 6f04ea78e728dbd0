"""Running a step for ever: one interval, clean ends, an early cycle when asked."""

from __future__ import annotations

import contextlib
import logging
import os
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
        # A handler interrupts the main thread anywhere, also while that holds an Event's lock, and must not set one
        # itself: it passes the signal to a thread.
        reader, writer = os.pipe()
        os.set_blocking(writer, False)

        def handle(number: int, _: object) -> None:
            with contextlib.suppress(BlockingIOError):  # as many are waiting as matter
                os.write(writer, bytes([number]))

        def react() -> None:
            while number := os.read(reader, 1):
                if number[0] == signal.SIGUSR1:
                    self._wake.set()
                else:
                    self.request_stop()

        threading.Thread(target=react, name="signals", daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, handle)

    def request_stop(self) -> None:
        self.stop.set()
        self._wake.set()

    def wake(self) -> None:
        """Start the next step at once, or again when the one in hand ends. From any thread."""
        self._wake.set()

    def sleep(self, seconds: float) -> bool:
        """A back-off that a stop cuts short; True when it did."""
        return self.stop.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than until something is asked of us."""
        self._wake.wait(min(max(0.0, seconds), threading.TIMEOUT_MAX))
        self._wake.clear()


def run(step: Callable[[int], float | None], interval: float, signals: Signals, pause: float = 0.0) -> None:
    """Call `step(cycle number)` until a stop is asked for: from one start to the next `interval` seconds; earlier when
    `signals` are woken, or after as many seconds as a step returned.

    Between two steps are at least `pause` seconds, however often it is woken.
    """
    cycle = 0
    while not signals.stop.is_set():
        began = time.monotonic()
        cycle += 1
        again = step(cycle)
        due = interval - (time.monotonic() - began)
        if again is not None:
            due = min(due, again)
        if not signals.sleep(pause):
            signals.wait(due - pause)
    log.info("stopped cleanly")
