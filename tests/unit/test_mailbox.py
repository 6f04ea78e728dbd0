"""How far a mailbox was read, and what is done when something fails: the loop over any kind of source."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cloud_agent import frontmatter
from cloud_agent.alerting import facts
from cloud_agent.config import Config, MaildirBox
from cloud_agent.mailbox import (
    AT_ONCE,
    DROPPED,
    LARGE_BYTES,
    LOOK_BACK,
    TRIES,
    Arrived,
    Crashed,
    Misset,
    NotAMessage,
    Outcome,
    Position,
    Refused,
    Spool,
    Unreachable,
    Watcher,
    look_back,
)
from cloud_agent.state import State
from cloud_agent.vault import lock
from cloud_agent.watching import RENEW_SECONDS, Bell, next_look

from tests.helpers import NOON, Clock


class FakeSource:
    """Numbers as messages; `trouble` is raised before the message of that number."""

    name = "fake:ann@example.com/INBOX"

    def __init__(self) -> None:
        self.kept: list[bytes | Path] = []
        self.trouble: dict[int, Exception] = {}
        self.asked: list[tuple[Position | None, datetime | None]] = []
        self.closed = 0
        self.deaf: Exception | None = None

    def messages(self, position: Position | None, recorded: datetime | None) -> Iterator[Arrived]:
        self.asked.append((position, recorded))
        if position is None:
            yield Arrived("", {"n": "0"})
        for number in range(int((position or {"n": "0"})["n"]), len(self.kept)):
            if number in self.trouble:
                raise self.trouble[number]
            yield Arrived(f"message {number}", {"n": str(number + 1)}, self.kept[number])

    def listen(self) -> int | None:
        if self.deaf is not None:
            raise self.deaf
        return 7

    def close(self) -> None:
        self.closed += 1

    leave = close


class Kit:
    def __init__(self, config: Config) -> None:
        self.config = config
        (config.vault_path / "Inbox").mkdir(parents=True, exist_ok=True)
        self.source = FakeSource()
        self.clock = Clock()
        self.taken: list[bytes] = []
        self.apart: list[bytes] = []
        self.behave: Callable[[bytes], Outcome] = lambda raw: "taken"
        self.behave_apart: Callable[[bytes], Outcome] = lambda raw: "taken"
        self.restart()

    def restart(self) -> None:
        self.stop = threading.Event()
        self.state = State(self.config.state_path)
        self.watcher = Watcher(
            self.config, self.source, self._take, self._take_apart, self.state, self.clock, self.stop
        )

    def _take(self, raw: bytes) -> Outcome:
        outcome = self.behave(raw)
        self.taken.append(raw)
        return outcome

    def _take_apart(self, path: Path) -> Outcome:
        outcome = self.behave_apart(path.read_bytes())
        self.apart.append(path.read_bytes())
        return outcome

    def records(self) -> list[dict[str, str]]:
        """Parameters of what the vault's log says of positions."""
        lines = [
            json.loads(line)
            for path in sorted((self.config.vault_path / "Logs/Cloud").glob("mail-*.jsonl"))
            for line in path.read_text().splitlines()
        ]
        return [line["parameters"] for line in lines if line["action_type"] == "mailbox_read"]

    def dashboard(self) -> str:
        path = self.config.vault_path / "Dashboard.md"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def kit(make_settings: Callable[..., Config]) -> Kit:
    return Kit(make_settings())


def told(kit: Kit) -> dict[str, str]:
    """What there is to tell of the mailbox."""
    config = replace(kit.config, mailbox=MaildirBox(kit.config.vault_path))
    found = facts.gather(config, kit.state, {}, kit.clock())
    return {key: kind for key, kind in found.items() if key.startswith("alert ")}


def test_the_position_is_in_the_vault_and_not_in_the_state_folder(kit: Kit) -> None:
    kit.source.kept = [b"a", b"b"]
    report = kit.watcher.run_pass()
    assert (report.result, report.taken) == ("ok", 2)
    assert kit.records()[-1] == {"taken": "2", "n": "2"}
    for path in kit.config.state_path.iterdir():
        path.unlink()
    kit.source.kept.append(b"c")
    kit.restart()
    assert kit.watcher.run_pass().taken == 1
    assert kit.taken == [b"a", b"b", b"c"]


def test_a_vault_that_lost_its_last_minutes_gets_them_again(kit: Kit) -> None:
    """The machine died before it pushed; the new one clones what the remote has."""
    kit.source.kept = [b"a"]
    kit.watcher.run_pass()
    log = next((kit.config.vault_path / "Logs/Cloud").glob("mail-*.jsonl"))
    pushed = log.read_bytes()
    kit.source.kept.append(b"b")
    kit.watcher.run_pass()
    log.write_bytes(pushed)
    kit.restart()
    kit.watcher.run_pass()
    assert kit.taken == [b"a", b"b", b"b"]


