"""What the coordinator says, and is asked for, over one connection that outlives it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from soak.ledger import Ended, Rest

CHANNEL = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
ONCE_S = 10.0
"""For one question; it is asked again."""
PATIENCE_S = 300.0
"""Nothing here takes a tenth of that on a machine that has nothing else to do."""

T = TypeVar("T")


class View:
    """A context, for several threads. ``heard``: held while a request is out.

    Who ends the coordinator must hold it: else nobody could say whether a request was heard, nor ask again.
    """

    def __init__(self, address: str) -> None:
        self.heard = threading.Lock()
        self._channel = grpc.insecure_channel(address, options=CHANNEL)
        self._stub: Any = JobServiceStub(self._channel)

    def __enter__(self) -> View:
        return self

    def __exit__(self, *exc: object) -> None:
        self._channel.close()

    def job(self, name: str) -> pb.Job | None:
        """None while it cannot be asked."""
        return _ask(lambda: self._stub.GetJob(pb.GetJobRequest(name=f"jobs/{name}"), timeout=ONCE_S).job)

    def rest(self, name: str, size: int, after: int) -> Rest | str:
        """The job at rest in a later round than that; else what is missing for it."""
        return _ask(lambda: self._rest(f"jobs/{name}", size, after)) or "the coordinator does not answer"

    def _rest(self, name: str, size: int, after: int) -> Rest | str:
        answer: pb.GetJobResponse = self._stub.GetJob(pb.GetJobRequest(name=name), timeout=ONCE_S)
        job = answer.job
        if job.state != types_pb2.JOB_STATE_RUNNING or job.participant_count != size or job.round <= after:
            return f"round {job.round}, {job.participant_count} nodes: {job.message}"
        nodes = self._pages(self._stub.ListNodes, pb.ListNodesRequest(parent=name), "nodes")
        attached = {node.name for node in nodes if node.attached and not node.suspect}
        if len(attached) != size:
            return f"attached are {sorted(attached)}"
        workers = self._pages(self._stub.ListWorkers, pb.ListWorkersRequest(parent=name), "workers")
        if not all(worker.pid for worker in workers):
            return "not every worker's pid is known"
        if any((worker.round, worker.state) != (job.round, types_pb2.WORKER_STATE_HEALTHY) for worker in workers):
            return "not all workers run"
        return Rest(
            uid=job.uid,
            round=job.round,
            restart_count=job.restart_count,
            pids={worker.rank: worker.pid for worker in workers},
            nodes={worker.rank: worker.node for worker in workers},
            ended=tuple(Ended(change.round, change.cause, change.restart_spent) for change in answer.round_changes),
        )

    def _pages(self, method: Any, request: Any, field: str) -> list[Any]:
        found: list[Any] = []
        while True:
            answer = method(request, timeout=ONCE_S)
            found += getattr(answer, field)
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    def restart(self, job: str) -> None:
        self._request(self._stub.RestartJob, pb.RestartJobRequest(name=f"jobs/{job}"))

    def drain(self, job: str, node: str) -> None:
        self._request(self._stub.DrainNode, pb.DrainNodeRequest(name=f"jobs/{job}/nodes/{node}"))

    def cancel(self, job: str) -> None:
        self._request(self._stub.CancelJob, pb.CancelJobRequest(name=f"jobs/{job}"))

    def _request(self, method: Any, request: Any) -> None:
        with self.heard:
            method(request, timeout=PATIENCE_S, wait_for_ready=True)


def _ask(question: Callable[[], T]) -> T | None:
    try:
        return question()
    except grpc.RpcError:
        return None
