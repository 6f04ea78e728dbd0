"""The module oracle_instance and the patience around it, against the stand-in of Oracle's API."""

from __future__ import annotations

import base64
import importlib.util
import itertools
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.ansible_module import ROLES
from tests.unit.oracle_kit import NAME, Oracle, load

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHvF4+asA2Mtu3JFK2B3FQj8TTLpGY+zYm77GeuB7mJP me@here"
TAG = "personal-ai-employee"
OTHER = "ocid1.compartment.oc1..other"


@pytest.fixture
def subnet_id(oracle: Oracle) -> str:
    from oci.core import models

    network, compartment = oracle.client("network"), oracle.api.tenancy
    vcn = network.create_vcn(models.CreateVcnDetails(compartment_id=compartment, cidr_block="10.0.0.0/16")).data
    while network.get_vcn(vcn.id).data.lifecycle_state != "AVAILABLE":
        pass
    details = models.CreateSubnetDetails(compartment_id=compartment, vcn_id=vcn.id, cidr_block="10.0.0.0/24")
    subnet = network.create_subnet(details).data
    while network.get_subnet(subnet.id).data.lifecycle_state != "AVAILABLE":
        pass
    oracle.api.calls.clear()
    return str(subnet.id)


def have(oracle: Oracle, subnet_id: str, **params: Any) -> dict[str, Any]:
    return oracle.call("oracle_instance", subnet_id=subnet_id, **{"ssh_public_key": KEY, **params})


def machines(oracle: Oracle) -> list[dict[str, Any]]:
    return oracle.api.all("Instance")


def somebodys(oracle: Oracle, subnet_id: str, **more: Any) -> str:
    """Somebody launches an instance of their own."""
    from oci.core import models

    details = {
        "availability_domain": oracle.api.domains[0],
        "compartment_id": oracle.api.tenancy,
        "display_name": "theirs",
        "shape": "VM.Standard.A1.Flex",
        "shape_config": models.LaunchInstanceShapeConfigDetails(ocpus=1, memory_in_gbs=6),
        "source_details": models.InstanceSourceViaImageDetails(
            image_id=next(each["id"] for each in oracle.api.all("Image") if "aarch64" in each["displayName"])
        ),
        "create_vnic_details": models.CreateVnicDetails(subnet_id=subnet_id, assign_public_ip=False),
        **more,
    }
    ocid = oracle.client("compute").launch_instance(models.LaunchInstanceDetails(**details)).data.id
    oracle.api.calls.clear()
    return str(ocid)


def until(oracle: Oracle, ocid: str, state: str) -> None:
    compute = oracle.client("compute")
    while compute.get_instance(ocid).data.lifecycle_state != state:
        pass
    oracle.api.calls.clear()


