"""Four agents and a coordinator with a data directory, and what can be seen of them from outside.

Everything here raises Wrong for what must never be, and AssertionError for what does not happen in time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from chaos.lives import Life, Lives
from rallypoint.v1 import job_service_pb2, types_pb2
from support.cluster import Process, ProcessCluster
from support.netns import Network
from support.processes import is_alive, pids_with_mark, wait_until

NODES = ("node-a", "node-b", "node-c", "node-d")
SPARE = "node-e"
HOSTS = ("coordinator", *NODES, SPARE)
JOB = "job"
WORKERS_PER_NODE = 2
FAMILY = 3
"""Processes of each worker: itself, its child, the orphan."""

LEASE_S = 8
FLAGS = (
    *("--rdzv-id", JOB, "--nnodes", "3:4", "--nproc-per-node", str(WORKERS_PER_NODE), "--max-restarts", "100000"),
    *("--lease-ttl", f"{LEASE_S}s", "--shutdown-timeout", "2s", "--last-call-timeout", "3s"),
)
WORKER = str(Path(__file__).parent / "worker.py")
HEALTHY_WITHIN_S = 60

T = TypeVar("T")


class Wrong(Exception):
    """An invariant does not hold."""


@dataclass(frozen=True)
class Health:
    """The cluster at rest: everybody is attached, the round runs, and no process is there that should not be."""

    round: int
    restart_count: int
    nodes: tuple[str, ...]
    """In group rank order."""
    pids: dict[int, int]
    """The workers' by rank."""
    keepers: dict[str, int]
    families: dict[str, set[int]]
    """All processes of each node's workers."""
    began_ns: int
    """When the last worker of the round began, on CLOCK_BOOTTIME."""


