"""A stranger's text as it stands in a note. Pure.

It stands in a code block longer than any fence in it: whoever opens the note in Obsidian fetches no image, resolves no
embed and runs no plugin's code, and nothing in it can be taken for front matter, for a mail's header or for a marker.
"""

from __future__ import annotations

import re

from cloud_agent import content, frontmatter
from cloud_agent.content import Content

# Above what a mail hides: the screening looks at it, and the model is not shown it.
HIDDEN = "What this mail hides from its reader:"
MAX_HIDDEN = 100_000  # characters; the comments of a newsletter have a few thousand


def fenced(text: str) -> str:
    """A text in a code block that it cannot end. Templater's code, which runs in a code block too, is made harmless."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return frontmatter.inert(f"{fence}text\n{text}\n{fence}")


def write(seen: Content) -> str:
    """The body of a note that holds what a person sees of a mail, and below it what was hidden."""
    hidden = seen.hidden[:MAX_HIDDEN]
    return fenced(seen.text) + (f"\n\n{HIDDEN}\n\n{fenced(hidden)}" if hidden else "")


def read(body: str, findings: tuple[str, ...] = ()) -> Content:
    """What `write` wrote. Where a person has changed it, so that its blocks are none any more: the body as it is."""
    text, rest = _unfenced(body)
    if text is None:
        seen = content.read(body, "text/plain")
        return Content(seen.text, seen.hidden, (*findings, *seen.findings))
    hidden, _ = _unfenced(rest.strip().removeprefix(HIDDEN))
    return Content(text, hidden or "", findings)


_FENCE = re.compile(r"\s*(`{3,})text\n")


def _unfenced(text: str) -> tuple[str | None, str]:
    """The text of the block at the beginning, None where there is none, and what stands below it."""
    begin = _FENCE.match(text)
    if begin is None:
        return None, text
    end = text.find(f"\n{begin[1]}", begin.end() - 1)  # from the line end before it: the block may be empty
    if end < 0:
        return None, text
    return text[begin.end() : end], text[end + 1 + len(begin[1]) :]
