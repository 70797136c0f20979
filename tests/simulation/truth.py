"""What a journal says, worked out from its records alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rallypoint.model import NO_ROUND, Assignment, JobSpec, Outcome
from rallypoint_coordinator.core.records import JobUpdated, RoundEnded, RoundFormed, RoundStopping


@dataclass(slots=True)
class Lease:
    node: str
    incarnation: str
    local_world_size: int


@dataclass(slots=True)
class RoundTruth:
    """``formed``: of an adopted round with the places that are known again; ``is_partial``: not all of them are."""

    formed: RoundFormed
    restart_count: int
    is_partial: bool = False
    succeeded: set[str] = field(default_factory=set)
    stopping: RoundStopping | None = None
    ended: RoundEnded | None = None
    before: RoundTruth | None = None
    """As it was known until it was adopted: what it told then may still be under way."""


@dataclass(slots=True)
class LifeTruth:
    """``spec``: what is in force; ``agreed``: what the agents agreed on.

    ``round_floor``: the highest round that agents said they hold. ``recovers``: its agents are being asked.
    """

    job: str
    spec: JobSpec
    agreed: JobSpec
    live: dict[str, int] = field(default_factory=dict)
    """Node -> its live lease."""
    rounds: dict[int, RoundTruth] = field(default_factory=dict)
    """By number, in order: those before an adopted one may not be known."""
    round_floor: int = NO_ROUND
    charged: int = 0
    revoked: set[int] = field(default_factory=set)
    """Leases that were revoked, gone ones included."""
    lost: set[int] = field(default_factory=set)
    outcome: Outcome | None = None
    recovers: bool = False
    knows_of_loss: bool = False
    """Whether an agent has shown, since the journal was lost last, that this life's records are lost."""

    @property
    def last(self) -> RoundTruth | None:
        return next(reversed(self.rounds.values()), None)

    @property
    def last_number(self) -> int:
        return next(reversed(self.rounds), NO_ROUND)

    @property
    def next_number(self) -> int:
        return max(self.last_number, self.round_floor) + 1

    def updated(self, record: JobUpdated) -> None:
        self.spec = replace(
            self.spec, min_nodes=record.min_nodes, max_nodes=record.max_nodes, max_restarts=record.max_restarts
        )

    def spent_before(self, restart_count: int) -> None:
        """Agents know of so many restarts, so they were allowed: by a change that is lost, if it was one."""
        self.charged = max(self.charged, restart_count)
        self.spec = replace(self.spec, max_restarts=max(self.spec.max_restarts, self.charged))


@dataclass(slots=True)
class History:
    """Of one journal, until it is lost."""

    revision: int = 0
    lives: dict[str, LifeTruth] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)


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
