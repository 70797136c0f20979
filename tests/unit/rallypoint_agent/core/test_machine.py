"""The agent's core as a whole."""

from __future__ import annotations

from rallypoint.model import AgentPhase, Exit, JobState, Outcome
from rallypoint_agent.core.events import TimeAdvanced
from support.agent_script import AgentScript

OUTCOME = Outcome(state=JobState.SUCCEEDED, reason="ALL_SUCCEEDED", message="all did")


def test_a_clock_that_goes_back_stands_still(agent: AgentScript) -> None:
    agent.run()
    agent.now_ms = 20_000
    agent.feed(TimeAdvanced())
    agent.now_ms = 0
    agent.feed(TimeAdvanced())
    assert agent.core.state.phase is AgentPhase.RUNNING


def test_nothing_happens_after_the_end(agent: AgentScript) -> None:
    agent.attach()
    agent.direct(Exit(OUTCOME))
    assert agent.run(1) == []
    assert agent.next_deadline_ms is None
