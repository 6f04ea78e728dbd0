"""Joining two versions of the vault, in git's object store: nothing on disk is touched, so a kill leaves nothing half.

Base, ours and theirs are commits. What one side alone changed is taken. What both changed, by the first row that fits
in each part; the rows hold either way round.

| ours          | theirs             | becomes
| ---           | ---                | ---
| **Moves: where a move meets an edit, both come to one path, with their base**
| moved         | changed            | both at the new path, see below; but no edit flows into `Approved/`: what was
|               |                    | approved stays as it is, and the edit stays at the old path
| moved         | deleted            | the moved one
| moved to A    | moved to A         | both at A, see below
| moved to A    | moved to B         | both at one path, see below: at ours where we are the person's agent (`local`),
|               |                    | else at theirs. So a person's move wins, and the remote's claim of a mail
| moved to A    | another came to A  | no moves: each was deleted here and added there
| **Each path**
| as theirs     | as ours            | that
| deleted       | changed            | theirs: modified beats deleted
| emptied       | changed            | theirs: emptied is deleted
| mode changed  | content changed    | both
| any text      | any text           | in `Dashboard.md`: by section (dashboard.merge)
| any text      | any text           | in `Logs/`: the union of the lines
| any text      | the same but for   | one of them, with the line endings of the side that changed them; without a base,
|               | line endings       | theirs
| text changed  | text changed       | a three-way merge by line; line endings do not clash
| a clash: lines, both added, binary | theirs keeps the name, ours becomes a conflict copy; in `Pending_Approval/`,
| files, a link, a repository        | `Approved/` and `Rejected/` the person's version keeps the name
| a clash of text, MAX_COPIES there  | the union of the lines: no line is lost, no copy more
| **What cannot lie side by side, though no side had both**
| a.md          | A.md               | one where they are the same, else ours becomes a conflict copy
| a file        | a folder           | the folder keeps the name, the file becomes a conflict copy

A file was moved when it is gone, one like it came, and no other is as near: the same content (not empty), or the same
name (but for case) with half of its bytes in lines of both. Two drafts resemble each other by their template: likeness
alone is no move, or the edit of one would flow into the other.

A conflict copy is `<stem>.conflict-<agent>-<hash of the content><suffix>`: the same content, the same name, and a copy
of a copy is its sibling. The agent is the one whose version it is. A copy of what is in `Approved/` goes to
`Pending_Approval/`: nobody approved it. No conflict marker ever reaches the store. Needs git 2.30 (`merge-tree
--write-tree` would need 2.38, Ubuntu 22.04 has 2.34).
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Self

from cloud_agent import dashboard
from cloud_agent.git import Blob, Changes, Git, GitError
from cloud_agent.vault import LOCAL

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
EMPTY_FILE = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
REGULAR = ("100644", "100755")
APPROVED, PENDING = "Approved/", "Pending_Approval/"
DECISIONS = (PENDING, APPROVED, "Rejected/")
LONGEST_NAME = 255  # bytes, on every file system that a vault lies on
LONGEST_SUFFIX = 32  # bytes; what follows the last full stop of a sentence is no suffix
MAX_COPIES = 10  # of one file
LARGEST_TEXT = 8_000_000  # bytes; what is larger is not read: the loop may use 200 MB
RENAME_LIMIT = 1000  # files of one content or one name; beyond it nothing tells which became which
SIMILAR = 0.5

_RAW = ("-r", "-z", "--raw", "--no-renames")
_COPY = re.compile(
    r"(?P<stem>.*)\.conflict-(?P<agent>[a-z0-9][a-z0-9-]*)-(?P<hash>[0-9a-f]{10,40})(?P<suffix>(\.[^.]*)?)", re.DOTALL
)


@dataclass(frozen=True)
class Edit:
    """What one side did to a path. None: there is no file."""

    before: Blob | None
    after: Blob | None


@dataclass(frozen=True)
class Versions:
    """The versions that meet at one path. None: there is no file."""

    base: Blob | None
    ours: Blob | None
    theirs: Blob | None


@dataclass(frozen=True)
class Undecided:
    """The contents decide; `mode` is that of a file merged from both."""

    mode: str


@dataclass(frozen=True)
class Joined:
    """What the join changes in ours, deletions first, and (path, conflict copy) of each clash."""

    changes: Changes
    copies: tuple[tuple[str, str], ...]


Edits = dict[str, Edit]  # by path
Moves = dict[str, str]  # where a file lay -> where it lies


def join(git: Git, base: str | None, ours: str, theirs: str) -> Joined:
    """Join two commits. Files are written to the object store, trees are not. Raises GitError."""
    mine, other = edits(git, base, ours, theirs)
    result = _Result(git, ours, mine, other)
    with _Texts(git) as texts:
        our_moves, their_moves = _moves(texts, mine, other), _moves(texts, other, mine)
        met = meet(mine, other, our_moves, their_moves, person_is_ours=git.agent_name == LOCAL)
        decided = {path: settle(versions) for path, versions in met.items()}
        open_paths = {path: file.mode for path, file in decided.items() if isinstance(file, Undecided)}
        result.files = {path: met[path].theirs if isinstance(it, Undecided) else it for path, it in decided.items()}
        texts.load(blob for path in open_paths for blob in _regular(met[path]))
        merged = {path: _merged(git.agent_name, texts, path, met[path]) for path in open_paths}
        for path in [path for path, content in merged.items() if content is None]:
            merged[path] = _clash(result, texts, path, met[path])
        contents = {path: content for path, content in merged.items() if content is not None}
        for path, oid in zip(contents, texts.write(contents.values()), strict=True):
            result.files[path] = Blob(open_paths[path], oid)
    result.part_names_that_differ_in_case()
    result.part_files_from_folders()
    return Joined(result.changes(), tuple(result.copies))


# -- what changed ------------------------------------------------------------------------------------------------------


def edits(git: Git, base: str | None, ours: str, theirs: str) -> tuple[Edits, Edits]:
    """What each side did since the base."""
    if base is None:
        return _diff(git, EMPTY_TREE, ours), _diff(git, EMPTY_TREE, theirs)
    # Each line is a commit and what it is compared with; its id goes before its changes, where there are any.
    lines = f"{ours} {base}\n{theirs} {base}\n".encode()
    found = _parse(git.run("diff-tree", "--stdin", *_RAW, stdin=lines))
    return found.get(ours, {}), found.get(theirs, {})


def changes(git: Git, before: str, after: str) -> Changes:
    """What changed between two commits or trees, without guessing at renames."""
    return {path: edit.after for path, edit in _diff(git, before, after).items()}


def _diff(git: Git, before: str, after: str) -> Edits:
    return _parse(git.run("diff-tree", "--no-commit-id", *_RAW, before, after)).get("", {})


def _parse(raw: str) -> dict[str, Edits]:
    """The edits by commit, "" where none is named."""
    found: dict[str, Edits] = defaultdict(dict)
    commit = ""
    fields = iter(raw.split("\0")[:-1])
    for field in fields:
        if not field.startswith(":"):
            commit = field
            continue
        mode_before, mode, oid_before, oid, _ = field[1:].split(" ")
        before, after = Blob(mode_before, oid_before), Blob(mode, oid)
        found[commit][next(fields)] = Edit(before if int(before.mode) else None, after if int(after.mode) else None)
    return found


# -- the table: pure ---------------------------------------------------------------------------------------------------


def moves(mine: Edits, other: Edits) -> Moves:
    """What one side moved, of the files that the other side touched too. Where the content is not the same, whether it
    is similar is still to be seen.

    Source and target are each other's nearest: by content and name, else by content, else by name; then by the folders.
    """
    gone = _movable((path, edit.before) for path, edit in mine.items() if edit.after is None)
    contested = gone.keys() & other.keys()
    if not contested:
        return {}
    came = _movable((path, edit.after) for path, edit in mine.items() if edit.before is None)
    sources, targets = _by_likeness(gone), _by_likeness(came)
    found: Moves = {}
    for source in contested:
        target = _nearest(source, gone[source], targets)
        if target is not None and _nearest(target, came[target], sources) == source:
            found[source] = target
    return found


def _movable(files: Iterable[tuple[str, Blob | None]]) -> dict[str, Blob]:
    return {path: blob for path, blob in files if blob is not None and _is_regular(blob) and blob.oid != EMPTY_FILE}


def _by_likeness(files: Mapping[str, Blob]) -> dict[str, set[str]]:
    """Paths by content (its id) and by name (after a slash)."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, blob in files.items():
        found[blob.oid].add(path)
        found[f"/{_fold(_name(path))}"].add(path)
    return found


