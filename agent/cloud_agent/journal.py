"""What Cloud tells: the owner on the Dashboard, and for the record as JSON lines in `Logs/Cloud/`.

All of this writes to the working tree: the caller holds the tree lock.
"""

from __future__ import annotations

import json
import logging

from cloud_agent import dashboard
from cloud_agent.mail import decode, encode, shown
from cloud_agent.state import Clock, iso
from cloud_agent.vault import AUDIT, ForbiddenPath, Vault

log = logging.getLogger("cloud_agent.journal")


class Journal:
    """Writes for one agent. `log` names the file: `audit` for drafting, `sync` for the git loop."""

    def __init__(self, vault: Vault, agent: str, log: str, clock: Clock) -> None:
        self.vault = vault
        self.agent = agent
        self.log = log
        self.clock = clock

    def tell(self, entry: str) -> None:
        """Put a line, markdown, at the top of the Dashboard's Updates. A broken Dashboard holds nothing up."""
        try:
            try:
                text = decode(self.vault.read(dashboard.PATH))
            except FileNotFoundError:
                text = ""
            changed = dashboard.add_entries(text, [f"{iso(self.clock())} {shown(entry)}"])
            if changed != text:
                self.vault.replace(dashboard.PATH, encode(changed))
        except (OSError, ForbiddenPath) as error:
            log.error("Dashboard.md cannot be written (%s): make it a file again; it would say: %s", error, entry)

    def record(self, action: str, target: str, **parameters: str) -> None:
        """Append one decision, a file a month."""
        line = {
            "timestamp": iso(self.clock()),
            "actor": self.agent,
            "action_type": action,
            "target": shown(target),
            "parameters": {key: shown(value) for key, value in parameters.items()},
        }
        content = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        self.vault.append(self.path(), content)

    def path(self) -> str:
        """This month's file."""
        return f"{AUDIT}/{self.log}-{self.clock():%Y-%m}.jsonl"
