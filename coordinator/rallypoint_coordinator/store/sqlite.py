"""The journal in a SQLite file: WAL, ``synchronous=FULL``, one transaction for each append.

One thread does it all, so the event loop never waits for the disk, and what is asked is done in the order of asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from rallypoint_coordinator.store.journal import AppendResult, Bounds, Snapshot, Stored
from rallypoint_coordinator.store.sqlite_file import JournalFile, no_directory

CHUNK_BYTES = 1 << 20
BATCH_RECORDS = 1_000

P = ParamSpec("P")
T = TypeVar("T")


class SqliteJournal:
    """Nobody else may write to the file: :class:`.directory.DataDirectory` sees to that."""

    bounds = Bounds(records=BATCH_RECORDS, bytes=CHUNK_BYTES)

    def __init__(self, path: Path, verify_directory: Callable[[], None] = no_directory) -> None:
        """Open the file, or make it, and see that it is whole. Blocks. Raises DamagedJournal or UnusableJournal.

        ``verify_directory`` is called with each transaction: it raises JournalError or OSError if others may use the
        file.
        """
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        try:
            self._file = self._thread.submit(JournalFile, path, verify_directory).result()
        except BaseException:
            self._thread.shutdown()
            raise

    @property
    def where(self) -> str:
        return self._file.where

    async def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        return await self._do(self._file.append, expected_revision, records)

    async def read_snapshot(self) -> Snapshot | None:
        return await self._do(self._file.read_snapshot)

    async def read(self, after_revision: int = 0) -> AsyncIterator[Stored]:
        while batch := await self._do(self._file.read, after_revision, BATCH_RECORDS):
            for stored in batch:
                yield stored
            after_revision = batch[-1].revision

    async def write_snapshot(self, snapshot: Snapshot, keep_records: int) -> None:
        revision, data = snapshot
        chunks = [data[start : start + CHUNK_BYTES] for start in range(0, max(len(data), 1), CHUNK_BYTES)]
        if await self._do(self._file.begin_snapshot, revision):
            for number, chunk in enumerate(chunks):
                await self._do(self._file.add_chunk, revision, number, chunk)
            await self._do(self._file.finish_snapshot, revision, len(chunks))
        while await self._do(self._file.drop_records, revision - keep_records, BATCH_RECORDS):
            pass
        await self._do(self._file.copy_log)

    async def verify(self) -> None:
        await self._do(self._file.verify)

    async def close(self) -> None:
        await self._do(self._file.close)
        self._thread.shutdown()

    async def _do(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: call(*args, **kwargs))
