"""What else the machine promises: no secret where it does not belong, and one PM2 that always comes back."""

from __future__ import annotations

import subprocess
import time

import pytest
from conftest import LAB, LOOPS, Machine, eventually

UNIT = "pm2-cloud-agent.service"
LOGS = "/var/lib/cloud-agent/.pm2/logs"


def daemon(machine: Machine) -> str:
    """The process that systemd has for PM2. Fails when there is not exactly this one."""
    pid = machine.run(f"systemctl show --property=MainPID --value {UNIT}")
    assert machine.run("pgrep -f 'PM2 v'").split() == [pid]
    return pid


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


def test_no_secret_in_any_file_process_or_journal(machine: Machine) -> None:
    key = machine.run(f"sudo sed -n \"s/^CLAUDE_API_KEY='\\(.*\\)'/\\1/p\" {machine.root}/.env.cloud")
    secrets = [key, LAB.describe()["githost"]["api_token"]]
    assert all(len(secret) > 8 for secret in secrets)

    def holding(search: str) -> list[str]:
        # On the standard input, so that the search does not find itself.
        command = [*LAB.ssh(), "--", f"sudo sh -c '{search}'"]
        return subprocess.run(
            command, input="\n".join(secrets), capture_output=True, text=True, timeout=60, check=False
        ).stdout.splitlines()

    machine.run("pm2 save")
    places = "/etc /home /opt /root /run /tmp /var/lib/cloud-agent /var/log /var/tmp"
    files = f"grep --recursive --files-with-matches --no-messages --devices=skip --fixed-strings --file=- {places}"
    assert holding(files) == [f"{machine.root}/.env.cloud"]  # which also shows that the search finds something
    assert holding("grep --files-with-matches --no-messages --fixed-strings --file=- /proc/[0-9]*/environ") == []
    assert (
        holding("cat > /dev/shm/s; journalctl --no-pager | grep --fixed-strings --file=/dev/shm/s; rm /dev/shm/s") == []
    )


def test_pm2_does_not_call_home(machine: Machine) -> None:
    environment = machine.run(f"sudo -u cloud-agent cat /proc/{daemon(machine)}/environ").split("\0")
    for switch in ("PM2_DISABLE_VERSION_CHECK", "PM2_DISCRETE_MODE", "PM2_NO_INTERACTION"):
        assert f"{switch}=true" in environment
        # A new version may have other names for them.
        assert machine.run(
            f"grep -rl {switch} /opt/pm2/*/node_modules/pm2/lib /opt/pm2/*/node_modules/pm2/constants.js"
        )


def test_no_compiler(machine: Machine) -> None:
    for program in ("cc", "gcc", "g++", "make"):
        assert machine.host.run(f"command -v {program}").rc != 0


def test_service_user_is_unprivileged(machine: Machine) -> None:
    assert machine.host.run("sudo -u cloud-agent sudo -n true").rc != 0
    for loop in machine.loops().values():
        assert machine.run(f"ps -o user:32= -p {loop['pid']}") == "cloud-agent"
    assert machine.host.run(f"sudo -u cloud-agent touch {machine.root}/current/x").rc != 0


def test_login_user_works_in_the_vault(machine: Machine) -> None:
    machine.run(f"git -C {machine.vault} log --oneline")
    machine.run(f"touch {machine.vault}/Inbox/.touched && rm {machine.vault}/Inbox/.touched")


@pytest.mark.parametrize("umask", ["022", "077"])
def test_loops_change_what_the_login_user_made(machine: Machine, umask: str) -> None:
    folder = f"{machine.vault}/Notes-{umask}"
    machine.run(f"umask {umask} && mkdir -p {folder}/in && echo one > {folder}/in/note.md")
    cloud = f"sudo -u cloud-agent sh -c 'cd {folder} && echo two >> in/note.md && mv in/note.md . && cat note.md'"
    assert machine.run(cloud).split() == ["one", "two"]
    machine.run(f"echo three >> {folder}/note.md && rm -r {folder}")


def test_limits_and_log_rotation(machine: Machine) -> None:
    loops = machine.loops()
    assert loops["cloud_orchestrator"]["pm2_env"]["max_memory_restart"] == 500 * 1024 * 1024
    assert loops["git_sync_cloud"]["pm2_env"]["max_memory_restart"] == 200 * 1024 * 1024
    logs = {app["pm2_env"][kind] for app in loops.values() for kind in ("pm_out_log_path", "pm_err_log_path")}
    assert len(logs) == 4
    assert "pm2-logrotate" in machine.run("pm2 list")


