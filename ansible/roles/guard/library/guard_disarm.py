#!/usr/bin/python
"""Keeps a guarded change, once a new login was proven."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.guard import disarm

DOCUMENTATION = """
module: guard_disarm
short_description: Keep a guarded change
description:
  - Takes away the undo that a module armed before it changed what could lock out.
  - Fails when the undo came first.
options:
  name:
    description: Name of the undo.
    type: str
    required: true
  seconds:
    description: After how many seconds the undo was to come, for the message.
    type: int
    required: true
author: [personal-ai-employee]
"""

EXAMPLES = """
- guard_disarm:
    name: firewall
    seconds: 60
"""

RETURN = """ # """


def main() -> None:
    options = {"name": {"type": "str", "required": True}, "seconds": {"type": "int", "required": True}}
    module = AnsibleModule(options)
    name, seconds = module.params["name"], module.params["seconds"]
    if not disarm(module, name):
        module.fail_json(
            msg=f"The change of {name} was proven too late: it took more than {seconds} s, and the machine has undone "
            f"it. Mend: run it again with more time: --extra-vars guard_seconds={seconds * 4}"
        )
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
