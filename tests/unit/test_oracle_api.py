"""The stand-in of Oracle's API, asked by Oracle's own SDK: what it takes, what it refuses, what follows from what."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import Request as Get
from urllib.request import urlopen

import pytest

from tests.unit.oracle_kit import Oracle

pytest.importorskip("oci")

import oci
from oci.core import models
from oci.exceptions import ServiceError

from tests.standins import oracle_api
from tests.standins.oracle_api import Request, problems

STANDIN = Path(oracle_api.__file__)
SHAPE = "VM.Standard.A1.Flex"
UBUNTU = {"operating_system": "Canonical Ubuntu", "operating_system_version": "22.04", "shape": SHAPE}
FRIEND, STRANGER = "198.51.100.7", "192.0.2.7"


class Account:
    """The SDK's clients, and the shortest way to what a test needs."""

    def __init__(self, oracle: Oracle) -> None:
        self.api, self.endpoint = oracle.api, oracle.endpoint
        self.network, self.compute, self.identity = map(oracle.client, ("network", "compute", "identity"))
        self.tenancy = oracle.api.tenancy

    def vcn(self, cidr: str = "10.0.0.0/16", **more: Any) -> Any:
        return self.network.create_vcn(self.details("Vcn", cidr_blocks=[cidr], **more)).data

    def details(self, kind: str, **given: Any) -> Any:
        return getattr(models, f"Create{kind}Details")(compartment_id=self.tenancy, **given)

    def security_list(self, vcn: Any, *ingress: Any) -> Any:
        given = {"vcn_id": vcn.id, "ingress_security_rules": list(ingress), "egress_security_rules": []}
        return self.network.create_security_list(self.details("SecurityList", **given)).data

    def subnet(self, cidr: str = "10.0.0.0/24", *ingress: Any) -> Any:
        """A subnet, and all that lets somebody in."""
        vcn = self.vcn()
        given = {"vcn_id": vcn.id, "is_enabled": True}
        gateway = self.network.create_internet_gateway(self.details("InternetGateway", **given)).data
        route = models.RouteRule(destination="0.0.0.0/0", network_entity_id=gateway.id)
        table = self.network.create_route_table(self.details("RouteTable", vcn_id=vcn.id, route_rules=[route])).data
        rules = self.security_list(vcn, *(ingress or [ssh_from("198.51.100.0/24")]))
        given = {"vcn_id": vcn.id, "cidr_block": cidr, "route_table_id": table.id, "security_list_ids": [rules.id]}
        return self.network.create_subnet(self.details("Subnet", **given)).data

    def wanted(self, subnet: Any, **changes: Any) -> Any:
        image = self.compute.list_images(self.tenancy, **UBUNTU).data[1]
        return models.LaunchInstanceDetails(
            **{
                "compartment_id": self.tenancy,
                "availability_domain": self.api.domains[0],
                "shape": SHAPE,
                "shape_config": models.LaunchInstanceShapeConfigDetails(ocpus=1, memory_in_gbs=2),
                "source_details": models.InstanceSourceViaImageDetails(image_id=image.id, boot_volume_size_in_gbs=50),
                "create_vnic_details": models.CreateVnicDetails(subnet_id=subnet.id, assign_public_ip=False),
                **changes,
            }
        )

    def instance(self, **changes: Any) -> Any:
        """A running one."""
        launched = self.compute.launch_instance(self.wanted(self.subnet(), **changes)).data
        return self.until("RUNNING", self.compute.get_instance, launched.id)

    def private_ip(self, instance: Any) -> str:
        attachment = self.compute.list_vnic_attachments(self.tenancy, instance_id=instance.id).data[0]
        return str(self.network.list_private_ips(vnic_id=attachment.vnic_id).data[0].id)

    def public_ip(self, lifetime: str, private_ip_id: str | None = None) -> Any:
        details = self.details("PublicIp", lifetime=lifetime, private_ip_id=private_ip_id)
        return self.network.create_public_ip(details).data

    def until(self, state: str, get: Callable[..., Any], ocid: str) -> Any:
        for _ in range(50):
            found = get(ocid).data
            if found.lifecycle_state == state:
                return found
            time.sleep(0.005)
        raise AssertionError(found)


@pytest.fixture
def account(oracle: Oracle) -> Account:
    return Account(oracle)


def ssh_from(source: str, port: int = 22, protocol: str = "6") -> Any:
    ports = models.TcpOptions(destination_port_range=models.PortRange(min=port, max=port))
    return models.IngressSecurityRule(protocol=protocol, source=source, tcp_options=ports if protocol == "6" else None)


@contextlib.contextmanager
def refused(status: int, code: str, *needed: str) -> Iterator[None]:
    """The SDK raises Oracle's error, and its message has what is needed."""
    with pytest.raises(ServiceError) as caught:
        yield
    assert (caught.value.status, caught.value.code) == (status, code), caught.value
    assert all(word in caught.value.message for word in needed), caught.value


