"""What is told before anything is changed: names of settings, and what a machine is asked for."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
EXAMPLE = "203.0.113.10"  # what inventories/production comes with
SECOND = "203.0.113.11"  # and has in a comment, for a second machine


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ANSIBLE / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


settings = load("lookup_plugins/settings_problems.py")
oracle = load("lookup_plugins/oracle_problems.py")
facts = load("library/machine_facts.py")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("agent_bugdet_usd_per_day", "agent_budget_usd_per_day"),
        ("deploy_key_token", "deploy_key_github_token"),
        ("vault_remote_ulr", "vault_remote_url"),
        ("nodejs_mayor", "nodejs_major"),
    ],
)
def test_a_typing_error_is_told_with_what_was_meant(name: str, meant: str) -> None:
    (problem,) = settings.unknown([name])
    assert problem.startswith(f"{name} is set")
    assert f"is it {meant}?" in problem


def test_every_option_is_known() -> None:
    assert len(settings.options()) > 30
    assert settings.unknown(settings.options()) == []


@pytest.mark.parametrize(
    "name",
    [
        "vault_claude_api_key",  # as many call what they keep in ansible-vault
        "vault_token",
        "vault_secret",
        "vault_path",  # of the role itself
        "cloud_agent_environment",
        "my_own_thing",
        "lab_name",
    ],
)
def test_names_that_are_nobodys_error(name: str) -> None:
    assert settings.unknown([name]) == []


def test_names_of_the_env_file_are_told_with_ours() -> None:
    told = settings.renamed(["git_remote_url", "CLAUDE_API_KEY", "whatsapp_notification_number", "agent_name", "x"])
    assert [problem.split(". ")[0] for problem in told] == [
        "CLAUDE_API_KEY is called agent_claude_api_key here",
        "git_remote_url is called agent_git_remote_url here",
        "whatsapp_notification_number is called agent_whatsapp_notification_number here",
    ]
    assert settings.renamed(settings.options()) == []


def test_every_name_of_the_env_file_leads_to_an_option() -> None:
    assert set(settings.names_of_the_env_file().values()) <= settings.options()
    assert len(set(settings.names_of_the_env_file().values())) > 10


def test_credentials_that_could_send_are_refused() -> None:
    assert len(settings.forbidden(["SMTP_PASSWORD", "stripe_api_key", "imap_password", "https_proxy"])) == 2
    assert settings.forbidden(settings.options()) == []


def test_a_configuration_that_ansible_ignores_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert settings.ignored_configuration(tmp_path, {}) == []
    (tmp_path / "ansible.cfg").touch()
    assert f"chmod o-w {tmp_path}" in settings.ignored_configuration(tmp_path, {})[0]
    assert settings.ignored_configuration(tmp_path, {"ANSIBLE_CONFIG"}) == []
    tmp_path.chmod(0o775)
    assert settings.ignored_configuration(tmp_path, {}) == []


def test_an_old_nodejs_is_a_warning() -> None:
    day = datetime.date(2026, 5, 1)
    assert settings.aged(20, day) == "Node.js 20 gets no security fixes since 2026-04-30: set nodejs_major to 24"
    assert settings.aged("22", day) is None
    assert settings.aged(None, day) is None


def test_what_the_machine_says_of_itself() -> None:
    release = facts.os_release('NAME="Ubuntu"\nVERSION_ID="22.04"\n# x=y\nID=ubuntu\nVERSION_CODENAME=jammy\n')
    assert release == {"NAME": "Ubuntu", "VERSION_ID": "22.04", "ID": "ubuntu", "VERSION_CODENAME": "jammy"}
    assert facts.memory_mb("MemFree: 1 kB\nMemTotal:        8388608 kB\n") == 8192


def preflight(directory: Path, host: dict[str, object], *others: dict[str, object], **task_vars: object) -> str:
    """Run the preflight alone on a machine with these settings; returns all that it said, in one line.

    Others are in the inventory too, as other-1 and so on.
    """
    hosts = {"machine": host, **{f"other-{number}": other for number, other in enumerate(others, 1)}}
    (directory / "hosts.json").write_text(json.dumps({"cloud": {"hosts": hosts}}))
    task = {"import_tasks": str(ANSIBLE / "tasks/preflight.yml"), "vars": task_vars}
    group_vars = str(ANSIBLE / "group_vars/all.yml")
    play = {"hosts": "cloud", "gather_facts": False, "vars_files": [group_vars], "tasks": [task]}
    (directory / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            f"--inventory={directory}/hosts.json",
            "--limit=machine",
            directory / "play.yml",
        ],
        cwd=ANSIBLE,
        env={
            **os.environ,
            "ANSIBLE_LIBRARY": str(ANSIBLE / "library"),
            "ANSIBLE_LOOKUP_PLUGINS": str(ANSIBLE / "lookup_plugins"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return " ".join((done.stdout + done.stderr).split())


def test_settings_that_are_left_empty_are_told_and_no_error_of_a_template(tmp_path: Path) -> None:
    empty = {"agent_git_remote_url": None, "agent_claude_api_key": None, "network_environment": None}
    told = preflight(tmp_path, {**empty, "ansible_host": EXAMPLE, "oracle_api_key": None})
    for problem in ("agent_git_remote_url is empty", "There is no Claude API key", "still has the example's address"):
        assert problem in told


def test_the_settings_of_a_machine_to_be_made_are_told_with_all_others(tmp_path: Path) -> None:
    ours = {"oracle_api_key": {"user": "{{ 'ocid1.user' }}"}, "oracle_ssh_fron": ["192.0.2.1"]}
    told = preflight(tmp_path, {**ours, "ansible_host": EXAMPLE}, preflight_is_before_the_machine=True)
    for problem in (
        "agent_git_remote_url is empty",
        "oracle_ssh_fron is set, and nothing knows it. Mend: is it oracle_ssh_from?",
        "oracle_ssh_from is empty",
        "ansible_ssh_private_key_file is not set",
    ):
        assert problem in told
    assert "the example's address" not in told


def test_machines_that_would_undo_one_another_are_told(tmp_path: Path) -> None:
    ours = {"oracle_api_key": api_key(), "oracle_ssh_from": ["192.0.2.1"]}
    others = [
        {**ours, "oracle_ssh_from": "{{ ['192.0.2.2'] }}"},
        {**ours, "oracle_instance_name": "machine"},
        {**ours, "oracle_ssh_from": ["192.0.2.2"], "oracle_network_name": "another"},
        {**ours, "oracle_ssh_from": ["192.0.2.2"], "oracle_compartment_id": "ocid1.compartment.oc1..aaaa"},
        {"ansible_host": "192.0.2.9"},
    ]
    told = preflight(tmp_path, ours, *others, preflight_is_before_the_machine=True)
    assert "oracle_ssh_from differ for machine and other-1, which share the network personal-ai-employee" in told
    assert "oracle_instance_name is machine for other-2 too" in told
    assert not any(f"other-{number}" in told for number in (3, 4, 5))


@pytest.mark.parametrize("host", [{}, {"ansible_host": EXAMPLE}, {"ansible_host": SECOND}, {"ansible_host": ""}])
def test_a_machine_that_is_not_made_yet_is_no_unreachable_one(tmp_path: Path, host: dict[str, object]) -> None:
    told = preflight(tmp_path, {**host, "oracle_api_key": {"user": "x"}, "agent_git_remote_url": "git@host:a/b.git"})
    assert "machine is not made yet. Mend: ansible-playbook site.yml" in told
    assert "oracle_ssh_from" not in told, "only what makes the machine needs that"


OUTPUT: dict[str, Any] = {"check": True, "capture_output": True}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key as Oracle's console makes it."""
    file = tmp_path_factory.mktemp("key") / "api.pem"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-m", "pem", "-N", "", "-f", file], check=True)
    return file


