"""One start of the coordinator: the real driver on simulated time, its streams, and crashes at any point of a turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import NoReturn, Protocol, TypeVar

from google.rpc.status_pb2 import Status

from rallypoint import wire
from rallypoint.errors import Refusal, RefusedError
from rallypoint.rpc_status import DETAILS_KEY, from_status
from rallypoint.v1.job_service_pb2 import WatchJobRequest
from rallypoint_coordinator.core.events import AgentAttached, StreamClosed
from rallypoint_coordinator.server import outbox as server_outbox
from rallypoint_coordinator.server.driver import Driver, DriverOptions, Query
from rallypoint_coordinator.server.job_servicer import JobService
from rallypoint_coordinator.server.outbox import Outbox
from rallypoint_coordinator.server.server import SHUTTING_DOWN, STREAMS_END_S
from rallypoint_coordinator.store.journal import Bounds
from simulation.disk import Disk
from simulation.journal import SimJournal
from simulation.loop import VirtualLoop, at_once
from simulation.network import Ack, AgentMessage, Call, Closing, Down, LeaseStale, Stream
from simulation.oracles import Oracles
from simulation.watched_cluster import NAME, WatchedCluster
from simulation.world import Chance, Clock, World

MESSAGES_UNTIL_CRASH = (0, 6)

T = TypeVar("T")


class CrashPoint(StrEnum):
    """Where in a turn that decides something the process dies."""

    BEFORE_APPEND = "before the append"
    AFTER_APPEND = "after the append"
    AMID_EFFECTS = "amid the effects"


class Machine(Protocol):
    """What a process has from its machine."""

    disk: Disk
    chance: Chance
    options: DriverOptions
    bounds: Bounds
    starts: int

    def strangers(self) -> int: ...
    def process_accepts(self) -> None: ...
    def process_died(self) -> None: ...


class _WallClock:
    """The driver's two clocks."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self.monotonic_ms = clock.now_ms

    def wall_ms(self) -> int:
        return self._world.wall_ms


class WatchCall(Protocol):
    """The other end of a WatchJob. ``read_ms``: how long it takes over the next message."""

    def read_ms(self) -> int: ...
    def told(self, data: bytes) -> None: ...
    def ended(self, refusal: Refusal | None) -> None: ...
    def broken(self) -> None: ...


class _Refused(Exception):
    """The call has ended with this."""


class _WatchContext:
    """What the servicer has of a call."""

    def __init__(self, loop: VirtualLoop, call: WatchCall) -> None:
        self.refusal: Refusal | None = None
        self._loop = loop
        self._call = call

    async def send_initial_metadata(self, metadata: object) -> None:
        """Nobody asks for them."""

    async def write(self, data: bytes) -> None:
        """Done when the reader has it: nothing is buffered on the way."""
        await self._loop.sleep_ms(self._call.read_ms())
        if not self._loop.is_dead:
            self._call.told(data)

    async def abort(self, code: object, message: str, trailing_metadata: Sequence[tuple[str, bytes]]) -> NoReturn:
        self.refusal = from_status(Status.FromString(dict(trailing_metadata)[DETAILS_KEY]))
        raise _Refused


@dataclass(slots=True)
class _Served:
    """A stream that the driver has, by the driver's own number for it."""

    number: int
    writer: asyncio.Task[None]


