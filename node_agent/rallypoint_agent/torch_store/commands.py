"""What a client of torch's TCPStore can ask for, and how each command is written on the wire (:data:`LAYOUTS`).

A key is as it is on the wire: torch's own prefix is part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple


class Set(NamedTuple):
    key: bytes
    value: bytes


class CompareSet(NamedTuple):
    """Set ``desired`` if the value is ``expected``; an empty expectation is met by a key that is missing too."""

    key: bytes
    expected: bytes
    desired: bytes


class Get(NamedTuple):
    key: bytes


class Add(NamedTuple):
    key: bytes
    amount: int


class Check(NamedTuple):
    keys: tuple[bytes, ...]


class Wait(NamedTuple):
    keys: tuple[bytes, ...]


class CountKeys(NamedTuple):
    pass


class Delete(NamedTuple):
    key: bytes


class Append(NamedTuple):
    key: bytes
    value: bytes


class MultiGet(NamedTuple):
    keys: tuple[bytes, ...]


class MultiSet(NamedTuple):
    items: tuple[tuple[bytes, bytes], ...]


class CancelWait(NamedTuple):
    pass


class Ping(NamedTuple):
    nonce: bytes


class QueuePush(NamedTuple):
    key: bytes
    value: bytes


class QueuePop(NamedTuple):
    key: bytes


class QueueLength(NamedTuple):
    key: bytes


class ListKeys(NamedTuple):
    pass


class Barrier(NamedTuple):
    key: bytes
    world_size: int


Command = (
    Set
    | CompareSet
    | Get
    | Add
    | Check
    | Wait
    | CountKeys
    | Delete
    | Append
    | MultiGet
    | MultiSet
    | CancelWait
    | Ping
    | QueuePush
    | QueuePop
    | QueueLength
    | ListKeys
    | Barrier
)


class Field(Enum):
    KEY = auto()
    VALUE = auto()
    NUMBER = auto()
    KEYS = auto()
    ITEMS = auto()
    """Keys with their values."""
    NONCE = auto()


LAYOUTS: Mapping[int, tuple[type[Command], tuple[Field, ...]]] = {
    1: (Set, (Field.KEY, Field.VALUE)),
    2: (CompareSet, (Field.KEY, Field.VALUE, Field.VALUE)),
    3: (Get, (Field.KEY,)),
    4: (Add, (Field.KEY, Field.NUMBER)),
    5: (Check, (Field.KEYS,)),
    6: (Wait, (Field.KEYS,)),
    7: (CountKeys, ()),
    8: (Delete, (Field.KEY,)),
    9: (Append, (Field.KEY, Field.VALUE)),
    10: (MultiGet, (Field.KEYS,)),
    11: (MultiSet, (Field.ITEMS,)),
    12: (CancelWait, ()),
    13: (Ping, (Field.NONCE,)),
    14: (QueuePush, (Field.KEY, Field.VALUE)),
    15: (QueuePop, (Field.KEY,)),
    16: (QueueLength, (Field.KEY,)),
    17: (ListKeys, ()),
    18: (Barrier, (Field.KEY, Field.NUMBER)),
}
"""Opcode -> the command, and what follows the opcode."""
