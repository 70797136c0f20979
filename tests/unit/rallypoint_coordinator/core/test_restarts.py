from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint.model import Blame, JobSpec, WorkerFailure
from rallypoint_coordinator.core.causes import CANDIDATE_TRACEBACK_BYTES, OTHERS_MAX, describe_exit, first_cause
from rallypoint_coordinator.core.clocks import AgentClock
from rallypoint_coordinator.core.failures import FailureLog, TimedFailure
from rallypoint_coordinator.core.records import StopCause
from rallypoint_coordinator.core.restarts import CANDIDATES_TOLD, Verdict, judge
from support.coordinator_script import failure


def timed(failures: Iterable[WorkerFailure], error_ms: int | None = 0) -> list[TimedFailure]:
    """Each on a node of its own, at its ``fail_time_ms`` give or take ``error_ms``."""
    log = FailureLog()
    for failed in failures:
        at_ms, off_ms = failed.fail_time_ms, error_ms or 0
        clock = AgentClock(low_ms=None if error_ms is None else -off_ms, high_ms=off_ms, at_ms=at_ms)
        log.note(failed.rank, [replace(failed, fail_clock_ms=at_ms)], clock, 10_000)
    return log.timed()


EXCEPTION = failure(rank=1, exit_code=1, message="ValueError: x", traceback="tb", fail_time_ms=50)
PEER_RESET = failure(
    rank=2, exit_code=1, message="RuntimeError: Connection reset by peer", traceback="tb", fail_time_ms=10
)
KILLED = failure(rank=3, exit_code=-9, fail_time_ms=20)
BARE_EXIT = failure(rank=4, exit_code=1, fail_time_ms=30)
TOLD_TO_STOP = failure(rank=5, exit_code=1, message="KeyError", traceback="tb", fail_time_ms=1, after_stop=True)


@pytest.mark.parametrize(
    ("failures", "cause"),
    [
        ([], None),
        ([KILLED, BARE_EXIT], KILLED),
        ([BARE_EXIT, KILLED, EXCEPTION], EXCEPTION),
        ([KILLED, PEER_RESET], PEER_RESET),
        ([EXCEPTION, PEER_RESET], EXCEPTION),
        ([TOLD_TO_STOP, BARE_EXIT], BARE_EXIT),
        ([TOLD_TO_STOP], TOLD_TO_STOP),
    ],
)
def test_first_cause(failures: list[WorkerFailure], cause: WorkerFailure | None) -> None:
    for order in (failures, failures[::-1]):
        assert [each.failure.rank for each in first_cause(timed(order)).candidates] == ([cause.rank] if cause else [])


def at(fail_time_ms: int, **more: Any) -> WorkerFailure:
    return failure(rank=fail_time_ms, fail_time_ms=fail_time_ms, **more)


TOLD_LATE = at(60, after_stop=True)


@pytest.mark.parametrize(
    ("failures", "error_ms", "candidates"),
    [
        ([at(60), at(40)], 8, [40]),
        ([at(60), at(40)], 12, [40, 60]),
        ([at(40), at(60), at(80)], 12, [40, 60]),
        ([at(40), at(60), at(80)], None, [40, 60, 80]),
        ([at(40), at(60, message="KeyError", traceback="tb")], 12, [60]),
        ([TOLD_LATE, at(61)], 12, [61]),
    ],
)
def test_what_the_clocks_cannot_tell_apart_are_candidates(
    failures: list[WorkerFailure], error_ms: int | None, candidates: list[int]
) -> None:
    found = first_cause(timed(failures, error_ms))
    assert [each.failure.rank for each in found.candidates] == candidates
    assert {each.failure.rank for each in found.others} == {each.rank for each in failures} - set(candidates)


def test_on_one_node_the_order_is_known_however_little_is_known_of_its_clock() -> None:
    log, clock = FailureLog(), AgentClock()
    for local_rank, clock_ms in enumerate((70, 50, 50, 60)):
        log.note(7, [failure(rank=local_rank, local_rank=local_rank, fail_clock_ms=clock_ms)], clock, 1_000)
    assert [each.failure.rank for each in first_cause(log.timed()).candidates] == [1, 2]


