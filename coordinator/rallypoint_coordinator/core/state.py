"""What the coordinator knows of one life of a job.

:class:`Facts` is durable: :mod:`.evolve` alone changes it, from records alone, in place. :class:`Presence` and
:class:`Watch` are soft: what agents said last and what is being waited for, rebuilt from what they say next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rallypoint.model import (
    NO_ROUND,
    Capability,
    Endpoint,
    JobSpec,
    JobState,
    NodeSpec,
    Observed,
    Outcome,
    Version,
    WorkerFailure,
)
from rallypoint_coordinator.core.claims import Claims
from rallypoint_coordinator.core.clocks import AgentClock
from rallypoint_coordinator.core.deadlines import Deadlines
from rallypoint_coordinator.core.failures import FailureLog
from rallypoint_coordinator.core.records import GoneReason, JobHeld, Place, RoundAdopted, StopCause
from rallypoint_coordinator.core.round_changes import RoundChanges, Sightings


@dataclass(slots=True)
class Member:
    """An agent that was given a lease. A node has one member: a later incarnation replaces it."""

    node: str
    incarnation: str
    lease_id: int
    spec: NodeSpec
    capabilities: frozenset[Capability]
    agent_version: str
    consumed_offer_id: int = 0
    """The highest endpoint offer of this node that a round may have used: an earlier incarnation may come back."""
    drained_by: str = ""
    """Who asked for it to leave, and why if that was said; "" if nobody did."""
    directive_revision: int = 0
    """The last record that changed what this member alone is told."""
    unkillable_pids: tuple[int, ...] = ()
    """Not empty: it is quarantined, as SIGKILL did not end these. Of one that is gone: they may still be there."""
    revoked: str = ""
    """Why its lease is renewed no more; "" if it is."""
    gone: GoneReason | None = None
    gone_message: str = ""

    @property
    def is_unavailable(self) -> bool:
        """Whether it lives, but is to leave, or is quarantined."""
        return self.gone is None and bool(self.drained_by or self.unkillable_pids)


@dataclass(slots=True, kw_only=True)
class Round:
    """One agreed worker group. ``places`` is by node, in group rank order.

    Of an adopted round some may be missing: it is then being ended, or has ended.
    """

    number: int
    places: dict[str, Place]
    world_size: int
    endpoint: Endpoint
    offer_id: int
    restart_count: int
    succeeded: set[str] = field(default_factory=set)
    stop_cause: StopCause | None = None
    stop_message: str = ""
    stop_revision: int = 0
    stop_epoch: int = 0
    """0: not kept when it was stopped."""
    ended: bool = False
    failures: tuple[WorkerFailure, ...] = ()
    """Once it has ended: what failed in it, without tracebacks, the root cause first."""
    leaves_remains: bool = False
    """Some participant's agent does not end what its workers started."""
    is_whole: bool = field(init=False, repr=False, compare=False)
    """Follows from the places, which never change: it is asked for at every step."""

    def __post_init__(self) -> None:
        self.is_whole = sum(place.seat.local_world_size for place in self.places.values()) == self.world_size

    def is_after_stop(self, seen: Version) -> bool:
        """Whether who has seen this has seen the round's end. Of an earlier epoch it may be a lost journal's."""
        return seen.revision >= self.stop_revision and seen.epoch >= self.stop_epoch

    def is_that_of(self, record: RoundAdopted) -> bool:
        """Whether it is this round that goes on. Of two histories each may have one of its number."""
        adopted = (record.round, record.restart_count, record.world_size, record.endpoint)
        return adopted == (self.number, self.restart_count, self.world_size, self.endpoint)


