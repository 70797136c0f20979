"""The agent of examples/clients/node beside rallypoint's own, with workers that end when they are told to."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from support.cluster import Process, ProcessCluster
from support.processes import MARK_VARIABLE, wait_until

JOB = "job"
JS_NODE = "node-js"
WORKER = str(Path(__file__).parent / "obedient.py")


class Fleet:
    """``flags``: what all agents of the job agree on, in words that both kinds of agent know. ``worker``: the script
    that they run, and its arguments."""

    def __init__(self, cluster: ProcessCluster, client: Path, *flags: str, worker: tuple[str, ...] = ()) -> None:
        self.cluster = cluster
        self.client = client
        self.flags = flags
        self.orders = cluster.folder / "orders"
        self.orders.mkdir()
        self.worker = worker or (WORKER, str(self.orders))
        self.js_agents: list[Process] = []

    def start_python_agent(self, node: str) -> Process:
        flags = ("--rdzv-id", JOB, "--nproc-per-node", "1", *self.flags)
        return self.cluster.agent(node, *flags, *self.worker)

    def start_js_agent(self, *flags: str, node: str = JS_NODE, coordinator: str = "", **more: str) -> Process:
        """``more``: of its environment."""
        whose = ("--coordinator", coordinator or self.cluster.address, "--job", JOB, "--node", node)
        argv = ["node", str(self.client / "agent.js"), *whose, *(flags or self.flags), "--"]
        mine = {MARK_VARIABLE: self.cluster.mark, "LOGLEVEL": "INFO", "TMPDIR": str(self.cluster.folder)}
        folder, env = self.cluster.folder, {**os.environ, **mine, **more}
        process = Process(node, [*argv, sys.executable, *self.worker], folder, env)
        self.cluster.processes.append(process)
        self.js_agents.append(process)
        return process

    def end_js_agents(self) -> None:
        """While there is a coordinator to say goodbye to: else a guard would try for a lease."""
        for agent in self.js_agents:
            agent.signal(signal.SIGTERM)
        for agent in self.js_agents:
            agent.wait()

    def end_worker(self, rank: int, round_number: int, exit_code: int) -> None:
        self._order(f"exit.{rank}.{round_number}", exit_code)

    def end_all_workers(self) -> None:
        self._order("exit.all", 0)

    def _order(self, name: str, exit_code: int) -> None:
        unfinished = self.orders / f"{name}.unfinished"
        unfinished.write_text(str(exit_code))
        unfinished.rename(self.orders / name)

    def environment(self, rank: int, round_number: int) -> dict[str, str]:
        """What the worker found in its environment."""
        path = self.orders / f"{rank}.{round_number}.json"
        wait_until(path.exists, message=f"rank {rank} has not come up in round {round_number}")
        found: dict[str, str] = json.loads(path.read_text())
        return found

    def pids(self, round_number: int) -> dict[int, int]:
        """The workers' by rank, once all agents of the round have said that they run."""
        return {worker.rank: worker.pid for worker in self.cluster.wait_for_round(JOB, round_number)}
