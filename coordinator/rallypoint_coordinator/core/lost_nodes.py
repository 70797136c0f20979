"""Who was lost in a round: what their loss excuses, and who may come back and is waited for."""

from __future__ import annotations

from rallypoint_coordinator.core.directives import place_of
from rallypoint_coordinator.core.records import GoneReason
from rallypoint_coordinator.core.state import Life, Member, Round
from rallypoint_coordinator.core.step import Step


def note_loss(step: Step, member: Member) -> None:
    """A lost node may come back, if the job wants to wait for that; one that left will not."""
    if member.gone is GoneReason.LEFT:
        return
    step.life.watch.lost.add(member.node)
    if step.life.facts.spec.rejoin_wait_ms:
        step.life.watch.awaited[member.node] = None


def lost_in(current: Round, life: Life) -> list[str]:
    """The participants whose loss the others may have noticed."""
    watch = life.watch
    unknown = [] if current.is_whole else ["a node that did not come back"]
    return unknown + [
        node
        for node in current.places
        if node in watch.lost and node not in current.succeeded and node not in watch.overdue
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
