"""Where to go on in a folder, and any order of arrivals, losses and deaths against a server in memory."""

from __future__ import annotations

import imaplib
import shutil
import socket
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cloud_agent import imap
from cloud_agent.config import ImapBox
from cloud_agent.imap import MOST_AT_ONCE, PART_BYTES, Imap, Place, place, portions, read_place
from cloud_agent.mailbox import LARGE_BYTES, LOOK_BACK, MOST_BYTES, Misset, Outcome, Refused, Unreachable, Watcher
from cloud_agent.state import State
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from imapclient.exceptions import LoginError

from tests.helpers import NOON, Clock, make_config

BOX = ImapBox("mail.example.org", 993, "implicit", None, "ann", "pw", None, "INBOX")


# -- pure --------------------------------------------------------------------------------------------------------------


def test_the_first_start_takes_what_comes_from_now_on() -> None:
    assert place(None, None, 7, 101, NOON, 0) == Place(7, 100, NOON, NOON, 100)
    week_ago = NOON - timedelta(days=7)
    assert place(None, None, 7, 101, NOON, 7) == Place(7, 0, week_ago, week_ago, 100)


def test_where_numbers_mean_other_messages_it_goes_by_date() -> None:
    last = Place(7, 50, NOON, NOON, 20)
    much_later = NOON + timedelta(days=400)
    assert place(last, much_later, 7, 51, much_later, 0) == last
    again = Place(8, 0, NOON, much_later - LOOK_BACK, 30)
    assert place(last, much_later, 8, 31, much_later, 0) == again
    assert place(last, much_later, 7, 50, much_later, 0) == replace(again, uidvalidity=7, until=49)
    assert place(last, NOON + timedelta(days=1), 8, 31, much_later, 0).since == NOON


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.integers(0, 2**32), st.integers(0, 10**9))
def test_a_place_is_read_as_it_was_written(uidvalidity: int, uid: int, until: int, later: int) -> None:
    made = Place(uidvalidity, uid, NOON, NOON + timedelta(seconds=later), until)
    assert read_place(made.as_position()) == made


@pytest.mark.parametrize("broken", [{}, {"uid": "x"}, {"uidvalidity": "1", "uid": "2", "until": "0", "begin": "soon"}])
def test_what_is_no_place(broken: dict[str, str]) -> None:
    assert read_place(broken) is None


@given(st.lists(st.integers(0, LARGE_BYTES), max_size=200))
def test_portions_are_bounded_and_whole(sizes: list[int]) -> None:
    made = list(portions(list(enumerate(sizes))))
    assert [uid for portion in made for uid in portion] == list(range(len(sizes)))
    for portion in made:
        assert len(portion) == 1 or sum(sizes[uid] for uid in portion) <= PART_BYTES
        assert 0 < len(portion) <= MOST_AT_ONCE


# -- a server in memory ------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@dataclass
class Message:
    mark: str
    arrived: datetime
    content: bytes


