"""The agent's decisions: the life of the local worker group, and the fence. Synchronous, total, deterministic.

An agent acts on its own in three cases only: a worker of its own failed, the fence, a signal. Everything else waits for
a directive (:mod:`.directives`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rallypoint.model import AgentPhase
from rallypoint_agent.core import attachment, contact, directives, ending, fence, port, watchdog, workers
from rallypoint_agent.core.effects import Output
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
from rallypoint_agent.core.state import AgentConfig, AgentState
from rallypoint_agent.core.step import Step


class AgentCore:
    """One incarnation of an agent. ``state`` is for reading."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.state = AgentState(waiting_since_ms=config.start_ms)
        self._now_ms = config.start_ms

    def step(self, event: Event, at_ms: int) -> Output:
        """What the event leads to. ``at_ms`` is CLOCK_BOOTTIME; a clock that seems to go back stands still.

        Raises IllegalEventError.
        """
        self._now_ms = max(self._now_ms, at_ms)
        step = Step(self.config, self.state, self._now_ms)
        if not self.state.finished:
            if self.state.offer_id == 0:
                port.hold(step)
            _HANDLERS[type(event)](step, event)
        return Output(step.effects, _next_deadline_ms(step))


def _time_advanced(step: Step, event: TimeAdvanced) -> None:
    fence.check(step)
    workers.check_start(step)
    workers.check_told(step)
    contact.check(step)
    port.check(step)


def _next_deadline_ms(step: Step) -> int | None:
    s = step.state
    if s.finished:
        return None
    deadlines = [contact.gives_up_at_ms(s, step.config), contact.explain_at_ms(step), port.hold_again_ms(s)]
    if s.phase is AgentPhase.RUNNING:
        deadlines += [fence.strikes_at_ms(step), s.start_ends_ms, s.tell_at_ms]
    return min((deadline for deadline in deadlines if deadline is not None), default=None)


_HANDLERS: Mapping[type[Event], Callable[[Step, Any], None]] = {
    Attached: attachment.attached,
    Detached: attachment.detached,
    AttachRefused: attachment.attach_refused,
    LeaseStaleReceived: attachment.lease_stale,
    LeaseRenewed: fence.lease_renewed,
    ConnectionsRefused: fence.connections_refused,
    DirectiveReceived: directives.directive_received,
    WorkersStarted: workers.workers_started,
    GroupMonitored: workers.group_monitored,
    WorkersGone: workers.workers_gone,
    WorkersStuck: workers.workers_stuck,
    PortHeld: port.port_held,
    WatchdogChanged: watchdog.watchdog_changed,
    TimerExpired: watchdog.timer_expired,
    SignalReceived: ending.signal_received,
    TimeAdvanced: _time_advanced,
}
