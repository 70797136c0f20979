"""What agents are told: nothing before it is durable (C6), and all of a round the same (C1, C3)."""

from __future__ import annotations

from rallypoint.model import Assignment, Directive, Exit, Run, Welcome
from simulation.network import Down
from simulation.oracle_journal import JournalOracle, LifeTruth, RoundTruth
from simulation.world import Violation


class WireOracle:
    """Sees each message when it reaches an agent."""

    def __init__(self, journal: JournalOracle) -> None:
        self._journal = journal

    def delivered(self, node: str, incarnation: str, message: Down) -> None:
        if isinstance(message, Welcome):
            self._welcome(node, incarnation, message)
        elif isinstance(message, Directive):
            self._directive(node, message)

    def _welcome(self, node: str, incarnation: str, welcome: Welcome) -> None:
        lease = self._journal.leases.get(welcome.lease_id)
        if lease is None:
            raise Violation("C6", f"{incarnation} is given lease {welcome.lease_id}, which is not durable")
        if (lease.node, lease.incarnation) != (node, incarnation):
            raise Violation("C2", f"{incarnation} is given lease {welcome.lease_id} of {lease.incarnation}")

    def _directive(self, node: str, directive: Directive) -> None:
        if directive.version.revision > self._journal.revision:
            raise Violation("C6", f"{node} is told {directive}, durable is {self._journal.revision}")
        life = self._journal.lives[directive.job_uid]
        if isinstance(directive.action, Exit) and directive.action.outcome != life.outcome:
            raise Violation("C9", f"{node} is told {directive.action.outcome}, the outcome is {life.outcome}")
        if isinstance(directive.action, Run):
            self._assignment(node, life, directive.action.assignment)

    def _assignment(self, node: str, life: LifeTruth, assignment: Assignment) -> None:
        if assignment.round >= len(life.rounds):
            raise Violation("C6", f"{node} is told to run round {assignment.round}, which is not durable")
        round_ = life.rounds[assignment.round]
        if node not in [seat.node for seat in round_.formed.seats]:
            raise Violation("C3", f"{node} stands by in round {assignment.round}, and is told to run it")
        expected = expected_assignment(round_, node)
        if assignment != expected:
            raise Violation("C3", f"{node} is told {assignment}, expected {expected}")


def expected_assignment(round_: RoundTruth, node: str) -> Assignment:
    """A node's place, worked out from the order of the seats alone."""
    seats = round_.formed.seats
    group_rank = [seat.node for seat in seats].index(node)
    role = seats[group_rank].role
    return Assignment(
        round=round_.formed.round,
        restart_count=round_.restart_count,
        group_rank=group_rank,
        group_world_size=len(seats),
        first_rank=sum(seat.local_world_size for seat in seats[:group_rank]),
        world_size=sum(seat.local_world_size for seat in seats),
        first_role_rank=sum(seat.local_world_size for seat in seats[:group_rank] if seat.role == role),
        role_world_size=sum(seat.local_world_size for seat in seats if seat.role == role),
        endpoint=round_.formed.endpoint,
        offer_id=round_.formed.offer_id if group_rank == 0 else 0,
    )
