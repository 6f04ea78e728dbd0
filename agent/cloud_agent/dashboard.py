"""`Dashboard.md`: the section `## Updates` is Cloud's, all the rest is Local's. Pure functions on the note's text."""

from __future__ import annotations

import re
from collections.abc import Sequence

PATH = "Dashboard.md"
HEADING = "## Updates"
MAX_ENTRIES = 50


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


def merge(cloud: str, local: str) -> str:
    """Join two versions: Cloud's section, everything else from Local."""
    before, _, after = split(local)
    _, section, _ = split(cloud)
    return join(before, section, after)


def split(text: str) -> tuple[str, str, str]:
    """(before the section, its content without the heading, what follows it). Headings in code blocks are text."""
    text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    code = _code_lines(lines)
    start = next((number for number, line in enumerate(lines) if number not in code and line.rstrip() == HEADING), None)
    end = None
    if start is not None:
        after = range(start + 1, len(lines))
        end = next((number for number in after if number not in code and re.match(r"#{1,2} ", lines[number])), None)
    if start is None:
        return text.rstrip("\n"), "", ""
    return (
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
    parts = [before or "# Dashboard", f"{HEADING}\n\n{section}".rstrip("\n"), after]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str, limit: int = 120) -> str:
    """Words of a mail as text that markdown and Obsidian leave alone: no link, image, embed, tag or code."""
    short = " ".join(text.split())
    if len(short) > limit:
        short = short[: limit - 1] + "…"
    return re.sub(r"([\\`*_\[\]<>#|~=$%{}!^])", r"\\\1", short).replace("://", ":\u200b//")
