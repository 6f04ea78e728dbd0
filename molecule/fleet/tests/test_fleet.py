"""Two machines: a mailbox each, other sources than the default scenario's, and one that gates the other."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LAB, LOOPS, ROOT, Local, Machine, eventually

from tests.lab.lab import copy_of_the_agent

TARGET, TARGET2 = Machine("target"), Machine("target2")
MACHINES = (TARGET, TARGET2)
UNIT = "pm2-cloud-agent"
MAILDIR = "/var/spool/agent-mail"


def playbook(path: str, *options: str, roles: Path | None = None) -> tuple[int, str]:
    """Run a playbook on the fleet; returns its exit status and what it said, in one line.

    `roles` has roles to take instead of the project's.
    """
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "--inventory=ansible/inventories/local/",
        "--inventory=molecule/fleet/inventory/",
        f"--extra-vars=lab_name={LAB.name}",
        *options,
        path,
    ]
    paths = [str(path) for path in (roles, ROOT / "ansible" / "roles") if path]
    environment = {**os.environ, "ANSIBLE_ROLES_PATH": ":".join(paths), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def sources(tmp_path: Path) -> str:
    """A playbook that is the part of site.yml for Node.js and PM2."""
    play = {
        "hosts": "cloud",
        "become": True,
        "gather_facts": False,
        "vars_files": [str(ROOT / "ansible" / "group_vars" / "all.yml")],
        "environment": "{{ cloud_agent_environment }}",
        "roles": ["nodejs", "pm2"],
    }
    file = tmp_path / "sources.yml"
    file.write_text(json.dumps([play]))
    return str(file)


def daemon_runs(machine: Machine) -> str:
    """The version of the Node.js that PM2's daemon runs on."""
    pid = machine.run(f"systemctl show --property=MainPID --value {UNIT}")
    return machine.run(f"sudo -u cloud-agent /proc/{pid}/exe --version")


def loop_pids(machine: Machine) -> dict[str, int]:
    return {name: app["pid"] for name, app in machine.loops().items()}


@pytest.mark.parametrize(("machine", "major"), [(TARGET, 22), (TARGET2, 24)], ids=["22", "24"])
def test_node_is_the_one_asked_for_and_pm2_runs_on_it(machine: Machine, major: int) -> None:
    installed = machine.run("node --version")
    assert installed.startswith(f"v{major}.")
    assert daemon_runs(machine) == installed
    assert machine.online()


def test_python_comes_from_deadsnakes_where_asked_for() -> None:
    # The bare machine had the distribution's: it was replaced, as a release candidate is.
    codename = TARGET2.run(". /etc/os-release; echo $VERSION_CODENAME")
    for package in ("python3.11", "python3.11-minimal", "python3.11-venv"):
        version = TARGET2.run(f"dpkg-query --show --showformat='${{Version}}' {package}")
        assert version.endswith(f"+{codename}1"), f"{package} {version}"
    if LAB.describe()["deadsnakes"]:  # the stand-in: a distribution whose own is final
        assert not TARGET.host.file("/etc/apt/sources.list.d/deadsnakes.sources").exists
    for machine in MACHINES:
        level = f"{machine.root}/current/venv/bin/python -c 'import sys; print(*sys.version_info[:4])'"
        assert re.fullmatch(r"3 11 \d+ final", machine.run(level))


def test_nightly_upgrades_leave_the_vendors_packages_alone() -> None:
    for machine in MACHINES:
        allowed = machine.run("apt-config dump | grep -E '^Unattended-Upgrade::(Allowed-Origins|Origins-Pattern)::'")
        assert "ecurity" in allowed
        assert not re.search("nodistro|nodesource|deadsnakes|[*]", allowed, re.IGNORECASE)


