#!/usr/bin/python
"""Module that looks at a machine. Runs there: Python 3.8 and newer, standard library."""

from __future__ import annotations

import os
import platform
import shutil
import time

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: machine_facts
short_description: What the playbooks want to know of a machine
description:
  - In the place of C(setup), which takes a second longer and does not say how much room there is.
options:
  path:
    description: Where there has to be room. It need not exist yet.
    type: path
    required: true
"""

RETURN = r"""
ansible_facts: {description: Some, under the names that setup gives them., type: dict, returned: always}
free_mb: {description: Room for files, in MiB., type: int, returned: always}
memory_mb: {description: All memory, in MiB., type: int, returned: always}
epoch: {description: The machine's clock, in seconds., type: int, returned: always}
"""

# Facts have the names that os-release(5) has in other words.
NAMES = {"debian": "Debian", "ubuntu": "Ubuntu"}


def os_release(text: str) -> dict:
    """The fields of os-release(5)."""
    lines = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name: value.strip("'\"") for name, _, value in lines}


def memory_mb(meminfo: str) -> int:
    return next((int(line.split()[1]) // 1024 for line in meminfo.splitlines() if line.startswith("MemTotal:")), 0)


def read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def main() -> None:
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    path = module.params["path"]
    while not os.path.exists(path):
        path = os.path.dirname(path)
    release = os_release(read("/etc/os-release"))
    module.exit_json(
        changed=False,
        ansible_facts={
            "distribution": NAMES.get(release.get("ID", ""), release.get("NAME", "an unknown system")),
            "distribution_version": release.get("VERSION_ID", ""),
            "distribution_release": release.get("VERSION_CODENAME", ""),
            "architecture": platform.machine(),
            "env": {name: os.environ[name] for name in ("SUDO_USER",) if name in os.environ},
        },
        free_mb=shutil.disk_usage(path).free >> 20,
        memory_mb=memory_mb(read("/proc/meminfo")),
        epoch=int(time.time()),
    )


if __name__ == "__main__":
    main()
