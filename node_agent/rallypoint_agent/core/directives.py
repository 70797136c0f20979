"""What the coordinator directs: :data:`ON_DIRECTIVE` (phase x action) says what each directive means in each phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rallypoint.endpoints import PORT_MAX
from rallypoint.model import (
    Action,
    AgentPhase,
    Assignment,
    Directive,
    Drain,
    Exit,
    Hold,
    Keep,
    Run,
    Stop,
    StoreHost,
    WorkerStatus,
)
from rallypoint_agent.core.effects import Finish, FinishKind, StartWorkers
from rallypoint_agent.core.ending import end, give_up_if_told_to_end
from rallypoint_agent.core.events import DirectiveReceived
from rallypoint_agent.core.fence import has_lease, set_fence
from rallypoint_agent.core.port import offer_and_report
from rallypoint_agent.core.step import Step
from rallypoint_agent.core.stuck import start_timeout_ms
from rallypoint_agent.core.teardown import close_store, stop_workers

_OFFERS_MAX = 2**62
"""Offers are counted from 1, over all incarnations of a node: nobody has made so many."""


def directive_received(step: Step, event: DirectiveReceived) -> None:
    """Only one of our life, and newer than all before it, counts."""
    s, directive = step.state, event.directive
    newest = s.deferred.version if s.deferred else s.version
    if directive.version <= newest or directive.job_uid != s.lease.job_uid or s.ending:
        return
    problem = _problem(directive, step.config.local_world_size)
    if directive.action is None or problem:
        _cannot_act(step, directive, problem)
        return
    s.consumed_offer_id = max(s.consumed_offer_id, directive.consumed_offer_id)
    act(step, directive, directive.action)


def _problem(directive: Directive, workers: int) -> str:
    """Why it cannot be acted on. What no coordinator of ours says would fail later, and elsewhere."""
    if directive.action is None:
        return "of a kind not known here"
    if directive.consumed_offer_id >= _OFFERS_MAX:
        return "that leaves no number for another port"
    if isinstance(directive.action, Run) and not _fits(directive.action.assignment, workers):
        return "whose assignment cannot be"
    return ""


def _fits(assignment: Assignment, workers: int) -> bool:
    """Whether a node with so many workers can have such a place."""
    a = assignment
    ranks = 0 <= a.first_rank <= a.world_size - workers and 0 <= a.first_role_rank <= a.role_world_size - workers
    counts = a.restart_count >= 0 and 0 <= a.group_rank < a.group_world_size
    return ranks and counts and 1 <= a.endpoint.port <= PORT_MAX and a.offer_id < _OFFERS_MAX


def _cannot_act(step: Step, directive: Directive, why: str) -> None:
    if directive.version > step.state.unsupported_version:
        step.state.unsupported_version = directive.version
        step.say(f"a directive {why}, reason {directive.reason}: keeping the current state")
        step.report()


def act(step: Step, directive: Directive, action: Action) -> None:
    ON_DIRECTIVE[step.state.phase][type(action)](step, directive)


def _accept(step: Step, directive: Directive) -> None:
    step.state.version = directive.version


def _note(step: Step, directive: Directive) -> None:
    """Nothing to do but to show that it was seen."""
    _show(step, directive, step.state.has_told_all())


def _show(step: Step, directive: Directive, has_told_all: bool) -> None:
    _accept(step, directive)
    if isinstance(directive.action, Hold | Stop):
        close_store(step)
    step.say(directive.message)
    offer_and_report(step, can_wait=has_told_all and not _is_awaited(step, directive.action))


def _is_awaited(step: Step, action: Action | None) -> bool:
    """Whether others wait until this was seen: a Stop, by who never began its round, and so only then never will."""
    return isinstance(action, Stop) and action.round > step.state.round


def _note_void(step: Step, directive: Directive) -> None:
    """The round is ended for everyone, so how it ended here counts no more; who waited for our end has heard of it."""
    has_told_all = step.state.has_told_all()
    step.state.phase = AgentPhase.READY
    step.state.all_exited_with_0 = False
    _show(step, directive, has_told_all)


def _start(step: Step, directive: Directive) -> None:
    assert isinstance(directive.action, Run)
    assignment = directive.action.assignment
    if assignment.round <= step.state.round:
        _note(step, directive)
        return
    if not has_lease(step):
        step.say(f"not starting round {assignment.round}: the lease has run out")
        step.report()
        return
    _accept(step, directive)
    # That the workers run, or do not, is what the others wait for.
    can_wait = step.state.has_told_all()
    _enter_round(step, assignment)
    step.say(directive.message)
    step.report(can_wait=can_wait)
    set_fence(step)
    close_store(step)
    step.state.hosts_store = step.config.job_spec.store_host is StoreHost.AGENT and assignment.group_rank == 0
    step.effect(StartWorkers(assignment, step.state.hosts_store))


def _enter_round(step: Step, assignment: Assignment) -> None:
    s = step.state
    s.phase, s.round, s.assignment = AgentPhase.RUNNING, assignment.round, assignment
    s.failures, s.all_exited_with_0, s.fenced = (), False, False
    s.start_ends_ms = step.now_ms + start_timeout_ms(step.config)
    s.consumed_offer_id = max(s.consumed_offer_id, assignment.offer_id)
    s.workers = {
        local_rank: WorkerStatus(local_rank=local_rank, rank=assignment.first_rank + local_rank)
        for local_rank in range(step.config.local_world_size)
    }


def _keep_or_switch(step: Step, directive: Directive) -> None:
    """The same round: it runs already. Another one: this one was ended without our hearing of it."""
    assert isinstance(directive.action, Run)
    if directive.action.assignment.round == step.state.round:
        _accept(step, directive)
        step.report(can_wait=step.state.has_told_all())
    else:
        step.state.deferred = directive
        _stop_because(step, directive)


def _stop_for(step: Step, directive: Directive) -> None:
    _accept(step, directive)
    _stop_because(step, directive)


def _stop_because(step: Step, directive: Directive) -> None:
    """Who directs it waits for the workers to be gone."""
    step.say(f"stopping the workers of round {step.state.round}: {directive.message}")
    grace_ms = step.config.job_spec.shutdown_timeout_ms
    if isinstance(directive.action, Stop):
        grace_ms = directive.action.grace_ms
    stop_workers(step, None, grace_ms, can_wait=step.state.has_told_all())


def _defer(step: Step, directive: Directive) -> None:
    """Acted on once the workers are gone; the newest replaces the others."""
    step.state.deferred = directive
    if step.state.unkillable_pids:
        give_up_if_told_to_end(step)


def _exit(step: Step, directive: Directive) -> None:
    assert isinstance(directive.action, Exit)
    _accept(step, directive)
    outcome = directive.action.outcome
    end(step, Finish(kind=FinishKind.DECIDED, message=outcome.message, outcome=outcome), stop_signal=None)


def _drain(step: Step, directive: Directive) -> None:
    _accept(step, directive)
    end(step, Finish(kind=FinishKind.DRAINED, message=directive.message), stop_signal=None)


_Directed = Callable[[Step, Directive], None]

_NO_WORKERS: Mapping[type[Action], _Directed] = {
    Hold: _note,
    Keep: _note,
    Run: _start,
    Stop: _note,
    Drain: _drain,
    Exit: _exit,
}

ON_DIRECTIVE: Mapping[AgentPhase, Mapping[type[Action], _Directed]] = {
    AgentPhase.READY: _NO_WORKERS,
    AgentPhase.RUNNING: {
        Hold: _stop_for,
        Keep: _note,
        Run: _keep_or_switch,
        Stop: _stop_for,
        Drain: _drain,
        Exit: _exit,
    },
    AgentPhase.STOPPING: {
        Hold: _defer,
        Keep: _defer,
        Run: _defer,
        Stop: _defer,
        Drain: _defer,
        Exit: _defer,
    },
    AgentPhase.SUCCEEDED: {**_NO_WORKERS, Stop: _note_void},
    AgentPhase.FAILED: {**_NO_WORKERS, Stop: _note_void},
}
"""Phase -> action -> what is done."""
