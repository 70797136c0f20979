"""What a subclass's ``_monitor_workers`` may say, and what is made of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rallypoint.model import WorkerFailure, WorkerState
from rallypoint_agent.api import RunResult, WorkerGroup
from rallypoint_agent.monitored import understood
from support.stand_in_agent import agent_with, failed, healthy


def group() -> WorkerGroup:
    found = agent_with(healthy).get_worker_group()
    found.workers[0].global_rank = 4
    return found


def made_of(state: Any, *, left_behind: bool = False, **more: Any) -> RunResult:
    return understood(RunResult(state, **more), group(), "a", left_behind=left_behind)


@pytest.mark.parametrize("state", [WorkerState.HEALTHY, WorkerState.SUCCEEDED, WorkerState.STOPPED])
def test_what_is_no_failure_stays_as_it_is(state: WorkerState) -> None:
    assert made_of(state, return_values={4: "x"}) == RunResult(state, return_values={4: "x"})


@pytest.mark.parametrize("state", [WorkerState.UNHEALTHY, WorkerState.UNKNOWN, WorkerState.INIT, WorkerState.FAILED])
def test_all_other_states_are_a_failure_of_the_group(state: WorkerState) -> None:
    result = made_of(state)
    assert result.state is WorkerState.FAILED
    failure = result.failures[4]
    assert (failure.node, failure.rank, failure.local_rank, failure.exit_code) == ("a", 4, 0, 1)
    assert str(state) in failure.message


def test_workers_that_a_stop_left_behind_are_unhealthy_and_no_failure() -> None:
    assert made_of(WorkerState.UNHEALTHY, left_behind=True) == RunResult(WorkerState.UNHEALTHY)


def test_failures_that_are_named_are_passed_on() -> None:
    failures = {0: failed(0), 1: failed(1)}
    assert made_of(WorkerState.FAILED, failures=failures) == RunResult(WorkerState.FAILED, failures=failures)


def test_torchs_failures_and_states_are_understood() -> None:
    """By their names: torch need not be there."""
    torchs: Any = SimpleNamespace(local_rank=1, pid=77, exitcode=-9, message="Signal 9", timestamp=1_700_000_000)
    result = made_of("FAILED", failures={5: torchs})
    assert result.state is WorkerState.FAILED
    failure = result.failures[5]
    assert isinstance(failure, WorkerFailure)
    assert (failure.node, failure.rank, failure.local_rank, failure.pid) == ("a", 5, 1, 77)
    assert (failure.exit_code, failure.message, failure.fail_time_ms) == (-9, "Signal 9", 1_700_000_000_000)


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(ValueError, match="FINE"):
        made_of("FINE")
