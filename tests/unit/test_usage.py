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
    assert usage.cost(MODEL, used, DAY) == pytest.approx(2.0 * (1 + 1.25 + 0.1))


@pytest.mark.parametrize(
    ("model", "day", "dollars"),
    [
        ("claude-sonnet-5", date(2026, 8, 31), 2.0),
        ("claude-sonnet-5", date(2026, 9, 1), 3.0),
        ("claude-sonnet-5", date(2026, 6, 29), None),
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


def test_a_table_that_a_person_edited_is_read_all_the_same() -> None:
    assert usage.spent("| a | $1.2.3 | x |\n| a | $. | x |\n| b | $0.5 | x |\nfree text $7\n") == 0.5


def test_a_week_begins_on_monday() -> None:
    assert usage.week_of(date(2026, 11, 25)) == [date(2026, 11, 23), date(2026, 11, 24), date(2026, 11, 25)]
    assert usage.week_of(datetime(2026, 11, 23).date()) == [DAY]
