"""What `cloud-agent watch` is put together from: the configured source, intake, and the bell that wakes the loop."""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from cloud_agent.config import Config, GmailBox, ImapBox, MaildirBox
from cloud_agent.intake import Intake, Known, NoMessage
from cloud_agent.mailbox import AT_ONCE, Crashed, NotAMessage, Outcome, Report, Source, Watcher
from cloud_agent.state import Clock, State

__all__ = ["Bell", "Report", "Watcher", "make", "next_look", "source_of"]

# A message of 160 MB takes some ten seconds; what takes longer hangs.
APART_SECONDS = 300.0
EX_DATAERR = 65
# RFC 2177: a server may take a client for gone that idles for half an hour.
RENEW_SECONDS = 25 * 60.0


def source_of(box: ImapBox | GmailBox | MaildirBox, config: Config, clock: Clock) -> Source:
    """The source, which has not connected yet. Each kind imports what it alone needs."""
    state, since_days = config.state_path, config.watch_since_days
    if isinstance(box, MaildirBox):
        from cloud_agent.maildir import Maildir

        return Maildir(box, state, clock, since_days)
    tokens = None
    if box.oauth is not None:
        from cloud_agent.oauth import Http, Tokens

        http = Http(box.ca_file)
        tokens = Tokens(box.oauth, http, State(state).renewed_token)
        if isinstance(box, GmailBox):
            from cloud_agent.gmail import Gmail

            return Gmail(box, http, tokens, state, clock, since_days)
    assert isinstance(box, ImapBox)
    from cloud_agent.imap import Imap

    return Imap(box, tokens, state, clock, since_days, time.monotonic)


def make(
    config: Config, source: Source, command: Sequence[str], state: State, clock: Clock, stop: threading.Event
) -> Watcher:
    """The watcher of a source, with intake behind it. `command` takes in what stands on its standard input."""
    intake = Intake(config, state, clock)

    def take(raw: bytes) -> Outcome:
        try:
            return "known" if isinstance(intake.take(raw), Known) else "taken"
        except NoMessage as why:
            raise NotAMessage(str(why)) from why

    def take_apart(path: Path) -> Outcome:
        # On standard input: there a message is one message, and no mbox.
        try:
            with open(path, "rb") as file:
                done = subprocess.run(command, stdin=file, capture_output=True, timeout=APART_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise Crashed(f"intake was not done after {APART_SECONDS:.0f} s") from None
        if done.returncode == 0:
            return "taken"
        if done.returncode > 0:
            _raise(done.returncode, done.stderr.decode("utf-8", "replace").strip()[-500:])
        raise Crashed(f"intake ended by signal {-done.returncode}")

    return Watcher(config, source, take, take_apart, state, clock, stop)


def _raise(status: int, said: str) -> NoReturn:
    if status == EX_DATAERR:
        raise NotAMessage(said)
    if status == os.EX_TEMPFAIL:
        raise OSError(said or "intake could not write")
    raise Crashed(f"intake ended with status {status}: {said}")


def next_look(retry_in: float | None, listening: bool) -> float | None:
    """In how many seconds the loop is to look again, however long its interval is; None: at its interval."""
    return retry_in if not listening else min(retry_in or RENEW_SECONDS, RENEW_SECONDS)


class Bell:
    """Calls `wake`, from a thread of its own, once a file descriptor can be read. Sleeps in the kernel meanwhile."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._reader, self._writer = os.pipe()
        self._armed: int | None = None
        self._quiet = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="bell", daemon=True).start()

    def arm(self, fileno: int | None) -> None:
        """Ring once when this can be read; AT_ONCE rings now; None never."""
        if fileno == AT_ONCE:
            self._wake()
        elif fileno is not None:
            self._set(fileno)

    def disarm(self) -> None:
        """When this returns nobody looks at the descriptor any more: it may be read, and closed."""
        self._set(None)
        self._quiet.wait()

    def _set(self, fileno: int | None) -> None:
        with self._lock:
            self._armed = fileno
            self._quiet.clear()
        os.write(self._writer, b"x")

    def _run(self) -> None:
        while True:
            with self._lock:
                armed = self._armed
                if armed is None:
                    self._quiet.set()
            # poll, because the number may be above 1023
            poller = select.poll()
            poller.register(self._reader, select.POLLIN)
            if armed is not None:
                poller.register(armed, select.POLLIN)
            ready = {descriptor for descriptor, _ in poller.poll()}
            if self._reader in ready:
                os.read(self._reader, 4096)
            elif armed in ready:
                with self._lock:
                    if self._armed == armed:
                        self._armed = None
                self._wake()
