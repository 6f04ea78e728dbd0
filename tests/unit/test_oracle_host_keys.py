"""The module oracle_host_keys: what it takes from a console, and from nowhere else."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.oracle_kit import Oracle, load
from tests.unit.test_oracle_instance import have, subnet_id

__all__ = ["subnet_id"]  # a fixture


def key(kind: str, *fields: bytes) -> str:
    blob = b"".join(len(each).to_bytes(4, "big") + each for each in (kind.encode(), *fields))
    return f"{kind} {base64.b64encode(blob).decode()}"


ED25519 = key("ssh-ed25519", bytes(range(32)))
ECDSA = key("ecdsa-sha2-nistp256", b"nistp256", b"\x04" + bytes(64))
RSA = key("ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xd5" * 384)
DSA = key("ssh-dss", *[b"\x01"] * 4)


def block(*lines: str) -> str:
    inside = "".join(f"{line}\r\n" for line in lines)
    return f"-----BEGIN SSH HOST KEY KEYS-----\r\n{inside}-----END SSH HOST KEY KEYS-----\r\n"


def parsed(console: str) -> list[str]:
    found: list[str] = load("oracle_host_keys").host_keys(console)
    return found


class TestParsing:
    def test_all_kinds_without_their_comments(self) -> None:
        assert parsed("boot\r\n" + block(f"{ECDSA} root@vm", f"{ED25519} root@vm-1.x", RSA)) == [ECDSA, ED25519, RSA]

    def test_lines_that_systemd_passed_on(self) -> None:
        assert parsed(block(f"[   23.863615] cloud-init[625]: {ED25519} root@vm", ED25519)) == [ED25519]

    def test_only_what_stands_in_the_block(self) -> None:
        assert parsed(f"{RSA}\r\n{block(ED25519)}{ECDSA}\r\n") == [ED25519]

    @pytest.mark.parametrize(
        "console",
        [
            "",
            "login: ",
            block(),
            f"-----BEGIN SSH HOST KEY KEYS-----\r\n{ED25519}\r\n",  # is being printed
            f"{ED25519}\r\n",
        ],
    )
    def test_none_yet(self, console: str) -> None:
        assert parsed(console) == []

    @pytest.mark.parametrize(
        "line",
        [
            DSA,
            ED25519[:-8],  # torn
            ED25519.replace(" ", " [   13.1] eth0: link up "),
            ED25519.replace("ssh-ed25519 ", "ssh-rsa "),
            RSA.replace("ssh-rsa ", "ecdsa-sha2-nistp256 "),
            f"{ED25519} root@vm; {RSA}",
            f"203.0.113.10 {ED25519}",
            f"@cert-authority * {ED25519}",
            key("ssh-ed25519", bytes(32), b"more"),
            "ssh-ed25519 AAAA",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI*",
            "{{ lookup('pipe', 'id') }}",
        ],
    )
    def test_anything_else_is_left_out(self, line: str) -> None:
        assert parsed(block(line, ECDSA)) == [ECDSA]

    def test_the_last_block_counts(self) -> None:
        """As when cloud-init was told to begin anew, which makes new keys."""
        assert parsed(block(RSA, ECDSA) + "reboot\r\n" + block(ED25519)) == [ED25519]


@pytest.fixture
def instance_id(oracle: Oracle, subnet_id: str) -> str:
    ocid = have(oracle, subnet_id)["instance_id"]
    oracle.api.calls.clear()
    return str(ocid)


class TestOverTheApi:
    def test_they_are_read_and_the_capture_is_removed(self, oracle: Oracle, instance_id: str) -> None:
        result = oracle.call("oracle_host_keys", instance_id=instance_id)
        assert not result["changed"]
        assert [each.split()[0] for each in result["host_keys"]] == ["ecdsa-sha2-nistp256", "ssh-ed25519"]
        assert oracle.api.all("ConsoleHistory") == []

    def test_of_a_long_console_too(self, oracle: Oracle, instance_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        long = "x" * 79 + "\r\n"
        console = long * 6000 + block(ED25519) + long * 6000
        assert len(console) < 1024 * 1024
        monkeypatch.setattr(oracle.api.launcher, "console", lambda instance: console)
        turn_the_clock(monkeypatch, step=1000)
        assert oracle.call("oracle_host_keys", instance_id=instance_id)["host_keys"] == [ED25519]

    def test_they_are_waited_for(self, oracle: Oracle, instance_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        consoles = iter(["", "booting\r\n", "\ufffd" + block(ED25519)])
        monkeypatch.setattr(oracle.api.launcher, "console", lambda instance: next(consoles))
        clock = turn_the_clock(monkeypatch)
        assert oracle.call("oracle_host_keys", instance_id=instance_id)["host_keys"] == [ED25519]
        assert clock.now == 20
        assert oracle.api.all("ConsoleHistory") == []

    def test_not_for_ever(self, oracle: Oracle, instance_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(oracle.api.launcher, "console", lambda instance: "login: ")
        clock = turn_the_clock(monkeypatch, step=100)
        failure = oracle.call("oracle_host_keys", instance_id=instance_id, fails=True)
        assert "shows no SSH host keys on its console" in failure["msg"]
        assert "Mend:" in failure["msg"] and "ssh-keyscan" in failure["msg"]
        assert "oracle_instance_host_keys" in failure["msg"]
        assert 900 < clock.now < 1100
        assert oracle.api.all("ConsoleHistory") == []

    def test_a_capture_that_is_refused_is_told_with_what_the_manual_says(self, oracle: Oracle) -> None:
        failure = oracle.call("oracle_host_keys", instance_id="ocid1.instance.oc1..none", fails=True)
        assert "Oracle answered 404" in failure["msg"] and "Create local connection" in failure["msg"]

    def test_a_dry_run_captures_nothing(self, oracle: Oracle, instance_id: str) -> None:
        assert oracle.call("oracle_host_keys", instance_id=instance_id, check=True)["host_keys"] == []
        assert oracle.api.calls == []


def turn_the_clock(monkeypatch: pytest.MonkeyPatch, step: float = 10) -> Any:
    """The module's own clock, which its pauses turn on by `step`."""
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        assert seconds == 10
        clock.now += step

    monkeypatch.setattr(load("oracle_host_keys"), "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    return clock
