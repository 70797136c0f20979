"""The life's state machine: what a member's news means in each state, and which steps are due in it.

:data:`REACTIONS` (state x trigger) and :data:`SETTLE` (state) decide; :data:`.evolve.TRANSITIONS` (state x record) says
which decisions are legal at all. An event is first noted by :mod:`.handlers`, then reacted to, then settled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum

from rallypoint.model import KILL_PATIENCE_MS, AgentPhase, JobState, Observed, Outcome
from rallypoint_coordinator.core import quarantine, recovery, rendezvous, scaling, starts
from rallypoint_coordinator.core.causes import describe
from rallypoint_coordinator.core.directives import place_of
from rallypoint_coordinator.core.effects import SendLeaseStale
from rallypoint_coordinator.core.explain import explain
from rallypoint_coordinator.core.records import (
    GoneReason,
    JobDecided,
    LeaseRevoked,
    NodeSucceeded,
    RecoveryEnded,
    RoundEnded,
    RoundFormed,
    RoundStopping,
    StopCause,
)
from rallypoint_coordinator.core.restarts import judge
from rallypoint_coordinator.core.state import Facts, Life, Member, Presence, Round
from rallypoint_coordinator.core.step import Step

STOP_MARGIN_MS = KILL_PATIENCE_MS + 10_000
"""A participant that has not stopped so long after shutdown_timeout, nor said that it cannot, has its lease revoked."""

REMAINS_WAIT_MS = 10_000
"""So long after the last participant is gone may what workers started run on, where an agent does not kill trees."""


NAMED_MAX = 8
"""So many nodes are named in a sentence."""


class Trigger(StrEnum):
    OBSERVED = "OBSERVED"
    GONE = "GONE"


Reaction = Callable[[Step, Member, Presence | None], None]


def react(step: Step, trigger: Trigger, member: Member, presence: Presence | None) -> None:
    REACTIONS[step.life.facts.state][trigger](step, member, presence)


def _nothing(step: Step, member: Member, presence: Presence | None) -> None:
    """What was noted is all there is to do."""


def _running_observed(step: Step, member: Member, presence: Presence | None) -> None:
    facts = step.life.facts
    assert facts.round is not None
    assert presence is not None
    if place_of(facts, member) is None:
        if member.lease_id in step.life.watch.ready:
            scaling.arrival(facts, step.life.watch, step.stamp.at_ms)
        return
    report = presence.observed
    if report.round != facts.round.number or member.node in facts.round.succeeded:
        return
    starts.note_report(step.life, member.lease_id, report)
    _note_failures(step, member, presence)
    own = next((failure for failure in report.failures if not failure.after_stop), None)
    if own is not None:
        stop_round(step, StopCause.WORKER_FAILED, describe(own))
    elif report.phase is AgentPhase.SUCCEEDED:
        step.record(NodeSucceeded(round=facts.round.number, node=member.node))
    elif report.phase is not AgentPhase.RUNNING:
        cause, why = _FENCED if report.fenced else _WITHOUT_FAILURE[report.phase]
        stop_round(step, cause, f"{member.node} {why}")


_FENCED = (StopCause.NODE_LOST, "lost contact until its lease ran out, and ends its workers")

_WITHOUT_FAILURE = {
    AgentPhase.FAILED: (StopCause.WORKER_FAILED, "reports failed workers"),
    AgentPhase.STOPPING: (StopCause.NODE_LEFT, "is stopping its workers"),
    AgentPhase.READY: (StopCause.NODE_LOST, "has ended its workers: it had lost contact"),
}


def _note_loss(step: Step, member: Member) -> None:
    """A lost node may come back, if the job wants to wait for that; one that left will not."""
    if member.gone is GoneReason.LEFT:
        return
    step.life.watch.lost.add(member.node)
    if step.life.facts.spec.rejoin_wait_ms:
        step.life.watch.awaited[member.node] = None


def _running_gone(step: Step, member: Member, presence: Presence | None) -> None:
    facts = step.life.facts
    assert facts.round is not None
    if place_of(facts, member) is None or member.node in facts.round.succeeded:
        return
    _note_loss(step, member)
    left_by_itself = member.gone is GoneReason.LEFT
    cause = StopCause.NODE_LEFT if left_by_itself else StopCause.NODE_LOST
    verb = "left" if left_by_itself else "is gone"
    stop_round(step, cause, f"{member.node} {verb}: {member.gone_message}")


def _stopping_observed(step: Step, member: Member, presence: Presence | None) -> None:
    facts = step.life.facts
    assert facts.round is not None
    assert presence is not None
    if place_of(facts, member) is None:
        if not presence.observed.phase.may_have_workers:
            step.life.watch.remaining.discard(member.lease_id)
        return
    if presence.observed.round == facts.round.number:
        _note_failures(step, member, presence)
    if is_clear_of(facts.round, presence.observed):
        step.life.watch.remaining.discard(member.lease_id)
    quarantine.expel_if_stuck(step, member, presence)


def _stopping_gone(step: Step, member: Member, presence: Presence | None) -> None:
    step.life.watch.remaining.discard(member.lease_id)
    if place_of(step.life.facts, member) is not None:
        _note_loss(step, member)


def _recovering_observed(step: Step, member: Member, presence: Presence | None) -> None:
    assert presence is not None
    recovery.note(step.life, member, presence)


def _recovering_gone(step: Step, member: Member, presence: Presence | None) -> None:
    recovery.forget(step.life, member.node)


REACTIONS: Mapping[JobState, Mapping[Trigger, Reaction]] = {
    JobState.GATHERING: {Trigger.OBSERVED: _nothing, Trigger.GONE: _nothing},
    JobState.RECOVERING: {Trigger.OBSERVED: _recovering_observed, Trigger.GONE: _recovering_gone},
    JobState.RUNNING: {Trigger.OBSERVED: _running_observed, Trigger.GONE: _running_gone},
    JobState.STOPPING: {Trigger.OBSERVED: _stopping_observed, Trigger.GONE: _stopping_gone},
    JobState.SUCCEEDED: {Trigger.OBSERVED: _nothing, Trigger.GONE: _nothing},
    JobState.FAILED: {Trigger.OBSERVED: _nothing, Trigger.GONE: _nothing},
    JobState.CANCELLED: {Trigger.OBSERVED: _nothing, Trigger.GONE: _nothing},
}


def is_clear_of(current: Round, report: Observed) -> bool:
    """Whether an agent that says this has no worker of the round, and will never start one.

    It has none alive, and either it ran the round already (each round is run at most once), or it has seen a directive
    from after the round's end (it acts on newer ones only).
    """
    if report.may_have_workers:
        return False
    return report.round >= current.number or current.is_after_stop(report.version)


def _note_failures(step: Step, member: Member, presence: Presence) -> None:
    failures = presence.observed.failures
    step.life.watch.failures.note(member.lease_id, failures, presence.clock, step.stamp.at_ms)


def stop_round(step: Step, cause: StopCause, message: str) -> None:
    """End the round: from now on the life waits until every participant is gone."""
    life = step.life
    current = life.facts.round
    assert current is not None
    step.record(RoundStopping(round=current.number, cause=cause, message=message, epoch=step.identity.epoch))
    starts.forget(life)
    await_participants(life, step.stamp.at_ms)
    quarantine.expel_those_stuck(step)


def await_participants(life: Life, now_ms: int) -> None:
    """Note which participants of the ending round may still have live workers, and until when they may."""
    current = life.facts.round
    assert current is not None
    leases = (place.seat.lease_id for place in current.places.values())
    life.watch.remaining = {
        lease_id
        for lease_id in leases
        if lease_id in life.presences
        and lease_id not in life.watch.quarantined
        and not is_clear_of(current, life.presences[lease_id].observed)
    }
    if life.facts.recovery_epoch:
        life.watch.remaining |= recovery.of_other_rounds(life, current)
    life.watch.stop_deadline_ms = now_ms + life.facts.spec.shutdown_timeout_ms + STOP_MARGIN_MS


def settle(step: Step) -> None:
    """Take what steps are due, tell the members what changed, and explain the state."""
    facts = step.life.facts
    while SETTLE[facts.state](step):
        pass
    if facts.directive_revision != step.told_revision:
        broadcast(step)
    explain(step)


def broadcast(step: Step) -> None:
    """Tell every attached member what it should do now."""
    for presence in step.life.presences.values():
        step.tell(step.life.facts.members[presence.node], presence)


def _gather(step: Step) -> bool:
    life, now_ms = step.life, step.stamp.at_ms
    if life.facts.cancelled_by:
        step.record(JobDecided(outcome=_cancelled(life.facts)))
        return True
    _arm_last_call(life, now_ms)
    match rendezvous.consider(life.facts, life.watch, now_ms):
        case rendezvous.Form():
            _form(step)
            return True
        case rendezvous.GiveUp(outcome):
            step.record(JobDecided(outcome=outcome))
            return True
        case rendezvous.Wait():
            return False


def _cancelled(facts: Facts) -> Outcome:
    current = facts.round
    stopped_for_it = current is not None and current.stop_cause is StopCause.CANCELLED
    # What stopped a round says why, too.
    message = current.stop_message if current and stopped_for_it else f"cancelled by {facts.cancelled_by}"
    return Outcome(state=JobState.CANCELLED, reason="CANCELLED", message=message)


def _arm_last_call(life: Life, now_ms: int) -> None:
    enough = len(life.watch.ready) >= life.facts.spec.min_nodes
    if not enough:
        life.watch.last_call_ends_ms = None
    elif life.watch.last_call_ends_ms is None:
        life.watch.last_call_ends_ms = now_ms + life.facts.spec.last_call_timeout_ms


def _form(step: Step) -> None:
    life = step.life
    ready = [member for member in life.facts.members.values() if member.lease_id in life.watch.ready]
    chosen = rendezvous.choose(life.facts, ready)
    offer = life.presences[chosen[0].lease_id].observed.offer
    assert offer is not None, "ready members have an offer"
    outcome = rendezvous.unreachable(offer.endpoint, chosen, lambda member: life.presences[member.lease_id].peer)
    if outcome is not None:
        step.record(JobDecided(outcome=outcome))
        return
    life.watch.awaited.clear()
    life.watch.lost.clear()
    life.watch.overdue.clear()
    life.watch.last_call_ends_ms = life.watch.scale_up_at_ms = None
    step.record(
        RoundFormed(
            round=life.facts.next_round,
            seats=tuple(rendezvous.seat_of(member) for member in chosen),
            endpoint=offer.endpoint,
            offer_id=offer.offer_id,
        )
    )
    life.watch.ready.discard(chosen[0].lease_id)
    starts.await_starts(life, step.stamp.at_ms)


def _recover(step: Step) -> bool:
    """Go on with what the agents hold, or without it."""
    life = step.life
    verdict = recovery.consider(life, step.stamp.at_ms)
    match verdict:
        case recovery.Wait():
            return False
        case recovery.Abandon():
            step.record(RecoveryEnded())
            life.watch.claims = None
            _gather_anew(life, step.stamp.at_ms)
        case recovery.Adopt(record, missing):
            if record.round != life.facts.round_number:
                life.watch.failures.clear()
                life.watch.lost.clear()
            step.record(record)
            life.watch.claims = None
            recovery.withdraw_offer(life, record.offer_node)
            starts.await_starts(life, step.stamp.at_ms)
            _look_anew(step)
            _stop_adopted(step, missing)
    return True


def _look_anew(step: Step) -> None:
    """What the members said while their round was not known means something now."""
    life = step.life
    for presence in list(life.presences.values()):
        react(step, Trigger.OBSERVED, life.facts.members[presence.node], presence)
        presence.observed = replace(presence.observed, failures=())


def _stop_adopted(step: Step, missing: str) -> None:
    """An adopted round that cannot go on is ended, unless what its members said ends it already."""
    facts = step.life.facts
    if facts.state is not JobState.RUNNING:
        return
    if facts.cancelled_by:
        stop_round(step, StopCause.CANCELLED, f"cancelled by {facts.cancelled_by}")
    elif missing:
        stop_round(step, StopCause.NODE_LOST, missing)


def _gather_anew(life: Life, now_ms: int) -> None:
    """A gathering begins: known members are waited for a moment, lost ones as long as the job wants it."""
    watch = life.watch
    watch.gathering_since_ms = now_ms
    watch.stop_deadline_ms = watch.revoked_end_ms = watch.remains_until_ms = None
    watch.expected = expected_back(life)
    watch.rejoin_ends_ms = now_ms + life.facts.spec.rejoin_wait_ms


def _run(step: Step) -> bool:
    facts, watch = step.life.facts, step.life.watch
    assert facts.round is not None
    if facts.cancelled_by or not facts.round.is_whole:
        # A crash came between the adoption and the stop that goes with it.
        _stop_adopted(step, f"nodes of round {facts.round.number} did not come back after the records were lost")
        return True
    joined = scaling.due(facts, watch, step.stamp.at_ms)
    if joined is not None:
        stop_round(step, StopCause.NODE_JOINED, joined)
        return True
    if late := starts.overdue(step.life, step.stamp.at_ms):
        _give_up_starting(step, late)
        return True
    outcome = rendezvous.succeeded(facts)
    if outcome is None:
        return False
    step.record(JobDecided(outcome=outcome))
    return True


def _give_up_starting(step: Step, late: list[int]) -> None:
    """End the round, and give up those that did not start their workers, as those that do not stop them in time."""
    life = step.life
    seconds = life.facts.spec.start_timeout_ms / 1000
    nodes = ", ".join(life.presences[lease_id].node for lease_id in late[:NAMED_MAX])
    more = f" and {len(late) - NAMED_MAX} more" if len(late) > NAMED_MAX else ""
    why = f"{nodes}{more} did not start the workers within {seconds:g} s"
    stop_round(step, StopCause.START_TIMEOUT, why)
    _revoke(step, [lease_id for lease_id in late if lease_id in life.watch.remaining], why)


def _stop(step: Step) -> bool:
    life = step.life
    current, watch = life.facts.round, life.watch
    assert current is not None
    assert current.stop_cause is not None
    if watch.remaining:
        _revoke_overdue(step)
        return False
    if current.leaves_remains and not _remains_have_ended(step):
        return False
    verdict = judge(
        cause=current.stop_cause,
        stop_message=current.stop_message,
        failures=watch.failures.timed(),
        restart_count=life.facts.restart_count,
        spec=life.facts.spec,
        lost=_lost_in(current, life),
        wall_offset_ms=step.stamp.wall_ms - step.stamp.at_ms,
    )
    step.record(
        RoundEnded(
            round=current.number,
            charged=verdict.charged,
            culprit=verdict.culprit,
            message=verdict.message,
            others=verdict.others,
        )
    )
    watch.failures.clear()
    _gather_anew(life, step.stamp.at_ms)
    if verdict.outcome is not None and not life.facts.cancelled_by:
        step.record(JobDecided(outcome=verdict.outcome))
    return True


def lost_before(life: Life) -> set[str]:
    """What a coordinator that started anew knows of the participants that were lost before."""
    return {member.node for member in _seated(life) if member.gone not in (None, GoneReason.LEFT)}


def revoked_in_round(life: Life) -> set[str]:
    """The same of those that did not start or stop in time. Older journals say so only once the lease is over."""
    return {member.node for member in _seated(life) if member.revoked or member.gone is GoneReason.REVOKED}


def _seated(life: Life) -> list[Member]:
    """The holders of the current or last round's leases, those that are gone included."""
    current, members = life.facts.round, life.facts.members
    if current is None:
        return []
    seated = (members.get(node) for node in current.places)
    return [member for member in seated if member is not None and place_of(life.facts, member) is not None]


