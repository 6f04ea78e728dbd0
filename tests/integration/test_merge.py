"""The table over merge.py, row by row, on real repositories: commits in, changes out, nothing on disk touched."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

import pytest
from cloud_agent import audit, dashboard
from cloud_agent.git import Git, GitError
from cloud_agent.merge import MAX_COPIES, changes, conflict_name, join, plain
from cloud_agent.vault import Vault
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from tests import gitkit

DASHBOARD = "# Dashboard\n\n{mine}\n\n## Updates\n\n{updates}\n\n## Links\n\n{links}\n"
LINES = "one\ntwo\nthree\nfour\nfive\n"
FIRST, LAST = LINES.replace("one", "ONE"), LINES.replace("five", "FIVE")
BOTH = FIRST.replace("five", "FIVE")
CLASH = {"ours": LINES.replace("two", "ours"), "theirs": LINES.replace("two", "theirs")}
INSIDE = "inside\n"


class Link(str):
    """The target of a symbolic link."""


class Program(str):
    """The content of an executable file."""


class Repository(str):
    """The commit of a nested repository."""


MODES: dict[type, str] = {Link: "120000", Program: "100755", Repository: "160000"}
Files = Mapping[str, str | bytes]


class Three:
    """Base, ours and theirs of one repository."""

    def __init__(self, folder: Path, agent: str = "cloud") -> None:
        self.folder = folder
        self.git = Git(folder, agent)
        self.copies: tuple[tuple[str, str], ...] = ()

    def commit(self, files: Files, *parents: str | None) -> str:
        """A commit of just these files, made beside the working tree."""
        stream = b"commit refs/made\nmark :1\ncommitter A <a@example.org> 0 +0000\ndata 0\n"
        given_parents = [parent for parent in parents if parent]
        if not given_parents:
            stream = b"reset refs/made\n\n" + stream
        for word, parent in zip(["from", "merge"], given_parents, strict=False):
            stream += f"{word} {parent}\n".encode()
        stream += b"deleteall\n"
        for path, content in files.items():
            data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
            name = path.encode("utf-8", "surrogateescape")
            for char, quoted in ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n")):
                name = name.replace(char, quoted)
            mode = MODES.get(type(content), "100644").encode()
            if isinstance(content, Repository):
                stream += b'M %s %s "%s"\n' % (mode, data, name)
            else:
                stream += b'M %s inline "%s"\ndata %d\n%s\n' % (mode, name, len(data), data)
        return self.raw("fast-import", "--quiet", "--force", stdin=stream + b"\nget-mark :1\n").decode().strip()

    def raw(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, env=gitkit.PERSON, check=True, input=stdin, stdout=subprocess.PIPE
        ).stdout

    def entries(self, commit: str) -> dict[str, tuple[str, str]]:
        """Path -> (mode, object) of a commit."""
        out = self.raw("ls-tree", "-r", "-z", commit).decode("utf-8", "surrogateescape")
        split = (entry.partition("\t") for entry in out.split("\0") if entry)
        return {path: (meta.split(" ")[0], meta.split(" ")[2]) for meta, _, path in split}

    def contents(self, entries: Mapping[str, tuple[str, str]]) -> dict[str, str]:
        found: dict[str, str] = {}
        oids = "".join(f"{oid}\n" for mode, oid in entries.values() if mode != "160000")
        out, position = self.raw("cat-file", "--batch", stdin=oids.encode()), 0
        for path, (mode, oid) in entries.items():
            if mode == "160000":
                found[path] = Repository(oid)
                continue
            start = out.index(b"\n", position) + 1
            position = start + int(out[position:start].split(b" ")[2])
            text = out[start:position].decode("utf-8", "surrogateescape")
            kind = next((kind for kind, its_mode in MODES.items() if its_mode == mode), str)
            found[path] = kind(text)
            position += 1
        return found

    def join(self, base: str | None, ours: str, theirs: str, agent: str | None = None) -> dict[str, str]:
        """The joined tree, after the checks that hold for every join."""
        git = self.git if agent is None else Git(self.folder, agent)
        joined = join(git, base, ours, theirs)
        self.copies = joined.copies
        entries = self.entries(ours)
        deletions_done = False
        for path, blob in joined.changes.items():
            if blob is None:
                assert not deletions_done, "a deletion after an addition: a file could not become a folder"
                del entries[path]  # fails where there is nothing to delete
            else:
                deletions_done = True
                assert entries.get(path) != (blob.mode, blob.oid), f"{path} does not change"
                entries[path] = blob.mode, blob.oid
        assert [path.name for path in self.folder.iterdir()] == [".git"], "the working tree was touched"
        for path in entries:
            folder = path.rpartition("/")[0]
            while folder:
                assert folder not in entries, f"{folder} is a file and a folder"
                folder = folder.rpartition("/")[0]
        assert {copy for _, copy in joined.copies} <= set(entries)
        return self.contents(entries)

    def merge(self, base: Files | None, ours: Files, theirs: Files) -> dict[str, str]:
        root = self.commit(base) if base is not None else None
        return self.join(root, self.commit(ours, root), self.commit(theirs, root))

    def copy(self, path: str, content: str | bytes, agent: str = "cloud") -> str:
        data = content if isinstance(content, bytes) else content.encode()
        return conflict_name(path, agent, self.raw("hash-object", "--stdin", stdin=data).decode().strip())


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: what is committed for one does not disturb another."""
    folder = tmp_path_factory.mktemp("merge") / "repository"
    folder.mkdir()
    gitkit.git(folder, "init", "-q", "--initial-branch=main")
    return folder


@pytest.fixture
def three(repository: Path) -> Three:
    return Three(repository)


@pytest.fixture
def local(repository: Path) -> Three:
    """The same on the person's machine."""
    return Three(repository, "local")


# -- every pair of edits of one file -----------------------------------------------------------------------------------