def _nearest(path: str, blob: Blob, others: Mapping[str, set[str]]) -> str | None:
    same_content, same_name = others.get(blob.oid, set()), others.get(f"/{_fold(_name(path))}", set())
    candidates = same_content & same_name or same_content or same_name
    if not candidates or len(candidates) > RENAME_LIMIT:
        return None
    parts = _fold(path).split("/")
    by_tail: dict[int, list[str]] = defaultdict(list)
    for candidate in candidates:
        pairs = zip(reversed(parts), reversed(_fold(candidate).split("/")), strict=False)
        by_tail[sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))].append(candidate)
    nearest = by_tail[max(by_tail)]
    return nearest[0] if len(nearest) == 1 else None


def meet(
    mine: Edits, other: Edits, our_moves: Moves, their_moves: Moves, *, person_is_ours: bool
) -> dict[str, Versions]:
    """The first part of the table: every touched path, with the versions that meet there."""
    found = {
        path: Versions(
            (mine.get(path) or other[path]).before,
            mine[path].after if path in mine else other[path].before,
            other[path].after if path in other else mine[path].before,
        )
        for path in mine.keys() | other.keys()
    }
    nothing = Versions(None, None, None)
    for source in our_moves.keys() | their_moves.keys():
        here = found[source]
        ours, theirs = our_moves.get(source), their_moves.get(source)
        if ours is not None and theirs is not None:
            moved = Versions(here.base, found[ours].ours, found[theirs].theirs)
            target, loser = (ours, theirs) if person_is_ours else (theirs, ours)
            edit = moved.theirs if person_is_ours else moved.ours
            taken = ours != theirs and (ours in other or theirs in mine)
            one_text = ours == theirs and here.base in (moved.ours, moved.theirs)
            approved_else = _is_approval(source, target) and edit != here.base and not one_text
            if taken or approved_else:
                continue
            found[loser] = nothing
        else:
            target = ours or theirs or source
            at_target = found[target]
            moved = Versions(here.base, here.ours or at_target.ours, here.theirs or at_target.theirs)
            stayed = here.ours or here.theirs  # the mover has nothing there
            taken = target in mine and target in other
            if taken or stayed is None or not _is_regular(stayed) or _is_approval(source, target):
                continue
        found[source] = nothing
        found[target] = moved
    return found


