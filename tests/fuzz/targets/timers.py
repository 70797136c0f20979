"""The watchdog's pipe: what anybody who may open it writes, with three workers alive.

An input is steps: something is written, a pass is made, time goes on. Nobody is condemned whose own number nobody
wrote, no pass fails, and in the end a timer of the worker that was not spoken of still expires, alone.
"""

from __future__ import annotations

import functools
import json
import os
from random import Random
from typing import Any
from unittest.mock import patch

from fuzz.folder import folder
from fuzz.mutate import WORDS, mutated
from fuzz.script import Step, pack, unpack
from fuzz.target import Target, demand
from rallypoint_agent import file_timer
from rallypoint_agent.file_timer import FileTimerServer
from rallypoint_agent.file_timer_table import TIMERS_PER_WORKER_MAX, Timer

_FIRST_PID = 5_000_001  # above what the kernel gives: nobody is there
_PIDS = {rank: _FIRST_PID + rank for rank in range(3)}
_BYSTANDER = 2
_WRITE, _LOOK, _WAIT = range(3)
_PASSES_MAX = 200
_WALL_S = 1_700_000_000.0


class _Clocks:
    """Those that the watchdog reads. Each look at the first one takes 100 ms, which is longer than its pauses."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def boot_ns(self) -> int:
        self.now_ns += 10**8
        return self.now_ns

    def time(self) -> float:
        return _WALL_S + (self.now_ns - 10**12) / 10**9


@functools.cache
def _server() -> FileTimerServer:
    return FileTimerServer(str(folder() / "timer"), 30)


def check(data: bytes) -> None:
    clocks: Any = _Clocks()
    with patch.object(file_timer, "boot_ns", clocks.boot_ns), patch.object(file_timer, "time", clocks):
        server = _server()
        server.await_workers()
        server.set_workers(_PIDS, 0)
        _Bench(server, clocks).run(data)


class _Bench:
    def __init__(self, server: FileTimerServer, clocks: _Clocks) -> None:
        self._server = server
        self._clocks = clocks
        self._written = bytearray()

    def run(self, data: bytes) -> None:
        for step in unpack(data):
            kind = step.kind % 3
            if kind == _WRITE:
                self._write(step.data)
            elif kind == _WAIT:
                self._clocks.now_ns += int.from_bytes(step.data[:2], "big") * 10**6
            for timer in self._server.look():
                self._judge(timer)
        self._drain()
        self._the_bystander_is_watched()

    def _write(self, data: bytes) -> None:
        """As much of it as the pipe takes at once."""
        fd = os.open(self._server.file_path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            self._written += data[: os.write(fd, data)] if data else b""
        except BlockingIOError:
            pass
        finally:
            os.close(fd)

    def _judge(self, timer: Timer) -> None:
        """Who is condemned has been named, in whichever of JSON's encodings."""
        pid = str(_PIDS[timer.local_rank]).encode()
        demand(pid in self._written.replace(b"\0", b""), f"rank {timer.local_rank} is condemned, and nobody named it")
        demand(0 <= timer.request.signal <= 64, f"signal {timer.request.signal}")
        timer.request.scope_id.encode()

    def _drain(self) -> None:
        for _ in range(_PASSES_MAX):
            for timer in self._server.look():
                self._judge(timer)
            if not self._server._backlog and not file_timer._bytes_in(self._server._pipe):
                break
        status = self._server.status
        demand(status.live_timers <= len(_PIDS) * TIMERS_PER_WORKER_MAX, f"{status.live_timers} timers")
        status.last_expiry.encode()

    def _the_bystander_is_watched(self) -> None:
        pid = _PIDS[_BYSTANDER]
        if str(pid).encode() in self._written.replace(b"\0", b""):
            return
        self._write(b"\n" + _line(pid, "the last", self._clocks.time() - 1))
        expired = self._server.look()
        found = [timer.request.scope_id for timer in expired if timer.local_rank == _BYSTANDER]
        demand(found == ["the last"], f"the watchdog does not see its timer expire: {expired}")


def _line(pid: int, scope: str, at: float, signal: int = 9) -> bytes:
    request = {"version": 1, "pid": pid, "scope_id": scope, "expiration_time": at, "signal": signal}
    return json.dumps(request).encode() + b"\n"


_LINES = [
    *(_line(pid, "step", _WALL_S + after_s) for pid in list(_PIDS.values())[:2] for after_s in (-1, 5, 10**9)),
    _line(_PIDS[0], "step", -1, 0),
    _line(_PIDS[1], "é\ud800", _WALL_S, 15),
    _line(os.getpid(), "mine", _WALL_S),
    _line(1, "init's", _WALL_S),
    _line(_PIDS[0], "x" * 4000, _WALL_S),
    json.dumps({"pid": _PIDS[0], "scope_id": "a", "expiration_time": 1.0, "signal": 9}).encode("utf-16"),
]


def generate(rng: Random) -> bytes:
    return pack(_step(rng) for _ in range(rng.choice((1, 2, 4, 8, 16))))


def _step(rng: Random) -> Step:
    if rng.random() < 0.2:
        return Step(_WAIT, rng.choice((0, 10, 5_000, 65_535)).to_bytes(2, "big"))
    lines = b"".join(rng.choice(_LINES) for _ in range(rng.choice((1, 1, 2, 5))))
    data = lines if rng.random() < 0.2 else mutated(rng, [lines, *_LINES], WORDS)
    return Step(_WRITE, data[:65535])


TARGET = Target(check=check, generate=generate)