# What a side can do to n.md: as it looks when ours does it, and when theirs does.
DONE: dict[str, tuple[Files, Files]] = {
    "nothing": ({"n.md": LINES},) * 2,
    "changed": ({"n.md": FIRST}, {"n.md": LAST}),
    "deleted": ({},) * 2,
    "moved": ({"to/n.md": LINES},) * 2,
    "moved and changed": ({"to/n.md": FIRST}, {"to/n.md": LAST}),
    "folder": ({"n.md/x.md": INSIDE},) * 2,
    "link": ({"n.md": Link("elsewhere")},) * 2,
    "executable": ({"n.md": Program(LINES)},) * 2,
}
# What becomes of two of them; `{}` in a name is the conflict copy of ours.
PAIRS: dict[tuple[str, str], Files] = {
    ("changed", "changed"): {"n.md": BOTH},
    ("changed", "deleted"): {"n.md": FIRST},
    ("changed", "moved"): {"to/n.md": FIRST},
    ("changed", "moved and changed"): {"to/n.md": BOTH},
    ("changed", "folder"): {"n.md/x.md": INSIDE, "copy": FIRST},
    ("changed", "link"): {"n.md": Link("elsewhere"), "copy": FIRST},
    ("changed", "executable"): {"n.md": Program(FIRST)},
    ("deleted", "deleted"): {},
    ("deleted", "moved"): {"to/n.md": LINES},
    ("deleted", "moved and changed"): {"to/n.md": LAST},
    ("deleted", "folder"): {"n.md/x.md": INSIDE},
    ("deleted", "link"): {"n.md": Link("elsewhere")},
    ("deleted", "executable"): {"n.md": Program(LINES)},
    ("moved", "moved"): {"to/n.md": LINES},
    ("moved", "moved and changed"): {"to/n.md": LAST},
    ("moved", "folder"): {"to/n.md": LINES, "n.md/x.md": INSIDE},
    ("moved", "link"): {"to/n.md": LINES, "n.md": Link("elsewhere")},
    ("moved", "executable"): {"to/n.md": Program(LINES)},
    ("moved and changed", "moved and changed"): {"to/n.md": BOTH},
    ("moved and changed", "folder"): {"to/n.md": FIRST, "n.md/x.md": INSIDE},
    ("moved and changed", "link"): {"to/n.md": FIRST, "n.md": Link("elsewhere")},
    ("moved and changed", "executable"): {"to/n.md": Program(FIRST)},
    ("folder", "folder"): {"n.md/x.md": INSIDE},
    ("folder", "link"): {"n.md/x.md": INSIDE, "copy": Link("elsewhere")},
    ("folder", "executable"): {"n.md/x.md": INSIDE, "copy": Program(LINES)},
    ("link", "link"): {"n.md": Link("elsewhere")},
    ("link", "executable"): {"n.md": Program(LINES), "copy": Link("elsewhere")},
    ("executable", "executable"): {"n.md": Program(LINES)},
}


def typed(files: Files) -> dict[str, tuple[str, str]]:
    return {path: (type(content).__name__, str(content)) for path, content in files.items()}


def test_every_pair_is_in_the_table() -> None:
    kinds = [kind for kind in DONE if kind != "nothing"]
    pairs = {frozenset({one, another}) for one in kinds for another in kinds}
    assert {frozenset(pair) for pair in PAIRS} == pairs


@pytest.mark.parametrize("kind", DONE)
def test_what_one_side_did_is_taken(three: Three, kind: str) -> None:
    files = DONE[kind][0]
    assert typed(three.merge({"n.md": LINES}, {"n.md": LINES}, files)) == typed(files)
    assert typed(three.merge({"n.md": LINES}, files, {"n.md": LINES})) == typed(files)
    assert typed(three.merge({"n.md": LINES}, files, files)) == typed(files)
    assert three.copies == ()


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_what_both_sides_did(three: Three, pair: tuple[str, str]) -> None:
    one, another = pair
    expected = dict(PAIRS[pair])
    if "copy" in expected:
        content = expected.pop("copy")
        agent = "local" if one == "folder" else "cloud"  # whose version the copy is
        expected[three.copy("n.md", content, agent)] = content
    assert typed(three.merge({"n.md": LINES}, DONE[one][0], DONE[another][1])) == typed(expected)


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_what_both_sides_did_the_other_way_round(three: Three, pair: tuple[str, str]) -> None:
    """The same but for who keeps the name in a clash: the remote's version."""
    one, another = pair
    expected = dict(PAIRS[pair])
    if "copy" in expected:
        content = expected.pop("copy")
        if "link" in pair and "folder" not in pair:
            content, expected["n.md"] = expected["n.md"], content
        agent = "local" if another == "folder" else "cloud"
        expected[three.copy("n.md", content, agent)] = content
    assert typed(three.merge({"n.md": LINES}, DONE[another][1], DONE[one][0])) == typed(expected)


ADDED: dict[str, Files] = {
    "text": {"n.md": "text\n"},
    "other": {"n.md": "other\n"},
    "binary": {"n.md": b"\0\x01"},
    "folder": {"n.md/deep/x.md": INSIDE},
    "link": {"n.md": Link("text\n")},
    "repository": {"n.md": Repository("1" * 40)},
    "executable": {"n.md": Program("text\n")},
}


@pytest.mark.parametrize("one", ADDED)
@pytest.mark.parametrize("another", ADDED)
def test_both_added(three: Three, one: str, another: str) -> None:
    ours, theirs = ADDED[one], ADDED[another]
    merged = three.merge({"keep.md": "k"}, {"keep.md": "k", **ours}, {"keep.md": "k", **theirs})
    assert merged.pop("keep.md") == "k"
    if one == another:
        assert (typed(merged), three.copies) == (typed({k: as_text(v) for k, v in ours.items()}), ())
    elif {one, another} == {"text", "executable"}:
        assert (typed(merged), three.copies) == (typed(theirs), ())
    elif "folder" in (one, another):
        assert merged["n.md/deep/x.md"] == INSIDE
        [(path, copy)] = three.copies
        file = theirs if one == "folder" else ours
        assert (path, merged[copy]) == ("n.md", as_text(file["n.md"]))
    else:
        [(path, copy)] = three.copies
        assert (path, merged["n.md"], merged[copy]) == ("n.md", as_text(theirs["n.md"]), as_text(ours["n.md"]))
        assert type(merged[copy]) is type(as_text(ours["n.md"]))
    assert len(merged) == 1 + len(three.copies)


def as_text(content: str | bytes) -> str:
    return content.decode("utf-8", "surrogateescape") if isinstance(content, bytes) else content


# -- moves -------------------------------------------------------------------------------------------------------------

OTHER_NAME = {"n.md": LINES}, {"renamed.md": LINES}
OTHER_CASE = {"n.md": LINES}, {"N.md": LINES}
OTHER_FOLDER_AND_CHANGED = {"n.md": LINES}, {"to/n.md": LAST}
OTHER_CASE_AND_CHANGED = {"n.md": LINES}, {"N.MD": LAST}


