"""A real Dovecot on loopback, with users whose mail lies in Maildirs: for tests and benchmarks of the watcher.

It runs as an unprivileged user (nobody, where root runs the tests) from a folder of its own, on free ports: one with
STARTTLS, one with TLS from the start, by a CA of its own. It touches nothing of the machine's Dovecot.
"""

from __future__ import annotations

import contextlib
import grp
import itertools
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from imapclient import IMAPClient  # type: ignore[import-untyped]

PROGRAM = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
INSTALL_IT = "there is no Dovecot: apt-get install dovecot-imapd (its service need not run)"
USER, PASSWORD = "ann@example.com", "s3cret-pass"

CONFIG = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1, 127.0.0.2
ssl = yes
ssl_cert = <{folder}/server.pem
ssl_key = <{folder}/server.key
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
default_vsz_limit = 0
auth_failure_delay = 0
auth_mechanisms = plain login{mechanisms}
mail_location = maildir:{folder}/mail/%u
mail_max_userip_connections = 1000
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {plain_port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
{oauth}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/home/%u
}}
namespace inbox {{
  inbox = yes
}}
{more}
"""
OAUTH = """\
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {folder}/oauth2.conf
}}
"""


class Dovecot:
    """The server; every user has the same password. `tokeninfo_url`: where it asks whether an access token is good, for
    XOAUTH2. `more`: lines of its configuration."""

    def __init__(self, tokeninfo_url: str = "", more: str = "", password: str = PASSWORD) -> None:
        assert PROGRAM is not None, INSTALL_IT
        self.folder = Path(tempfile.mkdtemp(prefix="dovecot-"))
        name = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        account = pwd.getpwnam(name)
        self.owner = (account.pw_uid, account.pw_gid)
        self.plain_port, self.tls_port = _free_ports()
        self.ca = self.folder / "ca.pem"
        _make_certificates(self.folder)
        for below in ("mail", "home", "state"):
            (self.folder / below).mkdir()
        if tokeninfo_url:
            (self.folder / "oauth2.conf").write_text(
                f"tokeninfo_url = {tokeninfo_url}?access_token=\nintrospection_mode = get\n"
                f"introspection_url = {tokeninfo_url}?access_token=\nusername_attribute = email\n"
            )
        (self.folder / "dovecot.conf").write_text(
            CONFIG.format(
                folder=self.folder,
                user=name,
                group=grp.getgrgid(account.pw_gid).gr_name,
                uid=account.pw_uid,
                gid=account.pw_gid,
                plain_port=self.plain_port,
                tls_port=self.tls_port,
                password=password,
                mechanisms=" xoauth2" if tokeninfo_url else "",
                oauth=OAUTH.format(folder=self.folder) if tokeninfo_url else "",
                more=more,
            )
        )
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, *self.owner)
        self.folder.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count()

    # -- the server ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        as_owner = {"user": self.owner[0], "group": self.owner[1], "extra_groups": []} if os.geteuid() == 0 else {}
        self._process = subprocess.Popen(  # type: ignore[call-overload]
            [PROGRAM, "-F", "-c", str(self.folder / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            **as_owner,
        )
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.plain_port), 1) as probe:
                if probe.recv(4) == b"* OK":
                    return
            assert self._process.poll() is None and time.monotonic() < end, f"no Dovecot: {self.log()}"
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server and its connections. By SIGKILL of the master its children end by themselves, in a while."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def __enter__(self) -> Dovecot:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- its mail --------------------------------------------------------------------------------------------------

    def maildir(self, user: str = USER) -> Path:
        """Made where it is missing."""
        root = self.folder / "mail" / user
        for folder in (root, *(root / name for name in ("tmp", "new", "cur"))):
            if not folder.exists():
                folder.mkdir()
                os.chown(folder, *self.owner)
        return root

    def deliver(self, raw: bytes, user: str = USER) -> None:
        """As a delivery agent does: maildir(5)."""
        root = self.maildir(user)
        name = f"{time.time():.6f}.{os.getpid()}_{next(self._names)}.test"
        (root / "tmp" / name).write_bytes(raw)
        os.chown(root / "tmp" / name, *self.owner)
        (root / "tmp" / name).rename(root / "new" / name)

    def renumber(self, user: str = USER) -> None:
        """Have the server forget all numbers it gave: another UIDVALIDITY, other UIDs."""
        for path in self.maildir(user).glob("dovecot*"):
            path.unlink()

    @contextlib.contextmanager
    def client(self, user: str = USER) -> Iterator[IMAPClient]:
        """Somebody else's connection to the same account, as the owner's phone."""
        with IMAPClient("127.0.0.1", self.plain_port, ssl=False, timeout=20) as client:
            client.login(user, PASSWORD)
            yield client

    def flags(self, user: str = USER) -> dict[int, tuple[bytes, ...]]:
        """UID -> flags, looked at without a trace; who looks sees \\Recent as nobody has selected the folder."""
        with self.client(user) as client:
            client.select_folder("INBOX", readonly=True)
            return {uid: about[b"FLAGS"] for uid, about in client.fetch(client.search(), ["FLAGS"]).items()}


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


def _make_certificates(folder: Path) -> None:
    """ca.pem, and server.pem by it for localhost and 127.0.0.1."""

    def openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=A CA of the tests")
    openssl("req", *key[:-2], "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    sign = ("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    openssl(*sign, "-out", "server.pem", "-extfile", "ext")
    assert ssl.create_default_context(cafile=str(folder / "ca.pem"))
