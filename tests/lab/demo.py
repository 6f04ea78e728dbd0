"""`make demo`: from nothing to a drafted mail in the owner's clone, on a machine that the playbook made.

Everything is the real thing, over ssh and HTTP, except what a laptop cannot reach: the VM is a container, the git host
is one too, and without CLAUDE_API_KEY Claude is a stand-in. The output says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab import lab
from tests.lab.host import LabError, run
from tests.lab.lab import ROOT, Lab
from tests.lab.local import Local

MAILS = ("test_001", "urgent_002")
APPROVED = "urgent_002"
VAULT_ON_TARGET = "/opt/personal-ai-employee/vault"
# The intervals of inventories/local are 5 s each; the rest is Claude's time.
DRAFTS_WITHIN = 180.0
APPROVAL_WITHIN = 90.0


def main() -> int:
    try:
        Demo().run()
    except LabError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; `make demo` starts it anew, `make demo-down` removes it", file=sys.stderr)
        return 130
    return 0


class Demo:
    """One run, chapter by chapter."""

    def __init__(self) -> None:
        self.lab = Lab("demo")
        self.real = bool(os.environ.get("CLAUDE_API_KEY"))
        self.started = time.monotonic()

    def run(self) -> None:
        title("A machine, bare, and a git host, empty")
        self.boot()
        title("The playbook makes it the agent's machine")
        self.playbook()
        title("The owner puts two mails into the vault")
        self.put_mails()
        title("Cloud drafts; the drafts arrive in the owner's clone")
        self.await_drafts()
        title("The owner approves one draft, by moving it")
        self.approve()
        title(f"That was it, in {time.monotonic() - self.started:.0f} s")
        self.say_goodbye()

    def boot(self) -> None:
        lab.down("demo")
        lab.up("demo")
        told = self.lab.describe()
        print(f"target   {told['base']}, systemd, login user ubuntu, reached over ssh only")
        print(f"git host {told['targets']['target']['remote_url']}, access by deploy key alone")
        if told["nodesource"]:
            print("STAND-IN NodeSource cannot be reached from here: Node.js comes from a signed repository of the lab")
        if self.real:
            print("Claude   CLAUDE_API_KEY is set: drafts are written by Claude, and cost what the usage table says")
        else:
            print("STAND-IN CLAUDE_API_KEY is not set: the Messages API is a stand-in on the git host, over real HTTP")

    def playbook(self) -> None:
        began = time.monotonic()
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventories/local", "site.yml"]
        environment = {**os.environ, "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false"}
        print("$ cd ansible && ansible-playbook -i inventories/local site.yml", flush=True)
        status = subprocess.run(command, cwd=ROOT / "ansible", env=environment, check=False).returncode
        if status != 0:
            raise LabError(f"the playbook failed (above).\n{self.why()}")
        print(f"site.yml took {time.monotonic() - began:.0f} s")

    def put_mails(self) -> None:
        self.local = Local(self.lab, self.lab.directory / "local")
        for mail in MAILS:
            name = f"EMAIL_{mail}.md"
            (self.local.path / "Inbox" / name).write_bytes((ROOT / "tests" / "mails" / name).read_bytes())
        self.local.push("Local: two mails")
        print("pushed: " + ", ".join(f"Inbox/EMAIL_{mail}.md" for mail in MAILS))

    def await_drafts(self) -> None:
        drafts = [f"Pending_Approval/Email/EMAIL_DRAFT_{mail}.md" for mail in MAILS]
        self.wait("both drafts", DRAFTS_WITHIN, lambda: all(self.local.has(draft) for draft in drafts))
        for draft in drafts:
            show(draft, (self.local.path / draft).read_text())
        show("pm2 list, typed by ubuntu on the target", self.lab.run_on_target(["pm2", "list", "--no-color"]))
        show("Dashboard.md, section Updates", (self.local.path / "Dashboard.md").read_text().partition("## Updates")[2])
        for table in sorted((self.local.path / "Logs" / "API_Usage").glob("*.md")):
            show(table.relative_to(self.local.path).as_posix(), table.read_text())
        show("git log of the vault", self.local.git("log", "--oneline", "--max-count=10"))
        spent = self.status()["spent_today_usd"]
        print(f"\ncost: ${spent:.4f}{'' if self.real else ' by the price list; the stand-in itself costs nothing'}")

    def approve(self) -> None:
        calls = self.calls()
        approved = f"Approved/Email/EMAIL_DRAFT_{APPROVED}.md"
        self.local.git("mv", f"Pending_Approval/Email/EMAIL_DRAFT_{APPROVED}.md", approved)
        self.local.push(f"Local: approved {APPROVED}")
        # Cloud files the mail under Done as soon as it sees the decision, and pushes that.
        self.wait("Cloud's answer", APPROVAL_WITHIN, lambda: self.local.has(f"Done/Email/EMAIL_{APPROVED}.md"))
        print("Cloud saw the approval: it filed the mail under Done/Email/")
        print("on the target: " + self.lab.run_on_target(["ls", f"{VAULT_ON_TARGET}/{approved}"]).strip())
        print("watching two more passes of the inbox …", flush=True)
        time.sleep(12)
        self.local.pull()
        pending = sorted(path.name for path in (self.local.path / "Pending_Approval" / "Email").glob("*.md"))
        if pending != [f"EMAIL_DRAFT_{mail}.md" for mail in MAILS if mail != APPROVED] or self.calls() != calls:
            raise LabError(f"a mail was drafted again: {pending}, {self.calls()} calls after {calls}.\n{self.why()}")
        print(f"nothing was drafted again: still {calls} calls; waiting for approval: {', '.join(pending)}")

    def wait(self, what: str, seconds: float, arrived: Callable[[], bool]) -> None:
        """Wait until it is there, with a dot a second; fail with the logs of what went wrong."""
        began = time.monotonic()
        print(f"waiting for {what} ", end="", flush=True)
        while not arrived():
            if time.monotonic() - began > seconds:
                print()
                raise LabError(f"no {what} within {seconds:.0f} s.\n{self.why()}")
            print(".", end="", flush=True)
            time.sleep(1)
        print(f" {time.monotonic() - began:.0f} s")

    def calls(self) -> int:
        """How many calls to the model there were: rows of the usage table."""
        return sum(
            line.count("email_draft")
            for path in (self.local.path / "Logs" / "API_Usage").glob("*.md")
            for line in path.read_text().splitlines()
        )

    def status(self) -> dict[str, Any]:
        """The agent's own report; its exit status is 1 while something is wrong."""
        root = "/opt/personal-ai-employee"
        agent = [f"{root}/current/venv/bin/cloud-agent", "--env-file", f"{root}/.env.cloud", "status", "--json"]
        command = ["sudo", "-u", "cloud-agent", *agent]
        report: dict[str, Any] = json.loads(run([*self.lab.ssh(), "--", *command], check=False).stdout)
        return report

    def why(self) -> str:
        """What the machine itself says, for a demo that failed."""
        questions = (
            ["pm2", "list", "--no-color"],
            ["pm2", "logs", "--nostream", "--lines", "40"],
            ["sudo", "git", "-C", VAULT_ON_TARGET, "log", "--oneline", "-5"],
            ["sudo", "journalctl", "--no-pager", "--lines=30"],
        )
        parts = []
        for argv in questions:
            done = run([*self.lab.ssh(), "--", *argv], check=False)
            parts.append(f"--- {' '.join(argv)}\n{done.stdout}{done.stderr}")
        return "\n".join(parts)

    def say_goodbye(self) -> None:
        ssh = " ".join(str(part) for part in self.lab.ssh())
        own_key = (
            "" if self.real else "\n                  CLAUDE_API_KEY=… make demo       the same with Claude itself"
        )
        print(
            f"""look around       {ssh}
                  then: pm2 list · pm2 logs · cd /opt/personal-ai-employee/vault && git log
the owner's side  {self.local.path.relative_to(ROOT)}: put mails into Inbox/, move drafts, git push{own_key}
your own VM       README.md, "Your own machine": three lines of settings and one ansible-playbook
stop              make demo-down                   removes containers, network and files"""
        )


def title(text: str) -> None:
    print(f"\n=== {text} {'=' * max(0, 90 - len(text))}", flush=True)


def show(what: str, text: str) -> None:
    print(f"\n--- {what}")
    for line in text.strip().splitlines():
        print(f"    {line}")


if __name__ == "__main__":
    sys.exit(main())
