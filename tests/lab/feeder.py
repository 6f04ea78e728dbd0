"""Mails that keep arriving from both sides of a vault, whatever happens to the machine, and what became of them.

Half of them the owner pushes, between decisions on drafts; half are written on the machine over ssh, as an intake
there would. A mail is handed over again and again, the same bytes under the same name, until that has worked: then it
is `accepted`, and from then on it must not get lost.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.lab.host import LabError
from tests.lab.lab import Lab
from tests.lab.local import Local

INBOX_ON_TARGET = "/opt/personal-ai-employee/vault/Inbox"
PENDING = "Pending_Approval/Email"
# One mail in so many seconds from each side.
EVERY_SECONDS = 2.0
# The owner decides on a draft with every so manieth mail.
DECIDE_EVERY = 3


def mail(email_id: str) -> str:
    """A mail that wants an answer, unlike every other one."""
    return (
        f"---\nemail_id: {email_id}\nfrom: {email_id}@example.com\nsubject: A question about order {email_id}\n---\n\n"
        f"Hello,\n\nwhen will the order {email_id} be delivered, and can it be paid later?\n\nKind regards\n"
    )


class Feeder:
    """Two threads that hand mails over; `accepted` are the ids of those that are in, in their order."""

    def __init__(self, lab: Lab, local: Local, alias: str = "target") -> None:
        self.lab = lab
        self.local = local
        self.alias = alias
        self.accepted: list[str] = []
        # In each id, so that whoever runs this twice on a machine has new mails.
        self.run = time.strftime("%H%M%S")
        self.decided = 0
        self.refused = 0
        self.last_refusal = ""
        self._stop = threading.Event()
        sides = (("pushed", self._push), ("written", self._write))
        self._threads = [threading.Thread(target=self._feed, args=side, daemon=True) for side in sides]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 60.0) -> None:
        """Return when the last mails are accepted. Raises LabError when they are not within these seconds."""
        self._stop.set()
        for thread in self._threads:
            thread.join(seconds)
            if thread.is_alive():
                raise LabError(f"a mail is still not accepted: {self.last_refusal}")

    def _feed(self, side: str, hand_over: Callable[[str, int], None]) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            email_id = f"{self.run}-{side}-{number:04}"
            while not self._taken(hand_over, email_id, number):
                time.sleep(0.1)
            self.accepted.append(email_id)
            self._stop.wait(EVERY_SECONDS)

    def _taken(self, hand_over: Callable[[str, int], None], email_id: str, number: int) -> bool:
        try:
            hand_over(email_id, number)
        except LabError as error:  # the machine is down, or Cloud pushed in between
            self.refused += 1
            self.last_refusal = str(error)
            return False
        return True

    def _push(self, email_id: str, number: int) -> None:
        file = self.local.path / "Inbox" / f"EMAIL_{email_id}.md"
        if not self.local.git("log", "--max-count=1", "--format=%H", f"--grep=^Local: {email_id}$"):
            file.write_text(mail(email_id))
            if number % DECIDE_EVERY == 0:
                self._decide()
            self.local.git("add", "--all")
            self.local.git("commit", "--quiet", "-m", f"Local: {email_id}")
        self.local.pull()
        self.local.git("push", "--quiet")

    def _decide(self) -> None:
        pending = sorted((self.local.path / PENDING).glob("EMAIL_DRAFT_*.md"))
        if pending:
            decision = "Rejected" if self.decided % 3 == 2 else "Approved"
            self.local.git("mv", f"{PENDING}/{pending[0].name}", f"{decision}/Email/{pending[0].name}")
            self.decided += 1

    def _write(self, email_id: str, number: int) -> None:
        del number
        name = f"{INBOX_ON_TARGET}/EMAIL_{email_id}.md"
        # Whole or not at all.
        script = f"cat >{name}.tmp && mv {name}.tmp {name}"
        self.lab.run_on_target(["sh", "-c", script], alias=self.alias, stdin=mail(email_id), timeout=20)


def ids_in(text: str, run: str) -> set[str]:
    """The ids of a run's mails in a text."""
    return set(re.findall(rf"\b{run}-(?:pushed|written)-\d{{4}}\b", text))


def faults(vault: Path, run: str, accepted: Iterable[str]) -> list[str]:
    """What is wrong with a clone in which each accepted mail of a run should have one draft and lie in one place."""
    drafts: dict[str, list[str]] = defaultdict(list)
    mails: dict[str, list[str]] = defaultdict(list)
    found = []
    for path in sorted(vault.rglob("*.md")):
        name = path.relative_to(vault).as_posix()
        header = path.read_text().partition("\n---\n")[0]
        email_id = re.search(r"^email_id: *['\"]?([^'\"\n]+)", header, re.MULTILINE)
        if ".conflict-" in name:
            found.append(f"{name}: two versions of it clashed")
        if name.startswith("Inbox/"):
            found.append(f"{name}: not taken in")
        if email_id is not None and email_id[1].startswith(f"{run}-"):
            (drafts if re.search(r"^draft_id:", header, re.MULTILINE) else mails)[email_id[1]].append(name)
    expected = set(accepted)
    for sent in sorted({*drafts, *mails, *expected}):
        if sent not in expected:
            found.append(f"{sent}: nobody sent it")
        for what, places in (("draft", drafts[sent]), ("mail", mails[sent])):
            if len(places) != 1:
                found.append(f"{sent}: {len(places)} {what}s {places}")
    return found
