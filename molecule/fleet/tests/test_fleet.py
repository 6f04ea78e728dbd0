"""Two machines: a mailbox each, other sources than the default scenario's, and one that gates the other."""

from __future__ import annotations

import json
import os
import re
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
