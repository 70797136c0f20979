"""Nodes whose workers not even SIGKILL ends: what the round, the node and its successors make of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import AgentPhase, Hold, JobSpec, JobState, Observed
from rallypoint.v1 import job_service_pb2
from rallypoint_coordinator.core import invariants
from rallypoint_coordinator.core.effects import SendLeaseStale, SendWelcome
from rallypoint_coordinator.core.records import GoneReason, MemberGone, NodeExpelled, NodeReadmitted, RoundEnded
from rallypoint_coordinator.server.views import node as view_of
from support.coordinator_script import Agent, Script, effects_of, kinds, the_record

SPEC = JobSpec(min_nodes=1, max_nodes=2, max_restarts=1)


@pytest.fixture
def script() -> Script:
    return Script()


def stuck(agent: Agent, *pids: int) -> Agent:
    agent.report(AgentPhase.STOPPING, unkillable_pids=pids)
    return agent


def expelled(script: Script) -> tuple[Agent, Agent]:
    """Round 0 has ended without b, whose process 7 is stuck; a runs round 1."""
    a, b = script.running("ab", SPEC)
    a.fail()
    stuck(b, 7)
    a.run()
    assert script.life.facts.round_number == 1
    return a, b


def test_it_is_not_counted_among_those_that_wait_until_it_is_readmitted(script: Script) -> None:
    a, b = script.running("ab", replace(SPEC, min_nodes=2))
    a.fail()
    stuck(b, 7)
    assert a.directive is not None
    assert a.directive.message == "waiting for nodes: 1 joined, 2 wanted"
    script.agent("c", replace(SPEC, min_nodes=2)).attach(observed=Observed())
    assert script.life.facts.unavailable == {"b"}
    b.report(AgentPhase.READY, offer=None)
    assert script.life.facts.unavailable == set()


class TestExpelling:
    def test_the_round_ends_without_it(self, script: Script) -> None:
        a, b = script.running("ab", SPEC)
        a.fail()
        out = b.report(AgentPhase.STOPPING, unkillable_pids=(7, 8))
        assert kinds(out)[:2] == ["NodeExpelled", "RoundEnded"]
        assert the_record(out, NodeExpelled).pids == (7, 8)
        assert the_record(out, RoundEnded).charged

    def test_its_own_word_ends_the_round_too(self, script: Script) -> None:
        """A lone report is the first that the coordinator hears of the teardown."""
        _, b = script.running("ab", SPEC)
        out = b.report(AgentPhase.STOPPING, unkillable_pids=(7,))
        assert kinds(out) == ["RoundStopping", "NodeExpelled"]

    def test_only_for_the_round_that_is_stopped(self, script: Script) -> None:
        a, b = script.running("ab", SPEC)
        a.fail()
        out = b.report(AgentPhase.STOPPING, unkillable_pids=(7,), round=-1)
        assert kinds(out) == []
        assert script.life.facts.state is JobState.STOPPING

    def test_it_is_told_to_hold_and_why(self, script: Script) -> None:
        _, b = expelled(script)
        assert b.directive is not None
        assert (b.directive.action, b.directive.reason) == (Hold(), "QUARANTINED")
        assert "process 7 is still there" in b.directive.message

    def test_each_is_told_of_itself(self, script: Script) -> None:
        """Processes of two containers may well have the same number."""
        spec = replace(SPEC, min_nodes=2, max_nodes=3)
        a, b, c = script.running("abc", spec)
        a.fail()
        stuck(b, 7)
        stuck(c, 7)
        told = [agent.directive.message for agent in (b, c) if agent.directive is not None]
        assert [message.split()[0] for message in told] == ["b", "c"]

    def test_leftovers_of_a_success_do_not_void_it(self, script: Script) -> None:
        a, b = script.running("ab", SPEC)
        assert kinds(b.report(AgentPhase.SUCCEEDED, unkillable_pids=(7,))) == ["NodeSucceeded"]
        a.report(AgentPhase.SUCCEEDED)
        assert script.life.facts.state is JobState.SUCCEEDED

    def test_leftovers_of_a_success_are_expelled_if_the_round_is_stopped_all_the_same(self, script: Script) -> None:
        a, b = script.running("ab", SPEC)
        b.report(AgentPhase.SUCCEEDED, unkillable_pids=(7,))
        assert kinds(a.fail()) == ["RoundStopping", "NodeExpelled", "RoundEnded", "RoundFormed"]


class TestQuarantine:
    def test_the_next_round_takes_it_in_only_when_it_is_clean(self, script: Script) -> None:
        _, b = expelled(script)
        assert b.lease_id not in script.life.watch.ready
        out = b.clear()
        assert kinds(out) == ["NodeReadmitted", "RoundStopping"]

    def test_a_report_without_workers_but_with_processes_is_not_clean(self, script: Script) -> None:
        _, b = expelled(script)
        out = b.report(AgentPhase.READY, unkillable_pids=(7,), offer=b.next_offer())
        assert kinds(out) == []
        assert b.lease_id not in script.life.watch.ready

    def test_it_outlives_a_coordinator_restart(self, script: Script) -> None:
        _, b = expelled(script)
        script.restart()
        b.attach()
        assert b.told == "Hold QUARANTINED"
        assert the_record(b.clear(), NodeReadmitted).node == "b"

    def test_a_stuck_participant_is_not_waited_for_after_a_restart(self, script: Script) -> None:
        a, b = script.running("ab", SPEC)
        a.report(AgentPhase.STOPPING)
        stuck(b, 7)
        script.restart()
        assert b.lease_id not in script.life.watch.remaining

    def test_its_lost_lease_does_not_say_that_the_process_is_gone(self, script: Script) -> None:
        a, b = expelled(script)
        b.break_stream()
        for _ in range(6):
            script.advance(5_000)
            a.heartbeat()
        gone = the_record(script.advance(5_000), MemberGone)
        assert (gone.node, gone.reason) == ("b", GoneReason.EXPIRED)
        assert "process 7 is still there" in gone.message
        assert script.life.facts.members["b"].unkillable_pids == (7,)

    def test_its_agent_is_no_member_again_while_the_process_is_there(self, script: Script) -> None:
        _, b = expelled(script)
        b.obituary()
        assert effects_of(b.attach(), SendLeaseStale)

    def test_a_later_agent_on_the_node_that_attaches_clean_ends_it(self, script: Script) -> None:
        _, b = expelled(script)
        b.obituary()
        assert effects_of(b.reborn().attach(), SendWelcome)
        assert script.life.facts.members["b"].unkillable_pids == ()

    def test_waiting_without_it_says_so(self, script: Script) -> None:
        a, b = script.running("ab", JobSpec(min_nodes=2, max_nodes=2, max_restarts=1))
        a.fail()
        stuck(b, 7)
        assert script.message == "waiting for 2 nodes: 1 ready, 1 quarantined"

    def test_it_is_never_ready_in_a_job_that_is_decided(self, script: Script) -> None:
        """Nobody is taken in again then, whatever has become of the process."""
        a, b = expelled(script)
        a.report(AgentPhase.SUCCEEDED)
        assert script.life.facts.state is JobState.SUCCEEDED
        b.clear()
        assert not script.life.watch.ready
        invariants.check(script.life)

    def test_it_is_shown(self, script: Script) -> None:
        expelled(script)
        life = script.life
        shown = view_of(life, life.facts.members["b"], script.stamp)
        assert shown.state == job_service_pb2.NODE_STATE_QUARANTINED
        assert list(shown.unkillable_pids) == [7]
