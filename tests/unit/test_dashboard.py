"""The Dashboard: one section is Cloud's, nothing else is touched."""

from __future__ import annotations

import pytest
from cloud_agent import dashboard
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import DASHBOARD

MINE = "# Dashboard\n\nMy own words.\n\n```\n## Updates\nnot the heading\n```\n"


def test_newest_first_below_the_heading() -> None:
    text = dashboard.add_entries(dashboard.add_entries(DASHBOARD, ["one"]), ["two", "three"])
    assert text == "# Dashboard\n\nMy own words.\n\n## Updates\n\n- three\n- two\n- one\n"


def test_bounded_length() -> None:
    text = DASHBOARD
    for number in range(dashboard.MAX_ENTRIES + 20):
        text = dashboard.add_entries(text, [f"entry {number}"])
    assert text.count("\n- ") == dashboard.MAX_ENTRIES
    assert "- entry 69\n" in text
    assert "- entry 19\n" not in text


def test_an_entry_is_told_once() -> None:
    once = dashboard.add_entries(DASHBOARD, ["one"])
    assert dashboard.add_entries(once, ["one"]) == once


def test_what_comes_after_stays_after() -> None:
    text = dashboard.add_entries("# D\n\n## Updates\n\n- old\n\n### Sub\n\n## Mine\n\n- my list\n", ["new"])
    assert text.endswith("\n\n## Mine\n\n- my list\n")
    assert text.index("- new") < text.index("- old") < text.index("## Mine")


def test_a_heading_in_a_code_block_is_text() -> None:
    text = dashboard.add_entries(MINE, ["new"])
    assert text.startswith(MINE.rstrip())
    assert text.endswith("```\n\n## Updates\n\n- new\n")


@pytest.mark.parametrize("text", ["", "# D\n\n```\nnever closed\n", "# D\n\n```\nnever closed\n\n## Updates\n"])
def test_there_is_one_section_however_often_it_is_written(text: str) -> None:
    for entry in ("one", "two", "three"):
        text = dashboard.add_entries(text, [entry])
    assert text.count("## Updates") == 1
    assert text.endswith("## Updates\n\n- three\n- two\n- one\n")


def test_windows_line_ends_stay() -> None:
    text = dashboard.add_entries(DASHBOARD.replace("\n", "\r\n"), ["one"])
    assert text == dashboard.add_entries(DASHBOARD, ["one"]).replace("\n", "\r\n")


LINES = st.lists(st.sampled_from(["## Updates", "# H", "## H", "- x", "text", "```", "~~~", "", "> q"]), max_size=12)


@given(LINES, st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3))
def test_everything_outside_the_section_stays(lines: list[str], entries: list[str]) -> None:
    text = "\n".join(lines)
    before, _, after = dashboard.split(text)
    changed = dashboard.add_entries(text, entries)
    now_before, section, now_after = dashboard.split(changed)
    assert now_before.rstrip("\n") == (before or "# Dashboard").rstrip("\n")
    assert now_after == after
    assert section.split("\n- ")[0].endswith(entries[-1]) or f"- {entries[-1]}" in section


NOTE = "# Dashboard\n\n{}\n\n## Updates\n\n{}\n\n## Links\n\n{}\n"


def entry(minute: int, word: str = "") -> str:
    return f"- 2026-02-16T10:{minute:02}:00Z entry {minute}{word}"


def note(*minutes: int, before: str = "b", after: str = "a") -> str:
    return NOTE.format(before, "\n".join(map(entry, minutes)), after)


def test_entries_of_all_agents_are_united_newest_first() -> None:
    assert dashboard.merge(note(1), note(4, 2, 1), note(3, 1)) == note(4, 3, 2, 1)
    assert dashboard.merge(None, note(4, 2), note(3, 2)) == note(4, 3, 2)


def test_an_entry_that_a_side_removed_stays_removed() -> None:
    assert dashboard.merge(note(3, 2, 1), note(4, 3, 2), note(5, 3, 2, 1)) == note(5, 4, 3, 2)
    assert dashboard.merge(note(3, 2, 1), note(4, 3, 2, 1), note(3)) == note(4, 3)


def test_united_entries_are_bounded() -> None:
    old = range(dashboard.MAX_ENTRIES, 0, -1)
    merged = dashboard.merge(None, note(*old), note(59, 58, 57))
    assert merged == note(59, 58, 57, *range(dashboard.MAX_ENTRIES, 3, -1))


@pytest.mark.parametrize("swap", [False, True])
def test_the_rest_is_of_the_side_that_changed_it(swap: bool) -> None:
    one, another = note(2, 1, before="B"), note(3, 1, after="A")
    cloud, local = (another, one) if swap else (one, another)
    assert dashboard.merge(note(1), cloud, local) == note(3, 2, 1, before="B", after="A")


def test_the_rest_is_locals_where_both_changed_it() -> None:
    merged = dashboard.merge(note(1), note(2, 1, before="x", after="x"), note(1, before="y", after="y"))
    assert merged == note(2, 1, before="y", after="y")


def test_other_lines_of_the_section() -> None:
    """Kept from the side that changed them; both: Cloud's. Those above the entries stay above them."""
    base, added = "Prose.", f"Prose.\n\n{entry(1)}"
    mine = f"My prose.\n\n{entry(2)}\n- [ ] mine"
    assert dashboard.merge(NOTE.format("b", base, "a"), NOTE.format("b", added, "a"), NOTE.format("b", mine, "a")) == (
        NOTE.format("b", f"Prose.\n\n{entry(2)}\n{entry(1)}", "a")
    )
    assert dashboard.merge(NOTE.format("b", added, "a"), NOTE.format("b", added, "c"), NOTE.format("b", mine, "a")) == (
        NOTE.format("b", f"My prose.\n\n{entry(2)}\n- [ ] mine", "c")
    )


