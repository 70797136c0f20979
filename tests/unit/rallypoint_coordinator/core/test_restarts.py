from __future__ import annotations

import pytest

from rallypoint.model import JobSpec, WorkerFailure
from rallypoint_coordinator.core.records import StopCause
from rallypoint_coordinator.core.restarts import Verdict, describe_exit, first_cause, judge
from support.coordinator_script import failure

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
    assert first_cause(failures) == cause
    assert first_cause(reversed(failures)) == cause


def judged(cause: StopCause, restart_count: int, max_restarts: int) -> Verdict:
    return judge(
        cause=cause,
        stop_message="why",
        failures=[KILLED],
        restart_count=restart_count,
        spec=JobSpec(max_restarts=max_restarts),
    )


@pytest.mark.parametrize("cause", [cause for cause in StopCause if cause is not StopCause.WORKER_FAILED])
def test_a_membership_change_is_free_and_has_no_culprit(cause: StopCause) -> None:
    verdict = judged(cause, 0, 0)
    assert (verdict.charged, verdict.culprit, verdict.outcome) == (False, None, None)


@pytest.mark.parametrize(
    ("restart_count", "max_restarts", "over"), [(0, 0, True), (0, 1, False), (1, 1, True), (2, 3, False)]
)
def test_the_budget(restart_count: int, max_restarts: int, over: bool) -> None:
    verdict = judged(StopCause.WORKER_FAILED, restart_count, max_restarts)
    assert verdict.charged is not over
    assert (verdict.outcome is not None) is over
    assert verdict.culprit == KILLED


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
        failures=failures,
        restart_count=0,
        spec=JobSpec(max_restarts=1),
        lost=["lost"],
    )
    assert verdict.charged is charged


def test_a_final_exit_code_is_not_restarted() -> None:
    verdict = judge(
        cause=StopCause.WORKER_FAILED,
        stop_message="why",
        failures=[failure(exit_code=93)],
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
