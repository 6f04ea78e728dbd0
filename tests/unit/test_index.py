"""The index follows the disk, and finds what belongs together."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from cloud_agent import frontmatter, index
from cloud_agent.index import Index, Note
from cloud_agent.mail import Mail, decode, parse, read_note
from cloud_agent.vault import ForbiddenPath, Vault
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.helpers import mail_text


class Notes:
    """A vault of notes; `index` is kept, `fresh` reads all of it anew."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.vault = Vault(root)
        self.index = Index(self.vault)

    def write(self, path: str, text: str) -> None:
        """Written beside and renamed: what is written in place is read when its folder changes."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        (self.root / "beside").write_text(text)
        (self.root / "beside").rename(file)

    def mail(self, path: str, email_id: str, body: str = "x", **fields: str) -> Mail:
        self.write(path, text := mail_text(email_id, body, **fields))
        return parse(path.rpartition("/")[2], text.encode())

    def draft(self, path: str, email_id: str, **fields: str) -> None:
        self.write(
            path, frontmatter.dump({"draft_id": f"EMAIL_DRAFT_{email_id}", "email_id": email_id, **fields}, "Hi")
        )

    def refreshed(self) -> Index:
        self.index.refresh()
        return self.index

    def fresh(self) -> Index:
        made = Index(self.vault)
        made.refresh()
        return made


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


def age(root: Path) -> None:
    """Set all times back, so that folders count as settled."""
    for path in (root, *root.rglob("*")):
        then = path.stat().st_mtime - 10
        os.utime(path, (then, then))


# -- what is read ------------------------------------------------------------------------------------------------------


def test_a_pass_where_nothing_changed_lists_no_folder_and_reads_no_file(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        notes.mail(f"Done/Email/EMAIL_{number}.md", str(number))
    age(notes.root)
    assert len(notes.refreshed().mails_in("Done/Email")) == 20
    read: list[str] = []
    listed: list[object] = []
    real_read, real_scan = Vault.read, os.scandir
    monkeypatch.setattr(Vault, "read", lambda self, path: read.append(path) or real_read(self, path))
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or real_scan(path))
    assert len(notes.refreshed().mails_in("Done/Email")) == 20
    assert (read, listed) == ([], [])
    notes.mail("Done/Email/EMAIL_new.md", "new")
    assert len(notes.refreshed().mails_in("Done/Email")) == 21
    assert read == ["Done/Email/EMAIL_new.md"]
    (notes.root / "Done/Email/EMAIL_3.md").unlink()
    assert notes.refreshed().mails_of("3") == []
    assert read == ["Done/Email/EMAIL_new.md"]


def test_a_note_takes_few_bytes(notes: Notes) -> None:
    import tracemalloc

    for number in range(2000):
        fields = {"message_id": f"<{number}@x.org>", "references": f"<{number - 1}@x.org>"}
        notes.mail(f"Done/Email/EMAIL_m{number:05}.md", f"m{number:05}", **fields)
    notes.refreshed()
    made = Index(notes.vault)
    tracemalloc.start()
    try:
        made.refresh()
        assert tracemalloc.get_traced_memory()[0] / 2000 < 250
    finally:
        tracemalloc.stop()


def test_a_file_that_goes_away_while_it_is_listed_hides_no_other(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        notes.draft(f"Approved/Email/EMAIL_DRAFT_{number}.md", str(number))
    real = os.scandir

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.entry = entry
            self.name = entry.name

        def __getattr__(self, name: str) -> object:
            return getattr(self.entry, name)

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            if self.name == "EMAIL_DRAFT_1.md":
                raise FileNotFoundError(2, "gone", self.name)
            return self.entry.stat(follow_symlinks=follow_symlinks)

    class Entries:
        def __init__(self, path: object) -> None:
            self.entries = real(path)  # type: ignore[call-overload]

        def __enter__(self) -> object:
            return (Entry(entry) for entry in self.entries)

        def __exit__(self, *_: object) -> None:
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Entries)
    assert [notes.refreshed().draft_state(str(number)) for number in range(3)] == ["decided", None, "decided"]


def test_a_copy_that_is_read_while_it_is_written_is_read_again(notes: Notes) -> None:
    """By a program of the owner's, in the folder itself: the folder's time is that of its first byte."""
    notes.draft("mine.md", "x")
    whole = (notes.root / "mine.md").read_text()
    copy = notes.root / "Approved/Email/mine.md"
    copy.parent.mkdir(parents=True)
    with copy.open("w") as file:
        folder_then = copy.parent.stat().st_mtime - 1
        os.utime(copy.parent, (folder_then, folder_then))
        assert notes.refreshed().draft_state("x") is None
        file.write(whole)
    assert notes.refreshed().draft_state("x") == "decided"


def test_after_a_failure_all_is_read_anew(notes: Notes) -> None:
    notes.draft("Approved/Email/EMAIL_DRAFT_x.md", "x")
    assert notes.refreshed().draft_state("x") == "decided"
    (notes.root / "Done").symlink_to(notes.root / "elsewhere")
    with pytest.raises(ForbiddenPath):
        notes.index.refresh()
    (notes.root / "Done").unlink()
    assert notes.refreshed().draft_state("x") == "decided"


FRAGMENTS = """---|...|--- |----|\u00a0|email_id: x|from: a|subject: "q\\u00e9 \\"x"|Message-ID: <a@b>
references:|- <c@d>|text|  more|in_reply_to: |# x|subject: 'a''b'|kept: "plain"|date: '\x07'|\x0b|received: >"""
LINES = st.sampled_from([*FRAGMENTS.replace("\n", "|").split("|"), "in_reply_to: |", ""])
NOTES = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\n", "\r\n", "\r", ""])).map("".join), max_size=14)


