"""Lookup that finds what is wrong with the settings of the VM at Oracle, before Oracle is asked for anything."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: oracle_problems
short_description: What is wrong with the settings of the VM at Oracle
description:
  - A list of problems, each with its mend, out of the variables of the roles oracle_network and oracle_instance.
"""

ANSIBLE = Path(__file__).resolve().parents[1]
ROLES = ("oracle", "oracle_network", "oracle_instance")
# Settings of the network that all machines in it share.
OF_THE_NETWORK = (
    "oracle_ssh_from",
    "oracle_network_cidr",
    "oracle_network_subnet_cidr",
    "oracle_network_purge_rules",
)

Setting = Callable[[str], Any]


@cache
def shared() -> ModuleType:
    """What the modules for Oracle share. Not importable by a name: Ansible gives module_utils to modules alone."""
    spec = importlib.util.spec_from_file_location("oracle_shared", ANSIBLE / "module_utils/oracle.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def defaults() -> dict[str, Any]:
    """Those of the roles, as they are written."""
    files = (ANSIBLE / "roles" / role / "defaults/main.yml" for role in ROLES)
    return {name: value for file in files for name, value in yaml.safe_load(file.read_text()).items()}


def default(name: str) -> Any:
    """A setting that nobody set. An expression is an answer only where the role runs."""
    value = defaults().get(name)
    return None if isinstance(value, str) and "{{" in value else value


def of_the_account(api_key: object, endpoint: str) -> list[str]:
    """The API key: is it whole, is its private half there, usable, and that of the fingerprint."""
    oracle = shared()
    if not oracle.HAS_OCI:
        return [oracle.NO_SDK]
    given = api_key if isinstance(api_key, dict) else {}
    try:
        oracle.Account(given, endpoint)
    except oracle.Problem as problem:
        return [str(problem)]
    actual = oracle.fingerprint(given)
    if actual == given["fingerprint"].lower():
        return []
    return [
        f"oracle_api_key.fingerprint is {given['fingerprint']}, and that of its private key is {actual}. Mend: take the"
        " fingerprint that the console shows for that key (My profile, API keys), or the private key of that one"
    ]


def of_the_firewall(ssh_from: object) -> list[str]:
    """From where SSH is let in."""
    oracle = shared()
    if not ssh_from:
        return [
            "oracle_ssh_from is empty: nobody could log in to the VM. Mend: oracle_ssh_from: [203.0.113.7], with the"
            " address that the internet sees you under, which `curl -4 https://ifconfig.me` prints. Where yours"
            " changes: your provider's range, or 0.0.0.0/0 for the whole internet"
        ]
    if not isinstance(ssh_from, list):
        return ["oracle_ssh_from is not a list. Mend: write it in brackets, as in oracle_ssh_from: [203.0.113.7]"]
    problems = []
    for entry in ssh_from:
        try:
            oracle.cidr(str(entry), "oracle_ssh_from")
        except oracle.Problem as problem:
            problems.append(str(problem))
    return problems


def of_the_size(ocpus: object, memory_gb: object, boot_volume_gb: object, allow_paid: bool) -> list[str]:
    """More than what costs nothing, by this one machine alone; the module counts what else the account has."""
    oracle = shared()
    problems = []
    for name, value, free, unit in (
        ("oracle_instance_ocpus", ocpus, oracle.FREE_OCPUS, "OCPU"),
        ("oracle_instance_memory_gb", memory_gb, oracle.FREE_MEMORY_GB, "GB of memory"),
        ("oracle_instance_boot_volume_gb", boot_volume_gb, oracle.FREE_VOLUMES_GB, "GB of boot volumes"),
    ):
        try:
            number = float(str(value))
        except ValueError:
            problems.append(f"{name} is {value}. Mend: write a number")
            continue
        if number > free and not allow_paid:
            problems.append(
                f"{name} is {number:g}, and {free:g} {unit} are free. Mend: ask for less, or, to pay for it,"
                " oracle_allow_paid: true"
            )
    return problems


def of_the_login(public_key: str, private_key_file: str) -> list[str]:
    """The key that the VM is to let in. `public_key` is empty where it is the one beside the private key."""
    if public_key:
        if public_key.startswith(("ssh-", "ecdsa-", "sk-")):
            return []
        return ["oracle_instance_ssh_public_key is no public key. Mend: give the text in the .pub file, not its path"]
    if not private_key_file:
        return [
            "ansible_ssh_private_key_file is not set: the VM has to be made with its public half. Mend: set it to the"
            " key that you log in with, such as ~/.ssh/id_ed25519"
        ]
    private = Path(private_key_file).expanduser()
    if Path(f"{private}.pub").is_file():
        return []
    make = f"ssh-keygen -y -f {private} > {private}.pub" if private.is_file() else f"ssh-keygen -t ed25519 -f {private}"
    return [f"{private}.pub is missing: the VM has to be made with it. Mend: {make}"]


def of_the_others(here: str, machines: Mapping[str, Setting]) -> list[str]:
    """What would have the machines of one account undo what the others need."""
    mine = machines[here]
    name, network = mine("oracle_instance_name") or here, mine("oracle_network_name")
    problems = []
    for host, other in machines.items():
        if host == here or account(other) is None or account(other) != account(mine):
            continue
        if (other("oracle_instance_name") or host) == name:
            problems.append(
                f"oracle_instance_name is {name} for {host} too: both would be one and the same VM. Mend: leave it out,"
                " for the name in the inventory, or give each its own"
            )
        differing = [what for what in OF_THE_NETWORK if alike(other(what)) != alike(mine(what))]
        if differing and other("oracle_network_name") == network:
            problems.append(
                f"{' and '.join(differing)} differ for {here} and {host}, which share the network {network}: each run"
                " for one would take away what the other needs. Mend: set them once for all (group_vars), or give"
                " each an oracle_network_name of its own"
            )
    return problems


def account(setting: Setting) -> tuple[object, ...] | None:
    """Where a machine is made; None for one that is not."""
    api_key = setting("oracle_api_key")
    if not isinstance(api_key, dict) or not api_key:
        return None
    return api_key.get("tenancy"), api_key.get("region"), setting("oracle_compartment_id") or api_key.get("tenancy")


def alike(value: object) -> list[str]:
    """A setting, so that it is equal for whatever means the same."""
    return sorted(str(each).lower() for each in (value if isinstance(value, list) else [value]))


def of_all(setting: Setting) -> list[str]:
    """Everything that is wrong; `setting` gives the value of a variable by its name."""
    explicit = "oracle_instance_ssh_public_key"
    return [
        *of_the_account(setting("oracle_api_key"), setting("oracle_endpoint")),
        *of_the_firewall(setting("oracle_ssh_from")),
        *of_the_size(
            *(setting(f"oracle_instance_{size}") for size in ("ocpus", "memory_gb", "boot_volume_gb")),
            allow_paid=str(setting("oracle_allow_paid")).lower() in ("true", "yes", "on", "1"),
        ),
        *of_the_login(str(setting(explicit) or ""), str(setting("ansible_ssh_private_key_file") or "")),
    ]


class LookupModule(LookupBase):
    def run(self, _: list[Any], variables: Mapping[str, Any] | None = None, **__: Any) -> list[str]:
        given = variables or {}

        def setting(name: str) -> Any:
            return self._templar.template(given[name]) if name in given else default(name)

        def setting_of(host: str) -> Setting:
            its = given["hostvars"][host]
            return lambda name: its[name] if name in its else default(name)

        here = given["inventory_hostname"]
        # All of the inventory, with --limit too.
        machines = {host: setting if host == here else setting_of(host) for host in given["groups"]["cloud"]}
        return [*of_all(setting), *of_the_others(here, machines)]
