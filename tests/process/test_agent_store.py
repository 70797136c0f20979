"""What a crowd of clients does to the agent that serves their store."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.v1 import types_pb2
from rallypoint_agent.torch_store.commands import Add, Command, Get, MultiSet
from support.cluster import ProcessCluster
from support.ports import free_range
from support.torch_store_words import RawClient

CLIENTS = 600
LEASE_TTL_S = 8


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_the_lease_is_renewed_while_hundreds_of_clients_keep_it_busy(tmp_path: Path) -> None:
    (port,) = free_range(1)
    with ProcessCluster(tmp_path) as cluster:
        cluster.coordinator()
        flags = ["--rdzv-id", "job", "--rdzv-conf", "store=agent", "--port-range", f"{port}-{port}"]
        agent = cluster.agent("node-a", *flags, "--lease-ttl", f"{LEASE_TTL_S}s", cluster.worker("wait.py"))
        before = cluster.wait_for_round("job", 0)
        clients = [RawClient(port) for _ in range(CLIENTS)]
        commands: list[Command] = [*[Add(b"n", 1)] * 20, MultiSet(((b"k", b"v" * 1_000),)), Get(b"k")]
        until, rounds = time.monotonic() + 1.5 * LEASE_TTL_S, 0
        while time.monotonic() < until:
            for client in clients:
                client.say(*commands)
            for client in clients:
                client.hear(20 * 8 + 8 + 1_000)
            rounds += 1
        clients[0].say(Add(b"n", 0))
        assert int.from_bytes(clients[0].hear(8), "little") == rounds * 20 * CLIENTS
        after = cluster.wait_for_round("job", 0)
        assert [worker.pid for worker in after] == [worker.pid for worker in before]
        job = cluster.job("job")
        assert (job.state, job.restart_count) == (types_pb2.JOB_STATE_RUNNING, 0)
        assert "lost contact" not in agent.output
        for client in clients:
            client.close()