def test_nothing_new_writes_nothing_but_once_a_month(kit: Kit) -> None:
    """Logs are cleaned up after 90 days: a quiet mailbox keeps its place."""
    for _ in range(3):
        kit.watcher.run_pass()
    assert len(kit.records()) == 1
    kit.clock.advance(days=31)
    kit.watcher.run_pass()
    kit.watcher.run_pass()
    assert len(kit.records()) == 2
    (kit.config.vault_path / f"Logs/Cloud/mail-{NOON:%Y-%m}.jsonl").unlink()
    kit.restart()
    kit.watcher.run_pass()
    assert kit.source.asked[-1][0] == {"n": "0"}


def test_torn_and_foreign_lines_do_not_count(kit: Kit) -> None:
    kit.source.kept = [b"a"]
    kit.watcher.run_pass()
    log = next((kit.config.vault_path / "Logs/Cloud").glob("mail-*.jsonl"))
    other = log.read_text().splitlines()[-1].replace("fake:", "other:").replace('"n":"1"', '"n":"9"')
    log.write_text(log.read_text() + other + '\n{"action_type":"mailbox_read","target":"fake:ann@exa\n[1]\n')
    kit.restart()
    kit.watcher.run_pass()
    assert kit.source.asked[-1] == ({"n": "1"}, NOON)


def test_a_connection_that_worked_is_made_anew_at_once_and_then_in_a_while(kit: Kit) -> None:
    kit.watcher.run_pass()
    kit.source.kept = [b"a"]
    kit.source.trouble = {0: Unreachable("gone")}
    pauses = []
    for _ in range(5):
        report = kit.watcher.run_pass()
        assert report.result == "later" and report.retry_in is not None
        pauses.append(report.retry_in)
        kit.clock.advance(seconds=report.retry_in)
    assert pauses == [0, 2, 4, 8, 16]
    assert kit.state.alerts()["mailbox"]["message"] == f"offline: {kit.source.name}: gone"
    assert told(kit) == {"alert mailbox offline": "outage"}, "the owner is told when it lasts"
    assert kit.source.closed == 5
    kit.source.trouble.clear()
    assert kit.watcher.run_pass().taken == 1
    assert kit.state.alerts() == {}


def test_a_refused_login_is_not_repeated_for_long(kit: Kit) -> None:
    kit.source.kept = [b"a"]
    kit.source.trouble = {0: Refused("the server refuses the login")}
    tries = 0
    for _ in range(24 * 60):  # a day, looked at every minute
        before = len(kit.source.asked)
        report = kit.watcher.run_pass()
        assert report.result == "later" and report.refused and "refuses" in report.message
        tries += len(kit.source.asked) - before
        kit.clock.advance(minutes=1)
    assert tries <= 28
    assert kit.state.alerts()["mailbox"]["message"] == f"refused: {kit.source.name}: the server refuses the login"
    assert told(kit) == {"alert mailbox refused": "failure"}, "the owner is told soon"
    assert kit.dashboard().count("Mail is not fetched") == 1
    assert kit.watcher.listen() is None
    kit.source.trouble = {}
    kit.clock.advance(hours=2)
    assert kit.watcher.run_pass().result == "ok"
    assert kit.dashboard().count("Mail is fetched again") == 1, "the Dashboard said that it was not"


def test_a_wrong_setting_is_told_soon_and_tried_as_an_outage_is(kit: Kit) -> None:
    kit.source.kept = [b"a"]
    kit.source.trouble = {0: Misset("the folder Nope cannot be opened: correct IMAP_FOLDER")}
    for _ in range(5):
        report = kit.watcher.run_pass()
        assert (report.result, report.refused, "correct IMAP_FOLDER" in report.message) == ("later", False, True)
        assert report.retry_in is not None and report.retry_in <= DROPPED.longest
        kit.clock.advance(minutes=5)
    assert told(kit) == {"alert mailbox settings": "failure"}, "the owner is told soon"
    assert kit.dashboard().count("Mail is not fetched") == 1
    kit.source.trouble = {}
    assert kit.watcher.run_pass().result == "ok"
    assert kit.dashboard().count("Mail is fetched again") == 1


def test_what_ends_the_pass_in_the_middle_keeps_what_was_taken(kit: Kit) -> None:
    kit.source.kept = [b"a", b"b", b"c"]
    kit.source.trouble = {2: Unreachable("cut")}
    report = kit.watcher.run_pass()
    assert (report.taken, report.retry_in) == (2, 0)
    assert kit.records()[-1]["n"] == "2"


