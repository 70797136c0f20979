"""A journal that takes as long as a test wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rallypoint_coordinator.store.journal import AppendResult
from rallypoint_coordinator.store.memory import MemoryJournal


class HeldJournal(MemoryJournal):
    """Appends wait while it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.is_free = asyncio.Event()
        self.is_free.set()

    async def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        await self.is_free.wait()
        return await super().append(expected_revision, records)
