"""A journal that lasts as long as the process, for tests, for one-node runs and for trying things out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from rallypoint_coordinator.store.journal import AppendResult, Bounds, Committed, Compacted, Fenced, Snapshot, Stored


class MemoryJournal:
    """Costs a few hundred bytes for each decision, until a snapshot takes their place."""

    where = "in memory"
    bounds = Bounds(records=1_000, bytes=1 << 20)

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._dropped = 0
        self._snapshot: Snapshot | None = None

    async def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        revision = self._dropped + len(self._records)
        if expected_revision != revision:
            return Fenced(revision)
        self._records.extend(records)
        return Committed(revision + len(records))

    async def read_snapshot(self) -> Snapshot | None:
        return self._snapshot

    async def read(self, after_revision: int = 0) -> AsyncIterator[Stored]:
        if after_revision < self._dropped:
            raise Compacted(self._dropped + 1)
        for index in range(after_revision - self._dropped, len(self._records)):
            yield Stored(self._dropped + index + 1, self._records[index])

    async def write_snapshot(self, snapshot: Snapshot, keep_records: int) -> None:
        self._snapshot = snapshot
        dropped = max(snapshot.revision - keep_records, self._dropped)
        del self._records[: dropped - self._dropped]
        self._dropped = dropped

    async def verify(self) -> None:
        """Memory stays where it is."""

    async def close(self) -> None:
        """Nothing to release."""
