"""The agent's own end: once no worker is alive, or without waiting for what SIGKILL does not end."""

from __future__ import annotations

import signal

from rallypoint_agent.core.effects import Finish, FinishKind, Leave, StopWorkers
from rallypoint_agent.core.events import SignalReceived
from rallypoint_agent.core.step import Step
from rallypoint_agent.core.stuck import still_there, why_to_end
from rallypoint_agent.core.teardown import close_store, stop_workers

_GOODBYE = {
    FinishKind.DECIDED: "JOB_DECIDED",
    FinishKind.DRAINED: "DRAINED",
    FinishKind.NO_PORT: "AGENT_FAILED",
}


def signal_received(step: Step, event: SignalReceived) -> None:
    """The second one does not wait for the workers."""
    if step.state.ending is not None:
        if step.state.phase.may_have_workers:
            step.effect(StopWorkers(step.state.round, signal.SIGKILL, 0))
        return
    message = f"ended by {signal.Signals(event.signal).name}"
    how = Finish(kind=FinishKind.SIGNALLED, message=message, signal=event.signal)
    end(step, how, stop_signal=event.signal)


def end(step: Step, how: Finish, *, stop_signal: int | None) -> None:
    """Finish, once no worker is alive. From now on no port is offered, so that no round is formed with us."""
    s = step.state
    s.offer = None
    if s.unkillable_pids:
        give_up(step, how.message)
    elif s.phase.may_have_workers:
        s.ending = how
        stop_workers(step, stop_signal, step.config.job_spec.shutdown_timeout_ms)
    else:
        finish(step, how)


def finish(step: Step, how: Finish) -> None:
    """No worker is alive."""
    step.state.finished = True
    close_store(step)
    if step.state.attached:
        step.effect(Leave(_GOODBYE.get(how.kind, "SIGNAL"), how.message))
    step.effect(how)


def give_up_if_told_to_end(step: Step) -> None:
    """There is nothing left to wait for. The keeper goes on trying after our end."""
    why = why_to_end(step.state)
    if why is not None:
        give_up(step, why)


def give_up(step: Step, why: str) -> None:
    """Without a goodbye, which would say that no worker is alive."""
    s = step.state
    s.finished = True
    message = f"{why}; {still_there(s.unkillable_pids)}"
    step.effect(Finish(kind=FinishKind.UNKILLABLE, message=message))
