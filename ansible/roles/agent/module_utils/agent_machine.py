"""What the modules of this role share: where things lie on the machine, and what PM2 runs there.

Runs on the target, with the distribution's own Python (3.10 on Ubuntu 22.04) and nothing but its standard library.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

SETTINGS = ".env.cloud"
ECOSYSTEM = "ecosystem.config.js"
BEFORE = ".before"
# Owner and mode of each: the settings are the agent's alone; PM2's file may hold a proxy's password.
FILES = {SETTINGS: ("user", 0o600), ECOSYSTEM: ("root", 0o640)}


class PM2Error(Exception):
    """PM2 could not be asked, or did not do what it was asked to."""


def now() -> str:
    return iso(time.time())


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Machine:
    """A machine with releases of the agent under `root`, whose loops PM2 runs; `pm2` is the command."""

    def __init__(self, root: str, pm2: str) -> None:
        self.root = Path(root)
        self.pm2_command = pm2

    def folder(self, release: str) -> Path:
        return self.root / "releases" / release

    def releases(self) -> list[dict[str, Any]]:
        """All releases, whole or not, the oldest first: name, built (UTC, empty when it is not whole), complete, good,
        failed (the reason, or empty)."""
        folders = (path.name for path in (self.root / "releases").glob("*") if path.is_dir())
        return sorted((self._release(name) for name in folders), key=lambda one: (one["built"], one["name"]))

    def _release(self, name: str) -> dict[str, Any]:
        folder = self.folder(name)
        complete = folder / ".complete"
        failed = read_json(folder / ".failed")
        return {
            "name": name,
            "built": iso(complete.stat().st_mtime) if complete.exists() else "",
            "complete": complete.exists(),
            "good": (folder / ".good").exists() and not failed,
            "failed": str(failed.get("reason", "")),
        }

    def pointed(self, link: str) -> str:
        """The release that `current` or `previous` points to, or empty."""
        try:
            return os.path.basename(os.readlink(self.root / link))
        except OSError:
            return ""

    def point(self, link: str, release: str) -> None:
        """Have the link point to a release, or to none. It is never seen absent in between."""
        path = self.root / link
        if not release:
            path.unlink(missing_ok=True)
            return
        beside = self.root / f".{link}.new"
        beside.unlink(missing_ok=True)
        beside.symlink_to(f"releases/{release}")
        beside.replace(path)

    def lock(self) -> str:
        """Who deploys, since when; empty when nobody does."""
        try:
            return os.readlink(self.root / ".deploy-lock")
        except OSError:
            return ""

    def interrupted(self) -> bool:
        """Whether a run left what it kept (agent_release): it ended in the middle, or could not put it back."""
        return (self.root / BEFORE).exists()

    def beat(self, name: str) -> dict[str, Any]:
        """What a loop wrote of its last pass (cloud_agent/state.py)."""
        return read_json(self.root / "state" / f"{name}.json")

    def pm2(self, *arguments: str) -> str:
        """Run a command of PM2 and return its output. Raises PM2Error."""
        try:
            done = subprocess.run(
                [self.pm2_command, *arguments], capture_output=True, text=True, timeout=180, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PM2Error(f"pm2 {arguments[0]}: {error}") from error
        if done.returncode != 0:
            raise PM2Error(f"pm2 {arguments[0]}: {(done.stderr.strip() or done.stdout.strip())[-1000:]}")
        return done.stdout

    def processes(self) -> list[dict[str, Any]]:
        """What PM2 runs: name, pid, status, restarts, started (seconds since 1970), exit_code, deployment, logs, and
        module, which is whether it is a part of PM2 itself such as pm2-logrotate. Raises PM2Error."""
        said = self.pm2("jlist").strip().split("\n")[-1]  # where it has something to tell first, that stands above
        try:
            return [_process(one) for one in json.loads(said or "[]")]
        except (ValueError, KeyError, TypeError) as error:
            raise PM2Error(f"pm2 jlist: {error} in {said[:200]}") from error


def _process(told: dict[str, Any]) -> dict[str, Any]:
    env = told["pm2_env"]
    return {
        "name": told["name"],
        "pid": told.get("pid", 0),
        "status": env["status"],
        "restarts": env.get("restart_time", 0),
        "started": env.get("pm_uptime", 0) / 1000,
        "exit_code": env.get("exit_code"),
        "deployment": env.get("CLOUD_AGENT_DEPLOYMENT", ""),
        "logs": [env[key] for key in ("pm_out_log_path", "pm_err_log_path") if env.get(key)],
        "module": bool(env.get("pmx_module")),
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an absent or broken one is empty."""
    try:
        loaded = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
