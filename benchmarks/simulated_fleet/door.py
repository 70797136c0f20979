"""What an agent says, as the event that it is to the core; and the same by way of its bytes, as the server does it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import assert_never

from rallypoint import wire
from rallypoint.model import ClockReading, Hello, Observed
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.validation import validate_clock, validate_hello
from rallypoint.wire import AgentMessage, Goodbye, Heartbeat
from rallypoint_coordinator.core.events import (
    AgentAttached,
    AgentHeartbeat,
    AgentLeft,
    AgentObserved,
    Event,
)
from rallypoint_coordinator.server.agent_servicer import to_event

SAMPLE = 8
"""One message of so many, of each kind, is read from its bytes: that costs more than all else together."""


@dataclass(frozen=True, slots=True)
class Sent:
    """``peer``: the sender's address. ``is_beat``: said because a heartbeat is due, whether it is one or not."""

    stream: int
    peer: str
    message: AgentMessage
    lease_id: int
    seq: int
    clock: ClockReading
    is_beat: bool

    @property
    def kind(self) -> str:
        return type(self.message).__name__

    def encoded(self) -> bytes:
        request = wire.attach_request_to_proto(self.message, lease_id=self.lease_id, seq=self.seq, clock=self.clock)
        return request.SerializeToString()


@dataclass(slots=True)
class Door:
    """``seconds``: of the messages that were ``sampled``, by kind."""

    sampled: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _came: Counter[str] = field(default_factory=Counter)

    def enter(self, sent: Sent, data: bytes) -> Event:
        event = _event_of(sent)
        self._came[sent.kind] += 1
        if self._came[sent.kind] % SAMPLE == 1:
            self._see_that_it_reads_as(event, sent, data)
        return event

    def seconds_each(self, kind: str) -> float:
        return self.seconds[kind] / self.sampled[kind] if self.sampled[kind] else 0.0

    def seconds_for(self, messages: Counter[str]) -> float:
        """For so many of each kind."""
        return sum(number * self.seconds_each(kind) for kind, number in messages.items())

    def _see_that_it_reads_as(self, event: Event, sent: Sent, data: bytes) -> None:
        began = time.thread_time()
        read = _read(sent, data)
        self.seconds[sent.kind] += time.thread_time() - began
        self.sampled[sent.kind] += 1
        assert read == event, f"{read} was sent as {event}"


def _event_of(sent: Sent) -> Event:
    stream, lease_id, seq, clock = sent.stream, sent.lease_id, sent.seq, sent.clock
    match sent.message:
        case Hello() as hello:
            return _attached(sent, hello, clock)
        case Observed() as observed:
            return AgentObserved(stream=stream, lease_id=lease_id, seq=seq, observed=observed, clock=clock)
        case Heartbeat(version, watchdog):
            return AgentHeartbeat(
                stream=stream, lease_id=lease_id, seq=seq, version=version, clock=clock, watchdog=watchdog
            )
        case Goodbye(reason, message):
            return AgentLeft(stream=stream, lease_id=lease_id, seq=seq, reason=reason, message=message)
        case _:
            assert_never(sent.message)


def _read(sent: Sent, data: bytes) -> object:
    """What the servicer makes of the bytes: an event, or a refusal."""
    request = pb.AttachRequest.FromString(data)
    if not request.HasField("hello"):
        return to_event(request, sent.stream, sent.seq)
    refusal = validate_hello(request.hello) or validate_clock(request)
    return refusal or _attached(sent, wire.hello_from_proto(request.hello), wire.clock_from_proto(request))


def _attached(sent: Sent, hello: Hello, clock: ClockReading | None) -> Event:
    return AgentAttached(stream=sent.stream, hello=hello, peer=sent.peer, fresh_uid=f"{sent.stream:032x}", clock=clock)
