"""The file timer's watchdog: what of it is reported, and the workers whose timers expired."""

from __future__ import annotations

from rallypoint.model import AgentPhase
from rallypoint_agent.core.effects import KillWorker
from rallypoint_agent.core.events import TimerExpired, WatchdogChanged
from rallypoint_agent.core.step import Step


def watchdog_changed(step: Step, event: WatchdogChanged) -> None:
    """Timers come and go all the time: what matters goes out at once, the rest with whatever is said next."""
    before, step.state.watchdog = step.state.watchdog, event.status
    if (before.enabled, before.last_expiry) != (event.status.enabled, event.status.last_expiry):
        step.report()


def timer_expired(step: Step, event: TimerExpired) -> None:
    """The worker has failed, only it does not know. All else follows from its end. A round that ends is ended."""
    s = step.state
    if event.round != s.round or s.phase is not AgentPhase.RUNNING or event.local_rank not in s.workers:
        return
    reason = f"its timer expired, scope {event.scope}"
    step.say(f"round {s.round}: rank {s.workers[event.local_rank].rank} is to be killed: {reason}")
    step.effect(KillWorker(s.round, event.local_rank, event.signal, reason))