def api_key(**changes: str) -> dict[str, str]:
    account = {"user": "ocid1.user.oc1..aaaa", "tenancy": "ocid1.tenancy.oc1..aaaa", "region": "eu-frankfurt-1"}
    return {**account, "fingerprint": ":".join(["0f"] * 16), **changes}


def fingerprint(key_file: Path) -> str:
    """By the commands that Oracle's documentation gives."""
    public = subprocess.run(["openssl", "rsa", "-pubout", "-outform", "DER", "-in", key_file], **OUTPUT).stdout
    return subprocess.run(["openssl", "md5", "-c"], input=public, **OUTPUT).stdout.decode().split("= ")[-1].strip()


def test_an_api_key_that_can_be_used_is_no_problem(key_file: Path) -> None:
    pytest.importorskip("oci")
    given = {"fingerprint": fingerprint(key_file)}
    assert oracle.of_the_account(api_key(key_file=str(key_file), **given), "") == []
    assert oracle.of_the_account(api_key(key_content=key_file.read_text(), **given), "") == []


def test_a_private_key_of_another_fingerprint_is_told_with_both(key_file: Path) -> None:
    pytest.importorskip("oci")
    [problem] = oracle.of_the_account(api_key(key_file=str(key_file)), "")
    assert fingerprint(key_file) in problem
    assert api_key()["fingerprint"] in problem


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (api_key(), "key_file"),
        (api_key(key_file="/nowhere/api.pem"), "/nowhere/api.pem"),
        (api_key(key_file="/etc/hostname"), "not a private key"),
        (api_key(key_content="x", fingerprint="0f:0f"), "fingerprint"),
        ("~/.oci/config", "user"),
    ],
    ids=["no private key", "not there", "no key at all", "half a fingerprint", "a file instead"],
)
def test_an_api_key_that_cannot_be_used_is_told_before_it_is(given: object, told: str) -> None:
    pytest.importorskip("oci")
    (problem,) = oracle.of_the_account(given, "")
    assert problem.startswith("oracle_api_key cannot be used")
    assert told in problem
    assert "Mend: " in problem


