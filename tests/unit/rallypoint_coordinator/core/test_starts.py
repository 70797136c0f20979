"""A participant that never says that its workers run."""

from __future__ import annotations

import pytest

from rallypoint.model import AgentPhase, JobSpec, JobState, WorkerState, WorkerStatus
from rallypoint_coordinator.core.effects import Output, SendLeaseStale
from rallypoint_coordinator.core.records import JobDecided, RoundEnded, RoundStopping, StopCause
from support.coordinator_script import Agent, Script, effects_of, the_record

SPEC = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)


@pytest.fixture
def script() -> Script:
    return Script()


def reports(agent: Agent, state: WorkerState) -> None:
    agent.report(AgentPhase.RUNNING, workers=(WorkerStatus(local_rank=0, rank=0, state=state),))


def pass_time(script: Script, ms: int, *agents: Agent) -> list[RoundStopping]:
    """All of these are heard meanwhile. Returns how rounds were stopped."""
    found = []
    for _ in range(0, ms, SPEC.heartbeat_interval_ms):
        out = script.advance(SPEC.heartbeat_interval_ms)
        found += [entry.record for entry in out.records if isinstance(entry.record, RoundStopping)]
        for agent in agents:
            agent.heartbeat()
    return found


@pytest.mark.parametrize(
    ("join_timeout_ms", "start_timeout_ms"), [(600_000, 600_000), (60_001, 60_001), (1_000, 60_000), (0, 60_000)]
)
def test_a_start_may_take_as_long_as_joining(join_timeout_ms: int, start_timeout_ms: int) -> None:
    assert JobSpec(join_timeout_ms=join_timeout_ms).start_timeout_ms == start_timeout_ms


def test_who_does_not_start_in_time_is_revoked_and_the_round_is_ended(script: Script) -> None:
    a, b = script.attached("ab", SPEC)
    a.run()
    reports(b, WorkerState.INIT)
    assert pass_time(script, SPEC.start_timeout_ms - SPEC.heartbeat_interval_ms, a, b) == []
    assert "waiting for 1 node to start the workers" in script.message
    out = script.advance(SPEC.heartbeat_interval_ms)
    stopping = the_record(out, RoundStopping)
    assert stopping.cause is StopCause.START_TIMEOUT
    assert stopping.message == "b did not start the workers within 600 s"
    assert [effect.stream for effect in effects_of(out, SendLeaseStale)] == [b.stream]
    assert stopping.message in script.message


def does_not_start(script: Script, a: Agent, b: Agent) -> Output:
    """The round is run by a alone, then given up; returns what followed."""
    a.run()
    pass_time(script, SPEC.start_timeout_ms, a, b)
    b.welcome = None
    b.attach(fresh=True)
    return a.clear()


def test_it_costs_a_restart_and_so_it_cannot_go_on_for_ever(script: Script) -> None:
    a, b = script.attached("ab", SPEC)
    out = does_not_start(script, a, b)
    ended = the_record(out, RoundEnded)
    assert (ended.charged, ended.culprit) == (True, None)
    assert ended.message == "restart 1 of 1: b did not start the workers within 600 s"
    outcome = the_record(does_not_start(script, a, b), JobDecided).outcome
    assert outcome.reason == "RESTARTS_EXHAUSTED"
    assert "b did not start the workers" in outcome.message


@pytest.mark.parametrize("silent", [True, False])
def test_who_says_nothing_of_the_round_has_not_started(script: Script, silent: bool) -> None:
    a, b = script.attached("ab", SPEC)
    a.run()
    if not silent:
        b.report(AgentPhase.RUNNING, round=-1)
    [stopping] = pass_time(script, SPEC.start_timeout_ms, a, b)
    assert stopping.cause is StopCause.START_TIMEOUT


@pytest.mark.parametrize("state", [WorkerState.HEALTHY, WorkerState.UNKNOWN, None])
def test_who_started_or_lists_no_workers_is_not_waited_for(script: Script, state: WorkerState | None) -> None:
    a, b = script.attached("ab", SPEC)
    a.run()
    if state is None:
        b.run()
    else:
        reports(b, state)
    assert pass_time(script, 2 * SPEC.start_timeout_ms, a, b) == []
    assert script.life.facts.state is JobState.RUNNING
    assert script.life.watch.start_deadline_ms is None


def test_a_coordinator_that_starts_again_waits_anew(script: Script) -> None:
    a, b = script.attached("ab", SPEC)
    a.run()
    pass_time(script, SPEC.start_timeout_ms - 10_000, a, b)
    script.restart()
    for agent in (a, b):
        agent.attach()
    assert script.life.watch.starting == {b.lease_id}
    assert pass_time(script, SPEC.start_timeout_ms - 10_000, a, b) == []
    assert len(pass_time(script, 10_000, a, b)) == 1
