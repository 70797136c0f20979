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
from rallypoint.limits import DAY_MS
from rallypoint.model import Hello, Version
from rallypoint_coordinator.core import handlers, requests
from rallypoint_coordinator.core.deadlines import Deadlines
from rallypoint_coordinator.core.effects import Answer, Output, RefuseStream, SendLeaseStale
from rallypoint_coordinator.core.events import (
    AgentAttached,
    AgentHeartbeat,
    AgentLeft,
    AgentObserved,
    Event,
    GoneReported,
    OperatorAsked,
    Request,
    Stamp,
    StreamClosed,
    TimeAdvanced,
)
from rallypoint_coordinator.core.evolve import evolve
from rallypoint_coordinator.core.machine import settle
from rallypoint_coordinator.core.membership import lease_expiry_ms
from rallypoint_coordinator.core.records import CoordinatorStarted, Entry, JobCreated, LifeForgotten
from rallypoint_coordinator.core.snapshot import ClusterSnapshot, copy_of
from rallypoint_coordinator.core.state import Facts, Life, Presence, Watch
from rallypoint_coordinator.core.step import Identity, Step

LIVES_MAX = 10_000
"""So many lives are remembered, decided ones included. A new one takes the place of the earliest decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many decided lives are kept, and for how long, if there is room for them."""

    lives_max: int = 1_000
    age_max_ms: int = 30 * DAY_MS


@dataclass(frozen=True, slots=True)
class Binding:
    """Whose stream it is."""

    uid: str
    lease_id: int


