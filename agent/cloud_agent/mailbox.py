"""What watching a mailbox is, whatever kind it is of: what comes out of it, how far it was read, what is told of it.

A source (imap.py, gmail.py, maildir.py) yields messages oldest first, each with the position that is reached when it
has been taken. The position is written to the vault (`Logs/Cloud/mail-YYYY-MM.jsonl`) after the mails, so that it is
never ahead of them: not when the process is killed, not when the state folder is deleted, and not when the vault is
cloned anew from a remote that missed the last minutes. What is gone over twice is harmless: intake names a mail by its
content.

Where a position means nothing any more (the server numbered its messages anew, history was dropped), the source goes
over what arrived since `look_back` says.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

from cloud_agent import aside, audit, dashboard
from cloud_agent.backoff import Backoff
from cloud_agent.config import Config
from cloud_agent.intake import MAX_BYTES
from cloud_agent.journal import Journal
from cloud_agent.mail import one_line, shown
from cloud_agent.state import Clock, Result, State, read_json
from cloud_agent.vault import ForbiddenPath, Vault, lock, write_whole

log = logging.getLogger("cloud_agent.mailbox")

AT_ONCE = -1
# Names as written to the log and read back: only the source that wrote them understands them.
Position = dict[str, str]
# What intake makes of a message; `no message` comes with a reason.
Outcome = Literal["taken", "known"]

# A message above this is not held in memory: it goes to a file, and a process of its own takes it from there. What
# PM2 bounds, and restarts where it grows, is this process.
LARGE_BYTES = 5_000_000
# No message is fetched further than this: intake takes the beginning, and says so in the mail.
MOST_BYTES = MAX_BYTES + 1
# Mails that were moved into the folder keep the date of their first arrival, and a folder is numbered anew while
# nobody looks. What the owner deleted from the vault longer ago than this does not come back.
LOOK_BACK = timedelta(days=30)
# A position is written after so many messages, and at the end of each pass that took any.
BATCH = 50
# What could not be fetched, or taken, so often is told and passed over: it must not keep others waiting.
TRIES = 3
DROPPED = Backoff(first=1.0, longest=300.0)
# Providers lock an account out after some ten refused logins in a quarter of an hour or so.
REFUSED = Backoff(first=300.0, longest=3600.0)
# Kinds of trouble that the Dashboard tells of, and of their end: nobody else mends them.
FOR_A_PERSON = ("refused", "settings")


class Unreachable(Exception):
    """The mailbox does not answer for now, or not as it should: trying later makes sense."""


class Misset(Unreachable):
    """It answers, and not as the settings say it would: trying later may do, and a person should look. Says where."""


class Refused(Exception):
    """The mailbox lets us in no more: a person has to mend it. Says how."""


class NotAMessage(Exception):
    """Intake says so, with the reason."""


class Crashed(Exception):
    """Whoever was taking the message ended before it was taken."""


@dataclass(frozen=True)
class Arrived:
    """A message, or the reason why it cannot be had; with neither it says how far the mailbox was read.

    A file is the source's own, and is only read.
    """

    name: str  # of the message in its mailbox, for people
    position: Position | None  # reached once this is taken; None: as before
    content: bytes | Path | None = None
    missed: str = ""


class Source(Protocol):
    """A mailbox that is only read."""

    name: str  # "imap:you@mail.example.org/INBOX"; the key of its position

    def messages(self, position: Position | None, recorded: datetime | None) -> Iterator[Arrived]:
        """What is new since `position`, which was written at `recorded`; None at the first start.

        Raises Unreachable and Refused; nothing that was yielded is lost by that.
        """

    def listen(self) -> int | None:
        """Have the mailbox say when something arrives: the file descriptor that can then be read; None if it cannot,
        AT_ONCE if something is there already. Raises as `messages` does.
        """

    def close(self) -> None:
        """Give up the connection; the next call makes a new one. Never raises."""

    def leave(self) -> None:
        """The same in good manners, at the end."""


def look_back(begin: datetime, recorded: datetime | None) -> datetime:
    """From which arrival on a mailbox is gone over whose position is lost: never from before the first start."""
    return begin if recorded is None else max(begin, recorded - LOOK_BACK)


def parse_time(text: str) -> datetime | None:
    """A moment of a position; None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class Ledger:
    """How far each mailbox was read, in the vault."""

    def __init__(self, vault: Vault, journal: Journal, tree_lock: Path) -> None:
        self.vault = vault
        self.journal = journal
        self.tree_lock = tree_lock

    def last(self, source: str) -> tuple[Position, datetime] | None:
        """The position that was written last, and when; whichever agent wrote it.

        Raises OSError and ForbiddenPath. A log that cannot be read is not taken for none, and so not while git puts
        another in its place: it would be a first start, and what came since the last one would be lost.
        """
        source = shown(source)
        best: tuple[datetime, Position] | None = None
        with lock(self.tree_lock):
            for path in reversed(audit.files(self.vault, self.journal.log)):
                with self.vault.open(path) as file:
                    for raw in iter(lambda: file.readline(audit.LONGEST), b""):
                        found = _position(raw, source)
                        if found is not None and (best is None or found[0] >= best[0]):
                            best = found
                if best is not None:
                    return best[1], best[0]
        return None

    def write(self, source: str, position: Position, taken: int) -> None:
        """Raises OSError and ForbiddenPath: the position is as it was."""
        with lock(self.tree_lock):
            self.journal.record("mailbox_read", source, taken=str(taken), **position)


