"""What an agent does not promise, the coordinator waits out."""

from __future__ import annotations

import pytest

from rallypoint.model import Capability, JobSpec, JobState
from rallypoint_coordinator.core.membership import UNFENCED_WAIT_MS, lease_expiry_ms
from rallypoint_coordinator.core.records import MemberGone, RoundFormed
from rallypoint_coordinator.core.stopping import REMAINS_WAIT_MS
from support.coordinator_script import Agent, Script, kinds, the_record

SPEC = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)
ALL = frozenset(Capability)


def running(script: Script, *, lacking: Capability | None) -> tuple[Agent, Agent]:
    a, b = script.agent("a", SPEC), script.agent("b", SPEC)
    a.capabilities = ALL - {lacking} if lacking else ALL
    for agent in (a, b):
        agent.attach()
    for agent in (a, b):
        agent.run()
    return a, b


@pytest.mark.parametrize("capability", Capability)
def test_only_the_silence_of_an_agent_that_does_not_fence_itself_is_believed_later(capability: Capability) -> None:
    later_ms = lease_expiry_ms(SPEC, 0, ALL - {capability}) - lease_expiry_ms(SPEC, 0, ALL)
    assert later_ms == (UNFENCED_WAIT_MS if capability is Capability.SELF_FENCES else 0)


def test_an_agent_that_does_not_fence_itself_is_lost_ten_minutes_later() -> None:
    script = Script()
    a, b = running(script, lacking=Capability.SELF_FENCES)
    a.break_stream()
    heard = []
    for _ in range(0, SPEC.lease_ttl_ms + UNFENCED_WAIT_MS, 5_000):
        heard += kinds(script.advance(5_000))
        b.heartbeat()
    assert heard == []
    assert the_record(script.advance(5_000), MemberGone).node == "a"


def test_a_restarted_coordinator_waits_as_long() -> None:
    script = Script()
    running(script, lacking=Capability.SELF_FENCES)
    script.restart()
    script.advance(SPEC.lease_ttl_ms + 5_000)
    assert [member.gone is None for member in script.life.facts.members.values()] == [True, False]


@pytest.mark.parametrize("capability", Capability)
def test_what_workers_left_behind_has_time_to_end(capability: Capability) -> None:
    script = Script()
    a, b = running(script, lacking=capability)
    a.fail()
    out = b.clear()
    if capability is Capability.KILLS_TREES:
        assert kinds(out) == []
        assert script.life.facts.state is JobState.STOPPING
        assert "what workers have started may still run" in script.message
        assert kinds(script.advance(REMAINS_WAIT_MS - 1)) == []
        out = script.advance(1)
    assert kinds(out) == ["RoundEnded", "RoundFormed"]


def test_that_time_is_given_again_by_a_restarted_coordinator() -> None:
    script = Script()
    a, b = running(script, lacking=Capability.KILLS_TREES)
    a.fail()
    b.clear()
    script.advance(REMAINS_WAIT_MS - 1)
    script.restart()
    a.attach()
    assert kinds(b.attach()) == []
    assert kinds(script.advance(REMAINS_WAIT_MS - 1)) == []
    assert kinds(script.advance(1)) == ["RoundEnded", "RoundFormed"]


def test_a_node_that_does_not_hold_its_port_is_not_where_all_meet() -> None:
    script = Script()
    a, b = script.agent("a", SPEC, node_rank=0), script.agent("b", SPEC, node_rank=1)
    a.capabilities = ALL - {Capability.HOLDS_PORT}
    a.attach()
    formed = the_record(b.attach(), RoundFormed)
    assert [seat.node for seat in formed.seats] == ["b", "a"]


def test_agents_that_promise_nothing_have_their_job_done() -> None:
    script = Script()
    agents = [script.agent(node, SPEC) for node in "ab"]
    for agent in agents:
        agent.capabilities = frozenset()
        agent.attach()
    for agent in agents:
        agent.run()
    agents[0].fail()
    agents[1].clear()
    script.advance(REMAINS_WAIT_MS)
    for agent in agents:
        agent.run()
    assert script.life.facts.round_number == 1
