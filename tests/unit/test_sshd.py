"""What the role sshd knows of configurations."""

from __future__ import annotations

import pwd
import subprocess
from pathlib import Path

import pytest

from tests import ansible_module

sshd = ansible_module.load("sshd", "sshd_drop_in")
DROP_IN = (ansible_module.ROLES / "sshd/files/00-cloud-agent.conf").read_text()
D = "/etc/ssh/sshd_config.d"


def test_every_setting_of_the_drop_in_is_understood() -> None:
    wanted = sshd.settings(DROP_IN)
    assert wanted["passwordauthentication"] == "no"
    assert len(wanted) == sum(1 for line in DROP_IN.splitlines() if line and not line.startswith("#"))


def test_the_first_value_counts() -> None:
    assert sshd.settings("Port 1\nport 2\n#Port 3\nX11Forwarding no # why\n") == {"port": "1", "x11forwarding": "no"}


@pytest.mark.parametrize(
    ("text", "added"),
    [
        (f"Include {D}/*.conf\nPort 22\n", False),
        (f"Port 22\n  include {D}/*.conf\n", False),  # if it comes too late, what is in force shows it
        (f"#Include {D}/*.conf\n", True),
        ("Port 22\n", True),
    ],
)
def test_a_main_configuration_without_the_include_gets_it_at_the_top(text: str, added: bool) -> None:
    assert (sshd.with_include(text, D) != text) is added
    if added:
        assert sshd.with_include(text, D).splitlines()[1:] == [f"Include {D}/*.conf", *text.splitlines()]
        assert sshd.with_include(sshd.with_include(text, D), D) == sshd.with_include(text, D)


def test_what_defeats_the_drop_in_is_named() -> None:
    files = {
        f"{D}/00-a.conf": "# first\nPasswordAuthentication yes\n",
        f"{D}/00-cloud-agent.conf": DROP_IN,
        f"{D}/50-cloud-init.conf": "#PasswordAuthentication yes\nPermitRootLogin yes\n",
    }
    assert sshd.differences({"a": "no", "b": "30"}, {"a": "yes", "b": "30"}) == ["a"]
    ours = f"{D}/00-cloud-agent.conf"
    assert sshd.where_set("passwordauthentication", files, ours) == [f"{D}/00-a.conf:2"]
    assert sshd.where_set("permitrootlogin", files, ours) == [f"{D}/50-cloud-init.conf:2"]


@pytest.fixture
def user(tmp_path: Path) -> pwd.struct_passwd:
    (tmp_path / ".ssh").mkdir()
    return pwd.struct_passwd(("ubuntu", "x", 1000, 1000, "", str(tmp_path), "/bin/bash"))


@pytest.mark.parametrize(
    ("patterns", "text", "found"),
    [
        (".ssh/authorized_keys .ssh/authorized_keys2", "ssh-ed25519 AAAA x\n", True),
        ("%h/.ssh/authorized_keys", "ssh-ed25519 AAAA x\n", True),
        (".ssh/authorized_keys", "# none\n\n", False),
        (".ssh/other", "ssh-ed25519 AAAA x\n", False),
        ("none", "ssh-ed25519 AAAA x\n", False),
    ],
)
def test_a_user_without_a_key_is_seen(user: pwd.struct_passwd, patterns: str, text: str, found: bool) -> None:
    Path(user.pw_dir, ".ssh/authorized_keys").write_text(text)
    assert sshd.has_key(user, patterns) is found


def test_lock_outs_are_refused(user: pwd.struct_passwd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda _: user)
    wanted, effective = sshd.settings(DROP_IN), {"authorizedkeysfile": ".ssh/authorized_keys"}
    assert [problem.split(",")[0] for problem in sshd.lock_outs("root", wanted, effective)] == [
        "Ansible logs in as root",
        "root has no authorized key",
    ]
    Path(user.pw_dir, ".ssh/authorized_keys").write_text("ssh-ed25519 AAAA x\n")
    assert sshd.lock_outs("ubuntu", wanted, effective) == []
    Path(user.pw_dir, ".ssh/authorized_keys").unlink()
    assert "Mend: ssh-copy-id" in sshd.lock_outs("ubuntu", wanted, effective)[0]
    # Keys from a directory service or the cloud: only the login itself can tell.
    assert (
        sshd.lock_outs("ubuntu", wanted, {**effective, "authorizedkeyscommand": "/usr/bin/sss_ssh_authorizedkeys"})
        == []
    )
    # So with certificates, which need no key in the user's home.
    assert sshd.lock_outs("ubuntu", wanted, {**effective, "trustedusercakeys": "/etc/ssh/ca.pub"}) == []


def test_a_match_block_for_an_address_of_the_machines_own_is_no_fault(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "host"], check=True)
    text = (
        f"HostKey {tmp_path}/host\nX11Forwarding no\nMatch LocalPort 2222 LocalAddress 192.0.2.1\n X11Forwarding yes\n"
    )
    (tmp_path / "config").write_text(text)
    command = ["/usr/sbin/sshd", "-T", "-f", tmp_path / "config", "-C", sshd.a_login("root")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert sshd.settings(done.stdout).get("x11forwarding") == "no", done.stderr
