"""What each event says of a member, noted the same way in whatever state the life is.

By the time an event comes here, :mod:`.cluster` has fenced it: it comes from the holder of the lease it names. What it
*means* is a matter of the state: :mod:`.reactions`.
"""

from __future__ import annotations

from dataclasses import replace

from rallypoint.errors import Reason, Refusal
from rallypoint.model import ClockReading, Hello, JobState, Observed, Version, Welcome
from rallypoint_coordinator.core import quarantine, recovery
from rallypoint_coordinator.core.directives import describe_quarantine, version_for
from rallypoint_coordinator.core.effects import EndStream, RefuseStream, SendAck, SendLeaseStale, SendWelcome
from rallypoint_coordinator.core.events import AgentAttached, AgentHeartbeat
from rallypoint_coordinator.core.membership import Join, Resume, Stale, admit, lease_expiry_ms, offered_before
from rallypoint_coordinator.core.pacing import heartbeat_interval_ms
from rallypoint_coordinator.core.reactions import Trigger, react
from rallypoint_coordinator.core.records import GoneReason, MemberGone, MemberJoined
from rallypoint_coordinator.core.state import Life, Member, Presence
from rallypoint_coordinator.core.step import Step

BEAT_EARLY_MS = 1_000
"""A report that was sent so shortly before a heartbeat would have been is in the place of that."""


