"""The ways in which a round ends here: its workers are stopped, its store is closed."""

from __future__ import annotations

from rallypoint.model import AgentPhase
from rallypoint_agent.core.effects import CloseStore, StopWorkers
from rallypoint_agent.core.step import Step


def stop_workers(step: Step, stop_signal: int | None, grace_ms: int, *, can_wait: bool = False) -> None:
    """Reported first, so that the others stop while we do; ``can_wait``: they do so anyway."""
    begin_stopping(step)
    step.report(can_wait=can_wait)
    step.effect(StopWorkers(step.state.round, stop_signal, grace_ms))


def begin_stopping(step: Step) -> None:
    s = step.state
    s.phase, s.start_ends_ms, s.tell_at_ms = AgentPhase.STOPPING, None, None


def close_store(step: Step) -> None:
    if step.state.hosts_store:
        step.state.hosts_store = False
        step.effect(CloseStore())
