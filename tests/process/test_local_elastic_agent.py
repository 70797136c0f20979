"""The agent as a library, in this process: real workers, and a coordinator that the test plays."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rallypoint.model import AgentPhase, JobSpec, JobState, Observed, Stop, WorkerState
from rallypoint_agent import numa_topology
from rallypoint_agent.agent_health import HEALTH_CHECK_PORT_VARIABLE
from rallypoint_agent.api import WorkerSpec
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.health_check_server import HealthCheckServer
from rallypoint_agent.keeper import Keeper
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.local_elastic_agent import LocalElasticAgent
from rallypoint_agent.logs import DefaultLogsSpecs, LogsDest, Std
from rallypoint_agent.numa import AffinityMode, NumaBindingError, NumaOptions
from rallypoint_agent.numa_topology import bindings
from rallypoint_agent.simple_elastic_agent import PULSE_MS
from support.fake_link import FakeLink
from support.fake_machine import FakeMachine, write
from support.processes import MARK_VARIABLE, new_mark, pids_with_mark, wait_until


@pytest.fixture
def mark() -> Iterator[str]:
    mark = new_mark()
    yield mark
    assert not pids_with_mark(mark)


def rounds(wanted: int, state: JobState) -> Any:
    """A coordinator that answers every end of a round with the next, and after so many with the outcome."""

    def answer(link: FakeLink, observed: Observed) -> None:
        if observed.phase.may_have_workers or observed.offer is None:
            return
        number = observed.round + 1
        if number < wanted:
            link.run_round(number, offer_id=observed.offer.offer_id, world_size=1)
        else:
            link.decide(state)

    return answer


def agent_of(link: FakeLink, mark: str, *argv: str, **more: Any) -> LocalElasticAgent:
    numa = more.pop("numa_options", None)
    spec = WorkerSpec("default", 1, link, entrypoint=argv[0], args=argv[1:], local_addr="127.0.0.1", numa_options=numa)
    environ = {**os.environ, MARK_VARIABLE: mark, **more.pop("environ", {})}
    return LocalElasticAgent(spec, more.pop("logs_specs", DefaultLogsSpecs()), environ=environ, **more)


def test_it_runs_a_program_to_its_success(mark: str) -> None:
    link = FakeLink(rounds(1, JobState.SUCCEEDED))
    agent = agent_of(link, mark, "true")
    result = agent.run()
    assert result.state is WorkerState.SUCCEEDED
    assert result.return_values == {0: None}
    assert link.phases == [AgentPhase.READY, AgentPhase.RUNNING, AgentPhase.SUCCEEDED]


def test_ids_are_pids_and_decide_nothing(mark: str, tmp_path: Path) -> None:
    seen: list[int] = []
    inner = rounds(1, JobState.SUCCEEDED)

    def answer(link: FakeLink, observed: Observed) -> None:
        if any(worker.pid for worker in observed.workers) and not seen:
            (worker,) = agent.get_worker_group().workers
            seen.append(worker.id)
            worker.id = 1
            (tmp_path / "go").touch()
        inner(link, observed)

    script = f"echo $$ > {tmp_path}/pid; until [ -e {tmp_path}/go ]; do sleep 0.01; done"
    agent = agent_of(FakeLink(answer), mark, "sh", "-c", script)
    assert agent.run().state is WorkerState.SUCCEEDED
    assert seen == [int((tmp_path / "pid").read_text())]


def test_each_rounds_failure_is_its_own(mark: str) -> None:
    link = FakeLink(rounds(2, JobState.FAILED))
    result = agent_of(link, mark, "sh", "-c", "exit $((7 + RALLYPOINT_ROUND))").run()
    ends = [observed for observed in link.reports if observed.phase is AgentPhase.FAILED and observed.offer]
    codes = {observed.round: [failure.exit_code for failure in observed.failures] for observed in ends}
    assert codes == {0: [7], 1: [8]}
    assert [failure.exit_code for failure in result.failures.values()] == [8]


def test_a_worker_is_bound_to_the_cpus_near_its_gpu(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is made up, but for one CPU that this process may use."""
    cpu = max(os.sched_getaffinity(0))
    root = FakeMachine(cores=cpu + 1).write(tmp_path / "machine")
    write(root / "sys/devices/system/node/node0/cpulist", str(cpu))
    monkeypatch.setattr(numa_topology, "bindings", partial(bindings, root=root))
    link = FakeLink(rounds(1, JobState.SUCCEEDED))
    show = "import os, sys; open(sys.argv[1], 'w').write(str(os.sched_getaffinity(0)))"
    agent = agent_of(
        link, mark, sys.executable, "-c", show, str(tmp_path / "told"), numa_options=NumaOptions(AffinityMode.NODE)
    )
    assert agent.run().state is WorkerState.SUCCEEDED
    assert (tmp_path / "told").read_text() == str({cpu})


