"""What one event costs the coordinator, without gRPC: ``PYTHONPATH=tests python benchmarks/core_steps.py 100 1000``.

Scripted agents speak to AgentService over streams that are nothing but a future and a list, so what is measured is our
own: CPU time from the bytes that came in to the bytes that go out, through the servicer, the driver, the core and a
journal in memory. One job of N nodes goes through a round's life, then as many agents are in jobs of two. A figure that
grows with N is an event that is not O(1), or a round that is not O(N). ``--profile heartbeats`` shows where one phase
spends its time.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc.aio

from rallypoint import wire
from rallypoint.model import (
    NO_VERSION,
    AgentPhase,
    Capability,
    ClockReading,
    Directive,
    Endpoint,
    EndpointOffer,
    Hello,
    JobSpec,
    NodeSpec,
    Observed,
    Run,
    Stop,
    Version,
    Welcome,
    WorkerFailure,
    WorkerState,
    WorkerStatus,
)
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint_coordinator.server.agent_servicer import AgentService
from rallypoint_coordinator.server.driver import Driver
from rallypoint_coordinator.server.storm import PAUSE_MAX_S
from rallypoint_coordinator.store.memory import MemoryJournal

BEATS = 3


class Gone(Exception):
    """What abort() raises."""


class Stream:
    """A ServicerContext as far as AgentService uses one. What is written is kept until it is looked at."""

    def __init__(self, number: int) -> None:
        self._peer = f"ipv4:10.0.{number >> 8 & 255}.{number & 255}:{40000 + number % 20000}"
        self._incoming: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self.written: list[bytes] = []

    def peer(self) -> str:
        return self._peer

    def say(self, data: bytes) -> None:
        self._incoming.append(data)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> Any:
        while not self._incoming:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = self._incoming.pop(0)
        return pb.AttachRequest.FromString(data) if data else grpc.aio.EOF

    async def write(self, message: Any) -> None:
        self.written.append(message if isinstance(message, bytes) else message.SerializeToString())

    async def abort(self, code: object, details: str = "", metadata: object = ()) -> None:
        raise Gone(f"{code}: {details}")

    async def abort_with_status(self, status: Any) -> None:
        raise Gone(f"{status.code}: {status.details}")


@dataclass
class Agent:
    """One agent: what it says is made before the clock starts."""

    number: int
    job: str
    spec: JobSpec
    stream: Stream = field(init=False)
    task: asyncio.Task[None] | None = None
    attach_seq: int = 0
    seq: int = 0
    acked: int = 0
    lease_id: int = 0
    welcome: Welcome | None = None
    directive: Directive | None = None
    observed: Observed = field(init=False)

    def __post_init__(self) -> None:
        self.offer(1)

    def offer(self, offer_id: int, **changes: Any) -> None:
        offer = EndpointOffer(offer_id, Endpoint(f"node-{self.number:05d}.cluster", 29500))
        seen = self.directive.version if self.directive else NO_VERSION
        self.observed = Observed(offer=offer, version=seen, **changes)

    def hello(self) -> bytes:
        self.attach_seq += 1
        self.seq = 1
        hello = Hello(
            job=self.job,
            node=f"node-{self.number:05d}",
            incarnation=f"{self.number:032x}",
            attach_seq=self.attach_seq,
            job_spec=self.spec,
            node_spec=NodeSpec(local_world_size=8, hostname=f"node-{self.number:05d}", entrypoint="train.py"),
            observed=self.observed,
            capabilities=frozenset(Capability),
            agent_version="rallypoint-agent/0.1.0",
            cluster_id=self.welcome.cluster_id if self.welcome else "",
            job_uid=self.welcome.job_uid if self.welcome else "",
            lease_id=self.lease_id,
            highest_version=self.directive.version if self.directive else NO_VERSION,
        )
        clock = ClockReading(1_000_000 + self.number)
        return wire.attach_request_to_proto(hello, lease_id=0, seq=1, clock=clock).SerializeToString()

    def message(self, said: Observed | wire.Heartbeat) -> bytes:
        self.seq += 1
        clock = ClockReading(1_000_000 + self.number + self.seq, self.acked, 1_000_000 + self.number)
        request = wire.attach_request_to_proto(said, lease_id=self.lease_id, seq=self.seq, clock=clock)
        return request.SerializeToString()

    def running(self) -> bytes:
        assert self.directive is not None
        assert isinstance(self.directive.action, Run)
        assignment = self.directive.action.assignment
        workers = tuple(
            WorkerStatus(local_rank=rank, rank=assignment.first_rank + rank, pid=100 + rank, state=WorkerState.HEALTHY)
            for rank in range(8)
        )
        self.observed = Observed(
            version=self.directive.version,
            phase=AgentPhase.RUNNING,
            round=assignment.round,
            workers=workers,
            assignment=assignment,
        )
        return self.message(self.observed)

    def failed(self) -> bytes:
        failure = WorkerFailure(node="node", local_rank=0, rank=0, pid=100, exit_code=1, fail_clock_ms=5)
        self.observed = replace(self.observed, phase=AgentPhase.STOPPING, failures=(failure,))
        return self.message(self.observed)

    def stopped(self) -> bytes:
        assert self.directive is not None
        assert isinstance(self.directive.action, Stop)
        self.offer(self.observed.round + 2, phase=AgentPhase.READY, round=self.observed.round)
        return self.message(self.observed)

    def beat(self) -> bytes:
        version = self.directive.version if self.directive else Version(0, 0)
        return self.message(wire.Heartbeat(version))

    def look(self) -> None:
        """Read what came."""
        for data in self.stream.written:
            message = wire.attach_response_from_proto(pb.AttachResponse.FromString(data))
            match message:
                case Welcome():
                    self.welcome, self.lease_id, self.acked = message, message.lease_id, 1
                    self.directive = message.directive
                case Directive():
                    self.directive = message
                case wire.Ack(seq):
                    self.acked = seq
                case _:
                    raise AssertionError(f"nobody here should be told {message}")
        self.stream.written.clear()


class Clock:
    """The driver's clock, which stands still between phases: so no lease runs out, and acks are due when we say so."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.now_ms


