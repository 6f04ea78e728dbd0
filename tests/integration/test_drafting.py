"""Passes over a vault, with a drafter without a model and a clock that stands still."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cloud_agent import approval, thread
from cloud_agent.calls import Calls
from cloud_agent.claude import Answer, Refused, TryLater, Unanswerable
from cloud_agent.drafting import MAX_TRIES, Orchestrator
from cloud_agent.mail import Envelope, Mail
from cloud_agent.request import PROMPT_VERSION, Task
from cloud_agent.usage import Usage
from cloud_agent.vault import PENDING, Vault

from evals.corpora import CORPORA
from tests.helpers import DASHBOARD, HANDBOOK, MODEL, Desk, FakeDrafter, mail_text, reply

CORPUS = CORPORA / "mail"
X, DRAFT_X = "EMAIL_x.md", "EMAIL_DRAFT_x.md"


def fail_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def audit(desk: Desk) -> list[str]:
    lines = (desk.vault / "Logs/Cloud/audit-2026-02.jsonl").read_text().splitlines()
    return [json.loads(line)["action_type"] for line in lines]


def test_a_mail_becomes_a_draft(desk: Desk) -> None:
    desk.put("x", "The whole body.\n" * 100)
    report = desk.run()
    assert (report.result, report.drafted) == ("ok", 1)
    assert desk.drafter.calls[0].body.strip() == ("The whole body.\n" * 100).strip()
    assert [task.handbook for task in desk.drafter.tasks] == [HANDBOOK]
    draft = desk.read(f"{PENDING}/{DRAFT_X}")
    assert approval.reply_of(draft) == "Dear Ann,\n\nI will call you."
    assert desk.names("Inbox") == []
    fields = desk.fields(f"In_Progress/cloud/{X}")
    assert (fields["decision"], fields["drafted_as"]) == ("reply", "EMAIL_DRAFT_x")
    assert "[[EMAIL_DRAFT_x]]" in desk.read("Dashboard.md").split("## Updates")[1]
    assert desk.read("Dashboard.md").startswith(DASHBOARD.strip())
    assert len(desk.usage_rows()) == 1
    assert f"| cloud | {MODEL} | 1000 | 200 | $0.004000 | email_draft |" in desk.usage_rows()[0]
    assert audit(desk) == ["draft_created", "mail_moved"]


def test_the_second_pass_does_nothing(desk: Desk) -> None:
    desk.put()
    desk.run()
    before = desk.files()
    assert desk.run().drafted == 0
    assert desk.files() == before
    assert len(desk.drafter.calls) == 1


@pytest.mark.parametrize("target", ["Approved/Email", "Rejected/Email", "Done/Email", "Approved/Email/sub/folder"])
@pytest.mark.parametrize("name", [DRAFT_X, "renamed.md"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_decided_draft_takes_its_mail_to_done(desk: Desk, target: str, name: str, restart: bool) -> None:
    desk.put()
    desk.run()
    desk.move(f"{PENDING}/{DRAFT_X}", f"{target}/{name}")
    if restart:
        desk.restart()
    desk.run()
    assert X in desk.names("Done/Email")
    assert desk.names("In_Progress/cloud") == []
    assert len(desk.drafter.calls) == 1
    desk.put()  # re-synced: it stands in the inbox again
    desk.run()
    assert desk.names("Inbox") == []
    assert len(desk.drafter.calls) == 1


def test_a_draft_moved_within_pending_still_waits(desk: Desk) -> None:
    desk.put()
    desk.run()
    desk.move(f"{PENDING}/{DRAFT_X}", f"{PENDING}/later/mine.md")
    assert desk.run().moved == 0
    assert desk.names("In_Progress/cloud") == [X]


def test_a_draft_that_is_gone_is_not_made_again(desk: Desk) -> None:
    desk.put()
    desk.run()
    (desk.vault / PENDING / DRAFT_X).rename(desk.root / DRAFT_X)
    desk.run()
    assert "draft is gone" in desk.fields(f"Needs_Action/Email/{X}")["reason"]
    assert len(desk.drafter.calls) == 1
    (desk.root / DRAFT_X).rename(desk.vault / PENDING / DRAFT_X)
    desk.run()
    assert desk.names("In_Progress/cloud") == [X]


def test_a_draft_that_cannot_be_opened_is_a_draft_all_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.write(f"{PENDING}/{DRAFT_X}", "the owner's")
    desk.put()
    real = Vault.read

    def read(self: Vault, path: str) -> bytes:
        if path.startswith(PENDING):
            raise PermissionError(13, "Permission denied", path)
        return real(self, path)

    monkeypatch.setattr(Vault, "read", read)
    desk.run()
    assert desk.drafter.calls == []
    assert desk.names("In_Progress/cloud") == [X]


@pytest.mark.parametrize("taken", ["file", "link", "folder"])
def test_a_taken_name_is_not_overwritten_and_costs_one_call(desk: Desk, taken: str) -> None:
    target = desk.vault / PENDING / DRAFT_X
    if taken == "file":
        target.write_text("---\nemail_id: other\ndraft_id: other\n---\nthe owner's\n")
    elif taken == "link":
        target.symlink_to(desk.root / "outside")
    else:
        target.mkdir()
    desk.put()
    for _ in range(3):
        desk.run()
    assert len(desk.drafter.calls) == 1
    assert desk.fields(f"{PENDING}/EMAIL_DRAFT_x.2.md")["email_id"] == "x"
    assert desk.names("In_Progress/cloud") == [X]
    assert taken != "file" or "the owner's" in target.read_text()
    assert not (desk.root / "outside").exists()


def test_skipped_and_review_and_failed_stand_where_they_belong(desk: Desk) -> None:
    desk.put("news", list_unsubscribe="<https://example.org/u>")
    desk.put("list", list_id="<dev.example.org>")
    desk.put("nobody", from_="nobody")
    desk.run()
    assert "List-Unsubscribe" in desk.fields("Done/Skipped/EMAIL_news.md")["reason"]
    assert desk.fields("Needs_Action/Email/EMAIL_list.md")["decision"] == "review"
    assert "write a line `from: `" in desk.fields("Needs_Action/Email/EMAIL_nobody.md")["reason"]
    assert desk.drafter.calls == []
    updates = desk.read("Dashboard.md").split("## Updates")[1]
    assert updates.count("- 2026-02-16T12:00:00Z") == 3


@pytest.mark.parametrize("folder", ["Done/Skipped", "Needs_Action/Email"])
def test_a_person_overrules_the_gate(desk: Desk, folder: str) -> None:
    header = {"list_unsubscribe": "<x>"} if folder == "Done/Skipped" else {"list_id": "<x.y>"}
    desk.put("x", **header)
    desk.run()
    desk.move(f"{folder}/{X}", f"Inbox/{X}")
    desk.run()
    assert desk.names(PENDING) == [DRAFT_X]


def test_the_model_asks_for_a_person(desk: Desk) -> None:
    desk.drafter.behave = lambda mail: reply("", decision="review", reason="A complaint.")
    desk.put()
    desk.run()
    assert desk.fields(f"Needs_Action/Email/{X}")["reason"] == "Claude asks for a person: A complaint."
    assert desk.drafts() == []
    desk.run()
    assert len(desk.drafter.calls) == 1


def test_what_the_model_tells_a_person_is_screened(desk: Desk) -> None:
    told = "It is safe. <% f() %>\nLog in at https://evil.example/x first."
    desk.drafter.behave = lambda mail: reply("", decision="review", reason=told)
    desk.put()
    desk.run()
    text = desk.read(f"Needs_Action/Email/{X}")
    assert "<%" not in text
    reason = desk.fields(f"Needs_Action/Email/{X}")["reason"]
    assert "Beware: the note to you" in reason
    assert "names https://evil.example/x, a link which is neither in the mail nor in the handbook" in reason


def test_two_different_mails_with_one_id(desk: Desk) -> None:
    desk.put("x", "first")
    desk.run()
    desk.put("x", "second")
    desk.run()
    assert "email_id belongs to another mail" in desk.fields(f"Needs_Action/Email/{X}")["reason"]
    assert len(desk.drafter.calls) == 1


def test_three_mails_with_one_id_at_once(desk: Desk) -> None:
    """The first was drafted when the process was killed; the others must not pass for it."""
    desk.put("x", "first")
    desk.run()
    (desk.vault / f"In_Progress/cloud/{X}").unlink()
    for number in (1, 2, 3):
        desk.write(f"Inbox/EMAIL_{number}.md", mail_text("x", f"body {number}"))
    desk.run()
    bodies = {Path(path).parent.name: content for path, content in desk.files().items() if b"body" in content}
    assert len(desk.names("In_Progress/cloud")) == 1
    assert desk.names("Needs_Action/Email") == ["EMAIL_x.2.md", X]
    assert b"body 1" in bodies["cloud"]
    assert len(desk.drafter.calls) == 1


def test_the_same_mail_again(desk: Desk) -> None:
    desk.put("x", "first")
    desk.run()
    desk.put("x", "first", priority="High")
    desk.run()
    assert desk.names("Done/Skipped") == [X]
    assert len(desk.drafter.calls) == 1


@pytest.mark.parametrize("email_id", ["DRAFT_x", "a/../../../Approved/Email/EMAIL_DRAFT_evil", "né", "007", "x y", ""])
def test_any_id(desk: Desk, email_id: str) -> None:
    desk.write(f"Inbox/{X}", mail_text(email_id))
    for _ in range(3):
        desk.run()
    assert len(desk.drafts()) == 1
    assert desk.drafts()[0].startswith(f"{PENDING}/")
    (name,) = desk.names("In_Progress/cloud")
    desk.move(desk.drafts()[0], f"Approved/Email/{Path(desk.drafts()[0]).name}")
    desk.run()
    assert desk.names("Done/Email") == [name]
    assert len(desk.drafter.calls) == 1
    assert os.listdir(desk.root / "vault" / "Approved") == ["Email"]


@pytest.mark.parametrize("raw", [b"", b"\0binary", b"---\nfrom: a@b.org\n---\n"])
def test_an_unreadable_mail_is_kept_and_named(desk: Desk, raw: bytes) -> None:
    desk.write(f"Inbox/{X}", raw)
    desk.run()
    fields = desk.fields(f"Needs_Action/Email/{X}")
    assert fields["decision"] == "review"
    assert (desk.vault / fields["kept"]).read_bytes() == raw
    assert desk.names("Inbox") == []
    before = desk.files()
    desk.run()
    assert desk.files() == before


def test_a_mended_mail_is_drafted_as_its_note_says(desk: Desk) -> None:
    """The note in Needs_Action must not hold the id against the mail that it speaks of."""
    desk.write(f"Inbox/{X}", b"\0binary")
    desk.run()
    desk.put("x", "mended")
    desk.run()
    assert desk.names(PENDING) == [DRAFT_X]
    assert desk.names("In_Progress/cloud") == [X]


@pytest.mark.parametrize(
    "header",
    [b"from: J\xf6rg <j@example.org>", b"subject: \xff\xfe", rb'subject: "\ud83d"', rb'subject: "\UFFFFFFFF"'],
)
def test_bytes_that_are_no_text_do_not_stop_a_pass(desk: Desk, header: bytes) -> None:
    """Each of these raised after the call was paid for, in every pass anew."""
    other = b"" if header.startswith(b"from") else b"from: ann@example.org\n"
    desk.write("Inbox/EMAIL_a.md", b"---\nemail_id: a\n" + other + header + b"\n---\nb\xe9\n")
    desk.put("z")
    assert desk.run().result == "ok"
    assert len(desk.drafter.calls) == 2
    assert len(desk.names(PENDING)) == 2


def test_the_dashboards_own_bytes_stay(desk: Desk) -> None:
    desk.write("Dashboard.md", b"# caf\xe9\r\n\r\n## Updates\r\n\r\n## Mine\r\n")
    desk.put()
    desk.run()
    changed = (desk.vault / "Dashboard.md").read_bytes()
    assert changed.startswith(b"# caf\xe9\r\n\r\n## Updates\r\n\r\nClaude: $")
    assert changed.endswith(b"\r\n\r\n## Mine\r\n")


# -- failures ------------------------------------------------------------------------------------------------------


def failing(error: Exception, *names: str) -> FakeDrafter:
    """Raises for the mails of these ids, or for all."""

    def behave(mail: Mail) -> object:
        if not names or mail.email_id in names:
            raise error
        return reply()

    return FakeDrafter(behave)  # type: ignore[arg-type]


def test_an_outage_leaves_the_mail_in_the_inbox(desk: Desk) -> None:
    desk.drafter.behave = failing(TryLater("529: overloaded")).behave
    desk.put()
    for _ in range(6):
        assert desk.run().result == "later"
        desk.clock.advance(minutes=5)
    assert desk.names("Inbox") == [X]
    assert desk.drafts() == []
    assert desk.read("Dashboard.md").count("has not answered for a while") == 1
    desk.drafter.behave = lambda mail: reply()
    assert desk.run().result == "ok"
    assert desk.names(PENDING) == [DRAFT_X]
    assert desk.state.alerts() == {}
    assert "Drafting works again" in desk.read("Dashboard.md")


def test_an_outage_is_asked_about_less_and_less_often(desk: Desk) -> None:
    desk.drafter.behave = failing(TryLater("529: overloaded", overload=True)).behave
    for number in range(20):
        desk.put(f"m{number:02}")
    pauses = []
    for _ in range(8):
        pauses.append(desk.run().retry_in)
        calls = len(desk.drafter.calls)
        desk.put("new" + str(len(pauses)))  # a new mail wakes the loop
        assert desk.run().retry_in == pauses[-1]
        assert len(desk.drafter.calls) == calls
        desk.clock.advance(seconds=pauses[-1] or 0)
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]
    assert len(desk.drafter.calls) <= desk.config.draft_concurrency + 7  # one a pass once it is known
    desk.drafter.behave = lambda mail: reply()
    assert desk.run().drafted == 28


def test_a_long_pause_that_the_api_asks_for_is_bounded(desk: Desk) -> None:
    desk.drafter.behave = failing(TryLater("429", retry_after=86_400.0, overload=True)).behave
    desk.put()
    assert desk.run().retry_in == 300


def test_a_mail_that_never_gets_an_answer_is_no_outage(desk: Desk) -> None:
    """A server that fails on this one mail for ever: the others are drafted, and it ends with its reason."""

    def behave(mail: Mail) -> object:
        if mail.email_id == "a-bad":
            raise TryLater("500: internal error", sent=True)
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    desk.put("a-bad")
    for number in range(MAX_TRIES):
        for other in range(3):
            desk.put(f"good{number}{other}")
        desk.run()
        desk.clock.advance(minutes=5)
    assert len(desk.names(PENDING)) == 3 * MAX_TRIES
    assert "gave no answer (500" in desk.fields("Needs_Action/Email/EMAIL_a-bad.md")["reason"]
    assert len(desk.usage_rows()) == 4 * MAX_TRIES  # what was sent may have been paid for


@pytest.mark.parametrize("passes", [MAX_TRIES + 2])
def test_overload_is_never_a_mails_fault(desk: Desk, passes: int) -> None:
    def behave(mail: Mail) -> object:
        if mail.email_id == "a":
            raise TryLater("529: overloaded", overload=True)
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    desk.put("a")
    for number in range(passes):
        desk.put(f"b{number}")
        desk.run()
        desk.clock.advance(minutes=5)
    assert desk.names("Inbox") == ["EMAIL_a.md"]


def test_what_may_have_been_paid_for_counts_against_the_budget(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget_usd_per_day=1.0, draft_concurrency=1)
    desk.drafter.behave = failing(TryLater("timeout", sent=True)).behave
    for number in range(40):
        desk.put(f"m{number}")
    for _ in range(40):
        desk.run()
        desk.clock.advance(seconds=300)
    assert 0 < len(desk.drafter.calls) < 40
    assert "budget" in desk.state.alerts()


def test_a_refusal_of_the_key_is_told_once_and_ends(desk: Desk) -> None:
    desk.drafter.behave = failing(Refused("set a valid CLAUDE_API_KEY")).behave
    for number in range(20):
        desk.put(f"m{number}")
    for _ in range(3):
        report = desk.run()
        assert (report.result, report.refused) == ("failed", True)
    assert len(desk.drafter.calls) <= desk.config.draft_concurrency + 2  # it stops asking, and finds out with one mail
    assert desk.read("Dashboard.md").count("CLAUDE\\_API\\_KEY") == 1
    assert "drafting" in desk.state.alerts()
    desk.drafter.behave = lambda mail: reply()
    assert desk.run().drafted == 20
    assert desk.state.alerts() == {}
    assert "Drafting works again" in desk.read("Dashboard.md")


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    "fault", [Unanswerable("400: no"), ValueError("a fault of the program"), "the model refused to answer this mail"]
)
def test_a_poisonous_mail_ends_with_its_reason_and_holds_up_nothing(
    desk: Desk, fault: Exception | str, restart: bool
) -> None:
    def behave(mail: Mail) -> object:
        if mail.email_id != "bad":
            return reply()
        if isinstance(fault, Exception):
            raise fault
        return fault

    desk.drafter.behave = behave  # type: ignore[assignment]
    desk.put("bad")
    for number in range(MAX_TRIES):
        desk.put(f"good{number}")
        desk.run()
        if restart:
            desk.restart()
    assert desk.fields("Needs_Action/Email/EMAIL_bad.md")["decision"] == "failed"
    assert len(desk.names(PENDING)) == MAX_TRIES
    assert desk.names("Inbox") == []
    desk.run()
    assert len([mail for mail in desk.drafter.calls if mail.email_id == "bad"]) == MAX_TRIES
    if isinstance(fault, str):
        assert len(desk.usage_rows()) == 2 * MAX_TRIES  # what failed was paid for too


def test_a_disk_that_takes_no_answer_does_not_cost_money_for_ever(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_agent.usage.row", fail_with(OSError(28, "No space left on device")))
    desk.put()
    for _ in range(6):
        assert desk.run().result == "later"
    assert len(desk.drafter.calls) == MAX_TRIES
    assert desk.names("Inbox") == [X]


def test_a_file_that_cannot_be_opened_is_told_once_until_it_can(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.put()
    real = Vault.read

    def read(self: Vault, path: str) -> bytes:
        if path == f"Inbox/{X}":
            raise PermissionError(13, "Permission denied", path)
        return real(self, path)

    with monkeypatch.context() as patched:
        patched.setattr(Vault, "read", read)
        desk.run()
        desk.run()
        assert list(desk.state.alerts()) == [f"file Inbox/{X}"]
        assert desk.read("Dashboard.md").count("cannot be opened") == 1
    desk.run()
    assert desk.state.alerts() == {}
    assert desk.names(PENDING) == [DRAFT_X]


def test_a_mail_moved_while_claude_writes_is_left_alone(desk: Desk) -> None:
    def behave(mail: Mail) -> object:
        desk.move(f"Inbox/{X}", "mine.md")
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    desk.put()
    desk.run()
    assert desk.drafts() == []
    assert (desk.vault / "mine.md").exists()
    assert len(desk.usage_rows()) == 1


def test_a_draft_that_arrives_while_claude_writes_is_the_only_one(desk: Desk) -> None:
    def behave(mail: Mail) -> object:
        desk.write("Approved/Email/mine.md", "---\ndraft_id: EMAIL_DRAFT_x\nemail_id: x\n---\nthe owner's\n")
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    desk.put()
    desk.run()
    assert desk.drafts() == []
    assert desk.names("Done/Email") == [X]


def test_a_mail_edited_while_claude_writes_is_asked_for_again(desk: Desk) -> None:
    def behave(mail: Mail) -> object:
        if "old" in mail.body:
            desk.put("x", "new text")
        return reply(f"Answer to: {mail.body}")

    desk.drafter.behave = behave  # type: ignore[assignment]
    desk.put("x", "old text")
    desk.run()
    assert desk.drafts() == []
    desk.run()
    assert "Answer to: new text" in desk.read(f"{PENDING}/{DRAFT_X}")


def test_stopped_in_the_middle(desk: Desk) -> None:
    desk.config = desk.config.__class__(**{**vars(desk.config), "draft_concurrency": 1})
    desk.restart()

    def behave(mail: Mail) -> object:
        desk.stop.set()
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    for number in range(5):
        desk.put(f"m{number}")
    report = desk.run()
    assert report.result == "later"
    assert len(desk.drafter.calls) < 5
    assert len(desk.names("Inbox")) + len(desk.names(PENDING)) == 5


def test_the_budget_is_checked_before_the_call(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget_usd_per_day=0.05)
    for number in range(8):
        desk.put(f"m{number}")
    assert desk.run().result == "later"
    assert desk.drafter.calls == []  # the worst case of one answer is above what is left
    assert "budget" in desk.state.alerts()
    for path in (desk.vault / "Inbox").iterdir():
        path.unlink()
    desk.run()
    assert desk.state.alerts() == {}  # nothing waits for money any more


@pytest.mark.parametrize("limit", ["budget_usd_per_day", "budget_usd_per_week"])
def test_what_was_spent_counts(tmp_path: Path, limit: str) -> None:
    desk = Desk(tmp_path, **{limit: 1.0, "draft_concurrency": 1})
    day = desk.vault / "Logs/API_Usage/2026-02-16.md"
    day.write_text(f"| 11:00:00 | cloud | {MODEL} | 1 | 1 | $0.950000 | email_draft |\n")
    desk.put()
    assert desk.run().result == "later"
    day.write_text("")
    assert desk.run().drafted == 1


def test_a_budget_needs_a_price(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget_usd_per_day=1.0, claude_model="claude-unknown")
    desk.put()
    assert desk.run().refused
    assert desk.drafter.calls == []


def test_deleting_the_state_drafts_nothing_twice(desk: Desk) -> None:
    desk.put()
    desk.run()
    for path in desk.config.state_path.iterdir():
        path.unlink()
    desk.restart()
    before = desk.files()
    desk.run()
    assert desk.files() == before


def test_flags_for_the_owner(desk: Desk) -> None:
    desk.drafter.behave = lambda mail: reply(
        "See https://evil.example/x or mail b@evil.example. Office hours: 9 to 17."
    )
    desk.put("x", reply_to="b@other.org")
    desk.run()
    flags = desk.fields(f"{PENDING}/{DRAFT_X}")["flags"]
    assert "another domain" in flags
    assert "https://evil.example/x" in flags
    assert "b@evil.example" in flags


def test_every_recipient_of_another_domain_is_flagged(desk: Desk) -> None:
    desk.put("x", reply_to="ann@example.org, evil@attacker.example")
    desk.run()
    assert "evil@attacker.example" in desk.fields(f"{PENDING}/{DRAFT_X}")["flags"]


def test_a_mail_that_names_a_draft_id_is_a_mail(desk: Desk) -> None:
    desk.put("x", draft_id="1")
    desk.run()
    assert desk.names(PENDING) == [DRAFT_X]
    desk.run()
    assert len(desk.drafter.calls) == 1


def test_a_mail_that_is_being_written_is_left_alone(desk: Desk) -> None:
    """An editor or a script opens the file, writes, and closes it a moment later."""
    desk.orchestrator.settle_seconds = 0.1
    with desk.write("Inbox/EMAIL_slow.md", "").open("w") as file:
        writing = threading.Timer(0.2, lambda: (file.write(mail_text("slow", "Could you call me?")), file.flush()))
        writing.start()
        desk.run()  # waits for the youngest mail; this one is younger still
        writing.join()
    assert desk.names(PENDING) == []
    desk.run()
    assert desk.names(PENDING) == ["EMAIL_DRAFT_slow.md"]
    assert desk.names("Needs_Action/Email") == []


def test_a_linked_folder_stops_drafting_and_says_so(desk: Desk, tmp_path: Path) -> None:
    """What lies behind it may be drafts that were decided."""
    (desk.vault / "Approved/Email").rmdir()
    (desk.vault / "Approved").rmdir()
    (desk.vault / "Approved").symlink_to(tmp_path)
    desk.put("x")
    assert desk.run().result == "failed"
    assert desk.drafter.calls == []
    assert "vault" in desk.state.alerts()
    assert "symbolic link" in desk.read("Dashboard.md")
    (desk.vault / "Approved").unlink()
    assert desk.run().result == "ok"
    assert desk.state.alerts() == {}


def test_a_broken_dashboard_holds_no_mail_up(desk: Desk) -> None:
    (desk.vault / "Dashboard.md").unlink()
    (desk.vault / "Dashboard.md").mkdir()
    desk.put("x")
    desk.run()
    assert desk.names(PENDING) == [DRAFT_X]
    assert desk.names("Inbox") == []


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of real mail is not on this machine")
def test_no_real_mail_stops_a_pass(desk: Desk) -> None:
    files = sorted(CORPUS.iterdir())
    for number, path in enumerate(files):
        header = f"---\nemail_id: m{number}\nfrom: ann@example.org\nsubject: {path.name}\n---\n\n".encode()
        desk.write(f"Inbox/EMAIL_m{number}.md", header + path.read_bytes())
        desk.write(f"Inbox/EMAIL_bare{number}.md", path.read_bytes())
    report = desk.run()
    assert report.result == "ok"
    assert desk.names("Inbox") == []
    folders = ("In_Progress/cloud", "Needs_Action/Email", "Done/Skipped")
    notes = [name for folder in folders for name in desk.names(folder)]
    assert len(notes) == 2 * len(files)
    for name in desk.names(PENDING):
        fields = desk.fields(f"{PENDING}/{name}")
        assert fields["status"] == "pending"
        if "_bare" not in name:  # a bare message is answered to its own sender
            assert fields["to"] == "ann@example.org"
    before = desk.files()
    desk.run()
    assert desk.files() == before


# -- what is asked, and what becomes of the answer -----------------------------------------------------------------


def test_a_mail_that_arrives_while_a_slow_call_is_in_hand_does_not_wait_for_it(desk: Desk) -> None:
    others_done = threading.Event()

    def behave(mail: Mail) -> object:
        if mail.email_id == "slow":
            for number in range(3):
                desk.put(f"new{number}")
            desk.put("news", precedence="bulk")
            assert others_done.wait(30), "the new mails waited for the slow one"
        elif len(desk.drafter.calls) == 4:
            others_done.set()
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    desk.put("slow")
    assert desk.run().drafted == 4
    assert desk.names("Inbox") == []
    assert desk.names("Done/Skipped") == ["EMAIL_news.md"]


def test_urgent_mails_come_first(tmp_path: Path) -> None:
    desk = Desk(tmp_path, draft_concurrency=1)
    for number in range(4):
        desk.put(f"m{number}", **({"priority": "High"} if number == 2 else {}))
    desk.run()
    assert [mail.email_id for mail in desk.drafter.calls] == ["m2", "m0", "m1", "m3"]


def test_the_thread_so_far_is_given_oldest_first(desk: Desk) -> None:
    desk.put("first", "Can we meet?", message_id="<1@x>", date="2026-02-14")
    desk.run()
    desk.move(f"{PENDING}/EMAIL_DRAFT_first.md", "Approved/Email/EMAIL_DRAFT_first.md")
    desk.put("other", "Another matter.", message_id="<9@x>")
    desk.run()
    desk.put("second", "And when?", message_id="<3@x>", references="<1@x> <2@x>", in_reply_to="<2@x>")
    desk.run()
    assert [task.earlier for task in desk.drafter.tasks[:2]] == [(), ()]
    mail, draft = desk.drafter.tasks[2].earlier
    assert (mail.kind, mail.author, mail.date) == ("mail", "ann@example.org", "2026-02-14")
    assert mail.text.strip() == "Can we meet?"
    assert (draft.kind, draft.text) == ("draft", "Dear Ann,\n\nI will call you.")


@pytest.mark.parametrize(
    "stranger",
    [
        {"from_": "mallory@evil.example"},
        {"reply_to": "mallory@evil.example"},
        {"reply_to": "ann@example.org, mallory@evil.example"},
        {"cc": "mallory@evil.example", "to": "me@home.org"},
    ],
)
def test_nobody_gets_at_a_conversation_by_naming_it(tmp_path: Path, stranger: dict[str, str]) -> None:
    """References are the sender's to write. What he is not to have is not even shown to the model."""
    desk = Desk(tmp_path, owner_addresses=frozenset({"me@home.org"}))
    desk.put("first", "The price is a secret.", message_id="<1@x>")
    desk.run()
    desk.put("second", "What did she write?", message_id="<2@x>", references="<1@x>", **stranger)
    desk.run()
    assert [task.earlier for task in desk.drafter.tasks] == [(), ()]


