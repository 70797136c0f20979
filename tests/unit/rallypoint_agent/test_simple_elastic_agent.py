"""The shell: what it makes of what happens, with workers and a coordinator that the test plays."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import AgentPhase, JobSpec, JobState, Observed, Stop, WorkerState
from rallypoint_agent import simple_elastic_agent
from rallypoint_agent.api import RunResult, WorkerGroup, WorkerSpec
from rallypoint_agent.core.effects import FinishKind
from rallypoint_agent.core.events import AttachRefused, Detached, SignalReceived
from rallypoint_agent.failed_start import StartInterruptedError
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.simple_elastic_agent import PULSE_MS, SimpleElasticAgent
from support.fake_link import FakeLink
from support.stand_in_agent import SPEC, StandIn, agent_with, failed, healthy, one_failed, one_round, succeeded


def test_a_round_from_its_start_to_the_jobs_end() -> None:
    agent = agent_with(succeeded)
    result = agent.run()
    assert result == RunResult(WorkerState.SUCCEEDED, return_values={0: None, 1: None})
    assert agent.finish is not None
    assert agent.finish.kind is FinishKind.DECIDED
    assert agent.calls == ["open", "obituary 7", "fence", "start", "stop 20", "shutdown SIGTERM 30", "close"]
    assert agent.link.calls == ["start", "identity cluster uid 7", "leave JOB_DECIDED", "close"]
    assert agent.link.phases == [AgentPhase.READY, AgentPhase.RUNNING, AgentPhase.SUCCEEDED]


def test_the_group_is_filled_before_the_workers_start() -> None:
    seen: list[WorkerGroup] = []
    agent = agent_with(succeeded)
    agent.on_start = seen.append
    agent.run()
    (group,) = seen
    assert group is agent.get_worker_group()
    assert [worker.global_rank for worker in group.workers] == [0, 1]
    assert [worker.id for worker in group.workers] == [100, 101]
    assert (group.group_rank, group.master_addr) == (0, "10.0.0.1")
    assert group.state is WorkerState.SUCCEEDED


def test_a_failure_is_reported_before_the_local_workers_are_stopped() -> None:
    agent = agent_with(one_failed)
    agent.late = (failed(0, after_stop=True),)
    reported: list[Observed] = []
    agent.while_stopping = lambda: reported.append(agent.link.reports[-1])
    result = agent.run()
    assert [(seen.phase, seen.failures) for seen in reported] == [(AgentPhase.STOPPING, (failed(1),))]
    assert agent.link.phases[-1] is AgentPhase.FAILED
    assert agent.link.reports[-1].failures == (failed(1), failed(0, after_stop=True))
    assert result == RunResult(WorkerState.FAILED, failures={1: failed(1), 0: failed(0, after_stop=True)})


def test_what_is_said_waits_until_the_agent_does(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    said: list[list[str]] = []

    def start(group: WorkerGroup) -> None:
        said.append(caplog.messages[:])
        agent.pump(0)
        said.append(caplog.messages[:])

    agent = agent_with(one_failed)
    agent.on_start = start
    agent.while_stopping = lambda: said.append(caplog.messages[:])
    agent.run()
    before, while_starting, while_stopping = said
    assert "why" not in before
    assert "why" in while_starting, "the round's reason"
    assert while_stopping == while_starting
    assert "round 0: rank 1 failed, stopping the local workers" in caplog.messages


def test_a_start_that_raises_is_the_groups_failure() -> None:
    def raise_(group: WorkerGroup) -> None:
        raise RuntimeError("no such thing")

    agent = agent_with(healthy)
    agent.on_start = raise_
    result = agent.run()
    (failure,) = result.failures.values()
    assert (failure.node, failure.exit_code, failure.pid) == ("a", 127, 0)
    assert failure.message == "cannot start train: no such thing"
    assert "RuntimeError: no such thing" in failure.traceback


@pytest.mark.parametrize(("ids", "missing"), [({0: "x"}, "1"), ({}, "0, 1"), ({0: "x", 2: "y"}, "1")])
def test_a_start_that_leaves_a_worker_without_an_id_says_which(
    monkeypatch: pytest.MonkeyPatch, ids: dict[int, str], missing: str
) -> None:
    monkeypatch.setattr(StandIn, "_start_workers", lambda agent, group: ids)
    agent = agent_with(healthy)
    (failure,) = agent.run().failures.values()
    assert failure.message == f"cannot start train: _start_workers returned no id for local rank {missing}"
    assert "stop 20" in agent.calls, "those that were started are ended"


def test_workers_that_end_while_they_are_started_are_looked_at_before_the_next_wait() -> None:
    """What would have woken the agent was taken while it waited for the start."""
    agent = agent_with(succeeded, monitor_interval=3600)
    agent.on_start = lambda group: agent.pump(0)
    assert agent.run().state is WorkerState.SUCCEEDED


def test_a_start_that_gives_up_is_no_failure() -> None:
    """The workers are to end while they are still being started: they do, and that is all."""

    def wait_for_the_stop(group: WorkerGroup) -> None:
        agent.link.direct(Stop(0, 1_500))
        while not agent.stop_is_due():
            agent.pump()
        raise StartInterruptedError

    agent = agent_with(healthy)
    agent.on_start = wait_for_the_stop
    agent.run()
    assert agent.calls[3:5] == ["start", "stop 1.5"]
    assert agent.link.phases[-1] is AgentPhase.READY
    assert agent.link.reports[-1].failures == ()


def test_workers_that_something_else_ended_are_gone() -> None:
    agent = agent_with(lambda agent: RunResult(WorkerState.STOPPED))
    agent.run()
    assert agent.link.phases[-1] is AgentPhase.READY
    assert not [call for call in agent.calls if call.startswith("stop")]


@pytest.mark.parametrize("state", [WorkerState.UNHEALTHY, WorkerState.UNKNOWN, WorkerState.INIT, WorkerState.FAILED])
def test_a_group_that_is_not_well_fails_though_nobody_says_which_worker(state: WorkerState) -> None:
    """Else the agent would hold on to it for ever, or begin round after round without a charge."""
    agent = agent_with(lambda agent: RunResult(state))
    result = agent.run()
    assert agent.link.phases[-1] is AgentPhase.FAILED
    assert [failure.message for failure in result.failures.values()] == [
        f"the worker group is {state}, and its agent does not say why"
    ]


@pytest.fixture
def usr1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGUSR1")


def signalled(agent: StandIn) -> RunResult:
    os.kill(os.getpid(), signal.SIGUSR1)
    return RunResult(WorkerState.HEALTHY)


def test_a_signal_ends_the_workers_by_the_same_signal(usr1: None) -> None:
    agent = agent_with(signalled)
    result = agent.run()
    assert result.state is WorkerState.FAILED
    assert agent.finish is not None
    assert (agent.finish.kind, agent.finish.signal) == (FinishKind.SIGNALLED, signal.SIGUSR1)
    assert "shutdown SIGUSR1 20" in agent.calls
    assert "leave SIGNAL" in agent.link.calls
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_second_signal_hastens_the_stop_under_way(usr1: None) -> None:
    def again() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        agent.pump()

    agent = agent_with(signalled)
    agent.while_stopping = again
    agent.run()
    assert f"hasten {signal.SIGKILL} 0" in agent.calls
    assert agent.calls.count("shutdown SIGUSR1 20") == 1


def test_the_link_lives_while_a_stop_blocks() -> None:
    """What comes meanwhile is taken in at once, what goes out goes at once, and nothing else begins."""

    def wait() -> None:
        before_ms = boot_ms()
        agent.link.alive_until_ms = 0
        agent.link.run_round(1)
        agent.pump()
        assert agent.link.alive_until_ms >= before_ms + PULSE_MS
        assert agent.link.events() == []

    agent = agent_with(one_failed)
    agent.while_stopping = wait
    agent.monitor = lambda agent: one_failed(agent) if agent.calls.count("start") == 1 else succeeded(agent)
    agent.run()
    assert [call for call in agent.calls if call.startswith("st")][:3] == ["start", "stop 20", "start"]


def test_before_a_call_that_may_not_pump_the_link_has_time_enough() -> None:
    seen: list[int] = []
    agent = agent_with(one_failed)
    agent.while_stopping = lambda: seen.append(agent.link.alive_until_ms - boot_ms())
    agent.run()
    assert seen[0] > SPEC.shutdown_timeout_ms + PULSE_MS - 5_000


def test_an_error_of_our_own_leaves_nothing_behind() -> None:
    def raise_(agent: StandIn) -> RunResult:
        raise RuntimeError("a bug")

    agent = agent_with(raise_)
    with pytest.raises(RuntimeError, match="a bug"):
        agent.run()
    assert agent.calls[-2:] == ["shutdown SIGTERM 30", "close"]
    assert agent.link.calls[-2:] == ["leave AGENT_FAILED", "close"]


def test_a_refusal_ends_it() -> None:
    refusal = Refusal(reason=Reason.SPEC_MISMATCH, message="max_nodes differs")
    agent = agent_with(healthy, lambda link, _: link.put(AttachRefused(refusal)))
    assert agent.run().is_failed()
    assert agent.finish is not None
    assert (agent.finish.kind, agent.finish.message) == (FinishKind.REFUSED, "refused: max_nodes differs")
    assert "start" not in agent.calls


def test_a_deadline_of_the_core_needs_nothing_to_happen() -> None:
    link = FakeLink(lambda link, observed: None, spec=SPEC, attaches=False)
    agent = StandIn(link, healthy, connect_timeout_ms=30, monitor_interval=60)
    assert agent.run().is_failed()
    assert agent.finish is not None
    assert agent.finish.kind is FinishKind.UNREACHABLE


def test_a_goodbye_without_an_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simple_elastic_agent, "LEAVE_TIMEOUT_MS", 30)
    link = FakeLink(one_round, spec=SPEC, leaves=False)
    agent = StandIn(link, succeeded)
    assert agent.run().state is WorkerState.SUCCEEDED


def test_a_signal_during_the_goodbye_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(FakeLink):
        def leave(self, reason: str, message: str) -> None:
            super().leave(reason, message)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(simple_elastic_agent, "LEAVE_TIMEOUT_MS", 3_600_000)
    agent = StandIn(Silent(one_round, spec=SPEC, leaves=False), succeeded)
    assert agent.run().state is WorkerState.SUCCEEDED
    assert "leave an obituary" in agent.calls


def test_an_agent_that_ends_without_a_coordinator_leaves_an_obituary() -> None:
    def vanish(link: FakeLink, observed: Observed) -> None:
        link.put(Detached())
        link.put(SignalReceived(signal.SIGTERM))

    agent = agent_with(succeeded, vanish)
    agent.run()
    assert agent.calls[-2:] == ["leave an obituary", "close"]


def test_an_agent_whose_goodbye_was_heard_leaves_none() -> None:
    agent = agent_with(succeeded)
    agent.run()
    assert "leave an obituary" not in agent.calls


def test_without_a_config_the_policies_are_torchs_arguments() -> None:
    class Plain(StandIn):
        def __init__(self) -> None:
            spec = WorkerSpec("r", 3, FakeLink(one_round), entrypoint="x", max_restarts=5)
            SimpleElasticAgent.__init__(self, spec, 7, 8)

    config = Plain()._core.config
    assert config.local_world_size == 3
    assert config.job_spec == JobSpec(max_restarts=5, exit_barrier_timeout_ms=7_000, shutdown_timeout_ms=8_000)


def test_what_wakes_it_is_drained_whether_or_not_workers_run() -> None:
    """Else it would be readable for ever, and no wait would be one."""

    class Woken(StandIn):
        bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        drained = 0

        def _wakeup_fds(self) -> list[int]:
            return [self.bell]

        def _drain(self) -> None:
            with contextlib.suppress(BlockingIOError):
                self.drained += os.eventfd_read(self.bell)
                self.link.decide(JobState.FAILED)

    def ring(link: FakeLink, observed: Observed) -> None:
        os.eventfd_write(Woken.bell, 1)

    agent = Woken(FakeLink(ring, spec=SPEC), healthy)
    agent.run()
    assert agent.drained == 1
    assert "start" not in agent.calls
