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
from rallypoint_coordinator.core import handlers, lineage, requests
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
from rallypoint_coordinator.core.history import History, Known, Lost
from rallypoint_coordinator.core.lineage import Begin, Enter, Revive, unknown_life
from rallypoint_coordinator.core.machine import settle
from rallypoint_coordinator.core.membership import lease_expiry_ms
from rallypoint_coordinator.core.records import CoordinatorStarted, Entry, JobCreated, LifeForgotten, Record, StateLost
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
        self._history = History()
        self.lives: dict[str, Life] = {}
        self._current: dict[str, str] = {}
        self._decided: dict[str, None] = {}
        self._streams: dict[int, Binding] = {}
        self._deadlines: Deadlines[str] = Deadlines()

    @property
    def cluster_id(self) -> str:
        return self._history.cluster_id

    @property
    def epoch(self) -> int:
        return self._history.epoch

    def current(self, job: str) -> Life | None:
        """The newest life of a job's name."""
        uid = self._current.get(job)
        return self.lives[uid] if uid is not None else None

    def job_names(self) -> list[str]:
        return sorted(self._current)

    # --- replay and start

    def restore(self, snapshot: ClusterSnapshot) -> None:
        """Begin with what a snapshot says; once, before all else. The cluster takes its lives over, uncopied."""
        self._history = History(
            cluster_id=snapshot.cluster_id,
            epoch=snapshot.epoch,
            born_wall_ms=snapshot.born_wall_ms,
            former=dict.fromkeys(snapshot.former_cluster_ids),
            epochs=list(snapshot.epochs),
        )
        for facts in snapshot.lives:
            self.lives[facts.uid] = Life(facts)
            self._current[facts.job] = facts.uid
        decided = (facts for facts in snapshot.lives if facts.outcome is not None)
        self._decided.update((facts.uid, None) for facts in sorted(decided, key=lambda facts: facts.directive_revision))

    def snapshot(self) -> ClusterSnapshot:
        """The durable facts, copied: O(members), and quick, since the records to come have to wait for it."""
        lives = tuple(copy_of(life.facts) for life in self.lives.values())
        return ClusterSnapshot(
            cluster_id=self.cluster_id,
            epoch=self.epoch,
            born_wall_ms=self._history.born_wall_ms,
            former_cluster_ids=tuple(self._history.former),
            epochs=tuple(self._history.epochs),
            lives=lives,
        )

    def apply(self, entry: Entry, revision: int) -> None:
        """Replay one durable record. Raises IllegalTransition if the journal is damaged."""
        record = entry.record
        if isinstance(record, CoordinatorStarted):
            self._history.started(record, revision)
        elif isinstance(record, StateLost):
            self._history.lost(record, revision)
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
        started = CoordinatorStarted(
            cluster_id=self.cluster_id or fresh_cluster_id,
            epoch=self.epoch + 1,
            born_wall_ms=0 if self.cluster_id else stamp.wall_ms,
        )
        self._record(stamp, out, started)
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
                life.watch.heard[member.lease_id] = None
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
                said = event.message or event.reason
                self._from_holder(event, stamp, out, lambda s: handlers.left(s, event.lease_id, event.seq, said))
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
        hello = event.hello
        named = self.lives.get(hello.job_uid)
        known = self._history.judge(hello, stamp, named.facts if named is not None else None)
        refusal = known if isinstance(known, Refusal) else self._enter(event, known, stamp, out)
        if refusal is not None:
            out.effects.append(RefuseStream(event.stream, refusal))

    def _enter(self, event: AgentAttached, known: Known | Lost, stamp: Stamp, out: Output) -> Refusal | None:
        """Take the Hello to its life. Returns why not, if there is none for it."""
        hello, lost = event.hello, isinstance(known, Lost)
        verdict = lineage.life_for(hello, self.lives.get(hello.job_uid), self.current(hello.job), lost=lost)
        if isinstance(verdict, Refusal):
            return verdict
        begins = not isinstance(verdict, Enter)
        if begins and len(self.lives) - len(self._decided) >= LIVES_MAX:
            return _too_many_jobs()
        if isinstance(known, Lost) and known.record is not None:
            self._record(stamp, out, known.record)
        life = verdict.life if isinstance(verdict, Enter) else self._begin_life(event, verdict, stamp, out)
        step = Step(life, stamp, self._identity(), out)
        if lost and hello.job_uid == life.facts.uid:
            handlers.recover(step, hello)
        lease_id = handlers.attach(step, event.stream, hello, event.peer, event.clock, lost=lost)
        if lease_id is not None:
            self._streams[event.stream] = Binding(life.facts.uid, lease_id)
        self._finish(step)
        return None

    def _begin_life(self, event: AgentAttached, verdict: Begin | Revive, stamp: Stamp, out: Output) -> Life:
        hello, uid = event.hello, event.fresh_uid
        if isinstance(verdict, Revive):
            uid = hello.job_uid
            if verdict.instead_of is not None:
                self._give_way(verdict.instead_of, stamp, out)
        if len(self.lives) >= LIVES_MAX:
            self._record_forgotten(next(iter(self._decided)), stamp, out)
        self._record(stamp, out, JobCreated(spec=hello.job_spec), hello.job, uid)
        created = self.lives[uid]
        created.watch.gathering_since_ms = stamp.at_ms
        return created

    def _give_way(self, life: Life, stamp: Stamp, out: Output) -> None:
        """An earlier life of the name comes back: the agents of this one, which has had no round, join that one."""
        refusal = Refusal(
            reason=Reason.RECOVERING,
            message=f"an earlier life of job {life.facts.job} came back: attach again to join it",
            metadata={"job": life.facts.job, "job_uid": life.facts.uid},
        )
        streams = (presence.stream for presence in life.presences.values())
        out.effects.extend(RefuseStream(stream, refusal) for stream in streams if stream is not None)
        self._record_forgotten(life.facts.uid, stamp, out)

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
        holds = binding.lease_id == event.lease_id and presence is not None
        if life is None or presence is None or not holds or life.facts.members[presence.node].revoked:
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
            out.effects.append(Answer(event.call, unknown_life(event.job, event.job_uid, "job_uid")))
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
        self._record(stamp, out, LifeForgotten(), self.lives[uid].facts.job, uid)

    def _record(self, stamp: Stamp, out: Output, record: Record, job: str = "", uid: str = "") -> None:
        """Decide something that is not a step of one life."""
        entry = Entry(job=job, job_uid=uid, wall_ms=stamp.wall_ms, record=record)
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
        self._decided.pop(uid, None)
        self._deadlines.clear(uid)
        if self._current.get(life.facts.job) == uid:
            del self._current[life.facts.job]


def _too_many_jobs() -> Refusal:
    return Refusal(
        reason=Reason.LIMIT_REACHED,
        message=f"this coordinator has {LIVES_MAX} jobs, which is the limit",
        metadata={"limit": str(LIVES_MAX)},
    )


def _ask(step: Step, event: OperatorAsked) -> bool | Refusal:
    match event.request:
        case Request.CANCEL:
            return requests.cancel(step, event.by, event.reason)
        case Request.RESTART:
            return requests.restart(step, event.by, event.reason)
        case Request.DRAIN:
            return requests.drain(step, event.node, event.by, event.reason)
