"""When what an agent says is acknowledged: by the heartbeat interval, and not for each of several things in a row."""

from __future__ import annotations

import pytest

from rallypoint.model import AgentPhase, JobSpec
from rallypoint_coordinator.core.effects import Output, SendAck
from rallypoint_coordinator.core.handlers import ACK_SPACING_MS
from support.coordinator_script import Agent, Script, effects_of

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)
INTERVAL_MS = PAIR.heartbeat_interval_ms


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def agent(script: Script) -> Agent:
    """One of a running pair, that has just said a heartbeat."""
    agent, _ = script.running("ab", PAIR)
    script.advance(INTERVAL_MS)
    assert acked(agent.heartbeat()) == [agent.seq]
    return agent


def acked(out: Output) -> list[int]:
    return [effect.seq for effect in effects_of(out, SendAck)]


def test_a_report_between_two_heartbeats_is_left_to_the_second_one(script: Script, agent: Agent) -> None:
    script.advance(INTERVAL_MS // 2)
    assert acked(agent.report()) == []
    script.advance(INTERVAL_MS // 2)
    assert acked(agent.heartbeat()) == [agent.seq]


def test_a_report_in_the_place_of_a_heartbeat_is_acknowledged(script: Script, agent: Agent) -> None:
    script.advance(INTERVAL_MS)
    assert acked(agent.report()) == [agent.seq]


def test_one_that_comes_a_little_early_still_takes_its_place(script: Script, agent: Agent) -> None:
    script.advance(INTERVAL_MS - ACK_SPACING_MS)
    assert acked(agent.report()) == [agent.seq]


def test_a_report_does_not_put_off_the_heartbeat_that_is_due(script: Script, agent: Agent) -> None:
    """Reports have no part in when heartbeats are: that one in the place of the next is acknowledged all the same."""
    script.advance(INTERVAL_MS - 2 * ACK_SPACING_MS)
    assert acked(agent.report()) == []
    script.advance(2 * ACK_SPACING_MS)
    assert acked(agent.report()) == [agent.seq]


def test_a_heartbeat_right_after_an_acknowledgement_is_left_to_the_next(script: Script, agent: Agent) -> None:
    script.advance(ACK_SPACING_MS - 1)
    assert acked(agent.heartbeat()) == []
    script.advance(1)
    assert acked(agent.heartbeat()) == [agent.seq]


def test_the_first_may_come_half_an_interval_after_the_welcome(script: Script) -> None:
    agent, _ = script.attached("ab", PAIR)
    script.advance(INTERVAL_MS // 2 - ACK_SPACING_MS - 1)
    assert acked(agent.report(AgentPhase.RUNNING)) == []
    script.advance(ACK_SPACING_MS + 1)
    assert acked(agent.report()) == [agent.seq]


def test_a_goodbye_is_acknowledged_whenever_it_comes(script: Script, agent: Agent) -> None:
    agent.report(AgentPhase.READY)
    assert acked(agent.leave()) == [agent.seq]
