"""What wakes the draft loop, on a real file system."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_agent import arrivals
from cloud_agent.arrivals import Arrivals
from cloud_agent.vault import PENDING, TEMPORARY_PREFIX, Vault
from inotify_simple import INotify


class Watched:
    """A vault that is watched; `woken` counts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.woken = 0
        self._event = threading.Event()
        self.arrivals = Arrivals(root, self._wake)

    def _wake(self) -> None:
        self.woken += 1
        self._event.set()

    def wakes(self) -> bool:
        """Whether it wakes for what was just done; waits for the end of a burst."""
        self._event.wait(0.5)
        while self._event.wait(0.1):
            self._event.clear()
        woken, self.woken = self.woken, 0
        return woken > 0

    def write(self, path: str, content: str = "x") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    root = tmp_path / "vault"
    for folder in ("Inbox", PENDING, "Approved/Email", "Done/Email", "In_Progress/cloud", "notes"):
        (root / folder).mkdir(parents=True)
    made = Watched(root)
    made.arrivals.start()
    yield made
    made.arrivals.close()


def test_a_mail_wakes_when_it_appears_and_when_it_is_finished(watched: Watched, tmp_path: Path) -> None:
    with (watched.root / "Inbox/EMAIL_a.md").open("w") as file:
        assert watched.wakes()
        file.write("x")
        file.flush()
        assert not watched.wakes()
    assert watched.wakes()
    (tmp_path / "b").write_text("x")
    (tmp_path / "b").rename(watched.root / "Inbox/EMAIL_b.md")
    assert watched.wakes()
    os.link(watched.root / "Inbox/EMAIL_b.md", watched.root / "Inbox/EMAIL_c.md")
    assert watched.wakes()


@pytest.mark.parametrize("folder", ["Approved/Email", "Rejected", "Rejected/Email", "Approved/a/b/c", PENDING])
def test_a_decision_wakes_also_in_a_folder_that_is_made_for_it(watched: Watched, folder: str) -> None:
    draft = watched.write("notes/EMAIL_DRAFT_a.md")
    watched.wakes()
    (watched.root / folder).mkdir(parents=True, exist_ok=True)
    draft.rename(watched.root / folder / draft.name)
    assert watched.wakes()
    (watched.root / folder / draft.name).rename(watched.root / "Done/Email" / draft.name)
    assert watched.wakes()


def test_what_is_no_decision_does_not_wake(watched: Watched) -> None:
    Vault(watched.root).replace("Dashboard.md", b"x")
    watched.write("notes/n.md")
    watched.write("In_Progress/cloud/EMAIL_a.md")
    watched.write("Done/Email/EMAIL_a.md")
    watched.write(f"{PENDING}/image.png")
    watched.write(f"{PENDING}/{TEMPORARY_PREFIX}1.tmp")
    (watched.root / "Inbox/EMAIL_a.md").exists()
    assert not watched.wakes()


def test_a_mail_taken_out_of_the_inbox_does_not_wake(watched: Watched) -> None:
    mail = watched.write("Inbox/EMAIL_a.md")
    assert watched.wakes()
    mail.read_text()
    mail.rename(watched.root / "Done/Email/EMAIL_a.md")
    assert not watched.wakes()


@pytest.mark.parametrize("folder", ["Inbox", "Approved", "Approved/Email"])
def test_a_folder_that_vanishes_and_comes_back(watched: Watched, folder: str, tmp_path: Path) -> None:
    for away in (lambda: shutil.rmtree(watched.root / folder), lambda: (watched.root / folder).rename(tmp_path / "x")):
        away()
        watched.wakes()
        (watched.root / folder).mkdir()
        assert watched.wakes()
        watched.write(f"{folder}/EMAIL_a.md")
        assert watched.wakes()


def test_the_vault_itself_vanishes_and_comes_back(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arrivals, "PATIENCE_SECONDS", 0.05)
    watched.root.rename(tmp_path / "away")
    assert not watched.wakes()
    assert len(caplog.records) == 1
    (tmp_path / "away").rename(watched.root)
    assert watched.wakes()
    watched.write("Inbox/EMAIL_a.md")
    assert watched.wakes()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
def test_where_no_watch_is_left_it_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    monkeypatch.setattr(arrivals, "PATIENCE_SECONDS", 0.02)
    (tmp_path / "Inbox").mkdir()
    watched = Watched(tmp_path)

    def refuse(*arguments: object, **others: object) -> INotify:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(arrivals, "INotify", refuse)
        watched.arrivals.start()
        time.sleep(0.3)
        assert watched.woken == 0  # or it would be a pass every few seconds
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "sysctl" in caplog.text
    assert watched.wakes()
    watched.write("Inbox/EMAIL_a.md")
    assert watched.wakes()
    watched.arrivals.close()


def test_on_a_file_system_that_others_write_to_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        arrivals, "unfit", lambda mounts, root: "its file system, nfs4, may be written to from elsewhere"
    )
    (tmp_path / "Inbox").mkdir()
    watched = Watched(tmp_path)
    watched.arrivals.start()
    watched.write("Approved/Email/a.md")
    assert watched.wakes()  # what is written here is seen all the same
    assert len(caplog.records) == 1
    assert "nfs4" in caplog.text
    watched.arrivals.close()


def test_a_closed_watch_holds_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    watched = Watched(tmp_path)
    watched.arrivals.start()
    watched.arrivals.close()
    assert len(os.listdir("/proc/self/fd")) == before
