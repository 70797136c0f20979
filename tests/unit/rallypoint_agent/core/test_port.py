"""The rendezvous port that is held and offered."""

from __future__ import annotations

from dataclasses import replace

from rallypoint.model import Hold, Stop, StoreHost
from rallypoint_agent.core.effects import Finish, FinishKind, HoldPort
from rallypoint_agent.core.port import NAMED_PORT_PATIENCE_MS, PORT_RETRY_MS
from support.agent_script import SPEC, AgentScript, names, of


def test_a_port_is_held_from_the_start(agent: AgentScript) -> None:
    assert of(agent.effects, HoldPort) == [HoldPort(1)]
    assert agent.reported.offer is not None


def test_a_used_port_is_replaced_once_the_workers_are_gone(agent: AgentScript) -> None:
    agent.run(0, offer_id=1)
    agent.direct(Stop(0, 5_000))
    assert of(agent.gone(), HoldPort) == [HoldPort(2)]
    assert agent.reported.offer is not None
    assert agent.reported.offer.offer_id == 2


def test_an_unused_port_is_kept(agent: AgentScript) -> None:
    agent.run()
    agent.direct(Stop(0, 5_000))
    assert of(agent.gone(), HoldPort) == []


def test_a_port_used_by_a_round_that_never_came_here_is_replaced(agent: AgentScript) -> None:
    agent.attach()
    assert of(agent.direct(Hold(), consumed_offer_id=1), HoldPort) == [HoldPort(2)]


def test_a_port_that_could_not_be_held_is_tried_for_again() -> None:
    agent = AgentScript()
    agent.attach()
    agent.ports = False
    agent.direct(Hold(), consumed_offer_id=1)
    assert agent.reported.offer is None
    agent.advance(2_500)
    assert agent.reported.offer is None
    agent.ports = True
    agent.advance(1_000)
    assert agent.reported.offer is not None


def test_a_port_of_the_users_that_stays_busy_ends_the_agent() -> None:
    agent = AgentScript()
    agent.attach()
    agent.ports, agent.port_is_named = False, True
    assert of(agent.direct(Hold(), consumed_offer_id=1), Finish) == []
    assert of(agent.advance(NAMED_PORT_PATIENCE_MS - 1), Finish) == []
    effects = agent.advance(1)
    assert names(effects)[-2:] == ["Leave", "Finish"]
    assert of(effects, Finish) == [Finish(kind=FinishKind.NO_PORT, message="port 29500 is in use")]


def test_a_port_of_the_users_that_is_free_in_time_does_not() -> None:
    agent = AgentScript()
    agent.attach()
    agent.ports, agent.port_is_named = False, True
    agent.direct(Hold(), consumed_offer_id=1)
    agent.advance(PORT_RETRY_MS)
    agent.ports = True
    assert of(agent.advance(2 * NAMED_PORT_PATIENCE_MS), Finish) == []


def test_a_success_needs_no_port() -> None:
    agent = AgentScript()
    agent.run(0, offer_id=1)
    agent.ports, agent.port_is_named = False, True
    agent.succeed()
    agent.gone()
    assert of(agent.advance(2 * NAMED_PORT_PATIENCE_MS), Finish) == []


def test_no_port_is_tried_for_while_a_store_is_served() -> None:
    """The round's own may be the only one that the user allows; and the try was due before the round began."""
    agent = AgentScript(replace(SPEC, store_host=StoreHost.AGENT))
    agent.attach()
    agent.ports = False
    agent.direct(Hold(), consumed_offer_id=1)
    agent.run(0)
    agent.succeed()
    agent.gone()
    assert of(agent.advance(2 * PORT_RETRY_MS), HoldPort) == []
    agent.ports = True
    agent.direct(Stop(0, 5_000))
    assert len(of(agent.advance(PORT_RETRY_MS), HoldPort)) == 1
    assert agent.reported.offer is not None
