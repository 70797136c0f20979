"""Looking after a journal to which nothing is written: that its files are gone shows at the next append else."""

from __future__ import annotations

import asyncio

from rallypoint_coordinator.server.driver import Driver
from rallypoint_coordinator.store.journal import Journal, JournalError

LOOK_EVERY_S = 1.0
"""A few calls of stat."""


async def watch_journal(journal: Journal, driver: Driver, every_s: float = LOOK_EVERY_S) -> None:
    """Have the driver doubt the journal whenever it is not where it was. Until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await journal.verify()
        except (JournalError, OSError) as error:
            driver.doubt(str(error))
