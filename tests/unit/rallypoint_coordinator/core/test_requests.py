"""What operators ask: cancel, restart, drain, in every state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import AgentPhase, JobSpec, JobState, Observed
from rallypoint_coordinator.core.events import Request
from rallypoint_coordinator.core.records import JobCancelled, NodeDrained
from support.coordinator_script import Agent, Script, kinds, outcome_told, replayed

PAIR = JobSpec(min_nodes=1, max_nodes=2, max_restarts=1, last_call_timeout_ms=0)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def pair(script: Script) -> list[Agent]:
    """Two nodes that run a round together."""
    a, b = script.agent("a", PAIR), script.agent("b", PAIR)
    a.attach()
    a.run()
    b.attach()
    a.clear()
    for agent in (a, b):
        agent.run()
    return [a, b]


def refused(answer: bool | Refusal) -> Reason:
    assert isinstance(answer, Refusal)
    return answer.reason


class TestCancel:
    def test_the_workers_are_stopped_first(self, script: Script, pair: list[Agent]) -> None:
        assert script.ask(Request.CANCEL) is True
        assert [agent.told for agent in pair] == ["Stop CANCELLED"] * 2
        for agent in pair:
            agent.clear()
        assert [outcome_told(agent) for agent in pair] == ["CANCELLED CANCELLED"] * 2
        assert script.life.facts.restart_count == 0

    def test_while_gathering_it_ends_at_once(self, script: Script) -> None:
        (a,) = script.attached("a", JobSpec(min_nodes=2, max_nodes=2))
        assert script.ask(Request.CANCEL) is True
        assert outcome_told(a) == "CANCELLED CANCELLED"

    def test_while_stopping_no_round_follows(self, script: Script, pair: list[Agent]) -> None:
        pair[0].fail()
        assert script.ask(Request.CANCEL) is True
        assert kinds(pair[1].clear()) == ["RoundEnded", "JobDecided"]
        assert script.life.facts.state is JobState.CANCELLED

    def test_twice_is_no_news_before_and_after_the_end(self, script: Script, pair: list[Agent]) -> None:
        script.ask(Request.CANCEL)
        assert script.ask(Request.CANCEL) is False
        for agent in pair:
            agent.clear()
        assert script.life.facts.state is JobState.CANCELLED
        assert script.ask(Request.CANCEL) is False

    def test_a_job_that_ended_otherwise_refuses_it(self, script: Script, pair: list[Agent]) -> None:
        for agent in pair:
            agent.report(AgentPhase.SUCCEEDED)
        assert refused(script.ask(Request.CANCEL)) is Reason.JOB_DECIDED

    def test_a_failure_that_spends_the_last_restart_does_not_outdo_it(self, script: Script) -> None:
        """It was accepted before the round was judged; what failed is told beside it."""
        a, b = script.running("ab", replace(PAIR, min_nodes=2, max_restarts=0))
        a.fail(exit_code=3)
        assert script.ask(Request.CANCEL) is True
        assert kinds(b.clear()) == ["RoundEnded", "JobDecided"]
        assert outcome_told(b) == "CANCELLED CANCELLED"
        assert script.life.facts.last_failure is not None
        assert script.life.facts.last_failure.exit_code == 3

    def test_it_is_recorded_with_who_asked(self, script: Script, pair: list[Agent]) -> None:
        script.ask(Request.CANCEL)
        (record,) = [entry.record for entry in script.journal if isinstance(entry.record, JobCancelled)]
        assert (record.by, record.reason) == ("ops", "maintenance")

    @pytest.mark.parametrize("restarts", [False, True])
    def test_the_reason_is_told_however_far_the_round_is(
        self, script: Script, pair: list[Agent], restarts: bool
    ) -> None:
        pair[0].fail()
        script.ask(Request.CANCEL)
        if restarts:
            script.restart()
            pair[0].attach()
            pair[1].attach()
        pair[1].clear()
        assert script.life.facts.outcome is not None
        assert script.life.facts.outcome.message == "cancelled by ops: maintenance"

    def test_so_it_is_where_no_round_runs(self, script: Script) -> None:
        script.attached("a", JobSpec(min_nodes=2, max_nodes=2))
        script.ask(Request.CANCEL)
        assert script.life.facts.outcome is not None
        assert script.life.facts.outcome.message == "cancelled by ops: maintenance"

    def test_it_survives_a_restart_of_the_coordinator(self, script: Script, pair: list[Agent]) -> None:
        script.ask(Request.CANCEL)
        script.restart()
        for agent in pair:
            agent.attach()
            agent.clear()
        assert script.life.facts.state is JobState.CANCELLED


class TestRestart:
    def test_a_new_round_on_the_same_nodes_costs_nothing(self, script: Script, pair: list[Agent]) -> None:
        assert script.ask(Request.RESTART) is True
        assert [agent.told for agent in pair] == ["Stop RESTART_ASKED"] * 2
        for agent in pair:
            agent.clear()
        assert [agent.assignment.restart_count for agent in pair] == [0, 0]
        assert script.life.facts.round_number == 2

    def test_without_a_round_it_is_refused(self, script: Script) -> None:
        script.attached("a", JobSpec(min_nodes=2, max_nodes=2))
        assert refused(script.ask(Request.RESTART)) is Reason.NO_ROUND_RUNS

    def test_a_second_one_restarts_the_next_round(self, script: Script, pair: list[Agent]) -> None:
        script.ask(Request.RESTART)
        assert refused(script.ask(Request.RESTART)) is Reason.NO_ROUND_RUNS
        for agent in pair:
            agent.clear()
        assert script.ask(Request.RESTART) is True


def records_of_drain(script: Script, node: str) -> list[str]:
    before = len(script.journal)
    script.ask(Request.DRAIN, node)
    return [type(entry.record).__name__ for entry in script.journal[before:]]


class TestDrain:
    def test_the_node_leaves_and_the_others_go_on(self, script: Script, pair: list[Agent]) -> None:
        a, b = pair
        assert script.ask(Request.DRAIN, "b") is True
        assert (a.told, b.told) == ("Stop NODE_DRAINED", "Drain DRAINED")
        a.clear()
        b.leave("drained")
        assert a.assignment.world_size == 1
        assert script.life.facts.restart_count == 0

    def test_a_drained_node_is_in_no_further_round(self, script: Script, pair: list[Agent]) -> None:
        a, b = pair
        script.ask(Request.DRAIN, "b")
        b.clear()
        a.clear()
        assert a.assignment.world_size == 1

    def test_a_drained_node_is_not_counted_among_those_that_wait(self, script: Script) -> None:
        a, b = script.running("ab", replace(PAIR, min_nodes=2))
        script.ask(Request.DRAIN, "b")
        b.clear()
        a.clear()
        assert a.directive is not None
        assert a.directive.message == "waiting for nodes: 1 joined, 2 wanted"
        script.restart()
        a.attach()
        assert a.directive.message == "waiting for nodes: 1 joined, 2 wanted"

    def test_a_drained_node_is_not_waited_for(self, script: Script) -> None:
        spec = replace(PAIR, max_nodes=3, last_call_timeout_ms=30_000)
        agents = script.attached("abc", spec)
        for agent in agents:
            agent.run()
        script.ask(Request.RESTART)
        a, b, c = agents
        b.clear()
        c.clear()
        b.break_stream()
        a.clear()
        assert "last call for known nodes" in script.message
        assert records_of_drain(script, "b") == ["NodeDrained", "RoundFormed"]

    def test_nor_is_one_that_had_come_back(self, script: Script) -> None:
        spec = replace(PAIR, rejoin_wait_ms=20_000)
        a, b = script.agent("a", spec), script.agent("b", spec)
        a.attach()
        a.run()
        b.attach()
        a.clear()
        for agent in (a, b):
            agent.run()
        b.obituary()
        a.clear()
        b.reborn().attach(observed=Observed())
        assert script.message == "waiting for b to come back: 1 node ready"
        assert records_of_drain(script, "b") == ["NodeDrained", "RoundFormed"]

    def test_another_agent_on_that_node_may_join(self, script: Script, pair: list[Agent]) -> None:
        a, b = pair
        script.ask(Request.DRAIN, "b")
        b.leave("drained")
        a.clear()
        a.run()
        again = b.reborn()
        again.attach()
        again.report(offer=b.next_offer())
        a.clear()
        assert a.assignment.world_size == 2

    def test_a_standby_leaves_without_a_stir(self, script: Script, pair: list[Agent]) -> None:
        c = script.agent("c", PAIR)
        c.attach()
        script.ask(Request.DRAIN, "c")
        assert c.told == "Drain DRAINED"
        assert script.life.facts.state is JobState.RUNNING

    def test_a_node_that_has_succeeded_is_not_missed(self, script: Script, pair: list[Agent]) -> None:
        pair[0].report(AgentPhase.SUCCEEDED)
        script.ask(Request.DRAIN, "a")
        assert script.life.facts.state is JobState.RUNNING

    def test_twice_is_no_news_and_an_unknown_node_is_refused(self, script: Script, pair: list[Agent]) -> None:
        script.ask(Request.DRAIN, "b")
        assert script.ask(Request.DRAIN, "b") is False
        assert refused(script.ask(Request.DRAIN, "z")) is Reason.NODE_NOT_FOUND

    @pytest.mark.parametrize("ends", [False, True])
    def test_so_it_is_once_the_node_has_left(self, script: Script, pair: list[Agent], ends: bool) -> None:
        a, b = pair
        script.ask(Request.DRAIN, "b")
        b.leave("drained")
        a.clear()
        if ends:
            a.report(AgentPhase.SUCCEEDED)
            assert script.life.facts.outcome is not None
        assert script.ask(Request.DRAIN, "b") is False

    def test_a_restart_of_the_coordinator_drains_on(self, script: Script, pair: list[Agent]) -> None:
        a, b = pair
        script.ask(Request.DRAIN, "b")
        script.restart()
        a.attach()
        b.attach()
        assert b.told == "Drain DRAINED"

    @pytest.mark.parametrize("restarts", [False, True])
    def test_the_agent_is_told_who_asked_and_why(self, script: Script, pair: list[Agent], restarts: bool) -> None:
        script.ask(Request.DRAIN, "b")
        if restarts:
            script.restart()
            pair[1].attach()
        assert pair[1].directive is not None
        assert pair[1].directive.message == "drained by ops: maintenance"

    def test_it_is_recorded_with_who_asked(self, script: Script, pair: list[Agent]) -> None:
        script.ask(Request.DRAIN, "b")
        (record,) = [entry.record for entry in script.journal if isinstance(entry.record, NodeDrained)]
        assert (record.node, record.by) == ("b", "ops")


@pytest.mark.parametrize("request_kind", Request)
def test_an_unknown_job_is_refused(script: Script, request_kind: Request) -> None:
    assert refused(script.ask(request_kind, "a", job="nothing")) is Reason.JOB_NOT_FOUND


def test_replay_gives_the_same_facts(script: Script, pair: list[Agent]) -> None:
    script.ask(Request.DRAIN, "b")
    script.ask(Request.CANCEL)
    live = {uid: life.facts for uid, life in script.cluster.lives.items()}
    assert {uid: life.facts for uid, life in replayed(script.journal).lives.items()} == live
