"""One cycle of the sync loop against the plain git sequence on the same vault, in the same run. `--help` tells more.

Each contender has a remote and a clone of its own with the same content, and the same files are edited for all. The
contenders take turns in random order, and after each turn the outcome is checked: what is on the remote, what is on
disk, that nothing else changed. A wrong outcome ends the run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud_agent.config import Config
from cloud_agent.git import ssh_command
from cloud_agent.state import State, utc_now
from cloud_agent.sync import FULL_SCAN_SECONDS, Syncer

from tests.gitkit import PERSON

SIZES = (1_000, 10_000, 50_000)
RUNS = 15
IDLE_CYCLES = 60
SCANS = 5
SCENARIOS = {
    "idle": "nothing changed",
    "push": "one local file changed -> on the remote",
    "join": "one remote and one local change -> joined, pushed, on disk",
    "pull": "one remote file changed -> on disk",
}
ASKED = {"idle": 0.4, "push": 0.7, "join": 0.9}
MEMORY_ASKED = 40  # MB
CYCLES_AN_HOUR = 60  # as SYNC_INTERVAL_SECONDS is by default

# What stands in the environment and the configuration of the machine must not matter, for nobody.
ENVIRONMENT = {**PERSON, "GIT_TERMINAL_PROMPT": "0"}

# One process of sh. Each command finds out by itself that there is nothing to do; commit says so by its status.
PLAIN = """\
git add -A
git commit -q -m plain
git fetch -q
git merge -q --no-edit origin/main
git push -q
"""


class WrongOutcome(Exception):
    """A contender did not do what was asked of it."""


@dataclass
class Taken:
    """What the turns of one contender took, in milliseconds: by the clock, and of all cores (user and system)."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, step: Callable[[], object]) -> None:
        cpu, wall = cpu_seconds(), time.perf_counter()
        step()
        self.wall.append((time.perf_counter() - wall) * 1000)
        self.cpu.append((cpu_seconds() - cpu) * 1000)


