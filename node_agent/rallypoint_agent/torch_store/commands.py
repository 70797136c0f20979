"""What a client of torch's TCPStore can ask for. A key is as it is on the wire: torch's own prefix is part of it."""

from __future__ import annotations

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
