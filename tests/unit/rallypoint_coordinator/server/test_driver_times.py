"""What the driver tells the core of time: how long an event waited for its step, and when records are durable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rallypoint.model import Capability, Endpoint, EndpointOffer, Hello, JobSpec, NodeSpec, Observed
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.events import AgentAttached, OperatorAsked, Request, Stamp
from rallypoint_coordinator.core.round_changes import Phases, instants_of, phases_of
from rallypoint_coordinator.server.driver import Driver
from rallypoint_coordinator.store.journal import AppendResult
from rallypoint_coordinator.store.memory import MemoryJournal
from support.hand_clock import HandClock

SPEC = JobSpec(min_nodes=1, max_nodes=1, last_call_timeout_ms=0)


class SlowJournal(MemoryJournal):
    """Each append takes ``append_ms`` by the clock, and waits for the gate."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self.append_ms = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.appending = asyncio.Event()
        self._clock = clock

    async def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        self.appending.set()
        await self.gate.wait()
        self._clock.now_ms += self.append_ms
        return await super().append(expected_revision, records)


def hello(job: str) -> Hello:
    return Hello(
        job=job,
        node="node-a",
        incarnation="i",
        attach_seq=1,
        job_spec=SPEC,
        node_spec=NodeSpec(),
        observed=Observed(offer=EndpointOffer(1, Endpoint("127.0.0.1", 4000))),
        capabilities=frozenset(Capability),
    )


def newest_phases(cluster: Cluster, stamp: Stamp) -> Phases:
    life = cluster.current("train")
    assert life is not None
    return phases_of(instants_of(life.facts.round_changes[-1], life.watch.sightings))


async def test_an_event_waits_in_the_inbox_and_a_record_for_the_disk() -> None:
    clock = HandClock()
    journal = SlowJournal(clock)
    driver = Driver(journal, clock=clock)
    running = asyncio.create_task(driver.run())
    await driver.wait_serving()
    await attach(driver, "train")
    await driver.read(lambda cluster, stamp: None)
    await keep_busy(driver, journal)
    asked = asyncio.create_task(
        driver.ask(lambda call: OperatorAsked(call=call, job="train", request=Request.RESTART, by="ops"))
    )
    await asyncio.sleep(0)
    clock.now_ms += 300
    journal.append_ms = 20
    journal.gate.set()
    assert await asked
    assert await driver.read(newest_phases) == Phases(0, 300 + 20 + 20, None, None, None)
    driver.stop()
    await running


async def attach(driver: Driver, job: str) -> None:
    stream, _ = driver.open_stream()
    await driver.submit(AgentAttached(stream=stream, hello=hello(job), peer="127.0.0.1", fresh_uid=f"uid-of-{job}"))


async def keep_busy(driver: Driver, journal: SlowJournal) -> None:
    """Have it wait for the journal, on behalf of another job."""
    journal.gate.clear()
    journal.appending.clear()
    await attach(driver, "another")
    await journal.appending.wait()
