"""A change that could lock out is undone by the machine itself, unless a new login was proven in time.

    begin(module, name)                     undo what an earlier run left unproven
    arm(module, name, seconds, ...)         from now on the machine undoes it after `seconds`, over a reboot too
    (make the change)
    disarm(module, name)                    the new login was proven

The undo is a systemd service with a timer, both of them files: a transient timer would not outlive the reboot by which
people try to get back in.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

UNITS = Path("/etc/systemd/system")
STORE = Path("/var/lib/cloud-agent-undo")


def unit(name: str) -> str:
    return f"cloud-agent-undo-{name}"


def is_armed(name: str) -> bool:
    return (UNITS / f"{unit(name)}.timer").exists()


def begin(module: AnsibleModule, name: str) -> bool:
    """Undo at once what an earlier run changed and did not prove; returns whether there was anything."""
    if not is_armed(name):
        return False
    if not module.check_mode:
        undo(module, name)
    return True


def arm(module: AnsibleModule, name: str, seconds: int, files: list[Path], commands: list[list[str]]) -> None:
    """Keep `files` as they are now and start the clock; `commands` run after the files are back.

    What a command needs to read has to lie in `store(name)` before.
    """
    store(name)
    timer, service = (UNITS / f"{unit(name)}.{kind}" for kind in ("timer", "service"))
    wanted = UNITS / "timers.target.wants" / timer.name
    steps = []
    for number, file in enumerate(files):
        if file.exists():
            kept = STORE / name / f"{number}-{file.name}"
            shutil.copy2(file, kept)
            owner = file.stat()
            os.chown(kept, owner.st_uid, owner.st_gid)
            steps.append(["mv", "--force", str(kept), str(file)])
        else:
            steps.append(["rm", "--force", str(file)])
    steps += commands
    steps += [
        ["systemctl", "stop", timer.name],
        ["rm", "--recursive", "--force", str(wanted), str(timer), str(service), str(STORE / name)],
        ["systemctl", "daemon-reload"],
    ]
    # Each step is tried, whatever became of those before.
    lines = [f"ExecStart=-{shutil.which(step[0]) or step[0]} {' '.join(step[1:])}" for step in steps]
    service.write_text(
        f"# Undoes a change of {name} that no new login proved (Ansible, role guard).\n"
        "[Service]\nType=oneshot\n" + "\n".join(lines) + "\n"
    )
    timer.write_text(f"# Waits for the proof (Ansible, role guard).\n[Timer]\nOnActiveSec={seconds}\nAccuracySec=1s\n")
    wanted.parent.mkdir(exist_ok=True)
    wanted.unlink(missing_ok=True)
    wanted.symlink_to(timer)
    _run(module, ["systemctl", "daemon-reload"])
    _run(module, ["systemctl", "start", timer.name])


def undo(module: AnsibleModule, name: str) -> None:
    """Undo now."""
    _run(module, ["systemctl", "stop", f"{unit(name)}.timer"])
    _run(module, ["systemctl", "start", f"{unit(name)}.service"])


def disarm(module: AnsibleModule, name: str) -> bool:
    """Keep the change; False when the undo came first."""
    # Fails where the undo has come, and taken the timer away.
    module.run_command(["systemctl", "stop", f"{unit(name)}.timer"])
    state = _run(module, ["systemctl", "show", "--property=ActiveState", "--value", f"{unit(name)}.service"])
    if not is_armed(name) or state.strip() == "activating":
        return False
    for kind in ("timer", "service"):
        (UNITS / f"{unit(name)}.{kind}").unlink()
    (UNITS / "timers.target.wants" / f"{unit(name)}.timer").unlink(missing_ok=True)
    shutil.rmtree(STORE / name)
    _run(module, ["systemctl", "daemon-reload"])
    return True


def store(name: str) -> Path:
    """The directory of an undo, which only root reads."""
    directory = STORE / name
    STORE.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _run(module: AnsibleModule, command: list[str]) -> str:
    return str(module.run_command(command, check_rc=True)[1])
