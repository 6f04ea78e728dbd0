#!/usr/bin/python
"""Module that reads an instance's SSH host keys from its console, over the API. It runs where Ansible does."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.oracle import ARGUMENTS, Account, Problem, delete, explain, run, tags, wait_for

with contextlib.suppress(ImportError):  # run() tells that it is missing
    from oci.core import models
    from oci.exceptions import ServiceError

DOCUMENTATION = r"""
module: oracle_host_keys
short_description: The SSH host keys that an instance printed on its console
description:
  - cloud-init prints them when a new machine starts. There they are read over Oracle's API, with TLS and the account's
    key, and nobody who answers at the machine's address has to be believed.
  - Waits for them. Nothing is changed; the capture of the console is removed again.
options:
  api_key: {description: As in C(~/.oci/config)., type: dict, required: true}
  endpoint: {description: Address of the API, when it is not Oracle's own., type: str, default: ""}
  compartment_id: {description: Empty for the tenancy's root., type: str, default: ""}
  name: {description: The instance's name., type: str, required: true}
  instance_id: {description: The instance., type: str, required: true}
"""

RETURN = r"""
host_keys: {description: "Type and key, each. None in a dry run.", type: list, returned: always}
"""

# As much as Oracle keeps. The default is the first ten kilobytes, where the keys are not.
CONSOLE_BYTES = 1024 * 1024
PATIENCE = 900  # seconds, for a new machine to come so far
PAUSE = 10.0
BLOCK = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
# The console may show a line once as it is, and once as systemd passes it on. After the key stands root@host.
LINE = re.compile(r"(?:\[ *\d+\.\d+\] cloud-init\[\d+\]: )?([a-z0-9-]+) (AAAA[A-Za-z0-9+/]+={0,2})(?: [\w.@-]+)?")
# Type -> of how many fields its public key consists. sshd's other kinds are of no use for known_hosts.
FIELDS = {
    "ssh-ed25519": 2,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "ssh-rsa": 3,
}


def host_keys(console: str) -> list[str]:
    """The keys of the last complete block on the console, without what stands around them."""
    blocks = BLOCK.findall(console)
    lines = [LINE.fullmatch(line.strip()) for line in blocks[-1].splitlines()] if blocks else []
    keys = [f"{line[1]} {line[2]}" for line in lines if line and is_key(line[1], line[2])]
    return list(dict.fromkeys(keys))


def is_key(kind: str, encoded: str) -> bool:
    """Whether it is a whole key of the type that it says. A message of the kernel's may have torn the line."""
    try:
        rest = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    fields = []
    while rest:
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + length:
            return False
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return len(fields) == FIELDS.get(kind) and fields[0] == kind.encode()


def console(account: Account, name: str, instance_id: str) -> str:
    """The instance's console, as far as Oracle keeps it."""
    compute = account.compute
    details = models.CaptureConsoleHistoryDetails(instance_id=instance_id, display_name=name, freeform_tags=tags(name))
    try:
        capture = compute.capture_console_history(details).data
    except ServiceError as error:
        if error.status not in (400, 404, 409):
            raise
        raise Problem(
            f"{explain(error)} Or else: Oracle's manual has one make a console connection first (its page:"
            " Console connection, Create local connection, with any public key); then run this again"
        ) from None
    try:
        state = wait_for(
            lambda: str(compute.get_console_history(capture.id).data.lifecycle_state),
            ["SUCCEEDED", "FAILED"],
            f"the capture of the console of {name}",
        )
        if state == "FAILED":
            raise Problem(f"Oracle could not capture the console of {name}. Mend: run this again")
        content = compute.get_console_history_content(capture.id, length=CONSOLE_BYTES).data
    finally:
        delete(compute.delete_console_history, capture.id)
    return content.decode(errors="replace") if isinstance(content, bytes) else str(content)


def work(module: AnsibleModule, account: Account) -> dict[str, Any]:
    if module.check_mode:  # a capture is something new in the account, though not for long
        return {"changed": False, "host_keys": []}
    name, instance_id = module.params["name"], module.params["instance_id"]
    deadline = time.monotonic() + PATIENCE
    while not (keys := host_keys(console(account, name, instance_id))):
        if time.monotonic() > deadline:
            raise Problem(
                f"{name} shows no SSH host keys on its console; Oracle keeps the last megabyte of it. Mend: compare by"
                " hand. On the instance's page in Oracle's console open Console connection, Launch Cloud Shell"
                " connection, and restart the machine; what it prints is to have no error. Then compare the SHA256 in"
                ' its block "SSH HOST KEY FINGERPRINTS", or, in a session that you trust, that of'
                " `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`, with `ssh-keyscan -t ed25519 ADDRESS |"
                " ssh-keygen -lf -`, and if they agree set oracle_instance_host_keys to type and key of that line of"
                " ssh-keyscan. If there is nothing to compare with, terminate the machine and let this make another"
            )
        time.sleep(PAUSE)
    return {"changed": False, "host_keys": keys}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **{name: option for name, option in ARGUMENTS.items() if name != "state"},
            "instance_id": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    run(module, work)


if __name__ == "__main__":
    main()
