#!/usr/bin/python
"""Puts our rules beside those that are there, in the kernel and in the files that are loaded at boot."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.guard import arm, begin, store, undo

DOCUMENTATION = """
module: firewall_rules
short_description: Rules of our own beside those of the image and of other programs
description:
  - Works on what C(iptables-save) prints and on C(/etc/iptables/rules.v4) and C(rules.v6), IPv4 and IPv6 each,
    with chains of its own whose names begin with C(CLOUD-AGENT). Every other line stays byte for byte.
  - C(CLOUD-AGENT-SSH) is the first rule of INPUT and refuses new SSH connections from elsewhere than I(ssh_from).
    It lets nothing in, so that what bans an address behind it still does.
  - C(CLOUD-AGENT) stands before the rule that refuses the rest, and accepts SSH. Where none does, it refuses the rest.
  - C(CLOUD-AGENT-OUT), with I(egress), is the same for OUTPUT.
  - What is to be loaded is tested first, and loaded in one step. Before, an undo is armed, which the role guard takes
    away once a new login is proven.
options:
  ssh_from:
    description: Networks that SSH is reached from.
    type: list
    elements: str
    required: true
  egress:
    description: Whether what the machine itself may reach is limited.
    type: bool
    required: true
  egress_ports:
    description: TCP ports that it may reach then.
    type: list
    elements: int
    required: true
  undo_seconds:
    description: After how many seconds an unproven change is undone.
    type: int
    required: true
author: [personal-ai-employee]
"""

EXAMPLES = """
- firewall_rules:
    ssh_from: [0.0.0.0/0, "::/0"]
    egress: false
    egress_ports: [22, 80, 443]
    undo_seconds: 60
"""

RETURN = """
unproven:
  description: Whether an undo is armed, so that a new login has to be proven.
  returned: success
  type: bool
