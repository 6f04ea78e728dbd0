#!/usr/bin/python
"""Module that makes, proves and replaces a deploy key on the machine. Runs there: Python 3.10, standard library."""

from __future__ import annotations

import base64
import glob
import hashlib
import os
import pwd
import re
import subprocess
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: deploy_key
short_description: The deploy key of one repository, made on the machine
description:
  - Makes an ed25519 key whose private half never leaves the machine, pins the host keys of the git host, and tries
    whether the repository lets the key in to read and to write (a push of nothing).
  - The key's comment ends with the repository that it was made for. For another repository, and for a rotation, the
    new key is made beside the old one, as C(<path>.new); the old one works on until C(state=promoted).
  - Can be interrupted anywhere. The next call goes on.
options:
  path:
    description: The private key. The public half is C(<path>.pub); C(known_hosts) and C(config) lie in its folder.
    type: path
    required: true
  owner:
    description: The user whom the key belongs to, and who runs git.
    type: str
    required: true
  title:
    description: The beginning of the key's comment.
    type: str
    required: true
  repository:
    description: The repository, as C(owner/name).
    type: str
    required: true
  remote_url:
    description: The repository as git takes it. It may hold a token.
    type: str
    required: true
  known_hosts:
    description: The host keys that are accepted, as lines of C(known_hosts).
    type: list
    elements: str
    required: true
  config:
    description: The content of the user's ssh configuration.
    type: str
    required: true
  rotate:
    description: Make a new key beside the present one, unless a rotation is under way already.
    type: bool
    default: false
  state:
    description:
      - V(present) makes what is missing.
      - V(promoted) puts the new key, if there is one, in the place of the present one, whose public half is remembered.
      - V(settled) forgets that public half.
    type: str
    choices: [present, promoted, settled]
    default: present
  connections:
    description: Folder of connections (C(ssh-*)) that git keeps open. They end with V(promoted).
    type: path
"""

RETURN = r"""
public_key: {description: Type and key of the key that is to be registered., type: str, returned: always}
fingerprint: {description: Its fingerprint as ssh-keygen prints it., type: str, returned: always}
is_new: {description: Whether it waits beside the present one., type: bool, returned: always}
ours: {description: Every public key that this machine made and may still need., type: list, returned: always}
replaced:
  description: The key that was replaced and not yet forgotten, with its fingerprint and repository.
  type: dict
  returned: always
works: {description: Whether the repository can be read and written with it., type: bool, returned: always}
is_known: {description: Whether the host showed a pinned key., type: bool, returned: always}
said: {description: What git said otherwise., type: str, returned: always}
"""

DEADLINE = 60  # seconds, for one command


def short(public: str) -> str:
    """Type and key of a line in OpenSSH's format, without its comment."""
    return " ".join(public.split()[:2])


