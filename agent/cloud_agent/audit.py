"""The chain of records in `Logs/Cloud/`: each line of `<log>-YYYY-MM.jsonl` names the hash of its actor's line before.

A line is one JSON object as `seal` writes it: UTF-8, no spaces, ending with `,"prev":"…","hash":"…"}`. `hash` is the
SHA-256 of the line's bytes without `,"hash":"…"`, `prev` included; `prev` is the `hash` of the line that the same actor
wrote before in the same log, in whatever month, "" in its first. The vault is synced and `Logs/` merges by union: lines
of several actors stand in one file in any order, so a chain is followed by its hashes, not by the order of lines.

What holds, and what `verify` reports otherwise:

| lines of an actor                            | are
| ---                                          | ---
| whose hash is not that of their bytes        | a fault: changed
| whose `prev` no kept line has                | fine for the earliest kept line: what was before was cleaned up; else
|                                              | a fault: the line before was removed or changed
| whose `prev` another line has too            | a fault: inserted, or two machines write under one name
| whose `prev` is ""                           | fine: a machine that was set up anew begins a chain
| without a hash, above the first with one     | fine: written before lines were chained
| without a hash, below it                     | a fault: inserted
| that are no JSON object                      | torn by a power loss: fine as long as the chain goes on around them
| without those that the state folder knows,   | a fault: the beginning or the end is cut off. Without the state folder
| each kept month's first and the very last    | nobody notices, and the log is trusted as it is
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, BinaryIO, NamedTuple

from cloud_agent.state import State
from cloud_agent.vault import AUDIT, ForbiddenPath, Vault

LOGS = ("audit", "sync", "mail")
RETENTION = timedelta(days=90)  # for so long logs are kept: the hackathon's rule, docs/operations.md
LONGEST = 1_000_000  # bytes of a line; a longer one is none of ours
BLOCK = 65536
MOST_RUNS = 10_000  # of one chain: memory is bounded, whatever lies there
MOST_EXPLAINED = 10

_SEAL = re.compile(rb',"prev":"(?P<prev>[0-9a-f]{64}|)"(?P<last>,"hash":"(?P<hash>[0-9a-f]{64})")\}')
_FILE = re.compile(r"(?P<log>[a-z]+)-(?P<month>\d{4}-\d\d)\.jsonl")

Place = tuple[str, int]  # path, line number from 1


@dataclass(frozen=True)
class Audit:
    """What a check found: how many records there are, and the first fault with what to do next, "" for none."""

    entries: int
    fault: str


class Line(NamedTuple):
    """One record, as far as its chain goes. Without `hash` it was written before lines were chained, or is damaged."""

    actor: str
    prev: str = ""
    hash: str = ""
    sound: bool = True


def seal(record: Mapping[str, Any], prev: str) -> tuple[bytes, str]:
    """The line of a record, with its line break, and its hash."""
    text = json.dumps({**record, "prev": prev}, ensure_ascii=False, separators=(",", ":")).encode()
    digest = hashlib.sha256(text).hexdigest()
    return text.removesuffix(b"}") + f',"hash":"{digest}"}}\n'.encode(), digest


def parse(raw: bytes) -> Line | None:
    """A line of a log; None where it is no JSON object. Never raises."""
    raw = raw.rstrip(b"\r\n")
    try:
        record = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    actor = record.get("actor")
    actor = actor if isinstance(actor, str) else ""
    start = raw.rfind(b',"prev":"')
    found = _SEAL.fullmatch(raw, start) if start >= 0 else None
    if found is None:
        return Line(actor, sound=not record.keys() & {"prev", "hash"})
    hashed = raw[: found.start("last")] + b"}"
    digest = found["hash"].decode()
    return Line(actor, found["prev"].decode(), digest, hashlib.sha256(hashed).hexdigest() == digest)


# -- writing -----------------------------------------------------------------------------------------------------------


def head(vault: Vault, log: str, actor: str, known: str, *, thorough: bool) -> str:
    """The hash of the last line of an actor's chain, "" where there is none. Raises ForbiddenPath.

    `known` is a hash that was the last one once: from there on the chain is followed, reading back from the end of the
    newest file, so that a restart and a second process find it. A known line that is gone was cut off: the chain goes
    on from it all the same, so that the hole can be seen. Without a known one the whole log is read. `thorough`: look
    at the end of each file, because a line that was written before a kill lies in an older one where the clock was set
    back. A file that cannot be read holds nothing up: `verify` tells of it.
    """
    paths = files(vault, log)
    if not known:
        chain = _Chain()
        for path in paths:
            with contextlib.suppress(OSError):
                for place, raw in _lines(vault, [path]):
                    line = _own(raw, actor)
                    if line is not None:
                        chain.add(line, place)
        return chain.last()
    following: dict[str, str] = {}
    found = False
    for path in reversed(paths):
        with contextlib.suppress(OSError):
            for line in _own_from_end(vault, path, actor):
                found |= line.hash == known
                if line.hash == known or (found and line.prev != known and line.prev not in following.values()):
                    break
                if line.sound:
                    following[line.prev] = line.hash
        if found and not thorough:
            break
    last = known
    while last in following:
        last = following.pop(last)
    return last


def _own(raw: bytes, actor: str) -> Line | None:
    line = parse(raw) if f'"{actor}"'.encode() in raw else None
    return line if line is not None and line.actor == actor and line.hash else None


def _own_from_end(vault: Vault, path: str, actor: str) -> Iterator[Line]:
    with vault.open(path) as file:
        for raw in _from_end(file):
            line = _own(raw, actor)
            if line is not None:
                yield line


def _from_end(file: BinaryIO) -> Iterator[bytes]:
    position = file.seek(0, os.SEEK_END)
    rest = b""
    while position:
        size = min(BLOCK, position)
        position -= size
        file.seek(position)
        rest, *lines = (file.read(size) + rest).split(b"\n")
        yield from reversed(lines)
        if len(rest) > LONGEST:
            rest = b""
    yield rest


# -- reading -----------------------------------------------------------------------------------------------------------


def verify(vault: Vault, state: State | None = None, now: datetime | None = None) -> Audit:
    """Check all logs against their chains and what the state folder remembers. Never raises for what lies there.

    Reads every line once, and keeps none: memory does not grow with the logs. `now` tells which logs may have been
    cleaned up. Sync may rewrite a file meanwhile: hold the tree lock, or check again under it what seems broken.
    """
    entries = 0
    faults: list[tuple[Place, str]] = []
    for log in LOGS:
        heads = state.heads(log) if state is not None else {}  # read before the log, which is written first
        try:
            count, found = _verify_log(vault, log, heads, now)
        except (OSError, ForbiddenPath) as error:
            return Audit(
                0, f"the record cannot be read ({error}): make {AUDIT} a folder of files that this user may read"
            )
        entries += count
        faults += found
    if not faults:
        return Audit(entries, "")
    (path, _), what = faults[0]
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return Audit(
        entries, f"{what}{more}: see docs/audit.md; in the vault `git log -p -- {path}` shows which commit did it"
    )


def _verify_log(
    vault: Vault, log: str, heads: Mapping[str, Any], now: datetime | None
) -> tuple[int, list[tuple[Place, str]]]:
    """(records, faults) of one log."""
    paths = files(vault, log)
    chains: dict[str, _Chain] = {}
    anchors = {actor: _anchor(kept) for actor, kept in heads.items()}
    unseen = {actor: {anchor.last, *anchor.first.values()} - {""} for actor, anchor in anchors.items()}
    entries = 0
    faults = _Faults()
    for place, raw in _lines(vault, paths):
        line = parse(raw)
        if line is None:
            continue  # a torn line: where it was a whole one once, the chain misses it
        entries += 1
        if not line.sound:
            faults.add(place, "was changed after it was written")
        if line.hash:
            unseen.get(line.actor, set()).discard(line.hash)
            chains.setdefault(line.actor, _Chain()).add(line, place)
        elif line.sound and (line.actor in chains or (not line.actor and chains)):
            faults.add(place, "has no hash, below lines that have one: it was inserted")
        elif line.sound:
            faults.unchained.setdefault(line.actor, place)
    for actor, chain in chains.items():
        for place in chain.loose(unchained=actor in faults.unchained):
            faults.loose.append(place)
    faults.explain(vault, paths)
    for actor, anchor in anchors.items():
        starts = chains[actor].starts if actor in chains else {}
        for month, what in _missing(anchor, unseen[actor], starts, [path[-13:-6] for path in paths], now):
            path = f"{AUDIT}/{log}-{month}.jsonl"
            faults.missing.append(((path, 0), f"{path}: the {what} lines of {actor} are missing"))
    return entries, sorted(faults.found) + faults.missing


class _Anchor(NamedTuple):
    """What the state folder knows of a chain: its last line, that line's month, and each month's first line."""

    last: str
    month: str
    first: dict[str, str]


def _anchor(kept: object) -> _Anchor:
    fields = kept if isinstance(kept, dict) else {}
    first = fields.get("first")
    first = {str(month): _text(digest) for month, digest in first.items()} if isinstance(first, dict) else {}
    return _Anchor(_text(fields.get("hash")), _text(fields.get("month")), first)


def _missing(
    anchor: _Anchor, unseen: set[str], starts: Collection[str], months: Sequence[str], now: datetime | None
) -> Iterator[tuple[str, str]]:
    """(month, "first" or "last") of the lines that the state folder knows and the log has not; `unseen` are hashes,
    `starts` the chain's runs. A month that is gone was cleaned up."""
    for month, digest in anchor.first.items():
        if month in months and digest in unseen:
            yield month, "first"
    cleaned = anchor.last in starts  # all that is kept was written after it
    if not starts and anchor.month not in months and now is not None:
        cleaned = anchor.month < f"{now - RETENTION:%Y-%m}"
    if anchor.last in unseen and not cleaned:
        yield anchor.month, "last"


