"""Speaks to an AgentCore as its shell would, one line an event."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from rallypoint.model import (
    NO_VERSION,
    Action,
    Assignment,
    Directive,
    Endpoint,
    Hold,
    JobSpec,
    Observed,
    Run,
    Version,
    Welcome,
    WorkerFailure,
    WorkerState,
)
from rallypoint_agent.core.effects import Effect, HoldPort, Output, Report, Say
from rallypoint_agent.core.events import (
    Attached,
    DirectiveReceived,
    Event,
    GroupMonitored,
    PortHeld,
    TimeAdvanced,
    WorkersGone,
    WorkersStarted,
)
from rallypoint_agent.core.machine import AgentCore
from rallypoint_agent.core.state import AgentConfig

E = TypeVar("E", bound=Effect)
SPEC = JobSpec(min_nodes=2, max_nodes=2, max_restarts=3)


class AgentScript:
    """An agent's core whose shell does at once, and well, what it is asked for ports; the rest is the test's."""

    def __init__(self, spec: JobSpec = SPEC, *, local_world_size: int = 2) -> None:
        config = AgentConfig(
            node="a",
            local_world_size=local_world_size,
            job_spec=spec,
            connect_timeout_ms=60_000,
            start_ms=0,
            coordinator="10.0.0.9:29400",
        )
        self.core = AgentCore(config)
        self.now_ms = 0
        self.revision = 0
        self.job_uid = "uid"
        self.next_deadline_ms: int | None = None
        self.effects: list[Effect] = []
        self.reported = Observed()
        self.ports = True
        """Whether a port can be had."""
        self.port_is_named = False
        self.feed(TimeAdvanced())

    def feed(self, event: Event) -> list[Effect]:
        """The effects of this event, with those of the answers to it that a shell gives at once."""
        before = len(self.effects)
        self._step(event)
        return self.effects[before:]

    def _step(self, event: Event) -> None:
        out: Output = self.core.step(event, self.now_ms)
        self.next_deadline_ms = out.next_deadline_ms
        for effect in out.effects:
            self.effects.append(effect)
            if isinstance(effect, Report):
                self.reported = effect.observed
            if isinstance(effect, HoldPort):
                endpoint = Endpoint("10.0.0.1", 4000 + effect.offer_id) if self.ports else None
                problem = "" if self.ports else "port 29500 is in use"
                self._step(PortHeld(effect.offer_id, endpoint, problem, is_named=self.port_is_named))

    def advance(self, ms: int) -> list[Effect]:
        before = len(self.effects)
        end_ms = self.now_ms + ms
        while self.next_deadline_ms is not None and self.next_deadline_ms <= end_ms:
            self.now_ms = max(self.now_ms, self.next_deadline_ms)
            self._step(TimeAdvanced())
        self.now_ms = end_ms
        return self.effects[before:]

    def attach(
        self,
        *,
        lease_id: int = 7,
        sent_ms: int | None = None,
        cluster_id: str = "cluster-1",
        takes_over: str = "",
        job_uid: str = "uid",
    ) -> list[Effect]:
        spec = self.core.config.job_spec
        self.job_uid = job_uid
        welcome = Welcome(
            cluster_id=cluster_id,
            takes_over_cluster_id=takes_over,
            job_uid=job_uid,
            lease_id=lease_id,
            lease_ttl_ms=spec.lease_ttl_ms,
            heartbeat_interval_ms=spec.heartbeat_interval_ms,
            job_spec=spec,
            directive=nothing_new(job_uid),
        )
        return self.feed(Attached(welcome, self.now_ms if sent_ms is None else sent_ms))

    def direct(self, action: Action | None, **changes: object) -> list[Effect]:
        self.revision += 1
        directive = Directive(
            version=Version(1, self.revision), job_uid=self.job_uid, reason="R", message="why", action=action
        )
        return self.feed(DirectiveReceived(replace(directive, **changes)))  # type: ignore[arg-type]

    def run(self, round_number: int = 0, **changes: object) -> list[Effect]:
        """Attached if need be, directed to run, and started."""
        if not self.core.state.attached:
            self.attach()
        effects = self.direct(Run(assignment(round_number, **changes)))
        pids = {rank: 100 + rank for rank in range(self.core.config.local_world_size)}
        return effects + self.feed(WorkersStarted(round_number, pids))

    def fail(self, *, exit_code: int = 1, after_stop: bool = False) -> list[Effect]:
        failure = own_failure(exit_code=exit_code, after_stop=after_stop)
        return self.feed(GroupMonitored(self.core.state.round, WorkerState.FAILED, (failure,)))

    def succeed(self) -> list[Effect]:
        return self.feed(GroupMonitored(self.core.state.round, WorkerState.SUCCEEDED))

    def gone(self, *failures: WorkerFailure) -> list[Effect]:
        return self.feed(WorkersGone(self.core.state.round, failures))


def nothing_new(job_uid: str = "uid") -> Directive:
    """What a Welcome says beside: nothing, for an agent that has seen any directive."""
    return Directive(version=NO_VERSION, job_uid=job_uid, reason="R", message="why", action=Hold())


def assignment(round_number: int = 0, **changes: object) -> Assignment:
    made = Assignment(
        round=round_number,
        restart_count=0,
        group_rank=0,
        group_world_size=2,
        first_rank=0,
        world_size=4,
        first_role_rank=0,
        role_world_size=4,
        endpoint=Endpoint("10.0.0.1", 4001),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def own_failure(*, exit_code: int = 1, local_rank: int = 0, after_stop: bool = False) -> WorkerFailure:
    return WorkerFailure(
        node="a", local_rank=local_rank, rank=local_rank, pid=100, exit_code=exit_code, after_stop=after_stop
    )


def of(effects: list[Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def names(effects: list[Effect]) -> list[str]:
    """The effects' kinds in order, without the talk. A report that can wait is told from one that cannot."""
    return [_name(effect) for effect in effects if not isinstance(effect, Say)]


def _name(effect: Effect) -> str:
    can_wait = isinstance(effect, Report) and effect.can_wait
    return f"{type(effect).__name__}{', can wait' * can_wait}"