@pytest.mark.parametrize("move", [OTHER_NAME, OTHER_CASE, OTHER_FOLDER_AND_CHANGED, OTHER_CASE_AND_CHANGED])
@pytest.mark.parametrize("swap", [False, True])
def test_an_edit_follows_a_move(three: Three, move: tuple[Files, Files], swap: bool) -> None:
    before, after = move
    [(path, content)] = after.items()
    sides = [after, {"n.md": FIRST}]
    merged = three.merge(before, *(reversed(sides) if swap else sides))
    assert merged == {path: BOTH if content == LAST else FIRST}


@pytest.mark.parametrize("swap", [False, True])
def test_an_edit_that_clashes_at_the_new_path(three: Three, swap: bool) -> None:
    sides: list[Files] = [{"to/n.md": CLASH["ours"]}, {"n.md": CLASH["theirs"]}]
    ours, theirs = reversed(sides) if swap else sides
    merged = three.merge({"n.md": LINES}, ours, theirs)
    [our_text], [their_text] = ours.values(), theirs.values()
    assert merged == {"to/n.md": their_text, three.copy("to/n.md", our_text): our_text}


@pytest.mark.parametrize(("agent", "wins"), [("cloud", "theirs"), ("cloud-2", "theirs"), ("local", "ours")], ids=str)
@pytest.mark.parametrize("edited", [False, True])
def test_moved_to_two_places(repository: Path, agent: str, wins: str, edited: bool) -> None:
    """One file: at the person's place, and where no side is the person's, at the remote's. So one claim wins."""
    merged = Three(repository, agent).merge(
        {"Inbox/n.md": LINES},
        {"In_Progress/ours/n.md": FIRST if edited else LINES},
        {"In_Progress/theirs/n.md": LAST if edited else LINES},
    )
    assert merged == {f"In_Progress/{wins}/n.md": BOTH if edited else LINES}


def test_moved_to_two_places_that_differ_in_case(three: Three) -> None:
    assert three.merge({"n.md": LINES}, {"N.md": LINES}, {"n.MD": LINES}) == {"n.MD": LINES}


@pytest.mark.parametrize("swap", [False, True])
def test_moved_to_where_the_other_side_put_something(three: Three, swap: bool) -> None:
    """Both-added there; what the other side made of the file itself stays where it was."""
    base: Files = {"n.md": LINES}
    sides: list[Files] = [{"to.md": LINES}, {"n.md": FIRST, "to.md": "else\n"}]
    ours, theirs = reversed(sides) if swap else sides
    merged = three.merge(base, ours, theirs)
    assert merged == {
        "n.md": FIRST, "to.md": theirs["to.md"], three.copy("to.md", ours["to.md"]): ours["to.md"]
    }  # fmt: skip


@pytest.mark.parametrize("agent", ["cloud", "local"])
def test_moved_to_two_places_of_which_one_is_taken(repository: Path, agent: str) -> None:
    three = Three(repository, agent)
    merged = three.merge({"n.md": LINES}, {"a.md": LINES}, {"b.md": LINES, "a.md": "else\n"})
    assert merged == {"a.md": "else\n", "b.md": LINES, three.copy("a.md", LINES, agent): LINES}
    merged = three.merge({"n.md": LINES}, {"b.md": LINES, "a.md": "else\n"}, {"a.md": LINES})
    assert merged == {"a.md": LINES, "b.md": LINES, three.copy("a.md", "else\n", agent): "else\n"}


def test_two_files_moved_to_one_place(three: Three) -> None:
    base: Files = {"a/n.md": "a\n" + LINES, "b/n.md": LINES + "b\n"}
    ours: Files = {"n.md": base["a/n.md"], "b/n.md": base["b/n.md"]}
    theirs: Files = {"a/n.md": base["a/n.md"], "n.md": base["b/n.md"]}
    merged = three.merge(base, ours, theirs)
    assert merged == {"n.md": base["b/n.md"], three.copy("n.md", base["a/n.md"]): base["a/n.md"]}


@pytest.mark.parametrize("swap", [False, True])
def test_an_edit_of_one_draft_never_flows_into_another(three: Three, swap: bool) -> None:
    """Drafts of one template are 90 % alike. One is deleted, another comes, the first one was edited."""
    template = "".join(f"line {number} of the template\n" for number in range(30))
    base: Files = {"Inbox/EMAIL_1.md": template + "first\n"}
    sides: list[Files] = [{"Inbox/EMAIL_2.md": template + "second\n"}, {"Inbox/EMAIL_1.md": "edit\n" + template}]
    merged = three.merge(base, *(reversed(sides) if swap else sides))
    assert merged == {"Inbox/EMAIL_1.md": "edit\n" + template, "Inbox/EMAIL_2.md": template + "second\n"}


def test_one_name_in_two_folders_is_no_move_without_likeness(three: Three) -> None:
    merged = three.merge({"a/README.md": LINES}, {"b/README.md": "something else\n"}, {"a/README.md": FIRST})
    assert merged == {"a/README.md": FIRST, "b/README.md": "something else\n"}


def test_empty_files_are_not_moved(three: Three) -> None:
    merged = three.merge({"a.md": ""}, {"b.md": ""}, {"a.md": "text\n"})
    assert merged == {"a.md": "text\n", "b.md": ""}


def test_a_folder_of_equal_files_moves_file_by_file(three: Three) -> None:
    """Each `README.md` is the same; the folder around each tells which became which."""
    base = {f"old/{name}/README.md": LINES for name in "abc"}
    ours = {f"new/{name}/README.md": LINES for name in "abc"}
    merged = three.merge(base, ours, {**base, "old/b/README.md": FIRST})
    assert merged == {**ours, "new/b/README.md": FIRST}


def test_where_two_places_are_as_near_nothing_was_moved(three: Three) -> None:
    merged = three.merge({"n.md": LINES}, {"a/n.md": LINES, "b/n.md": LINES}, {"n.md": FIRST})
    assert merged == {"a/n.md": LINES, "b/n.md": LINES, "n.md": FIRST}


# -- drafts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["Pending_Approval", "Rejected"])
def test_the_persons_edit_of_a_draft_wins(repository: Path, folder: str) -> None:
    """On both machines the same: the person's keeps the name, and the copy has one name."""
    path = f"{folder}/Email/d.md"
    cloud, person = ({path: text} for text in CLASH.values())
    expected = {path: CLASH["theirs"], conflict_name(path, "cloud", oid_of(CLASH["ours"])): CLASH["ours"]}
    assert Three(repository).merge({path: LINES}, cloud, person) == expected
    assert Three(repository, "local").merge({path: LINES}, person, cloud) == expected


def test_a_draft_merges_where_lines_do_not_clash(three: Three) -> None:
    path = "Pending_Approval/Email/d.md"
    assert three.merge({path: LINES}, {path: FIRST}, {path: LAST}) == {path: BOTH}