def _position(raw: bytes, source: str) -> tuple[datetime, Position] | None:
    if b'"mailbox_read"' not in raw:
        return None
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None  # torn by a power loss
    if not isinstance(line, dict) or line.get("action_type") != "mailbox_read" or line.get("target") != source:
        return None
    when, position = parse_time(str(line.get("timestamp"))), line.get("parameters")
    if when is None or not isinstance(position, dict):
        return None
    return when, {str(name): str(value) for name, value in position.items() if name != "taken"}


@dataclass
class Report:
    """What a pass did. `retry_in`: seconds until the next one makes sense, None: as usual."""

    result: Result = "ok"
    message: str = ""
    taken: int = 0
    known: int = 0
    missed: int = 0
    refused: bool = False
    retry_in: float | None = None


class Watcher:
    """Takes what is new in one mailbox, pass by pass; a start and a repair are the same path."""

    def __init__(
        self,
        config: Config,
        source: Source,
        take: Callable[[bytes], Outcome],
        take_apart: Callable[[Path], Outcome],
        state: State,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        """`take` puts a message into the inbox; `take_apart` does so in a process of its own, from a file. Both raise
        NotAMessage, and OSError or ForbiddenPath where the vault takes nothing; `take_apart` also Crashed."""
        self.source = source
        self.take = take
        self.take_apart = take_apart
        self.state = state
        self.clock = clock
        self.stop = stop
        self.vault = Vault(config.vault_path, config.agent_name)
        self.journal = Journal(self.vault, config.agent_name, "mail", clock, state)
        self.ledger = Ledger(self.vault, self.journal, state.tree_lock)
        self.position: Position | None = None
        self.recorded: datetime | None = None
        self.begun = False
        self.worked = False
        self.deaf = 0  # how often in a row nothing could be listened to
        self.pause = DROPPED
        self.tries: dict[str, int] = {}
        # What was being taken when the process before this one ended: a message that ends processes is taken apart.
        self.suspect = str(read_json(self._hand).get("name", ""))

    @property
    def _hand(self) -> Path:
        return self.state.folder / "watch-hand.json"

    def run_pass(self, underway: Callable[[Report], None] = lambda _: None) -> Report:
        """Take what is new. Never raises for what the mailbox or a message does."""
        report = Report()
        left = self.pause.left(self.clock())
        if left:
            return Report("later", self._trouble(), refused=self.pause.first == REFUSED.first, retry_in=left)
        try:
            self._read(report, underway)
        except Refused as refusal:
            self._drop(REFUSED)
            report.refused = True
            self._fail(report, str(refusal), "refused")
        except Unreachable as why:
            again = self.worked or report.taken > 0
            self._drop()
            if again:  # a connection that worked may drop: nobody need wait for that
                self.pause = replace(DROPPED, failures=1)
            self._fail(report, str(why), "settings" if isinstance(why, Misset) else "offline", quiet=again)
        except (OSError, ForbiddenPath) as error:  # the vault: a full disk
            self._drop()
            self._fail(report, f"the vault takes no mail for now ({error}): mend the disk or its permissions", "vault")
        else:
            self.pause, self.worked = DROPPED, True
            told = self._trouble().partition(":")[0] in FOR_A_PERSON
            if self._clear():
                log.info("%s is read again", self.source.name)
                if told:  # the Dashboard said so
                    with contextlib.suppress(OSError, ForbiddenPath), lock(self.state.tree_lock):
                        self.journal.tell("Mail is fetched again.")
        report.retry_in = self.pause.left(self.clock()) if report.result != "ok" else report.retry_in
        return report

    def _drop(self, kind: Backoff = DROPPED) -> None:
        """After a failure: the next pass makes a new connection, in a while."""
        self.source.close()
        self.worked = False
        self.pause = (self.pause if self.pause.first == kind.first else kind).after_failure(self.clock())

    def listen(self) -> int | None:
        """As Source.listen; never raises."""
        if self.pause.failures or (self.deaf >= TRIES and self.deaf % 10):
            self.deaf += bool(self.deaf)
            return None
        try:
            found = self.source.listen()
        except (Unreachable, Refused, OSError) as why:
            self.source.close()
            self.deaf += 1
            if self.deaf == TRIES:
                log.warning("%s cannot say when mail arrives (%s): it is asked", self.source.name, why)
            return AT_ONCE  # the next pass makes a new connection
        self.deaf = 0
        return found

    # -- one pass --------------------------------------------------------------------------------------------------

    def _read(self, report: Report, underway: Callable[[Report], None]) -> None:
        if not self.begun:
            last = self.ledger.last(self.source.name)
            self.position, self.recorded = last if last is not None else (None, None)
            self.begun = True
        reached, since = self.position, 0
        messages = self.source.messages(self.position, self.recorded)
        try:
            for arrived in messages:
                if arrived.missed:
                    self._miss(arrived.name, arrived.missed, report)
                elif arrived.content is not None:
                    self._take(arrived.name, arrived.content, report)
                if arrived.position is not None:
                    reached, since = arrived.position, since + 1
                # The first position at once: from there on mail counts, whatever happens in this pass.
                if since >= BATCH or (self.position is None and reached is not None):
                    self._record(reached, report)
                    since = 0
                underway(report)
                if self.stop.is_set():
                    break
        finally:
            # Also in each new month: logs are cleaned up after a while, and a quiet mailbox must not lose its place.
            due = self.recorded is None or f"{self.recorded:%Y-%m}" != f"{self.clock():%Y-%m}"
            if reached is not None and (reached != self.position or due):
                self._record(reached, report)

    def _record(self, reached: Position | None, report: Report) -> None:
        assert reached is not None
        if self.position is None:
            self.position = reached  # also where the vault cannot be written yet
        self.ledger.write(self.source.name, reached, report.taken)
        if self.recorded is None:
            log.info("%s is watched from now on (what was there before: WATCH_SINCE_DAYS)", self.source.name)
        self.position, self.recorded = reached, self.clock()

    def _take(self, name: str, content: bytes | Path, report: Report) -> None:
        """Take one message. Raises OSError where the vault takes none, Unreachable where it is to be tried again."""
        apart = isinstance(content, Path) or name == self.suspect
        write_whole(self._hand, json.dumps({"name": name}).encode())
        try:
            if not apart:
                assert isinstance(content, bytes)
                outcome = self.take(content)
            else:
                with self._as_file(content) as path:
                    outcome = self.take_apart(path)
        except NotAMessage as why:
            self._miss(name, f"it is no message: {why}", report)
            return
        except (OSError, ForbiddenPath):
            raise
        except Exception as error:  # a fault of ours, or a crash: this message's, and no other's
            log.exception("%s cannot be taken", name)
            fault = f"{type(error).__name__}: {error}"
            if not self._tried_enough(name):
                raise Unreachable(f"{name} cannot be taken, and is tried again: {fault}") from error
            self._miss(name, fault, report)
            return
        finally:
            self._hand.unlink(missing_ok=True)
        self.tries.pop(name, None)
        report.taken += outcome == "taken"
        report.known += outcome == "known"

    @contextlib.contextmanager
    def _as_file(self, content: bytes | Path) -> Iterator[Path]:
        if isinstance(content, Path):
            yield content
            return
        path = self.state.folder / "watch-suspect.eml"
        path.write_bytes(content)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _tried_enough(self, name: str) -> bool:
        self.tries[name] = self.tries.get(name, 0) + 1
        return self.tries[name] >= TRIES

    # -- what the owner reads --------------------------------------------------------------------------------------

    def _miss(self, name: str, why: str, report: Report) -> None:
        """A message stays in the mailbox alone: told where a person looks. Raises OSError where it cannot be told."""
        self.tries.pop(name, None)
        report.missed += 1
        log.warning("%s", one_line(f"{name} of {self.source.name} is left there: {why}"))  # a file may be named anyhow
        with lock(self.state.tree_lock):
            aside.leave(self.vault, self.journal, self.source.name, name, why)

    def _trouble(self) -> str:
        return self.state.alerts().get("mailbox", {}).get("message", "")

    def _fail(self, report: Report, message: str, kind: str, *, quiet: bool = False) -> None:
        """`kind` begins the alert, as those of sync do: by it the owner is told at once, or when it lasts."""
        report.result, report.message = "later", message
        if quiet:
            log.info("%s: %s", self.source.name, message)
            return
        with contextlib.suppress(OSError):  # a full disk
            if self.state.raise_alert("mailbox", f"{kind}: {self.source.name}: {message}", self.clock()):
                log.warning("%s: %s", self.source.name, message)
                if kind in FOR_A_PERSON:
                    with lock(self.state.tree_lock):
                        self.journal.tell(f"Mail is not fetched: {dashboard.plain(message, 300)}")

    def _clear(self) -> bool:
        try:
            return self.state.clear_alert("mailbox")
        except OSError:
            return False


class Spool:
    """A message while it is fetched: in memory, and from LARGE_BYTES on in a file, so that memory is bounded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory = bytearray()
        self._file: int | None = None
        self.size = 0

    def write(self, part: bytes | memoryview) -> None:
        """Raises OSError where the disk takes no more."""
        self.size += len(part)
        if self._file is None:
            self._memory += part
            if self.size <= LARGE_BYTES:
                return
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            part, self._memory = bytes(self._memory), bytearray()
        left = memoryview(part)
        while left:
            left = left[os.write(self._file, left) :]

    @property
    def content(self) -> bytes | Path:
        return bytes(self._memory) if self._file is None else self._path

    def close(self) -> None:
        """Forget the message."""
        self._memory = bytearray()
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._path.unlink(missing_ok=True)
