"""What is known of Claude's models: prices, the shortest prefix that is cached, retirement. Pure functions.

The data file `models.json` is dated and names the source of each price. What is not in it is not guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

WARN_DAYS = 60  # the notice that Anthropic gives before a retirement (its page on model deprecations)

# The API may answer an alias with the snapshot behind it, at the same price: claude-x-1-20260101.
_SNAPSHOT = re.compile(r"-\d{8}$")


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens; a cache write lives 5 minutes."""

    input: float
    output: float
    cache_write: float
    cache_read: float


def price(model: str, day: date, prompt_tokens: int = 0) -> Price | None:
    """The price of a call with a prompt of so many tokens on that day, or None for a model without one."""
    dated = [entry for entry in _model(model).get("prices", ()) if entry["from"] <= day.isoformat()]
    if not dated:
        return None
    entry = dated[-1]
    over = entry.get("over")
    if over is not None and prompt_tokens > over["tokens"]:
        entry = over
    return Price(entry["input"], entry["output"], entry["cache_write"], entry["cache_read"])


def cache_minimum(model: str) -> int:
    """Tokens of the shortest prefix that the API caches for this model."""
    return int(_model(model).get("cache_minimum", _data()["cache_minimum"]))


def retirement(model: str, today: date) -> str:
    """A sentence when the model is retired or will be within WARN_DAYS, else ""."""
    ends = _data()["retirement"].get(model) or _data()["retirement"].get(_SNAPSHOT.sub("", model))
    if ends is None:
        return ""
    days = (date.fromisoformat(ends) - today).days
    if days > WARN_DAYS:
        return ""
    if days < 0:
        return f"CLAUDE_MODEL {model} was retired on {ends}, its calls fail: set a current one (docs/models.md)"
    when = "today" if days == 0 else f"in {days} day{'' if days == 1 else 's'}"
    return f"CLAUDE_MODEL {model} retires on {ends}, {when}: set a current one before (docs/models.md)"


def warnings(model: str, budgeted: bool, today: date) -> list[str]:
    """What the owner should know of the model that is set; `budgeted` says whether a budget is."""
    found = [sentence] if (sentence := retirement(model, today)) else []
    if price(model, today) is None:
        then = "with a budget set nothing is drafted" if budgeted else "its calls are logged as `unpriced`"
        found.append(f"CLAUDE_MODEL {model} has no known price, {then}: see docs/models.md, or set another model")
    return found


def _model(model: str) -> Mapping[str, Any]:
    models: dict[str, dict[str, Any]] = _data()["models"]
    return models.get(model) or models.get(_SNAPSHOT.sub("", model)) or {}


@cache
def _data() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(resources.files("cloud_agent").joinpath("models.json").read_text("utf-8"))
    return loaded