class TestSignatures:
    """Each request is one of the SDK's, with one thing changed."""

    @pytest.fixture
    def ask(self, oracle: Oracle, account: Account) -> Callable[..., tuple[int, str]]:
        def ask(method: str = "GET", change: Callable[[Any], None] = lambda request: None) -> tuple[int, str]:
            url = f"{oracle.endpoint}/20160918/vcns"
            if method == "GET":
                url += f"?compartmentId={account.tenancy}"
            body = json.dumps({"compartmentId": account.tenancy, "cidrBlocks": ["10.0.0.0/16"]})
            session = oci.base_client.requests
            data = body if method == "POST" else None
            prepared = session.Request(method, url, auth=account.network.base_client.signer, data=data).prepare()
            request = SimpleNamespace(
                method=method,
                target=prepared.path_url,
                headers={name.lower(): value for name, value in prepared.headers.items()},
                body=(prepared.body or "").encode(),
            )
            change(request)
            answer = oracle.api.answer(Request(**vars(request)))
            assert answer
            return answer.status, answer.content.decode()

        return ask

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_the_sdks_own_are_right(self, ask: Callable[..., tuple[int, str]], method: str) -> None:
        assert ask(method)[0] == 200

    def test_nothing_is_done_for_whoever_is_unknown(self, ask: Callable[..., tuple[int, str]], oracle: Oracle) -> None:
        oracle.api.public_keys = {"another/key/id": next(iter(oracle.api.public_keys.values()))}
        assert ask("POST")[0] == 401
        assert oracle.api.all("Vcn") == []

    def test_another_private_key(self, ask: Callable[..., tuple[int, str]], oracle: Oracle) -> None:
        (theirs,) = oracle_api.make_account()[1].values()
        oracle.api.public_keys = dict.fromkeys(oracle.api.public_keys, theirs)
        status, text = ask()
        assert (status, "signature does not fit" in text) == (401, True)

    @pytest.mark.parametrize("seconds", [-301, 301])
    def test_an_old_request_and_one_of_tomorrow(
        self, ask: Callable[..., tuple[int, str]], oracle: Oracle, seconds: int
    ) -> None:
        oracle.api.now = lambda: time.time() + seconds
        assert ask()[0] == 401
        oracle.api.now = lambda: time.time() + seconds * 0.9
        assert ask()[0] == 200

    @pytest.mark.parametrize(
        ("method", "name", "value", "told"),
        [
            ("POST", "body", b'{"compartmentId": "mine"}', "x-content-sha256"),
            ("GET", "target", "/20160918/subnets", "signature does not fit"),
            ("POST", "method", "GET", "signature does not fit"),
            ("GET", "date", "yesterday", "no date"),
            ("GET", "host", "elsewhere", "signature does not fit"),
            ("GET", "authorization", "Bearer secret", "no signature"),
        ],
    )
    def test_what_was_changed_on_the_way_is_refused(
        self, ask: Callable[..., tuple[int, str]], method: str, name: str, value: Any, told: str
    ) -> None:
        def change(request: Any) -> None:
            if hasattr(request, name):
                setattr(request, name, value)
            else:
                request.headers[name] = value

        status, text = ask(method, change)
        assert (status, told in text) == (401, True), text

    def test_the_body_has_to_be_signed(self, ask: Callable[..., tuple[int, str]]) -> None:
        def change(request: Any) -> None:
            request.headers["authorization"] = request.headers["authorization"].replace(" x-content-sha256", "")

        assert "not signed: x-content-sha256" in ask("POST", change)[1]


class TestShapes:
    @pytest.mark.parametrize(
        ("kind", "value", "problem"),
        [
            ("CreateVcnDetails", {"compartmentId": "x", "cidrBlocks": ["10.0.0.0/16"]}, None),
            ("CreateVcnDetails", {"compartmentId": "x", "cidr_blocks": []}, "V has an unknown field cidr_blocks"),
            ("CreateVcnDetails", {"cidrBlocks": []}, "V.compartmentId is missing"),
            ("CreateVcnDetails", {"compartmentId": None}, "V.compartmentId is missing"),
            ("CreateVcnDetails", {"compartmentId": 1}, "V.compartmentId is not of type str: 1"),
            ("CreateVcnDetails", {"compartmentId": "x", "cidrBlocks": "10.0.0.0/16"}, "V.cidrBlocks is not a list"),
            ("CreateVcnDetails", {"compartmentId": "x", "cidrBlocks": [1]}, "V.cidrBlocks[0] is not of type str: 1"),
            ("CreateVcnDetails", {"compartmentId": "x", "freeformTags": []}, "V.freeformTags is not an object"),
            ("Vnic", {"freeformTags": {"a": 1}}, "V.freeformTags.a is not of type str: 1"),
            ("CreateVcnDetails", [], "V is not an object"),
            ("PortRange", {"min": 1, "max": True}, "V.max is not of type int: True"),
            ("PortRange", {"min": 1, "max": 2.5}, "V.max is not of type int: 2.5"),
            ("LaunchInstanceShapeConfigDetails", {"ocpus": 1}, None),
            ("TcpOptions", {"destinationPortRange": {"min": 1}}, "V.destinationPortRange.max is missing"),
            ("CreatePublicIpDetails", {"compartmentId": "x", "lifetime": "FOREVER"}, "V.lifetime may not be 'FOREVER'"),
            ("InstanceSourceDetails", {"sourceType": "image", "imageId": "x"}, None),
            ("InstanceSourceDetails", {"sourceType": "image", "id": "x"}, "V has an unknown field id"),
            ("InstanceSourceDetails", {"imageId": "x"}, "V has no 'sourceType'"),
            ("InstanceSourceDetails", {"sourceType": "tape"}, "V is of no known type"),
            ("list[RegionSubscription]", [{"regionKey": "FRA"}], "V[0].regionName is missing"),
            ("datetime", "2026-11-23T10:00:00+00:00", None),
            ("datetime", "2026-11-23T10:00:00", "V is not of type datetime: '2026-11-23T10:00:00'"),
        ],
    )  # fmt: skip
    def test_what_the_models_of_the_sdk_say(self, kind: str, value: Any, problem: str | None) -> None:
        found = list(problems(kind, value, "V"))
        assert problem in found if problem else not found, found

    def test_answers_have_to_be_right_too(self, oracle: Oracle, account: Account) -> None:
        vcn = account.vcn()
        for field, value in (("lifecycleState", "SLEEPING"), ("colour", "red"), ("cidrBlocks", None)):
            before = dict(oracle.api.resources[vcn.id].fields)
            oracle.api.edit(vcn.id, **{field: value})
            with refused(500, "StandInBroken", field):
                account.network.get_vcn(vcn.id)
            oracle.api.resources[vcn.id].fields = before
        assert len(oracle.api.broken) == 3
        oracle.api.broken.clear()

    @pytest.mark.parametrize(
        ("body", "told"),
        [({"colour": "red"}, "unknown field colour"), ({"cidrBlocks": 1}, "not a list")],
    )
    def test_a_wrong_body_changes_nothing(self, account: Account, body: dict[str, Any], told: str) -> None:
        with refused(400, "CannotParseRequest", told):
            account.network.create_vcn({"compartmentId": account.tenancy, **body})
        assert account.api.all("Vcn") == []

    def test_queries(self, account: Account) -> None:
        call = account.network.base_client.call_api
        with refused(400, "MissingParameter", "compartmentId"):
            call("/vcns", "GET", header_params={}, query_params={})
        with refused(400, "InvalidParameter", "colour"):
            call("/vcns", "GET", header_params={}, query_params={"compartmentId": account.tenancy, "colour": "red"})
        with refused(404, "NotAuthorizedOrNotFound"):
            account.network.list_vcns("ocid1.compartment.oc1..another")
        with refused(404, "NotFound"):
            call("/ipv6", "GET", header_params={}, query_params={})

    def test_every_operation_is_one_of_the_sdk_and_answered(self) -> None:
        for name, (operation, work) in oracle_api.ROUTES.items():
            assert operation.method in ("GET", "POST", "PUT", "DELETE"), name
            assert (operation.answer is None) is (operation.method == "DELETE"), name
            assert callable(work)
            takes_body = operation.method in ("POST", "PUT") and name != "instance_action"
            assert (operation.body is not None) is takes_body, name


