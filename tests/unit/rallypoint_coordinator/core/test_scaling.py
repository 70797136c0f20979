"""Stories of nodes that arrive while a round runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import JobSpec, JobState, ScaleUp
from rallypoint_coordinator.core.records import RoundStopping, StopCause
from support.coordinator_script import Agent, Script, kinds, the_record

ELASTIC = JobSpec(min_nodes=1, max_nodes=3, max_restarts=3)


@pytest.fixture
def script() -> Script:
    return Script()


class TestScaleUp:
    def grown_by(self, script: Script, spec: JobSpec) -> list[Agent]:
        """One node runs, another has arrived."""
        a, b = script.agent("a", spec), script.agent("b", spec)
        a.attach()
        a.run()
        b.attach()
        return [a, b]

    def test_a_late_joiner_is_taken_in_at_once(self, script: Script) -> None:
        (a,) = script.attached("a", ELASTIC)
        script.advance(ELASTIC.last_call_timeout_ms)
        a.run()
        b = script.agent("b", ELASTIC)
        out = b.attach()
        assert the_record(out, RoundStopping).cause is StopCause.NODE_JOINED
        a.clear()
        assert (a.assignment.world_size, b.assignment.world_size) == (2, 2)
        assert a.assignment.restart_count == 0

    SPEC = JobSpec(min_nodes=1, max_nodes=3, max_restarts=1, last_call_timeout_ms=0)

    def test_on_restart_waits_for_another_cause(self, script: Script) -> None:
        a, b = self.grown_by(script, replace(self.SPEC, scale_up=ScaleUp.ON_RESTART))
        assert script.life.facts.state is JobState.RUNNING
        assert b.told == "Hold STANDBY"
        a.fail()
        assert a.assignment.world_size == 2

    def test_after_batches_the_arrivals(self, script: Script) -> None:
        a, _ = self.grown_by(script, replace(self.SPEC, scale_up=ScaleUp.AFTER, scale_up_delay_ms=9_000))
        script.advance(5_000)
        script.agent("c", a.spec).attach()
        assert script.life.facts.state is JobState.RUNNING
        out = script.advance(4_000)
        assert "2 nodes joined" in [
            entry.record.message for entry in out.records if isinstance(entry.record, RoundStopping)
        ]
        a.clear()
        assert a.assignment.world_size == 3
        assert script.life.facts.restart_count == 0

    def test_too_few_for_a_raised_minimum_end_no_round(self, script: Script) -> None:
        a, b = script.running("ab", JobSpec(min_nodes=2, max_nodes=2, max_restarts=1))
        script.update(min_nodes=4, max_nodes=4)
        (c,) = script.attached("c", a.spec)
        assert script.life.facts.state is JobState.RUNNING
        assert c.told == "Hold STANDBY"
        d = script.agent("d", a.spec)
        assert the_record(d.attach(), RoundStopping).cause is StopCause.NODE_JOINED
        a.clear()
        b.clear()
        assert (a.assignment.world_size, d.assignment.world_size) == (4, 4)

    def test_of_those_who_arrived_too_few_are_left(self, script: Script) -> None:
        spec = JobSpec(min_nodes=2, max_nodes=2, scale_up=ScaleUp.AFTER, scale_up_delay_ms=9_000)
        script.running("ab", spec)
        script.update(min_nodes=4, max_nodes=4)
        _, d = script.attached("cd", spec)
        d.leave()
        assert kinds(script.advance(9_000)) == []

    def test_who_arrived_and_went_again_ends_no_round(self, script: Script) -> None:
        _, b = self.grown_by(script, replace(self.SPEC, scale_up=ScaleUp.AFTER, scale_up_delay_ms=9_000))
        b.leave()
        assert kinds(script.advance(9_000)) == []
