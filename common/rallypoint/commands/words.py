"""Values of the protocol in words. Pure functions of messages: "now" is the answer's own observe_time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rallypoint.texts import signal_name

if TYPE_CHECKING:
    # Its name in the stubs alone.
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

_NANOS = 1_000_000_000


def enum_word(enum: _EnumTypeWrapper[Any], number: int, prefix: str) -> str:
    """RUNNING for JOB_STATE_RUNNING; "" for zero, the number itself for one of a later release."""
    if number == 0:
        return ""
    known = enum.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix(prefix) if known else str(number)


def last_part(name: str) -> str:
    """``train`` of the resource name ``jobs/train``."""
    return name.rpartition("/")[2]


def age(earlier: Timestamp, now: Timestamp) -> str:
    """How long ago, roughly: ``0.4s``, ``12m5s``, ``3h7m``, ``5d2h``. "" of what is not set."""
    if not earlier.seconds:
        return ""
    return _roughly(max((_nanos(now) - _nanos(earlier)) / _NANOS, 0.0))


def lasted(spans: Iterable[Duration]) -> str:
    """How long all of them took together: ``0ms``, ``240ms``, ``1.2s``, ``12m5s``."""
    nanos = sum(span.seconds * _NANOS + span.nanos for span in spans)
    return f"{nanos // 1_000_000}ms" if nanos < _NANOS else _roughly(nanos / _NANOS)


def _roughly(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, whole_seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (whole_seconds, "s"))
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return "".join(f"{number}{unit}" for number, unit in parts[first : first + 2])


def _nanos(instant: Timestamp) -> int:
    return instant.seconds * _NANOS + instant.nanos


def exit_in_words(exit_code: int) -> str:
    """As the coordinator's messages have it."""
    return f"exited with {exit_code}" + (f" ({signal_name(-exit_code)})" if exit_code < 0 else "")


def one_line(text: str) -> str:
    """On one line, and nothing in it that a terminal obeys."""
    return printable(" ".join(text.split()))


def lines_of(text: str) -> list[str]:
    """Its lines, and nothing in them that a terminal obeys."""
    return [printable(line.expandtabs()) for line in text.splitlines()]


def printable(text: str) -> str:
    """What cannot be seen is spelled out, as ``\\x1b``. So is a line's end."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
