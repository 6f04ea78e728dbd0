"""From a new message in a mailbox to its mail in the inbox, and to its draft: a real Dovecot, with IDLE over TLS.

The commands `cloud-agent watch` and `cloud-agent draft`, the server and the stand-in of the Messages API are processes
of their own. Beside them a bare client of the same library idles on the same folder: what it needs to hear of a message
is the server's share. After each turn the outcome is checked; a wrong one ends the run.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cloud_agent

from benchmarks.drafting import LATENCY, Agent, cpu_of, make_vault, model, verdict
from benchmarks.sync import WrongOutcome, machine, say, table, temporary_folder
from tests.dovecot import Dovecot
from tests.watchkit import Watched, imap_settings, message

RUNS = 25
BURST = 1000
LARGE = 50_000_000  # bytes
IDLE_SECONDS = 61
ASKED_SECONDS = 1.0
ASKED_MEMORY = 45.0  # MB


class Bench:
    """A watcher and a drafting loop on one vault, and Dovecot."""

    def __init__(self, root: Path, server: Dovecot, url: str) -> None:
        self.server = server
        self.agent = Agent(root, 10, url)
        make_vault(self.agent.vault, 10)
        self.watched = Watched(root / "watch", **imap_settings(server))
        self.told: list[float] = []  # seconds until a bare client heard of it
        self.inbox: list[float] = []
        self.drafts: list[float] = []

    def start_watching(self) -> None:
        self.watched.vault = self.agent.vault
        self.watched.configure(**imap_settings(self.server))
        self.watched.start()
        self.watched.wait_idle()

    def count(self, name: str) -> int:
        return sum(1 for _ in self.agent.vault.glob(name))

    def hear(self) -> float:
        """A message, and how long the server takes to tell of it."""
        with self.server.client() as client:
            client.select_folder("INBOX", readonly=True)
            client.idle()
            began = time.perf_counter()
            self.server.deliver(message(f"bare{began}"))
            client.idle_check(20)
            took = time.perf_counter() - began
            client.idle_done()
        return took

    def turn(self, name: str) -> float:
        """A message, and how long until one file more has this name."""
        before = self.count(name)
        began = time.perf_counter()
        self.server.deliver(message(f"m{began}"))
        wait(lambda: self.count(name) > before, 30)
        return time.perf_counter() - began


def wait(until: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise WrongOutcome(f"it did not happen in {seconds:g} s")
        time.sleep(0.0005)


def measure(root: Path, runs: int, draw: random.Random) -> list[Sequence[str]]:
    say("compiling as roles/agent does")
    folders = [sysconfig.get_paths()["purelib"], str(Path(cloud_agent.__file__).parent)]
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-o", "2", *folders], check=True)
    rows: list[Sequence[str]] = []
    with Dovecot() as server, model(LATENCY) as url:
        server.maildir()
        bench = Bench(root, server, url)
        try:
            bench.start_watching()
            pid = bench.watched.process.pid if bench.watched.process is not None else 0
            for _ in range(runs):
                time.sleep(draw.uniform(1.0, 2.0))  # Dovecot gathers what comes within half a second
                bench.inbox.append(bench.turn("Inbox/EMAIL_*.md"))
            memory = bench.watched.memory()
            busy = cpu_of(pid)
            time.sleep(IDLE_SECONDS)
            idle = (cpu_of(pid) - busy) / IDLE_SECONDS * 3600
            for _ in range(runs):
                time.sleep(draw.uniform(1.0, 2.0))
                bench.told.append(bench.hear())
            say("a burst, and a large one")
            time.sleep(3)  # until the last of these is in the inbox too
            before, began = bench.count("Inbox/EMAIL_*.md"), time.perf_counter()
            for number in range(BURST):
                server.deliver(message(f"burst{number}"))
            wait(lambda: bench.count("Inbox/EMAIL_*.md") == before + BURST, 120)
            burst = BURST / (time.perf_counter() - began)
            time.sleep(1)
            memory_after = bench.watched.memory()
            huge = time.perf_counter()
            server.deliver(message("huge", size=LARGE))
            wait(lambda: bench.count("Inbox/EMAIL_*.md") == before + BURST + 1, 120)
            huge = time.perf_counter() - huge
            peak = bench.watched.peak_memory()
            for path in bench.agent.vault.glob("Inbox/EMAIL_*.md"):
                path.unlink()
            say("with the drafting loop")
            bench.agent.start()
            for _ in range(runs):
                time.sleep(draw.uniform(1.0, 2.0))
                bench.drafts.append(bench.turn("Pending_Approval/Email/EMAIL_DRAFT_*.md") - LATENCY)
            # Each message once, in spite of it all.
            if bench.count("*/*/EMAIL_DRAFT_*") != 10 + runs:
                raise WrongOutcome(f"{bench.count('*/*/EMAIL_DRAFT_*')} drafts")
        finally:
            bench.agent.stop()
            bench.watched.kill()
    for what, times, asked in (
        ("a new message in Dovecot until a bare client in IDLE hears of it (the server's share)", bench.told, None),
        ("… until its mail is in the inbox", bench.inbox, ASKED_SECONDS),
        ("… until its draft is on disk, less the model's latency", bench.drafts, ASKED_SECONDS),
    ):
        bound = verdict(statistics.median(times), asked, " s") if asked is not None else ""
        rows.append((what, f"{statistics.median(times):.3f} s (worst of {runs}: {max(times):.3f})", bound))
    return [
        *rows,
        ("resident memory, idle in IDLE", f"{memory:.1f} MB", verdict(memory, ASKED_MEMORY, " MB")),
        (f"… after {BURST:,} messages", f"{memory_after:.1f} MB", verdict(memory_after, ASKED_MEMORY, " MB")),
        (f"… its peak, with a message of {LARGE // 1_000_000} MB", f"{peak:.1f} MB", ""),
        (f"a message of {LARGE // 1_000_000} MB until its mail is in the inbox", f"{huge:.1f} s", ""),
        (f"{BURST:,} messages at once", f"{burst:.0f} a second", ""),
        ("CPU in an hour, idle in IDLE", f"{idle:.1f} s", ""),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watch", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help=f"measured turns of each (default {RUNS})")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))  # and its folders are removed
    began = machine()
    try:
        with temporary_folder() as root:
            rows = measure(root, options.runs, random.Random())  # noqa: S311
    except WrongOutcome as wrong:
        print(f"bench: {wrong}", file=sys.stderr)
        return 1
    head = table(["what", "measured", "bound"], rows, 3)
    print(f"{began}; medians of {options.runs} ({time.strftime('%F')}).\n\n{head}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
