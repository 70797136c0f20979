"""Ours, with more clients than there can be processes: N protocol-level agents in this one, a connection each.

    python benchmarks/scoreboard/clients/many.py N REPEATS

The coordinator, with its journal on disk, has one core to itself and the agents (:mod:`scoreboard.fleet.agents`) the
other. They take a fraction of what the coordinator does, and so hardly slow it down, as on machines of their own. Else
it is timed as in :mod:`scoreboard.clients.agents`, but that a worker takes 20 ms to stop here.

Prints a :class:`Result` as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rallypoint.model import JobSpec
from scoreboard.fleet.agents import Agent, Fleet
from scoreboard.fleet.milestones import Milestone
from scoreboard.fleet.servers import CLIENT_CORES, SERVER_CORES, on_cores, raise_open_files_limit
from support.cluster import ProcessCluster

TIMEOUT_S = 60.0
LONG_MS = 600_000
"""Nothing that takes so long is measured."""
REHEARSE = 64
"""Agents of a job before those that are timed: the coordinator has done it all once, as with a process each."""
CALM_S = 0.2
CALM_CORES = 0.1
"""The coordinator has done what there was to do once it takes no more than this."""


@dataclass(frozen=True)
class Result:
    """Seconds, one for each repeat; the CPU times are the coordinator's."""

    first: list[float] = field(default_factory=list)
    first_cpu: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    again_cpu: list[float] = field(default_factory=list)


class ConnectedAgent(Agent):
    """Its Hello waits, on a connection, until it is told."""

    def __init__(self, fleet: Fleet, number: int, job: str, connected: Milestone, begin: asyncio.Event) -> None:
        super().__init__(fleet, number, job)
        self._connected, self._begin = connected, begin

    async def _serve(self) -> bool:
        self._connected.passed()
        await self._begin.wait()
        return await super()._serve()


class Meeting:
    """The agents of one job, from their connections to their end; a context."""

    def __init__(self, fleet: Fleet, pid: int, job: str, count: int) -> None:
        self._fleet, self._pid, self._count = fleet, pid, count
        self._connected, self._begin = Milestone("connected", count), asyncio.Event()
        self._agents = [ConnectedAgent(fleet, number, job, self._connected, self._begin) for number in range(count)]

    async def __aenter__(self) -> Meeting:
        self._lives = [asyncio.create_task(agent.live()) for agent in self._agents]
        await self._connected.reached(TIMEOUT_S)
        await self._calm()
        gc.collect()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._fleet.closing = True
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)
        await self._calm()

    async def first(self) -> tuple[float, float]:
        """From their Hellos until the last one has its place; and the coordinator's CPU time until it is calm again."""
        return await self._timed(self._begin.set)

    async def again(self) -> tuple[float, float]:
        """From the failure of one's worker until the last one has its next place."""
        return await self._timed(self._agents[0].fail)

    async def _timed(self, begin: Callable[[], None]) -> tuple[float, float]:
        runs = self._fleet.runs = Milestone("run", self._count)
        cpu, began = cpu_ns(self._pid), time.perf_counter()
        begin()
        took = await runs.reached(TIMEOUT_S) - began
        await self._calm()
        return took, (cpu_ns(self._pid) - cpu) / 1e9

    async def _calm(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            cpu = cpu_ns(self._pid)
            await asyncio.sleep(CALM_S)
            if cpu_ns(self._pid) - cpu < 1e9 * CALM_S * CALM_CORES:
                return
        raise RuntimeError("the coordinator does not come to rest")


def cpu_ns(pid: int) -> int:
    """The CPU time of a process's threads that live, to the nanosecond; those of gRPC and asyncio do."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


async def measure(folder: Path, count: int, repeats: int) -> Result:
    result = Result()
    with ProcessCluster(folder) as cluster:
        with on_cores(SERVER_CORES):
            coordinator = cluster.coordinator("--data-dir", f"{folder}/data", "--log-level", "warning")
        await _meet(cluster.address, coordinator.pid, "rehearsal", min(count, REHEARSE), Result())
        for repeat in range(repeats):
            await _meet(cluster.address, coordinator.pid, f"job-{repeat}", count, result)
    return result


async def _meet(address: str, pid: int, job: str, count: int, result: Result) -> None:
    host, _, port = address.rpartition(":")
    spec = JobSpec(min_nodes=count, max_nodes=count, max_restarts=1_000, lease_ttl_ms=LONG_MS)
    async with Meeting(Fleet(host, int(port), spec), pid, job, count) as meeting:
        for seconds, cpu, (took, cost) in (
            (result.first, result.first_cpu, await meeting.first()),
            (result.again, result.again_cpu, await meeting.again()),
        ):
            seconds.append(took)
            cpu.append(cost)


def main(argv: Sequence[str]) -> None:
    raise_open_files_limit()
    os.sched_setaffinity(0, CLIENT_CORES)
    with tempfile.TemporaryDirectory(prefix="rallypoint-clients-") as folder:
        print(json.dumps(asdict(asyncio.run(measure(Path(folder), int(argv[0]), int(argv[1]))))))


if __name__ == "__main__":
    main(sys.argv[1:])
