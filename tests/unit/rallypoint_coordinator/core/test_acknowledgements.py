"""When what an agent says is acknowledged: each heartbeat, and not each of several things that it says in between."""

from __future__ import annotations

import pytest

from rallypoint.model import AgentPhase, JobSpec
from rallypoint_coordinator.core.effects import Output, SendAck
from rallypoint_coordinator.core.handlers import BEAT_EARLY_MS
from support.coordinator_script import Agent, Script, effects_of

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)
INTERVAL_MS = PAIR.heartbeat_interval_ms


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def agent(script: Script) -> Agent:
    """One of a running pair, that has just said a heartbeat. It says what its clock shows."""
    agent, _ = script.running("ab", PAIR)
    agent.clock_ms = 70_000
    script.advance(INTERVAL_MS)
    assert acked(agent.heartbeat()) == [agent.seq]
    return agent


def acked(out: Output) -> list[int]:
    return [effect.seq for effect in effects_of(out, SendAck)]


def held_up(agent: Agent, sent_ms_ago: int) -> Agent:
    """What it says now was sent so long ago."""
    agent.lag_ms = sent_ms_ago
    return agent


def test_a_report_between_two_heartbeats_is_left_to_the_second_one(script: Script, agent: Agent) -> None:
    script.advance(INTERVAL_MS // 2)
    assert acked(agent.report()) == []
    script.advance(INTERVAL_MS // 2)
    assert acked(agent.heartbeat()) == [agent.seq]


def test_a_report_in_the_place_of_a_heartbeat_is_acknowledged(script: Script, agent: Agent) -> None:
    script.advance(INTERVAL_MS)
    assert acked(agent.report()) == [agent.seq]


def test_one_that_was_sent_a_little_early_still_takes_its_place(script: Script, agent: Agent) -> None:
    script.advance(INTERVAL_MS - BEAT_EARLY_MS)
    assert acked(agent.report()) == [agent.seq]


def test_a_report_does_not_put_off_the_heartbeat_that_is_due(script: Script, agent: Agent) -> None:
    """Reports have no part in when heartbeats are: that one in the place of the next is acknowledged all the same."""
    script.advance(INTERVAL_MS - 2 * BEAT_EARLY_MS)
    assert acked(agent.report()) == []
    script.advance(2 * BEAT_EARLY_MS)
    assert acked(agent.report()) == [agent.seq]


def test_of_heartbeats_that_come_at_once_the_newest_counts(script: Script, agent: Agent) -> None:
    """A3: the fence goes by when the newest one was sent that is acknowledged."""
    script.advance(3 * INTERVAL_MS)
    for sent_ms_ago in (2 * INTERVAL_MS, INTERVAL_MS, 0):
        assert acked(held_up(agent, sent_ms_ago).heartbeat()) == [agent.seq]


def test_a_report_in_the_place_of_the_one_after_those_counts_too(script: Script, agent: Agent) -> None:
    """It comes less than an interval after them, and was sent a whole one later."""
    script.advance(2 * INTERVAL_MS - 1)
    assert acked(held_up(agent, INTERVAL_MS - 1).heartbeat()) == [agent.seq]
    script.advance(1)
    assert acked(held_up(agent, 0).report()) == [agent.seq]


def test_of_an_agent_that_does_not_tell_the_time_all_is_acknowledged(script: Script) -> None:
    agent, _ = script.running("ab", PAIR)
    script.advance(1)
    for say in (agent.heartbeat, agent.report, agent.report, agent.heartbeat):
        assert acked(say()) == [agent.seq]


def test_the_first_may_come_half_an_interval_after_the_hello(script: Script) -> None:
    agent = script.agent("a", PAIR)
    agent.clock_ms = 70_000
    agent.attach()
    script.advance(INTERVAL_MS // 2 - BEAT_EARLY_MS - 1)
    assert acked(agent.report()) == []
    script.advance(1)
    assert acked(agent.report()) == [agent.seq]


def test_a_goodbye_is_acknowledged_whenever_it_comes(script: Script, agent: Agent) -> None:
    agent.report(AgentPhase.READY)
    assert acked(agent.leave()) == [agent.seq]
