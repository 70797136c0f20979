"""Packing what a turn decided into appends that the journal takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rallypoint_coordinator.core.effects import Effect, Output
from rallypoint_coordinator.store.codec import encode
from rallypoint_coordinator.store.journal import Bounds


@dataclass(slots=True)
class Batch:
    """Records for one append, and what may become visible once they are durable."""

    records: list[bytes] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    size: int = 0

    def has_room(self, records: int, size: int, bounds: Bounds) -> bool:
        return len(self.records) + records <= bounds.records and self.size + size <= bounds.bytes

    def add(self, record: bytes) -> None:
        self.records.append(record)
        self.size += len(record)


def pack(outputs: Iterable[Output], bounds: Bounds) -> Iterator[Batch]:
    """The outputs' records and effects in batches within the bounds, in order.

    A step's records stay together where they fit. If they do not fit into any batch they span several, and its effects
    come with the last. A record that is too large by itself gets a batch of its own.
    """
    batch = Batch()
    for output in outputs:
        encoded = [encode(entry) for entry in output.records]
        if not batch.has_room(len(encoded), sum(map(len, encoded)), bounds) and batch.records:
            yield batch
            batch = Batch()
        for record in encoded:
            if not batch.has_room(1, len(record), bounds) and batch.records:
                yield batch
                batch = Batch()
            batch.add(record)
        batch.effects.extend(output.effects)
    yield batch
