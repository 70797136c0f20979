"""An independent account of one agent: fed with each event and its effects, it objects to what must not follow.

It knows which workers are really there, from what the core asked for and what the shell answered, and works out the
lease, the newest directive and the reasons to act by itself.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from property.demand import demand
from rallypoint.errors import Reason
from rallypoint.model import (
    FENCE_MARGIN_MS,
    NO_ROUND,
    NO_VERSION,
    AgentPhase,
    Directive,
    Drain,
    EndpointOffer,
    Exit,
    JobSpec,
    Observed,
    Run,
    StoreHost,
    Version,
    WorkerState,
)
from rallypoint_agent.core.effects import (
    CloseStore,
    Effect,
    Finish,
    FinishKind,
    HoldPort,
    KillWorker,
    Leave,
    Output,
    Reattach,
    Report,
    Say,
    SetFence,
    StartWorkers,
    StopWorkers,
)
from rallypoint_agent.core.events import (
    Attached,
    AttachRefused,
    ConnectionsRefused,
    Detached,
    DirectiveReceived,
    Event,
    GroupMonitored,
    LeaseRenewed,
    LeaseStaleReceived,
    PortHeld,
    SignalReceived,
    TimeAdvanced,
    TimerExpired,
    WorkersGone,
    WorkersStarted,
    WorkersStuck,
)


@dataclass(slots=True)
class LeaseTruth:
    """``contact_ms``: when what was acknowledged last was sent. ``base_ms``: what the fence counts from."""

    lease_id: int = 0
    job_uid: str = ""
    contact_ms: int = 0
    base_ms: int = 0


class AgentTruth:
    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.now_ms = 0
        self.lease = LeaseTruth()
        self.attached = False
        self.alone_since_ms: int | None = 0
        self.alive: int | None = None
        """The round whose workers, or what they left behind, are there."""
        self.stopping = False
        """They are being ended."""
        self.stuck: tuple[int, ...] = ()
        """SIGKILL did not end these."""
        self.start_ends_ms: int | None = None
        """Until when the workers may take to start; None once they have."""
        self.is_stale = False
        """The lease ended while workers were there."""
        self.ending = False
        """It is to finish once they are gone: it is told nothing any more."""
        self.last_round = NO_ROUND
        self.store_open = False
        """The store of that round is served."""
        self.fed: SetFence | None = None
        self.newest: Directive | None = None
        """The newest directive that was acted on, or is to be acted on once the workers are gone."""
        self.is_deferred = False
        self.reported = Observed()
        self.offer_id = 0
        self.offer: EndpointOffer | None = None
        self.lacks_named_port = False
        self.signals = 0
        self.finish: Finish | None = None

    # --- what is there

    @property
    def term_at_ms(self) -> int:
        return self.kill_at_ms - self.spec.fence_grace_ms

    @property
    def kill_at_ms(self) -> int:
        return self.lease.base_ms + self.spec.lease_ttl_ms - FENCE_MARGIN_MS

    @property
    def has_lease(self) -> bool:
        return bool(self.lease.lease_id) and self.now_ms < self.term_at_ms

    @property
    def newest_version(self) -> Version:
        return self.newest.version if self.newest is not None else NO_VERSION

    # --- steps

    def stepped(self, event: Event, at_ms: int, out: Output) -> None:
        self.now_ms = max(self.now_ms, at_ms)
        if self.finish is not None:
            demand(out == Output(), "C9", f"{event} after the end leads to {out}")
            return
        was_stale = self.is_stale
        self._learn(event)
        if self.attached:
            self.alone_since_ms = None
        elif self.alone_since_ms is None:
            self.alone_since_ms = self.now_ms
        if isinstance(event, DirectiveReceived):
            self._directed(event.directive, out.effects)
        for position, effect in enumerate(out.effects):
            self._judge(effect, event, out.effects[:position])
        self._settle_deferred()
        self._check_reattach(event, out.effects, was_stale)
        self._check_fence(event)
        self._check_waiting(out)

    def _learn(self, event: Event) -> None:
        match event:
            case Attached():
                welcome, sent_ms = event.welcome, event.hello_sent_ms
                self.lease = LeaseTruth(welcome.lease_id, welcome.job_uid, sent_ms, sent_ms)
                self.attached = True
            case Detached():
                self.attached = False
            case AttachRefused():
                self.attached = False
                self.ending = self.ending or (event.refusal.final and self.alive is not None)
                if event.refusal.reason is Reason.RECOVERING and event.hello_sent_ms is not None:
                    self._nobody_decides(event.hello_sent_ms)
            case LeaseRenewed() if self.lease.lease_id and self.attached:
                self.lease.contact_ms = max(self.lease.contact_ms, event.sent_ms)
                self.lease.base_ms = max(self.lease.base_ms, event.sent_ms)
            case ConnectionsRefused():
                self._nobody_decides(event.probe_sent_ms)
            case LeaseStaleReceived():
                self._lost_lease()
            case WorkersGone() if event.round == self.alive:
                self.alive, self.stopping, self.is_stale, self.stuck = None, False, False, ()
            case WorkersStuck() if event.round == self.alive and self.stopping and event.pids:
                self.stuck = event.pids
            case WorkersStarted() if event.round == self.alive and not self.stopping:
                self.start_ends_ms = None
            case PortHeld() if event.offer_id == self.offer_id:
                self.offer = EndpointOffer(event.offer_id, event.endpoint) if event.endpoint else None
                self.lacks_named_port = event.is_named and event.endpoint is None
            case SignalReceived():
                self.signals += 1
                self.ending = self.ending or self.alive is not None
            case _:
                pass

    def _lost_lease(self) -> None:
        self.lease.lease_id, self.attached = 0, False
        self.is_stale = self.alive is not None
        if self.is_deferred:
            self.newest, self.is_deferred = None, False

    # --- directives

    def _directed(self, directive: Directive, effects: list[Effect]) -> None:
        """A2: only what is newer than all that was acted on, or waits to be, leads to anything."""
        deeds = [effect for effect in effects if not isinstance(effect, Say)]
        is_old = directive.version <= max(self.newest_version, self.reported.version)
        is_ours = directive.job_uid == self.lease.job_uid
        demand(not deeds or (is_ours and not is_old), "A2", f"{directive} after {self.newest_version} leads to {deeds}")
        if is_old or not is_ours or directive.action is None:
            return
        if self.stopping:
            gives_up = all(isinstance(deed, Finish) and self.stuck for deed in deeds)
            demand(gives_up, "A1", f"{directive} leads to {deeds} while workers are being ended")
        if self.ending:
            return
        if self.stopping or is_acted_on(directive.version, deeds):
            self.newest = directive
            self.is_deferred = self.stopping or (self.alive is not None and isinstance(directive.action, Run))
            self.ending = self.alive is not None and isinstance(directive.action, Exit | Drain) and not self.stopping

    def _settle_deferred(self) -> None:
        """What was put off is done now that the workers are gone; a round that cannot begin may be asked for again."""
        if self.is_deferred and self.alive is None:
            self.is_deferred = False
            action = self.newest.action if self.newest is not None else None
            if isinstance(action, Run) and action.assignment.round > self.last_round:
                self.newest = None

    # --- effects

    def _judge(self, effect: Effect, event: Event, before: list[Effect]) -> None:
        match effect:
            case Report():
                self._reports(effect.observed)
            case StartWorkers():
                self._starts(effect, event, before)
            case CloseStore():
                demand(self.store_open and self.alive is None, "A4", f"{effect} while round {self.alive} runs")
                self.store_open = False
            case StopWorkers():
                self._stops(effect, event)
            case KillWorker():
                legal = (
                    isinstance(event, TimerExpired) and effect.round == event.round == self.alive and not self.stopping
                )
                demand(legal, "A5", f"{effect} because of {event}")
            case SetFence():
                expected = SetFence(self.term_at_ms, self.kill_at_ms)
                demand(effect == expected, "A3", f"{effect}, expected {expected}")
                self.fed = effect
            case HoldPort():
                demand(not self.store_open, "C10", f"{effect} while the round's store is served")
                demand(effect.offer_id > self.offer_id, "C10", f"{effect} after offer {self.offer_id}")
                self.offer_id, self.offer = effect.offer_id, None
            case Finish():
                self._finishes(effect, before)
            case _:
                pass

    def _reports(self, observed: Observed) -> None:
        acted = max(self.newest_version, self.reported.version)
        demand(self.reported.version <= observed.version <= acted, "A2", f"{observed.version} after {acted}")
        if self.alive is not None:
            demand(observed.may_have_workers, "A4", f"{observed.phase}, workers of round {self.alive} are alive")
        demand(observed.unkillable_pids == self.stuck, "A4", f"{observed.unkillable_pids}, stuck are {self.stuck}")
        demand(observed.round >= self.reported.round, "A1", f"round {observed.round} after {self.reported.round}")
        demand(observed.offer in (None, self.offer), "C10", f"offers {observed.offer}, held is {self.offer}")
        self.reported = observed

    def _starts(self, effect: StartWorkers, event: Event, before: list[Effect]) -> None:
        number = effect.assignment.round
        demand(self.alive is None, "A1", f"round {number} starts, workers of round {self.alive} are alive")
        demand(number > self.last_round, "A1", f"round {number} starts after round {self.last_round}")
        demand(isinstance(event, DirectiveReceived | WorkersGone), "A5", f"round {number} starts because of {event}")
        action = self.newest.action if self.newest is not None else None
        told = isinstance(action, Run) and action.assignment == effect.assignment
        demand(told, "A2", f"{effect}, the newest directive is {self.newest}")
        demand(self.has_lease, "A3", f"{effect} at {self.now_ms} with {self.lease}")
        fed = SetFence(self.term_at_ms, self.kill_at_ms) in before
        demand(fed, "A3", f"{effect} before the fence is fed: {before}")
        said = any(isinstance(earlier, Report) and earlier.observed.phase is AgentPhase.RUNNING for earlier in before)
        demand(said, "C4", f"{effect} before it is reported: {before}")
        hosts = self.spec.store_host is StoreHost.AGENT and effect.assignment.group_rank == 0
        demand(effect.hosts_store == hosts, "A2", f"{effect}, the job says {self.spec.store_host}")
        demand(not self.store_open, "C10", f"{effect} while the store of round {self.last_round} is served")
        self.store_open = hosts
        self.alive, self.last_round, self.stopping, self.is_deferred = number, number, False, False
        self.start_ends_ms = self.now_ms + max(self.spec.join_timeout_ms, 60_000) // 2

    def _stops(self, effect: StopWorkers, event: Event) -> None:
        demand(effect.round == self.alive, "A1", f"{effect}, alive is {self.alive}")
        demand(self._may_stop(event), "A5", f"{effect} because of {event}")
        if isinstance(event, LeaseStaleReceived):
            at_once = (effect.signal, effect.grace_ms) == (signal.SIGKILL, 0)
            demand(at_once, "A3", f"{effect} because of {event}")
        self.stopping, self.start_ends_ms = True, None

    def _nobody_decides(self, asked_ms: int) -> None:
        if self.lease.lease_id and asked_ms - self.lease.contact_ms <= self.spec.coordinator_outage_ms:
            self.lease.base_ms = max(self.lease.base_ms, asked_ms)

    def _may_stop(self, event: Event) -> bool:
        """What it is told, and the three cases in which it may on its own."""
        match event:
            case DirectiveReceived() | LeaseStaleReceived() | SignalReceived():
                return True
            case AttachRefused():
                return event.refusal.final
            case GroupMonitored():
                ended = event.state not in (WorkerState.HEALTHY, WorkerState.INIT)
                return ended and event.round == self.alive and not self.stopping
            case TimeAdvanced():
                return self.now_ms >= self.term_at_ms or self._start_is_overdue()
            case _:
                return False

    def _start_is_overdue(self) -> bool:
        return self.start_ends_ms is not None and self.now_ms >= self.start_ends_ms

    def _finishes(self, finish: Finish, before: list[Effect]) -> None:
        goodbye = any(isinstance(effect, Leave) for effect in before)
        if finish.kind is FinishKind.UNKILLABLE:
            self._gives_up(finish, goodbye)
            return
        demand(not self.store_open, "A4", f"{finish} while a store is served")
        demand(self.alive is None, "A4", f"{finish} while workers of round {self.alive} are alive")
        demand(goodbye == self.attached, "C9", f"{finish}, attached: {self.attached}, before it {before}")
        action = self.newest.action if self.newest is not None else None
        match finish.kind:
            case FinishKind.DECIDED:
                demand(action == Exit(finish.outcome) if finish.outcome else False, "C9", f"{finish}, told {action}")
            case FinishKind.DRAINED:
                demand(isinstance(action, Drain), "A5", f"{finish}, told {action}")
            case FinishKind.SIGNALLED:
                demand(self.signals, "A5", f"{finish} without a signal")
            case FinishKind.UNREACHABLE | FinishKind.BARRIER_TIMEOUT:
                demand(not self.attached, "A5", f"{finish} while attached")
            case FinishKind.NO_PORT:
                demand(self.lacks_named_port, "A5", f"{finish}, though any port would do")
            case FinishKind.REFUSED:
                pass
        self.finish = finish

    def _gives_up(self, finish: Finish, goodbye: bool) -> None:
        """A4's exception: it was told to end, or left alone, and says neither that nothing is alive, nor goodbye."""
        demand(self.stuck, "A4", f"{finish}, but nothing is stuck")
        demand(not goodbye, "A4", f"goodbye before {finish}")
        demand(all(str(pid) in finish.message for pid in self.stuck), "A4", f"{finish} does not name {self.stuck}")
        told = self.newest is not None and isinstance(self.newest.action, Exit | Drain)
        demand(told or self.signals or self.ending or self._is_left_alone, "A5", f"{finish}, told {self.newest}")
        self.finish = finish

    @property
    def _is_left_alone(self) -> bool:
        """It was without a coordinator or a lease for as long as an agent without workers would wait."""
        patience_ms = max(self.spec.join_timeout_ms, self.spec.coordinator_outage_ms)
        return self.alone_since_ms is not None and self.now_ms - self.alone_since_ms >= patience_ms

    # --- after a step

    def _check_reattach(self, event: Event, effects: list[Effect], was_stale: bool) -> None:
        """A3: after a lease that ended it attaches anew, once no worker of that lease is there."""
        anew = sum(isinstance(effect, Reattach) for effect in effects)
        ended_idle = isinstance(event, LeaseStaleReceived) and self.alive is None
        due = ended_idle or (was_stale and self.alive is None)
        demand(anew == due, "A3", f"{event}: {anew} times anew, lease {self.lease}, alive {self.alive}")

    def _check_fence(self, event: Event) -> None:
        """A3: the fence follows the lease; workers without one are being ended as soon as somebody looks."""
        if self.alive is None or self.stopping:
            return
        demand(not self.is_stale, "A3", f"{event}: workers go on under a lease that ended")
        expected = SetFence(self.term_at_ms, self.kill_at_ms)
        demand(self.fed == expected, "A3", f"{event}: the fence is {self.fed}, not {expected}")
        late = isinstance(event, TimeAdvanced) and self._start_is_overdue()
        demand(not late, "C8", f"at {self.now_ms} the workers have not started, they had until {self.start_ends_ms}")
        over = isinstance(event, TimeAdvanced) and self.now_ms >= self.term_at_ms
        demand(not over, "A3", f"at {self.now_ms} workers go on, the fence was at {self.term_at_ms}")

    def _check_waiting(self, out: Output) -> None:
        """C8: it looks again in time, and never waits without end for a coordinator."""
        if self.finish is not None:
            demand(out.next_deadline_ms is None, "C8", f"it is over, and due at {out.next_deadline_ms}")
            return
        due_ms = out.next_deadline_ms
        if self.alive is not None and not self.stopping:
            demand(due_ms is not None and due_ms <= self.term_at_ms, "A3", f"due at {due_ms}, not {self.term_at_ms}")
            starts = self.start_ends_ms is None or (due_ms is not None and due_ms <= self.start_ends_ms)
            demand(starts, "C8", f"due at {due_ms}, not {self.start_ends_ms}")
        elif self.alive is None and not self.attached:
            demand(due_ms is not None, "C8", "waits for a coordinator without end")


def is_acted_on(version: Version, deeds: Sequence[Effect]) -> bool:
    """To report anew without claiming the directive is no deed."""
    return any(not isinstance(deed, Report) or deed.observed.version >= version for deed in deeds)
