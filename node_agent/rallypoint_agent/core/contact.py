"""Being without a coordinator: what goes on meanwhile, until when, and what is said of it."""

from __future__ import annotations

from enum import StrEnum

from rallypoint.model import AgentPhase
from rallypoint_agent.core.effects import Finish, FinishKind
from rallypoint_agent.core.ending import finish, give_up
from rallypoint_agent.core.state import AgentConfig, AgentState
from rallypoint_agent.core.step import Step
from rallypoint_agent.core.stuck import still_there

SAY_AFTER_MS = 2_000
"""A shorter absence is not worth a word: a coordinator that is restarted is back by then.

Who starts, and meets nobody, hears it at once: the address may be wrong.
"""


class Waiting(StrEnum):
    """What an agent that is not attached does in the meantime."""

    LOOKING = "LOOKING"
    """It has no workers, and looks for a coordinator until it gives up."""
    SUCCEEDED = "SUCCEEDED"
    """Its workers all succeeded; it looks for somebody to tell."""
    HOLDING = "HOLDING"
    """Its workers run, and go on: every endpoint refuses, or the coordinator is recovering."""
    STUCK = "STUCK"
    """SIGKILL does not end a process of its workers, and its lease is lost: it gets no other before that has ended."""
    FENCED = "FENCED"
    """Its workers run until the fence strikes."""


def check(step: Step) -> None:
    """Give up, if it is time; else say what goes on."""
    gives_up_ms = gives_up_at_ms(step.state, step.config)
    if gives_up_ms is None or step.now_ms < gives_up_ms:
        _explain(step)
        return
    how = _given_up(step.state, step.config, step.now_ms)
    if step.state.unkillable_pids:
        give_up(step, how.message)
    else:
        finish(step, how)


def _explain(step: Step) -> None:
    say_at_ms = explain_at_ms(step)
    kind = _waiting(step.state, step.config, step.now_ms)
    if kind is None or say_at_ms is None or step.now_ms < say_at_ms:
        return
    step.state.waiting_said = kind
    step.say(_sentence(kind, step.state, step.config, step.now_ms))


def explain_at_ms(step: Step) -> int | None:
    """When to say what goes on without a coordinator: not at once, and each of it once."""
    s = step.state
    kind = _waiting(s, step.config, step.now_ms)
    after_ms = 0 if s.met_nobody and not s.ever_attached else SAY_AFTER_MS
    return None if kind in (None, s.waiting_said) else s.waiting_since_ms + after_ms


def _waiting(state: AgentState, config: AgentConfig, now_ms: int) -> Waiting | None:
    """None while it is attached, or on its way to an end that no coordinator can change."""
    if state.attached or state.ending is not None:
        return None
    if state.phase is AgentPhase.STOPPING:
        return _waiting_for_stuck(state)
    if state.phase is AgentPhase.SUCCEEDED:
        return Waiting.SUCCEEDED
    if state.phase is not AgentPhase.RUNNING:
        return Waiting.LOOKING
    was_refused = state.lease.base_ms > state.lease.contact_ms
    return Waiting.HOLDING if was_refused and now_ms < _held_until_ms(state, config) else Waiting.FENCED


def _waiting_for_stuck(state: AgentState) -> Waiting | None:
    if not state.unkillable_pids:
        return None
    return Waiting.STUCK if state.reattach_when_gone else Waiting.LOOKING


def gives_up_at_ms(state: AgentState, config: AgentConfig) -> int | None:
    """Until when an agent without a coordinator, and without workers but those that nothing ends, waits for one."""
    spec = config.job_spec
    has_workers = state.phase.may_have_workers and not state.unkillable_pids
    if state.attached or has_workers or state.ending is not None:
        return None
    if state.phase is AgentPhase.SUCCEEDED:
        return state.waiting_since_ms + spec.exit_barrier_timeout_ms
    if not state.ever_attached:
        return state.waiting_since_ms + config.connect_timeout_ms
    return state.waiting_since_ms + max(spec.join_timeout_ms, spec.coordinator_outage_ms)


def _sentence(kind: Waiting, state: AgentState, config: AgentConfig, now_ms: int) -> str:
    """What there is to say of it now."""
    left_ms = {
        Waiting.LOOKING: gives_up_at_ms(state, config),
        Waiting.SUCCEEDED: gives_up_at_ms(state, config),
        Waiting.STUCK: gives_up_at_ms(state, config),
        Waiting.HOLDING: _held_until_ms(state, config),
        Waiting.FENCED: state.lease.term_at_ms(config.job_spec.fence_grace_ms),
    }[kind]
    left = f"{max(0, (left_ms or now_ms) - now_ms) / 1000:.0f} s"
    if kind is Waiting.STUCK:
        return f"{_no_other_lease(state)}: waiting for {left} more, then giving up"
    goes_on = {
        Waiting.LOOKING: f"looking for one for {left} more, then giving up",
        Waiting.SUCCEEDED: f"the workers succeeded, looking for one to tell for {left} more, then ending well",
        Waiting.HOLDING: f"nobody is there who could re-form the job, so the workers run on, for up to {left} more",
        Waiting.FENCED: f"the workers end in {left} if none is found",
    }[kind]
    return f"{_nobody(state, config)}: {goes_on}"


def _given_up(state: AgentState, config: AgentConfig, now_ms: int) -> Finish:
    """How an agent ends that has waited long enough."""
    waited = f"{round((now_ms - state.waiting_since_ms) / 1000, 1):g} s"
    if state.phase is AgentPhase.SUCCEEDED:
        message = f"the workers succeeded; the coordinator could not be told for {waited}{_because(state)}"
        return Finish(kind=FinishKind.BARRIER_TIMEOUT, message=message)
    if state.reattach_when_gone:
        message = f"the lease was lost, and the workers did not end for {waited}"
    elif state.last_refusal:
        message = f"no coordinator took this agent in for {waited}{_because(state)}"
    else:
        message = f"no coordinator could be reached{_where(config)} for {waited}{_advice(state, config)}"
    return Finish(kind=FinishKind.UNREACHABLE, message=message)


def _no_other_lease(state: AgentState) -> str:
    return f"{still_there(state.unkillable_pids)}, and the lease is lost: there is no other before that has ended"


def _nobody(state: AgentState, config: AgentConfig) -> str:
    if state.last_refusal:
        return f"refused by the coordinator{_where(config)} ({state.last_refusal})"
    return f"no coordinator{_where(config)}"


def _where(config: AgentConfig) -> str:
    return f" at {config.coordinator}" if config.coordinator else ""


def _advice(state: AgentState, config: AgentConfig) -> str:
    if state.ever_attached or not config.coordinator:
        return ""
    return (
        ": is `rallypoint coordinator` running there, and that its address? If so, look at firewalls on the way, and"
        " whether both sides use TLS (--tls-ca) or neither"
    )


def _because(state: AgentState) -> str:
    return f"; the last one said: {state.last_refusal}" if state.last_refusal else ""


def _held_until_ms(state: AgentState, config: AgentConfig) -> int:
    return state.lease.contact_ms + config.job_spec.coordinator_outage_ms