@pytest.mark.parametrize("field", ["from", "reply_to", "to", "cc"])
def test_who_had_a_message_is_shown_it(field: str) -> None:
    to = Envelope(to="Ann <Ann@example.org>", cc="", subject="", in_reply_to="", references="")
    assert thread.is_shared({"from": "bob@example.org", field: "ann@example.org"}, to)
    assert not thread.is_shared({"from": "bob@example.org", "bcc": "ann@example.org"}, to)


def test_the_same_message_under_another_id_is_not_drafted_again(desk: Desk) -> None:
    desk.put("x", message_id="<1@x>")
    desk.run()
    desk.put("y", message_id="<1@x>")
    desk.put("z", "Another text.", message_id="<1@x>")
    desk.run()
    assert "was taken in before" in desk.fields("Done/Skipped/EMAIL_y.md")["reason"]
    assert [mail.email_id for mail in desk.drafter.calls] == ["x", "z"]


def test_two_copies_of_one_message_at_once_are_drafted_once(desk: Desk) -> None:
    for name in ("x", "y"):
        desk.put(name, message_id="<1@x>")
    desk.run()
    desk.run()
    assert [mail.email_id for mail in desk.drafter.calls] == ["x"]
    assert desk.names("Done/Skipped") == ["EMAIL_y.md"]


