"""What comes while nothing waits is stepped as it comes; nothing gets out ahead of what it rests on (C6)."""

from __future__ import annotations

import asyncio

import pytest

from rallypoint.model import NO_VERSION, AgentPhase, Directive, Observed
from rallypoint.wire import Ack
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.effects import Output
from rallypoint_coordinator.core.events import AgentHeartbeat, AgentObserved, Event, Stamp
from rallypoint_coordinator.server.driver import Driver
from rallypoint_coordinator.server.outbox import Outbox
from rallypoint_coordinator.store.memory import MemoryJournal
from support.driver_script import ScriptedJournal, attach, closing, epoch, facts, running, take, welcome
from support.hand_clock import HandClock

ACK_DUE_MS = 2_000
"""An agent is acknowledged at most once a second."""


async def joined(driver: Driver, clock: HandClock) -> tuple[int, int, Outbox]:
    """Of a node that was told all there is to tell, some time ago: its stream, lease and outbox."""
    stream, outbox = await attach(driver)
    lease_id = (await welcome(outbox)).lease_id
    clock.now_ms += ACK_DUE_MS
    return stream, lease_id, outbox


def heartbeat(stream: int, lease_id: int, seq: int = 2) -> AgentHeartbeat:
    return AgentHeartbeat(stream=stream, lease_id=lease_id, seq=seq, version=NO_VERSION)


async def test_a_heartbeat_is_answered_as_it_comes() -> None:
    clock = HandClock()
    async with running(MemoryJournal(), clock=clock) as driver:
        stream, lease_id, outbox = await joined(driver, clock)
        await driver.submit(heartbeat(stream, lease_id))
        assert outbox._ack == Ack(2)


async def test_it_is_not_while_a_record_is_on_its_way_to_the_disk() -> None:
    clock, journal = HandClock(), ScriptedJournal()
    async with running(journal, clock=clock) as driver:
        stream, lease_id, outbox = await joined(driver, clock)
        journal.gate.clear()
        journal.appending.clear()
        await attach(driver, "node-b")
        await driver.submit(heartbeat(stream, lease_id))
        assert outbox._ack is None, "node-b's lease waits for its turn"
        await journal.appending.wait()
        await driver.submit(heartbeat(stream, lease_id, 3))
        assert outbox._ack is None, "and now for the disk"
        journal.gate.set()
        while (told := await take(outbox)) != Ack(2):
            assert isinstance(told, Directive)


async def test_what_led_to_a_record_is_told_once_that_is_durable() -> None:
    clock, journal = HandClock(), ScriptedJournal()
    async with running(journal, clock=clock) as driver:
        await joined(driver, clock)
        journal.gate.clear()
        journal.appending.clear()
        _, outbox = await attach(driver, "node-b")
        await journal.appending.wait()
        reading = asyncio.create_task(driver.read(facts))
        await asyncio.sleep(0)
        assert outbox._welcome is None
        assert not reading.done()
        journal.gate.set()
        await welcome(outbox)
        known = await reading
        assert known is not None
        assert list(known.members) == ["node-a", "node-b"]


async def test_nothing_is_stepped_once_nobody_drives() -> None:
    clock = HandClock()
    async with running(MemoryJournal(), clock=clock) as driver:
        stream, lease_id, outbox = await joined(driver, clock)
    await driver.submit(heartbeat(stream, lease_id))
    assert outbox._ack is None


class BuggyCluster(Cluster):
    """Fails on one kind of event."""

    def step(self, event: Event, stamp: Stamp) -> Output:
        if isinstance(event, AgentHeartbeat):
            raise AssertionError("a bug")
        return super().step(event, stamp)


async def test_after_a_bug_nothing_is_stepped_until_the_journal_was_read_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = HandClock()
    async with running(MemoryJournal(), new_cluster=BuggyCluster, clock=clock) as driver:
        stream, lease_id, outbox = await joined(driver, clock)
        await driver.submit(heartbeat(stream, lease_id))
        observed = Observed(phase=AgentPhase.READY)
        await driver.submit(AgentObserved(stream=stream, lease_id=lease_id, seq=3, observed=observed))
        assert outbox._ack is None
        assert (await closing(outbox)).refusal is not None
        await driver.wait_serving()
        assert await driver.read(epoch) == 2
        assert "the core failed on AgentHeartbeat" in caplog.text
