"""The table over merge.py, row by row, on real repositories: commits in, a tree out, nothing on disk touched."""

from pathlib import Path

import pytest
from cloud_agent.git import Git
from cloud_agent.merge import conflict_name, merge_trees
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import gitkit

DASHBOARD = "# Dashboard\n\n{mine}\n\n## Updates\n\n{updates}\n\n## Links\n\n{links}\n"


class Three:
    """Base, ours and theirs of one repository."""

    def __init__(self, folder: Path, agent: str = "cloud") -> None:
        self.folder = folder
        folder.mkdir()
        gitkit.git(folder, "init", "-q", "--initial-branch=main")
        self.git = Git(folder, agent)
        self.number = 0

    def commit(self, files: dict[str, str | bytes], parent: str | None = None) -> str:
        """A commit of just these files, made beside the working tree."""
        self.number += 1
        index = str(self.folder / ".git" / f"made-{self.number}")
        for path, content in files.items():
            data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
            oid = self.git.run("hash-object", "-w", "--stdin", stdin=data).strip()
            entry = f"100644 {oid}\t{path}\0".encode("utf-8", "surrogateescape")
            self.git.run("update-index", "-z", "--index-info", stdin=entry, index=index)
        tree = self.git.run("write-tree", index=index).strip() if files else gitkit.git(
            self.folder, "hash-object", "-w", "-t", "tree", "--stdin", stdin=""
        )  # fmt: skip
        return self.git.run("commit-tree", tree, *(["-p", parent] if parent else []), "-m", "x").strip()

    def merge(
        self,
        base: dict[str, str | bytes] | None,
        ours: dict[str, str | bytes],
        theirs: dict[str, str | bytes],
    ) -> dict[str, str]:
        root = self.commit(base) if base is not None else None
        return self.join(root, self.commit(ours, root), self.commit(theirs, root))

    def join(self, base: str | None, ours: str, theirs: str) -> dict[str, str]:
        merged = gitkit.tree(self.folder, merge_trees(self.git, base, ours, theirs))
        assert [path.name for path in self.folder.iterdir()] == [".git"], "the working tree was touched"
        for text in merged.values():
            assert not any(line.startswith(gitkit.MARKERS) for line in text.splitlines())
        return merged

    def copy(self, path: str, content: str | bytes, agent: str = "cloud") -> str:
        data = content if isinstance(content, bytes) else content.encode()
        return conflict_name(path, agent, self.git.run("hash-object", "--stdin", stdin=data).strip())


@pytest.fixture
def three(tmp_path: Path) -> Three:
    return Three(tmp_path / "repository")


LINES = "one\ntwo\nthree\nfour\nfive\n"
FIRST, LAST = LINES.replace("one", "ONE"), LINES.replace("five", "FIVE")
BOTH = FIRST.replace("five", "FIVE")


def test_one_side_changed(three: Three) -> None:
    merged = three.merge(
        {"a.md": "a", "b.md": "b", "c.md": "c", "d.md": "d"},
        {"a.md": "A", "b.md": "b", "d.md": "d", "new-ours.md": "1"},
        {"a.md": "a", "b.md": "B", "c.md": "c", "new-theirs.md": "2"},
    )
    assert merged == {"a.md": "A", "b.md": "B", "new-ours.md": "1", "new-theirs.md": "2"}


def test_same_change(three: Three) -> None:
    assert three.merge({"a.md": "a"}, {"a.md": "b"}, {"a.md": "b"}) == {"a.md": "b"}
    assert three.merge({"a.md": "a"}, {}, {}) == {}


def test_modified_beats_deleted_either_way_round(three: Three) -> None:
    assert three.merge({"a.md": "a"}, {}, {"a.md": "A"}) == {"a.md": "A"}
    assert three.merge({"a.md": "a"}, {"a.md": "A"}, {}) == {"a.md": "A"}


def test_three_way(three: Three) -> None:
    assert three.merge({"a.md": LINES}, {"a.md": FIRST}, {"a.md": LAST}) == {"a.md": BOTH}