def test_what_was_held_back_is_drafted_for_an_owner_who_insists(desk: Desk) -> None:
    desk.drafter.behave = lambda mail: reply("Dear Ann,\n\n```dataviewjs\napp.vault.delete()\n```\n")
    desk.put()
    desk.run()
    assert "held back" in desk.fields(f"Needs_Action/Email/{X}")["reason"]
    desk.move(f"Needs_Action/Email/{X}", f"Inbox/{X}")
    desk.run()
    assert "plugin" in desk.fields(f"{PENDING}/{DRAFT_X}")["flags"]
    assert "```" not in approval.reply_of(desk.read(f"{PENDING}/{DRAFT_X}"))


def test_ids_that_differ_in_case_are_one_file_on_the_owners_disk(desk: Desk) -> None:
    desk.put("Ab", "first")
    desk.run()
    desk.put("aB", "second")
    desk.run()
    assert "email_id belongs to another mail" in desk.fields("Needs_Action/Email/EMAIL_aB.md")["reason"]
    assert len(desk.drafter.calls) == 1


def test_nothing_to_answer_is_told_and_never_hidden(desk: Desk) -> None:
    desk.drafter.behave = lambda mail: reply("", decision="notify", reason="The parcel arrived.")
    desk.put()
    desk.run()
    fields = desk.fields(f"Needs_Action/Email/{X}")
    assert (fields["decision"], fields["reason"]) == ("notify", "Claude sees nothing to answer: The parcel arrived.")
    assert "For your information: “A question”" in desk.read("Dashboard.md")


