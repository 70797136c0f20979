"""AgentService: the streams of the agents, as events and out of effects. No decisions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import grpc

from rallypoint import wire
from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.rpc_status import abort
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.v1.agent_service_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from rallypoint.validation import (
    validate_clock,
    validate_goodbye,
    validate_heartbeat,
    validate_hello,
    validate_observed,
    validate_report_gone,
)
from rallypoint_coordinator.core.events import (
    AgentAttached,
    AgentHeartbeat,
    AgentLeft,
    AgentObserved,
    Event,
    GoneReported,
)
from rallypoint_coordinator.server.driver import Driver, fresh_id
from rallypoint_coordinator.server.encoded import Encoder, add_encoded
from rallypoint_coordinator.server.outbox import Closing, Outbox
from rallypoint_coordinator.server.peers import peer_address

log = logging.getLogger(__name__)

# What read() gives is a message or EOF, which the stubs do not say.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, bytes]"

HELLO_TIMEOUT_S = 10.0
"""A stream that does not say who it is within this time is ended."""


class AgentService(AgentServiceServicer):
    """Streams are handled by two tasks: gRPC's own writes, a second one reads. No write or read is ever cancelled."""

    def __init__(self, driver: Driver, hello_timeout_s: float = HELLO_TIMEOUT_S) -> None:
        self._driver = driver
        self._encoder = Encoder()
        self._hello_timeout_s = hello_timeout_s
        self._readers: set[asyncio.Task[None]] = set()

    async def Attach(  # type: ignore[override]  # the stubs know generators only, and those cannot clean up reliably
        self, request_iterator: object, context: Context
    ) -> None:
        first = await self._hello(context)
        try:
            stream, outbox = self._driver.open_stream()
        except RefusedError as error:
            await abort(context, error.refusal)
        try:
            await self._driver.submit(_attached(first, stream, peer_address(context.peer()), self._driver.stream_count))
            del first  # what a stream holds while it waits is held ten thousand times
            self._start_reader(context, stream, outbox)
            await _write(context, outbox, self._encoder)
        finally:
            outbox.end()
            self._driver.close_stream(stream)

    def _start_reader(self, context: Context, stream: int, outbox: Outbox) -> None:
        """It ends with the stream and is never cancelled: gRPC does not free a read whose reader is (grpc#43360)."""
        reader = asyncio.create_task(_read(self._driver, context, stream, outbox))
        self._readers.add(reader)  # the loop itself keeps no task
        reader.add_done_callback(self._readers.discard)

    async def ReportGone(self, request: pb.ReportGoneRequest, context: Any) -> pb.ReportGoneResponse:
        refusal = validate_report_gone(request)
        if refusal is not None:
            await abort(context, refusal)
        report = wire.report_gone_from_proto(request)
        try:
            was_news = await self._driver.ask(lambda call: _gone_reported(call, report))
        except RefusedError as error:
            await abort(context, error.refusal)
        return pb.ReportGoneResponse(was_news=was_news)

    async def _hello(self, context: Context) -> pb.AttachRequest:
        """The stream's first message. Aborts if it is not a valid Hello or does not come."""
        try:
            async with asyncio.timeout(self._hello_timeout_s):
                first = await context.read()
        except TimeoutError:
            await abort(context, _invalid("hello", f"no Hello came within {self._hello_timeout_s:g} s"))
        if not isinstance(first, pb.AttachRequest):
            await abort(context, _invalid("hello", "the stream ended before its Hello"))
        refusal = _refuse_first(first)
        if refusal is not None:
            await abort(context, refusal)
        return first


def add_agent_service(service: AgentService, server: grpc.aio.Server) -> None:
    """Serve it. Attach's messages go out as they are: what is the same for many agents is encoded once."""
    handle: grpc.RpcMethodHandler[pb.AttachRequest, bytes]
    handle = grpc.stream_stream_rpc_method_handler(service.Attach, pb.AttachRequest.FromString)
    name = pb.DESCRIPTOR.services_by_name["AgentService"].full_name
    add_encoded(server, name, {"Attach": handle}, lambda: add_AgentServiceServicer_to_server(service, server))


def _attached(first: pb.AttachRequest, stream: int, peer: str, fleet: int) -> AgentAttached:
    return AgentAttached(
        stream=stream,
        hello=wire.hello_from_proto(first.hello),
        peer=peer,
        fresh_uid=fresh_id(),
        clock=wire.clock_from_proto(first),
        fleet=fleet,
    )


