"""What clients of torch's store say, in the bytes that they say it in, and a client that says it and listens."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

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

Field = bytes | int | tuple[bytes, ...] | tuple[tuple[bytes, bytes], ...]

VALIDATE = b"\x00" + struct.pack("<I", 0x3C85F7CE)

OPCODES = {
    Set: 1,
    CompareSet: 2,
    Get: 3,
    Add: 4,
    Check: 5,
    Wait: 6,
    CountKeys: 7,
    Delete: 8,
    Append: 9,
    MultiGet: 10,
    MultiSet: 11,
    CancelWait: 12,
    Ping: 13,
    QueuePush: 14,
    QueuePop: 15,
    QueueLength: 16,
    ListKeys: 17,
    Barrier: 18,
}


def i64(number: int) -> bytes:
    return struct.pack("<q", number)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def said(command: Command) -> bytes:
    """A command on the wire."""
    fields: Iterable[Field] = command
    body = command.nonce if isinstance(command, Ping) else b"".join(map(_field, fields))
    return bytes([OPCODES[type(command)]]) + body


def _field(field: Field) -> bytes:
    if isinstance(field, bytes):
        return text(field)
    if isinstance(field, int):
        return i64(field)
    texts = [part for item in field for part in (item if isinstance(item, tuple) else (item,))]
    return struct.pack("<Q", len(field)) + b"".join(map(text, texts))


class RawClient:
    """One connection. Reading waits up to ``timeout`` seconds."""

    def __init__(self, port: int, timeout: float = 20) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.sendall(VALIDATE)

    def say(self, *commands: Command) -> None:
        self.socket.sendall(b"".join(map(said, commands)))

    def hear(self, size: int) -> bytes:
        """Exactly so many bytes. Raises EOFError if the server closes first."""
        heard = bytearray()
        while len(heard) < size:
            data = self.socket.recv(size - len(heard))
            if not data:
                raise EOFError(f"closed after {bytes(heard)!r}")
            heard += data
        return bytes(heard)

    def has_heard_nothing(self) -> bool:
        """Whether nothing is unread, once the server has answered what was said before."""
        self.say(Ping(b"ping"))
        return self.hear(4) == b"ping"

    def is_closed(self) -> bool:
        """Wait for the server to close; False if it answers instead."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()
