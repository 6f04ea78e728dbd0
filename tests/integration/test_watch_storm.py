"""1,000 messages to a real Dovecot while everything fails: each is in the vault exactly once, and no flag changed.

With SOAK_MINUTES set, so many minutes of it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dovecot import INSTALL_IT, PROGRAM, USER, Dovecot
from tests.watchkit import SOAK, Watched, Wire, imap_settings, message, wait

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=INSTALL_IT)

# What happens in a round, in random order, and how many messages come meanwhile.
FAULTS = ["kill"] * 4 + ["cut"] * 3 + ["restart"] * 2 + ["state"]
MESSAGES = 1000
LARGE = 6_000_000  # bytes; it is taken by a process of its own


@pytest.fixture
def server() -> Iterator[Dovecot]:
    with Dovecot() as running:
        yield running


class Phone(threading.Thread):
    """The owner's, that deletes and moves some mail while it is fetched."""

    def __init__(self, server: Dovecot) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.off = threading.Event()

    def run(self) -> None:
        while not self.off.wait(0.3):
            try:
                self.meddle()
            except Exception:
                time.sleep(0.2)  # the server restarts

    def meddle(self) -> None:
        with self.server.client() as client:
            if not client.folder_exists("Archive"):
                client.create_folder("Archive")
            client.select_folder("INBOX")
            for number, uid in enumerate(client.search(["SUBJECT", "About gone"])):
                if number % 2:
                    client.move([uid], "Archive")
                else:
                    client.delete_messages([uid])
                    client.expunge([uid])


def deliver(server: Dovecot, first: int, count: int, rng: random.Random) -> None:
    for number in range(first, first + count):
        server.deliver(message(f"m{number}", size=LARGE if number % 250 == 100 else 0))
        if number % 20 == 10:  # these come and go
            server.deliver(message(f"gone{number}"))
        time.sleep(rng.uniform(0, 0.01))


def fail(fault: str, server: Dovecot, wire: Wire, watched: Watched, rng: random.Random) -> None:
    if fault == "cut":
        wire.cut()
    elif fault == "restart":
        server.stop()
        time.sleep(rng.uniform(0, 0.5))
        server.start()
    else:
        watched.kill()
        for path in watched.state.glob("*") if fault == "state" else ():
            path.unlink()
        watched.start()


def wait_a_while(watched: Watched, rng: random.Random) -> None:
    """Mostly until it is at work; otherwise it is hit while it starts."""
    if rng.random() < 0.8:
        watched.wait_beat()
        some, end = len(watched.mails()) + rng.randrange(100), time.monotonic() + 4
        while len(watched.mails()) < some and time.monotonic() < end:
            time.sleep(0.02)


def test_each_message_exactly_once_whatever_fails(server: Dovecot, tmp_path: Path) -> None:
    rng = random.Random(7)  # noqa: S311
    server.maildir()
    phone = Phone(server)
    sent, end = 0, time.monotonic() + SOAK * 60
    with Wire(server.tls_port) as wire:
        # Some connections break off by themselves, in the middle of whatever is being said.
        wire.cut_after = lambda: rng.choice([None, None, rng.randrange(200, 400_000)])
        settings = imap_settings(server, IMAP_PORT=wire.port, WATCH_INTERVAL_SECONDS=1)
        with Watched(tmp_path, **settings) as watched:
            watched.start()
            watched.wait_idle(60)
            phone.start()
            while not sent or time.monotonic() < end:
                for fault in rng.sample(FAULTS, len(FAULTS)):
                    deliver(server, sent, MESSAGES // len(FAULTS), rng)
                    sent += MESSAGES // len(FAULTS)
                    wait_a_while(watched, rng)
                    fail(fault, server, wire, watched, rng)
            phone.off.set()
            phone.join()
            wire.cut_after = lambda: None
            wanted = {f"m{number}" for number in range(sent)}
            wait(lambda: len(watched.mails()) >= sent and wanted <= watched.marks().keys(), 120, watched.tail)
            assert watched.stop() == 0
            marks = watched.marks()
            assert {mark: count for mark, count in marks.items() if count != 1} == {}
            assert not (watched.vault / "Logs/Cloud/unparseable").exists()
            assert watched.once().returncode == 0
            assert watched.marks() == marks
    flags = server.flags(USER)
    assert len(flags) >= sent
    assert set(flags.values()) <= {(), (rb"\Recent",)}
