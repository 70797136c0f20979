"""Who listens at a coordinator's address: nobody, a coordinator, or somebody else."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterable, Iterator
from enum import Enum, auto

from rallypoint.model import Endpoint
from rallypoint_agent import grpc_setup
from rallypoint_agent.link.addresses import Address, resolve

_CONNECT_TIMEOUT_S = 1.0
_CALL_TIMEOUT_S = 2.0


class Answer(Enum):
    NOBODY = auto()
    """No address takes a connection."""
    COORDINATOR = auto()
    """Asked just now: one that was about to end as idle counts anew."""
    HANGS_UP = auto()
    """It takes connections and breaks them off: another protocol, or a coordinator that just comes or goes."""
    SILENT = auto()
    """It takes connections and says nothing: who knows, or a coordinator that reads its journal."""
    STRANGER = auto()
    """It speaks gRPC, and is no coordinator."""


def who_answers(endpoints: Iterable[Endpoint]) -> Answer:
    """Ask each until somebody answers. Blocks: on the resolver, a second for each silent address, two for a call."""
    for endpoint in endpoints:
        if any(map(_takes_connections, _addresses(endpoint))):
            return _ask(endpoint)
    return Answer.NOBODY


def _addresses(endpoint: Endpoint) -> list[Address]:
    try:
        return resolve(endpoint)
    except OSError:
        return []


def _takes_connections(address: Address) -> bool:
    with socket.socket(address.family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        return probe.connect_ex(address.sockaddr) == 0


def _ask(endpoint: Endpoint) -> Answer:
    """Ask for its jobs: any coordinator can say, even that it may not."""
    grpc_setup.prepare_environment()
    # Threads that gRPC starts inherit this: signals are for the main thread.
    with _signals_blocked():
        import grpc

        from rallypoint.errors import Reason
        from rallypoint.rpc_status import refusal_from_rpc_error
        from rallypoint.v1.job_service_pb2 import ListJobsRequest
        from rallypoint.v1.job_service_pb2_grpc import JobServiceStub

        options = grpc_setup.channel_options(use_proxy=False)
        with grpc.insecure_channel(grpc_setup.target(endpoint), options=options) as channel:
            try:
                JobServiceStub(channel).ListJobs(ListJobsRequest(page_size=1), timeout=_CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                if refusal := refusal_from_rpc_error(error):
                    return Answer.HANGS_UP if refusal.reason is Reason.SHUTTING_DOWN else Answer.COORDINATOR
                return _by_code(error.code())
    return Answer.COORDINATOR


def _by_code(code: object) -> Answer:
    import grpc

    if code is grpc.StatusCode.UNAVAILABLE:
        return Answer.HANGS_UP
    return Answer.SILENT if code is grpc.StatusCode.DEADLINE_EXCEEDED else Answer.STRANGER


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    faults = {signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
