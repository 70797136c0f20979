"""An agent's core with a shell that answers when it is asked to, and a clock that may do anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from property.agent_truth import AgentTruth
from property.demand import demand
from rallypoint.model import Action, Directive, Endpoint, JobSpec, Version, Welcome, WorkerFailure, WorkerState
from rallypoint_agent.core.effects import Finish, HoldPort
from rallypoint_agent.core.events import (
    Attached,
    Detached,
    DirectiveReceived,
    Event,
    GroupMonitored,
    PortHeld,
    TimeAdvanced,
    WorkersGone,
    WorkersStarted,
    WorkersStuck,
)
from rallypoint_agent.core.machine import AgentCore
from rallypoint_agent.core.state import AgentConfig
from support.agent_script import nothing_new, own_failure

UID = "uid"
LOCAL_WORLD_SIZE = 2
DEADLINES_MAX = 200


class AgentWorld:
    """``ports``: what comes of asking for one; None answers later."""

    def __init__(self, spec: JobSpec, *, ports: bool | None) -> None:
        config = AgentConfig(
            node="a", local_world_size=LOCAL_WORLD_SIZE, job_spec=spec, connect_timeout_ms=60_000, start_ms=0
        )
        self.core = AgentCore(config)
        self.truth = AgentTruth(spec)
        self.ports = ports
        self.now_ms = 0
        self.lease_id = 0
        self.version = Version(1, 0)
        self.history: list[Event] = []
        self.next_deadline_ms: int | None = None
        self.is_broken = False
        self.feed(TimeAdvanced())

    def feed(self, event: Event) -> None:
        self.is_broken = True
        self.history.append(event)
        out = self.core.step(event, self.now_ms)
        self.truth.stepped(event, self.now_ms, out)
        self.next_deadline_ms = out.next_deadline_ms
        self.is_broken = False
        if self.ports is not None:
            for effect in out.effects:
                if isinstance(effect, HoldPort):
                    self.answer_port(effect.offer_id, held=self.ports)

    # --- the coordinator

    def attach(self, sent_ago_ms: int, *, new_lease: bool) -> None:
        """The newest Hello was answered. An agent with workers keeps its lease, or is told that it is stale."""
        if self.truth.is_stale:
            return
        if self.truth.alive is None and (new_lease or self.truth.lease.lease_id == 0):
            self.lease_id += 1
        spec = self.truth.spec
        welcome = Welcome(
            cluster_id="cluster-1",
            job_uid=UID,
            lease_id=self.lease_id,
            lease_ttl_ms=spec.lease_ttl_ms,
            heartbeat_interval_ms=spec.heartbeat_interval_ms,
            job_spec=spec,
            directive=nothing_new(UID),
        )
        self.feed(Attached(welcome, self.now_ms - sent_ago_ms))

    def direct(self, action: Action | None, **changes: object) -> None:
        """The next directive; what is changed in it does not count for those after it."""
        self.version = Version(self.version.epoch, self.version.revision + 1)
        used = self.truth.offer_id if self.version.revision % 3 == 0 else 0
        directive = Directive(
            version=self.version, job_uid=UID, reason="R", message="why", action=action, consumed_offer_id=used
        )
        self.feed(DirectiveReceived(replace(directive, **changes)))  # type: ignore[arg-type]

    # --- the workers

    def start(self) -> None:
        if self.truth.alive is not None:
            self.feed(WorkersStarted(self.truth.alive, {rank: 100 + rank for rank in range(LOCAL_WORLD_SIZE)}))

    def monitor(self, state: WorkerState) -> None:
        if self.truth.alive is not None:
            failures = (own_failure(exit_code=3),) if state is WorkerState.FAILED else ()
            self.feed(GroupMonitored(self.truth.alive, state, failures))

    def end_workers(self, *failures: WorkerFailure) -> None:
        """They are gone: because it was asked for, or because the keeper's fence struck."""
        fenced = self.now_ms >= self.truth.kill_at_ms
        if self.truth.alive is not None and (self.truth.stopping or fenced):
            self.feed(WorkersGone(self.truth.alive, failures))

    def get_stuck(self, *pids: int) -> None:
        """Not even SIGKILL ends them."""
        if self.truth.alive is not None and self.truth.stopping:
            self.feed(WorkersStuck(self.truth.alive, pids))

    def answer_port(self, offer_id: int, *, held: bool, named: bool = False) -> None:
        endpoint = Endpoint("10.0.0.1", 4_000 + offer_id) if held else None
        self.feed(PortHeld(offer_id, endpoint, "" if held else "it is in use", is_named=named))

    # --- time

    def advance(self, ms: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Let time pass, looking whenever something is due."""
        end_ms = self.now_ms + ms
        for _ in range(DEADLINES_MAX):
            if self.next_deadline_ms is None or self.next_deadline_ms > end_ms:
                break
            self.now_ms = max(self.now_ms, self.next_deadline_ms)
            self.feed(TimeAdvanced())
            meanwhile()
        self.now_ms = end_ms

    def be_left_alone(self) -> None:
        """C8: no coordinator is heard of any more, workers end when they are told to. The agent comes to its end."""
        self.ports = True
        self.now_ms = max(self.now_ms, self.truth.now_ms)
        self.feed(Detached())
        for _ in range(DEADLINES_MAX):
            self.end_workers()
            if self.next_deadline_ms is None:
                break
            self.advance(max(0, self.next_deadline_ms - self.now_ms))
        demand(isinstance(self.truth.finish, Finish), "C8", f"without end: {self.core.state}")
