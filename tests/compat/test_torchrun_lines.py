"""The same command lines of two nodes under torchrun and, with the first word changed, under ``rallypoint run``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.all_reduce import WORKER, kill_worker, wait_up
from support.cluster import Process, ProcessCluster
from support.ports import free_pair
from support.processes import MARK_VARIABLE

pytest.importorskip("torch.distributed.run")

FIRST_WORDS = {"torchrun": ("torch.distributed.run",), "rallypoint run": ("rallypoint", "run")}
LINES = {
    "c10d": "--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=localhost:{port} --local-addr=127.0.0.1",
    "static": "--nnodes=2 --node-rank={rank} --master-addr=127.0.0.1 --master-port={master_port}",
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster
        for pid in cluster.pids("rallypoint_coordinator"):
            os.kill(pid, signal.SIGTERM)


class Line:
    """One line on two nodes, which differ in the node's rank at most."""

    def __init__(self, cluster: ProcessCluster, line: str) -> None:
        self.cluster, self.line = cluster, line
        self.port, self.master_port = free_pair(100)
        self.stop_file = cluster.folder / "stop"

    def start(self, first_word: str, *more: str) -> list[Process]:
        return [self._node(first_word, rank, more) for rank in (1, 0)]

    def _node(self, first_word: str, rank: int, more: tuple[str, ...]) -> Process:
        flags = self.line.format(port=self.port, master_port=self.master_port, rank=rank).split()
        argv = [sys.executable, "-m", *FIRST_WORDS[first_word], *flags, *more, WORKER, str(self.stop_file)]
        env = {**os.environ, MARK_VARIABLE: self.cluster.mark, "TMPDIR": str(self.cluster.folder)}
        process = Process(f"node-{rank}", argv, self.cluster.folder, env)
        self.cluster.processes.append(process)
        return process

    def succeed(self, agents: list[Process]) -> None:
        self.stop_file.touch()
        assert [agent.wait() for agent in agents] == [0, 0]


@pytest.mark.parametrize("first_word", FIRST_WORDS)
@pytest.mark.parametrize("line", LINES)
def test_only_the_first_word_differs(cluster: ProcessCluster, line: str, first_word: str) -> None:
    two = Line(cluster, LINES[line])
    agents = two.start(first_word)
    stores = {up[4] for up in wait_up(agents, world_size=2)}
    assert len(stores) == 1
    if line == "static":
        assert stores == {f"127.0.0.1:{two.master_port}"}
    two.succeed(agents)


@pytest.mark.parametrize("line", LINES)
def test_a_failure_restarts_both(cluster: ProcessCluster, line: str) -> None:
    two = Line(cluster, LINES[line])
    agents = two.start("rallypoint run", "--max-restarts=1")
    kill_worker(wait_up(agents, world_size=2)[0])
    wait_up(agents, world_size=2, after=1)
    two.succeed(agents)
