#!/usr/bin/python
"""Module for the public address of an instance in Oracle Cloud. It runs where Ansible does."""

from __future__ import annotations

import contextlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.oracle import (
    ARGUMENTS,
    Account,
    Problem,
    all_pages,
    delete,
    gone,
    is_ours,
    run,
    tags,
    wait_for,
)

with contextlib.suppress(ImportError):  # run() tells that it is missing
    from oci.core import models
    from oci.exceptions import ServiceError

DOCUMENTATION = r"""
module: oracle_public_ip
short_description: A public address for an instance
description:
  - A reserved one is the account's until it is removed, and is given to the next instance of the name. An ephemeral
    one ends with the instance.
  - A reserved address that others assigned to the instance is used as it is.
options:
  api_key: {description: As in C(~/.oci/config)., type: dict, required: true}
  endpoint: {description: Address of the API, when it is not Oracle's own., type: str, default: ""}
  compartment_id: {description: Empty for the tenancy's root., type: str, default: ""}
  name: {description: Its name and the value of its tag., type: str, required: true}
  state: {description: Whether there is to be one., type: str, choices: [present, absent], default: present}
  private_ip_id: {description: What it leads to. Empty in a dry run where there is no instance., type: str, default: ""}
  lifetime: {description: Which kind., type: str, choices: [RESERVED, EPHEMERAL], default: RESERVED}
"""

RETURN = r"""
done: {description: What was done, in words., type: list, returned: always}
address: {description: None where it is not known yet., type: str, returned: always}
"""


def text(address: Any) -> str:
    """One side of the diff."""
    return f"public address {address.ip_address}, {address.lifetime.lower()}\n" if address else ""


class PublicIp:
    """The public address of one name in an account."""

    def __init__(self, module: AnsibleModule, account: Account) -> None:
        self.given = module.params
        self.check = module.check_mode
        self.network = account.network
        self.compartment_id = account.compartment_id
        self.name = self.given["name"]
        self.done: list[str] = []
        listed = all_pages(self.network.list_public_ips, "REGION", self.compartment_id, lifetime="RESERVED")
        self.reserved = [each for each in listed if is_ours(each, self.name)]

    def present(self) -> dict[str, Any]:
        target, lifetime = self.given["private_ip_id"], self.given["lifetime"]
        here = self.assigned(target) if target else None
        wanted = here
        if here and here.lifetime == "RESERVED" and not is_ours(here, self.name):
            pass  # the owner's own choice
        elif here and here.lifetime != lifetime:
            if lifetime == "RESERVED" and not self.reserved and not self.check:
                # First of all: where Oracle has no further one, the machine is to keep the one that it has.
                self.reserved.append(self.create(lifetime, None))
            self.exchange(here)
            wanted = self.provide(lifetime, target)
        elif not here:
            wanted = self.provide(lifetime, target)
        if lifetime == "EPHEMERAL":
            for other in self.reserved:
                if here is None or other.id != here.id:
                    self.exchange(other)
        return self.result(here, wanted)

    def provide(self, lifetime: str, target: str) -> Any:
        """An address of that lifetime, assigned to the target. None where a dry run cannot tell."""
        spare = self.reserved[0] if lifetime == "RESERVED" and self.reserved else None
        if spare:
            self.done.append(f"assign {spare.ip_address} to {self.name}")
            if not self.check:
                details = models.UpdatePublicIpDetails(private_ip_id=target)
                self.network.update_public_ip(spare.id, details)
                return self.arrived(spare.id, target)
            return spare
        self.done.append(f"get {self.name} a public address, {lifetime.lower()}")
        if self.check:
            return None
        made = self.create(lifetime, target)
        self.done[-1] += f": {made.ip_address}"
        return self.arrived(made.id, target)

    def create(self, lifetime: str, target: str | None) -> Any:
        """A new address, which leads nowhere yet without a target."""
        details = models.CreatePublicIpDetails(
            compartment_id=self.compartment_id,
            display_name=self.name,
            freeform_tags=tags(self.name),
            lifetime=lifetime,
            private_ip_id=target,
        )
        try:
            return self.network.create_public_ip(details).data
        except ServiceError as error:
            if error.code == "LimitExceeded" and lifetime == "RESERVED":
                raise Problem(
                    f"Oracle gives this account no further reserved address: {error.message} A free one has one. Mend:"
                    " remove another (Networking, IP management, Reserved public IPs), or do without:"
                    " oracle_instance_reserved_ip: false"
                ) from None
            raise

    def arrived(self, ocid: str, target: str) -> Any:
        """The address, as soon as it leads to the target."""

        def look() -> str:
            address = self.network.get_public_ip(ocid).data
            return "here" if (address.lifecycle_state, address.assigned_entity_id) == ("ASSIGNED", target) else "away"

        wait_for(look, ["here"], f"the address of {self.name}")
        return self.network.get_public_ip(ocid).data

    def exchange(self, address: Any) -> None:
        self.done.append(f"give back the {address.lifetime.lower()} address {address.ip_address} of {self.name}")
        self.remove(address)

    def remove(self, address: Any) -> None:
        if not self.check:
            delete(self.network.delete_public_ip, address.id)
            wait_for(gone(self.network.get_public_ip, address.id), ["TERMINATED"], f"the address {address.ip_address}")

    def assigned(self, private_ip_id: str) -> Any:
        """The public address that leads to this private one, None where there is none."""
        details = models.GetPublicIpByPrivateIpIdDetails(private_ip_id=private_ip_id)
        try:
            return self.network.get_public_ip_by_private_ip_id(details).data
        except ServiceError as error:
            if error.status == 404:
                return None
            raise

    def absent(self) -> dict[str, Any]:
        """An ephemeral one goes with its instance."""
        for address in self.reserved:
            self.done.append(f"reserved address {address.ip_address}")
            self.remove(address)
        return self.result(self.reserved[0] if self.reserved else None, None)

    def result(self, before: Any, after: Any) -> dict[str, Any]:
        would = (
            "" if after or self.given["state"] == "absent" else f"public address, {self.given['lifetime'].lower()}\n"
        )
        return {
            "changed": bool(self.done),
            "done": self.done,
            "diff": {"before": text(before), "after": text(after) or would},
            "address": after.ip_address if after else None,
        }


def work(module: AnsibleModule, account: Account) -> dict[str, Any]:
    address = PublicIp(module, account)
    return address.present() if module.params["state"] == "present" else address.absent()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "private_ip_id": {"type": "str", "default": ""},
            "lifetime": {"type": "str", "choices": ["RESERVED", "EPHEMERAL"], "default": "RESERVED"},
        },
        supports_check_mode=True,
    )
    run(module, work)


if __name__ == "__main__":
    main()
