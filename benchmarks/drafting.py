"""From a mail to its draft: the running command `cloud-agent draft` against a stand-in of the Messages API.

The agent's process, its vault on disk and the HTTP calls are real; the model's latency is set, and known. Vaults with
few and with many decided mails take turns in random order; after each turn the outcome is checked: one draft, whole,
and the mail in progress. A wrong outcome ends the run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import cloud_agent
from cloud_agent import approval, frontmatter
from cloud_agent.mail import envelope, parse

from benchmarks.sync import ENVIRONMENT, WrongOutcome, machine, say, table, temporary_folder
from tests.helpers import NOON
from tests.standins import messages_api

FEW, MANY = 10, 10_000
RUNS = 25
STARTS = 3
BURSTS = 3
IDLE_PASSES = 30
LATENCY, BURST_LATENCY = 0.2, 1.0  # of the model, seconds
BURST, CONCURRENCY = 64, 8
WAYS = {"renamed": "written beside and renamed", "written": "written in place"}

ASKED_SECONDS = 0.3
ASKED_GROWTH = 4 / 3
ASKED_BURST = 1.15
ASKED_IDLE_CPU = 20.0  # ms
ASKED_MEMORY = 90.0  # MB

FOLDERS = (
    "Inbox In_Progress/cloud Pending_Approval/Email Approved/Email Rejected/Email Done/Email Done/Skipped"
    " Needs_Action/Email Logs/Cloud Logs/API_Usage"
).split()


# -- the vault ---------------------------------------------------------------------------------------------------------


def mail_text(name: str, number: int) -> str:
    """A mail of 1.5 KB; three of four answer the one before."""
    head = (
        f'---\nemail_id: {name}\nfrom: "Ann Example {number}" <ann{number % 50}@example.org>\nto: owner@example.com\n'
        f"subject: Question {number} about the invoice\ndate: Mon, 16 Feb 2026 10:{number % 60:02}:00 +0000\n"
        f"message_id: <{name}@mail.example.org>\n"
    )
    if number % 4:
        first, before = (name.replace(str(number), str(other)) for other in (number - number % 4, number - 1))
        head += f"in_reply_to: <{before}@mail.example.org>\n"
        head += f"references: <{first}@mail.example.org> <{before}@mail.example.org>\n"
    body = "Could you tell me when the invoice of last month will be paid? Many thanks.\n" * 15
    return f"{head}received: 2026-02-16T10:00:00Z\n---\n\n{body}"


def make_vault(vault: Path, decided: int) -> None:
    """A vault with so many mails in Done/Email, and their drafts approved or rejected."""
    for folder in FOLDERS:
        (vault / folder).mkdir(parents=True)
    (vault / "Dashboard.md").write_text("# Dashboard\n\n## Updates\n")
    (vault / "Company_Handbook.md").write_text("# Handbook\n\nOffice hours: 9 to 17.\n" * 20)
    for number in range(decided):
        name = f"m{number}"
        text = mail_text(name, number)
        mail = parse(f"EMAIL_{name}.md", text.encode())
        to = envelope(mail)
        assert to is not None
        draft = approval.Draft(
            "Dear Ann,\n\n" + "I will look into it.\n" * 10, "A question.", "high", (), (), "claude-x", "2"
        )
        noted = {"decision": "reply", "reason": "its draft was decided", "drafted_as": f"EMAIL_DRAFT_{name}"}
        decision = "Rejected" if number % 5 == 0 else "Approved"
        (vault / f"Done/Email/EMAIL_{name}.md").write_text(frontmatter.annotate(text, noted))
        (vault / f"{decision}/Email/EMAIL_DRAFT_{name}.md").write_text(approval.render(mail, to, draft, NOON))
    subprocess.run(["git", "init", "-q", "-b", "main", str(vault)], check=True)


# -- the processes -----------------------------------------------------------------------------------------------------


@contextmanager
def model(latency: float) -> Iterator[str]:
    """The stand-in, in a process of its own; its URL."""
    command = [sys.executable, messages_api.__file__, "--port", "0", "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


@dataclass
class Agent:
    """An agent on a vault; what was measured of it. Times in seconds, CPU in ms, memory in MB (10^6)."""

    root: Path
    decided: int
    url: str
    waits: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    starts: list[float] = field(default_factory=list)
    bursts: list[float] = field(default_factory=list)
    idle_cpu: float = 0.0
    memory: float = 0.0
    process: subprocess.Popen[bytes] | None = None

    @property
    def vault(self) -> Path:
        return self.root / "vault"

    def start(self, **settings: object) -> None:
        """Start the command, and wait for the end of its first pass."""
        told = {
            "VAULT_PATH": self.vault,
            "GIT_REMOTE_URL": self.root / "none.git",
            "CLAUDE_API_KEY": "a-key-of-no-known-form",
            "CLAUDE_BASE_URL": self.url,
            "STATE_PATH": self.root / "state",
            "DRAFT_CONCURRENCY": CONCURRENCY,
            **settings,
        }
        env_file = self.root / ".env.cloud"
        env_file.write_text("".join(f"{key}={value}\n" for key, value in told.items()))
        env_file.chmod(0o600)
        self._beat().unlink(missing_ok=True)
        command = [sys.executable, "-m", "cloud_agent", "--env-file", str(env_file), "draft"]
        environment = {**ENVIRONMENT, "PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        environment["PYTHONOPTIMIZE"] = "2"  # as in ecosystem.config.js
        began = time.perf_counter()
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=self.root, stdout=log, stderr=log)
        self._wait_for(self._beat().exists, 60)
        self.starts.append(time.perf_counter() - began)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self.process = None

    def turn(self, way: str, name: str, *, measured: bool) -> None:
        """Lay a mail into the inbox and wait for its draft."""
        draft = self.vault / f"Pending_Approval/Email/EMAIL_DRAFT_{name}.md"
        self._lay(way, name)
        began = time.perf_counter()
        self._wait_for(draft.exists, 30, 0.0005)
        took = time.perf_counter() - began
        self._check(name)
        if measured:
            self.waits[way].append(took - LATENCY)

    def burst(self, number: int) -> None:
        """Lay BURST mails into the inbox at once and wait for all drafts."""
        names = [f"b{number}x{one:02}" for one in range(BURST)]
        began = time.perf_counter()
        for name in names:
            self._lay("renamed", name)
        last = [self.vault / f"Pending_Approval/Email/EMAIL_DRAFT_{name}.md" for name in names]
        self._wait_for(lambda: all(path.exists() for path in last), 120, 0.02)
        self.bursts.append(time.perf_counter() - began)
        for name in names:
            self._check(name)

    def measure_idle(self) -> None:
        """CPU of a pass where nothing is new. Not in the first seconds: a folder that just changed is listed again."""
        self._wait_for_passes(4)
        first, began = cpu_of(self._pid()), self._passes()
        self._wait_for_passes(IDLE_PASSES)
        self.idle_cpu = (cpu_of(self._pid()) - first) * 1000 / (self._passes() - began)

    def measure_memory(self) -> None:
        lines = Path(f"/proc/{self._pid()}/status").read_text().splitlines()
        line = next(line for line in lines if line.startswith("VmRSS:"))
        self.memory = max(self.memory, int(line.split()[1]) * 1024 / 1e6)

    def _lay(self, way: str, name: str) -> None:
        text = mail_text(name, 0)
        target = self.vault / f"Inbox/EMAIL_{name}.md"
        if way == "written":
            target.write_text(text)
            return
        beside = self.root / "beside"
        beside.write_text(text)
        beside.rename(target)

    def _check(self, name: str) -> None:
        taken = self.vault / f"In_Progress/cloud/EMAIL_{name}.md"
        inbox = self.vault / f"Inbox/EMAIL_{name}.md"
        self._wait_for(lambda: taken.exists() and not inbox.exists(), 30, 0.001)
        drafts = list(self.vault.glob(f"*/*/EMAIL_DRAFT_{name}*"))
        if len(drafts) != 1 or "The original mail" not in drafts[0].read_text():
            raise WrongOutcome(f"{name} became {[str(path) for path in drafts]}")

    def _wait_for(self, condition: Callable[[], object], seconds: float, look: float = 0.005) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or self.process is None or self.process.poll() is not None:
                raise WrongOutcome(f"it did not happen in {seconds:g} s: {(self.root / 'log').read_text()[-2000:]}")
            time.sleep(look)

    def _wait_for_passes(self, count: int) -> None:
        until = self._passes() + count
        self._wait_for(lambda: self._passes() >= until, 60 + 5 * count, 0.1)

    def _passes(self) -> int:
        return int(json.loads(self._beat().read_text())["cycle"])

    def _beat(self) -> Path:
        return self.root / "state/draft.json"

    def _pid(self) -> int:
        assert self.process is not None
        return self.process.pid


def cpu_of(pid: int) -> float:
    """Seconds that the threads of a process have run: the first figure of schedstat is in ns."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