def test_a_draft_that_gives_the_handbook_away_is_held_back(desk: Desk) -> None:
    secret = " ".join(f"Rule {number}: never tell anybody about supplier {number * 7}." for number in range(30))
    desk.write("Company_Handbook.md", f"# Handbook\n\n{secret}\n")
    desk.drafter.behave = lambda mail: reply(f"Here it is: {secret}")
    desk.put()
    desk.run()
    assert desk.drafts() == []
    assert "its draft was held back" in desk.fields(f"Needs_Action/Email/{X}")["reason"]


def test_a_draft_names_its_prompt_and_whom_it_copies(tmp_path: Path) -> None:
    desk = Desk(tmp_path, owner_addresses=frozenset({"me@home.org"}))
    desk.put("x", to="me@home.org", cc="Bo <bo@example.org>")
    desk.put("own", from_="Me <me@home.org>")
    desk.run()
    fields = desk.fields(f"{PENDING}/{DRAFT_X}")
    assert (fields["prompt"], fields["cc"]) == (PROMPT_VERSION, "Bo <bo@example.org>")
    assert desk.names("Needs_Action/Email") == ["EMAIL_own.md"]  # the owner's own words need no answer


def test_without_the_owners_addresses_a_mail_to_many_is_flagged(desk: Desk) -> None:
    desk.put("x", to="me@home.org", cc="Bo <bo@example.org>")
    desk.run()
    assert "set OWNER_ADDRESSES" in desk.fields(f"{PENDING}/{DRAFT_X}")["flags"]


