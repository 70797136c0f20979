"""A driver that runs over a journal which answers as told, and agents as it sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from rallypoint.model import Capability, Endpoint, EndpointOffer, Hello, JobSpec, NodeSpec, Observed, Welcome
from rallypoint.wire import CoordinatorMessage
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.events import AgentAttached, Stamp
from rallypoint_coordinator.core.state import Facts
from rallypoint_coordinator.server.clock import Clock
from rallypoint_coordinator.server.driver import Driver, DriverOptions
from rallypoint_coordinator.server.outbox import Closing, Outbox
from rallypoint_coordinator.store.journal import AppendResult, Journal
from rallypoint_coordinator.store.memory import MemoryJournal

QUICK = DriverOptions(retry_delay_s=0.001, retry_delay_max_s=0.01)
SPEC = JobSpec(min_nodes=2, max_nodes=2, last_call_timeout_ms=0)


class ScriptedJournal(MemoryJournal):
    """Answers the next appends as told; ``gate`` makes them wait."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Callable[[Sequence[bytes]], AppendResult]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.appending = asyncio.Event()
        self.sizes: list[int] = []

    async def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        self.appending.set()
        await self.gate.wait()
        self.sizes.append(len(records))
        if self.script:
            return self.script.pop(0)(records)
        return await super().append(expected_revision, records)


@asynccontextmanager
async def running(
    journal: Journal,
    options: DriverOptions = QUICK,
    new_cluster: Callable[[], Cluster] = Cluster,
    states: list[bool] | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Driver]:
    async def note(serving: bool) -> None:
        if states is not None:
            states.append(serving)

    driver = Driver(journal, clock=clock, options=options, new_cluster=new_cluster, on_serving=note)
    task = asyncio.create_task(driver.run())
    await driver.wait_serving()
    try:
        yield driver
    finally:
        driver.stop()
        await task


def attached(stream: int, node: str = "node-a", spec: JobSpec = SPEC, attach_seq: int = 1) -> AgentAttached:
    first = Hello(
        job="train",
        node=node,
        incarnation=f"incarnation-of-{node}",
        attach_seq=attach_seq,
        job_spec=spec,
        node_spec=NodeSpec(),
        observed=Observed(offer=EndpointOffer(1, Endpoint("127.0.0.1", 4000))),
        capabilities=frozenset({Capability.SELF_FENCES}),
    )
    return AgentAttached(stream=stream, hello=first, peer="127.0.0.1", fresh_uid="uid-of-train")


async def attach(driver: Driver, node: str = "node-a", spec: JobSpec = SPEC) -> tuple[int, Outbox]:
    stream, outbox = driver.open_stream()
    await driver.submit(attached(stream, node, spec))
    return stream, outbox


async def take(outbox: Outbox) -> CoordinatorMessage | Closing:
    async with asyncio.timeout(20):
        return await outbox.next()


async def welcome(outbox: Outbox) -> Welcome:
    message = await take(outbox)
    assert isinstance(message, Welcome), message
    return message


async def closing(outbox: Outbox) -> Closing:
    while True:
        message = await take(outbox)
        if isinstance(message, Closing):
            return message


def facts(cluster: Cluster, stamp: Stamp) -> Facts | None:
    life = cluster.current("train")
    return life.facts if life else None


def epoch(cluster: Cluster, stamp: Stamp) -> int:
    return cluster.epoch


def revision(cluster: Cluster, stamp: Stamp) -> int:
    return stamp.revision
