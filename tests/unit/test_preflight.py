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

import pytest

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
EXAMPLE = "203.0.113.10"  # what inventories/production comes with


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ANSIBLE / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


settings = load("lookup_plugins/settings_problems.py")
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


def test_settings_that_are_left_empty_are_told_and_no_error_of_a_template(tmp_path: Path) -> None:
    hosts = {"machine": {"agent_git_remote_url": None, "agent_claude_api_key": None, "network_environment": None}}
    (tmp_path / "hosts.json").write_text(json.dumps({"cloud": {"hosts": hosts, "vars": {"ansible_host": EXAMPLE}}}))
    play = {"hosts": "cloud", "gather_facts": False, "tasks": [{"import_tasks": str(ANSIBLE / "tasks/preflight.yml")}]}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            f"--inventory={tmp_path}/hosts.json",
            tmp_path / "play.yml",
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
    told = " ".join(done.stdout.split())
    for problem in ("agent_git_remote_url is empty", "There is no Claude API key", "still has the example's address"):
        assert problem in told, done.stdout + done.stderr