def test_large_log_is_rotated(machine: Machine) -> None:
    rotated = f"sudo find {LOGS} -name 'git_sync_cloud-out__*'"
    assert machine.run(rotated) == ""
    machine.run(f"head --bytes=11M /dev/zero | sudo tee --append {LOGS}/git_sync_cloud-out.log >/dev/null")
    # It looks every 30 s.
    eventually(lambda: machine.run(rotated), 45, "the log of 11 MB rotated")
    size = f"sudo stat --format=%s {LOGS}/git_sync_cloud-out.log"
    eventually(lambda: int(machine.run(size)) < 1_000_000, 60, "a log that begins anew")


def test_configuration_error_is_not_tried_again(machine: Machine) -> None:
    settings = f"{machine.root}/.env.cloud"

    def state() -> tuple[int, int, int]:
        # Not the status: with a back-off PM2 says "waiting restart" even of what it has given up.
        loop = machine.loops()["git_sync_cloud"]
        return loop["pid"], loop["pm2_env"].get("exit_code", 0), loop["pm2_env"]["restart_time"]

    before = state()[2]
    machine.run(f"sudo cp --preserve {settings} {settings}.kept && echo SMTP_PASSWORD=x | sudo tee -a {settings}")
    try:
        machine.run("pm2 restart git_sync_cloud")
        eventually(lambda: state()[:2] == (0, 78), 60, "a loop that was given up for its exit status")
        time.sleep(2)
        assert state() == (0, 78, before + 1), "no more than the restart that was asked for"
        assert "SMTP_PASSWORD" in machine.run(f"sudo tail --lines=5 {LOGS}/git_sync_cloud-error.log")
    finally:
        machine.run(f"sudo mv {settings}.kept {settings} && pm2 restart git_sync_cloud")
    eventually(machine.online, 60, "both loops online with the settings as they were")


def test_whoever_types_pm2_talks_to_the_one_daemon(machine: Machine) -> None:
    before = daemon(machine)
    machine.run("sudo useradd --create-home stranger")
    try:
        for user in ("ubuntu", "root", "cloud-agent"):
            listed = machine.run(f"sudo -u {user} pm2 list")
            assert all(loop in listed for loop in LOOPS), user
        assert "git_sync_cloud" in machine.run("pm2 logs --nostream --lines 5 git_sync_cloud")
        assert machine.host.run("sudo -u stranger pm2 list").rc != 0  # no sudo, no PM2, and none of their own
        assert daemon(machine) == before
        machine.run(f"sudo systemctl restart --no-block {UNIT}")
        for _ in range(5):
            machine.host.run("pm2 list")
    finally:
        machine.run("sudo userdel --remove stranger 2>/dev/null")
    eventually(machine.online, 40, "both loops online after a restart of the unit")
    assert daemon(machine) != before
    assert machine.run("sudo find /home /root -maxdepth 2 -name .pm2") == ""


@pytest.mark.parametrize("command", ["kill", "update"])
def test_pm2_refuses_what_would_detach_it_from_systemd(machine: Machine, command: str) -> None:
    done = machine.host.run(f"pm2 {command}")
    assert done.rc != 0
    assert f"sudo systemctl {'stop' if command == 'kill' else 'restart'} {UNIT}" in done.stderr


def test_pm2_does_not_start_a_second_daemon_and_ends_a_stray_one(machine: Machine) -> None:
    machine.run(f"sudo systemctl stop {UNIT}")
    try:
        done = machine.host.run("pm2 list")
        assert done.rc != 0
        assert f"sudo systemctl start {UNIT}" in done.stderr
        assert machine.host.run("pgrep -f 'PM2 v'").stdout == ""
        # PM2 itself, without the command that is in its place: as somebody might who found it below /opt.
        home = "/var/lib/cloud-agent"
        machine.run(f"sudo -u cloud-agent env HOME={home} PM2_HOME={home}/.pm2 /opt/pm2/*/node_modules/.bin/pm2 ping")
        stray = machine.run("pgrep -f 'PM2 v'")
        assert stray
    finally:
        machine.run(f"sudo systemctl start {UNIT}")
    eventually(machine.online, 30, "both loops online after a stop and a start of the unit")
    assert daemon(machine) != stray


def test_killed_daemon_comes_back(machine: Machine) -> None:
    machine.run(f"sudo kill -9 $(systemctl show --property=MainPID --value {UNIT})")
    machine.host.run("pm2 list")  # in the middle of it: this wedged the unit that `pm2 startup` makes
    eventually(machine.online, 60, "both loops online after kill -9 of PM2's daemon")
    assert machine.host.service("pm2-cloud-agent").is_running
