"""`cloud-agent status`: is the agent healthy, what waits, what was spent."""

from __future__ import annotations

import contextlib
import os
import signal
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

from cloud_agent import audit, usage
from cloud_agent.config import Config
from cloud_agent.state import State
from cloud_agent.vault import INBOX, LOCAL, NEEDS_ACTION, PENDING, Vault, lock

# A beat may be late by one more interval and the longest step before the loop counts as not living.
_GRACE_SECONDS = 180.0


def collect(config: Config, now: datetime) -> dict[str, Any]:
    """Everything `status` shows, ready for JSON. `healthy` is what the exit status says."""
    vault = Vault(config.vault_path, config.agent_name)
    state = State(config.state_path)
    loops = {
        name: _loop(name, state.read_beat(name), interval, now)
        for name, interval in (("draft", config.draft_interval_seconds), ("sync", config.sync_interval_seconds))
    }
    # On the owner's own machine nothing need draft.
    judged = [loop for name, loop in loops.items() if loop["finished"] or config.agent_name != LOCAL or name == "sync"]
    last_sync = loops["sync"].get("succeeded") or None
    checked = _audit(vault, state, now)
    alerts = [{"key": key, **alert} for key, alert in sorted(state.alerts().items())]
    return {
        "healthy": all(loop["alive"] and loop["result"] == "ok" for loop in judged)
        and not alerts
        and not checked.fault,
        "loops": loops,
        "queues": {
            "inbox": len([name for name in vault.names(INBOX) if name.startswith("EMAIL_")]),
            "in_progress": len(vault.names(vault.in_progress)),
            "pending_approval": len(vault.names(PENDING)),
            "needs_action": len(vault.names(NEEDS_ACTION)),
        },
        "last_sync": last_sync,
        "last_sync_age_seconds": _age(last_sync, now),
        **_spend(config, vault, now.date()),
        "alerts": alerts,
        "audit": {"entries": checked.entries, "fault": checked.fault},
    }


def render(report: dict[str, Any]) -> str:
    """The same for a person."""
    lines = ["healthy" if report["healthy"] else "NOT HEALTHY"]
    for name, loop in report["loops"].items():
        if not loop["finished"]:
            lines.append(f"{name:>6}: has not run yet")
            continue
        life = "alive" if loop["alive"] else "NOT RUNNING"
        message = f" ({loop['message']})" if loop["message"] else ""
        lines.append(f"{name:>6}: {life}, cycle {loop['cycle']}, last {loop['result']} at {loop['finished']}{message}")
    queues = report["queues"]
    lines.append(
        f"  mail: {queues['inbox']} in the inbox, {queues['pending_approval']} drafts wait for approval, "
        f"{queues['needs_action']} need a person"
    )
    age = report["last_sync_age_seconds"]
    lines.append(f"synced: {f'{age:.0f} s ago' if age is not None else 'never'}")
    lines.append(f" spent: {_spent(report, 'today', 'day')}, {_spent(report, 'this_week', 'week')}")
    if unpriced := report["unpriced_calls_this_week"]:
        calls = f"{unpriced} call{'' if unpriced == 1 else 's'}"
        lines[-1] += f"; and {calls} of unknown cost this week, see {usage.FOLDER}/"
    audited = report["audit"]
    lines.append(f" audit: {audited['fault'] or 'the chain holds'} ({audited['entries']} records)")
    lines += [f" alert: {alert['message']} (since {alert['since']})" for alert in report["alerts"]]
    return "\n".join(lines)


def _spend(config: Config, vault: Vault, today: date) -> dict[str, float | int | None]:
    """US dollars; a budget that is not set, and what is left of it, are None. Below 0 is overspent."""
    found: dict[str, float | int | None] = {}
    read = cache(vault.read_text)
    for name, days, unit, budget in (
        ("today", [today], "day", config.budget_usd_per_day),
        ("this_week", usage.week_of(today), "week", config.budget_usd_per_week),
    ):
        left = usage.left(budget, days, read)
        found[f"spent_{name}_usd"] = round(usage.spent_on(days, read), 6)
        found[f"budget_usd_per_{unit}"] = budget
        found[f"left_{name}_usd"] = None if left is None else round(left, 6)
        found[f"unpriced_calls_{name}"] = usage.unpriced_on(days, read)
    return found


def _spent(report: dict[str, Any], name: str, unit: str) -> str:
    text = f"${report[f'spent_{name}_usd']:.4f} {name.replace('_', ' ')}"
    budget, left = report[f"budget_usd_per_{unit}"], report[f"left_{name}_usd"]
    return text if budget is None else f"{text} (${max(left, 0.0):.4f} left of ${budget:.2f} a {unit})"


def _audit(vault: Vault, state: State, now: datetime) -> audit.Audit:
    """Sync may rewrite a log while it is read: what seems broken is looked at once more while nobody writes."""
    found = audit.verify(vault, state, now)
    if found.fault:
        with contextlib.suppress(OSError), lock(state.tree_lock):
            found = audit.verify(vault, state, now)
    return found


def is_loop_process(pid: object, loop: str) -> TypeGuard[int]:
    """Whether this process is that loop of a cloud-agent: a pid in a beat may be another's by now."""
    if not isinstance(pid, int):
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    ours = any(b"cloud-agent" in word or b"cloud_agent" in word for word in words)
    return ours and loop.encode() in words and b"--once" not in words


def ask_for_cycle(state: State) -> str:
    """Have the running sync loop start a cycle at once (SIGUSR1). Returns why it cannot be asked, "" when it was."""
    pid = state.read_beat("sync").get("pid")
    if not is_loop_process(pid, "sync"):
        return "no sync loop is running: start it (pm2 start git_sync_cloud), or use sync --once"
    try:
        os.kill(pid, signal.SIGUSR1)
    except (ProcessLookupError, PermissionError) as error:
        return f"the sync loop (process {pid}) cannot be asked: {error.strerror}; run this as its user"
    return ""


def _loop(name: str, beat: dict[str, Any], interval: float, now: datetime) -> dict[str, Any]:
    age = _age(beat.get("finished"), now)
    pid = beat.get("pid")
    alive = is_loop_process(pid, name) and age is not None and age < 2 * interval + _GRACE_SECONDS
    return {
        "alive": alive,
        "pid": pid,
        "cycle": beat.get("cycle", 0),
        "started": beat.get("started"),
        "finished": beat.get("finished"),
        "result": beat.get("result"),
        "succeeded": beat.get("succeeded"),
        "message": beat.get("message", ""),
    }


def _age(stamp: str | None, now: datetime) -> float | None:
    if not stamp:
        return None
    try:
        return max(0.0, (now - datetime.fromisoformat(stamp)).total_seconds())
    except (ValueError, TypeError):
        return None
