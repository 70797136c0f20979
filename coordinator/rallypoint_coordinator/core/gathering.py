"""GATHERING: the members that are ready form the next round, or the wait for them ends in vain."""

from __future__ import annotations

from rallypoint.model import JobState, Outcome
from rallypoint_coordinator.core import rendezvous, starts
from rallypoint_coordinator.core.records import JobDecided, RoundFormed, StopCause
from rallypoint_coordinator.core.state import Course, Facts, Life
from rallypoint_coordinator.core.step import Step


def gather_anew(life: Life, now_ms: int) -> None:
    """A gathering begins: known members are waited for a moment, lost ones as long as the job wants it."""
    watch = life.watch
    watch.gathering_since_ms = now_ms
    watch.stop_deadline_ms = watch.revoked_end_ms = watch.remains_until_ms = None
    watch.expected = expected_back(life)
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


def gather(step: Step) -> bool:
    """Form the round, or give up waiting for it. False: neither is due."""
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
    life.watch.course = Course()
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
    life.watch.is_spawning = True