@given(NOTES, st.sampled_from(["", "\ufeff", "\n", "---\n"]))
def test_the_header_alone_says_the_same_as_the_whole_note(lines: list[str], start: str) -> None:
    raw = (start + "".join(lines)).encode()
    fields, _ = read_note(raw)
    assert index._header(raw) == {name: value for name, value in fields.items() if name in index._FIELDS}


@given(st.text("ab'\"\\ \t\u00e9\u00a0\u2028\ufeff\x07#:-", max_size=8), st.sampled_from("'\""))
def test_a_quoted_value_is_read_as_yaml_reads_it(text: str, quote: str) -> None:
    import yaml

    quoted = f"{quote}{text}{quote}"
    try:
        value = yaml.load(quoted, Loader=yaml.BaseLoader)  # noqa: S506
    except yaml.YAMLError:
        value = quoted
    assert frontmatter._unquote(quoted) == (value if isinstance(value, str) else quoted)


# -- what is found -----------------------------------------------------------------------------------------------------


def test_ids_that_differ_in_case_only_are_one(notes: Notes) -> None:
    """They are one file name on the owner's Mac or Windows disk."""
    notes.mail("In_Progress/cloud/EMAIL_abc.md", "abc", drafted_as="EMAIL_DRAFT_abc")
    notes.draft("Approved/Email/EMAIL_DRAFT_abc.md", "abc")
    found = notes.refreshed()
    assert [note.path for note in found.mails_of("ABC")] == ["In_Progress/cloud/EMAIL_abc.md"]
    assert found.holder("Abc") == Note("In_Progress/cloud/EMAIL_abc.md", "abc", "mail", True)
    assert (found.draft_state("abc"), found.draft_state("ABC")) == ("decided", None)


