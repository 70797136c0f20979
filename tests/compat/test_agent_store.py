"""Real gloo jobs whose store the agent serves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.v1 import types_pb2
from support.cluster import ProcessCluster
from support.ports import free_range
from support.processes import wait_until

pytest.importorskip("torch")

WORKER = str(Path(__file__).parent / "workers" / "leave_early.py")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        cluster.coordinator()
        yield cluster


def test_the_others_go_on_when_rank_0_has_left_also_after_a_restart(cluster: ProcessCluster, tmp_path: Path) -> None:
    go_on, ports = tmp_path / "go-on", free_range(4)
    flags = ["--rdzv-id", "job", "--nnodes", "2", "--max-restarts", "1", "--rdzv-conf", "store=agent"]
    flags += ["--port-range", f"{ports[0]}-{ports[-1]}"]
    first = cluster.agent("node-a", *flags, "--node-rank", "0", WORKER, str(go_on), GLOO_SOCKET_IFNAME="lo")
    argv = [*flags, "--node-rank", "1", "--nproc-per-node", "2", WORKER, str(go_on)]
    second = cluster.agent("node-b", *argv, GLOO_SOCKET_IFNAME="lo")

    def rank_0_has_left() -> bool:
        workers = {worker.rank: worker for worker in cluster.workers("job")}
        return 0 in workers and workers[0].round == 1 and workers[0].state == types_pb2.WORKER_STATE_SUCCEEDED

    first.wait_for("restart 1 rank 0", 90)
    wait_until(rank_0_has_left, 90, "rank 0 does not leave")
    go_on.touch()
    assert [first.wait(60), second.wait(60)] == [0, 0], cluster.transcript()
    assert len(re.findall("met the others without rank 0", second.output)) == 2
    used = {restart: set(re.findall(rf"restart {restart} rank \d port (\d+)", second.output)) for restart in (0, 1)}
    assert len(used[0]) == len(used[1]) == 1
    assert used[0] != used[1]
    assert {int(port) for port in used[0] | used[1]} <= set(ports)
    assert cluster.job("job").restart_count == 1
