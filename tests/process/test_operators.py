"""Holding and updating a live job, by the commands: a real coordinator, real agents, real workers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.v1 import job_service_pb2, types_pb2
from support.cluster import Process, ProcessCluster
from support.processes import is_alive, wait_until


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        cluster.coordinator()
        yield cluster


def agents(cluster: ProcessCluster, *, max_restarts: int) -> list[Process]:
    """Two, with a worker each that waits. Their first round runs."""
    flags = ("--rdzv-id", "job", "--nnodes", "2", "--max-restarts", str(max_restarts), "--last-call-timeout", "0")
    started = [cluster.agent(node, *flags, cluster.worker("wait.py")) for node in ("node-a", "node-b")]
    cluster.wait_for_round("job", 0)
    return started


def ask(cluster: ProcessCluster, *argv: str) -> str:
    """The command's answer."""
    command = cluster.start(f"{argv[0]}-{len(cluster.processes)}", *argv, "--coordinator", cluster.address)
    assert command.wait() == 0, command.output
    return command.out.read_text()


def kill_a_worker(cluster: ProcessCluster) -> None:
    os.kill(cluster.workers("job")[1].pid, signal.SIGKILL)


def events(cluster: ProcessCluster) -> list[str]:
    kinds = (json.loads(line)["kind"] for line in ask(cluster, "events", "job", "-o", "json").splitlines())
    return [kind.removeprefix("JOB_EVENT_KIND_") for kind in kinds]


def test_a_job_that_is_held_forms_no_round_until_it_is_released(cluster: ProcessCluster) -> None:
    agents(cluster, max_restarts=1)
    workers = [worker.pid for worker in cluster.workers("job")]
    ask(cluster, "hold", "job", "--reason", "upkeep")
    assert cluster.job("job").state == types_pb2.JOB_STATE_RUNNING
    kill_a_worker(cluster)

    def waits() -> job_service_pb2.Job | None:
        # Two nodes that are ready form a round at once, but for the hold.
        job = cluster.job("job")
        return job if job.message.startswith("held by 127.0.0.1: upkeep: 2 nodes ready, ") else None

    job = wait_until(waits, 60, "the job is not held")
    assert (job.state, job.reason, job.round, job.restart_count) == (types_pb2.JOB_STATE_GATHERING, "HELD", 0, 1)
    assert not any(map(is_alive, workers))

    ask(cluster, "release", "job")
    cluster.wait_for_round("job", 1)
    told = events(cluster)
    assert told[told.index("JOB_HELD") :] == [
        "JOB_HELD",
        "ROUND_STOPPING",
        "ROUND_ENDED",
        "JOB_RELEASED",
        "ROUND_BEGAN",
    ]


def test_a_budget_that_was_raised_is_in_force_and_no_more_than_that(cluster: ProcessCluster) -> None:
    started = agents(cluster, max_restarts=0)
    ask(cluster, "update", "job", "--max-restarts", "1")
    kill_a_worker(cluster)
    cluster.wait_for_round("job", 1)
    assert "restarts      1 used of 1" in ask(cluster, "status", "job")
    kill_a_worker(cluster)
    assert [agent.wait() for agent in started] == [1, 1]
    job = cluster.job("job")
    assert (job.state, job.outcome.reason) == (types_pb2.JOB_STATE_FAILED, "RESTARTS_EXHAUSTED")
    assert (job.spec.max_restarts, job.agreed_spec.max_restarts) == (1, 0)
