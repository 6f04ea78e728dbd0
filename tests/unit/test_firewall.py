"""The rules of the role firewall: text of iptables-save or of a rules file in, text out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import ansible_module

firewall = ansible_module.load("firewall", "firewall_rules")
V4, V6 = firewall.FAMILIES
ORACLE = (Path(__file__).resolve().parents[2] / "molecule/firewall/files/rules.v4").read_text()
WORLD = ("0.0.0.0/0", "::/0")


def wanted(*ssh_from: str, ports: tuple[int, ...] = (22,), egress: tuple[int, ...] | None = None) -> object:
    return firewall.Wanted(ssh_from or WORLD, ports, egress is not None, egress or ())


def chain(text: str, name: str) -> list[str]:
    return [rule for where, rule in firewall.table_of(text) if where == name]


def without_ours(text: str) -> str:
    return "".join(
        line
        for line in text.splitlines(keepends=True)
        if line.strip() != firewall.COMMENT and "CLOUD-AGENT" not in line
    )


SETTINGS = {
    "everywhere": wanted(),
    "narrow": wanted("198.51.100.7", "192.0.2.0/24"),
    "egress": wanted(egress=(443,)),
    "another port": wanted(ports=(22, 2222)),
}
TEXTS = {
    "oracle": ORACLE,
    "counters": "*filter\n:INPUT ACCEPT [0:0]\n[3:4] -A INPUT -p icmp -j ACCEPT\n[9:9] -A INPUT -j DROP\nCOMMIT\n",
    "policy": "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n",
    "only nat": "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DOCKER\nCOMMIT\n",
    "by hand": "*filter \n:INPUT ACCEPT [0:0]\n-A INPUT -p udp --dport 51820 -j ACCEPT\n-A INPUT -j DROP\nCOMMIT \n",
    "nat first": "*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j f2b\nCOMMIT\n# end\n",
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_what_is_theirs_stays_byte_for_byte_and_a_second_time_changes_nothing(family, text, settings) -> None:
    once = firewall.edit(text, family, settings)
    assert without_ours(once).startswith(text)
    assert firewall.edit(once, family, settings) == once
    # From any settings to any other, nothing of the first is left.
    for other in SETTINGS.values():
        assert firewall.edit(firewall.edit(text, family, other), family, settings) == once


def test_on_oracles_rules_ours_stand_before_the_reject() -> None:
    rules = chain(firewall.edit(ORACLE, V4, wanted()), "INPUT")
    assert rules[-2:] == ["-j CLOUD-AGENT", "-j REJECT --reject-with icmp-host-prohibited"]
    assert rules[:-2] == chain(ORACLE, "INPUT")[:-1]
    own = chain(firewall.edit(ORACLE, V4, wanted()), "CLOUD-AGENT")
    assert own == ["-p tcp -m tcp --dport 22 -j ACCEPT", "-p icmp -m icmp --icmp-type 3/4 -j ACCEPT"]


def test_narrowed_ssh_is_refused_before_their_rule_lets_it_in() -> None:
    text = firewall.edit(ORACLE, V4, wanted("198.51.100.7", "2001:db8::/32"))
    assert chain(text, "INPUT")[0] == "-p tcp -m conntrack --ctstate NEW -m tcp --dport 22 -j CLOUD-AGENT-SSH"
    assert chain(text, "CLOUD-AGENT-SSH") == [
        "-i lo -j RETURN",
        "-s 198.51.100.7/32 -j RETURN",
        "-j REJECT --reject-with icmp-host-prohibited",
    ]
    assert "-s 198.51.100.7/32 -p tcp -m tcp --dport 22 -j ACCEPT" in chain(text, "CLOUD-AGENT")


def test_a_family_without_a_network_has_no_ssh() -> None:
    text = firewall.edit("", V6, wanted("198.51.100.0/24"))
    assert chain(text, "CLOUD-AGENT-SSH") == ["-i lo -j RETURN", V6.reject]
    assert not [rule for rule in chain(text, "CLOUD-AGENT") if "tcp" in rule]


def test_a_machine_without_rules_is_closed_but_for_what_keeps_it_reachable() -> None:
    text = firewall.edit("", V4, wanted())
    assert chain(text, "INPUT") == ["-j CLOUD-AGENT"]
    assert chain(text, "CLOUD-AGENT") == [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-i lo -j ACCEPT",
        "-p icmp -j ACCEPT",
        "-p udp -m udp --sport 67 --dport 68 -j ACCEPT",
        "-p tcp -m tcp --dport 22 -j ACCEPT",
        "-j REJECT --reject-with icmp-host-prohibited",
    ]
    # Neighbours are found with ICMPv6: without it there is no IPv6.
    assert "-p ipv6-icmp -j ACCEPT" in chain(firewall.edit("", V6, wanted()), "CLOUD-AGENT")


def test_rules_of_other_programs_come_before_what_closes() -> None:
    live = "*filter\n:INPUT ACCEPT [0:0]\n:f2b - [0:0]\n-A INPUT -p tcp -j f2b\n-A f2b -j RETURN\nCOMMIT\n"
    assert chain(firewall.edit(live, V4, wanted()), "INPUT") == ["-p tcp -j f2b", "-j CLOUD-AGENT"]


@pytest.mark.parametrize(
    ("rule", "closes"),
    [
        ("-j DROP", True),
        ('-m comment --comment "all the rest" -j REJECT --reject-with icmp-port-unreachable', True),
        ("-p udp -j DROP", False),
        ("-s 203.0.113.9/32 -j REJECT", False),
    ],
)
def test_only_what_refuses_everything_closes(rule: str, closes: bool) -> None:
    text = firewall.edit(f"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {rule}\nCOMMIT\n", V4, wanted())
    assert (chain(text, "INPUT")[0] == "-j CLOUD-AGENT") is closes
    assert (chain(text, "CLOUD-AGENT")[-1] == V4.reject) is not closes


def test_egress_comes_after_the_clouds_own_chain_and_refuses_the_rest() -> None:
    text = firewall.edit(ORACLE, V4, wanted(egress=(443, 22)))
    assert chain(text, "OUTPUT") == ["-d 169.254.0.0/16 -j InstanceServices", "-j CLOUD-AGENT-OUT"]
    own = chain(text, "CLOUD-AGENT-OUT")
    assert own[-1] == V4.reject
    # It lets nothing through that theirs would refuse.
    assert all(rule.endswith("-j RETURN") for rule in own[:-1])
    assert [rule.split("--dport ")[1] for rule in own if "-p tcp" in rule] == [
        "53 -j RETURN",
        "22 -j RETURN",
        "443 -j RETURN",
    ]


@pytest.mark.parametrize("have", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("want", SETTINGS.values(), ids=SETTINGS)
def test_a_transition_names_no_rule_of_others(have, want) -> None:
    before, after = (firewall.edit(ORACLE, V4, settings) for settings in (have, want))
    for line in firewall.transition(before, after).splitlines()[1:-1]:
        assert "CLOUD-AGENT" in line


def test_a_transition_takes_away_what_is_not_wanted_any_more() -> None:
    before = firewall.edit(ORACLE, V4, wanted("198.51.100.7", egress=(443,)))
    lines = firewall.transition(before, ORACLE).splitlines()
    assert lines[:4] == ["*filter", ":CLOUD-AGENT - [0:0]", ":CLOUD-AGENT-OUT - [0:0]", ":CLOUD-AGENT-SSH - [0:0]"]
    assert lines[-4:] == ["-X CLOUD-AGENT", "-X CLOUD-AGENT-OUT", "-X CLOUD-AGENT-SSH", "COMMIT"]
    assert [line.split()[:2] for line in lines[4:-4]] == [["-D", "INPUT"], ["-D", "INPUT"], ["-D", "OUTPUT"]]


def test_a_transition_puts_jumps_where_they_belong() -> None:
    lines = firewall.transition(ORACLE, firewall.edit(ORACLE, V4, wanted("198.51.100.7"))).splitlines()
    inserts = [line for line in lines if line.startswith("-I")]
    assert inserts == [
        "-I INPUT 1 -p tcp -m conntrack --ctstate NEW -m tcp --dport 22 -j CLOUD-AGENT-SSH",
        "-I INPUT 7 -j CLOUD-AGENT",
    ]


def test_a_foreign_chain_of_a_like_name_is_not_ours() -> None:
    text = "*filter\n:INPUT ACCEPT [0:0]\n:CLOUD-AGENT-2 - [0:0]\n-A INPUT -j CLOUD-AGENT-2\nCOMMIT\n"
    assert firewall.table_of(firewall.edit(text, V4, wanted()))[-1 - 1] == ("INPUT", "-j CLOUD-AGENT-2")


@pytest.mark.parametrize("network", ["198.51.100.0/33", "my-office", "10.0.0.1-10.0.0.9", ""])
def test_a_network_that_is_none_is_an_error(network: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        firewall.edit("", V4, wanted(network))


def test_a_blank_behind_the_name_makes_no_second_table() -> None:
    """Loading the second would empty the first."""
    assert firewall.edit(TEXTS["by hand"], V4, wanted()).count("*filter") == 1


def test_a_table_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not end with COMMIT"):
        firewall.edit("*filter\n:INPUT ACCEPT [0:0]\n", V4, wanted())


def test_the_modules_can_be_read_by_the_machines_python() -> None:
    """Ubuntu 22.04 has 3.10."""
    import ast

    for module in ansible_module.ROLES.glob("*/*/*.py"):
        if module.parent.name in ("library", "module_utils"):
            ast.parse(module.read_text(), feature_version=(3, 10))
    assert sys.version_info >= (3, 11)
