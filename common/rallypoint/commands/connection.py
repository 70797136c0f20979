"""The way to a coordinator: the first endpoint that answers, our credentials with each call, whole lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Self, TypeVar

import grpc

from rallypoint.endpoints import target
from rallypoint.security.client import ClientSecurity, call_metadata, open_channel
from rallypoint.v1.cluster_service_pb2_grpc import ClusterServiceStub
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub

PAGE_SIZE = 1000
"""As many as the coordinator gives at once."""

_PROBE_TIMEOUT_S = 5.0

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    # A coordinator whose machine is gone says nothing: who follows something would not notice.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class _ListRequest(Protocol):
    page_size: int
    page_token: str


class _ListResponse(Protocol):
    next_page_token: str

    def MergeFrom(self, other: Self, /) -> None: ...


Request = TypeVar("Request")
Answer = TypeVar("Answer")
Listed = TypeVar("Listed", bound=_ListResponse)
Listing = TypeVar("Listing", bound=_ListRequest)


class Connection:
    """A channel to the coordinator at ``target``. Every call raises grpc.RpcError, and CredentialsError."""

    def __init__(self, target: str, channel: grpc.Channel, security: ClientSecurity, timeout_s: float) -> None:
        self.target = target
        self.security = security
        self.timeout_s = timeout_s
        self.jobs = JobServiceStub(channel)
        self.cluster = ClusterServiceStub(channel)

    def ask(self, method: grpc.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        """One call, with one answer. ``method``: of :attr:`jobs` or :attr:`cluster`."""
        return method(request, timeout=self.timeout_s, metadata=call_metadata(self.security))

    def follow(self, method: grpc.UnaryStreamMultiCallable[Request, Answer], request: Request) -> Iterator[Answer]:
        """One call, with answers for as long as it lasts."""
        return iter(method(request, metadata=call_metadata(self.security)))

    def ask_all(self, method: grpc.UnaryUnaryMultiCallable[Listing, Listed], request: Listing) -> Listed:
        """All pages of a list, as if they had come as one."""
        request.page_size = PAGE_SIZE
        whole = self.ask(method, request)
        while whole.next_page_token:
            request.page_token, whole.next_page_token = whole.next_page_token, ""
            whole.MergeFrom(self.ask(method, request))
        return whole


@contextmanager
def connect(endpoints: Sequence[tuple[str, int]], security: ClientSecurity, timeout_s: float) -> Iterator[Connection]:
    """The first coordinator that answers; the last endpoint is believed to be one. Raises CredentialsError."""
    name, channel = _open_first(list(map(target, endpoints)), security, timeout_s)
    with channel:
        yield Connection(name, channel, security, timeout_s)


def _open_first(names: list[str], security: ClientSecurity, timeout_s: float) -> tuple[str, grpc.Channel]:
    for name in names[:-1]:
        channel = open_channel(name, security, _OPTIONS)
        if _answers(channel, min(timeout_s, _PROBE_TIMEOUT_S)):
            return name, channel
        channel.close()
    return names[-1], open_channel(names[-1], security, _OPTIONS)


def _answers(channel: grpc.Channel, timeout_s: float) -> bool:
    """Its health may be asked by everybody, and asking twice does no harm."""
    from grpc_health.v1.health_pb2 import HealthCheckRequest
    from grpc_health.v1.health_pb2_grpc import HealthStub

    stub: Any = HealthStub(channel)
    try:
        stub.Check(HealthCheckRequest(), timeout=timeout_s)
    except grpc.RpcError as error:
        return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return True
