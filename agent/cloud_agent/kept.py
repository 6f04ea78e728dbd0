"""Whole messages beside the vault, with their attachments, where the owner asks for them (INTAKE_KEEP_PATH).

Not in the vault: that is git, so what is in it once is on every device for good. The folder has a bound; what is oldest
makes room.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("cloud_agent.kept")

SUFFIX = ".eml"
# Our own files, by the names that intake.identity makes: the owner's that lie beside them are not ours to delete.
_OURS = re.compile(r"(?:\d{4}-\d\d-\d\d-)?[0-9a-f]{16}\.eml|\.[0-9a-f-]{16,27}\.part")


@dataclass(frozen=True)
class Keep:
    """Where messages are kept, and how many bytes of them."""

    folder: Path
    most: int


def keep(place: Keep, email_id: str, raw: bytes) -> bool:
    """Keep a message as `<email_id>.eml`, readable by nobody else (0600); the oldest ones give way. False where it
    cannot be kept: a mail is taken all the same, and stays where it came from."""
    if len(raw) > place.most:
        log.warning("%s is not kept: it is larger than all that INTAKE_KEEP_MB lets be kept", email_id)
        return False
    beside = place.folder / f".{email_id}.part"
    try:
        place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(place, len(raw))
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(raw)
        beside.rename(place.folder / f"{email_id}{SUFFIX}")
    except OSError as error:
        log.warning("%s is not kept: %s", email_id, error)
        return False
    return True


def kept(place: Keep) -> list[tuple[float, int, Path]]:
    """What is kept, the oldest first: when it was written, its bytes, its file."""
    found = []
    try:
        entries = [entry for entry in os.scandir(place.folder) if _OURS.fullmatch(entry.name)]
    except OSError:
        return []
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        found.append((status.st_mtime, status.st_size, Path(entry.path)))
    return sorted(found)


def _make_room(place: Keep, size: int) -> None:
    files = kept(place)
    left = place.most - size - sum(one for _, one, _ in files)
    for _, freed, path in files:
        if left >= 0:
            return
        path.unlink(missing_ok=True)
        left += freed
