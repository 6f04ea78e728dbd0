"""The network of a machine at the stand-in of Oracle's API: made, mended and removed by the real module and SDK."""

from __future__ import annotations

import socketserver
import sys
from typing import Any

import pytest
from oci.core import models

import ansible.module_utils
from tests import ansible_module
from tests.standins import serving
from tests.unit import oracle_kit
from tests.unit.oracle_kit import NAME, Oracle, oracle

__all__ = ["oracle"]  # a fixture

module = oracle_kit.load("oracle_network")

from ansible.module_utils.oracle import TAG, Problem  # noqa: E402

VCN, SUBNET = "10.0.0.0/16", "10.0.0.0/24"
KINDS = ("Vcn", "InternetGateway", "RouteTable", "SecurityList", "Subnet")
CREATES = [f"create_{kind}" for kind in module.PARTS]


def present(oracle: Oracle, **params: Any) -> dict[str, Any]:
    return oracle.call("oracle_network", **{"vcn_cidr": VCN, "subnet_cidr": SUBNET, **params})


def absent(oracle: Oracle, **params: Any) -> dict[str, Any]:
    return oracle.call("oracle_network", state="absent", **params)


def ours(oracle: Oracle, kind: str) -> dict[str, Any]:
    (found,) = (one for one in oracle.api.all(kind) if one["freeformTags"].get(TAG) == NAME)
    return found


def state(oracle: Oracle) -> list[dict[str, Any]]:
    return [one for kind in KINDS for one in oracle.api.all(kind)]


def foreign(oracle: Oracle, kind: str, **fields: Any) -> str:
    """Somebody else makes something, of the same name; its id."""
    details = module.model(kind, "Create", "Details")(
        compartment_id=oracle.api.tenancy, display_name=fields.pop("display_name", NAME), **fields
    )
    client = oracle.account().network
    made = getattr(client, f"create_{kind}")(details).data
    while getattr(client, f"get_{kind}")(made.id).data.lifecycle_state != "AVAILABLE":
        pass
    return str(made.id)


def launch(oracle: Oracle, name: str, subnet_id: str, tag: str | None = None) -> str:
    """A machine in a subnet, of ours if it has our tag; its id."""
    compute = oracle.account().compute
    image = next(one for one in oracle.api.all("Image") if "22.04-aarch64" in one["displayName"])
    details = models.LaunchInstanceDetails(
        availability_domain=oracle.api.domains[0],
        compartment_id=oracle.api.tenancy,
        display_name=name,
        freeform_tags={TAG: tag} if tag else {},
        shape="VM.Standard.A1.Flex",
        shape_config=models.LaunchInstanceShapeConfigDetails(ocpus=1, memory_in_gbs=6),
        source_details=models.InstanceSourceViaImageDetails(image_id=image["id"]),
        create_vnic_details=models.CreateVnicDetails(subnet_id=subnet_id, assign_public_ip=False),
    )
    made = compute.launch_instance(details).data.id
    while compute.get_instance(made).data.lifecycle_state != "RUNNING":
        pass
    return str(made)


def gone(oracle: Oracle, kind: str, ocid: str) -> None:
    """Look at what somebody removes until it is gone: the stand-in goes on when it is looked at."""
    account = oracle.account()
    look = module.oracle.gone(getattr(account.compute if kind == "instance" else account.network, f"get_{kind}"), ocid)
    while look() != "TERMINATED":
        pass


