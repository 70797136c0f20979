"""The coordinator's machine on simulated time: its disk, and one process after another on it."""

from __future__ import annotations

from rallypoint_coordinator.core.cluster import Cluster, Retention
from rallypoint_coordinator.core.records import Entry
from simulation.coordinator_process import CoordinatorProcess, CrashPoint
from simulation.journal import SimJournal
from simulation.network import Network
from simulation.oracles import Oracles
from simulation.world import World

NORMAL_DISK_MS = (1, 10)
NORMAL_DOWN_MS = (100, 1_000)


class CoordinatorHost:
    """``journal`` outlives the process, which is started again when it dies.

    ``disk_ms``: how long an append takes; ``down_ms``: how long until a process that died is back.
    """

    def __init__(self, world: World, network: Network, oracles: Oracles, retention: Retention) -> None:
        self.retention = retention
        self.journal = SimJournal()
        self.disk_ms = NORMAL_DISK_MS
        self.down_ms = NORMAL_DOWN_MS
        self._world = world
        self._network = network
        self._oracles = oracles
        self._process: CoordinatorProcess | None = None
        self._fresh_ids = 0
        self._is_powered = True

    @property
    def cluster(self) -> Cluster | None:
        return self._process.cluster if self._process is not None else None

    @property
    def undurable(self) -> list[Entry]:
        return self._process.undurable if self._process is not None else []

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process is None and self._is_powered:
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

    def process_died(self) -> None:
        self._process = self._network.server = None
        self._world.after(self._world.between(*self.down_ms), self.start)

    def fresh_id(self, kind: str) -> str:
        self._fresh_ids += 1
        return f"{kind}-{self._fresh_ids}"
