"""ansible/destroy.yml: what it says of a vault before the machine goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

PLAYBOOK = Path(__file__).resolve().parents[2] / "ansible/destroy.yml"
LEVEL = "## main...origin/main"


def said(vault: dict[str, Any], **more: Any) -> str:
    """What the task says whose answer from the machine is `vault`."""
    [play] = yaml.safe_load(PLAYBOOK.read_text())
    [task] = [task for task in play["tasks"] if task["name"].startswith("Say what goes")]
    variables = {name: trust_as_template(value) for name, value in task["vars"].items()}
    given = {"inventory_hostname": "vm", "oracle_instance_name": "vm", "oracle_instance_gone": ["the instance vm"]}
    given |= {"oracle_instance_removed": {"done": []}, "oracle_instance_file": "host_vars/vm/oracle.yml"}
    templar = Templar(DataLoader(), {**variables, **given, "destroy_vault": vault, **more})
    text = templar.template(trust_as_template(task["ansible.builtin.debug"]["msg"]))
    assert "- the instance vm\n" in text
    return str(text)


@pytest.mark.parametrize(
    ("status", "lost"),
    [
        ([LEVEL], None),
        ([f"{LEVEL} [behind 3]"], None),
        ([f"{LEVEL} [ahead 2]"], f"{LEVEL} [ahead 2]"),
        ([f"{LEVEL} [ahead 2, behind 1]"], f"{LEVEL} [ahead 2, behind 1]"),
        ([LEVEL, "?? Inbox/a.md", " M Dashboard.md"], "?? Inbox/a.md;  M Dashboard.md"),
        ([f"{LEVEL} [gone]"], f"{LEVEL} [gone]"),  # the branch is missing there
        (["## main"], "## main"),  # never pushed
        (["## No commits yet on main"], "## No commits yet on main"),
    ],
)
def test_what_is_not_pushed_is_told(status: list[str], lost: str | None) -> None:
    text = said({"rc": 0, "stdout_lines": status})
    if lost is None:
        assert "All of its vault is in the repository." in text
    else:
        assert f"NOT ALL of its vault is in the repository, and what is not would be lost: {lost}\n" in text


@pytest.mark.parametrize(
    "answer",
    [
        {"unreachable": True, "msg": "No route to host"},
        {"rc": 128, "stdout_lines": [], "stderr": "fatal: not a git repository"},
        {"failed": True, "msg": "sudo: a password is required"},
    ],
)
def test_a_machine_that_cannot_be_asked_may_have_more(answer: dict[str, Any]) -> None:
    text = said({"stderr": "", "stdout_lines": [], **answer})
    assert "NOT KNOWN, for vm cannot be asked:\n" in text
    assert (answer.get("stderr") or answer["msg"]) in text
    assert "All of its vault" not in text


def test_nothing_is_said_of_a_vault_that_is_not_asked_for() -> None:
    assert "vault" not in said({"skipped": True})


def test_a_machine_whose_address_was_never_learned_may_have_a_vault() -> None:
    """A run that was killed too early; or another computer made it. What the inventory has is not its address."""
    there = {"done": ["terminate vm"]}
    text = said({"skipped": True}, oracle_instance_removed=there)
    assert "NOT KNOWN, for where vm is was never written down here:\nthere is no host_vars/vm/oracle.yml." in text
    assert "vault" not in said({"skipped": True}, oracle_instance_removed=there, oracle_instance_made={"id": "x"})
    [play] = yaml.safe_load(PLAYBOOK.read_text())
    [asks] = [task for task in play["tasks"] if task.get("register") == "destroy_vault"]
    assert "oracle_instance_made is defined" in asks["when"]
