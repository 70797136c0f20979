"""Stories of how a job ends, and who is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import AgentPhase, JobSpec
from support.coordinator_script import Script, kinds, outcome_told

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)
ELASTIC = JobSpec(min_nodes=1, max_nodes=3, max_restarts=3)


@pytest.fixture
def script() -> Script:
    return Script()


class TestEnd:
    def test_success_is_every_nodes_success(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        assert kinds(a.report(AgentPhase.SUCCEEDED)) == ["NodeSucceeded"]
        assert kinds(b.report(AgentPhase.SUCCEEDED)) == ["NodeSucceeded", "JobDecided"]
        assert (outcome_told(a), outcome_told(b)) == ("SUCCEEDED ALL_SUCCEEDED", "SUCCEEDED ALL_SUCCEEDED")

    def test_losing_a_node_that_has_succeeded_changes_nothing(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.report(AgentPhase.SUCCEEDED)
        assert kinds(a.obituary()) == ["MemberGone"]
        b.report(AgentPhase.SUCCEEDED)
        assert outcome_told(b) == "SUCCEEDED ALL_SUCCEEDED"

    def test_nobody_is_taken_in_once_a_node_has_succeeded(self, script: Script) -> None:
        a, _ = script.running("ab", replace(ELASTIC, min_nodes=2, last_call_timeout_ms=0))
        a.report(AgentPhase.SUCCEEDED)
        c = script.agent("c", a.spec)
        assert "RoundStopping" not in kinds(c.attach())
        assert c.told == "Hold STANDBY"

    def test_a_failure_before_all_have_succeeded_restarts_everyone(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.report(AgentPhase.SUCCEEDED, offer=a.next_offer())
        out = b.fail()
        assert kinds(out) == ["RoundStopping", "RoundEnded", "RoundFormed"]
        assert a.assignment.restart_count == 1

    def test_a_standby_leaves_with_the_jobs_outcome(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        c = script.agent("c", PAIR)
        c.attach()
        a.report(AgentPhase.SUCCEEDED)
        b.report(AgentPhase.SUCCEEDED)
        assert outcome_told(c) == "SUCCEEDED ALL_SUCCEEDED"

    def test_an_agent_whose_welcome_was_lost_learns_the_outcome(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        z = script.agent("z", PAIR)
        z.attach()
        z.break_stream()
        a.report(AgentPhase.SUCCEEDED)
        b.report(AgentPhase.SUCCEEDED)
        z.attach(fresh=True)
        assert outcome_told(z) == "SUCCEEDED ALL_SUCCEEDED"

    def test_a_fresh_hello_after_the_end_starts_a_new_life(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.report(AgentPhase.SUCCEEDED)
        b.report(AgentPhase.SUCCEEDED)
        uid = script.life.facts.uid
        newcomer = script.agent("a", ELASTIC, incarnation="tomorrow")
        newcomer.attach()
        assert script.life.facts.uid != uid
        assert newcomer.told == "Hold WAITING_FOR_NODES"

    def test_a_hello_with_the_old_uid_learns_the_old_outcome(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.report(AgentPhase.SUCCEEDED)
        b.break_stream()
        b.observed = replace(b.observed, phase=AgentPhase.SUCCEEDED)
        b.attach()
        assert outcome_told(b) == "SUCCEEDED ALL_SUCCEEDED"
        script.agent("z", ELASTIC).attach()
        a.attach()
        assert outcome_told(a) == "SUCCEEDED ALL_SUCCEEDED"
