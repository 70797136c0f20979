"""An agent that is not ours, written from the protos: alone, and as one of four."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.js_agent import JOB, JS_NODE, Fleet
from rallypoint.v1 import job_service_pb2, types_pb2
from support import all_reduce
from support.cluster import ProcessCluster, wait_gone
from support.fake_coordinator import FakeCoordinator
from support.later_coordinator import LaterCoordinator
from support.processes import is_alive, wait_until
from support.tcp_proxy import TcpProxy

PYTHON_NODES = ("node-a", "node-b", "node-c")
OWN_BY_NATURE = {"RANK", "GROUP_RANK", "ROLE_RANK", "TORCHELASTIC_ERROR_FILE"}
"""What differs from worker to worker."""
OURS_ALONE = {"RALLYPOINT_INCARNATION"}
"""What rallypoint's own agent puts there for itself."""
TCP_SYN_SENT = "02"
"""In /proc/net/tcp."""


@pytest.fixture
def alone(cluster: ProcessCluster, node_client: Path) -> Iterator[Fleet]:
    cluster.coordinator()
    fleet = Fleet(cluster, node_client, "--nnodes", "1", "--max-restarts", "1", "--lease-ttl", "8")
    yield fleet
    fleet.end_js_agents()


# Two rounds begin 10 s later than others would, since the agent does not claim CAPABILITY_KILLS_TREES.
@pytest.mark.timeout(240)
def test_four_agents_outlive_failures_a_lost_connection_and_a_coordinator_restart(
    cluster: ProcessCluster, node_client: Path
) -> None:
    data = ("--data-dir", str(cluster.folder / "data"))
    coordinator = cluster.coordinator(*data)
    fleet = Fleet(cluster, node_client, "--nnodes", "4", "--max-restarts", "2")
    with TcpProxy(cluster.address) as proxy:
        python_agents = [fleet.start_python_agent(node) for node in PYTHON_NODES]
        js_agent = fleet.start_js_agent(coordinator=proxy.address)
        agents = [*python_agents, js_agent]

        # All are in one round, and their workers find the same in their environments.
        first = fleet.pids(0)
        js_rank = rank_of(cluster, JS_NODE)
        assert sorted(first) == [0, 1, 2, 3]
        assert js_rank == 3, "it does not hold its port, so it comes after those that do"
        compare_environments(fleet, js_rank)

        # A worker fails: elsewhere, then its own. Each costs one restart, and all begin anew.
        fleet.end_worker(1, 0, 1)
        second = fleet.pids(1)
        wait_gone(set(first.values()))
        assert restarts(cluster) == (1, 1, 1)
        fleet.end_worker(js_rank, 1, 9)
        third = fleet.pids(2)
        wait_gone(set(second.values()))
        assert restarts(cluster) == (2, 9, 2)
        assert cluster.job(JOB).last_failure.node == JS_NODE

        # Its connection breaks: it comes back with the lease that it had, and no worker notices.
        before = js_member(cluster)
        assert proxy.cut() == 1
        js_agent.wait_for(r"lost contact.*\n(.*not attached.*\n)*.*: attached\n")
        now = wait_attached(cluster)
        assert (now.lease_id, now.incarnation) == (before.lease_id, before.incarnation)
        assert fleet.pids(2) == third

        # The coordinator is killed, and comes back: the same.
        epoch = cluster.job(JOB).version.epoch
        coordinator.signal(signal.SIGKILL)
        coordinator.wait()
        cluster.coordinator_again(*data)
        js_agent.wait_for(r"(lost contact.*\n(.*not attached.*\n)*.*: attached\n[^$]*){2}")
        assert wait_attached(cluster).lease_id == before.lease_id
        assert fleet.pids(2) == third
        assert cluster.job(JOB).version.epoch == epoch + 1
        assert restarts(cluster) == (2, 9, 2)

        fleet.end_all_workers()
        assert [agent.wait() for agent in agents] == [0, 0, 0, 0]
    assert cluster.job(JOB).state == types_pb2.JOB_STATE_SUCCEEDED


