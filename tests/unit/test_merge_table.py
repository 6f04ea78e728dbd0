"""What the join decides without a repository: which file moved where, what meets at a path, what copies are called."""

from __future__ import annotations

import pytest
from cloud_agent import merge
from cloud_agent.merge import Blob, Edit, Edits, Undecided, Versions
from hypothesis import given
from hypothesis import strategies as st


def text(oid: str) -> Blob:
    return Blob("100644", oid)


def edits(**sides: tuple[str | None, str | None]) -> Edits:
    """By path (`_` for `/`): the content before and after."""
    return {
        path.replace("_", "/"): Edit(text(before) if before else None, text(after) if after else None)
        for path, (before, after) in sides.items()
    }


EDITED = edits(a_n=("1", "2"))


@pytest.mark.parametrize(
    ("mine", "expected"),
    [
        (edits(a_n=("1", None), b_m=(None, "1")), {"a/n": "b/m"}),
        (edits(a_n=("1", None), b_n=(None, "7")), {"a/n": "b/n"}),
        (edits(a_n=("1", None), a_N=(None, "7")), {"a/n": "a/N"}),
        (edits(a_n=("1", None), b_m=(None, "7")), {}),
        (edits(a_n=("1", None), b_m=(None, "1"), b_n=(None, "7")), {"a/n": "b/m"}),
        (edits(a_n=("1", None), b_m=(None, "1"), b_n=(None, "1")), {"a/n": "b/n"}),
        (edits(a_n=("1", None), b_m=(None, "1"), c_m=(None, "1")), {}),
        (edits(a_n=("1", None), b_n=(None, "1"), c_a_n=(None, "1")), {"a/n": "c/a/n"}),
        (edits(a_n=("1", None), x_o=("1", None), b_m=(None, "1")), {}),
        (edits(a_n=("1", None), x_m=("1", None), b_m=(None, "1")), {}),
        (edits(a_n=("1", None), x_n=("7", None), b_x_n=(None, "8")), {}),
        (edits(a_n=("1", None), b_n=("9", "1")), {}),
        (edits(a_n=("1", "3"), b_n=(None, "1")), {}),
        (edits(b_m=("5", None), c_m=(None, "5")), {}),
    ],
    ids=[
        "the same content",
        "the same name",
        "the same name in other case",
        "neither",
        "content before name",
        "both before one",
        "two as near",
        "the nearer folder",
        "two sources as near",
        "the target is nearer to another source",
        "the same name, nearer to another source",
        "onto a file that was there",
        "copied, not moved",
        "the other side did not touch it",
    ],
)
def test_moves(mine: Edits, expected: merge.Moves) -> None:
    assert merge.moves(mine, EDITED) == expected


@pytest.mark.parametrize("blob", [Blob("100644", merge.EMPTY_FILE), Blob("120000", "1"), Blob("160000", "1")])
def test_only_files_with_content_move(blob: Blob) -> None:
    assert merge.moves({"a/n": Edit(blob, None), "b/n": Edit(None, blob)}, EDITED) == {}


def test_with_too_many_alike_nothing_was_moved() -> None:
    many = {f"{number}/n": Edit(None, text("1")) for number in range(merge.RENAME_LIMIT + 1)}
    assert merge.moves({"a/n": Edit(text("1"), None), **many}, EDITED) == {}


MOVED = {"a/n": "b/n"}