class TestAnyResource:
    def test_it_becomes_available_after_some_looks_and_is_gone_after_some(self, account: Account) -> None:
        vcn = account.vcn(freeform_tags={"a": "b"})
        get = account.network.get_vcn
        assert vcn.lifecycle_state == "PROVISIONING"
        assert [get(vcn.id).data.lifecycle_state for _ in range(3)] == ["PROVISIONING", "AVAILABLE", "AVAILABLE"]
        assert get(vcn.id).data.freeform_tags == {"a": "b"}
        account.network.delete_vcn(vcn.id)
        assert get(vcn.id).data.lifecycle_state == "TERMINATING"
        with refused(404, "NotAuthorizedOrNotFound"):
            account.network.delete_vcn(vcn.id)
        with refused(404, "NotAuthorizedOrNotFound"):
            get(vcn.id)
        assert account.api.all("SecurityList") == []

    def test_what_is_still_being_made_is_not_to_be_used_yet(self, account: Account) -> None:
        given = {"vcn_id": account.vcn().id, "is_enabled": True}
        details = account.details("InternetGateway", **given)
        with refused(409, "IncorrectState", "PROVISIONING"):
            account.network.create_internet_gateway(details, retry_strategy=oci.retry.NoneRetryStrategy())
        account.network.create_internet_gateway(details)

    def test_etags(self, account: Account) -> None:
        vcn = account.vcn()
        account.until("AVAILABLE", account.network.get_vcn, vcn.id)
        etag = account.network.get_vcn(vcn.id).headers["etag"]
        details = models.UpdateVcnDetails(display_name="new")
        changed = account.network.update_vcn(vcn.id, details, if_match=etag)
        assert changed.data.display_name == "new"
        with refused(412, "NoEtagMatch"):
            account.network.update_vcn(vcn.id, details, if_match=etag)
        with refused(412, "NoEtagMatch"):
            account.network.delete_vcn(vcn.id, if_match=etag)
        account.network.delete_vcn(vcn.id, if_match=changed.headers["etag"])

    def test_lists_have_pages_filters_and_an_order(self, account: Account) -> None:
        made = [account.vcn(display_name=name).id for name in ("b", "a", "c", "a", "d")]
        first = account.network.list_vcns(account.tenancy)
        assert first.has_next_page
        assert len(first.data) == account.api.page_size
        pages = oci.pagination.list_call_get_all_results(account.network.list_vcns, account.tenancy).data
        assert {vcn.id for vcn in pages} == set(made)
        assert len(account.network.list_vcns(account.tenancy, limit=2).data) == 2
        by_name = account.network.list_vcns(account.tenancy, sort_by="DISPLAYNAME", sort_order="ASC").data
        assert [vcn.display_name for vcn in by_name] == ["a", "a", "b"]
        assert len(account.network.list_vcns(account.tenancy, display_name="a").data) == 2
        newest_last = account.network.list_vcns(account.tenancy, sort_by="TIMECREATED", sort_order="ASC").data
        assert [vcn.id for vcn in newest_last] == made[:3]
        assert [vcn.id for vcn in first.data] == made[:1:-1]
        assert account.network.list_vcns(account.tenancy, lifecycle_state="TERMINATED").data == []
        with refused(400, "InvalidParameter"):
            account.network.list_vcns(account.tenancy, page="the-next")

    def test_a_retry_token_makes_no_twin(self, account: Account) -> None:
        details = account.details("Vcn", cidr_blocks=["10.0.0.0/16"])
        twins = [account.network.create_vcn(details, opc_retry_token="t").data.id for _ in range(2)]
        assert twins[0] == twins[1]
        assert len(account.api.all("Vcn")) == 1
        other = account.details("Vcn", cidr_blocks=["10.1.0.0/16"])
        with refused(409, "InvalidatedRetryToken"):
            account.network.create_vcn(other, opc_retry_token="t")


