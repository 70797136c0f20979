"""Losing an agent: what it kept is gone, and the coordinator knew so before it formed the next round."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.v1 import job_service_pb2, types_pb2
from support.cluster import Process, ProcessCluster, wait_gone
from support.processes import is_alive, wait_until

TREE_WORKER = str(Path(__file__).parent / "tree_worker.py")
FAMILY = 3  # processes of each worker: itself, the child, the orphan


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


def start_pair(cluster: ProcessCluster, *flags: str) -> tuple[Process, Process, Process]:
    coordinator = cluster.coordinator()
    args = ("--rdzv-id", "job", "--nnodes", "1:2", "--nproc-per-node", "2", "--shutdown-timeout", "1s", *flags)
    a, b = (cluster.agent(name, *args, TREE_WORKER, "/dev/null", "ignore-term") for name in ("node-a", "node-b"))
    cluster.wait_for_round("job", 0)
    wait_until(lambda: all_there(trees(cluster)), message="the families are not complete")
    return coordinator, a, b


def log_of_the_end(coordinator: Process) -> list[str]:
    """What the coordinator explained, in order, from the loss on."""
    return re.findall(r"(is gone|round \d+ runs(?=,))", coordinator.output)


def test_sigkill_of_an_agent(cluster: ProcessCluster) -> None:
    coordinator, _, b = start_pair(cluster)
    mine = trees(cluster)
    b.signal(signal.SIGKILL)
    b.wait()
    wait_gone(mine["node-b"])
    workers = cluster.wait_for_round("job", 1)
    assert {worker.node for worker in workers} == {"node-a"}
    node = cluster.nodes("job")["node-b"]
    assert node.state == job_service_pb2.NODE_STATE_GONE, "the obituary came, no lease had to run out"
    assert cluster.job("job").restart_count == 0
    assert log_of_the_end(coordinator) == ["round 0 runs", "is gone", "round 1 runs"]


def test_sigstop_of_an_agent_past_its_lease(cluster: ProcessCluster) -> None:
    coordinator, _, b = start_pair(cluster, "--lease-ttl", "8s")
    mine = trees(cluster)
    b.signal(signal.SIGSTOP)
    wait_gone(mine["node-b"])
    assert cluster.nodes("job")["node-b"].state == job_service_pb2.NODE_STATE_PARTICIPANT, "the fence was first"
    workers = cluster.wait_for_round("job", 1)
    assert {worker.node for worker in workers} == {"node-a"}
    assert cluster.nodes("job")["node-b"].state == job_service_pb2.NODE_STATE_LOST
    assert log_of_the_end(coordinator) == ["round 0 runs", "is gone", "round 1 runs"]
    b.signal(signal.SIGCONT)
    back = cluster.wait_for_round("job", 2)
    assert {worker.node for worker in back} == {"node-a", "node-b"}


def test_sigkill_of_a_keeper(cluster: ProcessCluster) -> None:
    start_pair(cluster, "--max-restarts", "1")
    mine = trees(cluster)
    (keeper,) = mine["keeper of node-b"]
    os.kill(keeper, signal.SIGKILL)
    wait_gone(mine["node-b"])
    cluster.wait_for_round("job", 1)
    assert cluster.job("job").restart_count == 1


def test_sigkill_of_an_agent_and_its_keeper_at_once(cluster: ProcessCluster) -> None:
    """What left the workers' sessions lives on, until the next agent of that name comes."""
    coordinator, _, b = start_pair(cluster, "--lease-ttl", "600s")
    mine = trees(cluster)
    (keeper,) = mine["keeper of node-b"]
    stopped = {b.pid, keeper}
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in stopped:
            os.kill(pid, number)
    b.wait()
    wait_gone(stopped)
    assert any(is_alive(pid) for pid in mine["node-b"]), "the orphans should have outlived them"
    again = cluster.agent(
        "node-b",
        "--rdzv-id",
        "job",
        "--nnodes",
        "1:2",
        "--lease-ttl",
        "600s",
        "--nproc-per-node",
        "2",
        "--shutdown-timeout",
        "1s",
        TREE_WORKER,
        "/dev/null",
        "ignore-term",
    )
    again.wait_for("an earlier agent was killed with its keeper: ended what they left, [1-9]")
    wait_gone(mine["node-b"])
    coordinator.wait_for("the next agent of the node ended what they left")
    wait_until(lambda: len(cluster.workers("job")) == 4, message="the node did not come back")
    assert cluster.job("job").restart_count == 0


