"""Where each mail and each draft lies: the vault itself is the ledger.

Reads a folder only when its modification time changed, a file only when it is new: a pass costs what is new, not what
is stored. Nothing here is needed to survive a restart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cloud_agent.mail import DRAFT_PREFIX, Mail, UnreadableMail, is_mail_name, note_id, parse, read_note, slug
from cloud_agent.vault import DONE, IN_PROGRESS, LOCAL, NEEDS_ACTION, Vault

DraftState = Literal["pending", "decided"]

# A folder changed this recently may change again within the clock's resolution: look again next time.
_SETTLED_SECONDS = 2.0


@dataclass(frozen=True)
class Note:
    """A mail or a draft that lies somewhere in the vault. Mails carry a fingerprint, drafts none.

    `drafted`: the mail says that it was drafted.
    """

    path: str
    slug: str
    fingerprint: str = ""
    drafted: bool = False


@dataclass
class _Folder:
    modified: int
    notes: dict[str, tuple[tuple[int, int, int], Note | None]] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)


def is_draft(path: str, fields: Mapping[str, str]) -> bool:
    """Whether a note is a draft: by its name, or, where people rename drafts, by its `draft_id`. A mail that brings a
    field of that name stays a mail."""
    name = path.rpartition("/")[2]
    if name.startswith(DRAFT_PREFIX):
        return True
    where_drafts_lie = path.startswith(("Pending_Approval/", "Approved/", "Rejected/"))
    return bool(fields.get("draft_id")) and (where_drafts_lie or not is_mail_name(name))


class Index:
    """All drafts, wherever a person moved or renamed them to, and all mails outside the inbox."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.drafts: dict[str, list[Note]] = {}
        self.mails: dict[str, list[Note]] = {}
        self._folders: dict[str, _Folder] = {}

    def refresh(self) -> None:
        seen: dict[str, _Folder] = {}
        for top in ("Pending_Approval", "Approved", "Rejected", "Done", IN_PROGRESS, NEEDS_ACTION):
            self._visit(top, seen)
        self._folders = seen
        self.drafts, self.mails = {}, {}
        for note in self._notes():
            group = self.mails if note.fingerprint else self.drafts
            group.setdefault(note.slug, []).append(note)

    def draft_state(self, mail_slug: str) -> DraftState | None:
        """Whether a draft of this mail waits, or was decided; None when there is none anywhere."""
        drafts = self.drafts.get(mail_slug, ())
        if any(not note.path.startswith("Pending_Approval/") for note in drafts):
            return "decided"
        return "pending" if drafts else None

    def mails_in(self, folder: str) -> list[Note]:
        """The mails that lie in a folder, by name."""
        notes = [note for group in self.mails.values() for note in group if note.path.rpartition("/")[0] == folder]
        return sorted(notes, key=lambda note: note.path)

    def holder(self, mail_slug: str) -> Note | None:
        """The mail that has the id, of all that are in progress with anybody, or done: the others give way to it.

        A drafted one comes first, then one in In_Progress/local/, then the first path: the same on every clone, so that
        two agents never give way to each other.
        """
        held = (f"{IN_PROGRESS}/", f"{DONE}/")
        notes = [note for note in self.mails.get(mail_slug, ()) if note.path.startswith(held)]
        return min(notes, key=_precedence, default=None)

    def claims_of_others(self) -> list[Note]:
        """Mails that other agents hold and have no draft of, by path."""
        notes = [
            note
            for group in self.mails.values()
            for note in group
            if note.path.startswith(f"{IN_PROGRESS}/")
            and note.path.count("/") == 2
            and not note.path.startswith((f"{self.vault.in_progress}/", f"{IN_PROGRESS}/{LOCAL}/"))
            and not note.drafted
            and self.draft_state(note.slug) is None
        ]
        return sorted(notes, key=lambda note: note.path)

    def moved(self, path: str, target: str, mail: Mail, *, drafted: bool) -> None:
        """Keep in step with a move of this pass; the next refresh reads it from disk."""
        others = [note for note in self.mails.get(mail.slug, ()) if note.path != path]
        self.mails[mail.slug] = [*others, Note(target, mail.slug, mail.fingerprint(), drafted)]

    def _notes(self) -> Iterator[Note]:
        for folder in self._folders.values():
            for _, note in folder.notes.values():
                if note is not None:
                    yield note

    def _visit(self, path: str, seen: dict[str, _Folder]) -> None:
        try:
            modified = os.stat(self.vault.folder(path), follow_symlinks=False).st_mtime_ns
            known = self._folders.get(path)
            folder = known if known and known.modified == modified else self._list(path, modified, known)
        except (FileNotFoundError, NotADirectoryError):
            return
        seen[path] = folder
        for child in folder.folders:
            self._visit(child, seen)

    def _list(self, path: str, modified: int, known: _Folder | None) -> _Folder:
        settled = time.time_ns() - modified > _SETTLED_SECONDS * 1e9
        folder = _Folder(modified if settled else -1)
        with os.scandir(self.vault.root / path) as entries:
            for entry in entries:
                child = f"{path}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    folder.folders.append(child)
                elif entry.name.endswith(".md") and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    version = (status.st_ino, status.st_mtime_ns, status.st_size)
                    earlier = known.notes.get(child) if known else None
                    folder.notes[child] = earlier if earlier and earlier[0] == version else (version, self._note(child))
        return folder

    def _note(self, path: str) -> Note | None:
        name = path.rpartition("/")[2]
        try:
            raw = self.vault.read(path)
            fields, _ = read_note(raw)
            if is_draft(path, fields):
                return self._draft(path, fields)
            if fields.get("kept"):
                return None  # our own note on an unreadable mail: the mended mail may come under the same id
            mail = parse(name, raw)
        except UnreadableMail:
            return None
        except OSError:
            # A draft that cannot be opened is a draft all the same: its mail must not be drafted again.
            return self._draft(path, {}) if name.startswith(DRAFT_PREFIX) else None
        return Note(path, mail.slug, mail.fingerprint(), bool(mail.fields.get("drafted_as")))

    def _draft(self, path: str, fields: Mapping[str, str]) -> Note | None:
        if path.startswith(f"{IN_PROGRESS}/") and not path.startswith(f"{self.vault.in_progress}/"):
            return None  # what others keep in their folders says nothing about a decision
        return Note(path, slug(note_id(path.rpartition("/")[2], fields)))


def _precedence(note: Note) -> tuple[bool, bool, str]:
    return (not note.drafted, not note.path.startswith(f"{IN_PROGRESS}/{LOCAL}/"), note.path)
