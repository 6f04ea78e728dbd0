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


# Cloud's own section holds entries, and `plain` lets no fence into them.
CLOUDS = st.lists(st.sampled_from(["## Updates", "# H", "- x", "text", ""]), max_size=12)


@given(CLOUDS, LINES)
def test_merge_takes_clouds_section_and_locals_rest(cloud: list[str], local: list[str]) -> None:
    merged = dashboard.merge("\n".join(cloud), "\n".join(local))
    before, section, after = dashboard.split(merged)
    assert section == dashboard.split("\n".join(cloud))[1]
    assert (before, after) == (
        dashboard.split("\n".join(local))[0] or "# Dashboard",
        dashboard.split("\n".join(local))[2],
    )


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
