"""ansible/site.yml and destroy.yml with an account at Oracle, as far as they go without a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.oracle_kit import Oracle
from tests.unit.test_oracle_instance import subnet_id

__all__ = ["subnet_id"]  # a fixture
ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIUTjL1kNMMQN3x6CkXtEZ5xMCaGm9q6iUqmG9LGNUrz"


@pytest.fixture
def settings(tmp_path: Path, oracle: Oracle) -> dict[str, Any]:
    return {
        "oracle_api_key": oracle.api_key,
        "oracle_endpoint": oracle.endpoint,
        "oracle_ssh_from": ["198.51.100.7"],
        "oracle_instance_ssh_public_key": PUBLIC_KEY,
        "oracle_instance_known_hosts": str(tmp_path / "known_hosts"),
        "agent_git_remote_url": "git@github.com:you/vault.git",
        "agent_claude_api_key": "x",
        # As in inventories/production.
        "ansible_host": "203.0.113.10",
    }


def play(
    directory: Path, playbook: str, settings: dict[str, Any], *options: str, others: dict[str, Any] | None = None
) -> tuple[int, str]:
    """Run a playbook on a machine `vm`, and others; returns its exit status and what it said, in one line."""
    (directory / "hosts.json").write_text(json.dumps({"cloud": {"hosts": {"vm": settings, **(others or {})}}}))
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [program, f"--inventory={directory}/hosts.json", *options, playbook]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        command, cwd=ANSIBLE, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_nothing_is_asked_of_oracle_while_a_setting_is_wrong(
    tmp_path: Path, oracle: Oracle, settings: dict[str, Any]
) -> None:
    status, said = play(tmp_path, "site.yml", {**settings, "agent_git_remote_url": "", "oracle_instance_ocpus": 4})
    assert status != 0
    assert "agent_git_remote_url is empty" in said
    assert "oracle_instance_ocpus is 4, and 2 OCPU are free" in said
    assert oracle.api.calls == []


def test_a_dry_run_on_an_empty_account_tells_what_it_would_make(
    tmp_path: Path, oracle: Oracle, settings: dict[str, Any]
) -> None:
    status, said = play(tmp_path, "site.yml", settings, "--check", "--diff")
    assert status == 0, said
    for line in ("+VCN: 10.0.0.0/16", "+in: TCP 22 from 198.51.100.7/32", "+instance vm", "+public address, reserved"):
        assert line in said
    assert "vm is not there yet" in said
    assert "TASK [base" not in said
    assert oracle.api.writes() == []
    assert [file.name for file in tmp_path.iterdir()] == ["hosts.json"]


def test_a_machine_that_does_not_let_us_in_is_told_with_what_is_wrong_most_often(tmp_path: Path) -> None:
    *_, task = yaml.safe_load((ANSIBLE / "tasks/oracle.yml").read_text())
    playbook = tmp_path / "wait.yml"
    # As in site.yml; with a shorter patience.
    tasks = json.loads(json.dumps([task]).replace('"timeout": 600', '"timeout": 1').replace('"sleep": 5', '"sleep": 1'))
    after = {"name": "After it", "ansible.builtin.debug": {"msg": "we were let in"}}
    play_ = {"hosts": "cloud", "gather_facts": False, "any_errors_fatal": True, "tasks": [*tasks, after]}
    playbook.write_text(json.dumps([play_]))
    refused = {"ansible_host": "127.0.0.1", "ansible_port": 1, "oracle_ssh_from": ["198.51.100.7"]}
    there = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    for others in ({}, {"other": there}):
        status, said = play(tmp_path, str(playbook), refused, others=others)
        assert status != 0
        assert "127.0.0.1 port 1: Connection refused" in said
        assert "vm (127.0.0.1) did not let us in. Mend: is your own address in oracle_ssh_from" in said
        assert "198.51.100.7" in said and "`curl -4 https://ifconfig.me`" in said and "goes on from there" in said
        assert "we were let in" not in said


def test_a_dry_run_does_not_take_a_machine_for_missing_whose_address_it_would_exchange(
    tmp_path: Path, oracle: Oracle, settings: dict[str, Any], subnet_id: str
) -> None:
    machine = oracle.call("oracle_instance", name="vm", subnet_id=subnet_id, ssh_public_key=PUBLIC_KEY)
    oracle.call("oracle_public_ip", name="vm", private_ip_id=machine["private_ip_id"], lifetime="EPHEMERAL")
    status, said = play(tmp_path, "site.yml", settings, "--check")
    assert status == 0, said
    assert "vm is there, but not yet at the address that it will have. A real one would have its network" in said
    assert "; give back" in said
    assert "get vm a public address, reserved; then" in said and "is not there yet" not in said


@pytest.mark.parametrize("playbook", ["site.yml", "destroy.yml"])
def test_a_machine_that_another_name_was_given_to_is_not_left_behind(
    tmp_path: Path, oracle: Oracle, settings: dict[str, Any], subnet_id: str, playbook: str
) -> None:
    known = oracle.call("oracle_instance", name="old", subnet_id=subnet_id, ssh_public_key=PUBLIC_KEY)["instance_id"]
    made = tmp_path / "host_vars/vm/oracle.yml"
    made.parent.mkdir(parents=True)
    made.write_text(json.dumps({"ansible_host": "203.0.113.10", "oracle_instance_made": {"id": known}}))
    (tmp_path / "known_hosts").write_text(f"203.0.113.10 {PUBLIC_KEY}\n")
    status, said = play(tmp_path, playbook, settings)
    assert status != 0
    assert f"{known}, lives on: personal-ai-employee=old in" in said
    assert made.is_file() and PUBLIC_KEY in (tmp_path / "known_hosts").read_text()
    assert [each["id"] for each in oracle.api.all("Instance")] == [known]


def test_what_was_not_made_here_is_not_destroyed_here(tmp_path: Path) -> None:
    status, said = play(tmp_path, "destroy.yml", {"ansible_host": "192.0.2.1"})
    assert status != 0
    assert "oracle_api_key is not set" in said