def cpu_seconds() -> float:
    """Of this process and of all that it started and that ended since."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> str:
    """Git for what is not measured. It must not touch the index when it looks, nor pack in the background."""
    environment = {**ENVIRONMENT, "GIT_OPTIONAL_LOCKS": "0", "PATH": os.environ["PATH"]}
    command = ["git", "-c", "gc.auto=0", "-c", "maintenance.auto=false", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, input=stdin, capture_output=True)
    if done.returncode != 0:
        raise WrongOutcome(f"git {shlex.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode().strip()


# -- the vault ---------------------------------------------------------------------------------------------------------


def note_paths(size: int) -> list[str]:
    """`size` notes in 496 folders (1,000) or 2,569 (more), two levels deep."""
    areas, topics = (16, 30) if size < 5_000 else (367, 6)
    folders = [f"Area {area:03}/Topic {topic:02}" for area in range(areas) for topic in range(topics)]
    return [f"{folders[number % len(folders)]}/note {number:05}.md" for number in range(size)]


def note(number: int) -> str:
    """A note of 150 to 1,900 bytes."""
    draw = random.Random(number)  # noqa: S311
    words = (
        "the a plan mail draft review answer customer week report meeting budget quiet green note agent vault".split()
    )
    lines = [" ".join(draw.choices(words, k=draw.randint(6, 14))) + "." for _ in range(draw.randint(2, 25))]
    return f"# Note {number}\n\n" + "\n".join(lines) + "\n"


def make_template(folder: Path, size: int) -> Path:
    """A bare repository with one commit, packed."""
    vault = folder / "template"
    for number, path in enumerate(note_paths(size)):
        file = vault / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(note(number))
    git(folder, "init", "-q", "--initial-branch=main", str(vault))
    git(vault, "add", "-A")
    git(vault, "commit", "-q", "-m", "first")
    git(folder, "clone", "-q", "--bare", "--no-local", str(vault), "template.git")
    git(folder / "template.git", "repack", "-adq")
    shutil.rmtree(vault)
    return folder / "template.git"


# -- the contenders ----------------------------------------------------------------------------------------------------


class Contender:
    """A remote, a clone of it, and a way to bring them in step."""

    def __init__(self, name: str, root: Path, template: Path, sshd: Any = None) -> None:
        self.name = name
        self.home = root / name
        self.remote = root / f"{name}.git"
        self.vault = self.home / "vault"
        self.url = sshd.url(self.remote.name) if sshd else str(self.remote)
        self.key: Path | None = sshd.key if sshd else None
        self.home.mkdir()
        git(root, "clone", "-q", "--bare", str(template), str(self.remote))
        git(root, "clone", "-q", str(self.remote), str(self.vault))
        git(self.vault, "remote", "set-url", "origin", self.url)
        self.taken = {scenario: Taken() for scenario in SCENARIOS}

    def sync(self) -> None:
        raise NotImplementedError

    def turn(self, scenario: str, local: str, remote: str, line: str, *, measured: bool) -> None:
        """Edit what the scenario edits, sync, and check the outcome."""
        expected: dict[str, str] = {}
        before = git(self.remote, "rev-parse", "main")
        if scenario == "idle":
            self.sync()  # as in most cycles, there was nothing the last time either
        if scenario in ("push", "join"):
            file = self.vault / local
            expected[local] = file.read_text() + line
            file.write_text(expected[local])
        if scenario in ("pull", "join"):
            expected[remote] = git(self.remote, "show", f"main:{remote}") + "\n" + line
            commit_on(self.remote, remote, expected[remote])
        (self.taken[scenario] if measured else Taken()).add(self.sync)
        self.check(scenario, before, expected)

    def check(self, scenario: str, before: str, expected: dict[str, str]) -> None:
        tip, head = git(self.remote, "rev-parse", "main"), git(self.vault, "rev-parse", "HEAD")
        changed = git(self.remote, "diff-tree", "-r", "--name-only", "-z", before, "main").split("\0")
        wrong = [
            "the remote and the clone differ" if tip != head else "",
            "it made a commit of nothing" if scenario == "idle" and tip != before else "",
            "other files changed" if set(filter(None, changed)) != set(expected) else "",
            "the tree is not clean" if git(self.vault, "status", "--porcelain") else "",
        ]
        for path, content in expected.items():
            wrong.append("not on disk" if (self.vault / path).read_text() != content else "")
            wrong.append("not on the remote" if git(self.remote, "show", f"main:{path}") != content.strip() else "")
        if any(wrong):
            raise WrongOutcome(f"{self.name}, {SCENARIOS[scenario]}: {', '.join(filter(None, wrong))}")


def commit_on(repository: Path, path: str, content: str) -> None:
    """A commit of one file, made in a bare repository: what another machine pushed."""
    data = content.encode()
    when = f"committer Other <other@example.com> {int(time.time())} +0000\n"
    head = f"commit refs/heads/main\n{when}data 5\nother\nfrom refs/heads/main^0\nM 100644 inline {json.dumps(path)}\n"
    stream = head.encode() + f"data {len(data)}\n".encode() + data + b"\n"
    git(repository, "fast-import", "--quiet", stdin=stream)


class Plain(Contender):
    """The plain sequence, in a process of sh. Packing in the background is off."""

    def __init__(self, name: str, root: Path, template: Path, sshd: Any = None) -> None:
        super().__init__(name, root, template, sshd)
        for key, value in (("gc.auto", "0"), ("maintenance.auto", "false")):
            git(self.vault, "config", key, value)
        self.environment = {**ENVIRONMENT, "PATH": os.environ["PATH"], "GIT_SSH_COMMAND": ssh_command(self.key, None)}

    def sync(self) -> None:
        subprocess.run(["sh", "-c", PLAIN], cwd=self.vault, env=self.environment, check=False, capture_output=True)


class Agent(Contender):
    """What both ways to run our own have in common: settings and a state folder."""

    def __init__(self, name: str, root: Path, template: Path, sshd: Any = None) -> None:
        super().__init__(name, root, template, sshd)
        self.env_file = self.home / ".env.cloud"
        self.config = Config(
            vault_path=self.vault,
            git_remote_url=self.url,
            claude_api_key="a-key-of-no-known-form",
            claude_model="none",
            claude_base_url=None,
            draft_interval_seconds=300,
            draft_concurrency=1,
            sync_interval_seconds=1,
            git_branch="main",
            git_ssh_key_path=self.key,
            agent_name="cloud",
            state_path=self.home / "state",
            budget_usd_per_day=None,
            budget_usd_per_week=None,
        )
        settings = {
            "VAULT_PATH": self.vault,
            "GIT_REMOTE_URL": self.url,
            "CLAUDE_API_KEY": self.config.claude_api_key,
            "STATE_PATH": self.config.state_path,
            "SYNC_INTERVAL_SECONDS": 1,
            **({"GIT_SSH_KEY_PATH": self.key} if self.key else {}),
        }
        self.env_file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self.env_file.chmod(0o600)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cloud_agent", "--env-file", str(self.env_file), *arguments]

    def environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, "PATH": os.environ["PATH"]}


class Loop(Agent):
    """The loop's step in this process, with all guards on, as `cloud-agent sync` runs it."""

    def __init__(self, name: str, root: Path, template: Path, sshd: Any = None) -> None:
        super().__init__(name, root, template, sshd)
        self.syncer = Syncer(self.config, State(self.config.state_path), utc_now, watching=True)

    def sync(self) -> None:
        outcome = self.syncer.cycle()
        if outcome.result != "ok" or outcome.held:
            raise WrongOutcome(f"{self.name}: {outcome.result}: {outcome.message} {outcome.held}")


