"""Being without a coordinator."""

from __future__ import annotations

from rallypoint.errors import Reason, Refusal
from rallypoint.model import Stop
from rallypoint_agent.core.contact import SAY_AFTER_MS
from rallypoint_agent.core.effects import Finish, FinishKind, Say
from rallypoint_agent.core.events import AttachRefused, ConnectionsRefused, Detached
from support.agent_script import SPEC, AgentScript, of


def test_no_coordinator_within_the_connect_timeout(agent: AgentScript) -> None:
    (finish,) = of(agent.advance(60_000), Finish)
    assert finish.kind is FinishKind.UNREACHABLE
    assert "is `rallypoint coordinator` running there" in finish.message


def test_who_was_attached_knows_the_way(agent: AgentScript) -> None:
    agent.attach()
    agent.feed(Detached())
    (finish,) = of(agent.advance(SPEC.coordinator_outage_ms), Finish)
    assert (
        finish.message
        == f"no coordinator could be reached at 10.0.0.9:29400 for {SPEC.coordinator_outage_ms // 1000} s"
    )


def test_that_nobody_is_there_is_said_at_once(agent: AgentScript) -> None:
    agent.feed(ConnectionsRefused(0))
    (said,) = of(agent.advance(0), Say)
    assert said.message == "no coordinator at 10.0.0.9:29400: looking for one for 60 s more, then giving up"


def test_a_coordinator_that_restarts_is_given_a_moment(agent: AgentScript) -> None:
    agent.attach()
    agent.feed(Detached())
    agent.feed(ConnectionsRefused(0))
    assert of(agent.advance(SAY_AFTER_MS - 1), Say) == []


def test_a_refusal_is_named_when_the_waiting_ends(agent: AgentScript) -> None:
    agent.feed(AttachRefused(Refusal(reason=Reason.RECOVERING, message="the disk is full")))
    (finish,) = of(agent.advance(60_000), Finish)
    assert finish.kind is FinishKind.UNREACHABLE
    assert finish.message == "no coordinator took this agent in for 60 s; the last one said: the disk is full"


def test_what_goes_on_without_a_coordinator_is_said_once(agent: AgentScript) -> None:
    (said,) = of(agent.advance(50_000), Say)
    assert said.message == "no coordinator at 10.0.0.9:29400: looking for one for 58 s more, then giving up"


def test_a_short_absence_is_not_worth_a_word(agent: AgentScript) -> None:
    agent.attach()
    agent.feed(Detached())
    assert of(agent.advance(SAY_AFTER_MS - 1), Say) == []
    agent.attach()
    assert agent.advance(60_000) == []


def test_success_does_not_wait_for_ever_for_a_lost_coordinator(agent: AgentScript) -> None:
    agent.run()
    agent.succeed()
    agent.gone()
    agent.feed(Detached())
    (finish,) = of(agent.advance(SPEC.exit_barrier_timeout_ms), Finish)
    assert finish.kind is FinishKind.BARRIER_TIMEOUT


def test_a_success_that_was_made_void_is_none(agent: AgentScript) -> None:
    agent.run()
    agent.succeed()
    agent.gone()
    agent.direct(Stop(0, 5_000))
    agent.feed(Detached())
    assert of(agent.advance(SPEC.exit_barrier_timeout_ms), Finish) == []
