"""Stories of what a report means while a round runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import AgentPhase, JobSpec
from rallypoint_coordinator.core.effects import SendAck
from rallypoint_coordinator.core.records import RoundStopping, StopCause
from support.coordinator_script import Script, effects_of, failure, kinds, the_record

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)


@pytest.fixture
def script() -> Script:
    return Script()


class TestReports:
    def test_an_old_rounds_failure_spends_nothing_but_renews_the_lease(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail()
        b.clear()
        script.advance(PAIR.heartbeat_interval_ms)
        out = a.report(AgentPhase.FAILED, failure("a"), round=0)
        assert kinds(out) == []
        assert effects_of(out, SendAck)
        assert script.life.facts.restart_count == 1

    def test_a_failure_that_followed_a_stop_is_no_cause(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        out = a.report(AgentPhase.READY, failure("a", exit_code=-15, after_stop=True))
        assert the_record(out, RoundStopping).cause is StopCause.NODE_LOST

    def test_an_agent_that_fenced_itself_and_came_back_ends_the_round(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        b.break_stream()
        b.observed = replace(b.observed, phase=AgentPhase.READY, offer=b.next_offer())
        out = b.attach(lease_id=0)
        assert the_record(out, RoundStopping).cause is StopCause.NODE_LOST
        assert kinds(a.clear()) == ["RoundEnded", "RoundFormed"]

    @pytest.mark.parametrize(("fenced", "cause"), [(True, StopCause.NODE_LOST), (False, StopCause.NODE_LEFT)])
    def test_an_agent_that_ends_its_workers_unasked_says_why(
        self, script: Script, fenced: bool, cause: StopCause
    ) -> None:
        _, b = script.running("ab", PAIR)
        assert the_record(b.report(AgentPhase.STOPPING, fenced=fenced), RoundStopping).cause is cause
