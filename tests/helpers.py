"""What the tests of the drafting share: a vault in a temporary folder, a fixed clock, a drafter without a model."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cloud_agent.vault
from cloud_agent import frontmatter
from cloud_agent.claude import Answer
from cloud_agent.config import Config
from cloud_agent.drafting import Orchestrator, Report
from cloud_agent.mail import Mail
from cloud_agent.request import Reply, Task
from cloud_agent.state import State
from cloud_agent.usage import Usage
from cloud_agent.vault import DONE, INBOX, NEEDS_ACTION, PENDING, SKIPPED

MAILS = Path(__file__).parent / "mails"
MODEL = "claude-sonnet-5-5"
NOON = datetime(2026, 2, 16, 12, 0, 0, tzinfo=UTC)
HANDBOOK = "# Company handbook\n\nOffice hours: 9 to 17.\n"
DASHBOARD = "# Dashboard\n\nMy own words.\n\n## Updates\n"
MAIL_FOLDERS = (INBOX, "In_Progress/cloud", NEEDS_ACTION, DONE, SKIPPED)


def make_config(root: Path, **changes: Any) -> Config:
    """Valid settings of a vault at `root`/vault with its state beside it."""
    settings: dict[str, Any] = {
        "vault_path": root / "vault",
        "git_remote_url": str(root / "remote.git"),
        "claude_api_key": "test-key",
        "claude_model": MODEL,
        "claude_base_url": None,
        "draft_interval_seconds": 300.0,
        "draft_concurrency": 4,
        "sync_interval_seconds": 60.0,
        "git_branch": "main",
        "git_ssh_key_path": None,
        "agent_name": "cloud",
        "state_path": root / "state",
        "budget_usd_per_day": None,
        "budget_usd_per_week": None,
    }
    return Config(**(settings | changes))


def mail_text(email_id: str, body: str = "Could you call me?", **fields: str) -> str:
    """A mail file as a script writes it; `from_` is `from`."""
    header = {"email_id": email_id, "from": "ann@example.org", "subject": "A question", **fields}
    header = {name.removesuffix("_"): value for name, value in header.items()}
    if "from_" in fields:
        header["from"] = fields["from_"]
    return "---\n" + "".join(f"{name}: {value}\n" for name, value in header.items()) + f"---\n\n{body}\n"


def reply(body: str = "Dear Ann,\n\nI will call you.\n", decision: str = "reply", **more: Any) -> Reply:
    fields = {"reason": "A question.", "confidence": "high", "missing_facts": [], **more}
    return Reply.model_validate({"decision": decision, "body": body, **fields})


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)


class FakeDrafter:
    """A drafter without a model. `behave` gives a Reply, a text (why there is none), or raises; the calls are kept."""

    def __init__(self, behave: Callable[[Mail], Reply | str] | None = None) -> None:
        self.behave = behave or (lambda mail: reply())
        self.calls: list[Mail] = []
        self.tasks: list[Task] = []
        self.lock = threading.Lock()

    def draft(self, task: Task) -> Answer:
        with self.lock:
            self.calls.append(task.mail)
            self.tasks.append(task)
        made = self.behave(task.mail)
        usage = Usage(input=1000, output=200)
        return Answer(MODEL, usage, None, made) if isinstance(made, str) else Answer(MODEL, usage, made)


class Desk:
    """A vault, its state, a clock and a drafter; `run` makes one pass."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.config = make_config(root, **settings)
        self.vault = self.config.vault_path
        for folder in (*MAIL_FOLDERS, PENDING, "Approved/Email", "Rejected/Email", "Logs/Cloud", "Logs/API_Usage"):
            (self.vault / folder).mkdir(parents=True, exist_ok=True)
        self.write("Dashboard.md", DASHBOARD)
        self.write("Company_Handbook.md", HANDBOOK)
        self.clock = Clock()
        self.drafter = FakeDrafter()
        self.restart()

    def restart(self) -> None:
        """As after a start of the process: nothing but the disk is known."""
        self.stop = threading.Event()
        self.state = State(self.config.state_path)
        self.orchestrator = Orchestrator(
            self.config, self.drafter, self.state, self.clock, self.stop, settle_seconds=0.0
        )

    def run(self) -> Report:
        return self.orchestrator.run_pass()

    def write(self, path: str, content: str | bytes) -> Path:
        target = self.vault / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def put(self, email_id: str = "x", body: str = "Could you call me?", **fields: str) -> Path:
        return self.write(f"{INBOX}/EMAIL_{email_id}.md", mail_text(email_id, body, **fields))

    def move(self, source: str, target: str) -> None:
        (self.vault / target).parent.mkdir(parents=True, exist_ok=True)
        (self.vault / source).rename(self.vault / target)

    def read(self, path: str) -> str:
        return (self.vault / path).read_text("utf-8")

    def fields(self, path: str) -> dict[str, str]:
        return frontmatter.read(self.read(path))[0]

    def names(self, folder: str) -> list[str]:
        return sorted(path.name for path in (self.vault / folder).glob("*.md"))

    def files(self) -> dict[str, bytes]:
        """Every markdown file of the vault, path -> content."""
        return {str(path.relative_to(self.vault)): path.read_bytes() for path in sorted(self.vault.rglob("*.md"))}

    def drafts(self) -> list[str]:
        """Paths of all drafts, wherever they lie."""
        return [path for path in self.files() if Path(path).name.startswith("EMAIL_DRAFT_")]

    def usage_rows(self) -> list[str]:
        day = self.vault / f"Logs/API_Usage/{self.clock.now.date().isoformat()}.md"
        return [line for line in day.read_text().splitlines() if "email_draft" in line] if day.exists() else []


class Killed(BaseException):
    """The process was killed here."""


class KillingOS:
    """`os` for cloud_agent.vault that dies before its Nth change of the disk, and does nothing more from then on."""

    CHANGES = frozenset(("write", "link", "unlink", "rename", "fsync"))

    def __init__(self, kill_at: int | None) -> None:
        self.left = kill_at
        self.dead = False
        self.done = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name == "open":
            return lambda path, flags, *more, **others: (
                self._step(real, path, flags, *more, **others)
                if flags & os.O_CREAT and not str(path).endswith(".lock")
                else real(path, flags, *more, **others)
            )
        if name == "fsync":
            real = lambda descriptor: None  # noqa: E731  (the tests ask what is on disk, not when)
        if name in self.CHANGES:
            return lambda *arguments, **others: self._step(real, *arguments, **others)
        return real

    def _step(self, real: Callable[..., Any], *arguments: Any, **others: Any) -> Any:
        if self.left is not None and self.left <= 0:
            self.dead = True
        if self.dead:
            raise Killed
        if self.left is not None:
            self.left -= 1
        self.done += 1
        return real(*arguments, **others)

    def __enter__(self) -> KillingOS:
        cloud_agent.vault.os = self  # type: ignore[assignment, attr-defined, unused-ignore]
        return self

    def __exit__(self, *_: object) -> None:
        cloud_agent.vault.os = os  # type: ignore[attr-defined]
