"""Stories of one job, told event by event."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import (
    AgentPhase,
    Blame,
    Endpoint,
    EndpointOffer,
    JobSpec,
    JobState,
    Observed,
    ScaleUp,
    StoreHost,
    Version,
    WatchdogStatus,
)
from rallypoint_coordinator.core.effects import (
    Answer,
    EndStream,
    Explain,
    RefuseStream,
    SendAck,
    SendDirective,
    SendLeaseStale,
    SendWelcome,
)
from rallypoint_coordinator.core.explain import as_of
from rallypoint_coordinator.core.records import (
    GoneReason,
    LeaseRevoked,
    MemberGone,
    RoundEnded,
    RoundFormed,
    RoundStopping,
    StopCause,
)
from support.coordinator_script import (
    Agent,
    Script,
    effects_of,
    failure,
    kinds,
    outcome_told,
    replayed,
    the_record,
)

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)
TRIO = JobSpec(min_nodes=3, max_nodes=3, max_restarts=3)
ELASTIC = JobSpec(min_nodes=1, max_nodes=3, max_restarts=3)


@pytest.fixture
def script() -> Script:
    return Script()


class TestRendezvous:
    def test_the_first_agent_creates_the_life_and_waits(self, script: Script) -> None:
        out = script.agent("a", PAIR).attach()
        assert kinds(out) == ["JobCreated", "MemberJoined"]
        assert script.life.facts.state is JobState.GATHERING
        assert script.life.watch.message == "waiting for 2 nodes: 1 ready"
        assert [type(effect) for effect in out.effects][:2] == [SendWelcome, SendDirective]

    def test_the_round_forms_as_soon_as_all_are_there(self, script: Script) -> None:
        a, b = script.attached("ab", PAIR)
        assert (a.told, b.told) == ("Run ROUND_FORMED", "Run ROUND_FORMED")
        assert (a.assignment.first_rank, b.assignment.first_rank) == (0, 1)
        assert a.assignment.endpoint == b.assignment.endpoint
        assert (a.assignment.offer_id, b.assignment.offer_id) == (1, 0)

    def test_ranks_are_contiguous_over_nodes_of_different_size(self, script: Script) -> None:
        agents = [script.agent(node, TRIO, local_world_size=size) for node, size in (("a", 2), ("b", 4), ("c", 1))]
        for agent in agents:
            agent.attach()
        assert [agent.assignment.first_rank for agent in agents] == [0, 2, 6]
        assert {agent.assignment.world_size for agent in agents} == {7}

    def test_role_ranks_count_within_the_role(self, script: Script) -> None:
        agents = [script.agent(node, TRIO, role=role) for node, role in (("a", "x"), ("b", "y"), ("c", "x"))]
        for agent in agents:
            agent.attach()
        ranks = [(agent.assignment.first_role_rank, agent.assignment.role_world_size) for agent in agents]
        assert ranks == [(0, 2), (0, 1), (1, 2)]

    def test_node_rank_orders_the_first_round(self, script: Script) -> None:
        a, b = script.agent("a", PAIR, node_rank=1), script.agent("b", PAIR, node_rank=0)
        a.attach()
        b.attach()
        assert (a.assignment.group_rank, b.assignment.group_rank) == (1, 0)

    def test_a_first_gathering_has_a_last_call(self, script: Script) -> None:
        (a,) = script.attached("a", ELASTIC)
        assert a.told == "Hold WAITING_FOR_NODES"
        assert script.life.watch.reason == "LAST_CALL"
        script.advance(ELASTIC.last_call_timeout_ms)
        assert a.assignment.world_size == 1

    def test_the_join_timeout_fails_the_job(self, script: Script) -> None:
        spec = replace(PAIR, join_timeout_ms=20_000)
        (a,) = script.attached("a", spec)
        for _ in range(4):
            script.advance(5_000)
            a.heartbeat()
        assert outcome_told(a) == "FAILED JOIN_TIMEOUT"

    def test_a_node_beyond_max_stands_by(self, script: Script) -> None:
        script.running("ab", PAIR)
        c = script.agent("c", PAIR)
        c.attach()
        assert c.told == "Hold STANDBY"

    def test_a_loopback_endpoint_is_refused_for_a_remote_participant(self, script: Script) -> None:
        a, b = script.agent("a", PAIR), script.agent("b", PAIR)
        a.observed = replace(a.observed, offer=EndpointOffer(1, Endpoint("127.0.0.1", 4000)))
        a.attach(peer="127.0.0.1")
        b.attach(peer="10.0.0.7")
        assert outcome_told(b) == "FAILED LOOPBACK_ENDPOINT"
        assert "--local-addr" in script.life.watch.message

    def test_a_node_that_is_alone_may_meet_itself_on_loopback(self, script: Script) -> None:
        a = script.agent("a", JobSpec())
        a.observed = replace(a.observed, offer=EndpointOffer(1, Endpoint("127.0.0.1", 4000)))
        a.attach(peer="10.0.0.7")
        assert a.assignment.endpoint.host == "127.0.0.1"


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
        assert len(script.life.watch.failures) == 1
        b.clear()
        assert len(script.life.watch.failures) == 0
        assert {presence.observed.failures for presence in script.life.presences.values()} == {()}
        assert script.life.facts.last_failure is not None
        assert script.life.facts.last_failure.traceback

    def test_an_old_rounds_failure_spends_nothing_but_renews_the_lease(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail()
        b.clear()
        out = a.report(AgentPhase.FAILED, failure("a"), round=0)
        assert kinds(out) == []
        assert effects_of(out, SendAck)
        assert script.life.facts.restart_count == 1

    def test_a_failure_that_followed_a_stop_is_no_cause(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        out = a.report(AgentPhase.READY, failure("a", exit_code=-15, after_stop=True))
        assert the_record(out, RoundStopping).cause is StopCause.NODE_LOST

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
        assert script.life.watch.message == "waiting for 2 nodes: 1 ready"


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

    def test_a_standby_takes_the_place_of_a_lost_node(self, script: Script) -> None:
        a, b, c = script.running("abc", TRIO)
        d = script.agent("d", TRIO)
        d.attach()
        b.obituary()
        a.clear()
        c.clear()
        assert [agent.assignment.group_rank for agent in (a, d, c)] == [0, 1, 2]

    def test_a_replacement_under_the_same_name_takes_its_place(self, script: Script) -> None:
        a, b, c = script.running("abc", TRIO)
        b.obituary()
        a.clear()
        c.clear()
        assert script.life.watch.message == "waiting for 3 nodes: 2 ready"
        again = b.reborn()
        again.attach()
        assert again.assignment.group_rank == 1

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
        assert effects_of(other.attach(), RefuseStream)[0].refusal.reason is Reason.NODE_NAME_BUSY

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

    def test_workers_of_a_lost_lease_must_end_before_the_agent_may_come_back(self, script: Script) -> None:
        _, b = script.running("ab", PAIR)
        b.obituary()
        assert effects_of(b.attach(), SendLeaseStale)
        b.observed = replace(b.observed, phase=AgentPhase.READY)
        before = b.lease_id
        b.attach(lease_id=0)
        assert b.lease_id > before

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

    def test_an_absent_standby_delays_nobody(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        c = script.agent("c", PAIR)
        c.attach()
        c.break_stream()
        b.fail()
        a.clear()
        assert a.assignment.round == 1

    def test_no_report_of_an_agent_that_was_never_stopped_ends_its_revoked_lease(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail()
        script.life.facts.members["b"].revoked = "late"
        assert effects_of(b.attach(fresh=True), SendLeaseStale), "its workers run"

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

    def test_a_revoked_lease_is_not_over_before_the_agent_has_dropped_it(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail()
        script.life.facts.members["b"].revoked = "late"
        b.observed = replace(b.observed, phase=AgentPhase.READY)
        assert effects_of(b.attach(), SendLeaseStale)


class TestScaleUp:
    def grown_by(self, script: Script, spec: JobSpec) -> list[Agent]:
        """One node runs, another has arrived."""
        a, b = script.agent("a", spec), script.agent("b", spec)
        a.attach()
        a.run()
        b.attach()
        return [a, b]

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

    def test_who_arrived_and_went_again_ends_no_round(self, script: Script) -> None:
        _, b = self.grown_by(script, replace(self.SPEC, scale_up=ScaleUp.AFTER, scale_up_delay_ms=9_000))
        b.leave()
        assert kinds(script.advance(9_000)) == []


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
        assert script.life.watch.message == "waiting for b to come back: 1 node ready"
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
        assert script.life.watch.message == "waiting for b to come back: 1 node ready"
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


class TestEvidence:
    def test_a_report_from_before_the_round_does_not_prove_that_its_workers_are_gone(self, script: Script) -> None:
        a, b = script.attached("ab", PAIR)
        a.run()
        a.fail()
        assert kinds(b.report(AgentPhase.READY, version=Version(1, 3), round=-1)) == []
        assert script.life.facts.state is JobState.STOPPING
        assert kinds(b.clear())[0] == "RoundEnded"

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


class TestDoor:
    def test_a_differing_spec_is_refused_with_the_field_and_both_values(self, script: Script) -> None:
        script.attached("a", PAIR)
        out = script.agent("b", replace(PAIR, max_restarts=5)).attach()
        refusal = effects_of(out, RefuseStream)[0].refusal
        assert refusal.reason is Reason.SPEC_MISMATCH
        assert refusal.field == "hello.job_spec.max_restarts"
        assert refusal.metadata == {"field": "max_restarts", "job": "1", "agent": "5"}

    def test_who_hosts_the_store_must_agree(self, script: Script) -> None:
        script.attached("a", replace(PAIR, store_host=StoreHost.AGENT))
        out = script.agent("b", PAIR).attach()
        refusal = effects_of(out, RefuseStream)[0].refusal
        assert refusal.metadata == {"field": "store_host", "job": "AGENT", "agent": "WORKER"}

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"cluster_id": "elsewhere"}, Reason.WRONG_CLUSTER),
            ({"job_uid": "yesterday"}, Reason.UNKNOWN_LIFE),
            ({"highest_version": Version(9_000_000, 1)}, Reason.JOURNAL_BEHIND),
        ],
    )
    def test_a_hello_from_another_history_is_refused(
        self, script: Script, changes: dict[str, Any], reason: Reason
    ) -> None:
        script.advance(2 * PAIR.coordinator_outage_ms)
        out = script.agent("a", PAIR).attach(**changes)
        assert effects_of(out, RefuseStream)[0].refusal.reason is reason
        assert kinds(out) == []

    def test_a_stale_lease_is_told_once_and_changes_nothing(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        out = a.heartbeat(lease_id=999)
        assert len(effects_of(out, SendLeaseStale)) == 1
        assert kinds(out) == []

    def test_an_unknown_stream_is_ignored(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        a.stream = 77
        out = a.heartbeat()
        assert (out.records, out.effects) == ([], [])


class TestRestartOfTheCoordinator:
    def test_a_restart_is_invisible_to_the_round(self, script: Script) -> None:
        agents = script.running("abc", TRIO)
        script.restart()
        assert script.cluster.epoch == 2
        outs = [agent.attach() for agent in agents]
        assert [kinds(out) for out in outs] == [[], [], []]
        assert [agent.told for agent in agents] == ["Run ROUND_FORMED"] * 3
        assert all(agent.directive is not None and agent.directive.version.epoch == 2 for agent in agents)

    def test_no_loss_is_decided_before_one_full_lease(self, script: Script) -> None:
        script.running("ab", PAIR)
        script.restart()
        assert kinds(script.advance(30_000)) == []
        assert kinds(script.advance(2_000))[0] == "MemberGone"

    def test_a_restart_while_stopping_waits_for_the_participants_again(self, script: Script) -> None:
        a, b, c = script.running("abc", TRIO)
        a.fail()
        script.restart()
        for agent in (a, b, c):
            agent.attach()
        assert script.life.facts.state is JobState.STOPPING
        b.clear()
        c.clear()
        assert script.life.facts.restart_count == 1
        assert c.assignment.round == 1

    def test_replay_gives_the_same_facts(self, script: Script) -> None:
        a, b, c = script.running("abc", TRIO)
        a.fail()
        b.clear()
        c.obituary()
        live = {uid: life.facts for uid, life in script.cluster.lives.items()}
        assert {uid: life.facts for uid, life in replayed(script.journal).lives.items()} == live


class TestExplanation:
    def test_every_change_of_reason_is_explained_once(self, script: Script) -> None:
        a = script.agent("a", PAIR)
        assert [effect.message for effect in effects_of(a.attach(), Explain)] == ["waiting for 2 nodes: 1 ready"]
        assert effects_of(a.report(), Explain) == []

    def test_a_participant_that_is_silent_is_named_with_the_end_of_its_lease(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        running = "round 0 runs, restart 0 of 1: 2 nodes, 2 workers"
        b.break_stream()
        said = [as_of(script.life, script.now_ms)[0]]
        for _ in range(3):
            script.advance(5_000)
            a.heartbeat()
            said.append(as_of(script.life, script.now_ms)[0])
        silent = f"{running}: b has said nothing for {{}} s and is lost when its lease ends"
        assert said == [running, silent.format(5), silent.format(10), silent.format(15)]
        assert as_of(script.life, script.now_ms)[1] == script.life.watch.leases.of(b.lease_id)
        b.attach()
        assert as_of(script.life, script.now_ms) == (running, None)

    def test_so_is_one_whose_stream_is_open_once_two_heartbeats_are_overdue(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        for silent_s in range(1, 14):
            script.advance(1_000)
            a.heartbeat()
            assert ("b has said nothing" in as_of(script.life, script.now_ms)[0]) == (silent_s > 11)

    def test_who_is_not_needed_is_not_spoken_of(self, script: Script) -> None:
        """A standby, and a node that has succeeded."""
        a, b = script.running("ab", PAIR)
        c = script.agent("c", PAIR)
        c.attach()
        b.report(AgentPhase.SUCCEEDED)
        b.break_stream()
        c.break_stream()
        script.advance(8_000)
        a.heartbeat()
        assert as_of(script.life, script.now_ms)[0].endswith("2 workers: 1 node succeeded")

    def test_every_waiting_state_has_a_deadline(self, script: Script) -> None:
        a, b = script.attached("ab", PAIR)
        assert script.next_deadline_ms is not None
        a.run()
        b.run()
        a.fail()
        assert script.life.watch.until_ms is not None

    def test_who_is_not_stopped_in_time_is_waited_for_until_its_lease_is_over(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail()
        while not script.life.facts.members["b"].revoked:
            script.advance(5_000)
            for agent in (a, b):
                agent.heartbeat()
        assert script.life.watch.until_ms == script.life.watch.leases.of(b.lease_id)

    def test_a_round_is_numbered_without_gaps(self, script: Script) -> None:
        a, b = script.running("ab", replace(PAIR, max_restarts=5))
        for _ in range(4):
            a.fail()
            b.clear()
            a.run()
            b.run()
        formed = [entry.record.round for entry in script.journal if isinstance(entry.record, RoundFormed)]
        assert formed == [0, 1, 2, 3, 4]
