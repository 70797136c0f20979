"""The local worker group: its start, its failures, its end."""

from __future__ import annotations

import pytest

from rallypoint.limits import FAILURES_MAX
from rallypoint.model import AgentPhase, Run, Stop, WatchdogStatus, WorkerState
from rallypoint_agent.core.effects import StopWorkers
from rallypoint_agent.core.events import IllegalEventError, WatchdogChanged, WorkersGone, WorkersStarted
from support.agent_script import AgentScript, assignment, names, of, own_failure


def test_started_workers_are_reported_with_their_pids(agent: AgentScript) -> None:
    agent.run(0, first_rank=2)
    assert [(w.local_rank, w.rank, w.pid, w.state) for w in agent.reported.workers] == [
        (0, 2, 100, WorkerState.HEALTHY),
        (1, 3, 101, WorkerState.HEALTHY),
    ]


def test_a_worker_that_cannot_be_is_refused(agent: AgentScript) -> None:
    agent.attach()
    agent.direct(Run(assignment(0)))
    before = agent.core.state.observed()
    with pytest.raises(IllegalEventError, match="no worker of local rank 2"):
        agent.feed(WorkersStarted(0, {0: 100, 2: 102}))
    assert agent.core.state.observed() == before


def test_running_is_reported_before_the_first_worker_starts(agent: AgentScript) -> None:
    agent.attach()
    effects = agent.direct(Run(assignment(0)))
    assert names(effects) == ["Report, can wait", "SetFence", "StartWorkers"]
    assert agent.reported.phase is AgentPhase.RUNNING


def test_an_own_failure_is_reported_before_the_teardown(agent: AgentScript) -> None:
    agent.run()
    effects = agent.fail()
    assert names(effects) == ["Report", "StopWorkers"]
    assert (agent.reported.phase, len(agent.reported.failures)) == (AgentPhase.STOPPING, 1)
    agent.gone(own_failure(local_rank=1, exit_code=-15, after_stop=True))
    assert (agent.reported.phase, len(agent.reported.failures)) == (AgentPhase.FAILED, 2)


def test_failures_are_bounded(agent: AgentScript) -> None:
    agent.run()
    agent.fail()
    agent.gone(*[own_failure(after_stop=True)] * 40)
    assert len(agent.reported.failures) == FAILURES_MAX


def test_success_ends_what_the_workers_left_behind_and_is_reported_then(agent: AgentScript) -> None:
    agent.run()
    agent.advance(agent.core.config.tell_delay_ms)
    assert names(agent.succeed()) == ["StopWorkers"]
    assert names(agent.gone()) == ["Report"]
    assert agent.reported.phase is AgentPhase.SUCCEEDED


def test_that_workers_ran_which_succeed_at_once_is_told_before_what_they_left_behind_is_ended(
    agent: AgentScript,
) -> None:
    """That may take long, and until it has been told the coordinator waits for their start."""
    agent.run()
    assert names(agent.succeed()) == ["Report", "StopWorkers"]
    assert agent.reported.phase is AgentPhase.RUNNING


def test_until_what_they_left_behind_is_gone_the_round_runs(agent: AgentScript) -> None:
    agent.run()
    agent.succeed()
    agent.feed(WatchdogChanged(WatchdogStatus(enabled=True)))
    assert agent.reported.phase is AgentPhase.RUNNING


def test_stopped_workers_leave_the_agent_ready(agent: AgentScript) -> None:
    agent.run()
    agent.direct(Stop(0, 5_000))
    agent.gone(own_failure(exit_code=-15, after_stop=True))
    assert agent.reported.phase is AgentPhase.READY


def test_a_stop_carries_its_grace(agent: AgentScript) -> None:
    agent.run()
    assert of(agent.direct(Stop(0, 1_234)), StopWorkers) == [StopWorkers(0, None, 1_234)]


def test_news_of_another_round_is_ignored(agent: AgentScript) -> None:
    agent.run(3)
    assert agent.feed(WorkersGone(2)) == []
    assert agent.core.state.phase is AgentPhase.RUNNING


def test_workers_that_the_keeper_fenced_are_reported_gone(agent: AgentScript) -> None:
    agent.run()
    agent.feed(WorkersGone(0))
    assert (agent.reported.phase, agent.reported.fenced) == (AgentPhase.READY, True)