def test_a_thread_is_what_names_the_same_messages_oldest_first(notes: Notes) -> None:
    notes.mail("Done/Email/EMAIL_1.md", "1", message_id="<1@x>", received="2026-02-01T10:00:00Z")
    notes.draft("Approved/Email/mine.md", "1", in_reply_to="<1@x>", references="<1@x>", created="2026-02-01T11:00:00Z")
    notes.mail(
        "Done/Email/EMAIL_2.md",
        "2",
        message_id="<2@x>",
        in_reply_to="<sent@owner>",
        references="<1@x> <sent@owner>",
        date="Mon, 2 Feb 2026 11:00:00 +0100",
    )
    notes.draft("Rejected/a/b/EMAIL_DRAFT_2.md", "2", created="2026-02-02T12:00:00Z")  # an old one: it names none
    notes.mail(
        "Done/Skipped/EMAIL_9.md", "9", message_id="<9@x>", subject="A question", received="2026-02-01T10:00:00Z"
    )
    three = notes.mail("In_Progress/cloud/EMAIL_3.md", "3", message_id="<3@x>", references="<1@x> <2@x>")
    # an answer to it that came before it
    notes.mail("Needs_Action/Email/EMAIL_4.md", "4", message_id="<4@x>", in_reply_to="<3@x>", received="2026-02-04")
    assert notes.refreshed().thread(three) == [
        "Done/Email/EMAIL_1.md",
        "Approved/Email/mine.md",
        "Done/Email/EMAIL_2.md",
        "Rejected/a/b/EMAIL_DRAFT_2.md",
        "Needs_Action/Email/EMAIL_4.md",
    ]
    assert notes.index.thread(notes.mail("Inbox/EMAIL_5.md", "5", message_id="<5@x>", references="<1@x> <0@y>")) != []
    assert notes.index.thread(notes.mail("Inbox/EMAIL_6.md", "6", message_id="<6@x>")) == []
    assert notes.index.thread(notes.mail("Inbox/EMAIL_7.md", "7")) == []
    (notes.root / "Done/Email/EMAIL_2.md").rename(notes.root / "away.md")
    assert "Done/Email/EMAIL_2.md" not in notes.refreshed().thread(three)


def test_the_same_message_under_another_id(notes: Notes) -> None:
    notes.mail("Done/Email/EMAIL_a.md", "a", "Hello", message_id="<1@x>", drafted_as="EMAIL_DRAFT_a")
    notes.mail("Done/Email/EMAIL_b.md", "b", "Hello", references="<1@x>")
    again = notes.mail("Inbox/EMAIL_c.md", "c", "Hello", message_id="<1@x>")
    found = notes.refreshed().same_message(again)
    assert found is not None
    assert found.path == "Done/Email/EMAIL_a.md"
    for other in (
        notes.mail("Inbox/EMAIL_d.md", "d", "Other words", message_id="<1@x>"),
        notes.mail("Inbox/EMAIL_e.md", "e", "Hello", message_id="<2@x>"),
        notes.mail("Inbox/EMAIL_f.md", "f", "Hello"),
        notes.mail("Inbox/EMAIL_A.md", "A", "Hello", message_id="<1@x>"),  # `mails_of` finds that one
    ):
        assert notes.index.same_message(other) is None
    (notes.root / "Done/Email/EMAIL_a.md").write_text("gone meanwhile")
    assert notes.index.same_message(again) is None


def test_claims_of_others(notes: Notes) -> None:
    notes.mail("In_Progress/other/EMAIL_a.md", "a")
    notes.mail("In_Progress/other/EMAIL_b.md", "b", drafted_as="EMAIL_DRAFT_b")
    notes.mail("In_Progress/other/EMAIL_c.md", "c")
    notes.draft("Pending_Approval/Email/EMAIL_DRAFT_c.md", "c")
    notes.draft("In_Progress/other/EMAIL_DRAFT_a.md", "a")  # says nothing: it is theirs
    notes.mail("In_Progress/local/EMAIL_d.md", "d")
    notes.mail("In_Progress/cloud/EMAIL_e.md", "e")
    assert [note.path for note in notes.refreshed().claims_of_others()] == ["In_Progress/other/EMAIL_a.md"]


# -- any sequence ------------------------------------------------------------------------------------------------------

