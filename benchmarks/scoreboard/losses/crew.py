"""The agents of one job, each a node of its own, and the workers that they run now."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from scoreboard.losses.births import SCRIPT, Birth, Births, last_ns, now_ns, seconds, watch_ends
from support.cluster import Process, ProcessCluster

WORKERS_PER_NODE = 2


@dataclass(frozen=True)
class Loss:
    """What came of the SIGKILL of an agent, in seconds since."""

    tree_gone_s: float
    next_round_s: float


class Crew:
    """``flags`` are the job's. Nothing is started before :meth:`start`."""

    def __init__(self, cluster: ProcessCluster, births: Births, job: str, *flags: str) -> None:
        self.cluster = cluster
        self.job = job
        self.workers: list[Birth] = []
        """Of the newest round that was waited for, by rank."""
        self._births = births
        self._flags = ("--rdzv-id", job, "--nproc-per-node", str(WORKERS_PER_NODE), *flags)
        self._agents: dict[str, Process] = {}

    def start(self, *nodes: str) -> None:
        for node in nodes:
            env = self._births.inbox.env | {"NODE": node}
            self._agents[node] = self.cluster.agent(node, *self._flags, SCRIPT, **env)

    @property
    def round(self) -> int:
        return self.workers[0].round if self.workers else -1

    @property
    def nodes(self) -> list[str]:
        """Of the round, by group rank."""
        return list(dict.fromkeys(worker.node for worker in self.workers))

    def family(self, node: str) -> list[int]:
        """The processes of the node's workers."""
        return [pid for worker in self.workers if worker.node == node for pid in worker.family]

    def wait_round(self, nodes: int) -> list[Birth]:
        """Wait until all workers of a next round of so many nodes have begun."""
        self.workers = self._births.wait_whole(self.job, self.round, nodes * WORKERS_PER_NODE)
        return self.workers

    def rest(self) -> None:
        """Wait until the coordinator knows that all workers of the round run."""
        self.cluster.wait_for_round(self.job, self.round)

    def began_since(self) -> dict[int, int]:
        """How many workers began in rounds after the newest one that was waited for."""
        return {number: count for number, count in self._births.counts(self.job).items() if number > self.round}

    def lose(self, node: str, nodes_left: int) -> Loss:
        """SIGKILL the agent, and wait for the next round, of so many nodes."""
        agent = self._agents.pop(node)
        with watch_ends(self.family(node)) as ends:
            at_ns = now_ns()
            os.kill(agent.pid, signal.SIGKILL)
            gone_ns = ends.wait_all()
        agent.wait()
        workers = self.wait_round(nodes_left)
        return Loss(seconds(at_ns, gone_ns), seconds(at_ns, last_ns(workers)))
