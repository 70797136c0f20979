"""Everything that can happen to the coordinator, in the past tense.

Time, wall time and identifiers come in from outside: on the :class:`Stamp` and on the events. ``stream`` and ``call``
are the shell's numbers for an open Attach stream and a waiting unary call; they are never reused. ``clock`` is what an
agent's clock showed when it sent the message; None if it does not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from rallypoint.model import ClockReading, Hello, Observed, Version, WatchdogStatus
from rallypoint.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """When and where a step is taken.

    ``at_ms`` is the coordinator's monotonic clock, ``wall_ms`` its wall clock (for people), ``revision`` that of the
    last record decided so far: the step's own records get the ones that follow. ``waited_ms``: for how long the event
    has waited for the step.
    """

    at_ms: int
    wall_ms: int
    revision: int
    waited_ms: int = 0

    @property
    def arrived_ms(self) -> int:
        """When the event came in."""
        return self.at_ms - self.waited_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAttached:
    """A stream opened with a Hello that passed validation. ``fresh_uid`` serves if a new life begins.

    ``fleet``: so many agents of all jobs have a stream, this one included.
    """

    stream: int
    hello: Hello
    peer: str
    fresh_uid: str
    clock: ClockReading | None = None
    fleet: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentObserved:
    stream: int
    lease_id: int
    seq: int
    observed: Observed
    clock: ClockReading | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHeartbeat:
    """``watchdog`` None: what was said last of it still holds."""

    stream: int
    lease_id: int
    seq: int
    version: Version
    clock: ClockReading | None = None
    watchdog: WatchdogStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLeft:
    """The agent said Goodbye: its workers are gone."""

    stream: int
    lease_id: int
    seq: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClosed:
    """A stream ended, by whatever cause. It proves nothing."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoneReported:
    """An obituary came, as a unary call that waits for an answer."""

    call: int
    job: str
    job_uid: str
    lease_id: int
    incarnation: str
    message: str


class Request(StrEnum):
    """What an operator may ask of a job."""

    CANCEL = "CANCEL"
    RESTART = "RESTART"
    DRAIN = "DRAIN"
    UPDATE = "UPDATE"
    HOLD = "HOLD"
    RELEASE = "RELEASE"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChange:
    """What an update asks for; None: as it is. ``etag``: what it is a change of; "": of whatever there is."""

    min_nodes: int | None = None
    max_nodes: int | None = None
    max_restarts: int | None = None
    labels: Mapping[str, str] | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorAsked:
    """An operator's request came, as a unary call that waits for an answer.

    ``node`` is what is to be drained, ``change`` what an update asks for, ``hold_ms`` how long the job is to be held.
    """

    call: int
    job: str
    request: Request
    by: str
    reason: str = ""
    node: str = ""
    change: JobChange = JobChange()
    hold_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeAdvanced:
    """A deadline may have passed."""


Event = (
    AgentAttached
    | AgentObserved
    | AgentHeartbeat
    | AgentLeft
    | StreamClosed
    | GoneReported
    | OperatorAsked
    | TimeAdvanced
)
