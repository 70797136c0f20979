"""A coordinator in this process, on loopback, and an agent that speaks to it with nothing but the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest

from rallypoint import wire
from rallypoint.errors import Refusal
from rallypoint.model import (
    NO_VERSION,
    AgentPhase,
    Assignment,
    Capability,
    ClockReading,
    Directive,
    Endpoint,
    EndpointOffer,
    Hello,
    Hold,
    JobSpec,
    NodeSpec,
    Observed,
    Run,
    Version,
    Welcome,
)
from rallypoint.rpc_status import refusal_from_rpc_error
from rallypoint.security.client import NO_SECURITY, ClientSecurity, open_aio_channel
from rallypoint.v1 import agent_service_pb2
from rallypoint.v1.agent_service_pb2_grpc import AgentServiceStub
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from rallypoint_coordinator.server.options import Address
from rallypoint_coordinator.server.server import Server
from rallypoint_coordinator.store.journal import Journal
from rallypoint_coordinator.store.memory import MemoryJournal

TIMEOUT_S = 20.0
BEAT_S = 0.25
SPEC = JobSpec(min_nodes=2, max_nodes=2, last_call_timeout_ms=0, lease_ttl_ms=60_000)

M = TypeVar("M", bound=wire.CoordinatorMessage)


@dataclass
class Coordinator:
    """A running server and a channel to it."""

    server: Server
    address: Address
    channel: grpc.aio.Channel

    @property
    def jobs(self) -> Any:
        return JobServiceStub(self.channel)

    @property
    def agents(self) -> Any:
        return AgentServiceStub(self.channel)


@asynccontextmanager
async def running_coordinator(
    journal: Journal | None = None, server: Server | None = None, security: ClientSecurity = NO_SECURITY
) -> AsyncIterator[Coordinator]:
    server = server or Server(journal or MemoryJournal())
    address = await server.start(Address("127.0.0.1", 0))
    try:
        async with open_aio_channel(str(address), security) as channel:
            yield Coordinator(server, address, channel)
    finally:
        await server.stop()


def ready(round_number: int = -1, *, offer_id: int = 1, version: Version = NO_VERSION) -> Observed:
    """What an agent without workers says, with a port to meet at."""
    endpoint = Endpoint("127.0.0.1", 40_000 + offer_id)
    return Observed(
        phase=AgentPhase.READY, round=round_number, version=version, offer=EndpointOffer(offer_id, endpoint)
    )


def hello(node: str = "node-a", **changes: Any) -> Hello:
    usual = Hello(
        job="train",
        node=node,
        incarnation=f"incarnation-of-{node}",
        attach_seq=1,
        job_spec=SPEC,
        node_spec=NodeSpec(local_world_size=2),
        observed=ready(),
        capabilities=frozenset(Capability),
        agent_version="test-agent/1",
    )
    return replace(usual, **changes)


@dataclass
class WireAgent:
    """One stream of an agent. Nothing is done by itself: each message is the test's."""

    coordinator: Coordinator
    lease_id: int = 0
    seq: int = 0
    version: Version = NO_VERSION
    metadata: tuple[tuple[str, str], ...] = ()
    _call: Any = field(init=False)
    _welcome_says: Directive | None = None
    """What the Welcome that was received last directs, as long as nothing was received since."""

    def __post_init__(self) -> None:
        self._call = self.coordinator.agents.Attach(timeout=TIMEOUT_S, metadata=self.metadata)

    async def send(self, message: wire.AgentMessage, clock: ClockReading | None = None, **changes: Any) -> None:
        """Send the next message; changes are to the AttachRequest around it."""
        self.seq += 1
        request = wire.attach_request_to_proto(message, lease_id=self.lease_id, seq=self.seq, clock=clock)
        for name, value in changes.items():
            setattr(request, name, value)
        await self.send_raw(request)

    async def send_raw(self, request: agent_service_pb2.AttachRequest) -> None:
        await unless_over(self._call, self._call.write(request))

    async def receive(self, kind: type[M]) -> M:
        """The next message of a kind; others are passed over, as whoever wants the newest state does.

        The directive in a Welcome comes right after it.
        """
        said, self._welcome_says = self._welcome_says, None
        if isinstance(said, kind):
            return said
        while True:
            response = await self._call.read()
            assert response is not grpc.aio.EOF, f"the stream ended: {await self._call.code()}"
            message = wire.attach_response_from_proto(response)
            if isinstance(message, Directive):
                self.version = message.version
            if isinstance(message, Welcome):
                self.version, self._welcome_says = message.directive.version, message.directive
            if isinstance(message, kind):
                return message

    async def attach(self, first: Hello | None = None) -> Welcome:
        await self.send(first or hello())
        welcome = await self.receive(Welcome)
        self.lease_id = welcome.lease_id
        return welcome

    async def hold(self) -> Directive:
        """The next directive, which says hold."""
        directive = await self.receive(Directive)
        assert isinstance(directive.action, Hold), directive
        return directive

    async def run(self) -> Assignment:
        """The assignment of the next directive that says run."""
        while True:
            directive = await self.receive(Directive)
            if isinstance(directive.action, Run):
                return directive.action.assignment

    async def acked(self, seq: int) -> None:
        """Read until this message is acknowledged: by itself, or with a heartbeat that follows."""
        while True:
            reading = asyncio.ensure_future(self.receive(wire.Ack))
            while not (await asyncio.wait({reading}, timeout=BEAT_S))[0]:
                await self.send(wire.Heartbeat(self.version))
            if (await reading).seq >= seq:
                return

    async def end(self) -> grpc.StatusCode:
        """Read until the stream ends; its status."""
        try:
            while await self._call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error.code()
        code: grpc.StatusCode = await self._call.code()
        return code

    async def refusal(self) -> Refusal:
        """Read until the stream ends, with a refusal."""

        async def read_to_the_end() -> None:
            while await self._call.read() is not grpc.aio.EOF:
                pass

        return await refusal_of(read_to_the_end())

    async def done_writing(self) -> None:
        await self._call.done_writing()

    def cancel(self) -> None:
        self._call.cancel()


async def unless_over(call: Any, writing: Coroutine[Any, Any, None]) -> None:
    """Write to a call for as long as it lasts; its end is for the reader to learn.

    In grpc.aio, a write that fails puts INTERNAL in the place of the status that has ended the call.
    """
    task = asyncio.create_task(writing)
    call.add_done_callback(lambda _: task.cancel())
    await asyncio.wait([task])
    failed = None if task.cancelled() else task.exception()
    if failed is not None and not call.done():
        raise failed


async def refusal_of(call: Awaitable[object]) -> Refusal:
    """The refusal that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    refusal = refusal_from_rpc_error(caught.value)
    assert refusal is not None, caught.value
    assert refusal.code == caught.value.code().name
    return refusal