class TestNetwork:
    def test_a_vcn_comes_with_oracles_defaults(self, account: Account) -> None:
        vcn = account.vcn()
        stock = account.network.get_security_list(vcn.default_security_list_id).data
        opened = [
            (rule.protocol, rule.source, rule.tcp_options and rule.tcp_options.destination_port_range.min)
            for rule in stock.ingress_security_rules
        ]
        assert opened == [("6", "0.0.0.0/0", 22), ("1", "0.0.0.0/0", None), ("1", "10.0.0.0/16", None)]
        assert [(rule.protocol, rule.destination) for rule in stock.egress_security_rules] == [("all", "0.0.0.0/0")]
        assert account.network.get_route_table(vcn.default_route_table_id).data.route_rules == []
        (options,) = account.network.list_dhcp_options(account.tenancy, vcn_id=vcn.id).data
        assert options.id == vcn.default_dhcp_options_id

    @pytest.mark.parametrize("kind", ["route_table", "security_list"])
    def test_the_defaults_stay(self, account: Account, kind: str) -> None:
        ocid = getattr(account.vcn(), f"default_{kind}_id")
        with refused(409, "Conflict", "default"):
            getattr(account.network, f"delete_{kind}")(ocid)

    def test_what_is_in_use_stays_and_the_reverse_order_works(self, account: Account) -> None:
        subnet, network = account.subnet(), account.network
        table = network.get_route_table(subnet.route_table_id).data
        group = network.create_network_security_group(account.details("NetworkSecurityGroup", vcn_id=subnet.vcn_id))
        order = {
            "subnet": subnet.id,
            "route_table": table.id,
            "internet_gateway": table.route_rules[0].network_entity_id,
            "security_list": subnet.security_list_ids[0],
            "network_security_group": group.data.id,
        }
        for kind in ("route_table", "internet_gateway", "security_list"):
            with refused(409, "Conflict", "refers to it"):
                getattr(network, f"delete_{kind}")(order[kind])
        for kind, ocid in order.items():
            with refused(409, "Conflict", ocid):
                network.delete_vcn(subnet.vcn_id)
            getattr(network, f"delete_{kind}")(ocid)
            with refused(404, "NotAuthorizedOrNotFound"):
                account.until("TERMINATED", getattr(network, f"get_{kind}"), ocid)
        network.delete_vcn(subnet.vcn_id)

    def test_asking_again_is_a_way_to_wait_too(self, account: Account) -> None:
        instance = account.instance()
        (subnet,) = account.api.all("Subnet")
        account.compute.terminate_instance(instance.id)
        for _ in range(account.api.looks + 1):
            with refused(409, "Conflict", "Vnic"):
                account.network.delete_subnet(subnet["id"])
        account.network.delete_subnet(subnet["id"])

    @pytest.mark.parametrize("cidr", ["10.0.0.0/8", "10.0.0.1/16", "10.0.0.0/31", "ten", "fd00::/64"])
    def test_a_vcns_cidr(self, account: Account, cidr: str) -> None:
        with refused(400, "InvalidParameter", "CIDR"):
            account.vcn(cidr)

    def test_a_subnets_cidr_is_in_the_vcn_and_its_own(self, account: Account) -> None:
        vcn = account.vcn()

        def make(cidr: str) -> Any:
            return account.network.create_subnet(account.details("Subnet", vcn_id=vcn.id, cidr_block=cidr)).data

        assert make("10.0.0.0/24").security_list_ids == [vcn.default_security_list_id]
        with refused(400, "InvalidParameter", "overlaps with 10.0.0.0/24"):
            make("10.0.0.128/25")
        with refused(400, "InvalidParameter", "not in the VCN's 10.0.0.0/16"):
            make("10.1.0.0/24")
        make("10.0.1.0/24")

    def test_parts_of_another_vcn(self, account: Account) -> None:
        one, other = account.vcn(), account.vcn()
        given = {"vcn_id": one.id, "cidr_block": "10.0.0.0/24"}
        with refused(400, "InvalidParameter", "of another VCN"):
            more = {"route_table_id": other.default_route_table_id}
            account.network.create_subnet(account.details("Subnet", **given, **more))
        with refused(400, "InvalidParameter", "of another VCN"):
            more = {"security_list_ids": [other.default_security_list_id]}
            account.network.create_subnet(account.details("Subnet", **given, **more))

    @pytest.mark.parametrize(
        ("more", "code", "told"),
        [
            ({"availability_domain": "AD-1"}, "InvalidParameter", "no availability domain"),
            ({"dns_label": "with-hyphen"}, "InvalidParameter", "dnsLabel"),
            ({"security_list_ids": ["any"] * 6}, "LimitExceeded", "at most 5"),
        ],
    )
    def test_a_subnets_other_settings(self, account: Account, more: dict[str, Any], code: str, told: str) -> None:
        given = {"vcn_id": account.vcn().id, "cidr_block": "10.0.0.0/24"}
        with refused(400, code, told):
            account.network.create_subnet(account.details("Subnet", **given, **more))

    def test_routes(self, account: Account) -> None:
        subnet, other, network = account.subnet(), account.vcn(), account.network
        (rule,) = network.get_route_table(subnet.route_table_id).data.route_rules
        assert (rule.destination_type, rule.route_type) == ("CIDR_BLOCK", "STATIC")
        assert rule.cidr_block == rule.destination
        with refused(400, "InvalidParameter", "either a cidrBlock"):
            details = models.UpdateRouteTableDetails(route_rules=[rule])
            network.update_route_table(subnet.route_table_id, details)
        rule.cidr_block = None
        with refused(400, "InvalidParameter", "same destination"):
            details = models.UpdateRouteTableDetails(route_rules=[rule, rule])
            network.update_route_table(subnet.route_table_id, details)
        with refused(400, "InvalidParameter", "of another VCN"):
            details = models.UpdateRouteTableDetails(route_rules=[rule])
            network.update_route_table(other.default_route_table_id, details)
        with refused(400, "InvalidParameter", "CIDR"):
            rule.destination = "everywhere"
            details = models.UpdateRouteTableDetails(route_rules=[rule])
            network.update_route_table(subnet.route_table_id, details)

    def test_one_gateway_for_each_vcn(self, account: Account) -> None:
        vcn = account.vcn()
        details = account.details("InternetGateway", vcn_id=vcn.id, is_enabled=True)
        account.network.create_internet_gateway(details)
        with refused(400, "LimitExceeded"):
            account.network.create_internet_gateway(details, opc_retry_token="another")

    @pytest.mark.parametrize(
        ("rule", "told"),
        [
            (ssh_from("10.0.0.1/24"), "CIDR"),
            (models.IngressSecurityRule(protocol="tcp", source="0.0.0.0/0"), "protocol"),
            (models.IngressSecurityRule(protocol="17", source="0.0.0.0/0", tcp_options=models.TcpOptions()), None),
            (models.IngressSecurityRule(protocol="6", source="::/0", icmp_options=models.IcmpOptions(type=3)), "icmp"),
            (ssh_from("0.0.0.0/0", port=70000), "port range"),
            (models.IngressSecurityRule(protocol="6", source="0.0.0.0/0", description="x" * 256), "255"),
        ],
    )
    def test_rules_that_oracle_does_not_take(self, account: Account, rule: Any, told: str | None) -> None:
        vcn = account.vcn()
        if told is None:
            account.security_list(vcn, rule)
            return
        with refused(400, "InvalidParameter", told):
            account.security_list(vcn, rule)

    def test_rules_are_counted_and_completed(self, account: Account) -> None:
        vcn = account.vcn()
        with refused(400, "LimitExceeded"):
            account.security_list(vcn, *[ssh_from("0.0.0.0/0", port) for port in range(1, 202)])
        (rule,) = account.security_list(vcn, ssh_from("fd00::/64")).ingress_security_rules
        assert (rule.is_stateless, rule.source_type) == (False, "CIDR_BLOCK")

    def test_a_lost_race(self, account: Account) -> None:
        ocid = account.vcn().default_security_list_id
        account.api.faults.race = 1
        found = account.network.get_security_list(ocid)
        update = models.UpdateSecurityListDetails(ingress_security_rules=[])
        with refused(412, "NoEtagMatch"):
            account.network.update_security_list(ocid, update, if_match=found.headers["etag"])
        again = account.network.get_security_list(ocid)
        assert len(again.data.ingress_security_rules) == 4
        account.network.update_security_list(ocid, update, if_match=again.headers["etag"])
        assert account.network.get_security_list(ocid).data.ingress_security_rules == []