@pytest.mark.parametrize(
    ("mine", "other", "our_moves", "their_moves", "expected"),
    [
        (
            edits(a_n=("1", None), b_n=(None, "1")),
            edits(a_n=("1", "2")),
            MOVED,
            {},
            {"b/n": Versions(text("1"), text("1"), text("2"))},
        ),
        (
            edits(a_n=("1", "2")),
            edits(a_n=("1", None), b_n=(None, "3")),
            {},
            MOVED,
            {"b/n": Versions(text("1"), text("2"), text("3"))},
        ),
        (
            edits(a_n=("1", None), b_n=(None, "2")),
            edits(a_n=("1", None), b_n=(None, "3")),
            MOVED,
            MOVED,
            {"b/n": Versions(text("1"), text("2"), text("3"))},
        ),
        (
            edits(a_n=("1", None), b_n=(None, "2")),
            edits(a_n=("1", None), c_n=(None, "3")),
            MOVED,
            {"a/n": "c/n"},
            {"c/n": Versions(text("1"), text("2"), text("3"))},
        ),
        (
            edits(a_n=("1", None), b_n=(None, "1")),
            edits(a_n=("1", "2"), b_n=(None, "9")),
            MOVED,
            {},
            {"a/n": Versions(text("1"), None, text("2")), "b/n": Versions(None, text("1"), text("9"))},
        ),
        (
            edits(a_n=("1", None), b_n=(None, "1")),
            edits(a_n=("1", None)),
            MOVED,
            {},
            {"a/n": Versions(text("1"), None, None), "b/n": Versions(None, text("1"), None)},
        ),
    ],
    ids=["moved, changed", "changed, moved", "both to one place", "to two places", "taken", "moved, deleted"],
)
def test_what_meets_where(
    mine: Edits, other: Edits, our_moves: merge.Moves, their_moves: merge.Moves, expected: dict[str, Versions]
) -> None:
    met = merge.meet(mine, other, our_moves, their_moves, person_is_ours=False)
    assert {path: found for path, found in met.items() if found != Versions(None, None, None)} == expected


def test_moved_to_two_places_the_persons_wins() -> None:
    sides = edits(a_n=("1", None), b_n=(None, "1")), edits(a_n=("1", None), c_n=(None, "1"))
    for person_is_ours, place in ((True, "b/n"), (False, "c/n")):
        met = merge.meet(*sides, MOVED, {"a/n": "c/n"}, person_is_ours=person_is_ours)
        assert [path for path, found in met.items() if merge.settle(found)] == [place]


FILE, OTHER, THIRD = text("1"), text("2"), text("3")
EMPTY, RUN, LINK = text(merge.EMPTY_FILE), Blob("100755", "1"), Blob("120000", "4")


@pytest.mark.parametrize(
    ("base", "one", "another", "expected"),
    [
        (FILE, FILE, OTHER, OTHER),
        (FILE, FILE, None, None),
        (FILE, OTHER, OTHER, OTHER),
        (FILE, None, None, None),
        (FILE, None, OTHER, OTHER),
        (None, None, OTHER, OTHER),
        (FILE, OTHER, THIRD, Undecided("100644")),
        (FILE, RUN, OTHER, Blob("100755", "2")),
        (RUN, FILE, Blob("100755", "2"), OTHER),
        (FILE, EMPTY, OTHER, OTHER),
        (FILE, EMPTY, FILE, EMPTY),
        (FILE, EMPTY, RUN, Blob("100755", merge.EMPTY_FILE)),
        (None, EMPTY, OTHER, OTHER),
        (LINK, FILE, OTHER, Undecided("100644")),
        (LINK, LINK, None, None),
        (LINK, None, OTHER, OTHER),
    ],
)
def test_settle_either_way_round(base: Blob | None, one: Blob | None, another: Blob | None, expected: object) -> None:
    assert merge.settle(Versions(base, one, another)) == expected
    assert merge.settle(Versions(base, another, one)) == expected


BLOBS = st.sampled_from([None, FILE, OTHER, EMPTY, RUN, LINK])


@given(BLOBS, BLOBS, BLOBS)
def test_settle_takes_nothing_from_nowhere(base: Blob | None, ours: Blob | None, theirs: Blob | None) -> None:
    """What a side changed stays: the result is a side's, or both have a say."""
    found = merge.settle(Versions(base, ours, theirs))
    if isinstance(found, Undecided):
        assert ours != theirs
        assert base not in (ours, theirs)
    elif found is None:
        assert None in (ours, theirs)
        assert base in (ours, theirs) or ours == theirs
    else:
        assert found.oid in {blob.oid for blob in (ours, theirs) if blob}


