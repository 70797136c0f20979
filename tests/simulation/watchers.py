"""People and tools that watch jobs: they read at any pace, lose their connection, and come back with their token."""

from __future__ import annotations

import asyncio
from functools import partial

from rallypoint.errors import Refusal
from rallypoint.v1 import job_service_pb2 as pb
from simulation.coordinator_host import CoordinatorHost
from simulation.coordinator_process import WatchCall
from simulation.oracle_watches import WatchOracle
from simulation.setting import Setting
from simulation.world import Chance, World
from support.watch_history import Reader

FIRST_MS = (0, 10_000)
AGAIN_MS = (50, 2_000)
LATER_MS = 5_000
"""How long the job's end, or want of the job, is looked at before the next look."""
STAYS_MS = 20_000
"""In the mean, before it leaves."""
READS_MS = ((0, 0), (0, 0), (0, 20), (0, 2_000))
"""How long it takes over a message: each watcher has one of these."""


class Watcher(WatchCall):
    """Reads one job for as long as the run lasts, one stream after the other."""

    def __init__(self, world: World, host: CoordinatorHost, oracle: WatchOracle, job: str, number: int) -> None:
        self.reader = Reader(job)
        self.settles = False
        self.streams = 0
        self._world = world
        self._host = host
        self._oracle = oracle
        self._chance: Chance = world.chance(f"watcher/{job}/{number}")
        self._reads_ms = self._chance.choice(READS_MS)
        self._name = f"watcher {number} of {job}"
        self._task: asyncio.Task[None] | None = None
        oracle.readers.append(self.reader)

    def begin(self) -> None:
        self._world.after(self._chance.between(*FIRST_MS), self._open)

    @property
    def has_seen_the_end(self) -> bool:
        """It has been told how its job ended, or that there is none."""
        return self.settles and self._looked_last in ("OK", "JOB_NOT_FOUND")

    _looked_last = ""

    def _open(self) -> None:
        self._looked_last = ""
        self._task = self._host.watch(self.reader.request(), self)
        if self._task is None:
            self._again()
            return
        self.streams += 1
        if not self.settles:
            leaves_ms = int(self._chance.expovariate(1 / STAYS_MS))
            self._world.after(leaves_ms, partial(self._leave, self._task))

    def _leave(self, task: asyncio.Task[None]) -> None:
        if task is self._task:
            task.cancel()
            self.broken()

    def _again(self, delay_ms: int | None = None) -> None:
        self._task = None
        self._world.after(self._chance.between(*AGAIN_MS) if delay_ms is None else delay_ms, self._open)

    # --- what the stream says

    def read_ms(self) -> int:
        return 0 if self.settles else self._chance.between(*self._reads_ms)

    def told(self, data: bytes) -> None:
        if self._task is None:
            return
        message = pb.WatchJobResponse.FromString(data)
        self._world.tell("<", self._name, f"{message.revision}: {[event.message for event in message.events]}")
        self._oracle.told(self.reader, message, self._host.disk.revision)

    def ended(self, refusal: Refusal | None) -> None:
        if self._task is None:
            return
        how = refusal.reason.value if refusal is not None else "OK"
        self._world.tell("<", self._name, f"the watch ends: {how}")
        self._oracle.ended(self.reader, how)
        self._looked_last = how
        if not self.has_seen_the_end:
            self._again(LATER_MS if how in ("OK", "JOB_NOT_FOUND") else None)

    def broken(self) -> None:
        if self._task is None:
            return
        self.reader.ended("broken")
        self._again()


class Watchers:
    """``watches``: how many streams there were."""

    def __init__(self, setting: Setting, host: CoordinatorHost) -> None:
        options = setting.options
        self._all = [
            Watcher(setting.world, host, setting.oracles.watches, job.name, number)
            for job in options.jobs
            for number in range(options.watchers)
        ]

    def begin(self) -> None:
        for watcher in self._all:
            watcher.begin()

    def settle(self) -> None:
        """From now on they read what comes and stay."""
        for watcher in self._all:
            watcher.settles = True

    @property
    def streams(self) -> int:
        return sum(watcher.streams for watcher in self._all)

    def have_seen_the_end(self) -> bool:
        return all(watcher.has_seen_the_end for watcher in self._all)
