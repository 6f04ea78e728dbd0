#!/usr/bin/python
"""Module that makes the network of a machine in Oracle Cloud, mends it and removes it."""

from __future__ import annotations

import copy
import dataclasses
import ipaddress
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils import oracle

DOCUMENTATION = r"""
module: oracle_network
short_description: A network in Oracle Cloud with a way to the internet
description:
  - A VCN, an internet gateway, a route table, a security list and a subnet that uses both. The list is made empty,
    which lets nobody in; M(oracle_security_list) fills it. Each is found by its tag, so a run that broke off goes on,
    and what somebody took away or switched off is mended. What others added stays.
  - When it is to be absent, what was made here is removed. Whatever something else still needs is kept, and told.
options:
  api_key: {description: The API key of the account., type: dict, required: true}
  endpoint: {description: Address of the API; empty for Oracle's own., type: str, default: ""}
  compartment_id: {description: The compartment; empty for the root., type: str, default: ""}
  name: {description: The network's name., type: str, required: true}
  vcn_cidr: {description: The network's addresses., type: str}
  subnet_cidr: {description: "The subnet's addresses, of those of the network.", type: str}
  leaving:
    description:
      - Names of machines of ours that a real run would have removed before, so that a dry run does not take them for a
        reason to keep the network. A real run looks at what is there.
    type: list
    elements: str
    default: []
  state:
    description: Whether the network is to be there.
    type: str
    choices: [present, absent]
    default: present
"""

RETURN = r"""
done: {description: "What was done, in words; what was removed.", type: list, returned: always}
kept: {description: What was not removed, and why., type: list, returned: absent}
vcn_id: {description: None in a dry run that would make it., type: str, returned: present}
subnet_id: {description: None in a dry run that would make it., type: str, returned: present}
security_list_id: {description: None in a dry run that would make it., type: str, returned: present}
"""

INTERNET = "0.0.0.0/0"
# What the network consists of, in the order in which one needs the other; by the SDK's names, and in words.
PARTS = {
    "vcn": "VCN",
    "internet_gateway": "internet gateway",
    "route_table": "route table",
    "security_list": "security list",
    "subnet": "subnet",
}
# What else can be in a VCN and keeps it from being removed.
OTHERS = {
    "nat_gateways": "NAT gateway",
    "service_gateways": "service gateway",
    "local_peering_gateways": "local peering gateway",
    "network_security_groups": "network security group",
    "drg_attachments": "DRG attachment",
    "dhcp_options": "DHCP options",
}
IN_USE = 120.0  # seconds in which the network card of a machine that was removed may still be there
OVER = ("TERMINATING", "TERMINATED", "DETACHING", "DETACHED")


def checked(vcn_cidr: str, subnet_cidr: str) -> tuple[str, str]:
    """Both as Oracle writes them. Raises Problem."""
    vcn = oracle.cidr(vcn_cidr, "oracle_network_cidr")
    subnet = oracle.cidr(subnet_cidr, "oracle_network_subnet_cidr")
    whole, part = ipaddress.ip_network(vcn), ipaddress.ip_network(subnet)
    if whole.version != 4 or part.version != 4 or not 16 <= whole.prefixlen <= part.prefixlen <= 30:
        raise oracle.Problem(
            f"oracle_network_cidr is {vcn}, oracle_network_subnet_cidr {subnet}. Oracle makes networks from /16 to /30."
            " Mend: 10.0.0.0/16 and 10.0.0.0/24, for example"
        )
    if not part.subnet_of(whole):
        raise oracle.Problem(
            f"oracle_network_subnet_cidr {subnet} is not within oracle_network_cidr {vcn}."
            f" Mend: {next(whole.subnets(new_prefix=part.prefixlen))}, for example"
        )
    return vcn, subnet


def routes(there: Iterable[Any], gateway_id: str | None) -> list[Any]:
    """The routes of our table: the internet through our gateway, and what others added, each in its place."""
    ours = oracle.oci.core.models.RouteRule(
        destination=INTERNET,
        destination_type="CIDR_BLOCK",
        network_entity_id=gateway_id,
        description=f"{oracle.TAG}: the internet",
    )
    others = [rule for rule in there if (rule.destination or rule.cidr_block) != INTERNET]
    right = any(rule.network_entity_id == gateway_id for rule in there if rule not in others)
    return list(there) if right else [ours, *map(writable, others)]


