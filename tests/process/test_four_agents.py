"""Jobs of three and four agents: who goes on without whom, what it costs, and what is said meanwhile."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.fleet import NODES, SPARE, Fleet, Health
from rallypoint.v1 import job_service_pb2, types_pb2
from support.cluster import ProcessCluster
from support.processes import is_alive


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def fleet(cluster: ProcessCluster) -> Iterator[Fleet]:
    fleet = Fleet(cluster)
    fleet.start_agents(*NODES)
    yield fleet
    assert fleet.lives.check() == []


def without(before: Health, victim: str) -> tuple[str, ...]:
    return tuple(node for node in before.nodes if node != victim)


@pytest.mark.parametrize("rank", [0, 2])
def test_the_others_go_on_without_an_agent_that_was_killed(fleet: Fleet, rank: int) -> None:
    before = fleet.wait_healthy()
    victim = before.nodes[rank]
    fleet.end(victim, signal.SIGKILL)
    after = fleet.wait_healthy(3)
    assert (after.round, after.nodes, after.restart_count) == (before.round + 1, without(before, victim), 0)
    assert not any(map(is_alive, before.families[victim]))
    assert fleet.nodes()[victim].state == job_service_pb2.NODE_STATE_GONE


@pytest.mark.parametrize("rank", [0, 2])
def test_a_standby_takes_the_place_of_an_agent_that_was_killed(fleet: Fleet, rank: int) -> None:
    fleet.wait_healthy()
    fleet.start_agents(SPARE)
    before = fleet.wait_healthy()
    victim = before.nodes[rank]
    fleet.end(victim, signal.SIGKILL)
    after = fleet.wait_healthy()
    in_its_place = tuple(SPARE if node == victim else node for node in before.nodes)
    assert (after.round, after.nodes, after.restart_count) == (before.round + 1, in_its_place, 0)


def test_one_restart_is_spent_and_then_all_three_agents_tell_the_same_root_cause(cluster: ProcessCluster) -> None:
    cluster.coordinator()
    flags = ("--rdzv-id", "job", "--nnodes", "3", "--nproc-per-node", "2", "--max-restarts", "1")
    env = {"TELL": str(cluster.folder), "TMPDIR": str(cluster.folder), "RAISE_ON_RANK": "3"}
    agents = [cluster.agent(node, *flags, cluster.worker("tell.py"), **env) for node in NODES[:3]]
    assert [agent.wait() for agent in agents] == [1, 1, 1]
    assert {path.name for path in cluster.folder.glob("*.json")} == {f"{r}.{n}.json" for r in range(6) for n in (0, 1)}
    job = cluster.job("job")
    assert (job.round, job.restart_count, job.state) == (1, 1, types_pb2.JOB_STATE_FAILED)
    assert job.outcome.culprit.rank == 3
    (cause,) = {re.search(r"Root cause: (rank 3 .*)", agent.output)[1] for agent in agents}  # type: ignore[index]
    assert job.outcome.culprit.node in cause


def test_every_phase_says_what_it_waits_for_and_until_when(cluster: ProcessCluster) -> None:
    fleet = Fleet(cluster, "--rejoin-wait", "600s")
    fleet.start_agents("node-a", "node-b")
    sees(fleet, r"waiting for 3 nodes: 2 ready, \d+ s left")
    fleet.start_agents("node-c")
    sees(fleet, r"last call for more nodes: 3 of at most 4 are ready, [0-3] s left")
    sees(fleet, r"round 0 runs, restart 0 of 100000: 3 nodes, 6 workers")
    fleet.wait_healthy(3)
    (fleet.records / "linger").touch()
    cluster.restart("job")
    sees(fleet, r"round 0 is being stopped: restarted by 127\.0\.0\.1: 3 nodes may still have workers, \d+ s left")
    (fleet.records / "linger").unlink()
    fleet.start_agents("node-d")
    fleet.wait_healthy()
    fleet.end("node-b", signal.SIGKILL)
    sees(fleet, r"waiting for node-b to come back: 3 nodes ready, \d+ s left")


def sees(fleet: Fleet, sentence: str) -> None:
    """Wait until GetJob says this."""

    def said() -> bool:
        job = fleet.job()
        return job is not None and re.fullmatch(sentence, job.message) is not None

    fleet.wait(said, f"GetJob does not say {sentence!r}, but {fleet.sentences}")
