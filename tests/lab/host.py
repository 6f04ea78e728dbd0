"""The machine that the lab runs on: its tools, its limits, and running a command on it."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloud-agent-lab"
# With podman's helpers by name: Debian's podman does not depend on them, and containers without
# netavark and aardvark-dns cannot find one another by name.
TOOL_PACKAGES = ("podman", "crun", "netavark", "aardvark-dns", "iptables", "mmdebstrap", "openssh-client")
# What Ubuntu 22.04 has in the place of these two.
OLD_NAME_SERVICE = "golang-github-containernetworking-plugin-dnsname"
TOOLS = ("podman", "ssh", "ssh-keygen")
# What a container on this host needs to know to reach the registries as the host does.
NETWORK_VARIABLES = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "PIP_INDEX_URL",
    "npm_config_registry",
    "NPM_CONFIG_REGISTRY",
)
# cgroup v2 on a host where the controllers are in v1 (hybrid); a pure host of either kind has no such directory.
UNIFIED = Path("/sys/fs/cgroup/unified")
# Where the kernel is told who runs programs of other processors. Debian's own entry ignores setuid, and sudo needs it;
# this one, of the same program, minds it (C), and containers may use it too (F).
BINFMT = Path("/proc/sys/fs/binfmt_misc")
BINFMT_ENTRY = "cloud-agent-lab-arm64"
QEMU_ENTRY = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
INSTALL_IT = "Install it, then run this again."


class LabError(Exception):
    """The lab cannot go on; the text says what happened and what to do next."""


def say(text: str) -> None:
    """Print a line of progress for the person who waits."""
    print(f"lab: {text}", flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    timeout: float = 60,
    check: bool = True,
    hint: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output; nothing is printed.

    `timeout` is in seconds. Raises LabError when the command is missing or takes longer, and, with `check`,
    when it fails; the message holds the command, the end of its output, and `hint`.
    """
    command = [str(part) for part in argv]
    # Without a standard input of its own a child would read that of the person's terminal.
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **source,
        )
    except FileNotFoundError as error:
        raise LabError(_failure(command, f"{command[0]} is not installed", "", hint or INSTALL_IT)) from error
    except subprocess.TimeoutExpired as error:
        seen = error.stdout or b""
        text = seen.decode(errors="replace") if isinstance(seen, bytes) else seen
        raise LabError(_failure(command, f"no end after {timeout:.0f} s", text, hint)) from error
    if check and done.returncode != 0:
        raise LabError(_failure(command, f"exit code {done.returncode}", done.stdout + done.stderr, hint))
    return done


def _failure(command: Sequence[str], problem: str, output: str, hint: str) -> str:
    lines = [f"{problem}: {shlex.join(command)}", *(f"  | {line}" for line in output.splitlines()[-15:])]
    return "\n".join([*lines, hint] if hint else lines)


def prepare() -> None:
    """Make this host able to run the lab. Does nothing where all is there; raises LabError otherwise."""
    if any(shutil.which(tool) is None for tool in TOOLS):
        install_tools()
    _mount_cgroup_controllers()


def prepare_emulation() -> None:
    """Let this host, and its containers, run programs of arm64. Raises LabError where that cannot be had."""
    if (BINFMT / BINFMT_ENTRY).exists():
        return
    root = _as_root("to let programs of arm64 run here, the lab needs root. Run this as root, or with sudo at hand.")
    if not QEMU_ENTRY.exists():
        say("installing the emulation of arm64 with apt")
        install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y", "qemu-user-static"]
        run([*root, "apt-get", "update", "-q"], timeout=300)
        run([*root, *install], timeout=900, hint="Install Debian's qemu-user-static, then run this again.")
    if not (BINFMT / "register").exists():
        run([*root, "mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT])
    # :name:type:offset:magic:mask:interpreter:flags
    fields = QEMU_ENTRY.read_text().strip().split(":")
    fields[1], fields[-1] = BINFMT_ENTRY, "OCPF"
    run([*root, "tee", BINFMT / "register"], stdin=":".join(fields))


def install_tools() -> None:
    """Install podman and what belongs to it with apt."""
    missing = f"the lab needs {', '.join(TOOLS)}, and mmdebstrap where no image registry answers."
    if shutil.which("apt-get") is None:
        raise LabError(f"{missing} Install them with this system's package manager, then run this again.")
    root = _as_root(f"{missing} Run: sudo apt-get install {' '.join(TOOL_PACKAGES)}")
    say("installing podman and mmdebstrap with apt")
    run([*root, "apt-get", "update", "-q"], timeout=300)
    # Older releases lack some of the names and have other packages in their place.
    known = [name for name in TOOL_PACKAGES if run(["apt-cache", "show", name], check=False).returncode == 0]
    if "aardvark-dns" not in known:
        known.append(OLD_NAME_SERVICE)
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    run([*root, *environment, "apt-get", "install", "-q", "-y", *known], timeout=900)


def _as_root(otherwise: str) -> list[str]:
    """The prefix that makes a command root's; LabError(otherwise) when there is none without a password."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and run(["sudo", "-n", "true"], check=False).returncode == 0:
        return ["sudo", "-n"]
    raise LabError(otherwise)


def _mount_cgroup_controllers() -> None:
    """Move controllers from cgroup v2 to v1 on a hybrid host, where crun refuses to start otherwise.

    crun: "cgroups in hybrid mode not supported, drop all controllers from cgroupv2".
    """
    available = UNIFIED / "cgroup.controllers"
    if not available.exists():
        return
    for controller in available.read_text().split():
        target = f"/sys/fs/cgroup/{controller}"
        mount = ["mount", "-t", "cgroup", "-o", controller, "cgroup", target]
        by_hand = f"sudo mkdir -p {target}; sudo {' '.join(mount)}"
        root = _as_root(f"crun needs the cgroup controller {controller} in v1. Run: {by_hand}")
        say(f"mounting the cgroup controller {controller}")
        run([*root, "mkdir", "-p", target])
        run([*root, *mount], hint="Boot this host with systemd.unified_cgroup_hierarchy=1.")


def ulimit_arguments() -> list[str]:
    """Limits for podman that this process may set: its own defaults can lie above the host's hard limits."""
    wanted = (("nofile", resource.RLIMIT_NOFILE, 20000), ("nproc", resource.RLIMIT_NPROC, 9636))
    arguments = []
    for name, which, value in wanted:
        hard = resource.getrlimit(which)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(hard, value)
        arguments.append(f"--ulimit={name}={limit}:{limit}")
    return arguments


def cgroup_arguments() -> list[str]:
    """The mount that lets systemd in a container see the end of its services on a hybrid host.

    podman gives it cgroup v1 alone there, which tells a container nothing when a group empties: every other stop
    of a service with several processes then lasted until its time limit.
    """
    return [f"--volume={UNIFIED}:{UNIFIED}:rw"] if UNIFIED.exists() else []


def port_is_free(port: int) -> bool:
    """Whether this process could listen on 127.0.0.1:port."""
    with socket.socket() as probe:
        # As servers do: a connection of the last minute in TIME_WAIT does not make a port busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def extra_ca_certificates() -> list[str]:
    """Certificates that this host's owner added to the system's, as paths."""
    return sorted(str(path) for path in Path("/usr/local/share/ca-certificates").rglob("*.crt"))


def network_environment() -> dict[str, str]:
    """Proxies and registries of this host, for the machines that it sets up."""
    return {name: os.environ[name] for name in NETWORK_VARIABLES if os.environ.get(name)}
