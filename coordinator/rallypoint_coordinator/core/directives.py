"""What a member should do: a function of the durable facts alone, so it can be sent again at any time."""

from __future__ import annotations

from typing import NamedTuple

from rallypoint.model import (
    Action,
    Assignment,
    Directive,
    Drain,
    Exit,
    Hold,
    JobState,
    Keep,
    Run,
    Stop,
    Version,
)
from rallypoint_coordinator.core.records import Place
from rallypoint_coordinator.core.state import Facts, Member, Round


def version_for(facts: Facts, member: Member, epoch: int) -> Version:
    """The version of the member's directive."""
    return Version(epoch, revision_for(facts, member))


def revision_for(facts: Facts, member: Member) -> int:
    """Of the last record that changed the member's directive."""
    return max(facts.directive_revision, member.lease_id, member.directive_revision)


class Likeness(NamedTuple):
    """Members of one life that are alike in this are told the same, but for what names one of them."""

    revision: int
    has_place: bool
    drained_by: str
    consumed_offer_id: int


class SharedDirectives:
    """As long as the facts are the same: what was made for one member, for those that are alike."""

    __slots__ = ("_versions", "directives", "running")

    def __init__(self) -> None:
        self.directives: dict[Likeness, Directive] = {}
        self.running: tuple[str, str] | None = None
        """How what a participant is told begins, and how it ends; its ranks come in between."""
        self._versions: dict[int, Version] = {}

    def version(self, epoch: int, revision: int) -> Version:
        return self._versions.get(revision) or self._versions.setdefault(revision, Version(epoch, revision))


def directive_for(facts: Facts, member: Member, epoch: int, shared: SharedDirectives) -> Directive:
    """The member's directive; O(1) in the size of the job.

    All to whom the same is said get the very same object, of ``shared``: so it is made, and encoded, once.
    """
    revision, place = revision_for(facts, member), place_of(facts, member)
    if member.unkillable_pids or (place is not None and facts.state is JobState.RUNNING):
        version = shared.version(epoch, revision)
        return _directive(facts, member, version, place, shared)  # that names its node, or its ranks
    alike = Likeness(revision, place is not None, member.drained_by, member.consumed_offer_id)
    known = shared.directives.get(alike)
    if known is None:
        version = shared.version(epoch, revision)
        known = shared.directives[alike] = _directive(facts, member, version, place, shared)
    return known


def _directive(
    facts: Facts, member: Member, version: Version, place: Place | None, shared: SharedDirectives
) -> Directive:
    reason, message, action = _decide(facts, member, place, shared)
    return Directive(
        version=version,
        job_uid=facts.uid,
        reason=reason,
        message=message,
        action=action,
        consumed_offer_id=member.consumed_offer_id,
    )


def place_of(facts: Facts, member: Member) -> Place | None:
    """The member's place in the current or last round; None for another lease on the same node."""
    place = facts.round.places.get(member.node) if facts.round else None
    return place if place is not None and place.seat.lease_id == member.lease_id else None


def _decide(facts: Facts, member: Member, place: Place | None, shared: SharedDirectives) -> tuple[str, str, Action]:
    if facts.outcome is not None:
        return facts.outcome.reason, facts.outcome.message, Exit(facts.outcome)
    if member.drained_by:
        return "DRAINED", f"drained by {member.drained_by}", Drain(facts.spec.shutdown_timeout_ms)
    if facts.state == JobState.RECOVERING:
        return "RECOVERING", "the job's records are lost: keep what runs until its nodes are back", Keep()
    if member.unkillable_pids:
        return "QUARANTINED", describe_quarantine(member), Hold()
    current = facts.round
    if facts.state == JobState.GATHERING:
        return *_waiting(facts), Hold()
    if current is None or place is None:
        return "STANDBY", "standing by for a later round", Hold()
    if facts.state == JobState.STOPPING:
        cause = current.stop_cause.value if current.stop_cause else ""
        return cause, current.stop_message, Stop(current.number, facts.spec.shutdown_timeout_ms)
    return "ROUND_FORMED", _running(facts, current, place, shared), Run(_assignment(current, place))


def describe_quarantine(member: Member) -> str:
    """Why the node is held, for its agent and for people."""
    names = ", ".join(map(str, member.unkillable_pids))
    many = len(member.unkillable_pids) > 1
    what = f"processes {names} are" if many else f"process {names} is"
    return f"{member.node} is quarantined: {what} still there after SIGKILL"


def _waiting(facts: Facts) -> tuple[str, str]:
    if facts.hold is not None:
        return "HELD", facts.hold.told
    low, high = facts.spec.min_nodes, facts.spec.max_nodes
    wanted = f"{low}" if low == high else f"{low} to {high}"
    joined = facts.live_count - len(facts.unavailable)
    return "WAITING_FOR_NODES", f"waiting for nodes: {joined} joined, {wanted} wanted"


def _running(facts: Facts, current: Round, place: Place, shared: SharedDirectives) -> str:
    if shared.running is None:
        restarts = f"restart {current.restart_count} of {facts.spec.max_restarts}"
        shared.running = f"round {current.number}: rank", f" of {current.world_size}, {restarts}"
    begins, ends = shared.running
    first, count = place.first_rank, place.seat.local_world_size
    return f"{begins} {first}{ends}" if count == 1 else f"{begins}s {first}-{first + count - 1}{ends}"


def _assignment(current: Round, place: Place) -> Assignment:
    return Assignment(
        round=current.number,
        restart_count=current.restart_count,
        group_rank=place.group_rank,
        group_world_size=len(current.places),
        first_rank=place.first_rank,
        world_size=current.world_size,
        first_role_rank=place.first_role_rank,
        role_world_size=place.role_world_size,
        endpoint=current.endpoint,
        offer_id=current.offer_id if place.group_rank == 0 else 0,
    )
