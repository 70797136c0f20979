from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cluster import Process, ProcessCluster
from support.processes import MARK_VARIABLE

TESTS = Path(__file__).parent.parent

ONE_OF_TWO = {"min_nodes": 2, "max_nodes": 2, "nproc_per_node": 1, "max_restarts": 0, "run_id": "j"}


class Node:
    """A process that launches a task from Python."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def outcome(self) -> dict[str, Any]:
        """What :mod:`behaviour.node` says in the end."""
        assert self.process.wait() == 0, self.process.output
        outcome = json.loads(self.process.out.read_text().splitlines()[-1])
        assert isinstance(outcome, dict)
        return outcome


class Nodes:
    """Nodes of one job, each a process of its own, at one coordinator."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self._cluster = cluster

    def launch(self, name: str, task: str, *args: object, **config: Any) -> Node:
        """A node that runs this task. Unless ``config`` says otherwise it is one of two, with one worker."""
        given = {
            **ONE_OF_TWO,
            **config,
            "rdzv_endpoint": self._cluster.address,
            "rdzv_configs": {"last_call_timeout": 0, **config.get("rdzv_configs", {})},
        }
        argv = [sys.executable, "-m", "behaviour.node", *map(json.dumps, (given, task, args))]
        env = {**os.environ, "PYTHONPATH": str(TESTS), MARK_VARIABLE: self._cluster.mark}
        process = Process(name, argv, self._cluster.folder, env)
        self._cluster.processes.append(process)
        return Node(process)


@pytest.fixture(autouse=True)
def environ() -> Iterator[None]:
    """A launch in this process sets gRPC's variables, which no process of another test should inherit."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with ProcessCluster(folder) as cluster:
        cluster.coordinator()
        yield cluster


@pytest.fixture
def nodes(cluster: ProcessCluster) -> Nodes:
    return Nodes(cluster)
