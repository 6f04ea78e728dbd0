"""What the role `agent` makes of its variables: .env.cloud, PM2's file, and what a release is made of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cloud_agent import config

ROOT = Path(__file__).resolve().parents[2]
RENDERED = {
    name: f"{{{{ {name} }}}}"
    for name in ("agent_settings", "agent_ecosystem", "agent_release_name", "agent_requirements", "agent_deployment")
}
MACHINES: dict[str, dict[str, Any]] = {
    "plain": {},
    "empty": {"agent_imap_host": None, "agent_maildir_path": None, "agent_alert_urls": None, "agent_imap_port": None},
    "imap": {
        "agent_imap_host": "mail.example.org",
        "agent_imap_user": "you@example.org",
        "agent_imap_password": r"it's a \ $word",
        "agent_imap_folder": "Work",
        "agent_imap_port": 143,
        "agent_watch_since_days": 3,
    },
    "told": {
        "agent_alert_urls": ["ntfys://ntfy.sh/one", "json://localhost/two"],
        "agent_alert_quiet": "22:00-07:00",
        "agent_alert_timezone": "Europe/Berlin",
        "agent_alert_body": "true",  # as -e gives it
        "agent_alert_urgent_always": "false",
    },
    "one": {"agent_alert_urls": "ntfys://ntfy.sh/one"},  # Ansible takes a word for a list of one
    "whatsapp": {
        "agent_alert_mcp_url": "https://mcp.example.org/mcp",
        "agent_alert_mcp_token": "t0ken",
        "agent_whatsapp_notification_number": "+491701234567",
    },
}


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the role makes of each, by one run of Ansible."""
    folder = tmp_path_factory.mktemp("role")
    same = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "agent_git_remote_url": "git@example.com:you/vault.git",
        "agent_claude_api_key": "a-key",
        "agent_git_ssh_key_path": "",
        "agent_source": str(ROOT / "agent"),
        "agent_ecosystem_template": str(ROOT / "ecosystem.config.js.j2"),
        "agent_sources": {"files": []},
    }
    (folder / "hosts.json").write_text(
        json.dumps({"cloud": {"hosts": {name: {**same, **own} for name, own in MACHINES.items()}}})
    )
    write = {"content": "{{ rendered | to_json }}", "dest": f"{folder}/{{{{ inventory_hostname }}}}.json"}
    play = {
        "hosts": "cloud",
        "gather_facts": False,
        "vars_files": [str(ROOT / "ansible/group_vars/all.yml")],
        "roles": [{"role": "agent", "tags": "never"}],  # for its defaults and variables
        "tasks": [{"copy": write, "vars": {"rendered": RENDERED, "ansible_python_interpreter": sys.executable}}],
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    (folder / "roles").symlink_to(ROOT / "ansible/roles")
    (folder / "templates").symlink_to(ROOT / "ansible/roles/agent/templates")
    command = [str(Path(sys.executable).with_name("ansible-playbook")), f"--inventory={folder}/hosts.json"]
    done = subprocess.run([*command, folder / "play.yml"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in MACHINES}


def read(machine: dict[str, Any], tmp_path: Path) -> config.Config:
    """The settings, as the agent reads them from that machine's file."""
    (tmp_path / "vault").mkdir()
    lines = machine["agent_settings"].splitlines()
    kept = [line for line in lines if not line.startswith(("VAULT_PATH=", "STATE_PATH="))]
    (tmp_path / ".env.cloud").write_text("\n".join([*kept, f"VAULT_PATH='{tmp_path}/vault'", ""]))
    return config.load(tmp_path / ".env.cloud", {})


@pytest.mark.parametrize("name", ["plain", "empty"])
def test_without_a_mailbox_and_a_channel_nothing_of_them_is_there(
    machines: dict[str, dict[str, Any]], name: str, tmp_path: Path
) -> None:
    found = machines[name]
    for word in ("IMAP", "MAILDIR", "WATCH", "ALERT"):
        assert word not in found["agent_settings"]
    assert "mail_watcher" not in found["agent_ecosystem"]
    assert found["agent_requirements"] == ["requirements.lock"]
    settings = read(found, tmp_path)
    assert (settings.mailbox, settings.alerts) == (None, None)


def test_a_mailbox(machines: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    settings = read(machines["imap"], tmp_path)
    assert settings.mailbox == config.ImapBox(
        "mail.example.org", 143, "starttls", None, "you@example.org", r"it's a \ $word", None, "Work"
    )
    assert (settings.watch_interval_seconds, settings.watch_since_days) == (60, 3)
    assert 'loop("mail_watcher", "watch", "150M")' in machines["imap"]["agent_ecosystem"]
    assert machines["imap"]["agent_release_name"] == machines["plain"]["agent_release_name"]
    assert machines["imap"]["agent_deployment"] != machines["plain"]["agent_deployment"]


def test_channels(machines: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    found = machines["told"]
    alerts = read(found, tmp_path).alerts
    assert alerts is not None
    assert list(alerts.channels.values()) == ["ntfys://ntfy.sh/one", "json://localhost/two"]
    assert (str(alerts.zone), alerts.body, alerts.urgent_always) == ("Europe/Berlin", True, False)
    assert "mail_watcher" not in found["agent_ecosystem"]
    assert "ALERT_URLS='ntfys://ntfy.sh/one'\n" in machines["one"]["agent_settings"]


def test_what_alerts_are_sent_with_makes_another_release(machines: dict[str, dict[str, Any]]) -> None:
    """A release is never changed: one without the extra would be found, and would refuse the settings."""
    names = {name: found["agent_release_name"] for name, found in machines.items()}
    assert names["plain"] == names["empty"] != names["told"] == names["whatsapp"]
    assert machines["whatsapp"]["agent_requirements"] == ["requirements.lock", "requirements-alerts.lock"]
    assert all((ROOT / "agent" / name).is_file() for name in machines["whatsapp"]["agent_requirements"])


def test_every_setting_of_mailboxes_and_alerts_has_a_variable() -> None:
    """What the agent reads, and what its documentation names, can be set."""
    from tests.unit.test_preflight import settings

    code = "".join((ROOT / "agent/cloud_agent" / name).read_text() for name in ("config.py", "alerting/settings.py"))
    read_there = set(re.findall(r'"((?:IMAP|GMAIL|MAILDIR|WATCH|ALERT|INTAKE)_[A-Z_]+)"', code))
    assert len(read_there) > 25
    assert read_there <= set(settings.names_of_the_env_file())