class TestPresent:
    def test_is_made_from_nothing_and_then_left_alone(self, oracle: Oracle) -> None:
        result = present(oracle)
        assert result["changed"]
        assert oracle.api.writes() == CREATES
        assert result["diff"]["before"] == ""
        assert result["diff"]["after"].splitlines() == [
            "VCN: 10.0.0.0/16",
            "internet gateway: on",
            "route table:",
            "  0.0.0.0/0 by our internet gateway",
            "security list",
            "subnet: 10.0.0.0/24",
            "  our route table",
            "  our security list",
        ]
        subnet = ours(oracle, "Subnet")
        assert result["subnet_id"] == subnet["id"]
        assert result["vcn_id"] == subnet["vcnId"] == ours(oracle, "Vcn")["id"]
        assert [result["security_list_id"]] == subnet["securityListIds"]
        rules = ours(oracle, "SecurityList")
        assert rules["ingressSecurityRules"] == rules["egressSecurityRules"] == []  # nobody is let in meanwhile

        again = present(oracle)
        assert not again["changed"]
        assert again["done"] == []
        assert again["diff"]["before"] == again["diff"]["after"] == result["diff"]["after"]
        assert oracle.api.writes() == CREATES
        assert {key: again[key] for key in again if key.endswith("_id")} == {
            key: result[key] for key in result if key.endswith("_id")
        }

    def test_a_dry_run_on_an_empty_account(self, oracle: Oracle) -> None:
        result = present(oracle, check=True)
        assert result["changed"]
        assert result["vcn_id"] is result["subnet_id"] is result["security_list_id"] is None
        assert oracle.api.writes() == []
        assert result["diff"]["after"] == present(oracle)["diff"]["after"]

    @pytest.mark.parametrize("made", range(1, len(CREATES)))
    def test_goes_on_after_a_run_that_broke_off(self, oracle: Oracle, made: int) -> None:
        oracle.api.faults.limit = [CREATES[made]]
        result = present(oracle, fails=True)
        assert result["code"] == "LimitExceeded"
        assert "Mend: the account's limit is reached" in result["msg"]
        dry = present(oracle, check=True)
        result = present(oracle)
        assert dry["done"] == result["done"]
        assert len(result["done"]) == len(CREATES) - made
        assert oracle.api.writes() == CREATES
        assert not present(oracle)["changed"]

    def test_goes_on_with_what_oracle_is_still_making(self, oracle: Oracle) -> None:
        oracle.api.looks = 3
        oracle.account().network.create_vcn(
            models.CreateVcnDetails(compartment_id=oracle.api.tenancy, cidr_blocks=[VCN], freeform_tags={TAG: NAME})
        )
        present(oracle)
        assert oracle.api.writes() == CREATES
        assert {one["lifecycleState"] for one in state(oracle)} == {"AVAILABLE"}
        assert 409 not in [status for _, status in oracle.api.calls]  # nothing was asked for too early

    def test_two_networks_of_other_names_do_not_meet(self, oracle: Oracle) -> None:
        first = present(oracle, name="first")
        second = present(oracle, name="second")
        assert first["vcn_id"] != second["vcn_id"]
        assert present(oracle, name="first")["subnet_id"] == first["subnet_id"]
        absent(oracle, name="first")
        assert not present(oracle, name="second")["changed"]


