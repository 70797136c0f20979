from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint.model import ClockReading
from rallypoint_coordinator.core.clocks import AgentClock, Span

AHEAD_MS = 7_200_000
"""So far the agent's clock of these tables is ahead of the coordinator's."""


def sent(at_ms: int, seq: int = 0, acked_ms: int = 0) -> ClockReading:
    return ClockReading(AHEAD_MS + at_ms, seq, AHEAD_MS + acked_ms)


def test_a_first_message_bounds_the_clock_on_one_side_only() -> None:
    clock = AgentClock()
    clock.read(sent(1_000), now_ms=1_040)
    assert clock.span(AHEAD_MS + 900, 1_040) == Span(None, 943)


def test_an_acknowledgement_that_came_bounds_it_on_the_other() -> None:
    """Up in 40 ms, down in 20 ms: the failure is known to within the round trip, rounding and drift."""
    clock = AgentClock()
    clock.read(sent(1_000), now_ms=1_040)
    clock.acknowledged(1, now_ms=1_040)
    clock.read(sent(1_100, seq=1, acked_ms=1_060), now_ms=1_140)
    span = clock.span(AHEAD_MS + 1_090, 1_140)
    assert span == Span(1_067, 1_133)
    assert (span.likely_ms, span.error_ms) == (1_100, 33)


def test_the_shortest_delays_count() -> None:
    clock = AgentClock()
    clock.read(sent(1_000), now_ms=1_001)
    clock.read(sent(2_000), now_ms=4_000)
    assert clock.span(AHEAD_MS + 2_000, 4_000).latest_ms <= 2_010


def test_bounds_widen_with_the_drift() -> None:
    clock = AgentClock()
    clock.read(sent(0), now_ms=0)
    clock.read(sent(60_000), now_ms=60_500)
    assert clock.high_ms == -AHEAD_MS + 1 + 60 + 1


@pytest.mark.parametrize("reading", [sent(5_000, seq=9, acked_ms=4_000), sent(5_000)])
def test_an_acknowledgement_that_is_not_the_newest_is_no_bound(reading: ClockReading) -> None:
    clock = AgentClock()
    clock.acknowledged(8, now_ms=4_000)
    clock.read(reading, now_ms=5_000)
    assert clock.low_ms is None


def test_a_clock_that_jumped_is_learnt_anew() -> None:
    clock = AgentClock()
    clock.acknowledged(1, now_ms=1_000)
    clock.read(sent(1_010, seq=1, acked_ms=1_001), now_ms=1_011)
    clock.read(ClockReading(AHEAD_MS + 600_000), now_ms=1_020)
    assert (clock.low_ms, clock.high_ms) == (None, 1_020 - AHEAD_MS - 600_000 + 1)


@pytest.mark.parametrize("clock_ms", [None, AHEAD_MS + 900_000])
def test_what_is_not_said_or_still_to_happen_happened_by_now(clock_ms: int | None) -> None:
    clock = AgentClock()
    clock.acknowledged(1, now_ms=1_000)
    clock.read(sent(1_010, seq=1, acked_ms=1_001), now_ms=1_011)
    assert clock.span(clock_ms, 1_020) == Span(None, 1_020)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Span(10, 30), Span(20, 40), Span(20, 30)),
        (Span(None, 30), Span(20, 40), Span(20, 30)),
        (Span(10, 30), Span(None, 20), Span(10, 20)),
        (Span(None, 30), Span(None, 40), Span(None, 30)),
        (Span(10, 20), Span(30, 40), Span(30, 40)),
    ],
)
def test_two_spans_of_one_failure(one: Span, other: Span, both: Span) -> None:
    assert one.narrowed(other) == both


@given(
    seed=st.integers(0, 2**32),
    start_ms=st.integers(0, 10**9),
    drift_ppm=st.integers(-900, 900),
    delay_ms=st.integers(0, 5_000),
)
def test_the_truth_is_always_within_the_span(seed: int, start_ms: int, drift_ppm: int, delay_ms: int) -> None:
    """Whatever the delays of the network are, and however wrong the agent's clock is."""
    rng, clock, seq = random.Random(seed), AgentClock(), 0
    acks: list[tuple[int, int]] = [(0, 0)]

    def shown(true_ms: int) -> int:
        return start_ms + true_ms + true_ms * drift_ppm // 1_000_000

    now_ms = 1_000
    for _ in range(rng.randint(1, 20)):
        sent_ms = now_ms + rng.randint(0, 20_000)
        heard = [(number, at_ms) for number, at_ms in acks if at_ms <= sent_ms]
        number, heard_ms = heard[-1]
        now_ms = sent_ms + rng.randint(0, delay_ms)
        clock.read(ClockReading(shown(sent_ms), number, shown(heard_ms)), now_ms)
        failed_ms = rng.randint(max(0, sent_ms - 3_000), sent_ms)
        span = clock.span(shown(failed_ms), now_ms)
        assert span.earliest_ms is None or span.earliest_ms <= failed_ms
        assert failed_ms <= span.latest_ms <= now_ms
        if rng.random() < 0.7:
            seq += 1
            clock.acknowledged(seq, now_ms)
            acks.append((seq, now_ms + rng.randint(0, delay_ms)))