class TestInstances:
    def test_the_image_that_is_meant(self, account: Account) -> None:
        mine, newest, older = account.compute.list_images(account.tenancy, **UBUNTU).data
        assert mine.base_image_id
        assert newest.base_image_id is None
        assert newest.display_name == "Canonical-Ubuntu-22.04-aarch64-2026.09.30-0"
        assert older.display_name == "Canonical-Ubuntu-22.04-aarch64-2026.08.31-0"

    def test_from_launch_to_the_end(self, account: Account) -> None:
        compute, tenancy = account.compute, account.tenancy
        instance = compute.launch_instance(account.wanted(account.subnet())).data
        (attachment,) = compute.list_vnic_attachments(tenancy, instance_id=instance.id).data
        assert (instance.lifecycle_state, attachment.lifecycle_state) == ("PROVISIONING", "ATTACHING")
        assert attachment.vnic_id is None
        account.until("RUNNING", compute.get_instance, instance.id)
        (attachment,) = compute.list_vnic_attachments(tenancy, instance_id=instance.id).data
        assert attachment.lifecycle_state == "ATTACHED"
        vnic = account.network.get_vnic(attachment.vnic_id).data
        assert (vnic.private_ip, vnic.public_ip, vnic.lifecycle_state) == ("10.0.0.2", None, "AVAILABLE")
        with refused(409, "Conflict", "Vnic"):
            account.network.delete_subnet(vnic.subnet_id)
        domain = instance.availability_domain
        assert len(compute.list_boot_volume_attachments(domain, tenancy, instance_id=instance.id).data) == 1
        assert [volume["sizeInGBs"] for volume in account.api.all("BootVolume")] == [50]
        compute.terminate_instance(instance.id, preserve_boot_volume=False)
        account.until("TERMINATED", compute.get_instance, instance.id)
        assert [one.lifecycle_state for one in compute.list_instances(tenancy).data] == ["TERMINATED"]
        for kind in ("BootVolume", "BootVolumeAttachment", "Vnic", "VnicAttachment", "PrivateIp"):
            assert account.api.all(kind) == [], kind
        with refused(404, "NotAuthorizedOrNotFound"):
            compute.terminate_instance(instance.id)
        account.network.delete_subnet(vnic.subnet_id)

    def test_a_disk_may_stay(self, account: Account) -> None:
        instance = account.instance()
        account.compute.terminate_instance(instance.id, preserve_boot_volume=True)
        account.until("TERMINATED", account.compute.get_instance, instance.id)
        assert len(account.api.all("BootVolume")) == 1

    @pytest.mark.parametrize(
        ("changes", "status", "code"),
        [
            ({"availability_domain": "AD-1"}, 400, "InvalidParameter"),
            ({"shape": "VM.Standard.A9.Flex"}, 404, "NotAuthorizedOrNotFound"),
            ({"shape": "VM.Standard.E4.Flex"}, 400, "InvalidParameter"),  # the image is for another processor
            ({"shape_config": None}, 400, "InvalidParameter"),
            ({"shape_config": {"ocpus": 1, "memoryInGBs": 65}}, 400, "InvalidParameter"),
            ({"shape_config": {"ocpus": 2, "memoryInGBs": 1}}, 400, "InvalidParameter"),
            ({"source_details": None}, 400, "InvalidParameter"),
            ({"source_details": {"sourceType": "image", "imageId": "none"}}, 404, "NotAuthorizedOrNotFound"),
            ({"create_vnic_details": None}, 404, "NotAuthorizedOrNotFound"),
            ({"metadata": {"user_data": "#cloud-config"}}, 400, "InvalidParameter"),
            ({"metadata": {"more": "x" * 32001}}, 400, "InvalidParameter"),
        ],
    )
    def test_launches_that_oracle_refuses(
        self, account: Account, changes: dict[str, Any], status: int, code: str
    ) -> None:
        wanted = account.wanted(account.subnet(), **changes)
        with refused(status, code):
            account.compute.launch_instance(wanted)
        assert account.api.all("Instance") == account.api.all("Vnic") == []

    def test_a_boot_volume_is_not_smaller_than_the_image(self, account: Account) -> None:
        wanted = account.wanted(account.subnet())
        wanted.source_details.boot_volume_size_in_gbs = 20
        with refused(400, "InvalidParameter", "from 50"):
            account.compute.launch_instance(wanted)

    def test_a_new_size_restarts_it(self, account: Account) -> None:
        instance = account.instance(metadata={"ssh_authorized_keys": "a"})
        config = models.UpdateInstanceShapeConfigDetails(ocpus=2)
        details = models.UpdateInstanceDetails(shape_config=config)
        assert account.compute.update_instance(instance.id, details).data.lifecycle_state == "STOPPING"
        with refused(409, "IncorrectState"):
            account.compute.update_instance(instance.id, details, retry_strategy=oci.retry.NoneRetryStrategy())
        again = account.until("RUNNING", account.compute.get_instance, instance.id)
        assert (again.shape_config.ocpus, again.shape_config.memory_in_gbs) == (2.0, 2.0)
        named = models.UpdateInstanceDetails(display_name="new")
        assert account.compute.update_instance(instance.id, named).data.lifecycle_state == "RUNNING"
        with refused(400, "InvalidParameter", "ssh_authorized_keys"):
            details = models.UpdateInstanceDetails(metadata={"ssh_authorized_keys": "b"})
            account.compute.update_instance(instance.id, details)

    def test_stop_and_start(self, account: Account) -> None:
        instance = account.instance()
        account.compute.instance_action(instance.id, "STOP")
        account.until("STOPPED", account.compute.get_instance, instance.id)
        with refused(409, "IncorrectState"):
            account.compute.instance_action(instance.id, "STOP")
        assert account.compute.instance_action(instance.id, "START").data.lifecycle_state == "STARTING"
        account.until("RUNNING", account.compute.get_instance, instance.id)

    def test_the_console(self, account: Account) -> None:
        instance = account.instance()
        details = models.CaptureConsoleHistoryDetails(instance_id=instance.id)
        history = account.compute.capture_console_history(details).data
        with refused(409, "IncorrectState"):
            account.compute.get_console_history_content(history.id, retry_strategy=oci.retry.NoneRetryStrategy())
        account.until("SUCCEEDED", account.compute.get_console_history, history.id)
        part = account.compute.get_console_history_content(history.id, offset=4, length=10)
        text = account.api.launcher.console({}).encode()
        assert (part.data, part.headers["opc-bytes-remaining"]) == (text[4:14], str(len(text) - 14))
        assert account.compute.get_console_history_content(history.id).data == text
        account.compute.delete_console_history(history.id)
        assert account.api.all("ConsoleHistory") == []

    def test_the_home_region(self, account: Account) -> None:
        (here,) = account.identity.list_region_subscriptions(account.tenancy).data
        assert (here.region_name, here.is_home_region) == ("eu-frankfurt-1", True)
        account.api.home_region = "uk-london-1"
        regions = account.identity.list_region_subscriptions(account.tenancy).data
        assert [region.region_name for region in regions if region.is_home_region] == ["uk-london-1"]
        assert len(account.identity.list_availability_domains(account.tenancy).data) == 3

    def test_compartments_of_which_some_are_closed(self, account: Account) -> None:
        other = "ocid1.compartment.oc1..other"
        account.api.compartments.add(other)
        account.api.closed = {account.tenancy, other}
        [listed] = account.identity.list_compartments(account.tenancy, compartment_id_in_subtree=True).data
        assert (listed.id, listed.name, listed.lifecycle_state) == (other, "other", "ACTIVE")
        assert account.identity.list_compartments(account.tenancy, lifecycle_state="DELETED").data == []
        for closed in account.api.closed:
            with refused(404, "NotAuthorizedOrNotFound"):
                account.compute.list_instances(closed)


