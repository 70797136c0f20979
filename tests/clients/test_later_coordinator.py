"""The status clients ask a coordinator of a later release: what they do not know is passed over, or shown as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from support.protocol import PACKAGE, Protocol, fill, later

pytestmark = pytest.mark.timeout(300)


def answers(protocol: Protocol) -> dict[str, list[Any]]:
    """By the method, what is said of a job with one node and one worker, all in states of the later release."""

    def added(enum: str) -> int:
        return protocol.number(f"{enum}_ADDED_LATER")

    job = {"name": "jobs/job", "state": added("JOB_STATE"), "message": "so", "spec": {"max_restarts": 3}}
    event = {"revision": 8, "kind": added("JOB_EVENT_KIND"), "message": "what is new"}
    node = {"name": "jobs/job/nodes/a", "state": added("NODE_STATE"), "phase": added("AGENT_PHASE")}
    worker = {"rank": 0, "node": "a", "pid": 7, "state": added("WORKER_STATE")}
    responses: dict[str, list[dict[str, Any]]] = {
        "GetJob": [{"job": job}],
        "ListNodes": [{"nodes": [node]}],
        "ListWorkers": [{"workers": [worker]}],
        "WatchJob": [{"revision": 7, "snapshot": job}, {"revision": 8, "events": [event]}],
    }
    return {
        method: [fill(protocol.make(f"{method}Response", **fields)) for fields in each]
        for method, each in responses.items()
    }


@pytest.fixture
def address() -> Iterator[str]:
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method, responses in answers(later()).items():
        said = [response.SerializeToString() for response in responses]
        # On the wire one answer is a stream of one.
        handlers[method] = grpc.unary_stream_rpc_method_handler(lambda request, context, said=said: iter(said))
    server = grpc.server(ThreadPoolExecutor())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{PACKAGE}.JobService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=None).wait()


def lines(*command: object) -> list[str]:
    argv = [str(word) for word in command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_in_javascript(address: str, node_client: Any) -> None:
    status = ("node", node_client / "status.js", address, "job")
    assert lines(*status) == [
        "job: 10000, no round yet, restart 0 of 3: so",
        "  a: 10000, 10000, ",
        "  rank 0 on a: 10000, pid 7",
    ]
    assert lines(*status, "--watch") == ["7 job: 10000, no round yet, restart 0 of 3: so", "8 10000: what is new"]


def test_in_cpp(address: str, cpp_status: Any) -> None:
    assert lines(cpp_status, address, "job") == [
        "job: unknown, no round yet, restart 0 of 3: so",
        "  rank 0 on a: unknown, pid 7",
    ]
