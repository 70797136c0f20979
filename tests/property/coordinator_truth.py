"""An independent account of a cluster: fed with each event and its output, it objects to what must not follow.

C2 (who is heard), C4 (what proves somebody gone) and C9 (who is told) are checked as transitions: each step against
what the steps before it led to. :mod:`.round_truth` judges the records, :mod:`.directive_truth` what agents are told.
"""

from __future__ import annotations

from collections.abc import Mapping

from property import recovery_truth
from property.demand import demand
from property.directive_truth import Told
from property.lease_truth import FromHolder, Leases, LeaseTruth
from property.recovery_truth import History
from property.round_truth import LifeTruth
from rallypoint.errors import Reason, Refusal
from rallypoint.model import HEARTBEATS_PER_LEASE, NO_ROUND, ClockReading, Directive, Hello, JobSpec, Version
from rallypoint_coordinator.core.effects import (
    Answer,
    EndStream,
    Explain,
    Output,
    RefuseStream,
    SendAck,
    SendDirective,
    SendLeaseStale,
    SendWelcome,
)
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
from rallypoint_coordinator.core.records import (
    CoordinatorStarted,
    Entry,
    GoneReason,
    JobCancelled,
    JobCreated,
    JobDecided,
    JobHeld,
    JobReleased,
    JobUpdated,
    LeaseRevoked,
    LifeForgotten,
    MemberGone,
    MemberJoined,
    NodeDrained,
    NodeExpelled,
    NodeReadmitted,
    NodeSucceeded,
    Record,
    RecoveryBegan,
    RecoveryEnded,
    RestartAsked,
    RoundAdopted,
    RoundEnded,
    RoundFormed,
    RoundStopping,
    StateLost,
)

STOP_MARGIN_MS = 20_000

RECORDED: Mapping[Request, type[JobCancelled | RestartAsked | NodeDrained | JobUpdated | JobHeld | JobReleased]] = {
    Request.CANCEL: JobCancelled,
    Request.RESTART: RestartAsked,
    Request.DRAIN: NodeDrained,
    Request.UPDATE: JobUpdated,
    Request.HOLD: JobHeld,
    Request.RELEASE: JobReleased,
}


