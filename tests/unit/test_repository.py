"""What has to agree across files of the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "ansible/roles").iterdir() if path.is_dir())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_argument_specs_have_the_keys_of_the_defaults(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert set(specs) == set(defaults)
    assert all(option.get("description") for option in specs.values())


def pins(path: str) -> dict[str, str]:
    """Name in lower case -> version."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\]+)", (ROOT / path).read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


def test_the_machine_runs_the_versions_that_were_tested() -> None:
    asked, locked, tested = (pins(f) for f in ("agent/requirements.in", "agent/requirements.lock", "requirements.txt"))
    assert asked.items() <= locked.items(), "run `make lock`"
    assert asked.items() <= tested.items(), "bring requirements.txt in step with agent/requirements.in"
    declared = re.search(r"dependencies = \[(.*?)\]", (ROOT / "agent/pyproject.toml").read_text(), re.DOTALL)
    assert declared
    assert {name.lower() for name in re.findall(r'"([A-Za-z-]+)', declared[1])} == set(asked)


def test_every_locked_file_has_a_hash_and_no_address() -> None:
    lock = (ROOT / "agent/requirements.lock").read_text()
    assert "://" not in lock
    entries = re.split(r"(?m)^(?=[a-z0-9-]+==)", lock)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
