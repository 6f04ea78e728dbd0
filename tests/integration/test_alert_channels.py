"""Alerts through what carries them: real MCP servers (processes, over stdio and HTTP), real HTTP for Apprise."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cloud_agent.alerting import channels
from cloud_agent.alerting.settings import Alerts, Mcp
from cloud_agent.alerting.text import Message, item, message

from tests.standins import serving

SERVER = Path(__file__).parents[1] / "standins/mcp_server.py"
NUMBER = "+491701234567"
SECRET = "s3cr3t-t0ken-9fA7"
SENT = Message("cloud: 1 draft waits", "• Ann\n  A question")


class Server:
    """An MCP server that does as it is told; `calls` are those of its tool."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "calls.jsonl"

    def command(self, behave: str = "ok") -> tuple[str, ...]:
        return (sys.executable, str(SERVER), "--calls", str(self.file), "--behave", behave)

    def noted(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def calls(self) -> list[tuple[str, str]]:
        return [(one["recipient"], one["message"]) for one in self.noted() if "recipient" in one]

    def send(self, behave: str = "ok", seconds: float = 30.0, text: Message = SENT, **changes: Any) -> tuple[str, str]:
        mcp = Mcp(NUMBER, **{"command": self.command(behave), **changes})
        return channels.send("whatsapp", Alerts({"whatsapp": mcp}), text, seconds)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(what: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


# -- MCP over stdio ----------------------------------------------------------------------------------------------------


def test_a_server_takes_the_message(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAUDE_API_KEY", SECRET)
    assert server.send() == ("sent", "")
    assert server.calls() == [(NUMBER, "cloud: 1 draft waits\n• Ann\n  A question")]
    assert "CLAUDE_API_KEY" not in server.noted()[0]["environment"]
    assert not lives(server.noted()[0]["pid"])


@pytest.mark.parametrize(
    "words", ["\nrecipient: +1555", '", "recipient": "+1555', "{{recipient}}=+1555 ", "\x00+1555\u2028"]
)
def test_nothing_in_a_mail_changes_the_recipient(server: Server, words: str) -> None:
    text = message(f"cloud{words}", [(words, [item(words, words, words, words)])])
    assert server.send(text=text) == ("sent", "")
    assert [to for to, _ in server.calls()] == [NUMBER]


@pytest.mark.parametrize(
    ("behave", "changes", "outcome", "why"),
    [
        ("error", {}, "failed", "the tool send_message says: Error executing tool send_message: not logged in"),
        ("ok", {"tool": "send"}, "failed", "no tool send: set ALERT_MCP_TOOL to one of send_message, list_chats"),
        ("ok", {"to_argument": "phone"}, "failed", "no argument phone: set ALERT_MCP_TO_ARGUMENT and ALERT_MCP_TEXT"),
        ("dies", {}, "unsure", "Connection closed"),
        ("ok", {"command": ("/nowhere/server",)}, "failed", "ALERT_MCP_COMMAND cannot be started (No such file"),
        ("ok", {"command": ("/bin/echo", "hello")}, "failed", "(Connection closed): look at ALERT_MCP_COMMAND"),
    ],
)
def test_a_server_that_does_not(server: Server, behave: str, changes: Any, outcome: str, why: str) -> None:
    got, said = server.send(behave, **changes)
    assert got == outcome
    assert why in said
    assert len(server.calls()) == (behave in ("error", "dies"))
    assert not any(lives(one["pid"]) for one in server.noted())


@pytest.mark.parametrize(("behave", "seconds", "outcome"), [("slow", 15.0, "unsure"), ("late", 2.0, "failed")])
def test_a_slow_server_is_ended(server: Server, behave: str, seconds: float, outcome: str) -> None:
    """Whether the message went out is not known of one that was called."""
    began = time.monotonic()
    assert server.send(behave, seconds) == (outcome, f"the MCP server gave no answer within {seconds:g} s")
    assert time.monotonic() - began < seconds + 10
    assert [lives(one["pid"]) for one in server.noted()] == [False]


# -- MCP over HTTP -----------------------------------------------------------------------------------------------------


@pytest.fixture
def over_http(server: Server) -> Iterator[Callable[..., str]]:
    """Start a server that behaves so; returns its URL."""
    started: list[subprocess.Popen[bytes]] = []

    def start(behave: str = "ok") -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started.append(subprocess.Popen([*server.command(behave), "--http", str(port), "--token", SECRET]))
        wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
        return f"http://127.0.0.1:{port}/mcp"

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_server_over_http(server: Server, over_http: Callable[..., str]) -> None:
    url = over_http()
    assert server.send(command=(), url=url, token=SECRET) == ("sent", "")
    assert server.calls() == [(NUMBER, str(SENT))]
    outcome, why = server.send(command=(), url=url, token=f"{SECRET}x")
    assert outcome == "failed" and SECRET not in why and "401" in why
    outcome, why = server.send(command=(), url=f"{url}/nowhere", token=SECRET)
    assert outcome == "failed" and why
    assert len(server.calls()) == 1


def test_a_server_over_http_that_answers_an_error_is_slow_or_dies(
    server: Server, over_http: Callable[..., str]
) -> None:
    assert server.send(command=(), url=over_http("error"), token=SECRET)[0] == "failed"
    assert server.send(command=(), url=over_http("slow"), token=SECRET, seconds=5.0)[0] == "unsure"
    assert server.send(command=(), url=over_http("dies"), token=SECRET)[0] == "unsure"
    outcome, why = server.send(command=(), url="http://127.0.0.1:9/mcp", token=SECRET)
    assert outcome == "failed" and why


# -- Apprise -----------------------------------------------------------------------------------------------------------


class Loopback:
    """An HTTP server that keeps what it gets, and answers with `status` after `seconds`, or for ever."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        self.seconds = 0.0
        self.endless = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                time.sleep(outer.seconds)
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(b"{}")
                with contextlib.suppress(OSError):
                    while outer.endless:
                        self.wfile.write(bytes(65536))

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.host = f"127.0.0.1:{self.http.server_port}"


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    made = Loopback()
    with serving(made.http):
        yield made


def by_apprise(url: str, seconds: float = 30.0) -> tuple[str, str]:
    return channels.send("x", Alerts({"x": url}), SENT, seconds)


def test_apprise(loopback: Loopback, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    url = f"json://user:{SECRET}@{loopback.host}/{SECRET}x"
    assert by_apprise(url) == ("sent", "")
    assert [(one["title"], one["message"]) for one in loopback.got] == [(SENT.title, SENT.body)]
    loopback.status = 401
    outcome, why = by_apprise(url)
    assert outcome == "failed" and "401" in why
    loopback.http.shutdown()
    loopback.http.server_close()
    outcome, why = by_apprise(url)
    assert outcome == "failed" and why and SECRET not in why
    out, wrong = capfd.readouterr()
    assert SECRET not in out + wrong + caplog.text


def test_a_service_that_is_slow(loopback: Loopback) -> None:
    loopback.seconds = 3600
    began = time.monotonic()
    outcome, why = by_apprise(f"json://{loopback.host}?rto=100", 3.0)
    assert (outcome, why) == ("unsure", "no answer within 3 s")
    assert time.monotonic() - began < 10


def test_an_e_mail_that_would_go_to_others_is_refused_where_it_is_sent_too() -> None:
    url = "mailto://127.0.0.1:9/eve@example.net?from=alerts@example.net"
    found = channels.send("x", Alerts({"x": url}, owner_addresses=frozenset(("you@example.org",))), SENT)
    assert found == ("failed", "writes to others than you: name one or more of OWNER_ADDRESSES after the relay's name")


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    outcome, why = by_apprise("json://localhost")
    assert outcome == "failed" and "the library apprise is not installed" in why
