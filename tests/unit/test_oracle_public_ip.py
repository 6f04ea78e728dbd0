"""The module oracle_public_ip against the stand-in of Oracle's API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.oracle_kit import NAME, Oracle
from tests.unit.test_oracle_instance import TAG, have, subnet_id

__all__ = ["subnet_id"]  # a fixture


@pytest.fixture
def private_ip_id(oracle: Oracle, subnet_id: str) -> str:
    ocid = have(oracle, subnet_id)["private_ip_id"]
    oracle.api.calls.clear()
    return str(ocid)


def address(oracle: Oracle, private_ip_id: str | None, **params: Any) -> dict[str, Any]:
    return oracle.call("oracle_public_ip", private_ip_id=private_ip_id, **params)


def public(oracle: Oracle) -> list[dict[str, Any]]:
    return oracle.api.all("PublicIp")


def reserve(oracle: Oracle, **more: Any) -> str:
    """Somebody reserves an address."""
    from oci.core import models

    details = models.CreatePublicIpDetails(compartment_id=oracle.api.tenancy, lifetime="RESERVED", **more)
    ocid = oracle.client("network").create_public_ip(details).data.id
    oracle.api.calls.clear()
    return str(ocid)


@pytest.mark.parametrize("lifetime", ["RESERVED", "EPHEMERAL"])
def test_it_is_made_and_the_second_run_changes_nothing(oracle: Oracle, private_ip_id: str, lifetime: str) -> None:
    told = address(oracle, private_ip_id, lifetime=lifetime, check=True)
    assert told["changed"] and told["address"] is None and oracle.api.writes() == []
    made = address(oracle, private_ip_id, lifetime=lifetime)
    (there,) = public(oracle)
    assert made["changed"] and made["address"] == there["ipAddress"]
    assert (there["lifetime"], there["lifecycleState"]) == (lifetime, "ASSIGNED")
    assert (there["privateIpId"], there["freeformTags"]) == (private_ip_id, {TAG: NAME})
    assert made["diff"] == {"before": "", "after": f"public address {made['address']}, {lifetime.lower()}\n"}

    oracle.api.calls.clear()
    again = address(oracle, private_ip_id, lifetime=lifetime)
    assert not again["changed"] and again["address"] == made["address"]
    assert again["diff"]["before"] == again["diff"]["after"]
    assert oracle.api.writes() == []


def test_a_reserved_one_survives_a_new_instance(oracle: Oracle, subnet_id: str) -> None:
    first = address(oracle, have(oracle, subnet_id)["private_ip_id"])["address"]
    have(oracle, subnet_id, state="absent")
    private_ip_id = have(oracle, subnet_id)["private_ip_id"]
    told = address(oracle, private_ip_id, check=True)
    moved = address(oracle, private_ip_id)
    assert told["done"] == moved["done"] == [f"assign {first} to test"]
    assert told["address"] == moved["address"] == first
    (there,) = public(oracle)
    assert there["privateIpId"] == private_ip_id


def test_it_is_taken_from_where_it_is(oracle: Oracle, private_ip_id: str, subnet_id: str) -> None:
    """The instance was made anew by hand, and both are still there."""
    kept = address(oracle, private_ip_id)["address"]
    other = have(oracle, subnet_id, name="other")["private_ip_id"]
    assert address(oracle, other)["address"] == kept
    assert address(oracle, other)["done"] == []


@pytest.mark.parametrize(("before", "after"), [("RESERVED", "EPHEMERAL"), ("EPHEMERAL", "RESERVED")])
def test_switching_leaves_nothing_behind(oracle: Oracle, private_ip_id: str, before: str, after: str) -> None:
    first = address(oracle, private_ip_id, lifetime=before)["address"]
    oracle.api.calls.clear()
    told = address(oracle, private_ip_id, lifetime=after, check=True)
    assert oracle.api.writes() == [] and len(told["done"]) == 2
    second = address(oracle, private_ip_id, lifetime=after)
    assert second["done"][0] == f"give back the {before.lower()} address {first} of test"
    assert second["diff"]["before"] == f"public address {first}, {before.lower()}\n"
    (there,) = public(oracle)
    assert (there["lifetime"], there["ipAddress"]) == (after, second["address"])
    assert not address(oracle, private_ip_id, lifetime=after)["changed"]


def test_a_reserved_one_that_waits_is_given_back_when_an_ephemeral_one_is_asked_for(
    oracle: Oracle, private_ip_id: str
) -> None:
    theirs = reserve(oracle)
    for _ in ("before there is one", "beside one"):
        waits = reserve(oracle, freeform_tags={TAG: NAME})
        address(oracle, private_ip_id, lifetime="EPHEMERAL")
        left = {each["id"] for each in public(oracle)}
        assert waits not in left and theirs in left and len(left) == 2


@pytest.mark.parametrize("lifetime", ["RESERVED", "EPHEMERAL"])
def test_one_that_the_owner_assigned_stays(oracle: Oracle, private_ip_id: str, lifetime: str) -> None:
    theirs = reserve(oracle, private_ip_id=private_ip_id)
    result = address(oracle, private_ip_id, lifetime=lifetime)
    assert not result["changed"]
    assert [(each["id"], each["ipAddress"]) for each in public(oracle)] == [(theirs, result["address"])]
    assert not address(oracle, private_ip_id, state="absent")["changed"]
    assert len(public(oracle)) == 1


def test_a_lost_answer_makes_no_second_one(oracle: Oracle, private_ip_id: str) -> None:
    oracle.api.faults.lose_answer = ["create_public_ip"]
    address(oracle, private_ip_id)
    assert len(public(oracle)) == 1


def test_no_further_reserved_one_is_told_with_the_way_out(oracle: Oracle, private_ip_id: str) -> None:
    oracle.api.faults.limit = ["create_public_ip"]
    assert "oracle_instance_reserved_ip: false" in address(oracle, private_ip_id, fails=True)["msg"]
    oracle.api.faults.limit = ["create_public_ip"]
    told = address(oracle, private_ip_id, lifetime="EPHEMERAL", fails=True)["msg"]
    assert "of this test. Mend: the account's limit is reached (Governance, Limits)" in told


def test_without_a_further_reserved_one_the_machine_keeps_the_address_that_it_has(
    oracle: Oracle, private_ip_id: str
) -> None:
    kept = address(oracle, private_ip_id, lifetime="EPHEMERAL")["address"]
    oracle.api.faults.limit = ["create_public_ip"]
    assert "oracle_instance_reserved_ip: false" in address(oracle, private_ip_id, fails=True)["msg"]
    assert [each["ipAddress"] for each in public(oracle)] == [kept]


def test_a_dry_run_without_an_instance(oracle: Oracle) -> None:
    told = address(oracle, None, check=True)
    assert told["changed"] and told["address"] is None
    assert told["done"] == ["get test a public address, reserved"]
    assert told["diff"]["after"] == "public address, reserved\n"
    assert public(oracle) == []


def test_absent_gives_ours_back_and_no_other(oracle: Oracle, private_ip_id: str) -> None:
    ours = address(oracle, private_ip_id)["address"]
    theirs = reserve(oracle, freeform_tags={TAG: "another"})
    oracle.api.calls.clear()
    told = address(oracle, None, state="absent", check=True)
    assert oracle.api.writes() == []
    gone = address(oracle, None, state="absent")
    assert told["done"] == gone["done"] == [f"reserved address {ours}"]
    assert gone["diff"]["after"] == ""
    assert [each["id"] for each in public(oracle)] == [theirs]
    assert not address(oracle, None, state="absent")["changed"]


def test_a_lost_answer_to_its_removal_is_no_failure(oracle: Oracle, private_ip_id: str) -> None:
    address(oracle, private_ip_id)
    oracle.api.faults.lose_answer = ["delete_public_ip"]
    assert address(oracle, None, state="absent")["changed"]
    assert public(oracle) == []