@pytest.mark.parametrize("agent", ["cloud", "local"])
@pytest.mark.parametrize("swap", [False, True])
def test_no_edit_flows_into_what_was_approved(repository: Path, agent: str, swap: bool) -> None:
    """The person approved a text; what the other side made of the draft meanwhile waits for a decision of its own."""
    pending, approved = "Pending_Approval/Email/d.md", "Approved/Email/d.md"
    sides: list[Files] = [{approved: LINES}, {pending: FIRST}]
    merged = Three(repository, agent).merge({pending: LINES}, *(reversed(sides) if swap else sides))
    assert merged == {approved: LINES, pending: FIRST}


def test_approved_on_both_sides_with_two_texts(three: Three) -> None:
    """Neither approved the mixture of both, and a copy beside it would be approved: it goes back."""
    pending, approved = "Pending_Approval/Email/d.md", "Approved/Email/d.md"
    merged = three.merge({pending: LINES}, {approved: FIRST}, {approved: LAST})
    assert merged == {approved: LAST, three.copy(pending, FIRST): FIRST}
    assert three.merge({pending: LINES}, {approved: LINES}, {approved: LAST}) == {approved: LAST}
    assert three.merge({pending: LINES}, {approved: LAST}, {approved: LINES}) == {approved: LAST}


def test_approved_here_and_rejected_with_an_edit_there(three: Three) -> None:
    pending, approved, rejected = (f"{top}/Email/d.md" for top in ("Pending_Approval", "Approved", "Rejected"))
    assert three.merge({pending: LINES}, {rejected: FIRST}, {approved: LINES}) == {approved: LINES, rejected: FIRST}
    assert three.merge({pending: LINES}, {rejected: LINES}, {approved: LINES}) == {approved: LINES}


def oid_of(text: str) -> str:
    return subprocess.run(
        ["git", "hash-object", "--stdin"], check=True, input=text.encode(), stdout=subprocess.PIPE
    ).stdout.decode().strip()  # fmt: skip


# -- text --------------------------------------------------------------------------------------------------------------


def test_three_way(three: Three) -> None:
    assert three.merge({"a.md": LINES}, {"a.md": FIRST}, {"a.md": LAST}) == {"a.md": BOTH}


@pytest.mark.parametrize("agent", ["cloud", "local"])
def test_clash_keeps_both(repository: Path, agent: str) -> None:
    three = Three(repository, agent)
    ours, theirs = CLASH.values()
    merged = three.merge({"a.md": LINES}, {"a.md": ours}, {"a.md": theirs})
    assert merged == {"a.md": theirs, three.copy("a.md", ours, agent): ours}
    assert three.copies == (("a.md", three.copy("a.md", ours, agent)),)


def test_no_common_base(three: Three) -> None:
    merged = three.merge(None, {"a.md": "x\n", "same.md": "s"}, {"a.md": "y\n", "same.md": "s", "b.md": "b"})
    assert merged == {"a.md": "y\n", three.copy("a.md", "x\n"): "x\n", "same.md": "s", "b.md": "b"}


def crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    ("base", "one", "another", "result"),
    [
        (crlf(LINES), crlf(FIRST), crlf(LAST), crlf(BOTH)),
        (LINES, crlf(LINES), LAST, crlf(LAST)),
        (LINES, crlf(FIRST), LAST, crlf(BOTH)),
        (crlf(LINES), LINES, crlf(LAST), LAST),
        (LINES, crlf(FIRST), crlf(LAST), crlf(BOTH)),
        (LINES, crlf(LINES), crlf(LAST), crlf(LAST)),
        (LINES, LINES.replace("two\n", "two\r\n"), LAST, LAST.replace("two\n", "two\r\n")),
        (LINES.replace("two\n", "two\r\n"), LINES, crlf(LAST), crlf(LAST)),
        (LINES, LINES.removesuffix("\n"), FIRST, FIRST.removesuffix("\n")),
        (LINES, crlf(LINES).removesuffix("\r\n"), FIRST, crlf(FIRST).removesuffix("\r\n")),
        (LINES.removesuffix("\n"), LINES, LINES + "six", LINES + "six\n"),
        (LINES.removesuffix("\n"), crlf(FIRST), LINES + "six\n", crlf(FIRST) + "six\r\n"),
    ],
)
def test_line_endings_do_not_clash(three: Three, base: str, one: str, another: str, result: str, swap: bool) -> None:
    sides = [{"a.md": one}, {"a.md": another}]
    merged = three.merge({"a.md": base}, *(reversed(sides) if swap else sides))
    assert merged == {"a.md": result}


def test_added_twice_with_other_line_endings(three: Three) -> None:
    assert three.merge({}, {"a.md": crlf(LINES)}, {"a.md": LINES}) == {"a.md": LINES}
    assert three.merge({}, {"a.md": LINES}, {"a.md": crlf(LINES)}) == {"a.md": crlf(LINES)}


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("base", ["old\n", None])
def test_emptied_is_deleted(three: Three, swap: bool, base: str | None) -> None:
    sides = [{"a.md": ""}, {"a.md": "new\n"}]
    merged = three.merge({"a.md": base} if base else {}, *(reversed(sides) if swap else sides))
    assert merged == {"a.md": "new\n"}


def test_binary_keeps_both(three: Three) -> None:
    merged = three.merge({"a.canvas": b"\0one\n"}, {"a.canvas": b"\0two\n"}, {"a.canvas": b"\0one\nmore\n"})
    assert merged == {"a.canvas": "\0one\nmore\n", three.copy("a.canvas", b"\0two\n"): "\0two\n"}


def test_a_nul_far_down_is_binary_too(three: Three) -> None:
    far = LINES.encode() * 4000
    ours, theirs = far + b"\0ours", b"theirs\n" + far
    merged = three.merge({"a.md": far}, {"a.md": ours}, {"a.md": theirs})
    assert merged == {"a.md": theirs.decode(), three.copy("a.md", ours): ours.decode()}


def test_what_is_no_utf8_merges(three: Three) -> None:
    merged = three.merge({"a.md": b"\xff\n" + LINES.encode()}, {"a.md": b"\xff\n" + FIRST.encode()},
                         {"a.md": b"\xff\n" + LAST.encode()})  # fmt: skip
    assert merged == {"a.md": "\udcff\n" + BOTH}


