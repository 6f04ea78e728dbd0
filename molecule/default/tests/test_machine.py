"""What else the machine promises: no secret where it does not belong, and one PM2 that always comes back."""

from __future__ import annotations

import pytest
from conftest import Machine, eventually

UNIT = "pm2-cloud-agent.service"


def test_secrets_stay_where_they_belong(machine: Machine) -> None:
    assert machine.run(f"stat -c '%U %a' {machine.root}/.env.cloud") == "cloud-agent 600"
    key = machine.run(f"sudo sed -n \"s/^CLAUDE_API_KEY='\\(.*\\)'/\\1/p\" {machine.root}/.env.cloud")
    assert len(key) > 8
    machine.run("pm2 save")
    dump = machine.run("sudo cat /var/lib/cloud-agent/.pm2/dump.pm2")
    assert "cloud_orchestrator" in dump
    assert key not in dump
    assert key not in machine.run(f"cat {machine.root}/ecosystem.config.js")
    assert machine.run("sudo stat -c '%U %a' /var/lib/cloud-agent/.ssh/id_ed25519_vault") == "cloud-agent 600"
    assert machine.host.run("cat /var/lib/cloud-agent/.pm2/dump.pm2").rc != 0


def test_service_user_is_unprivileged(machine: Machine) -> None:
    assert machine.host.run("sudo -u cloud-agent sudo -n true").rc != 0
    for loop in machine.loops().values():
        assert machine.run(f"ps -o user:32= -p {loop['pid']}") == "cloud-agent"
    assert machine.host.run(f"sudo -u cloud-agent touch {machine.root}/current/x").rc != 0


def test_login_user_works_in_the_vault(machine: Machine) -> None:
    machine.run(f"git -C {machine.vault} log --oneline")
    machine.run(f"touch {machine.vault}/Inbox/.touched && rm {machine.vault}/Inbox/.touched")


def test_limits_and_log_rotation(machine: Machine) -> None:
    loops = machine.loops()
    assert loops["cloud_orchestrator"]["pm2_env"]["max_memory_restart"] == 500 * 1024 * 1024
    assert loops["git_sync_cloud"]["pm2_env"]["max_memory_restart"] == 200 * 1024 * 1024
    logs = {app["pm2_env"][kind] for app in loops.values() for kind in ("pm_out_log_path", "pm_err_log_path")}
    assert len(logs) == 4
    assert "pm2-logrotate" in machine.run("pm2 list")


@pytest.mark.parametrize("command", ["kill", "update"])
def test_pm2_refuses_what_would_detach_it_from_systemd(machine: Machine, command: str) -> None:
    done = machine.host.run(f"pm2 {command}")
    assert done.rc != 0
    assert f"sudo systemctl {'stop' if command == 'kill' else 'restart'} {UNIT}" in done.stderr


def test_pm2_does_not_start_a_second_daemon(machine: Machine) -> None:
    machine.run(f"sudo systemctl stop {UNIT}")
    try:
        done = machine.host.run("pm2 list")
        assert done.rc != 0
        assert f"sudo systemctl start {UNIT}" in done.stderr
        assert machine.host.run("pgrep -f 'PM2 v'").stdout == ""
    finally:
        machine.run(f"sudo systemctl start {UNIT}")
    eventually(machine.online, 30, "both loops online after a stop and a start of the unit")


def test_killed_daemon_comes_back(machine: Machine) -> None:
    machine.run(f"sudo kill -9 $(systemctl show --property=MainPID --value {UNIT})")
    machine.host.run("pm2 list")  # in the middle of it: this wedged the unit that `pm2 startup` makes
    eventually(machine.online, 60, "both loops online after kill -9 of PM2's daemon")
    assert machine.host.service("pm2-cloud-agent").is_running