def test_each_drafts_the_mail_of_its_own_mailbox(tmp_path: Path) -> None:
    mails = {"target": "test_001", "target2": "urgent_002"}
    clones = {alias: Local(LAB, tmp_path / alias, alias) for alias in mails}
    for machine in MACHINES:
        name = f"EMAIL_{mails[machine.alias]}.md"
        machine.write(f"Inbox/{name}", (ROOT / "tests" / "mails" / name).read_bytes())
    for alias, clone in clones.items():
        draft = f"Pending_Approval/Email/EMAIL_DRAFT_{mails[alias]}.md"
        eventually(lambda clone=clone, draft=draft: clone.has(draft), 60, f"the draft of {alias}")
        assert len(list(clone.path.glob("Pending_Approval/Email/*.md"))) == 1


def test_mail_that_arrives_in_a_maildir_is_drafted_and_left_there(tmp_path: Path) -> None:
    assert re.search(r"mail_watcher .*online", TARGET2.run("pm2 list"))  # typed by the login user
    assert "mail_watcher" not in TARGET.run("pm2 list")
    message = (
        "From: Bob Example <bob@example.org>\nTo: me@example.com\nSubject: Dropped into a Maildir\n"
        "Message-ID: <maildir-1@example.org>\nDate: Mon, 23 Nov 2026 10:00:00 +0000\n\nCould you call me?\n"
    )
    name = "1.1.example"
    TARGET2.run(f"printf %s {shlex.quote(message)} > {MAILDIR}/tmp/{name} && mv {MAILDIR}/tmp/{name} {MAILDIR}/new/")
    clone = Local(LAB, tmp_path / "watching", "target2")
    drafts = "Pending_Approval/Email/EMAIL_DRAFT_2026-11-23-*.md"
    eventually(lambda: clone.has(drafts), 60, "the draft of a message in the Maildir")
    (draft,) = clone.path.glob(drafts)
    assert "Dropped into a Maildir" in draft.read_text()
    assert TARGET2.run(f"find {MAILDIR} -type f") == f"{MAILDIR}/new/{name}"
    kept = f"/var/lib/cloud-agent/mails/{draft.stem.removeprefix('EMAIL_DRAFT_')}.eml"
    assert TARGET2.run(f"sudo cat {kept}") == message.strip()
    told = json.loads(TARGET2.try_run(f"sudo -u cloud-agent {TARGET2.agent} status --json")[1])
    assert told["loops"]["watch"]["alive"] and told["loops"]["watch"]["result"] == "ok"
    app = next(app for app in json.loads(TARGET2.run("pm2 jlist")) if app["name"] == "mail_watcher")
    assert app["pm2_env"]["max_memory_restart"] == 150 * 1024 * 1024
    print(f"mail_watcher: {app['monit']['memory'] / 1e6:.0f} MB")


# Takes what is posted to it while a command runs, and prints it.
RECEIVER = """
import http.server, subprocess, sys, threading
got = []
class Take(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 8025), Take)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(subprocess.run(sys.argv[1:], check=True, capture_output=True, text=True).stdout)
print(*got)
"""


def test_the_owner_is_told_by_the_channel_of_the_machine() -> None:
    """What sends is in the release only where there is a channel."""
    said = TARGET2.run(f"python3 -c {shlex.quote(RECEIVER)} sudo -u cloud-agent {TARGET2.agent} alert --test")
    assert re.search(r"json-\w{4}: sent", said)
    assert '"title": "cloud: a test"' in said
    look = "{0.root}/current/venv/bin/python -c 'import apprise, mcp'"
    assert TARGET2.try_run(look.format(TARGET2))[0] == 0
    assert TARGET.try_run(look.format(TARGET))[0] != 0


def test_one_mailbox_for_both_is_refused_before_anything_is_changed() -> None:
    status, said = playbook("ansible/site.yml", "--extra-vars=agent_git_remote_url=git@example.com:you/vault.git")
    assert status != 0
    assert "target and target2 have the same agent_git_remote_url" in said
    assert said.count("changed=0") == len(MACHINES)
    assert "Make the machine" not in said


