"""What the coordinator decided: the journal's content, and all that replays.

``protos/rallypoint/v1/journal.proto`` is the stored form; :mod:`rallypoint_coordinator.store.codec` converts.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from rallypoint.model import NO_ROUND, Capability, Endpoint, JobSpec, NodeSpec, Outcome, WorkerFailure
from rallypoint.values import dataclass


class GoneReason(StrEnum):
    """Why a member is no member any more."""

    LEFT = "LEFT"
    OBITUARY = "OBITUARY"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    """It did not start or stop its workers in time, so its lease was renewed no more; then that was over."""


class StopCause(StrEnum):
    """What ends a round."""

    WORKER_FAILED = "WORKER_FAILED"
    NODE_LOST = "NODE_LOST"
    NODE_LEFT = "NODE_LEFT"
    NODE_JOINED = "NODE_JOINED"
    NODE_DRAINED = "NODE_DRAINED"
    RESTART_ASKED = "RESTART_ASKED"
    CANCELLED = "CANCELLED"
    START_TIMEOUT = "START_TIMEOUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorStarted:
    """``born_wall_ms``: when the cluster began, in its first record only; 0 else."""

    cluster_id: str
    epoch: int
    born_wall_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLost:
    """An agent has seen what this journal does not know; the epoch is above all of that from here on.

    ``former_cluster_id``: its cluster, for which this one answers now; "" if it is this one.
    """

    former_cluster_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCreated:
    """A life of a job began; or, if RecoveryBegan follows, its agents brought it back."""

    spec: JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberJoined:
    """An agent was given a lease; the lease's id is this record's revision."""

    node: str
    incarnation: str
    spec: NodeSpec
    capabilities: frozenset[Capability]
    agent_version: str
    consumed_offer_id: int = 0
    """An endpoint offer of its own that a round of another life may have used; 0 if none can have been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRevoked:
    """A participant did not start or stop its workers in time: its lease is renewed no more, and waited out."""

    node: str
    lease_id: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberGone:
    """A lease ended: no worker of it is alive, but for what an earlier NodeExpelled names."""

    node: str
    lease_id: int
    reason: GoneReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A node's place in a round; the ranks follow from the order of the seats."""

    node: str
    lease_id: int
    local_world_size: int
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A seat with its ranks."""

    seat: Seat
    group_rank: int
    first_rank: int
    first_role_rank: int
    role_world_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryBegan:
    """What was decided is lost: the agents are asked what they hold. ``epoch``: from when they have ours.

    ``round`` and ``restart_count``: the highest that an agent holds, where that is above what is known.
    """

    epoch: int
    round: int = NO_ROUND
    restart_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundAdopted:
    """A round that agents hold is the life's round again. Places are in group rank order; some may be missing."""

    round: int
    restart_count: int
    places: tuple[Place, ...]
    world_size: int
    endpoint: Endpoint
    offer_node: str
    offer_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryEnded:
    """Nobody holds a round that has not ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFormed:
    """A round began. Seats are in group rank order."""

    round: int
    seats: tuple[Seat, ...]
    endpoint: Endpoint
    offer_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSucceeded:
    """All workers of a node exited with 0."""

    round: int
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStopping:
    """A round is being ended, by the first cause seen. ``epoch``: the coordinator's; 0: not kept then.

    ``happened_wall_ms`` and ``noticed_wall_ms``: when what stops it came about, and when the coordinator could know;
    0: not known.
    """

    round: int
    cause: StopCause
    message: str
    epoch: int = 0
    happened_wall_ms: int = 0
    noticed_wall_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEnded:
    """No worker of the round is alive but on expelled nodes. What it cost is decided here and nowhere else."""

    round: int
    charged: bool
    culprit: WorkerFailure | None
    message: str
    others: tuple[WorkerFailure, ...] = ()
    """What failed besides, the likeliest cause first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelled:
    """An operator asked for the end of the job. ``told``: who and why, for the outcome; "": not kept then."""

    by: str
    reason: str
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartAsked:
    """An operator asked for a new round."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDrained:
    """An operator asked for a node to leave. ``told``: who and why, for its agent; "": not kept then."""

    node: str
    lease_id: int
    by: str
    reason: str
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUpdated:
    """An operator changed the job; these values are in force from here on. ``told``: what changed, for people."""

    by: str
    reason: str
    min_nodes: int
    max_nodes: int
    max_restarts: int
    labels: Mapping[str, str]
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHeld:
    """An operator asked that no round be formed. ``since_wall_ms``: when the first of several such requests came."""

    by: str
    reason: str
    since_wall_ms: int
    until_wall_ms: int

    @property
    def told(self) -> str:
        """Who holds it and why, for agents and for people."""
        return f"held by {self.by}: {self.reason}" if self.reason else f"held by {self.by}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReleased:
    """Rounds may be formed again. ``by`` "": the hold had run out."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeExpelled:
    """A node is quarantined: SIGKILL does not end these processes, and its round ends without waiting for them."""

    node: str
    lease_id: int
    round: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReadmitted:
    """A quarantine is over: nothing of the node's workers is left."""

    node: str
    lease_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDecided:
    """The life ended."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeForgotten:
    """A decided life is not kept any longer; or one without a round gave way to one that came back."""


LifeRecord = (
    JobCreated
    | MemberJoined
    | LeaseRevoked
    | MemberGone
    | RecoveryBegan
    | RoundAdopted
    | RecoveryEnded
    | RoundFormed
    | NodeSucceeded
    | RoundStopping
    | RoundEnded
    | JobCancelled
    | RestartAsked
    | NodeDrained
    | JobUpdated
    | JobHeld
    | JobReleased
    | NodeExpelled
    | NodeReadmitted
    | JobDecided
    | LifeForgotten
)
Record = CoordinatorStarted | StateLost | LifeRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record with its address. ``job`` and ``job_uid`` are empty for records of the coordinator itself."""

    job: str
    job_uid: str
    wall_ms: int
    record: Record