def test_who_cannot_be_bound_is_not_started_unless_told_to_go_on(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numa_topology, "bindings", partial(bindings, root=Path("/nowhere")))
    link = FakeLink(rounds(1, JobState.SUCCEEDED))
    with pytest.raises(NumaBindingError, match="no NVIDIA GPU is visible"):
        agent_of(link, mark, "true", numa_options=NumaOptions(AffinityMode.NODE))
    options = NumaOptions(AffinityMode.NODE, should_fall_back_if_binding_fails=True)
    assert agent_of(link, mark, "true", numa_options=options).run().state is WorkerState.SUCCEEDED


class Fifo(DefaultLogsSpecs):
    """The worker's output goes into a FIFO that nobody reads: opening it takes for ever."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        os.mkfifo(path)
        self._path = str(path)

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        return LogsDest(stdouts={0: self._path}, error_files={0: ""})


def test_a_start_that_hangs_can_be_stopped(mark: str, tmp_path: Path) -> None:
    def answer(link: FakeLink, observed: Observed) -> None:
        if observed.phase is AgentPhase.RUNNING:
            link.direct(Stop(0, 60_000))
        else:
            rounds(1, JobState.FAILED)(link, observed)

    link = FakeLink(answer)
    agent_of(link, mark, "true", logs_specs=Fifo(tmp_path / "fifo")).run()
    assert link.phases == [AgentPhase.READY, AgentPhase.RUNNING, AgentPhase.STOPPING, AgentPhase.READY]
    assert link.reports[-1].failures == ()


def test_an_agent_that_seldom_monitors_is_seen_to_be_alive() -> None:
    link = FakeLink(rounds(1, JobState.SUCCEEDED))
    spec = WorkerSpec("default", 1, link, entrypoint="true", monitor_interval=3600)
    assert LocalElasticAgent(spec, DefaultLogsSpecs())._longest_wait * 1000 < PULSE_MS


def test_health_checks_are_served_from_the_start_to_the_end(mark: str) -> None:
    calls: list[str] = []

    class Noting(HealthCheckServer):
        def start(self) -> None:
            calls.append("start")

        def stop(self) -> None:
            calls.append("stop")

    link = FakeLink(rounds(3, JobState.SUCCEEDED))
    agent_of(link, mark, "true", health_check_server=Noting(lambda: 0, 0)).run()
    assert calls == ["start", "stop"]


@pytest.mark.parametrize("port", ["", "x", "-1", "70000", "\u0663"])
def test_a_health_check_port_that_is_none_is_told_and_no_hindrance(
    mark: str, port: str, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {HEALTH_CHECK_PORT_VARIABLE: port}
    link = FakeLink(rounds(1, JobState.SUCCEEDED))
    assert agent_of(link, mark, "true", environ=environ).run().state is WorkerState.SUCCEEDED
    assert f"no health checks are served: {HEALTH_CHECK_PORT_VARIABLE}={port} is no port" in caplog.text


def test_output_without_end_is_shown_and_costs_no_memory(
    mark: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    program = "import sys; [sys.stdout.write('x' * 999 + '\\n') for _ in range(20_000)]"
    link = FakeLink(rounds(1, JobState.SUCCEEDED))
    agent = agent_of(link, mark, sys.executable, "-c", program, logs_specs=DefaultLogsSpecs(str(tmp_path), tee=Std.ALL))
    agent.run()
    shown = capfdbinary.readouterr().out.splitlines()
    assert shown == [b"[default0]:" + b"x" * 999] * 20_000


def test_a_round_that_is_over_keeps_no_log_open(mark: str, tmp_path: Path) -> None:
    def open_logs() -> list[str]:
        links = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                links.append(os.readlink(f"/proc/self/fd/{fd}"))
        return [link for link in links if link.startswith(str(tmp_path))]

    def answer(link: FakeLink, observed: Observed) -> None:
        if not observed.phase.may_have_workers:
            wait_until(lambda: not open_logs())
        rounds(5, JobState.SUCCEEDED)(link, observed)

    link = FakeLink(answer)
    spec = WorkerSpec("r", 1, link, entrypoint="echo", args=("loss",), duplicate_stdout_filters=["loss"])
    LocalElasticAgent(
        spec, DefaultLogsSpecs(str(tmp_path), tee=Std.ALL), environ={**os.environ, MARK_VARIABLE: mark}
    ).run()
    copies = {str(path.relative_to(tmp_path)).partition("/")[2]: path.read_text() for path in tmp_path.rglob("filt*")}
    assert copies == {f"attempt_{number}/filtered_stdout.log": "[r0]:loss\n" for number in range(5)}


def keeper_of(agent: LocalElasticAgent) -> Keeper:
    assert agent._post.keeper is not None
    return agent._post.keeper


def readable(keeper: Keeper) -> bool:
    return bool(select.select([keeper], [], [], 0)[0])


def test_what_the_keeper_says_late_is_read_though_no_worker_runs(mark: str) -> None:
    """As when its fence and the agent's stop strike together: the stop is answered by a second Gone."""

    def answer(link: FakeLink, observed: Observed) -> None:
        keeper = keeper_of(agent)
        if len(link.reports) == 1:
            keeper.stop(death_signal=signal.SIGTERM, grace=0)
            wait_until(lambda: readable(keeper))
            link.direct(Stop(0, 0))
        else:
            assert not readable(keeper)
            link.decide(JobState.FAILED)

    link = FakeLink(answer)
    agent = agent_of(link, mark, "true")
    agent.run()
    assert len(link.reports) == 2