def test_huge_lines_merge(three: Three) -> None:
    huge = "x" * 1_000_000 + "\n"
    merged = three.merge({"a.md": LINES + huge}, {"a.md": FIRST + huge}, {"a.md": LINES + huge + "end\n"})
    assert merged == {"a.md": FIRST + huge + "end\n"}


def test_text_that_is_too_large_to_read_is_kept_twice(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_agent.merge.LARGEST_TEXT", len(LINES) - 1)
    merged = three.merge({"a.md": LINES}, {"a.md": FIRST}, {"a.md": LAST})
    assert merged == {"a.md": LAST, three.copy("a.md", FIRST): FIRST}


MARKED = "# On git\n<<<<<<< HEAD\nmine\n=======\nyours\n>>>>>>> other\n"


def test_text_that_looks_like_a_conflict_is_text(three: Three) -> None:
    merged = three.merge({"a.md": MARKED + LINES}, {"a.md": MARKED + FIRST}, {"a.md": MARKED + LAST})
    assert merged == {"a.md": MARKED + BOTH}
    ours, theirs = MARKED.replace("mine", "ours"), MARKED.replace("mine", "theirs")
    merged = three.merge({"a.md": MARKED}, {"a.md": ours}, {"a.md": theirs})
    assert merged == {"a.md": theirs, three.copy("a.md", ours): ours}


def test_odd_names(three: Three) -> None:
    names = ["-dash.md", "a\nb.md", "q\"uo'te.md", "st*r?.md", ":(top)x.md", "naïve ü.md", "caf\udce9.md", "t\tab.md"]
    names += [f"odd\n\udce9 *földer/{name}" for name in names]
    merged = three.merge(dict.fromkeys(names, LINES), dict.fromkeys(names, FIRST), dict.fromkeys(names, LAST))
    assert merged == dict.fromkeys(names, BOTH)
    ours, theirs = CLASH.values()
    merged = three.merge(dict.fromkeys(names, LINES), dict.fromkeys(names, ours), dict.fromkeys(names, theirs))
    assert merged == {**dict.fromkeys(names, theirs), **{three.copy(name, ours): ours for name in names}}


# -- Dashboard and logs ------------------------------------------------------------------------------------------------


def entry(number: int) -> str:
    return f"- 2026-02-16T10:{number:02}:00Z entry {number}"


def test_dashboard_by_section(three: Three) -> None:
    merged = three.merge(
        {"Dashboard.md": DASHBOARD.format(mine="a", updates=entry(1), links="l")},
        {"Dashboard.md": DASHBOARD.format(mine="a", updates=f"{entry(2)}\n{entry(1)}", links="l")},
        {"Dashboard.md": DASHBOARD.format(mine="b", updates=entry(1), links="L")},
    )
    updates = f"{entry(2)}\n{entry(1)}"
    assert merged == {"Dashboard.md": DASHBOARD.format(mine="b", updates=updates, links="L")}


def test_dashboard_by_section_on_the_laptop(local: Three) -> None:
    """Local's agent merges to the same: the rest is ours there."""
    merged = local.merge(
        {"Dashboard.md": DASHBOARD.format(mine="a", updates=entry(1), links="l")},
        {"Dashboard.md": DASHBOARD.format(mine="b", updates=entry(1), links="L")},
        {"Dashboard.md": DASHBOARD.format(mine="c", updates=f"{entry(2)}\n{entry(1)}", links="l")},
    )
    updates = f"{entry(2)}\n{entry(1)}"
    assert merged == {"Dashboard.md": DASHBOARD.format(mine="b", updates=updates, links="L")}


def test_dashboard_that_both_added(three: Three) -> None:
    merged = three.merge(
        None,
        {"Dashboard.md": DASHBOARD.format(mine="cloud", updates=entry(1), links="cloud")},
        {"Dashboard.md": DASHBOARD.format(mine="mine", updates=entry(2), links="mine")},
    )
    updates = f"{entry(2)}\n{entry(1)}"
    assert merged == {"Dashboard.md": DASHBOARD.format(mine="mine", updates=updates, links="mine")}


def test_logs_by_union(three: Three) -> None:
    path = "Logs/Cloud/audit.jsonl"
    merged = three.merge({path: "0\n"}, {path: "0\nours\n"}, {path: "0\ntheirs\n"})[path]
    assert sorted(merged.splitlines()) == ["0", "ours", "theirs"]
    added = three.merge({}, {path: "head\nours"}, {path: "head\ntheirs"})[path]
    assert sorted(added.splitlines()) == ["head", "ours", "theirs"]


def test_a_log_joined_twice_holds_each_record_once(three: Three) -> None:
    """Two resolvers come to one log, and what came by two ways is one: rows are money."""
    path = "Logs/API_Usage/2026-02-16.md"
    base = three.commit({path: "0\n"})
    ours, theirs = three.commit({path: "0\na\nb\n"}, base), three.commit({path: "0\nc\nb\nd\n"}, base)
    here, there = three.join(base, ours, theirs), three.join(base, theirs, ours)
    assert here == there
    assert Counter(here[path].splitlines()) == Counter("0abcd")
    for first in (ours, theirs):
        here_on, there_on = (three.commit({path: here[path] + f"{end}\n"}, ours, theirs) for end in "ef")
        crossed = three.join(first, here_on, there_on)
        assert Counter(crossed[path].splitlines()) == Counter("0abcdef")


@pytest.mark.parametrize("swap", [False, True])
def test_the_chained_records_of_two_agents(three: Three, tmp_path: Path, swap: bool) -> None:
    """Each goes on in its own clone; joined, and joined again crosswise, both chains hold."""
    path = "Logs/Cloud/audit-2026-02.jsonl"
    heads = {"cloud": "", "cloud-2": ""}

    def more(agent: str, *targets: str) -> str:
        text = ""
        for target in targets:
            line, heads[agent] = audit.seal({"actor": agent, "target": target}, heads[agent])
            text += line.decode()
        return text

    def checked(files: Files) -> Files:
        vault = Vault(tmp_path / "vault")
        (vault.root / "Logs/Cloud").mkdir(parents=True, exist_ok=True)
        (vault.root / path).write_text(str(files[path]))
        assert audit.verify(vault) == audit.Audit(str(files[path]).count("\n"), "")
        return files

    old = more("cloud", "a") + more("cloud-2", "b")
    base = three.commit({path: old})
    ours = three.commit({path: old + more("cloud", "c", "d")}, base)
    theirs = three.commit({path: old + more("cloud-2", "e")}, base)
    if swap:
        ours, theirs = theirs, ours
    joined = str(checked(three.join(base, ours, theirs))[path])
    here = three.commit({path: joined + more("cloud", "f")}, ours, theirs)
    there = three.commit({path: joined + more("cloud-2", "g", "h")}, ours, theirs)
    for first in (ours, theirs):
        assert str(checked(three.join(first, here, there))[path]).count("\n") == 8


@pytest.mark.parametrize("swap", [False, True])
def test_what_two_agents_spent_on_the_dashboard(three: Three, swap: bool) -> None:
    def sheet(*days: int) -> Files:
        lines = [
            dashboard.spend_line(agent, date(2026, 2, day), 0.5, 0.75)
            for agent, day in zip(("cloud", "cloud-2"), days, strict=True)
        ]
        return {"Dashboard.md": DASHBOARD.format(mine="a", updates="\n".join([*lines, entry(1)]), links="l")}

    sides = [sheet(17, 16), sheet(16, 17)]
    assert three.merge(sheet(16, 16), *(reversed(sides) if swap else sides)) == sheet(17, 17)


def test_a_log_with_other_line_endings_is_not_doubled(three: Three) -> None:
    path = "Logs/x.md"
    merged = three.merge({path: LINES}, {path: crlf(LINES)}, {path: LINES + "six\n"})
    assert merged == {path: crlf(LINES + "six\n")}


def test_a_binary_log_is_kept_twice(three: Three) -> None:
    path = "Logs/Cloud/unparseable/x"
    merged = three.merge({}, {path: b"\0a"}, {path: b"\0b"})
    assert merged == {path: "\0b", three.copy(path, b"\0a"): "\0a"}


# -- what cannot lie side by side --------------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("inside", ["a.md/b.md", "a.md/deep/er/b.md"])
def test_file_against_folder(three: Three, swap: bool, inside: str) -> None:
    sides: list[Files] = [{"a.md": "file\n"}, {inside: INSIDE}]
    merged = three.merge({}, *(reversed(sides) if swap else sides))
    assert merged == {inside: INSIDE, three.copy("a.md", "file\n", "local" if swap else "cloud"): "file\n"}


@pytest.mark.parametrize("swap", [False, True])
def test_a_folder_and_deep_in_it_a_file_against_a_folder(three: Three, swap: bool) -> None:
    base: Files = {"x/y/z.md": "1\n"}
    sides: list[Files] = [{"x/y/z.md": "2\n"}, {"x": "a file\n"}]
    merged = three.merge(base, *(reversed(sides) if swap else sides))
    assert merged == {"x/y/z.md": "2\n", three.copy("x", "a file\n", "cloud" if swap else "local"): "a file\n"}


@pytest.mark.parametrize("name", ["A.md", "a.MD"])
def test_names_that_differ_in_case_only(three: Three, name: str) -> None:
    """On a laptop one of them would be lost."""
    assert three.merge({}, {"a.md": "x\n"}, {name: "x\n"}) == {name: "x\n"}
    assert three.merge({}, {"a.md": "x\n"}, {name: "y\n"}) == {name: "y\n", three.copy("a.md", "x\n"): "x\n"}


def test_umlauts_composed_and_not(three: Three) -> None:
    assert three.merge({}, {"u\u0308.md": "x\n"}, {"\xdc.md": "y\n"}) == {
        "\xdc.md": "y\n",
        three.copy("u\u0308.md", "x\n"): "x\n",
    }
    both: Files = {"Straße.md": "x\n", "strasse.md": "y\n"}
    assert three.merge({}, {"Straße.md": "x\n"}, {"strasse.md": "y\n"}) == both


def test_a_side_that_has_both_cases_keeps_them(three: Three) -> None:
    both: Files = {"a.md": "x\n", "A.md": "y\n"}
    assert three.merge({"k.md": "k"}, {**both, "k.md": "K"}, {"k.md": "k", "n.md": "n"}) == {
        **both,
        "k.md": "K",
        "n.md": "n",
    }
    assert three.merge(both, {**both, "a.md": "X\n"}, {**both, "A.md": "Y\n"}) == {"a.md": "X\n", "A.md": "Y\n"}


def test_a_side_that_has_a_file_and_a_folder_in_other_case_keeps_them(three: Three) -> None:
    base: Files = {"A.md": "x\n", "a.md/b.md": INSIDE}
    ours, theirs = {**base, "A.md": "y\n"}, {**base, "a.md/b.md": "more\n"}
    assert three.merge(base, ours, theirs) == {"A.md": "y\n", "a.md/b.md": "more\n"}


@pytest.mark.parametrize("swap", [False, True])
def test_a_file_against_a_folder_in_other_case(three: Three, swap: bool) -> None:
    sides: list[Files] = [{"A.md": "file\n"}, {"a.md/b.md": INSIDE}]
    merged = three.merge({}, *(reversed(sides) if swap else sides))
    assert merged == {"a.md/b.md": INSIDE, three.copy("A.md", "file\n", "local" if swap else "cloud"): "file\n"}


# -- conflict copies ---------------------------------------------------------------------------------------------------


def test_a_copy_that_was_edited_is_not_overwritten(three: Three) -> None:
    copy = three.copy("a.md", "mine\n")
    base: Files = {"a.md": "0\n", copy: "edited by a person\n"}
    merged = three.merge(base, {**base, "a.md": "mine\n"}, {**base, "a.md": "theirs\n"})
    assert merged[copy] == "edited by a person\n"
    assert merged["a.md"] == "theirs\n"
    assert "mine\n" in merged.values()
    [(_, new)] = three.copies
    assert conflict_name(new, "x", "1" * 10) == conflict_name("a.md", "x", "1" * 10), "it counts as a copy too"


@pytest.mark.parametrize("by", ["cloud", "local"])
def test_the_same_version_is_not_copied_twice(three: Three, by: str) -> None:
    copy = three.copy("a.md", "mine\n", by)
    base: Files = {"a.md": "0\n", copy: "mine\n"}
    merged = three.merge(base, {**base, "a.md": "mine\n"}, {**base, "a.md": "theirs\n"})
    assert merged == {"a.md": "theirs\n", copy: "mine\n"}
    assert three.copies == (("a.md", copy),)


def test_a_clash_on_a_copy_makes_a_sibling(three: Three) -> None:
    copy = three.copy("in/a.md", "0\n")
    base: Files = {"in/a.md": "x", copy: "0\n"}
    merged = three.merge(base, {**base, copy: "ours\n"}, {**base, copy: "theirs\n"})
    assert merged == {"in/a.md": "x", copy: "theirs\n", three.copy("in/a.md", "ours\n"): "ours\n"}


def test_beyond_the_bound_lines_are_united(three: Three) -> None:
    copies = {three.copy("in/a.md", f"{number}"): f"{number}" for number in range(MAX_COPIES)}
    base: Files = {"in/a.md": LINES, **copies}
    ours, theirs = CLASH.values()
    merged = three.merge(base, {**base, "in/a.md": ours}, {**base, "in/a.md": theirs})
    assert set(merged) == set(base)
    assert sorted(merged["in/a.md"].splitlines()) == sorted({*ours.splitlines(), *theirs.splitlines()})
    assert three.copies == ()
    there = three.merge(base, {**base, "in/a.md": theirs}, {**base, "in/a.md": ours})
    assert there == merged, "two resolvers come to the same"
    other: Files = {**base, "in/b.md": "1\n", "in/a.x.md": "1\n", "a.md": "1\n"}
    changed = [dict.fromkeys(("in/b.md", "in/a.x.md", "a.md"), text) for text in ("2\n", "3\n")]
    three.merge(other, {**other, **changed[0]}, {**other, **changed[1]})
    assert len(three.copies) == 3, "each file has its own bound"


def test_beyond_the_bound_binary_files_are_copied_all_the_same(three: Three) -> None:
    copies = {three.copy("a.md", f"{number}"): f"{number}" for number in range(MAX_COPIES)}
    base: Files = {"a.md": "x", **copies}
    merged = three.merge(base, {**base, "a.md": b"\0"}, {**base, "a.md": "theirs\n"})
    assert merged == {**base, "a.md": "theirs\n", three.copy("a.md", b"\0"): "\0"}


# -- more than one join ------------------------------------------------------------------------------------------------


def test_criss_cross(three: Three) -> None:
    """Two joins of the same pair, edited on: git names two bases, either will do, and nothing that came is lost."""
    text = LINES + "six\nseven\neight\n"
    base = three.commit({"a.md": text, "b.md": LINES})
    ours = three.commit({"a.md": text.replace("one", "ONE"), "b.md": CLASH["ours"]}, base)
    theirs = three.commit({"a.md": text.replace("eight", "EIGHT"), "b.md": CLASH["theirs"]}, base)
    here, there = three.join(base, ours, theirs), three.join(base, theirs, ours)
    here_on = {**here, "a.md": here["a.md"].replace("three", "here"), "h.md": "h\n"}
    there_on = {**there, "a.md": there["a.md"].replace("six", "there"), "t.md": "t\n"}
    commits = three.commit(here_on, ours, theirs), three.commit(there_on, theirs, ours)
    assert len(three.raw("merge-base", "--all", *commits).split()) == 2
    for first in (ours, theirs):
        merged = three.join(first, *commits)
        assert merged.pop("a.md").split() == "ONE two here four five there seven EIGHT".split()
        assert (merged.pop("h.md"), merged.pop("t.md")) == ("h\n", "t\n")
        assert set(merged.values()) == set(CLASH.values())
        assert len(merged) == 3, "b.md, and of each side a copy"


def test_a_chain_of_criss_crosses_makes_no_storm_of_copies(three: Three) -> None:
    """Both sides clash, resolve, clash again, ten times over."""
    base = three.commit({"a.md": LINES})
    ours, theirs = three.commit({"a.md": "o\n"}, base), three.commit({"a.md": "t\n"}, base)
    for number in range(MAX_COPIES + 5):
        here, there = three.join(base, ours, theirs), three.join(base, theirs, ours)
        base = ours
        ours, theirs = (
            three.commit({**here, "a.md": f"o{number}\n"}, ours, theirs),
            three.commit({**there, "a.md": f"t{number}\n"}, theirs, ours),
        )
    merged = three.join(base, ours, theirs)
    assert len(merged) <= MAX_COPIES + 3
    text = "".join(merged.values()).splitlines()
    assert {f"o{number}", f"t{number}"} <= set(text)


# -- cost --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The git commands that are run."""
    ran: list[str] = []
    run = Git.attempt_bytes

    def counted(self: Git, *arguments: str, **options: object) -> object:
        ran.append(arguments[0])
        return run(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Git, "attempt_bytes", counted)
    return ran


Change = tuple[Files, Files, Files, list[str]]
READ = ["diff-tree", "cat-file", "cat-file"]


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        ({"a.md": "1", "b.md": "1"}, {"a.md": "2", "b.md": "1"}, {"a.md": "1", "b.md": "2"}, ["diff-tree"]),
        ({"a.md": "1"}, {"to/a.md": "1"}, {"a.md": "2"}, ["diff-tree"]),
        ({"a.md": LINES}, {"a.md": FIRST}, {"a.md": LAST}, [*READ, "merge-file", "hash-object"]),
        ({"a.md": LINES}, {"to/a.md": FIRST}, {"a.md": LAST}, [*READ, "merge-file", "hash-object"]),
        ({"a.md": LINES}, {"a.md": "x\n"}, {"a.md": "y\n"}, [*READ, "merge-file", "ls-tree"]),
        (
            {f"{number}.md": LINES for number in range(5)},
            {f"{number}.md": FIRST for number in range(5)},
            {f"{number}.md": LAST for number in range(5)},
            [*READ, *["merge-file"] * 5, "hash-object"],
        ),
    ],
)
def test_processes(
    three: Three, commands: list[str], base: Files, ours: Files, theirs: Files, expected: list[str]
) -> None:
    """A clean join costs one process; a bound for the rest, none of which grows with the vault."""
    root = three.commit(base)
    three.join(root, three.commit(ours, root), three.commit(theirs, root))
    assert commands == expected


