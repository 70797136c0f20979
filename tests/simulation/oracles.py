"""Judges of a run, independent of what the two cores believe: they see the disk, the wire, and what is really alive."""

from __future__ import annotations

from simulation.options import Options
from simulation.oracle_agents import AgentOracle
from simulation.oracle_journal import JournalOracle
from simulation.oracle_leases import LeaseOracle
from simulation.oracle_wire import WireOracle
from simulation.oracle_workers import WorkerOracle
from simulation.world import World


class Oracles:
    """Each raises Violation as soon as it sees one."""

    def __init__(self, world: World, options: Options) -> None:
        self.leases = LeaseOracle(world, options)
        self.workers = WorkerOracle(world, self.leases)
        self.journal = JournalOracle(options, self.workers)
        self.wire = WireOracle(self.journal)
        self.agents = AgentOracle(world, options, self.journal)
