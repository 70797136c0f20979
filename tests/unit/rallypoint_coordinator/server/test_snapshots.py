"""The driver's snapshots: taken beside the turns, and started from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rallypoint.model import AgentPhase, Endpoint, EndpointOffer, Hello, JobSpec, JobState, NodeSpec, Observed, Welcome
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.core.events import AgentAttached, AgentLeft, AgentObserved, Stamp
from rallypoint_coordinator.core.snapshot import ClusterSnapshot
from rallypoint_coordinator.core.state import Facts
from rallypoint_coordinator.server import snapshots
from rallypoint_coordinator.server.driver import Driver, DriverOptions
from rallypoint_coordinator.store.journal import Compacted, DamagedJournal, Journal, Snapshot
from rallypoint_coordinator.store.memory import MemoryJournal
from rallypoint_coordinator.store.snapshot_codec import decode_snapshot
from rallypoint_coordinator.store.sqlite import SqliteJournal

OPTIONS = DriverOptions(retry_delay_s=0.001, retry_delay_max_s=0.01, snapshot_records=20, keep_records=3)
SPEC = JobSpec(min_nodes=1, max_nodes=1)


@asynccontextmanager
async def running(journal: Journal, options: DriverOptions = OPTIONS) -> AsyncIterator[Driver]:
    driver = Driver(journal, options=options)
    task = asyncio.create_task(driver.run())
    await driver.wait_serving()
    try:
        yield driver
    finally:
        driver.stop()
        await task


async def live(driver: Driver, job: str) -> None:
    """One life of a job, from the first Hello to the last Goodbye: seven records."""
    stream, outbox = driver.open_stream()
    hello = Hello(
        job=job,
        node="node-a",
        incarnation=f"incarnation-for-{job}",
        attach_seq=1,
        job_spec=SPEC,
        node_spec=NodeSpec(),
        observed=Observed(offer=EndpointOffer(1, Endpoint("127.0.0.1", 4000))),
    )
    await driver.submit(AgentAttached(stream=stream, hello=hello, peer="127.0.0.1", fresh_uid=f"uid-of-{job}"))
    async with asyncio.timeout(20):
        welcome = await outbox.next()
    assert isinstance(welcome, Welcome)
    succeeded = Observed(phase=AgentPhase.SUCCEEDED, round=0)
    await driver.submit(AgentObserved(stream=stream, lease_id=welcome.lease_id, seq=2, observed=succeeded))
    await driver.submit(AgentLeft(stream=stream, lease_id=welcome.lease_id, seq=3, reason="", message=""))
    driver.close_stream(stream)
    await driver.read(jobs)


def jobs(cluster: Cluster, stamp: Stamp) -> list[str]:
    return cluster.job_names()


def facts(cluster: Cluster, stamp: Stamp) -> list[Facts]:
    return list(cluster.snapshot().lives)


def revision(cluster: Cluster, stamp: Stamp) -> int:
    return stamp.revision


async def live_all(driver: Driver, count: int, first: int = 0, *, settle: bool = True) -> None:
    """Lives of so many jobs. ``settle``: wait for each snapshot, as if the jobs had more time."""
    for number in range(first, first + count):
        await live(driver, f"job-{number:03}")
        if settle:
            await driver._snapshots.settle()


async def test_the_next_start_begins_with_the_snapshot() -> None:
    journal = MemoryJournal()
    async with running(journal) as driver:
        await live_all(driver, 10)
        before, at = await driver.read(facts), await driver.read(revision)
    snapshot = await journal.read_snapshot()
    assert snapshot is not None
    assert at - 40 < snapshot.revision <= at
    with pytest.raises(Compacted, match=f"before revision {snapshot.revision - 2} "):
        [stored async for stored in journal.read(0)]
    async with running(journal) as driver:
        assert await driver.read(facts) == before
        assert await driver.read(revision) == at + 1
        assert await driver.read(lambda cluster, stamp: cluster.epoch) == 2


async def test_a_short_journal_has_no_snapshot() -> None:
    journal = MemoryJournal()
    async with running(journal) as driver:
        await live_all(driver, 2)
    assert await journal.read_snapshot() is None


async def test_it_works_on_disk(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    async with running(journal) as driver:
        await live_all(driver, 20)
        before = await driver.read(facts)
    await journal.close()
    journal = SqliteJournal(tmp_path / "journal.db")
    assert await journal.read_snapshot() is not None
    async with running(journal) as driver:
        assert await driver.read(facts) == before
        await live_all(driver, 5, first=20)
        assert len(await driver.read(jobs)) == 25
    await journal.close()


async def test_decided_lives_are_forgotten_when_a_snapshot_is_taken() -> None:
    journal = MemoryJournal()
    options = replace(OPTIONS, retention=Retention(lives_max=2))
    async with running(journal, options) as driver:
        await live_all(driver, 30)
        left = await driver.read(jobs)
    assert len(left) < 10
    assert left[-1] == "job-029"
    snapshot = await journal.read_snapshot()
    assert snapshot is not None
    decided = [facts for facts in decode_snapshot(snapshot.data).lives if facts.state is JobState.SUCCEEDED]
    assert len(decided) <= 2
    async with running(journal, options) as driver:
        assert await driver.read(jobs) == left


class Slow(MemoryJournal):
    """Its snapshots take until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.began, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.revisions: list[int] = []

    async def write_snapshot(self, snapshot: Snapshot, keep_records: int) -> None:
        self.revisions.append(snapshot.revision)
        self.began.set()
        await self.gate.wait()
        await super().write_snapshot(snapshot, keep_records)
        self.ended.set()