def test_a_missing_file_is_an_error(three: Three) -> None:
    """Never an empty file in its place."""
    base = three.commit({"a.md": LINES})
    ours, theirs = three.commit({"a.md": FIRST}, base), three.commit({"a.md": LAST}, base)
    oid = three.entries(theirs)["a.md"][1]
    (three.folder / ".git/objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(GitError, match="missing blob"):
        join(three.git, base, ours, theirs)


def test_the_machines_configuration_changes_nothing(tmp_path: Path) -> None:
    """Attributes that would convert what is stored, and a setting that hides nested repositories."""
    folder = tmp_path / "repository"
    folder.mkdir()
    gitkit.git(folder, "init", "-q")
    gitkit.git(folder, "config", "diff.ignoreSubmodules", "all")
    (folder / ".git/info/attributes").write_text("* text=auto\n")
    merged = Three(folder).merge(
        {"a.md": crlf(LINES), "nested": Repository("1" * 40)},
        {"a.md": crlf(FIRST), "nested": Repository("1" * 40)},
        {"a.md": crlf(LAST), "nested": Repository("2" * 40)},
    )
    assert merged == {"a.md": crlf(BOTH), "nested": "2" * 40}


def test_changes_between_commits(three: Three) -> None:
    before, after = three.commit({"a.md": "1", "b.md": "1"}), three.commit({"b.md": "2"})
    found = changes(three.git, before, after)
    assert found["a.md"] is None
    assert found.keys() == {"a.md", "b.md"}


# -- properties --------------------------------------------------------------------------------------------------------

PATHS = [
    "a.md",
    "A.md",
    "b.md",
    "to/a.md",
    "a.md/b.md",
    "Logs/x.md",
    "Pending_Approval/Email/d.md",
    "Approved/Email/d.md",
]
BASES: list[str | bytes] = [LINES, crlf(LINES), "1\n2\n3\n", "0\n2\n3\n", "no end", "\0binary\n", "", "t\n" * 3]
Action = tuple[str, int, int]
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "edit",
                "edit",
                "append",
                "delete",
                "move",
                "move",
                "case",
                "folder",
                "file",
                "endings",
                "add",
                "mode",
                "end",
            ]
        ),
        st.integers(0, 7),
        st.integers(0, 7),
    ),
    min_size=1,
    max_size=4,
)


