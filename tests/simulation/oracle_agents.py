"""What each agent does: on newer directives only (A2), on its own only when it may (A5), and how it ends (C9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rallypoint.errors import Reason, Refusal
from rallypoint.model import FENCE_MARGIN_MS, NO_VERSION, Drain, Exit, JobSpec, Version
from rallypoint_agent.core.effects import Effect, Finish, FinishKind, Report, Say, StartWorkers, StopWorkers
from rallypoint_agent.core.events import (
    Attached,
    AttachRefused,
    ConnectionsRefused,
    DirectiveReceived,
    Event,
    GroupMonitored,
    LeaseRenewed,
    LeaseStaleReceived,
    SignalReceived,
    TimeAdvanced,
    WorkersGone,
    WorkersStarted,
)
from simulation.keeper_group import Group
from simulation.oracle_journal import JournalOracle
from simulation.truth import History
from simulation.world import Violation, World


@dataclass(slots=True)
class AgentTruth:
    """Of one incarnation. ``base_ms``: what its fence counts from, on its own clock, by what it was told."""

    job: str
    spec: JobSpec
    heard_ms: int
    job_uid: str = ""
    ended_uid: str = ""
    """The life that told it to go: it may have been attached to another one since, before it looked."""
    contact_ms: int = 0
    base_ms: int = 0
    acted: Version = NO_VERSION
    reported: Version = NO_VERSION
    start_ends_ms: int | None = None
    """Until when its workers may take to start, on its own clock; None if none are starting."""
    signalled: bool = False
    refusal: Refusal | None = None


class AgentOracle:
    def __init__(self, world: World, journal: JournalOracle) -> None:
        self._world = world
        self._journal = journal
        self._agents: dict[str, AgentTruth] = {}

    def started(self, incarnation: str, job: str, spec: JobSpec) -> None:
        self._agents[incarnation] = AgentTruth(job=job, spec=spec, heard_ms=self._world.now_ms)

    def heard(self, incarnation: str) -> None:
        """Anything at all came from the coordinator."""
        self._agents[incarnation].heard_ms = self._world.now_ms

    # --- steps

    def stepped(self, incarnation: str, event: Event, effects: Iterable[Effect], now_ms: int) -> None:
        agent = self._agents[incarnation]
        self._learn(agent, event)
        deeds = [effect for effect in effects if not isinstance(effect, Say)]
        if isinstance(event, DirectiveReceived) and is_acted_on(event.directive.version, deeds):
            self._acted(incarnation, agent, event)
        for effect in deeds:
            if isinstance(effect, StartWorkers):
                agent.start_ends_ms = now_ms + max(agent.spec.join_timeout_ms, 60_000) // 2
            if isinstance(effect, Report):
                self._reported(incarnation, agent, effect)
            elif isinstance(effect, StopWorkers) and not self._may_stop(agent, event, now_ms):
                raise Violation("A5", f"{incarnation} ends its workers because of {event}")
            elif isinstance(effect, StartWorkers) and not isinstance(event, DirectiveReceived | WorkersGone):
                raise Violation("A5", f"{incarnation} starts workers because of {event}")

    def _learn(self, agent: AgentTruth, event: Event) -> None:
        match event:
            case Attached():
                agent.job_uid = event.welcome.job_uid
                agent.contact_ms = agent.base_ms = event.hello_sent_ms
            case LeaseRenewed():
                agent.contact_ms = max(agent.contact_ms, event.sent_ms)
                agent.base_ms = max(agent.base_ms, event.sent_ms)
            case ConnectionsRefused():
                self._hold(agent, event.probe_sent_ms)
            case WorkersStarted():
                agent.start_ends_ms = None
            case SignalReceived():
                agent.signalled = True
            case AttachRefused():
                agent.refusal = event.refusal
                if event.refusal.reason is Reason.RECOVERING and event.hello_sent_ms is not None:
                    self._hold(agent, event.hello_sent_ms)
            case _:
                pass

    @staticmethod
    def _hold(agent: AgentTruth, asked_ms: int) -> None:
        if asked_ms - agent.contact_ms <= agent.spec.coordinator_outage_ms:
            agent.base_ms = max(agent.base_ms, asked_ms)

    def _acted(self, incarnation: str, agent: AgentTruth, event: DirectiveReceived) -> None:
        version = event.directive.version
        if version <= agent.acted:
            raise Violation("A2", f"{incarnation} acts on {event.directive} after {agent.acted}")
        agent.acted = version
        if isinstance(event.directive.action, Exit | Drain):
            agent.ended_uid = agent.ended_uid or event.directive.job_uid

    def _reported(self, incarnation: str, agent: AgentTruth, report: Report) -> None:
        if report.observed.version < agent.reported:
            raise Violation("A2", f"{incarnation} reports {report.observed.version} after {agent.reported}")
        agent.reported = report.observed.version
        agent.acted = max(agent.acted, agent.reported)

    def _may_stop(self, agent: AgentTruth, event: Event, now_ms: int) -> bool:
        """The three cases in which it may on its own, and what it is told."""
        fence_ms = agent.base_ms + agent.spec.lease_ttl_ms - FENCE_MARGIN_MS - agent.spec.fence_grace_ms
        if now_ms >= fence_ms:
            return True
        if isinstance(event, TimeAdvanced) and agent.start_ends_ms is not None:
            return now_ms >= agent.start_ends_ms
        if isinstance(event, AttachRefused):
            return event.refusal.final
        return isinstance(event, DirectiveReceived | GroupMonitored | LeaseStaleReceived | SignalReceived)

    # --- ends

    def leaves(self, incarnation: str, group: Group | None) -> None:
        """A Goodbye says that its workers are gone."""
        if group is not None and group.live:
            raise Violation("A4", f"{incarnation} says goodbye while its workers of round {group.round} are alive")

    def finished(self, incarnation: str, node: str, finish: Finish, group: Group | None) -> None:
        agent = self._agents[incarnation]
        unkillable = finish.kind is FinishKind.UNKILLABLE and group is not None and group.stuck
        if group is not None and group.live and not unkillable:
            raise Violation("A4", f"{incarnation} finishes while its workers are alive")
        silent_ms = self._world.now_ms - agent.heard_ms
        ok, told_by = False, agent.ended_uid or agent.job_uid
        match finish.kind:
            case FinishKind.DECIDED:
                ok = finish.outcome in self._journal.outcomes[told_by]
            case FinishKind.DRAINED:
                ok = told_by in self._journal.drained
            case FinishKind.UNKILLABLE:
                ok = unkillable
            case FinishKind.SIGNALLED:
                ok = agent.signalled
            case FinishKind.REFUSED:
                ok = self._is_refused_rightly(incarnation, node, agent)
            case FinishKind.NO_PORT:
                pass  # any port will do here
            case FinishKind.BARRIER_TIMEOUT:
                ok = silent_ms >= agent.spec.exit_barrier_timeout_ms * 0.99
            case FinishKind.UNREACHABLE:
                ok = silent_ms >= self._longest_wait_ms(agent) * 0.99
        if finish.kind is not FinishKind.DECIDED:
            self._journal.is_calm = False  # the coordinator was down for longer than an agent waits
        if not ok:
            raise Violation("C9", f"{incarnation} ends with {finish}, heard of the coordinator {silent_ms} ms ago")

    def _longest_wait_ms(self, agent: AgentTruth) -> int:
        if not agent.job_uid:
            return CONNECT_TIMEOUT_MS
        return max(agent.spec.join_timeout_ms, agent.spec.coordinator_outage_ms)

    def _is_refused_rightly(self, incarnation: str, node: str, agent: AgentTruth) -> bool:
        """Another has the node's name, the job has another spec, or the life is forgotten; or records are lost."""
        reason = agent.refusal.reason if agent.refusal is not None else None
        if reason in LOST_REFUSALS and self._journal.lost:
            return True
        if reason is Reason.SPEC_MISMATCH:
            return self._journal.has_other_spec(agent.job, agent.spec)
        if reason is Reason.UNKNOWN_LIFE:
            return agent.job_uid in self._journal.forgotten
        if reason is not Reason.NODE_NAME_IN_USE:
            return False
        return any(_is_anothers(node, incarnation, it) for it in (self._journal.history, *self._journal.lost))


def _is_anothers(node: str, incarnation: str, history: History) -> bool:
    """Or was, until an earlier Hello of its own came late and was taken: the refusal was on its way then."""
    holders = [lease.incarnation for lease in history.leases.values() if lease.node == node]
    return any(holder != incarnation for holder in holders[-2:])


def is_acted_on(version: Version, deeds: Iterable[Effect]) -> bool:
    """To report anew without claiming the directive is no deed."""
    return any(not isinstance(deed, Report) or deed.observed.version >= version for deed in deeds)


LOST_REFUSALS = frozenset({Reason.WRONG_CLUSTER, Reason.UNKNOWN_LIFE})
"""What was lost may not come back: too late, or another life of the job runs meanwhile."""

CONNECT_TIMEOUT_MS = 60_000
"""How long an agent looks for a coordinator before it gives up."""
