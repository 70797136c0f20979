"""What the agents hold of a life whose records are lost, and when that is enough to go on with.

An agent *claims* the round that it ran last: it says the assignment that it was told. A round is *whole* if there is
one claim for each place, and they agree. A claim with live workers proves more: rounds never overlap, so no later round
can have begun. So a whole round with live workers is adopted at once. Otherwise the life waits for one lease, after
which nobody who is not here can have workers; then the newest round is adopted as far as it is known.
"""

from __future__ import annotations

from rallypoint.model import NO_ROUND, Assignment, Hello, WorkerFailure
from rallypoint.texts import counted
from rallypoint.values import dataclass
from rallypoint_coordinator.core.claims import Claim, ClaimedRound, Claims, RoundKey
from rallypoint_coordinator.core.failures import SHORT_TRACEBACK_BYTES, shortened
from rallypoint_coordinator.core.membership import SELF_FENCING, lease_expiry_ms
from rallypoint_coordinator.core.records import Place, RecoveryBegan, RoundAdopted
from rallypoint_coordinator.core.rendezvous import seat_of
from rallypoint_coordinator.core.state import Facts, Life, Member, Presence, Round


def claim_of(member: Member, presence: Presence) -> Claim | None:
    """What the member's last report claims; None if it holds no round.

    How many nodes it has, and how many restarts were spent, may be outside of the spec: what an operator had changed of
    that is lost as well.
    """
    report = presence.observed
    held = report.assignment
    if held is None or held.round != report.round:
        return None
    # What SIGKILL does not end proves nothing: the next round does not wait for it.
    is_live = report.phase.may_have_workers and not report.unkillable_pids
    return Claim(_key_of(held), _place_of(held, member), is_live, held.offer_id)


def _key_of(held: Assignment) -> RoundKey:
    return RoundKey(held.round, held.restart_count, held.group_world_size, held.world_size, held.endpoint)


def _place_of(held: Assignment, member: Member) -> Place:
    return Place(
        seat=seat_of(member),
        group_rank=held.group_rank,
        first_rank=held.first_rank,
        first_role_rank=held.first_role_rank,
        role_world_size=held.role_world_size,
    )


# --- the beginning


def beginning(facts: Facts, hello: Hello, epoch: int) -> RecoveryBegan | None:
    """What a Hello from a lost history begins; None if the life is being recovered already, or was since then."""
    held = hello.observed.assignment
    round_number = max(hello.observed.round, held.round if held is not None else NO_ROUND)
    restart_count = held.restart_count if held is not None else 0
    known = round_number < facts.next_round and restart_count <= facts.restart_count
    if facts.outcome is not None or (known and hello.highest_version.epoch < facts.recovery_epoch):
        return None
    return RecoveryBegan(
        epoch=epoch,
        round=round_number if round_number >= facts.next_round else NO_ROUND,
        restart_count=restart_count if restart_count > facts.restart_count else 0,
    )


def begin(life: Life, now_ms: int) -> None:
    """Look at the members anew: what they hold counts, and nothing else is waited for."""
    watch = life.watch
    watch.claims = Claims()
    watch.recovery_ends_ms = lease_expiry_ms(life.facts.spec, now_ms, SELF_FENCING)
    watch.remaining.clear()
    watch.awaited.clear()
    watch.expected.clear()
    watch.starting.clear()
    watch.last_call_ends_ms = watch.scale_up_at_ms = watch.start_deadline_ms = None
    watch.stop_deadline_ms = watch.revoked_end_ms = watch.remains_until_ms = None
    for node in life.facts.round.succeeded if life.facts.round is not None else ():
        forget(life, node)
    for presence in life.presences.values():
        note(life, life.facts.members[presence.node], presence)


def note(life: Life, member: Member, presence: Presence) -> None:
    """The member said what it has. O(1)."""
    claim = claim_of(member, presence)
    if claim is None:
        forget(life, member.node)
    else:
        _claims(life).put(claim)


def forget(life: Life, node: str) -> None:
    """Nobody claims anything for the node, but that a success is on record for it."""
    current = life.facts.round
    if current is not None and current.is_whole and node in current.succeeded:
        _claims(life).put(_recorded(current, current.places[node]))
    else:
        _claims(life).drop(node)


