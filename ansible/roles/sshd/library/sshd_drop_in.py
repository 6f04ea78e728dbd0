#!/usr/bin/python
"""Puts a drop-in before all other configuration of sshd, and sees to it that it wins."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.guard import arm, begin, undo

DOCUMENTATION = """
module: sshd_drop_in
short_description: A drop-in of sshd that wins
description:
  - Writes I(path), which has to be the first file that the main configuration includes, as the first value of a keyword
    is the one that counts. Adds the Include to the top of a main configuration that has none.
  - Refuses to where the user that Ansible logs in as could not get in again.
  - The whole configuration is tested, and what is in force is compared with I(content), before sshd reads it.
    Before anything is written, an undo is armed, which the role guard takes away once a new login is proven.
options:
  path:
    description: The drop-in.
    type: path
    required: true
  content:
    description: Its text, one keyword and its value a line, in the words of C(sshd -T).
    type: str
    required: true
  undo_seconds:
    description: After how many seconds an unproven change is undone.
    type: int
    required: true
author: [personal-ai-employee]
"""

EXAMPLES = """
- sshd_drop_in:
    path: /etc/ssh/sshd_config.d/00-cloud-agent.conf
    content: |
      PasswordAuthentication no
    undo_seconds: 60
"""

RETURN = """
unproven:
  description: Whether an undo is armed, so that a new login has to be proven.
  returned: success
  type: bool
"""


NAME = "sshd"
MAIN = Path("/etc/ssh/sshd_config")
# An address of no one's: what is set for a network of one's own, in a Match block, is an exception made on purpose.
ANYWHERE = "203.0.113.1"


def settings(text: str) -> dict[str, str]:
    """Keyword in lower case -> value, the first of each, of the text of a configuration without Match blocks."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split(None, 1)
        if len(words) == 2:
            found.setdefault(words[0].lower(), words[1].strip())
    return found


def with_include(text: str, directory: str) -> str:
    """The main configuration, with the Include at the top if it includes nothing of `directory` anywhere."""
    if re.search(rf"(?mi)^\s*Include\s.*{re.escape(directory)}/\*\.conf", text):
        return text
    return f"# The first value counts (Ansible, role sshd).\nInclude {directory}/*.conf\n{text}"


def differences(wanted: dict[str, str], effective: dict[str, str]) -> list[str]:
    """The keywords whose value in force is another."""
    return [keyword for keyword in wanted if effective.get(keyword) != wanted[keyword]]


def where_set(keyword: str, files: dict[str, str], ours: str) -> list[str]:
    """file:line of each place that sets the keyword, but ours."""
    return [
        f"{name}:{number}"
        for name, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if name != ours and line.split("#")[0].strip().lower().startswith(f"{keyword} ")
    ]


def has_key(user: pwd.struct_passwd, patterns: str) -> bool:
    """Whether a key of the user stands in one of the files of AuthorizedKeysFile."""
    for pattern in patterns.split():
        name = pattern.replace("%h", user.pw_dir).replace("%u", user.pw_name)
        file = Path(user.pw_dir, name)
        if file.is_file() and any(
            line.strip() and not line.lstrip().startswith("#") for line in file.read_text(errors="replace").splitlines()
        ):
            return True
    return False


def lock_outs(login: str, wanted: dict[str, str], effective: dict[str, str]) -> list[str]:
    """Why the user that Ansible logs in as could not log in any more."""
    problems = []
    if login == "root" and wanted.get("permitrootlogin") == "no":
        problems.append(
            "Ansible logs in as root, and root logins get closed. Mend: make a user who may sudo, "
            "and set ansible_user to it"
        )
    # Keys from a directory service, and certificates: only the login itself can tell.
    elsewhere = any(effective.get(name, "none") != "none" for name in ("authorizedkeyscommand", "trustedusercakeys"))
    if not elsewhere and not has_key(pwd.getpwnam(login), effective.get("authorizedkeysfile", "none")):
        problems.append(
            f"{login} has no authorized key, and password logins get closed. Mend: ssh-copy-id {login}@this machine"
        )
    return problems


def a_login(user: str) -> str:
    """One from anywhere, with all that a Match block may ask for: sshd fails on what it is not told."""
    return f"user={user},host={ANYWHERE},addr={ANYWHERE},laddr={ANYWHERE},lport=22"


def in_force(module: AnsibleModule, user: str) -> dict[str, str]:
    """What sshd would do now for a user from anywhere, by its own word. Fails on a configuration that it refuses."""
    status, output, error = module.run_command(["sshd", "-T", "-C", a_login(user)])
    if status != 0:
        raise ValueError(error.strip())
    return settings(output)


def main() -> None:
    options = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "required": True},
        "undo_seconds": {"type": "int", "required": True},
    }
    module = AnsibleModule(options, supports_check_mode=True)
    path, content = Path(module.params["path"]), module.params["content"]
    wanted = settings(content)
    login = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name

    redone = begin(module, NAME)
    try:
        effective = in_force(module, login)
    except ValueError as error:
        module.fail_json(
            msg=f"sshd refuses the configuration that is there: {error}. Mend: correct it, see sudo sshd -t"
        )
    problems = lock_outs(login, wanted, effective)
    if problems:
        module.fail_json(msg=f"Nothing was changed: {'; '.join(problems)}")

    changes = [
        (file, file.read_text() if file.exists() else "", new)
        for file, new in ((path, content), (MAIN, with_include(MAIN.read_text(), str(path.parent))))
    ]
    changes = [change for change in changes if change[1] != change[2]]
    diff = [
        {"before_header": str(file), "after_header": str(file), "before": old, "after": new}
        for file, old, new in changes
    ]
    if module.check_mode:
        module.exit_json(changed=bool(changes) or redone, unproven=False, diff=diff)

    reload = ["systemctl", "try-reload-or-restart", "ssh.service"]
    if changes:
        arm(module, NAME, module.params["undo_seconds"], [file for file, *_ in changes], [reload])
    try:
        for file, _, new in changes:
            beside = file.with_name(f".{file.name}.new")
            beside.write_text(new)
            beside.chmod(0o644)
            module.atomic_move(str(beside), str(file))
        status, _, error = module.run_command(["sshd", "-t"])
        if status != 0:
            raise ValueError(f"sshd refuses its configuration with this: {error.strip()}")
        for user in (login, "root"):
            effective = in_force(module, user)
            files = {
                str(file): file.read_text(errors="replace") for file in (MAIN, *sorted(path.parent.glob("*.conf")))
            }
            for keyword in differences(wanted, effective):
                places = ", ".join(where_set(keyword, files, str(path))) or "a Match block or an included file"
                raise ValueError(
                    f"{keyword} is {effective.get(keyword, 'not known to sshd')} for {user} although {path} says "
                    f"{wanted[keyword]}. Mend: take it out of {places}"
                )
        if changes:
            # Where sshd is started by its socket, each login reads the configuration anew and this does nothing.
            status, _, error = module.run_command(reload)
            if status != 0:
                raise ValueError(f"sshd does not reload: {error.strip()}")
    except ValueError as error:
        if changes:
            undo(module, NAME)
        module.fail_json(msg=f"{error}. {'What had been changed is undone.' if changes else ''}".strip())
    module.exit_json(changed=bool(changes) or redone, unproven=bool(changes), diff=diff)


if __name__ == "__main__":
    main()
