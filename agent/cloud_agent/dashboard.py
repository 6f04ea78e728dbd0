"""`Dashboard.md`: the section `## Updates` is Cloud's, all the rest is Local's. Pure functions on the note's text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

T = TypeVar("T")

PATH = "Dashboard.md"
HEADING = "## Updates"
TITLE = "# Dashboard"
MAX_ENTRIES = 50
# An entry as the agents write it, with the machine's time.
_ENTRY = re.compile(r"- \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z ")
# What Claude costs, one line an agent.
_SPEND = re.compile(
    r"Claude: \$(?P<today>\d{1,15}\.\d{1,9}) today, \$(?P<week>\d{1,15}\.\d{1,9}) this week "
    r"\((?P<agent>[a-z0-9-]{1,32}), (?P<day>\d{4}-\d\d-\d\d)\)"
)


def add_entries(text: str, entries: Sequence[str]) -> str:
    """Put entries (one line each, newest last) at the top of the section; the oldest beyond MAX_ENTRIES go.

    An entry that already stands there is not added again.
    """
    before, section, after = split(text)
    old = [line for line in section.split("\n") if line.startswith("- ")]
    prose = [line for line in section.split("\n") if line.strip() and not line.startswith("- ")]
    new = [f"- {entry}" for entry in reversed(entries)]
    lines = list(dict.fromkeys([*new, *old]))[:MAX_ENTRIES]
    joined = join(before, "\n".join([*prose, *lines]), after)
    return joined.replace("\n", "\r\n") if "\r\n" in text else joined


def spend_line(
    agent: str,
    day: date,
    today: float,
    week: float,
    unpriced: int = 0,
    day_budget: float | None = None,
    week_budget: float | None = None,
) -> str:
    """What Claude costs, US dollars, as of a day; `unpriced` is the number of calls whose cost is not known."""
    budgets = [f"{_dollars(day_budget)} a day"] if day_budget is not None else []
    budgets += [f"{_dollars(week_budget)} a week"] if week_budget is not None else []
    parts = [f"Claude: {_dollars(today)} today, {_dollars(week)} this week ({agent}, {day.isoformat()})"]
    parts += [f"budget {', '.join(budgets)}"] if budgets else []
    parts += [f"{unpriced} call{'' if unpriced == 1 else 's'} of unknown cost"] if unpriced else []
    return "; ".join(parts)


def _dollars(amount: float) -> str:
    """Cents, and hundredths of them below ten cents."""
    return f"${amount:.4f}" if 0 < amount < 0.0995 else f"${amount:.2f}"


def set_spend(text: str, line: str) -> str:
    """Put an agent's line of spend_line in the place of its last one, or at the top of the section."""
    before, section, after = split(text)
    agent = _agent(line)
    lines = section.split("\n") if section else []
    mine = [number for number, old in enumerate(lines) if _agent(old) == agent]
    if mine:
        lines = [line if number == mine[0] else old for number, old in enumerate(lines) if number not in mine[1:]]
    else:
        lines.insert(0, line)
    joined = join(before, "\n".join(lines), after)
    return joined.replace("\n", "\r\n") if "\r\n" in text else joined


def _agent(line: str) -> str | None:
    """Whose line of spend_line this is, None for any other line."""
    match = _SPEND.match(line)
    return match["agent"] if match else None


def merge(base: str | None, cloud: str, local: str) -> str:
    """Join two versions of the note. `base` is what both come from, None where there is no such version.

    | part                                       | becomes
    | ---                                        | ---
    | entries (`- 2026-02-16T10:00:00Z …`)       | those of both sides, newest first, MAX_ENTRIES at most; what a side
    |                                            | removed since the base stays removed
    | what Claude costs, a line an agent         | the side's that changed it; both, or no base: the newer, by its day
    |                                            | and that day's sum. They come to the top of the section
    | the other lines of `## Updates`            | the side's that changed them; both, or no base: Cloud's
    | what stands before the section, and after  | the side's that changed it; both, or no base: Local's
    | the line ending                            | likewise
    """
    was = None if base is None else _parts(base)
    here, there = _parts(cloud), _parts(local)
    before, after = _rest(was, here, there)
    # A side without the heading says nothing about the section: it is left as it was.
    old = was.section if was is not None else None
    clouds = _first(here.section, old, there.section)
    locals_ = _first(there.section, old, here.section)
    entries = _united(old, clouds, locals_)
    spend = _spend(_spends(old or ""), _spends(clouds), _spends(locals_))
    others = _changed(None if was is None else _others(old or ""), _others(clouds), _others(locals_))
    # Code fences of two versions can pair up over our heading: then less is taken from two versions.
    for (first, last), (above, below) in (
        ((before, after), others),
        ((there.before, there.after), _others(clouds)),
        ((there.before, there.after), ([], [])),
    ):
        section = "\n".join([*spend, *above, *entries, *below]).strip("\n")
        text = join(first, section, last)
        if split(text) == (first or TITLE, section, last):
            break
    crlf = _changed(None if base is None else "\r\n" in base, "\r\n" in local, "\r\n" in cloud)
    return text.replace("\n", "\r\n") if crlf else text