class Server:
    """One folder. After `fail_after` more commands the connection drops, or the watcher is killed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.uidvalidity = 1
        self.uidnext = 1
        self.folder: dict[int, Message] = {}
        self.fail_after: int | None = None
        self.failure: BaseException = OSError("cut")
        self.refuses: Exception | None = None
        self.unreadable: set[str] = set()
        self.names_no_start = False
        self.deletes_after_a_part = False
        self.epoch = 0  # connections of an earlier one are dead
        self.logins = 0

    def deliver(self, mark: str, content: bytes = b"") -> None:
        self.folder[self.uidnext] = Message(mark, self.clock.now, content or mark.encode())
        self.uidnext += 1

    def step(self) -> None:
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                self.fail_after = None
                self.epoch += 1
                raise self.failure

    def client(self, host: str, port: int, **_: Any) -> Client:
        self.step()
        return Client(self)


class Client:
    """What imap.py uses of IMAPClient."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.epoch = server.epoch
        self._imap = SimpleNamespace(debug=5)

    def _command(self) -> None:
        self.server.step()
        if self.epoch != self.server.epoch:
            raise imaplib.IMAP4.abort("socket error: EOF")

    def login(self, user: str, password: str) -> None:
        self._command()
        self.server.logins += 1
        if self.server.refuses is not None:
            raise self.server.refuses

    def has_capability(self, name: str) -> bool:
        return False

    def select_folder(self, name: str, readonly: bool = False) -> dict[bytes, int]:
        assert readonly
        self._command()
        if name != "INBOX":
            raise imaplib.IMAP4.error("select failed: [NONEXISTENT] Mailbox doesn't exist")
        return {b"UIDVALIDITY": self.server.uidvalidity, b"UIDNEXT": self.server.uidnext}

    def search(self, criteria: Sequence[Any]) -> list[int]:
        self._command()
        assert criteria[0] == "UID"
        low, _, high = criteria[1].partition(":")
        uids = sorted(self.server.folder)
        if not high:
            return [uid for uid in uids if uid == int(low)]
        if high == "*":  # the last message is always in it
            return [uid for uid in uids if uid >= int(low)] or uids[-1:]
        found = [uid for uid in uids if int(low) <= uid <= int(high)]
        assert criteria[2] == "SINCE"
        return [uid for uid in found if self.server.folder[uid].arrived.date() >= criteria[3]]

    def fetch(self, uids: Sequence[int], items: Sequence[str]) -> dict[int, dict[bytes, Any]]:
        self._command()
        there = {uid: self.server.folder[uid] for uid in uids if uid in self.server.folder}
        if items == ["RFC822.SIZE", "INTERNALDATE"]:
            local = {uid: one.arrived.astimezone().replace(tzinfo=None) for uid, one in there.items()}
            return {uid: {b"RFC822.SIZE": len(one.content), b"INTERNALDATE": local[uid]} for uid, one in there.items()}
        if any(one.mark in self.server.unreadable for one in there.values()):
            raise imaplib.IMAP4.error("FETCH failed: NO [SERVERBUG] Internal error")
        (item,) = items
        start, length = map(int, item.removeprefix("BODY.PEEK[]<").removesuffix(">").split("."))
        key = b"BODY[]" if self.server.names_no_start and not start else f"BODY[]<{start}>".encode()
        answers = {uid: {key: one.content[start : start + length]} for uid, one in there.items()}
        if self.server.deletes_after_a_part:
            self.server.folder.clear()
        return answers or {uid: {key: None} for uid in uids}

    def noop(self) -> None:
        self._command()

    def socket(self) -> None:
        return None

    def shutdown(self) -> None:
        pass

    def logout(self) -> None:
        pass


class Desk:
    """A watcher on the server in memory; its vault is real."""

    def __init__(self, root: Path, since_days: float = 0) -> None:
        self.root = root
        self.config = make_config(root)
        self.config.vault_path.mkdir()
        self.clock = Clock()
        self.server = Server(self.clock)
        self.taken: Counter[str] = Counter()  # what lies in the vault; intake knows what it has
        self.recorded: list[Counter[str]] = []  # the same at each record of a position
        self.known = 0
        self.since_days = since_days
        self.restart()

    def restart(self) -> None:
        self.state = State(self.config.state_path)
        self.source = Imap(BOX, None, self.config.state_path, self.clock, self.since_days, lambda: 0.0)
        self.watcher = Watcher(
            self.config, self.source, self.take, self.take_file, self.state, self.clock, threading.Event()
        )
        write = self.watcher.ledger.write

        def noted(*arguments: Any) -> None:
            write(*arguments)
            self.recorded.append(self.taken.copy())

        self.watcher.ledger.write = noted  # type: ignore[method-assign]

    def take(self, raw: bytes) -> Outcome:
        mark = raw[:20].decode()
        self.server.step()  # a kill before
        if mark in self.taken:
            self.known += 1
            return "known"
        self.taken[mark] += 1
        self.server.step()  # a kill between the mail and the position
        return "taken"

    def take_file(self, path: Path) -> Outcome:
        return self.take(path.read_bytes())

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            try:
                self.watcher.run_pass()
            except Killed:
                self.restart()
            self.clock.advance(seconds=400)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk(tmp_path)
    monkeypatch.setattr(imap, "IMAPClient", made.server.client)
    return made