class TestDrift:
    """What somebody changed by hand comes back; what somebody added stays."""

    def mended(self, oracle: Oracle, *done: str) -> dict[str, Any]:
        """The result of the run that mends it, after a dry run that says the same and writes nothing."""
        before = state(oracle)
        dry = present(oracle, check=True)
        assert state(oracle) == before
        result = present(oracle)
        assert result["done"] == dry["done"] == list(done)
        assert result["diff"] == dry["diff"]
        assert not present(oracle)["changed"]
        return result

    def test_the_gateway_is_switched_off(self, oracle: Oracle) -> None:
        present(oracle)
        oracle.api.edit(ours(oracle, "InternetGateway")["id"], isEnabled=False)
        result = self.mended(oracle, "switched the internet gateway on")
        assert "internet gateway: off" in result["diff"]["before"]
        assert ours(oracle, "InternetGateway")["isEnabled"]

    def test_the_route_is_gone_and_another_is_there(self, oracle: Oracle) -> None:
        present(oracle)
        table, gateway = ours(oracle, "RouteTable"), ours(oracle, "InternetGateway")
        theirs = {"destination": "192.0.2.0/24", "destinationType": "CIDR_BLOCK", "networkEntityId": gateway["id"]}
        oracle.api.edit(table["id"], routeRules=[{**theirs, "description": "theirs", "routeType": "STATIC"}])
        result = self.mended(oracle, "set the route to the internet")
        assert "0.0.0.0/0" not in result["diff"]["before"]
        routes = ours(oracle, "RouteTable")["routeRules"]
        assert {rule["destination"]: rule["description"] for rule in routes} == {
            "0.0.0.0/0": f"{TAG}: the internet",
            "192.0.2.0/24": "theirs",
        }

    def test_the_subnet_uses_another_route_table_and_list(self, oracle: Oracle) -> None:
        present(oracle)
        vcn, subnet = ours(oracle, "Vcn"), ours(oracle, "Subnet")
        default = vcn["defaultSecurityListId"]
        oracle.api.edit(subnet["id"], routeTableId=vcn["defaultRouteTableId"], securityListIds=[default])
        result = self.mended(oracle, "had the subnet use our route table and security list")
        assert f"  another route table, {vcn['defaultRouteTableId']}" in result["diff"]["before"].splitlines()
        assert f"  another security list, {default}" in result["diff"]["after"].splitlines()
        (warning,) = result["warnings"]
        assert default in warning
        subnet = ours(oracle, "Subnet")
        assert subnet["routeTableId"] == ours(oracle, "RouteTable")["id"]
        assert subnet["securityListIds"] == [ours(oracle, "SecurityList")["id"], default]

    def test_the_gateway_was_removed(self, oracle: Oracle) -> None:
        present(oracle)
        gateway = ours(oracle, "InternetGateway")["id"]
        oracle.api.edit(ours(oracle, "RouteTable")["id"], routeRules=[])
        oracle.account().network.delete_internet_gateway(gateway)
        result = self.mended(oracle, "made the internet gateway", "set the route to the internet")
        added = set(result["diff"]["after"].splitlines()) - set(result["diff"]["before"].splitlines())
        assert added == {"internet gateway: on", "  0.0.0.0/0 by our internet gateway"}
        assert result["diff"]["after"].splitlines()[:2] == ["VCN: 10.0.0.0/16", "internet gateway: on"]
        (route,) = ours(oracle, "RouteTable")["routeRules"]
        assert route["networkEntityId"] == ours(oracle, "InternetGateway")["id"] != gateway

    def test_another_name_in_the_console_is_no_drift(self, oracle: Oracle) -> None:
        present(oracle)
        for kind in KINDS:
            oracle.api.edit(ours(oracle, kind)["id"], displayName="renamed")
        assert not present(oracle)["changed"]

    def test_other_addresses_are_refused_because_oracle_does_not_renumber(self, oracle: Oracle) -> None:
        present(oracle)
        result = present(oracle, vcn_cidr="10.1.0.0/16", subnet_cidr="10.1.0.0/24", fails=True)
        assert "is there with 10.0.0.0/16, and oracle_network_cidr is 10.1.0.0/16" in result["msg"]
        result = present(oracle, subnet_cidr="10.0.1.0/24", check=True, fails=True)
        assert "is there with 10.0.0.0/24, and oracle_network_subnet_cidr is 10.0.1.0/24" in result["msg"]
        assert oracle.api.writes() == CREATES

    def test_addresses_that_somebody_added_to_the_network_are_no_drift(self, oracle: Oracle) -> None:
        present(oracle)
        oracle.api.edit(ours(oracle, "Vcn")["id"], cidrBlocks=["10.9.0.0/16", VCN], cidrBlock="10.9.0.0/16")
        assert not present(oracle)["changed"]


@pytest.mark.parametrize(
    ("there", "result"),
    [
        ([], ["ours"]),
        (["ours"], ["ours"]),
        (["192.0.2.0/24 by drg"], ["ours", "192.0.2.0/24 by drg"]),
        (["192.0.2.0/24 by drg", "ours", "::/0 by gateway"], ["192.0.2.0/24 by drg", "ours", "::/0 by gateway"]),
        (["0.0.0.0/0 by nat", "192.0.2.0/24 by gateway"], ["ours", "192.0.2.0/24 by gateway"]),
    ],
)
def test_routes(there: list[str], result: list[str]) -> None:
    def rules(lines: list[str]) -> list[Any]:
        pairs = [("0.0.0.0/0 by gateway" if line == "ours" else line).split(" by ") for line in lines]
        return [models.RouteRule(destination=to, network_entity_id=by) for to, by in pairs]

    decided = module.routes(rules(there), "gateway")
    assert [(rule.destination, rule.network_entity_id) for rule in decided] == [
        (rule.destination, rule.network_entity_id) for rule in rules(result)
    ]