def test_a_copys_name() -> None:
    name = merge.conflict_name("Inbox/a.md", "cloud", "1" * 40)
    assert name == "Inbox/a.conflict-cloud-1111111111.md"
    assert merge.conflict_name(name, "local", "2" * 40) == "Inbox/a.conflict-local-2222222222.md"
    assert merge.conflict_name("my.conflict-notes.md", "cloud", "1" * 40) == (
        "my.conflict-notes.conflict-cloud-1111111111.md"
    )
    assert merge.conflict_name(".hidden", "cloud", "1" * 40) == ".hidden.conflict-cloud-1111111111"
    assert merge.conflict_name("Makefile", "cloud", "1" * 40) == "Makefile.conflict-cloud-1111111111"


def test_a_copy_of_what_was_approved_waits_for_a_decision() -> None:
    """Beside it, it would be approved."""
    name = merge.conflict_name("Approved/Email/d.md", "local", "1" * 40)
    assert name == "Pending_Approval/Email/d.conflict-local-1111111111.md"
    assert merge.conflict_name("Approved/d.md", "local", "1" * 40) == "Pending_Approval/d.conflict-local-1111111111.md"
    assert merge.conflict_name("Approved.md", "local", "1" * 40) == "Approved.conflict-local-1111111111.md"
    assert merge.conflict_name("Approved2/d.md", "local", "1" * 40) == "Approved2/d.conflict-local-1111111111.md"


@pytest.mark.parametrize("letter", ["a", "ü", "字", "\udcff"])
@pytest.mark.parametrize("suffix", [".md", "", "." + "s" * 200])
def test_a_copy_of_a_long_name_fits_on_disk(letter: str, suffix: str) -> None:
    stem = letter * ((255 - len(suffix)) // len(letter.encode("utf-8", "surrogateescape")))
    name = merge.conflict_name(f"Inbox/{stem}{suffix}", "cloud", "1" * 40)
    assert 240 < len(name.removeprefix("Inbox/").encode("utf-8", "surrogateescape")) <= 255
    assert ".conflict-cloud-1111111111" in name
    assert merge._is_copy_of(name.removeprefix("Inbox/"), f"Inbox/{stem}{suffix}")


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=90).filter(
        lambda name: name not in (".", "..")
    ),
    st.sampled_from(["cloud", "local", "cloud-2", "a" * 32]),
    st.text("0123456789abcdef", min_size=40, max_size=40),
)
def test_a_copy_knows_its_file(name: str, agent: str, oid: str) -> None:
    copy = merge.conflict_name(f"in/{name}", agent, oid).removeprefix("in/")
    assert merge._is_copy_of(copy, f"in/{name}")
    assert merge._is_copy_of(copy, f"in/{copy}"), "a copy is a copy of its siblings"
    assert len(copy.encode("utf-8", "surrogateescape")) <= merge.LONGEST_NAME


TEMPLATE = b"".join(b"line %d of it\n" % number for number in range(10))


@pytest.mark.parametrize(
    ("one", "another", "similar"),
    [
        (TEMPLATE, TEMPLATE, True),
        (TEMPLATE, TEMPLATE.replace(b"\n", b"\r\n"), True),
        (TEMPLATE, TEMPLATE + TEMPLATE, True),
        (TEMPLATE, TEMPLATE * 3, False),
        (TEMPLATE, TEMPLATE[: len(TEMPLATE) // 2 + 20], True),
        (TEMPLATE, TEMPLATE[: len(TEMPLATE) // 3], False),
        (b"a\n", b"b\n", False),
        (None, TEMPLATE, False),
    ],
)
def test_similar_either_way_round(one: bytes | None, another: bytes | None, similar: bool) -> None:
    assert merge.are_similar(one, another) == similar
    assert merge.are_similar(another, one) == similar
