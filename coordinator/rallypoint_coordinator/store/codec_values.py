"""What records are made of, as it is stored and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

from rallypoint import wire
from rallypoint.model import Outcome
from rallypoint.v1 import journal_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint.wire.scalars import EnumTable, instant_from_proto, instant_to_proto
from rallypoint.wire.types import JOB_STATES
from rallypoint_coordinator.core.records import GoneReason, JobHeld, Place, Record, Seat, StopCause

GONE_REASONS = EnumTable(GoneReason, pb.GoneReason, "GONE_REASON_")
STOP_CAUSES = EnumTable(StopCause, pb.StopCause, "STOP_CAUSE_")

T = TypeVar("T")


class UnreadableRecord(Exception):
    """The bytes are no record, or one with a value that this release does not know."""


class UnknownRecordKind(UnreadableRecord):
    """A later release wrote this record: it cannot be skipped, since nobody here knows what would be forgotten."""


class Codec(NamedTuple):
    """One kind of record: its field in JournalRecord, its type, and both directions."""

    field: str
    type: type[Record]
    write: Callable[[Any], Message]
    read: Callable[[Any], Record]


def known(member: T | None, what: str, number: int) -> T:
    """The member that an enum's number stands for. Raises UnreadableRecord if there is none."""
    if member is None:
        raise UnreadableRecord(f"{what} {number} is not known to this release; was a later release run here?")
    return member


def seat_to_proto(seat: Seat) -> pb.Seat:
    return pb.Seat(node=seat.node, lease_id=seat.lease_id, local_world_size=seat.local_world_size, role=seat.role)


def seat_from_proto(message: pb.Seat) -> Seat:
    return Seat(
        node=message.node,
        lease_id=message.lease_id,
        local_world_size=message.local_world_size,
        role=message.role,
    )


def place_to_proto(place: Place) -> pb.Place:
    return pb.Place(
        seat=seat_to_proto(place.seat),
        group_rank=place.group_rank,
        first_rank=place.first_rank,
        first_role_rank=place.first_role_rank,
        role_world_size=place.role_world_size,
    )


def place_from_proto(message: pb.Place) -> Place:
    return Place(
        seat=seat_from_proto(message.seat),
        group_rank=message.group_rank,
        first_rank=message.first_rank,
        first_role_rank=message.first_role_rank,
        role_world_size=message.role_world_size,
    )


def outcome_to_proto(outcome: Outcome) -> types_pb2.Outcome:
    message = wire.outcome_to_proto(outcome)
    message.message = outcome.message  # on the wire it is cut, here nothing may be lost
    return message


def outcome_from_proto(message: types_pb2.Outcome) -> Outcome:
    known(JOB_STATES.member(message.state), "JobState", message.state)
    return wire.outcome_from_proto(message)


def hold_to_proto(record: JobHeld) -> pb.JobHeld:
    return pb.JobHeld(
        by=record.by,
        reason=record.reason,
        since_time=instant_to_proto(record.since_wall_ms),
        until_time=instant_to_proto(record.until_wall_ms),
    )


def hold_from_proto(message: pb.JobHeld) -> JobHeld:
    return JobHeld(
        by=message.by,
        reason=message.reason,
        since_wall_ms=instant_from_proto(message.since_time),
        until_wall_ms=instant_from_proto(message.until_time),
    )