@dataclass(slots=True, kw_only=True)
class Facts:
    """The durable facts of one life. Equal after replay, on any machine."""

    job: str
    uid: str
    spec: JobSpec
    """In force: what agents agreed on, with what operators have changed since."""
    created_wall_ms: int
    state: JobState = JobState.GATHERING
    state_wall_ms: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    gone_nodes: dict[str, None] = field(default_factory=dict)
    round: Round | None = None
    restart_count: int = 0
    last_failure: WorkerFailure | None = None
    outcome: Outcome | None = None
    cancelled_by: str = ""
    """Who cancelled it, and why if that was said; "" if nobody did."""
    directive_revision: int = 0
    """The last record that changed what every member is told."""
    revision: int = 0
    """The last record of this life."""
    recovery_epoch: int = 0
    """From which epoch on its agents have directives of this journal alone; 0: they have no others."""
    round_floor: int = NO_ROUND
    """A round that agents held when the records were lost."""
    round_changes: RoundChanges = ()
    """How its newest rounds ended, and when the next began."""
    replaced_spec: JobSpec | None = None
    """What agents agreed on, once ``spec`` differs from it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    hold: JobHeld | None = None
    """Set while no round may be formed."""
    unavailable: set[str] = field(init=False, repr=False, compare=False)
    """Follows from the members: those that live, and take part in no further round as it is. Only counted."""

    def __post_init__(self) -> None:
        self.unavailable = {node for node, member in self.members.items() if member.is_unavailable}

    @property
    def agreed_spec(self) -> JobSpec:
        """What agents agreed on, and one that joins is compared with."""
        return self.replaced_spec or self.spec

    @property
    def next_round(self) -> int:
        """The number of the next round: none is used twice."""
        return max(self.round_number, self.round_floor) + 1

    @property
    def round_number(self) -> int:
        return self.round.number if self.round else NO_ROUND

    @property
    def node_count(self) -> int:
        """Of how many nodes something is kept: of members, gone ones included, or of the places of the last round."""
        return max(len(self.members), len(self.round.places) if self.round else 0)

    @property
    def live_count(self) -> int:
        return len(self.members) - len(self.gone_nodes)


@dataclass(slots=True, kw_only=True)
class Presence:
    """What is known, without a record, of a live lease. ``stream`` None: no stream is open."""

    node: str
    heartbeat_interval_ms: int
    """As issued when it attached last; before that, the shortest."""
    stream: int | None = None
    attach_seq: int = 0
    peer: str = ""
    heard_at_ms: int = 0
    heard_wall_ms: int = 0
    closed_at_ms: int = 0
    """While no stream is open: when the last one ended; 0: there was none in this epoch."""
    observed: Observed = field(default_factory=Observed)
    """Without its failures: they are kept in the Watch. While the life is recovered they are here, in short."""
    clock: AgentClock = field(default_factory=AgentClock)
    beat_due_ms: int = 0
    """By the agent's clock: a report that was sent before that is between two heartbeats, else in the place of one."""
    sent_at_ms: int = 0
    """When it was last told what it should do."""


@dataclass(slots=True, kw_only=True)
class Course:
    """How the current round goes, as far as its end is judged by that. Each round has one of its own."""

    failures: FailureLog = field(default_factory=FailureLog)
    """What was reported in it."""
    lost: set[str] = field(default_factory=set)
    """Participants whose lease ended otherwise than by their goodbye, whoever has their name now."""
    overdue: set[str] = field(default_factory=set)
    """Participants that did not stop in time, and were revoked or expelled: not lost, and no cause of an echo."""


@dataclass(slots=True, kw_only=True)
class Watch:
    """What the life waits for. Sets of lease ids are only ever tested, counted and emptied, never iterated."""

    ready: set[int] = field(default_factory=set)
    """Members that are attached and could start a round now."""
    remaining: set[int] = field(default_factory=set)
    """STOPPING: participants that may still have live workers."""
    course: Course = field(default_factory=Course)
    """Of the current round, until it is judged."""
    gathering_since_ms: int = 0
    last_call_ends_ms: int | None = None
    expected: set[int] = field(default_factory=set)
    """GATHERING: members of the round before that live and are not ready yet."""
    awaited: dict[str, None] = field(default_factory=dict)
    """Nodes that were lost and may come back."""
    rejoin_ends_ms: int = 0
    """Until when they are waited for."""
    scale_up_at_ms: int | None = None
    """RUNNING: when nodes that arrived are taken in."""
    arrival_ms: int = 0
    """When the first of them was ready."""
    starting: set[int] = field(default_factory=set)
    """RUNNING: participants that have yet to start their workers."""
    is_spawning: bool = False
    """RUNNING: whether the last of them starts the round; else the coordinator asks anew what ran before."""
    start_deadline_ms: int | None = None
    quarantined: set[int] = field(default_factory=set)
    """Members that take part in no round, as some of their processes cannot be ended."""
    stop_deadline_ms: int | None = None
    revoked_end_ms: int | None = None
    """STOPPING: when the last of the leases that were revoked for not stopping in time is over."""
    remains_until_ms: int | None = None
    """STOPPING, every participant is gone: what agents that do not kill trees left behind has until then to end."""
    claims: Claims | None = None
    """RECOVERING: what the agents hold."""
    recovery_ends_ms: int = 0
    """Until when they are waited for."""
    hold_ends_ms: int | None = None
    """When the life's hold is over; None if it is not held."""
    until_ms: int | None = None
    """When what the message waits for runs out, on the stamp's clock."""
    reason: str = ""
    headline: str = ""
    explained_at_ms: int = 0
    """When these were so, on the stamp's clock."""
    sightings: Sightings = field(default_factory=Sightings)
    leases: Deadlines[int] = field(default_factory=Deadlines)
    heard: dict[int, None] = field(default_factory=dict)
    """Live leases, who was silent for longest first."""


@dataclass(slots=True)
class Life:
    """One life of a job: its durable facts, and the soft state beside them. ``presences`` is by live lease id."""

    facts: Facts
    presences: dict[int, Presence] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
