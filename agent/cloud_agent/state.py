"""The state folder beside the vault: a cache. Deleting it loses nothing and drafts nothing twice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cloud_agent.vault import lock, write_whole

Result = Literal["ok", "later", "failed"]
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the state folder; an absent or broken one is empty."""
    try:
        loaded = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


class State:
    """Beats, alerts and tries of one agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def tree_lock(self) -> Path:
        """Orders the two loops' writes to the working tree. Never held across the network or a call to Claude."""
        return self.folder / "tree.lock"

    def process_lock(self, loop: str) -> Path:
        """One draft pass, one sync cycle at a time, also when a person starts another by hand."""
        return self.folder / f"{loop}.lock"

    @property
    def renewed_token(self) -> Path:
        """Where `watch` keeps a refresh token that the provider gave instead of the one in the settings."""
        return self.folder / "watch-oauth.json"

    def beat(self, loop: str, cycle: int, started: datetime, finished: datetime, result: Result, **more: Any) -> None:
        """Rewrite `<loop>.json` whole; `succeeded`, the last success, is carried on."""
        earlier = self.read_beat(loop)
        beat = {
            "pid": os.getpid(),
            "cycle": cycle,
            "started": iso(started),
            "finished": iso(finished),
            "result": result,
            "succeeded": iso(finished) if result == "ok" else earlier.get("succeeded", ""),
            **more,
        }
        write_whole(self.folder / f"{loop}.json", json.dumps(beat, indent=1).encode() + b"\n")

    def read_beat(self, loop: str) -> dict[str, Any]:
        return read_json(self.folder / f"{loop}.json")

    def alerts(self) -> dict[str, dict[str, str]]:
        """Alert key -> {"message", "since"}."""
        return read_json(self.folder / "alerts.json")

    def raise_alert(self, key: str, message: str, now: datetime) -> bool:
        """Note an alert; True when it is new, so that its cause is told once."""
        with self._alerts_lock():
            alerts = self.alerts()
            if alerts.get(key, {}).get("message") == message:
                return False
            alerts[key] = {"message": message, "since": iso(now)}
            self._write_alerts(alerts)
        return True

    def clear_alert(self, key: str) -> bool:
        """True when there was such an alert."""
        with self._alerts_lock():
            alerts = self.alerts()
            if alerts.pop(key, None) is None:
                return False
            self._write_alerts(alerts)
        return True

    def _alerts_lock(self) -> AbstractContextManager[None]:
        return lock(self.folder / "alerts.lock")  # both loops write them

    def _write_alerts(self, alerts: dict[str, dict[str, str]]) -> None:
        write_whole(self.folder / "alerts.json", json.dumps(alerts, indent=1).encode() + b"\n")

    def heads(self, log: str) -> dict[str, Any]:
        """What is remembered of a log: actor -> {"hash" of its last line, "month" of that, "first" hash by month}."""
        return read_json(self.folder / f"head-{log}.json")

    def head(self, log: str, actor: str) -> str:
        """The hash of the actor's last line, "" where none is remembered."""
        kept = self.heads(log).get(actor)
        digest = kept.get("hash") if isinstance(kept, dict) else None
        return digest if isinstance(digest, str) else ""

    def keep_head(self, log: str, actor: str, digest: str, month: str) -> None:
        """Remember one more line, its actor's last. The caller holds the tree lock."""
        heads = self.heads(log)
        kept = heads.get(actor)
        first = kept.get("first") if isinstance(kept, dict) else None
        first = {month: digest, **first} if isinstance(first, dict) else {month: digest}
        heads[actor] = {"hash": digest, "month": month, "first": first}
        write_whole(self.folder / f"head-{log}.json", json.dumps(heads, indent=1).encode() + b"\n")

    def count_try(self, key: str) -> int:
        """Count a failed try of a mail and return how many there were."""
        tries = read_json(self.folder / "tries.json")
        tries[key] = int(tries.get(key, 0)) + 1
        write_whole(self.folder / "tries.json", json.dumps(tries).encode())
        return int(tries[key])

    def forget_tries(self, key: str) -> None:
        tries = read_json(self.folder / "tries.json")
        if tries.pop(key, None) is not None:
            write_whole(self.folder / "tries.json", json.dumps(tries).encode())