def test_sigterm_to_an_agent_is_a_planned_leave(cluster: ProcessCluster) -> None:
    _, _, b = start_pair(cluster)
    mine = trees(cluster)
    b.signal(signal.SIGTERM)
    assert b.wait() == 128 + signal.SIGTERM
    wait_gone(mine["node-b"])
    cluster.wait_for_round("job", 1)
    assert cluster.nodes("job")["node-b"].state == job_service_pb2.NODE_STATE_LEFT
    assert cluster.job("job").restart_count == 0


def test_an_agent_that_ends_while_the_coordinator_is_gone_is_not_waited_for(
    cluster: ProcessCluster, tmp_path: Path
) -> None:
    data = str(tmp_path / "data")
    coordinator = cluster.coordinator("--data-dir", data)
    args = ("--rdzv-id", "job", "--nnodes", "1:2", "--lease-ttl", "600s")
    a, b = (cluster.agent(name, *args, cluster.worker("wait.py")) for name in ("node-a", "node-b"))
    cluster.wait_for_round("job", 0)
    coordinator.signal(signal.SIGKILL)
    coordinator.wait()
    for agent in (a, b):
        agent.wait_for("lost contact with the coordinator")
    b.signal(signal.SIGTERM)
    assert b.wait() == 128 + signal.SIGTERM
    cluster.coordinator_again("--data-dir", data)
    workers = cluster.wait_for_round("job", 1)
    assert {worker.node for worker in workers} == {"node-a"}
    assert cluster.nodes("job")["node-b"].state == job_service_pb2.NODE_STATE_GONE
    assert cluster.job("job").restart_count == 0


def test_a_drained_node_leaves_with_status_0(cluster: ProcessCluster) -> None:
    _, _, b = start_pair(cluster)
    mine = trees(cluster)
    cluster.drain("job", "node-b")
    assert b.wait() == 0
    wait_gone(mine["node-b"])
    workers = cluster.wait_for_round("job", 1)
    assert {worker.node for worker in workers} == {"node-a"}
    assert cluster.nodes("job")["node-b"].state == job_service_pb2.NODE_STATE_LEFT
    assert cluster.job("job").restart_count == 0


def test_a_new_job_under_an_old_name_starts_a_new_life(cluster: ProcessCluster) -> None:
    cluster.coordinator()
    first = cluster.agent("node-a", "--rdzv-id", "job", "--no-python", "true")
    assert first.wait() == 0
    old = cluster.job("job")
    assert old.state == types_pb2.JOB_STATE_SUCCEEDED
    second = cluster.agent("node-a", "--rdzv-id", "job", "--no-python", "false")
    assert second.wait() == 1
    new = cluster.job("job")
    assert new.uid != old.uid
    assert new.state == types_pb2.JOB_STATE_FAILED


def trees(cluster: ProcessCluster) -> dict[str, set[int]]:
    """The processes of each node's workers, and of its keeper, by following parents."""
    found: dict[str, set[int]] = {}
    for process in cluster.processes:
        if process.name == "coordinator":
            continue
        keepers = children(process.pid)
        found[f"keeper of {process.name}"] = keepers
        below: set[int] = set()
        rest = [child for keeper in keepers for child in children(keeper)]
        while rest:
            pid = rest.pop()
            below.add(pid)
            rest.extend(children(pid))
        found[process.name] = {pid for pid in below if is_alive(pid)}
    return found


def all_there(found: dict[str, set[int]]) -> bool:
    return all(len(found[node]) == 2 * FAMILY for node in ("node-a", "node-b"))


def children(pid: int) -> set[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return set()
    return {int(child) for child in text.split()}