class TestPublicAddresses:
    def test_a_reserved_one_outlives_its_instance(self, account: Account) -> None:
        instance = account.instance()
        private = account.private_ip(instance)
        public = account.public_ip("RESERVED", private)
        account.until("ASSIGNED", account.network.get_public_ip, public.id)
        details = models.GetPublicIpByPrivateIpIdDetails(private_ip_id=private)
        assert account.network.get_public_ip_by_private_ip_id(details).data.id == public.id
        assert account.api.all("Vnic")[0]["publicIp"] == public.ip_address
        account.compute.terminate_instance(instance.id)
        account.until("TERMINATED", account.compute.get_instance, instance.id)
        left = account.until("AVAILABLE", account.network.get_public_ip, public.id)
        assert (left.ip_address, left.private_ip_id) == (public.ip_address, None)

    def test_an_ephemeral_one_does_not(self, account: Account) -> None:
        vnic = models.CreateVnicDetails(subnet_id=account.subnet().id, assign_public_ip=True)
        wanted = account.wanted(SimpleNamespace(id=""), create_vnic_details=vnic)
        instance = account.compute.launch_instance(wanted).data
        domain = instance.availability_domain
        listed = {"scope": "AVAILABILITY_DOMAIN", "compartment_id": account.tenancy}
        (public,) = account.network.list_public_ips(**listed, availability_domain=domain).data
        with refused(400, "InvalidParameter", "availabilityDomain"):
            account.network.list_public_ips(**listed)
        account.until("ASSIGNED", account.network.get_public_ip, public.id)
        with refused(400, "InvalidParameter", "neither moved nor unassigned"):
            details = models.UpdatePublicIpDetails(private_ip_id="")
            account.network.update_public_ip(public.id, details)
        account.until("RUNNING", account.compute.get_instance, instance.id)
        account.compute.terminate_instance(instance.id)
        account.until("TERMINATED", account.compute.get_instance, instance.id)
        assert account.api.all("PublicIp") == []

    def test_one_for_each_private_address(self, account: Account) -> None:
        private = account.private_ip(account.instance())
        first = account.public_ip("EPHEMERAL", private)
        with refused(409, "Conflict", "already has a public IP"):
            account.public_ip("RESERVED", private)
        spare = account.public_ip("RESERVED")
        assert spare.ip_address != first.ip_address
        account.until("AVAILABLE", account.network.get_public_ip, spare.id)
        details = models.UpdatePublicIpDetails(private_ip_id=private)
        with refused(409, "Conflict"):
            account.network.update_public_ip(spare.id, details)
        account.network.delete_public_ip(first.id)
        account.network.update_public_ip(spare.id, details)
        account.until("ASSIGNED", account.network.get_public_ip, spare.id)
        unassign = models.UpdatePublicIpDetails(private_ip_id="")
        assert account.network.update_public_ip(spare.id, unassign).data.lifecycle_state == "UNASSIGNING"

    def test_where_none_may_be(self, account: Account) -> None:
        private = account.private_ip(account.instance())
        account.api.compartments.add("ocid1.compartment.oc1..other")
        details = account.details("PublicIp", lifetime="EPHEMERAL", private_ip_id=private)
        details.compartment_id = "ocid1.compartment.oc1..other"
        with refused(400, "InvalidParameter", "in the compartment of its private IP"):
            account.network.create_public_ip(details)
        (subnet,) = account.api.all("Subnet")
        account.api.edit(subnet["id"], prohibitPublicIpOnVnic=True)
        with refused(400, "InvalidParameter", "forbids public addresses"):
            account.public_ip("RESERVED", private)
        with refused(400, "InvalidParameter", "subnetId and vnicId"):
            account.network.list_private_ips()
        vnic = models.CreateVnicDetails(subnet_id=subnet["id"], assign_public_ip=True)
        with refused(400, "InvalidParameter", "forbids public addresses"):
            wanted = account.wanted(SimpleNamespace(id=""), create_vnic_details=vnic)
            account.compute.launch_instance(wanted)

    def test_there_are_not_endlessly_many(self, account: Account) -> None:
        account.api.addresses = ["203.0.113.99"]
        public = account.public_ip("RESERVED")
        with refused(400, "LimitExceeded"):
            account.public_ip("RESERVED")
        account.network.delete_public_ip(public.id)
        with refused(400, "InvalidParameter", "privateIpId"):
            account.api.addresses.append("203.0.113.98")
            account.public_ip("EPHEMERAL")