def test_a_full_disk_loses_nothing(kit: Kit) -> None:
    def full(raw: bytes) -> Outcome:
        raise OSError(28, "No space left on device")

    kit.source.kept = [b"a"]
    kit.behave = full
    report = kit.watcher.run_pass()
    assert report.result == "later" and "No space left" in report.message
    kit.behave = lambda raw: "taken"
    kit.clock.advance(seconds=60)
    assert kit.watcher.run_pass().taken == 1


def test_mail_counts_from_the_first_connection_on(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens to the vault meanwhile: what arrives before it can be written is not from before the start."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    begun = kit.source.messages

    def messages(position: Position | None, recorded: datetime | None) -> Iterator[Arrived]:
        if position is None:  # as the sources do: what is there already does not count
            position = {"n": str(len(kit.source.kept))}
            yield Arrived("", position)
        yield from begun(position, recorded)

    monkeypatch.setattr(kit.source, "messages", messages)
    kit.source.kept = [b"old"]
    with monkeypatch.context() as patch:
        patch.setattr(kit.watcher.ledger, "write", full)
        assert kit.watcher.run_pass().result == "later"
    kit.source.kept.append(b"a")
    kit.clock.advance(seconds=60)
    assert kit.watcher.run_pass().result == "ok"
    assert kit.taken == [b"a"]


def test_where_mail_counts_from_is_on_disk_before_the_first_mail(kit: Kit) -> None:
    def look(raw: bytes) -> Outcome:
        assert kit.records() == [{"taken": "0", "n": "0"}]
        return "taken"

    kit.source.kept = [b"a"]
    kit.behave = look
    report = kit.watcher.run_pass()
    assert (report.result, report.taken) == ("ok", 1)


def test_a_log_that_cannot_be_read_makes_no_first_start(kit: Kit) -> None:
    kit.source.kept = [b"a"]
    kit.watcher.run_pass()
    log = next((kit.config.vault_path / "Logs/Cloud").glob("mail-*.jsonl"))
    log.rename(log.with_name("kept"))
    log.mkdir()  # what even root cannot read as a file
    kit.restart()
    report = kit.watcher.run_pass()
    assert report.result == "later" and "mend the disk" in report.message
    log.rmdir()
    log.with_name("kept").rename(log)
    kit.clock.advance(seconds=60)
    kit.source.kept.append(b"b")
    assert kit.watcher.run_pass().taken == 1
    assert kit.source.asked == [(None, None), ({"n": "1"}, NOON)]


def test_a_log_is_not_read_while_git_puts_another_in_its_place(kit: Kit) -> None:
    kit.watcher.run_pass()
    kit.restart()
    read = threading.Thread(target=kit.watcher.run_pass)
    with lock(kit.state.tree_lock):
        log = next((kit.config.vault_path / "Logs/Cloud").glob("mail-*.jsonl"))
        content = log.read_bytes()
        log.unlink()
        read.start()
        read.join(0.2)
        log.write_bytes(content)
    read.join()
    assert kit.source.asked[-1] == ({"n": "0"}, NOON)


def test_a_message_that_is_none_is_told_and_holds_nothing_up(kit: Kit) -> None:
    def choosy(raw: bytes) -> Outcome:
        if raw == b"a":
            raise NotAMessage("it has no header")
        return "taken"

    kit.source.kept = [b"a", b"b"]
    kit.behave = choosy
    report = kit.watcher.run_pass()
    assert (report.taken, report.missed) == (1, 1)
    assert "message 0" in kit.dashboard() and "it has no header" in kit.dashboard()


def test_what_stays_in_the_mailbox_has_a_place_in_the_vault_that_does_not_scroll_away(kit: Kit) -> None:
    def choosy(raw: bytes) -> Outcome:
        raise NotAMessage("it has <no> header")

    kit.source.kept = [b"a", b"b"]
    kit.behave = choosy
    for _ in range(2):  # gone over again, as after a loss of the last minutes, it is the same note
        kit.watcher.run_pass()
        for path in (kit.config.vault_path / "Logs/Cloud").iterdir():
            path.unlink()
        kit.restart()
    notes = sorted((kit.config.vault_path / "Needs_Action/Email").glob("EMAIL_*.md"))
    assert len(notes) == 2
    read = [frontmatter.read(note.read_text()) for note in notes]
    assert all("it has <no> header" in fields["reason"] for fields, _ in read)
    assert {number for _, body in read for number in "01" if f"message {number} of fake:" in body} == {"0", "1"}
    assert "<no>" not in read[0][1].replace("\\<no\\>", "")
    config = replace(kit.config, mailbox=MaildirBox(kit.config.vault_path))
    assert list(facts.gather(config, kit.state, {}, kit.clock()).values()).count("person") == 2


def test_a_message_that_cannot_be_taken_is_tried_again_and_then_told(kit: Kit) -> None:
    def faulty(raw: bytes) -> Outcome:
        if raw == b"a":
            raise ZeroDivisionError
        return "taken"

    kit.source.kept = [b"a", b"b"]
    kit.behave = faulty
    for number in range(TRIES):
        assert kit.taken == []
        report = kit.watcher.run_pass()
        assert (report.missed, report.result) == ((0, "later") if number < TRIES - 1 else (1, "ok"))
        kit.clock.advance(seconds=600)
    assert kit.taken == [b"b"]
    assert "ZeroDivisionError" in kit.dashboard()


def test_a_message_that_ends_the_process_is_taken_apart_the_next_time(kit: Kit) -> None:
    """Whoever writes a mail that crashes a parser must not stop all mail."""

    def crash(raw: bytes) -> Outcome:
        raise Crashed("intake ended by signal 11")

    kit.source.kept = [b"a", b"b"]
    (kit.config.state_path / "watch-hand.json").write_text('{"name": "message 0"}')  # as a kill leaves it
    kit.restart()
    kit.behave_apart = crash
    for _ in range(TRIES):
        kit.watcher.run_pass()
        kit.clock.advance(seconds=600)
    assert (kit.apart, kit.taken) == ([], [b"b"])
    assert "signal 11" in kit.dashboard()
    assert not list(kit.config.state_path.glob("watch-*"))


def test_a_large_message_is_taken_apart(kit: Kit, tmp_path: Path) -> None:
    path = tmp_path / "large.eml"
    path.write_bytes(b"large")
    kit.source.kept = [path]
    assert kit.watcher.run_pass().taken == 1
    assert (kit.apart, kit.taken) == ([b"large"], [])
    assert path.exists()


def test_a_stop_ends_between_two_messages(kit: Kit) -> None:
    def stop(raw: bytes) -> Outcome:
        kit.stop.set()
        return "taken"

    kit.source.kept = [b"a", b"b"]
    kit.behave = stop
    assert kit.watcher.run_pass().taken == 1
    assert kit.records()[-1]["n"] == "1"


def test_a_mailbox_that_never_can_be_listened_to_is_asked(kit: Kit) -> None:
    """And not connected to again and again."""
    kit.watcher.run_pass()
    assert kit.watcher.listen() == 7
    kit.source.deaf = Unreachable("BAD IDLE")
    answers = [kit.watcher.listen() for _ in range(20)]
    assert answers[:3] == [AT_ONCE] * 3
    assert answers.count(AT_ONCE) == 4


@pytest.mark.parametrize(
    ("retry_in", "listening", "expected"),
    [
        (None, False, None),
        (5.0, False, 5.0),
        (None, True, RENEW_SECONDS),
        (5.0, True, 5.0),
        (9999.0, True, RENEW_SECONDS),
    ],
)
def test_idle_is_renewed_in_time(retry_in: float | None, listening: bool, expected: float | None) -> None:
    """RFC 2177 §3: before 29 minutes are over, whatever WATCH_INTERVAL_SECONDS says."""
    assert next_look(retry_in, listening) == expected
    assert RENEW_SECONDS < 29 * 60


def test_the_bell_rings_once_for_what_it_was_armed_for() -> None:
    rung: list[int] = []
    bell = Bell(lambda: rung.append(1))
    reader, writer = os.pipe()
    try:
        bell.arm(reader)
        time.sleep(0.05)
        assert rung == []
        os.write(writer, b"x")
        end = time.monotonic() + 5
        while not rung and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(0.05)
        assert rung == [1]  # though nobody has read it yet
        bell.arm(reader)
        bell.disarm()
        count = len(rung)
        os.write(writer, b"x")
        time.sleep(0.05)
        assert len(rung) == count
        bell.arm(None)
        bell.arm(AT_ONCE)
        assert len(rung) == count + 1
    finally:
        bell.disarm()
        os.close(reader)
        os.close(writer)


def test_look_back() -> None:
    assert look_back(NOON, None) == NOON
    assert look_back(NOON, NOON + timedelta(days=5)) == NOON
    assert look_back(NOON, NOON + timedelta(days=50)) == NOON + timedelta(days=50) - LOOK_BACK


def test_a_spool_keeps_what_is_large_in_a_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.write(b"x" * LARGE_BYTES)
    assert spool.content == b"x" * LARGE_BYTES
    spool.write(b"yz")
    assert spool.content == tmp_path / "spool"
    assert (tmp_path / "spool").read_bytes() == b"x" * LARGE_BYTES + b"yz"
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o600
    spool.close()
    assert not (tmp_path / "spool").exists()
