"""What .git holds, read directly: HEAD, refs, reflogs, the seals of index, packs and loose objects.

For where git itself refuses to run, and for where a process a look would cost too much. The formats:
gitrepository-layout(5), gitformat-index(5), gitformat-pack(5). Below them, the writing of such files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path

_OID = rb"[0-9a-f]{40}(?:[0-9a-f]{24})?"
_REF = re.compile(rb"(?:ref: *(refs/[^\0\n]+)|(%s))\s*" % _OID)
_PACKED = re.compile(rb"(%s) (refs/[^\0\n]+)" % _OID)
_PEELED = re.compile(rb"#.*|\^%s" % _OID)
_REFLOG = re.compile(rb"%s (%s) " % (_OID, _OID))
_OIDS = re.compile(_OID)


def ref_value(content: bytes) -> str | None:
    """What HEAD or a loose ref says: the name of another ref (refs/…), an object id, or None when it is garbage."""
    found = _REF.fullmatch(content)
    return (found[1] or found[2]).decode("utf-8", "surrogateescape") if found else None


def packed_refs(content: bytes) -> tuple[dict[str, str], bytes]:
    """(ref -> object id, the lines that are sound); these are the whole content unless it is broken."""
    refs: dict[str, str] = {}
    sound = []
    for line in content.splitlines(keepends=True):
        found = _PACKED.fullmatch(line.removesuffix(b"\n"))
        if found and line.endswith(b"\n"):
            refs[found[2].decode("utf-8", "surrogateescape")] = found[1].decode()
        elif not (_PEELED.fullmatch(line.removesuffix(b"\n")) and line.endswith(b"\n")):
            continue
        sound.append(line)
    return refs, b"".join(sound)


def read_ref(folder: Path, name: str) -> str | None:
    """The object id of a ref or HEAD in this git folder, None where there is none; a loose one hides a packed one."""
    for _ in range(5):  # as many symbolic refs as git follows
        value = ref_value(read(folder / name) or b"")
        if value is None:
            return packed_refs(read(folder / "packed-refs") or b"")[0].get(name)
        if not value.startswith("refs/"):
            return value
        name = value
    return None


def reflog(content: bytes) -> list[str]:
    """Where a ref was: object ids, newest first, each once. Torn lines are passed over."""
    lines = (_REFLOG.match(line) for line in reversed(content.splitlines()))
    oids = (found[1].decode() for found in lines if found)
    return [oid for oid in dict.fromkeys(oids) if oid.strip("0")]


def object_ids(content: bytes) -> list[str]:
    """Every object id in a file like MERGE_HEAD or orig-head."""
    return [oid.decode() for oid in _OIDS.findall(content)]


def index_is_sound(content: bytes) -> bool:
    """Whether an index is whole. git checks its head alone when it reads one, and does not see a page of NULs.

    A trailer of zeros is that of index.skipHash.
    """
    if content[:4] != b"DIRC" or len(content) < 32:
        return False
    return any(
        content[-size:] in (bytes(size), hashlib.new(name, content[:-size], usedforsecurity=False).digest())
        for name, size in (("sha1", 20), ("sha256", 32))
    )


def shared_index(content: bytes) -> str | None:
    """The file that a split index builds on (the extension `link`), or None. A guess: a file's name may look so."""
    found = re.search(rb"link\0\0[\0-\xff]{2}([\0-\xff]{20})", content)
    return f"sharedindex.{found[1].hex()}" if found else None


def object_is_sound(oid: str, content: bytes) -> bool:
    """Whether a loose object is what its name says."""
    try:
        plain = zlib.decompress(content)
    except zlib.error:
        return False
    return hashlib.new("sha1" if len(oid) == 40 else "sha256", plain, usedforsecurity=False).hexdigest() == oid


def seal_holds(path: Path, size: int) -> bool:
    """Whether a pack or its index ends with the hash of all before; `size` is 20 (SHA-1) or 32 bytes."""
    digest = hashlib.new("sha1" if size == 20 else "sha256", usedforsecurity=False)
    left = path.stat().st_size - size
    if left <= 0:
        return False
    with path.open("rb") as file:
        while left > 0:
            part = file.read(min(left, 1 << 20))
            if not part:
                return False
            digest.update(part)
            left -= len(part)
        return file.read() == digest.digest()


def read(path: Path) -> bytes | None:
    """The bytes of a file, None where there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder."""
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


def free_name(path: Path) -> Path:
    """This name, or the next free one."""
    number = 2
    free = path
    while os.path.lexists(free):
        free = path.with_name(f"{path.name}.{number}")
        number += 1
    return free


def write(path: Path, content: bytes) -> None:
    """Write a file of .git whole, and on the disk before it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.cloud-agent")
    write_synced(temporary, content, 0o644)
    os.rename(temporary, path)


def write_synced(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