@given(
    true_ms=st.lists(st.integers(0, 2_000), min_size=2, max_size=6, unique=True),
    clocks=st.lists(st.tuples(st.integers(-(10**8), 10**8), st.integers(0, 300)), min_size=6, max_size=6),
)
def test_the_first_is_always_named_and_alone_if_the_gap_exceeds_the_errors(
    true_ms: list[int], clocks: list[tuple[int, int]]
) -> None:
    """Clocks that are hours wrong, and known to within their errors."""
    log = FailureLog()
    for rank, (fail_ms, (offset_ms, error_ms)) in enumerate(zip(true_ms, clocks, strict=False)):
        clock = AgentClock(low_ms=-offset_ms - error_ms, high_ms=-offset_ms + error_ms, at_ms=fail_ms)
        log.note(rank, [failure(rank=rank, fail_clock_ms=fail_ms + offset_ms)], clock, 10_000)
    named = [each.failure.rank for each in first_cause(log.timed()).candidates]
    first = true_ms.index(min(true_ms))
    assert first in named
    slack_ms = 10  # rounding, and the drift over two seconds
    far = [
        rank
        for rank, fail_ms in enumerate(true_ms)
        if fail_ms - true_ms[first] > 2 * (clocks[rank][1] + clocks[first][1]) + slack_ms
    ]
    assert not set(far) & set(named)


def verdict_on(failures: Iterable[WorkerFailure], error_ms: int | None = 12, **more: Any) -> Verdict:
    return judge(
        cause=more.pop("cause", StopCause.WORKER_FAILED),
        stop_message="why",
        failures=timed(failures, error_ms),
        restart_count=0,
        spec=JobSpec(**more),
        wall_offset_ms=1_000_000,
    )


def test_the_sentence_lists_the_candidates_and_invents_none() -> None:
    a, b = at(40), at(60, node="b", exit_code=-9)
    verdict = verdict_on([b, a], max_restarts=1)
    assert verdict.message == (
        "restart 1 of 1: rank 40 on a exited with 1 or rank 60 on b exited with -9 (SIGKILL):"
        " their times are within the clock error of 28 ms"
    )
    unknown = verdict_on([at(time_ms) for time_ms in range(1, 7)], None).message
    assert "rank 4 on a exited with 1 or 2 more: which came first cannot be told" in unknown


def test_one_culprit_the_others_are_labelled() -> None:
    verdict = verdict_on([at(40), at(60), at(500, message="m" * 1_000, traceback="")])
    assert verdict.culprit is not None
    assert [each.blame for each in (verdict.culprit, *verdict.others)] == list(Blame)
    assert (verdict.culprit.corrected_time_ms, verdict.culprit.time_error_ms) == (1_000_040, 14)
    assert verdict.outcome is not None
    assert [each.rank for each in verdict.outcome.candidates] == [60]
    assert len(verdict.others[-1].message) == 256


def test_what_did_not_end_the_round_is_collateral() -> None:
    verdict = verdict_on([at(40), at(60)], cause=StopCause.NODE_LOST)
    assert (verdict.culprit, {each.blame for each in verdict.others}) == (None, {Blame.COLLATERAL})


def test_the_record_of_a_big_failure_is_bounded() -> None:
    text = "t" * 64 * 1024
    verdict = verdict_on([at(1 + rank, message="E", traceback=text) for rank in range(1_000)], 2_000)
    assert verdict.culprit is not None
    assert verdict.culprit.traceback == text
    assert len(verdict.others) == OTHERS_MAX
    assert all(len(each.traceback) <= CANDIDATE_TRACEBACK_BYTES for each in verdict.others)
    assert verdict.outcome is not None
    assert len(verdict.outcome.candidates) == CANDIDATES_TOLD


def test_a_final_exit_code_has_to_be_certain() -> None:
    """A job that might not have to end does not end for a guess."""
    final: dict[str, Any] = {"no_restart_exit_codes": (93,), "max_restarts": 1}
    assert verdict_on([at(40, exit_code=93), at(60)], **final).charged
    assert not verdict_on([at(40, exit_code=93), at(60, exit_code=93)], **final).charged
    assert not verdict_on([at(40, exit_code=93), at(60)], 5, **final).charged
    assert verdict_on([at(40, exit_code=93, after_stop=True)], **final).charged


def test_the_tracebacks_last_line_is_told() -> None:
    message = verdict_on([at(1, message="m", traceback="Traceback\n  File\nKeyError:  'a'\n")]).message
    assert message.endswith("rank 1 on a exited with 1, KeyError: 'a'")


