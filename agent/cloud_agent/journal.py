"""What Cloud tells: the owner on the Dashboard, and for the record as JSON lines in `Logs/Cloud/`.

All of this writes to the working tree: the caller holds the tree lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from cloud_agent import audit, dashboard
from cloud_agent.mail import decode, encode, shown
from cloud_agent.state import Clock, State, iso
from cloud_agent.vault import AUDIT, ForbiddenPath, Vault

log = logging.getLogger("cloud_agent.journal")

MAX_FIELD = 2000  # characters: whoever writes a mail writes its subject and its addresses


class Journal:
    """Writes for one agent. `log` names the file: `audit` for intake and drafting, `sync` for the git loop, `mail` for
    the mailbox."""

    def __init__(self, vault: Vault, agent: str, log: str, clock: Clock, state: State | None = None) -> None:
        self.vault = vault
        self.agent = agent
        self.log = log
        self.clock = clock
        self.state = state
        self._head = ""  # the last line's hash; another process may have written since

    def tell(self, entry: str) -> None:
        """Put a line, markdown, at the top of the Dashboard's Updates. A broken Dashboard holds nothing up."""
        line = f"{iso(self.clock())} {shown(entry)}"
        self._change_dashboard(lambda text: dashboard.add_entries(text, [line]), line)

    def told(self, words: str) -> bool:
        """Whether the Dashboard says so; not, where it cannot be read."""
        try:
            return words in self.vault.read_text(dashboard.PATH)
        except (OSError, ForbiddenPath):
            return False

    def spend(self, line: str) -> None:
        """Have the Dashboard say what Claude costs: the agent's one `dashboard.spend_line`, written when it changes."""
        self._change_dashboard(lambda text: dashboard.set_spend(text, line), line)

    def _change_dashboard(self, change: Callable[[str], str], what: str) -> None:
        try:
            try:
                text = decode(self.vault.read(dashboard.PATH))
            except FileNotFoundError:
                text = ""
            changed = change(text)
            if changed != text:
                self.vault.replace(dashboard.PATH, encode(changed))
        except (OSError, ForbiddenPath) as error:
            log.error("Dashboard.md cannot be written (%s): make it a file again; it would say: %s", error, what)

    def record(
        self,
        action: str,
        target: str,
        *,
        result: str = "success",
        approval_status: str = "",
        approved_by: str = "",
        **parameters: str,
    ) -> None:
        """Append one decision, a file a month, chained to this agent's line before (audit.py). Raises OSError.

        `result` is `success` or `failure`; `approval_status` is `approved` or `rejected` of a draft that was decided,
        and `approved_by` says by whom.
        """
        now = self.clock()
        line = {
            "timestamp": iso(now),
            "action_type": action,
            "actor": self.agent,
            "target": _field(target),
            "parameters": {key: _field(value) for key, value in parameters.items()},
            "approval_status": approval_status,
            "approved_by": approved_by,
            "result": result,
        }
        known = self._head or (self.state.head(self.log, self.agent) if self.state is not None else "")
        prev = audit.head(self.vault, self.log, self.agent, known, thorough=not self._head)
        content, digest = audit.seal(line, prev)
        self.vault.append(self._path(now), content)
        self._head = digest
        if self.state is not None:
            try:
                self.state.keep_head(self.log, self.agent, digest, f"{now:%Y-%m}")
            except OSError as error:  # the next record finds its place in the log all the same
                log.error("the head of the %s log cannot be kept: %s", self.log, error)

    def path(self) -> str:
        """This month's file."""
        return self._path(self.clock())

    def _path(self, moment: datetime) -> str:
        return f"{AUDIT}/{self.log}-{moment:%Y-%m}.jsonl"


def _field(text: str) -> str:
    text = shown(text)
    return text if len(text) <= MAX_FIELD else text[: MAX_FIELD - 1] + "…"
