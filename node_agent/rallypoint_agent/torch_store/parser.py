"""The bytes of one connection as the commands they are: little-endian, one byte of opcode, lengths of 8 bytes.

The bounds of a key, a value and a list are those of torch's own server. Whoever breaks one, or begins with anything but
torch's magic number, is no client of a store: a scanner, a probe, a program that got the port wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeVar

from rallypoint_agent.torch_store.commands import LAYOUTS, Command, Field

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
        if opcode not in LAYOUTS:
            raise NotTheProtocol(f"there is no operation {opcode}")
        kind, fields = LAYOUTS[opcode]
        values = []
        for field in fields:
            value = yield from _READERS[field](self)
            values.append(value)
        return kind(*values)

    # --- fields

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

    def _keys(self) -> Generator[int, bytes, tuple[bytes, ...]]:
        return (yield from self._many(self._key))

    def _items(self) -> Generator[int, bytes, tuple[tuple[bytes, bytes], ...]]:
        return (yield from self._many(self._item))

    def _nonce(self) -> Generator[int, bytes, bytes]:
        return (yield 4)


_READERS: Mapping[Field, Callable[[Parser], Generator[int, bytes, Any]]] = {
    Field.KEY: Parser._key,
    Field.VALUE: Parser._value,
    Field.NUMBER: Parser._number,
    Field.KEYS: Parser._keys,
    Field.ITEMS: Parser._items,
    Field.NONCE: Parser._nonce,
}
