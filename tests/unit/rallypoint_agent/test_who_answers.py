from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import Endpoint
from rallypoint.rpc_status import DETAILS_KEY, to_status
from rallypoint.v1 import job_service_pb2, job_service_pb2_grpc
from rallypoint_agent.who_answers import Answer, who_answers


@contextmanager
def server(*servicers: job_service_pb2_grpc.JobServiceServicer) -> Iterator[Endpoint]:
    with ThreadPoolExecutor(1) as pool:
        serving = grpc.server(pool)
        for servicer in servicers:
            job_service_pb2_grpc.add_JobServiceServicer_to_server(servicer, serving)
        port = serving.add_insecure_port("127.0.0.1:0")
        serving.start()
        try:
            yield Endpoint("127.0.0.1", port)
        finally:
            serving.stop(None).wait()


class Jobs(job_service_pb2_grpc.JobServiceServicer):
    """Answers as a coordinator does, or refuses."""

    def __init__(self, reason: Reason | None = None) -> None:
        self.reason = reason

    def ListJobs(
        self, request: job_service_pb2.ListJobsRequest, context: grpc.ServicerContext
    ) -> job_service_pb2.ListJobsResponse:
        if self.reason is not None:
            refusal = Refusal(reason=self.reason, message="not now")
            context.set_trailing_metadata(((DETAILS_KEY, to_status(refusal).SerializeToString()),))
            context.abort(grpc.StatusCode[refusal.code], refusal.message)
        return job_service_pb2.ListJobsResponse()


@contextmanager
def listener(handle: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    """Gives each connection to ``handle``."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    handle(listening.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint(*listening.getsockname())
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def nobody() -> Iterator[Endpoint]:
    """A port that is taken, at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield Endpoint(*held.getsockname())


def test_nobody(nobody: Endpoint) -> None:
    assert who_answers([nobody]) is Answer.NOBODY
    assert who_answers([Endpoint("no-such-host.invalid", 1)]) is Answer.NOBODY


@pytest.mark.parametrize("reason", [None, Reason.RECOVERING])
def test_a_coordinator(reason: Reason | None, nobody: Endpoint) -> None:
    with server(Jobs(reason)) as endpoint:  # type: ignore[abstract]
        assert who_answers([nobody, endpoint]) is Answer.COORDINATOR


def test_one_that_ends_is_none() -> None:
    with server(Jobs(Reason.SHUTTING_DOWN)) as endpoint:  # type: ignore[abstract]
        assert who_answers([endpoint]) is Answer.HANGS_UP


def test_another_service_of_grpc() -> None:
    with server() as endpoint:
        assert who_answers([endpoint]) is Answer.STRANGER


def test_what_hangs_up() -> None:
    with listener(socket.socket.close) as endpoint:
        assert who_answers([endpoint]) is Answer.HANGS_UP


def test_what_says_nothing() -> None:
    kept: list[socket.socket] = []
    with listener(kept.append) as endpoint:
        assert who_answers([endpoint]) is Answer.SILENT
    for connection in kept:
        connection.close()
