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
from cloud_agent.kept import kept
from cloud_agent.state import State, iso
from cloud_agent.vault import INBOX, LOCAL, NEEDS_ACTION, PENDING, Vault, lock

# A beat may be late by one more interval and the longest step before the loop counts as not living.
_GRACE_SECONDS = 180.0


def collect(config: Config, now: datetime) -> dict[str, Any]:
    """Everything `status` shows, ready for JSON. `healthy` is what the exit status says."""
    vault = Vault(config.vault_path, config.agent_name)
    state = State(config.state_path)
    found = loops(config, state, now)
    last_sync = found["sync"].get("succeeded") or None
    checked = _audit(vault, state, now)
    alerts = [{"key": key, **alert} for key, alert in sorted(alerts_of(config, state).items())]
    told = _told(config, state, now)
    return {
        "healthy": all(loop["alive"] and loop["result"] == "ok" for loop in judged(found, config).values())
        and not alerts
        and not checked.fault
        and not any(channel["broken"] for channel in told["channels"]),
        "loops": found,
        "queues": {
            "inbox": len([name for name in vault.names(INBOX) if name.startswith("EMAIL_")]),
            "in_progress": len(vault.names(vault.in_progress)),
            "pending_approval": len(vault.names(PENDING)),
            "needs_action": len(vault.names(NEEDS_ACTION)),
        },
        "last_sync": last_sync,
        "last_sync_age_seconds": age(last_sync, now),
        **_spend(config, vault, now.date()),
        "kept": _kept(config),
        "alerts": alerts,
        "told": told,
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
        mail = f", a mail came last at {loop['last_mail']}" if loop.get("last_mail") else ""
        last = f"last {loop['result']} at {loop['finished']}"
        lines.append(f"{name:>6}: {life}, cycle {loop['cycle']}, {last}{mail}{message}")
    queues = report["queues"]
    lines.append(
        f"  mail: {queues['inbox']} in the inbox, {_counted(queues['pending_approval'], 'draft waits', 'drafts wait')} "
        f"for approval, {_counted(queues['needs_action'], 'needs', 'need')} a person"
    )
    synced = report["last_sync_age_seconds"]
    lines.append(f"synced: {f'{synced:.0f} s ago' if synced is not None else 'never'}")
    lines.append(f" spent: {_spent(report, 'today', 'day')}, {_spent(report, 'this_week', 'week')}")
    if unpriced := report["unpriced_calls_this_week"]:
        calls = _counted(unpriced, "call")
        lines[-1] += f"; and {calls} of unknown cost this week, see {usage.FOLDER}/"
    if keeps := report["kept"]:
        size, most = (keeps[name] / 1_000_000 for name in ("bytes", "most_bytes"))
        messages = _counted(keeps["messages"], "whole message")
        lines.append(f"  kept: {messages}, {size:.1f} of {most:g} MB, in {keeps['path']}")
    audited = report["audit"]
    lines.append(f" audit: {audited['fault'] or 'the chain holds'} ({_counted(audited['entries'], 'record')})")
    lines += [f" alert: {alert['message']} (since {alert['since']})" for alert in report["alerts"]]
    lines += [_told_line(channel, report["told"]["held"]) for channel in report["told"]["channels"]]
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


def _kept(config: Config) -> dict[str, Any] | None:
    """What is kept of whole messages; None where nobody asked for it."""
    if config.keep is None:
        return None
    sizes = [size for _, size, _ in kept(config.keep)]
    path, most = str(config.keep.folder), config.keep.most
    return {"path": path, "messages": len(sizes), "bytes": sum(sizes), "most_bytes": most}


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


def loops_of(config: Config) -> dict[str, float]:
    """The loops that this agent has: the name of their beat -> seconds from one step to the next."""
    intervals = {"draft": config.draft_interval_seconds, "sync": config.sync_interval_seconds}
    return {**intervals, "watch": config.watch_interval_seconds} if config.mailbox is not None else intervals


def loops(config: Config, state: State, now: datetime) -> dict[str, dict[str, Any]]:
    """What the beats say of each loop."""
    return {name: _loop(name, state.read_beat(name), interval, now) for name, interval in loops_of(config).items()}


def alerts_of(config: Config, state: State) -> dict[str, dict[str, str]]:
    """The alerts that stand, by key. Of a mailbox that is not configured any more nobody clears one."""
    found = state.alerts()
    if config.mailbox is not None:
        return found
    return {key: alert for key, alert in found.items() if key != "mailbox"}


def judged(found: dict[str, dict[str, Any]], config: Config) -> dict[str, dict[str, Any]]:
    """Those of them that have to live: on the owner's own machine nothing need draft."""
    return {
        name: loop for name, loop in found.items() if loop["finished"] or config.agent_name != LOCAL or name == "sync"
    }


def _told(config: Config, state: State, now: datetime) -> dict[str, Any]:
    """By what the owner is told, how that fares, and what is still to be told; `held`: until the quiet time ends."""
    if config.alerts is None:
        return {"channels": [], "held": False}
    from cloud_agent.alerting import ledger, teller

    kept = teller.read(state)
    channels = []
    for name in config.alerts.channels:
        channel = kept.channels.get(name, ledger.Channel())
        channels.append(
            {
                "name": name,
                "broken": ledger.is_failing(channel),
                "failures": channel.failures,
                "failing_since": iso(channel.since) if channel.since is not None else None,
                "error": channel.error,
                "last_sent": iso(channel.sent) if channel.sent is not None else None,
                "waiting": len(ledger.untold(kept, name)),
            }
        )
    return {"channels": channels, "held": ledger.is_quiet(config.alerts, now)}


def _told_line(channel: dict[str, Any], held: bool) -> str:
    waits = f"; {channel['waiting']} to tell{', held until the quiet time ends' if held else ''}"
    more = waits if channel["waiting"] else ""
    if channel["failures"]:
        since, times = channel["failing_since"], channel["failures"]
        return f"  told: {channel['name']} fails since {since} ({_counted(times, 'time')}): {channel['error']}{more}"
    last = f"last {channel['last_sent']}" if channel["last_sent"] else "nothing yet"
    return f"  told: {channel['name']}, {last}{more}"


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _loop(name: str, beat: dict[str, Any], interval: float, now: datetime) -> dict[str, Any]:
    since = age(beat.get("finished"), now)
    pid = beat.get("pid")
    alive = is_loop_process(pid, name) and since is not None and since < 2 * interval + _GRACE_SECONDS
    return {
        "alive": alive,
        "pid": pid,
        "cycle": beat.get("cycle", 0),
        "started": beat.get("started"),
        "finished": beat.get("finished"),
        "result": beat.get("result"),
        "succeeded": beat.get("succeeded"),
        "message": beat.get("message", ""),
        **({word: beat.get(word) or None for word in ("mailbox", "last_mail")} if name == "watch" else {}),
    }


def age(stamp: str | None, now: datetime) -> float | None:
    if not stamp:
        return None
    try:
        return max(0.0, (now - datetime.fromisoformat(stamp)).total_seconds())
    except (ValueError, TypeError):
        return None