def writable(rule: Any) -> Any:
    """A route as Oracle takes it: with its addresses under both names, which an answer may have, it is rejected."""
    rule = copy.copy(rule)
    if rule.destination:
        rule.cidr_block = None
    return rule


def conflict(there: Iterable[str], wanted: str, setting: str) -> None:
    """Raises Problem when what is there has other addresses."""
    if wanted not in there:
        raise oracle.Problem(
            f"the network is there with {', '.join(there)}, and {setting} is {wanted}. Oracle does not renumber."
            f" Mend: set {setting} back, or remove the network first (destroy.yml)"
        )


def parts_of(account: oracle.Account, kind: str, vcn_id: str | None = None) -> list[Any]:
    """All parts of a kind in the network, ours or not; all networks of the compartment."""
    options = {"vcn_id": vcn_id} if vcn_id else {}
    return oracle.all_pages(getattr(account.network, f"list_{kind}s"), account.compartment_id, **options)


def model(kind: str, prefix: str = "", suffix: str = "") -> Any:
    """The SDK's class for a part, or for making or changing one."""
    name = "".join(word.capitalize() for word in kind.split("_"))
    return getattr(oracle.oci.core.models, f"{prefix}{name}{suffix}")


class Network:
    """The parts of a network of ours that are there. A dry run puts in what it would make, without an id."""

    def __init__(self, account: oracle.Account, name: str, check: bool) -> None:
        self.account = account
        self.api = account.network
        self.name = name
        self.check = check
        self.done: list[str] = []
        self.parts: dict[str, Any] = {}
        self.foreign_gateways: list[str] = []
        for kind in PARTS:
            if kind != "vcn" and "vcn" not in self.parts:
                break
            found = parts_of(account, kind, self.parts["vcn"].id if self.parts else None)
            ours = [part for part in found if oracle.is_ours(part, name)]
            if ours:
                self.parts[kind] = min(ours, key=lambda part: part.time_created)
            elif kind == "internet_gateway":
                self.foreign_gateways = [part.display_name for part in found if part.lifecycle_state not in OVER]

    def have(self, kind: str, **fields: Any) -> Any:
        """The part, which is made with these fields if it is not there."""
        if kind not in self.parts:
            self.done.append(f"made the {PARTS[kind]}")
            fields |= {
                "compartment_id": self.account.compartment_id,
                "display_name": self.name,
                "freeform_tags": oracle.tags(self.name),
            }
            if self.check:
                self.parts[kind] = model(kind)(**fields)
            else:
                details = model(kind, "Create", "Details")(**fields)
                self.parts[kind] = getattr(self.api, f"create_{kind}")(details).data
        self.settle(kind)
        return self.parts[kind]

    def settle(self, kind: str) -> None:
        """Wait until Oracle has made or changed the part."""
        part = self.parts[kind]
        if self.check or part.lifecycle_state == "AVAILABLE":
            return
        get = getattr(self.api, f"get_{kind}")
        oracle.wait_for(lambda: str(get(part.id).data.lifecycle_state), ["AVAILABLE"], f"the {PARTS[kind]} {self.name}")

    def change(self, kind: str, done: str, decide: Callable[[Any], dict[str, Any]]) -> None:
        """Change the fields of a part that `decide` says are to be different."""
        part = self.parts[kind]
        fields = decide(part)
        if not fields:
            return
        self.done.append(done)
        if self.check:
            for field, value in fields.items():
                setattr(part, field, value)
            return

        def details(there: Any) -> Any:
            fields = decide(there)
            return model(kind, "Update", "Details")(**fields) if fields else None

        get, update = getattr(self.api, f"get_{kind}"), getattr(self.api, f"update_{kind}")
        self.parts[kind] = oracle.edit(lambda: get(part.id), details, partial(update, part.id))
        self.settle(kind)

    def build(self, vcn_cidr: str, subnet_cidr: str) -> None:
        """Make what is missing and mend what is not as it should be."""
        vcn = self.have("vcn", cidr_blocks=[vcn_cidr])
        conflict(vcn.cidr_blocks or [vcn.cidr_block], vcn_cidr, "oracle_network_cidr")

        if self.foreign_gateways:
            raise oracle.Problem(
                f"the network {self.name} has an internet gateway that was not made here, {self.foreign_gateways[0]},"
                f" and Oracle allows one. Mend: delete it, or hand it over: give it the tag {oracle.TAG} with the value"
                f" {self.name}"
            )
        gateway = self.have("internet_gateway", vcn_id=vcn.id, is_enabled=True)
        self.change(
            "internet_gateway",
            "switched the internet gateway on",
            lambda there: {} if there.is_enabled else {"is_enabled": True},
        )

        def routed(there: Any) -> dict[str, Any]:
            rules = routes(there.route_rules, gateway.id)
            return {} if rules == there.route_rules else {"route_rules": rules}

        table = self.have("route_table", vcn_id=vcn.id, route_rules=routes([], gateway.id))
        self.change("route_table", "set the route to the internet", routed)

        rules = self.have("security_list", vcn_id=vcn.id, ingress_security_rules=[], egress_security_rules=[])

        def attached(there: Any) -> dict[str, Any]:
            fields: dict[str, Any] = {}
            if there.route_table_id != table.id:
                fields["route_table_id"] = table.id
            if rules.id not in there.security_list_ids:
                fields["security_list_ids"] = [rules.id, *there.security_list_ids]
            return fields

        subnet = self.have(
            "subnet", vcn_id=vcn.id, cidr_block=subnet_cidr, route_table_id=table.id, security_list_ids=[rules.id]
        )
        conflict([subnet.cidr_block], subnet_cidr, "oracle_network_subnet_cidr")
        self.change("subnet", "had the subnet use our route table and security list", attached)

    def described(self) -> str:
        """What is there, in lines for people."""
        lines = []

        def named(kind: str, ocid: str) -> str:
            own = kind in self.parts and self.parts[kind].id == ocid
            return f"our {PARTS[kind]}" if own else f"another {PARTS[kind]}, {ocid}"

        for kind, part in sorted(self.parts.items(), key=lambda item: list(PARTS).index(item[0])):
            if kind == "vcn":
                lines.append(f"VCN: {', '.join(part.cidr_blocks or [part.cidr_block])}")
            elif kind == "internet_gateway":
                lines.append(f"internet gateway: {'on' if part.is_enabled else 'off'}")
            elif kind == "route_table":
                lines.append("route table:")
                for rule in part.route_rules:
                    by = named("internet_gateway", rule.network_entity_id)
                    lines.append(f"  {rule.destination or rule.cidr_block} by {by}")
            elif kind == "security_list":
                lines.append("security list")
            else:
                lines.append(f"subnet: {part.cidr_block}")
                lines.append(f"  {named('route_table', part.route_table_id)}")
                lines += [f"  {named('security_list', ocid)}" for ocid in part.security_list_ids]
        return "".join(f"{line}\n" for line in lines)