"""


NAME = "firewall"
COMMENT = "# CLOUD-AGENT*: managed by Ansible (role firewall)"
# iptables-save -c puts counters before a rule.
RULE = re.compile(r"(?:\[\d+:\d+\] )?-A (\S+) ?(.*)")
OURS = re.compile(r"CLOUD-AGENT(?:-SSH|-OUT)?")
CLOSES = re.compile(r"-j (?:REJECT|DROP)\b")


@dataclass(frozen=True)
class Family:
    """What differs between IPv4 and IPv6; rules in the words that iptables-save uses, to be comparable."""

    version: int
    program: str
    file: str
    reject: str
    icmp: str
    # Must always pass, even where the image refuses other ICMP: without it large packets vanish.
    too_big: str
    dhcp_in: str
    dhcp_out: str


FAMILIES = (
    Family(
        version=4,
        program="iptables",
        file="rules.v4",
        reject="-j REJECT --reject-with icmp-host-prohibited",
        icmp="-p icmp",
        too_big="-p icmp -m icmp --icmp-type 3/4 -j ACCEPT",
        dhcp_in="-p udp -m udp --sport 67 --dport 68 -j ACCEPT",
        dhcp_out="-p udp -m udp --sport 68 --dport 67 -j RETURN",
    ),
    Family(
        version=6,
        program="ip6tables",
        file="rules.v6",
        reject="-j REJECT --reject-with icmp6-adm-prohibited",
        icmp="-p ipv6-icmp",
        too_big="-p ipv6-icmp -m icmp6 --icmpv6-type 2 -j ACCEPT",
        dhcp_in="-s fe80::/10 -p udp -m udp --sport 547 --dport 546 -j ACCEPT",
        dhcp_out="-p udp -m udp --sport 546 --dport 547 -j RETURN",
    ),
)
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"


@dataclass(frozen=True)
class Wanted:
    """The settings of the role; `ssh_ports` are those that sshd listens on."""

    ssh_from: tuple[str, ...]
    ssh_ports: tuple[int, ...]
    egress: bool
    egress_ports: tuple[int, ...]


def sources(family: Family, networks: tuple[str, ...]) -> list[str]:
    """The matches on a source, one a network of this family; the whole world is no match. ValueError on a bad one."""
    parsed = [ipaddress.ip_network(network.strip(), strict=False) for network in networks]
    mine = [network for network in parsed if network.version == family.version]
    return ["" if network.prefixlen == 0 else f"-s {network} " for network in mine]


def chains(family: Family, wanted: Wanted, closing: bool) -> dict[str, list[str]]:
    """Our chains; `closing` when nothing else refuses what comes in."""
    froms = sources(family, wanted.ssh_from)
    accept = [f"{source}-p tcp -m tcp --dport {port} -j ACCEPT" for port in wanted.ssh_ports for source in froms]
    accept.append(family.too_big)
    if closing:
        first = [f"{ESTABLISHED} -j ACCEPT", "-i lo -j ACCEPT", f"{family.icmp} -j ACCEPT", family.dhcp_in]
        accept = [*first, *(rule for rule in accept if rule != family.too_big), family.reject]
    own = {"CLOUD-AGENT": accept}
    if "" not in froms:
        own["CLOUD-AGENT-SSH"] = ["-i lo -j RETURN", *(f"{source}-j RETURN" for source in froms), family.reject]
    if wanted.egress:
        ports = [("udp", 53), ("tcp", 53), ("udp", 123), *(("tcp", port) for port in sorted(set(wanted.egress_ports)))]
        own["CLOUD-AGENT-OUT"] = [
            "-o lo -j RETURN",
            f"{ESTABLISHED} -j RETURN",
            f"{family.icmp} -j RETURN",
            family.dhcp_out,
            # What the cloud itself offers: its metadata, time and volumes, guarded by the image's own chain.
            *(["-d 169.254.0.0/16 -j RETURN"] if family.version == 4 else []),
            *(f"-p {protocol} -m {protocol} --dport {port} -j RETURN" for protocol, port in dict.fromkeys(ports)),
            family.reject,
        ]
    return own


def without_ours(lines: list[str]) -> list[str]:
    """The lines that are not ours, wherever they stand; also after a `netfilter-persistent save`."""
    return [line for line in lines if line != COMMENT and not is_ours(line)]


def is_ours(line: str) -> bool:
    chain = re.match(r":(\S+)", line)
    rule = RULE.fullmatch(line)
    names = [chain[1]] if chain else [rule[1], *re.findall(r"-[jg] (\S+)", rule[2])] if rule else []
    return any(OURS.fullmatch(name) for name in names)


def end_of(chain: str, lines: list[str]) -> tuple[int, bool]:
    """Where in a filter table a rule goes that others may follow in vain, and whether one refuses the rest anyway.

    That is before the first rule that refuses everything; else behind the chain's last rule.
    """
    last = len(lines)
    for number, line in enumerate(lines):
        rule = RULE.fullmatch(line)
        if rule and rule[1] == chain:
            if CLOSES.match(re.sub(r'-m comment --comment (?:"[^"]*"|\S+) ', "", rule[2])):
                return number, True
            last = number + 1
    policy = next((line.split()[1] for line in lines if line.startswith(f":{chain} ")), "ACCEPT")
    return last, policy != "ACCEPT"


def filter_table(lines: list[str]) -> tuple[int, int] | None:
    """Where the inside of the filter table begins and ends. ValueError when it has no end."""
    marks = [line.split() for line in lines]  # iptables-restore minds no blank behind them
    if ["*filter"] not in marks:
        return None
    start = marks.index(["*filter"]) + 1
    if ["COMMIT"] not in marks[start:]:
        raise ValueError("its table filter does not end with COMMIT")
    return start, marks.index(["COMMIT"], start)


def edit(text: str, family: Family, wanted: Wanted) -> str:
    """The text of iptables-save, or of a rules file, with our rules as they are to be and all else as it was."""
    lines = text.splitlines()
    if filter_table(lines) is None:
        lines += ["*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", "COMMIT"]
    start, stop = filter_table(lines) or (0, 0)
    table = without_ours(lines[start:stop])
    position, closed = end_of("INPUT", table)
    own = chains(family, wanted, closing=not closed)
    table.insert(position, "-A INPUT -j CLOUD-AGENT")
    if "CLOUD-AGENT-OUT" in own:
        table.insert(end_of("OUTPUT", table)[0], "-A OUTPUT -j CLOUD-AGENT-OUT")
    first = next((n for n, line in enumerate(table) if RULE.fullmatch(line)), len(table))
    block = [COMMENT, *(f":{name} - [0:0]" for name in own)]
    if "CLOUD-AGENT-SSH" in own:
        block += [
            f"-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp --dport {port} -j CLOUD-AGENT-SSH"
            for port in wanted.ssh_ports
        ]
    block += [f"-A {name} {rule}" for name, rules in own.items() for rule in rules]
    table[first:first] = block
    return "\n".join([*lines[:start], *table, *lines[stop:]]) + "\n"


def table_of(text: str) -> list[tuple[str, str]]:
    """Chain and rule of each rule of the filter table."""
    lines = text.splitlines()
    start, stop = filter_table(lines) or (0, 0)
    return [(rule[1], rule[2]) for line in lines[start:stop] if (rule := RULE.fullmatch(line))]


def own_rules(text: str) -> list[tuple[str, str]]:
    """Our rules and the jumps to them, by chain, in order, each jump with its place in the chain."""
    rules = table_of(text)
    found = []
    for chain in sorted({chain for chain, _ in rules}):
        inside = [rule for name, rule in rules if name == chain]
        mine = bool(OURS.fullmatch(chain))
        found += [
            (chain, rule if mine else f"{number} {rule}")
            for number, rule in enumerate(inside, start=1)
            if mine or is_ours(f"-A {chain} {rule}")
        ]
    return found


def transition(have: str, want: str) -> str:
    """Input of `iptables-restore --noflush` that turns our rules of `have` into those of `want`, in one step.

    Rules of others are not named, so that what they change in the meantime stays.
    """
    before, after = own_rules(have), own_rules(want)
    old = {chain for chain, _ in before if OURS.fullmatch(chain)}
    new = {chain for chain, _ in after if OURS.fullmatch(chain)}
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in sorted(old | new))]  # emptied, or made
    for chain, rule in before:
        if chain not in old:
            lines.append(f"-D {chain} {rule.partition(' ')[2]}")
    for chain, rule in after:
        lines.append(f"-A {chain} {rule}" if chain in new else f"-I {chain} {rule}")
    lines += [f"-X {chain}" for chain in sorted(old - new)]
    return "\n".join([*lines, "COMMIT"]) + "\n"


def ssh_ports(module: AnsibleModule) -> tuple[int, ...]:
    """Where sshd listens, by its own word."""
    output = module.run_command(["sshd", "-T"])[1]
    return tuple(sorted({int(port) for port in re.findall(r"(?m)^port (\d+)$", output)})) or (22,)


def refuse_other_masters(module: AnsibleModule) -> None:
    """One program can be in charge of the rules that are loaded at boot."""
    settings = Path("/etc/ufw/ufw.conf")
    if settings.exists() and re.search(r"(?mi)^ENABLED=yes", settings.read_text()):
        module.fail_json(
            msg="ufw is active here, and it cannot share a machine with iptables-persistent; Oracle advises against "
            "it. Mend: sudo ufw disable, or keep it and set firewall_enabled: false"
        )


def kernel_rules(module: AnsibleModule, save: str) -> str:
    status, live, error = module.run_command([save, "-t", "filter"])
    if status != 0:
        module.fail_json(
            msg=f"{os.path.basename(save)}: {error.strip()}. Mend: where the machine may not filter packets, as in a "
            "container, set firewall_enabled: false"
        )
    return str(live)


def main() -> None:
    module = AnsibleModule(
        {
            "ssh_from": {"type": "list", "elements": "str", "required": True},
            "egress": {"type": "bool", "required": True},
            "egress_ports": {"type": "list", "elements": "int", "required": True},
            "undo_seconds": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    refuse_other_masters(module)
    wanted = Wanted(
        ssh_from=tuple(module.params["ssh_from"]),
        ssh_ports=ssh_ports(module),
        egress=module.params["egress"],
        egress_ports=tuple(module.params["egress_ports"]),
    )
    try:
        if not any(sources(family, wanted.ssh_from) for family in FAMILIES):
            raise ValueError("it is empty, and nobody could log in")
    except ValueError as error:
        module.fail_json(msg=f"firewall_ssh_from: {error}. Mend: a list of networks such as 198.51.100.0/24")

    redone = begin(module, NAME)
    changes = []  # family, rules file, its old and new text, live rules before and after
    for family in FAMILIES:
        if family.version == 6 and not os.path.exists("/proc/net/if_inet6"):
            continue  # the kernel has no IPv6
        save = module.get_bin_path(f"{family.program}-save", required=not module.check_mode)
        if save is None:
            module.exit_json(changed=True, unproven=False)  # a dry run before the packages are there
        live = kernel_rules(module, save)
        file = Path("/etc/iptables", family.file)
        text = file.read_text() if file.exists() else ""
        try:
            changes.append((family, file, text, edit(text, family, wanted), live, edit(live, family, wanted)))
        except ValueError as error:
            module.fail_json(msg=f"{file}: {error}. Nothing was changed. Mend: correct that file")

    files = [change for change in changes if change[2] != change[3]]
    kernel = [change for change in changes if own_rules(change[4]) != own_rules(change[5])]
    diff = [
        {"before_header": str(file), "after_header": str(file), "before": old, "after": new}
        for _, file, old, new, _, _ in files
    ] + [
        {
            "before_header": f"{family.program}-save",
            "after_header": f"{family.program}-save",
            "before": live,
            "after": future,
        }
        for family, _, _, _, live, future in kernel
    ]
    loaded_at_boot = module.run_command(["systemctl", "is-enabled", "netfilter-persistent"])[0] == 0
    if not (loaded_at_boot or module.check_mode):
        module.run_command(["systemctl", "enable", "netfilter-persistent"], check_rc=True)
    if not (files or kernel) or module.check_mode:
        changed = bool(files or kernel or redone or not loaded_at_boot)
        module.exit_json(changed=changed, unproven=False, diff=diff)

    for family, file, _, new, live, future in changes:
        for text, arguments in ((new, []), (transition(live, future), ["--noflush"])):
            command = [f"{family.program}-restore", "--test", *arguments]
            status, _, error = module.run_command(command, data=text)
            if status != 0:
                module.fail_json(
                    msg=f"{' '.join(command)}: {error.strip()}. Nothing was changed. Mend: see whether {file} loads by "
                    f"itself: sudo {family.program}-restore --test {file}",
                    rules=text,
                )
    commands = []
    for family, _, _, _, live, future in kernel:
        kept = store(NAME) / f"{family.program}.undo"
        kept.write_text(transition(future, live))
        commands.append([f"{family.program}-restore", "--wait=10", "--noflush", str(kept)])
    arm(module, NAME, module.params["undo_seconds"], [file for _, file, *_ in files], commands)
    for family, _, _, _, live, future in kernel:
        command = [f"{family.program}-restore", "--wait=10", "--noflush"]
        status, _, error = module.run_command(command, data=transition(live, future))
        if status != 0:
            undo(module, NAME)
            module.fail_json(msg=f"{' '.join(command)}: {error.strip()}. What had been changed is undone.")
    for _, file, _, new, _, _ in files:
        beside = file.with_name(f".{file.name}.new")
        beside.write_text(new)
        beside.chmod(0o640)
        # Keeps the mode and the owner of a file that is there.
        module.atomic_move(str(beside), str(file))
    module.exit_json(changed=True, unproven=True, diff=diff)


if __name__ == "__main__":
    main()