def test_large_messages_are_fetched_in_parts_and_cut_at_the_bound(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    desk.look()
    monkeypatch.setattr(imap, "MOST_BYTES", LARGE_BYTES + 3)
    assert MOST_BYTES > LARGE_BYTES
    desk.take_file = lambda path: (seen.append(path.stat().st_size), "taken")[1]  # type: ignore[method-assign, func-returns-value]
    desk.restart()
    for extra in (0, 2, 3, 10):
        desk.server.deliver("large", b"x" * (LARGE_BYTES + extra))
    desk.look()
    assert seen == [LARGE_BYTES + 2, LARGE_BYTES + 3, LARGE_BYTES + 3]
    assert not list(desk.config.state_path.glob("*.eml"))


def test_a_server_that_names_parts_in_its_own_way_loses_nothing(desk: Desk) -> None:
    """RFC 9051 §7.5.2 wants `BODY[]<0>` for an answer to `BODY.PEEK[]<0.5>`; who is there without it is not gone."""
    desk.look()
    desk.server.names_no_start = True
    desk.server.deliver("a")
    desk.server.deliver("large", b"large-mail".ljust(20) + b"x" * LARGE_BYTES)
    desk.look()
    assert desk.taken == Counter({"a": 1, "large-mail".ljust(20): 1})


def test_a_message_that_is_deleted_while_it_is_fetched_is_not_taken_half(desk: Desk) -> None:
    desk.look()
    desk.server.deliver("large", b"large-mail" + b"x" * LARGE_BYTES)
    desk.server.deletes_after_a_part = True
    desk.look()
    assert desk.taken == Counter()


@pytest.mark.parametrize(
    ("error", "setting"),
    [
        (socket.gaierror(-2, "Name or service not known"), "look at IMAP_HOST"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "look at IMAP_PORT .* IMAP_TLS"),
        (ConnectionRefusedError(111, "Connection refused"), "port 993: .*look at IMAP_HOST and IMAP_PORT"),
        (TimeoutError("timed out"), r"look at IMAP_PORT \(993\) and IMAP_TLS"),
    ],
)
def test_what_to_correct_where_there_is_no_connection(desk: Desk, error: OSError, setting: str) -> None:
    desk.server.failure, desk.server.fail_after = error, 0
    with pytest.raises(Unreachable, match=setting):
        next(desk.source.messages(None, None))


def test_a_folder_that_is_not_there_is_said(desk: Desk) -> None:
    desk.source.box = replace(BOX, folder="INBOXX")
    with pytest.raises(Misset, match=r"folder INBOXX .*doesn't exist.*correct IMAP_FOLDER"):
        next(desk.source.messages(None, None))


def test_a_message_that_the_server_cannot_give_holds_nobody_up(desk: Desk) -> None:
    desk.look()
    for mark in ("a", "b", "c"):
        desk.server.deliver(mark)
    desk.server.unreadable = {"b"}
    desk.look(5)
    assert desk.taken == Counter("ac")
    dashboard = (desk.config.vault_path / "Dashboard.md").read_text()
    assert dashboard.count("message 1/2 of imap:ann@mail.example.org/INBOX") == 1


@pytest.mark.parametrize(
    ("said", "cause", "refused"),
    [
        ("[AUTHENTICATIONFAILED] Authentication failed.", None, True),
        ("[UNAVAILABLE] Temporary authentication failure.", None, False),
        ("[ALERT] Too many simultaneous connections. (Failure)", None, False),
        ("command: LOGIN => socket error: EOF", imaplib.IMAP4.abort("EOF"), False),
    ],
)
def test_which_refusals_are_final(desk: Desk, said: str, cause: Exception | None, refused: bool) -> None:
    error = LoginError(said)
    error.__context__ = cause
    desk.server.refuses = error
    with pytest.raises(Refused if refused else Unreachable):
        next(desk.source.messages(None, None))


class Faults(RuleBasedStateMachine):
    """Whatever happens in whatever order: at the end each message that came after the first start, and is still there,
    lies in the vault once, and none from before."""

    @initialize(old=st.integers(0, 3))
    def begin(self, old: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.desk = Desk(self.folder)
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(imap, "IMAPClient", self.desk.server.client)
        self.count = 0
        self.remote_has = 0  # so many records
        for _ in range(old):
            self.desk.server.deliver(self.mark("old"))
        self.desk.clock.advance(hours=1)
        self.desk.look()

    def mark(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    @rule(count=st.integers(1, 70))
    def arrive(self, count: int) -> None:
        for _ in range(count):
            self.desk.server.deliver(self.mark("new"))

    @rule(data=st.data())
    def expunge(self, data: st.DataObject) -> None:
        if self.desk.server.folder:
            del self.desk.server.folder[data.draw(st.sampled_from(sorted(self.desk.server.folder)))]

    @rule()
    def look(self) -> None:
        self.desk.look()

    @rule(after=st.integers(0, 12), killed=st.booleans())
    def look_and_fail(self, after: int, killed: bool) -> None:
        self.desk.server.failure = Killed() if killed else OSError("cut")
        self.desk.server.fail_after = after
        self.desk.look()
        self.desk.server.fail_after = None

    @rule()
    def renumber(self) -> None:
        """Another UIDVALIDITY: messages get other numbers, in another order too."""
        server = self.desk.server
        kept = list(server.folder.values())[::-1]
        server.folder = dict(enumerate(kept, start=1))
        server.uidvalidity += 1
        server.uidnext = len(kept) + 1
        server.epoch += 1

    @rule(lost=st.integers(1, 5))
    def restore(self, lost: int) -> None:
        """The server is restored from a backup: the last messages are gone, and their numbers are given again. Where
        the vault loses the record of that too, nobody can tell a number that was given anew from one that is done."""
        server = self.desk.server
        self.desk.look(3)
        server.uidnext = max(1, server.uidnext - lost)
        server.folder = {uid: one for uid, one in server.folder.items() if uid < server.uidnext}
        server.epoch += 1
        self.desk.look(3)
        self.remote_has = len(self.desk.recorded)

    @rule()
    def delete_state(self) -> None:
        shutil.rmtree(self.desk.config.state_path)
        self.desk.restart()

    @rule()
    def lose_the_last_minutes_of_the_vault(self) -> None:
        """It is cloned anew: without the last record, and without the mails that came with it."""
        desk = self.desk
        logs = sorted((desk.config.vault_path / "Logs/Cloud").glob("mail-*.jsonl"))
        records = logs[-1].read_text().splitlines(keepends=True)
        if len(records) > 1 and len(desk.recorded) > self.remote_has:
            logs[-1].write_text("".join(records[:-1]))
            desk.recorded.pop()
            desk.taken = desk.recorded[-1].copy()
            shutil.rmtree(desk.config.state_path)
            desk.restart()

    @rule(days=st.integers(1, 40))
    def time_passes(self, days: int) -> None:
        self.desk.look(3)  # what waits for longer than LOOK_BACK may be missed when the server numbers anew
        self.desk.clock.advance(days=days)
        self.desk.look(3)

    @invariant()
    def nothing_twice_and_nothing_old(self) -> None:
        if hasattr(self, "desk"):
            assert all(mark.startswith("new") for mark in self.desk.taken)

    def teardown(self) -> None:
        if not hasattr(self, "desk"):
            return
        try:
            self.desk.look(6)
            there = {one.mark for one in self.desk.server.folder.values() if one.mark.startswith("new")}
            assert there <= self.desk.taken.keys()
            before = self.desk.known
            self.desk.look(2)
            assert self.desk.known == before  # in step: nothing is fetched for nothing
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)


TestFaults = Faults.TestCase
TestFaults.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
