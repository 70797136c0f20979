"""What the coordinator makes of a fleet: agents join, beat, a worker of one fails, and the coordinator is killed."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

from rallypoint.model import HEARTBEATS_PER_LEASE, JobSpec
from scoreboard.fleet.agents import Agent, Fleet
from scoreboard.fleet.figures import FleetFigures, Join, Plan, Restart, Return, Steady
from scoreboard.fleet.milestones import Milestone
from scoreboard.fleet.pacing import Pacer, steady
from scoreboard.fleet.servers import SERVER_CORES, busy_s, cpu_s, on_cores, rss_mib
from support.cluster import Process, ProcessCluster

PATIENCE_S = 120.0
_LOOK_S = 0.2
_CONNECTS_AT_ONCE = 50
"""To begin all of them takes this process seconds. One with a machine of its own says Hello once it is connected."""


class FleetRun:
    """One coordinator and its agents, in ``jobs`` jobs of as many nodes each; a context."""

    def __init__(self, folder: Path, agents: int, jobs: int = 1, lease_ttl_ms: int = 30_000) -> None:
        nodes = agents // jobs
        self._count, self._nodes = nodes * jobs, nodes
        self._cluster = ProcessCluster(folder)
        self._flags = ("--data-dir", f"{folder}/data", "--log-level", "warning")
        self._spec = JobSpec(
            min_nodes=nodes, max_nodes=nodes, max_restarts=1_000, last_call_timeout_ms=0, lease_ttl_ms=lease_ttl_ms
        )
        self._lives: list[asyncio.Task[None]] = []
        self.pid = 0
        self.fleet: Fleet
        self.agents: list[Agent] = []

    async def __aenter__(self) -> FleetRun:
        self._cluster.__enter__()
        await self._start_coordinator()
        host, _, port = self._cluster.address.rpartition(":")
        self.fleet = Fleet(host, int(port), self._spec)
        self.agents = [Agent(self.fleet, number, f"job-{number // self._nodes:05}") for number in range(self._count)]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.fleet.closing = True
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)
        self._process.popen.kill()
        self._cluster.__exit__(None, None, None)

    async def _start_coordinator(self) -> None:
        def start() -> Process:
            with on_cores(SERVER_CORES):
                return self._cluster.coordinator(*self._flags, listen=self._cluster.address)

        self._process = await asyncio.to_thread(start)
        self.pid = self._process.pid

    # --- Phases

    async def join(self) -> Join:
        """All at once, until each has its place in the first round."""
        fleet, cpu = self.fleet, cpu_s(self.pid)
        fleet.attached, fleet.runs = Milestone("attached", self._count), Milestone("run", self._count)
        began = time.perf_counter()
        for first in range(0, self._count, _CONNECTS_AT_ONCE):
            agents = self.agents[first : first + _CONNECTS_AT_ONCE]
            self._lives.extend(asyncio.create_task(agent.live()) for agent in agents)
            await asyncio.sleep(0)
        attached = await fleet.attached.reached(PATIENCE_S)
        running = await fleet.runs.reached(PATIENCE_S)
        took = cpu_s(self.pid) - cpu
        gc.collect()
        gc.freeze()
        await self.quiet()
        return Join(attached - began, running - began, took)

    async def quiet(self) -> None:
        """Wait until the coordinator has little to do, so that one phase is not taken for the next."""
        deadline = time.perf_counter() + PATIENCE_S
        while time.perf_counter() < deadline:
            before = busy_s(self.pid)
            await asyncio.sleep(_LOOK_S)
            if busy_s(self.pid) - before < _LOOK_S / 2:
                return
        raise RuntimeError("the coordinator does not come to rest")

    async def steady(self, rate: float, lasts_s: float, windows: int) -> list[Steady]:
        """So many heartbeats a second, whatever interval the coordinator asks for; a figure for each window of time."""
        self.fleet.beats_by_interval = False
        # An answer that went out just now stands in for the next one.
        await asyncio.sleep(1.2 * self._spec.lease_ttl_ms / 1000 / (2 * HEARTBEATS_PER_LEASE))
        for agent in self.agents:
            agent.expect_no_answer()
        pacer = Pacer([agent.beat for agent in self.agents], rate)
        seen = [await steady(pacer, lasts_s, self.pid, self.fleet.beat_latencies) for _ in range(windows)]
        self.fleet.beats_by_interval = True
        return seen

    async def restart(self) -> Restart:
        """A worker of the last agent fails, and its job begins a new round."""
        fleet, cpu = self.fleet, cpu_s(self.pid)
        fleet.stops, fleet.runs = Milestone("stop", self._nodes - 1), Milestone("run", self._nodes)
        fleet.stopped = Milestone("stopped", self._nodes)
        began = time.perf_counter()
        self.agents[-1].fail()
        told = await fleet.stops.reached(PATIENCE_S)
        stopped = await fleet.stopped.reached(PATIENCE_S)
        running = await fleet.runs.reached(PATIENCE_S)
        took = cpu_s(self.pid) - cpu
        await self.quiet()
        return Restart(told - began, running - stopped, running - began, took)

    async def come_back(self) -> Return:
        """SIGKILL, and another coordinator on the same journal, until all are attached again."""
        self.fleet.attached = Milestone("attached again", self._count)
        began = time.perf_counter()
        self._process.popen.kill()
        await asyncio.to_thread(self._process.popen.wait)
        await self._start_coordinator()
        serves = time.perf_counter()
        attached = await self.fleet.attached.reached(PATIENCE_S)
        took = cpu_s(self.pid)
        await self.quiet()
        return Return(serves - began, attached - began, took)


async def measure(folder: Path, count: int, *, jobs: int, rate: float, plan: Plan) -> FleetFigures:
    """All of it. With many jobs it is the last one's worker that fails."""
    async with FleetRun(folder, count, jobs) as run:
        idle_mib = rss_mib(run.pid)
        joined = await run.join()
        windows = await run.steady(rate, plan.window_s, plan.windows)
        restarts = [await run.restart() for _ in range(plan.tellings)]
        back = [await run.come_back() for _ in range(plan.returns)]
        return FleetFigures(idle_mib, joined, windows, restarts, back, run.fleet.connects, run.fleet.ends)
