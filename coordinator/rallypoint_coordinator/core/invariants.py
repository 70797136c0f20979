"""What must be true of a life after every step, checked in O(n). The ids are those of the design."""

from __future__ import annotations

from rallypoint.model import JobState
from rallypoint_coordinator.core.state import Facts, Life, Round


class InvariantViolation(Exception):
    """The machine is wrong. ``invariant`` is the id of what does not hold."""

    def __init__(self, invariant: str, facts: Facts, message: str) -> None:
        super().__init__(f"{invariant}: job {facts.job} life {facts.uid} in {facts.state}: {message}")
        self.invariant = invariant


def check(life: Life) -> None:
    """Raise InvariantViolation unless the life is as it must be between two steps."""
    _counters(life.facts)
    _leases(life)
    _state(life.facts)
    if life.facts.round is not None:
        _seats(life.facts, life.facts.round)
    _waiting(life)


def _demand(condition: bool, invariant: str, facts: Facts, message: str) -> None:
    if not condition:
        raise InvariantViolation(invariant, facts, message)


def _counters(facts: Facts) -> None:
    highest_lease = max((member.lease_id for member in facts.members.values()), default=0)
    _demand(facts.directive_revision <= facts.revision, "C1", facts, "directives are ahead of the records")
    _demand(highest_lease <= facts.revision, "C1", facts, f"lease {highest_lease} is ahead of the records")
    within_budget = 0 <= facts.restart_count <= facts.spec.max_restarts
    _demand(within_budget, "C5", facts, f"restart {facts.restart_count} of {facts.spec.max_restarts}")


def _leases(life: Life) -> None:
    """One member for each node, one presence for each live lease, and gone is what the sets say."""
    facts = life.facts
    live = {member.lease_id: member.node for member in facts.members.values() if member.gone is None}
    gone = {member.node for member in facts.members.values() if member.gone is not None}
    present = {lease_id: presence.node for lease_id, presence in life.presences.items()}
    _demand(live == present, "C2", facts, f"live leases {live}, presences {present}")
    unavailable = {member.node for member in facts.members.values() if member.is_unavailable}
    _demand(unavailable == facts.unavailable, "C2", facts, f"unavailable {unavailable}, noted {facts.unavailable}")
    _demand(gone == facts.gone_nodes.keys(), "C2", facts, f"gone {gone}, noted {list(facts.gone_nodes)}")
    keyed = all(node == member.node for node, member in facts.members.items())
    _demand(keyed, "C2", facts, "a member is filed under another node")


def _state(facts: Facts) -> None:
    decided = facts.outcome is not None
    _demand(decided == facts.state.is_decided, "C9", facts, f"the outcome is {facts.outcome}")
    runs = facts.round is not None and not facts.round.ended
    if facts.state in (JobState.RUNNING, JobState.STOPPING):
        _demand(runs, "C3", facts, "there is no round")
    if facts.state is JobState.GATHERING:
        _demand(not runs, "C4", facts, "the last round has not ended")
    stopping = facts.round is not None and facts.round.stop_cause is not None and not facts.round.ended
    if facts.state is not JobState.RECOVERING:
        _demand(stopping == (facts.state is JobState.STOPPING), "C4", facts, "a round is stopping, or is not")


def _seats(facts: Facts, current: Round) -> None:
    """Ranks are 0..n-1 in the order of the seats, contiguous on each node.

    How many nodes it has is demanded of its record, by the spec in force then: :mod:`.evolve`.
    """
    if not current.is_whole:
        _adopted_in_part(facts, current)
        return
    next_rank = 0
    for group_rank, (node, place) in enumerate(current.places.items()):
        fits = (place.seat.node, place.group_rank, place.first_rank) == (node, group_rank, next_rank)
        _demand(fits, "C3", facts, f"{node} has {place}, expected group rank {group_rank}, rank {next_rank}")
        next_rank += place.seat.local_world_size
    _demand(current.world_size == next_rank, "C3", facts, f"{current.world_size} ranks said, {next_rank} given")
    _demand(current.succeeded <= current.places.keys(), "C3", facts, "a node succeeded that has no place")
    _price(facts, current)
    rank_0 = next(iter(current.places.values())).seat
    holder = facts.members.get(rank_0.node)
    consumed = holder is None or holder.lease_id != rank_0.lease_id or holder.consumed_offer_id >= current.offer_id
    _demand(consumed, "C10", facts, f"offer {current.offer_id} of {rank_0.node} can be used again")


def _price(facts: Facts, current: Round) -> None:
    """A recovery may have learned of restarts that the round on record did not know of."""
    charged = facts.restart_count - current.restart_count
    fits = charged in (0, int(current.ended)) or (charged > 0 and facts.recovery_epoch > 0)
    _demand(fits, "C5", facts, f"round {current.number} spent {charged} restarts")


def _adopted_in_part(facts: Facts, current: Round) -> None:
    """Only a recovery makes such a round, and only to end it. What is known of the ranks is in order."""
    ends = facts.state in (JobState.STOPPING, JobState.RECOVERING) or current.ended
    _demand(facts.recovery_epoch > 0 and ends, "C3", facts, f"round {current.number} runs with places missing")
    ranks = [place.group_rank for place in current.places.values()]
    _demand(ranks == sorted(set(ranks)), "C3", facts, f"group ranks {ranks}")
    _price(facts, current)


def _waiting(life: Life) -> None:
    """Only live leases are waited for, and never without end."""
    facts, watch = life.facts, life.watch
    _demand(watch.ready <= life.presences.keys(), "C2", facts, f"ready without a lease: {watch.ready}")
    _demand(watch.remaining <= life.presences.keys(), "C4", facts, f"waiting for the gone: {watch.remaining}")
    _demand(facts.hold is None or watch.hold_ends_ms is not None, "C8", facts, "held without end")
    if facts.state is JobState.GATHERING:
        _demand(watch.until_ms is not None, "C8", facts, "gathering without end")
    recovers = facts.state is JobState.RECOVERING
    _demand(recovers == (watch.claims is not None), "C8", facts, "claims outside of a recovery, or none in it")
    if recovers:
        _demand(watch.until_ms == watch.recovery_ends_ms, "C8", facts, "recovering without end")
    if facts.state is JobState.STOPPING:
        waits = bool(watch.remaining) or watch.remains_until_ms is not None
        _demand(waits, "C8", facts, "everybody is gone, the round has not ended")
        ends = watch.leases.next_ms() is not None or watch.remains_until_ms is not None
        _demand(ends, "C8", facts, "stopping without end")
    else:
        _demand(not watch.remaining, "C4", facts, f"waiting for {watch.remaining}")
    starts = facts.state is JobState.RUNNING and watch.start_deadline_ms is not None
    _demand(starts == bool(watch.starting), "C8", facts, f"waiting for {watch.starting} to start, or not")
    _demand(watch.starting <= life.presences.keys(), "C8", facts, f"waiting for the gone to start: {watch.starting}")
    held = {member.lease_id for member in facts.members.values() if member.unkillable_pids and member.gone is None}
    _demand(watch.quarantined == held, "C4", facts, f"quarantined are {held}, noted {watch.quarantined}")
    _demand(not watch.ready & held, "C4", facts, f"a quarantined member is ready: {watch.ready & held}")
