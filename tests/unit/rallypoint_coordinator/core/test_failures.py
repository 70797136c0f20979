from __future__ import annotations

from dataclasses import replace

from rallypoint_coordinator.core.causes import first_cause
from rallypoint_coordinator.core.clocks import AgentClock, Span
from rallypoint_coordinator.core.failures import (
    FULL_MAX,
    KEPT_MAX,
    SHORT_MESSAGE_BYTES,
    SHORT_TRACEBACK_BYTES,
    FailureLog,
)
from support.coordinator_script import failure

CLOCK = AgentClock(low_ms=0, high_ms=0)
BIG = failure(message="ü" * 2_000, traceback="t" * 64 * 1024 + "the end")


def test_a_failure_that_is_reported_again_keeps_what_is_known_of_its_time() -> None:
    log = FailureLog()
    log.note(1, [failure(fail_clock_ms=100)], AgentClock(), 500)
    log.note(1, [failure(fail_clock_ms=100)], AgentClock(), 900)
    assert [each.span for each in log.timed()] == [Span(None, 500)]
    log.note(1, [failure(fail_clock_ms=100)], AgentClock(low_ms=300, high_ms=310, at_ms=410), 1_000)
    assert [each.span for each in log.timed()] == [Span(400, 411)]


def test_what_is_kept_of_a_job_is_bounded_and_the_first_cause_stays_whole() -> None:
    """10,000 nodes whose workers all fail with big texts, the first of them somewhere in the middle."""
    log, most = FailureLog(), 0
    for lease in range(10_000):
        at_ms = 50 if lease == 5_000 else 1_000 + lease
        log.note(lease, [replace(BIG, rank=lease, fail_clock_ms=at_ms)], CLOCK, 20_000)
        most = max(most, len(log))
    assert most <= 2 * KEPT_MAX
    kept = log.timed()
    whole = [each for each in kept if len(each.failure.traceback) > SHORT_TRACEBACK_BYTES]
    assert len(whole) <= FULL_MAX
    short = [each.failure for each in kept if each not in whole]
    assert all(len(each.message.encode()) <= SHORT_MESSAGE_BYTES for each in short)
    assert all(each.traceback.endswith("the end") for each in short)
    (cause,) = first_cause(kept).candidates
    assert cause.failure == replace(BIG, rank=5_000, fail_clock_ms=50)


def test_an_exception_stays_one_when_its_texts_are_cut() -> None:
    log = FailureLog()
    peer = "x" * SHORT_MESSAGE_BYTES + " connection reset"
    for lease in range(20):
        log.note(lease, [failure(rank=lease, message=peer, traceback="tb", fail_clock_ms=10)], CLOCK, 1_000)
    log.note(99, [failure(rank=99, message="KeyError", traceback="tb", fail_clock_ms=900)], CLOCK, 1_000)
    assert [each.failure.rank for each in first_cause(log.timed()).candidates] == [99]


def test_cleared_it_holds_nothing() -> None:
    log = FailureLog()
    log.note(1, [BIG], CLOCK, 1_000)
    log.clear()
    assert (len(log), log.timed()) == (0, [])
