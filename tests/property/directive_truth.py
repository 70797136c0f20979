"""What each agent must have been told, worked out from the records alone: C1, C3, C6, C9 and level-triggering."""

from __future__ import annotations

from property.demand import demand
from property.lease_truth import LeaseTruth
from property.round_truth import LifeTruth, RoundTruth
from rallypoint.model import Action, Assignment, Directive, Drain, Exit, Hold, Keep, Run, Stop, Version


def expected_action(life: LifeTruth, lease: LeaseTruth) -> Action:
    """What the agent of a live lease should do now."""
    if life.outcome is not None:
        return Exit(life.outcome)
    if lease.drained:
        return Drain(life.spec.shutdown_timeout_ms)
    if life.recovering:
        return Keep()
    if lease.expelled:
        return Hold()
    current = life.current
    if current is None or not current.seats_lease(lease):
        return Hold()
    if current.stopping is not None:
        return Stop(current.formed.round, life.spec.shutdown_timeout_ms)
    return Run(expected_assignment(current, lease.node))


def expected_assignment(current: RoundTruth, node: str) -> Assignment:
    """A node's place, from the order of the seats alone."""
    seats = current.formed.seats
    before = seats[: current.nodes.index(node)]
    role = seats[len(before)].role
    return Assignment(
        round=current.formed.round,
        restart_count=current.restart_count,
        group_rank=len(before),
        group_world_size=len(seats),
        first_rank=sum(seat.local_world_size for seat in before),
        world_size=sum(seat.local_world_size for seat in seats),
        first_role_rank=sum(seat.local_world_size for seat in before if seat.role == role),
        role_world_size=sum(seat.local_world_size for seat in seats if seat.role == role),
        endpoint=current.formed.endpoint,
        offer_id=0 if before else current.formed.offer_id,
    )


class Told:
    """The directives that went out, by lease."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, Directive]] = {}

    def went_out(self, lease: LeaseTruth, directive: Directive, stream: int, durable: Version) -> None:
        demand(directive.version <= durable, "C6", f"{directive} is said when {durable} is durable")
        demand(directive.job_uid == lease.uid, "C2", f"{lease} is told {directive}")
        _, before = self._last.get(lease.lease_id, (0, None))
        if before is not None:
            demand(directive.version >= before.version, "C1", f"{directive} after {before}")
            same = (before.action, before.reason) == (directive.action, directive.reason)
            demand(same or directive.version > before.version, "C1", f"{directive} has the version of {before}")
        self._last[lease.lease_id] = stream, directive

    def check(self, life: LifeTruth, lease: LeaseTruth) -> None:
        """The newest directive on the open stream says what is to be done now."""
        stream, directive = self._last.get(lease.lease_id, (0, None))
        expected = expected_action(life, lease)
        demand(stream == lease.stream and directive is not None, "C9", f"{lease} was told nothing, not {expected}")
        assert directive is not None
        demand(directive.action == expected, _id(expected), f"{lease} was told {directive}, not {expected}")
        used = life.consumed.get(lease.node, 0)
        demand(directive.consumed_offer_id == used, "C10", f"{directive}, used was {used}")


def _id(expected: Action) -> str:
    return "C9" if isinstance(expected, Exit) else "C3"