@pytest.mark.parametrize("swap", [False, True])
def test_windows_line_ends_merge(swap: bool) -> None:
    sides = note(2, 1).replace("\n", "\r\n"), note(1, before="B")
    merged = dashboard.merge(note(1), *(reversed(sides) if swap else sides))
    assert merged == note(2, 1, before="B").replace("\n", "\r\n")
    assert dashboard.merge(note(1).replace("\n", "\r\n"), note(2, 1), note(1, before="B")) == note(2, 1, before="B")
    assert dashboard.merge(None, note(1).replace("\n", "\r\n"), note(2)) == note(2, 1)


BARE = "# Dashboard\n\nb\n"


def test_the_heading_is_missing_on_locals_side() -> None:
    """A side without the heading says nothing about the section; its own text is whole."""
    assert dashboard.merge(note(1), note(2, 1), BARE + "\nmine\n") == (
        f"# Dashboard\n\nb\n\nmine\n\n## Updates\n\n{entry(2)}\n{entry(1)}\n"
    )


def test_the_heading_is_missing_on_clouds_side() -> None:
    assert dashboard.merge(note(1), BARE, note(2, 1, before="B")) == note(2, 1, before="B")
    assert dashboard.merge(note(1), "", note(2, 1)) == note(2, 1).replace("# Dashboard\n\nb", "# Dashboard").replace(
        "\n\n## Links\n\na", ""
    ), "only Cloud changed the rest"


def test_the_heading_came_on_clouds_side() -> None:
    cloud = dashboard.add_entries(BARE, [entry(1).removeprefix("- ")])
    assert dashboard.merge(BARE, cloud, BARE + "\nmore\n") == f"{BARE}\nmore\n\n## Updates\n\n{entry(1)}\n"


def test_the_heading_is_missing_everywhere() -> None:
    assert dashboard.merge(None, "cloud\n", "local\n") == "local\n\n## Updates\n"


def test_a_fence_of_one_version_does_not_swallow_the_heading() -> None:
    """Each version alone has an open fence that hides nothing; put together, they would hide the heading."""
    base = note(1)
    cloud, local = note(2, 1, after="```\nopen"), note(1, before="```\nopen")
    merged = dashboard.merge(base, cloud, local)
    assert dashboard.split(merged)[1].split("\n") == [entry(2), entry(1)]
    assert dashboard.split(merged)[0] == dashboard.split(local)[0]


ANY = st.one_of(
    LINES,
    st.lists(st.sampled_from(["## Updates", "# H", *map(entry, range(5)), "- x", "text", "```", ""]), max_size=12),
)


@given(st.none() | ANY, ANY, ANY)
def test_merge_of_any_three(base: list[str] | None, cloud: list[str], local: list[str]) -> None:
    """One section; each entry once, newest first, none that came is lost; Local's rest where Local changed it."""
    was = "\n".join(base) if base is not None else None
    here, there = "\n".join(cloud), "\n".join(local)
    merged = dashboard.merge(was, here, there)
    before, section, after = dashboard.split(merged)

    def entries(text: str) -> list[str]:
        return [line for line in dashboard.split(text)[1].split("\n") if line.startswith("- 2026")]

    found = entries(merged)
    assert found == sorted(set(found), reverse=True)
    assert (set(entries(here)) | set(entries(there))) - set(entries(was or "")) <= set(found)
    locals_before, _, locals_after = dashboard.split(there)
    old = dashboard.split(was) if was is not None else (None, "", None)
    moved = [part for part in old[::2] if part] == [part for part in (locals_before, locals_after) if part]
    if old[0] != locals_before and old[2] != locals_after and not moved:
        assert (before, after) == (locals_before or dashboard.TITLE, locals_after)
    assert dashboard.merge(merged, merged, merged) == merged or section == ""
    assert dashboard.merge(was, here, there) == merged


@given(ANY, ANY)
def test_what_one_side_alone_changed_is_taken(base: list[str], changed: list[str]) -> None:
    was, now = "\n".join(base), "\n".join(changed)
    for cloud, local in ((was, now), (now, was)):
        before, section, after = dashboard.split(dashboard.merge(was, cloud, local))
        if "## Updates" in changed and "## Updates" in base and "```" not in [*base, *changed]:
            assert (before, after) == (dashboard.split(now)[0] or dashboard.TITLE, dashboard.split(now)[2])
            others = [line for line in dashboard.split(now)[1].split("\n") if not line.startswith("- 2026")]
            assert [line for line in section.split("\n") if not line.startswith("- 2026") and line] == [
                *filter(None, others)
            ]


@pytest.mark.parametrize(
    "text", ["![x](http://evil)", "[[note]]", "![[embed]]", "`= dv`", "<img src=x>", "#tag", "a\nb"]
)
def test_words_of_a_mail_are_plain(text: str) -> None:
    plain = dashboard.plain(text)
    assert "\n" not in plain
    assert not any(live in plain.replace("\\!", "").replace("\\[", "") for live in ("![", "[[", "://"))
    assert "\\" in plain or text == "a\nb"


def test_long_words_of_a_mail_are_cut() -> None:
    assert len(dashboard.plain("a" * 500)) == 120
