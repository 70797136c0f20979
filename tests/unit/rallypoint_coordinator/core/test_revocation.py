"""Stories of agents that do not end their workers in time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import AgentPhase, JobSpec, JobState, Observed
from rallypoint_coordinator.core.effects import Effect, Output, SendLeaseStale
from rallypoint_coordinator.core.records import GoneReason, LeaseRevoked, MemberGone, RoundEnded
from support.coordinator_script import Agent, Script, effects_of, the_record

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)


@pytest.fixture
def script() -> Script:
    return Script()


class TestLease:
    def test_workers_that_do_not_stop_lose_their_lease(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail()
        b.report(AgentPhase.STOPPING)
        stale: list[SendLeaseStale] = []
        for _ in range(20):
            stale += effects_of(script.advance(5_000), SendLeaseStale)
            a.heartbeat()
            b.heartbeat()
        assert [effect.stream for effect in stale] == [b.stream]
        assert script.life.facts.members["b"].gone is GoneReason.REVOKED
        assert script.message == "waiting for 2 nodes: 1 ready"

    def test_no_report_of_an_agent_that_was_never_stopped_ends_its_revoked_lease(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail()
        script.life.facts.members["b"].revoked = "late"
        assert effects_of(b.attach(fresh=True), SendLeaseStale), "its workers run"

    def test_a_revoked_lease_is_not_over_before_the_agent_has_dropped_it(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail()
        script.life.facts.members["b"].revoked = "late"
        b.observed = replace(b.observed, phase=AgentPhase.READY)
        assert effects_of(b.attach(), SendLeaseStale)

    def test_who_attaches_when_its_lease_is_due_to_be_revoked_hears_that_alone(self, script: Script) -> None:
        """Its Hello is stepped before the passing of time is."""
        a, b = script.running("ab", PAIR)
        a.fail()
        b.report(AgentPhase.STOPPING)
        due_ms = script.life.watch.stop_deadline_ms
        assert due_ms is not None
        while script.now_ms < due_ms - 5_000:
            script.advance(5_000)
            a.heartbeat()
            b.heartbeat()
        script.now_ms = due_ms
        out = b.attach()
        assert the_record(out, LeaseRevoked).node == "b"
        assert [type(effect) for effect in said_on(b.stream, out)] == [SendLeaseStale]


def said_on(stream: int, out: Output) -> list[Effect]:
    return [effect for effect in out.effects if getattr(effect, "stream", None) == stream]


class TestRevoked:
    """A participant that does not stop in time is no lost node: what failed is no echo of it."""

    SPEC = JobSpec(min_nodes=1, max_nodes=3, shutdown_timeout_ms=1_000)

    def one_is_gone_one_remains(self, script: Script) -> list[Agent]:
        """Rank 1 on b failed without a word; a and c did not stop and were revoked, and a's lease is over."""
        agents = script.attached("abc", self.SPEC)
        _, b, c = agents
        for agent in agents:
            agent.run()
        b.fail()
        for silent_s in range(45):
            script.advance(1_000)
            for agent in agents if silent_s < 10 else (b, c) if silent_s < 20 else (b,):
                agent.heartbeat()
        assert script.life.facts.members["a"].gone is GoneReason.REVOKED
        assert script.life.facts.members["c"].gone is None
        return [b, c]

    @pytest.mark.parametrize("restarts", [False, True])
    def test_the_failure_costs_the_same_after_a_coordinator_restart(self, script: Script, restarts: bool) -> None:
        b, c = self.one_is_gone_one_remains(script)
        if restarts:
            script.restart()
            b.attach()
        c.observed = Observed()
        c.attach(lease_id=0)
        c.clear()
        ended = [entry.record for entry in script.journal if isinstance(entry.record, RoundEnded)]
        assert [(record.charged, record.message) for record in ended] == [
            (False, "no restarts are allowed (--max-restarts 0): rank 1 on b exited with 1")
        ]
        assert script.life.facts.state is JobState.FAILED

    def late_to_stop(self, script: Script) -> tuple[Agent, Agent]:
        """b has failed without a word; a has not stopped in time, and has its lease no more."""
        a, b = script.running("ab", replace(PAIR, shutdown_timeout_ms=1_000))
        b.fail()
        while not script.life.facts.members["a"].revoked:
            script.advance(5_000)
            for agent in (a, b):
                agent.heartbeat()
        return a, b

    @pytest.mark.parametrize("comes_back", [False, True])
    def test_a_restart_before_the_lease_is_over_remembers_it(self, script: Script, comes_back: bool) -> None:
        a, b = self.late_to_stop(script)
        script.restart()
        b.attach()
        if comes_back:
            assert effects_of(a.attach(), SendLeaseStale), "its workers run, and it is renewed no more"
        for _ in range(7):
            script.advance(5_000)
            b.heartbeat()
        assert script.life.facts.members["a"].gone is GoneReason.REVOKED
        (ended,) = [entry.record for entry in script.journal if isinstance(entry.record, RoundEnded)]
        assert ended.culprit is not None, "no echo of a lost node"
        assert ended.culprit.node == "b"

    def test_it_is_decided_once(self, script: Script) -> None:
        _, b = self.late_to_stop(script)
        script.restart()
        b.attach()
        for _ in range(15):
            script.advance(5_000)
            b.heartbeat()
        assert [type(entry.record) for entry in script.journal].count(LeaseRevoked) == 1

    def test_it_is_not_held_against_who_ran_a_round_that_is_lost(self, script: Script) -> None:
        a, b = self.late_to_stop(script)
        kept = len(script.journal)
        a.observed = Observed(offer=a.next_offer())
        a.attach(lease_id=0)
        for agent in (a, b):
            agent.run()
        assert script.life.facts.round_number == 1
        script.lose(kept)
        a.attach()
        b.attach()
        assert [agent.told for agent in (a, b)] == ["Run ROUND_FORMED"] * 2
        assert a.assignment.round == 1

    def test_an_obituary_of_one_that_was_revoked_says_so_too(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        b.fail()
        for _ in range(12):
            script.advance(5_000)
            a.heartbeat()
            b.heartbeat()
        gone = the_record(a.obituary(), MemberGone)
        assert gone.reason is GoneReason.REVOKED
