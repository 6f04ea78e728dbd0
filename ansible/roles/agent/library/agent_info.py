#!/usr/bin/python
"""One look at the machine: is everything as it is wanted?"""

from __future__ import annotations

import grp
import hashlib
import pwd
from pathlib import Path

from ansible.module_utils.agent_machine import ECOSYSTEM, FILES, SETTINGS, Machine, PM2Error
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: agent_info
short_description: Look at the releases of the agent, and say what is not as wanted
description:
  - Reads the releases, the links, the files and the lock, and asks PM2 what it runs. Changes nothing.
  - Nothing of it need be there. On a virgin machine everything is a difference, and no error.
options:
  root:
    description: The folder of the agent.
    type: path
    required: true
  user:
    description: The user of the loops.
    type: str
    required: true
  pm2:
    description: The command of PM2.
    type: path
    default: /usr/local/bin/pm2
  release:
    description: The release that is wanted. Without it nothing is compared.
    type: str
  deployment:
    description: The value that CLOUD_AGENT_DEPLOYMENT is to have in the environment of the loops.
    type: str
  settings_checksum:
    description: SHA-256 of the wanted .env.cloud. Its content is never read into a result.
    type: str
  ecosystem_checksum:
    description: SHA-256 of the wanted ecosystem.config.js.
    type: str
  loops:
    description: The names that PM2 has the loops under.
    type: list
    elements: str
    default: []
author: personal-ai-employee
"""

EXAMPLES = r"""
- name: List the releases
  agent_info:
    root: /opt/personal-ai-employee
    user: cloud-agent
"""

RETURN = r"""
releases:
  description: All of them, the oldest first, each with name, built, complete, good and failed (the reason, or empty).
  type: list
  returned: always
current:
  description: The release that is in service, or empty.
  type: str
  returned: always
previous:
  description: The one that was before, or empty.
  type: str
  returned: always
lock:
  description: Who deploys since when, or empty.
  type: str
  returned: always
interrupted:
  description: Whether a run ended in the middle, or could not bring back what was before.
  type: bool
  returned: always
differences:
  description: What is not as wanted, a sentence each. Empty when there is nothing to do.
  type: list
  returned: always
"""


def differences(machine: Machine, wanted: dict) -> list[str]:
    """`wanted` are the options of this module."""
    release = wanted["release"]
    known = {one["name"]: one for one in machine.releases()}
    found = []
    if not known.get(release, {}).get("complete"):
        found.append(f"release {release} is not built")
    elif not known[release]["good"]:
        found.append(f"release {release} has not proven itself")
    current = machine.pointed("current")
    if current != release:
        found.append(f"current is {current or 'no release'}")
    if machine.interrupted():
        found.append("a run was interrupted")
    for name, checksum in ((SETTINGS, wanted["settings_checksum"]), (ECOSYSTEM, wanted["ecosystem_checksum"])):
        owner, mode = FILES[name]
        owner = wanted["user"] if owner == "user" else owner
        found += unlike(machine.root / name, owner, wanted["user"], mode, checksum)
    found += unlike(machine.root / "state", wanted["user"], wanted["user"], 0o750)
    return found + unlike_processes(machine, wanted["loops"], wanted["deployment"])


def unlike(path: Path, owner: str, group: str, mode: int, checksum: str = "") -> list[str]:
    try:
        status = path.stat()
        content = path.read_bytes() if checksum else b""
    except OSError:
        return [f"{path.name} is not there"]
    if checksum and hashlib.sha256(content).hexdigest() != checksum:
        return [f"{path.name} differs"]
    has = (_name(pwd.getpwuid, status.st_uid), _name(grp.getgrgid, status.st_gid), status.st_mode & 0o7777)
    return [] if has == (owner, group, mode) else [f"{path.name} has another owner or mode"]


def _name(look_up, number: int) -> str:
    try:
        return look_up(number)[0]
    except KeyError:
        return str(number)


def unlike_processes(machine: Machine, loops: list[str], deployment: str) -> list[str]:
    try:
        processes = [one for one in machine.processes() if not one["module"]]
    except PM2Error as error:
        return [str(error)]
    found = [f"PM2 runs {one['name']}, which is not in its file" for one in processes if one["name"] not in loops]
    for loop in loops:
        of_loop = [one for one in processes if one["name"] == loop]
        if len(of_loop) != 1:
            found.append(f"PM2 has {loop} {len(of_loop)} times")
        elif of_loop[0]["status"] != "online":
            found.append(f"{loop} is {of_loop[0]['status']}")
        elif of_loop[0]["deployment"] != deployment:
            found.append(f"{loop} runs {of_loop[0]['deployment'] or 'something else'}")
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
            "pm2": {"type": "path", "default": "/usr/local/bin/pm2"},
            "release": {"type": "str"},
            "deployment": {"type": "str"},
            "settings_checksum": {"type": "str"},
            "ecosystem_checksum": {"type": "str"},
            "loops": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    machine = Machine(module.params["root"], module.params["pm2"])
    module.exit_json(
        changed=False,
        releases=machine.releases(),
        current=machine.pointed("current"),
        previous=machine.pointed("previous"),
        lock=machine.lock(),
        interrupted=machine.interrupted(),
        differences=differences(machine, module.params) if module.params["release"] else [],
    )


if __name__ == "__main__":
    main()
