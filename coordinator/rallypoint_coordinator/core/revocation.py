"""Leases that are renewed no more, as their holders did not start or stop their workers in time."""

from __future__ import annotations

from rallypoint_coordinator.core.effects import SendLeaseStale
from rallypoint_coordinator.core.records import LeaseRevoked
from rallypoint_coordinator.core.step import Step


def revoke_overdue(step: Step) -> None:
    """Participants that do not stop in time are renewed no more: their own fence, or the lease's end, settles it."""
    life, now_ms = step.life, step.stamp.at_ms
    if life.watch.stop_deadline_ms is None or now_ms < life.watch.stop_deadline_ms:
        return
    life.watch.stop_deadline_ms = None
    life.watch.revoked_end_ms = max(map(life.watch.leases.of, life.watch.remaining))
    revoke(step, sorted(life.watch.remaining), "the workers were not stopped in time")


def revoke(step: Step, lease_ids: list[int], why: str) -> None:
    """These leases are renewed no more, and who holds them is told so; each is revoked once."""
    for lease_id in lease_ids:
        presence = step.life.presences[lease_id]
        if step.life.facts.members[presence.node].revoked:
            continue
        step.record(LeaseRevoked(node=presence.node, lease_id=lease_id, message=why))
        step.life.watch.course.overdue.add(presence.node)
        if presence.stream is not None:
            step.effect(SendLeaseStale(presence.stream, why))
            presence.stream = None
