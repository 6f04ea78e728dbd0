"""The gaps between beats, as the upgrade scenario and the benchmarks report them."""

from __future__ import annotations

import math

from tests.lab.beats import Beat, downtime, longest_gap, read

# One process beats every second until 3; its successor from 7 on; then a pause of 2 s.
BEATS = [
    *(Beat("draft", 1, float(at)) for at in (0, 1, 2, 3)),
    *(Beat("draft", 2, float(at)) for at in (7, 8, 10, 11)),
    Beat("sync", 3, 5.0),
]


def test_the_longest_gap_is_that_of_the_loop_and_the_time_asked_for() -> None:
    assert longest_gap(BEATS, "draft", 0.5, 2.5) == 1.0
    assert longest_gap(BEATS, "draft", 7.5, 10.5) == 2.0
    assert longest_gap(BEATS, "draft", 0.5, 10.5) == 4.0


def test_a_gap_that_began_before_or_lasted_beyond_the_time_is_counted_whole() -> None:
    assert longest_gap(BEATS, "draft", 4.0, 5.0) == 4.0


def test_a_loop_that_never_came_back_has_a_gap_without_end() -> None:
    assert longest_gap(BEATS, "draft", 10.5, 12.0) == math.inf
    assert longest_gap(BEATS, "sync", 1.0, 4.0) == math.inf
    assert longest_gap([], "draft", 1.0, 4.0) == math.inf


def test_downtime_is_from_the_old_process_to_the_new_one() -> None:
    assert downtime(BEATS, "draft", 2.5, 10.5) == 4.0
    assert downtime(BEATS, "draft", 7.5, 10.5) == 0.0, "the same process was only slow"
    assert downtime(BEATS, "sync", 5.5, 8.0) == math.inf


def test_a_line_that_was_cut_off_is_left_out() -> None:
    assert read('["draft", 7, 1.5]\n["sync", 8, 2.5]\n["dra') == [Beat("draft", 7, 1.5), Beat("sync", 8, 2.5)]
    assert read('["draft"]\n3\n') == []
