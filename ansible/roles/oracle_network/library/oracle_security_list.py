#!/usr/bin/python
"""Module that keeps our rules in a security list of Oracle Cloud, beside those of others."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils import oracle

DOCUMENTATION = r"""
module: oracle_security_list
short_description: Our rules in a security list of Oracle Cloud
description:
  - Lets in SSH from where it is asked for and the two kinds of ICMP that connections need, and everything out.
  - Our rules are known by how their description begins. Rules of others stay, unless O(purge) is set; one that is equal
    to ours becomes ours. Oracle replaces the whole list at each write, so ours is refused when somebody else was
    faster, and made anew from what is there then.
options:
  api_key: {description: The API key of the account., type: dict, required: true}
  endpoint: {description: Address of the API; empty for Oracle's own., type: str, default: ""}
  compartment_id: {description: The compartment; empty for the root., type: str, default: ""}
  name: {description: The network's name., type: str, required: true}
  security_list_id:
    description: The network's list. Empty for one that a dry run would have made.
    type: str
    default: ""
  ssh_from:
    description: Who may open a connection to port 22, as addresses or networks.
    type: list
    elements: str
    required: true
  vcn_cidr:
    description: The network's own addresses.
    type: str
    required: true
  purge:
    description: Remove the rules of others.
    type: bool
    default: false
"""

RETURN = r"""
done: {description: What was done, in words., type: list, returned: always}
"""

OURS = f"{oracle.TAG}: "
ANYWHERE = ("0.0.0.0/0", "::/0")
PROTOCOLS = {"all": "everything", "1": "ICMP", "6": "TCP", "17": "UDP", "58": "ICMPv6"}
TCP, ICMP = "6", "1"


def wanted(ssh_from: Iterable[str], vcn_cidr: str) -> tuple[list[Any], list[Any]]:
    """Our rules, inward and outward."""
    models = oracle.oci.core.models

    def inward(description: str, source: str, protocol: str, **options: Any) -> Any:
        return models.IngressSecurityRule(
            description=OURS + description, source=source, protocol=protocol, is_stateless=False, **options
        )

    port = models.TcpOptions(destination_port_range=models.PortRange(min=22, max=22))
    return [
        *(inward("SSH", source, TCP, tcp_options=port) for source in dict.fromkeys(ssh_from)),
        # Without it, a connection over a link with smaller packets than Oracle's 9,000 bytes hangs.
        inward("packet too big", "0.0.0.0/0", ICMP, icmp_options=models.IcmpOptions(type=3, code=4)),
        inward("cannot be reached", vcn_cidr, ICMP, icmp_options=models.IcmpOptions(type=3)),
    ], [
        models.EgressSecurityRule(
            description=f"{OURS}everything out", destination="0.0.0.0/0", protocol="all", is_stateless=False
        )
    ]


def is_inward(rule: Any) -> bool:
    return hasattr(rule, "source")


def peer(rule: Any) -> str:
    """Whom a rule is about; networks in one way of writing."""
    text = rule.source if is_inward(rule) else rule.destination
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return str(text)  # one of Oracle's own services, by name


def ports(options: Any, which: str) -> tuple[int, int] | None:
    span = getattr(options, which, None)
    return (span.min, span.max) if span else None


def meaning(rule: Any) -> tuple[Any, ...]:
    """What a rule does: equal for two that differ in their description only, or in what is left to its default."""
    options = rule.tcp_options or rule.udp_options
    icmp = rule.icmp_options
    return (
        peer(rule),
        rule.protocol,
        ports(options, "destination_port_range"),
        ports(options, "source_port_range"),
        (icmp.type, icmp.code) if icmp else None,
        bool(rule.is_stateless),
    )


def is_ours(rule: Any) -> bool:
    return (rule.description or "").startswith(OURS)


def merged(there: Iterable[Any], ours: Iterable[Any], purge: bool) -> list[Any]:
    """What the list is to hold: our rules, and those of others unless they are purged. What stays keeps its place."""
    missing = {meaning(rule): rule for rule in ours}
    known = set(missing)
    result = []
    for rule in there:
        what = meaning(rule)
        if what in missing:
            result.append(missing.pop(what))
        elif what not in known and not is_ours(rule) and not purge:
            result.append(rule)
    return [*result, *missing.values()]


def spelled(rule: Any) -> str:
    """A rule in one line, for people."""
    _, protocol, to_ports, from_ports, icmp, stateless = meaning(rule)
    words = ["in:" if is_inward(rule) else "out:", PROTOCOLS.get(protocol, f"protocol {protocol}")]
    if to_ports:
        words.append("-".join(map(str, sorted(set(to_ports)))))
    if icmp:
        words.append("/".join(str(number) for number in icmp if number is not None))
    words += ["from" if is_inward(rule) else "to", peer(rule)]
    if from_ports:
        words.append(f"port {'-'.join(map(str, sorted(set(from_ports))))}")
    if stateless:
        words.append("stateless")
    return " ".join(words) + (f"  # {rule.description}" if rule.description else "")


def text(rules: Iterable[Any]) -> str:
    return "".join(f"{spelled(rule)}\n" for rule in rules)


def opens_ssh_to_all(rule: Any) -> bool:
    """Whether a rule lets the whole internet open a connection to port 22."""
    source, protocol, to_ports, *_ = meaning(rule)
    low, high = to_ports or (1, 65535)
    return is_inward(rule) and source in ANYWHERE and protocol in (TCP, "all") and low <= 22 <= high


def warnings(rules: Iterable[Any]) -> list[str]:
    """What the operator should know of the rules that are or will be there."""
    told = []
    for rule in rules:
        if opens_ssh_to_all(rule) and is_ours(rule):
            told.append(
                f"SSH is open to the whole internet ({peer(rule)} in oracle_ssh_from). Better: your own address, which"
                " `curl -4 https://ifconfig.me` prints"
            )
        elif opens_ssh_to_all(rule):
            told.append(
                f"a rule that is not ours opens SSH to the whole internet ({spelled(rule)}). It is left as it is;"
                " oracle_network_purge_rules: true removes it"
            )
    return told


def work(module: AnsibleModule, account: oracle.Account) -> dict[str, Any]:
    given = module.params
    sources = [oracle.cidr(source, "oracle_ssh_from") for source in given["ssh_from"]]
    if not sources:
        raise oracle.Problem(
            "oracle_ssh_from is empty, so nobody could log in. Mend: oracle_ssh_from: [203.0.113.7], with your own"
            " address, which `curl -4 https://ifconfig.me` prints"
        )
    ours_in, ours_out = wanted(sources, oracle.cidr(given["vcn_cidr"], "oracle_network_cidr"))
    models, api, ocid = oracle.oci.core.models, account.network, given["security_list_id"]
    rules: dict[str, list[Any]] = {}

    def decide(there: Any) -> Any:
        if not oracle.is_ours(there, given["name"]):
            raise oracle.Problem(
                f"the security list {there.display_name} is not that of the network {given['name']}, and not touched."
                f" Mend: give it the tag {oracle.TAG} with the value {given['name']} if it is to be"
            )
        inward = merged(there.ingress_security_rules, ours_in, given["purge"])
        outward = merged(there.egress_security_rules, ours_out, given["purge"])
        before = [*there.ingress_security_rules, *there.egress_security_rules]
        after = [*inward, *outward]
        done = text(before) == text(after)
        # Done at the second look means that it was our own write, whose answer was lost.
        if not (done and rules):
            rules.update(before=before, after=after)
        return (
            None
            if done
            else models.UpdateSecurityListDetails(ingress_security_rules=inward, egress_security_rules=outward)
        )

    if module.check_mode:
        would_be = models.SecurityList(
            freeform_tags=oracle.tags(given["name"]), ingress_security_rules=[], egress_security_rules=[]
        )
        decide(api.get_security_list(ocid).data if ocid else would_be)
    else:
        oracle.edit(lambda: api.get_security_list(ocid), decide, partial(api.update_security_list, ocid))
    for warning in warnings(rules["after"]):
        module.warn(warning)
    header = f"rules of {given['name']}"
    old, new = text(rules["before"]), text(rules["after"])
    return {
        "changed": old != new,
        "done": [f"added {line}" for line in new.splitlines() if line not in old.splitlines()]
        + [f"removed {line}" for line in old.splitlines() if line not in new.splitlines()],
        "diff": {"before_header": header, "after_header": header, "before": old, "after": new},
    }


def main() -> None:
    account = ("api_key", "endpoint", "compartment_id", "name")
    module = AnsibleModule(
        argument_spec={
            **{name: oracle.ARGUMENTS[name] for name in account},
            "security_list_id": {"type": "str", "default": ""},
            "ssh_from": {"type": "list", "elements": "str", "required": True},
            "vcn_cidr": {"type": "str", "required": True},
            "purge": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    oracle.run(module, work)


if __name__ == "__main__":
    main()
