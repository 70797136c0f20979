"""Everything the coordinator knows: one life for each life of a job, and the door at which every event is fenced.

Jobs share nothing but this. The cluster owns its state and changes it in place; ``step`` is synchronous, total and
deterministic, and costs O(1) for everything but a re-formation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import rallypoint
from rallypoint.errors import Reason, Refusal
from rallypoint.model import Hello
from rallypoint_coordinator.core import handlers
from rallypoint_coordinator.core.deadlines import Deadlines
from rallypoint_coordinator.core.effects import AnswerGone, Output, RefuseStream, SendLeaseStale
from rallypoint_coordinator.core.events import (
    AgentAttached,
    AgentHeartbeat,
    AgentLeft,
    AgentObserved,
    Event,
    GoneReported,
    Stamp,
    StreamClosed,
    TimeAdvanced,
)
from rallypoint_coordinator.core.evolve import evolve
from rallypoint_coordinator.core.machine import settle
from rallypoint_coordinator.core.membership import lease_expiry_ms
from rallypoint_coordinator.core.records import CoordinatorStarted, Entry, JobCreated
from rallypoint_coordinator.core.state import Facts, Life, Presence, Watch
from rallypoint_coordinator.core.step import Identity, Step

LIVES_MAX = 10_000
"""So many lives are remembered, decided ones included; the earliest decided is forgotten first."""

DECIDED_LIVES_MAX = 1_000
"""So many decided lives are remembered."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Whose stream it is."""

    uid: str
    lease_id: int


