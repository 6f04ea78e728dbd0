"""What a run of the playbooks costs: with nothing to change, and an upgrade. `make bench-deploy`, while the demo is up.

A run that changes nothing is given as a multiple of `ansible -m ping`, the least that Ansible can do there: they take
turns. The loops' downtime in an upgrade is taken from their own logs.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import downtime

RUNS = 5
UPGRADES = 3
LOOPS = ("cloud_orchestrator", "git_sync_cloud")


def main() -> int:
    from tests.lab.host import LabError
    from tests.lab.lab import ROOT, Lab

    lab = Lab("demo")
    try:
        told = lab.describe()
        print("bringing the machine up to date with this checkout …", flush=True)
        play(ROOT, "site.yml")
        times: dict[str, list[float]] = {"ping": [], "deploy.yml": [], "site.yml": []}
        tasks: dict[str, int] = {}
        for number in range(RUNS):
            print(f"a run that changes nothing, {number + 1} of {RUNS} …", flush=True)
            times["ping"].append(ansible(ROOT, "ansible", "cloud", "-m", "ansible.builtin.ping")[0])
            for playbook in ("deploy.yml", "site.yml"):
                seconds, counts = play(ROOT, playbook)
                if counts["changed"]:
                    raise LabError(f"{playbook} changed something in a run that had nothing to change")
                times[playbook].append(seconds)
                tasks[playbook] = counts["ok"]
        upgrades, downtimes = [], []
        with tempfile.TemporaryDirectory() as directory:
            for number in range(UPGRADES):
                print(f"an upgrade to new code, {number + 1} of {UPGRADES} …", flush=True)
                source = new_code(Path(directory) / str(number) / "agent")
                upgrades.append(play(ROOT, "deploy.yml", f"-eagent_source={source}")[0])
                downtimes.append([downtime(lab.run_on_target, loop) for loop in LOOPS])
        print("putting this checkout's own release back …", flush=True)
        play(ROOT, "deploy.yml")
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    ping = statistics.median(times["ping"])
    rows = [("`ansible -m ping`", f"{ping:.2f} s", "")]
    for playbook, bound in (("deploy.yml", 8), ("site.yml", 30)):
        seconds = statistics.median(times[playbook])
        met = "met" if seconds <= bound * ping else "missed"
        rows.append(
            (
                f"`{playbook}`, nothing to change: {tasks[playbook]} tasks",
                f"{seconds:.1f} s, {seconds / ping:.1f} x",
                f"{bound} x: {met}",
            )
        )
    rows.append(("`deploy.yml` with new code", f"{statistics.median(upgrades):.1f} s", ""))
    for number, loop in enumerate(LOOPS):
        worst = max(one[number] for one in downtimes)
        middle = statistics.median(one[number] for one in downtimes)
        met = "met" if worst < 2 else "missed"
        rows.append((f"… downtime of {loop} in it", f"{middle:.2f} s (worst {worst:.2f})", f"2 s: {met}"))
    print(
        f"\n{told['base']} in a container, {os.cpu_count()} cores, {platform.machine()}, kernel {platform.release()}; "
        f"medians of {RUNS}, of upgrades {UPGRADES}\n"
    )
    print("| what | measured | bound |\n| --- | ---: | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    return 0


def ansible(root: Path, command: str, *arguments: str) -> tuple[float, str]:
    """Run one of Ansible's commands on the demo's machine; returns seconds and output. Raises LabError."""
    from tests.lab.host import run

    argv: list[str | Path] = [
        "env",
        f"--chdir={root / 'ansible'}",
        Path(sys.executable).with_name(command),
        "-i",
        "inventories/local",
    ]
    began = time.monotonic()
    output = run([*argv, *arguments], timeout=600).stdout
    return time.monotonic() - began, output


def play(root: Path, playbook: str, *arguments: str) -> tuple[float, dict[str, int]]:
    """Run a playbook; returns seconds and the counts of its recap (ok, changed, ...)."""
    seconds, output = ansible(root, "ansible-playbook", playbook, *arguments)
    recap = output.rpartition("PLAY RECAP")[2]
    return seconds, {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", recap)}


def new_code(target: Path) -> Path:
    """A copy of the package that differs in one line, and so is another release."""
    from tests.lab.lab import copy_of_the_agent

    copy_of_the_agent(target)
    with (target / "cloud_agent" / "__init__.py").open("a") as file:
        file.write(f"# benchmark {time.time_ns()}\n")
    return target


if __name__ == "__main__":
    sys.exit(main())
