"""An agent that notes what it is asked to do, with workers and a coordinator that the test plays."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from rallypoint.model import AgentPhase, JobSpec, JobState, Observed, WorkerFailure, WorkerState
from rallypoint_agent.api import RunResult, WorkerGroup, WorkerSpec
from rallypoint_agent.core.effects import SetIdentity
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.simple_elastic_agent import SimpleElasticAgent
from support.fake_link import Answer, FakeLink

SPEC = JobSpec(max_nodes=1, shutdown_timeout_ms=20_000)
Monitor = Callable[["StandIn"], RunResult]


def failed(rank: int, *, after_stop: bool = False) -> WorkerFailure:
    return WorkerFailure(
        node="a", local_rank=rank, rank=rank, pid=100 + rank, exit_code=1, message="no", after_stop=after_stop
    )


class StandIn(SimpleElasticAgent):
    """Notes what it is asked to do. ``monitor`` says how its workers are."""

    def __init__(
        self,
        link: FakeLink,
        monitor: Monitor,
        *,
        connect_timeout_ms: int = 60_000,
        job_spec: JobSpec = SPEC,
        port_range: range | None = None,
        **spec: Any,
    ) -> None:
        worker_spec = WorkerSpec(
            "default", 2, link, entrypoint="/x/train", **{"monitor_interval": 0.01, "local_addr": "10.0.0.1", **spec}
        )
        config = AgentConfig(
            node="a",
            local_world_size=2,
            job_spec=job_spec,
            connect_timeout_ms=connect_timeout_ms,
            start_ms=boot_ms(),
        )
        super().__init__(worker_spec, config=config, port_range=port_range)
        self.link = link
        self.calls: list[str] = []
        self.monitor = monitor
        self.late: tuple[WorkerFailure, ...] = ()
        self.while_stopping: Callable[[], None] = lambda: None
        self.on_start: Callable[[WorkerGroup], None] = lambda group: None

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self.calls.append("start")
        self.on_start(worker_group)
        return {0: 100, 1: 101}

    def _stop_workers(self, worker_group: WorkerGroup, is_restart: bool = False) -> None:
        self.calls.append(f"stop {self._stop_grace:g}")
        self.while_stopping()

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: float = 30) -> None:
        self.calls.append(f"shutdown {death_sig.name} {timeout:g}")
        if not self._is_over:
            self.while_stopping()

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        return self.monitor(self)

    def _open(self) -> None:
        self.calls.append("open")

    def _close(self) -> None:
        self.calls.append("close")

    def _hasten_stop(self, death_sig: int, timeout: float) -> None:
        self.calls.append(f"hasten {death_sig} {timeout:g}")

    def _late_failures(self) -> tuple[WorkerFailure, ...]:
        return self.late

    def _set_fence(self, term_at_ms: int, kill_at_ms: int) -> None:
        assert boot_ms() < term_at_ms < kill_at_ms
        self.calls.append("fence")

    def _set_obituary(self, identity: SetIdentity) -> None:
        self.calls.append(f"obituary {identity.lease_id}")

    def _leave_obituary(self, message: str) -> None:
        self.calls.append("leave an obituary")

    def pump(self, timeout: float = 5) -> None:
        self._pump(timeout)

    def stop_is_due(self) -> bool:
        return self._stop_is_due()


def healthy(agent: StandIn) -> RunResult:
    return RunResult(WorkerState.HEALTHY)


def succeeded(agent: StandIn) -> RunResult:
    return RunResult(WorkerState.SUCCEEDED)


def one_failed(agent: StandIn) -> RunResult:
    return RunResult(WorkerState.FAILED, failures={1: failed(1)})


def one_round(link: FakeLink, observed: Observed) -> None:
    """A coordinator that runs one round, and decides as it ended."""
    if observed.offer is None:
        return
    if observed.phase is AgentPhase.READY and observed.round < 0:
        link.run_round(0, endpoint=observed.offer.endpoint, offer_id=observed.offer.offer_id)
    elif observed.phase is AgentPhase.SUCCEEDED:
        link.decide(JobState.SUCCEEDED)
    elif observed.phase in (AgentPhase.FAILED, AgentPhase.READY):
        link.decide(JobState.FAILED)


def agent_with(monitor: Monitor, answer: Answer = one_round, **spec: Any) -> StandIn:
    return StandIn(FakeLink(answer, spec=SPEC), monitor, **spec)
