"""What was decided becomes durable, and only then visible."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from rallypoint.model import (
    Welcome,
)
from rallypoint_coordinator.store.journal import (
    Bounds,
)
from support.driver_script import (
    SPEC,
    ScriptedJournal,
    attach,
    revision,
    running,
    welcome,
)


async def test_nothing_is_visible_before_it_is_durable() -> None:
    journal = ScriptedJournal()
    async with running(journal) as driver:
        before = await driver.read(revision)
        journal.gate.clear()
        journal.appending.clear()
        _, outbox = await attach(driver)
        reading = asyncio.create_task(driver.read(revision))
        await journal.appending.wait()
        writing = asyncio.create_task(outbox.next())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reading.done()
        assert not writing.done()
        journal.gate.set()
        assert isinstance(await writing, Welcome)
        assert await reading > before


async def test_what_waits_together_is_appended_together() -> None:
    journal = ScriptedJournal()
    async with running(journal) as driver:
        outboxes = [(await attach(driver, f"node-{n}", replace(SPEC, max_nodes=9)))[1] for n in range(5)]
        for outbox in outboxes:
            await welcome(outbox)
    start, together = journal.sizes[0], journal.sizes[1]
    assert (start, len(journal.sizes)) == (1, 2)
    assert together > 5


async def test_a_turn_larger_than_the_bounds_takes_several_appends() -> None:
    journal = ScriptedJournal()
    journal.bounds = Bounds(records=2, bytes=1 << 20)
    async with running(journal) as driver:
        outboxes = [(await attach(driver, f"node-{n}", replace(SPEC, max_nodes=9)))[1] for n in range(5)]
        for outbox in outboxes:
            await welcome(outbox)
    assert max(journal.sizes) == 2
