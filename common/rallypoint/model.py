"""The nouns of the protocol as plain values: what the two pure cores and the simulator speak.

They mirror ``protos/rallypoint/v1/types.proto`` and ``agent_service.proto``, where each field's meaning is documented;
:mod:`rallypoint.wire` converts between the two. Durations and instants are whole milliseconds (``_ms``); instants of
one machine's monotonic clock are never compared with another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import NamedTuple

from rallypoint.values import dataclass

PROTOCOL_VERSION = 1

NO_ROUND = -1
"""The round number that means "none yet"; rounds count from 0."""

HEARTBEATS_PER_LEASE = 6
"""An agent in a small fleet heartbeats so often in one ``lease_ttl``, and is acknowledged as often."""

HEARTBEATS_TO_MISS = 3
"""An agent may miss so many heartbeats and yet renew its lease before it has to fence itself, whatever the fleet."""

KILL_PATIENCE_MS = 10_000
"""A process that is still there so long after its SIGKILL is stuck in the kernel: it is *unkillable*."""

UNKILLABLE_PIDS_MAX = 64
"""So many of them are named in a report."""

START_TIMEOUT_MS_MIN = 60_000

FENCE_MARGIN_MS = 1_000
"""The agent has no live worker so long before its lease runs out."""


class Version(NamedTuple):
    """The position of a decision. Ordered by epoch, then revision."""

    epoch: int
    revision: int


NO_VERSION = Version(0, 0)


class Capability(StrEnum):
    KILLS_TREES = "KILLS_TREES"
    SELF_FENCES = "SELF_FENCES"
    HOLDS_PORT = "HOLDS_PORT"
    SENDS_OBITUARY = "SENDS_OBITUARY"


class AgentPhase(StrEnum):
    READY = "READY"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def may_have_workers(self) -> bool:
        return self in (AgentPhase.RUNNING, AgentPhase.STOPPING)


class WorkerState(StrEnum):
    """torch's ``WorkerState``: names and values are its own."""

    UNKNOWN = "UNKNOWN"
    INIT = "INIT"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @staticmethod
    def is_running(state: WorkerState) -> bool:
        """Whether a worker in this state is a live process."""
        return state in (WorkerState.HEALTHY, WorkerState.UNHEALTHY)


class JobState(StrEnum):
    GATHERING = "GATHERING"
    RECOVERING = "RECOVERING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_decided(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class ScaleUp(StrEnum):
    """When a running job takes in nodes that arrive while there is room."""

    IMMEDIATE = "IMMEDIATE"
    ON_RESTART = "ON_RESTART"
    AFTER = "AFTER"


