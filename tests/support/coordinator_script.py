"""Speaks to a Cluster as agents would, one line an event: for tables and transcripts of the coordinator's core."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from rallypoint.errors import Refusal
from rallypoint.model import (
    NO_VERSION,
    AgentPhase,
    Assignment,
    Capability,
    ClockReading,
    Directive,
    Endpoint,
    EndpointOffer,
    Exit,
    Hello,
    JobSpec,
    NodeSpec,
    Observed,
    Run,
    Welcome,
    WorkerFailure,
)
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.effects import Answer, Effect, Output, SendAck, SendDirective, SendWelcome
from rallypoint_coordinator.core.events import (
    AgentAttached,
    AgentHeartbeat,
    AgentLeft,
    AgentObserved,
    Event,
    GoneReported,
    JobChange,
    OperatorAsked,
    Request,
    Stamp,
    StreamClosed,
    TimeAdvanced,
)
from rallypoint_coordinator.core.explain import as_of
from rallypoint_coordinator.core.records import Entry, JobCreated, Record
from rallypoint_coordinator.core.state import Life

E = TypeVar("E")
JOB = "job"


def failure(node: str = "a", *, rank: int = 0, exit_code: int = 1, **changes: Any) -> WorkerFailure:
    made = WorkerFailure(node=node, local_rank=0, rank=rank, pid=100 + rank, exit_code=exit_code)
    return replace(made, **changes)


@dataclass
class Agent:
    """One agent as the coordinator sees it: what it was told, and what it says next."""

    script: Script
    node: str
    incarnation: str
    spec: JobSpec
    node_spec: NodeSpec = field(default_factory=NodeSpec)
    capabilities: frozenset[Capability] = frozenset(Capability)
    stream: int = 0
    attach_seq: int = 0
    seq: int = 0
    welcome: Welcome | None = None
    directive: Directive | None = None
    clock_ms: int | None = None
    """How far its steady clock is ahead of the coordinator's; None: it does not say what its clock shows."""
    lag_ms: int = 0
    """How long a message takes, either way."""
    acked: tuple[int, int] = (0, 0)
    """The newest acknowledgement, and what its clock showed when that came."""
    observed: Observed = field(default_factory=lambda: Observed(offer=EndpointOffer(1, Endpoint("10.0.0.1", 4000))))

    @property
    def lease_id(self) -> int:
        return self.welcome.lease_id if self.welcome else 0

    @property
    def reading(self) -> ClockReading | None:
        """What a message that comes in now says of the clock of who sent it."""
        if self.clock_ms is None:
            return None
        return ClockReading(self.shown(-self.lag_ms), *self.acked)

    def shown(self, later_ms: int) -> int:
        """What its clock shows so much later than now."""
        return self.script.now_ms + later_ms + (self.clock_ms or 0)

    @property
    def assignment(self) -> Assignment:
        assert self.directive is not None
        assert isinstance(self.directive.action, Run)
        return self.directive.action.assignment

    @property
    def told(self) -> str:
        """The last directive's action and reason: ``Run ROUND_FORMED``."""
        assert self.directive is not None
        return f"{type(self.directive.action).__name__} {self.directive.reason}"

    def attach(self, *, peer: str = "10.0.0.9", fresh: bool = False, **changes: Any) -> Output:
        self.attach_seq += 1
        self.stream = self.script.next_stream()
        self.seq, self.acked = 1, (0, 0)
        hello = Hello(
            job=JOB,
            node=self.node,
            incarnation=self.incarnation,
            attach_seq=self.attach_seq,
            job_spec=self.spec,
            node_spec=self.node_spec,
            observed=self.observed,
            capabilities=self.capabilities,
            job_uid="" if fresh or self.welcome is None else self.welcome.job_uid,
            cluster_id=self.welcome.cluster_id if self.welcome else "",
            lease_id=0 if fresh else self.lease_id,
            highest_version=self.directive.version if self.directive else NO_VERSION,
        )
        hello = replace(hello, **changes)
        self.script.by_stream[self.stream] = self
        uid = f"uid{self.script.lives_begun}" + "'" * self.script.losses
        return self.script.feed(
            AgentAttached(
                stream=self.stream,
                hello=hello,
                peer=peer,
                fresh_uid=uid,
                clock=self.reading,
                fleet=self.script.fleet,
            )
        )

    def report(self, phase: AgentPhase | None = None, *failures: WorkerFailure, **changes: object) -> Output:
        """Say what is observed, having acted on the newest directive."""
        if self.directive is not None:
            changes.setdefault("version", self.directive.version)
            if isinstance(self.directive.action, Run):
                changes.setdefault("round", self.directive.action.assignment.round)
                if changes["round"] == self.directive.action.assignment.round:
                    changes.setdefault("assignment", self.directive.action.assignment)
        if phase is not None:
            changes.setdefault("phase", phase)
        changes.setdefault("unkillable_pids", ())
        self.observed = replace(self.observed, failures=failures, **changes)  # type: ignore[arg-type]
        self.seq += 1
        return self.script.feed(
            AgentObserved(
                stream=self.stream,
                lease_id=self.lease_id,
                seq=self.seq,
                observed=self.observed,
                clock=self.reading,
            )
        )

    def run(self) -> Output:
        return self.report(AgentPhase.RUNNING)

    def fail(self, **changes: Any) -> Output:
        """Workers failed and are gone; a new port is held."""
        held, current = self.observed.assignment, self.script.life.facts.round
        rank = held.first_rank if held is not None else current.places[self.node].first_rank  # type: ignore[union-attr]
        return self.report(AgentPhase.FAILED, failure(self.node, rank=rank, **changes), offer=self.next_offer())

    def clear(self) -> Output:
        """Acted on a stop: no worker is alive, and a port is held that no round has used."""
        return self.report(AgentPhase.READY, offer=self.next_offer())

    def next_offer(self) -> EndpointOffer:
        offer_id = self.observed.offer.offer_id + 1 if self.observed.offer else 1
        return EndpointOffer(offer_id, Endpoint("10.0.0.1", 4000 + offer_id))

    def heartbeat(self, **changes: object) -> Output:
        self.seq += 1
        event = AgentHeartbeat(
            stream=self.stream,
            lease_id=self.lease_id,
            seq=self.seq,
            version=self.observed.version,
            clock=self.reading,
        )
        return self.script.feed(replace(event, **changes))  # type: ignore[arg-type]

    def leave(self, message: str = "ended by SIGTERM") -> Output:
        self.seq += 1
        return self.script.feed(
            AgentLeft(stream=self.stream, lease_id=self.lease_id, seq=self.seq, reason="SIGNAL", message=message)
        )

    def break_stream(self) -> Output:
        return self.script.feed(StreamClosed(stream=self.stream))

    def obituary(self, **changes: Any) -> Output:
        event = GoneReported(
            call=1,
            job=JOB,
            job_uid=self.script.life.facts.uid,
            lease_id=self.lease_id,
            incarnation=self.incarnation,
            message="its agent died",
        )
        return self.script.feed(replace(event, **changes))

    def reborn(self) -> Agent:
        """A later incarnation on the same node."""
        return self.script.agent(self.node, self.spec, incarnation=f"{self.incarnation}+")


