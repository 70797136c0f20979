"""torchrun's command lines of several nodes, but for their first word: nobody starts a coordinator by hand."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rallypoint_agent.meeting import coordinator_port
from support.cluster import Process, ProcessCluster
from support.ports import free_pair, free_range
from support.processes import wait_until

STARTED = r"started a coordinator on this host, listening on (\S+): pid (\d+), log in (\S+);"
COORDINATOR = "rallypoint_coordinator"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster
        for pid in cluster.pids(COORDINATOR):
            os.kill(pid, signal.SIGTERM)


@pytest.fixture
def port() -> int:
    return free_range(1)[0]


def c10d(cluster: ProcessCluster, port: int, name: str, *more: str, **env: str) -> Process:
    """As ``torchrun --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=localhost:PORT ...``."""
    cluster.address = f"127.0.0.1:{port}"
    line = ("--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", *more)
    return cluster.start(name, "run", *line, **{"TELL": str(cluster.folder), **env})


def told(cluster: ProcessCluster) -> list[dict[str, str]]:
    return [json.loads(file.read_text())["env"] for file in sorted(cluster.folder.glob("*.0.json"))]


def test_lines_that_differ_in_nothing(cluster: ProcessCluster, port: int) -> None:
    line = ("--nnodes=2", "--nproc-per-node=2", cluster.worker("tell.py"))
    agents = [c10d(cluster, port, name, *line) for name in ("first", "second")]
    assert [agent.wait() for agent in agents] == [0, 0]
    envs = told(cluster)
    assert [env["RANK"] for env in envs] == ["0", "1", "2", "3"]
    assert {env["TORCHELASTIC_RUN_ID"] for env in envs} == {"none"}
    assert len({(env["MASTER_ADDR"], env["MASTER_PORT"]) for env in envs}) == 1
    assert str(port) not in {env["MASTER_PORT"] for env in envs}


def test_static_lines_whose_first_node_comes_last(cluster: ProcessCluster) -> None:
    port, master_port = free_pair(100)
    assert coordinator_port(master_port) == port

    def node(rank: int) -> Process:
        line = ("--nnodes=2", f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={master_port}")
        return cluster.start(f"node-{rank}", "run", *line, cluster.worker("tell.py"), TELL=str(cluster.folder))

    last = node(1)
    last.wait_for("waiting for nodes: 1 joined")
    first = node(0)
    assert [last.wait(), first.wait()] == [0, 0]
    envs = told(cluster)
    assert [env["GROUP_RANK"] for env in envs] == ["0", "1"]
    assert {(env["MASTER_ADDR"], env["MASTER_PORT"]) for env in envs} == {("127.0.0.1", str(master_port))}
    assert "rank 0 of 2" in first.output, "--node-rank orders the nodes"


def test_of_many_that_come_at_once_one_starts_it(cluster: ProcessCluster, port: int) -> None:
    line = ("--nnodes=5", cluster.worker("wait.py"))
    stop_file = cluster.folder / "stop"
    agents = [c10d(cluster, port, f"agent-{number}", *line, WAIT_FOR=str(stop_file)) for number in range(5)]
    cluster.wait_for_round("none", 0)
    started = [agent.wait_for(rf"{STARTED}|was there already") for agent in agents]
    pids = [int(found[2]) for found in started if found[2]]
    assert set(pids) == cluster.pids(COORDINATOR)
    assert len(pids) == 1
    stop_file.touch()
    assert [agent.wait() for agent in agents] == [0] * 5
    logs = list(cluster.folder.glob("rallypoint-*/coordinator-*.log"))
    assert len(logs) == 1, "who came second leaves no log"


def test_the_death_of_the_agent_that_started_it_is_one_of_any_node(cluster: ProcessCluster, port: int) -> None:
    line = ("--nnodes=1:2", "--rdzv-conf=last_call_timeout=1", cluster.worker("wait.py"))
    stop_file = cluster.folder / "stop"
    first = c10d(cluster, port, "first", *line, WAIT_FOR=str(stop_file))
    coordinator = int(first.wait_for(STARTED)[2])
    cluster.wait_for_round("none", 0)
    second = c10d(cluster, port, "second", *line, WAIT_FOR=str(stop_file))
    assert len(cluster.wait_for_round("none", 1)) == 2
    first.signal(signal.SIGKILL)
    first.wait()
    assert len(cluster.wait_for_round("none", 2)) == 1
    assert cluster.pids(COORDINATOR) == {coordinator}
    stop_file.touch()
    assert second.wait() == 0


def test_one_run_after_another_is_a_fresh_one(cluster: ProcessCluster, port: int) -> None:
    lives = []
    for number, exit_with in enumerate(("3", "0")):
        worker = cluster.worker("tell.py")
        flags = ("--nnodes=2", f"--max-restarts={number}")  # Another JobSpec too.
        env = {"TELL": str(cluster.folder), "EXIT_IN_ROUND": "" if exit_with == "0" else "0:1"}
        agents = [c10d(cluster, port, f"{name}-{number}", *flags, worker, **env) for name in ("first", "second")]
        assert [agent.wait() for agent in agents] == [int(exit_with != "0")] * 2
        lives.append(cluster.job("none"))
    assert lives[0].uid != lives[1].uid
    assert (lives[1].round, lives[1].restart_count) == (0, 0)
    assert len(cluster.pids(COORDINATOR)) == 1


def test_one_that_was_ended_by_ctrl_c_can_be_run_again_with_other_flags(cluster: ProcessCluster, port: int) -> None:
    stop_file = cluster.folder / "stop"

    def run(restarts: int) -> list[Process]:
        line = ("--nnodes=2", f"--max-restarts={restarts}", cluster.worker("wait.py"))
        names = (f"{name}-{restarts}" for name in ("first", "second"))
        return [c10d(cluster, port, name, *line, WAIT_FOR=str(stop_file)) for name in names]

    agents = run(3)
    cluster.wait_for_round("none", 0)
    ended = cluster.job("none")
    for agent in agents:
        agent.signal(signal.SIGINT)
    assert [agent.wait() for agent in agents] == [128 + signal.SIGINT] * 2
    stop_file.touch()
    assert [agent.wait() for agent in run(1)] == [0, 0]
    again = cluster.job("none")
    assert again.uid != ended.uid
    assert (again.round, again.spec.max_restarts, again.outcome.reason) == (0, 1, "ALL_SUCCEEDED")
    assert len(cluster.pids(COORDINATOR)) == 1


def test_it_ends_when_nobody_has_been_there_for_some_time(cluster: ProcessCluster, port: int) -> None:
    line = ("--nnodes=1", cluster.worker("wait.py"))
    stop_file = cluster.folder / "stop"
    agent = c10d(cluster, port, "agent", *line, WAIT_FOR=str(stop_file), RALLYPOINT_EXIT_WHEN_IDLE="5s")
    started = agent.wait_for(STARTED)
    cluster.wait_for_round("none", 0)
    stop_file.touch()
    assert agent.wait() == 0
    wait_until(lambda: not cluster.pids(COORDINATOR), 60)
    log = Path(started[3]).read_text()
    assert "nobody has been here for 5 s: ending, as --exit-when-idle says" in log
    assert "Traceback" not in log


@contextmanager
def listener(greeting: bytes) -> Iterator[int]:
    """Takes connections, says something that no coordinator says, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(greeting)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_no_coordinator_is_said_on_one_line(cluster: ProcessCluster, greeting: bytes) -> None:
    with listener(greeting) as port:
        agent = c10d(cluster, port, "agent", "--nnodes=2", cluster.worker("wait.py"))
        assert agent.wait() == 3
    (line,) = agent.output.splitlines()
    assert f"what listens at localhost:{port} is no coordinator in plain text: is it one with TLS" in line
    assert not cluster.pids(COORDINATOR)


def test_a_bad_time_is_said_in_the_coordinators_words(cluster: ProcessCluster, port: int) -> None:
    agent = c10d(cluster, port, "agent", cluster.worker("wait.py"), RALLYPOINT_EXIT_WHEN_IDLE="soon")
    assert agent.wait() == 3
    assert "argument --exit-when-idle: 'soon': it must be a number" in agent.output
    assert agent.output.count("\n") == 1
