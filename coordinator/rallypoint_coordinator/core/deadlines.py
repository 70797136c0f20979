"""A heap of deadlines that may be moved later for free."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

K = TypeVar("K", int, str)

SPARE_ENTRIES = 64
"""So many entries more than twice as many as keys the heap may have before it is made anew."""

LOOK_AHEAD_MS = 1_000
"""Of leases that are renewed all the time at most one look a second is in vain, however many there are."""


class Deadlines(Generic[K]):
    """One deadline for each key.

    Setting a later deadline costs O(1): the heap keeps the earlier one, and whoever pops it puts it back. So renewing a
    lease, which happens ten thousand times for each time one expires, does not touch the heap.

    What a deadline leaves in the heap as it moves earlier, or is cleared, stays for as long as it was to last: of a job
    that is held for a week, a week. So the heap is made anew once most of it is that, which costs O(1) for each move.
    """

    def __init__(self) -> None:
        self._due: dict[K, int] = {}
        self._heap: list[tuple[int, K]] = []
        self._queued: dict[K, int] = {}

    def set(self, key: K, at_ms: int) -> None:
        """Set the key's deadline, replacing its earlier one."""
        self._due[key] = at_ms
        queued = self._queued.get(key)
        if queued is None or at_ms < queued:
            self._push(key, at_ms)
            self._shed()

    def clear(self, key: K) -> None:
        """Forget the key; nothing happens if it has no deadline."""
        self._due.pop(key, None)
        self._shed()

    def of(self, key: K) -> int:
        """The key's deadline; KeyError if it has none."""
        return self._due[key]

    def pop_due(self, now_ms: int) -> list[K]:
        """Take out the keys whose deadline is at or before now, earliest first, ties by key."""
        due: list[K] = []
        while self._heap and self._heap[0][0] <= now_ms:
            key = self._settle()
            if key is not None and self._due[key] <= now_ms:
                due.append(key)
                del self._due[key]
        self._look_ahead(now_ms + LOOK_AHEAD_MS)
        return due

    def _look_ahead(self, until_ms: int) -> None:
        """Put back what has moved of all that comes next, so that nobody looks for each of it in turn."""
        while self._heap and self._heap[0][0] <= until_ms and self._has_moved(*self._heap[0]):
            self._settle()

    def _has_moved(self, queued_ms: int, key: K) -> bool:
        return self._due.get(key) != queued_ms or self._queued.get(key) != queued_ms

    def next_ms(self) -> int | None:
        """A time by which to look again: never later than the earliest deadline, perhaps earlier; None if none."""
        return self._heap[0][0] if self._heap else None

    def _settle(self) -> K | None:
        """Take the heap's first entry; put its key back if its deadline moved later. The key if it has one due then."""
        at_ms, key = heapq.heappop(self._heap)
        if self._queued.get(key) != at_ms:
            return None
        del self._queued[key]
        moved = self._due.get(key)
        if moved is None:
            return None
        if moved > at_ms:
            self._push(key, moved)
            return None
        return key

    def _shed(self) -> None:
        """Leave out what no deadline goes by any more, if that is most of the heap."""
        if len(self._heap) > 2 * len(self._due) + SPARE_ENTRIES:
            self._queued = dict(self._due)
            self._heap = [(at_ms, key) for key, at_ms in self._due.items()]
            heapq.heapify(self._heap)

    def _push(self, key: K, at_ms: int) -> None:
        self._queued[key] = at_ms
        heapq.heappush(self._heap, (at_ms, key))
