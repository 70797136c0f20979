"""What the status clients in other languages print is what GetJob, ListNodes and ListWorkers say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from clients.js_agent import JOB
from support.cluster import Process, ProcessCluster

NODE = "node-a"

# The first of them builds the C++ client, which takes a while where much else is going on.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["node", "cpp"])
def status(request: pytest.FixtureRequest) -> list[str]:
    """The command, in each language."""
    if request.param == "cpp":
        return [str(request.getfixturevalue("cpp_status"))]
    return js_status(request.getfixturevalue("node_client"))


def js_status(client: Path) -> list[str]:
    return ["node", str(client / "status.js")]


def run(command: list[str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *args], capture_output=True, text=True, timeout=60, check=False)


def start_job(cluster: ProcessCluster) -> Path:
    """A job that runs until the file is there."""
    cluster.coordinator()
    end = cluster.folder / "end"
    flags = ("--rdzv-id", JOB, "--nproc-per-node", "2", "--max-restarts", "3")
    cluster.agent(NODE, *flags, cluster.worker("wait.py"), WAIT_FOR=str(end))
    return end


def test_a_job_and_its_workers(cluster: ProcessCluster, status: list[str]) -> None:
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
    start_job(cluster)
    cluster.wait_for_round(JOB, 0)
    version = cluster.nodes(JOB)[NODE].agent_version
    assert f"  {NODE}: participant, running, {version}\n" in run(js_status(node_client), cluster.address, JOB).stdout


def test_watching_a_job_to_its_end(cluster: ProcessCluster, node_client: Path) -> None:
    end = start_job(cluster)
    cluster.wait_for_round(JOB, 0)
    command = [*js_status(node_client), cluster.address, JOB, "--watch"]
    watching = Process("watch", command, cluster.folder, dict(os.environ))
    cluster.processes.append(watching)
    watching.wait_for("job: running")
    end.touch()
    assert watching.wait() == 0
    last = watching.out.read_text().splitlines()[-1]
    assert last == f"job: succeeded, round 0, restart 0 of 3: {cluster.job(JOB).message} [ALL_SUCCEEDED]"
