"""A real sshd on loopback that serves git to a deploy key, as GitHub does: for tests and benchmarks.

It runs as whoever runs the tests, on a free port, with keys of its own, and touches nothing of the machine's ssh.
`Sshd.bin`, put into PATH, holds an `ssh` that knows this server's host key and no other.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

# sshd wants to be called by its whole path, and Debian keeps it out of a plain user's PATH.
PROGRAM = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
INSTALL_IT = "there is no sshd: apt-get install openssh-server (its service need not run)"
# As root, sshd wants an empty folder for its unprivileged part.
SEPARATION = Path("/run/sshd")

# The forced command of the key, worded as GitHub's. $1: read, write.
SERVE = """#!/bin/sh
PATH='{path}'
export PATH
name=${{SSH_ORIGINAL_COMMAND##*/}}
repository='{repositories}'/${{name%\\'}}
case "$1 ${{SSH_ORIGINAL_COMMAND%% *}}" in
*" git-upload-pack") [ -d "$repository" ] && exec git upload-pack "$repository" ;;
"write git-receive-pack") [ -d "$repository" ] && exec git receive-pack "$repository" ;;
"read git-receive-pack")
  echo "ERROR: The key you are authenticating with has been marked as read only." >&2
  exit 1 ;;
esac
echo "ERROR: Repository not found." >&2
exit 1
"""


@dataclass
class Sshd:
    """Serves the bare repositories in a folder; `folder` is the server's own. No path may have a blank."""

    folder: Path
    repositories: Path

    def __post_init__(self) -> None:
        assert PROGRAM is not None, INSTALL_IT
        self.folder.mkdir(parents=True)
        self.log = self.folder / "log"
        self.key = self.folder / "deploy_key"
        self.bin = self.folder / "bin"
        for key in (self.folder / "host_key", self.key):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        serve = self.folder / "serve"
        serve.write_text(SERVE.format(path=os.environ["PATH"], repositories=self.repositories))
        serve.chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.authorize("write")
        self._write_client()
        self._write_server()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, name: str) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}/{name}"

    def authorize(self, access: str) -> None:
        """What the deploy key may do from now on: "read", "write", or "" for nothing at all."""
        line = f'restrict,command="{self.folder}/serve {access}" {self.key.with_suffix(".pub").read_text()}'
        (self.folder / "authorized_keys").write_text(line if access else "")

    def pin(self, host_key: str | None = None) -> None:
        """The host key that the client knows: this server's, another one, or none ("")."""
        own = (self.folder / "host_key.pub").read_text()
        known = own if host_key is None else host_key
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {known}" if known else "")

    def start(self) -> None:
        if os.geteuid() == 0:
            SEPARATION.mkdir(mode=0o755, exist_ok=True)
        command = [str(PROGRAM), "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.log)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self._process.poll() is None and time.monotonic() < end, f"no sshd: {self.log.read_text()}"
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server and every connection, so that no kept connection outlives a test."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # no new connection while the present ones end
        self.drop_connections()
        self._process.kill()
        self._process.wait()
        self._process = None

    def drop_connections(self) -> None:
        """End every connection; the server goes on."""
        assert self._process is not None
        for pid in descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def authentications(self) -> int:
        """How many connections were let in so far."""
        return self.log.read_text().count("Accepted publickey")

    def __enter__(self) -> Sshd:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_client(self) -> None:
        self.bin.mkdir()
        (self.bin / "ssh_config").write_text(
            f"UserKnownHostsFile {self.folder}/known_hosts\nGlobalKnownHostsFile /dev/null\n"
        )
        ssh = self.bin / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.bin}/ssh_config "$@"\n')
        ssh.chmod(0o755)
        self.pin()

    def _write_server(self) -> None:
        (self.folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\n"
            f"HostKey {self.folder}/host_key\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\n"
            "PidFile none\n"
            "PermitRootLogin forced-commands-only\n"
            "PasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            "StrictModes no\n"  # a temporary folder is everybody's
            "AcceptEnv GIT_PROTOCOL\n"
            f"SetEnv HOME={self.folder}\n"  # bash would read the .bashrc of whoever runs the tests
            "LogLevel VERBOSE\n"
        )


def descendants(pid: int) -> list[int]:
    """Every process below this one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                parents.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    below = parents.get(pid, [])
    while below:
        found += below
        below = [child for one in below for child in parents.get(one, [])]
    return found
