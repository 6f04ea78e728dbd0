"""ansible/tasks/mailboxes.yml: two machines with one mailbox are an error, unless they share the work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VAULT = {"agent_git_remote_url": "git@github.com:you/vault.git"}
SHARING = {**VAULT, "agent_claim": True}


def check(directory: Path, machines: dict[str, dict[str, object]], *options: str) -> tuple[int, str]:
    """Run the check alone on an inventory of such machines; returns the exit status and the output."""
    inventory = directory / "hosts.json"
    hosts = {name: {"ansible_connection": "local", **own} for name, own in machines.items()}
    inventory.write_text(json.dumps({"cloud": {"hosts": hosts}}))
    # In the folder of site.yml, where it finds the roles.
    command = [str(Path(sys.executable).with_name("ansible-playbook")), f"--inventory={inventory}", *options]
    play = [{"hosts": "cloud", "gather_facts": False, "tasks": [{"import_tasks": "tasks/mailboxes.yml"}]}]
    (directory / "play.yml").write_text(json.dumps(play))
    for name in ("tasks", "roles"):
        (directory / name).symlink_to(ROOT / "ansible" / name)
    done = subprocess.run([*command, str(directory / "play.yml")], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (VAULT, VAULT),
        (VAULT, {"agent_git_remote_url": "ssh://git@github.com/You/vault/"}),
        (VAULT, {**VAULT, "agent_git_branch": "main"}),
        (SHARING, {**VAULT, "agent_name": "two"}),
        (SHARING, {**SHARING, "agent_name": "cloud"}),
    ],
    ids=["the same", "written otherwise", "the branch by default", "only one claims", "the name by default"],
)
def test_one_mailbox_for_two_machines_is_refused(
    tmp_path: Path, one: dict[str, object], two: dict[str, object]
) -> None:
    # Also where the other machine is not in this run.
    status, output = check(tmp_path, {"one": one, "two": two}, "--limit=two")
    assert status != 0
    assert "one and two have the same agent_git_remote_url" in " ".join(output.split())


def test_a_mailbox_each_or_a_shared_one_is_fine(tmp_path: Path) -> None:
    machines = {
        "alone": {"agent_git_remote_url": "git@github.com:you/vault2.git"},
        "branch": {**VAULT, "agent_git_branch": "other"},
        "one": SHARING,
        "two": {**SHARING, "agent_name": "two"},
    }
    status, output = check(tmp_path, machines)
    assert status == 0, output