class Fleet:
    """``flags`` are what its agents get besides FLAGS."""

    def __init__(self, cluster: ProcessCluster, *flags: str) -> None:
        self.cluster = cluster
        self.flags = flags
        self.records = cluster.folder / "lives"
        self.records.mkdir()
        self.lives = Lives(self.records)
        self.agents: dict[str, Process] = {}
        self.sentences: dict[tuple[str, str], str] = {}
        """What GetJob said, by state and reason: the newest sentence of each."""
        self.refusal = ""
        """Why the coordinator could not be asked when it last could not."""
        self._newest = job_service_pb2.Job()
        self.coordinator = self._serve(again=False)

    @property
    def network(self) -> Network | None:
        return self.cluster.network

    # --- processes

    def start_agents(self, *nodes: str) -> None:
        for node in nodes:
            logs = str(self.cluster.folder / "logs" / node)
            argv = (*FLAGS, *self.flags, "--log-dir", logs, WORKER, str(self.records))
            self.agents[node] = self.cluster.agent(node, *argv, NODE=node, TMPDIR=str(self.cluster.folder))

    def serve_again(self) -> None:
        """Start the next coordinator in the place of one that has ended."""
        self.coordinator = self._serve(again=True)

    def _serve(self, *, again: bool) -> Process:
        flags = ("--data-dir", str(self.cluster.folder / "data"), "--snapshot-every", "50")
        return self.cluster.coordinator_again(*flags) if again else self.cluster.coordinator(*flags)

    def end(self, node: str, number: int) -> None:
        """Send the agent a signal that ends it, and wait for that."""
        agent = self.agents.pop(node)
        agent.signal(number)
        agent.wait()

    # --- what can be seen

    def job(self) -> job_service_pb2.Job | None:
        """None while it cannot be asked. Raises Wrong if something went backward."""
        try:
            job = self.cluster.job(JOB)
        except grpc.RpcError as error:
            self.refusal = str(error)
            return None
        before, self._newest = self._newest, job
        self.sentences[types_pb2.JobState.Name(job.state), job.reason] = job.message
        if not job.message:
            raise Wrong(f"GetJob does not say why it is {job.state}")
        if before.uid and _order(job) < _order(before):
            raise Wrong(f"went backward: {_order(before)}, then {_order(job)}")
        for name in ("round", "restart_count"):
            if getattr(job, name) < getattr(before, name):
                raise Wrong(f"{name} went back from {getattr(before, name)} to {getattr(job, name)}")
        if before.uid not in ("", job.uid) or job.HasField("outcome"):
            raise Wrong(f"the job's life ended: {job.outcome.message}")
        return job

    def nodes(self) -> dict[str, job_service_pb2.Node]:
        """Empty while it cannot be asked."""
        try:
            return self.cluster.nodes(JOB)
        except grpc.RpcError as error:
            self.refusal = str(error)
            return {}

    def is_in(self, *states: types_pb2.JobState.ValueType) -> bool:
        job = self.job()
        return job is not None and job.state in states

    def wait(self, condition: Callable[[], T | None], what: str, timeout: float = HEALTHY_WITHIN_S) -> T:
        return wait_until(condition, timeout, what)

    def wait_attached(self) -> None:
        """Wait until every agent has a stream."""
        try:
            self.wait(lambda: self._attached() >= self.agents.keys(), "not every agent is attached")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.nodes() or self.refusal}") from None

    def _attached(self) -> set[str]:
        return {name for name, node in self.nodes().items() if node.attached and not node.suspect}

    def wait_complete(self, number: int) -> list[Life]:
        """Wait until every worker of the round, or of a later one, has begun."""

        def complete() -> list[Life] | None:
            newest = max((life.round for life in self.lives.all() if life.round >= number), default=number)
            workers = self.lives.workers(newest)
            return workers if workers and len(workers) == workers[0].world_size else None

        return self.wait(complete, f"round {number} is not complete")

    def wait_healthy(self, nodes: int = len(NODES), within_s: float = HEALTHY_WITHIN_S) -> Health:
        """Wait until the cluster is at rest with so many participants, every other agent standing by."""
        seen = ["nothing was seen"]

        def look() -> Health | None:
            found = self._look(nodes)
            if isinstance(found, Health):
                return found
            seen[0] = found
            return None

        try:
            return self.wait(look, "the cluster is not healthy", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen[0]}") from None

    def _look(self, participants: int) -> Health | str:
        """Its health, or what is missing for it."""
        job = self.job()
        if job is None or job.state != types_pb2.JOB_STATE_RUNNING or job.participant_count != participants:
            return f"the job: {job or self.refusal}"
        if self._attached() != self.agents.keys():
            return f"attached are {self._attached()}"
        workers = self.cluster.workers(JOB)
        if any((w.round, w.state) != (job.round, types_pb2.WORKER_STATE_HEALTHY) for w in workers):
            return f"workers: {workers}"
        lives = self.lives.of_round(job.round)
        if len(lives) != participants * WORKERS_PER_NODE * FAMILY:
            return f"{len(lives)} processes have begun in round {job.round}"
        pids = {worker.rank: worker.pid for worker in workers}
        if pids != {life.rank: life.pid for life in lives if life.kind == "worker"}:
            return f"the coordinator knows {pids}"
        return self._look_at_processes(job, lives)

    def _look_at_processes(self, job: job_service_pb2.Job, lives: list[Life]) -> Health | str:
        keepers = {node: self.keeper(node) for node in self.agents}
        if None in keepers.values():
            return f"keepers: {keepers}"
        of_rounds = {life.pid for life in lives}
        expected = {self.coordinator.pid, *(agent.pid for agent in self.agents.values()), *keepers.values(), *of_rounds}
        alive = {pid for pid in pids_with_mark(self.cluster.mark) if is_alive(pid)}
        if alive != expected:
            return f"missing processes {expected - alive}, orphans {alive - expected}"
        workers = self.lives.workers(job.round)
        return Health(
            round=job.round,
            restart_count=job.restart_count,
            nodes=tuple(life.node for life in workers if life.local_rank == 0),
            pids={life.rank: life.pid for life in workers},
            keepers={node: pid for node, pid in keepers.items() if pid is not None},
            families={node: {life.pid for life in lives if life.node == node} for node in self.agents},
            began_ns=max(life.born_ns for life in workers),
        )

    def keeper(self, node: str) -> int | None:
        """The one child of the agent; None while there is another number of them."""
        agent = self.agents[node].pid
        try:
            children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if len(children) == 1 else None


def _order(job: job_service_pb2.Job) -> tuple[int, int]:
    return job.version.epoch, job.version.revision


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def kill(pid: int) -> int:
    """SIGKILL; returns when, on CLOCK_BOOTTIME."""
    at_ns = now_ns()
    os.kill(pid, signal.SIGKILL)
    return at_ns


def sleep_past_lease(since_ns: int) -> None:
    """Until a lease renewed then has run out on both sides: there is nothing to be seen that would end this wait."""
    time.sleep(max(since_ns / 1e9 + 1.25 * LEASE_S - now_ns() / 1e9, 0))