def _recorded(current: Round, place: Place) -> Claim:
    """What the node would say that has this place in the round on record."""
    key = RoundKey(current.number, current.restart_count, len(current.places), current.world_size, current.endpoint)
    return Claim(key, place, is_live=False, offer_id=current.offer_id if place.group_rank == 0 else 0)


def _claims(life: Life) -> Claims:
    assert life.watch.claims is not None, "a life that is being recovered has claims"
    return life.watch.claims


def in_short(failures: tuple[WorkerFailure, ...]) -> tuple[WorkerFailure, ...]:
    """What is kept of an agent's failures until it is known which round they are of."""
    return tuple(shortened(failure, SHORT_TRACEBACK_BYTES) for failure in failures)


# --- the end


@dataclass(frozen=True, slots=True)
class Adopt:
    """This round goes on. ``missing``: why it has to be ended at once, "" if it need not."""

    record: RoundAdopted
    missing: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Nobody holds a round that could go on."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody may still come."""


def consider(life: Life, now_ms: int) -> Adopt | Abandon | Wait:
    """Decide what the recovery does now. O(1), but for the step that ends it."""
    facts, claims = life.facts, _claims(life)
    first_round = first_adoptable(facts)
    found = claims.whole_and_live(first_round)
    if found is None and now_ms < life.watch.recovery_ends_ms:
        return Wait()
    found = found or claims.newest(first_round)
    if found is not None:
        return Adopt(_adoption(life, found), _missing(found))
    current = facts.round
    if current is None or current.ended:
        return Abandon()
    return Adopt(_own_again(facts), f"no node of round {current.number} came back")


def first_adoptable(facts: Facts) -> int:
    """No round below it can be the newest one, whoever claims it."""
    return facts.round_number + (facts.round is not None and facts.round.ended)


def _adoption(life: Life, found: ClaimedRound) -> RoundAdopted:
    offer_node, offer_id = _offer_of(life, found)
    return RoundAdopted(
        round=found.key.round,
        restart_count=found.key.restart_count,
        places=found.places,
        world_size=found.key.world_size,
        endpoint=found.key.endpoint,
        offer_node=offer_node,
        offer_id=offer_id,
    )


def _offer_of(life: Life, found: ClaimedRound) -> tuple[str, int]:
    """Whose offer the round used: its node says so, or still offers the port, if it never saw the round."""
    for node, claim in found.claims.items():
        if claim.place.group_rank == 0:
            return node, claim.offer_id
    for presence in life.presences.values():
        offer = presence.observed.offer
        if offer is not None and offer.endpoint == found.key.endpoint:
            return presence.node, offer.offer_id
    return "", 0


def _missing(found: ClaimedRound) -> str:
    if found.is_whole:
        return ""
    back, all_nodes = len(found.places), found.key.group_world_size
    return f"{back} of {counted(all_nodes, 'node')} of round {found.key.round} came back after the records were lost"


def _own_again(facts: Facts) -> RoundAdopted:
    """The round that the journal knows, of which nobody has said anything."""
    current = facts.round
    assert current is not None
    places = tuple(current.places.values())
    return RoundAdopted(
        round=current.number,
        restart_count=current.restart_count,
        places=places,
        world_size=current.world_size,
        endpoint=current.endpoint,
        offer_node=places[0].seat.node if places[0].group_rank == 0 else "",
        offer_id=current.offer_id,
    )


# --- after it


def withdraw_offer(life: Life, node: str) -> None:
    """The port that the adopted round used is offered for no other."""
    holder = life.facts.members.get(node)
    presence = life.presences.get(holder.lease_id) if holder is not None else None
    offer = presence.observed.offer if presence is not None else None
    if holder is not None and offer is not None and offer.offer_id <= holder.consumed_offer_id:
        life.watch.ready.discard(holder.lease_id)


def of_other_rounds(life: Life, current: Round) -> set[int]:
    """Members that brought workers of a round other than the adopted one: they are told to end them."""
    return {
        lease_id
        for lease_id, presence in life.presences.items()
        if presence.node not in current.places
        and presence.observed.phase.may_have_workers
        and not presence.observed.unkillable_pids
    }
