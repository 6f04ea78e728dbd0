"""What may be committed: markdown and state, no secret, nothing huge, no conflict marker, no sudden mass deletion.

`examine` looks at a file and names the blob that may be committed: what was looked at, byte for byte. `check` judges
bytes. How a secret looks is in credentials.py.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from cloud_agent import credentials
from cloud_agent.git import Blob, blob_id
from cloud_agent.mail import is_mail_name
from cloud_agent.vault import TEMPORARY_PREFIX

MAX_BYTES = 50 * 1000 * 1000
_SUFFIXES = frozenset((".md", ".markdown", ".json", ".jsonl", ".canvas", ".base"))
_NAMES = frozenset((".gitkeep", ".gitignore", ".gitattributes"))
_SECRET_NAMES = re.compile(
    r"\.env.*|(credentials?|token|client_secret.*)\.json|id_(rsa|dsa|ecdsa|ed25519).*|.*\.(pem|key|ppk|p12|pfx|kdbx)"
    r"|\.netrc|\.npmrc|\.pypirc|\.pgpass|\.htpasswd|\.git-credentials",
    re.I,
)
# What Windows and macOS take for .git: git refuses it, and with it the whole commit.
_GIT_FOLDER = re.compile("(?:\\.git|git~1)[ .]*(?::.*)?", re.I)
_INVISIBLE = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")

# What belongs to one device or one user (vault/.gitignore says the same for plain git). Of Obsidian's: the open tabs,
# as its documentation says, and the code of plugins and themes, which each device installs; their settings are synced.
_NOISE_FOLDERS = frozenset((".trash", ".stfolder", ".stversions", ".dropbox.cache", ".fseventsd", ".spotlight-v100"))
_NOISE_NAMES = re.compile(
    rf"{re.escape(TEMPORARY_PREFIX)}.*|\.ds_store|\._.*|thumbs\.db|desktop\.ini|\.dropbox(?:\.attr)?"
    r"|.*\.sw[opx]|.*~|\.#.*|#.*#|~\$.*|\.~lock\..*|4913|\.goutputstream-.*|\.fuse_hidden.*|\.nfs[0-9a-f]{16,}"
    r"|.*\.(?:tmp|crdownload|part|partial)",
    re.I | re.S,
)
_NOISE_OF_OBSIDIAN = re.compile(
    r"(?:.*/)?\.obsidian/(?:workspace[^/]*\.json|workspace|cache(?:/.*)?"
    r"|(?:plugins|themes)/[^/]+/(?:[^/]+/.*|[^/]*(?<!\.json)))",
    re.I | re.S,
)


def is_noise(path: str) -> bool:
    """What is neither committed nor reported where git does not track it: it belongs to one device or one user."""
    *folders, name = path.lower().rstrip("/").split("/")
    return (
        bool(_NOISE_NAMES.fullmatch(name))
        or name in _NOISE_FOLDERS
        or any(folder in _NOISE_FOLDERS or folder.startswith(".trash-") for folder in folders)
        or bool(_NOISE_OF_OBSIDIAN.fullmatch(path))
    )


def objection(root: Path, path: str, own_secrets: Sequence[str] = ()) -> str | None:
    """Why a new or changed file is held back, or None when nothing speaks against it."""
    found = examine(root, path, own_secrets)
    return found if isinstance(found, str) else None


def examine(root: Path, path: str, own_secrets: Sequence[str] = ()) -> Blob | str | None:
    """The blob that may be committed; or why the file is held back; or None: it went away, or was written to while it
    was read, so that its turn is the next cycle.

    The file is opened once and read once, and no symbolic link is followed on the way to it.
    """
    why = _objection_to_name(path)
    if why is not None:
        return why
    try:
        descriptor = _open(root, path)
    except OSError as error:
        return _why_not_opened(root, path, error)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            return "it is no regular file: move it out of the vault"
        if before.st_size > MAX_BYTES:
            return "it is larger than 50 MB: move it out of the vault"
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            content = file.readall()
        after = os.fstat(descriptor)
    except OSError as error:
        return f"it cannot be read ({error.strerror}): give it to the agent's user"
    finally:
        os.close(descriptor)
    if len(content) != before.st_size or _version(before) != _version(after):
        return None
    why = check(path, content, own_secrets)
    if why is not None:
        return why
    return Blob("100755" if before.st_mode & stat.S_IXUSR else "100644", blob_id(content))


def check(path: str, content: bytes, own_secrets: Sequence[str] = ()) -> str | None:
    """Why this content is held back, or None. Pure.

    `own_secrets` are the agent's own credentials: their form is not known, so they are looked for word by word.
    """
    if any(secret.encode() in content for secret in own_secrets):
        return "it holds a key or a token of the agent's own: take it out, and replace it"
    secret = credentials.found(content)
    if secret is not None:
        return f"it holds what looks like a key or a token ({secret}): take it out, and replace the key"
    if _has_conflict(path, content):
        return "it holds conflict markers: settle the conflict in it"
    return None


def has_conflict_markers(content: bytes) -> bool:
    """`<<<<<<< x`, `=======` and `>>>>>>> x`, each at the start of a line, in this order (`||||||| x` may stand
    between), all of one length of seven or more. In one pass: a mail may hold a million."""
    return _conflict_begins(content) is not None


def _has_conflict(path: str, content: bytes) -> bool:
    """Git's own conflict, and none that a mail tells of: a mail's text is its sender's, and nobody merges it. So in a
    mail a conflict counts where it begins in the front matter. (A draft quotes its mail behind `> `.)"""
    begin = _conflict_begins(content)
    if begin is None or not is_mail_name(PurePosixPath(path).name):
        return begin is not None
    header = _FRONT_MATTER.match(content)
    return header is None or begin < header.end()


_FRONT_MATTER = re.compile(rb"(?:\xef\xbb\xbf)?---[ \t]*\r?\n(?>(?:(?!---[ \t]*\r?$)[^\n]*\n)*)---[ \t]*\r?$", re.M)
_MARKER = re.compile(rb"^(?:(<{7,}) |(={7,})\r?$|(>{7,}) )", re.M)


def _conflict_begins(content: bytes) -> int | None:
    """Where the first whole conflict begins; of several opening markers before one `=======`, the first."""
    if b"<<<<<<< " not in content:
        return None
    begins: dict[int, int] = {}
    split: dict[int, int] = {}
    for match in _MARKER.finditer(content):
        ours, middle, theirs = match.groups()
        if ours:
            begins.setdefault(len(ours), match.start())
        elif middle and len(middle) in begins:
            split.setdefault(len(middle), begins[len(middle)])
        elif theirs and len(theirs) in split:
            return split[len(theirs)]
    return None


def _objection_to_name(path: str) -> str | None:
    if path.endswith("/"):
        return "it is a git repository of its own: move it out of the vault, or remove its .git"
    pure = PurePosixPath(path)
    if ".." in pure.parts or any(_GIT_FOLDER.fullmatch(_INVISIBLE.sub("", part)) for part in pure.parts):
        return "git takes its name for one of its own: rename it"
    if _SECRET_NAMES.fullmatch(pure.name):
        return "its name is that of a secret: move it out of the vault"
    if pure.suffix.lower() not in _SUFFIXES and pure.name not in _NAMES:
        return "it is neither markdown nor state: move it out of the vault"
    return None


def _open(root: Path, path: str) -> int:
    """A descriptor of the file, each folder on the way opened in the one above: no link can be put in between."""
    *folders, name = path.split("/")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)


def _why_not_opened(root: Path, path: str, error: OSError) -> str | None:
    if any((root / parent).is_symlink() for parent in PurePosixPath(path).parents[:-1]):
        return "its folder is a symbolic link, which leads out of the vault: put a folder in its place"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return None
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return "it is no regular file: a link leads out of the vault"
    return f"it cannot be read ({error.strerror}): give it to the agent's user"


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def gone(deleted: Sequence[str], changed: Sequence[str], ids: Mapping[str, str] | None = None) -> list[str]:
    """The deleted files that did not just move.

    A new or changed file has their name, or their content (`ids`, where given: path -> blob id of both kinds); or, for
    a mail, as many mails are new elsewhere: Cloud files a mail under its id, whatever its file was called in the inbox.
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
    if ids:
        contents = {ids[path] for path in changed if path in ids}
        accounted.update(path for path in lost if ids.get(path) in contents)
    return [path for path in lost if path not in accounted]


def is_mass_deletion(deleted: Sequence[str], tracked: int) -> bool:
    """More than ten files and more than a third of the vault gone at once is taken for an accident: an unmounted disk,
    a folder that was emptied. A person's own clearing of that size waits for a word."""
    return len(deleted) > 10 and len(deleted) * 3 > tracked