def take_back_the_first(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle takes a launch, and finds that there is no room after all; of the next ones it does not."""
    tries = itertools.count()

    def boot(instance: dict[str, Any]) -> None:
        if next(tries) == 0:
            raise RuntimeError("no host after all")

    monkeypatch.setattr(oracle.api.launcher, "boot", boot)


def full(oracle: Oracle, *numbers: int, times: int = 1) -> None:
    oracle.api.faults.out_of_capacity = {oracle.api.domains[number - 1]: times for number in numbers}


class TestLaunch:
    def test_it_is_made_and_the_second_run_changes_nothing(self, oracle: Oracle, subnet_id: str) -> None:
        made = have(oracle, subnet_id, user_data="#cloud-config\n")
        (machine,) = machines(oracle)
        assert made["changed"] and made["launched"] and not made["out_of_capacity"]
        assert machine["id"] == made["instance_id"]
        assert machine["lifecycleState"] == "RUNNING"
        assert (machine["displayName"], machine["freeformTags"]) == (NAME, {TAG: NAME})
        assert machine["metadata"]["ssh_authorized_keys"] == KEY
        assert base64.b64decode(machine["metadata"]["user_data"]) == b"#cloud-config\n"
        (address,) = oracle.api.all("PrivateIp")
        assert made["private_ip_id"] == address["id"]
        assert oracle.api.all("PublicIp") == []
        (disk,) = oracle.api.all("BootVolume")
        assert disk["sizeInGBs"] == 50

        oracle.api.calls.clear()
        again = have(oracle, subnet_id, user_data="#cloud-config\n")
        assert not again["changed"] and not again["launched"]
        assert again["diff"]["before"] == again["diff"]["after"]
        assert (again["instance_id"], again["private_ip_id"]) == (made["instance_id"], made["private_ip_id"])
        assert oracle.api.writes() == []

    def test_its_address_is_that_of_its_first_network_card(self, oracle: Oracle, subnet_id: str) -> None:
        made = have(oracle, subnet_id)
        # Somebody adds another, to which they may assign a public address of its own.
        (there,) = machines(oracle)
        common = {name: there[name] for name in ("availabilityDomain", "compartmentId")}
        card = {**common, "subnetId": subnet_id, "privateIp": "10.0.0.99", "isPrimary": False}
        vnic = oracle.api._add("Vnic", card, "AVAILABLE").fields["id"]
        address = {**common, "subnetId": subnet_id, "vnicId": vnic, "ipAddress": "10.0.0.99", "isPrimary": True}
        oracle.api._add("PrivateIp", address)
        attached = {**common, "instanceId": there["id"], "subnetId": subnet_id, "vnicId": vnic}
        oracle.api._add("VnicAttachment", attached, "ATTACHED")
        assert have(oracle, subnet_id)["private_ip_id"] == made["private_ip_id"]

    def test_from_the_newest_image_of_the_right_kind(self, oracle: Oracle, subnet_id: str) -> None:
        right = next(each for each in oracle.api.all("Image") if "-22.04-aarch64-2026.09.30" in each["displayName"])
        # What the owner made of a machine of theirs is newer, and has the same system and version.
        own = next(each for each in oracle.api.all("Image") if "-22.04-aarch64-2026.08.31" in each["displayName"])
        oracle.api.edit(own["id"], baseImageId=right["id"], timeCreated="2026-11-01T00:00:00.000Z")
        have(oracle, subnet_id)
        assert machines(oracle)[0]["imageId"] == right["id"]

    def test_a_newer_image_is_no_reason_to_touch_it(self, oracle: Oracle, subnet_id: str) -> None:
        made = have(oracle, subnet_id)
        oldest = next(each for each in oracle.api.all("Image") if "-22.04-aarch64-2026.06.30" in each["displayName"])
        oracle.api.edit(oldest["id"], timeCreated="2026-12-01T00:00:00.000Z")
        again = have(oracle, subnet_id)
        assert not again["changed"] and again["instance_id"] == made["instance_id"]

    def test_no_image_is_told(self, oracle: Oracle, subnet_id: str) -> None:
        for image in oracle.api.all("Image"):
            oracle.api.edit(image["id"], operatingSystemVersion="24.04")
        assert "no image of Canonical Ubuntu 22.04" in have(oracle, subnet_id, fails=True)["msg"]

    def test_where_there_is_room(self, oracle: Oracle, subnet_id: str) -> None:
        full(oracle, 1, 2)
        made = have(oracle, subnet_id)
        assert machines(oracle)[0]["availabilityDomain"] == oracle.api.domains[2]
        assert made["domains"] == {
            "EU-FRANKFURT-1-AD-1": "out of capacity",
            "EU-FRANKFURT-1-AD-2": "out of capacity",
        }
        assert "EU-FRANKFURT-1-AD-3" in made["diff"]["after"]

    def test_no_room_anywhere_is_no_failure_and_each_domain_was_asked_once(
        self, oracle: Oracle, subnet_id: str
    ) -> None:
        full(oracle, 1, 2, 3, times=9)
        answer = have(oracle, subnet_id)
        assert answer["out_of_capacity"] and not answer["changed"] and answer["instance_id"] is None
        assert len(answer["domains"]) == 3
        assert [call for call in oracle.api.calls if call[0] == "launch_instance"] == [("launch_instance", 500)] * 3
        assert oracle.api.writes() == []

    def test_what_is_taken_back_at_once_is_no_room(
        self, oracle: Oracle, subnet_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        take_back_the_first(oracle, monkeypatch)
        made = have(oracle, subnet_id)
        assert made["domains"] == {"EU-FRANKFURT-1-AD-1": "out of capacity"}
        assert [each["id"] for each in machines(oracle)] == [made["instance_id"]]

    def test_a_domain_without_the_shape_is_passed_over(self, oracle: Oracle, subnet_id: str) -> None:
        one, two, three = oracle.api.domains
        oracle.api.faults.no_shape = [one]
        made = have(oracle, subnet_id)
        assert machines(oracle)[0]["availabilityDomain"] == two
        assert made["domains"] == {"EU-FRANKFURT-1-AD-1": "no VM.Standard.A1.Flex at all"}
        have(oracle, subnet_id, state="absent")

        oracle.api.faults.no_shape = [one, two, three]
        assert "No availability domain of eu-frankfurt-1 has" in have(oracle, subnet_id, fails=True)["msg"]
        oracle.api.faults.no_shape = [one, two]
        full(oracle, 3)
        assert have(oracle, subnet_id)["out_of_capacity"]

    def test_throttling_is_waited_for(self, oracle: Oracle, subnet_id: str) -> None:
        oracle.api.faults.throttle = 5
        assert have(oracle, subnet_id)["launched"]

    def test_long_throttling_is_told_apart(self, oracle: Oracle, subnet_id: str) -> None:
        oracle.api.faults.throttle = 99
        failure = have(oracle, subnet_id, fails=True)
        assert failure["status"] == 429
        assert "Oracle asks for patience" in failure["msg"]

    def test_a_limit_is_told_at_once(self, oracle: Oracle, subnet_id: str) -> None:
        oracle.api.faults.limit = ["launch_instance"]
        failure = have(oracle, subnet_id, fails=True)
        assert "the account's limit is reached" in failure["msg"]
        assert [call for call in oracle.api.calls if call[0] == "launch_instance"] == [("launch_instance", 400)]

    def test_a_lost_answer_makes_no_twin(self, oracle: Oracle, subnet_id: str) -> None:
        oracle.api.faults.lose_answer = ["launch_instance"]
        made = have(oracle, subnet_id)
        assert [each["id"] for each in machines(oracle)] == [made["instance_id"]]
        assert len([call for call in oracle.api.calls if call[0] == "launch_instance"]) == 2

    def test_after_an_interruption_the_next_run_finds_it(
        self, oracle: Oracle, subnet_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(load("oracle_instance"), "wait_for", interrupted)
            with pytest.raises(KeyboardInterrupt):
                have(oracle, subnet_id)
        assert machines(oracle)[0]["lifecycleState"] == "PROVISIONING"
        again = have(oracle, subnet_id)
        assert not again["changed"] and again["private_ip_id"]
        assert [each["id"] for each in machines(oracle)] == [again["instance_id"]]

    def test_one_that_is_gone_does_not_count(self, oracle: Oracle, subnet_id: str) -> None:
        first = have(oracle, subnet_id)["instance_id"]
        have(oracle, subnet_id, state="absent")
        second = have(oracle, subnet_id)
        assert second["launched"] and second["instance_id"] != first

    def test_one_of_somebody_else_of_the_same_name_is_left_alone(self, oracle: Oracle, subnet_id: str) -> None:
        theirs = somebodys(oracle, subnet_id, display_name=NAME)
        until(oracle, theirs, "RUNNING")
        made = have(oracle, subnet_id)
        assert made["launched"] and made["instance_id"] != theirs
        assert "which this did not make" in made["warnings"][0]
        have(oracle, subnet_id, state="absent")
        assert [each["id"] for each in machines(oracle)] == [theirs]

    def test_two_of_ours_are_told(self, oracle: Oracle, subnet_id: str) -> None:
        one = have(oracle, subnet_id)["instance_id"]
        two = somebodys(oracle, subnet_id, freeform_tags={TAG: NAME})
        failure = have(oracle, subnet_id, fails=True)
        assert one in failure["msg"] and two in failure["msg"] and "Mend:" in failure["msg"]

    @pytest.mark.parametrize("key", ["", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n", "not a key"])
    def test_without_a_login_key_nothing_is_launched(self, oracle: Oracle, subnet_id: str, key: str) -> None:
        for check in (True, False):
            assert (
                "to log in with. Mend:" in have(oracle, subnet_id, ssh_public_key=key, check=check, fails=True)["msg"]
            )
        assert machines(oracle) == []

    def test_a_dry_run_tells_and_does_nothing(self, oracle: Oracle) -> None:
        told = oracle.call("oracle_instance", check=True, subnet_id=None, ssh_public_key=KEY)
        assert told["changed"] and told["instance_id"] is None and told["private_ip_id"] is None
        assert "launch test with 1 OCPU and 2 GB of memory, Canonical-Ubuntu-22.04-aarch64-2026.09.30-0" in told["done"]
        assert told["diff"]["before"] == ""
        assert "memory_gb: 2\n" in told["diff"]["after"]
        assert oracle.api.writes() == []


class TestWhatIsFree:
    @pytest.mark.parametrize(
        ("asked", "told"),
        [
            ({"ocpus": 3, "memory_gb": 3}, "3 OCPU (0 of other instances), where 2 are free"),
            ({"ocpus": 2, "memory_gb": 13}, "13 GB of memory (0 of other instances), where 12 are free"),
            ({"boot_volume_gb": 201}, "201 GB of volumes (0 there already), where 200 are free"),
        ],
    )
    def test_more_has_to_be_allowed(self, oracle: Oracle, subnet_id: str, asked: dict[str, int], told: str) -> None:
        for check in (True, False):
            failure = have(oracle, subnet_id, check=check, fails=True, **asked)
            assert told in failure["msg"] and "oracle_allow_paid: true" in failure["msg"]
        assert oracle.api.writes() == []
        assert have(oracle, subnet_id, allow_paid=True, **asked)["launched"]

    def test_the_others_count_too(self, oracle: Oracle, subnet_id: str) -> None:
        somebodys(oracle, subnet_id)
        failure = have(oracle, subnet_id, ocpus=2, memory_gb=7, boot_volume_gb=160, fails=True)
        assert "3 OCPU (1 of other instances), where 2 are free" in failure["msg"]
        assert "13 GB of memory (6 of other instances), where 12 are free" in failure["msg"]
        assert "207 GB of volumes (47 there already), where 200 are free" in failure["msg"]
        assert have(oracle, subnet_id, ocpus=1, memory_gb=6, boot_volume_gb=153)["launched"]

    def test_a_disk_that_nothing_boots_from_counts_too(self, oracle: Oracle, subnet_id: str) -> None:
        where = {"availabilityDomain": oracle.api.domains[0], "compartmentId": oracle.api.tenancy}
        oracle.api._add("Volume", {**where, "sizeInGBs": 160, "sizeInMBs": 160 * 1024}, "AVAILABLE")
        failure = have(oracle, subnet_id, fails=True)
        assert "210 GB of volumes (160 there already), where 200 are free" in failure["msg"]
        assert machines(oracle) == []

    def test_what_is_in_other_compartments_counts_too(self, oracle: Oracle, subnet_id: str) -> None:
        oracle.api.compartments |= {OTHER, "ocid1.compartment.oc1..empty"}
        somebodys(oracle, subnet_id, compartment_id=OTHER)
        where = {"availabilityDomain": oracle.api.domains[0], "compartmentId": OTHER}
        oracle.api._add("Volume", {**where, "sizeInGBs": 60, "sizeInMBs": 60 * 1024}, "AVAILABLE")
        failure = have(oracle, subnet_id, ocpus=2, memory_gb=7, boot_volume_gb=160, fails=True)
        assert "3 OCPU (1 of other instances), where 2 are free" in failure["msg"]
        assert "13 GB of memory (6 of other instances), where 12 are free" in failure["msg"]
        assert "267 GB of volumes (107 there already), where 200 are free" in failure["msg"]
        assert have(oracle, subnet_id)["warnings"] == []

        oracle.api.calls.clear()
        have(oracle, subnet_id)
        assert {name for name, _ in oracle.api.calls}.isdisjoint({"list_compartments", "list_volumes"})
        assert [name for name, _ in oracle.api.calls].count("list_instances") == 1
        assert "3 OCPU (1 of other" in have(oracle, subnet_id, ocpus=2, fails=True)["msg"]
        assert have(oracle, subnet_id, ocpus=2, allow_paid=True)["changed"]

    def test_what_the_user_may_not_see_is_told_and_not_counted(self, oracle: Oracle, subnet_id: str) -> None:
        oracle.api.compartments.add(OTHER)
        somebodys(oracle, subnet_id)
        oracle.api.closed = {oracle.api.tenancy}
        [warning] = have(oracle, subnet_id, compartment_id=OTHER, ocpus=2)["warnings"]
        assert warning.startswith("What is in the root compartment is not counted")

    def test_others_of_another_shape_do_not(self, oracle: Oracle, subnet_id: str) -> None:
        image = next(each for each in oracle.api.all("Image") if "aarch64" not in each["displayName"])
        from oci.core import models

        somebodys(
            oracle,
            subnet_id,
            shape="VM.Standard.E2.1.Micro",
            shape_config=None,
            source_details=models.InstanceSourceViaImageDetails(image_id=image["id"]),
        )
        assert have(oracle, subnet_id, ocpus=2, memory_gb=12)["launched"]

    def test_nothing_is_free_outside_of_the_home_region(self, oracle: Oracle, subnet_id: str) -> None:
        oracle.api.home_region = "us-ashburn-1"
        failure = have(oracle, subnet_id, fails=True)
        assert "eu-frankfurt-1, where only the home region us-ashburn-1 has free ones" in failure["msg"]
        assert have(oracle, subnet_id, allow_paid=True)["launched"]

    def test_what_is_there_and_became_too_much_is_warned_of(self, oracle: Oracle, subnet_id: str) -> None:
        have(oracle, subnet_id, ocpus=4, memory_gb=24, allow_paid=True)
        again = have(oracle, subnet_id, ocpus=4, memory_gb=24)
        assert not again["changed"]
        assert "4 OCPU (0 of other instances), where 2 are free" in again["warnings"][0]
        assert have(oracle, subnet_id, ocpus=4, memory_gb=24, allow_paid=True)["warnings"] == []


class TestWhatIsThere:
    def test_another_size_is_a_restart_and_is_said_so(self, oracle: Oracle, subnet_id: str) -> None:
        made = have(oracle, subnet_id)
        oracle.api.calls.clear()
        told = have(oracle, subnet_id, memory_gb=4, check=True)
        assert told["changed"] and oracle.api.writes() == []
        for result in (told, have(oracle, subnet_id, memory_gb=4)):
            assert result["done"] == ["resize test to 1 OCPU and 4 GB of memory"]
            assert result["warnings"] == ["Another size restarts test."]
            assert "memory_gb: 2\n" in result["diff"]["before"] and "memory_gb: 4\n" in result["diff"]["after"]
            assert result["instance_id"] == made["instance_id"]
        (machine,) = machines(oracle)
        assert (machine["shapeConfig"]["memoryInGBs"], machine["lifecycleState"]) == (4, "RUNNING")
        assert not have(oracle, subnet_id, memory_gb=4)["changed"]

    def test_the_restart_may_come_after_the_answer(
        self, oracle: Oracle, subnet_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.standins import oracle_api

        have(oracle, subnet_id)
        (described, update), (looked, get) = (oracle_api.ROUTES[name] for name in ("update_instance", "get_instance"))
        asked: list[Any] = []
        looks = itertools.count()

        def first_answer(api: Any, call: Any) -> Any:
            asked.append(call)
            return get(api, call)

        def then_do_it(api: Any, call: Any) -> Any:
            if asked and next(looks) == 2:
                update(api, asked[0])
            return get(api, call)

        monkeypatch.setitem(oracle_api.ROUTES, "update_instance", (described, first_answer))
        monkeypatch.setitem(oracle_api.ROUTES, "get_instance", (looked, then_do_it))
        have(oracle, subnet_id, memory_gb=4)
        (machine,) = machines(oracle)
        assert (machine["shapeConfig"]["memoryInGBs"], machine["lifecycleState"]) == (4, "RUNNING")

    def test_a_size_that_costs_is_refused(self, oracle: Oracle, subnet_id: str) -> None:
        have(oracle, subnet_id)
        oracle.api.calls.clear()
        assert "oracle_allow_paid" in have(oracle, subnet_id, memory_gb=16, fails=True)["msg"]
        assert oracle.api.writes() == []

    def test_less_is_not_refused_though_it_is_still_too_much(self, oracle: Oracle, subnet_id: str) -> None:
        somebodys(oracle, subnet_id)
        have(oracle, subnet_id, ocpus=4, memory_gb=24, allow_paid=True)
        smaller = have(oracle, subnet_id, ocpus=2, memory_gb=12)
        assert smaller["changed"] and any("Oracle may end" in warning for warning in smaller["warnings"])

    def test_no_room_for_another_size(self, oracle: Oracle, subnet_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from tests.standins import oracle_api

        have(oracle, subnet_id)

        def refuse(api: Any, call: Any) -> Any:
            raise oracle_api.Refusal(500, "InternalError", "Out of host capacity.")

        described = oracle_api.ROUTES["update_instance"][0]
        monkeypatch.setitem(oracle_api.ROUTES, "update_instance", (described, refuse))
        assert "no room for test with 2 OCPU" in have(oracle, subnet_id, ocpus=2, fails=True)["msg"]

    def test_a_stopped_one_is_started(self, oracle: Oracle, subnet_id: str) -> None:
        made = have(oracle, subnet_id)
        oracle.client("compute").instance_action(made["instance_id"], "STOP")
        until(oracle, made["instance_id"], "STOPPED")
        told = have(oracle, subnet_id, check=True)
        assert told["changed"] and oracle.api.writes() == []
        result = have(oracle, subnet_id)
        assert result["done"] == told["done"] == ["start test"]
        assert "state: stopped" in result["diff"]["before"] and "state: running" in result["diff"]["after"]
        assert machines(oracle)[0]["lifecycleState"] == "RUNNING"
        assert not have(oracle, subnet_id)["changed"]

    def test_there_may_be_no_room_to_start_it(self, oracle: Oracle, subnet_id: str) -> None:
        made = have(oracle, subnet_id)
        oracle.client("compute").instance_action(made["instance_id"], "STOP")
        until(oracle, made["instance_id"], "STOPPED")
        oracle.api.faults.out_of_capacity = {oracle.api.domains[0]: 1}
        full = have(oracle, subnet_id)
        assert full["out_of_capacity"] and not full["changed"]
        assert full["domains"] == {"EU-FRANKFURT-1-AD-1": "out of capacity"}
        assert have(oracle, subnet_id)["done"] == ["start test"]

    def test_one_that_is_being_stopped_is_started_then(self, oracle: Oracle, subnet_id: str) -> None:
        made = have(oracle, subnet_id)
        oracle.client("compute").instance_action(made["instance_id"], "STOP")
        assert machines(oracle)[0]["lifecycleState"] == "STOPPING"
        assert have(oracle, subnet_id, memory_gb=3)["done"] == [
            "resize test to 1 OCPU and 3 GB of memory",
            "start test",
        ]
        assert machines(oracle)[0]["lifecycleState"] == "RUNNING"

    def test_one_that_oracle_took_back_since_is_launched_anew(
        self, oracle: Oracle, subnet_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        take_back_the_first(oracle, monkeypatch)
        first = somebodys(oracle, subnet_id, freeform_tags={TAG: NAME})
        made = have(oracle, subnet_id)
        assert made["launched"] and made["instance_id"] != first

    def test_its_network_card_may_come_after_it(
        self, oracle: Oracle, subnet_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.standins import oracle_api

        described, looked = oracle_api.ROUTES["list_vnic_attachments"]
        looks = itertools.count()

        def late(api: Any, call: Any) -> Any:
            return looked(api, call) if next(looks) >= 3 else []

        monkeypatch.setitem(oracle_api.ROUTES, "list_vnic_attachments", (described, late))
        assert have(oracle, subnet_id)["private_ip_id"] == oracle.api.all("PrivateIp")[0]["id"]

        monkeypatch.setitem(oracle_api.ROUTES, "list_vnic_attachments", (described, lambda *_: []))
        monkeypatch.setattr(load("oracle_instance"), "CARD_PATIENCE", 0.05, raising=False)
        assert "test is still without a private address after" in have(oracle, subnet_id, fails=True)["msg"]
        assert have(oracle, subnet_id, check=True)["private_ip_id"] is None


class TestKnown:
    """What the last run wrote down is another machine than the one of the settings now."""

    @pytest.mark.parametrize("state", ["present", "absent"])
    @pytest.mark.parametrize("check", [True, False])
    @pytest.mark.parametrize("moved", [{"name": "new"}, {"compartment_id": OTHER}])
    def test_one_that_lives_on_is_not_forgotten(
        self, oracle: Oracle, subnet_id: str, state: str, check: bool, moved: dict[str, str]
    ) -> None:
        oracle.api.compartments.add(OTHER)
        known = have(oracle, subnet_id)["instance_id"]
        oracle.api.calls.clear()
        failure = have(oracle, subnet_id, state=state, check=check, fails=True, known_id=known, **moved)
        assert f"{known}, lives on: {TAG}={NAME} in {oracle.api.tenancy}." in failure["msg"]
        assert f"{TAG}={moved.get('name', NAME)} in {moved.get('compartment_id', oracle.api.tenancy)}" in failure["msg"]
        assert "Mend: set oracle_instance_name and oracle_compartment_id back" in failure["msg"]
        assert oracle.api.writes() == []

    def test_the_one_that_is_known_is_not_asked_for_again(self, oracle: Oracle, subnet_id: str) -> None:
        known = have(oracle, subnet_id)["instance_id"]
        without = calls_of(oracle, subnet_id)
        assert calls_of(oracle, subnet_id, known_id=known) == without

    @pytest.mark.parametrize("forgotten", [True, False])
    def test_one_that_is_gone_is_made_anew(self, oracle: Oracle, subnet_id: str, forgotten: bool) -> None:
        known = have(oracle, subnet_id)["instance_id"]
        have(oracle, subnet_id, state="absent", known_id=known)
        if forgotten:
            del oracle.api.resources[known]
        gone = have(oracle, subnet_id, state="absent", known_id=known)
        again = have(oracle, subnet_id, known_id=known)
        assert again["launched"] and again["instance_id"] != known
        for result in (gone, again):
            told = [f"Oracle does not know {known} any more" in warning for warning in result["warnings"]]
            assert told == ([True] if forgotten else [])


def calls_of(oracle: Oracle, subnet_id: str, **params: Any) -> list[str]:
    oracle.api.calls.clear()
    have(oracle, subnet_id, **params)
    return [name for name, _ in oracle.api.calls]


class TestAbsent:
    def test_it_goes_with_its_disk(self, oracle: Oracle, subnet_id: str) -> None:
        ocid = have(oracle, subnet_id)["instance_id"]
        oracle.api.calls.clear()
        told = have(oracle, subnet_id, state="absent", check=True)
        assert oracle.api.writes() == []
        gone = have(oracle, subnet_id, state="absent")
        assert told["done"] == gone["done"] == [f"instance test ({ocid}), with its boot volume"]
        assert told["changed"] and gone["changed"] and gone["diff"]["after"] == ""
        assert machines(oracle) == oracle.api.all("BootVolume") == []

    def test_a_lost_answer_is_no_failure(self, oracle: Oracle, subnet_id: str) -> None:
        have(oracle, subnet_id)
        oracle.api.faults.lose_answer = ["terminate_instance"]
        assert have(oracle, subnet_id, state="absent")["changed"]
        assert ("terminate_instance", 404) in oracle.api.calls
        assert machines(oracle) == []

    def test_nothing_there_is_nothing_to_do(self, oracle: Oracle, subnet_id: str) -> None:
        theirs = somebodys(oracle, subnet_id, freeform_tags={TAG: "another"})
        gone = have(oracle, subnet_id, state="absent")
        assert not gone["changed"] and gone["done"] == []
        assert [each["id"] for each in machines(oracle)] == [theirs]

    def test_one_that_is_going_already_is_waited_for(self, oracle: Oracle, subnet_id: str) -> None:
        ocid = have(oracle, subnet_id)["instance_id"]
        oracle.client("compute").terminate_instance(ocid)
        gone = have(oracle, subnet_id, state="absent")
        assert not gone["changed"]
        assert machines(oracle) == []


def action_plugin() -> ModuleType:
    path = ROLES / "oracle_instance/action_plugins/oracle_instance.py"
    spec = importlib.util.spec_from_file_location("action_oracle_instance", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


action = action_plugin()
FULL = {
    "out_of_capacity": True,
    "domains": {"AD-1": "out of capacity", "AD-2": "no A1 at all", "AD-3": "out of capacity"},
}
MADE = {"changed": True, "instance_id": "ocid1.x", "out_of_capacity": False}
THROTTLED = {"failed": True, "status": 429, "msg": "Oracle answered 429"}
CUT_OFF = {"failed": True, "status": 0, "msg": "Oracle cannot be reached"}


class Evening:
    """What the action sees of the world: the module's answers, a clock that its sleep turns on, the screen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.screen: list[str] = []
        self.asked: list[dict[str, Any]] = []
        monkeypatch.setattr(action, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))
        monkeypatch.setattr(action, "Display", lambda: SimpleNamespace(display=self.screen.append))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, answers: Iterator[dict[str, Any]], patience: float) -> dict[str, Any]:
        plugin = action.ActionModule.__new__(action.ActionModule)
        plugin._task = SimpleNamespace(
            args={"name": "vm", "capacity_patience": patience}, async_val=0, check_mode=False
        )

        def execute(module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
            assert module_name == "oracle_instance"
            self.asked.append(module_args)
            return dict(next(answers))

        plugin._execute_module = execute
        plugin._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
        result: dict[str, Any] = plugin.run(None, {})
        return result


@pytest.fixture
def evening(monkeypatch: pytest.MonkeyPatch) -> Evening:
    return Evening(monkeypatch)


class TestPatience:
    def test_it_asks_until_there_is_room(self, evening: Evening) -> None:
        result = evening.run(iter([FULL, FULL, THROTTLED, CUT_OFF, MADE]), 86400)
        assert result["instance_id"] == "ocid1.x" and not result.get("failed")
        assert evening.asked == [{"name": "vm"}] * 5
        first, second, third, fourth = evening.screen
        assert first.startswith("vm: out of capacity: AD-1, AD-3; no A1 at all: AD-2. Try 2 at ")
        assert "patience for 24 h 0 min." in first and "patience for 23 h 5" in second
        assert "Oracle answered 429" in third and "Oracle cannot be reached" in fourth

    def test_throttling_is_waited_for_from_the_first_try_on(self, evening: Evening) -> None:
        assert evening.run(iter([THROTTLED, MADE]), 86400)["instance_id"] == "ocid1.x"
        assert 1060 <= evening.now <= 1090

    def test_an_answer_at_once_needs_no_words(self, evening: Evening) -> None:
        evening.run(iter([MADE]), 86400)
        assert evening.screen == [] and evening.now == 1000

    def test_it_ends_with_its_patience_and_a_mend(self, evening: Evening) -> None:
        result = evening.run(itertools.repeat(FULL), 3600)
        assert result["failed"]
        assert evening.now == 1000 + 3600
        assert (
            "Oracle had no room for vm at " in result["msg"] and "in 1 h 0 min. The last time: out of" in result["msg"]
        )
        assert "Mend:" in result["msg"] and "oracle_instance_patience_hours" in result["msg"]
        assert len(evening.asked) == len(evening.screen) + 1
        assert 6 <= len(evening.asked) <= 12

    def test_without_patience_it_asks_once(self, evening: Evening) -> None:
        assert evening.run(itertools.repeat(FULL), 0)["failed"]
        assert len(evening.asked) == 1

    @pytest.mark.parametrize("answers", [[CUT_OFF], [{"failed": True, "status": 400, "msg": "LimitExceeded"}]])
    def test_what_is_no_lack_of_room_is_told_at_once(self, evening: Evening, answers: list[dict[str, Any]]) -> None:
        result = evening.run(iter(answers), 86400)
        assert result["failed"] and result["msg"] == answers[0]["msg"]
        assert evening.screen == []

    def test_a_failure_that_does_not_pass_ends_it(self, evening: Evening) -> None:
        result = evening.run(iter([FULL, {"failed": True, "status": 401, "msg": "the key is not accepted"}]), 86400)
        assert result["failed"] and result["msg"] == "the key is not accepted"

    def test_the_pauses_grow_to_a_limit_and_never_below_a_minute(self) -> None:
        assert [action.pause(tries, 0) for tries in range(1, 8)] == [60, 120, 240, 480, 600, 600, 600]
        assert [action.pause(tries, 1) for tries in (1, 5000)] == [90, 900]


def instance_module() -> Any:
    return load("oracle_instance")


@pytest.mark.parametrize(
    ("status", "message", "is_full", "lacks_shape"),
    [
        (500, "Out of host capacity.", True, False),
        (500, "Out of capacity for shape VM.Standard.A1.Flex in availability domain AD-1.", True, False),
        (500, "Internal error", False, False),
        (429, "Too many requests", False, False),
        (400, "The following service limits were exceeded: out of host capacity quota", False, False),
        (404, "shape VM.Standard.A1.Flex not found", False, True),
        (404, "Authorization failed or requested resource not found.", False, False),
    ],
)
def test_what_an_error_of_a_launch_means(status: int, message: str, is_full: bool, lacks_shape: bool) -> None:
    error = SimpleNamespace(status=status, message=message)
    assert (instance_module().is_full(error), instance_module().lacks_shape(error)) == (is_full, lacks_shape)


@pytest.mark.parametrize(("region", "away"), [("eu-frankfurt-1", False), ("FRA", False), ("us-ashburn-1", True)])
def test_the_home_region_by_its_name_or_its_key(region: str, away: bool) -> None:
    home = SimpleNamespace(is_home_region=True, region_name="eu-frankfurt-1", region_key="FRA")
    other = SimpleNamespace(is_home_region=False, region_name="us-ashburn-1", region_key="IAD")
    assert bool(instance_module().away(region, [other, home])) is away
