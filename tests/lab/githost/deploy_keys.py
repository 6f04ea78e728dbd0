#!/usr/bin/python3
"""What GitHub's ssh server does with a deploy key: it opens one repository, and perhaps for reading only.

    deploy_keys authorize <type> <key>       sshd's AuthorizedKeysCommand: prints the key's line, or nothing
    deploy_keys serve <owner/name> <access>  the forced command of that line; access: read, write

The keys are those that tests/standins/github_api.py has registered. Refusals are worded as GitHub's.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

KEYS_FILE = Path("/var/lib/github-api/keys.json")
REPOSITORIES = Path("/srv/git")
READING = ("git-upload-pack", "git-upload-archive")
WRITING = ("git-receive-pack",)


def authorize(key_type: str, key: str) -> None:
    if KEYS_FILE.exists():
        for entry in json.loads(KEYS_FILE.read_text()):
            if entry["key"] == f"{key_type} {key}":
                access = "read" if entry["read_only"] else "write"
                print(f'restrict,command="deploy_keys serve {entry["repository"]} {access}" {entry["key"]}')


def serve(repository: str, access: str) -> NoReturn:
    try:
        wanted = shlex.split(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    except ValueError:
        sys.exit("Invalid command.")
    if not wanted:
        sys.exit(f"Hi {repository}! You've successfully authenticated, but there is no shell access.")
    if len(wanted) != 2 or wanted[0] not in READING + WRITING:
        sys.exit("Invalid command.")
    verb, path = wanted
    # A key knows its own repository alone; any other looks as if it did not exist.
    if path.strip("/").removesuffix(".git").lower() != repository.lower():
        sys.exit("ERROR: Repository not found.")
    if verb in WRITING and access != "write":
        sys.exit("ERROR: The key you are authenticating with has been marked as read only.")
    os.execvp(verb, [verb, str(REPOSITORIES / f"{repository}.git")])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["authorize", key_type, key]:
            authorize(key_type, key)
        case ["serve", repository, access]:
            serve(repository, access)
        case _:
            sys.exit(__doc__)