class Truth:
    def __init__(self) -> None:
        self.lives: dict[str, LifeTruth] = {}
        self.leases = Leases()
        self.told = Told()
        self.revision = 0
        self.history = History()
        self.clock_is_steady = True
        """Whether the coordinator's clock never went back since it started."""
        self._acked: dict[int, ClockReading | None] = {}
        """Stream -> what the newest message that was acknowledged says of when it was sent."""
        self._intervals_ms: dict[int, int] = {}
        """Stream -> the heartbeat interval that it was issued."""
        self._attach: AgentAttached | None = None
        """The Hello of this step, if it was welcomed."""
        self._lost: Hello | None = None
        """The Hello of this step, if it is from a history that was lost."""
        self._misnamed: int | None = None
        """The stream of this step's message, if it named another's lease: its own lease is none the worse for it."""

    # --- steps

    def started(self, stamp: Stamp, out: Output) -> None:
        """A coordinator began from the journal: every stream is gone, every lease is whole again."""
        self.clock_is_steady = True
        self.leases.restarted(stamp.at_ms)
        for life in self.lives.values():
            life.gathering_since_ms = life.recovering_since_ms = stamp.at_ms
            life.hold_clock_ms = None
            if life.current is not None:
                life.current.failures.clear()
                life.current.stop_since_ms = life.current.start_since_ms = stamp.at_ms
                life.current.started.clear()
                life.current.all_gone_ms = None
        self._note_time(stamp)
        self._came_out(out, stamp)

    def stepped(self, event: Event, stamp: Stamp, out: Output, *, heard: bool) -> None:
        """``heard`` is False if the coordinator stopped before any effect got out."""
        self._attach = self._lost = self._misnamed = None
        self._came(event, stamp, out)
        self._note_time(stamp)
        self._records(out.records, stamp)
        self._note_time(stamp)
        self._told_of_stuck(event)
        if heard:
            for effect in out.effects:
                self._went_out(effect)
            self._everybody_knows()
        self._in_time(event, stamp, out)

    def _note_time(self, stamp: Stamp) -> None:
        for life in self.lives.values():
            if life.current is not None:
                life.current.note_time(self.leases, stamp.at_ms)

    def _told_of_stuck(self, event: Event) -> None:
        """C8: who says that it cannot end its workers is waited for no longer; who says that it has is readmitted."""
        lease = self.leases.holder(event) if isinstance(event, AgentObserved) else None
        life = self.lives.get(lease.uid) if lease is not None else None
        if lease is None or life is None or life.outcome is not None:
            return
        demand(not lease.expelled or lease.report.may_have_workers, "C8", f"{lease} is still quarantined")
        current = life.current
        if current is None or current.stopping is None or life.recovering or not current.seats_lease(lease):
            return
        stuck = lease.report.unkillable_pids and lease.report.round == current.formed.round
        demand(not stuck or current.is_gone(lease), "C8", f"{lease} is still waited for")

    def retained(self, stamp: Stamp, out: Output) -> None:
        self._came_out(out, stamp)

    def _came_out(self, out: Output, stamp: Stamp) -> None:
        self._records(out.records, stamp)
        demand(all(isinstance(effect, Explain) for effect in out.effects), "C6", f"unasked: {out.effects}")

    # --- what came

    def _came(self, event: Event, stamp: Stamp, out: Output) -> None:
        match event:
            case AgentAttached():
                self._attached(event, stamp, out)
            case AgentObserved() | AgentHeartbeat() | AgentLeft():
                self._from_holder(event, stamp, out)
            case StreamClosed():
                self.leases.closed(event.stream)
            case GoneReported():
                self._gone_reported(event, out)
            case OperatorAsked():
                self._operator_asked(event, out)
            case TimeAdvanced():
                self.leases.run_out(stamp.at_ms)

    def _attached(self, event: AgentAttached, stamp: Stamp, out: Output) -> None:
        hello = event.hello
        welcome = next((effect.welcome for effect in out.effects if isinstance(effect, SendWelcome)), None)
        named = self.lives.get(hello.job_uid)
        self._lost = hello if self.history.is_lost(hello, stamp.revision, named) else None
        objection = self._objection(hello, stamp)
        self._gives_up_what_nobody_wants(hello, objection, out)
        if welcome is None:
            demand(not out.records or not objection, "C2", f"{objection}, yet {out.records}")
            return
        demand(not objection, "C2", f"{objection}, yet {welcome}")
        self._attach = event
        self._acked[event.stream] = event.clock
        self._intervals_ms[event.stream] = welcome.heartbeat_interval_ms
        self.leases.hello(welcome.job_uid, hello, lost=self._lost is not None)
        life = self.lives.get(welcome.job_uid)
        if life is not None:
            demand(life.agreed == hello.job_spec, "C2", f"{hello} is welcomed to {life.spec}")
            _demand_paced(event, life.spec, welcome.heartbeat_interval_ms)
            self._note_report(life, self.leases.live_of(life.uid, hello.node), hello, out)
        if welcome.lease_id in self.leases.by_id:
            self.leases.welcomed(event.stream, welcome.lease_id, hello, stamp.at_ms)

    def _gives_up_what_nobody_wants(self, hello: Hello, objection: str, out: Output) -> None:
        """A life without nodes, which nobody holds, ends if, and only if, a new agent comes with another spec."""
        ended = [entry.job_uid for entry in out.records if _is_abandonment(entry.record)]
        is_new = not (hello.job_uid or hello.lease_id or hello.observed.may_have_workers)
        newest = next((life for life in reversed(self.lives.values()) if life.job == hello.job), None)
        if not is_new or objection or self._lost is not None or newest is None:
            demand(not ended, "C9", f"{ended} are given up for {hello}")
            return
        empty = newest.outcome is None and newest.current is None and not newest.recovering and newest.hold is None
        unwanted = empty and newest.agreed != hello.job_spec and not self._may_be_members(newest, hello)
        expected = [newest.uid] if unwanted else []
        demand(ended == expected, "C9", f"{ended} are given up for {hello}, and not {expected}")

    def _may_be_members(self, life: LifeTruth, hello: Hello) -> bool:
        """Whether a lease is live, or the agent had one and may never have heard so."""
        ours = [lease for lease in self.leases.by_id.values() if lease.uid == life.uid]
        newest = next((lease for lease in reversed(ours) if lease.node == hello.node), None)
        unheard = newest is not None and newest.incarnation == hello.incarnation and newest.proof != "it left"
        return unheard or any(not lease.gone for lease in ours)

    def _note_report(self, life: LifeTruth, lease: LeaseTruth | None, hello: Hello, out: Output) -> None:
        if lease is not None and lease.incarnation == hello.incarnation:
            lease.note_report(hello.observed)
            recovers = life.recovering or any(isinstance(entry.record, RecoveryBegan) for entry in out.records)
            if life.current is not None and not recovers:
                life.current.note_report(lease, hello.observed)

    def _objection(self, hello: Hello, stamp: Stamp) -> str:
        """Why the Hello must be refused whatever the state of its job; "" if nothing says so."""
        known = not hello.job_uid or hello.job_uid in self.lives
        if not known and self._lost is None and hello.observed.round != NO_ROUND:
            return "a life that is not known"
        return self.history.objection(hello, stamp.wall_ms)

    def _from_holder(self, event: FromHolder, stamp: Stamp, out: Output) -> None:
        """C2: heard and acknowledged if it is sent under the lease of its stream; else nothing comes of it."""
        lease = self.leases.holder(event)
        acks = [effect for effect in out.effects if isinstance(effect, SendAck)]
        if lease is None:
            stale = all(isinstance(effect, SendLeaseStale) for effect in out.effects)
            demand(stale and not out.records, "C2", f"{event} must not be heard: {out}")
            if self.leases.of_stream.get(event.stream) != event.lease_id:
                self._misnamed = event.stream
            return
        self.leases.heard(lease, event, stamp.at_ms)
        expected = [SendAck(event.stream, event.seq)]
        may_wait = isinstance(event, AgentObserved) and self._is_between_heartbeats(event)
        demand(acks == expected or (may_wait and not acks), "A3", f"{event} is acknowledged with {acks}")
        if acks and not isinstance(event, AgentLeft):
            self._acked[event.stream] = event.clock
        if isinstance(event, AgentObserved):
            self._reported(lease, event, out)

    def _is_between_heartbeats(self, event: AgentObserved) -> bool:
        """A3: an agent's fence goes by when it sent what is acknowledged; one that comes late counts from then too."""
        acked = self._acked.get(event.stream)
        if event.clock is None or acked is None:
            return False
        return event.clock.sent_ms - acked.sent_ms < self._intervals_ms[event.stream]

    def _reported(self, lease: LeaseTruth, event: AgentObserved, out: Output) -> None:
        """C2: an old round's facts lead to nothing that concerns the round."""
        life = self.lives[lease.uid]
        current = life.current
        if current is None or life.recovering:
            # Which round it is of is known once one is adopted: then everybody's last report counts.
            return
        current.note_report(lease, event.observed)
        old = event.observed.round < current.formed.round and current.seats_lease(lease)
        spends = [entry for entry in out.records if isinstance(entry.record, RoundStopping | NodeSucceeded)]
        drawn = [entry for entry in spends if current.stopping is None and old]
        demand(not drawn, "C2", f"{event.observed} is of an old round, yet {drawn}")

    def _gone_reported(self, event: GoneReported, out: Output) -> None:
        live = self._is_live_lease_of(event)
        gone = [entry.record for entry in out.records if isinstance(entry.record, MemberGone)]
        answers = [effect.answer for effect in out.effects if isinstance(effect, Answer)]
        demand(len(answers) == 1, "C6", f"{event} is answered {answers}")
        demand((answers[0] is True) == live == bool(gone), "C4", f"{event} is answered {answers}, recorded: {gone}")
        fits = all(record.reason in (GoneReason.OBITUARY, GoneReason.REVOKED) for record in gone)
        demand(fits, "C4", f"{event}: {gone}")
        self.leases.obituary(event)

    def _is_live_lease_of(self, event: GoneReported) -> bool:
        lease, life = self.leases.by_id.get(event.lease_id), self.lives.get(event.job_uid)
        if lease is None or life is None or life.job != event.job:
            return False
        return not lease.gone and (lease.uid, lease.incarnation) == (event.job_uid, event.incarnation)

    def _operator_asked(self, event: OperatorAsked, out: Output) -> None:
        """An answer that says "done" has a record that says so too: C6."""
        (answer,) = (effect.answer for effect in out.effects if isinstance(effect, Answer))
        kind = RECORDED[event.request]
        recorded = any(isinstance(entry.record, kind) and entry.record.by == event.by for entry in out.records)
        demand((answer is True) == recorded, "C6", f"{event} is answered {answer}, recorded is {out.records}")
        unknown = isinstance(answer, Refusal) and answer.reason is Reason.JOB_NOT_FOUND
        demand(unknown == (event.job not in {life.job for life in self.lives.values()}), "C9", f"{event}: {answer}")

    # --- what was decided

    def _records(self, entries: list[Entry], stamp: Stamp) -> None:
        demand(stamp.revision == self.revision, "C1", f"a step at {stamp.revision}, durable is {self.revision}")
        for entry in entries:
            self.revision += 1
            self._record(entry, self.revision, stamp)
            if entry.job_uid in self.lives:
                self.lives[entry.job_uid].revision = self.revision

    def _record(self, entry: Entry, revision: int, stamp: Stamp) -> None:
        uid, record = entry.job_uid, entry.record
        match record:
            case CoordinatorStarted():
                self._epoch(record, revision)
            case StateLost():
                self._state_lost(record, revision)
            case JobCreated():
                demand(uid not in self.lives, "C1", f"life {uid} is created twice")
                self.lives[uid] = LifeTruth(
                    uid=uid, job=entry.job, spec=record.spec, agreed=record.spec, gathering_since_ms=stamp.at_ms
                )
            case RecoveryBegan():
                demand(self._lost is not None, "C1", f"{record} for {self._attach}")
                if not self.lives[uid].recovering:
                    self.leases.recovery_began(uid)
                recovery_truth.began(self.lives[uid], record, stamp.at_ms)
            case RoundAdopted():
                recovery_truth.adopted(self.lives[uid], record, revision, self.leases, stamp.at_ms)
            case RecoveryEnded():
                recovery_truth.ended(self.lives[uid], record, stamp.at_ms)
            case MemberJoined():
                self._joined(uid, record, revision, stamp)
            case LeaseRevoked():
                self.leases.was_revoked(uid, record)
            case MemberGone():
                self.leases.went(uid, record)
            case NodeDrained():
                self.leases.by_id[record.lease_id].drained = True
            case NodeExpelled():
                self.lives[uid].expelled(record, self.leases)
                self.leases.by_id[record.lease_id].expelled = record.pids
            case NodeReadmitted():
                self._readmitted(self.lives[uid], record)
            case LifeForgotten():
                self._forgotten(uid)
            case JobCancelled():
                self.lives[uid].cancelled_by = record.by
            case RestartAsked():
                pass
            case JobUpdated():
                self.lives[uid].updated(record, stamp.at_ms)
            case JobHeld():
                self.lives[uid].held(record, stamp)
            case JobReleased():
                self.lives[uid].released(record, stamp)
            case _:
                self._round_record(self.lives[uid], record, revision, stamp.at_ms)

    def _round_record(
        self,
        life: LifeTruth,
        record: RoundFormed | NodeSucceeded | RoundStopping | RoundEnded | JobDecided,
        revision: int,
        now_ms: int,
    ) -> None:
        match record:
            case RoundFormed():
                life.formed(record, revision, self.leases, now_ms)
            case NodeSucceeded():
                life.succeeded(record, self.leases)
            case RoundStopping():
                life.stopping(record, revision, now_ms, self.leases)
            case RoundEnded():
                life.ended(record, self.leases, now_ms, steady=self.clock_is_steady)
            case JobDecided():
                life.decided(record, now_ms)

    def _epoch(self, record: CoordinatorStarted, revision: int) -> None:
        ours = self.history
        demand(record.epoch == ours.epoch + 1, "C1", f"epoch {record.epoch} after {ours.epoch}")
        demand(ours.cluster_id in ("", record.cluster_id), "C1", f"{record} was {ours.cluster_id}")
        demand(bool(record.born_wall_ms) == (record.epoch == 1), "C1", f"{record} in epoch {record.epoch}")
        ours.epoch, ours.cluster_id = record.epoch, record.cluster_id
        ours.began.append(Version(record.epoch, revision))
        ours.born_wall_ms = ours.born_wall_ms or record.born_wall_ms

    def _state_lost(self, record: StateLost, revision: int) -> None:
        """C1: from here on the epoch is above all that was seen."""
        ours, seen = self.history, self._lost.highest_version if self._lost else None
        demand(seen is not None and record.epoch > seen.epoch, "C1", f"{record}, and {self._lost} was seen")
        demand(record.epoch >= ours.epoch, "C1", f"{record} after {ours.epoch}")
        if record.epoch > ours.epoch:
            ours.epoch = record.epoch
            ours.began.append(Version(record.epoch, revision))
        if record.former_cluster_id:
            ours.former.add(record.former_cluster_id)

    def _readmitted(self, life: LifeTruth, record: NodeReadmitted) -> None:
        """Nothing of it is left, or a lost history had a later round, which it holds and was readmitted for."""
        lease = self.leases.by_id[record.lease_id]
        last = life.last.formed.round if life.last is not None else NO_ROUND
        holds_later = life.recovering and lease.report.round > last and not lease.report.unkillable_pids
        is_proven = holds_later or not lease.report.may_have_workers
        demand(lease.expelled and is_proven, "C4", f"{record}: {lease}")
        lease.expelled = ()

    def _forgotten(self, uid: str) -> None:
        """Decided, and without agents; or without a round ever, and an earlier life comes back."""
        life = self.lives.pop(uid)
        if life.outcome is not None:
            demand(all(lease.gone for lease in self.leases.attached(uid)), "C9", f"{uid} still has agents")
            return
        gives_way = self._lost is not None and self._lost.job == life.job and not life.rounds
        demand(gives_way, "C9", f"{uid} is forgotten undecided")
        self.leases.gave_way(uid)

    def _joined(self, uid: str, record: MemberJoined, lease_id: int, stamp: Stamp) -> None:
        hello = self._attach.hello if self._attach is not None else None
        own = hello is not None and (hello.node, hello.incarnation) == (record.node, record.incarnation)
        demand(own, "C2", f"{record}, the Hello is {hello}")
        assert hello is not None
        assert self._attach is not None
        brings_round = self._lost is not None and hello.observed.assignment and self.lives[uid].recovering
        has_others = hello.observed.may_have_workers and not brings_round
        demand(not has_others, "C4", f"{record} has workers of another lease: {hello}")
        self._demand_fresh_port(uid, record, hello)
        self.leases.joined(uid, record, lease_id, self.lives[uid].spec.lease_ttl_ms, stamp.at_ms)
        self.leases.by_id[lease_id].note_report(hello.observed)
        self.leases.welcomed(self._attach.stream, lease_id, hello, stamp.at_ms)

    def _demand_fresh_port(self, uid: str, record: MemberJoined, hello: Hello) -> None:
        """C10: what an agent offered elsewhere, for all that is known here, it offers here no more."""
        ours = [lease for lease in self.leases.by_id.values() if (lease.uid, lease.node) == (uid, record.node)]
        is_known = bool(ours) and ours[-1].incarnation == record.incarnation
        offered = hello.observed.offer.offer_id if hello.observed.offer is not None else 0
        expected = 0 if is_known or hello.attach_seq <= 1 else offered
        demand(record.consumed_offer_id == expected, "C10", f"{record}, not {expected}: {hello}")
        consumed = self.lives[uid].consumed
        consumed[record.node] = max(consumed.get(record.node, 0), expected)

    # --- what went out

    def _went_out(self, effect: object) -> None:
        match effect:
            case SendWelcome(stream, welcome):
                bound = self.leases.of_stream.get(stream) == welcome.lease_id
                demand(bound, "C6", f"stream {stream} is welcomed with lease {welcome.lease_id}, which is not durable")
                self._directed(stream, welcome.directive)
            case SendDirective(stream, directive):
                self._directed(stream, directive)
            case SendLeaseStale(stream) | RefuseStream(stream) | EndStream(stream):
                if stream != self._misnamed:
                    self.leases.end(stream)
            case _:
                pass

    def _directed(self, stream: int, directive: Directive) -> None:
        self.told.went_out(self._lease_on(stream), directive, stream, Version(self.history.epoch, self.revision))

    def _lease_on(self, stream: int) -> LeaseTruth:
        lease_id = self.leases.of_stream.get(stream, 0)
        demand(lease_id and stream not in self.leases.ended, "C2", f"stream {stream} has ended, and is told something")
        return self.leases.by_id[lease_id]

    def _everybody_knows(self) -> None:
        """Level-triggered: whoever can be told what to do now was told."""
        for life in self.lives.values():
            for lease in self.leases.attached(life.uid):
                self.told.check(life, lease)

    def _in_time(self, event: Event, stamp: Stamp, out: Output) -> None:
        """C8: what is waited for has an end, looking at it is no loop, and no lease lasts longer than it may."""
        undecided = any(life.outcome is None for life in self.lives.values())
        demand(not undecided or out.next_deadline_ms is not None, "C8", "something is waited for without end")
        if not isinstance(event, TimeAdvanced):
            return
        due_ms = out.next_deadline_ms
        demand(due_ms is None or due_ms > stamp.at_ms, "C8", f"time passed, and {due_ms} is still due")
        over = [lease for lease in self.leases.by_id.values() if not lease.gone and lease.is_over(stamp.at_ms)]
        if self.clock_is_steady:
            demand(not over, "C8", f"time passed, and these leases still last: {over}")
            self._stopped_in_time(stamp.at_ms)
            self._started_in_time(stamp.at_ms)
            for life in self.lives.values():
                recovery_truth.in_time(life, stamp.at_ms)

    def _started_in_time(self, now_ms: int) -> None:
        """C8: a round whose workers do not all start is ended."""
        for life in self.lives.values():
            current = life.current
            if current is not None and current.stopping is None and now_ms >= life.start_ends_ms(current):
                late = current.late_starters(self.leases)
                demand(not late, "C8", f"they had to start by {life.start_ends_ms(current)}: {late}")

    def _stopped_in_time(self, now_ms: int) -> None:
        """C8: who does not end its workers in time is renewed no more: its stream has ended, or never was there."""
        for life in self.lives.values():
            current = life.current
            if current is None or current.stopping is None or life.recovering:
                continue
            end_ms = current.stop_since_ms + life.spec.shutdown_timeout_ms + STOP_MARGIN_MS
            for lease in self.leases.attached(life.uid):
                gone = current.is_gone(lease)
                in_time = gone or now_ms < end_ms or not current.seats_lease(lease)
                demand(in_time, "C8", f"{lease} is still renewed, it had to stop by {end_ms}")


def _demand_paced(event: AgentAttached, spec: JobSpec, interval_ms: int) -> None:
    """A3: three heartbeats fit between a renewal and the fence; as far as that goes, there are 1,000 a second."""
    room_ms = spec.lease_ttl_ms - spec.fence_grace_ms - 1_000
    demand(3 * interval_ms <= room_ms, "A3", f"a lease of {spec.lease_ttl_ms} ms, and heartbeats each {interval_ms} ms")
    per_s = event.fleet * 1_000 // interval_ms
    is_longest = 3 * (interval_ms + 1) > room_ms
    demand(per_s <= 1_001 or is_longest, "A3", f"{per_s} heartbeats/s: {event.fleet} agents, each {interval_ms} ms")
    demand(per_s >= 990 or interval_ms * HEARTBEATS_PER_LEASE <= spec.lease_ttl_ms or is_longest, "A3", f"{per_s}/s")


def _is_abandonment(record: Record) -> bool:
    return isinstance(record, JobDecided) and record.outcome.reason == "ABANDONED"