class TestLetsIn:
    @pytest.fixture
    def instance(self, account: Account) -> Any:
        instance = account.instance()
        public = account.public_ip("RESERVED", account.private_ip(instance))
        account.until("ASSIGNED", account.network.get_public_ip, public.id)
        return instance

    def test_whom_the_rules_name_and_nobody_else(self, account: Account, instance: Any) -> None:
        assert account.api.lets_in(instance.id, FRIEND, 22)
        assert not account.api.lets_in(instance.id, STRANGER, 22)
        assert not account.api.lets_in(instance.id, FRIEND, 80)
        assert not account.api.lets_in("ocid1.instance.oc1..none", FRIEND, 22)

    @pytest.mark.parametrize(
        ("kind", "changes"),
        [
            ("Instance", {"lifecycleState": "STOPPED"}),
            ("InternetGateway", {"isEnabled": False}),
            ("PublicIp", {"privateIpId": None}),
            ("PublicIp", {"lifecycleState": "ASSIGNING"}),
            ("Subnet", {"securityListIds": []}),
        ],
    )
    def test_one_thing_missing_is_enough(
        self, account: Account, instance: Any, kind: str, changes: dict[str, Any]
    ) -> None:
        account.api.edit(account.api.all(kind)[0]["id"], **changes)
        assert not account.api.lets_in(instance.id, FRIEND, 22)

    def test_a_route_is_needed(self, account: Account, instance: Any) -> None:
        account.api.edit(account.api.all("Subnet")[0]["routeTableId"], routeRules=[])
        assert not account.api.lets_in(instance.id, FRIEND, 22)

    @pytest.mark.parametrize(
        ("rule", "in_"),
        [
            ({"protocol": "all", "source": "0.0.0.0/0"}, True),
            ({"protocol": "6", "source": "0.0.0.0/0"}, True),
            ({"protocol": "17", "source": "0.0.0.0/0"}, False),
            ({"protocol": "6", "source": "::/0"}, False),
        ],
    )
    def test_rules(self, account: Account, instance: Any, rule: dict[str, Any], in_: bool) -> None:
        account.api.edit(account.api.all("Subnet")[0]["securityListIds"][0], ingressSecurityRules=[rule])
        assert account.api.lets_in(instance.id, STRANGER, 22) is in_


