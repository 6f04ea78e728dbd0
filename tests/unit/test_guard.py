"""The role guard: what proves a new login, and what is said when the undo was faster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ansible_module

ansible_module.load("guard", "guard_disarm")
from ansible.module_utils import guard  # noqa: E402  it is found from now on

PROVE = ansible_module.ROLES / "guard/tasks/prove.yml"


class Systemd:
    """A module on a machine where the undo has come and taken its units away."""

    def run_command(self, command: list[str], check_rc: bool = False) -> tuple[int, str, str]:
        status = 5 if command[1] == "stop" else 0  # Unit ... not loaded
        if check_rc and status:
            pytest.fail(f"{command} ends the module with a message of its own")
        return status, "inactive\n", ""


def test_an_undo_that_came_first_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "UNITS", tmp_path)
    assert guard.disarm(Systemd(), "firewall") is False


@pytest.mark.parametrize("where", ["inventory", "ansible.cfg"])
def test_the_proof_goes_the_operators_way_and_shares_no_connection(tmp_path: Path, where: str) -> None:
    """Through a bastion, say; with the time that --extra-vars gives as text."""
    first, block = yaml.safe_load(PROVE.read_text())[:2]
    wait = block["block"][0]
    show = {
        "ansible.builtin.debug": {
            "msg": f"[{wait['ansible.builtin.wait_for_connection']['timeout']}, {{{{ ansible_ssh_args }}}}]"
        },
        "vars": wait["vars"],
    }
    play: list[dict[str, Any]] = [{"hosts": "all", "gather_facts": False, "tasks": [first, show]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    bastion = "-o ProxyJump=bastion -o ControlMaster=auto"
    own = f' ansible_ssh_args="{bastion}"' if where == "inventory" else ""
    (tmp_path / "hosts").write_text(f"machine ansible_connection=local{own}\n")
    (tmp_path / "ansible.cfg").write_text(f"[ssh_connection]\nssh_args = {bastion if not own else ''}\n")
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run(
        [program, "--inventory=hosts", "--extra-vars=guard_seconds=240", "play.yml"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"[120, -o ControlMaster=no -o ControlPath=none {bastion}]" in done.stdout, done.stdout + done.stderr