# -- measuring and telling ---------------------------------------------------------------------------------------------


def measure(root: Path, runs: int, draw: random.Random) -> tuple[Agent, Agent]:
    say("compiling as roles/agent does")
    folders = [sysconfig.get_paths()["purelib"], str(Path(cloud_agent.__file__).parent)]
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-o", "2", *folders], check=True)
    say("making the vaults")
    for size in (FEW, MANY):
        make_vault(root / str(size) / "vault", size)
    with model(LATENCY) as url, model(BURST_LATENCY) as slow_url:
        few, many = agents = [Agent(root / str(size), size, url) for size in (FEW, MANY)]
        try:
            for number in range(STARTS):
                for agent in agents:
                    agent.start()
                    if number < STARTS - 1:
                        agent.stop()
            for run in range(-1, runs):  # the first one warms up: it opens the connection
                turns = [(agent, way) for agent in agents for way in WAYS]
                draw.shuffle(turns)
                for agent, way in turns:
                    agent.turn(way, f"r{run + 1}{way}", measured=run >= 0)
                    time.sleep(draw.uniform(0.3, 0.6))
            say(f"{runs} runs done, load {os.getloadavg()[0]:.1f}")
            time.sleep(3)
            many.measure_memory()
            for agent in agents:
                agent.stop()
            many.url = slow_url
            many.start()
            for number in range(BURSTS):
                many.burst(number)
                say(f"burst {number + 1} of {BURSTS}: {many.bursts[-1]:.2f} s")
            time.sleep(3)
            many.measure_memory()
            many.stop()
            for agent in agents:
                agent.start(DRAFT_INTERVAL_SECONDS=1)
                agent.measure_idle()
                agent.measure_memory()
        finally:
            for agent in agents:
                agent.stop()
    return few, many


