"""What calls cost: `Logs/API_Usage/YYYY-MM-DD.md`, one row a call, from the response's own usage. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any

FOLDER = "Logs/API_Usage"
_HEADER = (
    "# Claude API usage, {day}\n\n"
    "| Time | Agent | Model | Prompt Tokens | Completion Tokens | Cost (USD) | Task Type |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)
# The API may answer an alias with the snapshot behind it, at the same price: claude-x-1-20260101.
_SNAPSHOT = re.compile(r"-\d{8}$")
_COST = re.compile(r"\|\s*\$([0-9]+(?:\.[0-9]+)?)\s*\|[^|]*\|\s*$")


@dataclass(frozen=True)
class Usage:
    """Tokens of one call. The prompt's total is the sum of input, cache writes and cache reads."""

    input: int = 0
    output: int = 0
    cache_write: int = 0
    cache_read: int = 0

    @property
    def prompt(self) -> int:
        return self.input + self.cache_write + self.cache_read


def path(day: date) -> str:
    return f"{FOLDER}/{day.isoformat()}.md"


def header(day: date) -> str:
    return _HEADER.format(day=day.isoformat())


def row(moment: datetime, agent: str, model: str, usage: Usage, task: str) -> str:
    """One line of the table. A model without a known price is `unpriced`, never guessed."""
    dollars = cost(model, usage, moment.date())
    shown = "unpriced" if dollars is None else f"${dollars:.6f}"
    cells = (moment.strftime("%H:%M:%S"), agent, model, usage.prompt, usage.output, shown, task)
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |\n"


def cost(model: str, usage: Usage, day: date) -> float | None:
    """US dollars of a call on that day, or None for a model without a price."""
    table = _prices()
    prices = table["models"].get(model) or table["models"].get(_SNAPSHOT.sub("", model), ())
    dated = [entry for entry in prices if entry["from"] <= day.isoformat()]
    if not dated:
        return None
    price = dated[-1]
    input_tokens = (
        usage.input + usage.cache_write * table["cache_write_factor"] + usage.cache_read * table["cache_read_factor"]
    )
    return float(input_tokens * price["input"] + usage.output * price["output"]) / 1e6


def spent(text: str) -> float:
    """The sum of a day's table, US dollars."""
    return sum(float(match[1]) for line in text.splitlines() if (match := _COST.search(line)))


def spent_on(days: Iterable[date], read: Callable[[str], str]) -> float:
    """US dollars spent on these days; `read` gives the text of a note of the vault, "" where there is none."""
    return sum(spent(read(path(day))) for day in days)


def week_of(day: date) -> list[date]:
    """The days of `day`'s week up to `day`, Monday first."""
    return [day - timedelta(days=back) for back in range(day.weekday(), -1, -1)]


@cache
def _prices() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(resources.files("cloud_agent").joinpath("prices.json").read_text("utf-8"))
    return loaded
