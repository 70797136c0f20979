"""Packing what a turn decided into appends that the journal takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rallypoint_coordinator.core.effects import Effect, Output
from rallypoint_coordinator.core.records import Entry, JobDecided, RoundStopping
from rallypoint_coordinator.store.codec import encode
from rallypoint_coordinator.store.journal import Bounds


@dataclass(slots=True)
class Batch:
    """Records for one append, and what may become visible once they are durable."""

    records: list[bytes] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    size: int = 0

    def has_room(self, records: Sequence[bytes], bounds: Bounds) -> bool:
        size = self.size + sum(map(len, records))
        return len(self.records) + len(records) <= bounds.records and size <= bounds.bytes

    def add(self, records: Sequence[bytes]) -> None:
        self.records.extend(records)
        self.size += sum(map(len, records))


def pack(outputs: Iterable[Output], bounds: Bounds) -> Iterator[Batch]:
    """The outputs' records and effects in batches within the bounds, in order.

    A step's records stay together where they fit. If they do not fit into any batch they span several, and its effects
    come with the last; what ends a round or a job stays with the record that led to it even then, since a crash between
    the two would let the one be known without the other. A record too large by itself gets a batch of its own.
    """
    batch = Batch()
    for output in outputs:
        pieces = list(_pieces(output.records))
        whole = [record for piece in pieces for record in piece]
        if not batch.has_room(whole, bounds) and batch.records:
            yield batch
            batch = Batch()
        for piece in pieces:
            if not batch.has_room(piece, bounds) and batch.records:
                yield batch
                batch = Batch()
            batch.add(piece)
        batch.effects.extend(output.effects)
    yield batch


def _pieces(entries: Iterable[Entry]) -> Iterator[list[bytes]]:
    """The records as they may be parted."""
    piece: list[bytes] = []
    for entry in entries:
        if piece and not isinstance(entry.record, RoundStopping | JobDecided):
            yield piece
            piece = []
        piece.append(encode(entry))
    if piece:
        yield piece
