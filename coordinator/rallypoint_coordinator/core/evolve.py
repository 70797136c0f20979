"""How a record changes the durable facts of a life. This is all that replays: tiny, and never reinterprets old records.

:data:`TRANSITIONS` is the life's state machine. A record that has no cell in the state it comes in is an
:class:`IllegalTransition`: in a running coordinator a bug, in a journal damage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rallypoint.model import Capability, JobSpec, JobState
from rallypoint_coordinator.core import round_changes
from rallypoint_coordinator.core.places import places_of
from rallypoint_coordinator.core.records import (
    JobCancelled,
    JobDecided,
    JobHeld,
    JobReleased,
    JobUpdated,
    LeaseRevoked,
    LifeForgotten,
    LifeRecord,
    MemberGone,
    MemberJoined,
    NodeDrained,
    NodeExpelled,
    NodeReadmitted,
    NodeSucceeded,
    RecoveryBegan,
    RecoveryEnded,
    RestartAsked,
    RoundAdopted,
    RoundEnded,
    RoundFormed,
    RoundStopping,
)
from rallypoint_coordinator.core.state import Facts, Member, Round

GONE_NODES_MAX = 1_000
"""So many gone nodes are remembered in a life; the earliest gone is forgotten first."""

_MEMBERSHIP: dict[type[LifeRecord], tuple[JobState, ...]] = {MemberJoined: (), MemberGone: ()}
_RECOVERY: dict[type[LifeRecord], tuple[JobState, ...]] = {RecoveryBegan: (JobState.RECOVERING,)}
_REQUESTS: dict[type[LifeRecord], tuple[JobState, ...]] = {JobCancelled: (), NodeDrained: ()}
_CHANGES: dict[type[LifeRecord], tuple[JobState, ...]] = {JobUpdated: (), JobHeld: (), JobReleased: ()}
_QUARANTINE: dict[type[LifeRecord], tuple[JobState, ...]] = {NodeReadmitted: ()}

TRANSITIONS: Mapping[JobState, Mapping[type[LifeRecord], tuple[JobState, ...]]] = {
    JobState.GATHERING: {
        **_MEMBERSHIP,
        **_REQUESTS,
        **_CHANGES,
        **_QUARANTINE,
        **_RECOVERY,
        RoundFormed: (JobState.RUNNING,),
        JobDecided: (JobState.FAILED, JobState.CANCELLED),
        LifeForgotten: (),
    },
    JobState.RECOVERING: {
        **_MEMBERSHIP,
        **_CHANGES,
        **_QUARANTINE,
        JobCancelled: (),
        RecoveryBegan: (),
        RoundAdopted: (JobState.RUNNING,),
        RecoveryEnded: (JobState.GATHERING,),
        LifeForgotten: (),
    },
    JobState.RUNNING: {
        **_MEMBERSHIP,
        **_REQUESTS,
        **_CHANGES,
        **_QUARANTINE,
        **_RECOVERY,
        RestartAsked: (),
        NodeSucceeded: (),
        RoundStopping: (JobState.STOPPING,),
        JobDecided: (JobState.SUCCEEDED,),
    },
    JobState.STOPPING: {
        **_MEMBERSHIP,
        **_REQUESTS,
        **_CHANGES,
        **_QUARANTINE,
        NodeExpelled: (),
        LeaseRevoked: (),
        **_RECOVERY,
        RoundEnded: (JobState.GATHERING,),
    },
    JobState.SUCCEEDED: {**_MEMBERSHIP, LifeForgotten: ()},
    JobState.FAILED: {**_MEMBERSHIP, LifeForgotten: ()},
    JobState.CANCELLED: {**_MEMBERSHIP, LifeForgotten: ()},
}
"""State -> record -> next state, which an outcome chooses among several; none: it stays. What is missing is illegal."""

CHANGES_DIRECTIVES = frozenset(
    {RoundFormed, RoundStopping, RoundEnded, JobDecided, RecoveryBegan, RoundAdopted, RecoveryEnded}
)
"""Records after which every member is told something new."""


class IllegalTransition(Exception):
    """A record that the state machine has no cell for."""

    def __init__(self, facts: Facts, record: LifeRecord, why: str) -> None:
        super().__init__(f"job {facts.job} life {facts.uid}: {type(record).__name__} in {facts.state}: {why}")


def evolve(facts: Facts, record: LifeRecord, *, revision: int, wall_ms: int) -> None:
    """Apply one record in place. Raises IllegalTransition, and then has changed nothing."""
    kind = type(record)
    state = _next_state(facts, record)
    _APPLY[kind](facts, record, revision)
    facts.revision = revision
    facts.round_changes = round_changes.after(facts.round_changes, record, revision=revision, wall_ms=wall_ms)
    if kind in CHANGES_DIRECTIVES:
        facts.directive_revision = revision
    if state is not None:
        facts.state = state
        facts.state_wall_ms = wall_ms


def _next_state(facts: Facts, record: LifeRecord) -> JobState | None:
    """None: the state stays. Raises IllegalTransition."""
    targets = TRANSITIONS[facts.state].get(type(record))
    if targets is None:
        raise IllegalTransition(facts, record, "no such transition")
    if not isinstance(record, JobDecided):
        return targets[0] if targets else None
    if record.outcome.state not in targets:
        raise IllegalTransition(facts, record, f"cannot be decided as {record.outcome.state}")
    return record.outcome.state


def _member_joined(facts: Facts, record: MemberJoined, revision: int) -> None:
    earlier = facts.members.pop(record.node, None)
    facts.gone_nodes.pop(record.node, None)
    facts.unavailable.discard(record.node)
    facts.members[record.node] = Member(
        node=record.node,
        incarnation=record.incarnation,
        lease_id=revision,
        spec=record.spec,
        capabilities=record.capabilities,
        agent_version=record.agent_version,
        consumed_offer_id=max(earlier.consumed_offer_id if earlier else 0, record.consumed_offer_id),
    )


def _live_member(
    facts: Facts, record: LeaseRevoked | MemberGone | NodeDrained | NodeExpelled | NodeReadmitted
) -> Member:
    member = facts.members.get(record.node)
    if member is None or member.lease_id != record.lease_id or member.gone is not None:
        raise IllegalTransition(facts, record, "no such live lease")
    return member


def _lease_revoked(facts: Facts, record: LeaseRevoked, revision: int) -> None:
    _live_member(facts, record).revoked = record.message


def _member_gone(facts: Facts, record: MemberGone, revision: int) -> None:
    member = _live_member(facts, record)
    member.gone = record.reason
    member.gone_message = record.message
    facts.gone_nodes[record.node] = None
    facts.unavailable.discard(record.node)
    if len(facts.gone_nodes) > GONE_NODES_MAX:
        forgotten = next(iter(facts.gone_nodes))
        del facts.gone_nodes[forgotten]
        del facts.members[forgotten]


def _round_formed(facts: Facts, record: RoundFormed, revision: int) -> None:
    if record.round != facts.next_round:
        raise IllegalTransition(facts, record, f"round {record.round} instead of {facts.next_round}")
    _demand_within_bounds(facts, record)
    facts.round = Round(
        number=record.round,
        places=places_of(record.seats),
        world_size=sum(seat.local_world_size for seat in record.seats),
        endpoint=record.endpoint,
        offer_id=record.offer_id,
        restart_count=facts.restart_count,
        leaves_remains=any(
            Capability.KILLS_TREES not in facts.members[seat.node].capabilities for seat in record.seats
        ),
    )
    facts.members[record.seats[0].node].consumed_offer_id = record.offer_id


def _demand_within_bounds(facts: Facts, record: RoundFormed) -> None:
    """By the spec in force now: a later one may have other bounds, and the round goes on."""
    low, high = facts.spec.min_nodes, facts.spec.max_nodes
    if not low <= len(record.seats) <= high:
        raise IllegalTransition(facts, record, f"{len(record.seats)} nodes of {low} to {high}")


def _recovery_began(facts: Facts, record: RecoveryBegan, revision: int) -> None:
    facts.recovery_epoch = max(facts.recovery_epoch, record.epoch)
    facts.round_floor = max(facts.round_floor, record.round)
    _spent_at_least(facts, record.restart_count)
    if facts.state is not JobState.RECOVERING:
        # What followed on it is lost: an agent that was in time again since then may run a later round.
        for member in facts.members.values():
            member.revoked = "" if member.gone is None else member.revoked


def _round_adopted(facts: Facts, record: RoundAdopted, revision: int) -> None:
    earlier = facts.round
    if earlier is not None and record.round < earlier.number + earlier.ended:
        raise IllegalTransition(facts, record, f"round {earlier.number} is known, ended: {earlier.ended}")
    places = {place.seat.node: place for place in record.places}
    facts.round = Round(
        number=record.round,
        places=places,
        world_size=record.world_size,
        endpoint=record.endpoint,
        offer_id=record.offer_id,
        restart_count=record.restart_count,
        succeeded=earlier.succeeded & places.keys() if earlier is not None and earlier.is_that_of(record) else set(),
        leaves_remains=any(
            node in facts.members and Capability.KILLS_TREES not in facts.members[node].capabilities for node in places
        ),
    )
    _spent_at_least(facts, record.restart_count)
    holder = facts.members.get(record.offer_node)
    if holder is not None:
        holder.consumed_offer_id = max(holder.consumed_offer_id, record.offer_id)


def _spent_at_least(facts: Facts, restart_count: int) -> None:
    """So many were allowed, then, whatever is known of that."""
    facts.restart_count = max(facts.restart_count, restart_count)
    if facts.restart_count > facts.spec.max_restarts:
        _put_in_force(facts, replace(facts.spec, max_restarts=facts.restart_count))


def _put_in_force(facts: Facts, spec: JobSpec) -> None:
    agreed = facts.agreed_spec
    facts.spec, facts.replaced_spec = spec, agreed if spec != agreed else None


def _recovery_ended(facts: Facts, record: RecoveryEnded, revision: int) -> None:
    if facts.round is not None and not facts.round.ended:
        raise IllegalTransition(facts, record, f"round {facts.round.number} has not ended")


def _round_of(facts: Facts, record: NodeSucceeded | RoundStopping | NodeExpelled | RoundEnded) -> Round:
    if facts.round is None or facts.round.number != record.round:
        raise IllegalTransition(facts, record, f"the round is {facts.round_number}")
    return facts.round


def _node_succeeded(facts: Facts, record: NodeSucceeded, revision: int) -> None:
    _round_of(facts, record).succeeded.add(record.node)


def _round_stopping(facts: Facts, record: RoundStopping, revision: int) -> None:
    current = _round_of(facts, record)
    current.stop_cause = record.cause
    current.stop_message = record.message
    current.stop_revision, current.stop_epoch = revision, record.epoch


def _round_ended(facts: Facts, record: RoundEnded, revision: int) -> None:
    current = _round_of(facts, record)
    known = (record.culprit, *record.others) if record.culprit else record.others
    current.ended, current.failures = True, tuple(replace(failure, traceback="") for failure in known)
    if record.charged:
        facts.restart_count += 1
    if record.culprit is not None:
        facts.last_failure = record.culprit


def _job_cancelled(facts: Facts, record: JobCancelled, revision: int) -> None:
    facts.cancelled_by = record.told or record.by


def _restart_asked(facts: Facts, record: RestartAsked, revision: int) -> None:
    """It is there to say who asked; what it leads to has a record of its own."""


def _node_drained(facts: Facts, record: NodeDrained, revision: int) -> None:
    member = _live_member(facts, record)
    member.drained_by = record.told or record.by
    member.directive_revision = revision
    facts.unavailable.add(record.node)


def _job_updated(facts: Facts, record: JobUpdated, revision: int) -> None:
    in_force = replace(
        facts.spec, min_nodes=record.min_nodes, max_nodes=record.max_nodes, max_restarts=record.max_restarts
    )
    _put_in_force(facts, in_force)
    facts.labels = record.labels
    _tell_if_gathering(facts, revision)


def _job_held(facts: Facts, record: JobHeld, revision: int) -> None:
    facts.hold = record
    _tell_if_gathering(facts, revision)


def _job_released(facts: Facts, record: JobReleased, revision: int) -> None:
    if facts.hold is None:
        raise IllegalTransition(facts, record, "it is not held")
    facts.hold = None
    _tell_if_gathering(facts, revision)


def _tell_if_gathering(facts: Facts, revision: int) -> None:
    """Then members are told what is waited for; else what they do goes on as it was."""
    if facts.state is JobState.GATHERING:
        facts.directive_revision = revision


def _node_expelled(facts: Facts, record: NodeExpelled, revision: int) -> None:
    _round_of(facts, record)
    member = _live_member(facts, record)
    member.unkillable_pids = record.pids
    member.directive_revision = revision
    facts.unavailable.add(record.node)


def _node_readmitted(facts: Facts, record: NodeReadmitted, revision: int) -> None:
    member = _live_member(facts, record)
    member.unkillable_pids = ()
    member.directive_revision = revision
    if not member.is_unavailable:
        facts.unavailable.discard(record.node)


def _job_decided(facts: Facts, record: JobDecided, revision: int) -> None:
    facts.outcome = record.outcome
    facts.hold = None


def _life_forgotten(facts: Facts, record: LifeForgotten, revision: int) -> None:
    """The cluster drops the whole life; here it only has to be legal."""


_APPLY: Mapping[type[LifeRecord], Callable[[Facts, Any, int], None]] = {
    MemberJoined: _member_joined,
    LeaseRevoked: _lease_revoked,
    MemberGone: _member_gone,
    RecoveryBegan: _recovery_began,
    RoundAdopted: _round_adopted,
    RecoveryEnded: _recovery_ended,
    RoundFormed: _round_formed,
    NodeSucceeded: _node_succeeded,
    RoundStopping: _round_stopping,
    RoundEnded: _round_ended,
    JobCancelled: _job_cancelled,
    RestartAsked: _restart_asked,
    NodeDrained: _node_drained,
    JobUpdated: _job_updated,
    JobHeld: _job_held,
    JobReleased: _job_released,
    NodeExpelled: _node_expelled,
    NodeReadmitted: _node_readmitted,
    JobDecided: _job_decided,
    LifeForgotten: _life_forgotten,
}