class Script:
    """A cluster with a journal in memory and a clock that only the test moves."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.journal: list[Entry] = []
        self.now_ms = 1_000
        self.by_stream: dict[int, Agent] = {}
        self.next_deadline_ms: int | None = None
        self.losses = 0
        self.fleet = 1
        """So many agents of all jobs have a stream, it is said."""
        self.disk_ms = 0
        """How long it takes until records are durable; the clock stands still meanwhile."""
        self.waited_ms = 0
        """How long each event has waited for its step."""
        self._streams = itertools.count(1)
        self.keep(self.cluster.start(self.stamp, "cluster-1"))

    @property
    def stamp(self) -> Stamp:
        return Stamp(
            at_ms=self.now_ms,
            wall_ms=1_700_000_000_000 + self.now_ms,
            revision=len(self.journal),
            waited_ms=self.waited_ms,
        )

    @property
    def life(self) -> Life:
        life = self.cluster.current(JOB)
        assert life is not None
        return life

    @property
    def message(self) -> str:
        """Why the life is in its state, for people."""
        return as_of(self.life, self.now_ms)[0]

    @property
    def lives_begun(self) -> int:
        return sum(isinstance(entry.record, JobCreated) for entry in self.journal)

    def next_stream(self) -> int:
        return next(self._streams)

    def agent(self, node: str, spec: JobSpec, *, incarnation: str = "", **node_spec: object) -> Agent:
        made = NodeSpec(**node_spec)  # type: ignore[arg-type]
        return Agent(self, node, incarnation or f"inc-{node}", spec, made)

    def attached(self, nodes: str, spec: JobSpec) -> list[Agent]:
        """One attached agent a letter."""
        agents = [self.agent(node, spec) for node in nodes]
        for agent in agents:
            agent.attach()
        return agents

    def running(self, nodes: str, spec: JobSpec) -> list[Agent]:
        """The same, with a round running on them."""
        agents = self.attached(nodes, spec)
        for agent in agents:
            agent.run()
        return agents

    def feed(self, event: Event) -> Output:
        out = self.cluster.step(event, self.stamp)
        self.keep(out)
        return out

    def keep(self, out: Output) -> None:
        self.journal.extend(out.records)
        self.cluster.committed(len(self.journal), self.stamp.wall_ms + self.disk_ms)
        self.next_deadline_ms = out.next_deadline_ms
        for effect in out.effects:
            self._deliver(effect)

    def advance(self, ms: int) -> Output:
        """Let time pass, stepping at every deadline on the way. Returns all that came of it."""
        end_ms, total = self.now_ms + ms, Output()
        while self.next_deadline_ms is not None and self.next_deadline_ms <= end_ms:
            self.now_ms = max(self.now_ms, self.next_deadline_ms)
            out = self.feed(TimeAdvanced())
            total.records += out.records
            total.effects += out.effects
        self.now_ms = end_ms
        return total

    def ask(self, request: Request, node: str = "", job: str = JOB) -> bool | Refusal:
        """An operator's request, and its answer."""
        event = OperatorAsked(call=9, job=job, request=request, by="ops", reason="maintenance", node=node)
        (answer,) = effects_of(self.feed(event), Answer)
        return answer.answer

    def update(self, **changes: Any) -> bool | Refusal:
        """An operator's change of the job, and its answer."""
        change = JobChange(**changes)
        event = OperatorAsked(call=9, job=JOB, request=Request.UPDATE, by="ops", reason="maintenance", change=change)
        (answer,) = effects_of(self.feed(event), Answer)
        return answer.answer

    def hold(self, hold_ms: int = 3_600_000, reason: str = "maintenance") -> bool | Refusal:
        """An operator holds the job."""
        event = OperatorAsked(call=9, job=JOB, request=Request.HOLD, by="ops", reason=reason, hold_ms=hold_ms)
        (answer,) = effects_of(self.feed(event), Answer)
        return answer.answer

    def restart(self) -> None:
        """The coordinator starts again from its journal; every stream is gone."""
        self.cluster = replayed(self.journal)
        self.by_stream.clear()
        self.keep(self.cluster.start(self.stamp, "another-cluster"))

    def lose(self, records: int = 0) -> None:
        """The coordinator starts again, and all but the first records are lost."""
        del self.journal[records:]
        self.cluster = replayed(self.journal)
        self.by_stream.clear()
        self.losses += 1
        self.keep(self.cluster.start(self.stamp, f"cluster-{self.losses + 1}"))

    def _deliver(self, effect: Effect) -> None:
        if isinstance(effect, SendWelcome):
            agent = self.by_stream[effect.stream]
            agent.welcome, agent.acked = effect.welcome, (1, agent.shown(agent.lag_ms))
            agent.directive = effect.welcome.directive
        elif isinstance(effect, SendAck) and effect.stream in self.by_stream:
            agent = self.by_stream[effect.stream]
            agent.acked = effect.seq, agent.shown(agent.lag_ms)
        elif isinstance(effect, SendDirective):
            self.by_stream[effect.stream].directive = effect.directive


def replayed(journal: list[Entry]) -> Cluster:
    cluster = Cluster()
    for revision, entry in enumerate(journal, start=1):
        cluster.apply(entry, revision)
    return cluster


def kinds(out: Output) -> list[str]:
    return [type(entry.record).__name__ for entry in out.records]


def effects_of(out: Output, kind: type[E]) -> list[E]:
    return [effect for effect in out.effects if isinstance(effect, kind)]


def the_record(out: Output, kind: type[E]) -> E:
    found = [entry.record for entry in out.records if isinstance(entry.record, kind)]
    assert len(found) == 1, kinds(out)
    return found[0]


def outcome_told(agent: Agent) -> str:
    assert agent.directive is not None
    assert isinstance(agent.directive.action, Exit)
    return f"{agent.directive.action.outcome.state} {agent.directive.action.outcome.reason}"


__all__ = [
    "JOB",
    "Agent",
    "Record",
    "Script",
    "effects_of",
    "failure",
    "kinds",
    "outcome_told",
    "replayed",
    "the_record",
]