def rank_of(cluster: ProcessCluster, node: str) -> int:
    (rank,) = (worker.rank for worker in cluster.workers(JOB) if worker.node == node)
    return rank


def restarts(cluster: ProcessCluster) -> tuple[int, int, int]:
    """The round, the exit code of what ended the last one, the restarts spent."""
    job = cluster.job(JOB)
    return job.round, job.last_failure.exit_code, job.restart_count


def js_member(cluster: ProcessCluster) -> job_service_pb2.Node:
    return cluster.nodes(JOB)[JS_NODE]


def wait_attached(cluster: ProcessCluster) -> job_service_pb2.Node:
    def attached() -> job_service_pb2.Node | None:
        node = js_member(cluster)
        return node if node.attached else None

    return wait_until(attached)


def compare_environments(fleet: Fleet, js_rank: int) -> None:
    """What our own agent sets, the other one does as well: the same, but for what is each worker's own."""
    ours, theirs = fleet.environment(0, 0), fleet.environment(js_rank, 0)
    set_by_agent = {name for name in ours.keys() - OURS_ALONE if ours[name] != os.environ.get(name)}
    assert set_by_agent >= {"WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "RALLYPOINT_JOB_UID", *OWN_BY_NATURE}
    assert {name: theirs.get(name) for name in set_by_agent - OWN_BY_NATURE} == {
        name: ours[name] for name in set_by_agent - OWN_BY_NATURE
    }
    assert (theirs["RANK"], theirs["GROUP_RANK"], theirs["ROLE_RANK"]) == ("3", "3", "3")
    assert Path(theirs["TORCHELASTIC_ERROR_FILE"]).name == "error-0.json"


def test_torchs_workers_meet_across_both_kinds_of_agent(cluster: ProcessCluster, node_client: Path) -> None:
    pytest.importorskip("torch")
    cluster.coordinator()
    stop = cluster.folder / "stop"
    fleet = Fleet(cluster, node_client, "--nnodes", "2", worker=(all_reduce.WORKER, str(stop)))
    agents = [fleet.start_python_agent("node-a"), fleet.start_js_agent()]
    ups = all_reduce.wait_up(agents, 2)
    assert [up[1] for up in ups] == ["0", "1"]
    stop.touch()
    assert [agent.wait() for agent in agents] == [0, 0]


def test_a_job_that_fails_ends_it_with_status_1(alone: Fleet) -> None:
    agent = alone.start_js_agent()
    for round_number in range(2):
        alone.pids(round_number)
        alone.end_worker(0, round_number, 3)
    assert agent.wait() == 1
    job = alone.cluster.job(JOB)
    assert (job.outcome.reason, job.outcome.culprit.node) == ("RESTARTS_EXHAUSTED", JS_NODE)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 128 + signal.SIGINT)]
)
def test_a_signal_ends_it_and_its_worker_and_it_says_goodbye(alone: Fleet, number: int, status: int) -> None:
    agent = alone.start_js_agent()
    pids = alone.pids(0)
    agent.signal(number)
    assert agent.wait() == status
    assert not is_alive(pids[0])
    assert js_member(alone.cluster).state == job_service_pb2.NODE_STATE_LEFT


def test_a_signal_ends_it_while_it_looks_for_the_coordinator(cluster: ProcessCluster, node_client: Path) -> None:
    with deaf_listener() as port:
        before = connects_under_way(port)
        agent = Fleet(cluster, node_client).start_js_agent(coordinator=f"127.0.0.1:{port}")
        wait_until(lambda: connects_under_way(port) > before, 90)
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 128 + signal.SIGTERM
    assert agent.output == f"agent {JS_NODE}: ended by SIGTERM\n"


