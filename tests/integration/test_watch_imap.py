"""`cloud-agent watch` and a real Dovecot: what is read and what left alone, how it waits, whom it trusts."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_agent import imap
from cloud_agent.config import ImapBox
from cloud_agent.imap import Imap
from cloud_agent.mailbox import Unreachable
from cloud_agent.state import utc_now

from tests.dovecot import INSTALL_IT, PASSWORD, PROGRAM, USER, Dovecot
from tests.standins import gmail_api
from tests.watchkit import Watched, Wire, imap_settings, message, wait

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=INSTALL_IT)


@pytest.fixture(scope="module")
def running() -> Iterator[Dovecot]:
    with Dovecot() as made:
        yield made


@pytest.fixture
def server(running: Dovecot) -> Dovecot:
    """With an empty inbox."""
    for path in (*running.maildir().glob("*/*"), *running.maildir().glob("dovecot*")):
        path.unlink()
    return running


@pytest.fixture
def watched(tmp_path: Path, server: Dovecot) -> Iterator[Watched]:
    with Watched(tmp_path, **imap_settings(server)) as made:
        yield made


def logins(server: Dovecot) -> int:
    return server.log().count("Login: user=")


# -- what is taken -----------------------------------------------------------------------------------------------------


def test_only_what_arrives_from_the_first_start_on_and_without_a_trace(server: Dovecot, watched: Watched) -> None:
    server.deliver(message("old"))
    assert watched.once().returncode == 0
    server.deliver(message("new"))
    server.deliver(message("large", size=6_000_000))
    before = server.flags()
    assert before == {1: (rb"\Recent",), 2: (rb"\Recent",), 3: (rb"\Recent",)}
    files = sorted(path.name for path in server.maildir().glob("*/*"))
    done = watched.once()
    assert done.returncode == 0, done.stderr
    assert watched.marks() == {"new": 1, "large": 1}
    # \Recent too: nobody has selected the folder, as far as anybody can tell
    assert server.flags() == before
    assert sorted(path.name for path in server.maildir().glob("*/*")) == files


def test_looking_back(server: Dovecot, tmp_path: Path) -> None:
    for days in (10, 4, 2, 0):
        server.deliver(message(f"d{days}"))
        newest = max(server.maildir().glob("new/*"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (time.time() - days * 86400,) * 2)  # Dovecot's INTERNALDATE
    with Watched(tmp_path, **imap_settings(server, WATCH_SINCE_DAYS=3)) as watched:
        assert watched.once().returncode == 0
        assert watched.marks() == {"d2": 1, "d0": 1}
        server.deliver(message("next"))
        assert watched.once().returncode == 0
        assert watched.marks() == {"d2": 1, "d0": 1, "next": 1}


def test_state_that_is_gone_and_numbers_given_anew(server: Dovecot, watched: Watched) -> None:
    server.deliver(message("old"))
    for path in server.maildir().glob("new/*"):
        os.utime(path, (time.time() - 86400,) * 2)
    assert watched.once().returncode == 0
    time.sleep(1.1)  # a position knows whole seconds
    server.deliver(message("a"))
    assert watched.once().returncode == 0
    for path in watched.state.iterdir():
        path.unlink()
    server.deliver(message("b"))
    assert watched.once().returncode == 0
    assert watched.marks() == {"a": 1, "b": 1}
    server.renumber()
    server.deliver(message("c"))
    assert watched.once().returncode == 0
    assert watched.marks() == {"a": 1, "b": 1, "c": 1}


def test_the_same_in_another_folder(server: Dovecot, tmp_path: Path) -> None:
    with server.client() as client:
        client.create_folder("Fragen & Träume")
    with Watched(tmp_path, **imap_settings(server, IMAP_FOLDER='"Fragen & Träume"')) as watched:
        assert watched.once().returncode == 0
        with server.client() as client:
            client.append("Fragen & Träume", message("there"))
            client.append("INBOX", message("here"))
        assert watched.once().returncode == 0
        assert watched.marks() == {"there": 1}
        with server.client() as client:
            client.delete_folder("Fragen & Träume")


def test_50_mb_in_bounded_memory(server: Dovecot, watched: Watched) -> None:
    watched.start()
    watched.wait_idle()
    before = watched.peak_memory()
    server.deliver(message("huge", size=50_000_000))
    wait(lambda: watched.marks()["huge"], 60, watched.tail)
    assert watched.peak_memory() < before + 25
    assert watched.stop() == 0


# -- how it waits ------------------------------------------------------------------------------------------------------


def test_a_new_message_is_there_at_once_and_a_stop_too(server: Dovecot, tmp_path: Path) -> None:
    with Watched(tmp_path, **imap_settings(server, WATCH_INTERVAL_SECONDS=3600)) as watched:
        watched.start()
        watched.wait_idle()
        for number in range(3):
            server.deliver(message(f"m{number}"))
            wait(lambda number=number: watched.marks()[f"m{number}"], 20, watched.tail)
        began = time.monotonic()
        assert watched.stop() == 0
        assert time.monotonic() - began < 5
    assert "Logged out" in server.log().splitlines()[-1]


def test_a_server_without_idle_is_asked(tmp_path: Path) -> None:
    with Dovecot(more="imap_capability = IMAP4rev1 LITERAL+ UIDPLUS") as server:
        server.maildir()
        with Watched(tmp_path, **imap_settings(server, WATCH_INTERVAL_SECONDS=1)) as watched:
            watched.start()
            watched.wait_idle()
            server.deliver(message("m"))
            wait(lambda: watched.marks()["m"], 20, watched.tail)
            assert logins(server) == 1
            assert watched.stop() == 0


def test_who_only_asks_is_not_an_interval_late(server: Dovecot, tmp_path: Path) -> None:
    inbox = source(server, tmp_path, server.tls_port)
    (first,) = inbox.messages(None, None)
    for number in range(1, 4):
        server.deliver(message(f"m{number}"))
        time.sleep(1.1)  # Dovecot looks at the folder's time, which has whole seconds
        found = [one for one in inbox.messages(first.position, utc_now()) if one.content]
        assert len(found) == number
    inbox.leave()


def test_only_one_watches(server: Dovecot, watched: Watched) -> None:
    watched.start()
    watched.wait_idle()
    done = watched.once()
    assert (done.returncode, "is running" in done.stderr) == (75, True)
    assert watched.stop() == 0


def test_status_knows_it(server: Dovecot, watched: Watched) -> None:
    def status() -> dict[str, dict[str, dict[str, object]]]:
        shown = subprocess.run([*watched.command, "status", "--json"], capture_output=True, text=True)
        return dict(json.loads(shown.stdout))

    assert status()["loops"]["watch"]["alive"] is False
    watched.start()
    watched.wait_idle()
    assert status()["loops"]["watch"]["alive"] is True
    assert status()["loops"]["watch"]["last_mail"] is None
    server.deliver(message("m"))
    wait(lambda: status()["loops"]["watch"]["last_mail"], 20, watched.tail)
    assert watched.stop() == 0
    assert watched.once().returncode == 0
    shown = subprocess.run([*watched.command, "status"], capture_output=True, text=True)
    assert ", a mail came last at 2" in shown.stdout, "over a restart"


def source(server: Dovecot, folder: Path, port: int) -> Imap:
    box = ImapBox("localhost", port, "implicit", server.ca, USER, PASSWORD, None, "INBOX")
    return Imap(box, None, folder, utc_now, 0, time.monotonic)


def test_a_connection_that_fell_silent_is_found_out(
    server: Dovecot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A middlebox that forgets a connection sends no end of it."""
    monkeypatch.setattr(imap, "READ_SECONDS", 0.5)
    with Wire(server.tls_port) as wire:
        inbox = source(server, tmp_path, wire.port)
        (first,) = inbox.messages(None, None)
        assert inbox.listen() is not None
        wire.silent = True
        began = time.monotonic()
        with pytest.raises(Unreachable):
            list(inbox.messages(first.position, utc_now()))
        assert time.monotonic() - began < 5
        inbox.close()
        wire.silent = False
        server.deliver(message("m"))
        assert [one.content for one in inbox.messages(first.position, utc_now()) if one.content]
        inbox.leave()


