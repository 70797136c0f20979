"""What was decided becomes durable, and only then visible."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from rallypoint.model import (
    Welcome,
)
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.effects import Effect, Output, SendAck
from rallypoint_coordinator.server import commits
from rallypoint_coordinator.server.clock import SystemClock
from rallypoint_coordinator.server.commits import Commits
from rallypoint_coordinator.server.outlets import Outlets
from rallypoint_coordinator.server.watches import Watches, WatchOptions
from rallypoint_coordinator.store.journal import (
    Bounds,
)
from rallypoint_coordinator.store.memory import MemoryJournal
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


class Told(Outlets):
    """Notes what is to be performed."""

    def __init__(self) -> None:
        super().__init__()
        self.effects: list[Effect] = []

    def perform(self, effect: Effect) -> None:
        self.effects.append(effect)


async def test_what_is_for_many_goes_out_in_portions_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "EFFECTS_AT_ONCE", 2)
    told, effects, meanwhile = Told(), [SendAck(stream, 1) for stream in range(5)], set[int]()
    committing = asyncio.create_task(
        Commits(MemoryJournal(), told, Watches(WatchOptions()), SystemClock()).commit(
            Cluster(), [Output(effects=list(effects))]
        )
    )
    while not committing.done():
        await asyncio.sleep(0)
        meanwhile.add(len(told.effects))
    await committing
    assert told.effects == effects
    assert meanwhile == {0, 2, 4, 5}
