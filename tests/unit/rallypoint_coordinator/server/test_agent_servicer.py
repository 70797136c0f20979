from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from rallypoint.model import ClockReading
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.wire import clock_to_proto, hello_to_proto
from rallypoint_coordinator.server.agent_servicer import AgentService
from rallypoint_coordinator.server.outbox import Outbox
from support.wire_client import hello


class FakeDriver:
    """Has one stream, and ends it as soon as it has heard its Hello."""

    stream_count = 1

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.heard: list[object] = []

    def open_stream(self) -> tuple[int, Outbox]:
        return 1, self.outbox

    async def submit(self, event: object) -> None:
        self.heard.append(event)
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self.outbox.end)  # when the reader waits

    def close_stream(self, stream: int) -> None:
        pass


class FakeContext:
    """Its second read is answered by the test."""

    def __init__(self, first: pb.AttachRequest) -> None:
        self._first: pb.AttachRequest | None = first
        self.second: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def write(self, message: bytes) -> None:
        raise AssertionError("nothing is to be said")

    async def read(self) -> object:
        first, self._first = self._first, None
        return first or await self.second


async def ended_while_reading() -> tuple[FakeDriver, FakeContext]:
    first = pb.AttachRequest(seq=1, hello=hello_to_proto(hello()), clock=clock_to_proto(ClockReading(1)))
    driver, context = FakeDriver(), FakeContext(first)
    service: Any = AgentService(driver)  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await service.Attach(None, context)
    await asyncio.sleep(0)
    return driver, context


async def test_a_read_is_not_cancelled_as_its_stream_ends() -> None:
    _, context = await ended_while_reading()
    assert not context.second.cancelled()
    context.second.set_result(grpc.aio.EOF)


async def test_what_comes_after_the_end_of_a_stream_is_not_heard() -> None:
    driver, context = await ended_while_reading()
    context.second.set_result(pb.AttachRequest(seq=2, lease_id=1, heartbeat=pb.Heartbeat()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(driver.heard) == 1
