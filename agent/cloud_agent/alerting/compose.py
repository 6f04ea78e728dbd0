"""What one message says: reads the notes, alerts and beats that its causes stand for. For the process that sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cloud_agent import approval, status
from cloud_agent.alerting import text
from cloud_agent.alerting.facts import alert_key, mails_of
from cloud_agent.alerting.ledger import Delivery, Ledger
from cloud_agent.alerting.text import Message, counted, harmless
from cloud_agent.config import Config
from cloud_agent.mail import DRAFT_PREFIX, Mail, decode, read_note
from cloud_agent.state import State, iso
from cloud_agent.vault import NEEDS_ACTION, PENDING, ForbiddenPath, Vault

LONGEST_NOTE = 1_000_000  # bytes that are read of one
# What the loops are called where people see them: in words, and by PM2.
LOOPS = {
    "draft": ("drafting", "cloud_orchestrator"),
    "sync": ("sync", "git_sync_cloud"),
    "watch": ("the mail watcher", "mail_watcher"),
}

# What fails, where an alert's message begins with the kind of the failure alone.
ALERTS = {"sync": "The vault is not synced: ", "mailbox": "Mail is not fetched: "}


def compose(delivery: Delivery, ledger: Ledger, config: Config, state: State, now: datetime) -> Message:
    """The message of a delivery. What went away meanwhile is left out."""
    keys = list(delivery.keys)
    if delivery.digest:  # what was told before, too
        causes = ledger.causes.items()
        told_before = [key for key, told in causes if told.gone is None and told.told.get(delivery.channel, 0) > 0]
        keys += [key for key in told_before if key not in keys]
    desk = _Desk(config, state, ledger, now)
    by_what: dict[str, list[str]] = {}
    for key in keys:
        by_what.setdefault(key.partition(" ")[0], []).append(key.partition(" ")[2])
    urgent = sum(1 for key in keys if key in ledger.causes and ledger.causes[key].kind == "urgent")
    parts: list[tuple[str, list[str]]] = [("URGENT", [])] if urgent and not delivery.digest else []
    troubles = [line for what in desk.troubles for name in by_what.get(what, ()) for line in desk.troubles[what](name)]
    if troubles:
        parts.append((counted(len(troubles), "fault", "faults") if len(troubles) > 1 else "a fault", troubles))
    drafts = desk.items(PENDING, by_what.get("draft", []))
    if drafts:
        parts.append((counted(len(drafts), "draft waits", "drafts wait"), drafts))
    persons = desk.items(NEEDS_ACTION, by_what.get("person", []))
    if persons:
        parts.append((counted(len(persons), "mail needs", "mails need") + " a person", persons))
    below = []
    if delivery.digest:
        report = status.render(status.collect(config, now)).splitlines()
        below = [harmless(line, 300) for line in report if not line.startswith("  told:")]
    return text.message(f"{config.agent_name}{' (digest)' if delivery.digest else ''}", parts, below)


class _Desk:
    """What the causes stand for. `troubles`: the first word of a key -> its lines."""

    def __init__(self, config: Config, state: State, ledger: Ledger, now: datetime) -> None:
        self.config = config
        self.ledger = ledger
        self.vault = Vault(config.vault_path, config.agent_name)
        self.noted = {alert_key(key, alert): alert for key, alert in status.alerts_of(config, state).items()}
        self.loops = status.loops(config, state, now)
        self.body = config.alerts is not None and config.alerts.body
        self.troubles: Mapping[str, Callable[[str], list[str]]] = {
            "stopped": self._stopped,
            "failing": self._failing,
            "alert": self._alert,
            "disk": lambda _: ["• The disk is nearly full: free some space (agent status, docs/operations.md)"],
            "channel": self._channel,
        }

    def items(self, folder: str, names: list[str]) -> list[str]:
        """Urgent ones first. Only those that may be shown are read."""
        what = "draft" if folder == PENDING else "person"
        names = sorted(names, key=lambda name: (self._is_waiting(what, name), self._since(what, name)))
        made = [self._item(folder, name) for name in names[: text.MOST + 1]]
        return [*made, *names[text.MOST + 1 :]]

    def _is_waiting(self, what: str, name: str) -> bool:
        told = self.ledger.causes.get(f"{what} {name}")
        return told is None or told.kind != "urgent"

    def _since(self, what: str, name: str) -> datetime:
        told = self.ledger.causes.get(f"{what} {name}")
        return told.since if told is not None else datetime.max

    def _item(self, folder: str, name: str) -> str:
        mails = mails_of(self.vault, folder, name, LONGEST_NOTE)
        if folder == PENDING:
            return self._draft(name, mails)
        if not mails:
            return f"• {harmless(name, text.SUBJECT)}"
        mail = mails[0]
        body = mail.content.text if self.body else ""
        return text.item(text.sender(mail), mail.subject, mail.fields.get("reason", ""), body)

    def _draft(self, name: str, mails: list[Mail]) -> str:
        try:
            note = decode(self.vault.read(f"{PENDING}/{name}"))
            fields, _ = read_note(note.encode("utf-8", "surrogateescape"))
        except (OSError, ForbiddenPath):
            return f"• {harmless(name.removeprefix(DRAFT_PREFIX), text.SUBJECT)}"
        body = approval.reply_of(note) if self.body else ""
        reason = fields.get("reason", "")
        flagged = "" if fields.get("flags", "[]").strip() in ("", "[]") else " (flagged: read it with care)"
        answered = [mail for mail in mails if mail.sender and not mail.fields.get("draft_id")]
        who = text.sender(answered[0]) if answered else f"to {harmless(fields.get('to', ''), text.SENDER)}"
        return text.item(who, (answered or mails)[0].subject if mails else "", f"{reason}{flagged}", body)

    def _stopped(self, name: str) -> list[str]:
        words, process = LOOPS.get(name, (name, name))
        last = self.loops.get(name, {}).get("finished")
        since = f"no sign of life since {harmless(str(last), 40)}" if last else "it has not run yet"
        return [f"• {words[:1].upper()}{words[1:]} has stopped, {since}: look at pm2 list, pm2 logs {process}"]

    def _failing(self, name: str) -> list[str]:
        words, process = LOOPS.get(name, (name, name))
        loop: Mapping[str, Any] = self.loops.get(name, {})
        last, said = loop.get("succeeded") or "it began", harmless(str(loop.get("message", "")), text.REASON)
        return [f"• {words[:1].upper()}{words[1:]} has not gone well since {last}: {said or f'see pm2 logs {process}'}"]

    def _alert(self, key: str) -> list[str]:
        alert = self.noted.get(key)
        if alert is None:
            return []
        words = next((words for what, words in ALERTS.items() if key.startswith(f"{what} ")), "")
        return [f"• {words}{harmless(str(alert.get('message', '')), 300)}"]

    def _channel(self, name: str) -> list[str]:
        channel = self.ledger.channels.get(name)
        if channel is None:
            return []
        since = iso(channel.since) if channel.since is not None else "a while"
        return [f"• You cannot be told by {name} since {since}: {channel.error}; then agent alert --test"]
