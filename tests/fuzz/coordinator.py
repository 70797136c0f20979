"""The coordinator without sockets: its guard, servicers, driver and core, and a context where gRPC's would be.

gRPC's part is played to the letter where it matters: what is read is parsed in ``read``, what is written is
serialized, and whatever a handler lets out but an abort would be UNKNOWN for the caller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast
from unittest.mock import patch

import grpc
import grpc.aio
from google.rpc.status_pb2 import Status

from fuzz.target import demand, is_a_sentence
from rallypoint.rpc_status import DETAILS_KEY, from_status
from rallypoint.v1.cluster_service_pb2_grpc import add_ClusterServiceServicer_to_server
from rallypoint_coordinator.core import invariants
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.snapshot import ClusterSnapshot
from rallypoint_coordinator.security.tokens import Table
from rallypoint_coordinator.server import agent_servicer
from rallypoint_coordinator.server.agent_servicer import AgentService, add_agent_service
from rallypoint_coordinator.server.cluster_servicer import ClusterService
from rallypoint_coordinator.server.driver import Driver
from rallypoint_coordinator.server.guard import Guard
from rallypoint_coordinator.server.job_servicer import JobService, add_job_service
from rallypoint_coordinator.server.looked_up import looked_up
from rallypoint_coordinator.server.replay import replay
from rallypoint_coordinator.store.memory import MemoryJournal
from support.hand_clock import HandClock

_PATIENCE_S = 10.0
_ROUNDS = 6
"""So many turns of the loop take what was sent to the driver."""

_FORBIDDEN = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)


class Errors(logging.Handler):
    """What was logged as an error is a finding: nothing that comes in is one of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))

    def judge(self) -> None:
        """Raise if there were any since the last time."""
        found, self.found = self.found, []
        demand(not found, "\n".join(found))


@dataclass
class FixedTokens:
    """A token file that never changes."""

    table: Table

    def refresh(self) -> bool:
        return False


@dataclass
class Call:
    """One call, as gRPC's context of it. The peer's messages are put in with :meth:`say`."""

    parse: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes] | None
    is_watch: bool = False
    task: asyncio.Task[Any] | None = None
    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailing: Sequence[tuple[str, bytes]] = ()
    answers: list[bytes] = field(default_factory=list)
    _said: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    def say(self, data: bytes | None) -> None:
        """The next message; None: there will be no more."""
        self._said.put_nowait(data)

    async def read(self) -> Any:
        data = await self._said.get()
        if data is None:
            self._said.put_nowait(None)
            return grpc.aio.EOF
        return self.parse(data)

    async def write(self, message: Any) -> None:
        self.answers.append(self.serialize(message) if self.serialize is not None else message)

    async def send_initial_metadata(self, metadata: object) -> None:
        """Nobody looks at it."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing: Any = ()) -> None:
        self.code, self.details, self.trailing = code, details, trailing
        raise grpc.aio.AbortError

    def peer(self) -> str:
        return "ipv4:192.0.2.7:4000"

    def auth_context(self) -> dict[str, Any]:
        return {}

    def judge(self) -> None:
        """Raise unless the call ended as a call may: well, or with a typed refusal."""
        assert self.task is not None
        error = None if self.task.cancelled() else self.task.exception()
        if error is not None and not isinstance(error, grpc.aio.AbortError):
            raise error
        if self.code is grpc.StatusCode.OK:
            return
        demand(self.code not in _FORBIDDEN, f"the call ended with {self.code.name}: {self.details}")
        is_a_sentence(self.details, "a refusal")
        details = [value for key, value in self.trailing if key == DETAILS_KEY]
        refusal = from_status(Status.FromString(details[0])) if details else None
        demand(refusal is not None, f"{self.code.name} without an ErrorInfo: {self.details}")


class _Methods:
    """Where servicers add their methods, which are looked up as a server does."""

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._handlers += handlers

    def find(self, details: Any) -> Any:
        """The first one that is found. StopIteration if there is none."""
        return next(found for handler in self._handlers if (found := handler.service(details)) is not None)


class Coordinator:
    """One life of it on a journal that has these records. A context; on leaving it everything is judged."""

    def __init__(self, records: Sequence[bytes], table: Table) -> None:
        self.clock = HandClock(1_000_000)
        self.errors = Errors()
        self._records = records
        self._journal = MemoryJournal()
        self._ids = count(1)
        self.cluster = Cluster()
        self._driver = Driver(self._journal, clock=self.clock, new_cluster=self._new_cluster, new_id=self._new_id)
        self._guard = Guard(FixedTokens(table), now_s=lambda: self.clock.now_ms / 1000)  # type: ignore[arg-type]
        self._methods = _Methods()
        server = looked_up(cast("grpc.aio.Server", self._methods))
        add_agent_service(AgentService(self._driver), server)
        add_job_service(JobService(self._driver), server)
        add_ClusterServiceServicer_to_server(ClusterService(self._driver, self._guard), server)
        self.calls: list[Call] = []

    def _new_cluster(self) -> Cluster:
        self.cluster = Cluster()
        return self.cluster

    def _new_id(self) -> str:
        return f"{next(self._ids):032x}"

    async def __aenter__(self) -> Coordinator:
        self._fresh_id = patch.object(agent_servicer, "fresh_id", self._new_id)
        self._fresh_id.start()
        logging.getLogger("rallypoint_coordinator").addHandler(self.errors)
        if self._records:
            await self._journal.append(0, self._records)
        self._running = asyncio.create_task(self._driver.run())
        await self._driver.wait_serving()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                await self._end_calls()
        finally:
            await self._end()
        if kind is None:
            for call in self.calls:
                call.judge()
            self.errors.judge()

    async def _end_calls(self) -> None:
        """As clients do that have no more to say. Nothing but the client ends a watch."""
        for call in self.calls:
            call.say(None)
        await self.settle()
        tasks = [call.task for call in self.calls if call.task is not None]
        for call in self.calls:
            if call.task is not None and call.is_watch:
                call.task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=_PATIENCE_S)
            demand(not left, f"{len(left)} calls do not end")

    async def _end(self) -> None:
        for call in self.calls:
            call.say(None)  # a stream's reader ends by itself
        tasks = [call.task for call in self.calls if call.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._driver.stop()
        await self._running
        logging.getLogger("rallypoint_coordinator").removeHandler(self.errors)
        self._fresh_id.stop()

    # --- calls

    async def call(self, method: str, token: str | None) -> Call:
        """Begin one."""
        metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        details: Any = _Details(method, metadata)
        handler = await self._guard.intercept_service(self._handler, details)
        is_watch = method.endswith("/WatchJob")
        call = Call(handler.request_deserializer, handler.response_serializer, is_watch)
        call.task = asyncio.create_task(handler.stream_stream(call, call))
        self.calls.append(call)
        return call

    async def _handler(self, details: Any) -> Any:
        return self._methods.find(details)

    async def settle(self) -> None:
        """Let what was said be taken, and look at what that led to."""
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
        demand(self._driver.refusal is None, f"the driver does not serve: {self.errors.found}")
        await self._driver.read(_look)
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)

    # --- what it came to

    async def records(self) -> list[bytes]:
        return [data async for _, data in self._journal.read()]

    async def replayed(self) -> ClusterSnapshot:
        """What a restart would know."""
        cluster = Cluster()
        await replay(self._journal, cluster, lambda entry, revision, data: None)
        return cluster.snapshot()


@dataclass(frozen=True)
class _Details:
    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


def _look(cluster: Cluster, stamp: object) -> None:
    for life in cluster.lives.values():
        invariants.check(life)
