"""The coordinator's machine on simulated time: its disk, and one process after another on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from rallypoint.errors import Refusal
from rallypoint.v1.job_service_pb2 import WatchJobRequest
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.server.driver import Query
from simulation.coordinator_process import CoordinatorProcess, CrashPoint, WatchCall
from simulation.disk import Disk
from simulation.journal import Doubt
from simulation.network import Network
from simulation.options import Options
from simulation.oracles import Oracles
from simulation.world import World

NORMAL_DOWN_MS = (100, 1_000)

T = TypeVar("T")


class CoordinatorHost:
    """``disk`` outlives the process, which is started again when it dies, ``down_ms`` later."""

    def __init__(self, world: World, network: Network, oracles: Oracles, options: Options) -> None:
        self.options = options.driver
        self.bounds = options.bounds
        self.disk = Disk(world, oracles.durable)
        self.chance = world.chance("coordinator")
        self._strangers, self._stranger_chance = options.strangers, world.chance("strangers")
        self.down_ms = NORMAL_DOWN_MS
        self.starts = 0
        self._world = world
        self._network = network
        self._oracles = oracles
        self._process: CoordinatorProcess | None = None
        self._is_powered = True

    def strangers(self) -> int:
        """So many agents of jobs that are not simulated are attached at this moment."""
        return self._stranger_chance.between(0, self._strangers)

    @property
    def cluster(self) -> Cluster | None:
        """None while nobody serves."""
        return self._process.cluster if self._process is not None and self._process.serves else None

    def check_replay(self) -> None:
        if self._process is not None and self._process.serves:
            self._process.cluster.check_replay()

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process is None and self._is_powered:
            self.starts += 1
            process = CoordinatorProcess(self, self._world, self._oracles)
            self._process = self._network.server = process
            process.begin()

    def crash(self) -> None:
        """The process is killed, whatever it does; the kernel ends its connections."""
        if self._process is not None:
            self._process.die()

    def crash_at(self, point: CrashPoint | None) -> None:
        """The process dies at that point of its next turn that decides something; None: it does not."""
        if self._process is not None:
            self._process.crash_point = point

    def terminate(self) -> None:
        """SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def doubt_append(self, doubt: Doubt) -> bool:
        """The next append is not confirmed. False if nobody is there to append."""
        if self._process is None:
            return False
        self._process.journal.doubt = doubt
        return True

    def begin_another(self) -> bool:
        """A second coordinator begins an epoch on the same journal, and is gone again. False if it finds nothing."""
        if self.disk.revision == 0 or self.disk.is_full:
            return False
        self.disk.begin_epoch_of_another(self._world.wall_ms)
        return True

    def lose_journal(self, revision: int) -> None:
        """The process is killed, and finds only the first so many records when it is started again."""
        self.crash()
        self._oracles.watches.journal_lost(list(self.disk.entries()), revision)
        self.disk.lose(revision)
        self._oracles.journal_lost(list(self.disk.entries()))

    def read(self, query: Query[T], answer: Callable[[T | Refusal], None]) -> None:
        """If somebody is there to be asked."""
        if self._process is not None and self._process.accepts:
            self._process.read(query, answer)

    def watch(self, request: WatchJobRequest, call: WatchCall) -> asyncio.Task[None] | None:
        """The stream; None if nobody is there to answer."""
        if self._process is None or not self._process.accepts:
            return None
        return self._process.watch(request, call)

    def lose_power(self) -> None:
        """The machine is gone, and says nothing of it: not before it is back."""
        self._is_powered = False
        self._network.lose_host()
        if self._process is not None:
            self._process.die()

    def restore_power(self) -> None:
        if not self._is_powered:
            self._is_powered = True
            self.start()
            self._network.find_host()

    def end(self) -> None:
        """The run is over: nothing of the process may linger."""
        if self._process is not None:
            self._process.end()

    def process_accepts(self) -> None:
        self._network.accept()

    def process_died(self) -> None:
        self._process = self._network.server = None
        self._network.accept()
        self._world.after(self.chance.between(*self.down_ms), self.start)