class Cluster:
    """The whole state.

    :meth:`restore` a snapshot if there is one, replay the records after it with :meth:`apply`, then :meth:`start`
    once, then :meth:`step` for ever.
    """

    def __init__(self) -> None:
        self.cluster_id = ""
        self.epoch = 0
        self._began_revision = 0
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

    def restore(self, snapshot: ClusterSnapshot) -> None:
        """Begin with what a snapshot says; once, before all else. The cluster takes its lives over, uncopied."""
        self.cluster_id, self.epoch = snapshot.cluster_id, snapshot.epoch
        for facts in snapshot.lives:
            self.lives[facts.uid] = Life(facts)
            self._current[facts.job] = facts.uid
        decided = (facts for facts in snapshot.lives if facts.outcome is not None)
        self._decided.update((facts.uid, None) for facts in sorted(decided, key=lambda facts: facts.directive_revision))

    def snapshot(self) -> ClusterSnapshot:
        """The durable facts, copied: O(members), and quick, since the records to come have to wait for it."""
        lives = tuple(copy_of(life.facts) for life in self.lives.values())
        return ClusterSnapshot(cluster_id=self.cluster_id, epoch=self.epoch, lives=lives)

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
            if isinstance(record, LifeForgotten):
                self._forget(entry.job_uid)

    def start(self, stamp: Stamp, fresh_cluster_id: str) -> Output:
        """Begin an epoch, after replay: every live lease gets a whole lease_ttl, no loss is decided before that."""
        out = Output()
        started = CoordinatorStarted(cluster_id=self.cluster_id or fresh_cluster_id, epoch=self.epoch + 1)
        entry = Entry(job="", job_uid="", wall_ms=stamp.wall_ms, record=started)
        self._began_revision = stamp.revision + 1
        self.apply(entry, self._began_revision)
        out.records.append(entry)
        for life in self.lives.values():
            self._rearm(life, stamp)
            self._finish(Step(life, stamp, self._identity(), out))
        out.next_deadline_ms = self._deadlines.next_ms()
        return out

    def _rearm(self, life: Life, stamp: Stamp) -> None:
        life.watch = Watch(gathering_since_ms=stamp.at_ms)
        for member in life.facts.members.values():
            if member.gone is None:
                expires_at_ms = lease_expiry_ms(life.facts.spec, stamp.at_ms, member.capabilities)
                life.presences[member.lease_id] = Presence(node=member.node, heard_at_ms=stamp.at_ms)
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
                    event,
                    stamp,
                    out,
                    lambda s: handlers.observed(s, event.lease_id, event.seq, event.observed, event.clock),
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
            case OperatorAsked():
                self._operator_asked(event, stamp, out)
            case TimeAdvanced():
                self._time_advanced(stamp, out)
            case _:
                assert_never(event)
        out.next_deadline_ms = self._deadlines.next_ms()
        return out

    def _attached(self, event: AgentAttached, stamp: Stamp, out: Output) -> None:
        refusal = self._refuse_hello(event.hello, stamp.revision)
        if refusal is not None:
            out.effects.append(RefuseStream(event.stream, refusal))
            return
        life = self._life_for(event, stamp, out)
        step = Step(life, stamp, self._identity(), out)
        lease_id = handlers.attach(step, event.stream, event.hello, event.peer, event.clock)
        if lease_id is not None:
            self._streams[event.stream] = Binding(life.facts.uid, lease_id)
        self._finish(step)

    def _refuse_hello(self, hello: Hello, revision: int) -> Refusal | None:
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
        if self._is_ahead(hello.highest_version, revision):
            ours, theirs = Version(self.epoch, revision), hello.highest_version
            return Refusal(
                reason=Reason.JOURNAL_BEHIND,
                message=(
                    f"the agent has seen epoch {theirs.epoch}, revision {theirs.revision}, which this coordinator"
                    f" (epoch {ours.epoch}, revision {ours.revision}) does not know: was an old backup restored?"
                ),
                metadata={"ours": f"{ours.epoch}.{ours.revision}", "theirs": f"{theirs.epoch}.{theirs.revision}"},
            )
        if hello.job_uid and hello.job_uid not in self.lives:
            return Refusal(
                reason=Reason.UNKNOWN_LIFE,
                message=f"job {hello.job} has no life {hello.job_uid} here",
                field="hello.job_uid",
                metadata={"job": hello.job, "job_uid": hello.job_uid},
            )
        if self._begins_life(hello) and len(self.lives) - len(self._decided) >= LIVES_MAX:
            return Refusal(
                reason=Reason.LIMIT_REACHED,
                message=f"this coordinator has {LIVES_MAX} jobs, which is the limit",
                metadata={"limit": str(LIVES_MAX)},
            )
        return None

    def _is_ahead(self, seen: Version, revision: int) -> bool:
        """Whether the journal went backwards: what an earlier epoch showed to an agent came before this one began."""
        if seen.epoch < self.epoch:
            return seen.revision >= self._began_revision
        return seen > Version(self.epoch, revision)

    def _begins_life(self, hello: Hello) -> bool:
        life = self.current(hello.job)
        return not hello.job_uid and (life is None or (life.facts.outcome is not None and not _is_member(life, hello)))

    def _life_for(self, event: AgentAttached, stamp: Stamp, out: Output) -> Life:
        """The life that the Hello names, else the job's current one, else, if that is decided, a new one."""
        hello = event.hello
        if hello.job_uid:
            return self.lives[hello.job_uid]
        life = self.current(hello.job)
        if life is not None and (life.facts.outcome is None or _is_member(life, hello)):
            return life
        if len(self.lives) >= LIVES_MAX:
            self._record_forgotten(next(iter(self._decided)), stamp, out)
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
            handlers.heartbeat(step, event)

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
            out.effects.append(Answer(event.call, refusal))
            return
        step = Step(life, stamp, self._identity(), out)
        was_news = handlers.gone_reported(step, event.lease_id, event.incarnation, event.message)
        out.effects.append(Answer(event.call, was_news))
        self._finish(step)

    def _operator_asked(self, event: OperatorAsked, stamp: Stamp, out: Output) -> None:
        life = self.current(event.job)
        if life is None:
            refusal = Refusal(
                reason=Reason.JOB_NOT_FOUND,
                message=f"there is no job {event.job}",
                field="name",
                metadata={"job": event.job},
            )
            out.effects.append(Answer(event.call, refusal))
            return
        step = Step(life, stamp, self._identity(), out)
        out.effects.append(Answer(event.call, _ask(step, event)))
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

    def retain(self, retention: Retention, stamp: Stamp) -> Output:
        """Forget decided lives beyond what is retained, in the order in which they were decided.

        A life whose agents may still ask for its outcome, and all decided after it, wait for the next time: so the
        newest life of a name is always the last one forgotten.
        """
        out = Output()
        for uid in list(self._decided):
            life = self.lives[uid]
            age_ms = stamp.wall_ms - life.facts.state_wall_ms
            kept = len(self._decided) <= retention.lives_max and age_ms <= retention.age_max_ms
            if kept or life.presences:
                break
            self._record_forgotten(uid, stamp, out)
        out.next_deadline_ms = self._deadlines.next_ms()
        return out

    def _record_forgotten(self, uid: str, stamp: Stamp, out: Output) -> None:
        job = self.lives[uid].facts.job
        entry = Entry(job=job, job_uid=uid, wall_ms=stamp.wall_ms, record=LifeForgotten())
        out.records.append(entry)
        self.apply(entry, stamp.revision + len(out.records))

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

    def _forget(self, uid: str) -> None:
        life = self.lives.pop(uid)
        del self._decided[uid]
        self._deadlines.clear(uid)
        if self._current.get(life.facts.job) == uid:
            del self._current[life.facts.job]


def _is_member(life: Life, hello: Hello) -> bool:
    """Whether the Hello is from the holder of a live lease, whose Welcome must have been lost."""
    member = life.facts.members.get(hello.node)
    return member is not None and member.gone is None and member.incarnation == hello.incarnation


def _ask(step: Step, event: OperatorAsked) -> bool | Refusal:
    match event.request:
        case Request.CANCEL:
            return requests.cancel(step, event.by, event.reason)
        case Request.RESTART:
            return requests.restart(step, event.by, event.reason)
        case Request.DRAIN:
            return requests.drain(step, event.node, event.by, event.reason)
