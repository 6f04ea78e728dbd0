"""The Dashboard: one section is Cloud's, nothing else is touched."""

from __future__ import annotations

from datetime import date
from typing import Any

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


SPENDS = [
    dashboard.spend_line("cloud", date(2026, 11, day), today, 1.0) for day, today in ((23, 0.0), (23, 0.5), (24, 0.1))
] + [dashboard.spend_line("cloud-2", date(2026, 11, 23), 0.25, 0.25)]
ANY = st.one_of(
    LINES,
    st.lists(st.sampled_from(["## Updates", "# H", *map(entry, range(5)), "- x", "text", "```", ""]), max_size=12),
    st.lists(st.sampled_from(["## Updates", entry(1), "- x", "text", "", *SPENDS]), max_size=10),
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
            others, expected = (
                [line for line in text.split("\n") if line and not line.startswith(("- 2026", "Claude: "))]
                for text in (section, dashboard.split(now)[1])
            )
            assert others == expected


# -- what Claude costs -------------------------------------------------------------------------------------------------


def spend(agent: str, day: int, today: float = 0.0312, **more: Any) -> str:
    return dashboard.spend_line(agent, date(2026, 11, day), today, 0.41, **more)


def sheet(*lines: str) -> str:
    return "# D\n\nb\n\n## Updates\n\n" + "".join(f"{line}\n" for line in lines) + "\n## Links\n\na\n"


OURS, OURS_NEXT, OTHERS, OTHERS_NEXT = (spend(agent, day) for agent in ("cloud", "cloud-2") for day in (23, 24))


def test_spend_line() -> None:
    assert spend("cloud", 23, day_budget=2) == (
        "Claude: $0.0312 today, $0.41 this week (cloud, 2026-11-23); budget $2.00 a day"
    )
    assert spend("cloud", 23, 12.5, unpriced=1, week_budget=10.0, day_budget=0.05) == (
        "Claude: $12.50 today, $0.41 this week (cloud, 2026-11-23); budget $0.0500 a day, $10.00 a week; "
        "1 call of unknown cost"
    )
    assert spend("cloud", 23, 0.0, unpriced=2) == (
        "Claude: $0.00 today, $0.41 this week (cloud, 2026-11-23); 2 calls of unknown cost"
    )


def test_spend_is_one_line_an_agent_at_the_top_and_is_replaced_in_place() -> None:
    text = dashboard.set_spend(sheet("Prose.", entry(1)), OURS)
    assert text == sheet(OURS, "Prose.", entry(1))
    text = dashboard.set_spend(text, OTHERS)
    assert text == sheet(OTHERS, OURS, "Prose.", entry(1))
    text = dashboard.set_spend(text, OURS_NEXT)
    assert text == sheet(OTHERS, OURS_NEXT, "Prose.", entry(1))
    assert dashboard.set_spend(text, OURS_NEXT) == text
    moved = sheet("Prose.", OURS, entry(1), OURS)
    assert dashboard.set_spend(moved, OURS_NEXT) == sheet("Prose.", OURS_NEXT, entry(1))
    told = dashboard.add_entries(sheet(OTHERS, OURS, entry(1)), [entry(2).removeprefix("- ")])
    assert told == sheet(OTHERS, OURS, entry(2), entry(1))


def test_spend_where_there_is_no_section_and_with_windows_line_ends() -> None:
    assert dashboard.set_spend("", OURS) == f"# Dashboard\n\n## Updates\n\n{OURS}\n"
    assert dashboard.set_spend(sheet(entry(1)).replace("\n", "\r\n"), OURS) == sheet(OURS, entry(1)).replace(
        "\n", "\r\n"
    )


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("swap", [False, True])
def test_each_agents_spend_merges_to_its_newest(swap: bool, ends: str) -> None:
    base = sheet(OURS, OTHERS, entry(1))
    one, another = sheet(OURS_NEXT, OTHERS, entry(2), entry(1)), sheet(OURS, OTHERS_NEXT, entry(1)).replace("\n", ends)
    cloud, local = (another, one) if swap else (one, another)
    merged = dashboard.merge(base, cloud, local)
    assert merged == sheet(OURS_NEXT, OTHERS_NEXT, entry(2), entry(1)).replace("\n", ends)
    assert dashboard.merge(base, merged, local) == merged
    assert dashboard.merge(base, cloud, merged) == merged
    assert dashboard.merge(cloud, merged, cloud) == merged


@pytest.mark.parametrize(
    ("base", "one", "another", "merged"),
    [
        (None, OURS, OURS_NEXT, OURS_NEXT),
        (None, "", OURS, OURS),
        (OURS, OURS_NEXT, "", OURS_NEXT),
        (OURS, OURS, "", ""),  # a person removed it: its agent writes it again, if it lives
        (OURS_NEXT, OURS_NEXT, OURS, OURS),  # a clock that was set right
        (OURS, OURS_NEXT, spend("cloud", 24, 0.5), spend("cloud", 24, 0.5)),
        (OURS, OURS_NEXT, spend("cloud", 24, 0.5, unpriced=1), spend("cloud", 24, 0.5, unpriced=1)),
        (None, spend("cloud", 24, 9.5), spend("cloud", 24, 10.5), spend("cloud", 24, 10.5)),
        (OURS, f"{OURS}\n{OURS_NEXT}", OURS, OURS_NEXT),  # never two
    ],
)
def test_spend_of_one_agent_merges(base: str | None, one: str, another: str, merged: str) -> None:
    was = None if base is None else sheet(base)
    for cloud, local in ((one, another), (another, one)):
        found = dashboard.merge(was, sheet(cloud, entry(1)), sheet(local, entry(1)))
        assert found == sheet(*filter(None, [merged]), entry(1))


def test_spend_beside_a_persons_lines_of_the_section() -> None:
    """They are merged by their own rule."""
    base = sheet(OURS, "Prose.", entry(1))
    mine = sheet(OURS, "My prose.", entry(1))
    assert dashboard.merge(base, sheet(OURS_NEXT, "Prose.", entry(1)), mine) == sheet(OURS_NEXT, "My prose.", entry(1))


@given(st.none() | ANY, ANY, ANY)
def test_spend_in_a_merge_of_any_three(base: list[str] | None, cloud: list[str], local: list[str]) -> None:
    was = "\n".join(base) if base is not None else None
    here, there = "\n".join(cloud), "\n".join(local)

    def spends(text: str) -> list[str]:
        return [line for line in dashboard.split(text)[1].split("\n") if line.startswith("Claude: ")]

    found = spends(dashboard.merge(was, here, there))
    agents = [line.split("(")[1].split(",")[0] for line in found]
    assert agents == sorted(set(agents)), "one line an agent"
    assert set(found) <= {*spends(here), *spends(there), *spends(was or "")}
    assert spends(dashboard.merge(was, there, here)) == found, "whoever joins comes to the same"
    new = [line for line in (*spends(here), *spends(there)) if line not in spends(was or "")]
    assert {line.split("(")[1].split(",")[0] for line in new} <= set(agents)


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


def test_words_of_a_mail_turn_no_line_and_set_no_property() -> None:
    assert dashboard.plain("a\u202eb (status:: done)\u200b") == "ab (status: : done)"
