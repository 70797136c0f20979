"""Reading the journal into a cluster that knows nothing yet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import Entry
from rallypoint_coordinator.store.codec import decode
from rallypoint_coordinator.store.codec_values import UnreadableRecord
from rallypoint_coordinator.store.journal import Compacted, DamagedJournal, Journal, Stored
from rallypoint_coordinator.store.snapshot_codec import decode_snapshot

Told = Callable[[Entry, int, bytes], object]
"""A durable record, its revision, its bytes."""


async def replay(journal: Journal, cluster: Cluster, told: Told, keep_records: int = 0) -> tuple[int, int]:
    """The newest snapshot and the records after it. Returns the revisions of both, 0 for what there is none of.

    ``told`` is given each record that is read, in order, and so are the last ``keep_records`` that the snapshot stands
    for, as far as they are kept. Raises DamagedJournal, or OSError if the journal cannot be read now.
    """
    snapshot = await journal.read_snapshot()
    if snapshot is not None:
        with _reading(journal, f"the snapshot of revision {snapshot.revision} cannot be read"):
            cluster.restore(decode_snapshot(snapshot.data))
    snapshot_revision = at = snapshot.revision if snapshot is not None else 0
    async for revision, data in _kept(journal, snapshot_revision, keep_records):
        is_new = revision > snapshot_revision
        if is_new and revision != at + 1:
            raise DamagedJournal(journal.where, f"revision {revision} follows revision {at}")
        with _reading(journal, f"the record at revision {revision} cannot be read"):
            entry = decode(data)
        if is_new:
            with _reading(journal, f"the record at revision {revision} cannot follow those before it"):
                cluster.apply(entry, revision)
            at = revision
        told(entry, revision, data)
    return snapshot_revision, at


async def _kept(journal: Journal, snapshot_revision: int, keep_records: int) -> AsyncIterator[Stored]:
    """The records after the snapshot, and before them as many as are kept."""
    try:
        async for stored in journal.read(max(snapshot_revision - keep_records, 0)):
            yield stored
    except Compacted as compacted:
        after_revision = compacted.first_revision - 1
        if after_revision > snapshot_revision:
            what = f"revision {after_revision + 1} follows revision {snapshot_revision}, which is the snapshot's"
            raise DamagedJournal(journal.where, what) from compacted
        async for stored in journal.read(after_revision):
            yield stored


@contextlib.contextmanager
def _reading(journal: Journal, failure: str) -> Iterator[None]:
    """Whatever goes wrong inside is damage to the journal."""
    try:
        yield
    except Exception as error:
        why = str(error) if isinstance(error, UnreadableRecord) else f"{type(error).__name__}: {error}"
        raise DamagedJournal(journal.where, f"{failure}: {why}") from error
