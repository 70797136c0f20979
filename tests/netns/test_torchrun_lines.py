"""torchrun's command lines on hosts of their own: the host that they name has the coordinator."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from support.cluster import Process, ProcessCluster
from support.netns import Network

HEAD, OTHER = "head", "other"


@pytest.mark.parametrize(
    ("line", "rank_0_is_told"),
    [
        ("--rdzv-backend=c10d --rdzv-endpoint={head}:29400", ""),
        ("--master-addr={head} --master-port=29500 --node-rank={rank}", "29500"),
    ],
)
def test_the_host_that_the_line_names_has_the_coordinator(tmp_path: Path, line: str, rank_0_is_told: str) -> None:
    network = Network((HEAD, OTHER))
    with ProcessCluster(tmp_path, network) as cluster:

        def node(name: str, rank: int) -> Process:
            flags = line.format(head=network.address(HEAD), rank=rank).split()
            return cluster.start(name, "run", "--nnodes=2", *flags, cluster.worker("tell.py"), TELL=str(tmp_path))

        other = node(OTHER, 1)
        other.wait_for("no coordinator at")
        head = node(HEAD, 0)
        head.wait_for("started a coordinator on this host, listening on .*:29400")
        assert [head.wait(), other.wait()] == [0, 0]
        assert "started a coordinator" not in other.output
        (coordinator,) = cluster.pids("rallypoint_coordinator")
        os.kill(coordinator, signal.SIGTERM)
    envs = [json.loads((tmp_path / f"{rank}.0.json").read_text())["env"] for rank in range(2)]
    (address,) = {env["MASTER_ADDR"] for env in envs}
    assert address in (network.address(HEAD), network.address(OTHER))
    if rank_0_is_told:
        assert {(env["MASTER_ADDR"], env["MASTER_PORT"]) for env in envs} == {(network.address(HEAD), rank_0_is_told)}
