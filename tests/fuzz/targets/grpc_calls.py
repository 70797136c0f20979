"""A real server on loopback: any bytes as the request of any method, with any credentials and headers.

An input is whose credentials are shown, and steps: the method, and the messages of its call. Each call ends with OK or
a status that says what to do, the server logs no error, and a client that knows how is answered afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Iterator
from random import Random
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from fuzz.coordinator import Errors, FixedTokens
from fuzz.messages import changed
from fuzz.mutate import WORDS, mutated
from fuzz.script import Step, pack, unpack
from fuzz.target import Target, demand, is_a_sentence
from rallypoint import wire
from rallypoint.rpc_status import DETAILS_KEY, from_status
from rallypoint.v1 import agent_service_pb2, cluster_service_pb2, types_pb2
from rallypoint.v1 import job_service_pb2 as jobs_pb
from rallypoint_coordinator.security.policy import POLICY, Role
from rallypoint_coordinator.security.tokens import Grant, Table, digest
from rallypoint_coordinator.server.guard import Guard
from rallypoint_coordinator.server.options import Address
from rallypoint_coordinator.server.server import Server
from rallypoint_coordinator.store.memory import MemoryJournal
from support.tokens import token
from support.wire_client import hello

_GRANTS = (Grant("all", frozenset(Role)), Grant("train", frozenset(Role), "train"))
_TABLE = Table({digest(token(number)): grant for number, grant in enumerate(_GRANTS)})
_SHOWN = (*(f"Bearer {token(number)}" for number in (0, 0, 1, 7)), None, "Basic x", "Bearer")
_LATER = (
    "/rallypoint.v1.ClusterService/GetCluster",
    *(f"/rallypoint.v1.JobService/{name}" for name in ("UpdateJob", "HoldJob", "ReleaseJob")),
)
_METHODS = (*sorted(POLICY.keys() - set(_LATER)), *_LATER)
"""A step has the number of its own: new ones come last, so that the kept cases mean what they meant."""

_PATIENCE_S = 10.0
_ANSWERS_MAX = 20
_NEVER_ENDS = ("/grpc.health.v1.Health/Watch", "/rallypoint.v1.JobService/WatchJob")

_FORBIDDEN = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
_CLIENTS_OWN = "Internal error from Core"
"""What grpcio's client says if the server has ended a call that it still writes to (grpc/grpc#36066)."""

_OURS = "/rallypoint."


def check(data: bytes) -> None:
    loop, site = _site()
    loop.run_until_complete(site.play(data))


@functools.cache
def _site() -> tuple[asyncio.AbstractEventLoop, _Site]:
    loop = asyncio.new_event_loop()
    return loop, loop.run_until_complete(_Site.start())


@contextlib.contextmanager
def _errors() -> Iterator[Errors]:
    """What gRPC and the coordinator log meanwhile."""
    errors, loggers = Errors(), [logging.getLogger(name) for name in ("rallypoint_coordinator", "grpc", "asyncio")]
    for logger in loggers:
        logger.addHandler(errors)
    try:
        yield errors
    finally:
        for logger in loggers:
            logger.removeHandler(errors)


