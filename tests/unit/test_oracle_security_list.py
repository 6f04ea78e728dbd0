"""The rules of a security list: what is decided, and what becomes of a real one at the stand-in of Oracle's API."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oci.core import models

from tests import ansible_module
from tests.unit.oracle_kit import NAME, Oracle, oracle

__all__ = ["oracle"]  # a fixture

module = ansible_module.load("oracle_network", "oracle_security_list")

HOME, OFFICE, OLD, SIX = "203.0.113.7/32", "198.51.100.0/24", "192.0.2.1/32", "2001:db8::/56"
VCN = "10.0.0.0/16"


def ports(low: int, high: int) -> Any:
    return models.TcpOptions(destination_port_range=models.PortRange(min=low, max=high))


def tcp(source: str, low: int, high: int, description: str | None = None) -> Any:
    return models.IngressSecurityRule(
        protocol="6", source=source, tcp_options=ports(low, high), description=description
    )


def admits_ssh(rules: Iterable[Any]) -> set[str]:
    """Whom the rules let open a connection to port 22, found out by another way than the module's."""
    found = set()
    for rule in rules:
        span = rule.tcp_options.destination_port_range if rule.tcp_options else None
        if rule.protocol in ("6", "all") and (span is None or 22 in range(span.min, span.max + 1)):
            found.add(str(ipaddress.ip_network(rule.source)))
    return found


def lets_big_packets_be_told(rules: Iterable[Any]) -> bool:
    return any(
        rule.protocol == "1"
        and rule.source == "0.0.0.0/0"
        and rule.icmp_options in (None, models.IcmpOptions(type=3, code=4))
        for rule in rules
    )


SOURCES = st.sampled_from([HOME, OFFICE, OLD, SIX, "0.0.0.0/0", "::/0", VCN])
DESCRIPTIONS = st.sampled_from([None, "", "of somebody else", f"{module.OURS}SSH", f"{module.OURS}of an older version"])
STATELESS = st.sampled_from([None, False, True])
TCP_OPTIONS = st.none() | st.builds(
    lambda low, more, source: models.TcpOptions(
        destination_port_range=models.PortRange(min=low, max=low + more), source_port_range=source
    ),
    st.sampled_from([21, 22, 443]),
    st.sampled_from([0, 1, 1000]),
    st.none() | st.just(models.PortRange(min=1024, max=65535)),
)
RULES = st.one_of(
    st.builds(
        models.IngressSecurityRule,
        protocol=st.just("6"),
        source=SOURCES,
        source_type=st.sampled_from([None, "CIDR_BLOCK"]),
        tcp_options=TCP_OPTIONS,
        is_stateless=STATELESS,
        description=DESCRIPTIONS,
    ),
    st.builds(
        models.IngressSecurityRule,
        protocol=st.just("1"),
        source=SOURCES,
        icmp_options=st.none()
        | st.builds(models.IcmpOptions, type=st.sampled_from([3, 8]), code=st.sampled_from([None, 4])),
        is_stateless=STATELESS,
        description=DESCRIPTIONS,
    ),
    st.builds(
        models.IngressSecurityRule,
        protocol=st.sampled_from(["all", "17", "47"]),
        source=SOURCES,
        description=DESCRIPTIONS,
    ),
)
THERE = st.lists(RULES, max_size=8)
SSH_FROM = st.lists(SOURCES, min_size=1, max_size=3)


def without_description(rule: Any) -> tuple[Any, ...]:
    """What has to survive of a rule of somebody else, field by field."""
    return (rule.protocol, rule.source, repr(rule.tcp_options), repr(rule.icmp_options), bool(rule.is_stateless))