class CoordinatorProcess:
    """The network's server."""

    def __init__(self, machine: Machine, world: World, oracles: Oracles) -> None:
        self.crash_point: CrashPoint | None = None
        self._machine = machine
        self._world = world
        self._oracles = oracles
        clock = Clock(world, f"{NAME}/{machine.starts}")
        self._loop = VirtualLoop(world, clock)  # type: ignore[abstract]  # the rest raises, as it should
        self.journal = SimJournal(
            world=world,
            chance=machine.chance,
            loop=self._loop,
            disk=machine.disk,
            bounds=machine.bounds,
            crash=self._crash_in_append,
            appended=self._appended,
        )
        self.cluster = self._new_cluster()
        self._driver = Driver(
            self.journal,
            clock=_WallClock(world, clock),
            options=machine.options,
            new_cluster=self._new_cluster,
            new_id=lambda: f"cluster-{machine.starts}",
        )
        self._jobs = JobService(self._driver)
        self._watches: dict[asyncio.Task[None], WatchCall] = {}
        self._open: dict[int, Stream] = {}
        self._served: dict[int, _Served] = {}
        self._messages_left: int | None = None
        self._running: asyncio.Task[None] | None = None
        self.accepts = False

    def _new_cluster(self) -> WatchedCluster:
        self.cluster = WatchedCluster(self._world, self._machine.disk, self._oracles)
        return self.cluster

    # --- life and death

    def begin(self) -> None:
        """Listen, then read the journal: until that is done connections wait to be accepted."""
        self._running = self._loop.create_task(self._driver.run())
        self._loop.create_task(self._accept_once_serving())

    async def _accept_once_serving(self) -> None:
        await self._driver.wait_serving()
        self.accepts = True
        self._machine.process_accepts()

    @property
    def serves(self) -> bool:
        return self._driver.refusal is None

    def terminate(self) -> None:
        """SIGTERM: as the server does it, end every stream with a word, finish the turn, end."""
        self._loop.create_task(self._shut_down())

    async def _shut_down(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._driver.refuse_everything(SHUTTING_DOWN), STREAMS_END_S)
        self._driver.stop()
        assert self._running is not None
        await asyncio.wait({self._running})
        self.die()

    def die(self) -> None:
        if self._loop.is_dead:
            return
        self._world.tell("!", NAME, f"dies, {len(self.cluster.undurable)} records were not confirmed")
        self._loop.is_dead = True
        if self.serves:
            self.cluster.check_replay()
        self.journal.die()
        for stream in self._open.values():
            stream.close_server(Closing(broken=True))
        for call in self._watches.values():
            call.broken()
        self._world.after(0, self._loop.bury)
        self._machine.process_died()

    def end(self) -> None:
        """Unwind it, without a death."""
        self._loop.is_dead = True
        self._loop.bury()

    def _crash_in_append(self, is_durable: bool) -> bool:
        point = CrashPoint.AFTER_APPEND if is_durable else CrashPoint.BEFORE_APPEND
        if self.crash_point is point:
            self.die()
        return self._loop.is_dead

    def _appended(self, count: int) -> None:
        self.cluster.appended(count)
        if self.crash_point is CrashPoint.AMID_EFFECTS:
            self.crash_point, self._messages_left = None, self._machine.chance.between(*MESSAGES_UNTIL_CRASH)

    # --- the network's side: what the servicers do

    def opened(self, stream: Stream) -> None:
        self._open[stream.number] = stream

    def receive(self, event: AgentMessage) -> None:
        if self._loop.is_dead:
            return
        match event:
            case AgentAttached():
                self._attached(event)
            case StreamClosed():
                self._close(event.stream)
            case _:
                served = self._served.get(event.stream)
                if served is not None:
                    at_once(self._driver.submit(replace(event, stream=served.number)))

    def called(self, event: Call, answer: Callable[[bool | Refusal], None]) -> None:
        """A unary call that asks for something."""
        if not self._loop.is_dead:
            self._loop.create_task(self._ask(event, answer))

    def read(self, query: Query[T], answer: Callable[[T | Refusal], None]) -> None:
        """A unary call that only wants to know."""
        if not self._loop.is_dead:
            self._loop.create_task(self._answer(partial(self._driver.read, query), answer))

    async def _ask(self, event: Call, answer: Callable[[bool | Refusal], None]) -> None:
        await self._answer(lambda: self._driver.ask(lambda call: replace(event, call=call)), answer)

    async def _answer(self, ask: Callable[[], Awaitable[T]], answer: Callable[[T | Refusal], None]) -> None:
        """``ask`` is called here, as the process may die before this begins."""
        try:
            found: T | Refusal = await ask()
        except RefusedError as error:
            found = error.refusal
        if not self._loop.is_dead:
            answer(found)

    def watch(self, request: WatchJobRequest, call: WatchCall) -> asyncio.Task[None]:
        """The stream of a watch. Whoever leaves it cancels it."""
        task = self._loop.create_task(self._watch(request, call))
        self._watches[task] = call
        task.add_done_callback(self._watches.pop)
        return task

    async def _watch(self, request: WatchJobRequest, call: WatchCall) -> None:
        context = _WatchContext(self._loop, call)
        with contextlib.suppress(_Refused):
            await self._jobs.WatchJob(request, context)
        if not self._loop.is_dead:
            call.ended(context.refusal)

    def _attached(self, event: AgentAttached) -> None:
        stream = self._open[event.stream]
        try:
            number, outbox = self._driver.open_stream()
        except RefusedError as error:
            del self._open[event.stream]
            stream.close_server(Closing(error.refusal))
            return
        self._served[event.stream] = _Served(number, self._loop.create_task(self._write(stream, outbox)))
        fleet = self._driver.stream_count + self._machine.strangers()
        at_once(self._driver.submit(replace(event, stream=number, fleet=fleet)))

    async def _write(self, stream: Stream, outbox: Outbox) -> None:
        while not self._loop.is_dead:
            message = await outbox.next()
            if self._messages_left is not None:
                self._messages_left -= 1
                if self._messages_left < 0:
                    self.die()
                    return
            if isinstance(message, server_outbox.Closing):
                stream.close_server(Closing(message.refusal))
                self._close(stream.number)
                return
            stream.send_down(_on_the_wire(message))

    def _close(self, number: int) -> None:
        """However it ended: what came over it before is heard before its end."""
        self._open.pop(number, None)
        served = self._served.pop(number, None)
        if served is not None:
            served.writer.cancel()
            self._driver.close_stream(served.number)


def _on_the_wire(message: wire.CoordinatorMessage) -> Down:
    match message:
        case wire.Ack():
            return Ack(message.seq)
        case wire.LeaseStale():
            return LeaseStale(message.message)
        case _:
            return message
