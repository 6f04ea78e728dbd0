"""Where each mail and each draft lies, and which belong together: the vault itself is the ledger.

Lists a folder only when its modification time changed, reads a file only when it is new: a pass costs what is new, not
what is stored. Nothing here is needed to survive a restart.

Years of mail lie in a vault, so a note is no object here but a number, and a row in columns of machine integers: 160
bytes, most of them its name. A `Note` is made for who asks.
"""

from __future__ import annotations

import os
import re
import time
from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from heapq import merge
from typing import Literal

from cloud_agent import frontmatter
from cloud_agent.mail import (
    DRAFT_PREFIX,
    Mail,
    UnreadableMail,
    decode,
    is_mail_name,
    message_ids,
    note_id,
    one_line,
    parse,
    shown,
    slug,
    stem_id,
)
from cloud_agent.vault import DONE, IN_PROGRESS, LOCAL, NEEDS_ACTION, Vault

DraftState = Literal["pending", "decided"]
Kind = Literal["mail", "draft"]

FOLDERS = ("Pending_Approval", "Approved", "Rejected", "Done", IN_PROGRESS, NEEDS_ACTION)
# A folder changed this recently may change again within the clock's resolution: look again next time. Whole seconds are
# those of a file system with a clock of one or two seconds (FAT, HFS+, NFS 2); others tick every 10 ms at least.
_SETTLED_NS, _SETTLED_NS_COARSE = 50_000_000, 2_000_000_000
# A note that is younger may be a copy that a person's program still writes, which changes no folder: likewise. What is
# done is moved there, or comes from git, which holds the tree lock.
_WRITTEN_NS = 2_000_000_000

# All that is asked of a note's header here.
_FIELDS = frozenset(
    "email_id draft_id kept drafted_as from subject message_id in_reply_to references received date created".split()
)
# Fields are no further down than the first line that could close the header; frontmatter.read says which one does.
_FENCE = re.compile(rb"\n(?:---|\.\.\.)[ \t\r]*\n")

# Of longer References the oldest and the newest are looked for: whoever writes a mail writes them.
_MOST_NAMED = 100

_OTHER, _MAIL, _DRAFT, _DRAFTED_MAIL = range(4)


@dataclass(frozen=True)
class Note:
    """A mail or a draft that lies somewhere in the vault. `drafted`: the mail says that it was drafted."""

    path: str
    slug: str
    kind: Kind = "mail"
    drafted: bool = False


