"""What the loops call after a step, and the process that sends.

A loop only looks: it reads what is so, brings the ledger in step, and where something is due, starts a process of its
own for it. That one holds the channels' libraries, talks to the network and ends; nothing of it stays, and nobody waits
for it. Each loop looks, so each also tells when another has stopped; which of them starts the process makes no
difference: the process sends, one at a time, and what it sends is the ledger's to say.

A ledger that cannot be written sends nothing: better silent than the same message for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from cloud_agent.alerting import facts, ledger
from cloud_agent.alerting.ledger import Delivery, Ledger
from cloud_agent.config import Config
from cloud_agent.state import Clock, State, read_json
from cloud_agent.vault import lock, try_lock, write_whole

log = logging.getLogger("cloud_agent.alert")

# Between two starts of the sending process, whatever becomes of it.
START_SECONDS = 20.0
# The sending process ends itself after so long, and the loop that started it ends it a little later.
LONGEST_SECONDS = 90.0
# Bytes; libraries and threads take a third of it.
MOST_MEMORY = 400_000_000


def read(state: State) -> Ledger:
    return ledger.load(read_json(_path(state)))


class Teller:
    """For one loop. `command` sends what is due: `cloud-agent alert` with the loop's own settings."""

    def __init__(
        self,
        config: Config,
        state: State,
        clock: Clock,
        command: Sequence[str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.state = state
        self.clock = clock
        self.command = command
        self.monotonic = monotonic
        self.sender: subprocess.Popen[bytes] | None = None
        self.started = float("-inf")

    def look(self) -> None:
        """Have told what is due. Never waits, and never raises: alerts hold nothing up."""
        if self.config.alerts is None:
            return
        try:
            self._look()
        except Exception as error:
            log.error("alerts cannot be looked at (%s: %s)", type(error).__name__, error)

    def _look(self) -> None:
        assert self.config.alerts is not None
        if self._is_sending():
            return
        with try_lock(_lock(self.state)) as free:
            if not free:
                return  # another loop is looking
            kept = _observed(self.config, self.state, self.clock())
        if ledger.due(kept, self.config.alerts, self.clock()) and self.monotonic() - self.started >= START_SECONDS:
            self.started = self.monotonic()
            self.sender = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, start_new_session=True)

    def _is_sending(self) -> bool:
        if self.sender is None:
            return False
        if self.sender.poll() is None:
            if self.monotonic() - self.started < 2 * LONGEST_SECONDS:
                return True
            end_descendants(self.sender.pid)
            self.sender.kill()
            self.sender.wait(5)
        self.sender = None
        return False


def send_due(config: Config, state: State, clock: Clock) -> bool:
    """Send what is due, on all channels side by side, and write down what became of it. False where one failed.

    For a process of its own: it ends what it started (MCP servers), and a thread that does not end is left behind.
    """
    alerts = config.alerts
    assert alerts is not None
    with try_lock(state.folder / "alert-sender.lock") as alone:
        if not alone:
            return True  # another one sends
        with lock(_lock(state)):
            kept = _observed(config, state, clock())
        deliveries = ledger.due(kept, alerts, clock())
        results: dict[str, bool] = {}
        threads = [
            threading.Thread(target=_deliver, args=(delivery, kept, config, state, clock, results), daemon=True)
            for delivery in deliveries
        ]
        for thread in threads:
            thread.start()
        from cloud_agent.alerting.channels import SECONDS

        ends = time.monotonic() + SECONDS + 15.0
        for thread, delivery in zip(threads, deliveries, strict=True):
            thread.join(max(0.0, ends - time.monotonic()))
            if thread.is_alive():
                _record(state, delivery, "unsure", f"it did not end within {SECONDS:g} s", clock())
        return all(results.get(delivery.channel, False) for delivery in deliveries)


def _deliver(
    delivery: Delivery, kept: Ledger, config: Config, state: State, clock: Clock, results: dict[str, bool]
) -> None:
    from cloud_agent.alerting import channels, compose

    assert config.alerts is not None
    try:
        message = compose.compose(delivery, kept, config, state, clock())
        _change(state, lambda now_kept: ledger.begun(now_kept, delivery, clock()))
    except Exception as error:  # nothing went out
        log.exception("an alert cannot be written")
        _record(state, delivery, "failed", f"{type(error).__name__}", clock(), counted=False)
        return
    outcome, why = channels.send(delivery.channel, config.alerts, message)
    _record(state, delivery, outcome, why, clock())
    results[delivery.channel] = outcome == "sent"


def _record(
    state: State, delivery: Delivery, outcome: ledger.Outcome, why: str, now: datetime, *, counted: bool = True
) -> None:
    name = delivery.channel
    with contextlib.suppress(OSError):
        before = read(state).channels.get(name, ledger.Channel())
        if not counted:
            _change(state, lambda kept: ledger.begun(kept, delivery, now))
        _change(state, lambda kept: ledger.ended(kept, delivery, outcome, why, now))
        if outcome == "sent":
            log.info("told %s: %d causes%s", name, len(delivery.keys), "; it works again" if before.failures else "")
        elif not before.failures:
            log.warning("%s does not take alerts: %s", name, why)


def test(config: Config, state: State, show: Callable[[str], object]) -> bool:
    """Send a test message on each channel, one after the other, and say what happened. False where one failed."""
    from cloud_agent.alerting import channels
    from cloud_agent.alerting.text import Message

    assert config.alerts is not None
    message = Message(f"{config.agent_name}: a test", "You are told here what waits for you, and what has stopped.")
    good = True
    for name in config.alerts.channels:
        outcome, why = channels.send(name, config.alerts, message)
        said = {"sent": "sent", "failed": "NOT SENT", "unsure": "NOT SURE whether it was sent"}[outcome]
        show(f"{name}: {said}{f': {why}' if why else ''}")
        good = good and outcome == "sent"
        if outcome == "sent":
            _works(state, name)
    return good


def _works(state: State, name: str) -> None:
    with contextlib.suppress(OSError):
        _change(state, lambda kept: ledger.works(kept, name))


def confine() -> None:
    """Bound what a channel can do to this machine: before anything is sent, by the loops' process or by hand."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    # An answer without end is a MemoryError here, and not the end of a loop that the kernel picks.
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, most))
    with contextlib.suppress(OSError, AttributeError):
        # What a server leaves behind becomes our child (prctl(2), PR_SET_CHILD_SUBREAPER), and is ended with us.
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def become_sender() -> None:
    """Set this process up as the one that sends: it goes on when its loop ends, gives way to it, and does not live
    longer than LONGEST_SECONDS, whatever hangs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which a server that is started would inherit
    os.nice(5)

    def end() -> None:
        time.sleep(LONGEST_SECONDS)
        leave(75)

    threading.Thread(target=end, name="deadline", daemon=True).start()


def leave(status: int) -> None:
    """End this process and all that it started, without waiting for anything."""
    end_descendants(os.getpid())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def end_descendants(pid: int) -> None:
    """Kill all processes below this one (Linux)."""
    for child in _descendants(pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(child, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    open_ones = [pid]
    while open_ones:
        for task in Path(f"/proc/{open_ones.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children = [int(one) for one in task.read_text().split()]
                found += children
                open_ones += children
    return found


# -- the ledger's file -------------------------------------------------------------------------------------------------


def _path(state: State) -> Path:
    return state.folder / "told.json"


def _lock(state: State) -> Path:
    return state.folder / "told.lock"


def _observed(config: Config, state: State, now: datetime) -> Ledger:
    """The ledger in step with what is so. The caller holds its lock."""
    assert config.alerts is not None
    before = read(state)
    after = ledger.observe(before, facts.gather(config, state, before.causes, now), config.alerts, now)
    if after is not before:
        _write(state, after)
    return after


def _change(state: State, change: Callable[[Ledger], Ledger]) -> None:
    with lock(_lock(state)):
        _write(state, change(read(state)))


def _write(state: State, kept: Ledger) -> None:
    write_whole(_path(state), json.dumps(ledger.dump(kept), separators=(",", ":")).encode() + b"\n")
