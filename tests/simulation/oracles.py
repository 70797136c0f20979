"""Judges of a run, independent of what the two cores believe: they see the disk, the wire, and what is really alive."""

from __future__ import annotations

from collections.abc import Sequence

from rallypoint_coordinator.core.records import Entry
from simulation.options import Options
from simulation.oracle_agents import AgentOracle
from simulation.oracle_alone import AloneOracle
from simulation.oracle_journal import JournalOracle
from simulation.oracle_leases import LeaseOracle
from simulation.oracle_operators import OperatorOracle
from simulation.oracle_phases import PhaseOracle
from simulation.oracle_policies import PolicyOracle
from simulation.oracle_watches import WatchOracle
from simulation.oracle_wire import WireOracle
from simulation.oracle_workers import WorkerOracle
from simulation.world import World


class Oracles:
    """Each raises Violation as soon as it sees one."""

    def __init__(self, world: World, options: Options) -> None:
        self.leases = LeaseOracle(world)
        self.workers = WorkerOracle(world, self.leases)
        self.journal = JournalOracle(options, self.workers)
        self.phases = PhaseOracle(world, self.workers)
        self.policies = PolicyOracle(self.workers)
        self.operators = OperatorOracle()
        self.alone = AloneOracle([job.name for job in options.jobs])
        self.wire = WireOracle(self.journal)
        self.agents = AgentOracle(world, self.journal)
        self.watches = WatchOracle(may_expire=options.forgets_events)

    def journal_lost(self, left: Sequence[tuple[int, Entry]]) -> None:
        """Only these records are left of it, each with its revision."""
        self.leases.journal_lost(len(left))
        self.journal.journal_lost(left)
        self.policies.journal_lost(left)
        self.operators.journal_lost(left)

    def durable(self, entry: Entry, revision: int) -> None:
        """Each record, once, when it is durable."""
        self.journal.durable(entry, revision)
        self.phases.durable(entry, revision)
        self.policies.durable(entry, revision)
        self.operators.durable(entry)