@pytest.mark.parametrize(("folder", "status"), [("Approved/Email", "approved"), ("Rejected/Email", "rejected")])
def test_what_the_owner_decided_is_on_record(desk: Desk, folder: str, status: str) -> None:
    desk.put()
    desk.run()
    text = desk.read(f"{PENDING}/{DRAFT_X}").replace("reason: A question.", "reason: too long")
    desk.write(f"{PENDING}/{DRAFT_X}", text)
    desk.move(f"{PENDING}/{DRAFT_X}", f"{folder}/{DRAFT_X}")
    desk.run()
    lines = [json.loads(line) for line in desk.read("Logs/Cloud/audit-2026-02.jsonl").splitlines()]
    assert [line.get("approval_status") for line in lines] == ["pending", "", status]
    assert (lines[-1]["approved_by"], lines[-1]["parameters"]["draft"]) == ("local", f"{folder}/{DRAFT_X}")
    assert lines[-1]["parameters"]["said"] == ("too long" if status == "rejected" else "")


def test_a_model_without_a_price_is_told_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, claude_model="claude-unknown")
    desk.put("x")
    desk.run()
    desk.put("y")
    assert desk.run().drafted == 1
    assert "price" in desk.state.alerts()
    assert desk.read("Dashboard.md").count("has no known price") == 1