class TestMerge:
    @settings(max_examples=200, deadline=None)
    @given(THERE, SSH_FROM, st.booleans())
    def test_whatever_was_there(self, there: list[Any], ssh_from: list[str], purge: bool) -> None:
        ours, _ = module.wanted(ssh_from, VCN)
        result = module.merged(there, ours, purge)

        assert module.merged(result, ours, purge) == result
        assert lets_big_packets_be_told(result)
        # Each of ours is there once, whatever it was called before.
        meanings = [module.meaning(rule) for rule in result]
        assert all(meanings.count(module.meaning(rule)) == 1 for rule in ours)
        # What is described as ours is what is asked for now.
        assert {module.meaning(rule) for rule in result if module.is_ours(rule)} == {module.meaning(r) for r in ours}

        foreign = [rule for rule in there if not module.is_ours(rule)]
        allowed = set(ssh_from) | (set() if purge else admits_ssh(foreign))
        assert admits_ssh(result) == allowed
        if purge:
            assert len(result) == len(ours)
        else:
            assert {without_description(rule) for rule in foreign} <= {without_description(rule) for rule in result}
            # And untouched, but for those that became ours.
            kept = [rule for rule in foreign if module.meaning(rule) not in map(module.meaning, ours)]
            assert [rule for rule in result if not module.is_ours(rule)] == kept

    def test_the_order_is_kept_so_that_a_second_run_finds_no_difference(self) -> None:
        ours, _ = module.wanted([HOME], VCN)
        foreign = [tcp(OFFICE, 443, 443), tcp(OFFICE, 8443, 8443)]
        there = [foreign[0], ours[2], foreign[1], ours[0], ours[1]]
        assert module.merged(there, ours, purge=False) == there

    def test_two_that_say_what_ours_does_become_one(self) -> None:
        ours, _ = module.wanted([HOME], VCN)
        assert module.merged([tcp(HOME, 22, 22, "a"), tcp(HOME, 22, 22, "b")], ours, purge=False) == ours

    def test_a_service_of_oracles_is_no_network(self) -> None:
        service = models.IngressSecurityRule(
            protocol="6", source="all-fra-services-in-oracle-services-network", source_type="SERVICE_CIDR_BLOCK"
        )
        assert module.spelled(service) == "in: TCP from all-fra-services-in-oracle-services-network"
        assert module.warnings([service]) == []


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (tcp(HOME, 22, 22, "x"), f"in: TCP 22 from {HOME}  # x"),
        (tcp(OFFICE, 80, 443), f"in: TCP 80-443 from {OFFICE}"),
        (
            models.IngressSecurityRule(protocol="1", source=VCN, icmp_options=models.IcmpOptions(type=3, code=0)),
            f"in: ICMP 3/0 from {VCN}",
        ),
        (
            models.IngressSecurityRule(
                protocol="17",
                source=VCN,
                is_stateless=True,
                udp_options=models.UdpOptions(source_port_range=models.PortRange(min=53, max=53)),
            ),
            f"in: UDP from {VCN} port 53 stateless",
        ),
        (models.EgressSecurityRule(protocol="47", destination=VCN), f"out: protocol 47 to {VCN}"),
    ],
)
def test_a_rule_in_words(rule: Any, line: str) -> None:
    assert module.spelled(rule) == line


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (tcp("0.0.0.0/0", 22, 22, f"{module.OURS}SSH"), "0.0.0.0/0 in oracle_ssh_from"),
        (tcp("::/0", 22, 22, f"{module.OURS}SSH"), "::/0 in oracle_ssh_from"),
        (tcp("0.0.0.0/0", 1, 1024), "that is not ours"),
        (models.IngressSecurityRule(protocol="all", source="::/0"), "that is not ours"),
        (models.IngressSecurityRule(protocol="6", source="0.0.0.0/0"), "that is not ours"),
        (tcp("0.0.0.0/0", 80, 443), ""),
        (tcp(OFFICE, 22, 22), ""),
        (models.IngressSecurityRule(protocol="17", source="0.0.0.0/0"), ""),
        (models.EgressSecurityRule(protocol="all", destination="0.0.0.0/0"), ""),
    ],
)
def test_ssh_for_the_whole_internet_is_warned_of(rule: Any, told: str) -> None:
    warnings = module.warnings([rule])
    assert len(warnings) == bool(told)
    assert told in "".join(warnings)