def test_a_key_with_another_fingerprint_is_refused(sources: str) -> None:
    keyring = "/etc/apt/keyrings/nodesource.asc"
    real = TARGET.run(f"cat {keyring}")
    repository = (LAB.describe()["nodesource"] or {}).get("22")
    if not repository:
        pytest.skip("NodeSource itself answers here: there is no stand-in to take for it")
    wrong = {"nodejs_repository": {**repository, "key_fingerprint": "0" * 40}}
    TARGET.run(f"sudo rm {keyring}")
    try:
        status, said = playbook(sources, "--limit=target", f"--extra-vars={json.dumps(wrong)}")
        assert status != 0
        assert f"gave {repository['key_fingerprint']} instead of {'0' * 40}" in said
        assert "Mend: " in said
        assert not TARGET.host.file(keyring).exists
    finally:
        TARGET.run(f"echo '{real}' | sudo tee {keyring} >/dev/null")


def test_pm2_is_restarted_on_another_node_and_upgraded(tmp_path: Path, sources: str) -> None:
    [before] = TARGET.run("ls /opt/pm2").split()
    status, said = playbook(sources, "--limit=target", "--extra-vars=nodejs_major=24")
    assert status == 0, said
    assert daemon_runs(TARGET).startswith("v24.")
    eventually(TARGET.online, 30, "both loops online on Node.js 24")

    # Back to the older one; and another lock, though of the same packages, is another version of PM2 to the role.
    shutil.copytree(ROOT / "ansible" / "roles" / "pm2", tmp_path / "pm2")
    with (tmp_path / "pm2" / "files" / "package-lock.json").open("a") as lock:
        lock.write("\n")
    TARGET.run("sudo mkdir /opt/pm2/6.0.0-00000000")
    status, said = playbook(sources, "--limit=target", roles=tmp_path)
    assert status == 0, said
    assert daemon_runs(TARGET).startswith("v22.")
    [after] = set(TARGET.run("ls /opt/pm2").split()) - {before}
    assert after.startswith("7.")
    assert TARGET.host.file(f"/opt/pm2/{before}").exists, "the one before stays"
    assert f"/opt/pm2/{after}/" in TARGET.run(f"systemctl show --property=ExecStart {UNIT}")
    eventually(TARGET.online, 30, "both loops online on Node.js 22 again")


def test_what_fails_on_the_first_machine_never_gets_to_the_second(tmp_path: Path) -> None:
    broken = copy_of_the_agent(tmp_path / "agent")
    with (broken / "cloud_agent" / "loop.py").open("a") as loop:
        loop.write("\n\ndef run(*_):\n    raise SystemExit('broken on purpose')\n")
    release, pids = TARGET2.run(f"readlink {TARGET2.root}/current"), loop_pids(TARGET2)
    releases = TARGET2.run(f"ls {TARGET2.root}/releases")
    try:
        status, said = playbook("ansible/deploy.yml", f"--extra-vars=agent_source={broken}")
        assert status != 0
        assert "broken on purpose" in said, said
        assert TARGET2.run(f"readlink {TARGET2.root}/current") == release
        assert TARGET2.run(f"ls {TARGET2.root}/releases") == releases
        assert loop_pids(TARGET2) == pids
        assert set(pids) == set(LOOPS)
    finally:
        status, said = playbook("ansible/deploy.yml", "--limit=target")
    assert status == 0, said
    eventually(TARGET.online, 30, "the good release back on the first machine")


def test_the_watcher_goes_where_no_mailbox_is_set_any_more() -> None:
    status, said = playbook("ansible/deploy.yml", "--limit=target2", "--extra-vars=agent_maildir_path=")
    assert status == 0, said
    assert "mail_watcher" not in TARGET2.run("pm2 list")
    assert "mail_watcher" not in TARGET2.run("sudo cat /var/lib/cloud-agent/.pm2/dump.pm2")
    assert TARGET2.online()