def can_lie(files: Files, path: str) -> bool:
    return not any(path.startswith(f"{other}/") or other.startswith(f"{path}/") for other in files if other != path)


def vaults() -> st.SearchStrategy[dict[str, str | bytes]]:
    def possible(found: dict[str, str | bytes]) -> dict[str, str | bytes]:
        kept: dict[str, str | bytes] = {}
        for path, content in found.items():
            if can_lie(kept, path):
                kept[path] = content
        return kept

    return st.dictionaries(st.sampled_from(PATHS), st.sampled_from(BASES), max_size=4).map(possible)


def act(base: Files, actions: Iterable[Action], side: str) -> dict[str, str | bytes]:
    """What a side makes of the base. Every line that it writes is its own."""
    files = dict(base)
    for number, (kind, which, where) in enumerate(actions):
        line = f"{side} {number}\n"
        if kind == "add" or not files:
            path, content = PATHS[where], line
        else:
            path = sorted(files)[which % len(files)]
            content = as_text(files.pop(path))
            lines = content.splitlines(keepends=True)
            if kind == "edit" and lines:
                lines[where % len(lines)] = line
                content = "".join(lines)
            elif kind == "append":
                content += line
            elif kind == "delete":
                continue
            elif kind == "move":
                path = PATHS[where]
            elif kind == "case":
                path = path.swapcase() if where % 2 else path.upper()
            elif kind == "folder":
                path = f"{path}/{where}.md"
            elif kind == "file" and "/" in path:
                path = path.rpartition("/")[0]
            elif kind == "endings":
                content = content.replace("\r\n", "\n") if where % 2 else crlf(plain(content.encode()).decode())
            elif kind == "end":
                content = content.rstrip("\n")
            elif kind == "mode":
                content = Program(content)
        for other in [other for other in files if not can_lie({path: ""}, other)]:
            del files[other]
        files[path] = content
    return files


