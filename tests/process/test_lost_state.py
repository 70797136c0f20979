"""A coordinator that forgot everything, or some of it, while the agents held their workers: what is whole goes on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.v1 import types_pb2
from support.cluster import Process, ProcessCluster, wait_gone
from support.processes import wait_until

NODES = ("node-a", "node-b", "node-c")
FLAGS = ("--rdzv-id", "job", "--nnodes", "2:3", "--nproc-per-node", "2", "--max-restarts", "3", "--lease-ttl", "12s")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def start_job(cluster: ProcessCluster) -> list[Process]:
    """Round 1 of three nodes runs, after one restart."""
    agents = [cluster.agent(node, *FLAGS, "--last-call-timeout", "20s", cluster.worker("wait.py")) for node in NODES]
    first = cluster.wait_for_round("job", 0)
    os.kill(first[0].pid, signal.SIGKILL)
    cluster.wait_for_round("job", 1)
    return agents


def pids(cluster: ProcessCluster, round_number: int) -> dict[int, int]:
    """By rank, once all agents have said what they run."""
    return {worker.rank: worker.pid for worker in cluster.wait_for_round("job", round_number)}


def kill(coordinator: Process) -> None:
    coordinator.signal(signal.SIGKILL)
    coordinator.wait()


def goes_on(cluster: ProcessCluster, before: dict[int, int], uid: str) -> None:
    """The very workers, in the same round of the same life, and the restart that was spent is not forgotten."""
    assert pids(cluster, 1) == before
    job = cluster.wait_for_state("job", types_pb2.JOB_STATE_RUNNING)
    assert (job.uid, job.round, job.restart_count, job.member_count) == (uid, 1, 1, len(NODES))
    assert pids(cluster, 1) == before


def works_on(cluster: ProcessCluster, before: dict[int, int]) -> None:
    """What comes next is decided as ever."""
    os.kill(before[0], signal.SIGKILL)
    after = pids(cluster, 2)
    wait_gone(set(before.values()))
    assert not set(after.values()) & set(before.values())
    assert cluster.job("job").restart_count == 2


def test_a_coordinator_without_a_disk_learns_from_its_agents_what_runs(cluster: ProcessCluster) -> None:
    coordinator = cluster.coordinator("--store", "memory")
    start_job(cluster)
    mine, uid = pids(cluster, 1), cluster.job("job").uid
    for _ in range(2):
        kill(coordinator)
        coordinator = cluster.coordinator_again("--store", "memory")
        goes_on(cluster, mine, uid)
    works_on(cluster, mine)


def test_an_emptied_data_directory(cluster: ProcessCluster, data: Path) -> None:
    coordinator = cluster.coordinator("--data-dir", str(data))
    start_job(cluster)
    mine, uid = pids(cluster, 1), cluster.job("job").uid
    kill(coordinator)
    shutil.rmtree(data)
    cluster.coordinator_again("--data-dir", str(data))
    goes_on(cluster, mine, uid)
    works_on(cluster, mine)


def test_an_old_backup_of_the_data_directory(cluster: ProcessCluster, data: Path, tmp_path: Path) -> None:
    coordinator = cluster.coordinator("--data-dir", str(data))
    agents = [cluster.agent(node, *FLAGS, cluster.worker("wait.py")) for node in NODES[:2]]
    cluster.wait_for_state("job", types_pb2.JOB_STATE_GATHERING)
    kill(coordinator)
    shutil.copytree(data, tmp_path / "backup")
    coordinator = cluster.coordinator_again("--data-dir", str(data))
    agents.append(cluster.agent(NODES[2], *FLAGS, cluster.worker("wait.py")))
    first = pids(cluster, 0)
    os.kill(first[0], signal.SIGKILL)
    mine, uid = pids(cluster, 1), cluster.job("job").uid
    kill(coordinator)
    shutil.rmtree(data)
    (tmp_path / "backup").rename(data)
    cluster.coordinator_again("--data-dir", str(data))
    goes_on(cluster, mine, uid)
    works_on(cluster, mine)


def test_a_node_that_dies_meanwhile_costs_a_round_and_no_restart(cluster: ProcessCluster) -> None:
    coordinator = cluster.coordinator("--store", "memory")
    agents = start_job(cluster)
    mine, uid = pids(cluster, 1), cluster.job("job").uid
    theirs = {worker.pid for worker in cluster.workers("job") if worker.node == NODES[2]}
    kill(coordinator)
    agents[2].signal(signal.SIGKILL)
    agents[2].wait()
    wait_gone(theirs)
    cluster.coordinator_again("--store", "memory")
    job = cluster.wait_for_state("job", types_pb2.JOB_STATE_RECOVERING)
    assert job.reason == "RECOVERING"
    wait_until(lambda: "2 of 3 nodes of round 1 came back" in cluster.job("job").message)
    assert set(mine.values()) - theirs <= cluster.pids("wait.py")
    after = cluster.wait_for_round("job", 2)
    assert {worker.node for worker in after} == set(NODES[:2])
    job = cluster.job("job")
    assert (job.uid, job.restart_count, job.world_size) == (uid, 1, 4)
    wait_gone(set(mine.values()))