def await_lost(life: Life, now_ms: int) -> None:
    """A coordinator that started anew waits for them from its start on: when they were lost is not known."""
    watch, current = life.watch, life.facts.round
    if life.facts.spec.rejoin_wait_ms and current is not None:
        lost = lost_before(life) - current.succeeded
        watch.awaited = {node: None for node in current.places if node in lost}
        watch.rejoin_ends_ms = now_ms + life.facts.spec.rejoin_wait_ms


def expected_back(life: Life) -> set[int]:
    """The leases of participants that live on: known members, for which a re-formation waits a moment if need be."""
    current, members = life.facts.round, life.facts.members
    places = current.places.values() if current is not None else ()
    return {
        place.seat.lease_id
        for place in places
        if place.seat.lease_id in life.presences
        and place.seat.lease_id not in life.watch.ready
        and place.seat.lease_id not in life.watch.quarantined
        and not members[place.seat.node].drained_by
    }


def _lost_in(current: Round, life: Life) -> list[str]:
    """The participants whose loss the others may have noticed."""
    watch = life.watch
    unknown = [] if current.is_whole else ["a node that did not come back"]
    return unknown + [
        node
        for node in current.places
        if node in watch.lost and node not in current.succeeded and node not in watch.overdue
    ]


def _revoke_overdue(step: Step) -> None:
    """Participants that do not stop in time are renewed no more: their own fence, or the lease's end, settles it."""
    life, now_ms = step.life, step.stamp.at_ms
    if life.watch.stop_deadline_ms is None or now_ms < life.watch.stop_deadline_ms:
        return
    life.watch.stop_deadline_ms = None
    life.watch.revoked_end_ms = max(map(life.watch.leases.of, life.watch.remaining))
    _revoke(step, sorted(life.watch.remaining), "the workers were not stopped in time")


