"""An agent's health as a kubelet sees it, while the job re-forms and while the agent hangs."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from support.cluster import Process, ProcessCluster
from support.ports import free_range
from support.processes import wait_until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
ALL_WELL = {"rallypoint.agent": "SERVING", "rallypoint.watchdog": "SERVING", "rallypoint.workers": "SERVING"}


class Node:
    """One agent with both kinds of health check, and a worker that waits in round 0 and ends with 0 in round 1."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster = cluster
        self.port, self.http_port = free_range(2)
        self.release = cluster.folder / "release"
        flags = ("--standalone", "--node-name", "node-a", "--max-restarts", "1")
        self.agent: Process = cluster.start(
            "agent",
            *("run", *flags, cluster.worker("timers.py"), "hold"),
            RELEASE=str(self.release),
            TMPDIR=str(cluster.folder),
            TORCHELASTIC_ENABLE_FILE_TIMER="1",
            TORCHELASTIC_HEALTH_CHECK_PORT=str(self.port),
            RALLYPOINT_HEALTHZ_PORT=str(self.http_port),
        )

    def healthz(self) -> dict[str, object] | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/healthz", timeout=10) as answer:
                found: dict[str, object] = json.loads(answer.read())
                return found
        except urllib.error.URLError:
            return None

    def worker(self) -> int:
        (worker,) = self.cluster.pids("timers.py") - self.cluster.pids("run")
        return worker


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with ProcessCluster(tmp_path) as cluster:
        yield Node(cluster)


def watch(channel: grpc.Channel, service: str) -> Iterator[health_pb2.HealthCheckResponse]:
    call: grpc.UnaryStreamMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    call = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return call(health_pb2.HealthCheckRequest(service=service), timeout=60, wait_for_ready=True)


def test_the_checks_go_on_while_the_job_reforms(node: Node) -> None:
    wait_until(lambda: node.healthz() == {"status": "SERVING", "services": ALL_WELL})
    with grpc.insecure_channel(f"127.0.0.1:{node.port}") as channel:
        answers = watch(channel, "rallypoint.agent")
        assert next(answers).status == SERVING
        os.kill(node.worker(), signal.SIGKILL)
        node.agent.wait_for("round 1: ")
        assert node.agent.wait() == 0, node.agent.output
        # The one stream saw it all, and no change, until the agent ended.
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert node.healthz() is None


def test_both_are_there_while_nodes_are_awaited(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster:
        cluster.coordinator()
        (port,) = free_range(1)
        agent = cluster.agent(
            "node-a",
            *("--rdzv-id", "job", "--nnodes", "2", cluster.worker("wait.py")),
            TORCHELASTIC_HEALTH_CHECK_PORT=str(port),
        )
        agent.wait_for("waiting for nodes")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert next(watch(channel, "")).status == SERVING
            assert next(watch(channel, "rallypoint.workers")).status == NOT_SERVING
            assert next(watch(channel, "rallypoint.watchdog")).status == SERVICE_UNKNOWN
