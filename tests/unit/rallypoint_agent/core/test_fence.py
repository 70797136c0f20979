"""The lease, and the fence that ends workers before the lease does."""

from __future__ import annotations

import signal
from dataclasses import replace

from rallypoint.errors import Reason, Refusal
from rallypoint.model import AgentPhase, Run
from rallypoint_agent.core.effects import SetFence, StartWorkers, StopWorkers
from rallypoint_agent.core.events import AttachRefused, ConnectionsRefused, Detached, LeaseRenewed
from support.agent_script import SPEC, AgentScript, assignment, of

TTL, GRACE = SPEC.lease_ttl_ms, SPEC.fence_grace_ms


def test_the_fence_counts_from_when_the_acknowledged_message_was_sent(agent: AgentScript) -> None:
    agent.run()
    agent.now_ms = 9_000
    assert of(agent.feed(LeaseRenewed(5_000)), SetFence) == [SetFence(5_000 + TTL - 1_000 - GRACE, 5_000 + TTL - 1_000)]


def test_an_older_acknowledgement_moves_nothing(agent: AgentScript) -> None:
    agent.run()
    agent.feed(LeaseRenewed(5_000))
    assert agent.feed(LeaseRenewed(4_000)) == []


def test_silence_ends_the_workers_before_the_lease_does(agent: AgentScript) -> None:
    agent.run()
    agent.feed(Detached())
    effects = agent.advance(TTL - 1_000 - GRACE)
    assert of(effects, StopWorkers) == [StopWorkers(0, signal.SIGTERM, GRACE)]
    assert (agent.reported.phase, agent.reported.fenced) == (AgentPhase.STOPPING, True)
    agent.gone()
    assert (agent.reported.phase, agent.reported.fenced) == (AgentPhase.READY, True)
    agent.feed(LeaseRenewed(agent.now_ms))
    agent.run(1)
    assert not agent.reported.fenced


def test_no_round_begins_once_the_lease_has_run_out(agent: AgentScript) -> None:
    agent.attach()
    agent.now_ms = TTL - 1_000 - GRACE
    assert of(agent.direct(Run(assignment(0))), StartWorkers) == []
    assert agent.reported.phase is AgentPhase.READY
    agent.feed(LeaseRenewed(agent.now_ms))
    assert of(agent.direct(Run(assignment(0))), StartWorkers) != []


def test_refusals_hold_the_workers_within_the_outage() -> None:
    agent = AgentScript(replace(SPEC, coordinator_outage_ms=100_000))
    agent.run()
    agent.feed(Detached())
    for _ in range(20):
        agent.advance(5_000)
        agent.feed(ConnectionsRefused(agent.now_ms))
    assert agent.reported.phase is AgentPhase.RUNNING
    effects = agent.advance(TTL)
    assert of(effects, StopWorkers) == [StopWorkers(0, signal.SIGTERM, GRACE)]


def test_without_an_outage_a_refusal_is_silence() -> None:
    agent = AgentScript(replace(SPEC, coordinator_outage_ms=0))
    agent.run()
    agent.now_ms = 5_000
    assert agent.feed(ConnectionsRefused(5_000)) == []


def test_who_recovers_may_not_hold_the_workers_for_ever(agent: AgentScript) -> None:
    agent.run()
    refusal = Refusal(reason=Reason.RECOVERING, message="the disk is full")
    held = SPEC.coordinator_outage_ms // 10_000
    for _ in range(held):
        assert of(agent.advance(10_000), StopWorkers) == []
        agent.feed(AttachRefused(refusal, agent.now_ms))
    agent.advance(10_000)
    agent.feed(AttachRefused(refusal, agent.now_ms))
    assert len(of(agent.advance(SPEC.lease_ttl_ms), StopWorkers)) == 1