def _is_approval(source: str, target: str) -> bool:
    return target.startswith(APPROVED) and not source.startswith(APPROVED)


def settle(versions: Versions) -> Blob | Undecided | None:
    """The second part of the table, as far as it goes without reading a file."""
    base, ours, theirs = versions.base, versions.ours, versions.theirs
    if ours in (theirs, base):
        return theirs
    if theirs == base:
        return ours
    if ours is None or theirs is None:
        return ours or theirs
    if not (_is_regular(ours) and _is_regular(theirs)):
        return Undecided(theirs.mode)
    base = base if base is not None and _is_regular(base) else None
    mode = theirs.mode if base is None or ours.mode == base.mode else ours.mode
    if base is not None and base.oid in (ours.oid, theirs.oid):
        return Blob(mode, theirs.oid if ours.oid == base.oid else ours.oid)
    if EMPTY_FILE in (ours.oid, theirs.oid) or ours.oid == theirs.oid:
        return Blob(mode, theirs.oid if ours.oid == EMPTY_FILE else ours.oid)
    return Undecided(mode)


def _is_regular(blob: Blob) -> bool:
    return blob.mode in REGULAR


def _regular(versions: Versions) -> list[Blob]:
    """The versions to be read: none where one side has a link or a repository."""
    if not all(blob is not None and _is_regular(blob) for blob in (versions.ours, versions.theirs)):
        return []
    return [blob for blob in (versions.base, versions.ours, versions.theirs) if blob is not None and _is_regular(blob)]


def conflict_name(path: str, agent: str, oid: str) -> str:
    """Where a clashing version is kept; beside the file, but for `Approved/`. A copy's copy is its sibling, and no name
    grows too long."""
    folder, slash, _ = path.rpartition("/")
    stem, suffix = _stem_and_suffix(path)
    end = f".conflict-{agent}-{oid[:10]}{suffix}"
    while len(f"{stem}{end}".encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        stem = stem[:-1]
    if f"{folder}/".startswith(APPROVED):
        # Not deeper than the kind (Email): what is a folder there may be a file here.
        folder = PENDING + f"{folder}/".removeprefix(APPROVED).partition("/")[0]
    return f"{folder.rstrip('/')}{slash}{stem}{end}"


def _stem_and_suffix(path: str) -> tuple[str, str]:
    """Of the file's name; of the original's for a conflict copy."""
    name = _name(path)
    if copy := _COPY.fullmatch(name):
        return copy["stem"], copy["suffix"]
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix.encode("utf-8", "surrogateescape")) > LONGEST_SUFFIX:
        return name, ""
    return stem, dot + suffix


