"""Several ``rallypoint run`` and one coordinator: what each agent does and tells."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.v1 import job_service_pb2
from support.cluster import Process, ProcessCluster
from support.processes import wait_until


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        cluster.coordinator()
        yield cluster


def pair(cluster: ProcessCluster, *flags: str, **env: str) -> tuple[Process, Process]:
    argv = ("--rdzv-id", "job", "--nnodes", "2", "--nproc-per-node", "2", *flags)
    worker = cluster.worker("tell.py")
    env |= {"TELL": str(cluster.folder), "TMPDIR": str(cluster.folder)}
    a, b = (
        cluster.agent(name, *argv, "--node-rank", rank, worker, **env)
        for name, rank in (("node-a", "1"), ("node-b", "0"))
    )
    return a, b


def environments(cluster: ProcessCluster, round_number: int = 0) -> list[dict[str, str]]:
    files = sorted(cluster.folder.glob(f"*.{round_number}.json"))
    return [json.loads(file.read_text())["env"] for file in files]


def test_two_nodes_agree_on_their_ranks_and_their_meeting_place(cluster: ProcessCluster) -> None:
    agents = pair(cluster)
    assert [agent.wait() for agent in agents] == [0, 0]
    envs = environments(cluster)
    assert [env["RANK"] for env in envs] == ["0", "1", "2", "3"]
    assert [env["GROUP_RANK"] for env in envs] == ["0", "0", "1", "1"]
    assert [env["LOCAL_RANK"] for env in envs] == ["0", "1", "0", "1"]
    assert len({(env["MASTER_ADDR"], env["MASTER_PORT"]) for env in envs}) == 1
    assert len({env["RALLYPOINT_JOB_UID"] for env in envs}) == 1
    assert "ranks 0-1 of 4" in agents[1].output, "--node-rank orders the nodes"


def test_every_agent_tells_the_root_cause_wherever_it_was(cluster: ProcessCluster) -> None:
    a, b = pair(cluster, RAISE_ON_RANK="3")
    assert [a.wait(), b.wait()] == [1, 1]
    for agent in (a, b):
        report = agent.err.read_text().partition("Root cause: ")[2]
        assert report.startswith("rank 3 (local rank 1) on node-a")
        assert "ValueError: bad sample" in report
    assert "Also failed" not in b.output


def test_a_failure_on_one_node_restarts_both_once(cluster: ProcessCluster) -> None:
    a, b = pair(cluster, "--max-restarts", "3", EXIT_IN_ROUND="0:1")
    assert [a.wait(), b.wait()] == [0, 0]
    assert [env["TORCHELASTIC_RESTART_COUNT"] for env in environments(cluster, 1)] == 4 * ["1"]


def test_a_node_that_stood_by_ends_as_the_job_does(cluster: ProcessCluster) -> None:
    stop_file = cluster.folder / "stop"
    argv = ("--rdzv-id", "job", "--nnodes", "1", cluster.worker("wait.py"))
    first = cluster.agent("node-a", *argv, WAIT_FOR=str(stop_file))
    cluster.wait_for_round("job", 0)
    spare = cluster.agent("node-b", *argv, WAIT_FOR=str(stop_file))
    standby = job_service_pb2.NODE_STATE_STANDBY
    wait_until(lambda: [node for node in cluster.nodes("job").values() if node.state == standby])
    stop_file.touch()
    assert [first.wait(), spare.wait()] == [0, 0]
    assert spare.out.read_text() == "", "it had no worker"


def test_a_node_that_joins_costs_no_restart_and_no_log(cluster: ProcessCluster, tmp_path: Path) -> None:
    stop_file, logs = cluster.folder / "stop", tmp_path / "logs"
    flags = ("--rdzv-id", "job", "--nnodes", "1:2", "--last-call-timeout", "1s", "--redirects", "3")
    argv = (*flags, "--log-dir", str(logs), cluster.worker("wait.py"))
    agents = [cluster.agent("node-a", *argv, WAIT_FOR=str(stop_file))]
    cluster.wait_for_round("job", 0)
    agents.append(cluster.agent("node-b", *argv, WAIT_FOR=str(stop_file)))
    cluster.wait_for_round("job", 1)
    stop_file.touch()
    assert [agent.wait() for agent in agents] == [0, 0]
    said = sorted((path.parts[-3], path.read_text()) for path in logs.rglob("stdout.log"))
    in_round_1 = ("attempt_1", "worker of round 1 restart 0\n")
    assert said == [("attempt_0", "worker of round 0 restart 0\n"), in_round_1, in_round_1]


def test_a_spec_that_differs_is_refused_with_exit_status_4(cluster: ProcessCluster) -> None:
    argv = ("--rdzv-id", "job", "--nnodes", "2", cluster.worker("wait.py"))
    first = cluster.agent("node-a", *argv)
    first.wait_for("attached")
    second = cluster.agent("node-b", "--max-restarts", "7", *argv)
    assert second.wait() == 4
    assert "--max-restarts is 0 in the job and 7 here" in second.output
    first.signal(signal.SIGTERM)
    assert first.wait() == 143


def test_a_signal_while_it_waits_for_others(cluster: ProcessCluster) -> None:
    agent = cluster.agent("node-a", "--rdzv-id", "j", "--nnodes", "2", cluster.worker("wait.py"))
    agent.wait_for("waiting")
    agent.signal(signal.SIGINT)
    assert agent.wait() == 130
    assert "Traceback" not in agent.output


def test_unnamed_agents_on_one_host_are_numbered(cluster: ProcessCluster) -> None:
    job = cluster.mark  # The numbers are the host's, and of this job alone.
    argv = ("run", "--coordinator", cluster.address, "--rdzv-id", job, "--nnodes", "2")
    agents = [cluster.start(name, *argv, cluster.worker("wait.py")) for name in ("x", "y")]
    cluster.wait_for_round(job, 0)
    first, second = sorted(cluster.nodes(job))
    assert second == f"{first}-2"
    for agent in agents:
        agent.signal(signal.SIGTERM)
    wait_until(lambda: not cluster.pids("wait.py"))


def test_an_unnamed_agent_that_is_started_again_has_its_name_again(cluster: ProcessCluster) -> None:
    job = cluster.mark
    argv = ("run", "--coordinator", cluster.address, "--rdzv-id", job, cluster.worker("wait.py"))
    first = cluster.start("first", *argv)
    cluster.wait_for_round(job, 0)
    first.signal(signal.SIGKILL)
    second = cluster.start("second", *argv)
    cluster.wait_for_round(job, 1)
    assert len(cluster.nodes(job)) == 1
    second.signal(signal.SIGTERM)
    assert second.wait() == 143
