"""The few things that the lab asks of podman."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.lab import host
from tests.lab.host import LabError, run, say

LABEL = "cloud-agent-lab"
RECIPE_LABEL = f"{LABEL}.recipe"


@dataclass(frozen=True)
class Machine:
    """A container that boots systemd, as it is to be.

    `lab` is the lab's key; `ports` maps a port of 127.0.0.1 to one of the container, `mounts` a directory of this host
    to one there (read-only); `alias` is its name for the other machines of the lab.
    """

    lab: str
    alias: str
    image: str
    ports: Mapping[int, int]
    mounts: Mapping[Path, str]
    capabilities: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    boots_within: float = 90

    @property
    def name(self) -> str:
        return f"cloud-agent-{self.lab}-{self.alias}"

    @property
    def network(self) -> str:
        return network_name(self.lab)

    def arguments(self) -> list[str]:
        """Everything that `podman run` needs besides the recipe's label."""
        return [
            f"--name={self.name}",
            f"--hostname={self.alias}",
            f"--label={LABEL}={self.lab}",
            *(f"--label={name}={value}" for name, value in self.labels.items()),
            *(f"--cap-add={capability}" for capability in self.capabilities),
            "--systemd=always",
            # A reboot from inside ends PID 1; podman then starts the same container again, files and all.
            "--restart=always",
            *host.ulimit_arguments(),
            *host.cgroup_arguments(),
            f"--network={self.network}",
            f"--network-alias={self.alias}",
            *(f"--publish=127.0.0.1:{outside}:{inside}" for outside, inside in self.ports.items()),
            *(f"--volume={directory}:{inside}:ro" for directory, inside in self.mounts.items()),
            self.image,
            "/sbin/init",
        ]

    def recipe(self) -> str:
        """A name for all that the container is made from."""
        parts = [image_id(self.image), *self.arguments()]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    def is_current(self) -> bool:
        """Whether there is a container, running or not, that is as it is to be."""
        present = _inspect(self.name)
        return present is not None and present["Config"]["Labels"].get(RECIPE_LABEL) == self.recipe()

    def resume(self) -> bool:
        """Let the present container run; False when it does not start."""
        if self.state() == "running":
            say(f"{self.alias}: keeping the running container")
            return True
        self._demand_ports()
        # It was stopped, for example by a reboot of this host. One that was never whole does not start.
        started = run(["podman", "start", self.name], check=False).returncode == 0
        if started:
            say(f"{self.alias}: started the stopped container")
        return started

    def start(self) -> None:
        """Let a new container run, in the place of the present one if there is one."""
        self.remove()
        self._demand_ports()
        say(f"{self.alias}: starting a new container")
        label = f"--label={RECIPE_LABEL}={self.recipe()}"
        run(["podman", "run", "--detach", "--replace", label, *self.arguments()], timeout=120)

    def remove(self) -> None:
        """End the container, if there is one."""
        run(["podman", "rm", "--force", "--ignore", "--time=0", "--volumes", self.name], timeout=120)

    def _demand_ports(self) -> None:
        for port in self.ports:
            if not host.port_is_free(port):
                raise LabError(
                    f"port {port} of 127.0.0.1, which {self.name} needs, is in use. See who holds it with\n"
                    f"  ss -ltnp 'sport = :{port}'   or   podman ps --filter publish={port}\n"
                    "end that program, then run this again."
                )

    def wait_until_booted(self) -> None:
        """Return when systemd has started everything; LabError after `boots_within` seconds."""
        deadline = time.monotonic() + self.boots_within
        state = ""
        while time.monotonic() < deadline:
            # Without --wait: right after the start there is no bus yet for systemctl to wait on.
            done = run(["podman", "exec", self.name, "systemctl", "is-system-running"], check=False)
            state = done.stdout.strip()
            if state == "running":
                return
            if state == "degraded":
                failed = self.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"])
                say(f"{self.alias}: booted, but these units failed: {failed.stdout.strip()}")
                return
            time.sleep(0.2)
        raise LabError(
            f"{self.name} did not boot in {self.boots_within:.0f} s (state: {state or 'no answer'}). See\n"
            f"  podman logs {self.name}\n  podman exec {self.name} journalctl --no-pager -n 50"
        )

    def run(self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60) -> CompletedProcess[str]:
        """Run a command in the machine as root, as `host.run` does on this host."""
        interactive = ["--interactive"] if stdin is not None else []
        return run(["podman", "exec", *interactive, self.name, *argv], stdin=stdin, timeout=timeout)

    def write(self, path: str, text: str, *, mode: str, owner: str = "root", group: str = "root") -> None:
        """Write a small file in the machine, in a directory that is there."""
        self.run(["install", "-m", mode, "-o", owner, "-g", group, "/dev/stdin", path], stdin=text)

    def state(self) -> str:
        """podman's word for the container: running, exited, created, ... or "absent"."""
        present = _inspect(self.name)
        return "absent" if present is None else str(present["State"]["Status"])

    def has(self, path: str) -> bool:
        """Whether there is a file `path` in the machine."""
        return run(["podman", "exec", self.name, "test", "-e", path], check=False).returncode == 0


def _inspect(name: str) -> dict[str, Any] | None:
    done = run(["podman", "container", "inspect", name], check=False)
    return None if done.returncode != 0 else dict(json.loads(done.stdout)[0])


def labels(name: str) -> set[str]:
    """The values of a label among all containers of this host, running or not."""
    argv = ["podman", "ps", "--all", f"--filter=label={name}", f'--format={{{{index .Labels "{name}"}}}}']
    return set(run(argv).stdout.split())


def network_name(lab: str) -> str:
    return f"{LABEL}-{lab}"


def make_network(lab: str) -> None:
    """Make the lab's network, on which the machines know one another by their alias."""
    name = network_name(lab)
    if run(["podman", "network", "exists", name], check=False).returncode != 0:
        run(["podman", "network", "create", f"--label={LABEL}={lab}", name])
    details = json.loads(run(["podman", "network", "inspect", name]).stdout)[0]
    if details.get("dns_enabled") is False:
        raise LabError(
            f"podman's network {name} has no name service. Install aardvark-dns and netavark, then\n"
            f"  podman network rm {name}\nand run this again."
        )


def remove_lab(lab: str) -> list[str]:
    """Remove every container and network of a lab; returns their names. Does nothing where there is none."""
    mine = f"--filter=label={LABEL}={lab}"
    containers = run(["podman", "ps", "--all", mine, "--format={{.Names}}"]).stdout.split()
    if containers:
        run(["podman", "rm", "--force", "--ignore", "--time=0", "--volumes", *containers], timeout=120)
    networks = run(["podman", "network", "ls", mine, "--format={{.Name}}"]).stdout.split()
    if networks:
        run(["podman", "network", "rm", "--force", *networks])
    return containers + networks


def image_exists(image: str) -> bool:
    return run(["podman", "image", "exists", image], check=False).returncode == 0


def image_id(image: str) -> str:
    return run(["podman", "image", "inspect", "--format={{.Id}}", image]).stdout.strip()


def build(directory: Path, image: str, base: str, *extra: str) -> None:
    """Build `directory`/Containerfile on top of `base` (the recipe's argument FROM) into `image`.

    `extra` are further options of podman.
    """
    options = [*host.ulimit_arguments(), f"--build-arg=FROM={base}", f"--tag={image}", *extra]
    run(
        ["podman", "build", "--quiet", *options, directory],
        timeout=1200,
        hint="If a download failed, check the network and run this again: what was done is kept.",
    )
