"""When the next step is."""

from __future__ import annotations

import threading
import time

import pytest
from cloud_agent import loop


def times(steps: list[float | None], interval: float, pause: float = 0.0, wake: tuple[float, ...] = ()) -> list[float]:
    """When each step began, seconds after the first; a step returns what `steps` says, and the last one stops."""
    signals = loop.Signals()
    began: list[float] = []

    def step(cycle: int) -> float | None:
        began.append(time.monotonic())
        if cycle > len(steps):
            signals.request_stop()
            return None
        return steps[cycle - 1]

    timers = [threading.Timer(after, signals.wake) for after in wake]
    for timer in timers:
        timer.start()
    loop.run(step, interval, signals, pause)
    for timer in timers:
        timer.cancel()
    return [moment - began[0] for moment in began]


def test_a_step_comes_after_the_interval_or_as_it_asks() -> None:
    _, second, third = times([None, 0.05], 0.2)
    assert second == pytest.approx(0.2, abs=0.1)
    assert third - second == pytest.approx(0.05, abs=0.04)
    assert times([60.0], 0.05)[1] < 1.0  # a step may ask for an earlier one, not for a later


def test_a_wake_is_seen_at_once_and_not_lost_in_a_step() -> None:
    assert times([None], 60.0, wake=(0.1,))[1] == pytest.approx(0.1, abs=0.09)
    signals = loop.Signals()
    cycles: list[int] = []

    def step(cycle: int) -> None:
        cycles.append(cycle)
        signals.wake() if cycle == 1 else signals.request_stop()

    loop.run(step, 60.0, signals, 0.01)
    assert cycles == [1, 2]


def test_a_flood_does_not_make_steps_run_back_to_back() -> None:
    signals = loop.Signals()
    cycles: list[int] = []

    def step(cycle: int) -> float:
        cycles.append(cycle)
        signals.wake()
        return 0.0

    threading.Timer(0.5, signals.request_stop).start()
    loop.run(step, 60.0, signals, pause=0.05)
    assert 3 <= len(cycles) <= 11


def test_a_stop_cuts_the_pause_and_the_wait_short() -> None:
    for pause in (0.0, 60.0):
        signals = loop.Signals()
        threading.Timer(0.05, signals.request_stop).start()
        began = time.monotonic()
        loop.run(lambda cycle: None, 60.0, signals, pause)
        assert time.monotonic() - began < 5