def judged(cause: StopCause, restart_count: int, max_restarts: int) -> Verdict:
    return judge(
        cause=cause,
        stop_message="why",
        failures=timed([KILLED]),
        restart_count=restart_count,
        spec=JobSpec(max_restarts=max_restarts),
    )


FAILURES = {StopCause.WORKER_FAILED, StopCause.START_TIMEOUT}


@pytest.mark.parametrize("cause", [cause for cause in StopCause if cause not in FAILURES])
def test_a_membership_change_is_free_and_has_no_culprit(cause: StopCause) -> None:
    verdict = judged(cause, 0, 0)
    assert (verdict.charged, verdict.culprit, verdict.outcome) == (False, None, None)


@pytest.mark.parametrize("lost", [(), ("c",)])
def test_workers_that_did_not_start_cost_a_restart_whatever_failed_because_of_it(lost: tuple[str, ...]) -> None:
    """Only so is the number of such rounds bounded. What others' workers did meanwhile is not the cause."""
    verdict = judge(
        cause=StopCause.START_TIMEOUT,
        stop_message="b did not start",
        failures=timed([replace(TOLD_TO_STOP, exit_code=93)]),
        restart_count=0,
        spec=JobSpec(max_restarts=1, no_restart_exit_codes=(93,)),
        lost=lost,
    )
    assert (verdict.charged, verdict.culprit) == (True, None)
    assert verdict.message == "restart 1 of 1: b did not start"
    assert [other.blame for other in verdict.others] == [Blame.COLLATERAL]


def test_nor_are_they_restarted_for_ever() -> None:
    verdict = judged(StopCause.START_TIMEOUT, 1, 1)
    assert verdict.outcome is not None
    assert (verdict.outcome.reason, verdict.outcome.culprit) == ("RESTARTS_EXHAUSTED", None)


@pytest.mark.parametrize(
    ("cause", "message"), [(StopCause.CANCELLED, "why"), (StopCause.NODE_DRAINED, "re-forming: why")]
)
def test_what_is_cancelled_is_not_re_formed(cause: StopCause, message: str) -> None:
    assert judged(cause, 0, 0).message == message


@pytest.mark.parametrize(
    ("restart_count", "max_restarts", "over"), [(0, 0, True), (0, 1, False), (1, 1, True), (2, 3, False)]
)
def test_the_budget(restart_count: int, max_restarts: int, over: bool) -> None:
    verdict = judged(StopCause.WORKER_FAILED, restart_count, max_restarts)
    assert verdict.charged is not over
    assert (verdict.outcome is not None) is over
    assert verdict.culprit is not None
    assert verdict.culprit.rank == KILLED.rank


@pytest.mark.parametrize(
    ("failures", "charged"),
    [
        ([], True),
        ([PEER_RESET, BARE_EXIT], False),
        ([failure(exit_code=-6)], False),
        ([TOLD_TO_STOP], False),
        ([PEER_RESET, EXCEPTION], True),
        ([KILLED], True),
        ([failure("lost", exit_code=1)], True),
    ],
)
def test_what_may_be_the_echo_of_a_lost_node_is_free(failures: list[WorkerFailure], charged: bool) -> None:
    verdict = judge(
        cause=StopCause.WORKER_FAILED,
        stop_message="why",
        failures=timed(failures),
        restart_count=0,
        spec=JobSpec(max_restarts=1),
        lost=["lost"],
    )
    assert verdict.charged is charged


def test_a_final_exit_code_is_not_restarted() -> None:
    verdict = judge(
        cause=StopCause.WORKER_FAILED,
        stop_message="why",
        failures=timed([failure(exit_code=93)]),
        restart_count=0,
        spec=JobSpec(max_restarts=5, no_restart_exit_codes=(2, 93)),
    )
    assert verdict.outcome is not None
    assert (verdict.charged, verdict.outcome.reason) == (False, "NO_RESTART_EXIT_CODE")


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (0, "exited with 0"),
        (3, "exited with 3"),
        (-9, "exited with -9 (SIGKILL)"),
        (-250, "exited with -250 (signal 250)"),
    ],
)
def test_describe_exit(exit_code: int, words: str) -> None:
    assert describe_exit(exit_code) == words
