"""The agent's own end."""

from __future__ import annotations

import signal

from rallypoint.model import AgentPhase, Exit, JobState, Outcome
from rallypoint_agent.core.effects import Finish, FinishKind, Leave, StopWorkers
from rallypoint_agent.core.events import SignalReceived
from support.agent_script import SPEC, AgentScript, names, of

OUTCOME = Outcome(state=JobState.SUCCEEDED, reason="ALL_SUCCEEDED", message="all did")


def test_a_signal_is_forwarded_and_the_agent_leaves_when_the_workers_are_gone(agent: AgentScript) -> None:
    agent.run()
    assert of(agent.feed(SignalReceived(signal.SIGTERM)), StopWorkers) == [
        StopWorkers(0, signal.SIGTERM, SPEC.shutdown_timeout_ms)
    ]
    effects = agent.gone()
    assert of(effects, Leave) == [Leave("SIGNAL", "ended by SIGTERM")]
    (finish,) = of(effects, Finish)
    assert (finish.kind, finish.signal) == (FinishKind.SIGNALLED, signal.SIGTERM)


def test_an_agent_that_is_leaving_offers_no_port(agent: AgentScript) -> None:
    agent.run()
    agent.feed(SignalReceived(signal.SIGTERM))
    assert (agent.reported.phase, agent.reported.offer) == (AgentPhase.STOPPING, None)
    agent.gone()
    assert (agent.reported.phase, agent.reported.offer) == (AgentPhase.READY, None)


def test_a_second_signal_kills_at_once(agent: AgentScript) -> None:
    agent.run()
    agent.feed(SignalReceived(signal.SIGINT))
    assert agent.feed(SignalReceived(signal.SIGINT)) == [StopWorkers(0, signal.SIGKILL, 0)]


def test_a_signal_without_workers_ends_the_agent_at_once(agent: AgentScript) -> None:
    agent.attach()
    assert names(agent.feed(SignalReceived(signal.SIGINT))) == ["Leave", "Finish"]


def test_the_outcome_ends_running_workers_first(agent: AgentScript) -> None:
    agent.run()
    assert of(agent.direct(Exit(OUTCOME)), Finish) == []
    (finish,) = of(agent.gone(), Finish)
    assert (finish.kind, finish.outcome) == (FinishKind.DECIDED, OUTCOME)
