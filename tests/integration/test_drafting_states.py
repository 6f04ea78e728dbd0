"""Whatever a person does, and wherever the process is killed: one draft a mail, no mail lost, no file overwritten."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cloud_agent import frontmatter
from cloud_agent.claude import TryLater
from cloud_agent.drafting import MAX_TRIES
from cloud_agent.mail import Mail, note_id
from cloud_agent.vault import PENDING
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, precondition, rule

from tests.helpers import MAIL_FOLDERS, Desk, Killed, KillingOS, mail_text, reply

KINDS = (
    *("plain", "plain", "plain", "bulk", "list", "nobody", "bare", "odd id", "message", "thread"),
    *("no answer", "no form", "to review", "to notify"),
)
KEPT = "Logs/Cloud/unparseable"


class Certain:
    """Claims that are proven at once."""

    def confirm(self, paths: Iterable[str]) -> tuple[set[str], str]:
        return set(paths), ""


class ClaimingDesk(Desk):
    """A desk whose agent claims its mails first."""

    def __init__(self, root: Path, **settings: Any) -> None:
        super().__init__(root, claim=True, **settings)

    def restart(self) -> None:
        super().restart()
        self.orchestrator.claims = Certain()  # type: ignore[assignment]


class Checker:
    """What must hold of a vault; it remembers what it saw."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.mails: dict[str, str] = {}  # token in the body -> email_id, "" for one that cannot be read
        self.drafts: dict[tuple[str, str], set[str]] = {}  # email_id, token -> every draft of it that was ever seen
        self.touched: dict[str, bytes] = {}  # path -> what a person left there

    def check(self, *, whole: bool, twins: bool = False) -> None:
        files = self.desk.files()
        drafted: list[str] = []
        for path, content in self.touched.items():
            assert files.get(path) == content, f"{path} was a person's"
        for path, content in files.items():
            if b"draft_id" in content:
                text = content.decode()
                fields, body = frontmatter.read(text)
                assert body.rstrip().endswith("`"), f"{path} is not whole"
                call = next(word for word in body.split() if word.startswith("reply-"))
                token = next(token for token in self.mails if token in body)
                self.drafts.setdefault((fields["email_id"], token), set()).add(call)
                drafted.append(fields["email_id"])
                assert not path.startswith(("Inbox", "In_Progress", "Needs_Action"))
        assert len(drafted) == len(set(drafted)), f"two drafts under one id: {sorted(drafted)}"
        for mail, calls in self.drafts.items():
            assert len(calls) == 1, f"{mail} was drafted twice"
        for token, email_id in self.mails.items():
            folders = MAIL_FOLDERS if email_id else (*MAIL_FOLDERS, KEPT)
            places = [
                path
                for path, content in files.items()
                if path.rpartition("/")[0] in folders and token.encode() in content and b"draft_id" not in content
            ]
            assert places, f"{token} is lost"
            if whole:
                # A second copy in the inbox (after a kill, a person put the other back) is the next pass's to remove.
                taken_in = [path for path in places if not path.startswith("Inbox")]
                places = taken_in if twins and taken_in else places
                assert len(places) == 1, f"{token} stands in {places}"
                if not places[0].startswith(("Inbox", KEPT)) and places[0] not in self.claimed():
                    assert b"reason: " in files[places[0]]
        if whole:
            for name in self.desk.names("In_Progress/cloud"):
                path = f"In_Progress/cloud/{name}"
                seen = {token for email_id, token in self.drafts if email_id == self.id_of(path)}
                if path in self.claimed():
                    assert not any(token.encode() in files[path] for token in seen)
                else:
                    assert seen

    def id_of(self, path: str) -> str:
        return note_id(Path(path).name, self.desk.fields(path))

    def claimed(self) -> list[str]:
        """Mails that wait in In_Progress, as others do in the inbox."""
        if not isinstance(self.desk, ClaimingDesk):
            return []
        paths = [f"In_Progress/cloud/{name}" for name in self.desk.names("In_Progress/cloud")]
        return [path for path in paths if "drafted_as" not in self.desk.fields(path)]