@dataclass
class _Chain:
    """One actor's lines in one log, as runs that follow each other by their hashes: one run, unless something is
    missing or stands in another order. A run's start is the `prev` of its first line; `:` and that line's hash where
    this is "", because several chains may begin."""

    starts: dict[str, tuple[str, Place]] = field(default_factory=dict)  # -> (hash of the last line, the first's place)
    ends: dict[str, tuple[str, Place]] = field(default_factory=dict)  # hash of the last line -> (start, its place)
    doubles: list[Place] = field(default_factory=list)

    def add(self, line: Line, place: Place) -> None:
        start = line.prev or f":{line.hash}"
        if start in self.starts or line.hash in self.ends or len(self.starts) >= MOST_RUNS:
            if len(self.doubles) < MOST_EXPLAINED:
                self.doubles.append(place)
            return
        first = last = place
        end = line.hash
        if start in self.ends:
            start, _ = self.ends.pop(start)
            _, first = self.starts.pop(start)
        if end in self.starts:
            end, _ = self.starts.pop(end)
            _, last = self.ends.pop(end)
        self.starts[start] = end, first
        self.ends[end] = start, last

    def last(self) -> str:
        """The hash of the last line, "" where there is none; of several ends the one that stands last."""
        return max(self.ends, key=lambda end: self.ends[end][1], default="")

    def loose(self, *, unchained: bool) -> list[Place]:
        """The lines that follow none, but for those that may: see the table above."""
        earliest = min((place for _, place in self.starts.values()), default=None)
        return self.doubles + [
            place
            for start, (_, place) in self.starts.items()
            if not start.startswith(":") and (place != earliest or unchained)
        ]


