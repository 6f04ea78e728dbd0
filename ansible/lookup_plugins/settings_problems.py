"""Lookup that finds what is wrong with the settings without looking at their values: names, and Ansible's own."""

from __future__ import annotations

import datetime
import difflib
import os
import re
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

DOCUMENTATION = r"""
name: settings_problems
short_description: What is wrong with the names of the settings
description:
  - A list of problems, each with its mend - settings that no role knows, names of C(.env.cloud), credentials that could
    send or pay, and an C(ansible.cfg) that Ansible ignores.
options:
  _terms:
    description: The variables that are set in the environment of the machine (network_environment).
"""

ANSIBLE = Path(__file__).resolve().parents[1]
ROLES = ANSIBLE / "roles"
# https://github.com/nodejs/Release: no security fixes after that day.
NODE_ENDS = {18: "2025-04-30", 20: "2026-04-30", 22: "2027-04-30", 24: "2028-04-30"}


@cache
def options() -> frozenset[str]:
    """Every variable that a role takes."""
    specs = (yaml.safe_load(path.read_text()) for path in ROLES.glob("*/meta/argument_specs.yml"))
    return frozenset(name for spec in specs for entry in spec["argument_specs"].values() for name in entry["options"])


@cache
def words() -> frozenset[str]:
    """Every word of the roles and playbooks, and so every variable that means something to them."""
    trees = (ANSIBLE / "group_vars", ANSIBLE / "tasks", ROLES)
    files = [
        *ANSIBLE.glob("*.yml"),
        *(path for tree in trees for path in tree.rglob("*") if path.suffix in (".yml", ".j2")),
    ]
    return frozenset(word for path in files for word in re.findall(r"\w+", path.read_text()))


@cache
def names_of_the_env_file() -> dict[str, str]:
    """Name in .env.cloud, which an operator who comes from there may write, in both cases -> our variable."""
    template = (ROLES / "agent/templates/env.cloud.j2").read_text()
    pairs = re.findall(r'setting\("([A-Z_]+)", (?:"yes" if )?(agent_[a-z_]+)', template)
    return {form: ours for name, ours in pairs for form in (name, name.lower()) if form != ours}


def renamed(names: Iterable[str]) -> list[str]:
    """Settings by the name that they have in .env.cloud."""
    ours = names_of_the_env_file()
    return [f"{name} is called {ours[name]} here. Mend: rename it" for name in sorted(names) if name in ours]


def unknown(names: Iterable[str]) -> list[str]:
    """Settings with the prefix of a role that no role knows."""
    prefixes = ("cloud_agent_", *(f"{role.name}_" for role in ROLES.iterdir()))
    problems = []
    for name in sorted(names):
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is None or name in words():
            continue
        alike = [option for option in options() if option.startswith(prefix)]
        # vault_… is also what many call the values that they keep in ansible-vault, vault_token or vault_secret.
        near = difflib.get_close_matches(name, alike, n=1, cutoff=0.8 if prefix == "vault_" else 0.6)
        if near:
            problems.append(
                f"{name} is set, and nothing knows it. Mend: is it {near[0]}? All there are: docs/variables.md"
            )
        elif not name.startswith("vault_"):
            problems.append(f"{name} is set, and nothing knows it. Mend: remove it. All there are: docs/variables.md")
    return problems


def forbidden(names: Iterable[str]) -> list[str]:
    """Credentials that the agent refuses to have around, by its own rule."""
    try:
        from cloud_agent.config import is_forbidden
    except ImportError:
        raise AnsibleError(
            "the agent is missing beside Ansible. Mend: make .venv/.installed, then start .venv/bin/ansible-playbook"
        ) from None
    return [
        f"{name} is a credential that could send or pay, and Cloud only drafts. Mend: let only other machines have it"
        for name in sorted(names)
        if is_forbidden(name)
    ]


def ignored_configuration(folder: Path, environment: Collection[str]) -> list[str]:
    """Ansible does not read an ansible.cfg in a folder that everybody may write to."""
    ignored = (
        folder.stat().st_mode & 0o002 and (folder / "ansible.cfg").exists() and "ANSIBLE_CONFIG" not in environment
    )
    return [
        f"Ansible ignores {folder}/ansible.cfg, for everybody may write to that folder. Mend: chmod o-w {folder}, or"
        f" where that has no effect (a Windows disk): export ANSIBLE_CONFIG={folder}/ansible.cfg"
    ] * bool(ignored)


def aged(major: object, today: datetime.date) -> str | None:
    """A warning about a Node.js past its end of life."""
    end = NODE_ENDS.get(int(str(major)) if str(major).isdecimal() else 0)
    if end is None or today <= datetime.date.fromisoformat(end):
        return None
    return f"Node.js {major} gets no security fixes since {end}: set nodejs_major to {max(NODE_ENDS)}"


class LookupModule(LookupBase):
    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **_: Any) -> list[str]:
        names = [name for name in variables or {} if not name.startswith("ansible_")]
        warning = aged((variables or {}).get("nodejs_major"), datetime.datetime.now(datetime.UTC).date())
        if warning:
            Display().warning(warning)
        return [
            *ignored_configuration(Path.cwd(), os.environ),
            *renamed(names),
            *unknown(names),
            *forbidden([name for name in names if name not in words()] + [str(term) for term in terms]),
        ]