# --- Reading


async def _read(driver: Driver, context: Context, stream: int, outbox: Outbox) -> None:
    """Bring the stream's messages to the driver until it ends or one is refused; then have the writer end it."""
    seq = 1
    try:
        while True:
            request = await context.read()
            if not isinstance(request, pb.AttachRequest):
                await outbox.answered()  # who has no more to say than a Hello is still told what it leads to
                return
            if outbox.is_closing:
                return  # what comes after the end was never said
            seq += 1
            event = to_event(request, stream, seq)
            if isinstance(event, Refusal):
                log.warning("stream %d from %s: %s", stream, context.peer(), event.message)
                outbox.refuse(event)
                return
            await driver.submit(event)
            del request, event  # as above
    except grpc.aio.BaseError:
        pass  # the RPC has ended under us
    except RefusedError as error:
        log.warning("stream %d from %s: %s", stream, context.peer(), error.refusal.message)
        outbox.refuse(error.refusal)
    except Exception:
        log.exception("stream %d: reading failed", stream)
    finally:
        outbox.end()


class _Kind(NamedTuple):
    """What is done with one kind of message: how it is validated, and the event that it becomes."""

    validate: Callable[[Any], Refusal | None]
    event: Callable[[pb.AttachRequest, int], Event]


def _observed(request: pb.AttachRequest, stream: int) -> Event:
    observed, clock = wire.observed_from_proto(request.observed), wire.clock_from_proto(request)
    return AgentObserved(stream=stream, lease_id=request.lease_id, seq=request.seq, observed=observed, clock=clock)


def _heartbeat(request: pb.AttachRequest, stream: int) -> Event:
    version, watchdog = wire.heartbeat_from_proto(request.heartbeat)
    return AgentHeartbeat(
        stream=stream,
        lease_id=request.lease_id,
        seq=request.seq,
        version=version,
        clock=wire.clock_from_proto(request),
        watchdog=watchdog,
    )


def _goodbye(request: pb.AttachRequest, stream: int) -> Event:
    reason, message = wire.goodbye_from_proto(request.goodbye)
    return AgentLeft(stream=stream, lease_id=request.lease_id, seq=request.seq, reason=reason, message=message)


_KINDS: Mapping[str, _Kind] = {
    "observed": _Kind(validate_observed, _observed),
    "heartbeat": _Kind(validate_heartbeat, _heartbeat),
    "goodbye": _Kind(validate_goodbye, _goodbye),
}


def to_event(request: pb.AttachRequest, stream: int, seq: int) -> Event | Refusal:
    """The event that a message after the Hello is, or what is wrong with it. ``seq`` is the number it must have."""
    name = request.WhichOneof("message")
    if name is None:
        return _invalid("message", "the message says nothing that this coordinator knows")
    if name == "hello":
        return _invalid("hello", "a Hello may only be a stream's first message")
    if request.seq != seq:
        return _invalid("seq", f"seq must be {seq}, but is {request.seq}")
    if request.lease_id <= 0:
        return _invalid("lease_id", f"lease_id must be that of the Welcome, but is {request.lease_id}")
    kind = _KINDS[name]
    refusal = kind.validate(getattr(request, name)) or validate_clock(request)
    return refusal or kind.event(request, stream)


def _refuse_first(request: pb.AttachRequest) -> Refusal | None:
    if not request.HasField("hello"):
        return _invalid("hello", "a stream's first message must be a Hello")
    if request.seq != 1:
        return _invalid("seq", f"seq must be 1, but is {request.seq}")
    return validate_hello(request.hello) or validate_clock(request)


def _invalid(field: str, message: str) -> Refusal:
    return Refusal(reason=Reason.INVALID_FIELD, message=message, field=field, metadata={"field": field})


def _gone_reported(call: int, report: wire.ReportGone) -> GoneReported:
    return GoneReported(
        call=call,
        job=report.job,
        job_uid=report.job_uid,
        lease_id=report.lease_id,
        incarnation=report.incarnation,
        message=report.message,
    )


# --- Writing


async def _write(context: Context, outbox: Outbox, encoder: Encoder) -> None:
    """Write what the outbox holds until the stream ends; the status is the last thing."""
    write = context.write
    while not isinstance(message := await outbox.next(), Closing):
        try:
            await write(encoder.encode(message))
        except grpc.aio.BaseError:
            return  # nobody is there any more
        del message
    if message.refusal is not None:
        await abort(context, message.refusal)
