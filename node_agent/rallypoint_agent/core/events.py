"""Everything that can happen to an agent, in the past tense.

``at_ms`` of a step and every instant on these events are milliseconds of this machine's CLOCK_BOOTTIME.
"""

from __future__ import annotations

from collections.abc import Mapping

from rallypoint.errors import Refusal
from rallypoint.model import Directive, Endpoint, WatchdogStatus, Welcome, WorkerFailure, WorkerState
from rallypoint.values import dataclass


class IllegalEventError(Exception):
    """An event that cannot be: its shell is at fault. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Attached:
    """The coordinator welcomed us, in answer to the Hello sent at ``hello_sent_ms``.

    The directive in the Welcome comes right after this, as an event like all others.
    """

    welcome: Welcome
    hello_sent_ms: int


@dataclass(frozen=True, slots=True)
class Detached:
    """The stream broke. It proves nothing; the link keeps trying."""


@dataclass(frozen=True, slots=True)
class AttachRefused:
    """The coordinator refused us with a status. The link tries again by itself unless the refusal is final.

    ``hello_sent_ms``: when the Hello that this answers was sent; None if it ended a stream that had been welcomed.
    """

    refusal: Refusal
    hello_sent_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DirectiveReceived:
    directive: Directive


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The coordinator acknowledged a message that was sent at ``sent_ms``."""

    sent_ms: int


@dataclass(frozen=True, slots=True)
class LeaseStaleReceived:
    """The lease is no longer ours."""

    message: str


@dataclass(frozen=True, slots=True)
class ConnectionsRefused:
    """Our own connects to every address of every endpoint, begun at ``probe_sent_ms``, all met ECONNREFUSED."""

    probe_sent_ms: int


@dataclass(frozen=True, slots=True)
class WorkersStarted:
    """Every worker of the assignment runs. ``pids`` is by local rank."""

    round: int
    pids: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class GroupMonitored:
    """A look at the local workers: the group's state, and the failures by local rank if it failed.

    HEALTHY needs no report and may be left out; it is legal and changes nothing.
    """

    round: int
    state: WorkerState
    failures: tuple[WorkerFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkersGone:
    """After a StopWorkers, or a fence that the keeper enforced: no process of any worker's tree is alive.

    ``failures``: what ended only during the teardown, marked ``after_stop``.
    """

    round: int
    failures: tuple[WorkerFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkersStuck:
    """After a StopWorkers: these processes are still there KILL_PATIENCE_MS after SIGKILL.

    WorkersGone follows if they end.
    """

    round: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PortHeld:
    """The port asked for by HoldPort is bound; None if none could be had, for the ``problem`` told.

    ``is_named``: the user asked for this port and no other.
    """

    offer_id: int
    endpoint: Endpoint | None
    problem: str = ""
    is_named: bool = False


@dataclass(frozen=True, slots=True)
class WatchdogChanged:
    status: WatchdogStatus


@dataclass(frozen=True, slots=True)
class TimerExpired:
    """A timer of this worker's has expired, and ``signal`` is what its owner wants to end it by."""

    round: int
    local_rank: int
    scope: str
    signal: int


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """A signal that ends the agent."""

    signal: int


@dataclass(frozen=True, slots=True)
class TimeAdvanced:
    """A deadline may have passed."""


Event = (
    Attached
    | Detached
    | AttachRefused
    | DirectiveReceived
    | LeaseRenewed
    | LeaseStaleReceived
    | ConnectionsRefused
    | WorkersStarted
    | GroupMonitored
    | WorkersGone
    | WorkersStuck
    | PortHeld
    | WatchdogChanged
    | TimerExpired
    | SignalReceived
    | TimeAdvanced
)