def fingerprint(public: str) -> str:
    """As `ssh-keygen -l` prints it; "" for what is no key."""
    words = public.split()
    if len(words) < 2:
        return ""
    digest = hashlib.sha256(base64.b64decode(words[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def made_for(public: str) -> str:
    """The repository that a key was made for, from its comment; "" where it does not say."""
    comment = public.split()[2:]
    return comment[-1] if len(comment) > 1 and "/" in comment[-1] else ""


def without_credentials(text: str) -> str:
    return re.sub(r"://[^/@\s]+@", "://", text)


class Key:
    """The files of a deploy key, and what is done with them."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.given = module.params
        self.check = module.check_mode
        self.path: str = self.given["path"]
        self.new = f"{self.path}.new"
        self.old_public = f"{self.path}.old.pub"
        self.folder = os.path.dirname(self.path)
        self.changed = False
        try:
            self.owner: pwd.struct_passwd | None = pwd.getpwnam(self.given["owner"])
        except KeyError:
            if not self.check:  # a dry run on a virgin machine
                module.fail_json(msg=f"there is no user {self.given['owner']}")
            self.owner = None

    # -- files

    def read(self, path: str) -> str:
        try:
            with open(path) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def settle_interrupted(self) -> None:
        """Finish, or clear away, what an interrupted call left. A private key is renamed before its public half."""
        if self.check:
            return
        if os.path.exists(f"{self.new}.pub") and not os.path.exists(self.new):
            os.rename(f"{self.new}.pub", f"{self.path}.pub")
        for path in (self.path, self.new):
            if os.path.exists(path) and not self.read(f"{path}.pub").strip():
                self.changed = True
                if path == self.path:  # it may be registered, and its public half is part of it
                    self.write(f"{path}.pub", self.as_owner("ssh-keygen", "-y", "-f", path).stdout, 0o644)
                else:
                    os.unlink(path)

    def make_folder(self) -> None:
        if self.check and not os.path.isdir(self.folder):
            self.changed = True
            return
        if not os.path.isdir(self.folder):
            os.mkdir(self.folder, 0o700)
            self.changed = True
        self.give(self.folder, 0o700)

    def give(self, path: str, mode: int) -> None:
        """Let a file be the owner's, with this mode."""
        now = os.stat(path)
        wanted = (self.owner.pw_uid, self.owner.pw_gid) if self.owner else (now.st_uid, now.st_gid)
        if (now.st_uid, now.st_gid) == wanted and now.st_mode & 0o7777 == mode:
            return
        self.changed = True
        if not self.check:
            os.chown(path, *wanted)
            os.chmod(path, mode)

    def write(self, path: str, content: str, mode: int) -> None:
        if self.read(path) == content:
            if content:
                self.give(path, mode)
            return
        self.changed = True
        if self.check:
            return
        handle, beside = tempfile.mkstemp(dir=self.folder)
        with os.fdopen(handle, "w") as file:
            file.write(content)
        os.chmod(beside, mode)
        os.chown(beside, self.owner.pw_uid, self.owner.pw_gid)
        os.rename(beside, path)

    # -- keys

    def choose(self) -> str:
        """The key to register and to prove: the present one, or the new one that is to replace it."""
        present = self.read(f"{self.path}.pub")
        if not present:
            return self.path
        elsewhere = made_for(present) not in ("", self.given["repository"])
        # A key that was replaced and is not forgotten is a rotation that has come as far as the removal of it.
        under_way = bool(self.read(self.old_public)) and not os.path.exists(self.new)
        return self.new if elsewhere or (self.given["rotate"] and not under_way) else self.path

    def make(self, path: str) -> None:
        public = self.read(f"{path}.pub")
        if public and os.path.exists(path) and (path == self.path or made_for(public) == self.given["repository"]):
            self.give(path, 0o600)
            return
        self.changed = True
        if self.check:
            return
        # A new key for a repository that is no longer meant. The public half alone would be taken for a promotion.
        for left in (f"{path}.pub", path):
            if os.path.exists(left):
                os.unlink(left)
        comment = f"{self.given['title']} {self.given['repository']}"
        self.as_owner("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)

    def promote(self) -> None:
        if not os.path.exists(self.new):
            return
        self.changed = True
        if self.check:
            return
        self.write(self.old_public, self.read(f"{self.path}.pub"), 0o644)
        os.rename(self.new, self.path)
        os.rename(f"{self.new}.pub", f"{self.path}.pub")
        # A connection that is kept open is one of the old key. What is under way on it ends in peace.
        for socket in glob.glob(os.path.join(self.given["connections"] or "", "ssh-*")):
            self.as_owner("ssh", "-F", "none", "-O", "stop", "-o", f"ControlPath={socket}", "git", check=False)

    def settle(self) -> None:
        if os.path.exists(self.old_public):
            self.changed = True
            if not self.check:
                os.unlink(self.old_public)

    # -- git

    def as_owner(self, *argv: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        assert self.owner is not None
        try:
            done = subprocess.run(
                argv,
                env={**os.environ, "HOME": self.owner.pw_dir, "LC_ALL": "C", **environment},
                cwd="/",
                **self.become(),
                umask=0o022,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=DEADLINE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            done = subprocess.CompletedProcess(argv, 124, "", f"no answer within {DEADLINE} seconds")
        if check and done.returncode != 0:
            self.module.fail_json(msg=f"{argv[0]} failed: {done.stderr.strip()}")
        return done

    def become(self) -> dict:
        if os.geteuid() == self.owner.pw_uid:
            return {}
        return {"user": self.owner.pw_uid, "group": self.owner.pw_gid, "extra_groups": []}

    def prove(self, path: str) -> str:
        """Read and write the repository with this key and no other. Returns what git said if that failed."""
        # Not the user's configuration: that names the present key, which would be offered too.
        options = "BatchMode=yes StrictHostKeyChecking=yes UpdateHostKeys=no IdentitiesOnly=yes ConnectTimeout=15"
        ssh = ["ssh", "-F", "none", "-i", path, "-o", f"UserKnownHostsFile={self.folder}/known_hosts"]
        ssh += [part for option in options.split() for part in ("-o", option)]
        environment = {"GIT_SSH_COMMAND": " ".join(ssh), "GIT_TERMINAL_PROMPT": "0"}
        url = self.given["remote_url"]
        with tempfile.TemporaryDirectory() as empty:
            os.chown(empty, self.owner.pw_uid, self.owner.pw_gid)
            self.as_owner("git", "init", "--quiet", "--bare", empty)
            # The deletion of a branch that is not there, and only tried: asks for write access and changes nothing.
            push = ("git", "-C", empty, "push", "--dry-run", url, ":refs/heads/cloud-agent-probe")
            # Whoever may write may read. A key that is to replace another is asked for both.
            calls = (("git", "ls-remote", "--heads", url), push) if path == self.new else (push,)
            for call in calls:
                done = self.as_owner(*call, check=False, **environment)
                if done.returncode != 0:
                    return without_credentials(done.stderr.strip()) or f"git ended with {done.returncode}"
        return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True, "no_log": False},
            "owner": {"type": "str", "required": True},
            "title": {"type": "str", "required": True},
            "repository": {"type": "str", "required": True},
            "remote_url": {"type": "str", "required": True, "no_log": True},
            "known_hosts": {"type": "list", "elements": "str", "required": True},
            "config": {"type": "str", "required": True},
            "rotate": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "promoted", "settled"], "default": "present"},
            "connections": {"type": "path"},
        },
        supports_check_mode=True,
    )
    key = Key(module)
    key.make_folder()
    key.settle_interrupted()
    key.write(os.path.join(key.folder, "known_hosts"), "\n".join(module.params["known_hosts"]) + "\n", 0o644)
    key.write(os.path.join(key.folder, "config"), module.params["config"], 0o600)
    if module.params["state"] == "promoted":
        key.promote()
        path = key.path
    elif module.params["state"] == "settled":
        key.settle()
        path = key.path
    else:
        path = key.choose()
        key.make(path)
    there = os.path.exists(path)
    said = key.prove(path) if there else ""
    public = key.read(f"{path}.pub")
    replaced = key.read(key.old_public)
    publics = [public, key.read(f"{key.path}.pub"), key.read(f"{key.new}.pub"), replaced]
    module.exit_json(
        changed=key.changed,
        public_key=short(public),
        fingerprint=fingerprint(public),
        is_new=path == key.new,
        ours=sorted({short(one) for one in publics if one.strip()}),
        replaced={
            "public_key": short(replaced),
            "fingerprint": fingerprint(replaced),
            "repository": made_for(replaced) or (module.params["repository"] if replaced else ""),
        },
        # In a dry run on a virgin machine there is nothing to try.
        works=not said,
        is_known="Host key verification failed" not in said,
        said=said,
    )


if __name__ == "__main__":
    main()
