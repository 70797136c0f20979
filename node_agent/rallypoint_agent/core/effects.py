"""What the agent's core asks its shell to do, in order, and the step's output."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from rallypoint.model import Assignment, Observed, Outcome
from rallypoint.values import dataclass


@dataclass(frozen=True, slots=True)
class HoldPort:
    """Bind a fresh rendezvous port, dropping the one held before; answer with PortHeld."""

    offer_id: int


@dataclass(frozen=True, slots=True)
class Report:
    """Send this to the coordinator, and at every attach, until another Report replaces it.

    ``can_wait``: nothing is decided by what is new in it, so it may take the place of the next heartbeat; unless it
    replaces one that could not wait, and was not sent yet.
    """

    observed: Observed
    can_wait: bool = False


@dataclass(frozen=True, slots=True)
class SetIdentity:
    """What every later Hello carries: the life and the lease ("" and 0: none). Also what an obituary would name."""

    cluster_id: str
    job_uid: str
    lease_id: int


@dataclass(frozen=True, slots=True)
class Reattach:
    """Attach anew: the lease was not ours any more, and its workers are gone now."""


@dataclass(frozen=True, slots=True)
class StartWorkers:
    """Start the workers; answer with WorkersStarted, or GroupMonitored FAILED if one could not be started.

    If a StopWorkers comes before the answer, there need be none.
    ``hosts_store``: first serve a new store for the whole round, at the port that was held for it.
    """

    assignment: Assignment
    hosts_store: bool = False


@dataclass(frozen=True, slots=True)
class CloseStore:
    """The round is over: serve its store no more."""


@dataclass(frozen=True, slots=True)
class StopWorkers:
    """End the workers and everything they started; answer with WorkersGone, or with WorkersStuck and go on trying.

    ``signal`` None is the ordinary teardown (SIGTERM). A StopWorkers that comes while another is under way overrides it
    if it is sooner.
    """

    round: int
    signal: int | None
    grace_ms: int


@dataclass(frozen=True, slots=True)
class KillWorker:
    """Send this signal to one worker of the round that runs. Its end is then a failure for this ``reason``."""

    round: int
    local_rank: int
    signal: int
    reason: str


@dataclass(frozen=True, slots=True)
class SetFence:
    """Unless fed again: SIGTERM at ``term_at_ms``, SIGKILL at ``kill_at_ms``, whatever happens to the agent."""

    term_at_ms: int
    kill_at_ms: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Say Goodbye, wait a moment for its acknowledgement, and attach no more."""

    reason: str
    message: str


class FinishKind(StrEnum):
    DECIDED = "DECIDED"
    DRAINED = "DRAINED"
    UNREACHABLE = "UNREACHABLE"
    REFUSED = "REFUSED"
    NO_PORT = "NO_PORT"
    SIGNALLED = "SIGNALLED"
    BARRIER_TIMEOUT = "BARRIER_TIMEOUT"
    UNKILLABLE = "UNKILLABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The agent's work is over. ``outcome`` is set if DECIDED, ``signal`` if SIGNALLED.

    UNKILLABLE is the one end with processes left behind: no Goodbye comes before it, and nothing may say that they are
    gone before they are.
    """

    kind: FinishKind
    message: str
    outcome: Outcome | None = None
    signal: int = 0


@dataclass(frozen=True, slots=True)
class Say:
    """A line for the person who watches: the reason for the agent's state changed."""

    message: str


Effect = (
    HoldPort
    | Report
    | SetIdentity
    | Reattach
    | StartWorkers
    | CloseStore
    | StopWorkers
    | KillWorker
    | SetFence
    | Leave
    | Finish
    | Say
)


@dataclass(slots=True)
class Output:
    """What a step asks for, in this order; then step with TimeAdvanced no later than ``next_deadline_ms``."""

    effects: list[Effect] = field(default_factory=list)
    next_deadline_ms: int | None = None
