"""When Claude is asked again after an outage."""

from __future__ import annotations

from datetime import timedelta

from cloud_agent.backoff import FIRST_SECONDS, LONGEST_SECONDS, Backoff
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import NOON


def test_it_doubles_up_to_its_bound() -> None:
    backoff, pauses = Backoff(), []
    for _ in range(8):
        backoff = backoff.after_failure(NOON)
        pauses.append(backoff.left(NOON))
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]


def test_it_starts_free_and_ends() -> None:
    assert Backoff().left(NOON) == 0
    assert Backoff().after_failure(NOON).left(NOON + timedelta(seconds=FIRST_SECONDS)) == 0


@given(st.integers(0, 10**6), st.floats(0, 1e9), st.integers(-(10**8), 10**8))
def test_nobody_waits_longer_than_the_bound(failures: int, at_least: float, later: int) -> None:
    """Whatever the API asks for, and wherever the clock is set meanwhile."""
    backoff = Backoff(failures).after_failure(NOON, at_least)
    assert FIRST_SECONDS <= backoff.left(NOON) <= LONGEST_SECONDS
    assert 0 <= backoff.left(NOON + timedelta(seconds=later)) <= LONGEST_SECONDS