def test_a_server_that_dribbles_does_not_hold_the_loop(
    server: Dovecot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap, "COMMAND_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def dribble() -> None:
            with listening.accept()[0] as end, contextlib.suppress(OSError):
                end.sendall(b"* OK [CAPABILITY IMAP4rev1] ready\r\n")
                tag = end.recv(1000).split()[0]
                end.sendall(b"* CAPABILITY IMAP4rev1\r\n" + tag + b" OK done\r\n")
                for _ in range(200):
                    end.sendall(b"*")
                    time.sleep(0.05)

        threading.Thread(target=dribble, daemon=True).start()
        box = ImapBox("127.0.0.1", listening.getsockname()[1], "none", None, USER, PASSWORD, None, "INBOX")
        began = time.monotonic()
        with pytest.raises(Unreachable):
            next(Imap(box, None, tmp_path, utc_now, 0, time.monotonic).messages(None, None))
        assert time.monotonic() - began < 5


def test_what_came_together_with_the_beginning_of_idle_is_seen(server: Dovecot, tmp_path: Path) -> None:
    """The line that tells of a message then lies in a buffer, where no socket that can be read tells of it."""
    for tls in ("implicit", "none"):
        port = server.tls_port if tls == "implicit" else server.plain_port
        box = ImapBox("localhost", port, tls, server.ca, USER, PASSWORD, None, "INBOX")
        inbox = Imap(box, None, tmp_path, utc_now, 0, time.monotonic)
        list(inbox.messages(None, None))
        client = inbox.client
        idle = client.idle

        def slow(idle=idle, client=client) -> None:  # type: ignore[no-untyped-def]
            idle()
            server.deliver(message("m"))
            client.socket().settimeout(10)
            client._imap.file.peek(1)  # as if it had come in one piece

        client.idle = slow
        assert inbox.listen() == -1
        inbox.leave()


# -- whom it trusts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"IMAP_CA_FILE": ""}, "does not prove who it is"),
        ({"IMAP_HOST": "127.0.0.2"}, "does not prove who it is"),
    ],
)
def test_a_server_that_does_not_prove_who_it_is(
    server: Dovecot, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    before = logins(server)
    with Watched(tmp_path, **imap_settings(server, **change)) as watched:
        for _ in range(2):  # the second time nothing is new, and a person waits for the answer all the same
            done = watched.once()
            assert (done.returncode, said in done.stderr) == (75, True)
        assert said in watched.alerts()["mailbox"]["message"]
    assert logins(server) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"IMAP_HOST": "imap.nowhere.invalid"}, "look at IMAP_HOST"),
        ({"IMAP_PORT": 1}, "nothing answers at port 1"),
        ({"IMAP_TLS": "implicit", "plain": True}, "does not begin with TLS: look at IMAP_PORT and IMAP_TLS"),
        ({"IMAP_FOLDER": "Nope"}, "correct IMAP_FOLDER"),
    ],
)
def test_what_was_set_wrong_is_told_with_its_name(
    server: Dovecot, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    if change.pop("plain", False):
        change["IMAP_PORT"] = server.plain_port
    with Watched(tmp_path, **imap_settings(server, **change)) as watched:
        done = watched.once()
        assert (done.returncode, said in done.stderr) == (75, True)


def test_starttls(server: Dovecot, tmp_path: Path) -> None:
    plain = imap_settings(server, IMAP_PORT=server.plain_port, IMAP_TLS="starttls")
    with Watched(tmp_path, **plain) as watched:
        assert watched.once().returncode == 0
        assert "TLS" in [line for line in server.log().splitlines() if "Login: user=" in line][-1]


@pytest.mark.parametrize("greeting", [b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN]", b"* PREAUTH [CAPABILITY IMAP4rev1]"])
def test_the_password_goes_nowhere_when_starttls_is_taken_away(tmp_path: Path, greeting: bytes) -> None:
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def strip() -> None:
            with listening.accept()[0] as end:
                end.sendall(greeting + b" ready\r\n")
                while part := end.recv(1000):
                    heard.extend(part)
                    tag = part.split()[0]
                    if b"CAPABILITY" in part:
                        end.sendall(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n" + tag + b" OK done\r\n")
                    else:
                        end.sendall(tag + b" OK done\r\n")

        threading.Thread(target=strip, daemon=True).start()
        box = ImapBox("127.0.0.1", listening.getsockname()[1], "starttls", None, USER, PASSWORD, None, "INBOX")
        inbox = Imap(box, None, tmp_path, utc_now, 0, time.monotonic)
        with pytest.raises(Unreachable):
            next(inbox.messages(None, None))
        inbox.close()
    assert heard and b"LOGIN" not in heard and b"AUTHENTICATE" not in heard


def test_a_refused_password_is_told_and_not_hammered(server: Dovecot, tmp_path: Path) -> None:
    with Watched(tmp_path, **imap_settings(server, IMAP_PASSWORD="wrong", WATCH_INTERVAL_SECONDS=1)) as watched:
        tried = server.log().count("auth failed")
        watched.start()
        wait(lambda: watched.beat().get("refused"), 20, watched.tail)
        time.sleep(4)
        assert server.log().count("auth failed") == tried + 1
        beat = watched.beat()
        assert (beat["result"], "set IMAP_USER and IMAP_PASSWORD right" in beat["message"]) == ("later", True)
        assert "wrong" not in watched.tail()
        assert watched.stop() == 0
        assert watched.once().returncode == 78
        watched.configure(**imap_settings(server))
        assert watched.once().returncode == 0
        assert watched.alerts() == {}


@pytest.mark.parametrize("user", ["ann smith@example.com", 'a"n\\n@example.com', "änn@example.com"])
def test_a_user_and_a_password_of_any_characters(tmp_path: Path, user: str) -> None:
    password = "pä\"w\\o'rd"
    with Dovecot(more="auth_username_chars =", password=password) as server:
        box = ImapBox("localhost", server.tls_port, "implicit", server.ca, user, password, None, "INBOX")
        inbox = Imap(box, None, tmp_path, utc_now, 0, time.monotonic)
        assert len(list(inbox.messages(None, None))) == 1, server.log()
        inbox.leave()


def test_oauth_over_imap(tmp_path: Path) -> None:
    """XOAUTH2, as Outlook takes it; Dovecot asks the endpoint whether the token is good."""
    with gmail_api.running() as provider, Dovecot(tokeninfo_url=f"{provider.url}/tokeninfo") as server:
        server.maildir()
        provider.grants["refresh-1"].scope = "https://outlook.office.com/IMAP.AccessAsUser.All"
        oauth = {
            "IMAP_PASSWORD": "",
            "IMAP_OAUTH_CLIENT_ID": "client",
            "IMAP_OAUTH_CLIENT_SECRET": "secret",
            "IMAP_OAUTH_REFRESH_TOKEN": "refresh-1",
            "IMAP_OAUTH_TOKEN_URL": f"{provider.url}/token",
        }
        with Watched(tmp_path, **imap_settings(server, **oauth)) as watched:
            done = watched.once()
            assert done.returncode == 0, done.stderr + server.log()
            server.deliver(message("m"))
            assert watched.once().returncode == 0
            assert watched.marks() == {"m": 1}
            assert "method=XOAUTH2" in server.log()
            provider.access.clear()
            provider.token = lambda form: (200, {"access_token": "no-good", "expires_in": 3600})  # type: ignore[method-assign]
            assert watched.once().returncode == 78
            assert "get a new refresh token" in watched.alerts()["mailbox"]["message"]
            assert "no-good" not in str(watched.alerts())