def stops_the_keeper(agents: list[LocalElasticAgent], *, then: Stop | None) -> Any:
    """A coordinator that runs one round, freezes its keeper, and tells the agent ``then``."""

    def answer(link: FakeLink, observed: Observed) -> None:
        if observed.phase is AgentPhase.RUNNING and observed.workers[0].pid:
            os.kill(keeper_of(agents[0]).pid, signal.SIGSTOP)
            if then:
                link.direct(then)
        else:
            rounds(1, JobState.FAILED)(link, observed)

    return answer


def test_a_keeper_that_is_stopped_does_not_hold_a_stop_up(mark: str, caplog: pytest.LogCaptureFixture) -> None:
    agents: list[LocalElasticAgent] = []
    link = FakeLink(stops_the_keeper(agents, then=Stop(0, 0)))
    agents.append(agent_of(link, mark, "sleep", "1000"))
    agents[0].run()
    assert link.phases == [AgentPhase.READY, AgentPhase.RUNNING, AgentPhase.STOPPING, AgentPhase.READY]
    assert "the keeper does not answer" in caplog.text
    assert "not even by SIGKILL" not in caplog.text


def test_a_keeper_that_is_stopped_does_not_outlive_the_lease(mark: str) -> None:
    spec = JobSpec(lease_ttl_ms=2_000, fence_grace_ms=100)
    config = AgentConfig(node="a", local_world_size=1, job_spec=spec, connect_timeout_ms=60_000, start_ms=boot_ms())
    agents: list[LocalElasticAgent] = []
    link = FakeLink(stops_the_keeper(agents, then=None), spec=spec)
    agents.append(agent_of(link, mark, "sleep", "1000", config=config))
    agents[0].run()
    assert link.phases == [AgentPhase.READY, AgentPhase.RUNNING, AgentPhase.STOPPING, AgentPhase.READY]
