"""A coordinator with a data directory: what it decided outlives it, and jobs do not notice that it was gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from rallypoint_agent.link.clock import boot_ms
from support.cluster import Process, ProcessCluster, wait_gone
from support.coordinator_command import health, refusal, run_to_its_end
from support.disk import small_disk
from support.processes import is_alive, wait_until

NODES = ("node-a", "node-b", "node-c")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def start_job(cluster: ProcessCluster, nodes: tuple[str, ...] = NODES) -> list[Process]:
    argv = ("--rdzv-id", "job", "--nnodes", str(len(nodes)), "--nproc-per-node", "2", "--max-restarts", "3")
    agents = [cluster.agent(node, *argv, cluster.worker("wait.py")) for node in nodes]
    cluster.wait_for_round("job", 0)
    return agents


def pids(cluster: ProcessCluster, round_number: int) -> dict[int, int]:
    """By rank, once all agents have said what they run."""
    return {worker.rank: worker.pid for worker in cluster.wait_for_round("job", round_number)}


def kill(coordinator: Process) -> None:
    coordinator.signal(signal.SIGKILL)
    coordinator.wait()


def test_a_coordinator_that_is_killed_comes_back_and_no_worker_notices(cluster: ProcessCluster, data: str) -> None:
    flags = ("--data-dir", data, "--snapshot-every", "4")
    coordinator = cluster.coordinator(*flags)
    start_job(cluster)
    mine, before = pids(cluster, 0), cluster.job("job")
    for number in range(5):
        kill(coordinator)
        coordinator = cluster.coordinator_again(*flags)
        assert pids(cluster, 0) == mine
        now = cluster.job("job")
        assert (now.uid, now.round, now.restart_count) == (before.uid, 0, 0)
        assert now.version.epoch == before.version.epoch + number + 1
        assert now.member_count == len(NODES), "everybody came back with the lease that it had"
    os.kill(mine[3], signal.SIGKILL)
    after = pids(cluster, 1)
    wait_gone(set(mine.values()))
    assert not set(after.values()) & set(mine.values())
    assert cluster.job("job").restart_count == 1
    kill(coordinator)
    cluster.coordinator_again(*flags)
    assert pids(cluster, 1) == after
    assert cluster.job("job").restart_count == 1


def test_a_worker_that_fails_while_it_is_gone_is_restarted_when_it_is_back(cluster: ProcessCluster, data: str) -> None:
    coordinator = cluster.coordinator("--data-dir", data)
    start_job(cluster, NODES[:2])
    mine = pids(cluster, 0)
    kill(coordinator)
    os.kill(mine[2], signal.SIGKILL)
    wait_gone({mine[2], mine[3]})
    cluster.coordinator_again("--data-dir", data)
    pids(cluster, 1)
    assert cluster.job("job").restart_count == 1


def test_a_job_that_is_over_is_known_to_the_next_one(cluster: ProcessCluster, data: str) -> None:
    coordinator = cluster.coordinator("--data-dir", data)
    agent = cluster.agent("node-a", "--rdzv-id", "job", "--no-python", "true")
    assert agent.wait() == 0
    before = cluster.job("job")
    coordinator.signal(signal.SIGTERM)
    assert coordinator.wait() == 0
    cluster.coordinator_again("--data-dir", data)
    after = cluster.job("job")
    assert (after.uid, after.outcome) == (before.uid, before.outcome)


def test_a_second_coordinator_on_the_directory_is_refused(cluster: ProcessCluster, data: str) -> None:
    first = cluster.coordinator("--data-dir", data)
    done = run_to_its_end("--data-dir", data)
    assert refusal(done) == (
        f"the data directory {data} is in use by another coordinator (pid {first.pid}, listening on"
        f" {cluster.address}): stop that one, or give this one a --data-dir of its own"
    )
    kill(first)
    cluster.coordinator_again("--data-dir", data)


def test_a_full_disk_stops_decisions_and_is_over_when_there_is_room(cluster: ProcessCluster, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        coordinator = cluster.coordinator("--data-dir", str(disk.path / "data"))
        agents = start_job(cluster, NODES[:2])
        mine = pids(cluster, 0)
        disk.fill()
        os.kill(mine[0], signal.SIGKILL)
        coordinator.wait_for(r"database or disk is full \(SQLITE_FULL\); serving nobody")
        wait_until(lambda: health(cluster.address) == health_pb2.HealthCheckResponse.NOT_SERVING)
        agents[1].wait_for("refused: the coordinator is recovering: .*database or disk is full")
        disk.free()
        wait_until(lambda: health(cluster.address) == health_pb2.HealthCheckResponse.SERVING)
        pids(cluster, 1)
        assert cluster.job("job").restart_count == 1
        assert coordinator.popen.poll() is None
        coordinator.signal(signal.SIGTERM)
        coordinator.wait()


def test_a_disk_that_stays_full_for_longer_than_a_lease_ends_no_worker(cluster: ProcessCluster, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        cluster.coordinator("--data-dir", str(disk.path / "data"))
        argv = ("--rdzv-id", "job", "--nnodes", "2", "--lease-ttl", "8s")
        agents = [cluster.agent(node, *argv, cluster.worker("wait.py")) for node in NODES[:2]]
        mine = pids(cluster, 0)
        full_since_ms = boot_ms()
        disk.fill()
        with pytest.raises(grpc.RpcError, match="database or disk is full"):
            cluster.restart("job")
        for agent in agents:
            agent.wait_for("so the workers run on")
        wait_until(lambda: boot_ms() - full_since_ms > 10_000, 30)
        assert all(is_alive(pid) for pid in mine.values())
        disk.free()
        wait_until(lambda: health(cluster.address) == health_pb2.HealthCheckResponse.SERVING)
        assert pids(cluster, 0) == mine


def test_without_a_directory_it_says_that_it_forgets(cluster: ProcessCluster) -> None:
    cluster.coordinator().wait_for("decisions are kept in memory and end with this process")