async def test_turns_go_on_while_one_is_written_and_there_is_one_at_a_time() -> None:
    journal = Slow()
    async with running(journal) as driver:
        await live_all(driver, 5, settle=False)
        await journal.began.wait()
        await live_all(driver, 15, first=5, settle=False)
        assert len(await driver.read(jobs)) == 20
        assert len(journal.revisions) == 1
        journal.gate.set()
        await journal.ended.wait()
        await live_all(driver, 1, first=20, settle=False)
    assert len(journal.revisions) == 2
    assert journal.revisions[1] > journal.revisions[0] + 100


async def test_stopping_waits_for_the_snapshot() -> None:
    journal = Slow()
    driver = Driver(journal, options=OPTIONS)
    task = asyncio.create_task(driver.run())
    await driver.wait_serving()
    await live_all(driver, 5, settle=False)
    await journal.began.wait()
    driver.stop()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    journal.gate.set()
    await task
    assert await journal.read_snapshot() is not None


class Failing(MemoryJournal):
    failures = 1

    async def write_snapshot(self, snapshot: Snapshot, keep_records: int) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the disk is full")
        await super().write_snapshot(snapshot, keep_records)


async def test_one_that_fails_costs_nothing_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    journal = Failing()
    async with running(journal) as driver:
        await live_all(driver, 20)
        before = await driver.read(facts)
    assert "the journal keeps its records: the disk is full" in caplog.text
    assert await journal.read_snapshot() is not None
    async with running(journal) as driver:
        assert await driver.read(facts) == before


async def test_one_that_does_not_say_what_the_records_do_is_not_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forgetful(data: bytes) -> ClusterSnapshot:
        return replace(decode_snapshot(data), epoch=99)

    monkeypatch.setattr(snapshots, "decode_snapshot", forgetful)
    journal = MemoryJournal()
    async with running(journal) as driver:
        await live_all(driver, 10)
    assert "does not say what the records do" in caplog.text
    assert await journal.read_snapshot() is None
    assert len([stored async for stored in journal.read(0)]) > 60


async def test_a_damaged_snapshot_stops_the_start() -> None:
    journal = MemoryJournal()
    await journal.write_snapshot(Snapshot(0, b"\xff"), keep_records=0)
    with pytest.raises(DamagedJournal, match="the snapshot of revision 0 cannot be read: not a snapshot"):
        await Driver(journal).run()
