"""The parts of the fleet that measure nothing: its HTTP/2, its milestones, its figures as JSON, its rows."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from rallypoint.model import JobSpec
from scoreboard.figures import WithinFloor
from scoreboard.fleet.agents import Agent, Fleet
from scoreboard.fleet.figures import EchoFigures, FleetFigures, Join, Restart, Return, Steady
from scoreboard.fleet.grpc_stream import GrpcStream, opening
from scoreboard.fleet.milestones import Latencies, Milestone
from scoreboard.fleet.pacing import Pacer
from scoreboard.fleet.plain import plain, read
from scoreboard.fleet.rows import restart_rows, steady_rows, storm_rows

PATH = "/scoreboard.Test/Talk"
LARGE = 300_000
"""More than a stream may send before it is allowed more."""


class _Talk(grpc.GenericRpcHandler):
    """Says what it hears, until it hears "end" or "refuse"."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        assert getattr(handler_call_details, "method", "") == PATH
        return grpc.stream_stream_rpc_method_handler(self._talk)

    async def _talk(self, requests: object, context: Any) -> None:
        while (message := await context.read()) not in (b"end", grpc.aio.EOF):
            if message == b"refuse":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
            await context.write(message)


class _Heard:
    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.end: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.stream: GrpcStream

    def made(self, port: int) -> GrpcStream:
        return GrpcStream(opening(PATH, f"127.0.0.1:{port}"), self.messages.put_nowait, self.end.set_result)


@asynccontextmanager
async def talking() -> AsyncIterator[_Heard]:
    """One of our streams to a server of gRPC's own."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_Talk(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    heard = _Heard()
    _, heard.stream = await asyncio.get_running_loop().create_connection(lambda: heard.made(port), "127.0.0.1", port)
    try:
        yield heard
    finally:
        heard.stream.abort()
        await server.stop(None)


async def test_a_stream_is_understood_by_grpc() -> None:
    async with talking() as heard:
        for message in (b"one", b"", b"three"):
            heard.stream.send(message)
        assert [await heard.messages.get() for _ in range(3)] == [b"one", b"", b"three"]


async def test_messages_may_be_longer_than_frames_and_windows() -> None:
    async with talking() as heard:
        large = bytes(range(250)) * (LARGE // 250)
        heard.stream.send(large)
        heard.stream.send(b"after it")
        assert await heard.messages.get() == large
        assert await heard.messages.get() == b"after it"


@pytest.mark.parametrize("word", [b"end", b"refuse"])
async def test_a_stream_that_the_server_ends_has_ended_once(word: bytes) -> None:
    async with talking() as heard:
        heard.stream.send(word)
        assert await heard.end
        heard.stream.abort()


async def test_a_connection_that_breaks_ends_the_stream() -> None:
    heard = _Heard()
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        await asyncio.get_running_loop().create_connection(lambda: heard.made(port), "127.0.0.1", port)
        assert await heard.end == b""


async def test_a_milestone_is_reached_by_the_last() -> None:
    milestone = Milestone("there", 2)
    milestone.passed()
    with pytest.raises(RuntimeError, match=r"there: 1 of 2 after 0 s"):
        await milestone.reached(0)
    milestone.passed()
    milestone.passed()
    assert await milestone.reached(1) == milestone.times[1]
    assert len(milestone.times) == 2


def test_latencies() -> None:
    latencies = Latencies.of([*range(100, 0, -1)], lasted_s=4)
    assert latencies == Latencies(per_s=25.0, p50=51, p99=100, longest=100)
    with pytest.raises(ValueError, match="nothing"):
        Latencies.of([], lasted_s=1)


async def test_a_pacer_does_all_in_turn() -> None:
    done: list[int] = []
    pacer = Pacer([lambda number=number: done.append(number) for number in range(10)], rate=1e9)  # type: ignore[misc]
    while len(done) < 20:
        await pacer.go_on(0.0001)
    assert sorted(done[:10]) == list(range(10))
    assert done[:10] == done[10:20]


def _window(cores: float) -> Steady:
    return Steady(cores, 0.1, 100.0, Latencies(2_000.0, 0.001, 0.002, 0.003))


FLOOR = EchoFigures(45.0, Join(4.0, 4.0, 3.0), [_window(0.2)], [0.5])
OURS = FleetFigures(
    50.0, Join(7.0, 7.5, 6.0), [_window(0.3)], [Restart(0.7, 1.2, 2.0, 1.5)], [Return(0.5, 8.0, 6.0)], 21, 12
)


def test_figures_come_back_from_json() -> None:
    assert read(FleetFigures, json.loads(json.dumps(plain(OURS)))) == OURS
    assert read(EchoFigures, json.loads(json.dumps(plain(FLOOR)))) == FLOOR


def test_rows_hold_each_figure_against_its_own_floor() -> None:
    rows = [*steady_rows(10, [FLOOR], [OURS]), *storm_rows(10, [OURS]), *restart_rows(10, [FLOOR], [OURS])]
    floors = {row.figure: row.floor_ratio for row in rows if any(isinstance(t, WithinFloor) for t in row.targets)}
    assert floors == {
        "2 heartbeats/s of 10 agents: CPU": pytest.approx(1.5),
        "10 agents attached: memory": pytest.approx(1.0),
        "worker fails to the stop at the last of 10 agents": pytest.approx(1.4),
        "last stopped to the new round at the last of 10 agents": pytest.approx(2.4),
    }


def test_streams_that_ended_beside_the_kills_are_told() -> None:
    joined, _ = storm_rows(10, [OURS])
    assert joined.note == "2 streams ended but for the SIGKILLs"


async def test_agent_whose_life_is_cancelled_leaves_no_connection() -> None:
    """Of ten thousand that would be left in each of several jobs this process has no files for."""
    came, went = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        with contextlib.suppress(ConnectionError):  # it is broken off
            await reader.read()
        went.set()
        writer.close()

    async with asyncio.timeout(20), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        life = asyncio.create_task(Agent(Fleet("127.0.0.1", port, JobSpec(min_nodes=1, max_nodes=1)), 0, "job").live())
        await came.wait()
        life.cancel()
        await went.wait()
