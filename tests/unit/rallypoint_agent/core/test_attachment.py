"""The stream to the coordinator: refusals on it, and the news that the lease is lost."""

from __future__ import annotations

import signal

from rallypoint.errors import Reason, Refusal
from rallypoint.model import Run, Stop
from rallypoint_agent.core.effects import Finish, FinishKind, Reattach, Say, SetIdentity, StartWorkers, StopWorkers
from rallypoint_agent.core.events import AttachRefused, LeaseStaleReceived
from support.agent_script import AgentScript, assignment, names, of


def test_a_stale_lease_ends_the_workers_at_once_and_then_attaches_anew(agent: AgentScript) -> None:
    agent.run()
    effects = agent.feed(LeaseStaleReceived("gone"))
    assert of(effects, SetIdentity) == [SetIdentity("cluster-1", "uid", 0)]
    assert of(effects, StopWorkers) == [StopWorkers(0, signal.SIGKILL, 0)]
    assert names(agent.gone()) == ["Report", "Reattach", "Report"]


def test_a_stale_lease_without_workers_attaches_anew_at_once(agent: AgentScript) -> None:
    agent.attach()
    assert of(agent.feed(LeaseStaleReceived("gone")), Reattach) == [Reattach()]


def test_a_lease_that_is_taken_away_takes_along_what_waited_for_the_workers_end(agent: AgentScript) -> None:
    agent.run(offer_id=1)
    agent.direct(Stop(0, 5_000))
    agent.direct(Run(assignment(1)))
    agent.feed(LeaseStaleReceived("gone"))
    assert "HoldPort" in names(agent.gone()), "it has to offer a port that no round has used"
    assert of(agent.attach(lease_id=8), StartWorkers) == []


def test_who_is_told_to_come_back_looks_for_a_coordinator_anew(agent: AgentScript) -> None:
    agent.advance(50_000)
    agent.feed(LeaseStaleReceived("gone"))
    assert of(agent.advance(50_000), Finish) == []


def test_a_final_refusal_ends_the_agent(agent: AgentScript) -> None:
    refusal = Refusal(reason=Reason.SPEC_MISMATCH, message="no")
    (finish,) = of(agent.feed(AttachRefused(refusal)), Finish)
    assert (finish.kind, finish.message) == (FinishKind.REFUSED, "refused: no")


def test_a_final_refusal_is_told_once(agent: AgentScript) -> None:
    refusal = Refusal(reason=Reason.SPEC_MISMATCH, message="no")
    assert of(agent.feed(AttachRefused(refusal)), Say) == []


def test_a_final_refusal_is_told_before_the_workers_are_waited_for(agent: AgentScript) -> None:
    agent.run()
    refusal = Refusal(reason=Reason.WRONG_CLUSTER, message="no")
    assert Say("refused: no") in agent.feed(AttachRefused(refusal))


def test_a_refusal_that_passes_does_not(agent: AgentScript) -> None:
    refusal = Refusal(reason=Reason.NODE_NAME_BUSY, message="later")
    assert of(agent.feed(AttachRefused(refusal)), Finish) == []


def test_a_final_refusal_ends_running_workers_first(agent: AgentScript) -> None:
    agent.run()
    effects = agent.feed(AttachRefused(Refusal(reason=Reason.WRONG_CLUSTER, message="no")))
    assert names(effects) == ["Report", "StopWorkers"]
    assert of(agent.gone(), Finish)[0].kind is FinishKind.REFUSED
