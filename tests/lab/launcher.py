"""What the stand-in of Oracle's API launches in the lab "oracle": the lab's machines, as bare as any of Oracle's image.

An instance is the target of its name. Only the key of the launch gets in, and its host keys are told by its console.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from tests.lab import images
from tests.lab.host import LabError
from tests.lab.lab import LOGIN_USER, Lab
from tests.lab.podman import Machine


class Machines:
    """See Launcher in tests/standins/oracle_api.py. `instance` is Oracle's JSON."""

    def __init__(self) -> None:
        self.lab = Lab("oracle")
        self.consoles: dict[str, str] = {}

    def boot(self, instance: dict[str, Any]) -> None:
        """Start the container; what cloud-init does comes after, as on a machine that is RUNNING for Oracle."""
        machine = self.machine(instance)
        machine.start()
        threading.Thread(target=self._set_up, args=(machine, instance), daemon=True).start()

    def console(self, instance: dict[str, Any]) -> str:
        return self.consoles.get(instance["id"], "")

    def terminate(self, instance: dict[str, Any]) -> None:
        self.machine(instance).remove()

    def machine(self, instance: dict[str, Any]) -> Machine:
        name = instance["displayName"]
        if name not in self.lab.definition.targets:
            raise LabError(f"the lab has no machine {name!r}, only {', '.join(self.lab.definition.targets)}")
        return self.lab.machine(name, images.base())

    def _set_up(self, machine: Machine, instance: dict[str, Any]) -> None:
        """What cloud-init does on Oracle's image, in its order."""
        machine.wait_until_booted()
        machine.write(
            f"/home/{LOGIN_USER}/.ssh/authorized_keys",
            instance["metadata"]["ssh_authorized_keys"] + "\n",
            mode="600",
            owner=LOGIN_USER,
            group=LOGIN_USER,
        )
        keys = machine.run(["sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"]).stdout
        self.consoles[instance["id"]] = console(keys, machine.alias, datetime.now(UTC))


def console(public_keys: str, name: str, now: datetime) -> str:
    """The end of what a serial console shows, from cloud-init 23.1 on Ubuntu 22.04 (its write-ssh-key-fingerprints)."""
    stamp = f"<14>{now:%b %d %H:%M:%S} cloud-init:"
    return "\r\n".join(
        [
            f"[   21.103951] cloud-init[1023]: Cloud-init v. 23.1.2 running 'modules:final' at {now:%c}",
            "ci-info: no authorized SSH keys fingerprints found for user opc.",
            f"{stamp} #############################################################",
            f"{stamp} -----BEGIN SSH HOST KEY FINGERPRINTS-----",
            f"{stamp} -----END SSH HOST KEY FINGERPRINTS-----",
            f"{stamp} #############################################################",
            "-----BEGIN SSH HOST KEY KEYS-----",
            *public_keys.splitlines(),
            "-----END SSH HOST KEY KEYS-----",
            f"[   21.411377] cloud-init[1023]: Cloud-init v. 23.1.2 finished at {now:%c}",
            "",
            f"{name} login: ",
        ]
    )
