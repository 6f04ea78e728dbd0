"""Runs targets of the Makefile side by side: python -m tests.side_by_side unit molecule

Each line of output is printed when it is there, after the name of its target. Fails when one of them does, after all;
what failed is then told once more at the end, where a log that was cut short still has it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

# How pytest, Ansible and make begin a line that says what is wrong; Molecule may draw a frame around it.
TELLING = re.compile(r"(?:\x1b\[[\d;]*m|[ │])*(?:E  |FAILED |ERROR |fatal: |make.*\*\*\*)")
TOLD_AGAIN = 40  # lines


def main(targets: list[str]) -> int:
    began = time.monotonic()
    width = max(map(len, targets))
    ended: dict[str, str] = {}
    statuses: list[int] = []
    telling: list[str] = []

    def follow(target: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{target:{width}} | {line}", end="", flush=True)
            if TELLING.match(line):
                telling.append(f"{target:{width}} | {line}")
        statuses.append(process.wait())
        ended[target] = f"{'failed' if statuses[-1] else 'passed'} after {time.monotonic() - began:.0f} s"
        print(f"{target:{width}} | === {ended[target]}", flush=True)

    processes = {target: start(target) for target in targets}
    threads = [threading.Thread(target=follow, args=item) for item in processes.items()]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        for process in processes.values():
            os.killpg(process.pid, signal.SIGINT)
        return 130
    if any(statuses):
        print("=== what failed, once more", "".join(telling[-TOLD_AGAIN:]), sep="\n", flush=True)
    print(*(f"{target}: {what}" for target, what in ended.items()), sep="\n")
    return int(any(statuses))


def start(target: str) -> subprocess.Popen[str]:
    # A group of its own: what it starts ends with it.
    return subprocess.Popen(
        ["make", "--no-print-directory", target],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
