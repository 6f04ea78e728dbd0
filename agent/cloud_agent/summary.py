"""What a commit says of itself: `Cloud: 3 email drafts, 1 LinkedIn post`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

_WORDS = {
    "Email": ("email draft", "email drafts"),
    "LinkedIn": ("LinkedIn post", "LinkedIn posts"),
    "WhatsApp": ("WhatsApp message", "WhatsApp messages"),
    "Twitter": ("Twitter post", "Twitter posts"),
    "Facebook": ("Facebook post", "Facebook posts"),
    "Instagram": ("Instagram post", "Instagram posts"),
    "Odoo": ("Odoo draft", "Odoo drafts"),
}


def message(agent: str, added: Iterable[str], others: Iterable[str]) -> str:
    """Summarise new files (`added`) and changed or deleted ones (`others`).

    What waits for approval is counted by kind; where nothing does, files are, the bookkeeping (Dashboard, Logs)
    only when there is nothing else.
    """
    added = list(added)
    drafts = Counter(
        path.parts[1]
        for path in map(PurePosixPath, added)
        if len(path.parts) == 3
        and path.suffix == ".md"
        and path.parts[0] == "Pending_Approval"
        and path.parts[1] in _WORDS
    )
    parts = [f"{count} {_WORDS[kind][count > 1]}" for kind, count in sorted(drafts.items())]
    if not parts:
        paths = [*added, *others]
        files = [path for path in paths if path != "Dashboard.md" and not path.startswith("Logs/")]
        count = len(files or paths)
        parts = [f"{count} file{'' if count == 1 else 's'} updated"]
    return f"{agent.title()}: {', '.join(parts)}"
