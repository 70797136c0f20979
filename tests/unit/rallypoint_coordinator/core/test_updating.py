"""What operators change of a live job, and when it counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import JobSpec, JobState, ScaleUp
from rallypoint_coordinator.core.effects import RefuseStream
from rallypoint_coordinator.core.records import JobUpdated
from rallypoint_coordinator.core.updating import etag_of
from support.coordinator_script import Script, effects_of, kinds, replayed

SPEC = JobSpec(min_nodes=2, max_nodes=3, max_restarts=1, join_timeout_ms=60_000, last_call_timeout_ms=0)


@pytest.fixture
def script() -> Script:
    return Script()


def refused(answer: bool | Refusal) -> tuple[Reason, str]:
    assert isinstance(answer, Refusal)
    return answer.reason, answer.field


class TestBudget:
    def test_a_raised_one_saves_a_job_that_is_about_to_fail(self, script: Script) -> None:
        a, b = script.running("ab", replace(SPEC, max_restarts=0))
        b.fail()
        assert script.update(max_restarts=1) is True
        assert kinds(a.clear()) == ["RoundEnded", "RoundFormed"]
        assert script.life.facts.restart_count == 1

    def test_a_lowered_one_counts_at_the_next_failure(self, script: Script) -> None:
        a, b = script.running("ab", SPEC)
        script.update(max_restarts=0)
        b.fail()
        a.clear()
        assert script.life.facts.outcome is not None
        assert script.life.facts.outcome.reason == "RESTARTS_EXHAUSTED"

    def test_what_is_spent_is_spent(self, script: Script) -> None:
        a, b = script.running("ab", SPEC)
        b.fail()
        a.clear()
        assert refused(script.update(max_restarts=0)) == (Reason.INVALID_FIELD, "job.spec.max_restarts")


class TestBounds:
    def test_a_lower_maximum_leaves_the_round_alone_and_the_next_one_is_smaller(self, script: Script) -> None:
        a, b, c = script.running("abc", replace(SPEC, last_call_timeout_ms=5_000))
        assert script.update(max_nodes=2) is True
        assert script.life.facts.state is JobState.RUNNING
        c.fail()
        a.clear()
        b.clear()
        assert script.life.facts.round is not None
        assert list(script.life.facts.round.places) == ["a", "b"]

    def test_a_higher_minimum_counts_for_the_next_round(self, script: Script) -> None:
        a, b = script.running("ab", SPEC)
        script.update(min_nodes=3)
        assert a.told == b.told == "Run ROUND_FORMED"
        b.fail()
        a.clear()
        assert script.life.facts.state is JobState.GATHERING
        assert script.message == "waiting for 3 nodes: 2 ready"

    def test_a_higher_minimum_does_not_end_a_round_for_one_that_cannot_be(self, script: Script) -> None:
        script.running("ab", replace(SPEC, max_nodes=2))
        script.attached("c", replace(SPEC, max_nodes=2))
        script.update(min_nodes=5, max_nodes=6)
        assert kinds(script.advance(0)) == []
        script.update(min_nodes=3)
        assert script.life.facts.state is JobState.STOPPING

    def test_a_lower_minimum_lets_those_who_wait_begin(self, script: Script) -> None:
        script.attached("a", SPEC)
        script.update(min_nodes=1)
        assert script.life.facts.state is JobState.RUNNING

    def test_another_minimum_has_a_join_timeout_of_its_own(self, script: Script) -> None:
        (a,) = script.attached("a", SPEC)
        for _ in range(11):
            script.advance(5_000)
            a.heartbeat()
        script.update(min_nodes=3)
        assert script.life.watch.until_ms == script.now_ms + SPEC.join_timeout_ms

    @pytest.mark.parametrize(
        ("scale_up", "state"), [(ScaleUp.IMMEDIATE, JobState.STOPPING), (ScaleUp.ON_RESTART, JobState.RUNNING)]
    )
    def test_a_higher_maximum_takes_in_who_stands_by(self, script: Script, scale_up: ScaleUp, state: JobState) -> None:
        spec = replace(SPEC, scale_up=scale_up, last_call_timeout_ms=5_000)
        script.running("abc", spec)
        script.attached("d", spec)
        assert script.life.facts.state is JobState.RUNNING
        script.update(max_nodes=4)
        assert script.life.facts.state is state

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"min_nodes": 4}, "job.spec.min_nodes"),
            ({"max_nodes": 1}, "job.spec.max_nodes"),
            ({"min_nodes": 3, "max_nodes": 1}, "job.spec.max_nodes"),
        ],
    )
    def test_a_round_must_be_possible(self, script: Script, changes: dict[str, Any], field: str) -> None:
        script.attached("a", SPEC)
        assert refused(script.update(**changes)) == (Reason.INVALID_FIELD, field)
        assert script.life.facts.spec == SPEC


class TestAgreedSpec:
    def test_who_joins_later_comes_with_what_was_agreed_on(self, script: Script) -> None:
        script.running("ab", SPEC)
        script.update(max_nodes=5, max_restarts=9)
        (c,) = script.attached("c", SPEC)
        assert c.welcome is not None
        assert c.welcome.job_spec == SPEC
        assert script.life.facts.live_count == 3

    def test_who_comes_with_what_is_in_force_is_refused(self, script: Script) -> None:
        script.running("ab", SPEC)
        script.update(max_restarts=9)
        stranger = script.agent("c", replace(SPEC, max_nodes=SPEC.max_nodes + 1, max_restarts=9))
        (refused,) = effects_of(stranger.attach(), RefuseStream)
        assert stranger.welcome is None
        assert [why.description for why in refused.refusal.violations] == [
            f"the job has max_nodes = {SPEC.max_nodes}, this agent says {SPEC.max_nodes + 1}",
            f"the job's agents agreed on max_restarts = {SPEC.max_restarts} (changed to 9 since), this agent says 9",
        ]

    def test_the_refusal_says_what_was_agreed_on_and_what_is_in_force(self, script: Script) -> None:
        script.running("ab", SPEC)
        script.update(max_restarts=9)
        (refused,) = effects_of(script.agent("c", replace(SPEC, max_restarts=9)).attach(), RefuseStream)
        assert refused.refusal.metadata == {
            "field": "max_restarts",
            "job": str(SPEC.max_restarts),
            "agent": "9",
            "in_force": "9",
        }

    def test_a_round_of_a_lost_change_is_adopted_and_goes_on(self, script: Script) -> None:
        agents = script.attached("ab", replace(SPEC, max_nodes=2))
        agents += script.attached("c", replace(SPEC, max_nodes=2))
        for agent in agents[:2]:
            agent.run()
        script.update(max_nodes=3)
        for agent in agents[:2]:
            agent.clear()
        for agent in agents:
            agent.run()
        script.lose()
        for agent in agents:
            agent.attach()
        facts = script.life.facts
        assert (facts.state, facts.round_number, facts.spec.max_nodes) == (JobState.RUNNING, 1, 2)
        assert facts.round is not None
        assert len(facts.round.places) == 3


class TestLabels:
    def test_they_are_replaced_as_a_whole(self, script: Script) -> None:
        script.attached("a", SPEC)
        assert script.update(labels={"team": "vision", "tier": "1"}) is True
        assert script.update(labels={"team": "speech"}) is True
        assert script.life.facts.labels == {"team": "speech"}
        record = script.journal[-1].record
        assert isinstance(record, JobUpdated)
        assert record.told == "label team=speech, no label tier"

    def test_of_many_a_few_are_told(self, script: Script) -> None:
        script.attached("a", SPEC)
        script.update(labels={f"k{index:02}": "v" for index in range(10)})
        record = script.journal[-1].record
        assert isinstance(record, JobUpdated)
        assert record.told.endswith("label k07=v, 2 more labels")


class TestEtag:
    def test_a_stale_one_is_refused(self, script: Script) -> None:
        script.attached("a", SPEC)
        stale = etag_of(script.life.facts)
        script.update(max_restarts=2)
        assert refused(script.update(max_restarts=3, etag=stale)) == (Reason.ETAG_MISMATCH, "job.etag")
        assert script.update(max_restarts=3, etag=etag_of(script.life.facts)) is True

    def test_a_repeated_request_is_answered_as_done(self, script: Script) -> None:
        script.attached("a", SPEC)
        etag = etag_of(script.life.facts)
        assert script.update(max_restarts=2, etag=etag) is True
        assert script.update(max_restarts=2, etag=etag) is False

    def test_only_what_can_be_changed_changes_it(self, script: Script) -> None:
        agents = script.running("ab", SPEC)
        before = etag_of(script.life.facts)
        agents[0].leave()
        script.hold()
        assert etag_of(script.life.facts) == before
        script.update(labels={"a": "b"})
        assert etag_of(script.life.facts) != before


def test_it_is_recorded_with_who_asked_and_survives_a_restart(script: Script) -> None:
    script.attached("a", SPEC)
    script.update(max_nodes=5, labels={"team": "vision"})
    record = script.journal[-1].record
    assert isinstance(record, JobUpdated)
    assert (record.by, record.reason, record.told) == ("ops", "maintenance", "max_nodes 5, not 3, label team=vision")
    facts = replayed(script.journal).lives[script.life.facts.uid].facts
    assert (facts.spec.max_nodes, facts.agreed_spec, facts.labels) == (5, SPEC, {"team": "vision"})


def test_what_is_decided_is_not_changed(script: Script) -> None:
    (a,) = script.attached("a", replace(SPEC, min_nodes=1, max_nodes=1, max_restarts=0))
    a.fail()
    assert refused(script.update(max_restarts=3))[0] is Reason.JOB_DECIDED
