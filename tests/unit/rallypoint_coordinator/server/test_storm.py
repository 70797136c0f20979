"""The more has come in a row, the longer the next turn waits for more; never for long."""

from __future__ import annotations

import itertools

from rallypoint_coordinator.server.storm import PAUSE_MAX_S, PAUSE_S, STORM_EVENTS, Storm


def test_a_turn_of_few_events_is_followed_by_the_next_at_once() -> None:
    assert Storm().pause_s(STORM_EVENTS - 1) == 0


def test_the_storm_of_a_small_fleet_waits_as_little_as_any() -> None:
    storm = Storm()
    assert {storm.pause_s(8) for _ in range(8)} == {PAUSE_S}


def test_that_of_a_large_one_waits_ever_longer_up_to_a_bound() -> None:
    storm = Storm()
    pauses = [storm.pause_s(16) for _ in range(64)]
    assert all(before <= after for before, after in itertools.pairwise(pauses))
    assert (pauses[0], pauses[-1]) == (PAUSE_S, PAUSE_MAX_S)


def test_one_that_is_over_is_forgotten() -> None:
    storm = Storm()
    assert storm.pause_s(512) == PAUSE_MAX_S
    storm.pause_s(0)
    assert storm.pause_s(STORM_EVENTS) == PAUSE_S
