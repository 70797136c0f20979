"""Workers that not even SIGKILL ends: really stuck in the kernel, on a file system that does not answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.v1 import job_service_pb2
from support.cluster import Process, ProcessCluster
from support.processes import wait_until
from support.stuck_folder import StuckFolder


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def stuck(cluster: ProcessCluster, tmp_path: Path) -> Iterator[StuckFolder]:
    """Ends before the cluster does, so that nothing is left to be found there."""
    with StuckFolder(tmp_path / "stuck") as folder:
        yield folder


def start_pair(cluster: ProcessCluster, stuck: StuckFolder, *flags: str, **env: str) -> tuple[Process, int]:
    """Round 0 runs on two nodes, and the worker of node-b is stuck. Returns its agent, and its pid."""
    cluster.coordinator()
    args = ("--rdzv-id", "job", "--nnodes", "1:2", "--shutdown-timeout", "100ms", *flags, cluster.worker("look.py"))
    cluster.agent("node-a", *args)
    b = cluster.agent("node-b", *args, LOOK_AT=str(stuck.entry), **env)
    workers = cluster.wait_for_round("job", 0)
    b.wait_for("looking")
    [pid] = [worker.pid for worker in workers if worker.node == "node-b"]
    wait_until(lambda: state_of(pid) in "DS", message="the worker does not look")
    return b, pid


def expel(cluster: ProcessCluster, pid: int) -> None:
    """End the round: it goes on without node-b."""
    cluster.restart("job")
    workers = cluster.wait_for_round("job", 1)
    assert {worker.node for worker in workers} == {"node-a"}
    assert state_of(pid) == "D", "it is there, and nothing can be done about it"
    node = cluster.nodes("job")["node-b"]
    assert (node.state, list(node.unkillable_pids)) == (job_service_pb2.NODE_STATE_QUARANTINED, [pid])


def test_the_job_goes_on_without_the_node_and_takes_it_back(cluster: ProcessCluster, stuck: StuckFolder) -> None:
    b, pid = start_pair(cluster, stuck)
    expel(cluster, pid)
    assert b.output.count(f"not even SIGKILL ends process {pid} of the workers") == 1
    stuck.release()
    workers = cluster.wait_for_round("job", 2)
    assert {worker.node for worker in workers} == {"node-a", "node-b"}
    assert cluster.job("job").restart_count == 0


def test_its_agent_ends_with_the_pids_named_and_no_obituary(cluster: ProcessCluster, stuck: StuckFolder) -> None:
    b, pid = start_pair(cluster, stuck)
    expel(cluster, pid)
    b.signal(signal.SIGTERM)
    assert b.wait() == 1
    assert f"ended by SIGTERM; not even SIGKILL ends process {pid} of the workers" in b.output
    assert state_of(pid) == "D"
    assert cluster.nodes("job")["node-b"].state == job_service_pb2.NODE_STATE_QUARANTINED, "no word that it is gone"
    stuck.release()

    def is_gone() -> bool:
        return cluster.nodes("job")["node-b"].state == job_service_pb2.NODE_STATE_GONE

    wait_until(is_gone, message="the obituary does not come once the process has ended")


def test_the_agent_does_the_duty_of_a_keeper_that_dies_beside_it(cluster: ProcessCluster, stuck: StuckFolder) -> None:
    _, pid = start_pair(cluster, stuck, "--max-restarts", "1")
    os.kill(parent_of(pid), signal.SIGKILL)
    workers = cluster.wait_for_round("job", 1)
    assert {worker.node for worker in workers} == {"node-a"}
    assert list(cluster.nodes("job")["node-b"].unkillable_pids) == [pid]
    stuck.release()
    workers = cluster.wait_for_round("job", 2)
    assert {worker.node for worker in workers} == {"node-a", "node-b"}


def test_one_that_sleeps_too_long_has_failed_though_it_lives(cluster: ProcessCluster, stuck: StuckFolder) -> None:
    """Nobody asks for an end of the round. A signal that it handles makes its wait one that only the kernel ends."""
    timeout = {"TORCHELASTIC_UNINTERRUPTIBLE_STATE_TIMEOUT": "1"}
    b, pid = start_pair(cluster, stuck, "--max-restarts", "1", **timeout)
    os.kill(pid, signal.SIGINT)
    workers = cluster.wait_for_round("job", 1)
    assert {worker.node for worker in workers} == {"node-a"}
    assert state_of(pid) == "D"
    assert "round 0: local rank 0 has failed: in uninterruptible sleep (state D) for" in b.output
    job = cluster.job("job")
    assert job.restart_count == 1
    assert (job.last_failure.node, job.last_failure.pid) == ("node-b", pid)
    assert job.last_failure.message.startswith("SIGKILL; in uninterruptible sleep (state D) for")
    node = cluster.nodes("job")["node-b"]
    assert (node.state, list(node.unkillable_pids)) == (job_service_pb2.NODE_STATE_QUARANTINED, [pid])


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"
