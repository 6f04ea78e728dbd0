#!/usr/bin/python
"""Module for one instance in Oracle Cloud. It runs where Ansible does."""

from __future__ import annotations

import base64
import contextlib
import itertools
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.oracle import (
    ARGUMENTS,
    FREE_MEMORY_GB,
    FREE_OCPUS,
    FREE_VOLUMES_GB,
    TAG,
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
module: oracle_instance
short_description: An instance of the shape VM.Standard.A1.Flex with the newest Ubuntu 22.04
description:
  - Launches it, starts it when it is stopped, and resizes it. A call asks each availability domain once; the action
    plugin of the same name asks again, for C(capacity_patience) seconds.
  - An instance is known by its tag. One that others made is never touched, whatever its name.
options:
  api_key: {description: As in C(~/.oci/config)., type: dict, required: true}
  endpoint: {description: Address of the API, when it is not Oracle's own., type: str, default: ""}
  compartment_id: {description: Empty for the tenancy's root., type: str, default: ""}
  name: {description: Its name and the value of its tag., type: str, required: true}
  state: {description: Whether it is to be there., type: str, choices: [present, absent], default: present}
  known_id: {description: The instance that the last run wrote down. Fails if another lives on., type: str, default: ""}
  subnet_id: {description: Empty in a dry run on an empty account., type: str, default: ""}
  ocpus: {description: How many cores., type: float, default: 1}
  memory_gb: {description: How much memory., type: float, default: 2}
  boot_volume_gb: {description: Size of the disk of a new one., type: int, default: 50}
  ssh_public_key: {description: Lines for C(authorized_keys) of the login user of a new one., type: str, default: ""}
  user_data: {description: For cloud-init of a new one., type: str, default: ""}
  allow_paid: {description: Whether it may be more than Oracle gives for nothing., type: bool, default: false}
"""

RETURN = r"""
done: {description: What was done, in words., type: list, returned: always}
instance_id: {description: None where there is none yet., type: str, returned: always}
private_ip_id: {description: The address that a public one is put on., type: str, returned: when there is an instance}
launched: {description: Whether it was made now., type: bool, returned: always}
out_of_capacity: {description: No availability domain has room for it now. Not a failure., type: bool, returned: always}
domains: {description: What each one said that did not take it., type: dict, returned: always}
"""

SHAPE = "VM.Standard.A1.Flex"
SYSTEM = "Canonical Ubuntu"
VERSION = "22.04"
FULL = "out of capacity"
LACKS_SHAPE = f"no {SHAPE} at all"
CARD_PATIENCE = 120.0  # seconds
AT_REST = ("RUNNING", "STOPPED")
ENDED = ("TERMINATING", "TERMINATED")


def newest(images: Sequence[Any]) -> Any:
    """The image to launch. Raises Problem where there is none.

    An image that the owner made of a machine says Ubuntu 22.04 too, and is not what Canonical published.
    """
    fitting = [
        image
        for image in images
        if (image.operating_system, image.operating_system_version) == (SYSTEM, VERSION) and not image.base_image_id
    ]
    if not fitting:
        raise Problem(
            f"Oracle offers no image of {SYSTEM} {VERSION} for {SHAPE} here. Mend: look under Compute, Custom images,"
            " Platform images whether the region has one, and choose another region if not"
        )
    return max(fitting, key=lambda image: image.time_created)


def is_full(error: Any) -> bool:
    """Whether there is no room in this availability domain now. It comes as an error of the server's."""
    return error.status >= 500 and bool(re.search(r"out of (host )?capacity", str(error.message), re.IGNORECASE))


def lacks_shape(error: Any) -> bool:
    """Whether this availability domain has no such machines at all."""
    return error.status in (400, 404) and bool(
        re.search(r"\bshape\b.*\bnot found\b", str(error.message), re.IGNORECASE)
    )


def beyond(ocpus: float, memory_gb: float, others: Sequence[Any]) -> list[str]:
    """In what this size, together with the other instances, is more than Oracle gives for nothing."""
    shapes = [each.shape_config for each in others if each.shape == SHAPE and each.lifecycle_state not in ENDED]
    used = {
        "OCPU": (FREE_OCPUS, ocpus, sum(shape.ocpus for shape in shapes)),
        "GB of memory": (FREE_MEMORY_GB, memory_gb, sum(shape.memory_in_gbs for shape in shapes)),
    }
    return [
        f"{asked + there:g} {what} ({there:g} of other instances), where {free} are free"
        for what, (free, asked, there) in used.items()
        if asked + there > free
    ]


def beyond_volumes(boot_volume_gb: int, volumes: Sequence[Any]) -> list[str]:
    """Whether the disk, together with all that are there, is more than Oracle gives for nothing."""
    there = sum(volume.size_in_gbs for volume in volumes if volume.lifecycle_state not in ENDED)
    if there + boot_volume_gb <= FREE_VOLUMES_GB:
        return []
    return [
        f"{there + boot_volume_gb} GB of volumes ({there} there already), where {FREE_VOLUMES_GB} are free."
        " (The volume of an instance that is gone may still be there: Storage, Boot volumes; Block volumes)"
    ]


def away(region: str, subscriptions: Sequence[Any]) -> list[str]:
    """Whether the region is another than the account's home, the only one where anything is free."""
    home = next((each for each in subscriptions if each.is_home_region), None)
    if home is None or region.lower() in (home.region_name.lower(), home.region_key.lower()):
        return []
    return [f"a machine in {region}, where only the home region {home.region_name} has free ones"]


def refuse_paid(reasons: Sequence[str]) -> None:
    if reasons:
        raise Problem(
            f"This would be {' and '.join(reasons)}. Mend: ask for less (oracle_instance_ocpus,"
            " oracle_instance_memory_gb, oracle_instance_boot_volume_gb), remove what you do not need, or pay for it:"
            " oracle_allow_paid: true"
        )


def checked_key(text: str) -> str:
    """The login key, which goes into the instance's metadata. Raises Problem for what is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or not all(re.match(r"(ssh|ecdsa|sk)-[\w@.-]+ AAAA[\w+/]+=*( |$)", line) for line in lines):
        raise Problem(
            f"{'There is no key' if not lines else 'oracle_instance_ssh_public_key is no public key'} to log in with."
            " Mend: make a pair (ssh-keygen -t ed25519), and set ansible_ssh_private_key_file to its private half;"
            " the public one beside it (.pub) is taken. Or set oracle_instance_ssh_public_key"
        )
    return "\n".join(lines)


def facts(instance: Any) -> dict[str, Any]:
    """What we decide on, of an instance that is there."""
    return {
        "state": "stopped" if instance.lifecycle_state in ("STOPPED", "STOPPING") else "running",
        "ocpus": instance.shape_config.ocpus,
        "memory_gb": instance.shape_config.memory_in_gbs,
    }


def grows(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return any(after[what] > before[what] for what in ("ocpus", "memory_gb"))


def size(given: dict[str, Any]) -> str:
    return f"{given['ocpus']:g} OCPU and {given['memory_gb']:g} GB of memory"


def text(name: str, fact: dict[str, Any]) -> str:
    """One side of the diff."""
    shown = {key: f"{value:g}" if isinstance(value, float) else value for key, value in fact.items()}
    return "".join([f"instance {name}\n", *(f"  {key}: {value}\n" for key, value in shown.items())]) if fact else ""


def short(domain: str) -> str:
    """A domain's name without what is the account's own: "Uocm:EU-FRANKFURT-1-AD-1" is EU-FRANKFURT-1-AD-1."""
    return domain.rpartition(":")[2]


class Instance:
    """The machine of one name in an account."""

    def __init__(self, module: AnsibleModule, account: Account) -> None:
        self.given = module.params
        self.warn = module.warn
        self.check = module.check_mode
        self.account = account
        self.compute = account.compute
        self.done: list[str] = []
        self.name = self.given["name"]
        self.all = all_pages(self.compute.list_instances, account.compartment_id)
        mine = [each for each in self.all if is_ours(each, self.name)]
        if len(mine) > 1 and self.given["state"] == "present":
            ids = ", ".join(each.id for each in mine)
            raise Problem(f"There are {len(mine)} instances with the tag {TAG}={self.name}: {ids}. Mend: terminate one")
        self.mine = mine
        self.others = [each for each in self.all if each not in mine]
        known = self.given["known_id"]
        if known and known not in [each.id for each in mine]:
            self.not_left_behind(known)

    def not_left_behind(self, known: str) -> None:
        """Raises Problem where the machine of the last run lives on, and the settings say another one now."""
        try:
            instance = self.compute.get_instance(known).data
        except ServiceError as error:
            if error.status != 404:
                raise
            self.warn(
                f"Oracle does not know {known} any more, which the last run wrote down. Did you change account or"
                " region? Then it may live on there."
            )
            return
        if instance.lifecycle_state not in ENDED:
            tag = (instance.freeform_tags or {}).get(TAG, "")
            raise Problem(
                f"The machine of the last run, {known}, lives on: {TAG}={tag} in {instance.compartment_id}. The"
                f" settings say {TAG}={self.name} in {self.account.compartment_id} now, and leave it behind. Mend:"
                " set oracle_instance_name and oracle_compartment_id back to that; or remove it first, with destroy.yml"
                " and the settings set back, and change them then"
            )

    def present(self) -> dict[str, Any]:
        given, mine = self.given, self.mine
        if mine and not self.check:
            # It may be that a run was interrupted while it was launched, and that Oracle took it back since.
            mine = [each for each in [self.settled(mine[0].id, [*AT_REST, *ENDED])] if is_ours(each, self.name)]
        if not mine:
            return self.launch()
        (instance,) = mine
        before = facts(instance)
        after = {"state": "running", "ocpus": given["ocpus"], "memory_gb": given["memory_gb"]}
        if not given["allow_paid"]:
            grow = grows(before, after)
            [others] = self.elsewhere(self.compute.list_instances) if grow else [[]]
            reasons = beyond(given["ocpus"], given["memory_gb"], [*self.others, *others])
            if grow:
                refuse_paid(reasons)
            elif reasons:
                self.warn(f"With {self.name} there are {' and '.join(reasons)}. Oracle may end what is beyond that.")
        if {**before, "state": "running"} != after:
            self.resize(instance, after)
        if before["state"] == "stopped":
            self.done.append(f"start {self.name}")
            if not self.check and not self.started(instance):
                self.done.pop()
                full = {short(instance.availability_domain): FULL}
                stopped = {**after, "state": "stopped"}
                return self.result(before, stopped, instance.id, out_of_capacity=True, domains=full)
        return self.result(before, after, instance.id, private_ip_id=self.private_ip_id(instance.id))

    def started(self, instance: Any) -> bool:
        """Start it. False when Oracle has given its room to others meanwhile."""
        try:
            self.compute.instance_action(instance.id, "START")
        except ServiceError as error:
            if is_full(error):
                return False
            raise
        self.settled(instance.id, ["RUNNING"])
        return True

    def resize(self, instance: Any, wanted: dict[str, Any]) -> None:
        self.done.append(f"resize {self.name} to {size(self.given)}")
        before = facts(instance)
        if before["state"] == "running":
            self.warn(f"Another size restarts {self.name}.")
        if self.check:
            return
        shape = models.UpdateInstanceShapeConfigDetails(ocpus=wanted["ocpus"], memory_in_gbs=wanted["memory_gb"])
        try:
            self.compute.update_instance(instance.id, models.UpdateInstanceDetails(shape_config=shape))
        except ServiceError as error:
            if is_full(error):
                raise Problem(
                    f"Oracle has no room for {self.name} with {size(self.given)} now; it stays as it is. Mend: run"
                    " this again later, or set oracle_instance_ocpus and oracle_instance_memory_gb to what it has"
                ) from None
            raise

        def look() -> str:
            now = self.compute.get_instance(instance.id).data
            # It restarts some seconds after the answer: RUNNING with the old size is not the end.
            return str(now.lifecycle_state) if facts(now) == {**wanted, "state": before["state"]} else "being resized"

        wait_for(look, AT_REST, self.name)

    def launch(self) -> dict[str, Any]:
        given, account = self.given, self.account
        key = checked_key(given["ssh_public_key"])
        if any(each.display_name == self.name for each in self.others if each.lifecycle_state not in ENDED):
            self.warn(f"There is another instance called {self.name}, which this did not make. It is left alone.")
        if not given["allow_paid"]:
            subscriptions = account.identity.list_region_subscriptions(account.tenancy).data
            disks = (account.volumes.list_boot_volumes, account.volumes.list_volumes)
            volumes = [volume for each in disks for volume in all_pages(each, compartment_id=account.compartment_id)]
            instances, *more = self.elsewhere(self.compute.list_instances, *disks)
            reasons = [
                *beyond(given["ocpus"], given["memory_gb"], [*self.others, *instances]),
                *beyond_volumes(given["boot_volume_gb"], [*volumes, *itertools.chain(*more)]),
                *away(account.region, subscriptions),
            ]
            refuse_paid(reasons)
        image = newest(
            all_pages(
                self.compute.list_images,
                account.compartment_id,
                operating_system=SYSTEM,
                operating_system_version=VERSION,
                shape=SHAPE,
                lifecycle_state="AVAILABLE",
            )
        )
        after = {
            "state": "running",
            "ocpus": given["ocpus"],
            "memory_gb": given["memory_gb"],
            "boot_volume_gb": given["boot_volume_gb"],
            "image": image.display_name,
        }
        self.done.append(f"launch {self.name} with {size(given)}, {image.display_name}")
        if self.check:
            return self.result({}, after, None)
        said: dict[str, str] = {}
        for domain in account.identity.list_availability_domains(account.tenancy).data:
            instance, answer = self.launch_in(domain.name, image.id, key)
            if instance:
                self.done[-1] += f", in {short(domain.name)}"
                after["domain"] = short(domain.name)
                ip = self.private_ip_id(instance.id)
                return self.result({}, after, instance.id, private_ip_id=ip, launched=True, domains=said)
            said[short(domain.name)] = answer
        if FULL not in said.values():
            raise Problem(f"No availability domain of {account.region} has {SHAPE}. Mend: choose another region")
        self.done.clear()
        return self.result({}, {}, None, out_of_capacity=True, domains=said)

    def elsewhere(self, *listings: Callable[..., Any]) -> list[list[Any]]:
        """What each of these lists in the account's other compartments: what is free is so once for all of them.

        As far as this user may see it; the rest is told.
        """
        account = self.account
        below = all_pages(
            account.identity.list_compartments,
            account.tenancy,
            compartment_id_in_subtree=True,
            access_level="ACCESSIBLE",
            lifecycle_state="ACTIVE",
        )
        names = {account.tenancy: "the root compartment", **{each.id: each.name for each in below}}
        names.pop(account.compartment_id, None)
        found: list[list[Any]] = [[] for _ in listings]
        unseen = []
        for ocid, name in names.items():
            try:
                for there, listed in zip(found, listings, strict=True):
                    there.extend(all_pages(listed, compartment_id=ocid))
            except ServiceError as error:
                if error.status != 404:
                    raise
                unseen.append(name)
        if unseen:
            self.warn(
                f"What is in {', '.join(unseen)} is not counted, for this user may not see it. Is it more than what is"
                " left of the free allowance, Oracle refuses the machine, or sells it."
            )
        return found

    def launch_in(self, domain: str, image_id: str, key: str) -> tuple[Any, str]:
        """The instance, or None and what the domain said.

        When the answer is lost, the SDK asks again with the same retry token, for which Oracle makes no second one.
        """
        given = self.given
        metadata = {"ssh_authorized_keys": key}
        if given["user_data"]:
            metadata["user_data"] = base64.b64encode(given["user_data"].encode()).decode()
        details = models.LaunchInstanceDetails(
            availability_domain=domain,
            compartment_id=self.account.compartment_id,
            display_name=self.name,
            freeform_tags=tags(self.name),
            shape=SHAPE,
            shape_config=models.LaunchInstanceShapeConfigDetails(
                ocpus=given["ocpus"], memory_in_gbs=given["memory_gb"]
            ),
            source_details=models.InstanceSourceViaImageDetails(
                image_id=image_id, boot_volume_size_in_gbs=given["boot_volume_gb"]
            ),
            # The public address is a resource of its own, so that it can outlive the instance.
            create_vnic_details=models.CreateVnicDetails(
                subnet_id=given["subnet_id"],
                assign_public_ip=False,
                display_name=self.name,
                freeform_tags=tags(self.name),
            ),
            metadata=metadata,
        )
        try:
            instance = self.compute.launch_instance(details).data
        except ServiceError as error:
            if is_full(error):
                return None, FULL
            if lacks_shape(error):
                return None, LACKS_SHAPE
            raise
        instance = self.settled(instance.id, ["RUNNING", *ENDED])
        # Taken at first and then given up, it is nothing else than no room.
        return (instance, "") if instance.lifecycle_state == "RUNNING" else (None, FULL)

    def absent(self) -> dict[str, Any]:
        before = facts(self.mine[0]) if self.mine else {}
        for instance in self.mine:
            self.done.append(f"instance {self.name} ({instance.id}), with its boot volume")
            if not self.check:
                delete(self.compute.terminate_instance, instance.id, preserve_boot_volume=False)
        if not self.check:
            # Those too that an earlier run sent away and did not see go: the network cannot be removed before.
            for instance in self.all:
                if (instance.freeform_tags or {}).get(TAG) == self.name:
                    wait_for(gone(self.compute.get_instance, instance.id), ["TERMINATED"], self.name)
        return self.result(before, {}, None)

    def settled(self, ocid: str, states: Collection[str]) -> Any:
        """The instance, as soon as it is in one of the states."""
        latest: list[Any] = []

        def look() -> str:
            latest[:] = [self.compute.get_instance(ocid).data]
            return str(latest[0].lifecycle_state)

        wait_for(look, states, self.name)
        return latest[0]

    def private_ip_id(self, ocid: str) -> str | None:
        """The primary private address, to which a public one is assigned. None in a dry run while it is launched.

        Oracle may tell its network card some moments after it runs.
        """
        found: list[str | None] = []

        def look() -> str:
            found[:] = [self.primary_address(ocid)]
            return "there" if found[0] or self.check else "without a private address"

        wait_for(look, ["there"], self.name, CARD_PATIENCE)
        return found[0]

    def primary_address(self, ocid: str) -> str | None:
        attached = all_pages(self.compute.list_vnic_attachments, self.account.compartment_id, instance_id=ocid)
        for vnic in attached:
            # Somebody may have added a card: it has a primary address of its own, and comes first in the list.
            if vnic.lifecycle_state == "ATTACHED" and self.account.network.get_vnic(vnic.vnic_id).data.is_primary:
                for address in all_pages(self.account.network.list_private_ips, vnic_id=vnic.vnic_id):
                    if address.is_primary:
                        return str(address.id)
        return None

    def result(self, before: dict[str, Any], after: dict[str, Any], ocid: str | None, **more: Any) -> dict[str, Any]:
        return {
            "changed": bool(self.done),
            "done": self.done,
            "diff": {"before": text(self.name, before), "after": text(self.name, after)},
            "instance_id": ocid,
            "private_ip_id": None,
            "launched": False,
            "out_of_capacity": False,
            "domains": {},
            **more,
        }


def work(module: AnsibleModule, account: Account) -> dict[str, Any]:
    instance = Instance(module, account)
    return instance.present() if module.params["state"] == "present" else instance.absent()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "known_id": {"type": "str", "default": ""},
            "subnet_id": {"type": "str", "default": ""},
            "ocpus": {"type": "float", "default": 1},
            "memory_gb": {"type": "float", "default": 2},
            "boot_volume_gb": {"type": "int", "default": 50},
            "ssh_public_key": {"type": "str", "default": "", "no_log": False},
            "user_data": {"type": "str", "default": ""},
            "allow_paid": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    run(module, work)


if __name__ == "__main__":
    main()
