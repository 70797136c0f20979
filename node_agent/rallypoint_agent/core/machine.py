"""The agent's decisions: the life of the local worker group, and the fence. Synchronous, total, deterministic.

An agent acts on its own in three cases only: a worker of its own failed, the fence, a signal. Everything else waits for
a directive, and :data:`ON_DIRECTIVE` (phase x action) says what each directive means in each phase.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rallypoint.errors import Reason
from rallypoint.limits import FAILURES_MAX
from rallypoint.model import (
    UNKILLABLE_PIDS_MAX,
    Action,
    AgentPhase,
    Directive,
    Drain,
    EndpointOffer,
    Exit,
    Hold,
    Keep,
    Run,
    Stop,
    StoreHost,
    WorkerFailure,
    WorkerState,
    WorkerStatus,
)
from rallypoint_agent.core.contact import SAY_AFTER_MS, given_up, gives_up_at_ms, sentence, waiting
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
    SetIdentity,
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
    WatchdogChanged,
    WorkersGone,
    WorkersStarted,
    WorkersStuck,
)
from rallypoint_agent.core.state import AgentConfig, AgentState, Lease
from rallypoint_agent.core.stuck import never_started, start_timeout_ms, still_there, why_to_end

PORT_RETRY_MS = 1_000
"""How long to wait before another try to hold a port."""

NAMED_PORT_PATIENCE_MS = 5_000
"""So long a port that the user asked for may be busy: something of the last round may still be using it."""


class IllegalEventError(Exception):
    """An event that cannot be: its shell is at fault. Nothing was changed."""


class AgentCore:
    """One incarnation of an agent. ``state`` is for reading."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.state = AgentState(waiting_since_ms=config.start_ms)
        self._now_ms = config.start_ms
        self._effects: list[Effect] = []
        self._said = ""

    def step(self, event: Event, at_ms: int) -> Output:
        """What the event leads to. ``at_ms`` is CLOCK_BOOTTIME; a clock that seems to go back stands still.

        Raises IllegalEventError.
        """
        self._now_ms = max(self._now_ms, at_ms)
        self._effects = []
        if not self.state.finished:
            if self.state.offer_id == 0:
                self._hold_port()
            _HANDLERS[type(event)](self, event)
        return Output(self._effects, self._next_deadline_ms())

    # --- the link

    def _attached(self, event: Attached) -> None:
        s, welcome = self.state, event.welcome
        objection = s.objection_to(welcome)
        if objection:
            self._refuse_welcome(objection)
            return
        if not s.attached:
            self._say(f"attached to job life {welcome.job_uid}, lease {welcome.lease_id}")
        s.attached = s.ever_attached = True
        s.last_refusal = s.waiting_said = ""
        s.lease = Lease(
            cluster_id=welcome.cluster_id,
            job_uid=welcome.job_uid,
            lease_id=welcome.lease_id,
            ttl_ms=welcome.lease_ttl_ms,
            contact_ms=event.hello_sent_ms,
            base_ms=event.hello_sent_ms,
        )
        self._set_identity()
        self._set_fence()

    def _refuse_welcome(self, objection: str) -> None:
        """Nothing that comes on this stream counts, so it renews no lease either."""
        self._detached(Detached())
        self._end(Finish(kind=FinishKind.REFUSED, message=objection), stop_signal=None)

    def _detached(self, event: Detached) -> None:
        if self.state.attached:
            self.state.attached = False
            self.state.waiting_since_ms = self._now_ms
            self._say("lost contact with the coordinator, trying to attach again")

    def _attach_refused(self, event: AttachRefused) -> None:
        self._detached(Detached())
        self._say(f"refused: {event.refusal.message}")
        self.state.last_refusal = event.refusal.message
        if event.refusal.reason is Reason.NODE_NAME_BUSY:
            self._told_to_come_back()
        if event.refusal.reason is Reason.RECOVERING and event.hello_sent_ms is not None:
            self._hold_workers(event.hello_sent_ms)
        if event.refusal.final:
            finish = Finish(kind=FinishKind.REFUSED, message=event.refusal.message)
            self._end(finish, stop_signal=None)

    def _told_to_come_back(self) -> None:
        """A coordinator was reached: the waiting for one begins anew."""
        self.state.waiting_since_ms = self._now_ms

    def _lease_renewed(self, event: LeaseRenewed) -> None:
        lease = self.state.lease
        if lease.lease_id and self.state.attached and event.sent_ms > lease.contact_ms:
            lease.contact_ms = event.sent_ms
            lease.base_ms = max(lease.base_ms, event.sent_ms)
            self._set_fence()

    def _connections_refused(self, event: ConnectionsRefused) -> None:
        self.state.last_refusal = ""
        self._hold_workers(event.probe_sent_ms)

    def _hold_workers(self, asked_ms: int) -> None:
        """Nobody could re-form the job when we asked: the workers are held, within the outage that the job allows."""
        lease = self.state.lease
        outage_ms = asked_ms - lease.contact_ms
        if not lease.lease_id or outage_ms > self.config.job_spec.coordinator_outage_ms:
            return
        if asked_ms > lease.base_ms:
            lease.base_ms = asked_ms
            self._set_fence()

    def _lease_stale(self, event: LeaseStaleReceived) -> None:
        """The coordinator may have counted us as gone: the workers must end now, before it re-forms the job."""
        self._say(f"the lease is no longer ours: {event.message}")
        self._detached(Detached())
        self._told_to_come_back()
        self.state.lease.lease_id = 0
        self.state.deferred = None
        self._set_identity()
        if self.state.phase.may_have_workers:
            self.state.reattach_when_gone = True
            self._stop_workers(signal.SIGKILL, 0)
        else:
            self._effect(Reattach())

    def _directive(self, event: DirectiveReceived) -> None:
        s, directive = self.state, event.directive
        newest = s.deferred.version if s.deferred else s.version
        if directive.version <= newest or directive.job_uid != s.lease.job_uid or s.ending:
            return
        if directive.action is None:
            self._cannot_act(directive)
            return
        s.consumed_offer_id = max(s.consumed_offer_id, directive.consumed_offer_id)
        self._act(directive, directive.action)

    def _cannot_act(self, directive: Directive) -> None:
        if directive.version > self.state.unsupported_version:
            self.state.unsupported_version = directive.version
            self._say(f"a directive of a kind not known here, reason {directive.reason}: keeping the current state")
            self._report()

    # --- directives

    def _act(self, directive: Directive, action: Action) -> None:
        ON_DIRECTIVE[self.state.phase][type(action)](self, directive)

    def _accept(self, directive: Directive) -> None:
        self.state.version = directive.version

    def _note(self, directive: Directive) -> None:
        """Nothing to do but to show that it was seen."""
        self._accept(directive)
        if isinstance(directive.action, Hold | Stop):
            self._close_store()
        self._say(directive.message)
        self._offer_and_report()

    def _note_void(self, directive: Directive) -> None:
        """The round is ended for everyone, so how it ended here counts no more."""
        self.state.phase = AgentPhase.READY
        self.state.all_exited_with_0 = False
        self._note(directive)

    def _start(self, directive: Directive) -> None:
        s, action = self.state, directive.action
        assert isinstance(action, Run)
        assignment = action.assignment
        if assignment.round <= s.round:
            self._note(directive)
            return
        if not self._has_lease():
            self._say(f"not starting round {assignment.round}: the lease has run out")
            self._report()
            return
        self._accept(directive)
        s.phase, s.round, s.assignment = AgentPhase.RUNNING, assignment.round, assignment
        s.failures, s.all_exited_with_0, s.fenced = (), False, False
        s.start_ends_ms = self._now_ms + start_timeout_ms(self.config)
        s.consumed_offer_id = max(s.consumed_offer_id, assignment.offer_id)
        s.workers = {
            local_rank: WorkerStatus(local_rank=local_rank, rank=assignment.first_rank + local_rank)
            for local_rank in range(self.config.local_world_size)
        }
        self._say(directive.message)
        self._report()
        self._set_fence()
        self._close_store()
        s.hosts_store = self.config.job_spec.store_host is StoreHost.AGENT and assignment.group_rank == 0
        self._effect(StartWorkers(assignment, s.hosts_store))

    def _keep_or_switch(self, directive: Directive) -> None:
        """The same round: it runs already. Another one: this one was ended without our hearing of it."""
        assert isinstance(directive.action, Run)
        if directive.action.assignment.round == self.state.round:
            self._accept(directive)
            self._report()
        else:
            self.state.deferred = directive
            self._stop_because(directive)

    def _stop_for(self, directive: Directive) -> None:
        self._accept(directive)
        self._stop_because(directive)

    def _stop_because(self, directive: Directive) -> None:
        self._say(f"stopping the workers of round {self.state.round}: {directive.message}")
        grace_ms = self.config.job_spec.shutdown_timeout_ms
        if isinstance(directive.action, Stop):
            grace_ms = directive.action.grace_ms
        self._stop_workers(None, grace_ms)

    def _defer(self, directive: Directive) -> None:
        """Acted on once the workers are gone; the newest replaces the others."""
        self.state.deferred = directive
        if self.state.unkillable_pids:
            self._give_up_if_told_to_end()

    def _exit(self, directive: Directive) -> None:
        assert isinstance(directive.action, Exit)
        self._accept(directive)
        outcome = directive.action.outcome
        finish = Finish(kind=FinishKind.DECIDED, message=outcome.message, outcome=outcome)
        self._end(finish, stop_signal=None)

    def _drain(self, directive: Directive) -> None:
        self._accept(directive)
        self._end(Finish(kind=FinishKind.DRAINED, message=directive.message), stop_signal=None)

    # --- the workers

    def _workers_started(self, event: WorkersStarted) -> None:
        s = self.state
        if event.round != s.round or s.phase is not AgentPhase.RUNNING:
            return
        if unknown := event.pids.keys() - s.workers.keys():
            raise IllegalEventError(f"round {s.round} has no worker of local rank {min(unknown)}")
        s.start_ends_ms = None
        for local_rank, pid in event.pids.items():
            s.workers[local_rank] = replace(s.workers[local_rank], pid=pid, state=WorkerState.HEALTHY)
        self._report()

    def _group_monitored(self, event: GroupMonitored) -> None:
        s = self.state
        running = event.round == s.round and s.phase is AgentPhase.RUNNING
        if not running or event.state in (WorkerState.HEALTHY, WorkerState.INIT):
            return
        if event.state is WorkerState.SUCCEEDED:
            self._all_exited_with_0()
        else:
            self._own_failure(event.failures)

    def _all_exited_with_0(self) -> None:
        """What the workers left behind ends with them; not reported before that: the round has not ended yet."""
        s = self.state
        s.all_exited_with_0 = True
        s.phase, s.start_ends_ms = AgentPhase.STOPPING, None
        self._effect(StopWorkers(s.round, None, self.config.job_spec.shutdown_timeout_ms))

    def _own_failure(self, failures: tuple[WorkerFailure, ...]) -> None:
        """Report first, so that the others stop while we do."""
        self._note_failures(failures)
        ranks = ", ".join(str(failure.rank) for failure in failures)
        self._say(f"round {self.state.round}: rank {ranks} failed, stopping the local workers")
        self._stop_workers(None, self.config.job_spec.shutdown_timeout_ms)

    def _workers_gone(self, event: WorkersGone) -> None:
        s = self.state
        if event.round != s.round or not s.phase.may_have_workers:
            return
        if s.phase is AgentPhase.RUNNING:
            self._say("the keeper ended the workers: the lease had run out")
            s.fenced = True
        self._note_failures(event.failures)
        if s.unkillable_pids:
            self._say(f"the workers of round {s.round} are gone at last")
        s.unkillable_pids = ()
        s.phase = self._phase_when_gone()
        if s.phase is not AgentPhase.SUCCEEDED:
            self._close_store()
        final = WorkerState.SUCCEEDED if s.phase is AgentPhase.SUCCEEDED else WorkerState.STOPPED
        for local_rank, worker in s.workers.items():
            if worker.state is not WorkerState.FAILED:
                s.workers[local_rank] = replace(worker, state=final)
        self._go_on()

    def _workers_stuck(self, event: WorkersStuck) -> None:
        """SIGKILL does not end them: say so, and go on with them until they end, or we are told to."""
        s = self.state
        if event.round != s.round or s.phase is not AgentPhase.STOPPING or not event.pids:
            return
        s.unkillable_pids = event.pids[:UNKILLABLE_PIDS_MAX]
        for local_rank, worker in s.workers.items():
            if worker.pid in s.unkillable_pids:
                s.workers[local_rank] = replace(worker, state=WorkerState.UNHEALTHY)
        self._say(f"{still_there(s.unkillable_pids)}: this node takes part in no round until that has ended")
        self._report()
        self._give_up_if_told_to_end()

    def _give_up_if_told_to_end(self) -> None:
        """There is nothing left to wait for. The keeper goes on trying after our end."""
        why = why_to_end(self.state)
        if why is not None:
            self._give_up(why)

    def _give_up(self, why: str) -> None:
        s = self.state
        s.finished = True
        message = f"{why}; {still_there(s.unkillable_pids)}"
        self._effect(Finish(kind=FinishKind.UNKILLABLE, message=message))

    def _phase_when_gone(self) -> AgentPhase:
        if self.state.all_exited_with_0:
            return AgentPhase.SUCCEEDED
        own = any(not failure.after_stop for failure in self.state.failures)
        return AgentPhase.FAILED if own else AgentPhase.READY

    def _go_on(self) -> None:
        """No worker is alive any more: do what waited for that."""
        s = self.state
        deferred, s.deferred = s.deferred, None
        if s.reattach_when_gone:
            s.reattach_when_gone = False
            self._report()
            self._effect(Reattach())
        if s.ending is not None:
            self._report()
            self._finish(s.ending)
        elif deferred is not None and deferred.action is not None:
            self._act(deferred, deferred.action)
        else:
            self._offer_and_report()

    def _note_failures(self, failures: tuple[WorkerFailure, ...]) -> None:
        s = self.state
        s.failures = (*s.failures, *failures)[:FAILURES_MAX]
        for failure in failures:
            if failure.local_rank in s.workers:
                s.workers[failure.local_rank] = replace(
                    s.workers[failure.local_rank], state=WorkerState.FAILED, exit_code=failure.exit_code
                )

    def _stop_workers(self, stop_signal: int | None, grace_ms: int) -> None:
        self.state.phase, self.state.start_ends_ms = AgentPhase.STOPPING, None
        self._report()
        self._effect(StopWorkers(self.state.round, stop_signal, grace_ms))

    def _close_store(self) -> None:
        if self.state.hosts_store:
            self.state.hosts_store = False
            self._effect(CloseStore())

    # --- the rendezvous port

    def _port_held(self, event: PortHeld) -> None:
        s = self.state
        if event.offer_id != s.offer_id:
            return
        s.offer = EndpointOffer(event.offer_id, event.endpoint) if event.endpoint else None
        if event.endpoint is not None:
            s.no_port_since_ms = None
            self._report()
        elif event.is_named and self._is_port_overdue():
            self._end(Finish(kind=FinishKind.NO_PORT, message=event.problem), stop_signal=None)
        else:
            s.hold_again_ms = self._now_ms + PORT_RETRY_MS
            self._say(f"this node cannot take part yet: {event.problem}")
            self._report()

    def _is_port_overdue(self) -> bool:
        """Only who waits for the next round needs one: a success waits for nothing but the others'."""
        s = self.state
        if s.no_port_since_ms is None:
            s.no_port_since_ms = self._now_ms
        overdue = self._now_ms - s.no_port_since_ms >= NAMED_PORT_PATIENCE_MS
        return overdue and s.phase in (AgentPhase.READY, AgentPhase.FAILED)

    def _offer_and_report(self) -> None:
        """Have a port ready that no round has used; the report follows once it is held.

        Not while a store is served: its round goes on, and the port may be the only one that the user allows.
        """
        s = self.state
        if not s.phase.may_have_workers and not s.hosts_store and s.offer_id <= s.consumed_offer_id:
            self._hold_port()
        else:
            self._report()

    def _hold_port(self) -> None:
        s = self.state
        s.offer_id = max(s.offer_id, s.consumed_offer_id) + 1
        s.offer = s.hold_again_ms = None
        self._effect(HoldPort(s.offer_id))

    # --- the watchdog

    def _watchdog_changed(self, event: WatchdogChanged) -> None:
        """Timers come and go all the time: what matters goes out at once, the rest with whatever is said next."""
        before, self.state.watchdog = self.state.watchdog, event.status
        if (before.enabled, before.last_expiry) != (event.status.enabled, event.status.last_expiry):
            self._report()

    def _timer_expired(self, event: TimerExpired) -> None:
        """The worker has failed, only it does not know. All else follows from its end. A round that ends is ended."""
        s = self.state
        if event.round != s.round or s.phase is not AgentPhase.RUNNING or event.local_rank not in s.workers:
            return
        reason = f"its timer expired, scope {event.scope}"
        self._say(f"round {s.round}: rank {s.workers[event.local_rank].rank} is to be killed: {reason}")
        self._effect(KillWorker(s.round, event.local_rank, event.signal, reason))

    # --- time

    def _time_advanced(self, event: TimeAdvanced) -> None:
        self._check_fence()
        self._check_start()
        self._check_contact()
        self._check_port()

    def _check_fence(self) -> None:
        if self.state.phase is AgentPhase.RUNNING and not self._has_lease():
            self._say("the lease runs out: ending the workers, the job may go on without this node")
            self.state.fenced = True
            self._stop_workers(signal.SIGTERM, self.config.job_spec.fence_grace_ms)

    def _check_start(self) -> None:
        s = self.state
        if s.phase is AgentPhase.RUNNING and s.start_ends_ms is not None and self._now_ms >= s.start_ends_ms:
            self._own_failure((never_started(s, self.config, self._now_ms),))

    def _check_port(self) -> None:
        hold_again_ms = self._hold_again_ms()
        if hold_again_ms is not None and self._now_ms >= hold_again_ms:
            self._hold_port()

    def _check_contact(self) -> None:
        gives_up_ms = gives_up_at_ms(self.state, self.config)
        if gives_up_ms is not None and self._now_ms >= gives_up_ms:
            finish = given_up(self.state, self.config, self._now_ms)
            if self.state.unkillable_pids:
                self._give_up(finish.message)
            else:
                self._finish(finish)
        else:
            self._explain_waiting()

    def _explain_waiting(self) -> None:
        say_at_ms = self._explain_at_ms()
        kind = waiting(self.state, self.config, self._now_ms)
        if kind is None or say_at_ms is None or self._now_ms < say_at_ms:
            return
        self.state.waiting_said = kind
        self._say(sentence(kind, self.state, self.config, self._now_ms))

    def _explain_at_ms(self) -> int | None:
        """When to say what goes on without a coordinator: not at once, and each of it once."""
        kind = waiting(self.state, self.config, self._now_ms)
        return None if kind in (None, self.state.waiting_said) else self.state.waiting_since_ms + SAY_AFTER_MS

    def _hold_again_ms(self) -> int | None:
        """When to try again to hold a port, if none could be had and one is still wanted."""
        s = self.state
        unwanted = s.phase.may_have_workers or s.ending or s.finished
        return None if unwanted else s.hold_again_ms

    def _fence_at_ms(self) -> int:
        return self.state.lease.term_at_ms(self.config.job_spec.fence_grace_ms)

    def _has_lease(self) -> bool:
        """Whether workers may be alive: from the moment the fence strikes on they may not."""
        return bool(self.state.lease.lease_id) and self._now_ms < self._fence_at_ms()

    def _next_deadline_ms(self) -> int | None:
        s = self.state
        if s.finished:
            return None
        fenced = s.phase is AgentPhase.RUNNING
        fence_at_ms = self._fence_at_ms() if fenced else None
        gives_up_ms = gives_up_at_ms(s, self.config)
        start_ends_ms = s.start_ends_ms if fenced else None
        deadlines = [gives_up_ms, self._explain_at_ms(), self._hold_again_ms(), fence_at_ms, start_ends_ms]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _set_fence(self) -> None:
        lease = self.state.lease
        if self.state.phase.may_have_workers and lease.lease_id:
            self._effect(SetFence(self._fence_at_ms(), lease.kill_at_ms()))

    def _set_identity(self) -> None:
        lease = self.state.lease
        self._effect(SetIdentity(lease.cluster_id, lease.job_uid, lease.lease_id))

    # --- the end

    def _signal(self, event: SignalReceived) -> None:
        if self.state.ending is not None:
            if self.state.phase.may_have_workers:
                self._effect(StopWorkers(self.state.round, signal.SIGKILL, 0))
            return
        finish = Finish(
            kind=FinishKind.SIGNALLED, message=f"ended by {signal.Signals(event.signal).name}", signal=event.signal
        )
        self._end(finish, stop_signal=event.signal)

    def _end(self, finish: Finish, *, stop_signal: int | None) -> None:
        """Finish, once no worker is alive. From now on no port is offered, so that no round is formed with us."""
        s = self.state
        s.offer = None
        if s.unkillable_pids:
            self._give_up(finish.message)
        elif s.phase.may_have_workers:
            s.ending = finish
            self._stop_workers(stop_signal, self.config.job_spec.shutdown_timeout_ms)
        else:
            self._finish(finish)

    def _finish(self, finish: Finish) -> None:
        self.state.finished = True
        self._close_store()
        if self.state.attached:
            self._effect(Leave(_GOODBYE.get(finish.kind, "SIGNAL"), finish.message))
        self._effect(finish)

    # --- small things

    def _effect(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _report(self) -> None:
        self._effect(Report(self.state.observed()))

    def _say(self, message: str) -> None:
        """Once: what is true still needs no second line."""
        if message != self._said:
            self._said = message
            self._effect(Say(message))


_GOODBYE = {
    FinishKind.DECIDED: "JOB_DECIDED",
    FinishKind.DRAINED: "DRAINED",
    FinishKind.NO_PORT: "AGENT_FAILED",
}

_Directed = Callable[[AgentCore, Directive], None]

_NO_WORKERS: Mapping[type[Action], _Directed] = {
    Hold: AgentCore._note,
    Keep: AgentCore._note,
    Run: AgentCore._start,
    Stop: AgentCore._note,
    Drain: AgentCore._drain,
    Exit: AgentCore._exit,
}

ON_DIRECTIVE: Mapping[AgentPhase, Mapping[type[Action], _Directed]] = {
    AgentPhase.READY: _NO_WORKERS,
    AgentPhase.RUNNING: {
        Hold: AgentCore._stop_for,
        Keep: AgentCore._note,
        Run: AgentCore._keep_or_switch,
        Stop: AgentCore._stop_for,
        Drain: AgentCore._drain,
        Exit: AgentCore._exit,
    },
    AgentPhase.STOPPING: {
        Hold: AgentCore._defer,
        Keep: AgentCore._defer,
        Run: AgentCore._defer,
        Stop: AgentCore._defer,
        Drain: AgentCore._defer,
        Exit: AgentCore._defer,
    },
    AgentPhase.SUCCEEDED: {**_NO_WORKERS, Stop: AgentCore._note_void},
    AgentPhase.FAILED: {**_NO_WORKERS, Stop: AgentCore._note_void},
}
"""Phase -> action -> what is done."""

_HANDLERS: Mapping[type[Event], Callable[[AgentCore, Any], None]] = {
    Attached: AgentCore._attached,
    Detached: AgentCore._detached,
    AttachRefused: AgentCore._attach_refused,
    DirectiveReceived: AgentCore._directive,
    LeaseRenewed: AgentCore._lease_renewed,
    LeaseStaleReceived: AgentCore._lease_stale,
    ConnectionsRefused: AgentCore._connections_refused,
    WorkersStarted: AgentCore._workers_started,
    GroupMonitored: AgentCore._group_monitored,
    WorkersGone: AgentCore._workers_gone,
    WorkersStuck: AgentCore._workers_stuck,
    PortHeld: AgentCore._port_held,
    WatchdogChanged: AgentCore._watchdog_changed,
    TimerExpired: AgentCore._timer_expired,
    SignalReceived: AgentCore._signal,
    TimeAdvanced: AgentCore._time_advanced,
}