def test_what_was_spent_stands_on_the_dashboard(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget_usd_per_day=2.0)
    desk.put()
    desk.run()
    updates = desk.read("Dashboard.md").split("## Updates")[1]
    assert "$0.0040 today" in updates
    desk.clock.advance(days=1)
    desk.run()
    updates = desk.read("Dashboard.md").split("## Updates")[1]
    assert "$0.00 today" in updates
    assert updates.count("today") == 1


# -- what goes wrong between two steps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["an identical copy", "a mailing"])
def test_a_mail_written_over_before_it_is_moved_stays(desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """It was decided about what stood there before."""
    if what == "a mailing":
        desk.put("x", precedence="bulk")
    else:
        desk.put("x")
        desk.run()
        desk.put("x")
    real = Orchestrator._carry_out

    def carry_out(self: Orchestrator, *arguments: Any) -> None:
        desk.write(f"Inbox/{X}", mail_text("y", "Another mail"))
        real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Orchestrator, "_carry_out", carry_out)
        assert desk.run().result == "later"
    assert "Another mail" in desk.read(f"Inbox/{X}")
    desk.run()
    assert "EMAIL_DRAFT_y.md" in desk.names(PENDING)


def test_what_a_kill_left_behind_does_not_hold_up_another_mail_of_the_id(desk: Desk) -> None:
    desk.put("x")
    desk.run()
    desk.write("Done/Email/EMAIL_x.md", desk.read(f"In_Progress/cloud/{X}"))  # moved there, and not yet removed here
    desk.move(f"{PENDING}/{DRAFT_X}", f"Approved/Email/{DRAFT_X}")
    desk.write("Inbox/EMAIL_other.md", mail_text("x", "Another mail"))
    assert desk.run().result == "ok"
    assert desk.names("Inbox") == []


