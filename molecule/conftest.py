"""What the tests of all scenarios share: the machine's commands, the owner's clone of the vault, and patience."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.lab.lab import Lab  # noqa: E402
from tests.lab.local import Local  # noqa: E402

LAB = Lab(os.environ.get("MOLECULE_SCENARIO_NAME", "default"))
LOOPS = ("cloud_orchestrator", "git_sync_cloud")


class Machine:
    """A target of the lab, as the login user `ubuntu` has it over ssh: no root but through sudo."""

    root = "/opt/personal-ai-employee"
    vault = f"{root}/vault"
    agent = f"{root}/current/venv/bin/cloud-agent --env-file {root}/.env.cloud"

    def __init__(self, alias: str = "target") -> None:
        self.alias = alias
        # The lab knows how to log in. No shared connection: it would not outlive a reboot.
        options = shlex.join(LAB.ssh(alias)[1:-1])
        self.host = testinfra.get_host("ssh://ubuntu@127.0.0.1", ssh_extra_args=options, controlpersist=0)

    def run(self, command: str) -> str:
        """Output of a command that has to succeed."""
        return str(self.host.check_output(command))

    def try_run(self, command: str) -> tuple[int, str]:
        """Exit status and all output of a command; 255 while there is no connection."""
        try:
            done = self.host.run(command)
        except RuntimeError as error:  # testinfra's way to say that ssh itself failed
            return 255, str(error)
        return done.rc, done.stdout + done.stderr

    def loops(self) -> dict[str, dict[str, Any]]:
        """What PM2 says of each loop, by name; empty while PM2 does not answer."""
        status, output = self.try_run("pm2 jlist")
        if status != 0:
            return {}
        return {app["name"]: app for app in json.loads(output.splitlines()[-1]) if app["name"] in LOOPS}

    def online(self) -> bool:
        """Whether both loops are online."""
        loops = self.loops()
        return set(loops) == set(LOOPS) and all(app["pm2_env"]["status"] == "online" for app in loops.values())

    def write(self, path: str, content: bytes) -> None:
        """Create a file in the vault as the login user."""
        command = [*LAB.ssh(self.alias), "--", f"tee '{self.vault}/{path}' >/dev/null"]
        subprocess.run(command, input=content, check=True, timeout=30)


def eventually(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until it is so; returns after how many seconds it was. Fails after `seconds`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
    return time.monotonic() - began


@pytest.fixture(scope="session")
def machine() -> Machine:
    return Machine()


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    return Local(LAB, tmp_path_factory.mktemp("local") / "vault")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Any:
    """Show with every failure what the machine says."""
    report = yield
    if report.when == "call" and report.failed:
        machine = item.funcargs.get("machine", Machine())
        for command in (
            "pm2 list",
            "pm2 logs --nostream --lines 40",
            "sudo journalctl --no-pager --lines=40 --unit=pm2-cloud-agent",
            f"git -C {Machine.vault} log --oneline --max-count=10",
        ):
            report.sections.append((command, machine.try_run(command)[1]))
    return report
