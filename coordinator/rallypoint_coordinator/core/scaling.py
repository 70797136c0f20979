"""Taking in nodes that arrive while a round runs."""

from __future__ import annotations

from rallypoint.model import ScaleUp
from rallypoint_coordinator.core.state import Facts, Member, Watch


def can_grow(facts: Facts, arrived: int) -> bool:
    """Whether the running round can be formed anew with so many more. Once a node has succeeded the job only shrinks.

    It must not end for one that may not be formed: of a job that is held, or whose min_nodes an operator has raised
    above all who are there.
    """
    current, spec = facts.round, facts.spec
    if current is None or current.succeeded or facts.hold is not None:
        return False
    return len(current.places) < spec.max_nodes and len(current.places) + arrived >= spec.min_nodes


def arrival(facts: Facts, watch: Watch, now_ms: int) -> None:
    """A node is ready that has no place: note when it is to be taken in, if nothing is noted yet."""
    spec = facts.spec
    if not can_grow(facts, len(watch.ready)) or spec.scale_up is ScaleUp.ON_RESTART or watch.scale_up_at_ms is not None:
        return
    watch.arrival_ms = now_ms
    delay_ms = spec.scale_up_delay_ms if spec.scale_up is ScaleUp.AFTER else 0
    watch.scale_up_at_ms = now_ms + delay_ms


def look_for_arrivals(facts: Facts, watch: Watch, now_ms: int) -> None:
    """There may be room now where there was none: who stands by arrives now. O(n)."""
    if any(_waits(facts, watch, member) for member in facts.members.values()):
        arrival(facts, watch, now_ms)


def _waits(facts: Facts, watch: Watch, member: Member) -> bool:
    """Whether the member stands by, ready to take part."""
    return facts.round is not None and member.lease_id in watch.ready and member.node not in facts.round.places


def due(facts: Facts, watch: Watch, now_ms: int) -> str | None:
    """Why the round is to be ended now, so that it can be formed anew with those that arrived; None: it is not.

    O(1) until something is due, then O(n): who arrived may have gone again.
    """
    if watch.scale_up_at_ms is None or now_ms < watch.scale_up_at_ms:
        return None
    watch.scale_up_at_ms = None
    arrived = [member.node for member in facts.members.values() if _waits(facts, watch, member)]
    if not arrived or not can_grow(facts, len(arrived)):
        return None
    return f"{arrived[0]} joined" if len(arrived) == 1 else f"{len(arrived)} nodes joined"