def _is_copy_of(name: str, path: str) -> bool:
    """Whether a name is one that a conflict copy of this file has."""
    copy = _COPY.fullmatch(name)
    return copy is not None and _name(conflict_name(path, copy["agent"], copy["hash"])) == name


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _fold(path: str) -> str:
    """One and the same for two names that a laptop's file system cannot tell apart."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).lower())


# -- contents ----------------------------------------------------------------------------------------------------------


def _moves(texts: _Texts, mine: Edits, other: Edits) -> Moves:
    """What one side moved, the similar ones compared."""
    found = moves(mine, other)
    pairs = {source: (mine[source].before, mine[target].after) for source, target in found.items()}
    unlike = {source: pair for source, pair in pairs.items() if pair[0] and pair[1] and pair[0].oid != pair[1].oid}
    if not unlike:
        return found
    third = [other[source].after for source in unlike]
    texts.load(blob for blob in [*third, *(blob for pair in unlike.values() for blob in pair)] if blob is not None)
    return {
        source: target
        for source, target in found.items()
        if source not in unlike or are_similar(*(texts.of(blob) for blob in unlike[source]))
    }


def are_similar(one: bytes | None, another: bytes | None) -> bool:
    """Whether half of the bytes of the larger text are in lines of both."""
    if one is None or another is None:
        return False
    lines, others = (Counter(plain(text).splitlines(keepends=True)) for text in (one, another))
    common = sum(len(line) * count for line, count in (lines & others).items())
    return common >= SIMILAR * max(len(plain(one)), len(plain(another)))


def _merged(agent: str, texts: _Texts, path: str, versions: Versions) -> bytes | None:
    """The content merged from both sides; None where they clash."""
    ours, theirs, base = texts.of(versions.ours), texts.of(versions.theirs), texts.of(versions.base)
    if ours is None or theirs is None:
        return None
    if path == dashboard.PATH:
        was, mine, other = (
            None if it is None else it.decode("utf-8", "surrogateescape") for it in (base, ours, theirs)
        )
        assert mine is not None
        assert other is not None
        cloud, local = (other, mine) if agent == LOCAL else (mine, other)
        return dashboard.merge(was, cloud, local).encode("utf-8", "surrogateescape")
    if path.startswith("Logs/"):
        return _each_line_once(union(texts, base, ours, theirs), ours, theirs)
    return three_way(texts, base, ours, theirs)


def _clash(result: _Result, texts: _Texts, path: str, versions: Versions) -> bytes | None:
    """Keep both versions, one of them as a copy. Where there are copies enough, the union of their lines."""
    assert versions.ours is not None
    assert versions.theirs is not None
    person_is_ours = result.git.agent_name == LOCAL
    ours_stays = person_is_ours and path.startswith(DECISIONS)
    stays, goes = (versions.ours, versions.theirs) if ours_stays else (versions.theirs, versions.ours)
    ours, theirs = texts.of(versions.ours), texts.of(versions.theirs)
    result.files[path] = stays
    if ours is None or theirs is None or result.room_for_copy(path, goes):
        result.keep_copy(path, goes, ours=not ours_stays)
        return None
    return union(texts, texts.of(versions.base), ours, theirs)


def three_way(texts: _Texts, base: bytes | None, ours: bytes, theirs: bytes) -> bytes | None:
    """The three-way merge by line, None where lines clash or there is no base. Line endings, and the last line's, do
    not clash: they are the changed ones."""
    if plain(ours) == plain(theirs):
        return theirs if base is None or _ending(ours) == _ending(base) else ours
    if base is None:
        return None
    merged = texts.merge_file(base, ours, theirs)
    if merged is not None or all(plain(text) == text for text in (base, ours, theirs)):
        return merged
    merged = texts.merge_file(plain(base), plain(ours), plain(theirs))
    return None if merged is None else _with_ending(merged, base, ours, theirs)


def union(texts: _Texts, base: bytes | None, ours: bytes, theirs: bytes) -> bytes:
    """All lines of both sides, where they clash in an order of their own: whoever joins comes to the same."""
    merged = texts.merge_file(plain(base or b""), *sorted((plain(ours), plain(theirs))), union=True)
    assert merged is not None
    return _with_ending(merged, base, ours, theirs)


def _each_line_once(merged: bytes, ours: bytes, theirs: bytes) -> bytes:
    """No line more often than on either side: the records of a log that came by two ways are one."""
    counts = [Counter(plain(text).split(b"\n")) for text in (ours, theirs)]
    left = counts[0] | counts[1]
    kept = []
    for line in merged.split(b"\n"):
        bare = line.removesuffix(b"\r")
        left[bare] -= 1
        if left[bare] >= 0 or not bare:
            kept.append(line)
    return b"\n".join(kept)


def plain(text: bytes) -> bytes:
    """With one kind of line ending, at the end too."""
    text = text.replace(b"\r\n", b"\n")
    return text if not text or text.endswith(b"\n") else text + b"\n"


def _ending(text: bytes) -> tuple[bool, bool]:
    """(most lines end with CRLF, the last line ends at all)."""
    return 2 * text.count(b"\r\n") > text.count(b"\n"), text.endswith(b"\n")


def _with_ending(merged: bytes, base: bytes | None, ours: bytes, theirs: bytes) -> bytes:
    """The line endings of the side that changed them."""
    was = _ending(base) if base is not None else (None, None)
    crlf, last = (
        other if mine == before else mine
        for before, mine, other in zip(was, _ending(ours), _ending(theirs), strict=True)
    )
    if not last:
        merged = merged.removesuffix(b"\n")
    return merged.replace(b"\n", b"\r\n") if crlf else merged


class _Texts:
    """Contents of files: read and written many at once, merged in a folder of their own."""

    def __init__(self, git: Git) -> None:
        self.git = git
        self._known: dict[str, bytes | None] = {}
        self._temporary = tempfile.TemporaryDirectory(prefix="cloud-agent-")
        self._folder = Path(self._temporary.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def load(self, blobs: Iterable[Blob]) -> None:
        """Read what is not known yet. Raises GitError where one is missing."""
        wanted = list(dict.fromkeys(blob.oid for blob in blobs if _is_regular(blob) and blob.oid not in self._known))
        if not wanted:
            return
        sizes = self._cat_file("--batch-check", wanted).decode().splitlines()
        small = []
        for oid, line in zip(wanted, sizes, strict=True):
            _, kind, *size = line.split(" ")
            if kind != "blob":
                raise GitError(("cat-file",), 128, f"fatal: missing blob {oid}")
            self._known[oid] = None
            if int(size[0]) <= LARGEST_TEXT:
                small.append(oid)
        out = self._cat_file("--batch", small) if small else b""
        position = 0
        for oid in small:
            start = out.index(b"\n", position) + 1
            end = start + int(out[position:start].split(b" ")[2])
            content = out[start:end]
            self._known[oid] = None if b"\0" in content else content
            position = end + 1

    def _cat_file(self, batch: str, oids: list[str]) -> bytes:
        status, out, err = self.git.attempt_bytes("cat-file", batch, stdin="".join(f"{oid}\n" for oid in oids).encode())
        if status != 0:
            raise GitError(("cat-file",), status, err)
        return out

    def of(self, blob: Blob | None) -> bytes | None:
        """The content of a text that was loaded; None where it is binary, too large, or no text file at all."""
        return self._known.get(blob.oid) if blob is not None and _is_regular(blob) else None

    def merge_file(self, base: bytes, ours: bytes, theirs: bytes, *, union: bool = False) -> bytes | None:
        names = []
        for name, content in (("ours", ours), ("base", base), ("theirs", theirs)):
            file = self._folder / name
            file.write_bytes(content)
            names.append(str(file))
        status, merged, err = self.git.attempt_bytes("merge-file", "-p", *(["--union"] if union else []), *names)
        # The number of clashes, at most 127.
        if not 0 <= status <= 127 or (union and status != 0):
            raise GitError(("merge-file",), status, err)
        return merged if status == 0 else None

    def write(self, contents: Iterable[bytes]) -> list[str]:
        """Store files and return their ids."""
        paths = []
        for number, content in enumerate(contents):
            file = self._folder / f"merged-{number}"
            file.write_bytes(content)
            paths.append(f"{file}\n")
        if not paths:
            return []
        return self.git.run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin="".join(paths).encode()).split()


# -- the result --------------------------------------------------------------------------------------------------------


class _Result:
    """The joined tree, as far as it was touched on either side. The rest is the same in ours and theirs."""

    def __init__(self, git: Git, ours: str, mine: Edits, other: Edits) -> None:
        self.git = git
        self.commit = ours
        self.mine = mine
        self.other = other
        self.files: Changes = {}
        self.copies: list[tuple[str, str]] = []
        self._folders: dict[str, dict[str, tuple[str, Blob | None]]] = {}

    def ours(self, path: str) -> Blob | None:
        return _at(path, self.mine, self.other)

    def theirs(self, path: str) -> Blob | None:
        return _at(path, self.other, self.mine)

    def changes(self) -> Changes:
        found = {path: blob for path, blob in self.files.items() if blob != self.ours(path)}
        return dict(sorted(found.items(), key=lambda item: (item[1] is not None, item[0])))

    def room_for_copy(self, path: str, blob: Blob) -> bool:
        """Whether a conflict copy of this version is there already, or one more may be."""
        copies = self._copies_of(path)
        return len(copies) < MAX_COPIES or any(present == blob for _, present in copies)

    def keep_copy(self, path: str, blob: Blob, *, ours: bool) -> None:
        """Put a version beside its file, unless it lies there."""
        agent = self.git.agent_name
        if not ours:
            agent = "cloud" if agent == LOCAL else LOCAL
        copy = next((name for name, present in self._copies_of(path) if present == blob), None)
        key = blob.oid
        while copy is None:
            name = conflict_name(path, agent, key)
            if _fold(_name(name)) not in self._listing(_folder(name)):
                self._listing(_folder(name))[_fold(_name(name))] = _name(name), blob
                self.files[name] = blob
                copy = name
            # Else there is a copy of that name that was edited since.
            key = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
        self.copies.append((path, copy))

    def _copies_of(self, path: str) -> list[tuple[str, Blob | None]]:
        folder = _folder(conflict_name(path, LOCAL, EMPTY_FILE))
        found = [item for item in self._listing(folder).values() if _is_copy_of(item[0], path)]
        return [(f"{folder}/{name}" if folder else name, blob) for name, blob in found]

    def _listing(self, folder: str) -> dict[str, tuple[str, Blob | None]]:
        """What lies in a folder: by folded name, the name and the file, None for a folder."""
        if folder in self._folders:
            return self._folders[folder]
        prefix = f"{folder}/" if folder else ""
        out = self.git.run("ls-tree", "--full-tree", "-z", self.commit, *(["--", prefix] if prefix else []))
        found: dict[str, tuple[str, Blob | None]] = {}
        for meta, _, path in (entry.partition("\t") for entry in out.split("\0") if entry.partition("\t")[2]):
            mode, kind, oid = meta.split(" ")
            if path.startswith(prefix) and path not in self.files:
                found[_fold(_name(path))] = _name(path), Blob(mode, oid) if kind != "tree" else None
        for path, blob in self.files.items():
            if blob is not None and path.startswith(prefix):
                name, below, _ = path.removeprefix(prefix).partition("/")
                found[_fold(name)] = name, None if below else blob
        self._folders[folder] = found
        return found

    def part_names_that_differ_in_case(self) -> None:
        by_fold: dict[str, list[str]] = defaultdict(list)
        for path, blob in self.files.items():
            if blob is not None:
                by_fold[_fold(path)].append(path)
        for paths in [paths for paths in by_fold.values() if len(paths) > 1]:
            ours = [path for path in paths if self.theirs(path) is None]
            theirs = [path for path in paths if self.ours(path) is None]
            for path in ours if theirs else ():
                blob = self.files[path]
                assert blob is not None
                self.files[path] = None
                if all(self.files[kept] != blob for kept in theirs):
                    self.keep_copy(path, blob, ours=True)

    def part_files_from_folders(self) -> None:
        present = [path for path, blob in self.files.items() if blob is not None]
        files: dict[str, list[str]] = defaultdict(list)
        for path in present:
            files[_fold(path)].append(path)
        below: dict[str, list[str]] = defaultdict(list)  # a file, and what lies in a folder of that name
        for path in present:
            folder = _folder(_fold(path))
            while folder:
                for file in files.get(folder, ()):
                    below[file].append(path)
                folder = _folder(folder)
        for file, inside in below.items():
            blob = self.files[file]
            if blob is not None and not all(self._had_both(file, path) for path in inside):
                self.files[file] = None
                self.keep_copy(file, blob, ours=self.ours(file) is not None)

    def _had_both(self, one: str, another: str) -> bool:
        return any(None not in (side(one), side(another)) for side in (self.ours, self.theirs))


def _at(path: str, side: Edits, other_side: Edits) -> Blob | None:
    """The file of a side at a path that either touched."""
    if path in side:
        return side[path].after
    return other_side[path].before if path in other_side else None
