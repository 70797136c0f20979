"""The network between each node and the coordinator: delay, silence in either direction, resets, refusals.

A direction that is silent loses nothing by itself: as TCP does, it delivers what waits, in order, once it is heard
again. Only the end of a stream loses what is under way on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

from rallypoint.errors import Refusal
from rallypoint.model import Directive, Welcome
from rallypoint_coordinator.core.events import (
    AgentAttached,
    AgentHeartbeat,
    AgentLeft,
    AgentObserved,
    GoneReported,
    OperatorAsked,
    StreamClosed,
)
from simulation.world import Action, World

SYN_RETRY_MS = 1_000
RESEND_MS = (0, 2_000)
"""How long TCP takes to find that it is heard again; a new connection may be faster."""
PROBE_TIMEOUT_MS = 1_000
CALL_TIMEOUT_MS = 5_000

M = TypeVar("M")


class Ack(int):
    """The sequence number up to which messages were received."""


class LeaseStale(str):
    """The lease is no longer the agent's own; why."""


class Closing:
    """The stream ends: with OK, with a refusal, or because the connection broke."""

    def __init__(self, refusal: Refusal | None = None, broken: bool = False) -> None:
        self.refusal = refusal
        self.broken = broken

    def __str__(self) -> str:
        return "connection lost" if self.broken else f"end of stream {self.refusal.reason if self.refusal else 'OK'}"


Down = Welcome | Directive | Ack | LeaseStale | Closing
AgentMessage = AgentAttached | AgentHeartbeat | AgentObserved | AgentLeft | StreamClosed
Call = GoneReported | OperatorAsked


class Server(Protocol):
    """What listens at the coordinator's address. ``accepts`` False: connections wait, and nothing comes over them."""

    accepts: bool

    def opened(self, stream: Stream) -> None: ...
    def receive(self, event: AgentMessage) -> None: ...
    def called(self, event: Call, answer: Callable[[bool | Refusal], None]) -> None: ...


class Lane:
    """One direction between one node and the coordinator. ``silences`` counts the reasons for its silence."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.waiting: list[Action] = []
        self._silences = 0

    @property
    def is_silent(self) -> bool:
        return self._silences > 0 or self.network.host_lost

    def silence(self) -> None:
        self._silences += 1

    def heal(self) -> None:
        self._silences -= 1
        self.flush()

    def flush(self) -> None:
        if not self.is_silent:
            waiting, self.waiting = self.waiting, []
            for action in waiting:
                self.network.world.after(self.network.resend_ms(), action)


class Path:
    """Both directions."""

    def __init__(self, network: Network, address: str) -> None:
        self.address = address
        self.up = Lane(network)
        self.down = Lane(network)

    @property
    def is_open(self) -> bool:
        return not self.up.is_silent and not self.down.is_silent


class Pipe(Generic[M]):
    """One direction of one stream: in order, each message once, unless it is cut."""

    def __init__(self, lane: Lane, receive: Callable[[M], None]) -> None:
        self._lane = lane
        self._receive = receive
        self._last_ms = 0
        self._held: deque[M] = deque()
        self._cut = 0

    def send(self, message: M) -> None:
        world = self._lane.network.world
        at_ms = max(self._last_ms, world.now_ms + self._lane.network.delay_ms())
        self._last_ms = at_ms
        world.after(at_ms - world.now_ms, partial(self._arrive, message, self._cut))

    def cut(self) -> None:
        """Lose what is under way."""
        self._cut += 1
        self._held.clear()

    def _arrive(self, message: M, cut: int) -> None:
        if cut != self._cut:
            return
        if self._lane.is_silent or self._held:
            if not self._held:
                self._lane.waiting.append(self._release)
            self._held.append(message)
            return
        self._receive(message)

    def _release(self) -> None:
        if self._lane.is_silent:
            self._lane.waiting.append(self._release)
            return
        held, self._held = self._held, deque()
        for message in held:
            self._receive(message)


class Stream:
    """An Attach stream, from the moment the connection stands. Each side learns of its end by itself."""

    def __init__(self, number: int, path: Path, server: Server, receive: Callable[[Down], None]) -> None:
        self.number = number
        self.address = path.address
        self._server = server
        self._receive = receive
        self._client_open = self._server_open = True
        self._broken = False
        self._up: Pipe[AgentMessage] = Pipe(path.up, self._arrive_up)
        self._down: Pipe[Down] = Pipe(path.down, self._arrive_down)

    def send_up(self, event: AgentMessage) -> None:
        if self._client_open and not self._broken:
            self._up.send(event)

    def send_down(self, message: Down) -> None:
        if self._server_open and not self._broken:
            self._down.send(message)

    def close_client(self) -> None:
        """The agent's side ends: its process ended, or it gave the stream up."""
        self.send_up(StreamClosed(stream=self.number))
        self._client_open = False

    def close_server(self, closing: Closing) -> None:
        """The coordinator's side ends."""
        self.send_down(closing)
        self._server_open = False

    def vanish_client(self) -> None:
        """The agent's machine is gone, and says nothing of it."""
        self._client_open = False

    def reset(self, *, tells_server: bool = True) -> None:
        """The connection breaks, and what is under way is lost. Something in between may forget to tell the server."""
        if self._broken:
            return
        self._broken = True
        self._up.cut()
        self._down.cut()
        self._down.send(Closing(broken=True))
        if tells_server:
            self._up.send(StreamClosed(stream=self.number))

    def expire(self) -> None:
        """The coordinator's keepalive finds the other side silent for too long."""
        if self._server_open:
            self.close_server(Closing(broken=True))
            self._server.receive(StreamClosed(stream=self.number))

    def expire_if_broken(self) -> None:
        if self._broken:
            self.expire()

    def _arrive_up(self, event: AgentMessage) -> None:
        if self._server_open:
            self._server_open = not isinstance(event, StreamClosed)
            self._server.receive(event)

    def _arrive_down(self, message: Down) -> None:
        if self._client_open:
            self._client_open = not isinstance(message, Closing)
            self._receive(message)


