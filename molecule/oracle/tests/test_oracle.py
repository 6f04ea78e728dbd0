"""One story, in its order: a machine that site.yml made at Oracle's stand-in drafts a mail, is mended, and removed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import LAB, ROOT, Local, eventually
from oci.core import VirtualNetworkClient, models

from tests.lab.host import run
from tests.lab.oracle import OPERATOR

GENERATED = LAB.inventory / "host_vars" / "target" / "oracle.yml"
NAME = f"[127.0.0.1]:{LAB.ports.target_ssh(0)}"
SSH = {"protocol": "6", "source": OPERATOR, "tcpOptions": {"destinationPortRange": {"min": 22, "max": 22}}}
FRAGMENTATION = {"protocol": "1", "source": "0.0.0.0/0", "icmpOptions": {"type": 3, "code": 4}}
UNREACHABLE = {"protocol": "1", "source": "10.0.0.0/16", "icmpOptions": {"type": 3}}
THEIRS = {"protocol": "6", "source": "192.0.2.0/24", "tcpOptions": {"destinationPortRange": {"min": 8443, "max": 8443}}}


def play(playbook: str, *variables: str) -> tuple[int, str]:
    """Run a playbook as an operator does, without a terminal; its exit status and what it said, in one line."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), playbook]
    command += [f"--inventory={LAB.inventory}", "--inventory=inventories/local"]
    command += [f"--extra-vars={variable}" for variable in (f"lab_name={LAB.name}", *variables)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        command,
        cwd=ROOT / "ansible",
        env={**environment, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def changes(said: str) -> int:
    [changed] = re.findall(r"target : ok=\d+ changed=(\d+)", said)
    return int(changed)


def resources() -> list[dict[str, Any]]:
    """All that is in the account, but for what is Oracle's own."""
    found = LAB.oracle.ask("resources")
    return [one for one in found if one["kind"] != "Image" and one.get("lifecycleState") != "TERMINATED"]


def only(kind: str) -> dict[str, Any]:
    """The one resource of a kind that has our tag."""
    [one] = [one for one in resources() if one["kind"] == kind and one.get("freeformTags")]
    return one


def rules(*those: dict[str, Any]) -> list[dict[str, Any]]:
    """In any order."""
    return sorted(those, key=lambda rule: json.dumps(rule, sort_keys=True))


def ingress() -> list[dict[str, Any]]:
    """The rules of our list, without what every rule has and without words."""
    common = ("description", "isStateless", "sourceType")
    stored = only("SecurityList")["ingressSecurityRules"]
    return rules(*({name: value for name, value in rule.items() if name not in common and value} for rule in stored))


def is_let_in(address: str, port: int) -> bool:
    instance = only("Instance")["id"]
    return bool(LAB.oracle.ask(f"lets_in?instance_id={instance}&address={address}&port={port}"))


@pytest.fixture(scope="module")
def console() -> VirtualNetworkClient:
    """Somebody with the console open."""
    account = yaml.safe_load((LAB.inventory / "group_vars" / "cloud" / "account.yml").read_text())
    return VirtualNetworkClient(account["oracle_api_key"], service_endpoint=account["oracle_endpoint"])


def test_a_mail_is_drafted(local: Local) -> None:
    name = "EMAIL_test_001.md"
    (local.path / "Inbox" / name).write_bytes((ROOT / "tests" / "mails" / name).read_bytes())
    local.push("Local: a mail")
    eventually(lambda: local.has("Pending_Approval/Email/EMAIL_DRAFT_test_001.md"), 60, "the draft")


def test_the_account_has_what_was_asked_for() -> None:
    instance = only("Instance")
    assert instance["shape"] == "VM.Standard.A1.Flex"
    assert (instance["shapeConfig"]["ocpus"], instance["shapeConfig"]["memoryInGBs"]) == (1, 2)
    assert instance["availabilityDomain"].endswith("AD-3"), "the others were full"
    assert (
        instance["metadata"]["ssh_authorized_keys"].strip() == LAB.identity_file.with_suffix(".pub").read_text().strip()
    )
    assert only("PublicIp")["lifetime"] == "RESERVED"
    assert ingress() == rules(SSH, FRAGMENTATION, UNREACHABLE)
    assert is_let_in(OPERATOR.partition("/")[0], 22)
    assert not is_let_in(OPERATOR.partition("/")[0], 80)
    assert not is_let_in("192.0.2.1", 22)


def test_the_host_keys_that_are_trusted_are_the_machines() -> None:
    # Not asked over the network, but of the machine itself.
    keys = LAB.machine("target").run(["sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"]).stdout.splitlines()
    known = [line.split() for line in LAB.known_hosts.read_text().splitlines()]
    assert sorted(line[1:3] for line in known if line[0] == NAME) == sorted(key.split()[:2] for key in keys)
    assert keys


def test_the_other_playbooks_need_no_account() -> None:
    status, said = play("deploy.yml", "oracle_endpoint=http://127.0.0.1:9")
    assert status == 0, said
    assert changes(said) == 0


def test_drift_is_mended_and_what_others_added_stays(console: VirtualNetworkClient) -> None:
    ours = only("SecurityList")
    stored = console.get_security_list(ours["id"]).data.ingress_security_rules
    theirs = models.IngressSecurityRule(
        protocol="6",
        source=THEIRS["source"],
        tcp_options=models.TcpOptions(destination_port_range=models.PortRange(min=8443, max=8443)),
    )
    kept = [rule for rule in stored if rule.protocol != "6"]
    console.update_security_list(ours["id"], models.UpdateSecurityListDetails(ingress_security_rules=[*kept, theirs]))
    console.update_internet_gateway(
        only("InternetGateway")["id"], models.UpdateInternetGatewayDetails(is_enabled=False)
    )
    status, said = play("site.yml")
    assert status == 0, said
    assert ingress() == rules(SSH, FRAGMENTATION, UNREACHABLE, THEIRS)
    assert is_let_in(OPERATOR.partition("/")[0], 22)
    assert changes(said) == 2, "the list and the gateway, and nothing on the machine"


def test_destroy_asks_for_the_name() -> None:
    before = resources()
    status, said = play("destroy.yml")
    assert status == 2, said
    assert "All of its vault is in the repository" in said
    assert "Nothing was removed: the name was not given" in said
    assert resources() == before
    assert GENERATED.exists()


def test_destroy_removes_what_is_ours_and_nothing_else(console: VirtualNetworkClient) -> None:
    ours = [one["id"] for one in resources()]
    theirs = console.create_vcn(
        models.CreateVcnDetails(compartment_id=only("Vcn")["compartmentId"], cidr_blocks=["10.9.0.0/16"])
    ).data
    run(["podman", "stop", "--time=0", LAB.machine("target").name])
    status, said = play("destroy.yml", "destroy_confirm=target")
    assert status == 0, said
    assert "NOT KNOWN, for target cannot be asked" in said
    left = resources()
    assert not [one for one in left if one["id"] in ours]
    assert {one.get("vcnId", one["id"]) for one in left} == {theirs.id}
    assert LAB.machine("target").state() == "absent"
    assert NAME not in LAB.known_hosts.read_text()
    assert not GENERATED.exists()

    status, said = play("destroy.yml")
    assert status == 0, said
    assert "Nothing of target is left" in said
    assert changes(said) == 0
    assert resources() == left
