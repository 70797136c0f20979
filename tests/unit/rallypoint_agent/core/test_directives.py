"""What each directive means in each phase."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rallypoint.model import (
    Action,
    AgentPhase,
    Drain,
    Endpoint,
    Exit,
    Hold,
    JobState,
    Keep,
    Outcome,
    Run,
    Stop,
    Version,
    WatchdogStatus,
)
from rallypoint_agent.core.directives import ON_DIRECTIVE
from rallypoint_agent.core.effects import StartWorkers
from rallypoint_agent.core.events import WatchdogChanged, WorkersGone
from support.agent_script import AgentScript, assignment, names, of

OUTCOME = Outcome(state=JobState.SUCCEEDED, reason="ALL_SUCCEEDED", message="all did")


def in_phase(phase: AgentPhase) -> AgentScript:
    """An agent that has come to this phase in round 0."""
    agent = AgentScript()
    agent.attach()
    if phase is AgentPhase.READY:
        agent.direct(Hold())
        return agent
    agent.run()
    if phase is AgentPhase.STOPPING:
        agent.direct(Stop(0, 5_000))
    elif phase is AgentPhase.SUCCEEDED:
        agent.succeed()
        agent.gone()
    elif phase is AgentPhase.FAILED:
        agent.fail()
        agent.gone()
    assert agent.core.state.phase is phase
    return agent


TABLE: tuple[tuple[AgentPhase, Action, list[str]], ...] = (
    (AgentPhase.READY, Hold(), ["Report, can wait"]),
    (AgentPhase.READY, Keep(), ["Report, can wait"]),
    (AgentPhase.READY, Run(assignment(1)), ["Report, can wait", "SetFence", "StartWorkers"]),
    (AgentPhase.READY, Stop(0, 5_000), ["Report"]),
    (AgentPhase.READY, Drain(5_000), ["Leave", "Finish"]),
    (AgentPhase.READY, Exit(OUTCOME), ["Leave", "Finish"]),
    (AgentPhase.RUNNING, Hold(), ["Report, can wait", "StopWorkers"]),
    (AgentPhase.RUNNING, Keep(), ["Report, can wait"]),
    (AgentPhase.RUNNING, Run(assignment(0)), ["Report, can wait"]),
    (AgentPhase.RUNNING, Run(assignment(1)), ["Report, can wait", "StopWorkers"]),
    (AgentPhase.RUNNING, Stop(0, 5_000), ["Report, can wait", "StopWorkers"]),
    (AgentPhase.RUNNING, Drain(5_000), ["Report", "StopWorkers"]),
    (AgentPhase.RUNNING, Exit(OUTCOME), ["Report", "StopWorkers"]),
    (AgentPhase.STOPPING, Hold(), []),
    (AgentPhase.STOPPING, Keep(), []),
    (AgentPhase.STOPPING, Run(assignment(1)), []),
    (AgentPhase.STOPPING, Stop(0, 5_000), []),
    (AgentPhase.STOPPING, Drain(5_000), []),
    (AgentPhase.STOPPING, Exit(OUTCOME), []),
    (AgentPhase.SUCCEEDED, Hold(), ["Report, can wait"]),
    (AgentPhase.SUCCEEDED, Keep(), ["Report, can wait"]),
    (AgentPhase.SUCCEEDED, Run(assignment(0)), ["Report, can wait"]),
    (AgentPhase.SUCCEEDED, Run(assignment(1)), ["Report, can wait", "SetFence", "StartWorkers"]),
    (AgentPhase.SUCCEEDED, Stop(0, 5_000), ["Report, can wait"]),
    (AgentPhase.SUCCEEDED, Drain(5_000), ["Leave", "Finish"]),
    (AgentPhase.SUCCEEDED, Exit(OUTCOME), ["Leave", "Finish"]),
    (AgentPhase.FAILED, Hold(), ["Report, can wait"]),
    (AgentPhase.FAILED, Keep(), ["Report, can wait"]),
    (AgentPhase.FAILED, Run(assignment(0)), ["Report, can wait"]),
    (AgentPhase.FAILED, Run(assignment(1)), ["Report, can wait", "SetFence", "StartWorkers"]),
    (AgentPhase.FAILED, Stop(0, 5_000), ["Report, can wait"]),
    (AgentPhase.FAILED, Drain(5_000), ["Leave", "Finish"]),
    (AgentPhase.FAILED, Exit(OUTCOME), ["Leave", "Finish"]),
)


@pytest.mark.parametrize(("phase", "action", "expected"), TABLE)
def test_cell(phase: AgentPhase, action: Action, expected: list[str]) -> None:
    assert names(in_phase(phase).direct(action)) == expected


def test_the_table_has_every_cell() -> None:
    cells = {(phase, type(action)) for phase, action, _ in TABLE}
    assert cells == {(phase, action) for phase, row in ON_DIRECTIVE.items() for action in row}
    assert len(cells) == len(AgentPhase) * 6


@pytest.mark.parametrize("phase", AgentPhase)
def test_an_old_or_repeated_version_is_never_acted_on(phase: AgentPhase) -> None:
    agent = in_phase(phase)
    seen = agent.core.state.version
    assert agent.direct(Run(assignment(9)), version=seen) == []
    assert agent.direct(Run(assignment(9)), version=Version(0, 99)) == []


@pytest.mark.parametrize("phase", AgentPhase)
def test_a_kind_that_is_not_known_is_reported_and_changes_nothing_else(phase: AgentPhase) -> None:
    agent = in_phase(phase)
    before = agent.core.state.observed()
    assert names(agent.direct(None)) == ["Report"]
    assert agent.reported == replace(before, unsupported_version=Version(1, agent.revision))
    assert names(agent.direct(None, version=agent.reported.unsupported_version)) == []


def test_another_lifes_directive_is_ignored(agent: AgentScript) -> None:
    agent.attach()
    assert agent.direct(Run(assignment(0)), job_uid="other") == []


def test_what_came_while_stopping_is_done_once_the_workers_are_gone() -> None:
    agent = in_phase(AgentPhase.STOPPING)
    agent.direct(Hold())
    agent.direct(Run(assignment(1)))
    assert names(agent.gone()) == ["Report", "SetFence", "StartWorkers"]


def test_what_could_wait_does_not_while_anything_else_is_untold() -> None:
    agent = in_phase(AgentPhase.STOPPING)
    agent.direct(Hold())
    assert names(agent.gone()) == ["Report"], "the workers are gone"
    assert names(agent.direct(Hold())) == ["Report, can wait"]


def test_what_could_wait_does_not_while_a_port_is_awaited() -> None:
    agent = AgentScript()
    agent.run(offer_id=1)
    agent.direct(Stop(0, 5_000))
    assert names(agent.core.step(WorkersGone(0), agent.now_ms).effects) == ["HoldPort"]
    assert names(agent.direct(Hold())) == ["Report"], "that the workers are gone is not told yet"


def test_an_own_failure_is_told_at_once_after_a_report_that_can_wait(agent: AgentScript) -> None:
    agent.attach()
    agent.direct(Run(assignment(0)))
    assert names(agent.fail()) == ["Report", "StopWorkers"]


def test_a_watchdog_that_counts_timers_makes_nothing_urgent(agent: AgentScript) -> None:
    agent.run()
    agent.feed(WatchdogChanged(WatchdogStatus(enabled=True)))
    assert names(agent.feed(WatchdogChanged(WatchdogStatus(enabled=True, live_timers=3)))) == []
    assert names(agent.direct(Keep())) == ["Report, can wait"]


def test_the_report_is_never_ahead_of_the_deed() -> None:
    agent = in_phase(AgentPhase.STOPPING)
    version = agent.reported.version
    agent.direct(Run(assignment(1)))
    assert agent.reported.version == version


def test_start_after_the_end_of_a_start(agent: AgentScript) -> None:
    agent.run(0)
    agent.fail()
    agent.gone()
    assert of(agent.run(1), StartWorkers)[0].assignment.round == 1
    assert agent.reported.failures == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"first_rank": -1},
        {"first_rank": 3},
        {"first_rank": 2**31 - 1},
        {"first_role_rank": 3},
        {"group_rank": 2},
        {"group_rank": -1},
        {"restart_count": -1},
        {"endpoint": Endpoint("10.0.0.1", 0)},
        {"endpoint": Endpoint("10.0.0.1", 65_536)},
        {"offer_id": 2**63 - 1},
    ],
)
def test_an_assignment_that_cannot_be_is_not_acted_on(changes: dict[str, Any]) -> None:
    """No coordinator of ours says so; the ranks of its workers could not even be reported."""
    agent = AgentScript()
    agent.attach()
    before = agent.core.state.observed()
    out = agent.direct(Run(replace(assignment(), **changes)))
    assert names(out) == ["Report"]
    assert agent.reported == replace(before, unsupported_version=Version(1, agent.revision))
    assert "StartWorkers" in names(agent.direct(Run(assignment(first_rank=2, first_role_rank=2, group_rank=1))))


def test_a_directive_that_leaves_no_number_for_an_offer_is_not_acted_on(agent: AgentScript) -> None:
    agent.attach()
    assert names(agent.direct(Hold(), consumed_offer_id=2**63 - 1)) == ["Report"]
    assert agent.reported.unsupported_version == Version(1, agent.revision)
    assert agent.core.state.consumed_offer_id == 0
