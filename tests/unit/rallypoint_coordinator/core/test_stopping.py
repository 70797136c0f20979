"""Stories of a round's end, and of what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import AgentPhase, Blame, JobSpec, JobState, Version
from rallypoint_coordinator.core.records import RoundEnded, RoundStopping, StopCause
from support.coordinator_script import Script, kinds, outcome_told, the_record

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)
TRIO = JobSpec(min_nodes=3, max_nodes=3, max_restarts=3)


@pytest.fixture
def script() -> Script:
    return Script()


class TestFailure:
    def test_a_failure_stops_everyone_and_is_charged_once_all_are_gone(self, script: Script) -> None:
        a, b, c = script.running("abc", TRIO)
        out = b.fail(exit_code=-9)
        assert the_record(out, RoundStopping).cause is StopCause.WORKER_FAILED
        assert (a.told, c.told) == ("Stop WORKER_FAILED", "Stop WORKER_FAILED")
        assert kinds(a.clear()) == []
        out = c.clear()
        assert kinds(out) == ["RoundEnded", "RoundFormed"]
        ended = the_record(out, RoundEnded)
        assert (ended.charged, ended.culprit and ended.culprit.node) == (True, "b")
        assert ended.message == "restart 1 of 3: rank 1 on b exited with -9 (SIGKILL)"
        assert [agent.assignment.restart_count for agent in (a, b, c)] == [1, 1, 1]
        assert [agent.assignment.round for agent in (a, b, c)] == [1, 1, 1]

    def test_ranks_stay_with_their_nodes(self, script: Script) -> None:
        agents = script.running("abc", TRIO)
        agents[0].fail()
        agents[2].clear()
        agents[1].clear()
        assert [agent.assignment.group_rank for agent in agents] == [0, 1, 2]

    def test_failures_on_every_node_cost_one_restart(self, script: Script) -> None:
        for agent in script.running("abc", TRIO):
            agent.fail()
        assert script.life.facts.restart_count == 1
        assert script.life.facts.round_number == 1

    def test_an_exhausted_budget_fails_the_job_with_its_culprit(self, script: Script) -> None:
        a, b = script.running("ab", replace(PAIR, max_restarts=0))
        a.fail(exit_code=7, message="ValueError: x", traceback="Traceback\nValueError: x")
        assert a.told == "Stop WORKER_FAILED"
        b.clear()
        assert (outcome_told(a), outcome_told(b)) == ("FAILED RESTARTS_EXHAUSTED", "FAILED RESTARTS_EXHAUSTED")
        assert script.life.facts.outcome is not None
        culprit = script.life.facts.outcome.culprit
        assert culprit is not None
        assert (culprit.node, culprit.exit_code, culprit.blame) == ("a", 7, Blame.ROOT_CAUSE)
        assert culprit.traceback == "Traceback\nValueError: x"

    def test_no_texts_of_failures_stay_behind_once_the_round_is_judged(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail(message="ValueError: x", traceback="Traceback\nValueError: x")
        assert len(script.life.watch.course.failures) == 1
        b.clear()
        assert len(script.life.watch.course.failures) == 0
        assert {presence.observed.failures for presence in script.life.presences.values()} == {()}
        assert script.life.facts.last_failure is not None
        assert script.life.facts.last_failure.traceback


class TestEvidence:
    def test_a_report_from_before_the_round_does_not_prove_that_its_workers_are_gone(self, script: Script) -> None:
        a, b = script.attached("ab", PAIR)
        a.run()
        a.fail()
        assert kinds(b.report(AgentPhase.READY, version=Version(1, 3), round=-1)) == []
        assert script.life.facts.state is JobState.STOPPING
        assert kinds(b.clear())[0] == "RoundEnded"