class Attempt:
    """A connect under way. ``abandoned`` by who began it."""

    def __init__(self) -> None:
        self.abandoned = False


class Network:
    """``server`` None: nobody listens, and connects are refused. ``host_lost``: the coordinator's machine is silent."""

    def __init__(self, world: World, delay_ms: tuple[int, int]) -> None:
        self.world = world
        self.server: Server | None = None
        self.host_lost = False
        self.paths: list[Path] = []
        self._delay_ms = delay_ms
        self._chance = world.chance("network")
        self._streams = 0
        self._backlog: list[Action] = []

    def accept(self) -> None:
        """The server accepts now, or is gone: what waited for that goes on."""
        backlog, self._backlog = self._backlog, []
        for action in backlog:
            self.world.after(self.delay_ms(), action)

    def delay_ms(self) -> int:
        return self._chance.between(*self._delay_ms)

    def resend_ms(self) -> int:
        return self.delay_ms() + self._chance.between(*RESEND_MS)

    def new_path(self, address: str) -> Path:
        path = Path(self, address)
        self.paths.append(path)
        return path

    def lose_host(self) -> None:
        self.host_lost = True

    def find_host(self) -> None:
        self.host_lost = False
        for path in self.paths:
            path.up.flush()
            path.down.flush()

    def connect(
        self,
        path: Path,
        receive: Callable[[Down], None],
        established: Callable[[Stream], None],
        refused: Action,
    ) -> Attempt:
        """Try until it stands, is refused, or is abandoned."""
        attempt = Attempt()
        self.world.after(2 * self.delay_ms(), partial(self._try, attempt, path, receive, established, refused))
        return attempt

    def _try(
        self,
        attempt: Attempt,
        path: Path,
        receive: Callable[[Down], None],
        established: Callable[[Stream], None],
        refused: Action,
    ) -> None:
        if attempt.abandoned:
            return
        if not path.is_open:
            self.world.after(SYN_RETRY_MS, partial(self._try, attempt, path, receive, established, refused))
        elif self.server is None:
            refused()
        elif not self.server.accepts:
            self._backlog.append(partial(self._try, attempt, path, receive, established, refused))
        else:
            self._streams += 1
            stream = Stream(self._streams, path, self.server, receive)
            self.server.opened(stream)
            established(stream)

    def probe(self, path: Path, done: Callable[[bool], None]) -> None:
        """A plain connect; whether it met a refusal."""
        delay_ms = 2 * self.delay_ms()
        self.world.after(delay_ms, partial(self._probed, path, done, PROBE_TIMEOUT_MS - delay_ms))

    def _probed(self, path: Path, done: Callable[[bool], None], left_ms: int) -> None:
        if path.is_open:
            done(self.server is None)
        else:
            self.world.after(max(0, left_ms), partial(done, False))

    def call(self, path: Path, event: Call, done: Callable[[bool | Refusal | None], None]) -> None:
        """A unary call; ``done`` exactly once, with None if there was no answer."""
        answers: list[bool | Refusal | None] = []

        def finish(answer: bool | Refusal | None) -> None:
            if not answers:
                answers.append(answer)
                done(answer)

        def answered(answer: bool | Refusal) -> None:
            Pipe[bool | Refusal | None](path.down, finish).send(answer)

        def arrive(event: Call) -> None:
            if self.server is not None and self.server.accepts:
                self.server.called(event, answered)

        Pipe(path.up, arrive).send(event)
        self.world.after(CALL_TIMEOUT_MS, partial(finish, None))