@contextlib.contextmanager
def deaf_listener() -> Iterator[int]:
    """The port of one that nobody can connect to, nor is refused: as many wait to be accepted as may."""
    with contextlib.ExitStack() as closing:
        listener = closing.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = closing.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def connects_under_way(port: int) -> int:
    """To this port, of all processes."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == TCP_SYN_SENT for row in rows)


def test_a_drained_node_leaves(alone: Fleet) -> None:
    agent = alone.start_js_agent()
    alone.pids(0)
    alone.cluster.drain(JOB, JS_NODE)
    assert agent.wait() == 0
    assert js_member(alone.cluster).state == job_service_pb2.NODE_STATE_LEFT


def test_one_that_disagrees_with_the_job_is_refused(alone: Fleet) -> None:
    alone.start_js_agent()
    alone.pids(0)
    other = alone.start_js_agent("--nnodes", "1", "--lease-ttl", "8", node="another")
    assert other.wait() == 4
    assert "SPEC_MISMATCH: the job has max_restarts = 1, this agent says 0" in other.output


def test_when_it_is_killed_its_guard_ends_the_worker_and_says_so(alone: Fleet) -> None:
    agent = alone.start_js_agent()
    pids = alone.pids(0)
    agent.signal(signal.SIGKILL)
    wait_gone({pids[0]})
    wait_until(lambda: js_member(alone.cluster).state == job_service_pb2.NODE_STATE_GONE)


def test_when_its_guard_is_killed_it_ends_with_its_worker(alone: Fleet) -> None:
    agent = alone.start_js_agent()
    pids = alone.pids(0)
    (guard,) = alone.cluster.pids("guard.js")
    os.kill(guard, signal.SIGKILL)
    assert agent.wait() == 1
    assert "the guard is dead" in agent.output
    wait_gone({pids[0]})


def test_when_it_is_stopped_its_guard_ends_the_worker_before_the_node_is_lost(alone: Fleet) -> None:
    agent = alone.start_js_agent()
    pids = alone.pids(0)
    agent.signal(signal.SIGSTOP)
    wait_gone({pids[0]})
    assert js_member(alone.cluster).state == job_service_pb2.NODE_STATE_PARTICIPANT
    wait_until(lambda: js_member(alone.cluster).state == job_service_pb2.NODE_STATE_LOST)
    agent.signal(signal.SIGCONT)
    assert alone.pids(1) != pids


def test_a_coordinator_that_is_gone_for_longer_than_a_lease_ends_no_worker(
    cluster: ProcessCluster, node_client: Path
) -> None:
    data = ("--data-dir", str(cluster.folder / "data"))
    coordinator = cluster.coordinator(*data)
    fleet = Fleet(cluster, node_client, "--nnodes", "1", "--max-restarts", "0", "--lease-ttl", "8")
    agent = fleet.start_js_agent()
    pids = fleet.pids(0)
    coordinator.signal(signal.SIGKILL)
    coordinator.wait()
    agent.wait_for("nobody serves: the lease would be over, but the worker runs on")
    assert is_alive(pids[0])
    cluster.coordinator_again(*data)
    agent.wait_for(r"runs on\n(.*not attached.*\n)*.*: attached\n")
    assert fleet.pids(0) == pids
    fleet.end_all_workers()
    assert agent.wait() == 0


@pytest.mark.parametrize(("outcome", "status"), [("SUCCEEDED", 0), ("ADDED_LATER", 1)])
def test_under_a_later_coordinator_it_does_what_it_knows_and_keeps_its_state(
    cluster: ProcessCluster, node_client: Path, outcome: str, status: int
) -> None:
    with contextlib.closing(FakeCoordinator()) as coordinator:
        agent = Fleet(cluster, node_client).start_js_agent(coordinator="{}:{}".format(*coordinator.endpoint))
        LaterCoordinator(coordinator).lead(outcome)
        assert agent.wait() == status
