"""The places of a round: they follow from its seats alone."""

from __future__ import annotations

from itertools import accumulate

from rallypoint_coordinator.core.records import Place, Seat


def places_of(seats: tuple[Seat, ...]) -> dict[str, Place]:
    """Ranks follow from the order of the seats: contiguous on a node, role ranks counted within the role."""
    first_ranks = accumulate((seat.local_world_size for seat in seats), initial=0)
    by_role: dict[str, int] = {}
    first_role_ranks = []
    for seat in seats:
        first_role_ranks.append(by_role.get(seat.role, 0))
        by_role[seat.role] = first_role_ranks[-1] + seat.local_world_size
    return {
        seat.node: Place(
            seat=seat,
            group_rank=group_rank,
            first_rank=first_rank,
            first_role_rank=first_role_rank,
            role_world_size=by_role[seat.role],
        )
        for group_rank, (seat, first_rank, first_role_rank) in enumerate(
            zip(seats, first_ranks, first_role_ranks, strict=False)
        )
    }