@dataclass
class _Faults:
    found: list[tuple[Place, str]] = field(default_factory=list)
    loose: list[Place] = field(default_factory=list)  # lines that follow none
    missing: list[tuple[Place, str]] = field(default_factory=list)
    unchained: dict[str, Place] = field(default_factory=dict)  # by actor, the first line without a hash

    def add(self, place: Place, what: str) -> None:
        path, number = place
        if len(self.found) < MOST_RUNS:
            self.found.append((place, f"{path}: line {number} {what}"))

    def explain(self, vault: Vault, paths: Iterable[str]) -> None:
        """Say of each loose line why it is one. Reads the log once more, where there are any."""
        changed = {place for place, _ in self.found}  # that is said already
        self.loose = sorted(place for place in self.loose if place not in changed)
        wanted = {*self.loose[:MOST_EXPLAINED]}
        lines = {place: parse(raw) for place, raw in _lines(vault, paths) if place in wanted} if wanted else {}
        known = {line.prev for line in lines.values() if line} | {line.hash for line in lines.values() if line}
        seen: Counter[str] = Counter()
        for _, raw in _lines(vault, paths) if wanted else ():
            line = parse(raw)
            if line is not None and line.hash in known:
                seen[line.hash] += 1
        for place in self.loose:
            line = lines.get(place)
            if line is not None and seen[line.hash] > 1:
                self.add(place, "stands twice")
            elif line is not None and seen[line.prev]:
                self.add(
                    place,
                    f"follows a line that another one follows: it was inserted, or two machines write as {line.actor} "
                    "(give one another AGENT_NAME)",
                )
            else:
                self.add(place, "does not follow: the line before it was removed or changed")


def files(vault: Vault, log: str) -> list[str]:
    """The months of a log, oldest first."""
    try:
        with os.scandir(vault.folder(AUDIT)) as entries:
            names = [entry.name for entry in entries if (found := _FILE.fullmatch(entry.name)) and found["log"] == log]
    except FileNotFoundError:
        return []
    return [f"{AUDIT}/{name}" for name in sorted(names)]


def _lines(vault: Vault, paths: Iterable[str]) -> Iterator[tuple[Place, bytes]]:
    """The lines of files one by one. One that is too long comes in pieces, which are none of ours."""
    for path in paths:
        with vault.open(path) as file:
            for number, raw in enumerate(iter(lambda: file.readline(LONGEST), b""), start=1):
                yield (path, number), raw


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
