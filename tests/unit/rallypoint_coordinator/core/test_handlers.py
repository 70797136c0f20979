"""Stories of members that come, go and say something."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import AgentPhase, Endpoint, EndpointOffer, JobSpec, JobState, Version, WatchdogStatus
from rallypoint_coordinator.core.effects import Answer, EndStream, RefuseStream, SendDirective, SendLeaseStale
from rallypoint_coordinator.core.records import GoneReason, MemberGone, RoundStopping, StopCause
from support.coordinator_script import Script, effects_of, kinds, the_record

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)
ELASTIC = JobSpec(min_nodes=1, max_nodes=3, max_restarts=3)


@pytest.fixture
def script() -> Script:
    return Script()


class TestMembership:
    @pytest.mark.parametrize(("message", "told"), [("", "SIGNAL"), ("ended by SIGTERM", "ended by SIGTERM")])
    def test_a_goodbye_without_a_sentence_tells_its_word(self, script: Script, message: str, told: str) -> None:
        _, b = script.running("ab", PAIR)
        out = b.leave(message)
        assert the_record(out, MemberGone).message == told
        assert the_record(out, RoundStopping).message == f"b left: {told}"

    def test_a_broken_stream_proves_nothing(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        assert kinds(b.break_stream()) == []
        assert kinds(b.attach()) == []
        assert a.assignment.round == b.assignment.round == 0
        assert script.life.facts.state is JobState.RUNNING

    def test_an_obituary_re_forms_the_job_without_a_charge(self, script: Script) -> None:
        a, b, c = script.running("abc", ELASTIC)
        out = c.obituary()
        assert effects_of(out, Answer) == [Answer(1, True)]
        assert the_record(out, RoundStopping).cause is StopCause.NODE_LOST
        a.clear()
        b.clear()
        assert (a.assignment.world_size, a.assignment.restart_count) == (2, 0)

    @pytest.mark.parametrize("changes", [{"lease_id": 1}, {"lease_id": 999}, {"incarnation": "another"}])
    def test_an_obituary_of_a_lease_that_never_was_is_refused(self, script: Script, changes: dict[str, object]) -> None:
        a, _ = script.running("ab", PAIR)
        a.obituary()
        (answer,) = effects_of(a.obituary(**changes), Answer)
        assert isinstance(answer.answer, Refusal)
        assert answer.answer.reason is Reason.UNKNOWN_LEASE

    def test_a_second_obituary_is_no_news(self, script: Script) -> None:
        *_, c = script.running("abc", ELASTIC)
        c.obituary()
        assert effects_of(c.obituary(), Answer) == [Answer(1, False)]

    def test_a_lease_that_runs_out_counts_as_gone(self, script: Script) -> None:
        a, b = script.running("ab", JobSpec(min_nodes=1, max_nodes=2))
        total = []
        for _ in range(8):
            total += script.advance(5_000).records
            a.heartbeat()
        gone = [entry.record for entry in total if isinstance(entry.record, MemberGone)]
        assert [(record.node, record.reason) for record in gone] == [("b", GoneReason.EXPIRED)]
        a.clear()
        assert a.assignment.world_size == 1
        assert effects_of(b.heartbeat(), SendLeaseStale)

    def test_no_loss_is_declared_before_the_ttl_with_drift_and_margin(self, script: Script) -> None:
        script.running("ab", PAIR)
        assert kinds(script.advance(30_000 + 30 + 1_000 - 1)) == []
        assert "MemberGone" in kinds(script.advance(1))

    def test_what_an_agents_clock_shows_neither_shortens_nor_prolongs_its_lease(self, script: Script) -> None:
        agents = script.running("ab", PAIR)
        for jump_ms in (0, 10_800_000, 1_000, 7_200_000):
            for agent in agents:
                agent.clock_ms = jump_ms
                agent.heartbeat()
            assert kinds(script.advance(20_000)) == []
        assert kinds(script.advance(30 + 11_000 - 1)) == []
        assert "MemberGone" in kinds(script.advance(1))

    def test_a_goodbye_costs_nothing(self, script: Script) -> None:
        a, b, _ = script.running("abc", ELASTIC)
        out = b.leave()
        assert the_record(out, RoundStopping).cause is StopCause.NODE_LEFT
        assert effects_of(out, EndStream) == [EndStream(b.stream)]
        assert script.life.facts.restart_count == 0
        assert a.told == "Stop NODE_LEFT"

    def test_the_newest_attach_wins(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        first = a.stream
        out = a.attach()
        refused = effects_of(out, RefuseStream)
        assert [(effect.stream, effect.refusal.reason) for effect in refused] == [(first, Reason.SUPERSEDED)]
        assert kinds(out) == []

    def test_a_name_in_use_is_refused_and_one_in_doubt_asked_to_wait(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        other = a.reborn()
        assert effects_of(other.attach(), RefuseStream)[0].refusal.reason is Reason.NODE_NAME_IN_USE
        a.break_stream()
        busy = effects_of(other.attach(), RefuseStream)[0].refusal
        assert busy.reason is Reason.NODE_NAME_BUSY
        left_ms = PAIR.lease_ttl_ms + PAIR.lease_ttl_ms // 1000 + 1_000
        assert busy.metadata["lease_ends_in_ms"] == str(left_ms)

    def test_workers_of_a_lost_lease_must_end_before_the_agent_may_come_back(self, script: Script) -> None:
        _, b = script.running("ab", PAIR)
        b.obituary()
        assert effects_of(b.attach(), SendLeaseStale)
        b.observed = replace(b.observed, phase=AgentPhase.READY)
        before = b.lease_id
        b.attach(lease_id=0)
        assert b.lease_id > before

    def test_a_late_attach_does_not_take_the_lease_from_a_newer_one(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        newer = a.attach_seq + 2
        a.attach(attach_seq=newer)
        holds = a.stream
        out = a.attach(attach_seq=newer - 1)
        assert [effect.refusal.reason for effect in effects_of(out, RefuseStream)] == [Reason.SUPERSEDED]
        assert script.life.presences[a.lease_id].stream == holds

    def test_a_new_lease_is_told_what_is_newer_than_all_before(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        before = a.directive
        a.obituary()
        again = script.agent("a", PAIR, incarnation=a.incarnation)
        again.attach(attach_seq=9)
        assert before is not None
        assert again.directive is not None
        assert again.directive.version.revision >= again.lease_id > before.version.revision


class TestReports:
    def test_rank_0_needs_a_port_that_no_round_has_used(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        b.fail()
        used = a.observed.offer
        assert kinds(a.report(AgentPhase.READY, offer=used)) == ["RoundEnded"]
        assert script.life.facts.state is JobState.GATHERING
        assert kinds(a.report(AgentPhase.READY, offer=a.next_offer())) == ["RoundFormed"]

    def test_a_directive_says_which_offers_are_used(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        b.fail()
        assert a.directive is not None
        assert a.directive.consumed_offer_id == 1

    @pytest.mark.parametrize(
        ("attach_seq", "was_here", "consumed"),
        [(1, False, 0), (2, False, 5), (2, True, 0)],
        ids=["its first Hello", "not its first Hello", "a member before"],
    )
    def test_an_offer_that_may_have_been_used_in_another_life_is_not_fresh(
        self, script: Script, attach_seq: int, was_here: bool, consumed: int
    ) -> None:
        a = script.agent("a", PAIR)
        if was_here:
            a.attach()
            a.leave()
        a.attach_seq = attach_seq - 1
        a.observed = replace(a.observed, offer=EndpointOffer(5, Endpoint("10.0.0.1", 4005)))
        a.attach(fresh=True)
        assert a.directive is not None
        assert a.directive.consumed_offer_id == consumed
        assert bool(script.life.watch.ready) == (consumed == 0)

    def test_a_heartbeat_of_an_agent_that_is_behind_gets_the_directive_again(self, script: Script) -> None:
        a, _ = script.attached("ab", PAIR)
        script.advance(6_000)
        out = a.heartbeat(version=Version(1, 1))
        assert [effect.directive.reason for effect in effects_of(out, SendDirective)] == ["ROUND_FORMED"]

    def test_a_heartbeat_brings_news_of_the_watchdog_alone(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        (life,) = script.cluster.lives.values()
        before = life.presences[a.lease_id].observed
        status = WatchdogStatus(enabled=True, live_timers=3)
        assert kinds(a.heartbeat(watchdog=status)) == []
        assert life.presences[a.lease_id].observed == replace(before, watchdog=status)
        a.heartbeat()
        assert life.presences[a.lease_id].observed.watchdog == status
        assert life.presences[b.lease_id].observed.watchdog == WatchdogStatus()