def test_a_failure_is_no_reason_to_move_another_mail(desk: Desk) -> None:
    def behave(mail: Mail) -> object:
        if len(desk.drafter.calls) == MAX_TRIES:
            desk.write(f"Inbox/{X}", mail_text("y", "Another mail"))
        raise Unanswerable("400: no")

    desk.drafter.behave = behave  # type: ignore[assignment]
    desk.put("x")
    for _ in range(MAX_TRIES):
        desk.run()
    assert desk.names("Inbox") == [X]
    assert desk.names("Needs_Action/Email") == []


def test_a_mail_whose_draft_came_meanwhile_has_not_failed(desk: Desk) -> None:
    def behave(mail: Mail) -> object:
        if len(desk.drafter.calls) == MAX_TRIES:
            desk.write("Approved/Email/mine.md", "---\ndraft_id: EMAIL_DRAFT_x\nemail_id: x\n---\nthe owner's\n")
        raise Unanswerable("400: no")

    desk.drafter.behave = behave  # type: ignore[assignment]
    desk.put("x")
    for _ in range(MAX_TRIES):
        desk.run()
    assert desk.names("Done/Email") == [X]


@pytest.mark.parametrize("step", ["_earlier", "_screen"])
def test_a_fault_of_the_program_about_one_mail_holds_up_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = getattr(Orchestrator, step)

    def broken(self: Orchestrator, about: Any, *more: Any) -> object:
        if (about if isinstance(about, Mail) else about.mail).email_id == "bad":
            raise RecursionError("maximum recursion depth exceeded")
        return real(self, about, *more)

    monkeypatch.setattr(Orchestrator, step, broken)
    desk.put("bad")
    desk.put("good")
    for _ in range(MAX_TRIES):
        desk.run()
    assert desk.names(PENDING) == ["EMAIL_DRAFT_good.md"]
    assert "RecursionError" in desk.fields("Needs_Action/Email/EMAIL_bad.md")["reason"]
    assert len(desk.usage_rows()) == len(desk.drafter.calls)  # what was answered was paid for


def test_what_cannot_be_read_in_the_middle_loses_no_answer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Vault.names

    def names(self: Vault, folder: str) -> list[str]:
        if folder == "Inbox" and desk.drafter.calls:
            raise PermissionError(13, "Permission denied", folder)
        return real(self, folder)

    def behave(mail: Mail) -> object:
        time.sleep(0.1)
        if mail.email_id == "b":
            raise Refused("set a valid CLAUDE_API_KEY")
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    for email_id in "abc":
        desk.put(email_id)
    with monkeypatch.context() as patched:
        patched.setattr(Vault, "names", names)
        patched.setattr(desk.state, "raise_alert", fail_with(OSError(28, "No space left on device")))
        desk.run()
    assert desk.names(PENDING) == ["EMAIL_DRAFT_a.md", "EMAIL_DRAFT_c.md"]
    assert len(desk.usage_rows()) == 2


def test_a_draft_is_taken_up_without_a_dashboard(desk: Desk) -> None:
    desk.write(f"{PENDING}/{DRAFT_X}", "---\ndraft_id: EMAIL_DRAFT_x\nemail_id: x\n---\nDear Ann\n")
    desk.put("x")
    (desk.vault / "Dashboard.md").unlink()
    (desk.vault / "Dashboard.md").mkdir()
    assert desk.run().result == "ok"
    assert desk.names("In_Progress/cloud") == [X]


@pytest.mark.parametrize("path", ["Company_Handbook.md", "Logs/API_Usage/2026-02-16.md", "Inbox"])
def test_what_drafting_cannot_do_without_stops_it_and_is_told_once(desk: Desk, path: str) -> None:
    """A handbook that cannot be read, a price that cannot be written down, an inbox that leads elsewhere."""
    desk.put("x")
    real, aside = desk.vault / path, desk.root / "aside"
    if real.exists():
        real.rename(aside)
    real.symlink_to(aside)
    for _ in range(2):
        assert desk.run().result == "failed"
    assert desk.drafter.calls == []
    assert len(desk.state.alerts()) == 1
    assert desk.read("Dashboard.md").count("this user may read") == 1
    real.unlink()
    if aside.exists():
        aside.rename(real)
    assert desk.run().drafted == 1
    assert desk.state.alerts() == {}