def present(module: AnsibleModule, account: oracle.Account) -> dict[str, Any]:
    given = module.params
    vcn_cidr, subnet_cidr = checked(given["vcn_cidr"], given["subnet_cidr"])
    network = Network(account, given["name"], module.check_mode)
    before = network.described()
    network.build(vcn_cidr, subnet_cidr)
    foreign = [ocid for ocid in network.parts["subnet"].security_list_ids if ocid != network.parts["security_list"].id]
    if foreign:
        module.warn(
            f"the subnet uses other security lists too, and what they let in comes in: {', '.join(foreign)}."
            " They are left as they are; what you do not need is taken away in the console, under the subnet"
        )
    return {
        "changed": bool(network.done),
        "done": network.done,
        "diff": headed(given["name"], before, network.described()),
        **{f"{kind}_id": network.parts[kind].id for kind in ("vcn", "subnet", "security_list")},
    }


@dataclasses.dataclass(frozen=True)
class Thing:
    """Something in a network: what it is called, and the ids of what it needs."""

    kind: str
    what: str
    id: str
    needs: frozenset[str]


def needs(resource: Any) -> frozenset[str]:
    """The ids of what has to stay as long as this resource does."""
    one = [getattr(resource, name, None) for name in ("vcn_id", "subnet_id", "route_table_id")]
    lists = getattr(resource, "security_list_ids", None) or []
    through = [rule.network_entity_id for rule in getattr(resource, "route_rules", None) or []]
    return frozenset(filter(None, [*one, *lists, *through]))


def plan(ours: Iterable[Thing], others: Iterable[Thing]) -> tuple[list[Thing], list[str]]:
    """What of ours can go, in this order, and in words what has to stay. What stays keeps what it needs."""
    go, kept, staying = [], [], list(others)
    for part in ours:
        users = [thing.what for thing in staying if part.id in thing.needs]
        if users:
            kept.append(f"{part.what}: needed by {', '.join(users)}")
            staying.append(part)
        else:
            go.append(part)
    return go, kept