def lines_of(files: Files) -> set[str]:
    return {line for content in files.values() for line in as_text(content).splitlines()}


def check(base: Files, ours: Files, theirs: Files, merged: Files) -> None:
    """What holds for every join."""
    came = (lines_of(ours) | lines_of(theirs)) - lines_of(base)
    assert came <= lines_of(merged), f"lost: {came - lines_of(merged)}"
    assert not any(line.startswith(gitkit.MARKERS) or line == "=======" for line in lines_of(merged))
    for path in merged:
        for other in merged:
            if path < other and path.lower() == other.lower():
                assert any({path, other} <= set(side) for side in (ours, theirs)), f"{path} and {other}"


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.none(), vaults()), vaults(), vaults(), st.sampled_from(["cloud", "local"]))
def test_any_three_vaults_merge(repository: Path, base: Files | None, ours: Files, theirs: Files, agent: str) -> None:
    """Every line that a side added is somewhere in the result, and a merge never fails."""
    one = Three(repository)
    root = one.commit(base) if base is not None else None
    merged = one.join(root, one.commit(ours, root), one.commit(theirs, root), agent)
    check(base or {}, ours, theirs, merged)


@settings(max_examples=120, deadline=None)
@given(vaults(), ACTIONS, ACTIONS, st.sampled_from(["cloud", "local"]))
def test_any_edits_merge(repository: Path, base: Files, mine: list[Action], other: list[Action], agent: str) -> None:
    ours, theirs = act(base, mine, "ours"), act(base, other, "theirs")
    assume(base not in (ours, theirs))
    one = Three(repository)
    root = one.commit(base)
    merged = one.join(root, one.commit(ours, root), one.commit(theirs, root), agent)
    event(f"{len(one.copies)} conflict copies")
    check(base, ours, theirs, merged)


@settings(max_examples=80, deadline=None)
@given(
    vaults(),
    ACTIONS,
    ACTIONS,
    st.sampled_from([("cloud", "local"), ("cloud", "cloud-2"), ("local", "cloud")]),
    st.booleans(),
)
def test_two_resolvers_come_together(
    repository: Path, base: Files, mine: list[Action], other: list[Action], agents: tuple[str, str], second_base: bool
) -> None:
    """Both sides resolve the same pair: they hold the same contents, and joined they become one that stays."""
    ours, theirs = act(base, mine, "ours"), act(base, other, "theirs")
    assume(base not in (ours, theirs))
    one = Three(repository)
    root = one.commit(base)
    our_commit, their_commit = one.commit(ours, root), one.commit(theirs, root)
    here = one.join(root, our_commit, their_commit, agents[0])
    there = one.join(root, their_commit, our_commit, agents[1])
    assert texts(here) == texts(there)
    paths = set(here) | set(there)
    bases = [their_commit if second_base else our_commit]
    for _ in range(2):
        here_commit, there_commit = (
            one.commit(here, our_commit, their_commit),
            one.commit(there, their_commit, our_commit),
        )
        here, there = (
            one.join(bases[-1], here_commit, there_commit, agents[0]),
            one.join(bases[-1], there_commit, here_commit, agents[1]),
        )
        bases.append(here_commit)
        assert set(here) | set(there) <= paths, "more copies"
        check(base, ours, theirs, here)
        check(base, ours, theirs, there)
    assert here == there


def texts(files: Files) -> set[bytes]:
    return {plain(as_text(content).encode("utf-8", "surrogateescape")) for content in files.values()}
