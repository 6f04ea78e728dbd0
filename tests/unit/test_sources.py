"""What the roles python and base decide by: is this Python final, is this the vendor's key."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "ansible/roles"
FINGERPRINT = "E602BD81846242986E44EDDC60B7A60C7E866114"


def role_vars(role: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROLES / role / "vars/main.yml").read_text()))


@pytest.mark.parametrize(("level", "status"), [("final", 0), ("candidate", 1)])
def test_a_release_candidate_of_python_is_found_out(tmp_path: Path, level: str, status: int) -> None:
    # Ubuntu 22.04 has 3.11.0~rc1.
    fake = f"import ensurepip, sys, types\nsys.version_info = types.SimpleNamespace(releaselevel={level!r})\n"
    (tmp_path / "candidate.py").write_text(fake)
    python, option, code = role_vars("python")["python_probe"]
    assert (python, option) == ("python3.11", "-c")
    done = subprocess.run(
        [sys.executable, "-c", f"import candidate; {code}"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stderr.strip() == ("" if level == "final" else sys.version), "for the message"


@pytest.mark.parametrize(("validity", "found"), [("-", True), ("", True), ("e", False), ("r", False)])
def test_an_expired_or_revoked_key_is_as_good_as_none(validity: str, found: bool) -> None:
    # A vendor that prolongs its key keeps the fingerprint: the old file has to be fetched anew.
    listing = (
        f"pub:{validity}:255:22:60B7A60C7E866114:1795432257:1795432258::-:::sc:::::ed25519:::0:\n"
        f"fpr:::::::::{FINGERPRINT}:\nuid:{validity}::::1795432257::C3EFD7::a <a@b>::::::::::0:\n"
        "sub:-:255:18:0A0A0A0A0A0A0A0A:1795432257::::::e:::::cv25519::\nfpr:::::::::0123456789012345678901234567890123456789:\n"
    )
    assert re.findall(role_vars("base")["base_primary_key"], listing) == [FINGERPRINT] * found


@pytest.mark.parametrize(("done_before", "status"), [(False, 2), (True, 0)])
def test_a_repository_out_of_order_stops_the_first_run_alone(tmp_path: Path, done_before: bool, status: int) -> None:
    """Later its key may have expired, and the role that brings the new one comes after this."""
    tasks = yaml.safe_load((ROLES / "base/tasks/main.yml").read_text())
    refresh = next(task for task in tasks if task["name"] == "Refresh the package lists")
    del refresh["ansible.builtin.apt"]
    refresh["ansible.builtin.fail"] = {"msg": "EXPKEYSIG"}
    given = {"base_done_before": {"stat": {"exists": done_before}}, "ansible_connection": "local"}
    play = {"hosts": "all", "gather_facts": False, "vars": given, "tasks": [refresh]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "--inventory=machine,", "play.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout
    assert "EXPKEYSIG" in done.stdout, "it is told, be it fatal or not"
