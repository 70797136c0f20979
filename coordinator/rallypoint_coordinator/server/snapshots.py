"""When a snapshot is taken, and taking it beside the turns."""

from __future__ import annotations

import asyncio
import logging

from rallypoint_coordinator.core.snapshot import ClusterSnapshot
from rallypoint_coordinator.store.journal import Journal, Snapshot
from rallypoint_coordinator.store.snapshot_codec import decode_snapshot, encode_snapshot

log = logging.getLogger(__name__)


class Snapshots:
    """One at a time, every so many records. One that fails costs nothing but the records that it would have spared."""

    def __init__(self, journal: Journal, every_records: int, keep_records: int) -> None:
        self._journal = journal
        self._every_records = every_records
        self._keep_records = keep_records
        self._newest_revision = 0
        self._writing: asyncio.Task[None] | None = None

    def restored(self, revision: int) -> None:
        """The journal's newest snapshot has this revision, or there is none: 0."""
        self._newest_revision = revision

    def is_due(self, revision: int) -> bool:
        return self._writing is None and revision - self._newest_revision >= self._every_records

    def begin(self, revision: int, state: ClusterSnapshot) -> None:
        """Write what the records up to this durable revision led to. ``state`` is ours from now on."""
        self._newest_revision = revision
        self._writing = asyncio.create_task(self._write(revision, state))
        self._writing.add_done_callback(self._done)

    async def settle(self) -> None:
        """Wait until none is being written."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    def _done(self, task: asyncio.Task[None]) -> None:
        self._writing = None

    async def _write(self, revision: int, state: ClusterSnapshot) -> None:
        try:
            data = await asyncio.to_thread(encode_checked, state)
            await self._journal.write_snapshot(Snapshot(revision, data), self._keep_records)
            log.info("snapshot of revision %d: %d bytes, %d lives", revision, len(data), len(state.lives))
        except OSError as error:
            log.error("no snapshot of revision %d, the journal keeps its records: %s", revision, error)
        except Exception as error:
            log.exception("no snapshot of revision %d, the journal keeps its records: %s", revision, error)


def encode_checked(state: ClusterSnapshot) -> bytes:
    """Encode, and see that reading it gives the same: the records that it stands for are about to be dropped."""
    data = encode_snapshot(state)
    if decode_snapshot(data) != state:
        raise ValueError("the snapshot does not say what the records do")
    return data