def test_clash_keeps_both(three: Three) -> None:
    ours, theirs = LINES.replace("two", "ours"), LINES.replace("two", "theirs")
    merged = three.merge({"a.md": LINES}, {"a.md": ours}, {"a.md": theirs})
    assert merged == {"a.md": theirs, three.copy("a.md", ours): ours}


def test_both_added(three: Three) -> None:
    assert three.merge({}, {"a.md": "x\n"}, {"a.md": "y\n"}) == {"a.md": "y\n", three.copy("a.md", "x\n"): "x\n"}


def test_no_common_base(three: Three) -> None:
    merged = three.merge(None, {"a.md": "x\n", "same.md": "s"}, {"a.md": "y\n", "same.md": "s", "b.md": "b"})
    assert merged == {"a.md": "y\n", three.copy("a.md", "x\n"): "x\n", "same.md": "s", "b.md": "b"}


def test_binary_keeps_both(three: Three) -> None:
    merged = three.merge({"a.canvas": b"\0one\n"}, {"a.canvas": b"\0two\n"}, {"a.canvas": b"\0one\nmore\n"})
    assert merged == {"a.canvas": "\0one\nmore\n", three.copy("a.canvas", b"\0two\n"): "\0two\n"}


def test_line_endings_are_kept(three: Three) -> None:
    crlf = LINES.replace("\n", "\r\n")
    merged = three.merge({"a.md": crlf}, {"a.md": crlf.replace("one", "ONE")}, {"a.md": crlf.replace("five", "FIVE")})
    assert merged == {"a.md": BOTH.replace("\n", "\r\n")}


def test_dashboard_by_section(three: Three) -> None:
    merged = three.merge(
        {"Dashboard.md": DASHBOARD.format(mine="a", updates="- old", links="l")},
        {"Dashboard.md": DASHBOARD.format(mine="a", updates="- new\n- old", links="l")},
        {"Dashboard.md": DASHBOARD.format(mine="b", updates="- touched", links="L")},
    )
    assert merged == {"Dashboard.md": DASHBOARD.format(mine="b", updates="- new\n- old", links="L")}


def test_dashboard_by_section_on_the_laptop(tmp_path: Path) -> None:
    """Local's agent merges to the same: `## Updates` is the other side's there."""
    merged = Three(tmp_path / "repository", "local").merge(
        {"Dashboard.md": DASHBOARD.format(mine="a", updates="- old", links="l")},
        {"Dashboard.md": DASHBOARD.format(mine="b", updates="- touched", links="L")},
        {"Dashboard.md": DASHBOARD.format(mine="a", updates="- new\n- old", links="l")},
    )
    assert merged == {"Dashboard.md": DASHBOARD.format(mine="b", updates="- new\n- old", links="L")}


def test_logs_by_union(three: Three) -> None:
    path = "Logs/Cloud/audit.jsonl"
    merged = three.merge({path: "0\n"}, {path: "0\nours\n"}, {path: "0\ntheirs\n"})[path]
    assert sorted(merged.splitlines()) == ["0", "ours", "theirs"]
    added = three.merge({}, {path: "head\nours"}, {path: "head\ntheirs"})[path]
    assert set(added.splitlines()) == {"head", "ours", "theirs"}


@pytest.mark.parametrize("swap", [False, True])
def test_file_against_folder(three: Three, swap: bool) -> None:
    file: dict[str, str | bytes] = {"a.md": "file\n"}
    folder: dict[str, str | bytes] = {"a.md/b.md": "inside\n"}
    merged = three.merge({}, *((folder, file) if swap else (file, folder)))
    assert merged == {"a.md/b.md": "inside\n", three.copy("a.md", "file\n"): "file\n"}


def test_changed_file_against_folder_in_its_place(three: Three) -> None:
    merged = three.merge({"a.md": "1\n"}, {"a.md": "2\n"}, {"a.md/deep/b.md": "x\n"})
    assert merged == {"a.md/deep/b.md": "x\n", three.copy("a.md", "2\n"): "2\n"}


