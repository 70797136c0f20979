"""Reading the journal into a cluster that knows nothing yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.store.codec import UnreadableRecord, decode
from rallypoint_coordinator.store.journal import DamagedJournal, Journal
from rallypoint_coordinator.store.snapshot_codec import decode_snapshot


async def replay(journal: Journal, cluster: Cluster) -> tuple[int, int]:
    """The newest snapshot and the records after it. Returns the revisions of both, 0 for what there is none of.

    Raises DamagedJournal, or OSError if the journal cannot be read now.
    """
    snapshot = await journal.read_snapshot()
    if snapshot is not None:
        with _reading(journal, f"the snapshot of revision {snapshot.revision} cannot be read"):
            cluster.restore(decode_snapshot(snapshot.data))
    snapshot_revision = at = snapshot.revision if snapshot is not None else 0
    async for revision, data in journal.read(snapshot_revision):
        if revision != at + 1:
            raise DamagedJournal(journal.where, f"revision {revision} follows revision {at}")
        with _reading(journal, f"the record at revision {revision} cannot be read"):
            entry = decode(data)
        with _reading(journal, f"the record at revision {revision} cannot follow those before it"):
            cluster.apply(entry, revision)
        at = revision
    return snapshot_revision, at


@contextlib.contextmanager
def _reading(journal: Journal, failure: str) -> Iterator[None]:
    """Whatever goes wrong inside is damage to the journal."""
    try:
        yield
    except Exception as error:
        why = str(error) if isinstance(error, UnreadableRecord) else f"{type(error).__name__}: {error}"
        raise DamagedJournal(journal.where, f"{failure}: {why}") from error
