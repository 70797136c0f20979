"""torch's own timers, unchanged, with our watchdog."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.worker import FileTimerClient
from rallypoint_agent.file_timer import FileTimerServer
from support.cluster import ProcessCluster

timer = pytest.importorskip("torch.distributed.elastic.timer")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileTimerServer]:
    server = FileTimerServer(str(tmp_path / "timer"), 30)
    server.set_workers({0: os.getpid()}, 0)
    yield server
    server.close()


def test_torchs_client_writes_what_ours_writes(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    written = []
    for client in (timer.FileTimerClient(str(path)), FileTimerClient(str(path))):
        client.acquire("a scope\n\u00e4", 1234567890.123456)
        client.release("a scope\n\u00e4")
        written.append(os.read(fd, 1 << 16))
    os.close(fd)
    assert written[0] == written[1]
    assert written[0].count(b"\n") == 2


def test_torchs_expires_is_understood(server: FileTimerServer) -> None:
    with timer.expires(after=60, scope="torch", client=timer.FileTimerClient(server.file_path)):
        server.look()
        assert server.status.live_timers == 1
    server._next_pass_ns = 0
    server.look()
    assert server.status.live_timers == 0


def test_torchs_client_fills_the_pipe_of_an_agent_that_is_busy_without_an_error(server: FileTimerServer) -> None:
    client = timer.FileTimerClient(server.file_path)
    before = time.time()
    for number in range(2_000):
        client.acquire(str(number % 10), before + 60)
    server.look()
    assert server.status.live_timers == 10


def test_a_script_that_uses_torchs_timers_is_killed_and_restarted(cluster: ProcessCluster) -> None:
    agent = cluster.start(
        "agent",
        *("run", "--standalone", "--node-name", "node-a", "--nproc-per-node", "2", "--max-restarts", "1"),
        cluster.worker("torch_timer.py"),
        TORCHELASTIC_ENABLE_FILE_TIMER="1",
        TMPDIR=str(cluster.folder),
    )
    assert agent.wait(110) == 0, agent.output
    assert "rank 1 is to be killed: its timer expired, scope the step" in agent.output
    assert agent.out.read_text().count("done") == 2
