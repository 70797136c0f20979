"""Who was lost in a round: what their loss excuses, and who may come back and is waited for."""

from __future__ import annotations

from rallypoint_coordinator.core.directives import place_of
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.records import GoneReason
from rallypoint_coordinator.core.round_changes import Onset, arrived, arrived_late
from rallypoint_coordinator.core.state import Course, Life, Member, Presence, Round
from rallypoint_coordinator.core.step import Step


def note_loss(step: Step, member: Member) -> None:
    """A lost node may come back, if the job wants to wait for that; one that left will not."""
    if member.gone is GoneReason.LEFT:
        return
    step.life.watch.course.lost.add(member.node)
    if step.life.facts.spec.rejoin_wait_ms:
        step.life.watch.awaited[member.node] = None


def onset_of_loss(member: Member, presence: Presence | None, stamp: Stamp) -> Onset:
    """When contact with a member that is gone was lost; who said goodbye was not lost.

    The kernel ends the stream of an agent that dies, and the obituary follows. A machine that dies ends nothing: it was
    heard last before.
    """
    if member.gone is GoneReason.LEFT:
        return arrived(stamp)
    happened_ms = None
    if presence is not None and member.gone is GoneReason.OBITUARY:
        happened_ms = presence.closed_at_ms if presence.stream is None and presence.closed_at_ms else None
    elif presence is not None and presence.heard_wall_ms:
        happened_ms = presence.heard_at_ms
    return arrived_late(stamp, happened_ms)


def lost_in(current: Round, life: Life) -> list[str]:
    """The participants whose loss the others may have noticed."""
    course = life.watch.course
    unknown = [] if current.is_whole else ["a node that did not come back"]
    return unknown + [
        node
        for node in current.places
        if node in course.lost and node not in current.succeeded and node not in course.overdue
    ]


def await_lost(life: Life, now_ms: int) -> None:
    """A coordinator that started anew waits for them from its start on: when they were lost is not known."""
    watch, current = life.watch, life.facts.round
    if life.facts.spec.rejoin_wait_ms and current is not None:
        lost = lost_before(life) - current.succeeded
        watch.awaited = {node: None for node in current.places if node in lost}
        watch.rejoin_ends_ms = now_ms + life.facts.spec.rejoin_wait_ms


def lost_before(life: Life) -> set[str]:
    """What a coordinator that started anew knows of the participants that were lost before."""
    return {member.node for member in _seated(life) if member.gone not in (None, GoneReason.LEFT)}


def begin_course(life: Life, *, goes_on: bool) -> None:
    """A round is adopted: what was noted of another says nothing. ``goes_on``: it is the one that ran before."""
    failures = life.watch.course.failures
    life.watch.course = course_on_record(life)
    if goes_on:
        life.watch.course.failures = failures


def course_on_record(life: Life) -> Course:
    """How the round went, as far as the records tell: what failed in it they do not."""
    return Course(lost=lost_before(life), overdue={member.node for member in _seated(life) if _was_late(member)})


def _was_late(member: Member) -> bool:
    """Whether it did not start or stop in time. Older journals say so of a revoked one only once its lease is over."""
    return bool(member.revoked or member.unkillable_pids) or member.gone is GoneReason.REVOKED


def _seated(life: Life) -> list[Member]:
    """The holders of the current or last round's leases, those that are gone included."""
    current, members = life.facts.round, life.facts.members
    if current is None:
        return []
    seated = (members.get(node) for node in current.places)
    return [member for member in seated if member is not None and place_of(life.facts, member) is not None]
