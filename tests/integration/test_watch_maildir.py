"""A Maildir that something else fills: nothing in it is touched, and each message is taken once."""

from __future__ import annotations

import os
import random
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_agent.config import MaildirBox
from cloud_agent.maildir import Maildir
from cloud_agent.state import utc_now

from tests.watchkit import Watched, message, wait


class Mailbox:
    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("tmp", "new", "cur"):
            (root / name).mkdir(parents=True)
        self.count = 0

    def deliver(self, raw: bytes, *, days: float = 0) -> Path:
        self.count += 1
        path = self.root / "tmp" / f"{time.time():.6f}.{self.count}.host"
        path.write_bytes(raw)
        moment = time.time() - days * 86400
        os.utime(path, (moment, moment))
        return path.rename(self.root / "new" / path.name)

    def files(self) -> dict[str, tuple[int, bytes]]:
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in self.root.glob("*/*")}


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path / "Maildir")


@pytest.fixture
def watched(tmp_path: Path, mailbox: Mailbox) -> Iterator[Watched]:
    with Watched(tmp_path, MAILDIR_PATH=mailbox.root, WATCH_INTERVAL_SECONDS=3600) as made:
        yield made


def look(watched: Watched) -> None:
    done = watched.once()
    assert done.returncode == 0, done.stderr


def test_what_arrives_is_taken_at_once_and_left_there(mailbox: Mailbox, watched: Watched) -> None:
    mailbox.deliver(message("old"), days=1)
    watched.start()
    watched.wait_idle()
    for number in range(5):
        mailbox.deliver(message(f"m{number}", size=6_000_000 if number == 3 else 0))
    before = mailbox.files()
    wait(lambda: len(watched.marks()) == 5, 30, watched.tail)
    assert watched.stop() == 0
    assert mailbox.files() == before
    assert "old" not in watched.marks()


def test_looking_back(mailbox: Mailbox, tmp_path: Path) -> None:
    for days in (9, 2):
        mailbox.deliver(message(f"d{days}"), days=days)
    with Watched(tmp_path, MAILDIR_PATH=mailbox.root, WATCH_SINCE_DAYS=3) as watched:
        look(watched)
        assert watched.marks() == {"d2": 1}


def test_flags_and_folders_make_no_new_message(mailbox: Mailbox, watched: Watched) -> None:
    look(watched)
    path = mailbox.deliver(message("a"))
    look(watched)
    path = path.rename(mailbox.root / "cur" / f"{path.name}:2,")
    look(watched)
    path.rename(path.with_name(f"{path.name}RS"))
    watched.mails()[0].unlink()  # if it were taken again, it would be seen
    look(watched)
    assert watched.marks() == {}


def test_state_that_is_gone_loses_nothing(mailbox: Mailbox, watched: Watched) -> None:
    mailbox.deliver(message("old"), days=1)
    look(watched)
    mailbox.deliver(message("a"))
    look(watched)
    for path in watched.state.iterdir():
        path.unlink()
    mailbox.deliver(message("b"))
    look(watched)
    assert watched.marks() == {"a": 1, "b": 1}


def test_a_vault_that_lost_its_last_minutes_gets_them_again(mailbox: Mailbox, watched: Watched) -> None:
    """The state folder still says that they were taken."""
    look(watched)
    mailbox.deliver(message("a"))
    look(watched)
    (log,) = (watched.vault / "Logs/Cloud").glob("mail-*.jsonl")
    pushed = log.read_bytes()
    mailbox.deliver(message("b"))
    look(watched)
    log.write_bytes(pushed)
    for path in watched.mails():
        if "mark:b:" in path.read_text():
            path.unlink()
    look(watched)
    assert watched.marks() == {"a": 1, "b": 1}


def test_an_unreadable_file_holds_nobody_up(mailbox: Mailbox, watched: Watched) -> None:
    look(watched)
    (mailbox.root / "new" / "0.link").symlink_to("/etc/passwd")
    (mailbox.root / "new" / "0.folder").mkdir()
    mailbox.deliver(message("a"))
    path = mailbox.deliver(message("b"))
    path.chmod(0)
    done = watched.once()
    if os.geteuid() != 0:
        assert done.returncode == 75 and "give it to the agent's user" in watched.alerts()["mailbox"]["message"]
    assert watched.marks()["a"] == 1
    path.chmod(0o600)
    look(watched)
    assert watched.marks() == {"a": 1, "b": 1}


def test_a_folder_that_is_gone_is_told(mailbox: Mailbox, watched: Watched) -> None:
    watched.start()
    watched.wait_idle()
    (mailbox.root / "cur").rename(mailbox.root / "elsewhere")
    assert watched.stop() == 0
    assert watched.once().returncode == 78  # `check` says so


def test_each_message_once_whatever_is_killed(mailbox: Mailbox, tmp_path: Path) -> None:
    rng = random.Random(3)  # noqa: S311
    with Watched(tmp_path, MAILDIR_PATH=mailbox.root, WATCH_INTERVAL_SECONDS=1) as watched:
        watched.start()
        watched.wait_idle(60)

        def deliver() -> None:
            for number in range(300):
                path = mailbox.deliver(message(f"m{number}"))
                if number % 3 == 0:  # somebody reads it meanwhile
                    path.rename(mailbox.root / "cur" / f"{path.name}:2,S")
                time.sleep(rng.uniform(0, 0.02))

        thread = threading.Thread(target=deliver)
        thread.start()
        for number in range(6):
            watched.wait_beat()
            time.sleep(rng.uniform(0, 0.5))
            watched.kill()
            if number == 3:
                for path in watched.state.iterdir():
                    path.unlink()
            watched.start()
        thread.join()
        wait(lambda: len(watched.marks()) == 300, 60, watched.tail)
        assert watched.stop() == 0
        assert set(watched.marks().values()) == {1}


def test_what_a_mail_program_moves_to_cur_just_now_is_not_gone(
    mailbox: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Maildir(MaildirBox(mailbox.root), tmp_path, utc_now, 1)
    path = mailbox.deliver(message("a"))
    first = list(source.messages(None, None))
    assert [arrived.name for arrived in first] == ["", f"file {path.name}"]
    scandir, scanned = os.scandir, []

    def scan(folder: Any) -> Any:
        scanned.append(folder)
        if len(scanned) == 2:
            path.rename(mailbox.root / "cur" / f"{path.name}:2,S")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", scan)
    assert list(source.messages(first[-1].position, utc_now())) == []
    assert len(scanned) == 2


def test_many_mails_take_little_memory(mailbox: Mailbox, tmp_path: Path) -> None:
    """200,000 in one folder are nothing rare, and PM2 restarts what grows."""
    count = 3000
    for number in range(count):
        (mailbox.root / "cur" / f"1763890000.M{number:06}P1234.mail.example.org,S=5000:2,S").touch()
    source = Maildir(MaildirBox(mailbox.root), tmp_path, utc_now, 0)
    (start,) = source.messages(None, None)
    tracemalloc.start()
    try:
        assert list(source.messages(start.position, utc_now())) == []
        assert tracemalloc.get_traced_memory()[1] / count < 150
    finally:
        tracemalloc.stop()
