"""Claims: with `CLAIM=yes` agents that share a vault never draft one mail twice.

A claim is a move and nothing else, `Inbox/… -> In_Progress/<agent>/EMAIL_<id>.md`, so that the remote decides: only one
of two pushes can win, and the other is joined with it first. A mail is drafted once its claim is proven: the remote's
branch, as it last answered, has the mail in this agent's folder and in no other agent's. The remote-tracking branch
moves only after the remote's answer, and whoever pushes later has this claim in his tree and is not alone.

A claim holds until a person moves the mail away. The remote's answer must be young, so that an agent that was dead for
long, and whose claim was released meanwhile, asks before it drafts: FRESH_SECONDS is far below
drafting.HELD_SECONDS, after which the others say that a claim may be released.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import datetime

from cloud_agent import status
from cloud_agent.config import Config
from cloud_agent.git import Git, GitError
from cloud_agent.state import Clock, State, iso
from cloud_agent.vault import Vault

# So long a pass waits for the sync loop; what is not proven then is left to the next pass.
PROOF_SECONDS = 60.0
# The sync loop's last success proves nothing when it is older.
FRESH_SECONDS = 600.0
LOOK_SECONDS = 0.1


def proven(paths: Iterable[str], remote: Iterable[str], own: str) -> set[str]:
    """Which claims hold. Pure. `remote` are the remote's files below In_Progress/, `own` is this agent's folder."""
    there = set(remote)
    held_by_others = {path.rpartition("/")[2] for path in there if not path.startswith(f"{own}/")}
    return {path for path in paths if path in there and path.rpartition("/")[2] not in held_by_others}


class Claims:
    """The claims of one agent. The clock and the stop signal come from outside."""

    def __init__(self, config: Config, state: State, clock: Clock, stop: threading.Event) -> None:
        self.state = state
        self.clock = clock
        self.stop = stop
        self.vault = Vault(config.vault_path, config.agent_name)
        self.git = Git(config.vault_path, config.agent_name)
        self.remote_branch = f"refs/remotes/origin/{config.git_branch}"

    def confirm(self, paths: Iterable[str]) -> tuple[set[str], str]:
        """Which of these claims are proven, and why the others are not; waits a while for the sync loop.

        Takes no lock. A claim that was lost while it waited is in neither.
        """
        wanted = set(paths)
        found = self._proven(wanted)
        if found == wanted:
            return found, ""
        asked, seen = iso(self.clock()), self.state.read_beat("sync")
        if fault := status.ask_for_cycle(self.state):
            return found, fault
        deadline = time.monotonic() + PROOF_SECONDS
        why = "the sync loop is still at it"
        while time.monotonic() < deadline and not self.stop.wait(LOOK_SECONDS):
            beat = self.state.read_beat("sync")
            if beat == seen or beat.get("underway"):
                continue
            seen = beat
            found = self._proven(wanted)
            wanted = {path for path in wanted if self.vault.exists(path)}
            if found >= wanted:
                return found & wanted, ""
            if str(beat.get("started", "")) >= asked:
                synced = beat.get("result") == "ok"
                held = "another agent holds it too, or it is held back (cloud-agent status)"
                why = held if synced else f"not synced: {beat.get('message', '')}"
                break
        return found & wanted, why

    def _proven(self, paths: set[str]) -> set[str]:
        if not self._is_fresh():
            return set()
        try:
            command = ("ls-tree", "-r", "-z", "--name-only", self.remote_branch, "--", "In_Progress/")
            code, out, _ = self.git.attempt(*command)
        except GitError:
            return set()
        return proven(paths, out.split("\0"), self.vault.in_progress) if code == 0 else set()

    def _is_fresh(self) -> bool:
        try:
            succeeded = datetime.fromisoformat(self.state.read_beat("sync").get("succeeded", ""))
            return 0 <= (self.clock() - succeeded).total_seconds() <= FRESH_SECONDS
        except (ValueError, TypeError):
            return False
