"""`cloud-agent intake` as procmail, a mail server's pipe and a person run it."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cloud_agent import frontmatter
from cloud_agent.mail import parse
from cloud_agent.vault import lock

from evals.corpora import CORPORA
from tests.integration.test_cli import Installed, wait_for
from tests.standins import messages_api
from tests.standins.messages_api import MessagesAPI

FILES = sorted((CORPORA / "mail").glob("*.eml"))


def message(number: int, body: str = "Could you call me?") -> bytes:
    return f"From: p{number}@b.org\nTo: me@x.org\nSubject: {number}\nMessage-ID: <{number}@b>\n\n{body}\n".encode()


@pytest.fixture
def api() -> Iterator[MessagesAPI]:
    with messages_api.running() as server:
        yield server


@pytest.fixture
def installed(command: list[str], tmp_path: Path, api: MessagesAPI) -> Installed:
    return Installed(command, tmp_path, api.url)


def pipe(installed: Installed, raw: bytes, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [*installed.command, "--env-file", str(installed.env_file), "intake", "-"]
    given: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, input=raw, env=installed.environ, timeout=60, check=False, **given)  # type: ignore[call-overload,no-any-return]


def inbox(installed: Installed) -> list[str]:
    return sorted(os.listdir(installed.desk.vault / "Inbox"))


@pytest.mark.skipif(not FILES, reason="the corpora are not here")
def test_every_real_message_is_taken_once(installed: Installed) -> None:
    first = installed.run("intake", *map(str, FILES))
    assert (first.returncode, first.stderr) == (0, "")
    assert len(first.stdout.splitlines()) == len(FILES) == len(inbox(installed))
    before = installed.desk.files()
    again = installed.run("intake", *map(str, FILES))
    assert again.returncode == 0
    assert [line.split(": ", 1)[1].split(",")[0] for line in again.stdout.splitlines()] == ["known"] * len(FILES)
    assert installed.desk.files() == before
    # Drafted, set aside or skipped: wherever a mail has gone, it is not taken again.
    for _ in range(2):  # the second time for those that came twice, with other trace fields
        assert installed.run("draft", "--once").returncode == 0
    drafted = installed.desk.files()
    assert inbox(installed) == []
    assert installed.run("intake", *map(str, FILES)).returncode == 0
    assert installed.desk.files() == drafted


def test_standard_input(installed: Installed) -> None:
    ended = pipe(installed, b"From p1@b.org Mon Feb 16 12:00:00 2026\n" + message(1))
    assert (ended.returncode, ended.stderr) == (0, b"")
    [name] = inbox(installed)
    assert ended.stdout.decode() == f"standard input: taken, Inbox/{name}\n"
    mail = parse(name, (installed.desk.vault / "Inbox" / name).read_bytes())
    assert (mail.sender, mail.subject, mail.content.text) == ("p1@b.org", "1", "Could you call me?")
    assert pipe(installed, message(1)).stdout.decode() == f"standard input: known, Inbox/{name}\n"


@pytest.mark.parametrize("raw", [b"", b"hello\n", b"\xd0\xcf\x11\xe0\0\0"])
def test_what_is_no_message_ends_with_65_and_what_to_do(installed: Installed, raw: bytes) -> None:
    ended = pipe(installed, raw)
    assert ended.returncode == 65
    assert ended.stderr.startswith(b"cloud-agent: standard input: no message: it ")
    assert b"Traceback" not in ended.stderr
    assert inbox(installed) == []


def test_each_file_is_told_and_one_that_is_none_stops_no_other(installed: Installed) -> None:
    (installed.root / "a.eml").write_bytes(message(1))
    (installed.root / "b.txt").write_bytes(b"hello")
    box = [b"From p@b.org Mon Feb 16 12:00:00 2026\n" + message(number) + b"\n" for number in (2, 3)]
    (installed.root / "c.mbox").write_bytes(b"".join(box))
    for folder in ("cur", "new", "tmp"):
        (installed.root / "Maildir" / folder).mkdir(parents=True)
        (installed.root / "Maildir" / folder / folder).write_bytes(message(4 + len(folder + "x" * (folder == "new"))))
    (installed.root / "e\udcff.eml").write_bytes(message(9))
    ended = installed.run("intake", "a.eml", "b.txt", "absent", "c.mbox", "Maildir", ".", "e\udcff.eml")
    assert ended.returncode == 65
    lines = ended.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "a.eml",
        "c.mbox",
        "c.mbox, message 2",
        "Maildir",
        "Maildir, message 2",
        "e\ufffd.eml",
    ]
    wrong = ended.stderr.splitlines()
    assert [line.split(": ")[1:3] for line in wrong] == [
        ["b.txt", "no message"],
        ["absent", "cannot be read (No such file or directory)"],
        [".", "is a folder, and no Maildir"],
    ]
    assert len(inbox(installed)) == 6


def test_a_mail_server_tries_again_when_the_vault_cannot_be_written(installed: Installed) -> None:
    """75 (EX_TEMPFAIL): 78, or a crash's 1, would bounce the mail."""
    (installed.desk.vault / "Inbox").rename(installed.root / "Inbox")
    for broken in (
        lambda: (installed.desk.vault / "Inbox").symlink_to(installed.root / "Inbox"),
        lambda: (installed.desk.vault / "Inbox").write_bytes(b""),
    ):
        broken()
        ended = pipe(installed, message(1))
        assert ended.returncode == 75
        assert b"is to be brought again" in ended.stderr
        (installed.desk.vault / "Inbox").unlink()
    assert list((installed.root / "Inbox").iterdir()) == []
    assert pipe(installed, message(1)).returncode == 0
    installed.set(WHATSAPP_SESSION_PATH="x")
    assert pipe(installed, message(2)).returncode == 75
    (installed.root / "a.eml").write_bytes(message(2))
    ended_for_a_person = installed.run("intake", "a.eml")
    assert ended_for_a_person.returncode == 78
    assert "WHATSAPP_SESSION_PATH" in ended_for_a_person.stderr
    installed.env_file.unlink()
    assert pipe(installed, message(2)).returncode == 75
    assert len(inbox(installed)) == 1


