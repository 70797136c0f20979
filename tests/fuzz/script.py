"""An input that is several steps: each a byte that says what to do, two bytes of length, and what to do it with.

Every sequence of bytes is one, so that inputs may be changed in any way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Step(NamedTuple):
    kind: int
    data: bytes


def pack(steps: Iterable[Step]) -> bytes:
    return b"".join(bytes([step.kind]) + len(step.data).to_bytes(2, "big") + step.data for step in steps)


def unpack(data: bytes) -> Iterator[Step]:
    """The last step has what is left, if that is less than it says."""
    at = 0
    while at < len(data):
        end = at + 3 + int.from_bytes(data[at + 1 : at + 3], "big")
        yield Step(data[at], data[at + 3 : end])
        at = end
