"""What calls cost: `Logs/API_Usage/YYYY-MM-DD.md`, one row a call, from the response's own usage. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from cloud_agent import models

FOLDER = "Logs/API_Usage"
_HEADER = (
    "# Claude API usage, {day}\n\n"
    "| Time | Agent | Model | Prompt Tokens | Completion Tokens | Cost (USD) | Task Type |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)
UNPRICED = "unpriced"  # the tokens are known, the model's price is not
UNKNOWN = "unknown"  # the request went out and no answer came: it may have been paid for

# A row of the table, however a person or an editor laid it out: its first cell is a time, its cost the cell that
# begins with a dollar sign, perhaps escaped or in bold. A total that somebody wrote below has no time.
_TIME = re.compile(r"\d{1,2}:\d\d")
_COST = re.compile(r"[\\*_`]*\$ ?([0-9]+(?:[.,][0-9]+)*)[*_`]*")
_NO_COST = re.compile(rf"[*_`]*(?:{UNPRICED}|{UNKNOWN})\b", re.IGNORECASE)
_AT_MOST = re.compile(rf"(?:{UNPRICED}|{UNKNOWN}), at most ([\\]?\$[0-9.,]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Usage:
    """Tokens of one call. The prompt's total is the sum of input, cache writes and cache reads; thinking is output."""

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


def row(moment: datetime, agent: str, model: str, usage: Usage, task: str, at_most: float | None = None) -> str:
    """One line of the table. A model without a known price is `unpriced`, never guessed.

    The API may answer with another model than was asked for: `at_most`, US dollars, is what the call was allowed then.
    """
    dollars = cost(model, usage, moment.date())
    shown = (f"{UNPRICED}, at most ${at_most:.6f}" if at_most else UNPRICED) if dollars is None else f"${dollars:.6f}"
    return _line(moment, agent, model, str(usage.prompt), str(usage.output), shown, task)


def unknown_row(moment: datetime, agent: str, model: str, at_most: float, task: str) -> str:
    """The line of a call that went out and was not answered: it may have been paid for, `at_most` US dollars (0 where
    the model has no price)."""
    shown = f"{UNKNOWN}, at most ${at_most:.6f}" if at_most else UNKNOWN
    return _line(moment, agent, model, "?", "?", shown, task)


def cost(model: str, usage: Usage, day: date) -> float | None:
    """US dollars of a call on that day, or None for a model without a price."""
    price = models.price(model, day, usage.prompt)
    if price is None:
        return None
    dollars = (
        usage.input * price.input
        + usage.output * price.output
        + usage.cache_write * price.cache_write
        + usage.cache_read * price.cache_read
    )
    return dollars / 1e6


def spent(text: str) -> float:
    """The sum of a day's table, US dollars."""
    return sum(next(filter(None, map(_dollars, cells)), 0.0) for cells in _rows(text))


def at_most(text: str) -> float:
    """What a day's calls have cost at most, US dollars: `spent`, and those of unknown outcome at their worst."""
    unknown = (_AT_MOST.search(cell) for cells in _rows(text) for cell in cells[1:])
    return spent(text) + sum(_dollars(match[1]) for match in unknown if match is not None)


def unpriced(text: str) -> int:
    """How many calls of a day's table have no known cost: unpriced, or of unknown outcome. `spent` leaves them out."""
    return sum(1 for cells in _rows(text) if any(map(_NO_COST.match, cells[1:])))


def spent_on(days: Iterable[date], read: Callable[[str], str]) -> float:
    """US dollars spent on these days; `read` gives the text of a note of the vault, "" where there is none."""
    return sum(spent(read(path(day))) for day in days)


def at_most_on(days: Iterable[date], read: Callable[[str], str]) -> float:
    """US dollars that these days have cost at most, for a budget; `read` as for `spent_on`."""
    return sum(at_most(read(path(day))) for day in days)


def left(budget: float | None, days: Iterable[date], read: Callable[[str], str]) -> float | None:
    """US dollars that may still be spent on these days, None without a budget; below 0 is overspent."""
    return None if budget is None else budget - at_most_on(days, read)


def unpriced_on(days: Iterable[date], read: Callable[[str], str]) -> int:
    """How many calls of these days have no known cost; `read` as for `spent_on`."""
    return sum(unpriced(read(path(day))) for day in days)


def week_of(day: date) -> list[date]:
    """The days of `day`'s week up to `day`, Monday first."""
    return [day - timedelta(days=back) for back in range(day.weekday(), -1, -1)]


def _line(moment: datetime, *cells: str) -> str:
    whole = (moment.strftime("%H:%M:%S"), *cells)
    return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in whole) + " |\n"


def _rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) > 1 and _TIME.match(cells[0]):
            yield cells


def _dollars(cell: str) -> float:
    """`$0.5`, also as `$0,5` and `$1,234.5` (no call costs thousands, so a lone comma is a decimal one); else 0."""
    match = _COST.fullmatch(cell)
    if match is None:
        return 0.0
    text = match[1].replace(",", "") if "." in match[1] else match[1]
    whole, _, rest = text.replace(",", ".").partition(".")
    return float(f"{whole}.{rest}") if "." not in rest else 0.0
