"""Stories of nodes that are lost: what that excuses, and how long they are waited for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import AgentPhase, Endpoint, EndpointOffer, JobSpec, JobState
from rallypoint_coordinator.core.records import GoneReason, RoundEnded
from support.coordinator_script import Agent, Script, the_record

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)
ELASTIC = JobSpec(min_nodes=1, max_nodes=3, max_restarts=3)


@pytest.fixture
def script() -> Script:
    return Script()


class TestEcho:
    def test_the_echo_of_a_lost_node_is_free(self, script: Script) -> None:
        a, b, c = script.running("abc", replace(ELASTIC, max_restarts=0))
        c.break_stream()
        b.fail(exit_code=1, message="Connection closed by peer", traceback="Traceback ...")
        a.clear()
        ended = the_record(c.obituary(), RoundEnded)
        assert (ended.charged, ended.culprit) == (False, None)
        assert a.assignment.world_size == 2

    def test_an_exception_of_its_own_is_charged_though_a_node_is_lost(self, script: Script) -> None:
        a, b, c = script.running("abc", ELASTIC)
        c.break_stream()
        b.fail(exit_code=1, message="ValueError: x", traceback="Traceback ...")
        a.clear()
        assert the_record(c.obituary(), RoundEnded).charged

    def test_a_node_that_left_and_came_back_was_not_lost(self, script: Script) -> None:
        a, b, c = script.running("abc", ELASTIC)
        b.fail(exit_code=1, message="Connection closed by peer", traceback="Traceback ...")
        c.leave()
        c.reborn().attach()
        assert the_record(a.clear(), RoundEnded).charged

    def test_a_node_that_was_lost_and_came_back_was_lost(self, script: Script) -> None:
        a, b, c = script.running("abc", ELASTIC)
        b.fail(exit_code=1, message="Connection closed by peer", traceback="Traceback ...")
        c.obituary()
        c.reborn().attach()
        assert not the_record(a.clear(), RoundEnded).charged

    def test_a_coordinator_that_starts_anew_knows_who_was_lost(self, script: Script) -> None:
        a, b, c = script.running("abc", ELASTIC)
        b.fail(exit_code=1, message="Connection closed by peer", traceback="Traceback ...")
        c.obituary()
        script.restart()
        b.attach()
        a.observed = replace(a.observed, phase=AgentPhase.READY, round=0)
        assert not the_record(a.attach(), RoundEnded).charged

    def test_a_node_that_does_not_stop_makes_no_failure_free(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail(exit_code=1)
        b.report(AgentPhase.STOPPING)
        for _ in range(20):
            script.advance(5_000)
            a.heartbeat()
            b.heartbeat()
        assert script.life.facts.members["b"].gone is GoneReason.REVOKED
        assert script.life.facts.restart_count == 1


class TestRejoinWait:
    SPEC = JobSpec(min_nodes=1, max_nodes=2, rejoin_wait_ms=20_000, last_call_timeout_ms=0)

    def run_both(self, script: Script) -> list[Agent]:
        a, b = script.agent("a", self.SPEC), script.agent("b", self.SPEC)
        b.attach()
        b.run()
        a.attach()
        b.clear()
        for agent in (a, b):
            agent.run()
        return [a, b]

    def lost_one(self, script: Script) -> list[Agent]:
        a, b = self.run_both(script)
        b.obituary()
        a.clear()
        return [a, b]

    def test_a_lost_node_that_comes_back_is_waited_for(self, script: Script) -> None:
        a, b = self.lost_one(script)
        assert script.message == "waiting for b to come back: 1 node ready"
        again = b.reborn()
        again.attach()
        again.report(offer=EndpointOffer(3, Endpoint("10.0.0.1", 4003)))
        assert a.assignment.world_size == 2

    @pytest.mark.parametrize("state", [JobState.STOPPING, JobState.GATHERING])
    def test_nor_does_a_coordinator_restart_forget_it(self, script: Script, state: JobState) -> None:
        a, b = self.run_both(script)
        b.obituary()
        if state is JobState.GATHERING:
            a.clear()
        assert script.life.facts.state is state
        script.restart()
        a.attach()
        a.clear()
        assert script.message == "waiting for b to come back: 1 node ready"
        again = b.reborn()
        again.attach()
        again.report(offer=EndpointOffer(3, Endpoint("10.0.0.1", 4003)))
        assert a.assignment.world_size == 2

    def test_nor_is_it_waited_for_for_ever_then(self, script: Script) -> None:
        a, _ = self.lost_one(script)
        script.restart()
        a.attach()
        script.advance(20_000)
        assert a.assignment.world_size == 1

    def test_not_for_ever(self, script: Script) -> None:
        a, _ = self.lost_one(script)
        script.advance(20_000)
        assert a.assignment.world_size == 1

    def test_a_node_that_left_is_not(self, script: Script) -> None:
        a, b = self.run_both(script)
        b.leave()
        a.clear()
        assert a.assignment.world_size == 1