class StoreHost(StrEnum):
    """Who serves the store in which the workers of a round find each other."""

    WORKER = "WORKER"
    AGENT = "AGENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What every agent of a job must agree on. Defaults are torchrun's where torchrun has one."""

    min_nodes: int = 1
    max_nodes: int = 1
    max_restarts: int = 0
    lease_ttl_ms: int = 30_000
    fence_grace_ms: int = 3_000
    coordinator_outage_ms: int = 3_600_000
    join_timeout_ms: int = 600_000
    last_call_timeout_ms: int = 30_000
    shutdown_timeout_ms: int = 30_000
    exit_barrier_timeout_ms: int = 300_000
    scale_up: ScaleUp = ScaleUp.IMMEDIATE
    scale_up_delay_ms: int = 0
    rejoin_wait_ms: int = 0
    no_restart_exit_codes: tuple[int, ...] = ()
    store_host: StoreHost = StoreHost.WORKER

    @property
    def heartbeat_interval_ms(self) -> int:
        """The shortest: what is issued to the agents of a small fleet."""
        return self.lease_ttl_ms // HEARTBEATS_PER_LEASE

    @property
    def longest_heartbeat_interval_ms(self) -> int:
        """What is issued at most: no longer than a lease that is long enough for its fence_grace allows."""
        until_fence_ms = self.lease_ttl_ms - self.fence_grace_ms - FENCE_MARGIN_MS
        return max(until_fence_ms // HEARTBEATS_TO_MISS, self.heartbeat_interval_ms)

    @property
    def start_timeout_ms(self) -> int:
        """How long the participants of a round may take to start their workers: as long as nodes may take to join.

        An agent gives its own start up after half of it, and so reports a failure before it would be given up itself.
        """
        return max(self.join_timeout_ms, START_TIMEOUT_MS_MIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """What may differ from node to node."""

    local_world_size: int = 1
    role: str = "default"
    node_rank: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    entrypoint: str = ""


class Blame(StrEnum):
    """What a failure was to the end of its round."""

    ROOT_CAUSE = "ROOT_CAUSE"
    CANDIDATE = "CANDIDATE"
    COLLATERAL = "COLLATERAL"


class ClockReading(NamedTuple):
    """An agent's steady clock when it sent a message, and when the acknowledgement ``acked_seq`` (0: none yet) came."""

    sent_ms: int
    acked_seq: int = 0
    acked_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFailure:
    """``fail_clock_ms`` is of its agent's steady clock; ``corrected_time_ms`` and what follows the coordinator sets."""

    node: str
    local_rank: int
    rank: int
    pid: int
    exit_code: int
    message: str = ""
    traceback: str = ""
    fail_time_ms: int = 0
    after_stop: bool = False
    fail_clock_ms: int | None = None
    corrected_time_ms: int = 0
    time_error_ms: int | None = None
    blame: Blame | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    local_rank: int
    rank: int
    pid: int = 0
    state: WorkerState = WorkerState.INIT
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogStatus:
    enabled: bool = False
    progress_time_ms: int = 0
    live_timers: int = 0
    last_expiry: str = ""


class Endpoint(NamedTuple):
    """Where the workers of a round meet: MASTER_ADDR and MASTER_PORT."""

    host: str
    port: int


class EndpointOffer(NamedTuple):
    offer_id: int
    endpoint: Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A node's place in a round."""

    round: int
    restart_count: int
    group_rank: int
    group_world_size: int
    first_rank: int
    world_size: int
    first_role_rank: int
    role_world_size: int
    endpoint: Endpoint
    offer_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job's life ended."""

    state: JobState
    reason: str
    message: str
    culprit: WorkerFailure | None = None
    candidates: tuple[WorkerFailure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything an agent has running: always whole, never a difference."""

    version: Version = NO_VERSION
    phase: AgentPhase = AgentPhase.READY
    round: int = NO_ROUND
    workers: tuple[WorkerStatus, ...] = ()
    failures: tuple[WorkerFailure, ...] = ()
    offer: EndpointOffer | None = None
    watchdog: WatchdogStatus = WatchdogStatus()
    observe_time_ms: int = 0
    unsupported_version: Version = NO_VERSION
    fenced: bool = False
    unkillable_pids: tuple[int, ...] = ()
    assignment: Assignment | None = None
    """That of ``round``, as it was told."""

    @property
    def may_have_workers(self) -> bool:
        """Whether some process of the workers may be alive."""
        return self.phase.may_have_workers or bool(self.unkillable_pids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """An agent's first message on a stream."""

    job: str
    node: str
    incarnation: str
    attach_seq: int
    job_spec: JobSpec
    node_spec: NodeSpec
    observed: Observed = Observed()
    protocol_version: int = PROTOCOL_VERSION
    capabilities: frozenset[Capability] = frozenset()
    agent_version: str = ""
    cluster_id: str = ""
    job_uid: str = ""
    lease_id: int = 0
    highest_version: Version = NO_VERSION


@dataclass(frozen=True, slots=True)
class Hold:
    """Have no worker; wait."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep what runs, start nothing; wait."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run the workers of this assignment."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Stop:
    """End the workers of a round."""

    round: int
    grace_ms: int


@dataclass(frozen=True, slots=True)
class Drain:
    """The node is drained: end the workers, say Goodbye, exit."""

    grace_ms: int


@dataclass(frozen=True, slots=True)
class Exit:
    """The job's life is decided."""

    outcome: Outcome


Action = Hold | Keep | Run | Stop | Drain | Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """What an agent should do, until one with a higher version comes. ``action`` None is a kind not known here."""

    version: Version
    job_uid: str
    reason: str
    message: str
    action: Action | None
    consumed_offer_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The answer to a Hello, with what the agent should do."""

    cluster_id: str
    job_uid: str
    lease_id: int
    lease_ttl_ms: int
    heartbeat_interval_ms: int
    job_spec: JobSpec
    directive: Directive
    coordinator_version: str = ""
    takes_over_cluster_id: str = ""
