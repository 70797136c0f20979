"""``rallypoint coordinator`` run to its end, and what its health service says."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

REFUSED = "rallypoint coordinator: "
COMMAND = (sys.executable, "-m", "rallypoint", "coordinator", "--listen", "127.0.0.1:0")


def run_to_its_end(*flags: str, command: tuple[str, ...] = COMMAND) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*command, *flags), capture_output=True, text=True, timeout=30, check=False)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that it ended with."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert done.stderr.startswith(REFUSED)
    return done.stderr.removeprefix(REFUSED).rstrip()


def health(address: str) -> int | None:
    """What its health service says; None if it says nothing."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = HealthStub(channel)
        try:
            status: int = stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status
        except grpc.RpcError:
            return None
        return status
