"""What waits for the driver: events in the order in which they came, and reads, each with a bound."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

E = TypeVar("E")
Q = TypeVar("Q")


class Inbox(Generic[E, Q]):
    """A queue of events and one of reads, taken together by one taker.

    Whoever brings an event when ``capacity`` of them wait is made to wait as well: so a stream that floods the
    coordinator is slowed down at its source. Reads are turned away instead, they can be asked again.
    """

    def __init__(self, capacity: int, reads_capacity: int) -> None:
        self._events: deque[tuple[E, bool]] = deque()
        self._reads: deque[Q] = deque()
        self._reads_capacity = reads_capacity
        self._room = asyncio.Semaphore(capacity)
        self._changed = asyncio.Event()

    @property
    def is_empty(self) -> bool:
        return not self._events and not self._reads

    async def put(self, event: E) -> None:
        """Add an event as soon as there is room."""
        await self._room.acquire()
        self._events.append((event, True))
        self._changed.set()

    def put_urgent(self, event: E) -> None:
        """Add an event at once, for those that are bounded by what they are about: one for each stream."""
        self._events.append((event, False))
        self._changed.set()

    def put_read(self, read: Q) -> bool:
        """Add a read; False if too many wait."""
        if len(self._reads) >= self._reads_capacity:
            return False
        self._reads.append(read)
        self._changed.set()
        return True

    def wake(self) -> None:
        """Have the taker return, with nothing if nothing waits."""
        self._changed.set()

    async def take(self, events_max: int, reads_max: int) -> tuple[list[E], list[Q]]:
        """Wait until something is there or :meth:`wake` is called, then take what waits, up to the bounds."""
        if self.is_empty:
            await self._changed.wait()
        self._changed.clear()
        events = [self._pop_event() for _ in range(min(events_max, len(self._events)))]
        reads = [self._reads.popleft() for _ in range(min(reads_max, len(self._reads)))]
        return events, reads

    def clear(self) -> list[Q]:
        """Forget the events; take out the reads, which somebody still has to answer."""
        while self._events:
            self._pop_event()
        reads = list(self._reads)
        self._reads.clear()
        return reads

    def _pop_event(self) -> E:
        event, had_to_wait = self._events.popleft()
        if had_to_wait:
            self._room.release()
        return event