class TestFaults:
    def test_out_of_capacity_in_one_domain_for_a_while(self, account: Account) -> None:
        wanted = account.wanted(account.subnet())
        account.api.faults.out_of_capacity = {account.api.domains[0]: 2}
        for _ in range(2):
            with refused(500, "InternalError", "Out of host capacity."):
                account.compute.launch_instance(wanted)
        account.compute.launch_instance(wanted)
        account.api.faults.out_of_capacity = {account.api.domains[0]: 99}
        wanted.availability_domain = account.api.domains[1]
        account.compute.launch_instance(wanted)
        assert len(account.api.all("Instance")) == 2

    def test_throttling_passes(self, account: Account) -> None:
        account.api.faults.throttle = 2
        account.vcn()
        assert account.api.calls == [("create_vcn", 429), ("create_vcn", 429), ("create_vcn", 200)]
        assert account.api.writes() == ["create_vcn"]

    def test_a_lost_answer_was_done_once(self, account: Account) -> None:
        account.api.faults.lose_answer = ["create_vcn"]
        assert account.vcn().id == account.api.all("Vcn")[0]["id"]
        assert account.api.calls == [("create_vcn", 200)] * 2
        assert len(account.api.all("Vcn")) == 1

    def test_a_domain_without_the_shape(self, account: Account) -> None:
        wanted = account.wanted(account.subnet())
        account.api.faults.no_shape = [account.api.domains[0]]
        with refused(404, "NotAuthorizedOrNotFound", f"shape {SHAPE} not found"):
            account.compute.launch_instance(wanted)

    def test_a_limit(self, account: Account) -> None:
        account.api.faults.limit = ["create_vcn"]
        with refused(400, "LimitExceeded"):
            account.vcn()
        account.vcn()

    def test_over_http(self, account: Account) -> None:
        def control(what: str, faults: dict[str, Any] | None = None) -> Any:
            data = None if faults is None else json.dumps(faults).encode()
            with urlopen(Get(f"{account.endpoint}/standin/{what}", data)) as answer:
                return json.load(answer)

        assert control("faults", {"throttle": 1, "slow": 0.05})["throttle"] == 1
        before = time.monotonic()
        account.vcn()
        assert time.monotonic() - before >= 0.1  # two answers, of which one is a refusal
        assert account.api.calls[0] == ("create_vcn", 429)
        control("faults", {"slow": 0})
        with pytest.raises(OSError, match="400"):
            control("faults", {"thunder": 1})
        assert [one["kind"] for one in control("resources") if one["kind"] != "Image"][:1] == ["Vcn"]
        assert control("lets_in?instance_id=none&address=192.0.2.1&port=22") is False


class Machines:
    """A launcher that tells what is asked of it."""

    def __init__(self) -> None:
        self.may_boot = threading.Event()
        self.booted: list[str] = []
        self.terminated: list[str] = []
        self.broken = False

    def boot(self, instance: dict[str, Any]) -> None:
        assert self.may_boot.wait(5)
        if self.broken:
            raise RuntimeError("no power")
        self.booted.append(instance["displayName"])

    def console(self, instance: dict[str, Any]) -> str:
        return f"{instance['displayName']} login: "

    def terminate(self, instance: dict[str, Any]) -> None:
        self.terminated.append(instance["displayName"])


class TestLauncher:
    @pytest.fixture
    def machines(self, account: Account) -> Machines:
        machines = account.api.launcher = Machines()
        return machines

    def test_an_instance_runs_when_its_machine_does(self, account: Account, machines: Machines) -> None:
        compute = account.compute
        instance = compute.launch_instance(account.wanted(account.subnet(), display_name="vm")).data
        assert {compute.get_instance(instance.id).data.lifecycle_state for _ in range(5)} == {"PROVISIONING"}
        machines.may_boot.set()
        account.until("RUNNING", compute.get_instance, instance.id)
        history = compute.capture_console_history(models.CaptureConsoleHistoryDetails(instance_id=instance.id)).data
        account.until("SUCCEEDED", compute.get_console_history, history.id)
        assert compute.get_console_history_content(history.id).data == b"vm login: "
        compute.terminate_instance(instance.id)
        account.until("TERMINATED", compute.get_instance, instance.id)
        assert machines.booted == machines.terminated == ["vm"]

    def test_a_machine_that_does_not_boot(self, account: Account, machines: Machines) -> None:
        machines.broken = True
        machines.may_boot.set()
        instance = account.compute.launch_instance(account.wanted(account.subnet())).data
        account.until("TERMINATED", account.compute.get_instance, instance.id)

    def test_one_that_is_terminated_while_it_boots(self, account: Account, machines: Machines) -> None:
        instance = account.compute.launch_instance(account.wanted(account.subnet(), display_name="vm")).data
        account.compute.terminate_instance(instance.id)
        assert machines.terminated == []
        machines.may_boot.set()
        account.until("TERMINATED", account.compute.get_instance, instance.id)
        assert machines.booted == machines.terminated == ["vm"]


def test_as_a_program_with_a_launcher_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import sys\nclass Own:\n boot = terminate = print\n def console(self, instance): return 'hello'\n"
    )
    command = [sys.executable, STANDIN, "--state", "state", "--port", "0", "--looks", "0", "--launcher", "mine:Own"]
    command += ["--address", "192.0.2.200"]
    server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr
        assert "oracle.yml" in server.stderr.readline()
        variables = json.loads((tmp_path / "state/oracle.yml").read_text())
        config, endpoint = variables["oracle_api_key"], variables["oracle_endpoint"]
        assert Path(config["key_file"]).stat().st_mode & 0o777 == 0o600
        network = oci.core.VirtualNetworkClient(config, service_endpoint=endpoint)
        details = models.CreatePublicIpDetails(compartment_id=config["tenancy"], lifetime="RESERVED")
        public = network.create_public_ip(details).data
        assert public.ip_address == "192.0.2.200"
        assert network.get_public_ip(public.id).data.lifecycle_state == "AVAILABLE"
    finally:
        server.terminate()
        server.communicate()


def test_no_address_is_given_out_twice(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request at a time, however many come at once. Without the lock, the pause lets the others in."""
    add = account.api._add
    monkeypatch.setattr(account.api, "_add", lambda *given: (time.sleep(0.01), add(*given))[1])
    threads = [threading.Thread(target=account.public_ip, args=("RESERVED",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({public["ipAddress"] for public in account.api.all("PublicIp")}) == 6
