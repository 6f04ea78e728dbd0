"""What has to agree across files of the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import variables

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "ansible/roles").iterdir() if path.is_dir())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_argument_specs_have_the_keys_of_the_defaults(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert set(specs) == set(defaults)
    assert all(option.get("description") for option in specs.values())


TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "list": (list,),
    "dict": (dict,),
    "raw": (object,),
}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_of_the_type_that_is_asked_for(role: Path) -> None:
    defaults: dict[str, Any] = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    options = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    for name, default in defaults.items():
        kind = options[name]["type"]
        if isinstance(default, str) and "{{" in default:
            continue  # its type is known when it is rendered; the role's own check looks then
        assert isinstance(default, TYPES[kind]) and (kind == "bool" or not isinstance(default, bool)), name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_of_a_role_comes_from_somewhere(role: Path) -> None:
    """A name with the role's prefix is a default, a variable, registered, set as a fact, or given to its tasks."""
    texts = [path.read_text() for path in role.rglob("*.yml") if path.parent.name != "meta"]
    texts += [path.read_text() for path in role.rglob("*.j2")]
    used = {word for text in texts for word in re.findall(rf"(?<![/\w]){role.name}_\w+", text)}
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    known = {name for entry in specs.values() for name in entry["options"]}
    for text in texts:
        known |= set(re.findall(r"(?m)^\s*(?:- )?(\w+):", text)) | set(re.findall(r"register: (\w+)", text))
        known |= set(re.findall(r"(?:set|macro|for) (\w+)", text))
    # Other roles, modules and files that begin with the same word.
    known |= {path.name for path in ROLES} | {path.stem for path in role.rglob("*") if path.is_file()}
    assert used <= known, used - known


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_yes_or_no_may_come_from_the_command_line(role: Path) -> None:
    """-e name=false gives a text, and a text is true. A module takes it for what it means; an expression does not."""
    defaults: dict[str, Any] = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    texts = [path.read_text() for kind in ("tasks/*.yml", "vars/*.yml", "templates/*") for path in role.glob(kind)]
    for name in (name for name, default in defaults.items() if isinstance(default, bool)):
        used = [line.strip() for text in texts for line in text.splitlines() if re.search(rf"\b{name}\b(?!=)", line)]
        assert [line for line in used if f"{name} | bool" not in line and f': "{{{{ {name} }}}}"' not in line] == []


def test_the_tables_of_the_variables_are_those_of_the_roles() -> None:
    assert variables.FILE.read_text() == variables.render(), "run `python -m tests.variables`"


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


def test_what_alerts_need_goes_with_what_the_agent_has() -> None:
    """Both locks are installed into one environment."""
    files = ("agent/requirements-alerts.in", "agent/requirements-alerts.lock", "agent/requirements.lock")
    asked, locked, agent = map(pins, files)
    assert asked.items() <= locked.items(), "run `make lock`"
    assert asked.items() <= pins("requirements.txt").items(), "run `make lock`"
    assert {name: agent[name] for name in locked if name in agent}.items() <= locked.items()
    declared = re.search(r"alerts = \[(.*?)\]", (ROOT / "agent/pyproject.toml").read_text())
    assert declared
    assert {name.lower() for name in re.findall(r'"([A-Za-z-]+)', declared[1])} == set(asked)


@pytest.mark.parametrize("name", ["agent/requirements.lock", "agent/requirements-alerts.lock"])
def test_every_locked_file_has_a_hash_and_no_address(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert "://" not in lock
    entries = re.split(r"(?m)^(?=[a-z0-9-]+==)", lock)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_no_pattern_repeats_a_group_possessively() -> None:
    """`(?:...)*+` matches wrongly in Python 3.11.2, Debian 12's (CPython gh-106052); `(?>(?:...)*)` does not."""
    for path in sorted((ROOT / "agent/cloud_agent").rglob("*.py")):
        assert not re.search(r"(?<!\\)\)[*+?]\+", path.read_text()), path.name
