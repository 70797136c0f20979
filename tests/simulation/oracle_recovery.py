"""What a coordinator takes back from its agents must be what was decided before its journal was lost."""

from __future__ import annotations

from collections.abc import Sequence

from rallypoint.model import NO_ROUND
from rallypoint_coordinator.core.records import RecoveryBegan, RoundAdopted, RoundFormed
from simulation.truth import RoundTruth, expected_assignment
from simulation.world import Violation


def check_held(uid: str, record: RecoveryBegan, ever: Sequence[RoundTruth]) -> None:
    """An agent can hold only a round that began. ``ever``: all of the life's rounds, in every history."""
    known = record.round == NO_ROUND or any(record.round == it.formed.round for it in ever)
    charged = record.restart_count == 0 or any(record.restart_count == it.restart_count for it in ever)
    if not known or not charged:
        raise Violation("C1", f"{uid}: {record}, but no such round ever began")


def adopted(uid: str, record: RoundAdopted, ever: Sequence[RoundTruth]) -> RoundTruth:
    """The round as it is known again. Raises Violation unless one like it began, with just these places."""
    began = next((it for it in ever if _is_part_of(record, it)), None)
    if began is None:
        raise Violation("C3", f"{uid}: {record}, but no such round ever began: {ever}")
    formed = RoundFormed(
        round=record.round,
        seats=tuple(place.seat for place in record.places),
        endpoint=record.endpoint,
        offer_id=record.offer_id,
    )
    return RoundTruth(formed, record.restart_count, is_partial=len(record.places) != len(began.formed.seats))


def _is_part_of(record: RoundAdopted, began: RoundTruth) -> bool:
    formed = began.formed
    said = (record.round, record.restart_count, record.endpoint)
    if said != (formed.round, began.restart_count, formed.endpoint):
        return False
    seats = {seat.node: seat for seat in formed.seats}
    for place in record.places:
        seat = seats.get(place.seat.node)
        if seat is None:
            return False
        told = expected_assignment(began, seat.node)
        ranks = (place.group_rank, place.first_rank, place.first_role_rank, place.role_world_size)
        expected = (told.group_rank, told.first_rank, told.first_role_rank, told.role_world_size)
        sizes = (place.seat.local_world_size, place.seat.role, record.world_size)
        if ranks != expected or sizes != (seat.local_world_size, seat.role, told.world_size):
            return False
    return True
