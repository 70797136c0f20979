"""One run of a seed: chaos, then everything is healed, and all must come to its end."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field

from rallypoint_coordinator.core.explain import as_of
from simulation.coordinator_host import CoordinatorHost
from simulation.faults import Faults
from simulation.network import Network
from simulation.node import Node
from simulation.operators import Operators
from simulation.options import FaultKind, Options, RequestKind, draw_options
from simulation.oracles import Oracles
from simulation.server_log import told_by
from simulation.setting import Setting
from simulation.transcript import Transcript
from simulation.watchers import Watchers
from simulation.workload import Workload
from simulation.world import Violation, World, crash

LIVENESS_MS = 1_800_000
"""After everything is healed, so long may it take until all lives are decided and all agents have finished, and then
until all who watch have been told so."""


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run was like. ``violation`` None: nothing was wrong."""

    seed: int
    violation: Violation | None
    events: int
    virtual_ms: int
    agents: int
    rounds: int
    lives: Counter[str] = field(default_factory=Counter)
    """By the reason of their outcome."""
    faults: Counter[FaultKind] = field(default_factory=Counter)
    requests: Counter[RequestKind] = field(default_factory=Counter)
    snapshots: int = 0
    watches: int = 0
    """Streams of those who watched."""


class Simulation:
    """Everything of one run, made from the seed."""

    def __init__(self, seed: int, transcript: Transcript | None = None, options: Options | None = None) -> None:
        self._seed = seed
        self._world = World(seed, transcript)
        drawn = draw_options(self._world)
        self._options = options or drawn
        self._world.tell("=", "options", self._options)
        network = Network(self._world, self._options.delay_ms)
        self._oracles = Oracles(self._world, self._options)
        setting = Setting(
            world=self._world,
            options=self._options,
            network=network,
            oracles=self._oracles,
            workload=Workload(self._world),
        )
        self._host = CoordinatorHost(self._world, network, self._oracles, self._options)
        ports = itertools.count(20_000)
        self._nodes = [
            Node(setting, job, number, ports)
            for job, options in enumerate(self._options.jobs)
            for number in range(len(options.nodes))
        ]
        self._faults = Faults(setting, self._host, self._nodes)
        self._operators = Operators(setting, self._host)
        self._watchers = Watchers(setting, self._host)

    def run(self) -> Result:
        with told_by(self._world):
            violation = self._violation()
            self._host.end()
        outcomes = (life.outcome for life in self._oracles.journal.lives.values())
        return Result(
            seed=self._seed,
            violation=violation,
            events=self._world.events,
            virtual_ms=self._world.now_ms,
            agents=sum(node.incarnations for node in self._nodes),
            rounds=self._oracles.journal.rounds,
            lives=Counter(outcome.reason if outcome else "UNDECIDED" for outcome in outcomes),
            faults=self._faults.injected,
            requests=self._operators.asked,
            snapshots=self._host.disk.snapshots,
            watches=self._watchers.streams,
        )

    def _violation(self) -> Violation | None:
        try:
            self._chaos()
            self._liveness()
            self._final_checks()
            self._watch_to_the_end()
        except Violation as violation:
            return violation
        except Exception as error:
            return crash(self._world.now_ms, error)
        return None

    def _chaos(self) -> None:
        self._host.start()
        for node in self._nodes:
            node.start_after(node.options.joins_at_ms)
        self._faults.begin()
        self._operators.begin()
        self._watchers.begin()
        self._world.run(self._options.chaos_ms, self._is_over)

    def _liveness(self) -> None:
        self._faults.heal()
        self._world.run(self._world.now_ms + LIVENESS_MS, self._is_over)
        if not self._is_over():
            raise Violation("LIVENESS", "; ".join(self._explanations()))

    def _is_over(self) -> bool:
        """Nothing runs any more, and all is decided."""
        if self._oracles.journal.undecided or self._host.cluster is None:
            return False
        return all(node.process is None and not node.starting for node in self._nodes)

    def _explanations(self) -> list[str]:
        """Each machine's own."""
        cluster = self._host.cluster
        if cluster is None:
            return ["the coordinator is down"]
        lines = [
            f"{uid} {life.facts.state}: {life.watch.reason}: {as_of(life, life.watch.explained_at_ms)[0]}"
            for uid, life in cluster.lives.items()
            if life.facts.outcome is None
        ]
        processes = [node.process for node in self._nodes if node.process is not None]
        return [*lines, *(process.explanation for process in processes)]

    def _watch_to_the_end(self) -> None:
        self._watchers.settle()
        self._world.run(self._world.now_ms + LIVENESS_MS, self._watchers.have_seen_the_end)
        if not self._watchers.have_seen_the_end():
            raise Violation("LIVENESS", "somebody who watches has not been told the end")
        self._oracles.watches.judge(list(self._host.disk.entries()))

    def _final_checks(self) -> None:
        alive = [group for group in self._oracles.workers.live_groups if not group.unkillable]
        if alive:
            raise Violation("A4", f"all agents ended, workers are alive: {alive}")
        self._host.check_replay()


def run_seed(seed: int, transcript: Transcript | None = None, options: Options | None = None) -> Result:
    """``options`` stand in for those that the seed would give."""
    return Simulation(seed, transcript, options).run()
