"""What the status clients in other languages print is what GetJob, ListNodes and ListWorkers say."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import grpc
import pytest

from clients.js_agent import JOB
from clients.js_status import js_status
from rallypoint.v1.job_service_pb2 import JobEvent, JobEventKind, ListJobEventsRequest
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from rallypoint.v1.types_pb2 import JOB_STATE_SUCCEEDED
from support.cluster import Process, ProcessCluster
from support.processes import MARK_VARIABLE

NODE = "node-a"

# The first of them builds the C++ client, which takes a while where much else is going on.
pytestmark = pytest.mark.timeout(300)


def run(command: list[str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *args], capture_output=True, text=True, timeout=60, check=False)


def start_job(cluster: ProcessCluster) -> Path:
    """A job that runs until the file is there."""
    end = cluster.folder / "end"
    flags = ("--rdzv-id", JOB, "--nproc-per-node", "2", "--max-restarts", "3")
    cluster.agent(NODE, *flags, cluster.worker("wait.py"), WAIT_FOR=str(end))
    return end


def test_a_job_and_its_workers(cluster: ProcessCluster, status: list[str]) -> None:
    cluster.coordinator()
    start_job(cluster)
    workers = cluster.wait_for_round(JOB, 0)
    done = run(status, cluster.address, JOB)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"job: running, round 0, restart 0 of 3: {cluster.job(JOB).message}"
    assert lines[-2:] == [f"  rank {worker.rank} on {NODE}: healthy, pid {worker.pid}" for worker in workers]


def test_a_job_that_there_is_not(cluster: ProcessCluster, status: list[str]) -> None:
    cluster.coordinator()
    done = run(status, cluster.address, "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no job nothing; ListJobs lists those there are" in done.stderr


def test_a_command_line_that_makes_no_sense(status: list[str]) -> None:
    done = run(status, "only-one")
    assert done.returncode == 2
    assert "usage: " in done.stderr


def test_the_nodes(cluster: ProcessCluster, node_client: Path) -> None:
    cluster.coordinator()
    start_job(cluster)
    cluster.wait_for_round(JOB, 0)
    version = cluster.nodes(JOB)[NODE].agent_version
    assert f"  {NODE}: participant, running, {version}\n" in run(js_status(node_client), cluster.address, JOB).stdout


def test_watching_a_job_to_its_end_over_a_restart_of_the_coordinator(
    cluster: ProcessCluster, node_client: Path
) -> None:
    data = ("--data-dir", str(cluster.folder / "data"))
    coordinator = cluster.coordinator(*data)
    end = start_job(cluster)
    cluster.wait_for_round(JOB, 0)
    watching = watch(cluster, node_client)
    watching.wait_for("job: running, round 0, restart 0 of 3")
    coordinator.signal(signal.SIGKILL)
    coordinator.wait()
    watching.wait_for(r"the watch broke \(.+\); trying again")
    cluster.coordinator_again(*data)
    cluster.wait_for_round(JOB, 0)
    cluster.restart(JOB)
    cluster.wait_for_round(JOB, 1)
    end.touch()
    assert watching.wait() == 0
    began, *told = watching.out.read_text().splitlines()
    story = [line_of(event) for event in job_events(cluster) if event.revision > int(began.split()[0])]
    assert told == story[: len(told)]
    assert "restart_asked" in told[0]
    assert "job_decided" in told[-1]


def test_watching_a_job_that_is_decided(cluster: ProcessCluster, node_client: Path) -> None:
    cluster.coordinator()
    start_job(cluster).touch()
    cluster.wait_for_state(JOB, JOB_STATE_SUCCEEDED)
    watching = watch(cluster, node_client)
    assert watching.wait() == 0
    (line,) = watching.output.splitlines()
    assert line.endswith(f" job: succeeded, round 0, restart 0 of 3: {cluster.job(JOB).message} [ALL_SUCCEEDED]")


def test_watching_a_job_that_there_is_not(cluster: ProcessCluster, node_client: Path) -> None:
    cluster.coordinator()
    watching = watch(cluster, node_client)
    assert watching.wait() == 1
    assert "status: JOB_NOT_FOUND: there is no job job" in watching.output


def watch(cluster: ProcessCluster, client: Path) -> Process:
    command = [*js_status(client), cluster.address, JOB, "--watch"]
    process = Process("watch", command, cluster.folder, {**os.environ, MARK_VARIABLE: cluster.mark})
    cluster.processes.append(process)
    return process


def line_of(event: JobEvent) -> str:
    word = JobEventKind.Name(event.kind).removeprefix("JOB_EVENT_KIND_").lower()
    return f"{event.revision} {word}: {event.message}"


def job_events(cluster: ProcessCluster) -> list[JobEvent]:
    with grpc.insecure_channel(cluster.address, [("grpc.enable_http_proxy", 0)]) as channel:
        request = ListJobEventsRequest(parent=f"jobs/{JOB}", page_size=1000)
        return list(JobServiceStub(channel).ListJobEvents(request, timeout=10).events)
