"""What gRPC completes while the loop is busy is heard in one turn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import grpc
import grpc.aio
import pytest

from rallypoint_coordinator.server import event_loop
from rallypoint_coordinator.server.event_loop import ServerLoop, _takes_completions

WAKES = 5


@pytest.fixture
def loop() -> Iterator[ServerLoop]:
    with asyncio.Runner(loop_factory=ServerLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, ServerLoop)
        yield loop


class Wakes:
    """A socket with some bytes in it, and in which turns of the loop its handler took one, until it is empty."""

    def __init__(self, loop: ServerLoop, stack: ExitStack) -> None:
        self._loop = loop
        self.reader, writer = (stack.enter_context(end) for end in socket.socketpair())
        self.reader.setblocking(False)
        writer.sendall(b"1" * WAKES)
        self.turn = 0
        self.taken_in: list[int] = []

    def _handle_events(self, owner: object) -> None:
        assert owner is self._loop
        self.taken_in.append(self.turn)
        assert self.reader.recv(1) == b"1"

    def count_turn(self) -> None:
        self.turn += 1
        try:
            self.reader.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self._loop.stop()
        else:
            self._loop.call_soon(self.count_turn)


@pytest.mark.parametrize(("named_otherwise", "turns"), [(False, 1), (True, WAKES)])
def test_all_wakes_that_wait_are_answered_at_once(loop: ServerLoop, named_otherwise: bool, turns: int) -> None:
    with ExitStack() as stack:
        wakes = Wakes(loop, stack)

        def handle(owner: object) -> None:
            wakes._handle_events(owner)

        loop.add_reader(wakes.reader, partial(handle if named_otherwise else wakes._handle_events, loop))
        loop.call_soon(wakes.count_turn)
        loop.run_forever()
        loop.remove_reader(wakes.reader)
        assert len(wakes.taken_in) == len(set(wakes.taken_in)) == turns


def test_a_loop_that_takes_the_wakes_of_another_does_not_go_unnoticed(loop: ServerLoop) -> None:
    """What was completed for one of them might never be heard."""
    told: list[object] = []
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
    with ExitStack() as stack:
        wakes = Wakes(loop, stack)
        loop.add_reader(wakes.reader, partial(wakes._handle_events, loop))
        loop.call_soon(wakes.reader.recv, WAKES)
        loop.call_soon(wakes.count_turn)
        loop.run_forever()
        loop.remove_reader(wakes.reader)
    assert told == [BlockingIOError]


def test_what_grpc_registers_is_known_for_what_it_is(loop: ServerLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a grpcio whose handler is named otherwise all works, but every completion takes a turn of the loop."""
    seen: list[bool] = []

    def looked(callback: Callable[..., object]) -> bool:
        seen.append(_takes_completions(callback))
        return seen[-1]

    async def serve() -> None:
        server = grpc.aio.server()
        await server.start()
        await server.stop(None)

    monkeypatch.setattr(event_loop, "_takes_completions", looked)
    loop.run_until_complete(serve())
    assert any(seen)
