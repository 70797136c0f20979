"""Packing what a turn decided into appends that the journal takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rallypoint_coordinator.core.effects import Effect, Output
from rallypoint_coordinator.core.records import Entry, JobDecided, RoundStopping
from rallypoint_coordinator.store.codec import encode
from rallypoint_coordinator.store.journal import Bounds

Encoded: TypeAlias = tuple[Entry, bytes]


@dataclass(slots=True)
class Batch:
    """Records for one append, and what may become visible once they are durable. ``entries``: what the records say."""

    entries: list[Entry] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    size: int = 0

    def has_room(self, piece: Sequence[Encoded], bounds: Bounds) -> bool:
        size = self.size + _size(piece)
        return len(self.records) + len(piece) <= bounds.records and size <= bounds.bytes

    def add(self, piece: Sequence[Encoded]) -> None:
        self.entries.extend(entry for entry, _ in piece)
        self.records.extend(record for _, record in piece)
        self.size += _size(piece)


def pack(outputs: Iterable[Output], bounds: Bounds) -> Iterator[Batch]:
    """The outputs' records and effects in batches within the bounds, in order.

    A step's records stay together where they fit. If they do not fit into any batch they span several, and its effects
    come with the last; what ends a round or a job stays with the record that led to it even then, since a crash between
    the two would let the one be known without the other. A record too large by itself gets a batch of its own.
    """
    batch = Batch()
    for output in outputs:
        if not output.records:
            batch.effects.extend(output.effects)
            continue
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


def _size(piece: Sequence[Encoded]) -> int:
    return sum(len(record) for _, record in piece)


def _pieces(entries: Iterable[Entry]) -> Iterator[list[Encoded]]:
    """The records as they may be parted."""
    piece: list[Encoded] = []
    for entry in entries:
        if piece and not isinstance(entry.record, RoundStopping | JobDecided):
            yield piece
            piece = []
        piece.append((entry, encode(entry)))
    if piece:
        yield piece
