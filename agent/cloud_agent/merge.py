"""Joining two versions of the vault, in git's object store: nothing on disk is touched, so a kill leaves nothing half.

Base, ours and theirs are commits. What one side alone changed is taken. What both changed, path by path:

| ours      | theirs    | the path                  | becomes
| same      | same      | any                       | that
| deleted   | changed   | any                       | theirs: modified beats deleted
| changed   | deleted   | any                       | ours: modified beats deleted
| changed   | changed   | Dashboard.md              | `## Updates` from Cloud's side, the rest from Local's
| changed   | changed   | Logs/**                   | the union of the lines
| changed   | changed   | other text                | a three-way merge; where lines clash, or there is no common base:
| changed   | changed   | clash, or binary          | theirs keeps the name, ours is kept as a conflict copy
| a file    | a folder  | (either way round)        | the folder keeps the name, the file becomes a conflict copy

A conflict copy is `<stem>.conflict-<agent>-<hash of the content><suffix>`: the same content, the same name. No conflict
marker ever reaches the store. Needs git 2.30 (`merge-tree --write-tree` would need 2.38, Ubuntu 22.04 has 2.34).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cloud_agent import dashboard
from cloud_agent.git import Blob, Git, nul_ended

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
FILE_MODE = "100644"
LONGEST_NAME = 255  # bytes, on every file system that a vault lies on

Changes = dict[str, Blob | None]  # path -> the new file, None where it was deleted


def merge_trees(git: Git, base: str | None, ours: str, theirs: str) -> str:
    """The id of the joined tree."""
    our_changes = changes(git, base or EMPTY_TREE, ours)
    their_changes = changes(git, base or EMPTY_TREE, theirs)
    result: Changes = {path: blob for path, blob in their_changes.items() if path not in our_changes}
    for path in their_changes.keys() & our_changes.keys():
        mine, other = our_changes[path], their_changes[path]
        if mine == other:
            continue
        if mine is None or other is None:
            result[path] = mine or other
        else:
            result.update(_both_changed(git, path, mine, other, (base, ours, theirs)))
    with tempfile.TemporaryDirectory(prefix="cloud-agent-") as folder:
        index = f"{folder}/index"
        git.run("read-tree", ours, index=index)
        paths = [path for path in git.run("ls-files", "-z", index=index).split("\0") if path]
        result.update(_file_against_folder(git, set(paths), result, (ours, theirs)))
        lines = [
            f"{blob.mode} {blob.oid}\t{path}" if blob is not None else f"0 {'0' * 40}\t{path}"
            for path, blob in sorted(result.items(), key=lambda item: item[1] is not None)  # removals first
        ]
        git.run("update-index", "-z", "--index-info", stdin=nul_ended(lines), index=index)
        return git.run("write-tree", index=index).strip()


def changes(git: Git, before: str, after: str) -> Changes:
    """What changed between two trees, without guessing at renames."""
    fields = git.run("diff-tree", "-r", "-z", "--no-renames", "--no-commit-id", before, after).split("\0")
    found: Changes = {}
    for meta, path in zip(fields[::2], fields[1::2], strict=False):
        _, mode, _, oid, status = meta.split(" ")
        found[path] = None if status == "D" else Blob(mode, oid)
    return found


def conflict_name(path: str, agent: str, oid: str, digits: int = 10) -> str:
    """Where a clashing version is kept. Pure; a copy of a copy keeps one marker, and no name grows too long."""
    pure = PurePosixPath(path)
    stem = pure.stem.split(".conflict-")[0]
    end = f".conflict-{agent}-{oid[:digits]}{pure.suffix}"
    while len(f"{stem}{end}".encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        stem = stem[:-1]
    return str(pure.with_name(stem + end))


def _both_changed(git: Git, path: str, mine: Blob, other: Blob, commits: tuple[str | None, str, str]) -> Changes:
    base, *sides = commits
    if mine.oid == other.oid:
        return {path: other}
    regular = {mine.mode, other.mode} <= {FILE_MODE, "100755"}
    if regular and path == dashboard.PATH:
        cloud, local = (mine, other) if git.agent_name != "local" else (other, mine)
        joined = dashboard.merge(_text(git, cloud), _text(git, local)).encode("utf-8", "surrogateescape")
        return {path: Blob(other.mode, _store(git, joined))}
    if regular:
        merged = _merge_file(git, _base_content(git, base, path), mine, other, union=path.startswith("Logs/"))
        if merged is not None:
            return {path: Blob(other.mode, _store(git, merged))}
    return {path: other, _copy_name(git, path, mine, sides): mine}


def _copy_name(git: Git, path: str, blob: Blob, sides: Sequence[str | None]) -> str:
    """The conflict copy's name; a longer one where a copy of that name was edited since."""
    for digits in (10, 20):
        name = conflict_name(path, git.agent_name, blob.oid, digits)
        if all(_oid_at(git, side, name) in (None, blob.oid) for side in sides if side):
            return name
    return conflict_name(path, git.agent_name, blob.oid, 40)


def _oid_at(git: Git, commit: str, path: str) -> str | None:
    status, out, _ = git.attempt("rev-parse", "--verify", "--quiet", f"{commit}:{path}")
    return out.strip() if status == 0 else None


def _file_against_folder(git: Git, existing: set[str], result: Changes, sides: Sequence[str]) -> Changes:
    """Rename the file of each pair where one side has a file and the other a folder of that name."""
    kept = {path for path in existing if result.get(path, True) is not None}
    kept |= {path for path, blob in result.items() if blob is not None}
    folders: set[str] = set()
    for path in kept:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    moved: Changes = {}
    for file in kept & folders:
        blob = result.get(file) or changes(git, EMPTY_TREE, sides[0])[file]
        assert blob is not None
        moved[file] = None
        moved[_copy_name(git, file, blob, sides)] = blob
    return moved


def _merge_file(git: Git, base: bytes | None, mine: Blob, other: Blob, *, union: bool) -> bytes | None:
    """The three-way merge of two texts, or None where lines clash or one is binary."""
    our_bytes, their_bytes = _content(git, mine), _content(git, other)
    if b"\0" in our_bytes or b"\0" in their_bytes:
        return None
    if base is None and not union:
        return None  # both added it: there is nothing to merge against
    with tempfile.TemporaryDirectory(prefix="cloud-agent-") as folder:
        names = []
        for name, content in (("ours", our_bytes), ("base", base or b""), ("theirs", their_bytes)):
            file = Path(folder, name)
            file.write_bytes(content)
            names.append(str(file))
        status, merged, _ = git.attempt_bytes("merge-file", "-p", *(["--union"] if union else []), *names)
    # The status is the number of clashes, 255 for an error.
    return merged if status == 0 else None


def _base_content(git: Git, base: str | None, path: str) -> bytes | None:
    if base is None:
        return None
    status, content, _ = git.attempt_bytes("cat-file", "blob", f"{base}:{path}")
    return content if status == 0 else None


def _content(git: Git, blob: Blob) -> bytes:
    _, content, _ = git.attempt_bytes("cat-file", "blob", blob.oid)
    return content


def _text(git: Git, blob: Blob) -> str:
    return _content(git, blob).decode("utf-8", "surrogateescape")


def _store(git: Git, content: bytes) -> str:
    return git.run("hash-object", "-w", "--stdin", stdin=content).strip()
