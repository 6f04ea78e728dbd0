"""What there is to tell: causes by key, read from the vault, the beats, the alerts and the disk.

Cheap, as the loops look after each of their steps: two folders are listed, and only a file that is new is opened.

| key                     | is so while
| ---                     | ---
| draft NAME, person NAME | that file lies in Pending_Approval/Email, in Needs_Action/Email
| alert KEY               | that alert stands in the state folder; of sync and the mailbox with its kind: `sync refused`
| stopped LOOP            | the loop gives no sign of life
| failing LOOP            | it lives, and has not ended a step well for an hour; not where an alert says why
| disk PATH               | less is free than a twentieth of the disk, and than 1 GiB; or of its inodes
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from cloud_agent import status
from cloud_agent.alerting.ledger import Kind, Told
from cloud_agent.config import Config
from cloud_agent.mail import DRAFT_PREFIX, MAIL_PREFIX, Mail, UnreadableMail, parse
from cloud_agent.state import State
from cloud_agent.vault import INBOX, NEEDS_ACTION, PENDING, ForbiddenPath, Vault

FAILING_SECONDS = 3600.0
LEAST_FREE = 1 << 30  # bytes
LEAST_PART = 20  # a twentieth
HEAD = 65536  # bytes of a note that are read for its header

# What the draft loop's alerts are; those that are not named are notes.
_FAILURES: Mapping[str, Kind] = {"drafting": "failure", "budget": "failure", "vault": "failure", "outage": "outage"}
_OF_DRAFTING = frozenset(_FAILURES)
# Alerts whose message begins with the kind of the failure (docs/operations.md, When it does not sync).
_WITH_KIND = ("sync", "mailbox")
_PATIENT = frozenset(("offline", "busy", "rejected"))


def gather(config: Config, state: State, known: Mapping[str, Told], now: datetime) -> dict[str, Kind]:
    """All causes that are so. `known` are those of the ledger: their files are not opened again."""
    vault = Vault(config.vault_path, config.agent_name)
    noted = status.alerts_of(config, state)
    return {
        **_files(vault, known),
        **_alerts(noted),
        **_loops(config, state, noted, now),
        **_disks((config.vault_path, config.state_path)),
    }


def _files(vault: Vault, known: Mapping[str, Told]) -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    for what, folder, prefix in (("draft", PENDING, DRAFT_PREFIX), ("person", NEEDS_ACTION, MAIL_PREFIX)):
        try:
            names = vault.names(folder)
        except (OSError, ForbiddenPath):
            names = []
        for name in names:
            if name.startswith(prefix) and ".conflict-" not in name:
                key = f"{what} {name}"
                found[key] = known[key].kind if key in known else _kind(vault, folder, name)
    return found


def _kind(vault: Vault, folder: str, name: str) -> Kind:
    if any(map(is_urgent, mails_of(vault, folder, name, HEAD))):
        return "urgent"
    return "draft" if folder == PENDING else "person"


def mails_of(vault: Vault, folder: str, name: str, size: int = -1) -> list[Mail]:
    """The note of that name, and of a draft first the mail that it answers, as far as they can be read."""
    places = [(folder, name)]
    if folder == PENDING:
        mail_name = f"{MAIL_PREFIX}{name.removeprefix(DRAFT_PREFIX)}"
        # It is moved there a moment after its draft is written.
        places = [(vault.in_progress, mail_name), (INBOX, mail_name), *places]
    found = []
    for place, file_name in places:
        with contextlib.suppress(OSError, ForbiddenPath, UnreadableMail):
            with vault.open(f"{place}/{file_name}") as file:
                raw = file.read(size)
            found.append(parse(file_name, raw))
    return found


def is_urgent(mail: Mail) -> bool:
    """As drafting takes it (priority), and as people write it."""
    priority = mail.fields.get("priority", "").strip().lower()
    return priority in ("high", "urgent") or "[urgent]" in mail.subject.lower()


def _alerts(noted: Mapping[str, Mapping[str, Any]]) -> dict[str, Kind]:
    return {f"alert {alert_key(key, noted[key])}": _alert_kind(key, noted[key]) for key in noted}


def alert_key(key: str, alert: Mapping[str, Any]) -> str:
    """An alert's key; another kind of failure is another cause."""
    return f"{key} {_failure(alert)}" if key in _WITH_KIND else key


def _alert_kind(key: str, alert: Mapping[str, Any]) -> Kind:
    if key in _WITH_KIND:
        return "outage" if _failure(alert) in _PATIENT else "failure"
    return _FAILURES.get(key, "note")


def _failure(alert: Mapping[str, Any]) -> str:
    kind, colon, _ = str(alert.get("message", "")).partition(":")
    return kind if colon and len(kind) < 20 else "failed"


def _loops(config: Config, state: State, noted: Mapping[str, Any], now: datetime) -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    explained = {
        "draft": not _OF_DRAFTING.isdisjoint(noted),
        "sync": "sync" in noted,
        "watch": "mailbox" in noted,
    }
    for name, loop in status.judged(status.loops(config, state, now), config).items():
        if not loop["alive"]:
            found[f"stopped {name}"] = "stopped"
        elif loop["result"] != "ok" and not explained.get(name):
            age = status.age(loop["succeeded"] or loop["started"], now)
            if age is not None and age > FAILING_SECONDS:
                found[f"failing {name}"] = "failure"
    return found


def _disks(paths: tuple[Path, ...]) -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            disk = os.statvfs(path)
            if is_nearly_full(disk):
                found.setdefault(f"disk {os.stat(path).st_dev}", "failure")
    return found


def is_nearly_full(disk: os.statvfs_result) -> bool:
    """Whether little is left of a file system for us. Some have no fixed number of inodes, and say 0. Pure."""
    free = disk.f_bavail * disk.f_frsize
    space = free < LEAST_FREE and disk.f_bavail * LEAST_PART < disk.f_blocks
    inodes = disk.f_files > 0 and disk.f_favail * LEAST_PART < disk.f_files
    return space or inodes