class _Site:
    """The server and a channel to it, for all inputs of this process."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self._server = server
        self._channel = channel

    @classmethod
    async def start(cls) -> _Site:
        server = Server(MemoryJournal(), guard=Guard(FixedTokens(_TABLE)))  # type: ignore[arg-type]
        address = await server.start(Address("127.0.0.1", 0))
        return cls(server, grpc.aio.insecure_channel(str(address)))

    async def play(self, data: bytes) -> None:
        with _errors() as errors:
            await self._play(data)
        errors.judge()

    async def _play(self, data: bytes) -> None:
        shown = _SHOWN[data[0] % len(_SHOWN)] if data else None
        for step in unpack(data[1:]):
            await self._call(_METHODS[step.kind % len(_METHODS)], shown, [part.data for part in unpack(step.data)])
        call: Any = self._channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = await call(b"", timeout=_PATIENCE_S)
        demand(answer == b"\x08\x01", f"a client that asks for the server's health is told {answer!r}")

    async def _call(self, method: str, shown: str | None, messages: list[bytes]) -> None:
        metadata = (("authorization", shown),) if shown is not None else ()
        call: Any = self._channel.stream_stream(method)(timeout=_PATIENCE_S, metadata=metadata)
        try:
            for message in messages:
                await call.write(message)
            await call.done_writing()
            for _ in range(1 if method in _NEVER_ENDS else _ANSWERS_MAX):
                if await call.read() is grpc.aio.EOF:
                    break
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # The status tells.
        if not call.done():
            call.cancel()
            return
        await _judge(call, method)


async def _judge(call: Any, method: str) -> None:
    code = await call.code()
    details = await call.details()
    if code is grpc.StatusCode.OK or details == _CLIENTS_OWN:
        return
    demand(code not in _FORBIDDEN, f"{method} ends with {code.name}: {details}")
    demand(code is not grpc.StatusCode.DEADLINE_EXCEEDED, f"{method} does not end")
    if method.startswith(_OURS):
        is_a_sentence(details, "a refusal")
        found = [value for key, value in await call.trailing_metadata() if key == DETAILS_KEY]
        refusal = from_status(Status.FromString(found[0])) if found else None
        demand(refusal is not None, f"{method} ends with {code.name} and no ErrorInfo: {details}")


@functools.cache
def _requests() -> dict[str, Message]:
    """What is sent, by the method's last name."""
    name, node = "jobs/train", "jobs/train/nodes/node-a"
    return {
        "Attach": wire.attach_request_to_proto(hello(), lease_id=0, seq=1, clock=None),
        "ReportGone": agent_service_pb2.ReportGoneRequest(job="train", job_uid="u", lease_id=3, incarnation="i"),
        "GetCluster": cluster_service_pb2.GetClusterRequest(),
        "GetJob": jobs_pb.GetJobRequest(name=name),
        "ListJobs": jobs_pb.ListJobsRequest(page_size=2, states=[types_pb2.JOB_STATE_RUNNING]),
        "ListNodes": jobs_pb.ListNodesRequest(parent=name),
        "ListWorkers": jobs_pb.ListWorkersRequest(parent=name),
        "ListJobEvents": jobs_pb.ListJobEventsRequest(parent=name),
        "WatchJob": jobs_pb.WatchJobRequest(name=name),
        "CancelJob": jobs_pb.CancelJobRequest(name=name),
        "RestartJob": jobs_pb.RestartJobRequest(name=name),
        "DrainNode": jobs_pb.DrainNodeRequest(name=node),
        "UpdateJob": jobs_pb.UpdateJobRequest(job=jobs_pb.Job(name=name, labels={"team": "vision"}, etag="e")),
        "HoldJob": jobs_pb.HoldJobRequest(name=name, reason="for now"),
        "ReleaseJob": jobs_pb.ReleaseJobRequest(name=name),
        "Check": HealthCheckRequest(service="rallypoint.v1.JobService"),
        "Watch": HealthCheckRequest(service="rallypoint.v1.JobService"),
        "List": HealthCheckRequest(),
        "ServerReflectionInfo": ServerReflectionRequest(file_containing_symbol="rallypoint.v1.JobService"),
    }


def generate(rng: Random) -> bytes:
    steps = (_step(rng) for _ in range(rng.choice((1, 2, 3))))
    return bytes([rng.randrange(len(_SHOWN))]) + pack(steps)


def _step(rng: Random) -> Step:
    number = rng.randrange(len(_METHODS))
    request = _requests()[_METHODS[number].rpartition("/")[2]]
    count = rng.choice((0, 1, 1, 1, 1, 2))
    return Step(number, pack(Step(0, _message(rng, request)) for _ in range(count))[:65535])


def _message(rng: Random, request: Message) -> bytes:
    if rng.random() < 0.3:
        return mutated(rng, [request.SerializeToString()], WORDS)[:30_000]
    return changed(rng, request)[:30_000]


TARGET = Target(check=check, generate=generate)
