"""What an agent knows of itself. Only a :class:`~.step.Step` changes it."""

from __future__ import annotations

from dataclasses import field, replace

from rallypoint.model import (
    FENCE_MARGIN_MS,
    NO_ROUND,
    NO_VERSION,
    AgentPhase,
    Assignment,
    Directive,
    EndpointOffer,
    JobSpec,
    Observed,
    Version,
    WatchdogStatus,
    Welcome,
    WorkerFailure,
    WorkerStatus,
)
from rallypoint.values import dataclass
from rallypoint_agent.core.effects import Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """``connect_timeout_ms``: how long to look for a coordinator from ``start_ms`` before giving up.

    ``coordinator``: where it is looked for, for messages. ``tell_delay_ms``: how long it is left untold that a round's
    workers run. By then they have begun: for that they need the cores, and to tell it takes an agent and the
    coordinator as much of them as a small program takes to start. 0 where nobody steps the core at its deadlines.
    """

    node: str
    local_world_size: int
    job_spec: JobSpec
    connect_timeout_ms: int
    start_ms: int = 0
    coordinator: str = ""
    tell_delay_ms: int = 100


@dataclass(slots=True, kw_only=True)
class Lease:
    """The right to have workers. Ids are "" and 0 while there is none.

    ``contact_ms``: when the newest acknowledged message was sent. ``base_ms``: what the fence counts from, which a
    refusal by every endpoint moves on too.
    """

    cluster_id: str = ""
    job_uid: str = ""
    lease_id: int = 0
    ttl_ms: int = 0
    contact_ms: int = 0
    base_ms: int = 0

    def is_live(self, now_ms: int) -> bool:
        """Whether a coordinator may still be counting on it."""
        return bool(self.lease_id) and now_ms < self.base_ms + self.ttl_ms

    def kill_at_ms(self) -> int:
        return self.base_ms + self.ttl_ms - FENCE_MARGIN_MS

    def term_at_ms(self, grace_ms: int) -> int:
        return self.kill_at_ms() - grace_ms


@dataclass(slots=True, kw_only=True)
class AgentState:
    phase: AgentPhase = AgentPhase.READY
    version: Version = NO_VERSION
    unsupported_version: Version = NO_VERSION
    round: int = NO_ROUND
    assignment: Assignment | None = None
    workers: dict[int, WorkerStatus] = field(default_factory=dict)
    failures: tuple[WorkerFailure, ...] = ()
    all_exited_with_0: bool = False
    fenced: bool = False
    """The lease ran out while the round's workers were alive."""
    start_ends_ms: int | None = None
    """RUNNING: until when the workers may take to start; None once they have."""
    tell_at_ms: int | None = None
    """RUNNING: when it is told that they have, unless anything else is before; None if it was."""
    unkillable_pids: tuple[int, ...] = ()
    """STOPPING: processes that SIGKILL did not end."""
    hosts_store: bool = False
    """The store of ``round`` is served here. If the workers here succeeded the others may still need it, until a
    directive says that the round is over."""
    offer_id: int = 0
    offer: EndpointOffer | None = None
    consumed_offer_id: int = 0
    hold_again_ms: int | None = None
    """No port could be held: when to try again."""
    no_port_since_ms: int | None = None
    """When a port could not be held for the first time in a row."""
    watchdog: WatchdogStatus = field(default_factory=WatchdogStatus)
    lease: Lease = field(default_factory=Lease)
    attached: bool = False
    ever_attached: bool = False
    met_nobody: bool = False
    """Whether all endpoints have refused a connect: not silence, but no coordinator."""
    waiting_since_ms: int = 0
    """When the stream broke, or the start."""
    waiting_said: str = ""
    """What goes on while there is no coordinator, as it was last said."""
    last_refusal: str = ""
    """What the last coordinator that was reached said, if it did not take us in."""
    deferred: Directive | None = None
    """STOPPING: the newest directive, acted on once the workers are gone."""
    reattach_when_gone: bool = False
    told: Observed = Observed()
    """What the last report said."""
    ending: Finish | None = None
    """How the agent will finish once its workers are gone."""
    finished: bool = False
    said: str = ""
    """For people, the last time."""

    def objection_to(self, welcome: Welcome) -> str:
        """Why the coordinator that says this cannot be ours; "" if it can."""
        ours = self.lease
        if ours.cluster_id not in ("", welcome.cluster_id, welcome.takes_over_cluster_id):
            return (
                f"the coordinator is cluster {welcome.cluster_id}, but this agent belongs to {ours.cluster_id}:"
                " all addresses given to an agent must be of one cluster"
            )
        if self.round != NO_ROUND and ours.job_uid != welcome.job_uid:
            return (
                f"the coordinator says that the job's life is {welcome.job_uid}, but this agent has run workers of"
                f" {ours.job_uid}"
            )
        return ""

    def observed(self) -> Observed:
        """The whole observed state."""
        return Observed(
            version=self.version,
            phase=self._phase_to_report(),
            round=self.round,
            workers=tuple(self.workers[rank] for rank in sorted(self.workers)),
            failures=self.failures,
            offer=self.offer,
            watchdog=self.watchdog,
            unsupported_version=self.unsupported_version,
            fenced=self.fenced,
            unkillable_pids=self.unkillable_pids,
            assignment=self.assignment,
        )

    def has_told_all(self) -> bool:
        """Whether the last report said all there is to say, but for what goes out with whatever is said next."""
        now = self.observed()
        return replace(self.told, version=now.version, watchdog=now.watchdog) == now

    def _phase_to_report(self) -> AgentPhase:
        """While the remains of workers that all succeeded are ended, the round still runs; unless they cannot be."""
        if self.phase is not AgentPhase.STOPPING or not self.all_exited_with_0:
            return self.phase
        return AgentPhase.SUCCEEDED if self.unkillable_pids else AgentPhase.RUNNING