def test_the_environment_of_a_delivery_agent_is_no_credential(installed: Installed) -> None:
    """procmail sets these for every program that it starts; what could really send is refused as ever."""
    (installed.root / "a.eml").write_bytes(message(1))
    of_procmail = {"SENDMAIL": "/usr/sbin/sendmail", "SENDMAILFLAGS": "-oi"}
    assert installed.run("intake", "a.eml", **of_procmail).returncode == 0
    assert installed.run("intake", "a.eml", SMTP_PASSWORD="x").returncode == 78
    assert installed.run("draft", "--once", **of_procmail).returncode == 78


def test_a_full_disk_leaves_nothing_half_written(installed: Installed) -> None:
    # No file may be longer than this (RLIMIT_FSIZE), as with a disk that is full. Python ignores the signal.
    limited = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *installed.command]
    held = Installed.__new__(Installed)
    held.__dict__ |= installed.__dict__ | {"command": limited}
    ended = pipe(held, message(1, "x" * 5000))
    assert ended.returncode == 75
    assert b"File too large" in ended.stderr
    assert inbox(installed) == []
    assert pipe(installed, message(1, "x" * 5000)).returncode == 0


def test_nobody_listens(installed: Installed) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = pipe(installed, message(1), stdout=writing, stderr=writing)
    os.close(writing)
    assert ended.returncode == 0
    assert len(inbox(installed)) == 1


def test_it_waits_for_the_lock_of_the_loops(installed: Installed) -> None:
    with lock(installed.root / "state" / "tree.lock"):
        (installed.root / "a.eml").write_bytes(message(1))
        process = installed.start("intake", "a.eml")
        time.sleep(1)
        assert process.poll() is None
        assert inbox(installed) == []
    assert process.wait(20) == 0
    assert len(inbox(installed)) == 1


def test_each_message_is_drafted_once_while_many_bring_it_and_are_killed(
    installed: Installed, api: MessagesAPI
) -> None:
    count = 20
    loop = installed.start("draft")
    try:

        def bring(number: int) -> None:
            raw = message(number)
            chance = random.Random(number)  # noqa: S311  (the same in each run)
            for forms in (raw, raw.replace(b"\n", b"\r\n"), b"From p@b.org Mon Feb 16 12:00:00 2026\n" + raw + b"\n"):
                command = [*installed.command, "--env-file", str(installed.env_file), "intake", "-"]
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=installed.environ, cwd=installed.root
                )
                assert process.stdin is not None
                process.stdin.write(forms)
                process.stdin.close()
                if chance.random() < 0.5:
                    time.sleep(chance.uniform(0.05, 0.5))
                    process.kill()
                process.wait()
            assert pipe(installed, raw).returncode == 0  # who brought it tries again until it is told that it worked

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(bring, range(count)))
        pending = installed.desk.vault / "Pending_Approval/Email"
        wait_for(lambda: len(list(pending.glob("*.md"))) >= count, 60)
        wait_for(lambda: not list((installed.desk.vault / "Inbox").glob("*.md")), 60)
    finally:
        loop.terminate()
        loop.communicate(timeout=30)
    drafts = [frontmatter.read(path.read_text())[0]["subject"] for path in pending.glob("*.md")]
    assert sorted(drafts) == sorted(f"Re: {number}" for number in range(count))
    assert len(list((installed.desk.vault / "In_Progress/cloud").glob("*.md"))) == count
    assert len(api.requests) == count


# Runs a command, and prints the most memory that it took (kB) and its seconds of CPU. A process of its own: the memory
# of a large one that starts another counts as the other's.
MEASURE = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss, used.ru_utime + used.ru_stime)
sys.exit(ended)
"""
BASE64 = b"Content-Type: application/pdf; name=x.pdf\nContent-Transfer-Encoding: base64\n\n"


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        (BASE64, b"QUJD" * 19 + b"\n"),
        (BASE64, b"QUJD" * 19 + b"\r\n"),
        (b"Content-Type: text/plain\n\n", b"some words of a line\n"),
        (b"Content-Type: text/html\n\n", b"<p>words<b>of\n"),
        (b"Content-Type: text/html\n\n", b"<p>words<b>of"),
        (b"Content-Type: application/octet-stream\n\n", bytes(range(256))),
        (b"", b"X-Field: of a header\n"),
    ],
    ids=["attachment", "CRLF", "text", "HTML", "one line", "8 bit", "header"],
)
def test_50_mb_take_bounded_memory_and_time(installed: Installed, head: bytes, unit: bytes) -> None:
    path = installed.root / "large.eml"
    path.write_bytes(b"From: a@b.org\nSubject: large\n" + head + unit * (50_000_000 // len(unit)))
    command = [*installed.command, "--env-file", str(installed.env_file), "intake", str(path)]
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], env=installed.environ, capture_output=True, check=True
    )
    memory, seconds = map(float, measured.stdout.split())
    assert memory < 220_000  # three times the message and the program: it is copied, and bounded parts of it are read
    assert seconds < 30
    [name] = inbox(installed)
    written = (installed.desk.vault / "Inbox" / name).read_bytes()
    assert len(written) < 5_000_000
    if head == BASE64:
        assert re.search(rb"- x.pdf \(application/pdf, 3[78],\d{3} kB\)", written)
    else:
        assert b"too l" in written or b"attachment" in written
