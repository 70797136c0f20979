"""The rendezvous port that this node offers: held before a round, another one for each."""

from __future__ import annotations

from rallypoint.model import AgentPhase, EndpointOffer
from rallypoint_agent.core.effects import Finish, FinishKind, HoldPort
from rallypoint_agent.core.ending import end
from rallypoint_agent.core.events import PortHeld
from rallypoint_agent.core.state import AgentState
from rallypoint_agent.core.step import Step

PORT_RETRY_MS = 1_000
"""How long to wait before another try to hold a port."""

NAMED_PORT_PATIENCE_MS = 5_000
"""So long a port that the user asked for may be busy: something of the last round may still be using it."""


def port_held(step: Step, event: PortHeld) -> None:
    s = step.state
    if event.offer_id != s.offer_id:
        return
    s.offer = EndpointOffer(event.offer_id, event.endpoint) if event.endpoint else None
    if event.endpoint is not None:
        s.no_port_since_ms = None
        step.report()
    elif event.is_named and _is_overdue(step):
        end(step, Finish(kind=FinishKind.NO_PORT, message=event.problem), stop_signal=None)
    else:
        s.hold_again_ms = step.now_ms + PORT_RETRY_MS
        step.say(f"this node cannot take part yet: {event.problem}")
        step.report()


def _is_overdue(step: Step) -> bool:
    """Only who waits for the next round needs one: a success waits for nothing but the others'."""
    s = step.state
    if s.no_port_since_ms is None:
        s.no_port_since_ms = step.now_ms
    overdue = step.now_ms - s.no_port_since_ms >= NAMED_PORT_PATIENCE_MS
    return overdue and s.phase in (AgentPhase.READY, AgentPhase.FAILED)


def offer_and_report(step: Step, *, can_wait: bool = False) -> None:
    """Have a port ready that no round has used; the report follows once it is held.

    Not while a store is served: its round goes on, and the port may be the only one that the user allows.
    """
    s = step.state
    if not s.phase.may_have_workers and not s.hosts_store and s.offer_id <= s.consumed_offer_id:
        hold(step)
    else:
        step.report(can_wait=can_wait)


def hold(step: Step) -> None:
    s = step.state
    s.offer_id = max(s.offer_id, s.consumed_offer_id) + 1
    s.offer = s.hold_again_ms = None
    step.effect(HoldPort(s.offer_id))


def hold_again_ms(state: AgentState) -> int | None:
    """When to try again to hold a port, if none could be had and one is still wanted."""
    unwanted = state.phase.may_have_workers or state.hosts_store or state.ending or state.finished
    return None if unwanted else state.hold_again_ms


def check(step: Step) -> None:
    """Try again, if it is time."""
    due_ms = hold_again_ms(step.state)
    if due_ms is not None and step.now_ms >= due_ms:
        hold(step)
