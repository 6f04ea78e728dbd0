"""Whether a mail is still being written: asked of the kernel, where it knows."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cloud_agent import vault as module
from cloud_agent.vault import LONGEST_WRITE_SECONDS, STILL_SECONDS, UNSURE_SECONDS, Vault

MAIL = "Inbox/EMAIL_x.md"


@pytest.fixture
def mail(vault: Vault) -> Path:
    file = vault.root / MAIL
    file.parent.mkdir()
    file.write_text("x")
    return file


def aged(file: Path, seconds: float) -> Path:
    os.utime(file, (time.time() - seconds,) * 2)
    return file


def test_a_mail_that_nobody_has_open_is_whole_when_it_was_still_for_a_moment(vault: Vault, mail: Path) -> None:
    assert 0 < vault.unfinished(MAIL) <= STILL_SECONDS
    aged(mail, STILL_SECONDS)
    assert vault.unfinished(MAIL) == 0.0
    with mail.open():  # who reads it does no harm
        assert vault.unfinished(MAIL) == 0.0


@pytest.mark.parametrize("mode", ["r+", "w", "a"])
def test_a_mail_that_somebody_has_open_for_writing_is_left_alone(vault: Vault, mail: Path, mode: str) -> None:
    with mail.open(mode):
        aged(mail, 30)
        assert 0 < vault.unfinished(MAIL) <= LONGEST_WRITE_SECONDS - 30
        aged(mail, LONGEST_WRITE_SECONDS)
        assert vault.unfinished(MAIL) == 0.0  # forgotten
    mail.write_text("x")
    aged(mail, 1)
    with mail.open("r+") as file, mmap.mmap(file.fileno(), 0):
        file.close()
        assert vault.unfinished(MAIL) > 30
    assert vault.unfinished(MAIL) == 0.0


def test_another_process_that_writes_is_seen(vault: Vault, mail: Path) -> None:
    aged(mail, 5)
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1], 'a'); print('open', flush=True); input()", str(mail)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert vault.unfinished(MAIL) > 30
        writer.communicate("\n")
    assert vault.unfinished(MAIL) == 0.0


def test_who_opens_it_while_it_is_asked_waits_for_nothing_and_nobody_is_killed(vault: Vault, mail: Path) -> None:
    """The lease is taken and given back thousands of times while a writer opens the file again and again."""
    stop = threading.Event()
    longest = [0.0]
    opened = [0]

    def write() -> None:
        while not stop.is_set():
            began = time.monotonic()
            with mail.open("a") as file:
                longest[0] = max(longest[0], time.monotonic() - began)
                file.write("x")
            opened[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(2000):
        vault.unfinished(MAIL)  # whatever it says: a busy machine may keep the writer from writing for a while
    stop.set()
    writer.join()
    assert opened[0] > 10
    assert longest[0] < 5  # /proc/sys/fs/lease-break-time is 45


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a moment")
def test_of_another_users_file_it_cannot_be_known(vault: Vault, mail: Path) -> None:
    descriptor = os.open(mail, os.O_RDONLY)
    other = os.open(aged(mail, 5).with_name("other"), os.O_RDWR | os.O_CREAT)
    os.fchown(other, 65534, 65534)
    os.close(other)
    own = os.open(mail.with_name("other"), os.O_RDONLY)
    try:
        assert module._is_open_for_writing(descriptor) is False
        os.seteuid(65534)  # and no capability with it
        assert module._is_open_for_writing(descriptor) is None
        assert module._is_open_for_writing(own) is False
    finally:
        os.seteuid(0)
        os.close(descriptor)
        os.close(own)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.ENOLCK])
def test_where_it_cannot_be_known_a_mail_must_be_still_for_longer(
    vault: Vault, mail: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = fcntl.fcntl

    def refuse(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(number, os.strerror(number))
        return real(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    aged(mail, UNSURE_SECONDS / 2)
    assert 0 < vault.unfinished(MAIL) <= UNSURE_SECONDS / 2
    aged(mail, UNSURE_SECONDS)
    assert vault.unfinished(MAIL) == 0.0
    monkeypatch.delattr(fcntl, "F_SETLEASE")  # no Linux
    assert vault.unfinished(MAIL) == 0.0


def test_a_clock_that_was_set_back_holds_nothing_up(vault: Vault, mail: Path) -> None:
    aged(mail, -3600)
    assert vault.unfinished(MAIL) == 0.0


def test_a_mail_that_is_gone_and_what_is_none(vault: Vault, mail: Path) -> None:
    mail.unlink()
    with pytest.raises(FileNotFoundError):
        vault.unfinished(MAIL)
    os.mkfifo(mail)
    assert vault.unfinished(MAIL) <= UNSURE_SECONDS
