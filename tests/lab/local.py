"""The owner's side of the vault: a clone with a deploy key of its own, registered as a person would on GitHub."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from tests.lab.host import run
from tests.lab.lab import Lab


class Local:
    """A clone of the vault of a lab's machine, at `path`. Every failure of git raises LabError with git's own words."""

    def __init__(self, lab: Lab, path: Path, alias: str = "target") -> None:
        self.path = path
        key = path.with_name(f"{path.name}_key")
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "local", "-f", key])
        options = f"-F none -i {key} -o IdentitiesOnly=yes -o UserKnownHostsFile={lab.known_hosts}"
        described = lab.describe()
        githost, target = described["githost"], described["targets"][alias]
        body = {"title": "local", "key": key.with_suffix(".pub").read_text().strip(), "read_only": False}
        request = urllib.request.Request(
            f"{githost['api_url']}/repos/{target['repository']}/keys",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {githost['api_token']}", "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).close()
        # In the clone's own configuration, so that a plain `git push` by whoever looks around works too.
        settings = {
            "core.sshCommand": f"ssh {options} -o StrictHostKeyChecking=yes -o BatchMode=yes",
            "user.name": "Local",
            "user.email": "local@example.com",
            "pull.rebase": "false",
        }
        configured = [part for name, value in settings.items() for part in ("--config", f"{name}={value}")]
        run(["git", "clone", "--quiet", *configured, target["remote_url_local"], path])

    def git(self, *arguments: str) -> str:
        """Output of a git command in the clone."""
        return run(["git", "-C", self.path, *arguments]).stdout

    def pull(self) -> None:
        self.git("pull", "--quiet", "--no-edit")

    def push(self, message: str) -> None:
        """Commit everything and push, over whatever Cloud pushed in the meantime."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", message)
        self.pull()
        self.git("push", "--quiet")

    def has(self, pattern: str) -> bool:
        """Whether a file that matches has arrived; pulls first."""
        self.pull()
        return any(self.path.glob(pattern))
