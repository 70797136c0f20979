"""The coordinator's core as the driver has it, with somebody who looks at every step."""

from __future__ import annotations

from collections import deque

from rallypoint_coordinator.core import invariants
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.core.effects import Output
from rallypoint_coordinator.core.events import AgentHeartbeat, Event, Stamp, TimeAdvanced
from rallypoint_coordinator.core.invariants import InvariantViolation
from rallypoint_coordinator.core.records import Entry
from simulation.disk import Disk, check_replay
from simulation.oracles import Oracles
from simulation.world import Violation, World

NAME = "coordinator"


class WatchedCluster(Cluster):
    """The driver catches what the core raises; here it ends the run. ``undurable``: decided, and not confirmed yet."""

    def __init__(self, world: World, disk: Disk, oracles: Oracles) -> None:
        super().__init__()
        self.undurable: deque[Entry] = deque()
        self._durable_revision = 0
        self._world = world
        self._disk = disk
        self._oracles = oracles

    def start(self, stamp: Stamp, fresh_cluster_id: str) -> Output:
        with self._world.judged():
            self._world.tell("=", NAME, f"starts with {self._disk.revision} records")
            check_replay(self._disk, (), self)
            self._durable_revision = self._disk.revision
            self._oracles.leases.coordinator_started()
            self._oracles.alone.epoch_begins(self._disk.entries())
            output = super().start(stamp, fresh_cluster_id)
            self._oracles.alone.started(output, stamp, fresh_cluster_id)
            return self._look_at(output)

    def step(self, event: Event, stamp: Stamp) -> Output:
        with self._world.judged():
            if not isinstance(event, AgentHeartbeat | TimeAdvanced):
                self._world.tell("<", NAME, event)
            output = super().step(event, stamp)
            self._oracles.leases.coordinator_stepped(event, output)
            self._oracles.alone.stepped(event, stamp, output)
            return self._look_at(output)

    def retain(self, retention: Retention, stamp: Stamp) -> Output:
        with self._world.judged():
            output = super().retain(retention, stamp)
            self._oracles.alone.retained(output, stamp)
            return self._look_at(output)

    def appended(self, count: int) -> None:
        """The first so many of what was decided are durable now."""
        self._durable_revision += count
        for _ in range(count):
            self.undurable.popleft()

    def check_replay(self) -> None:
        """Unless the journal goes on without us: then what we believe will be forgotten."""
        if self._durable_revision == self._disk.revision:
            check_replay(self._disk, list(self.undurable), self)

    def _look_at(self, output: Output) -> Output:
        self.undurable.extend(output.records)
        for entry in output.records:
            self._world.tell("=", NAME, entry.record)
        self._check_lives(output)
        return output

    def _check_lives(self, output: Output) -> None:
        """The machine's own invariants; a step without records changes no fact."""
        for uid in dict.fromkeys(entry.job_uid for entry in output.records):
            life = self.lives.get(uid)
            try:
                if life is not None:
                    invariants.check(life)
                    self._oracles.phases.stepped(life)
            except InvariantViolation as error:
                raise Violation(error.invariant, str(error)) from error
