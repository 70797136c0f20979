"""What ``run`` returns, by how the agent's work ended."""

from __future__ import annotations

import pytest

from rallypoint.model import JobState, Outcome, WorkerFailure, WorkerState
from rallypoint_agent.api import RunResult, WorkerGroup
from rallypoint_agent.core.effects import Finish, FinishKind
from rallypoint_agent.run_result import run_result
from support.stand_in_agent import agent_with, failed, healthy

ELSEWHERE = WorkerFailure(node="b", local_rank=0, rank=7, pid=1, exit_code=3, message="the first")


def group() -> WorkerGroup:
    found = agent_with(healthy).get_worker_group()
    for worker in found.workers:
        worker.global_rank = 4 + worker.local_rank
    return found


def decided(state: JobState, culprit: WorkerFailure | None = None) -> Finish:
    outcome = Outcome(state=state, reason="REASON", message="told", culprit=culprit)
    return Finish(kind=FinishKind.DECIDED, message="told", outcome=outcome)


@pytest.mark.parametrize(
    "finish", [decided(JobState.SUCCEEDED), Finish(kind=FinishKind.BARRIER_TIMEOUT, message="nobody came")]
)
def test_success_has_a_value_for_each_worker(finish: Finish) -> None:
    result = run_result(finish, [failed(4)], {4: "x", 9: "of another round"}, group())
    assert result == RunResult(WorkerState.SUCCEEDED, return_values={4: "x", 5: None})


@pytest.mark.parametrize("kind", sorted(set(FinishKind) - {FinishKind.DECIDED, FinishKind.BARRIER_TIMEOUT}))
def test_every_other_end_is_a_failure(kind: FinishKind) -> None:
    assert run_result(Finish(kind=kind, message="told"), [], {4: "x"}, group()) == RunResult(WorkerState.FAILED)


def test_the_culprit_is_among_the_failures_wherever_it_was() -> None:
    result = run_result(decided(JobState.FAILED, ELSEWHERE), [failed(4)], {}, group())
    assert result == RunResult(WorkerState.FAILED, failures={4: failed(4), 7: ELSEWHERE})


def test_what_the_job_says_of_a_worker_of_ours_counts() -> None:
    corrected = failed(4, after_stop=True)
    result = run_result(decided(JobState.FAILED, corrected), [failed(4)], {}, group())
    assert result.failures == {4: corrected}