FOLDERS = [
    "Pending_Approval/Email",
    "Approved/Email/sub",
    "Rejected",
    "Done/Email",
    "In_Progress/cloud",
    "In_Progress/b",
]
PATHS = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(["EMAIL_a.md", "EMAIL_B.md", "EMAIL_DRAFT_a.md", "n.md"]))
IDS = st.sampled_from(["a", "A", "b", "B", "x/y"])


def told(found: Index) -> object:
    """Everything that an index says."""
    ids = ["a", "A", "b", "B", "x-y-", *{note.slug for group in FOLDERS for note in found.mails_in(group)}]
    probes = [Mail("none", {"message_id": f"<{one}@x>", "references": f"<{one}@y>"}, "") for one in ("a", "b", "x/y")]
    return (
        {one: (found.draft_state(one), found.mails_of(one), found.holder(one)) for one in ids},
        {folder: found.mails_in(folder) for folder in FOLDERS},
        found.claims_of_others(),
        [found.thread(mail) for mail in probes],
    )


class Life(RuleBasedStateMachine):
    """Files and folders come, change and go: the index that was kept says what a new one says."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.notes = Notes(self.folder)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(path=PATHS, email_id=IDS, draft=st.booleans(), drafted=st.booleans())
    def a_note_is_written(self, path: tuple[str, str], email_id: str, draft: bool, drafted: bool) -> None:
        target = "/".join(path)
        if draft:
            self.notes.draft(target, email_id, in_reply_to=f"<{email_id}@x>", references=f"<a@y> <{email_id}@x>")
        else:
            more = {"drafted_as": "d"} if drafted else {}
            fields = {"message_id": f"<{email_id}@x>", "references": "<b@y> <a@x>", "received": "2026-02-01T10:00:00Z"}
            self.notes.mail(target, email_id, **fields, **more)

    @rule(path=PATHS, content=st.sampled_from(["", "\0", "---\nkept: x\n---\n\nx", "no header"]))
    def something_else_is_written(self, path: tuple[str, str], content: str) -> None:
        self.notes.write("/".join(path), content)

    @rule(one=PATHS, other=PATHS)
    def a_note_is_moved(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        source, target = (self.folder.joinpath(*path) for path in (one, other))
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)

    @rule(
        one=PATHS,
        other=PATHS.filter(lambda path: path[0] in ("Done/Email", "In_Progress/cloud")),
        drafted=st.booleans(),
    )
    def cloud_moves_a_mail(self, one: tuple[str, str], other: tuple[str, str], drafted: bool) -> None:
        """As a pass does it: the index is told, and is right before the next refresh."""
        source, target = self.folder.joinpath(*one), self.folder.joinpath(*other)
        mails = [note for note in self.notes.index.mails_in(one[0]) if note.path == "/".join(one)]
        if not mails or (target.exists() and target != source):
            return
        mail = parse(source.name, source.read_bytes())
        if not mail.fields.get("email_id"):
            return  # its id would change with its name
        text = decode(source.read_bytes())
        if drafted and "drafted_as" not in text:
            text = frontmatter.annotate(text, {"drafted_as": "d"})
        drafted = "drafted_as" in text
        source.unlink()
        self.notes.write("/".join(other), text)
        self.notes.index.moved("/".join(one), "/".join(other), mail, drafted=drafted)
        if not target.name.startswith("EMAIL_DRAFT_"):
            assert told(self.notes.index) == told(self.notes.fresh())

    @rule(path=PATHS)
    def a_note_is_deleted(self, path: tuple[str, str]) -> None:
        self.folder.joinpath(*path).unlink(missing_ok=True)

    @rule(folder=st.sampled_from([*FOLDERS, "Done", "In_Progress", "Approved"]))
    def a_folder_goes(self, folder: str) -> None:
        shutil.rmtree(self.folder / folder, ignore_errors=True)

    @rule()
    def time_passes(self) -> None:
        age(self.folder)

    @invariant()
    def it_says_what_a_new_one_says(self) -> None:
        if hasattr(self, "notes"):
            assert told(self.notes.refreshed()) == told(self.notes.fresh())


Life.TestCase.settings = settings(
    max_examples=50, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLife = Life.TestCase