def is_held(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_whatever_is_written_is_written_under_the_lock(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other loop commits and merges at any time that it is free; it is free while Claude writes."""
    unlocked = []
    for guard in ("_writable", "_removable"):
        real = getattr(Vault, guard)

        def guarded(self: Vault, path: str, real: Callable[..., Path] = real) -> Path:
            if not is_held(desk.state.tree_lock):
                unlocked.append(path)
            return real(self, path)

        monkeypatch.setattr(Vault, guard, guarded)
    held = []

    def behave(mail: Mail) -> object:
        held.append(is_held(desk.state.process_lock("draft")))
        if mail.email_id == "a":
            desk.put("meanwhile", precedence="bulk")
            deadline = time.monotonic() + 10
            while desk.names("Done/Skipped") == [] and time.monotonic() < deadline:
                time.sleep(0.01)  # it could not be filed if a call held the lock
        if mail.email_id == "b":
            raise TryLater("500", sent=True)
        if mail.email_id == "c":
            raise Unanswerable("400: no")
        if mail.email_id == "e":
            raise Refused("set a valid CLAUDE_API_KEY")
        return "cut off" if mail.email_id == "d" else reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    for email_id in "abcde":
        desk.put(email_id)
    desk.write("Inbox/EMAIL_binary.md", b"\0")
    desk.put("skip", precedence="bulk")
    for _ in range(MAX_TRIES):
        desk.run()
    desk.move(f"{PENDING}/EMAIL_DRAFT_a.md", "Approved/Email/EMAIL_DRAFT_a.md")
    desk.run()
    assert desk.names("Done/Skipped") == ["EMAIL_meanwhile.md", "EMAIL_skip.md"]
    assert desk.names("Done/Email") == ["EMAIL_a.md"]
    assert unlocked == []
    assert all(held)


# -- a rate limit is no outage -----------------------------------------------------------------------------------------


def test_a_rate_limit_pauses_as_long_as_it_asks_for(tmp_path: Path) -> None:
    desk = Desk(tmp_path, draft_concurrency=1)

    def behave(mail: Mail) -> object:
        if len(desk.drafter.calls) % 3 == 0:
            raise TryLater("429: rate limit", retry_after=20, overload=True)
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    for number in range(20):
        desk.put(f"m{number:02}")
    for _ in range(9):
        assert desk.run().retry_in == 20
        desk.clock.advance(seconds=20)
    assert "not answered for a while" not in desk.read("Dashboard.md")


def test_calls_that_are_answered_after_it_end_no_rate_limit(desk: Desk) -> None:
    limited = threading.Event()

    def behave(mail: Mail) -> object:
        if mail.email_id == "1":
            limited.set()
            raise TryLater("429: rate limit", retry_after=20, overload=True)
        if mail.email_id != "0":
            assert limited.wait(5)
            time.sleep(0.1)
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    for number in range(9):
        desk.put(str(number))
    assert desk.run().retry_in == 20
    assert len(desk.names("Inbox")) >= 4


# -- money -------------------------------------------------------------------------------------------------------------


def test_what_calls_in_hand_have_reserved_is_not_spent(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget_usd_per_day=0.5, draft_concurrency=8)

    def behave(mail: Mail) -> object:
        time.sleep(0.02)
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    for number in range(20):
        desk.put(f"m{number:02}")
    assert desk.run().drafted == 20
    assert desk.state.alerts() == {}


def test_a_mail_that_is_too_dear_holds_up_no_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget_usd_per_day=0.2)
    desk.put("a-long", "wörd " * 20_000)
    for email_id in "bc":
        desk.put(email_id)
        assert desk.run().result == "later"
        assert desk.names("Inbox") == ["EMAIL_a-long.md"]
    assert "budget" in desk.state.alerts()
    assert desk.read("Dashboard.md").count("budget is reached") == 1
    assert "works again" not in desk.read("Dashboard.md")


def test_an_answer_without_a_price_counts_at_its_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway answers with another model than was asked for."""
    desk = Desk(tmp_path, budget_usd_per_day=0.5, draft_concurrency=1)

    def draft(task: Task) -> Answer:
        desk.drafter.calls.append(task.mail)
        return Answer("somebodys-model", Usage(input=1000, output=200), reply())

    monkeypatch.setattr(desk.drafter, "draft", draft)
    for number in range(10):
        desk.put(f"m{number}")
    desk.run()
    once = len(desk.drafter.calls)
    assert 0 < once < 10
    desk.run()
    assert len(desk.drafter.calls) == once
    assert "unpriced, at most $" in desk.usage_rows()[0]


def test_a_call_that_a_fault_of_the_program_ended_may_have_been_paid_for(desk: Desk) -> None:
    desk.drafter.behave = fail_with(ValueError("a fault of the program"))
    desk.put()
    desk.run()
    assert "unknown, at most $" in desk.usage_rows()[0]


def test_a_call_that_a_stop_left_behind_may_have_been_paid_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def behave(mail: Mail) -> object:
        desk.stop.set()
        answer.wait(5)
        return reply()

    desk.drafter.behave = behave  # type: ignore[assignment]
    real = Calls.close
    monkeypatch.setattr(Calls, "close", lambda self, seconds: real(self, 0.05))
    desk.put()
    desk.run()
    answer.set()
    assert "unknown, at most $" in desk.usage_rows()[0]
    assert desk.names("Inbox") == [X]


def test_a_model_with_a_price_ends_the_alert(tmp_path: Path) -> None:
    desk = Desk(tmp_path, claude_model="claude-unknown")
    desk.put()
    desk.run()
    assert "price" in desk.state.alerts()
    desk.config = replace(desk.config, claude_model=MODEL)
    desk.restart()
    desk.run()
    assert desk.state.alerts() == {}


def test_no_more_is_spent_than_can_be_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the file is there, and takes no row."""
    desk = Desk(tmp_path, draft_concurrency=1)
    for number in range(5):
        desk.put(f"m{number}")
    monkeypatch.setattr("cloud_agent.usage.row", fail_with(OSError(28, "No space left on device")))
    assert desk.run().result == "later"
    assert len(desk.drafter.calls) <= 2  # the next one is begun while an answer is written down
