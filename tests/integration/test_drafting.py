"""Passes over a vault, with a drafter without a model and a clock that stands still."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from cloud_agent import approval
from cloud_agent.claude import Refused, TryLater, Unanswerable
from cloud_agent.drafting import MAX_TRIES
from cloud_agent.mail import Mail
from cloud_agent.vault import PENDING, Vault

from tests.helpers import DASHBOARD, HANDBOOK, MODEL, Desk, FakeDrafter, mail_text, reply

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "mail"
X, DRAFT_X = "EMAIL_x.md", "EMAIL_DRAFT_x.md"


def audit(desk: Desk) -> list[str]:
    lines = (desk.vault / "Logs/Cloud/audit-2026-02.jsonl").read_text().splitlines()
    return [json.loads(line)["action_type"] for line in lines]


def test_a_mail_becomes_a_draft(desk: Desk) -> None:
    desk.put("x", "The whole body.\n" * 100)
    report = desk.run()
    assert (report.result, report.drafted) == ("ok", 1)
    assert desk.drafter.calls[0].body.strip() == ("The whole body.\n" * 100).strip()
    assert desk.drafter.handbooks == [HANDBOOK]
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
    assert changed.startswith(b"# caf\xe9\r\n\r\n## Updates\r\n\r\n- ")
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
    for _ in range(5):
        assert desk.run().result == "later"
    assert desk.names("Inbox") == [X]
    assert desk.drafts() == []
    desk.drafter.behave = lambda mail: reply()
    assert desk.run().result == "ok"
    assert desk.names(PENDING) == [DRAFT_X]


def test_a_refusal_of_the_key_is_told_once_and_ends(desk: Desk) -> None:
    desk.drafter.behave = failing(Refused("set a valid CLAUDE_API_KEY")).behave
    for number in range(20):
        desk.put(f"m{number}")
    for _ in range(3):
        report = desk.run()
        assert (report.result, report.refused) == ("failed", True)
    assert len(desk.drafter.calls) < 20  # it stops asking
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


def test_a_disk_that_takes_no_answer_does_not_cost_money_for_ever(desk: Desk) -> None:
    (desk.vault / "Logs/API_Usage").rmdir()
    (desk.vault / "Logs/API_Usage").symlink_to(desk.root)
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
    desk.orchestrator.settle_seconds = 0.8
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
        assert (fields["status"], fields["to"]) == ("pending", "ann@example.org")
    before = desk.files()
    desk.run()
    assert desk.files() == before