class TestOthers:
    """What has our name but not our tag is somebody else's."""

    def test_a_network_of_the_same_name_is_not_touched(self, oracle: Oracle) -> None:
        theirs = foreign(oracle, "vcn", cidr_blocks=[VCN])
        foreign(oracle, "internet_gateway", vcn_id=theirs, is_enabled=False)
        before = state(oracle)
        assert present(oracle)["vcn_id"] != theirs
        absent(oracle)
        assert state(oracle) == before

    def test_an_empty_network_of_the_same_name_is_not_removed(self, oracle: Oracle) -> None:
        theirs = foreign(oracle, "vcn", cidr_blocks=[VCN])
        oracle.api.edit(theirs, freeformTags={TAG: "another"})
        assert not absent(oracle)["changed"]
        assert [vcn["id"] for vcn in oracle.api.all("Vcn")] == [theirs]

    def test_parts_of_the_same_name_in_our_network_are_not_touched(self, oracle: Oracle) -> None:
        vcn = present(oracle)["vcn_id"]
        foreign(oracle, "route_table", vcn_id=vcn, route_rules=[])
        foreign(oracle, "subnet", vcn_id=vcn, cidr_block="10.0.9.0/24")
        before = state(oracle)
        assert not present(oracle)["changed"]
        assert state(oracle) == before

    def test_a_gateway_of_somebody_else_in_our_network_is_told_for_there_can_be_one(self, oracle: Oracle) -> None:
        present(oracle)
        oracle.api.edit(ours(oracle, "InternetGateway")["id"], freeformTags={}, displayName="theirs")
        result = present(oracle, fails=True)
        assert "an internet gateway that was not made here, theirs, and Oracle allows one. Mend: " in result["msg"]
        oracle.api.edit(oracle.api.all("InternetGateway")[0]["id"], freeformTags={TAG: NAME})
        assert not present(oracle)["changed"]


