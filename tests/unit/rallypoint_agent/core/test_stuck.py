"""Workers that do not start, and workers that do not end."""

from __future__ import annotations

import signal

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import Action, AgentPhase, Drain, Exit, Hold, JobState, Outcome, Run, Stop, WorkerState
from rallypoint_agent.core.effects import Finish, FinishKind, Say
from rallypoint_agent.core.events import (
    AttachRefused,
    Detached,
    Event,
    GroupMonitored,
    LeaseRenewed,
    LeaseStaleReceived,
    SignalReceived,
    WorkersStarted,
    WorkersStuck,
)
from rallypoint_agent.core.stuck import CANNOT_START
from support.agent_script import SPEC, AgentScript, assignment, names, of

OUTCOME = Outcome(state=JobState.SUCCEEDED, reason="ALL_SUCCEEDED", message="all did")


@pytest.fixture
def stuck() -> AgentScript:
    """An agent of which one process of round 0, 101, does not end."""
    agent = AgentScript()
    agent.run()
    agent.direct(Stop(0, 5_000))
    agent.feed(WorkersStuck(0, (101,)))
    return agent


def in_contact(agent: AgentScript, ms: int) -> list[str]:
    """Time passes, and the lease is renewed."""
    done = []
    for _ in range(0, ms, 5_000):
        agent.feed(LeaseRenewed(agent.now_ms))
        done += names(agent.advance(5_000))
    return [name for name in done if name != "SetFence"]


class TestUnkillable:
    def test_it_is_reported_in_its_phase_and_its_worker_is_unhealthy(self, stuck: AgentScript) -> None:
        assert stuck.reported.phase is AgentPhase.STOPPING
        assert stuck.reported.unkillable_pids == (101,)
        states = {worker.pid: worker.state for worker in stuck.reported.workers}
        assert states == {100: WorkerState.HEALTHY, 101: WorkerState.UNHEALTHY}

    @pytest.mark.parametrize("event", [WorkersStuck(7, (101,)), WorkersStuck(0, ())])
    def test_news_of_another_round_or_of_nothing_is_none(self, event: Event) -> None:
        agent = AgentScript()
        agent.run()
        agent.direct(Stop(0, 5_000))
        assert names(agent.feed(event)) == []

    @pytest.mark.parametrize("action", [Hold(), Stop(0, 5_000), Run(assignment(1))])
    def test_what_does_not_end_it_waits_for_the_process(self, stuck: AgentScript, action: Action) -> None:
        assert names(stuck.direct(action)) == []
        assert names(stuck.gone())
        assert stuck.reported.unkillable_pids == ()

    @pytest.mark.parametrize("action", [Drain(5_000), Exit(OUTCOME)])
    def test_told_to_end_it_ends_without_goodbye(self, stuck: AgentScript, action: Action) -> None:
        [finish] = of(stuck.direct(action), Finish)
        assert finish.kind is FinishKind.UNKILLABLE
        assert "101" in finish.message

    @pytest.mark.parametrize(
        "event", [SignalReceived(signal.SIGTERM), AttachRefused(Refusal(reason=Reason.WRONG_CLUSTER, message="no"))]
    )
    def test_so_do_a_signal_and_a_final_refusal(self, stuck: AgentScript, event: Event) -> None:
        assert names(stuck.feed(event)) == ["Finish"]

    @pytest.mark.parametrize("action", [Drain(5_000), Exit(OUTCOME)])
    def test_an_end_that_was_waiting_for_the_workers_waits_no_longer(self, action: Action) -> None:
        agent = AgentScript()
        agent.run()
        agent.direct(Stop(0, 5_000))
        agent.direct(action)
        assert names(agent.feed(WorkersStuck(0, (101,)))) == ["Report", "Finish"]

    @pytest.mark.parametrize("lost", [[Detached()], [Detached(), LeaseStaleReceived("the lease has ended")]])
    def test_without_a_coordinator_it_ends_as_late_as_an_agent_without_workers(
        self, stuck: AgentScript, lost: list[Event]
    ) -> None:
        """Nobody welcomes it while the process is there, and nobody would ever hear of it if it went on for ever."""
        for event in lost:
            stuck.feed(event)
        patience_ms = max(SPEC.join_timeout_ms, SPEC.coordinator_outage_ms)
        assert of(stuck.advance(patience_ms - 1), Finish) == []
        [finish] = of(stuck.advance(1), Finish)
        assert finish.kind is FinishKind.UNKILLABLE
        assert "for 3600 s" in finish.message
        assert "not even SIGKILL ends process 101" in finish.message

    def test_it_says_what_it_waits_for_then(self, stuck: AgentScript) -> None:
        stuck.feed(Detached())
        stuck.feed(LeaseStaleReceived("the lease has ended"))
        [said] = of(stuck.advance(3_000), Say)
        assert said.message == (
            "not even SIGKILL ends process 101 of the workers, and the lease is lost: there is no other before that"
            " has ended: waiting for 3598 s more, then giving up"
        )

    def test_once_they_are_gone_it_attaches_again(self, stuck: AgentScript) -> None:
        stuck.feed(LeaseStaleReceived("the lease has ended"))
        stuck.advance(10_000)
        assert "Reattach" in names(stuck.gone())


class TestStart:
    def test_workers_that_do_not_start_are_a_failure_of_the_nodes_own(self) -> None:
        agent = AgentScript()
        agent.attach()
        agent.direct(Run(assignment(0)))
        assert in_contact(agent, SPEC.start_timeout_ms // 2) == ["Report", "StopWorkers"]
        [failure] = agent.reported.failures
        assert (failure.exit_code, failure.after_stop) == (CANNOT_START, False)
        assert failure.fail_clock_ms == agent.now_ms
        agent.gone()
        assert agent.reported.phase is AgentPhase.FAILED

    @pytest.mark.parametrize(
        "event", [WorkersStarted(0, {0: 100, 1: 101}), GroupMonitored(0, WorkerState.SUCCEEDED), WorkersStarted(1, {})]
    )
    def test_only_a_start_of_this_round_lifts_the_deadline(self, event: Event) -> None:
        agent = AgentScript()
        agent.attach()
        agent.direct(Run(assignment(0)))
        agent.feed(event)
        late = in_contact(agent, SPEC.start_timeout_ms)
        assert ("StopWorkers" in late) == (event == WorkersStarted(1, {}))
