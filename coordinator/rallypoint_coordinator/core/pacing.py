"""How often an agent is to heartbeat: more rarely the larger the fleet, as far as its lease allows."""

from __future__ import annotations

from rallypoint.model import JobSpec

HEARTBEATS_PER_S = 1_000
"""So many of all agents together: a quarter of a core, most of it gRPC's.

While a fleet joins or re-forms, they compete with what it waits for.
"""


def heartbeat_interval_ms(spec: JobSpec, fleet: int) -> int:
    """What to issue to an agent of the job. ``fleet``: how many agents of all jobs are attached to the coordinator.

    An agent keeps what it was issued until it attaches again, so a job is taken for as large as it may become: the
    first of ten thousand are not to go on as if they had remained alone.
    """
    paced_ms = max(fleet, spec.max_nodes) * 1000 // HEARTBEATS_PER_S
    return min(max(paced_ms, spec.heartbeat_interval_ms), spec.longest_heartbeat_interval_ms)
