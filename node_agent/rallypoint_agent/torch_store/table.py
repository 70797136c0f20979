"""The store itself: commands in, replies out. No I/O; the same commands in the same order give the same replies.

The replies are torch 2.13's own, to the byte (tests/compat/test_torch_store.py asks both servers the same). But for two
things: a client that begins to wait while it waits, which torch's never does, has given up the first wait; and a
comparison that leaves a key missing wakes nobody who waits for that key.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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

STORE_BYTES = 1024 * 1024 * 1024
"""All keys and values together."""

ENTRY_BYTES = 200
"""What an entry costs beside its own bytes."""

_READY, _NOT_READY = b"\x00", b"\x01"
_DONE, _CANCELLED = b"\x00", b"\x01"
_I64_MIN, _I64_MAX = -(2**63), 2**63 - 1
_NUMBER = re.compile(rb"\s*([+-]?[0-9]{1,20})")


class Unacceptable(Exception):
    """A command that cannot be carried out; nothing was changed. Its text says why."""


class Reply(NamedTuple):
    """``parts``, one after the other, to this client. Not joined: they may be large, and are shared."""

    client: int
    parts: tuple[bytes, ...]


class Table:
    """One round's store. ``client`` is whatever number the caller knows a connection by."""

    def __init__(self, most_bytes: int = STORE_BYTES) -> None:
        self._values: dict[bytes, bytes] = {}
        self._queues: dict[bytes, deque[bytes]] = {}
        self._missing: dict[int, set[bytes]] = {}
        """Client -> the keys that have not been seen since it began to wait."""
        self._waiters: dict[bytes, dict[int, None]] = {}
        """Key -> who waits for it, the first to come first."""
        self._most_bytes = most_bytes
        self._bytes = 0
        self._replies: list[Reply] = []

    @property
    def used_bytes(self) -> int:
        return self._bytes

    def awaited_by(self, client: int) -> frozenset[bytes]:
        """The keys that the client waits for."""
        return frozenset(self._missing.get(client, ()))

    def apply(self, client: int, command: Command) -> list[Reply]:
        """What to send, and to whom. Raises Unacceptable."""
        self._replies = []
        _OPERATIONS[type(command)](self, client, command)
        return self._replies

    def leave(self, client: int) -> None:
        """The connection is gone: it waits for nothing any more."""
        for key in self._missing.pop(client, ()):
            self._forget_waiter(key, client)

    # --- single keys

    def _set(self, client: int, command: Set) -> None:
        self._put(command.key, command.value)

    def _append(self, client: int, command: Append) -> None:
        self._put(command.key, self._values.get(command.key, b"") + command.value)

    def _get(self, client: int, command: Get) -> None:
        self._reply(client, *_text(self._values.get(command.key, b"")))

    def _compare_set(self, client: int, command: CompareSet) -> None:
        current = self._values.get(command.key)
        if current == command.expected or (current is None and not command.expected):
            current = command.desired
            self._put(command.key, command.desired)
        self._reply(client, *_text(command.expected if current is None else current))

    def _add(self, client: int, command: Add) -> None:
        total = self._sum(command.key, command.amount)
        self._put(command.key, b"%d" % total)
        self._reply(client, struct.pack("<q", total))

    def _sum(self, key: bytes, amount: int) -> int:
        """As in C++: digits at the start are enough, and a sum wraps around."""
        found = _NUMBER.match(self._values.get(key, b"0"))
        if found is None or not _I64_MIN <= int(found[1]) <= _I64_MAX:
            raise Unacceptable("an addition to a value that is no number of 64 bits")
        return (int(found[1]) + amount + 2**63) % 2**64 - 2**63

    def _delete(self, client: int, command: Delete) -> None:
        value = self._values.pop(command.key, None)
        if value is not None:
            self._bytes -= _cost(command.key, value)
        self._reply(client, struct.pack("<q", value is not None))

    # --- many keys

    def _multi_get(self, client: int, command: MultiGet) -> None:
        values = (self._values.get(key, b"") for key in command.keys)
        self._reply(client, *(part for value in values for part in _text(value)))

    def _multi_set(self, client: int, command: MultiSet) -> None:
        self._need_room(sum(_cost(key, value) for key, value in command.items))
        for key, value in command.items:
            self._put(key, value)

    def _check(self, client: int, command: Check) -> None:
        self._reply(client, _READY if all(map(self._exists, command.keys)) else _NOT_READY)

    def _count_keys(self, client: int, command: CountKeys) -> None:
        self._reply(client, struct.pack("<q", len(self._values)))

    def _list_keys(self, client: int, command: ListKeys) -> None:
        parts = (part for key in self._values for part in _text(key))
        self._reply(client, struct.pack("<Q", len(self._values)), *parts)

    # --- waiting

    def _wait(self, client: int, command: Wait) -> None:
        self.leave(client)
        missing = {key for key in command.keys if not self._exists(key)}
        if missing:
            self._await(client, missing)
        else:
            self._reply(client, _DONE)

    def _await(self, client: int, missing: set[bytes]) -> None:
        self._missing[client] = missing
        for key in missing:
            self._waiters.setdefault(key, {})[client] = None

    def _cancel_wait(self, client: int, command: CancelWait) -> None:
        self.leave(client)
        self._reply(client, _CANCELLED)

    def _barrier(self, client: int, command: Barrier) -> None:
        """Torch's counts who has come, in the key itself, for ever: each barrier needs a key of its own."""
        self.leave(client)
        arrived = self._sum(command.key, 1)
        self._store(command.key, b"%d" % arrived)
        if arrived >= command.world_size:
            self._wake(command.key)
            self._reply(client, _DONE)
        else:
            self._await(client, {command.key})

    # --- queues: each item is for one client

    def _queue_push(self, client: int, command: QueuePush) -> None:
        self._need_room(_cost(command.key, command.value))
        self._bytes += _cost(command.key, command.value)
        self._queues.setdefault(command.key, deque()).append(command.value)
        if waiters := self._waiters.get(command.key):
            self._appeared(command.key, next(iter(waiters)))

    def _queue_pop(self, client: int, command: QueuePop) -> None:
        queue = self._queues.get(command.key)
        if queue is None:
            self._reply(client, struct.pack("<q", 0))
            return
        length, value = len(queue), queue.popleft()
        self._bytes -= _cost(command.key, value)
        if not queue:
            del self._queues[command.key]
        self._reply(client, struct.pack("<q", length), *_text(value))

    def _queue_length(self, client: int, command: QueueLength) -> None:
        self._reply(client, struct.pack("<q", len(self._queues.get(command.key, ()))))

    # --- the rest

    def _ping(self, client: int, command: Ping) -> None:
        self._reply(client, command.nonce)

    def _exists(self, key: bytes) -> bool:
        return key in self._values or key in self._queues

    def _put(self, key: bytes, value: bytes) -> None:
        self._store(key, value)
        self._wake(key)

    def _store(self, key: bytes, value: bytes) -> None:
        before = self._values.get(key)
        growth = _cost(key, value) - (0 if before is None else _cost(key, before))
        self._need_room(growth)
        self._bytes += growth
        self._values[key] = value

    def _wake(self, key: bytes) -> None:
        for waiter in tuple(self._waiters.get(key, ())):
            self._appeared(key, waiter)

    def _need_room(self, growth: int) -> None:
        if self._bytes + growth > self._most_bytes:
            raise Unacceptable(f"the store is full: it holds at most {self._most_bytes:,} bytes")

    def _appeared(self, key: bytes, waiter: int) -> None:
        """A key that is deleted again was seen all the same."""
        self._forget_waiter(key, waiter)
        missing = self._missing[waiter]
        missing.discard(key)
        if not missing:
            del self._missing[waiter]
            self._reply(waiter, _DONE)

    def _forget_waiter(self, key: bytes, client: int) -> None:
        waiters = self._waiters[key]
        del waiters[client]
        if not waiters:
            del self._waiters[key]

    def _reply(self, client: int, *parts: bytes) -> None:
        self._replies.append(Reply(client, parts))


def _text(value: bytes) -> tuple[bytes, bytes]:
    return struct.pack("<Q", len(value)), value


def _cost(key: bytes, value: bytes) -> int:
    return ENTRY_BYTES + len(key) + len(value)


_OPERATIONS: Mapping[type[Command], Callable[[Table, int, Any], None]] = {
    Set: Table._set,
    CompareSet: Table._compare_set,
    Get: Table._get,
    Add: Table._add,
    Check: Table._check,
    Wait: Table._wait,
    CountKeys: Table._count_keys,
    Delete: Table._delete,
    Append: Table._append,
    MultiGet: Table._multi_get,
    MultiSet: Table._multi_set,
    CancelWait: Table._cancel_wait,
    Ping: Table._ping,
    QueuePush: Table._queue_push,
    QueuePop: Table._queue_pop,
    QueueLength: Table._queue_length,
    ListKeys: Table._list_keys,
    Barrier: Table._barrier,
}
