"""Calls to Claude side by side, a bounded number at a time. What became of them are values, failures too."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from cloud_agent.claude import Answer, Drafter
from cloud_agent.mail import Mail
from cloud_agent.request import Task


@dataclass(frozen=True)
class Call:
    """One call: the file of its mail, what is asked, and the US dollars that it may cost at most (None: unpriced)."""

    path: str
    task: Task
    worst: float | None

    @property
    def mail(self) -> Mail:
        return self.task.mail


Ended = list[tuple[Call, Answer | BaseException]]


class Calls:
    """One thread uses it; `running` are the calls in hand."""

    def __init__(self, drafter: Drafter, most: int) -> None:
        self.drafter = drafter
        self.running: dict[Future[Answer], Call] = {}
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="claude")

    def begin(self, call: Call) -> None:
        self.running[self._pool.submit(self.drafter.draft, call.task)] = call

    def ended(self, seconds: float) -> Ended:
        """The calls that have ended, with what came of each; waits so long for the first one."""
        done, _ = wait(self.running, timeout=seconds, return_when=FIRST_COMPLETED)
        return [(self.running.pop(future), future.exception() or future.result()) for future in done]

    def close(self, seconds: float) -> Ended:
        """Begin nothing more; what ends within so many seconds need not be paid for again."""
        done, _ = wait(self.running, timeout=seconds)
        self._pool.shutdown(wait=False, cancel_futures=True)
        return [(self.running.pop(future), future.exception() or future.result()) for future in done]
