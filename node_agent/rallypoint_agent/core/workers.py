"""The local worker group: what its start, its failures and its end lead to."""

from __future__ import annotations

from dataclasses import replace

from rallypoint.limits import FAILURES_MAX
from rallypoint.model import UNKILLABLE_PIDS_MAX, AgentPhase, WorkerFailure, WorkerState
from rallypoint_agent.core.directives import act
from rallypoint_agent.core.effects import Reattach, StopWorkers
from rallypoint_agent.core.ending import finish, give_up_if_told_to_end
from rallypoint_agent.core.events import (
    GroupMonitored,
    IllegalEventError,
    WorkersGone,
    WorkersStarted,
    WorkersStuck,
)
from rallypoint_agent.core.port import offer_and_report
from rallypoint_agent.core.state import AgentState
from rallypoint_agent.core.step import Step
from rallypoint_agent.core.stuck import never_started, still_there
from rallypoint_agent.core.teardown import begin_stopping, close_store, stop_workers

# --- while they run


def workers_started(step: Step, event: WorkersStarted) -> None:
    """Raises IllegalEventError."""
    s = step.state
    if event.round != s.round or s.phase is not AgentPhase.RUNNING:
        return
    if unknown := event.pids.keys() - s.workers.keys():
        raise IllegalEventError(f"round {s.round} has no worker of local rank {min(unknown)}")
    s.start_ends_ms = None
    for local_rank, pid in event.pids.items():
        s.workers[local_rank] = replace(s.workers[local_rank], pid=pid, state=WorkerState.HEALTHY)
    # Whatever is said in between says it too, a Hello above all.
    step.report(can_wait=step.config.tell_delay_ms > 0)
    s.tell_at_ms = step.now_ms + step.config.tell_delay_ms if step.config.tell_delay_ms else None


def check_start(step: Step) -> None:
    """Workers that take too long to start have failed."""
    s = step.state
    if s.phase is AgentPhase.RUNNING and s.start_ends_ms is not None and step.now_ms >= s.start_ends_ms:
        _own_failure(step, (never_started(s, step.config, step.now_ms),))


def check_told(step: Step) -> None:
    """That the workers run has waited for long enough."""
    s = step.state
    if s.phase is AgentPhase.RUNNING and s.tell_at_ms is not None and step.now_ms >= s.tell_at_ms:
        step.report()


def group_monitored(step: Step, event: GroupMonitored) -> None:
    s = step.state
    running = event.round == s.round and s.phase is AgentPhase.RUNNING
    if not running or event.state in (WorkerState.HEALTHY, WorkerState.INIT):
        return
    if event.state is WorkerState.SUCCEEDED:
        _all_exited_with_0(step)
    else:
        _own_failure(step, event.failures)


def _all_exited_with_0(step: Step) -> None:
    """What the workers left behind ends with them; not reported before that: the round has not ended yet."""
    if step.state.tell_at_ms is not None:
        step.report()  # That they ran is all that is said until then.
    step.state.all_exited_with_0 = True
    begin_stopping(step)
    step.effect(StopWorkers(step.state.round, None, step.config.job_spec.shutdown_timeout_ms))


def _own_failure(step: Step, failures: tuple[WorkerFailure, ...]) -> None:
    _note_failures(step.state, failures)
    ranks = ", ".join(str(failure.rank) for failure in failures)
    step.say(f"round {step.state.round}: rank {ranks} failed, stopping the local workers")
    stop_workers(step, None, step.config.job_spec.shutdown_timeout_ms)


def _note_failures(state: AgentState, failures: tuple[WorkerFailure, ...]) -> None:
    state.failures = (*state.failures, *failures)[:FAILURES_MAX]
    for failure in failures:
        if failure.local_rank in state.workers:
            state.workers[failure.local_rank] = replace(
                state.workers[failure.local_rank], state=WorkerState.FAILED, exit_code=failure.exit_code
            )


# --- once they end


def workers_gone(step: Step, event: WorkersGone) -> None:
    s = step.state
    if event.round != s.round or not s.phase.may_have_workers:
        return
    if s.phase is AgentPhase.RUNNING:
        step.say("the keeper ended the workers: the lease had run out")
        s.fenced = True
    _note_failures(s, event.failures)
    if s.unkillable_pids:
        step.say(f"the workers of round {s.round} are gone at last")
    s.unkillable_pids = ()
    s.phase = _phase_when_gone(s)
    if s.phase is not AgentPhase.SUCCEEDED:
        close_store(step)
    _note_ends(s)
    _go_on(step)


def workers_stuck(step: Step, event: WorkersStuck) -> None:
    """SIGKILL does not end them: say so, and go on with them until they end, or we are told to."""
    s = step.state
    if event.round != s.round or s.phase is not AgentPhase.STOPPING or not event.pids:
        return
    s.unkillable_pids = event.pids[:UNKILLABLE_PIDS_MAX]
    for local_rank, worker in s.workers.items():
        if worker.pid in s.unkillable_pids:
            s.workers[local_rank] = replace(worker, state=WorkerState.UNHEALTHY)
    step.say(f"{still_there(s.unkillable_pids)}: this node takes part in no round until that has ended")
    step.report()
    give_up_if_told_to_end(step)


def _phase_when_gone(state: AgentState) -> AgentPhase:
    if state.all_exited_with_0:
        return AgentPhase.SUCCEEDED
    own = any(not failure.after_stop for failure in state.failures)
    return AgentPhase.FAILED if own else AgentPhase.READY


def _note_ends(state: AgentState) -> None:
    final = WorkerState.SUCCEEDED if state.phase is AgentPhase.SUCCEEDED else WorkerState.STOPPED
    for local_rank, worker in state.workers.items():
        if worker.state is not WorkerState.FAILED:
            state.workers[local_rank] = replace(worker, state=final)


def _go_on(step: Step) -> None:
    """No worker is alive any more: do what waited for that."""
    s = step.state
    deferred, s.deferred = s.deferred, None
    if s.reattach_when_gone:
        s.reattach_when_gone = False
        step.report()
        step.effect(Reattach())
    if s.ending is not None:
        step.report()
        finish(step, s.ending)
    elif deferred is not None and deferred.action is not None:
        act(step, deferred, deferred.action)
    else:
        offer_and_report(step)