class Cluster:
    """The whole state. Replay with :meth:`apply`, then :meth:`start` once, then :meth:`step` for ever."""

    def __init__(self) -> None:
        self.cluster_id = ""
        self.epoch = 0
        self.lives: dict[str, Life] = {}
        self._current: dict[str, str] = {}
        self._decided: dict[str, None] = {}
        self._streams: dict[int, Binding] = {}
        self._deadlines: Deadlines[str] = Deadlines()

    def current(self, job: str) -> Life | None:
        """The newest life of a job's name."""
        uid = self._current.get(job)
        return self.lives[uid] if uid is not None else None

    def job_names(self) -> list[str]:
        return sorted(self._current)

    # --- replay and start

    def apply(self, entry: Entry, revision: int) -> None:
        """Replay one durable record. Raises IllegalTransition if the journal is damaged."""
        record = entry.record
        if isinstance(record, CoordinatorStarted):
            self.cluster_id, self.epoch = record.cluster_id, record.epoch
        elif isinstance(record, JobCreated):
            self._create(entry, record, revision)
        else:
            evolve(self.lives[entry.job_uid].facts, record, revision=revision, wall_ms=entry.wall_ms)
            self._note_decided(entry.job_uid)

    def start(self, stamp: Stamp, fresh_cluster_id: str) -> Output:
        """Begin an epoch, after replay: every live lease gets a whole lease_ttl, no loss is decided before that."""
        out = Output()
        started = CoordinatorStarted(cluster_id=self.cluster_id or fresh_cluster_id, epoch=self.epoch + 1)
        entry = Entry(job="", job_uid="", wall_ms=stamp.wall_ms, record=started)
        self.apply(entry, stamp.revision + 1)
        out.records.append(entry)
        for life in self.lives.values():
            self._rearm(life, stamp)
            self._finish(Step(life, stamp, self._identity(), out))
        out.next_deadline_ms = self._deadlines.next_ms()
        return out

    def _rearm(self, life: Life, stamp: Stamp) -> None:
        expires_at_ms = lease_expiry_ms(life.facts.spec, stamp.at_ms)
        life.watch = Watch(gathering_since_ms=stamp.at_ms)
        for member in life.facts.members.values():
            if member.gone is None:
                life.presences[member.lease_id] = Presence(
                    node=member.node, expires_at_ms=expires_at_ms, heard_at_ms=stamp.at_ms
                )
                life.watch.leases.set(member.lease_id, expires_at_ms)
        handlers.rearm(life, stamp.at_ms)

    # --- steps

    def step(self, event: Event, stamp: Stamp) -> Output:
        """What the event leads to. The records are already applied; never raises for anything an agent can say."""
        out = Output()
        match event:
            case AgentAttached():
                self._attached(event, stamp, out)
            case AgentObserved():
                self._from_holder(
                    event, stamp, out, lambda s: handlers.observed(s, event.lease_id, event.seq, event.observed)
                )
            case AgentHeartbeat():
                self._heartbeat(event, stamp, out)
            case AgentLeft():
                self._from_holder(
                    event, stamp, out, lambda s: handlers.left(s, event.lease_id, event.seq, event.message)
                )
            case StreamClosed():
                self._stream_closed(event, stamp, out)
            case GoneReported():
                self._gone_reported(event, stamp, out)
            case TimeAdvanced():
                self._time_advanced(stamp, out)
            case _:
                assert_never(event)
        out.next_deadline_ms = self._deadlines.next_ms()
        return out

    def _attached(self, event: AgentAttached, stamp: Stamp, out: Output) -> None:
        refusal = self._refuse_hello(event.hello)
        if refusal is not None:
            out.effects.append(RefuseStream(event.stream, refusal))
            return
        life = self._life_for(event, stamp, out)
        step = Step(life, stamp, self._identity(), out)
        lease_id = handlers.attach(step, event.stream, event.hello, event.peer)
        if lease_id is not None:
            self._streams[event.stream] = Binding(life.facts.uid, lease_id)
        self._finish(step)

    def _refuse_hello(self, hello: Hello) -> Refusal | None:
        """What is wrong with a Hello before it reaches a life."""
        if hello.cluster_id not in ("", self.cluster_id):
            return Refusal(
                reason=Reason.WRONG_CLUSTER,
                message=(
                    f"the agent belongs to cluster {hello.cluster_id}, this coordinator is {self.cluster_id}:"
                    " was it started anew without its data?"
                ),
                field="hello.cluster_id",
                metadata={"ours": self.cluster_id, "theirs": hello.cluster_id},
            )
        if hello.highest_version.epoch > self.epoch:
            return Refusal(
                reason=Reason.JOURNAL_BEHIND,
                message=f"the agent has seen epoch {hello.highest_version.epoch}, this coordinator is at {self.epoch}",
                metadata={"ours": str(self.epoch), "theirs": str(hello.highest_version.epoch)},
            )
        if hello.job_uid and hello.job_uid not in self.lives:
            return Refusal(
                reason=Reason.UNKNOWN_LIFE,
                message=f"job {hello.job} has no life {hello.job_uid} here",
                field="hello.job_uid",
                metadata={"job": hello.job, "job_uid": hello.job_uid},
            )
        if not hello.job_uid and len(self.lives) >= LIVES_MAX:
            return Refusal(
                reason=Reason.LIMIT_REACHED,
                message=f"this coordinator has {LIVES_MAX} jobs, which is the limit",
                metadata={"limit": str(LIVES_MAX)},
            )
        return None

    def _life_for(self, event: AgentAttached, stamp: Stamp, out: Output) -> Life:
        """The life that the Hello names, else the job's current one, else, if that is decided, a new one."""
        hello = event.hello
        if hello.job_uid:
            return self.lives[hello.job_uid]
        life = self.current(hello.job)
        if life is not None and life.facts.outcome is None:
            return life
        entry = Entry(
            job=hello.job, job_uid=event.fresh_uid, wall_ms=stamp.wall_ms, record=JobCreated(spec=hello.job_spec)
        )
        out.records.append(entry)
        self.apply(entry, stamp.revision + len(out.records))
        created = self.lives[event.fresh_uid]
        created.watch.gathering_since_ms = stamp.at_ms
        return created

    def _from_holder(
        self,
        event: AgentObserved | AgentLeft | AgentHeartbeat,
        stamp: Stamp,
        out: Output,
        handle: Callable[[Step], None],
    ) -> None:
        life = self._fence(event, stamp, out)
        if life is not None:
            step = Step(life, stamp, self._identity(), out)
            handle(step)
            self._finish(step)

    def _heartbeat(self, event: AgentHeartbeat, stamp: Stamp, out: Output) -> None:
        """Renews and no more: nothing can have become due, so nothing is settled."""
        life = self._fence(event, stamp, out)
        if life is not None:
            step = Step(life, stamp, self._identity(), out)
            handlers.heartbeat(step, event.lease_id, event.seq, event.version)

    def _fence(self, event: AgentObserved | AgentLeft | AgentHeartbeat, stamp: Stamp, out: Output) -> Life | None:
        """The life of the message's sender, if it holds the lease that it names; else it is told, once."""
        binding = self._streams.get(event.stream)
        if binding is None:
            return None
        life = self.lives.get(binding.uid)
        presence = life.presences.get(event.lease_id) if life is not None else None
        holds = binding.lease_id == event.lease_id and presence is not None and not presence.revoked
        if life is None or presence is None or not holds:
            if life is not None and presence is not None and presence.stream == event.stream:
                handlers.stream_closed(Step(life, stamp, self._identity(), out), event.lease_id, event.stream)
            out.effects.append(SendLeaseStale(event.stream, f"lease {event.lease_id} has ended"))
            return None
        return life if presence.stream == event.stream else None

    def _stream_closed(self, event: StreamClosed, stamp: Stamp, out: Output) -> None:
        binding = self._streams.pop(event.stream, None)
        life = self.lives.get(binding.uid) if binding is not None else None
        if binding is not None and life is not None:
            step = Step(life, stamp, self._identity(), out)
            handlers.stream_closed(step, binding.lease_id, event.stream)
            self._finish(step)

    def _gone_reported(self, event: GoneReported, stamp: Stamp, out: Output) -> None:
        life = self.lives.get(event.job_uid)
        if life is None or life.facts.job != event.job:
            refusal = Refusal(
                reason=Reason.UNKNOWN_LIFE,
                message=f"job {event.job} has no life {event.job_uid} here",
                field="job_uid",
                metadata={"job": event.job, "job_uid": event.job_uid},
            )
            out.effects.append(AnswerGone(event.call, refusal))
            return
        step = Step(life, stamp, self._identity(), out)
        was_news = handlers.gone_reported(step, event.lease_id, event.incarnation, event.message)
        out.effects.append(AnswerGone(event.call, was_news))
        self._finish(step)

    def _time_advanced(self, stamp: Stamp, out: Output) -> None:
        for uid in self._deadlines.pop_due(stamp.at_ms):
            if uid in self.lives:
                step = Step(self.lives[uid], stamp, self._identity(), out)
                handlers.time_advanced(step)
                self._finish(step)

    def _finish(self, step: Step) -> None:
        """Settle the life and note when it must be looked at again."""
        settle(step)
        uid = step.life.facts.uid
        self._note_decided(uid)
        next_ms = handlers.next_deadline_ms(step.life)
        if next_ms is None or uid not in self.lives:
            self._deadlines.clear(uid)
        else:
            self._deadlines.set(uid, next_ms)

    def _identity(self) -> Identity:
        return Identity(cluster_id=self.cluster_id, epoch=self.epoch, release=rallypoint.__version__)

    # --- lives

    def _create(self, entry: Entry, record: JobCreated, revision: int) -> None:
        facts = Facts(
            job=entry.job,
            uid=entry.job_uid,
            spec=record.spec,
            created_wall_ms=entry.wall_ms,
            state_wall_ms=entry.wall_ms,
            directive_revision=revision,
            revision=revision,
        )
        self.lives[entry.job_uid] = Life(facts)
        self._current[entry.job] = entry.job_uid

    def _note_decided(self, uid: str) -> None:
        life = self.lives.get(uid)
        if life is None or life.facts.outcome is None:
            return
        self._decided.setdefault(uid)
        if len(self._decided) > DECIDED_LIVES_MAX:
            self._forget(next(iter(self._decided)))

    def _forget(self, uid: str) -> None:
        life = self.lives.pop(uid)
        del self._decided[uid]
        self._deadlines.clear(uid)
        if self._current.get(life.facts.job) == uid:
            del self._current[life.facts.job]
