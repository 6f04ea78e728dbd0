"""Whether a search takes time in proportion to its input, judged against itself: no test here knows a second."""

from __future__ import annotations

import time
from collections.abc import Callable

SMALL = 20_000
FACTOR = 8
# Eight times the input takes 8 times the time, or 64 times where the search is quadratic.
BOUND = 28
# Below this a clock says nothing.
GRAIN = 0.002


def assert_linear(search: Callable[[bytes], object], unit: bytes) -> None:
    def seconds(size: int) -> float:
        content = (unit * (size // len(unit) + 1))[:size]
        times = []
        for _ in range(2):
            began = time.process_time()
            search(content)
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(SMALL * FACTOR) < BOUND * max(seconds(SMALL), GRAIN), unit[:40]