def test_moved_and_edited(three: Three) -> None:
    """A person's move wins; the other side's edit stays under the old name rather than being lost."""
    merged = three.merge({"Inbox/a.md": "a\n"}, {"Done/a.md": "a\n"}, {"Inbox/a.md": "edited\n"})
    assert merged == {"Done/a.md": "a\n", "Inbox/a.md": "edited\n"}


def test_odd_names(three: Three) -> None:
    names = ["-dash.md", "a\nb.md", "q\"uo'te.md", "st*r?.md", ":(top)x.md", "naïve ü.md", "caf\udce9.md"]
    merged = three.merge(dict.fromkeys(names, LINES), dict.fromkeys(names, FIRST), dict.fromkeys(names, LAST))
    assert merged == dict.fromkeys(names, BOTH)


def test_copy_of_a_copy_keeps_one_marker() -> None:
    name = conflict_name("Inbox/a.md", "cloud", "1" * 40)
    assert name == "Inbox/a.conflict-cloud-1111111111.md"
    assert conflict_name(name, "local", "2" * 40) == "Inbox/a.conflict-local-2222222222.md"


@pytest.mark.parametrize("letter", ["a", "ü", "字"])
def test_copy_of_a_long_name_fits_on_disk(letter: str) -> None:
    stem = letter * (252 // len(letter.encode()))
    name = conflict_name(f"Inbox/{stem}.md", "cloud", "1" * 40)
    assert 240 < len(name.removeprefix("Inbox/").encode()) <= 255
    assert name.endswith(".conflict-cloud-1111111111.md")


def test_a_copy_that_was_edited_is_not_overwritten(three: Three) -> None:
    copy = three.copy("a.md", "mine\n")
    base: dict[str, str | bytes] = {"a.md": "0\n", copy: "edited by a person\n"}
    merged = three.merge(base, {**base, "a.md": "mine\n"}, {**base, "a.md": "theirs\n"})
    assert merged[copy] == "edited by a person\n"
    assert merged["a.md"] == "theirs\n"
    assert "mine\n" in merged.values()


def test_two_resolvers_come_together(three: Three) -> None:
    """Both sides resolve the same clash, each in its own way; joining that loses nothing and clashes no more."""
    base = three.commit({"a.md": LINES})
    ours, theirs = three.commit({"a.md": "ours\n"}, base), three.commit({"a.md": "theirs\n"}, base)
    here = three.commit(dict(three.join(base, ours, theirs)), ours)
    there = three.commit(dict(three.join(base, theirs, ours)), theirs)
    joined = three.join(ours, here, there)
    assert set(joined.values()) >= {"ours\n", "theirs\n"}
    assert joined == three.join(ours, there, here)


NAMES = ["a.md", "a.md/b.md", "Logs/x.md", "Inbox/n.md", "Dashboard.md"]
TEXTS = ["1\n2\n3\n", "1\n2\n4\n", "0\n2\n3\n", "new\n", "no end", "\0binary\n", ""]


def vaults() -> st.SearchStrategy[dict[str, str | bytes]]:
    files = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(TEXTS), max_size=4)
    return files.map(lambda found: {k: v for k, v in found.items() if k != "a.md" or "a.md/b.md" not in found})


@settings(max_examples=25, deadline=None)
@given(st.one_of(st.none(), vaults()), vaults(), vaults())
def test_any_three_vaults_merge(
    tmp_path_factory: pytest.TempPathFactory,
    base: dict[str, str | bytes] | None,
    ours: dict[str, str | bytes],
    theirs: dict[str, str | bytes],
) -> None:
    """Every line that a side added is somewhere in the result, and a merge never fails."""
    merged = Three(tmp_path_factory.mktemp("any") / "repository").merge(base, ours, theirs)
    everything = "\n".join(merged.values()).splitlines()
    for side in (ours, theirs):
        for path, content in side.items():
            if path == "Dashboard.md":
                continue  # there the sections decide
            before = (base or {}).get(path, "")
            assert isinstance(content, str)
            assert isinstance(before, str)
            for line in set(content.splitlines()) - set(before.splitlines()):
                assert line in everything, f"{line!r} of {path} is lost"
