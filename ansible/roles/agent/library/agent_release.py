#!/usr/bin/python
"""Put a release into service, look twice whether it lives, and otherwise put back what was before."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ansible.module_utils.agent_machine import BEFORE, ECOSYSTEM, FILES, SETTINGS, Machine, PM2Error, now, read_json
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: agent_release
short_description: Put a release of the agent into service, or leave everything as it was
description:
  - Has the release check the settings; writes .env.cloud and PM2's file; switches C(current); has PM2 run the loops of
    that file and no others; and looks twice whether they live.
  - When they do, the release is marked as good, C(previous) points to the one before, and old releases are removed.
    When they do not, files, link and processes are put back, the release is marked as failed, and the module fails with
    its logs.
  - All of it is one process on the machine, so that it ends well too when the connection to it does not last.
  - Each event is a line of C(deploy.log).
options:
  root:
    description: The folder of the agent.
    type: path
    required: true
  user:
    description: The user of the loops.
    type: str
    required: true
  home:
    description: That user's home.
    type: path
    required: true
  pm2:
    description: The command of PM2.
    type: path
    default: /usr/local/bin/pm2
  release:
    description: The name of the release. It has to be built.
    type: str
    required: true
  settings:
    description: The content of .env.cloud. Without it the file stays as it is.
    type: str
  ecosystem:
    description: The content of ecosystem.config.js. Without it the file stays, and only names the release anew.
    type: str
  loops:
    description:
      - The names that PM2 may have loops under, each with the name of its beat. Those in its file have to live.
    type: dict
    required: true
  who:
    description: Who wants this, for the log.
    type: str
    required: true
  keep:
    description: So many good releases are kept, and always the current and the previous one.
    type: int
    default: 3
  min_uptime:
    description: Seconds that a loop has to live before PM2 calls it started. The second look comes after twice as many.
    type: int
    default: 5
  health_seconds:
    description: Seconds that the loops have to give a sign of life.
    type: int
    default: 120
author: personal-ai-employee
"""

EXAMPLES = r"""
- name: Restore a release, with the settings of today
  agent_release:
    root: /opt/personal-ai-employee
    user: cloud-agent
    home: /var/lib/cloud-agent
    release: 0.1.0-a40d51790de4
    loops: {cloud_orchestrator: draft, git_sync_cloud: sync, mail_watcher: watch}
    who: me@laptop
"""

RETURN = r"""
previous:
  description: The release that was in service before.
  type: str
  returned: success
downtime:
  description: Seconds between the end of a loop's old process and the start of its new one, by name.
  type: dict
  returned: success
removed:
  description: The releases that were removed.
  type: list
  returned: success
"""

STAMP = re.compile(r'("CLOUD_AGENT_DEPLOYMENT":\s*")([^"]*)(")')
# What an output may not hold: keys, tokens and passwords, also of an address, and addresses of alerts, which are keys.
SECRETS = re.compile(
    r"^(?:CLAUDE_API_KEY|IMAP_PASSWORD|IMAP_OAUTH_(?:REFRESH_TOKEN|CLIENT_SECRET)|ALERT_MCP_(?:URL|TOKEN))"
    r"=['\"]?(.{8,}?)['\"]?$|https?://([^/\s']+)@|://[^/:\s']*:([^/\s']+)@",
    re.MULTILINE,
)
CHANNELS = re.compile(r"^ALERT_URLS=['\"]?(.*?)['\"]?$", re.MULTILINE)
LOG_LINES = 30


class Refused(Exception):
    """The release or its settings are not fit for service. Nothing was touched."""


class Unhealthy(Exception):
    """The loops do not live. The message says why."""