class Fresh(Agent):
    """The same in a process of its own a cycle."""

    def sync(self) -> None:
        command = self.command("sync", "--once")
        done = subprocess.run(command, cwd=self.home, env=self.environment(), check=False, capture_output=True)
        if done.returncode != 0:
            raise WrongOutcome(f"{self.name}: {done.stderr.decode(errors='replace')}")


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """One size over one way to the remote. `floor`: one `git ls-remote`."""

    size: int
    way: str
    contenders: dict[str, dict[str, Taken]]
    floor: Taken


@dataclass
class Resident:
    """The running loop on a vault where nothing changes. CPU in ms, memory in MB (10^6)."""

    size: int
    cycle_cpu: float
    scan_cpu: float  # of a cycle that looks at all files
    rss: float
    pss: float


def measure(root: Path, size: int, runs: int, way: str, sshd: Any, draw: random.Random) -> tuple[Measured, Fresh]:
    say(f"{size} files over {way}: making the vault")
    template = make_template(root, size)
    loop = Loop("loop", root, template, sshd)
    fresh = Fresh("fresh", root, template, sshd)
    plain = Plain("plain", root, template, sshd)
    shutil.rmtree(template)
    contenders: list[Contender] = [plain, loop, fresh]
    floor = Taken()
    ls_remote = ["git", "ls-remote", plain.url, "refs/heads/main"]

    def look() -> None:
        subprocess.run(ls_remote, env=plain.environment, check=True, capture_output=True, cwd="/")

    notes = note_paths(size)
    for run in range(-1, runs):  # the first one warms up
        turns = [(contender, scenario) for contender in contenders for scenario in SCENARIOS]
        draw.shuffle(turns)
        edited = {scenario: draw.sample(notes, 2) for scenario in SCENARIOS}
        for contender, scenario in turns:
            line = f"\nEdited in run {run}, {scenario}.\n"
            local, remote = edited[scenario]
            contender.turn(scenario, local, remote, line, measured=run >= 0)
        if run >= 0:
            floor.add(look)
        say(f"{size} files over {way}: run {run + 1} of {runs}, load {os.getloadavg()[0]:.1f}")
    return Measured(size, way, {one.name: one.taken for one in contenders}, floor), fresh


