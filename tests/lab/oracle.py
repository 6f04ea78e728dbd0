"""Oracle Cloud in the lab "oracle": the stand-in of its API, as a process of this host, with an empty account."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.host import LabError, say

ROOT = Path(__file__).resolve().parents[2]
# The only public address: containers have none that this host reaches, but ports of this one.
ADDRESS = "127.0.0.1"
# From where SSH is let in, as far as the stand-in goes: an address for documentation, which nobody has.
OPERATOR = "198.51.100.7/32"


class Api:
    """The process of a lab: its files are in `directory`, it listens on `port`."""

    def __init__(self, directory: Path, port: int) -> None:
        self.state = directory
        self.port = port
        self.pid_file = directory / "pid"
        self.log = directory / "log"

    def runs(self) -> bool:
        """Whether it runs, and not another process that was given its number since."""
        try:
            command = Path("/proc", self.pid_file.read_text().strip(), "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return os.fsencode(f"--state={self.state}") in command.split(b"\0")

    def start(self) -> None:
        """Let it run, with an empty account, unless it runs already."""
        if self.runs():
            say("oracle: keeping the running stand-in of its API")
            return
        self.state.mkdir(exist_ok=True)
        options = {
            "state": self.state,
            "port": self.port,
            "address": ADDRESS,
            "launcher": "tests.lab.launcher:Machines",
        }
        with self.log.open("w") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    ROOT / "tests" / "standins" / "oracle_api.py",
                    *(f"--{name}={value}" for name, value in options.items()),
                    "--looks=0",  # whoever waits here has nothing to see
                ],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid_file.write_text(f"{process.pid}\n")
        deadline = time.monotonic() + 30
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabError(
                    f"the stand-in of Oracle's API does not answer. It says:\n{self.log.read_text()}\n"
                    "If Oracle's SDK is what it lacks: make oracle. Otherwise mend the code in tests/standins."
                )
            time.sleep(0.1)
        say("oracle: an empty account at its stand-in")

    def stop(self) -> None:
        """End it. Its account is gone with it."""
        if not self.runs():
            return
        pid = int(self.pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while self.runs():
            if time.monotonic() > deadline:
                raise LabError(f"process {pid}, the stand-in of Oracle's API, does not end. Run: kill -9 {pid}")
            time.sleep(0.1)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What it answers under /standin/, which is no part of Oracle's API; a POST with a body."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/standin/{path}", data=data, timeout=30) as answer:
            return json.load(answer)

    def _answers(self) -> bool:
        try:
            self.ask("resources")
        except OSError:
            return False
        return True

    def write_inventory(self, directory: Path, machines: Sequence[str], known_hosts: Path) -> None:
        """An inventory of machines that are still to be made, to be given before inventories/local."""
        settings = directory / "group_vars" / "cloud"
        settings.mkdir(parents=True, exist_ok=True)
        (directory / "hosts.json").write_text(json.dumps({"cloud": {"hosts": dict.fromkeys(machines)}}))
        (settings / "account.yml").write_text((self.state / "oracle.yml").read_text())
        ours = {"oracle_ssh_from": [OPERATOR], "oracle_instance_known_hosts": str(known_hosts)}
        (settings / "operator.json").write_text(json.dumps(ours))