@dataclass
class _Folder:
    """`modified`: as it was when the folder was listed, -1 to list it again. `notes`: numbers; `folders`: paths."""

    path: str
    modified: int = -1
    notes: array[int] = field(default_factory=lambda: array("I"))
    folders: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Read:
    """What one file says. Message-IDs as 64-bit hashes, 0 for none: its own, the oldest that it refers to, and the one
    that it answers. `date` in seconds since 1970."""

    kind: int = _OTHER
    slug: str = ""
    own: int = 0
    root: int = 0
    parent: int = 0
    date: int = 0


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
        self._forget_all()

    def refresh(self) -> None:
        """Bring the index in step with the disk. Raises OSError or ForbiddenPath where a folder cannot be read; all is
        read anew the next time then."""
        try:
            seen: set[str] = set()
            for top in FOLDERS:
                self._visit(top, seen)
                self._by_slug.settle()
                self._by_message.settle()
            for path in self._folders.keys() - seen:
                for number in self._folders.pop(path).notes:
                    self._remove(number)
        except BaseException:
            self._forget_all()
            raise

    # -- questions -------------------------------------------------------------------------------------------------

    def draft_state(self, mail_slug: str) -> DraftState | None:
        """Whether a draft of this mail waits, or was decided; None when there is none anywhere."""
        state: DraftState | None = None
        for number in self._by_slug.find(hash(mail_slug.casefold())):
            if self._kinds[number] == _DRAFT and self._slug(number) == mail_slug:
                if not self._homes[number].path.startswith("Pending_Approval"):
                    return "decided"
                state = "pending"
        return state

    def drafts_of(self, mail_slug: str) -> list[str]:
        """Paths of the drafts of a mail, wherever they lie."""
        numbers = self._by_slug.find(hash(mail_slug.casefold()))
        return sorted(self._path(n) for n in numbers if self._kinds[n] == _DRAFT and self._slug(n) == mail_slug)

    def mails_of(self, mail_slug: str) -> list[Note]:
        """The mails that have the id, by path. Ids that differ in case only are one: they are one file name on the
        owner's Mac or Windows disk."""
        folded = mail_slug.casefold()
        notes = [
            self._note(number)
            for number in self._by_slug.find(hash(folded))
            if self._is_mail(number) and self._slug(number).casefold() == folded
        ]
        return sorted(notes, key=lambda note: note.path)

    def mails_in(self, folder: str) -> list[Note]:
        """The mails that lie in a folder, by name."""
        known = self._folders.get(folder)
        notes = [self._note(number) for number in known.notes if self._is_mail(number)] if known else []
        return sorted(notes, key=lambda note: note.path)

    def holder(self, mail_slug: str) -> Note | None:
        """The mail that has the id, of all that are in progress with anybody, or done: the others give way to it.

        A drafted one comes first, then one in In_Progress/local/, then the first path: the same on every clone, so that
        two agents never give way to each other.
        """
        held = (f"{IN_PROGRESS}/", f"{DONE}/")
        return min(
            (note for note in self.mails_of(mail_slug) if note.path.startswith(held)), key=_precedence, default=None
        )

    def claims_of_others(self) -> list[Note]:
        """Mails that other agents hold and have no draft of, by path."""
        own = (self.vault.in_progress, f"{IN_PROGRESS}/{LOCAL}")
        theirs = [path for path in self._folders if path.startswith(f"{IN_PROGRESS}/") and path.count("/") == 1]
        notes = [note for path in theirs if path not in own for note in self.mails_in(path)]
        waiting = [note for note in notes if not note.drafted and self.draft_state(note.slug) is None]
        return sorted(waiting, key=lambda note: note.path)

    def thread(self, mail: Mail) -> list[str]:
        """Paths of the mails and drafts of a mail's conversation, oldest first, without the mail's own.

        Two are of one conversation when one names a message that the other is or names, in Message-ID, In-Reply-To or
        References (RFC 5322 §3.6.4); with a mail come its drafts, wherever they lie. Never by the subject.
        """
        fields = [message_ids(mail.fields.get(name, "")) for name in _NAMING]
        named = {message_id for ids in fields for message_id in (*ids[:1], *ids[-_MOST_NAMED:])}
        numbers = {number for message_id in named for number in self._by_message.find(hash(message_id))}
        for other in {self._slug(number) for number in numbers}:
            for number in self._by_slug.find(hash(other.casefold())):
                if self._kinds[number] == _DRAFT and self._slug(number) == other:
                    numbers.add(number)
        others = [number for number in numbers if self._slug(number) != mail.slug]
        return [self._path(number) for number in sorted(others, key=lambda n: (self._dates[n], self._path(n)))]

    def same_message(self, mail: Mail) -> Note | None:
        """A mail that was taken in under another id and is this one: the same Message-ID, and the same in it."""
        own = message_ids(mail.fields.get("message_id", ""))[:1]
        numbers = [
            number for key in own for number in self._by_message.find(hash(key)) if self._own[number] == hash(key)
        ]
        for note in sorted((self._note(number) for number in numbers if self._is_mail(number)), key=lambda n: n.path):
            if note.slug.casefold() != mail.slug.casefold() and self.fingerprint(note) == mail.fingerprint():
                return note
        return None

    def fingerprint(self, note: Note) -> str:
        """What a mail's fingerprint is by now, "" where it is gone or cannot be read."""
        try:
            return parse(note.path.rpartition("/")[2], self.vault.read(note.path)).fingerprint()
        except (OSError, UnreadableMail):
            return ""

    def moved(self, path: str, target: str, mail: Mail, *, drafted: bool) -> None:
        """Keep in step with a move of this pass; the next refresh reads it from disk."""
        for number in list(self._by_slug.find(hash(mail.slug.casefold()))):
            if self._path(number) in (path, target):
                home = self._homes[number]
                home.notes.remove(number)
                self._remove(number)
        folder, _, name = target.rpartition("/")
        home = self._folders.setdefault(folder, _Folder(folder))
        home.modified = -1
        home.notes.append(self._add(home, name, 0, _of_mail(mail, mail.fields, drafted, int(time.time()))))

    # -- the columns -----------------------------------------------------------------------------------------------

    def _forget_all(self) -> None:
        self._folders: dict[str, _Folder] = {}
        self._free: list[int] = []  # rows of notes that are gone
        self._names: list[str] = []
        self._homes: list[_Folder] = []
        self._slugs: dict[int, str] = {}  # of notes whose name says another
        self._versions = array("q")
        self._kinds = bytearray()
        self._own, self._root, self._parent, self._dates = (array("q") for _ in range(4))
        self._by_slug, self._by_message = _Lookup(), _Lookup()

    def _add(self, home: _Folder, name: str, version: int, read: _Read) -> int:
        if not self._free:
            self._free.append(len(self._names))
            self._names.append("")
            self._homes.append(home)
            self._kinds.append(_OTHER)
            for column in (self._versions, self._own, self._root, self._parent, self._dates):
                column.append(0)
        number = self._free.pop()
        self._names[number], self._homes[number], self._versions[number] = name, home, version
        self._kinds[number], self._dates[number] = read.kind, read.date
        self._own[number], self._root[number], self._parent[number] = read.own, read.root, read.parent
        if read.kind != _OTHER:
            if read.slug != stem_id(name):
                self._slugs[number] = read.slug
            self._by_slug.add(hash(read.slug.casefold()), number)
        for key in {read.own, read.root, read.parent} - {0}:
            self._by_message.add(key, number)
        return number

    def _remove(self, number: int) -> None:
        if self._kinds[number] != _OTHER:
            self._by_slug.remove(hash(self._slug(number).casefold()), number)
        for key in {self._own[number], self._root[number], self._parent[number]} - {0}:
            self._by_message.remove(key, number)
        self._slugs.pop(number, None)
        self._names[number] = ""
        self._free.append(number)

    def _slug(self, number: int) -> str:
        return self._slugs.get(number) or stem_id(self._names[number])

    def _path(self, number: int) -> str:
        return f"{self._homes[number].path}/{self._names[number]}"

    def _is_mail(self, number: int) -> bool:
        return self._kinds[number] in (_MAIL, _DRAFTED_MAIL)

    def _note(self, number: int) -> Note:
        kind = self._kinds[number]
        drafted = kind == _DRAFTED_MAIL
        return Note(self._path(number), self._slug(number), "draft" if kind == _DRAFT else "mail", drafted)

    # -- the disk --------------------------------------------------------------------------------------------------

    def _visit(self, path: str, seen: set[str]) -> None:
        try:
            modified = os.stat(self.vault.folder(path), follow_symlinks=False).st_mtime_ns
            folder = self._folders.get(path) or _Folder(path)
            if folder.modified != modified:
                began = time.time_ns()
                newest = self._list(folder)
                resolution = _SETTLED_NS if modified % 1_000_000_000 else _SETTLED_NS_COARSE
                settled = began - modified > resolution and (
                    path.startswith("Done") or abs(began - newest) > _WRITTEN_NS
                )
                folder.modified = modified if settled else -1
        except (FileNotFoundError, NotADirectoryError):
            return
        self._folders[path] = folder
        seen.add(path)
        for child in folder.folders:
            self._visit(child, seen)

    def _list(self, folder: _Folder) -> int:
        """Read what is new in a folder, and forget what is gone; when its newest note was written, ns."""
        newest = 0
        known = {self._names[number]: number for number in folder.notes}
        folders, there = [], array("I")
        with os.scandir(self.vault.root / folder.path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{folder.path}/{entry.name}")
                elif entry.name.endswith(".md") and entry.is_file(follow_symlinks=False):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # moved away since; the folder's time says so
                    version = hash((status.st_ino, status.st_mtime_ns, status.st_size))
                    newest = max(newest, status.st_mtime_ns)
                    number = known.pop(entry.name, None)
                    if number is not None and self._versions[number] != version:
                        self._remove(number)
                        number = None
                    if number is None:
                        read = self._read(f"{folder.path}/{entry.name}", int(status.st_mtime))
                        number = self._add(folder, entry.name, version, read)
                    there.append(number)
        for number in known.values():
            self._remove(number)
        folder.notes, folder.folders = there, folders
        return newest

    def _read(self, path: str, modified: int) -> _Read:
        name = path.rpartition("/")[2]
        try:
            raw = self.vault.read(path)
            fields = _header(raw)
            if is_draft(path, fields):
                return self._draft(path, fields, modified)
            if fields.get("kept"):
                return _Read()  # our own note on an unreadable mail: the mended mail may come under the same id
            if b"\0" in raw or not fields.get("from") or not fields.get("subject", "").strip():
                mail = parse(name, raw)  # it may be none, or have its headers elsewhere
                fields = mail.fields
            else:
                mail = Mail(note_id(name, fields), {}, "")
        except UnreadableMail:
            return _Read()
        except OSError:
            # A draft that cannot be opened is a draft all the same: its mail must not be drafted again.
            return self._draft(path, {}, modified) if name.startswith(DRAFT_PREFIX) else _Read()
        return _of_mail(mail, fields, bool(fields.get("drafted_as")), modified)

    def _draft(self, path: str, fields: Mapping[str, str], modified: int) -> _Read:
        if path.startswith(f"{IN_PROGRESS}/") and not path.startswith(f"{self.vault.in_progress}/"):
            return _Read()  # what others keep in their folders says nothing about a decision
        _, root, parent = _hashes(fields)
        return _Read(_DRAFT, slug(note_id(path.rpartition("/")[2], fields)), 0, root, parent, _date(fields, modified))


class _Lookup:
    """Which notes have a key, a 64-bit hash. Pairs of key and number, eight bytes each, in one sorted array."""

    _NUMBER_BITS = 24  # 16 million notes; the other 40 are the key's: what is found may, very seldom, have another key

    def __init__(self) -> None:
        self._pairs = array("Q")
        self._new = array("Q")

    def add(self, key: int, number: int) -> None:
        self._new.append(self._pair(key, number))

    def settle(self) -> None:
        """Sort in what was added: all at once where it is much, as at a start."""
        if len(self._new) > 1000:
            self._pairs = array("Q", merge(self._pairs, sorted(self._new)))
        else:
            for pair in self._new:
                insort(self._pairs, pair)
        del self._new[:]

    def remove(self, key: int, number: int) -> None:
        self.settle()
        del self._pairs[bisect_left(self._pairs, self._pair(key, number))]

    def find(self, key: int) -> Iterator[int]:
        self.settle()
        first = self._pair(key, 0)
        for position in range(bisect_left(self._pairs, first), len(self._pairs)):
            number = self._pairs[position] - first
            if number >> self._NUMBER_BITS:
                return
            yield number

    def _pair(self, key: int, number: int) -> int:
        return (key << self._NUMBER_BITS | number) & 0xFFFF_FFFF_FFFF_FFFF


_NAMING = ("message_id", "references", "in_reply_to")


def _header(raw: bytes) -> dict[str, str]:
    """The fields of a note that are asked for here, as mail.read_note reads them, without reading its body."""
    first = raw.find(b"---")
    end = _FENCE.search(raw, first + 3) if first >= 0 else None
    fields = frontmatter.fields(shown(decode(raw[: end.end()] if end else raw)), _FIELDS)
    return {name: shown(value) for name, value in fields.items()}


def _of_mail(mail: Mail, fields: Mapping[str, str], drafted: bool, modified: int) -> _Read:
    kind = _DRAFTED_MAIL if drafted else _MAIL
    return _Read(kind, mail.slug, *_hashes(fields), _date(fields, modified))


def _hashes(fields: Mapping[str, str]) -> tuple[int, int, int]:
    """Hashes of a note's own Message-ID, of the oldest that it refers to, and of the one that it answers."""
    own, references, answered = (message_ids(one_line(fields.get(name, ""))) for name in _NAMING)
    earlier = references or answered
    root, parent = (earlier[0], (answered or earlier)[-1]) if earlier else ("", "")
    return tuple(hash(key) if key else 0 for key in (own[0] if own else "", root, parent))  # type: ignore[return-value]


def _date(fields: Mapping[str, str], modified: int) -> int:
    """When a note was written, seconds since 1970: by its own word, or by its file's."""
    for name in ("received", "date", "created"):
        value = fields.get(name, "")
        for read in (datetime.fromisoformat, parsedate_to_datetime):
            try:
                moment = read(value)
                return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
            except (ValueError, TypeError, OverflowError, IndexError):
                continue
    return modified


def _precedence(note: Note) -> tuple[bool, bool, str]:
    return (not note.drafted, not note.path.startswith(f"{IN_PROGRESS}/{LOCAL}/"), note.path)
