"""The coordinator's core as a whole: the door at which every event is fenced, and the way from there to its life.

Jobs share nothing but this. The cluster owns its state and changes it in place; ``step`` is synchronous, total and
deterministic, and costs O(1) for everything but a re-formation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import assert_never

import rallypoint
from rallypoint.errors import Reason, Refusal
from rallypoint.model import Hello
from rallypoint.values import dataclass
from rallypoint_coordinator.core import handlers, lineage, requests
from rallypoint_coordinator.core.attachment import enter
from rallypoint_coordinator.core.directory import LIVES_MAX, Directory, Retention
from rallypoint_coordinator.core.effects import Answer, Output, RefuseStream, SendLeaseStale
from rallypoint_coordinator.core.events import (
    AgentAttached,
    AgentHeartbeat,
    AgentLeft,
    AgentObserved,
    Event,
    GoneReported,
    OperatorAsked,
    Stamp,
    StreamClosed,
    TimeAdvanced,
)
from rallypoint_coordinator.core.history import Known, Lost
from rallypoint_coordinator.core.rearm import rearm
from rallypoint_coordinator.core.records import CoordinatorStarted, Entry, JobDecided
from rallypoint_coordinator.core.settling import settle
from rallypoint_coordinator.core.snapshot import ClusterSnapshot
from rallypoint_coordinator.core.state import Life
from rallypoint_coordinator.core.step import Identity, Step


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
        self._directory = Directory()
        self._streams: dict[int, Binding] = {}
        self._timed: deque[tuple[int, Life]] = deque()
        self._me = Identity(cluster_id="", epoch=0, release=rallypoint.__version__)

    @property
    def cluster_id(self) -> str:
        return self._directory.history.cluster_id

    @property
    def epoch(self) -> int:
        return self._directory.history.epoch

    @property
    def lives(self) -> Mapping[str, Life]:
        """Every life that is remembered, by uid."""
        return self._directory.lives

    def current(self, job: str) -> Life | None:
        """The newest life of a job's name."""
        return self._directory.current(job)

    def job_names(self, after: str = "", most: int = LIVES_MAX) -> list[str]:
        """At most so many names of jobs, in order, from the one that follows ``after``. Costs no more than it gives."""
        return self._directory.job_names(after, most)

    @property
    def has_members(self) -> bool:
        """Whether any lease is alive, attached or not. O(lives)."""
        return any(life.presences for life in self.lives.values())

    # --- what is durable

    def restore(self, snapshot: ClusterSnapshot) -> None:
        """Begin with what a snapshot says; once, before all else. The cluster takes its lives over, uncopied."""
        self._directory.restore(snapshot)

    def apply(self, entry: Entry, revision: int) -> None:
        """Replay one durable record. Raises IllegalTransition if the journal is damaged."""
        self._directory.apply(entry, revision)

    def snapshot(self) -> ClusterSnapshot:
        """The durable facts, copied: O(members), and quick, since the records to come have to wait for it."""
        return self._directory.snapshot()

    def retain(self, retention: Retention, stamp: Stamp) -> Output:
        """Forget decided lives beyond what is retained: :meth:`.Directory.retain` says which."""
        out = Output()
        self._directory.retain(retention, stamp, out)
        return self._with_deadline(out)

    # --- start

    def start(self, stamp: Stamp, fresh_cluster_id: str) -> Output:
        """Begin an epoch, after replay: every live lease gets a whole lease_ttl, no loss is decided before that."""
        out = Output()
        started = CoordinatorStarted(
            cluster_id=self.cluster_id or fresh_cluster_id,
            epoch=self.epoch + 1,
            born_wall_ms=0 if self.cluster_id else stamp.wall_ms,
        )
        self._directory.record(stamp, out, started)
        for life in self.lives.values():
            rearm(life, stamp)
            self._finish(Step(life, stamp, self._identity(), out))
        return self._with_deadline(out)

    def committed(self, revision: int, wall_ms: int) -> None:
        """The records up to this one are durable now. Of interest to who reads alone."""
        while self._timed and self._timed[0][0] <= revision:
            own, life = self._timed.popleft()
            life.watch.sightings.became_durable(own, wall_ms)

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
        return self._with_deadline(out)

    def _attached(self, event: AgentAttached, stamp: Stamp, out: Output) -> None:
        hello = event.hello
        named = self.lives.get(hello.job_uid)
        known = self._directory.history.judge(hello, stamp, named.facts if named is not None else None)
        if isinstance(known, Known):
            self._decide_abandoned(hello, stamp, out)
        life = known if isinstance(known, Refusal) else enter(self._directory, event, known, stamp, out)
        if isinstance(life, Refusal):
            out.effects.append(RefuseStream(event.stream, life))
            return
        step, lost = Step(life, stamp, self._identity(), out), isinstance(known, Lost)
        if lost and hello.job_uid == life.facts.uid:
            handlers.recover(step, hello)
        lease_id = handlers.attach(step, event, lost=lost)
        if lease_id is not None:
            self._streams[event.stream] = Binding(life.facts.uid, lease_id)
        self._finish(step)
        if lease_id is not None:
            handlers.welcome(step, event, lease_id)

    def _decide_abandoned(self, hello: Hello, stamp: Stamp, out: Output) -> None:
        """Not for a Hello that shows that records are lost: then it is not known who is left."""
        current = self.current(hello.job)
        outcome = lineage.abandoned(hello, current)
        if current is not None and outcome is not None:
            step = Step(current, stamp, self._identity(), out)
            step.record(JobDecided(outcome=outcome))
            self._finish(step)

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
            out.effects.append(Answer(event.call, lineage.unknown_life(event.job, event.job_uid)))
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
                metadata={"job": event.job},
            )
            out.effects.append(Answer(event.call, refusal))
            return
        step = Step(life, stamp, self._identity(), out)
        out.effects.append(Answer(event.call, requests.ask(step, event)))
        self._finish(step)

    def _time_advanced(self, stamp: Stamp, out: Output) -> None:
        for uid in self._directory.deadlines.pop_due(stamp.at_ms):
            if uid in self.lives:
                step = Step(self.lives[uid], stamp, self._identity(), out)
                handlers.time_advanced(step)
                self._finish(step)

    def _finish(self, step: Step) -> None:
        """Settle the life and note when it must be looked at again."""
        settle(step)
        if step.timed_revisions:
            self._timed.extend((revision, step.life) for revision in step.timed_revisions)
        uid = step.life.facts.uid
        self._directory.note_decided(uid)
        next_ms = handlers.next_deadline_ms(step.life)
        if next_ms is None or uid not in self.lives:
            self._directory.deadlines.clear(uid)
        else:
            self._directory.deadlines.set(uid, next_ms)

    def _with_deadline(self, out: Output) -> Output:
        out.next_deadline_ms = self._directory.deadlines.next_ms()
        return out

    def _identity(self) -> Identity:
        """The same one for all steps of an epoch."""
        history, me = self._directory.history, self._me
        if history.epoch != me.epoch or history.cluster_id != me.cluster_id:
            self._me = me = me._replace(cluster_id=history.cluster_id, epoch=history.epoch)
        return me