class Bench:
    driver: Driver

    def __init__(self, profiled: str) -> None:
        self._profiled = profiled
        self.clock = Clock()
        self.journal = MemoryJournal()

    @contextmanager
    def timed(self, phase: str, count: int, *, per: str = "event") -> Iterator[None]:
        gc.collect()
        profile = cProfile.Profile() if phase == self._profiled else None
        began = time.process_time()
        if profile:
            profile.enable()
        yield
        took = time.process_time() - began
        print(f"{phase:>28} {count:>7} {1e6 * took / count:>9.1f} us a {per:<6} {1e3 * took:>9.1f} ms CPU", flush=True)
        if profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(32)

    async def job(self, sizes: list[int]) -> None:
        """One round's life of jobs of these sizes."""
        before_kb = resident_kb()
        driver = self.driver = Driver(self.journal, clock=self.clock)
        running = asyncio.create_task(driver.run())
        await driver.wait_serving()
        service = AgentService(driver)
        agents = [
            Agent(number, f"job-{job}", JobSpec(min_nodes=size, max_nodes=size, max_restarts=3))
            for job, size in enumerate(sizes)
            for number in range(size)
        ]
        count = len(agents)
        hellos = [agent.hello() for agent in agents]
        with self.timed("join", count, per="agent"):
            await self.attach(service, agents, hellos)
        print(f"{'':>28} {(resident_kb() - before_kb) / count:.1f} KB an agent, the agents of this script included")
        await self.all_told(agents, Run)
        await self.say("all run", agents, [agent.running() for agent in agents])
        for _ in range(BEATS):
            self.clock.now_ms += 5_000
            await self.say("heartbeats", agents, [agent.beat() for agent in agents])
        await self.say("heartbeats, none due", agents, [agent.beat() for agent in agents])
        firsts = first_of_each(agents)
        await self.say("a worker fails: stop", firsts, [agent.failed() for agent in firsts], told=count)
        await self.all_told(agents, Stop)
        await self.say("all stopped: next round", agents, [agent.stopped() for agent in agents])
        await self.all_told(agents, Run)
        await self.say("all run again", agents, [agent.running() for agent in agents])
        for agent in agents:
            assert agent.task is not None
            agent.stream.say(b"")
        with self.timed("streams end", count, per="agent"):
            await asyncio.wait([agent.task for agent in agents if agent.task])
            await driver.read(lambda cluster, stamp: None)
        driver.stop()
        await running
        again = self.driver = Driver(self.journal, clock=self.clock)
        service = AgentService(again)
        with self.timed("restart: replay", count, per="agent"):
            running = asyncio.create_task(again.run())
            await again.wait_serving()
        hellos = [agent.hello() for agent in agents]
        with self.timed("attach again", count, per="agent"):
            await self.attach(service, agents, hellos)
        again.stop()
        await running

    async def attach(self, service: AgentService, agents: list[Agent], hellos: list[bytes]) -> None:
        for agent, hello in zip(agents, hellos, strict=True):
            agent.stream = Stream(agent.number)
            agent.stream.say(hello)
            agent.task = asyncio.create_task(service.Attach(None, agent.stream))  # type: ignore[arg-type]
        await self.settled()

    async def settled(self) -> None:
        """Until no callback is ready and the driver has nothing left, nor gets anything between two turns."""
        loop: Any = asyncio.get_running_loop()
        idle = 0
        while idle < 3:
            await asyncio.sleep(2 * PAUSE_MAX_S)
            idle = idle + 1 if not loop._ready and self.driver._inbox.is_empty else 0

    async def all_told(self, agents: list[Agent], action: type) -> None:
        def told(agent: Agent) -> bool:
            agent.look()
            return agent.directive is not None and isinstance(agent.directive.action, action)

        await self.settled()
        assert all(told(agent) for agent in agents), action

    async def say(self, phase: str, agents: list[Agent], said: list[bytes], told: int = 0) -> None:
        with self.timed(phase, told or len(said), per="agent"):
            for agent, data in zip(agents, said, strict=True):
                agent.stream.say(data)
            await self.settled()
        for agent in agents:
            agent.look()


def first_of_each(agents: list[Agent]) -> list[Agent]:
    return list({agent.job: agent for agent in reversed(agents)}.values())


def resident_kb() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=[100, 1000, 10000])
    parser.add_argument("--profile", default="", help="the phase to profile")
    parser.add_argument("--pairs", action="store_true", help="only jobs of two")
    options = parser.parse_args()
    gc.disable()
    for size in options.sizes:
        if not options.pairs:
            print(f"one job of {size} nodes")
            asyncio.run(Bench(options.profile).job([size]))
        print(f"{size // 2} jobs of two nodes")
        asyncio.run(Bench(options.profile).job([2] * (size // 2)))


if __name__ == "__main__":
    main()
