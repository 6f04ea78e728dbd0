"""What calls cost."""

from __future__ import annotations

from datetime import date, datetime

import pytest
from cloud_agent import usage
from cloud_agent.usage import Usage

from tests.helpers import MODEL, NOON

DAY = date(2026, 11, 23)


def test_a_row_in_the_tables_form() -> None:
    row = usage.row(NOON, "cloud", MODEL, Usage(input=1000, output=200), "email_draft")
    assert row == f"| 12:00:00 | cloud | {MODEL} | 1000 | 200 | $0.004000 | email_draft |\n"
    header = usage.header(DAY)
    assert "| Time | Agent | Model | Prompt Tokens | Completion Tokens | Cost (USD) | Task Type |\n" in header
    assert usage.path(DAY) == "Logs/API_Usage/2026-11-23.md"
    assert usage.spent(header + row + row) == pytest.approx(0.008)


def test_cache_tokens_are_prompt_tokens_at_their_own_price() -> None:
    used = Usage(input=1_000_000, output=0, cache_write=1_000_000, cache_read=1_000_000)
    assert used.prompt == 3_000_000
    assert usage.cost(MODEL, used, DAY) == pytest.approx(2.0 * (1 + 1.25 + 0.05))
    assert usage.cost(MODEL, used, date(2026, 10, 6)) == pytest.approx(2.0 * (1 + 1.25 + 0.1))


@pytest.mark.parametrize(
    ("model", "day", "dollars"),
    [
        ("claude-sonnet-5", DAY, 2.0),
        ("claude-sonnet-5", date(2025, 6, 29), None),
        ("claude-haiku-5-5", DAY, 0.5),  # a prompt of more than 100,000 tokens
        ("claude-opus-5-5", DAY, 4.0),
        ("claude-sonnet-5-5-20261001", DAY, 2.0),  # the snapshot that the API names for an alias
        ("claude-nobody", DAY, None),
        ("", DAY, None),
    ],
)
def test_prices_have_dates_and_are_never_guessed(model: str, day: date, dollars: float | None) -> None:
    assert usage.cost(model, Usage(input=1_000_000), day) == dollars


def test_an_unpriced_call_says_so_and_adds_nothing() -> None:
    row = usage.row(NOON, "cloud", "gpt|x", Usage(input=10, output=1), "email_draft")
    assert "| gpt/x | 10 | 1 | unpriced |" in row
    assert usage.spent(row) == 0


def test_a_call_of_unknown_outcome_has_its_row_too() -> None:
    """It is no spending that anybody knows of; a budget counts it at its worst."""
    row = usage.unknown_row(NOON, "cloud", MODEL, 0.0, "email_draft")
    assert row == f"| 12:00:00 | cloud | {MODEL} | ? | ? | unknown | email_draft |\n"
    worst = usage.unknown_row(NOON, "cloud", MODEL, 0.1125, "email_draft")
    assert "| unknown, at most $0.112500 |" in worst
    assert usage.spent(row + worst) == 0
    assert usage.unpriced(row + worst) == 2
    assert usage.at_most(row + worst + worst) == pytest.approx(0.225)
    known = usage.row(NOON, "cloud", MODEL, Usage(output=1_000_000), "email_draft")
    assert usage.at_most_on([DAY, DAY], lambda path: known + worst) == pytest.approx(20.225)


def test_the_calls_without_a_known_cost_are_counted() -> None:
    priced, unpriced = (usage.row(NOON, "cloud", model, Usage(input=9), "t") for model in (MODEL, "claude-nobody"))
    assert usage.unpriced(usage.header(DAY) + priced + unpriced + unpriced) == 2
    assert usage.unpriced_on([DAY, DAY], lambda path: unpriced) == 2
    assert usage.spent_on([DAY, DAY], lambda path: priced) == pytest.approx(2 * usage.spent(priced))
    assert usage.unpriced("") == 0


def test_no_cell_breaks_its_row() -> None:
    row = usage.row(NOON, "cloud", "a\n| b |", Usage(), "t\u2028t")
    assert len(row.splitlines()) == 1
    assert row.count("|") == 8


@pytest.mark.parametrize(
    ("row", "dollars"),
    [
        ("| 12:00:00 | cloud | m | 10 | 2 | $0.5 | t |", 0.5),
        ("|12:00:00|cloud|m|10|2|$0.5|t|", 0.5),
        ("12:00 | cloud | m | 10 | 2 | $0.5 | t", 0.5),  # without outer bars
        ("| 9:15 | cloud |    m | 10 | 2 |  **$0.5** | t | checked |", 0.5),
        ("| 12:00:00 | cloud | m | 10 | 2 | \\$0.5 | t |", 0.5),  # Obsidian users escape the sign of its formulas
        ("| 12:00:00 | cloud | m | 10 | 2 | $0,5 | t |", 0.5),
        ("| 12:00:00 | cloud | m | 10 | 2 | $1,234.5 | t |", 1234.5),
        ("| 12:00:00 | cloud | m | $0.5 | t | $0.7 |", 0.5),  # one cost a row
        ("| 12:00:00 | cloud | m | 10 | 2 | $1.2.3 | t |", 0.0),
        ("| 12:00:00 | cloud | m | 10 | 2 | $. | t |", 0.0),
        ("| 12:00:00 | cloud | m | 10 | 2 | $ | t |", 0.0),
        ("| 12:00:00 |", 0.0),
        ("| **Total** | | | | | $99 | |", 0.0),  # a sum that somebody wrote below is no call
        ("about $7 today", 0.0),
        ("", 0.0),
    ],
)
def test_a_table_that_a_person_edited_is_read_all_the_same(row: str, dollars: float) -> None:
    assert usage.spent(usage.header(DAY) + row + "\n") == dollars


def test_a_week_begins_on_monday() -> None:
    assert usage.week_of(date(2026, 11, 25)) == [date(2026, 11, 23), date(2026, 11, 24), date(2026, 11, 25)]
    assert usage.week_of(datetime(2026, 11, 23).date()) == [DAY]
