"""Only keys and only SSH come in, what was there stays, and what would lock out is undone by the machine itself."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import LAB, ROOT, Machine, eventually

FILES = Path(__file__).resolve().parents[1] / "files"
ORACLE = (FILES / "rules.v4").read_text()
DROP_IN = "/etc/ssh/sshd_config.d/00-cloud-agent.conf"
DROP_IN_TEXT = (ROOT / "ansible/roles/sshd/files/00-cloud-agent.conf").read_text()
ELSEWHERE = "198.51.100.0/24"  # nobody's
WORLD = ["0.0.0.0/0", "::/0"]
TARGET = LAB.targets[0]
ROLES = ROOT / "ansible" / "roles"


def ansible(*argv: str) -> tuple[int, str]:
    """Exit status and output of a command of Ansible, on the lab's machine."""
    inventory = ["--inventory", str(ROOT / "ansible/inventories/local"), "--extra-vars", f"lab_name={LAB.name}"]
    paths = {
        "ANSIBLE_ROLES_PATH": str(ROLES),
        "ANSIBLE_LIBRARY": ":".join(str(path) for path in ROLES.glob("*/library")),
        "ANSIBLE_MODULE_UTILS": str(ROLES / "guard/module_utils"),
    }
    done = subprocess.run(
        [argv[0], *inventory, *argv[1:]],
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def playbook(**settings: Any) -> tuple[int, str]:
    converge = str(Path(__file__).resolve().parents[1] / "converge.yml")
    return ansible("ansible-playbook", converge, "--extra-vars", json.dumps(settings))


def module(name: str, **options: Any) -> tuple[int, str]:
    """Run a module of ours by itself: what it changes is then unproven."""
    return ansible("ansible", "target", "--become", "-m", name, "-a", json.dumps(options))


def rules(**settings: Any) -> str:
    """The firewall's, as the role sets them but for `settings`; undoes first what was unproven."""
    usual = {"ssh_from": WORLD, "egress": False, "egress_ports": [22, 80, 443], "undo_seconds": 300}
    status, output = module("firewall_rules", **{**usual, **settings})
    assert status == 0, output
    return output


def live(command: str = "iptables-save -t filter") -> list[str]:
    """What it says of the rules in force, without its clock and counters."""
    output = TARGET.run(["sh", "-c", command]).stdout
    return [line.split(" [")[0] for line in output.splitlines() if not line.startswith("#")]


def file() -> str:
    return TARGET.run(["cat", "/etc/iptables/rules.v4"]).stdout


def reach(port: int, machine: str = "githost", to: str = "target") -> str:
    """What becomes of a connection from one machine of the lab to another: "connected", or the error's name."""
    code = (
        "import errno, socket, sys\n"
        "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); print('connected')\n"
        "except OSError as error: print(errno.errorcode.get(error.errno, error))\n"
    )
    return LAB.machine(machine).run(["python3", "-c", code, to, str(port)]).stdout.strip()


def lets_us_in() -> bool:
    return subprocess.run([*LAB.ssh(), "--", "true"], capture_output=True, timeout=30, check=False).returncode == 0


@pytest.fixture(autouse=True)
def as_it_was() -> Any:
    """Each test leaves the machine as it found it."""
    everything = "iptables-save -t filter; ip6tables-save -t filter; cat /etc/iptables/*"
    before = live(everything)
    yield
    assert live(everything) == before
    assert (
        "cloud-agent-undo"
        not in TARGET.run(["sh", "-c", "systemctl list-units --all; ls /etc/systemd/system/*"]).stdout
    )


def test_the_images_rules_are_kept_and_ours_stand_before_its_reject() -> None:
    assert "".join(line for line in file().splitlines(keepends=True) if "CLOUD-AGENT" not in line) == ORACLE
    rules_in = [line for line in live() if line.startswith("-A INPUT")]
    assert rules_in[-2:] == ["-A INPUT -j CLOUD-AGENT", "-A INPUT -j REJECT --reject-with icmp-host-prohibited"]
    assert len([line for line in live() if line.startswith("-A InstanceServices")]) == 15
    assert TARGET.run(["stat", "-c", "%U %a", "/etc/iptables/rules.v4"]).stdout.strip() == "root 644"


def test_only_ssh_comes_in() -> None:
    TARGET.run(["systemd-run", "--collect", "--unit=other-port", "python3", "-m", "http.server", "8000"])
    try:
        eventually(lambda: ":8000" in TARGET.run(["ss", "-ltn"]).stdout, 60, "something listens on port 8000")
        assert reach(8000, machine="target", to="localhost") == "connected"
        assert reach(8000) == "EHOSTUNREACH"
        assert reach(22) == "connected"
    finally:
        TARGET.run(["systemctl", "stop", "other-port"])


def test_passwords_do_not_come_in_although_cloud_init_says_so() -> None:
    assert "PasswordAuthentication yes" in TARGET.run(["cat", "/etc/ssh/sshd_config.d/50-cloud-init.conf"]).stdout
    *options, destination = LAB.ssh()
    command = [*options, "-o", "PubkeyAuthentication=no", destination, "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # What sshd offers instead stands in parentheses.
    assert "Permission denied (publickey)" in done.stderr


def test_narrowed_ssh_is_closed_to_others_and_the_rules_of_other_programs_stay(machine: Machine) -> None:
    us = machine.run("echo $SSH_CONNECTION").split()[0]
    f2b = ["-N f2b-sshd", "-A f2b-sshd -j RETURN", "-I INPUT -p tcp -m tcp --dport 22 -j f2b-sshd"]
    for rule in f2b:
        TARGET.run(["iptables", *rule.split()])
    rules(ssh_from=[us])
    assert lets_us_in()
    assert reach(22) == "EHOSTUNREACH"
    assert "f2b" not in file()
    # Not proven, so that the next run undoes it; and takes nothing of theirs with it.
    assert '"unproven": false' in rules()
    assert reach(22) == "connected"
    assert [line for line in live() if "f2b" in line] == [
        ":f2b-sshd -",
        f"-A INPUT {f2b[2][9:]}",
        f"{f2b[1]}",
    ]
    for rule in (f2b[2].replace("-I", "-D"), "-F f2b-sshd", "-X f2b-sshd"):
        TARGET.run(["iptables", *rule.split()])


def test_egress_is_limited_where_it_is_asked_for() -> None:
    assert reach(8080, machine="target", to="githost") == "connected"
    rules(egress=True, egress_ports=[22])
    assert reach(22, machine="target", to="githost") == "connected"
    assert reach(8080, machine="target", to="githost") == "EHOSTUNREACH"
    assert lets_us_in()
    rules()


def test_a_firewall_that_locks_out_is_undone_by_the_machine() -> None:
    status, output = playbook(firewall_ssh_from=[ELSEWHERE], guard_seconds=8)
    assert status != 0
    assert "The machine undoes the change by itself" in output
    eventually(lets_us_in, 60, "a login after the undo")
    # That it is as before: the fixture.


def test_an_sshd_that_locks_out_is_undone_by_the_machine() -> None:
    status, output = module("sshd_drop_in", path=DROP_IN, content="AllowUsers nobody\n", undo_seconds=4)
    assert status == 0, output
    assert not lets_us_in()
    eventually(lets_us_in, 60, "a login after the undo")
    assert TARGET.run(["cat", DROP_IN]).stdout == DROP_IN_TEXT


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("00-before.conf", "PasswordAuthentication yes\n", "take it out of /etc/ssh/sshd_config.d/00-before.conf:1"),
        ("99-broken.conf", "NoSuchKeyword yes\n", "/etc/ssh/sshd_config.d/99-broken.conf"),
    ],
)
def test_what_defeats_the_drop_in_is_an_error_that_names_it(name: str, text: str, said: str) -> None:
    TARGET.write(f"/etc/ssh/sshd_config.d/{name}", text, mode="644")
    try:
        status, output = module("sshd_drop_in", path=DROP_IN, content=DROP_IN_TEXT, undo_seconds=300)
    finally:
        TARGET.run(["rm", f"/etc/ssh/sshd_config.d/{name}"])
    assert status != 0
    assert said in output


def test_an_active_ufw_is_an_error_with_a_mend() -> None:
    TARGET.run(["mkdir", "--parents", "/etc/ufw"])
    TARGET.write("/etc/ufw/ufw.conf", "ENABLED=yes\n", mode="644")
    try:
        status, output = module("firewall_rules", ssh_from=WORLD, egress=False, egress_ports=[], undo_seconds=300)
    finally:
        TARGET.run(["rm", "-r", "/etc/ufw"])
    assert status != 0
    assert "Mend: sudo ufw disable" in output


def test_a_reboot_keeps_what_was_proven_and_undoes_what_was_not(machine: Machine) -> None:
    booted = machine.run("stat -c %Z /proc/1")
    rules(ssh_from=[ELSEWHERE], undo_seconds=6)
    TARGET.run(["systemctl", "reboot"])
    eventually(lets_us_in, 60, "a login after a reboot and the undo")
    assert machine.run("stat -c %Z /proc/1") != booted
    assert "cloud-agent-undo-firewall.service" in TARGET.run(["journalctl", "--boot", "--no-pager"]).stdout
    # That the rules are in force again: the fixture.
