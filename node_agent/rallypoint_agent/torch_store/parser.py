"""The bytes of one connection as the commands they are: little-endian, one byte of opcode, lengths of 8 bytes.

The bounds of a key, a value and a list are those of torch's own server. Whoever breaks one, or begins with anything but
torch's magic number, is no client of a store: a scanner, a probe, a program that got the port wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TypeVar

from rallypoint_agent.torch_store.commands import (
    Add,
    Append,
    Barrier,
    CancelWait,
    Check,
    Command,
    CompareSet,
    CountKeys,
    Delete,
    Get,
    ListKeys,
    MultiGet,
    MultiSet,
    Ping,
    QueueLength,
    QueuePop,
    QueuePush,
    Set,
    Wait,
)

KEY_BYTES = 8 * 1024
VALUE_BYTES = 8 * 1024 * 1024
KEYS_MAX = 128 * 1024
COMMAND_BYTES = 64 * 1024 * 1024
"""Of one command, all its keys and values together."""

MAGIC = 0x3C85F7CE

_VALIDATE = 0
_U64 = struct.Struct("<Q")
_I64 = struct.Struct("<q")

T = TypeVar("T")

_Reading = Generator[int, bytes, Command]
"""Yields how many bytes it needs, is sent them, and returns the command."""


class NotTheProtocol(Exception):
    """These bytes are no store client's. Its text says why."""


class Parser:
    """Feed it what arrives; take the commands. After NotTheProtocol it is of no more use."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._budget = COMMAND_BYTES
        self._reading: Generator[int, bytes, Command | None] = self._first()
        self._needed = next(self._reading)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def commands(self) -> Iterator[Command]:
        """Those that are complete. What is not taken from the iterator stays for the next call."""
        while len(self._buffer) >= self._needed:
            taken = bytes(self._buffer[: self._needed])
            del self._buffer[: self._needed]
            try:
                self._needed = self._reading.send(taken)
            except StopIteration as done:
                self._budget = COMMAND_BYTES
                self._reading = self._next()
                self._needed = next(self._reading)
                if done.value is not None:
                    yield done.value

    def _first(self) -> Generator[int, bytes, None]:
        opcode, magic = struct.unpack("<BI", (yield 5))
        if (opcode, magic) != (_VALIDATE, MAGIC):
            raise NotTheProtocol("it does not begin as torch's store clients do")

    def _next(self) -> _Reading:
        opcode = (yield 1)[0]
        read = _READERS.get(opcode)
        if read is None:
            raise NotTheProtocol(f"there is no operation {opcode}")
        return (yield from read(self))

    # --- pieces

    def _number(self) -> Generator[int, bytes, int]:
        number: int = _I64.unpack((yield 8))[0]
        return number

    def _text(self, most: int, what: str) -> Generator[int, bytes, bytes]:
        length: int = _U64.unpack((yield 8))[0]
        self._budget -= length
        if length > most or self._budget < 0:
            raise NotTheProtocol(f"a {what} of {length:,} bytes: at most {most:,}, and {COMMAND_BYTES:,} in all")
        return (yield length) if length else b""

    def _key(self) -> Generator[int, bytes, bytes]:
        return (yield from self._text(KEY_BYTES, "key"))

    def _value(self) -> Generator[int, bytes, bytes]:
        return (yield from self._text(VALUE_BYTES, "value"))

    def _item(self) -> Generator[int, bytes, tuple[bytes, bytes]]:
        return (yield from self._key()), (yield from self._value())

    def _many(self, read: Callable[[], Generator[int, bytes, T]]) -> Generator[int, bytes, tuple[T, ...]]:
        count: int = _U64.unpack((yield 8))[0]
        if count > KEYS_MAX:
            raise NotTheProtocol(f"{count:,} keys at once: at most {KEYS_MAX:,}")
        items: list[T] = []
        while len(items) < count:
            items.append((yield from read()))
        return tuple(items)

    # --- commands

    def _set(self) -> _Reading:
        return Set((yield from self._key()), (yield from self._value()))

    def _compare_set(self) -> _Reading:
        return CompareSet((yield from self._key()), (yield from self._value()), (yield from self._value()))

    def _get(self) -> _Reading:
        return Get((yield from self._key()))

    def _add(self) -> _Reading:
        return Add((yield from self._key()), (yield from self._number()))

    def _check(self) -> _Reading:
        return Check((yield from self._many(self._key)))

    def _wait(self) -> _Reading:
        return Wait((yield from self._many(self._key)))

    def _count_keys(self) -> _Reading:
        yield from ()
        return CountKeys()

    def _delete(self) -> _Reading:
        return Delete((yield from self._key()))

    def _append(self) -> _Reading:
        return Append((yield from self._key()), (yield from self._value()))

    def _multi_get(self) -> _Reading:
        return MultiGet((yield from self._many(self._key)))

    def _multi_set(self) -> _Reading:
        return MultiSet((yield from self._many(self._item)))

    def _cancel_wait(self) -> _Reading:
        yield from ()
        return CancelWait()

    def _ping(self) -> _Reading:
        return Ping((yield 4))

    def _queue_push(self) -> _Reading:
        return QueuePush((yield from self._key()), (yield from self._value()))

    def _queue_pop(self) -> _Reading:
        return QueuePop((yield from self._key()))

    def _queue_length(self) -> _Reading:
        return QueueLength((yield from self._key()))

    def _list_keys(self) -> _Reading:
        yield from ()
        return ListKeys()

    def _barrier(self) -> _Reading:
        return Barrier((yield from self._key()), (yield from self._number()))


_READERS: Mapping[int, Callable[[Parser], _Reading]] = {
    1: Parser._set,
    2: Parser._compare_set,
    3: Parser._get,
    4: Parser._add,
    5: Parser._check,
    6: Parser._wait,
    7: Parser._count_keys,
    8: Parser._delete,
    9: Parser._append,
    10: Parser._multi_get,
    11: Parser._multi_set,
    12: Parser._cancel_wait,
    13: Parser._ping,
    14: Parser._queue_push,
    15: Parser._queue_pop,
    16: Parser._queue_length,
    17: Parser._list_keys,
    18: Parser._barrier,
}
"""Opcode -> what follows it."""