def measure_resident(agent: Agent, size: int) -> Resident:
    """Run `cloud-agent sync`, a cycle a second, and look at its process before and after IDLE_CYCLES cycles."""
    say(f"{size} files: the running loop, {IDLE_CYCLES} cycles where nothing changes")
    beat = agent.config.state_path / "sync.json"
    beat.unlink(missing_ok=True)
    with subprocess.Popen(
        agent.command("sync"), cwd=agent.home, env=agent.environment(), stdout=subprocess.DEVNULL
    ) as process:
        try:
            began, first = wait_for_cycle(beat, 5), cpu_of(process.pid)
            ended, last = wait_for_cycle(beat, began + IDLE_CYCLES), cpu_of(process.pid)
            memory = {
                name: int(line.split()[1]) * 1024 / 1e6
                for file in ("status", "smaps_rollup")
                for line in Path(f"/proc/{process.pid}/{file}").read_text().splitlines()
                for name in ("VmRSS", "Pss")
                if line.startswith(f"{name}:")
            }
        finally:
            process.send_signal(signal.SIGTERM)
    scans = Taken()
    without_watch = Syncer(agent.config, State(agent.config.state_path), utc_now)
    without_watch.cycle()
    for _ in range(SCANS):
        scans.add(without_watch.cycle)
    cycle_cpu = (last - first) * 1000 / (ended - began)
    return Resident(size, cycle_cpu, statistics.median(scans.cpu), memory["VmRSS"], memory["Pss"])


def wait_for_cycle(beat: Path, cycle: int) -> int:
    """The number of the cycle that the loop has reached, once it is this one."""
    end = time.monotonic() + 60 + 5 * cycle
    while time.monotonic() < end:
        if beat.exists():
            told = json.loads(beat.read_text())
            if told["result"] != "ok":
                raise WrongOutcome(f"the running loop: {told}")
            if told["cycle"] >= cycle:
                return int(told["cycle"])
        time.sleep(0.05)
    raise WrongOutcome(f"the running loop did not reach cycle {cycle}")


def cpu_of(pid: int) -> float:
    """Seconds that a process and its ended children have used: utime, stime, cutime, cstime of /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


# -- telling -----------------------------------------------------------------------------------------------------------


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return (
        f"{model}, {os.cpu_count()} cores, kernel {platform.release()}, {git(Path('/'), 'version')}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the start"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A markdown table; the first `left` columns hold words, the others figures."""
    marks = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows))


def cycle_table(figures: Sequence[Measured]) -> str:
    head = ["scenario", "files", "plain ms", "loop ms", "ratio", "asked", "CPU: plain ms", "loop ms", "ratio"]
    rows = []
    for scenario, meaning in SCENARIOS.items():
        for one in figures:
            plain, loop, fresh = (one.contenders[name][scenario] for name in ("plain", "loop", "fresh"))
            wall, cpu = (ratio(loop.wall, plain.wall), ratio(loop.cpu, plain.cpu))
            # Over ssh nothing is asked; for idle, a ratio is asked where the tree is small.
            asked = ASKED.get(scenario) if one.way == "a path" else None
            if scenario == "idle" and one.size != SIZES[0]:
                asked = None
            by_clock = (middle(plain.wall), middle(loop.wall), f"{wall:.2f}", verdict(wall, asked))
            of_cores = (middle(plain.cpu), middle(loop.cpu), f"{cpu:.2f}")
            rows.append([meaning, f"{one.size:,}", *by_clock, *of_cores, middle(fresh.wall)])
    return table([*head, "one process a cycle, ms"], rows)


def verdict(value: float, asked: float | None) -> str:
    return "" if asked is None else f"{asked:g}: {'met' if value <= asked else 'missed'}"


def middle(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f}"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(ours) / statistics.median(theirs)