def attach(step: Step, event: AgentAttached, *, lost: bool = False) -> int | None:
    """A stream opened with a Hello. Returns the lease that it is bound to, None if it was refused.

    It is welcomed when all that comes of it is decided: :func:`welcome`.

    ``lost``: it comes from a history that was lost, so the lease that it names means nothing here.
    """
    stream, hello = event.stream, replace(event.hello, lease_id=0) if lost else event.hello
    verdict = admit(step.life, hello, step.stamp.at_ms, lost=lost)
    if isinstance(verdict, Refusal):
        step.effect(RefuseStream(stream, verdict))
        return None
    if isinstance(verdict, Stale):
        step.effect(SendLeaseStale(stream, verdict.message))
        return None
    member = verdict.member if isinstance(verdict, Resume) else _join(step, hello, verdict)
    presence = step.life.presences[member.lease_id]
    if presence.stream is not None:
        step.effect(RefuseStream(presence.stream, _superseded(member)))
    presence.stream, presence.attach_seq, presence.peer = stream, hello.attach_seq, event.peer
    presence.heartbeat_interval_ms = heartbeat_interval_ms(step.life.facts.spec, event.fleet)
    step.newcomer = stream
    presence.clock.acked_seq = 0
    _heard(step, member, presence, event.clock)
    presence.clock.acknowledged(1, step.stamp.at_ms)
    _expect_beat(presence, event.clock, presence.heartbeat_interval_ms // 2)
    _observe(step, member, presence, hello.observed)
    return member.lease_id


def welcome(step: Step, event: AgentAttached, lease_id: int) -> None:
    """The last of an attach: one message with what came of it; none if its lease was revoked, which it was told."""
    member, presence = _member(step.life, lease_id)
    if presence.stream == event.stream:
        step.effect(SendWelcome(event.stream, _welcome(step, member, presence, event.hello.cluster_id)))


def recover(step: Step, hello: Hello) -> None:
    """The Hello tells of decisions that are lost: ask all agents what they hold, unless that is being done."""
    began = recovery.beginning(step.life.facts, hello, step.identity.epoch)
    if began is None:
        return
    is_new = step.life.facts.state is not JobState.RECOVERING
    step.record(began)
    if is_new:
        recovery.begin(step.life, step.stamp.at_ms)


def observed(step: Step, lease_id: int, seq: int, report: Observed, clock: ClockReading | None) -> None:
    """A member's whole observed state."""
    member, presence = _member(step.life, lease_id)
    _heard(step, member, presence, clock)
    if clock is None or clock.sent_ms >= presence.beat_due_ms:
        _beat(step, presence, seq, clock)
    _observe(step, member, presence, report)
    _repeat_if_behind(step, member, presence, report.version)


def heartbeat(step: Step, event: AgentHeartbeat) -> None:
    """Nothing new. O(1)."""
    member, presence = _member(step.life, event.lease_id)
    _heard(step, member, presence, event.clock)
    if event.watchdog is not None:
        presence.observed = replace(presence.observed, watchdog=event.watchdog)
    _beat(step, presence, event.seq, event.clock)
    _repeat_if_behind(step, member, presence, event.version)


def left(step: Step, lease_id: int, seq: int, message: str) -> None:
    """Goodbye: the workers are gone and the agent will not come back."""
    member, presence = _member(step.life, lease_id)
    _ack(step, presence, seq)
    stream = presence.stream
    member_gone(step, member, GoneReason.LEFT, message or "it left")
    if stream is not None:
        step.effect(EndStream(stream))


def stream_closed(step: Step, lease_id: int, stream: int) -> None:
    """A stream ended. It proves nothing: the member becomes suspect until it attaches again or its lease runs out."""
    presence = step.life.presences.get(lease_id)
    if presence is not None and presence.stream == stream:
        presence.stream, presence.closed_at_ms = None, step.stamp.arrived_ms
        step.life.watch.ready.discard(lease_id)


def member_gone(step: Step, member: Member, reason: GoneReason, message: str) -> None:
    """The member's lease has ended and no worker of it is alive. Of one that was revoked, that is the reason."""
    life = step.life
    lease_id = member.lease_id
    if member.revoked:
        reason = GoneReason.REVOKED
    step.record(MemberGone(node=member.node, lease_id=lease_id, reason=reason, message=message))
    presence = life.presences.pop(lease_id, None)
    life.watch.leases.clear(lease_id)
    life.watch.heard.pop(lease_id, None)
    life.watch.ready.discard(lease_id)
    life.watch.expected.discard(lease_id)
    life.watch.quarantined.discard(lease_id)
    react(step, Trigger.GONE, member, presence)


def time_advanced(step: Step) -> None:
    """Leases that ran out; the waiting of the states themselves is looked at by settle."""
    life, now_ms = step.life, step.stamp.at_ms
    for lease_id in life.watch.leases.pop_due(now_ms):
        presence = life.presences.get(lease_id)
        if presence is not None:
            silent_s = (now_ms - presence.heard_at_ms) / 1000
            member = life.facts.members[presence.node]
            held = f"; {describe_quarantine(member)}" if member.unkillable_pids else ""
            member_gone(step, member, GoneReason.EXPIRED, f"not heard for {silent_s:.1f} s{held}")


def gone_reported(step: Step, lease_id: int, incarnation: str, message: str) -> bool | Refusal:
    """An obituary. True if it was news, False if the lease was gone already."""
    presence = step.life.presences.get(lease_id)
    if presence is None:
        return False if _has_gone(step.life, lease_id, incarnation) else _unknown_lease(step, lease_id)
    member = step.life.facts.members[presence.node]
    if member.incarnation != incarnation:
        return _unknown_lease(step, lease_id)
    if presence.stream is not None:
        step.effect(SendLeaseStale(presence.stream, "an obituary came for this agent"))
    member_gone(step, member, GoneReason.OBITUARY, message or "its agent died")
    return True


def _has_gone(life: Life, lease_id: int, incarnation: str) -> bool:
    members = (life.facts.members[node] for node in life.facts.gone_nodes)
    return any((member.lease_id, member.incarnation) == (lease_id, incarnation) for member in members)


def _unknown_lease(step: Step, lease_id: int) -> Refusal:
    return Refusal(
        reason=Reason.UNKNOWN_LEASE,
        message=f"job {step.life.facts.job} knows of no lease {lease_id} of that incarnation",
        metadata={"job": step.life.facts.job, "lease_id": str(lease_id)},
    )


def next_deadline_ms(life: Life) -> int | None:
    """When time alone may change something next."""
    watch = life.watch
    deadlines = (watch.until_ms, watch.start_deadline_ms, watch.hold_ends_ms, watch.leases.next_ms())
    return min((deadline for deadline in deadlines if deadline is not None), default=None)


def _join(step: Step, hello: Hello, verdict: Join) -> Member:
    if verdict.replaces is not None:
        member_gone(step, verdict.replaces, GoneReason.EXPIRED, verdict.why)
    lease_id = step.record(
        MemberJoined(
            node=hello.node,
            incarnation=hello.incarnation,
            spec=hello.node_spec,
            capabilities=hello.capabilities,
            agent_version=hello.agent_version,
            consumed_offer_id=offered_before(step.life.facts, hello),
        )
    )
    step.life.presences[lease_id] = Presence(
        node=hello.node, heartbeat_interval_ms=step.life.facts.spec.heartbeat_interval_ms
    )
    return step.life.facts.members[hello.node]


def _member(life: Life, lease_id: int) -> tuple[Member, Presence]:
    presence = life.presences[lease_id]
    return life.facts.members[presence.node], presence


def _heard(step: Step, member: Member, presence: Presence, clock: ClockReading | None) -> None:
    if clock is not None:
        presence.clock.read(clock, step.stamp.at_ms)
    presence.heard_at_ms = step.stamp.at_ms
    presence.heard_wall_ms = step.stamp.wall_ms
    step.life.watch.heard.pop(member.lease_id, None)
    step.life.watch.heard[member.lease_id] = None
    expires_at_ms = lease_expiry_ms(step.life.facts.spec, step.stamp.at_ms, member.capabilities)
    step.life.watch.leases.set(member.lease_id, expires_at_ms)


def _beat(step: Step, presence: Presence, seq: int, clock: ClockReading | None) -> None:
    """A heartbeat, or a report in its place, is acknowledged, as the agent counts its lease from when it sent it.

    When a round begins or ends all agents say several things in a row, and what they do waits for directives, not for
    acknowledgements: those of reports that come in between are left to the heartbeat that follows. Which these are goes
    by when they were sent: what was held up comes all at once, and the newest of it counts most.
    """
    _expect_beat(presence, clock, presence.heartbeat_interval_ms)
    _ack(step, presence, seq)


def _expect_beat(presence: Presence, clock: ClockReading | None, in_ms: int) -> None:
    """So long after a message of which ``clock`` says when it was sent."""
    presence.beat_due_ms = clock.sent_ms + in_ms - BEAT_EARLY_MS if clock is not None else 0


def _ack(step: Step, presence: Presence, seq: int) -> None:
    if presence.stream is not None:
        presence.clock.acknowledged(seq, step.stamp.at_ms)
        step.effect(SendAck(presence.stream, seq))


def _observe(step: Step, member: Member, presence: Presence, report: Observed) -> None:
    presence.observed = report
    quarantine.readmit_if_clean(step, member, presence)
    watch = step.life.watch
    if _is_ready(member, presence):
        watch.ready.add(member.lease_id)
        watch.expected.discard(member.lease_id)
        watch.awaited.pop(member.node, None)
    else:
        watch.ready.discard(member.lease_id)
    react(step, Trigger.OBSERVED, member, presence)
    if report.failures:
        recovers = step.life.facts.state is JobState.RECOVERING
        presence.observed = replace(report, failures=recovery.in_short(report.failures) if recovers else ())


def _is_ready(member: Member, presence: Presence) -> bool:
    """Whether the member could start a round now: attached, no worker alive, and a port that no round has used."""
    report = presence.observed
    if presence.stream is None or member.drained_by or member.unkillable_pids:
        return False
    if report.may_have_workers or report.offer is None:
        return False
    return report.offer.offer_id > member.consumed_offer_id


def _repeat_if_behind(step: Step, member: Member, presence: Presence, seen: Version) -> None:
    """Send the directive again to a member that should have seen it by now."""
    overdue = step.stamp.at_ms - presence.sent_at_ms > presence.heartbeat_interval_ms
    if overdue and seen < version_for(step.life.facts, member, step.identity.epoch):
        step.tell(member, presence)


def _welcome(step: Step, member: Member, presence: Presence, cluster_id: str) -> Welcome:
    facts = step.life.facts
    return Welcome(
        cluster_id=step.identity.cluster_id,
        job_uid=facts.uid,
        lease_id=member.lease_id,
        lease_ttl_ms=facts.spec.lease_ttl_ms,
        heartbeat_interval_ms=presence.heartbeat_interval_ms,
        job_spec=facts.agreed_spec,
        directive=step.directive(member, presence),
        coordinator_version=step.identity.release,
        takes_over_cluster_id=cluster_id if cluster_id != step.identity.cluster_id else "",
    )


def _superseded(member: Member) -> Refusal:
    return Refusal(
        reason=Reason.SUPERSEDED,
        message=f"the agent of {member.node} attached again",
        metadata={"node": member.node},
    )
