"""What the bare echo server makes of as many streams as the coordinator is given, with the same generator."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scoreboard.fleet.echo_server import ALL, PATH
from scoreboard.fleet.figures import EchoFigures, Join, Plan
from scoreboard.fleet.grpc_stream import GrpcStream, opening
from scoreboard.fleet.milestones import Milestone
from scoreboard.fleet.pacing import Pacer, steady
from scoreboard.fleet.servers import SERVER_CORES, cpu_s, on_cores, rss_mib
from support.cluster import Process

MESSAGE = b"m" * 96
"""As long as a heartbeat with all that gRPC adds to it."""
COMMAND = ALL + b"c" * 199
"""As long as a directive."""
PATIENCE_S = 60.0


class _Client:
    """One stream, with at most one message whose echo is waited for."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._sent_s: float | None = None
        self.stream: GrpcStream

    async def connect(self, number: int, port: int) -> None:
        address = f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        head = opening(PATH, f"127.0.0.1:{port}")
        _, self.stream = await asyncio.get_running_loop().create_connection(
            lambda: GrpcStream(head, self._take, self._end), "127.0.0.1", port, local_addr=(address, 0)
        )
        self.beat()

    def beat(self) -> None:
        if self._sent_s is None:
            self._sent_s = time.perf_counter()
        self.stream.send(MESSAGE)

    def _take(self, message: bytes) -> None:
        if message.startswith(ALL):
            self._streams.told.passed()
            return
        if self._sent_s is not None:
            self._streams.latencies.append(time.perf_counter() - self._sent_s)
            self._sent_s = None
        self._streams.joined.passed()

    def _end(self, trailers: bytes) -> None:
        self._streams.ends += 1


class Streams:
    """All of them, and what they note."""

    def __init__(self, count: int) -> None:
        self.joined = Milestone("echo streams", count)
        self.told = Milestone("told", count)
        self.latencies: list[float] = []
        self.ends = 0
        self.clients = [_Client(self) for _ in range(count)]


async def measure(folder: Path, count: int, *, rate: float, plan: Plan) -> EchoFigures:
    """Let so many streams join, echo so many messages a second for a while, and tell all streams one thing."""
    with _server(folder) as (pid, port):
        idle_mib = rss_mib(pid)
        streams = Streams(count)
        began, cpu = time.perf_counter(), cpu_s(pid)
        await asyncio.gather(*(client.connect(number, port) for number, client in enumerate(streams.clients)))
        joined_s = await streams.joined.reached(PATIENCE_S) - began
        joined = Join(joined_s, joined_s, cpu_s(pid) - cpu)
        gc.collect()
        gc.freeze()
        pacer = Pacer([client.beat for client in streams.clients], rate)
        windows = [await steady(pacer, plan.window_s, pid, streams.latencies) for _ in range(plan.windows)]
        fan_outs = [await _fan_out(streams, count) for _ in range(plan.tellings)]
        if streams.ends:
            raise RuntimeError(f"{streams.ends} echo streams ended")
        return EchoFigures(idle_mib, joined, windows, fan_outs)


async def _fan_out(streams: Streams, count: int) -> float:
    """Seconds until the last stream has it."""
    streams.told = Milestone("told", count)
    began = time.perf_counter()
    streams.clients[0].stream.send(COMMAND)
    return await streams.told.reached(PATIENCE_S) - began


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[tuple[int, int]]:
    with on_cores(SERVER_CORES):
        process = Process("echo", [sys.executable, "-m", "scoreboard.fleet.echo_server"], folder, dict(os.environ))
    try:
        yield process.pid, int(process.wait_for(r"listening on \S+:(\d+)\n").group(1))
    finally:
        process.popen.kill()
        process.popen.wait()
