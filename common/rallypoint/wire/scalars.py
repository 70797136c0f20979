"""The small pieces that every message is made of: enums, durations, instants, bounded texts."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

E = TypeVar("E", bound=StrEnum)
V = TypeVar("V", bound=int)

_MS_PER_S = 1_000
_NS_PER_MS = 1_000_000

# What protobuf allows; whatever is outside could be read but not be written or shown again.
_DURATION_MS_MAX = 315_576_000_000 * _MS_PER_S
_TIMESTAMP_MS_MAX = 253_402_300_800 * _MS_PER_S - 1


class EnumTable(Generic[E, V]):
    """One enum in its two forms, matched by name: the wire's names are the model's with a prefix."""

    def __init__(self, members: type[E], wire: _EnumTypeWrapper[V], prefix: str) -> None:
        self._numbers = {member: wire.Value(prefix + member.name) for member in members}
        self._members = {number: member for member, number in self._numbers.items()}

    def number(self, member: E) -> V:
        """The wire's number of a member."""
        return self._numbers[member]

    def member(self, number: V) -> E | None:
        """The member of a number; None for "unspecified" and for what a later release added."""
        return self._members.get(number)


def duration_to_proto(ms: int) -> Duration:
    """A duration of ``ms`` milliseconds."""
    seconds, rest = divmod(ms, _MS_PER_S)
    return Duration(seconds=seconds, nanos=rest * _NS_PER_MS)


def duration_from_proto(pb: Duration) -> int:
    """Whole milliseconds, rounded down; negative and absurdly long ones become the nearest bound."""
    return _clamped_ms(pb.seconds, pb.nanos, _DURATION_MS_MAX)


def instant_to_proto(ms: int) -> Timestamp | None:
    """An instant in milliseconds since 1970; 0 means "not known" and gives None."""
    if ms == 0:
        return None
    seconds, rest = divmod(ms, _MS_PER_S)
    return Timestamp(seconds=seconds, nanos=rest * _NS_PER_MS)


def instant_from_proto(pb: Timestamp) -> int:
    """Milliseconds since 1970, rounded down, 0 if unset; impossible ones become the nearest bound."""
    return _clamped_ms(pb.seconds, pb.nanos, _TIMESTAMP_MS_MAX)


def moment(instant: Timestamp) -> str:
    """For people: ``2026-11-21 15:49:02Z``."""
    return datetime.fromtimestamp(instant.seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _clamped_ms(seconds: int, nanos: int, most: int) -> int:
    ms = seconds * _MS_PER_S + nanos // _NS_PER_MS
    if 0 <= ms <= most:
        return ms
    return 0 if ms < 0 else most