class Rules:
    """A network of ours at the stand-in, and its security list."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        made = oracle.call("oracle_network", vcn_cidr=VCN, subnet_cidr="10.0.0.0/24")
        self.id = made["security_list_id"]

    def call(self, ssh_from: list[str], **params: Any) -> dict[str, Any]:
        given = {"security_list_id": self.id, "vcn_cidr": VCN, **params}
        return self.oracle.call("oracle_security_list", ssh_from=ssh_from, **given)

    @property
    def there(self) -> dict[str, Any]:
        (found,) = (one for one in self.oracle.api.all("SecurityList") if one["id"] == self.id)
        return found

    def add(self, **rule: Any) -> None:
        """Somebody else adds a rule in the console."""
        rules = [*self.there["ingressSecurityRules"], {"isStateless": False, "sourceType": "CIDR_BLOCK", **rule}]
        self.oracle.api.edit(self.id, ingressSecurityRules=rules)

    def ssh(self) -> list[str]:
        return [
            rule["source"]
            for rule in self.there["ingressSecurityRules"]
            if (rule.get("tcpOptions") or {}).get("destinationPortRange") == {"min": 22, "max": 22}
        ]


@pytest.fixture
def rules(oracle: Oracle) -> Rules:
    return Rules(oracle)


SSH = {"protocol": "6", "tcpOptions": {"destinationPortRange": {"min": 22, "max": 22}}}
WEB = {"protocol": "6", "source": "0.0.0.0/0", "tcpOptions": {"destinationPortRange": {"min": 443, "max": 443}}}


class TestAtOracle:
    def test_is_filled_once(self, rules: Rules) -> None:
        result = rules.call(["203.0.113.7", OFFICE, SIX, "203.0.113.7/32"])
        assert result["changed"]
        assert result["diff"]["before"] == ""
        assert result["diff"]["after"].splitlines() == [
            f"in: TCP 22 from {HOME}  # personal-ai-employee: SSH",
            f"in: TCP 22 from {OFFICE}  # personal-ai-employee: SSH",
            f"in: TCP 22 from {SIX}  # personal-ai-employee: SSH",
            "in: ICMP 3/4 from 0.0.0.0/0  # personal-ai-employee: packet too big",
            f"in: ICMP 3 from {VCN}  # personal-ai-employee: cannot be reached",
            "out: everything to 0.0.0.0/0  # personal-ai-employee: everything out",
        ]
        assert rules.ssh() == [HOME, OFFICE, SIX]
        assert result["warnings"] == []
        again = rules.call(["203.0.113.7/32", OFFICE, SIX])
        assert not again["changed"]
        assert again["done"] == []
        assert rules.oracle.api.writes().count("update_security_list") == 1

    def test_a_dry_run_writes_nothing(self, rules: Rules) -> None:
        rules.add(**WEB)
        before = rules.there
        result = rules.call([HOME], purge=True, check=True)
        assert rules.there == before
        assert "removed in: TCP 443 from 0.0.0.0/0" in result["done"]
        assert f"added in: TCP 22 from {HOME}  # personal-ai-employee: SSH" in result["done"]

    def test_a_dry_run_on_a_list_that_is_not_made_yet(self, rules: Rules) -> None:
        for missing in ("", None):
            result = rules.call([HOME], security_list_id=missing, check=True)
            assert result["changed"]
            assert len(result["done"]) == 4

    def test_another_address_takes_the_place_of_the_old_one(self, rules: Rules) -> None:
        rules.call([OLD])
        rules.add(**WEB, description="of somebody else")
        result = rules.call([HOME])
        assert rules.ssh() == [HOME]
        assert result["done"] == [
            f"added in: TCP 22 from {HOME}  # personal-ai-employee: SSH",
            f"removed in: TCP 22 from {OLD}  # personal-ai-employee: SSH",
        ]
        assert "of somebody else" in result["diff"]["after"]

    def test_a_rule_that_somebody_took_away_or_changed_comes_back(self, rules: Rules) -> None:
        rules.call([HOME])
        wanted = rules.there["ingressSecurityRules"]
        rules.oracle.api.edit(rules.id, ingressSecurityRules=wanted[1:], egressSecurityRules=[])
        assert len(rules.call([HOME])["done"]) == 2
        assert rules.there["egressSecurityRules"][0]["protocol"] == "all"
        rules.oracle.api.edit(rules.id, ingressSecurityRules=[{**rule, "isStateless": True} for rule in wanted])
        assert rules.call([HOME])["changed"]
        assert [rule["isStateless"] for rule in rules.there["ingressSecurityRules"]] == [False] * 3

    def test_rules_of_others_stay_until_purging_is_asked_for(self, rules: Rules) -> None:
        rules.call([HOME])
        theirs = {**WEB, "description": "the web", "sourceType": "CIDR_BLOCK", "isStateless": False}
        rules.add(**theirs)
        assert not rules.call([HOME])["changed"]
        assert theirs in rules.there["ingressSecurityRules"]
        result = rules.call([HOME], purge=True)
        assert result["done"] == ["removed in: TCP 443 from 0.0.0.0/0  # the web"]
        told = [
            (rule["protocol"], rule["source"], rule.get("icmpOptions")) for rule in rules.there["ingressSecurityRules"]
        ]
        assert ("1", "0.0.0.0/0", {"type": 3, "code": 4}) in told
        assert len(told) == 3
        assert not rules.call([HOME], purge=True)["changed"]

    def test_a_rule_that_says_what_ours_does_is_not_doubled(self, rules: Rules) -> None:
        rules.add(**SSH, source=HOME, description="by hand")
        rules.call([HOME])
        assert rules.ssh() == [HOME]
        assert not rules.call([HOME])["changed"]

    def test_the_whole_internet_is_let_in_where_it_is_asked_for_and_warned_of(self, rules: Rules) -> None:
        (warning,) = rules.call(["0.0.0.0/0"])["warnings"]
        assert "the whole internet (0.0.0.0/0 in oracle_ssh_from)" in warning
        assert rules.ssh() == ["0.0.0.0/0"]

    def test_a_rule_of_somebody_else_that_opens_ssh_to_all_is_warned_of_as_long_as_it_is_there(
        self, rules: Rules
    ) -> None:
        rules.add(**SSH, source="0.0.0.0/0", description="quick test")
        for _ in range(2):
            (warning,) = rules.call([HOME])["warnings"]
            assert "in: TCP 22 from 0.0.0.0/0  # quick test" in warning
            assert "oracle_network_purge_rules: true" in warning
        assert rules.call([HOME], purge=True)["warnings"] == []
        assert rules.ssh() == [HOME]

    def test_a_lost_race_loses_nobodys_rule(self, rules: Rules) -> None:
        rules.oracle.api.faults.race = 3
        result = rules.call([HOME])
        told = [rule.get("description") for rule in rules.there["ingressSecurityRules"]]
        assert sorted(word for word in told if word.startswith("made meanwhile")) == [
            f"made meanwhile, {n}" for n in range(3)
        ]
        assert rules.ssh() == [HOME]
        assert result["diff"]["after"].count("made meanwhile") == 3
        assert [status for name, status in rules.oracle.api.calls if name == "update_security_list"] == [412] * 3 + [
            200
        ]

    def test_a_race_that_is_lost_again_and_again_is_given_up(self, rules: Rules) -> None:
        rules.oracle.api.faults.race = 99
        result = rules.call([HOME], fails=True)
        assert result["status"] == 412
        assert "somebody else changed it at the same moment: run this again" in result["msg"]
        assert rules.ssh() == []

    def test_throttling_and_a_lost_answer_are_sat_out(self, rules: Rules) -> None:
        rules.oracle.api.faults.throttle = 3
        rules.oracle.api.faults.lose_answer = ["update_security_list"]
        assert rules.call([HOME])["changed"]
        assert not rules.call([HOME])["changed"]

    def test_a_list_that_is_not_ours_is_not_touched(self, rules: Rules) -> None:
        vcn = rules.oracle.api.all("Vcn")[0]
        default = vcn["defaultSecurityListId"]
        result = rules.call([HOME], security_list_id=default, fails=True)
        assert "is not that of the network test, and not touched. Mend: " in result["msg"]
        assert "update_security_list" not in rules.oracle.api.writes()

    @pytest.mark.parametrize(
        ("ssh_from", "told"),
        [
            ([], "oracle_ssh_from is empty, so nobody could log in. Mend: "),
            ([HOME, "10.0.0.1/8"], "10.0.0.0/8 for all of these addresses, or 10.0.0.1 for that one"),
            (["home.example.com"], "Mend: write an address"),
            (["203.0.113.7/33"], "Mend: write an address"),
            ([""], "Mend: write an address"),
        ],
    )
    def test_addresses_that_are_none_are_told_before_anything_is_asked(
        self, oracle: Oracle, ssh_from: list[str], told: str
    ) -> None:
        result = oracle.call(
            "oracle_security_list", security_list_id="x", ssh_from=ssh_from, vcn_cidr=VCN, name=NAME, fails=True
        )
        assert told in result["msg"]
        assert oracle.api.calls == []
