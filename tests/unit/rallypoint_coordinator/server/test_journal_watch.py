from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from rallypoint.errors import RefusedError
from rallypoint_coordinator.server.driver import Driver, DriverOptions
from rallypoint_coordinator.server.journal_watch import watch_journal
from rallypoint_coordinator.store.journal import AppendResult, JournalError, NotWritten, Stored
from rallypoint_coordinator.store.memory import MemoryJournal

QUICK = DriverOptions(retry_delay_s=0.001, retry_delay_max_s=0.01)


class Movable(MemoryJournal):
    """Can be taken away, for a while or for good."""

    trouble: Exception | None = None

    async def verify(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    async def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        if self.trouble is not None:
            return NotWritten(str(self.trouble))
        return await super().append(expected_revision, records)

    async def read_snapshot(self) -> None:
        if isinstance(self.trouble, JournalError):
            raise self.trouble


async def records(journal: MemoryJournal) -> list[Stored]:
    return [stored async for stored in journal.read()]


async def test_an_idle_driver_stops_serving_while_the_journal_is_away() -> None:
    journal = Movable()
    suspended = asyncio.Event()

    async def note(serving: bool) -> None:
        if not serving:
            suspended.set()

    driver = Driver(journal, options=QUICK, on_serving=note)
    running = asyncio.create_task(driver.run())
    await driver.wait_serving()
    watching = asyncio.create_task(watch_journal(journal, driver, every_s=0.001))
    journal.trouble = OSError("the file is gone")
    async with asyncio.timeout(20):
        await suspended.wait()
    with pytest.raises(RefusedError, match="the file is gone"):
        driver.open_stream()
    assert len(await records(journal)) == 1, "nothing was decided"
    journal.trouble = None
    async with asyncio.timeout(20):
        await driver.wait_serving()
    assert len(await records(journal)) == 2, "an epoch has begun"
    watching.cancel()
    driver.stop()
    await running


async def test_a_journal_that_is_lost_for_good_ends_the_driver() -> None:
    journal = Movable()
    driver = Driver(journal, options=QUICK)
    running = asyncio.create_task(driver.run())
    await driver.wait_serving()
    watching = asyncio.create_task(watch_journal(journal, driver, every_s=0.001))
    journal.trouble = JournalError("another coordinator has it")
    with pytest.raises(JournalError, match="another coordinator has it"):
        async with asyncio.timeout(20):
            await running
    watching.cancel()
