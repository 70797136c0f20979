"""What a subclass's ``_monitor_workers`` said, with an answer for all that torch lets it say."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rallypoint.model import WorkerFailure, WorkerState
from rallypoint_agent.api import RunResult, WorkerGroup
from rallypoint_agent.link.clock import boot_ms

_EXIT_CODE = 1
"""Of a failure of which nothing is known."""


def understood(result: RunResult, group: WorkerGroup, node: str, *, left_behind: bool) -> RunResult:
    """The result with one of the states that there is something to do about.

    UNHEALTHY says, if a stop has left some workers behind, that they are still there; else it is a failure, as in
    torch. So is what torch ends its agent for: UNKNOWN and INIT. A failure that nobody names is one of the group.
    Failures may be torch's ProcessFailure. Raises ValueError for what is no state.
    """
    state = WorkerState(result.state)
    quiet = (WorkerState.HEALTHY, WorkerState.SUCCEEDED, WorkerState.STOPPED)
    if state in quiet or (state is WorkerState.UNHEALTHY and left_behind):
        return RunResult(state, result.return_values)
    failures = _failures(result.failures, node) or _unnamed(state, group, node)
    return RunResult(WorkerState.FAILED, failures=failures)


def _failures(given: Mapping[int, Any], node: str) -> dict[int, WorkerFailure]:
    return {rank: one if isinstance(one, WorkerFailure) else _of_torch(one, rank, node) for rank, one in given.items()}


def _of_torch(failure: Any, rank: int, node: str) -> WorkerFailure:
    return WorkerFailure(
        node=node,
        local_rank=failure.local_rank,
        rank=rank,
        pid=failure.pid,
        exit_code=failure.exitcode,
        message=failure.message,
        fail_time_ms=failure.timestamp * 1000,
        fail_clock_ms=boot_ms(),
    )


def _unnamed(state: WorkerState, group: WorkerGroup, node: str) -> dict[int, WorkerFailure]:
    rank = group.workers[0].global_rank
    failure = WorkerFailure(
        node=node,
        local_rank=0,
        rank=rank,
        pid=0,
        exit_code=_EXIT_CODE,
        message=f"the worker group is {state}, and its agent does not say why",
        fail_time_ms=time.time_ns() // 1_000_000,
        fail_clock_ms=boot_ms(),
    )
    return {rank: failure}
