"""Events: what happened to the agent and its workers, for machines. Names and fields are torch's.

An event goes to a *destination*, ``WorkerSpec.event_log_handler``: ``null`` (nowhere), ``console`` (one line of JSON on
standard error), or the name of an entry point of the group ``rallypoint.event_handlers``, which is a
:class:`logging.Handler` or makes one when called without arguments.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, field
from enum import StrEnum

from rallypoint.values import dataclass
from rallypoint_agent import entry_points
from rallypoint_agent.background import Background, HandlerInBackground

__all__ = [
    "Event",
    "EventMetadataValue",
    "EventSource",
    "NodeState",
    "RdzvEvent",
    "get_logging_handler",
    "handled_in_background",
    "record",
    "record_rdzv_event",
]

ENTRY_POINTS = "rallypoint.event_handlers"
NULL = "null"

EventMetadataValue = str | int | float | bool | None

_handlers: dict[str, logging.Handler] = {}


class EventSource(StrEnum):
    """Who it happened to."""

    AGENT = "AGENT"
    WORKER = "WORKER"


@dataclass
class Event:
    """``timestamp``: milliseconds since the epoch, 0 if nobody filled it in (torch's agent never does)."""

    name: str
    source: EventSource
    timestamp: int = 0
    metadata: dict[str, EventMetadataValue] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.serialize()

    @staticmethod
    def deserialize(data: str | Event) -> Event:
        if isinstance(data, Event):
            return data
        fields = json.loads(data)
        return Event(**{**fields, "source": EventSource(fields["source"])})

    def serialize(self) -> str:
        return json.dumps(asdict(self))


class NodeState(StrEnum):
    """How a node fares in a rendezvous."""

    INIT = "INIT"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass
class RdzvEvent:
    """What a rendezvous handler of one's own may record."""

    name: str
    run_id: str
    message: str
    hostname: str
    pid: int
    node_state: NodeState
    master_endpoint: str = ""
    rank: int | None = None
    local_id: int | None = None
    error_trace: str = ""

    def __str__(self) -> str:
        return self.serialize()

    @staticmethod
    def deserialize(data: str | RdzvEvent) -> RdzvEvent:
        if isinstance(data, RdzvEvent):
            return data
        fields = json.loads(data)
        return RdzvEvent(**{**fields, "node_state": NodeState(fields["node_state"])})

    def serialize(self) -> str:
        return json.dumps(asdict(self))


def get_logging_handler(destination: str = NULL) -> logging.Handler:
    """The handler of a destination, always the same one. Raises EntryPointError if there is none."""
    if destination not in _handlers:
        _handlers[destination] = _make_handler(destination)
    return _handlers[destination]


@contextlib.contextmanager
def handled_in_background(destination: str, background: Background) -> Iterator[None]:
    """Meanwhile a destination's events are handled there: a handler that has to wait holds nobody up."""
    handler = get_logging_handler(destination)
    _handlers[destination] = HandlerInBackground(handler, background)
    try:
        yield
    finally:
        _handlers[destination] = handler


def record(event: Event, destination: str = NULL) -> None:
    """Send an event to a destination. LOGLEVEL above INFO silences all, as with torch."""
    if destination != NULL:  # what goes nowhere is not made into a text either: a round has many events
        _logger_of(destination).info("%s", event.serialize())


def record_rdzv_event(event: RdzvEvent) -> None:
    """Send it to the destination ``dynamic_rendezvous``, which is nowhere unless an entry point has that name."""
    _logger_of("dynamic_rendezvous").info("%s", event.serialize())


def _make_handler(destination: str) -> logging.Handler:
    if destination == NULL:
        return logging.NullHandler()
    if destination == "console":
        return logging.StreamHandler()
    try:
        made = entry_points.load(ENTRY_POINTS, destination)()
    except entry_points.EntryPointError:
        if destination != "dynamic_rendezvous":
            raise
        return logging.NullHandler()
    if not isinstance(made, logging.Handler):
        raise entry_points.EntryPointError(f"{destination} makes no logging.Handler but {made!r}")
    return made


def _logger_of(destination: str) -> logging.Logger:
    """It does not pass events on to the root logger: an event is handled once."""
    logger = logging.getLogger(f"torchelastic-events-{destination}")
    handler = get_logging_handler(destination)
    if logger.handlers != [handler]:
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(_level())
    return logger


def _level() -> int:
    """As LOGLEVEL says. Unlike torch's, a name that is none is no error in the middle of a job."""
    return logging.getLevelNamesMapping().get(os.environ.get("LOGLEVEL", "").upper(), logging.INFO)