def _revoke(step: Step, lease_ids: list[int], why: str) -> None:
    for lease_id in lease_ids:
        presence = step.life.presences[lease_id]
        if step.life.facts.members[presence.node].revoked:
            continue
        step.record(LeaseRevoked(node=presence.node, lease_id=lease_id, message=why))
        step.life.watch.overdue.add(presence.node)
        if presence.stream is not None:
            step.effect(SendLeaseStale(presence.stream, why))
            presence.stream = None


def _remains_have_ended(step: Step) -> bool:
    """Every participant is gone; what their workers started is given its time, counted from the last of them."""
    watch, now_ms = step.life.watch, step.stamp.at_ms
    if watch.remains_until_ms is None:
        watch.remains_until_ms = now_ms + REMAINS_WAIT_MS
    return now_ms >= watch.remains_until_ms


def _rest(step: Step) -> bool:
    return False


SETTLE: Mapping[JobState, Callable[[Step], bool]] = {
    JobState.GATHERING: _gather,
    JobState.RECOVERING: _recover,
    JobState.RUNNING: _run,
    JobState.STOPPING: _stop,
    JobState.SUCCEEDED: _rest,
    JobState.FAILED: _rest,
    JobState.CANCELLED: _rest,
}
"""State -> take one step that is due; False if none is."""
