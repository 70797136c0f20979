"""After a coordinator restart: what a life waits for, from its durable facts alone."""

from __future__ import annotations

from rallypoint.model import JobState
from rallypoint_coordinator.core import holding, lost_nodes, quarantine, recovery, starts
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.gathering import expected_back
from rallypoint_coordinator.core.membership import lease_expiry_ms
from rallypoint_coordinator.core.state import Life, Presence, Watch
from rallypoint_coordinator.core.stopping import await_participants


def rearm(life: Life, stamp: Stamp) -> None:
    """Every live lease gets a whole lease_ttl, and its state begins to wait anew. A hold goes on, by the wall clock."""
    now_ms = stamp.at_ms
    life.watch = Watch(gathering_since_ms=now_ms, course=lost_nodes.course_on_record(life))
    _rearm_leases(life, now_ms)
    quarantine.rearm(life)
    holding.rearm(life, stamp)
    _rearm_state(life, now_ms)


def _rearm_leases(life: Life, now_ms: int) -> None:
    for member in life.facts.members.values():
        if member.gone is None:
            expires_at_ms = lease_expiry_ms(life.facts.spec, now_ms, member.capabilities)
            life.presences[member.lease_id] = Presence(
                node=member.node, heartbeat_interval_ms=life.facts.spec.heartbeat_interval_ms, heard_at_ms=now_ms
            )
            life.watch.leases.set(member.lease_id, expires_at_ms)
            life.watch.heard[member.lease_id] = None


def _rearm_state(life: Life, now_ms: int) -> None:
    if life.facts.state is JobState.STOPPING:
        await_participants(life, now_ms)
        lost_nodes.await_lost(life, now_ms)
    elif life.facts.state is JobState.RUNNING:
        starts.await_starts(life, now_ms)
    elif life.facts.state is JobState.GATHERING:
        life.watch.expected = expected_back(life)
        lost_nodes.await_lost(life, now_ms)
    elif life.facts.state is JobState.RECOVERING:
        recovery.begin(life, now_ms)