class TestTrouble:
    def test_lost_answers_make_no_twins(self, oracle: Oracle) -> None:
        oracle.api.faults.lose_answer = [*CREATES]
        present(oracle)
        assert oracle.api.faults.lose_answer == []
        assert [len([one for one in oracle.api.all(kind) if one["freeformTags"]]) for kind in KINDS] == [1] * 5
        assert not present(oracle)["changed"]

    def test_throttling_is_sat_out(self, oracle: Oracle) -> None:
        oracle.api.faults.throttle = 5
        assert present(oracle)["changed"]
        oracle.api.faults.throttle = 99
        result = present(oracle, fails=True)
        assert result["status"] == 429
        assert "Mend: Oracle asks for patience: run this again in some minutes" in result["msg"]

    def test_a_key_that_oracle_does_not_know(self, oracle: Oracle) -> None:
        oracle.api.public_keys = {}
        result = present(oracle, fails=True)
        assert result["status"] == 401
        assert "Mend: the API key is not accepted: is its public half added under My profile, API keys" in result["msg"]

    @pytest.mark.parametrize(
        ("field", "value", "told"),
        [
            ("key_content", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be used"),
            ("key_content", "", "key_file"),
            ("fingerprint", "12:34", "fingerprint"),
            ("user", "me", "user"),
            ("tenancy", "", "tenancy"),
        ],
    )
    def test_a_key_that_is_none(self, oracle: Oracle, field: str, value: str, told: str) -> None:
        result = present(oracle, api_key={**oracle.api_key, field: value}, fails=True)
        assert result["msg"].startswith("oracle_api_key cannot be used: ")
        assert told in result["msg"]
        assert "Mend: copy user, fingerprint, tenancy and region from the console" in result["msg"]

    def test_the_private_key_is_in_no_output(self, oracle: Oracle) -> None:
        for result in (present(oracle), present(oracle, vcn_cidr="x", fails=True)):
            assert "PRIVATE KEY" not in str(result)
            assert oracle.api_key["key_content"].splitlines()[3] not in str(result)

    def test_nobody_is_there(self, oracle: Oracle) -> None:
        result = present(oracle, endpoint="http://127.0.0.1:9", fails=True)
        assert result["msg"].startswith("Oracle cannot be reached")
        assert "Mend: is oracle_api_key.region right?" in result["msg"]

    def test_who_waits_to_be_told_that_nobody_answers_does_not_wait_for_minutes(self, oracle: Oracle) -> None:
        calls: list[object] = []

        class HangsUp(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                calls.append(self.client_address)

        server = socketserver.TCPServer(("127.0.0.1", 0), HangsUp)
        with serving(server):
            result = present(oracle, endpoint=f"http://127.0.0.1:{server.server_address[1]}", fails=True)
        assert result["msg"].startswith("Oracle cannot be reached")
        assert len(calls) == 4, "each pause is twice as long as the one before"

    @pytest.mark.parametrize(
        ("name", "params"),
        [("oracle_network", {"subnet_cidr": SUBNET}), ("oracle_security_list", {"ssh_from": ["192.0.2.1"]})],
    )
    def test_without_the_sdk(
        self, oracle: Oracle, monkeypatch: pytest.MonkeyPatch, name: str, params: dict[str, Any]
    ) -> None:
        monkeypatch.setitem(sys.modules, "oci", None)  # as if it were not installed
        monkeypatch.delitem(sys.modules, "ansible.module_utils.oracle")
        monkeypatch.delattr(ansible.module_utils, "oracle")
        alone = ansible_module.load("oracle_network", name)
        monkeypatch.setattr(oracle_kit, "load", lambda _: alone)
        result = oracle.call(name, vcn_cidr=VCN, fails=True, **params)
        assert result["msg"].startswith("Oracle's SDK is missing here. Mend: make oracle")

    @pytest.mark.parametrize(
        ("vcn", "subnet", "told"),
        [
            ("10.0.0.1/16", SUBNET, "oracle_network_cidr: 10.0.0.1/16 has host bits set. Mend: 10.0.0.0/16 for all"),
            ("ten", SUBNET, "oracle_network_cidr: 'ten' does not appear to be an IPv4 or IPv6 network. Mend: write"),
            ("10.0.0.0/8", SUBNET, "Oracle makes networks from /16 to /30"),
            (VCN, "10.0.0.0/31", "Oracle makes networks from /16 to /30"),
            ("10.0.0.0/24", VCN, "Oracle makes networks from /16 to /30"),
            ("2001:db8::/32", SUBNET, "Oracle makes networks from /16 to /30"),
            (VCN, "10.1.0.0/24", "10.1.0.0/24 is not within oracle_network_cidr 10.0.0.0/16. Mend: 10.0.0.0/24"),
        ],
    )
    def test_addresses_that_cannot_be(self, vcn: str, subnet: str, told: str) -> None:
        with pytest.raises(Problem) as caught:
            module.checked(vcn, subnet)
        assert told in str(caught.value)

    def test_addresses_are_looked_at_before_anything_is_asked(self, oracle: Oracle) -> None:
        assert "host bits" in present(oracle, vcn_cidr="10.0.0.1/16", fails=True)["msg"]
        assert oracle.api.calls == []


class TestAbsent:
    def test_is_removed_and_stays_so(self, oracle: Oracle) -> None:
        present(oracle)
        before = state(oracle)
        dry = absent(oracle, check=True)
        assert state(oracle) == before
        result = absent(oracle)
        assert result["done"] == dry["done"]
        assert result["done"] == [
            f"{words} {NAME}" for words in ("subnet", "security list", "route table", "internet gateway", "VCN")
        ]
        assert result["diff"]["before"].splitlines() == result["done"]
        assert result["diff"]["after"] == ""
        assert result["kept"] == []
        assert state(oracle) == []
        again = absent(oracle)
        assert (again["changed"], again["done"]) == (False, [])

    def test_of_what_a_run_that_broke_off_made(self, oracle: Oracle) -> None:
        oracle.api.faults.limit = ["create_security_list"]
        present(oracle, fails=True)
        assert absent(oracle)["done"] == [f"{words} {NAME}" for words in ("route table", "internet gateway", "VCN")]
        assert state(oracle) == []

    def test_goes_on_after_a_removal_that_broke_off(self, oracle: Oracle) -> None:
        made = present(oracle)
        oracle.account().network.delete_subnet(made["subnet_id"])
        gone(oracle, "subnet", made["subnet_id"])
        assert f"VCN {NAME}" in absent(oracle)["done"]
        assert state(oracle) == []

    def test_is_kept_while_a_machine_of_ours_is_in_it(self, oracle: Oracle) -> None:
        made = present(oracle)
        machine = launch(oracle, "vm", made["subnet_id"], "vm")
        before = state(oracle)
        result = absent(oracle, leaving=["vm"])  # which it should have, and did not
        assert (result["changed"], result["done"]) == (False, [])
        assert result["kept"] == [
            f"subnet {NAME}: needed by machine vm",
            f"security list {NAME}: needed by subnet {NAME}",
            f"route table {NAME}: needed by subnet {NAME}",
            f"internet gateway {NAME}: needed by route table {NAME}",
            f"VCN {NAME}: needed by {', '.join(f'{part} {NAME}' for part in PARTS_IN_VCN)}",
        ]
        assert result["diff"]["before"] == result["diff"]["after"]
        assert state(oracle) == before
        # destroy.yml tells what it is going to do before the machine is gone.
        dry = absent(oracle, check=True, leaving=["vm", "other"])
        assert len(dry["done"]) == 5
        oracle.account().compute.terminate_instance(machine)
        gone(oracle, "instance", machine)
        assert absent(oracle)["done"] == dry["done"]

    def test_is_kept_for_a_machine_of_somebody_else_too(self, oracle: Oracle) -> None:
        made = present(oracle)
        launch(oracle, "theirs", made["subnet_id"])
        result = absent(oracle, leaving=["theirs"], check=True)  # of ours, which this is not
        assert result["kept"][0] == f"subnet {NAME}: needed by machine theirs"
        assert not result["changed"]

    def test_a_network_card_that_was_taken_out_is_no_reason(self, oracle: Oracle) -> None:
        launch(oracle, "vm", present(oracle)["subnet_id"], "vm")
        (card,) = oracle.api.all("VnicAttachment")
        oracle.api.edit(card["id"], lifecycleState="DETACHED")
        assert absent(oracle, check=True)["kept"] == []

    def test_what_others_have_in_it_is_left_with_what_it_needs(self, oracle: Oracle) -> None:
        made = present(oracle)
        table = ours(oracle, "RouteTable")["id"]
        foreign(
            oracle,
            "subnet",
            vcn_id=made["vcn_id"],
            cidr_block="10.0.9.0/24",
            route_table_id=table,
            display_name="theirs",
        )
        result = absent(oracle)
        assert result["done"] == [f"subnet {NAME}", f"security list {NAME}"]
        assert result["kept"] == [
            f"route table {NAME}: needed by subnet theirs",
            f"internet gateway {NAME}: needed by route table {NAME}",
            f"VCN {NAME}: needed by subnet theirs, route table {NAME}, internet gateway {NAME}",
        ]
        assert ours(oracle, "RouteTable")["id"] == table
        # And with a new run, all is as before.
        assert present(oracle)["done"] == ["made the security list", "made the subnet"]

    def test_other_kinds_of_things_in_it_keep_the_network(self, oracle: Oracle) -> None:
        made = present(oracle)
        group = foreign(oracle, "network_security_group", vcn_id=made["vcn_id"], display_name="theirs")
        result = absent(oracle)
        assert len(result["done"]) == 4
        assert result["kept"] == [f"VCN {NAME}: needed by network security group theirs"]
        oracle.account().network.delete_network_security_group(group)
        gone(oracle, "network_security_group", group)
        assert absent(oracle)["done"] == [f"VCN {NAME}"]

    def test_a_route_in_the_default_table_keeps_our_gateway(self, oracle: Oracle) -> None:
        present(oracle)
        vcn, gateway = ours(oracle, "Vcn"), ours(oracle, "InternetGateway")
        route = {"destination": "0.0.0.0/0", "destinationType": "CIDR_BLOCK", "networkEntityId": gateway["id"]}
        oracle.api.edit(vcn["defaultRouteTableId"], routeRules=[{**route, "routeType": "STATIC"}])
        kept = absent(oracle)["kept"]
        assert kept[0].startswith(f"internet gateway {NAME}: needed by route table Default Route Table")
        assert kept[1] == f"VCN {NAME}: needed by internet gateway {NAME}"

    def test_waits_for_the_network_card_of_a_machine_that_is_gone(
        self, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = present(oracle)
        machine = launch(oracle, "vm", made["subnet_id"], "vm")
        oracle.account().compute.terminate_instance(machine)
        oracle.api.resources[machine].waits = 10**6  # looks: it takes long to go
        monkeypatch.setattr(module, "IN_USE", 0.2)
        result = absent(oracle, fails=True)
        assert f"the subnet {NAME} is still in use (Oracle says: The Subnet" in result["msg"]
        assert "Mend: run this again" in result["msg"]
        monkeypatch.setattr(module, "IN_USE", 60)
        oracle.api.resources[machine].waits = 3
        assert len(absent(oracle)["done"]) == 5
        assert [status for name, status in oracle.api.calls if name == "delete_subnet"][-2:] == [409, 204]

    def test_somebody_is_faster(self, oracle: Oracle) -> None:
        present(oracle)
        oracle.api.faults.lose_answer = ["delete_subnet", "delete_vcn"]
        assert len(absent(oracle)["done"]) == 5
        assert state(oracle) == []


PARTS_IN_VCN = ("subnet", "security list", "route table", "internet gateway")