class Service:
    """What puts a release into service. `settle` is the time between the two looks, `patience` that for the first step
    of the loops; both in seconds."""

    def __init__(self, machine: Machine, options: dict, sleep=time.sleep) -> None:
        self.machine = machine
        self.root = machine.root
        self.release: str = options["release"]
        self.user: str = options["user"]
        self.home: str = options["home"]
        self.settings: str | None = options["settings"]
        self.ecosystem: str | None = options["ecosystem"]
        self.beats: dict[str, str] = options["loops"]
        self.loops: dict[str, str] = {}  # of these, the ones in PM2's file; see check()
        self.who: str = options["who"]
        self.keep: int = options["keep"]
        self.settle: float = 2 * options["min_uptime"]
        self.patience: float = options["health_seconds"]
        self.sleep = sleep
        self.before = self.root / BEFORE
        self.warnings: list[str] = []
        self.downtime: dict[str, float] = {}
        self.log_sizes: dict[str, int] = {}

    def run(self) -> dict:
        """Put the release into service. Raises Refused, or Unhealthy after everything was put back."""
        with self.alone():
            return self.serve()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock that ends with this process, which may outlive the run that started it and that run's lock."""
        folder = os.open(self.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused(
                    "an earlier run, whose controller is gone, is still at work on the machine; it ends by itself, "
                    f"in {self.patience:g} s or somewhat more\nMend: wait, then run this again."
                ) from None
            yield
        finally:
            os.close(folder)

    def serve(self) -> dict:
        self.check()
        started = now()
        kept = self.remember()
        try:
            self.put_files()
            self.machine.point("current", self.release)
            self.reload(self.loops)
            self.look_twice(self.loops, excused=kept["failing"])
            self.machine.pm2("save")
        except Exception as error:  # whatever it is, what was before comes back
            reason = str(error) if isinstance(error, (Unhealthy, PM2Error)) else f"{type(error).__name__}: {error}"
            raise Unhealthy(self.put_back(kept, reason)) from error
        previous = kept["current"]
        if previous != self.release and previous and not (self.machine.folder(previous) / ".failed").exists():
            self.machine.point("previous", previous)
        self.mark(".good", {"since": started})
        (self.machine.folder(self.release) / ".failed").unlink(missing_ok=True)
        self.forget()
        self.tell("rolled back" if self.settings is None else "deployed", previous, downtime=self.downtime)
        removed = self.prune()
        return {"previous": previous, "downtime": self.downtime, "removed": removed}

    # -- before anything is touched --------------------------------------------------------------------------------

    def check(self) -> None:
        """Have the release look at the settings that it is to run with."""
        agent = self.machine.folder(self.release) / "venv/bin/cloud-agent"
        if not (self.machine.folder(self.release) / ".complete").exists():
            raise Refused(f"release {self.release} is not built on this machine\nMend: run deploy.yml.")
        if self.ecosystem is None and not (self.root / ECOSYSTEM).exists():
            raise self.refused(f"{ECOSYSTEM} is not there, and only a deploy writes it", "run deploy.yml")
        ecosystem = self.wanted_ecosystem()
        self.loops = {name: beat for name, beat in self.beats.items() if f'"{name}"' in ecosystem}
        own(self.root / "state", self.user, self.user, 0o750, folder=True)
        settings = self.root / SETTINGS
        if self.settings is not None:
            settings = self.root / f"{SETTINGS}.new"
            write(settings, self.settings.encode(), self.user, self.user, 0o600)
        environment = {"HOME": self.home, "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        try:
            done = subprocess.run(
                [str(agent), "--env-file", str(settings), "check"],
                **as_user(self.user),
                cwd=self.root,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self.refused(f"`cloud-agent check` cannot be run: {error}") from error
        if done.returncode != 0:
            problems = re.findall(r"(?m)^problem: .*$", done.stdout) or [(done.stderr or done.stdout).strip()[-2000:]]
            told = "\n".join(["it does not agree with its settings:", *problems])
            raise self.refused(
                told,
                "correct the variables that set this (docs/variables.md), then run this again"
                if self.settings is not None
                else "a rollback keeps the settings as they are. For this release with other settings check out the "
                "project as it was then, and run deploy.yml",
            )
        self.warm()

    def refused(self, problems: str, mend: str = "what it says, then run this again") -> Refused:
        (self.root / f"{SETTINGS}.new").unlink(missing_ok=True)
        self.tell("refused", self.machine.pointed("current"), reason=problems)
        return Refused(f"{problems}\nMend: {mend}.")

    def warm(self) -> None:
        """Read what the loops are going to import, so that they do not wait for the disk while nothing runs."""
        for pattern in ("*.opt-2.pyc", "*.so"):
            for path in (self.machine.folder(self.release) / "venv/lib").rglob(pattern):
                path.read_bytes()

    def remember(self) -> dict:
        """Keep what is in service, until it is known what comes of this. What an interrupted run kept is what worked
        last: that stays."""
        try:
            names = [one["name"] for one in self.machine.processes() if not one["module"]]
        except PM2Error as error:
            raise self.refused(str(error)) from error
        if not self.before.exists():
            beats = {loop: self.machine.beat(beat).get("result") for loop, beat in self.beats.items()}
            told = {
                "current": self.machine.pointed("current"),
                "processes": names,
                # What failed before is no fault of the release. Where nothing ran before, it is not known to be.
                "failing": [loop for loop, result in beats.items() if result not in ("ok", "later")],
            }
            beside = self.root / f"{BEFORE}.new"
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(mode=0o700)
            for name in FILES:
                if (self.root / name).exists():
                    write(beside / name, (self.root / name).read_bytes(), "root", "root", 0o600)
            write(beside / "before.json", json.dumps(told).encode(), "root", "root", 0o600)
            beside.rename(self.before)
        return read_json(self.before / "before.json")

    def forget(self) -> None:
        """Remove what `remember` kept, at once: of half of it nothing could be put back."""
        beside = self.root / f"{BEFORE}.new"
        shutil.rmtree(beside, ignore_errors=True)
        self.before.rename(beside)
        shutil.rmtree(beside, ignore_errors=True)

    # -- the switch ------------------------------------------------------------------------------------------------

    def put_files(self) -> None:
        if self.settings is not None:
            (self.root / f"{SETTINGS}.new").replace(self.root / SETTINGS)
        write(self.root / ECOSYSTEM, self.wanted_ecosystem().encode(), "root", self.user, 0o640)

    def wanted_ecosystem(self) -> str:
        """PM2's file. Of one that stays, only the release in the loops' stamp changes: what follows it is for the
        settings, and those stay too."""
        if self.ecosystem is not None:
            return self.ecosystem
        text = (self.root / ECOSYSTEM).read_text()
        return STAMP.sub(lambda found: f"{found[1]}{self.release}.{found[2].rpartition('.')[2]}{found[3]}", text)

    def reload(self, loops: dict[str, str]) -> None:
        """Have PM2 run the loops of its file, and nothing else."""
        processes = [one for one in self.machine.processes() if not one["module"]]
        running = {one["name"]: one for one in processes}
        self.log_sizes = {log: size(log) for one in processes for log in one["logs"]}
        # A loop that is there twice too: PM2 would reload both.
        names = [one["name"] for one in processes]
        if others := [name for name in running if name not in loops or names.count(name) > 1]:
            self.machine.pm2("delete", *others)
        with Ends({name: one["pid"] for name, one in running.items() if name in loops and one["pid"]}) as ends:
            self.machine.pm2("startOrReload", str(self.root / ECOSYSTEM), "--update-env")
        started = {one["name"]: one["started"] for one in self.machine.processes()}
        self.downtime = {
            name: round(max(0.0, started[name] - at), 2) for name, at in ends.at.items() if name in started
        }

    def look_twice(self, loops: dict[str, str], excused: list[str]) -> None:
        """The first look: the loops run and have said so. The second: they have ended a step, or are still at it, and
        are the same processes; none says that it failed, but for those `excused`. What one waits for is a warning.
        Raises Unhealthy."""
        first: dict[str, dict] = {}
        deadline = time.monotonic() + self.patience
        while silent := self.silent(self.look(loops, first), loops):
            if time.monotonic() > deadline:
                raise Unhealthy(f"{' and '.join(silent)} gave no sign of life within {self.patience:g} s")
            self.sleep(1)
        began = time.monotonic()
        # A step may wait for Claude, or for a remote: not for ever, as that is no fault of the release.
        while (waited := time.monotonic() - began) < self.settle or (waited < 3 * self.settle and self.underway(loops)):
            self.sleep(1)
            self.look(loops, first)
        for loop, name in loops.items():
            beat = self.machine.beat(name)
            said = f"{loop} runs and says: {beat.get('message') or 'failed'}"
            if beat.get("result") == "failed":
                if loop not in excused:
                    raise Unhealthy(said)
                self.warnings.append(said)
            elif beat.get("result") == "later" and beat.get("message") and not beat.get("underway"):
                # No fault of the release; but who has just set a mailbox's password wants to hear that it is refused.
                self.warnings.append(said)

    def look(self, loops: dict[str, str], first: dict[str, dict]) -> dict[str, dict]:
        """The loops' processes. They have to be online, and those of the `first` look, which notes them there. Raises
        Unhealthy."""
        found = {one["name"]: one for one in self.machine.processes() if one["name"] in loops}
        for loop in loops:
            if loop not in found:
                raise Unhealthy(f"PM2 does not know {loop}")
            one = found[loop]
            if one["status"] != "online":
                raise Unhealthy(f"{loop} is {one['status']}{ended_with(one)}, after {one['restarts']} restarts")
            was = first.setdefault(loop, one)
            if (one["pid"], one["restarts"]) != (was["pid"], was["restarts"]):
                raise Unhealthy(f"{loop} does not stay up: it was restarted{ended_with(one)}")
        return found

    def underway(self, loops: dict[str, str]) -> bool:
        """Whether a loop has not ended the step yet that its beat is about."""
        return any(self.machine.beat(name).get("underway") for name in loops.values())

    def silent(self, found: dict[str, dict], loops: dict[str, str]) -> list[str]:
        """The loops whose process has not written a beat yet."""
        return [loop for loop, name in loops.items() if self.machine.beat(name).get("pid") != found[loop]["pid"]]

    # -- the way back ----------------------------------------------------------------------------------------------

    def put_back(self, kept: dict, reason: str) -> str:
        """Have everything as it was; returns what there is to tell."""
        was = kept["current"]
        logs = self.logs()
        told = [f"Release {self.release} was put into service and did not stay healthy: {reason}"]
        try:
            for name, (owner, mode) in FILES.items():
                copy = self.before / name
                if copy.exists():
                    user = self.user if owner == "user" else owner
                    write(self.root / name, copy.read_bytes(), user, self.user, mode)
                else:
                    (self.root / name).unlink(missing_ok=True)
            self.machine.point("current", was)
            if was:
                loops = {name: self.beats.get(name, "") for name in kept["processes"]}
                self.reload(loops)
                self.look_twice({name: beat for name, beat in loops.items() if beat}, excused=list(loops))
                told.append(f"Put back: release {was} runs again, with the settings of before.")
            else:
                running = [one["name"] for one in self.machine.processes() if not one["module"]]
                if running:
                    self.machine.pm2("delete", *running)
                told.append("There was no release before: the loops are stopped, and nothing runs now.")
            self.machine.pm2("save", "--force")  # also when it runs nothing
            event = "put back" if was else "stopped"
            self.forget()
        except (OSError, PM2Error, Unhealthy) as error:
            event = "put back, and not healthy"
            told.append(
                f"RELEASE {was or '(none)'} WAS PUT BACK AND DOES NOT COME UP EITHER: {error}\n"
                "Mend: log in; pm2 list; pm2 logs; sudo journalctl -u 'pm2-*'. Then run this again."
            )
        if self.release != was:  # now, and not before: a disk that is full must not keep the loops from coming back
            with contextlib.suppress(OSError):
                self.mark(".failed", {"at": now(), "reason": reason})
                told[0] += (
                    f"\nIt is marked as failed, and stays in {self.machine.folder(self.release)} until the next deploy."
                )
        self.tell("failed", was, reason=reason)
        self.tell(event, was)
        told.append(f"What {self.release} said:\n{logs or '(nothing)'}")
        told.append("Mend what the logs say and run this again. To look for yourself: pm2 list; pm2 logs")
        return "\n\n".join(told)

    def logs(self) -> str:
        """The last lines that the loops wrote since the reload."""
        paths = set(self.log_sizes)
        with contextlib.suppress(PM2Error):
            paths.update(log for one in self.machine.processes() if one["name"] in self.beats for log in one["logs"])
        parts = []
        for path in sorted(paths):
            lines = tail(path, self.log_sizes.get(path, 0)).splitlines()[-LOG_LINES:]
            if lines:
                parts.append("\n".join([f"==> {os.path.basename(path)}", *lines]))
        return "\n".join(parts)

    # -- afterwards ------------------------------------------------------------------------------------------------

    def mark(self, name: str, content: dict) -> None:
        write(self.machine.folder(self.release) / name, (json.dumps(content) + "\n").encode(), "root", "root", 0o644)

    def prune(self) -> list[str]:
        """Remove failed, half built and older releases. By name, never by age alone: not what a link points to."""
        linked = [self.machine.pointed("current"), self.machine.pointed("previous")]
        releases = self.machine.releases()
        good = [one["name"] for one in releases if one["good"]]
        stay = {*linked, *(good[-self.keep :] if self.keep else [])}
        removed = [one["name"] for one in releases if one["name"] not in stay]
        for name in removed:
            with contextlib.suppress(OSError):
                (self.machine.folder(name) / ".complete").unlink(missing_ok=True)  # first: half of it is none
                shutil.rmtree(self.machine.folder(name))
        return removed

    def tell(self, event: str, previous: str, **more) -> None:
        """A line for deploy.log."""
        line = {"time": now(), "who": self.who, "event": event, "release": self.release, "previous": previous, **more}
        path = self.root / "deploy.log"
        try:
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            own(path, "root", self.user, 0o640)
        except OSError as error:  # a full disk; what is told goes on
            self.warnings.append(f"deploy.log has no line of this: {error}")

    def difference(self) -> list[dict]:
        """What would change, for --diff. Not of the settings, they hold a key."""
        path = self.root / ECOSYSTEM
        before = path.read_text() if path.exists() else ""
        after = self.wanted_ecosystem() if self.ecosystem is not None or before else ""
        lines = [(str(path), before, after)]
        lines.append((str(self.root / "current"), self.machine.pointed("current"), self.release))
        return [
            {"before_header": name, "after_header": name, "before": veil(old) + "\n", "after": veil(new) + "\n"}
            for name, old, new in lines
            if old != new
        ]


class Ends:
    """Notes when processes end: `at` has the time of each by name, seconds since 1970, once the block is over."""

    def __init__(self, pids: dict[str, int]) -> None:
        self.pids = pids
        self.at: dict[str, float] = {}

    def __enter__(self) -> Ends:
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        while len(self.at) < len(self.pids) and not self.over.wait(0.01):
            for name, pid in self.pids.items():
                if name not in self.at and not os.path.exists(f"/proc/{pid}"):
                    self.at[name] = time.time()


def ended_with(process: dict) -> str:
    if process["exit_code"] == 78:
        return " with exit code 78, it refuses its settings"
    return f" with exit code {process['exit_code']}" if process["exit_code"] else ""


def size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def tail(path: str, start: int) -> str:
    """What was written to a log since it had `start` bytes, of that the end. All of it, if it was rotated since."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= end else 0, end - 8192))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def veil(text: str) -> str:
    return re.sub(r"://[^/\s]*@", "://", text)


def as_user(user: str) -> dict:
    """Arguments of subprocess that run a command as the loops' user, with no group but that user's own."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def own(path: Path, user: str, group: str, mode: int, folder: bool = False) -> None:
    if folder:
        path.mkdir(exist_ok=True)
    path.chmod(mode)
    if os.geteuid() == 0:
        shutil.chown(path, user, group)


def write(path: Path, content: bytes, user: str, group: str, mode: int) -> None:
    """Write a file whole, and never readable for more than it is meant for."""
    beside = path.with_name(f".{path.name}.part")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    own(beside, user, group, mode)
    beside.replace(path)


def secrets(text: str) -> set[str]:
    found = {found for groups in SECRETS.findall(text) for found in groups if found}
    found |= {re.sub(r"\\([\\'])", r"\1", one) for one in found}  # as env.cloud.j2 quotes them, and as they are
    return found | {url for urls in CHANNELS.findall(text) for url in urls.split()}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
            "home": {"type": "path", "required": True},
            "pm2": {"type": "path", "default": "/usr/local/bin/pm2"},
            "release": {"type": "str", "required": True},
            "settings": {"type": "str", "no_log": True},
            "ecosystem": {"type": "str"},
            "loops": {"type": "dict", "required": True},
            "who": {"type": "str", "required": True},
            "keep": {"type": "int", "default": 3},
            "min_uptime": {"type": "int", "default": 5},
            "health_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    machine = Machine(module.params["root"], module.params["pm2"])
    service = Service(machine, module.params)
    # Whatever a log or an error says, and what the module was given: these are left out of it.
    present = machine.root / SETTINGS
    given = (module.params[name] or "" for name in ("settings", "ecosystem"))
    for text in (*given, present.read_text("utf-8", "replace") if present.exists() else ""):
        module.no_log_values.update(secrets(text))
    told: dict = {"changed": True}
    if module._diff:
        told["diff"] = service.difference()
    if module.check_mode:
        module.exit_json(**told)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a lost connection is no reason to stop half-way
    failure = ""
    try:
        told.update(service.run())
    except Refused as problems:
        failure = f"Release {service.release} was not put into service, and nothing was touched: {problems}"
    except Unhealthy as story:
        failure = str(story)
    for warning in service.warnings:
        module.warn(warning)
    if failure:
        module.fail_json(msg=failure)
    module.exit_json(**told)


if __name__ == "__main__":
    main()