@dataclass(frozen=True)
class _Parts:
    """A note by section; `section` is None where the heading is missing."""

    before: str
    section: str | None
    after: str

    def rest(self) -> str:
        return "\n\n".join(part for part in (self.before, self.after) if part)


def _first(*sections: str | None) -> str:
    return next((section for section in sections if section is not None), "")


def _entries(section: str) -> list[str]:
    return [line for line in section.split("\n") if _ENTRY.match(line)]


def _others(section: str) -> tuple[list[str], list[str]]:
    """The section's lines that are neither entries nor spend: those above the first entry, and the rest."""
    lines = [line for line in section.split("\n") if _agent(line) is None] if section else []
    first = next((number for number, line in enumerate(lines) if _ENTRY.match(line)), len(lines))
    return lines[:first], [line for line in lines[first:] if not _ENTRY.match(line)]


def _spends(section: str) -> dict[str, str]:
    """By agent, the newest line of what Claude costs."""
    found: dict[str, str] = {}
    for line in section.split("\n"):
        agent = _agent(line)
        if agent is not None:
            found[agent] = max(found.get(agent, line), line, key=_age)
    return found


def _age(line: str) -> tuple[str, float, float, str]:
    """Grows with the age of the numbers in a line of spend_line. A day's sum only grows."""
    match = _SPEND.match(line)
    return (match["day"], float(match["today"]), float(match["week"]), line) if match else ("", 0.0, 0.0, line)


def _spend(was: dict[str, str], cloud: dict[str, str], local: dict[str, str]) -> list[str]:
    """One line an agent, by agent."""
    lines = []
    for agent in sorted({*cloud, *local}):
        here, there, old = cloud.get(agent), local.get(agent), was.get(agent)
        line = _changed(old, here, there) if old in (here, there) else max(filter(None, (here, there)), key=_age)
        lines += [line] if line is not None else []
    return lines


def _changed(base: T | None, preferred: T, other: T) -> T:
    """The one that is not as it was; `preferred` where neither is."""
    return other if preferred == base else preferred


def _rest(was: _Parts | None, cloud: _Parts, local: _Parts) -> tuple[str, str]:
    """(before the section, after it)."""
    if was is None:
        return local.before, local.after
    if all(parts.section is not None for parts in (was, cloud, local)):
        return _changed(was.before, local.before, cloud.before), _changed(was.after, local.after, cloud.after)
    # Without its heading a note has no before and after: it is taken whole.
    unchanged = local.rest() == was.rest()
    chosen = cloud if unchanged and (cloud.rest() != was.rest() or local.section is None) else local
    return chosen.before, chosen.after


def _united(was: str | None, cloud: str, local: str) -> list[str]:
    """The entries of both sides without those that a side removed."""
    here, there = _entries(cloud), _entries(local)
    removed = set(_entries(was or "")) - (set(here) & set(there))
    united = dict.fromkeys(entry for entry in [*here, *there] if entry not in removed)
    return sorted(united, key=lambda entry: entry.split(" ")[1], reverse=True)[:MAX_ENTRIES]


def split(text: str) -> tuple[str, str, str]:
    """(before the section, its content without the heading, what follows it). Headings in code blocks are text."""
    parts = _parts(text)
    return parts.before, parts.section or "", parts.after


def _parts(text: str) -> _Parts:
    text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    code = _code_lines(lines)
    start = next((number for number, line in enumerate(lines) if number not in code and line.rstrip() == HEADING), None)
    if start is None:
        return _Parts(text.rstrip("\n"), None, "")
    after = range(start + 1, len(lines))
    end = next((number for number in after if number not in code and re.match(r"#{1,2} ", lines[number])), None)
    return _Parts(
        "\n".join(lines[:start]).rstrip("\n"),
        "\n".join(lines[start + 1 : end]).strip("\n"),
        "\n".join(lines[end:]).strip("\n") if end is not None else "",
    )


def _code_lines(lines: Sequence[str]) -> set[int]:
    """Line numbers inside fenced code blocks. A fence that nobody closes opens none, or our section would be lost."""
    code: set[int] = set()
    opened, fence = 0, ""
    for number, line in enumerate(lines):
        if match := re.match(r" {0,3}(`{3,}|~{3,})", line):
            if not fence:
                opened, fence = number, match[1]
            elif match[1].startswith(fence):
                code.update(range(opened, number + 1))
                fence = ""
    return code


def join(before: str, section: str, after: str) -> str:
    parts = [before or TITLE, f"{HEADING}\n\n{section}".rstrip("\n"), after]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str, limit: int = 120) -> str:
    """Words of a mail as text that markdown and Obsidian leave alone: no link, image, embed, tag, property or code."""
    short = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())  # nothing turns the line
    if len(short) > limit:
        short = short[: limit - 1] + "…"
    return re.sub(r"([\\`*_\[\]<>#|~=$%{}!^])", r"\\\1", short).replace("::", ": :").replace("://", ":\u200b//")
