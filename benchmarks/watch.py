"""What a decision costs with 1,000 watchers of its job, against none, in one run: ``make bench-watch N=1000``.

A decision is an agent's: from its Hello to the Welcome, with the records on the disk between the two. Blocks with and
without watchers take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import grpc.aio

from rallypoint import wire
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from rallypoint_coordinator.server.options import parse_address
from support.cluster import ProcessCluster
from support.wire_client import Coordinator, WireAgent, hello

BLOCKS = 4
DECISIONS = 150
GAP_S = 0.02
CONNECTIONS = 20


async def decide(coordinator: Coordinator, number: int) -> float:
    """One agent comes and goes: seconds until it was welcomed."""
    agent = WireAgent(coordinator)
    began = time.perf_counter()
    await agent.attach(hello("node-x", incarnation=f"incarnation-{number}"))
    took = time.perf_counter() - began
    await agent.send(wire.Goodbye("LEAVING", "that was all"))
    await agent.end()
    return took


async def block(coordinator: Coordinator, first: int) -> list[float]:
    took = []
    for number in range(first, first + DECISIONS):
        took.append(await decide(coordinator, number))
        await asyncio.sleep(GAP_S)
    return took


async def measure(address: str, watchers: int) -> dict[bool, list[float]]:
    """The decisions' times, by whether somebody watched."""
    took: dict[bool, list[float]] = {False: [], True: []}
    async with grpc.aio.insecure_channel(address) as channel:
        coordinator = Coordinator(cast(Any, None), parse_address(address), channel)
        first = WireAgent(coordinator)
        await first.attach()
        await block(coordinator, 10**6)
        for number in range(2 * BLOCKS):
            watched = number % 2 == 1
            command = (sys.executable, __file__, "--watch", address, str(watchers if watched else 0))
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
            assert process.stdout is not None
            assert await process.stdout.readline() == b"all watch\n"
            took[watched] += await block(coordinator, number * DECISIONS)
            said, _ = await process.communicate(b"")
            if watched:
                print(said.decode().strip(), flush=True)
    return took


# --- the watchers, in a process of their own


async def crowd(address: str, count: int) -> None:
    """Watch until standard input ends."""
    told: list[int] = [0] * count
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as channels:
        stubs: list[Any] = [
            JobServiceStub(await channels.enter_async_context(grpc.aio.insecure_channel(address, options=options)))
            for _ in range(CONNECTIONS)
        ]
        calls = [stubs[number % CONNECTIONS].WatchJob(pb.WatchJobRequest(name="jobs/train")) for number in range(count)]
        await asyncio.gather(*(call.read() for call in calls))

        async def watch(number: int) -> None:
            while (message := await calls[number].read()) is not grpc.aio.EOF:
                told[number] += len(message.events)

        watching = [asyncio.create_task(watch(number)) for number in range(count)]
        print("all watch", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in watching:
            task.cancel()
    if count:
        print(f"each of {count} watchers was told {min(told)} to {max(told)} events")


def main(watchers: int) -> int:
    with tempfile.TemporaryDirectory(prefix="rallypoint-watch-") as folder, ProcessCluster(Path(folder)) as cluster:
        cluster.coordinator("--data-dir", f"{folder}/data")
        took = asyncio.run(measure(cluster.address, watchers))
    without, watched = sorted(took[False]), sorted(took[True])
    for what, times in (("nobody watches", without), (f"{watchers} watch", watched)):
        p90, p99 = times[len(times) * 9 // 10], times[len(times) * 99 // 100]
        median = statistics.median(times)
        print(f"{what}: a decision takes {1e3 * median:.2f} ms (median), {1e3 * p90:.2f} (p90), {1e3 * p99:.2f} (p99)")
    print(f"ratio of the medians: {statistics.median(watched) / statistics.median(without):.2f}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--watch"]:
        asyncio.run(crowd(sys.argv[2], int(sys.argv[3])))
        sys.exit(0)
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000))
