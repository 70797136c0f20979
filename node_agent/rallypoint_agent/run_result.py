"""What ``run`` returns: how the job ended, as far as this node's workers have to do with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rallypoint.model import JobState, WorkerFailure, WorkerState
from rallypoint_agent.api import RunResult, WorkerGroup
from rallypoint_agent.core.effects import Finish, FinishKind


def run_result(
    finish: Finish, failures: Iterable[WorkerFailure], returned: Mapping[int, Any], group: WorkerGroup
) -> RunResult:
    """``failures`` are this node's, to which the job's culprit is added. ``returned``: by global rank."""
    if _has_succeeded(finish):
        values = {worker.global_rank: returned.get(worker.global_rank) for worker in group.workers}
        return RunResult(WorkerState.SUCCEEDED, return_values=values)
    failed = {failure.rank: failure for failure in failures}
    if finish.outcome and (culprit := finish.outcome.culprit):
        failed[culprit.rank] = culprit
    return RunResult(WorkerState.FAILED, failures=failed)


def _has_succeeded(finish: Finish) -> bool:
    """So it has, for this node, if its workers did and no coordinator came to say how the job ended."""
    if finish.kind is FinishKind.BARRIER_TIMEOUT:
        return True
    return finish.outcome is not None and finish.outcome.state is JobState.SUCCEEDED
