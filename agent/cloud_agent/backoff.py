"""When to call again whoever did not answer: Claude, a mailbox. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

FIRST_SECONDS = 10.0
LONGEST_SECONDS = 300.0


@dataclass(frozen=True)
class Backoff:
    """How often in a row nothing was answered, and until when nothing is asked."""

    failures: int = 0
    until: datetime | None = None
    first: float = FIRST_SECONDS
    longest: float = LONGEST_SECONDS

    def after_failure(self, now: datetime, at_least: float = 0.0) -> Backoff:
        """10 s, 20 s, 40 s … 300 s, or by other bounds; longer where that is asked for (`at_least`, seconds), up to the
        same bound."""
        pause = min(max(self.first * 2 ** min(self.failures, 10), at_least), self.longest)
        return replace(self, failures=self.failures + 1, until=now + timedelta(seconds=pause))

    def left(self, now: datetime) -> float:
        """Seconds until the next call may be made. A clock that was set back makes nobody wait longer than ever."""
        if self.until is None:
            return 0.0
        left = (self.until - now).total_seconds()
        return left if 0.0 < left <= self.longest else 0.0