def answering(desk: Desk) -> None:
    """Each answer is another one, so that two drafts of a mail can be told apart."""

    def behave(mail: Mail) -> object:
        if "no answer" in mail.body:
            raise TryLater("500", sent=True)
        if "no form" in mail.body:
            return "the answer does not have the agreed form"
        decision = next((word for word in ("review", "notify") if f"to {word}" in mail.body), "reply")
        return reply(f"Dear Ann, reply-{len(desk.drafter.calls)}-{mail.email_id} is yours", decision=decision)

    desk.drafter.behave = behave  # type: ignore[assignment]


def run_killed(desk: Desk, kill_at: int) -> bool:
    """One pass that dies before its Nth change of the disk; True when it came to its end all the same."""
    try:
        with KillingOS(kill_at):
            desk.run()
    except Killed:
        desk.restart()
        return False
    return True


@pytest.mark.parametrize("kind", [Desk, ClaimingDesk])
@pytest.mark.parametrize("scene", ["draft", "decided", "skip", "unreadable", "failed", "put back", "twins"])
def test_killed_before_each_change_of_the_disk(tmp_path: Path, scene: str, kind: type[Desk]) -> None:
    """Exhaustive, where the machine below takes samples."""
    for kill_at in range(60):
        desk = kind(tmp_path / str(kill_at))
        checker = Checker(desk)
        answering(desk)
        checker.mails = {"token-1": "x"}
        if scene == "unreadable":
            checker.mails = {"token-1": ""}
            desk.write("Inbox/EMAIL_x.md", b"\0 token-1")
        else:
            desk.put("x", "token-1", **({"precedence": "bulk"} if scene in ("skip", "put back") else {}))
        if scene == "failed":
            desk.drafter.behave = lambda mail: "no"
            desk.run()
            desk.run()
        elif scene == "decided":
            desk.run()
            desk.move(f"{PENDING}/EMAIL_DRAFT_x.md", "Approved/Email/EMAIL_DRAFT_x.md")
        elif scene == "put back":
            desk.run()
            desk.move("Done/Skipped/EMAIL_x.md", "Inbox/EMAIL_x.md")
        elif scene == "twins":
            desk.write("Inbox/EMAIL_y.md", mail_text("x", "token-2"))
            checker.mails["token-2"] = "x"
        ended = run_killed(desk, kill_at)
        checker.check(whole=False)
        for _ in range(2):
            assert desk.run().result == "ok" or scene == "failed"
            checker.check(whole=True)
        assert desk.names("Inbox") == [] or scene == "failed"
        if scene in ("draft", "put back", "twins"):
            assert desk.read("Dashboard.md").count("[[EMAIL_DRAFT_x]]") >= 1
            assert desk.usage_rows()
        if scene == "unreadable":
            assert desk.names("Needs_Action/Email") == ["EMAIL_x.md"]
        if ended:
            return
    raise AssertionError("it never came to an end")


