"""What may be committed: markdown and state, no secret, nothing huge, no conflict marker, no sudden mass deletion."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cloud_agent.mail import is_mail_name
from cloud_agent.vault import TEMPORARY_PREFIX

MAX_BYTES = 50 * 1000 * 1000
_SUFFIXES = frozenset((".md", ".markdown", ".json", ".jsonl", ".canvas", ".base"))
_NAMES = frozenset((".gitkeep", ".gitignore", ".gitattributes"))
_SECRET_NAMES = re.compile(
    r"\.env.*|(credentials?|token|client_secret.*)\.json|id_(rsa|dsa|ecdsa|ed25519).*|.*\.(pem|key|p12|pfx|kdbx)|\.netrc|\.npmrc|\.pypirc",
    re.I,
)
_SECRETS = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"
    rb"|\bsk-ant-[A-Za-z0-9_-]{20,}"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{40,}"
    rb"|\bglpat-[A-Za-z0-9_-]{20,}"
    rb"|\bA(?:KI|SI)A[0-9A-Z]{16}\b"
    rb"|\bAIza[A-Za-z0-9_-]{35}\b"
    rb"|\bsk-proj-[A-Za-z0-9_-]{20,}|\b[sr]k_live_[A-Za-z0-9]{20,}"
    rb"|\bxox[abprs]-[A-Za-z0-9-]{20,}"
    rb"|\bya29\.[A-Za-z0-9_-]{30,}"
)


def is_ours_to_ignore(path: str) -> bool:
    """Half-written files of ours: neither committed nor reported."""
    return PurePosixPath(path).name.startswith(TEMPORARY_PREFIX)


def objection(root: Path, path: str, own_secrets: Sequence[str] = ()) -> str | None:
    """Why a new or changed file is held back, or None when it may be committed.

    `own_secrets` are the agent's own credentials: their form is not known, so they are looked for word by word.
    """
    if path.endswith("/"):
        return "it is a git repository of its own: move it out of the vault, or remove its .git"
    pure = PurePosixPath(path)
    if any((root / parent).is_symlink() for parent in pure.parents[:-1]):
        return "its folder is a symbolic link, which leads out of the vault: put a folder in its place"
    if _SECRET_NAMES.fullmatch(pure.name):
        return "its name is that of a secret: move it out of the vault"
    if pure.suffix.lower() not in _SUFFIXES and pure.name not in _NAMES:
        return "it is neither markdown nor state: move it out of the vault"
    try:
        status = os.stat(root / path, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file: a link leads out of the vault"
        if status.st_size > MAX_BYTES:
            return "it is larger than 50 MB: move it out of the vault"
        content = (root / path).read_bytes()
    except OSError as error:
        return f"it cannot be read ({error.strerror}): give it to the agent's user"
    if _SECRETS.search(content) or any(secret.encode() in content for secret in own_secrets):
        return "it holds what looks like a key or a token: take it out, and replace the key"
    if has_conflict_markers(content):
        return "it holds conflict markers: settle the conflict in it"
    return None


def has_conflict_markers(content: bytes) -> bool:
    """`<<<<<<< `, `=======`, `>>>>>>> `, each on a line, in this order. In one pass: a mail may hold a million."""
    wanted = (b"<<<<<<< ", b"=======", b">>>>>>> ")
    if wanted[0] not in content:
        return False
    found = 0
    for line in content.splitlines():
        if line == wanted[1] if found == 1 else line.startswith(wanted[found]):
            found += 1
            if found == len(wanted):
                return True
    return False


def gone(deleted: Sequence[str], changed: Sequence[str]) -> list[str]:
    """The deleted files that did not just move.

    A new or changed file has their name; or, for a mail, as many mails are new elsewhere: Cloud files a mail under its
    id, whatever its file was called in the inbox.
    """
    names = Counter(PurePosixPath(path).name for path in changed)
    lost = []
    for path in deleted:
        name = PurePosixPath(path).name
        if names[name] > 0:
            names[name] -= 1
        else:
            lost.append(path)
    filed = sum(count for name, count in names.items() if is_mail_name(name))
    mails = [path for path in lost if path.startswith("Inbox/") and is_mail_name(PurePosixPath(path).name)]
    accounted = set(mails[:filed])
    return [path for path in lost if path not in accounted]


def is_mass_deletion(deleted: Sequence[str], tracked: int) -> bool:
    """More than ten files and more than a third of the vault gone at once is taken for an accident."""
    return len(deleted) > 10 and len(deleted) * 3 > tracked