def report(few: Agent, many: Agent, runs: int, began: str) -> str:
    rows: list[Sequence[str]] = []
    for agent in (few, many):
        for way, words in WAYS.items():
            waits = agent.waits[way]
            rows.append(
                (
                    f"a mail, {words}, to its draft on disk, less the model's latency; {agent.decided:,} decided mails",
                    f"{statistics.median(waits):.3f} s (worst of {runs}: {max(waits):.3f})",
                    verdict(max(waits), ASKED_SECONDS, " s"),
                    "8 to 12 s, after a wait of up to 300 s",
                )
            )
    growth = statistics.median(chain(*many.waits.values())) / statistics.median(chain(*few.waits.values()))
    ideal = BURST / CONCURRENCY * BURST_LATENCY
    bursts = [taken / ideal for taken in many.bursts]
    rows += [
        (f"… {MANY:,} decided mails over {FEW}", f"{growth:.2f} x", verdict(growth, ASKED_GROWTH, " x"), ""),
        (
            f"{BURST} mails, {CONCURRENCY} at a time, a model that takes {BURST_LATENCY} s; {MANY:,} decided mails",
            f"{statistics.median(many.bursts):.2f} s, {statistics.median(bursts):.3f} x the ideal {ideal:.1f} s"
            f" (worst of {BURSTS}: {max(bursts):.3f})",
            verdict(max(bursts), ASKED_BURST, " x"),
            "8 to 12 s a mail",
        ),
    ]
    for agent in (few, many):
        rows.append(
            (
                f"CPU of an idle pass, {agent.decided:,} decided mails",
                f"{agent.idle_cpu:.1f} ms",
                verdict(agent.idle_cpu, ASKED_IDLE_CPU, " ms"),
                "",
            )
        )
    rows.append(
        (
            f"resident memory, idle after it has drafted, {MANY:,} decided mails",
            f"{many.memory:.1f} MB",
            verdict(many.memory, ASKED_MEMORY, " MB"),
            "limit 500 MB",
        )
    )
    for agent in (few, many):
        started = statistics.median(agent.starts)
        rows.append(
            (f"start to the end of the first pass, {agent.decided:,} decided mails", f"{started:.2f} s", "", "")
        )
    head = table(["what", "measured", "bound", "set-out system"], rows, 4)
    return f"{began}; medians of {runs} ({time.strftime('%F')}).\n\n{head}"


def verdict(value: float, asked: float, unit: str) -> str:
    return f"{asked:.3g}{unit}: {'met' if value <= asked else 'missed'}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drafting", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help=f"measured turns of each (default {RUNS})")
    parser.add_argument("--seed", type=int, default=None, help="of the order")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))  # and its folders are removed
    began = machine()
    try:
        with temporary_folder() as root:
            few, many = measure(root, options.runs, random.Random(options.seed))  # noqa: S311
    except WrongOutcome as wrong:
        print(f"bench: {wrong}", file=sys.stderr)
        return 1
    print(report(few, many, options.runs, began))
    return 0


if __name__ == "__main__":
    sys.exit(main())