class Life(RuleBasedStateMachine):
    """Mails arrive, a person decides, passes run and are killed, in any order."""

    kind = Desk
    ids = Bundle("ids")

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.desk = self.kind(self.root, draft_concurrency=1)  # the same examples do the same each time
        self.checker = Checker(self.desk)
        answering(self.desk)
        self.count = 0
        self.outage = False

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    def _token(self, email_id: str) -> str:
        self.count += 1
        self.checker.mails[f"token-{self.count}-"] = email_id
        return f"token-{self.count}-"

    def _drafts(self, *folders: str) -> list[str]:
        return [
            path for path, content in self.desk.files().items() if b"draft_id" in content and path.startswith(folders)
        ]

    # -- mails -----------------------------------------------------------------------------------------------------

    @rule(
        target=ids,
        kind=st.sampled_from(KINDS),
    )
    def a_mail_arrives(self, kind: str) -> str:
        email_id = f"m{self.count}" + ("/../é" if kind == "odd id" else "")
        token = self._token(email_id)
        text = mail_text(email_id, f"{token} {kind}")
        if kind == "message":  # as a mail program saves it
            email_id = f"in{self.count}"
            self.checker.mails[token] = email_id
            text = f"From: ann@example.org\nSubject: A question\nMessage-ID: <{email_id}@x>\n\n{token}\n"
        elif kind == "thread":
            text = mail_text(email_id, token, message_id=f"<{email_id}@x>", references="<root@x> <m0@x>")
        elif kind in ("bulk", "list"):
            text = text.replace("from:", "precedence: bulk\nfrom:" if kind == "bulk" else "list_id: <x.y>\nfrom:")
        elif kind == "nobody":
            text = text.replace("ann@example.org", "nobody")
        elif kind == "bare":
            text = text.replace("---\n\n", "\n").replace("\n", "\r\n")  # no closing fence
        self.desk.write(f"Inbox/EMAIL_in{self.count}.md", text)
        return email_id

    @rule(data=st.data())
    def a_mail_comes_back(self, data: st.DataObject) -> None:
        """Some sync or script lays a mail into the inbox that was taken in before, as it was."""
        taken_in = [
            f"{folder}/{name}"
            for folder in ("In_Progress/cloud", "Done/Email")
            for name in self.desk.names(folder)
            if "drafted_as" in self.desk.fields(f"{folder}/{name}")
        ]
        if taken_in:
            path = data.draw(st.sampled_from(taken_in))
            raw = (self.desk.vault / path).read_bytes()
            raw = re.sub(rb"^(decision|reason|drafted_as):.*\n", b"", raw, flags=re.MULTILINE)
            raw = raw.removeprefix(b"---\n---\n\n")
            target = f"Inbox/{Path(path).name}"
            if not (self.desk.vault / target).exists():
                self.desk.write(target, raw)

    @rule()
    def something_unreadable_arrives(self) -> None:
        self.desk.write(f"Inbox/EMAIL_bin{self.count}.md", b"\0" + self._token("").encode())

    @rule(email_id=ids)
    def another_mail_comes_under_the_same_id(self, email_id: str) -> None:
        self.desk.write(f"Inbox/EMAIL_other{self.count}.md", mail_text(email_id, self._token(email_id)))

    @rule(data=st.data())
    def a_person_puts_a_mail_back(self, data: st.DataObject) -> None:
        lying = [
            f"{folder}/{name}"
            for folder in ("Needs_Action/Email", "Done/Skipped")
            for name in self.desk.names(folder)
            if "kept" not in self.desk.fields(f"{folder}/{name}")
        ]
        if lying:
            self.desk.move(data.draw(st.sampled_from(lying)), f"Inbox/EMAIL_back{self.count}.md")
            self.count += 1

    # -- decisions -------------------------------------------------------------------------------------------------

    @rule(
        data=st.data(),
        to=st.sampled_from(["Approved/Email", "Rejected/Email", "Done/Email", f"{PENDING}/later", "Approved/a/b"]),
        renamed=st.booleans(),
        edited=st.booleans(),
    )
    def a_person_moves_a_draft(self, data: st.DataObject, to: str, renamed: bool, edited: bool) -> None:
        drafts = self._drafts("Pending_Approval", "Approved", "Rejected")
        if not drafts:
            return
        source = data.draw(st.sampled_from(drafts))
        self.count += 1
        name = f"mine{self.count}.md" if renamed else Path(source).name
        if (self.desk.vault / to / name).exists():
            return
        self.desk.move(source, f"{to}/{name}")
        self.checker.touched.pop(source, None)
        path = self.desk.vault / to / name
        if edited:
            path.write_text(path.read_text().replace("Dear Ann", "My dear Ann"))
        self.checker.touched[f"{to}/{name}"] = path.read_bytes()

    @rule(data=st.data())
    def a_person_edits_a_draft(self, data: st.DataObject) -> None:
        drafts = self._drafts("Pending_Approval")
        if drafts:
            source = data.draw(st.sampled_from(drafts))
            path = self.desk.vault / source
            path.write_text(path.read_text().replace("is yours", "is yours, by my hand"))
            self.checker.touched[source] = path.read_bytes()

    @rule(data=st.data())
    def a_person_deletes_a_draft(self, data: st.DataObject) -> None:
        """Not in the moment between a kill and the next pass: such a mail, back in its inbox, is drafted anew."""
        paths = [f"In_Progress/cloud/{name}" for name in self.desk.names("In_Progress/cloud")]
        taken_in = {self.checker.id_of(path) for path in paths if path not in self.checker.claimed()}
        drafts = [path for path in self._drafts("Pending_Approval") if self.checker.id_of(path) in taken_in]
        if drafts:
            source = data.draw(st.sampled_from(drafts))
            (self.desk.vault / source).unlink()
            self.checker.touched.pop(source, None)

    # -- the machine -----------------------------------------------------------------------------------------------

    @rule(down=st.booleans())
    def the_api_goes_down_or_comes_back(self, down: bool) -> None:
        self.outage = down
        if not down:
            answering(self.desk)
            return

        def behave(mail: Mail) -> object:
            raise TryLater("529")

        self.desk.drafter.behave = behave  # type: ignore[assignment]

    @rule()
    def the_state_is_deleted(self) -> None:
        shutil.rmtree(self.desk.config.state_path)
        self.desk.restart()

    @rule(restart=st.booleans())
    def the_vault_is_cloned_anew(self, restart: bool) -> None:
        """The same files, each with another inode and another time."""
        shutil.copytree(self.desk.vault, self.root / "clone")
        shutil.rmtree(self.desk.vault)
        (self.root / "clone").rename(self.desk.vault)
        if restart:
            self.desk.restart()

    @rule(kill_at=st.integers(0, 40))
    def a_pass_is_killed(self, kill_at: int) -> None:
        ended = run_killed(self.desk, kill_at)
        self.checker.check(whole=ended, twins=True)

    @rule()
    def a_pass_runs(self) -> None:
        self.desk.clock.advance(minutes=5)
        waiting = bool(self.desk.names("Inbox") or self.checker.claimed())
        report = self.desk.run()
        assert report.result == "ok" or waiting
        if not self.outage and not self.sickly():
            assert report.result == "ok"
        self.checker.check(whole=True, twins=True)

    @precondition(lambda self: not self.outage)
    @rule()
    def the_inbox_is_empty_in_the_end(self) -> None:
        # Mails that share an id are seen to one after the other; so are claims, while nothing is answered.
        silent = sum(b" no answer" in content for content in self.desk.files().values())
        for _ in range(MAX_TRIES + 2 + silent * MAX_TRIES):
            self.desk.clock.advance(minutes=5)
            self.desk.run()
        open_mails = [*(f"Inbox/{name}" for name in self.desk.names("Inbox")), *self.checker.claimed()]
        # A mail without an answer waits for another to be answered: only that tells whose fault it is. With it wait
        # others that came under its id.
        waiting = {
            self.desk.fields(path).get("email_id") for path in open_mails if " no answer" in self.desk.read(path)
        }
        assert [path for path in open_mails if self.desk.fields(path).get("email_id") not in waiting] == []
        self.checker.check(whole=True)

    def sickly(self) -> bool:
        """Whether a mail is about that Claude gives no good answer to."""
        return any(b" no answer" in content or b" no form" in content for content in self.desk.files().values())


class LifeWithClaims(Life):
    kind = ClaimingDesk


Life.TestCase.settings = settings(
    max_examples=150, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
LifeWithClaims.TestCase.settings = Life.TestCase.settings
TestLife = Life.TestCase
TestLifeWithClaims = LifeWithClaims.TestCase