def notes_on(figures: Sequence[Measured]) -> Iterator[str]:
    floors = ", ".join(f"{middle(one.floor.wall)} ms at {one.size:,}" for one in figures)
    yield f"- The floor, one `git ls-remote`: {floors}."
    if len(figures) > 1 and figures[0].way == "a path":
        small, large = (one.contenders["loop"]["idle"].wall for one in (figures[0], figures[-1]))
        growth = ratio(large, small)
        yield (
            f"- Nothing changed, {figures[-1].size:,} files against {figures[0].size:,}: {growth:.2f} times the time "
            f"(asked: at most {4 / 3:.2f})."
        )


def resident_table(residents: Sequence[Resident]) -> str:
    rows = []
    for one in residents:
        seconds = (CYCLES_AN_HOUR * one.cycle_cpu + 3600 / FULL_SCAN_SECONDS * one.scan_cpu) / 1000
        cpu = (f"{one.cycle_cpu:.1f}", f"{one.scan_cpu:.0f}", f"{seconds:.1f}")
        rows.append([f"{one.size:,}", *cpu, f"{one.rss:.1f}", f"{one.pss:.1f}", verdict(one.rss, MEMORY_ASKED)])
    head = ["files", "CPU of a cycle, ms", "of a full scan, ms", "CPU in an hour, s", "RSS, MB", "Pss, MB", "RSS asked"]
    return table(head, rows, 0)


def report(figures: Sequence[Measured], residents: Sequence[Resident], runs: int, began: str) -> str:
    parts = [f"{began}; medians of {runs} ({time.strftime('%F')})."]
    for way in dict.fromkeys(one.way for one in figures):
        of_way = [one for one in figures if one.way == way]
        parts += [f"Remote: {way}.", cycle_table(of_way), "\n".join(notes_on(of_way))]
    if residents:
        parts += ["The running loop, nothing changes:", resident_table(residents)]
    return "\n\n".join(parts)


def as_json(figures: Sequence[Measured], residents: Sequence[Resident], runs: int, began: str) -> str:
    told = {
        "machine": began,
        "runs": runs,
        "cycles": [
            {"files": one.size, "remote": one.way, "floor_ms": one.floor.wall}
            | {
                name: {key: {"wall_ms": taken.wall, "cpu_ms": taken.cpu} for key, taken in scenarios.items()}
                for name, scenarios in one.contenders.items()
            }
            for one in figures
        ],
        "resident": [vars(one) for one in residents],
    }
    return json.dumps(told, indent=1)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """With a short name: ssh keeps its connection behind a socket, whose path may have 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="b", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server(over_ssh: bool, root: Path) -> Iterator[Any]:
    """An sshd for the repositories in `root`; None for paths."""
    if not over_ssh:
        yield None
        return
    from tests.sshd import Sshd

    with Sshd(root / "sshd", root) as sshd:
        path = os.environ["PATH"]
        os.environ["PATH"] = f"{sshd.bin}:{path}"
        try:
            yield sshd
        finally:
            os.environ["PATH"] = path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="N", help="files in the vault")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"measured turns of each (default {RUNS})")
    parser.add_argument("--ssh", action="store_true", help="the remote over ssh on loopback: needs openssh-server")
    parser.add_argument("--resident", action="store_true", help="idle CPU and memory of the running loop, too")
    parser.add_argument("--json", action="store_true", help="every single figure, for a program")
    parser.add_argument("--seed", type=int, default=None, help="of the order and of the files that are edited")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))  # and its folders are removed
    draw = random.Random(options.seed)  # noqa: S311
    began = machine()
    figures: list[Measured] = []
    residents: list[Resident] = []
    way = "ssh on loopback; the loop keeps its connection, the plain sequence opens two" if options.ssh else "a path"
    try:
        for size in options.sizes:
            with temporary_folder() as root, server(options.ssh, root) as sshd:
                measured, fresh = measure(root, size, options.runs, way, sshd, draw)
                figures.append(measured)
                if options.resident:
                    residents.append(measure_resident(fresh, size))
    except WrongOutcome as wrong:
        print(f"bench: {wrong}", file=sys.stderr)
        return 1
    tell = as_json if options.json else report
    print(tell(figures, residents, options.runs, began))
    return 0


if __name__ == "__main__":
    sys.exit(main())
