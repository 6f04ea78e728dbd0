"""What tests and the benchmark of the watcher share: the command as a process, and a network that cuts connections."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.dovecot import PASSWORD, USER, Dovecot


def message(mark: str, body: str = "Could you call me?", *, size: int = 0, **header: str) -> bytes:
    """A message that can be found again by its mark; filled up to `size` bytes by an attachment."""
    fields = {
        "From": "Bob <bob@example.org>",
        "To": USER,
        "Subject": f"About {mark}",
        "Message-ID": f"<{mark}@example.org>",
        "Date": "Mon, 23 Nov 2026 10:00:00 +0000",
        **{name.replace("_", "-"): value for name, value in header.items()},
    }
    text = f"{body} mark:{mark}:\r\n"
    if size:
        fields |= {"MIME-Version": "1.0", "Content-Type": 'multipart/mixed; boundary="b"'}
        line = "A" * 76 + "\r\n"
        text = (
            f"--b\r\nContent-Type: text/plain\r\n\r\n{text}\r\n--b\r\nContent-Type: application/pdf; name=plan.pdf\r\n"
            f"Content-Transfer-Encoding: base64\r\n\r\n{line * (size // len(line))}\r\n--b--\r\n"
        )
    return ("".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n" + text).encode()


def imap_settings(server: Dovecot, **more: object) -> dict[str, object]:
    return {
        "IMAP_HOST": "localhost",
        "IMAP_PORT": server.tls_port,
        "IMAP_USER": USER,
        "IMAP_PASSWORD": PASSWORD,
        "IMAP_CA_FILE": server.ca,
        **more,
    }


class Watched:
    """A vault, and `cloud-agent watch` that fills it."""

    def __init__(self, root: Path, **settings: object) -> None:
        self.root = root
        self.vault = root / "vault"
        self.state = root / "state"
        (self.vault / "Inbox").mkdir(parents=True, exist_ok=True)
        self.env_file = root / ".env.cloud"
        self.configure(**settings)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = root / "watch.log"

    def configure(self, **settings: object) -> None:
        told = {
            "VAULT_PATH": self.vault,
            "GIT_REMOTE_URL": self.root / "none.git",
            "CLAUDE_API_KEY": "a-key-of-no-known-form",
            "STATE_PATH": self.state,
            **settings,
        }
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in told.items()))
        self.env_file.chmod(0o600)

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "cloud_agent", "--env-file", str(self.env_file)]

    def once(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, "watch", "--once"], capture_output=True, text=True, timeout=120)

    def start(self) -> None:
        with open(self.log, "ab") as log:
            environment = {**os.environ, "PYTHONOPTIMIZE": "2"}  # as in ecosystem.config.js
            self.process = subprocess.Popen([*self.command, "watch"], stdout=log, stderr=log, env=environment)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """As PM2 does; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(10)
        self.process = None
        return status

    def beat(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.state / "watch.json").read_text()))
        except (OSError, ValueError):
            return {}

    def alerts(self) -> dict[str, dict[str, str]]:
        try:
            return dict(json.loads((self.state / "alerts.json").read_text()))
        except (OSError, ValueError):
            return {}

    def wait_idle(self, seconds: float = 15) -> None:
        """Until a pass of this process went well."""
        assert self.process is not None
        pid = self.process.pid
        wait(lambda: self.beat().get("pid") == pid and self.beat().get("result") == "ok", seconds, self.tail)

    def wait_beat(self, seconds: float = 60) -> None:
        """Until this process has begun to read, or knows why it cannot."""
        assert self.process is not None
        pid = self.process.pid
        wait(lambda: self.beat().get("pid") == pid, seconds, self.tail)

    def tail(self) -> str:
        return self.log.read_text()[-3000:] if self.log.exists() else ""

    def mails(self) -> list[Path]:
        """All mails, wherever they lie."""
        return [path for path in self.vault.rglob("EMAIL_*.md") if not path.is_relative_to(self.vault / "Logs")]

    def marks(self) -> Counter[str]:
        """How often each message of `message` lies in the vault."""
        found: Counter[str] = Counter()
        for path in self.mails():
            found.update(re.findall(r"mark:([^:]+):", path.read_text("utf-8")))
        return found

    def memory(self) -> float:
        """Resident, MB (10^6)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) * 1024 / 1e6

    def peak_memory(self) -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) * 1024 / 1e6

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def wait(until: Callable[[], object], seconds: float, tell: Callable[[], str] = str) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, tell()
        time.sleep(0.02)


class Wire:
    """A network between a client and a port of this machine: it can cut what is open, refuse, and fall silent."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.refusing = False
        self.silent = False
        self.cut_after: Callable[[], int | None] = lambda: None  # bytes from the server, of each new connection
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End what is open, at once."""
        with self._lock:
            for end in self._open:
                _reset(end)
            self._open.clear()

    def close(self) -> None:
        self._server.close()
        self.cut()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.refusing:
                _reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                _reset(client)
                continue
            self.connections += 1
            with self._lock:
                self._open |= {client, server}
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        left = self.cut_after()
        with contextlib.suppress(OSError, ValueError):
            while True:
                for end in select.select([client, server], [], [], 1.0)[0]:
                    part = end.recv(65536)
                    if not part:
                        return self._end(client, server)
                    if self.silent:
                        continue
                    if end is server and left is not None:
                        part, left = part[:left], left - len(part)
                    (client if end is server else server).sendall(part)
                    if left is not None and left <= 0:
                        return self._end(client, server)
        return self._end(client, server)

    def _end(self, *ends: socket.socket) -> None:
        with self._lock:
            for end in ends:
                self._open.discard(end)
                _reset(end)


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


SOAK = float(os.environ.get("SOAK_MINUTES", "0"))