def machines(account: oracle.Account, subnets: Collection[str], leaving: Collection[str]) -> Iterator[Thing]:
    """The machines that stay in these subnets."""
    for attachment in oracle.all_pages(account.compute.list_vnic_attachments, account.compartment_id):
        if attachment.subnet_id in subnets and attachment.lifecycle_state not in OVER:
            instance = account.compute.get_instance(attachment.instance_id).data
            leaves = (instance.freeform_tags or {}).get(oracle.TAG) in leaving or instance.lifecycle_state in OVER
            if not leaves:
                yield Thing("", f"machine {instance.display_name}", instance.id, frozenset([attachment.subnet_id]))


def contents(account: oracle.Account, vcn: Any, name: str, leaving: Collection[str]) -> tuple[list[Thing], list[Thing]]:
    """Our parts of a network, in the order in which they can go, and all else in it."""
    ours = [Thing("vcn", f"VCN {vcn.display_name}", vcn.id, frozenset())]
    others = []
    # They come with the network and go with it.
    defaults = {vcn.default_route_table_id, vcn.default_security_list_id, vcn.default_dhcp_options_id}
    for kind in list(PARTS)[1:]:
        for part in parts_of(account, kind, vcn.id):
            thing = Thing(kind, f"{PARTS[kind]} {part.display_name}", part.id, needs(part))
            if oracle.is_ours(part, name):
                ours.insert(0, thing)
            elif part.id in defaults:
                others.append(dataclasses.replace(thing, needs=thing.needs - {vcn.id}))
            elif part.lifecycle_state not in OVER:
                others.append(thing)
    for kind, words in OTHERS.items():
        options = {"compartment_id": account.compartment_id, "vcn_id": vcn.id}
        for other in oracle.all_pages(getattr(account.network, f"list_{kind}"), **options):
            if other.lifecycle_state not in OVER and other.id not in defaults:
                others.append(Thing(kind, f"{words} {other.display_name}", other.id, needs(other) | {vcn.id}))
    others += machines(account, [part.id for part in ours if part.kind == "subnet"], leaving)
    return ours, others


def remove(account: oracle.Account, part: Thing) -> None:
    """Remove a part, and wait until it is gone."""
    delete, get = getattr(account.network, f"delete_{part.kind}"), getattr(account.network, f"get_{part.kind}")

    def asked() -> str:
        try:
            oracle.delete(delete, part.id)
        except oracle.ServiceError as error:
            if error.status != 409:
                raise
            return f"in use (Oracle says: {error.message})"
        return "asked"

    oracle.wait_for(asked, ["asked"], f"the {part.what}", IN_USE)
    oracle.wait_for(oracle.gone(get, part.id), ["TERMINATED"], f"the {part.what}")


def absent(module: AnsibleModule, account: oracle.Account) -> dict[str, Any]:
    name, leaving = module.params["name"], module.params["leaving"] if module.check_mode else []
    before, gone, kept = [], [], []
    for vcn in parts_of(account, "vcn"):
        if not oracle.is_ours(vcn, name):
            continue
        ours, others = contents(account, vcn, name, leaving)
        go, stay = plan(ours, others)
        before += ours
        gone += go
        kept += stay
        for part in [] if module.check_mode else go:
            remove(account, part)
    return {
        "changed": bool(gone),
        "done": [part.what for part in gone],
        "kept": kept,
        "diff": headed(name, lines(before), lines(part for part in before if part not in gone)),
    }


def lines(things: Iterable[Thing]) -> str:
    return "".join(f"{thing.what}\n" for thing in things)


def headed(name: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": name, "after_header": name, "before": before, "after": after}


def work(module: AnsibleModule, account: oracle.Account) -> dict[str, Any]:
    return (present if module.params["state"] == "present" else absent)(module, account)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **oracle.ARGUMENTS,
            "vcn_cidr": {"type": "str"},
            "subnet_cidr": {"type": "str"},
            "leaving": {"type": "list", "elements": "str", "default": []},
        },
        required_if=[("state", "present", ["vcn_cidr", "subnet_cidr"])],
        supports_check_mode=True,
    )
    oracle.run(module, work)


if __name__ == "__main__":
    main()
