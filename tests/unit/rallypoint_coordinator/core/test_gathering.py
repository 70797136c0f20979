"""Stories of how a round is formed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import Endpoint, EndpointOffer, JobSpec, JobState
from rallypoint_coordinator.core.effects import Explain, SendDirective, SendWelcome
from rallypoint_coordinator.core.records import RoundFormed
from support.coordinator_script import Script, effects_of, kinds, outcome_told

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)
TRIO = JobSpec(min_nodes=3, max_nodes=3, max_restarts=3)
ELASTIC = JobSpec(min_nodes=1, max_nodes=3, max_restarts=3)


@pytest.fixture
def script() -> Script:
    return Script()


class TestRendezvous:
    def test_the_first_agent_creates_the_life_and_waits(self, script: Script) -> None:
        out = script.agent("a", PAIR).attach()
        assert kinds(out) == ["JobCreated", "MemberJoined"]
        assert script.life.facts.state is JobState.GATHERING
        assert script.message == "waiting for 2 nodes: 1 ready"
        (sent,) = (effect for effect in out.effects if not isinstance(effect, Explain))
        assert isinstance(sent, SendWelcome)
        assert sent.welcome.directive.reason == "WAITING_FOR_NODES"

    def test_who_comes_last_is_told_of_the_round_with_its_welcome(self, script: Script) -> None:
        (a,), b = script.attached("a", PAIR), script.agent("b", PAIR)
        out = b.attach()
        assert [(effect.stream, effect.directive.reason) for effect in effects_of(out, SendDirective)] == [
            (a.stream, "ROUND_FORMED")
        ]
        (welcome,) = (effect.welcome for effect in effects_of(out, SendWelcome))
        assert (welcome.lease_id, welcome.directive.reason) == (b.lease_id, "ROUND_FORMED")

    def test_the_round_forms_as_soon_as_all_are_there(self, script: Script) -> None:
        a, b = script.attached("ab", PAIR)
        assert (a.told, b.told) == ("Run ROUND_FORMED", "Run ROUND_FORMED")
        assert (a.assignment.first_rank, b.assignment.first_rank) == (0, 1)
        assert a.assignment.endpoint == b.assignment.endpoint
        assert (a.assignment.offer_id, b.assignment.offer_id) == (1, 0)

    def test_ranks_are_contiguous_over_nodes_of_different_size(self, script: Script) -> None:
        agents = [script.agent(node, TRIO, local_world_size=size) for node, size in (("a", 2), ("b", 4), ("c", 1))]
        for agent in agents:
            agent.attach()
        assert [agent.assignment.first_rank for agent in agents] == [0, 2, 6]
        assert {agent.assignment.world_size for agent in agents} == {7}

    def test_role_ranks_count_within_the_role(self, script: Script) -> None:
        agents = [script.agent(node, TRIO, role=role) for node, role in (("a", "x"), ("b", "y"), ("c", "x"))]
        for agent in agents:
            agent.attach()
        ranks = [(agent.assignment.first_role_rank, agent.assignment.role_world_size) for agent in agents]
        assert ranks == [(0, 2), (0, 1), (1, 2)]

    def test_node_rank_orders_the_first_round(self, script: Script) -> None:
        a, b = script.agent("a", PAIR, node_rank=1), script.agent("b", PAIR, node_rank=0)
        a.attach()
        b.attach()
        assert (a.assignment.group_rank, b.assignment.group_rank) == (1, 0)

    def test_a_first_gathering_has_a_last_call(self, script: Script) -> None:
        (a,) = script.attached("a", ELASTIC)
        assert a.told == "Hold WAITING_FOR_NODES"
        assert script.life.watch.reason == "LAST_CALL"
        script.advance(ELASTIC.last_call_timeout_ms)
        assert a.assignment.world_size == 1

    def test_the_join_timeout_fails_the_job(self, script: Script) -> None:
        spec = replace(PAIR, join_timeout_ms=20_000)
        (a,) = script.attached("a", spec)
        for _ in range(4):
            script.advance(5_000)
            a.heartbeat()
        assert outcome_told(a) == "FAILED JOIN_TIMEOUT"

    def test_a_node_beyond_max_stands_by(self, script: Script) -> None:
        script.running("ab", PAIR)
        c = script.agent("c", PAIR)
        c.attach()
        assert c.told == "Hold STANDBY"

    def test_a_loopback_endpoint_is_refused_for_a_remote_participant(self, script: Script) -> None:
        a, b = script.agent("a", PAIR), script.agent("b", PAIR)
        a.observed = replace(a.observed, offer=EndpointOffer(1, Endpoint("127.0.0.1", 4000)))
        a.attach(peer="127.0.0.1")
        b.attach(peer="10.0.0.7")
        assert outcome_told(b) == "FAILED LOOPBACK_ENDPOINT"
        assert "--local-addr" in script.message

    def test_a_node_that_is_alone_may_meet_itself_on_loopback(self, script: Script) -> None:
        a = script.agent("a", JobSpec())
        a.observed = replace(a.observed, offer=EndpointOffer(1, Endpoint("127.0.0.1", 4000)))
        a.attach(peer="10.0.0.7")
        assert a.assignment.endpoint.host == "127.0.0.1"

    def test_a_standby_takes_the_place_of_a_lost_node(self, script: Script) -> None:
        a, b, c = script.running("abc", TRIO)
        d = script.agent("d", TRIO)
        d.attach()
        b.obituary()
        a.clear()
        c.clear()
        assert [agent.assignment.group_rank for agent in (a, d, c)] == [0, 1, 2]

    def test_a_replacement_under_the_same_name_takes_its_place(self, script: Script) -> None:
        a, b, c = script.running("abc", TRIO)
        b.obituary()
        a.clear()
        c.clear()
        assert script.message == "waiting for 3 nodes: 2 ready"
        again = b.reborn()
        again.attach()
        assert again.assignment.group_rank == 1

    def test_an_absent_standby_delays_nobody(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        c = script.agent("c", PAIR)
        c.attach()
        c.break_stream()
        b.fail()
        a.clear()
        assert a.assignment.round == 1

    def test_a_round_is_numbered_without_gaps(self, script: Script) -> None:
        a, b = script.running("ab", replace(PAIR, max_restarts=5))
        for _ in range(4):
            a.fail()
            b.clear()
            a.run()
            b.run()
        formed = [entry.record.round for entry in script.journal if isinstance(entry.record, RoundFormed)]
        assert formed == [0, 1, 2, 3, 4]
