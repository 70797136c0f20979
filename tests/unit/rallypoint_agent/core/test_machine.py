"""The agent's core: every directive in every phase, the three cases in which it acts on its own, and the fence."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.limits import FAILURES_MAX
from rallypoint.model import (
    Action,
    AgentPhase,
    Drain,
    Exit,
    Hold,
    JobState,
    Keep,
    Outcome,
    Run,
    Stop,
    Version,
    WatchdogStatus,
    WorkerState,
)
from rallypoint_agent.core.contact import SAY_AFTER_MS
from rallypoint_agent.core.effects import (
    Finish,
    FinishKind,
    HoldPort,
    KillWorker,
    Leave,
    Reattach,
    Report,
    Say,
    SetFence,
    SetIdentity,
    StartWorkers,
    StopWorkers,
)
from rallypoint_agent.core.events import (
    AttachRefused,
    ConnectionsRefused,
    Detached,
    LeaseRenewed,
    LeaseStaleReceived,
    SignalReceived,
    TimeAdvanced,
    TimerExpired,
    WatchdogChanged,
    WorkersGone,
    WorkersStarted,
)
from rallypoint_agent.core.machine import (
    NAMED_PORT_PATIENCE_MS,
    ON_DIRECTIVE,
    PORT_RETRY_MS,
    IllegalEventError,
)
from support.agent_script import SPEC, AgentScript, assignment, names, of, own_failure

OUTCOME = Outcome(state=JobState.SUCCEEDED, reason="ALL_SUCCEEDED", message="all did")
TTL, GRACE = SPEC.lease_ttl_ms, SPEC.fence_grace_ms


@pytest.fixture
def agent() -> AgentScript:
    return AgentScript()


def in_phase(phase: AgentPhase) -> AgentScript:
    """An agent that has come to this phase in round 0."""
    agent = AgentScript()
    agent.attach()
    if phase is AgentPhase.READY:
        agent.direct(Hold())
        return agent
    agent.run()
    if phase is AgentPhase.STOPPING:
        agent.direct(Stop(0, 5_000))
    elif phase is AgentPhase.SUCCEEDED:
        agent.succeed()
        agent.gone()
    elif phase is AgentPhase.FAILED:
        agent.fail()
        agent.gone()
    assert agent.core.state.phase is phase
    return agent


class TestDirectives:
    TABLE: tuple[tuple[AgentPhase, Action, list[str]], ...] = (
        (AgentPhase.READY, Hold(), ["Report"]),
        (AgentPhase.READY, Keep(), ["Report"]),
        (AgentPhase.READY, Run(assignment(1)), ["Report", "SetFence", "StartWorkers"]),
        (AgentPhase.READY, Stop(0, 5_000), ["Report"]),
        (AgentPhase.READY, Drain(5_000), ["Leave", "Finish"]),
        (AgentPhase.READY, Exit(OUTCOME), ["Leave", "Finish"]),
        (AgentPhase.RUNNING, Hold(), ["Report", "StopWorkers"]),
        (AgentPhase.RUNNING, Keep(), ["Report"]),
        (AgentPhase.RUNNING, Run(assignment(0)), ["Report"]),
        (AgentPhase.RUNNING, Run(assignment(1)), ["Report", "StopWorkers"]),
        (AgentPhase.RUNNING, Stop(0, 5_000), ["Report", "StopWorkers"]),
        (AgentPhase.RUNNING, Drain(5_000), ["Report", "StopWorkers"]),
        (AgentPhase.RUNNING, Exit(OUTCOME), ["Report", "StopWorkers"]),
        (AgentPhase.STOPPING, Hold(), []),
        (AgentPhase.STOPPING, Keep(), []),
        (AgentPhase.STOPPING, Run(assignment(1)), []),
        (AgentPhase.STOPPING, Stop(0, 5_000), []),
        (AgentPhase.STOPPING, Drain(5_000), []),
        (AgentPhase.STOPPING, Exit(OUTCOME), []),
        (AgentPhase.SUCCEEDED, Hold(), ["Report"]),
        (AgentPhase.SUCCEEDED, Keep(), ["Report"]),
        (AgentPhase.SUCCEEDED, Run(assignment(0)), ["Report"]),
        (AgentPhase.SUCCEEDED, Run(assignment(1)), ["Report", "SetFence", "StartWorkers"]),
        (AgentPhase.SUCCEEDED, Stop(0, 5_000), ["Report"]),
        (AgentPhase.SUCCEEDED, Drain(5_000), ["Leave", "Finish"]),
        (AgentPhase.SUCCEEDED, Exit(OUTCOME), ["Leave", "Finish"]),
        (AgentPhase.FAILED, Hold(), ["Report"]),
        (AgentPhase.FAILED, Keep(), ["Report"]),
        (AgentPhase.FAILED, Run(assignment(0)), ["Report"]),
        (AgentPhase.FAILED, Run(assignment(1)), ["Report", "SetFence", "StartWorkers"]),
        (AgentPhase.FAILED, Stop(0, 5_000), ["Report"]),
        (AgentPhase.FAILED, Drain(5_000), ["Leave", "Finish"]),
        (AgentPhase.FAILED, Exit(OUTCOME), ["Leave", "Finish"]),
    )

    @pytest.mark.parametrize(("phase", "action", "expected"), TABLE)
    def test_cell(self, phase: AgentPhase, action: Action, expected: list[str]) -> None:
        assert names(in_phase(phase).direct(action)) == expected

    def test_the_table_has_every_cell(self) -> None:
        cells = {(phase, type(action)) for phase, action, _ in self.TABLE}
        assert cells == {(phase, action) for phase, row in ON_DIRECTIVE.items() for action in row}
        assert len(cells) == len(AgentPhase) * 6

    @pytest.mark.parametrize("phase", AgentPhase)
    def test_an_old_or_repeated_version_is_never_acted_on(self, phase: AgentPhase) -> None:
        agent = in_phase(phase)
        seen = agent.core.state.version
        assert agent.direct(Run(assignment(9)), version=seen) == []
        assert agent.direct(Run(assignment(9)), version=Version(0, 99)) == []

    @pytest.mark.parametrize("phase", AgentPhase)
    def test_a_kind_that_is_not_known_is_reported_and_changes_nothing_else(self, phase: AgentPhase) -> None:
        agent = in_phase(phase)
        before = agent.core.state.observed()
        assert names(agent.direct(None)) == ["Report"]
        assert agent.reported == replace(before, unsupported_version=Version(1, agent.revision))
        assert names(agent.direct(None, version=agent.reported.unsupported_version)) == []

    def test_another_lifes_directive_is_ignored(self, agent: AgentScript) -> None:
        agent.attach()
        assert agent.direct(Run(assignment(0)), job_uid="other") == []

    def test_what_came_while_stopping_is_done_once_the_workers_are_gone(self) -> None:
        agent = in_phase(AgentPhase.STOPPING)
        agent.direct(Hold())
        agent.direct(Run(assignment(1)))
        assert names(agent.gone()) == ["Report", "SetFence", "StartWorkers"]

    def test_the_report_is_never_ahead_of_the_deed(self) -> None:
        agent = in_phase(AgentPhase.STOPPING)
        version = agent.reported.version
        agent.direct(Run(assignment(1)))
        assert agent.reported.version == version


class TestRound:
    def test_started_workers_are_reported_with_their_pids(self, agent: AgentScript) -> None:
        agent.run(0, first_rank=2)
        assert [(w.local_rank, w.rank, w.pid, w.state) for w in agent.reported.workers] == [
            (0, 2, 100, WorkerState.HEALTHY),
            (1, 3, 101, WorkerState.HEALTHY),
        ]

    def test_a_worker_that_cannot_be_is_refused(self, agent: AgentScript) -> None:
        agent.attach()
        agent.direct(Run(assignment(0)))
        before = agent.core.state.observed()
        with pytest.raises(IllegalEventError, match="no worker of local rank 2"):
            agent.feed(WorkersStarted(0, {0: 100, 2: 102}))
        assert agent.core.state.observed() == before

    def test_running_is_reported_before_the_first_worker_starts(self, agent: AgentScript) -> None:
        agent.attach()
        effects = agent.direct(Run(assignment(0)))
        assert names(effects) == ["Report", "SetFence", "StartWorkers"]
        assert agent.reported.phase is AgentPhase.RUNNING

    def test_an_own_failure_is_reported_before_the_teardown(self, agent: AgentScript) -> None:
        agent.run()
        effects = agent.fail()
        assert names(effects) == ["Report", "StopWorkers"]
        assert (agent.reported.phase, len(agent.reported.failures)) == (AgentPhase.STOPPING, 1)
        agent.gone(own_failure(local_rank=1, exit_code=-15, after_stop=True))
        assert (agent.reported.phase, len(agent.reported.failures)) == (AgentPhase.FAILED, 2)

    def test_failures_are_bounded(self, agent: AgentScript) -> None:
        agent.run()
        agent.fail()
        agent.gone(*[own_failure(after_stop=True)] * 40)
        assert len(agent.reported.failures) == FAILURES_MAX

    def test_success_ends_what_the_workers_left_behind_and_is_reported_then(self, agent: AgentScript) -> None:
        agent.run()
        assert names(agent.succeed()) == ["StopWorkers"]
        assert names(agent.gone()) == ["Report"]
        assert agent.reported.phase is AgentPhase.SUCCEEDED

    def test_until_what_they_left_behind_is_gone_the_round_runs(self, agent: AgentScript) -> None:
        agent.run()
        agent.succeed()
        agent.feed(WatchdogChanged(WatchdogStatus(enabled=True)))
        assert agent.reported.phase is AgentPhase.RUNNING

    def test_stopped_workers_leave_the_agent_ready(self, agent: AgentScript) -> None:
        agent.run()
        agent.direct(Stop(0, 5_000))
        agent.gone(own_failure(exit_code=-15, after_stop=True))
        assert agent.reported.phase is AgentPhase.READY

    def test_a_stop_carries_its_grace(self, agent: AgentScript) -> None:
        agent.run()
        assert of(agent.direct(Stop(0, 1_234)), StopWorkers) == [StopWorkers(0, None, 1_234)]

    def test_news_of_another_round_is_ignored(self, agent: AgentScript) -> None:
        agent.run(3)
        assert agent.feed(WorkersGone(2)) == []
        assert agent.core.state.phase is AgentPhase.RUNNING


class TestPort:
    def test_a_port_is_held_from_the_start(self, agent: AgentScript) -> None:
        assert of(agent.effects, HoldPort) == [HoldPort(1)]
        assert agent.reported.offer is not None

    def test_a_used_port_is_replaced_once_the_workers_are_gone(self, agent: AgentScript) -> None:
        agent.run(0, offer_id=1)
        agent.direct(Stop(0, 5_000))
        assert of(agent.gone(), HoldPort) == [HoldPort(2)]
        assert agent.reported.offer is not None
        assert agent.reported.offer.offer_id == 2

    def test_an_unused_port_is_kept(self, agent: AgentScript) -> None:
        agent.run()
        agent.direct(Stop(0, 5_000))
        assert of(agent.gone(), HoldPort) == []

    def test_a_port_used_by_a_round_that_never_came_here_is_replaced(self, agent: AgentScript) -> None:
        agent.attach()
        assert of(agent.direct(Hold(), consumed_offer_id=1), HoldPort) == [HoldPort(2)]

    def test_a_port_that_could_not_be_held_is_tried_for_again(self) -> None:
        agent = AgentScript()
        agent.attach()
        agent.ports = False
        agent.direct(Hold(), consumed_offer_id=1)
        assert agent.reported.offer is None
        agent.advance(2_500)
        assert agent.reported.offer is None
        agent.ports = True
        agent.advance(1_000)
        assert agent.reported.offer is not None

    def test_a_port_of_the_users_that_stays_busy_ends_the_agent(self) -> None:
        agent = AgentScript()
        agent.attach()
        agent.ports, agent.port_is_named = False, True
        assert of(agent.direct(Hold(), consumed_offer_id=1), Finish) == []
        assert of(agent.advance(NAMED_PORT_PATIENCE_MS - 1), Finish) == []
        effects = agent.advance(1)
        assert names(effects)[-2:] == ["Leave", "Finish"]
        assert of(effects, Finish) == [Finish(kind=FinishKind.NO_PORT, message="port 29500 is in use")]

    def test_a_port_of_the_users_that_is_free_in_time_does_not(self) -> None:
        agent = AgentScript()
        agent.attach()
        agent.ports, agent.port_is_named = False, True
        agent.direct(Hold(), consumed_offer_id=1)
        agent.advance(PORT_RETRY_MS)
        agent.ports = True
        assert of(agent.advance(2 * NAMED_PORT_PATIENCE_MS), Finish) == []

    def test_a_success_needs_no_port(self) -> None:
        agent = AgentScript()
        agent.run(0, offer_id=1)
        agent.ports, agent.port_is_named = False, True
        agent.succeed()
        agent.gone()
        assert of(agent.advance(2 * NAMED_PORT_PATIENCE_MS), Finish) == []


class TestFence:
    def test_the_fence_counts_from_when_the_acknowledged_message_was_sent(self, agent: AgentScript) -> None:
        agent.run()
        agent.now_ms = 9_000
        assert of(agent.feed(LeaseRenewed(5_000)), SetFence) == [
            SetFence(5_000 + TTL - 1_000 - GRACE, 5_000 + TTL - 1_000)
        ]

    def test_an_older_acknowledgement_moves_nothing(self, agent: AgentScript) -> None:
        agent.run()
        agent.feed(LeaseRenewed(5_000))
        assert agent.feed(LeaseRenewed(4_000)) == []

    def test_silence_ends_the_workers_before_the_lease_does(self, agent: AgentScript) -> None:
        agent.run()
        agent.feed(Detached())
        effects = agent.advance(TTL - 1_000 - GRACE)
        assert of(effects, StopWorkers) == [StopWorkers(0, signal.SIGTERM, GRACE)]
        assert (agent.reported.phase, agent.reported.fenced) == (AgentPhase.STOPPING, True)
        agent.gone()
        assert (agent.reported.phase, agent.reported.fenced) == (AgentPhase.READY, True)
        agent.feed(LeaseRenewed(agent.now_ms))
        agent.run(1)
        assert not agent.reported.fenced

    def test_no_round_begins_once_the_lease_has_run_out(self, agent: AgentScript) -> None:
        agent.attach()
        agent.now_ms = TTL - 1_000 - GRACE
        assert of(agent.direct(Run(assignment(0))), StartWorkers) == []
        assert agent.reported.phase is AgentPhase.READY
        agent.feed(LeaseRenewed(agent.now_ms))
        assert of(agent.direct(Run(assignment(0))), StartWorkers) != []

    def test_refusals_hold_the_workers_within_the_outage(self) -> None:
        agent = AgentScript(replace(SPEC, coordinator_outage_ms=100_000))
        agent.run()
        agent.feed(Detached())
        for _ in range(20):
            agent.advance(5_000)
            agent.feed(ConnectionsRefused(agent.now_ms))
        assert agent.reported.phase is AgentPhase.RUNNING
        effects = agent.advance(TTL)
        assert of(effects, StopWorkers) == [StopWorkers(0, signal.SIGTERM, GRACE)]

    def test_without_an_outage_a_refusal_is_silence(self) -> None:
        agent = AgentScript(replace(SPEC, coordinator_outage_ms=0))
        agent.run()
        agent.now_ms = 5_000
        assert agent.feed(ConnectionsRefused(5_000)) == []

    def test_a_stale_lease_ends_the_workers_at_once_and_then_attaches_anew(self, agent: AgentScript) -> None:
        agent.run()
        effects = agent.feed(LeaseStaleReceived("gone"))
        assert of(effects, SetIdentity) == [SetIdentity("cluster-1", "uid", 0)]
        assert of(effects, StopWorkers) == [StopWorkers(0, signal.SIGKILL, 0)]
        assert names(agent.gone()) == ["Report", "Reattach", "Report"]

    def test_a_stale_lease_without_workers_attaches_anew_at_once(self, agent: AgentScript) -> None:
        agent.attach()
        assert of(agent.feed(LeaseStaleReceived("gone")), Reattach) == [Reattach()]

    def test_a_lease_that_is_taken_away_takes_along_what_waited_for_the_workers_end(self, agent: AgentScript) -> None:
        agent.run(offer_id=1)
        agent.direct(Stop(0, 5_000))
        agent.direct(Run(assignment(1)))
        agent.feed(LeaseStaleReceived("gone"))
        assert "HoldPort" in names(agent.gone()), "it has to offer a port that no round has used"
        assert of(agent.attach(lease_id=8), StartWorkers) == []

    def test_who_is_told_to_come_back_looks_for_a_coordinator_anew(self, agent: AgentScript) -> None:
        agent.advance(50_000)
        agent.feed(LeaseStaleReceived("gone"))
        assert of(agent.advance(50_000), Finish) == []

    def test_workers_that_the_keeper_fenced_are_reported_gone(self, agent: AgentScript) -> None:
        agent.run()
        agent.feed(WorkersGone(0))
        assert (agent.reported.phase, agent.reported.fenced) == (AgentPhase.READY, True)

    def test_a_clock_that_goes_back_stands_still(self, agent: AgentScript) -> None:
        agent.run()
        agent.now_ms = 20_000
        agent.feed(TimeAdvanced())
        agent.now_ms = 0
        agent.feed(TimeAdvanced())
        assert agent.core.state.phase is AgentPhase.RUNNING


class TestWatchdog:
    def test_news_of_it_go_out_and_all_else_rides_along(self, agent: AgentScript) -> None:
        agent.run()
        on = WatchdogStatus(enabled=True)
        assert of(agent.feed(WatchdogChanged(on)), Report)[0].observed.watchdog == on
        busy = replace(on, live_timers=3, progress_time_ms=5)
        assert agent.feed(WatchdogChanged(busy)) == []
        assert of(agent.fail(), Report)[0].observed.watchdog == busy
        expired = replace(busy, last_expiry="rank 0: scope s")
        assert of(agent.feed(WatchdogChanged(expired)), Report)[0].observed.watchdog == expired

    def test_a_worker_whose_timer_expired_is_killed_alone(self, agent: AgentScript) -> None:
        agent.run(0, first_rank=4)
        effects = agent.feed(TimerExpired(0, 1, "step", signal.SIGTERM))
        assert of(effects, KillWorker) == [KillWorker(0, 1, signal.SIGTERM, "its timer expired, scope step")]
        assert of(effects, Say) == [Say("round 0: rank 5 is to be killed: its timer expired, scope step")]
        assert not of(effects, StopWorkers)

    @pytest.mark.parametrize(("number", "local_rank"), [(-1, 0), (1, 0), (0, 2), (0, -1)])
    def test_a_timer_of_another_round_or_of_no_worker_is_nobodys(
        self, agent: AgentScript, number: int, local_rank: int
    ) -> None:
        agent.run()
        assert agent.feed(TimerExpired(number, local_rank, "step", 9)) == []

    def test_a_round_that_ends_needs_no_watchdog(self, agent: AgentScript) -> None:
        assert agent.feed(TimerExpired(0, 0, "step", 9)) == []
        agent.run()
        agent.fail()
        assert agent.feed(TimerExpired(0, 1, "step", 9)) == []
        agent.gone()
        assert agent.feed(TimerExpired(0, 1, "step", 9)) == []


class TestEnd:
    def test_a_signal_is_forwarded_and_the_agent_leaves_when_the_workers_are_gone(self, agent: AgentScript) -> None:
        agent.run()
        assert of(agent.feed(SignalReceived(signal.SIGTERM)), StopWorkers) == [
            StopWorkers(0, signal.SIGTERM, SPEC.shutdown_timeout_ms)
        ]
        effects = agent.gone()
        assert of(effects, Leave) == [Leave("SIGNAL", "ended by SIGTERM")]
        (finish,) = of(effects, Finish)
        assert (finish.kind, finish.signal) == (FinishKind.SIGNALLED, signal.SIGTERM)

    def test_an_agent_that_is_leaving_offers_no_port(self, agent: AgentScript) -> None:
        agent.run()
        agent.feed(SignalReceived(signal.SIGTERM))
        assert (agent.reported.phase, agent.reported.offer) == (AgentPhase.STOPPING, None)
        agent.gone()
        assert (agent.reported.phase, agent.reported.offer) == (AgentPhase.READY, None)

    def test_a_second_signal_kills_at_once(self, agent: AgentScript) -> None:
        agent.run()
        agent.feed(SignalReceived(signal.SIGINT))
        assert agent.feed(SignalReceived(signal.SIGINT)) == [StopWorkers(0, signal.SIGKILL, 0)]

    def test_a_signal_without_workers_ends_the_agent_at_once(self, agent: AgentScript) -> None:
        agent.attach()
        assert names(agent.feed(SignalReceived(signal.SIGINT))) == ["Leave", "Finish"]

    def test_the_outcome_ends_running_workers_first(self, agent: AgentScript) -> None:
        agent.run()
        assert of(agent.direct(Exit(OUTCOME)), Finish) == []
        (finish,) = of(agent.gone(), Finish)
        assert (finish.kind, finish.outcome) == (FinishKind.DECIDED, OUTCOME)

    def test_nothing_happens_after_the_end(self, agent: AgentScript) -> None:
        agent.attach()
        agent.direct(Exit(OUTCOME))
        assert agent.run(1) == []
        assert agent.next_deadline_ms is None

    def test_no_coordinator_within_the_connect_timeout(self, agent: AgentScript) -> None:
        (finish,) = of(agent.advance(60_000), Finish)
        assert finish.kind is FinishKind.UNREACHABLE

    def test_a_refusal_is_named_when_the_waiting_ends(self, agent: AgentScript) -> None:
        agent.feed(AttachRefused(Refusal(reason=Reason.RECOVERING, message="the disk is full")))
        (finish,) = of(agent.advance(60_000), Finish)
        assert finish.kind is FinishKind.UNREACHABLE
        assert finish.message == "no coordinator took this agent in for 60 s; the last one said: the disk is full"

    def test_what_goes_on_without_a_coordinator_is_said_once(self, agent: AgentScript) -> None:
        (said,) = of(agent.advance(50_000), Say)
        assert said.message == "no coordinator at 10.0.0.9:29400: looking for one for 58 s more, then giving up"

    def test_a_short_absence_is_not_worth_a_word(self, agent: AgentScript) -> None:
        agent.attach()
        agent.feed(Detached())
        assert of(agent.advance(SAY_AFTER_MS - 1), Say) == []
        agent.attach()
        assert agent.advance(60_000) == []

    def test_success_does_not_wait_for_ever_for_a_lost_coordinator(self, agent: AgentScript) -> None:
        agent.run()
        agent.succeed()
        agent.gone()
        agent.feed(Detached())
        (finish,) = of(agent.advance(SPEC.exit_barrier_timeout_ms), Finish)
        assert finish.kind is FinishKind.BARRIER_TIMEOUT

    def test_a_success_that_was_made_void_is_none(self, agent: AgentScript) -> None:
        agent.run()
        agent.succeed()
        agent.gone()
        agent.direct(Stop(0, 5_000))
        agent.feed(Detached())
        assert of(agent.advance(SPEC.exit_barrier_timeout_ms), Finish) == []

    def test_who_recovers_may_not_hold_the_workers_for_ever(self, agent: AgentScript) -> None:
        agent.run()
        refusal = Refusal(reason=Reason.RECOVERING, message="the disk is full")
        held = SPEC.coordinator_outage_ms // 10_000
        for _ in range(held):
            assert of(agent.advance(10_000), StopWorkers) == []
            agent.feed(AttachRefused(refusal, agent.now_ms))
        agent.advance(10_000)
        agent.feed(AttachRefused(refusal, agent.now_ms))
        assert len(of(agent.advance(SPEC.lease_ttl_ms), StopWorkers)) == 1

    def test_a_final_refusal_ends_the_agent(self, agent: AgentScript) -> None:
        refusal = Refusal(reason=Reason.SPEC_MISMATCH, message="no")
        (finish,) = of(agent.feed(AttachRefused(refusal)), Finish)
        assert (finish.kind, finish.message) == (FinishKind.REFUSED, "no")

    def test_a_refusal_that_passes_does_not(self, agent: AgentScript) -> None:
        refusal = Refusal(reason=Reason.NODE_NAME_BUSY, message="later")
        assert of(agent.feed(AttachRefused(refusal)), Finish) == []

    def test_a_final_refusal_ends_running_workers_first(self, agent: AgentScript) -> None:
        agent.run()
        effects = agent.feed(AttachRefused(Refusal(reason=Reason.WRONG_CLUSTER, message="no")))
        assert names(effects) == ["Report", "StopWorkers"]
        assert of(agent.gone(), Finish)[0].kind is FinishKind.REFUSED

    def test_start_after_the_end_of_a_start(self, agent: AgentScript) -> None:
        agent.run(0)
        agent.fail()
        agent.gone()
        assert of(agent.run(1), StartWorkers)[0].assignment.round == 1
        assert agent.reported.failures == ()
