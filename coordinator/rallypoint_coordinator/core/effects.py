"""What the coordinator asks its shell to do once the records of the same step are durable, and the step's output."""

from __future__ import annotations

from dataclasses import field

from rallypoint.errors import Refusal
from rallypoint.model import Directive, Welcome
from rallypoint.values import dataclass
from rallypoint_coordinator.core.records import Entry


@dataclass(frozen=True, slots=True)
class SendWelcome:
    """The first effect on a stream. A directive that comes while it waits to be written takes its directive's place."""

    stream: int
    welcome: Welcome


@dataclass(frozen=True, slots=True)
class SendDirective:
    """Replaces any directive that still waits to be written to this stream."""

    stream: int
    directive: Directive


@dataclass(frozen=True, slots=True)
class SendAck:
    """Replaces any acknowledgement that still waits to be written to this stream."""

    stream: int
    seq: int


@dataclass(frozen=True, slots=True)
class SendLeaseStale:
    """Say so, then end the stream."""

    stream: int
    message: str


@dataclass(frozen=True, slots=True)
class EndStream:
    """Write what waits, then end the stream with OK."""

    stream: int


@dataclass(frozen=True, slots=True)
class RefuseStream:
    """End the stream with this status."""

    stream: int
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a waiting call: whether it was news, or why not."""

    call: int
    answer: bool | Refusal


@dataclass(frozen=True, slots=True)
class Explain:
    """The reason for a job's state changed, or all workers of its round have begun to run: log it."""

    job: str
    job_uid: str
    reason: str
    message: str


Effect = SendWelcome | SendDirective | SendAck | SendLeaseStale | EndStream | RefuseStream | Answer | Explain


@dataclass(slots=True)
class Output:
    """What a step asks for. The order of the fields is the order of duty.

    1. ``records``: make them durable, in this order, at the revisions that follow the step's stamp.
    2. ``effects``: only then make them visible.
    3. ``next_deadline_ms``: step with :class:`~.events.TimeAdvanced` no later than this, on the stamp's clock.
    """

    records: list[Entry] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    next_deadline_ms: int | None = None