def test_the_sdk_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle.shared(), "HAS_OCI", False)
    (problem,) = oracle.of_the_account(api_key(), "")
    assert "Mend: make oracle" in problem


@pytest.mark.parametrize(
    ("ssh_from", "told"),
    [
        ([], "oracle_ssh_from is empty"),
        (None, "oracle_ssh_from is empty"),
        ("192.0.2.1", "oracle_ssh_from: [203.0.113.7]"),
        (["192.0.2.1/24"], "192.0.2.0/24 for all of these addresses"),
        (["me"], "Mend: write an address"),
    ],
)
def test_from_where_to_log_in_has_to_be_said(ssh_from: object, told: str) -> None:
    (problem,) = oracle.of_the_firewall(ssh_from)
    assert told in problem
    assert oracle.of_the_firewall(["192.0.2.1", "2001:db8::/64", "0.0.0.0/0"]) == []


def test_what_costs_money_has_to_be_asked_for() -> None:
    assert oracle.of_the_size(2, "12", 200, allow_paid=False) == []
    more = oracle.of_the_size(2.5, "13", 201, allow_paid=False)
    assert [problem.split(" is ")[1].split(".")[0] for problem in more][1:] == [
        "13, and 12 GB of memory are free",
        "201, and 200 GB of boot volumes are free",
    ]
    assert len(more) == 3
    assert oracle.of_the_size(2.5, "13", 201, allow_paid=True) == []
    assert oracle.of_the_size("two", 2, 50, allow_paid=True) == ["oracle_instance_ocpus is two. Mend: write a number"]


def test_a_key_to_log_in_with_is_needed(tmp_path: Path) -> None:
    private = tmp_path / "id"
    assert oracle.of_the_login("", str(private)) == [
        f"{private}.pub is missing: the VM has to be made with it. Mend: ssh-keygen -t ed25519 -f {private}"
    ]
    private.touch()
    assert f"Mend: ssh-keygen -y -f {private} > {private}.pub" in oracle.of_the_login("", str(private))[0]
    (tmp_path / "id.pub").touch()
    assert oracle.of_the_login("", str(private)) == []
    assert oracle.of_the_login("ssh-ed25519 AAAA", "") == []
    assert "not its path" in oracle.of_the_login("~/.ssh/id.pub", "")[0]
    assert "ansible_ssh_private_key_file is not set" in oracle.of_the_login("", "")[0]


def test_the_defaults_of_the_roles_are_the_defaults_here() -> None:
    asked: list[str] = []

    def setting(name: str) -> object:
        asked.append(name)
        return oracle.defaults().get(name)

    problems = oracle.of_all(setting)
    assert any("oracle_ssh_from is empty" in problem for problem in problems)
    assert not any(" are free" in problem or "write a number" in problem for problem in problems)
    assert {name for name in asked if name.startswith("oracle_")} <= oracle.defaults().keys()
