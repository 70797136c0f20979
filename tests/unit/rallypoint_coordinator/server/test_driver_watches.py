"""What the driver tells those who watch, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rallypoint.errors import Reason
from rallypoint.model import Capability, Hello, JobSpec, NodeSpec, Observed
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint_coordinator.core.events import AgentAttached
from rallypoint_coordinator.server.driver import Driver, DriverOptions
from rallypoint_coordinator.server.job_servicer import watch_job
from rallypoint_coordinator.server.outbox import Closing
from rallypoint_coordinator.server.watches import Watch
from rallypoint_coordinator.store.journal import AppendResult, Unknown
from rallypoint_coordinator.store.memory import MemoryJournal

SPEC = JobSpec(min_nodes=9, max_nodes=9)


class GatedJournal(MemoryJournal):
    """``gate`` makes appends wait; with ``doubts`` they are written and not confirmed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.appending = asyncio.Event()
        self.doubts = False

    async def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        self.appending.set()
        await self.gate.wait()
        result = await super().append(expected_revision, records)
        doubts, self.doubts = self.doubts, False
        return Unknown("the answer was lost") if doubts else result


@asynccontextmanager
async def running(journal: MemoryJournal, options: DriverOptions | None = None) -> AsyncIterator[Driver]:
    driver = Driver(journal, options=options or DriverOptions(retry_delay_s=0.001))
    task = asyncio.create_task(driver.run())
    await driver.wait_serving()
    try:
        yield driver
    finally:
        driver.stop()
        await task


async def attach(driver: Driver, node: str) -> None:
    """Ask for a lease, and do not wait for it."""
    stream, _ = driver.open_stream()
    hello = Hello(
        job="train",
        node=node,
        incarnation=f"incarnation-of-{node}",
        attach_seq=1,
        job_spec=SPEC,
        node_spec=NodeSpec(),
        observed=Observed(),
        capabilities=frozenset(Capability),
    )
    await driver.submit(AgentAttached(stream=stream, hello=hello, peer="127.0.0.1", fresh_uid="uid-of-train"))


async def watch(driver: Driver, token: str = "") -> Watch:
    request = pb.WatchJobRequest(name="jobs/train", resume_token=token)
    found = await driver.read(watch_job(driver.watches, request))
    driver.watches.enter(found)
    return found


async def next_of(watch: Watch) -> pb.WatchJobResponse:
    data = await asyncio.wait_for(watch.next(), 20)
    assert not isinstance(data, Closing), data
    return pb.WatchJobResponse.FromString(data)


def nodes_in(message: pb.WatchJobResponse) -> list[str]:
    return [event.node for event in message.events]


async def test_nothing_is_told_before_it_is_durable() -> None:
    journal = GatedJournal()
    async with running(journal) as driver:
        await attach(driver, "node-a")
        watching = await watch(driver)
        await next_of(watching)
        journal.gate.clear()
        journal.appending.clear()
        await attach(driver, "node-b")
        telling = asyncio.create_task(next_of(watching))
        await journal.appending.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        was_told_too_soon = telling.done()
        journal.gate.set()
        assert nodes_in(await telling) == ["node-b"]
        assert not was_told_too_soon


async def test_what_is_in_doubt_is_told_when_it_was_found_in_the_journal() -> None:
    journal = GatedJournal()
    async with running(journal) as driver:
        await attach(driver, "node-a")
        watching = await watch(driver)
        token = (await next_of(watching)).resume_token
        journal.doubts = True
        await attach(driver, "node-b")
        end = await watching.next()
        assert isinstance(end, Closing)
        assert end.refusal is not None
        assert end.refusal.reason is Reason.RECOVERING
        driver.watches.leave(watching)
        await driver.wait_serving()
        assert nodes_in(await next_of(await watch(driver, token))) == ["node-b"]


async def test_the_next_start_tells_what_the_last_one_did() -> None:
    journal = MemoryJournal()
    async with running(journal) as driver:
        await attach(driver, "node-a")
        first = await next_of(await watch(driver))
        await attach(driver, "node-b")
        before = await next_of(await watch(driver, first.resume_token))
    async with running(journal) as driver:
        assert await next_of(await watch(driver, first.resume_token)) == before
    assert nodes_in(before) == ["node-b"]


async def test_a_token_outlives_a_snapshot_as_long_as_records_before_it_are_kept() -> None:
    options = DriverOptions(snapshot_records=4, keep_records=100)
    journal = MemoryJournal()
    async with running(journal, options) as driver:
        await attach(driver, "node-a")
        first = await next_of(await watch(driver))
        for number in range(8):
            await attach(driver, f"node-{number}")
        await driver.read(lambda cluster, stamp: None)
    assert await journal.read_snapshot() is not None
    async with running(journal, options) as driver:
        assert len((await next_of(await watch(driver, first.resume_token))).events) == 8
