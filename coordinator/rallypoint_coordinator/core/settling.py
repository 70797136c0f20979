"""The steps that are due in each state of the life: :data:`SETTLE` (state) says how one of them is taken.

Which decisions are legal at all is said by :data:`.evolve.TRANSITIONS` (state x record).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from rallypoint.model import JobState
from rallypoint_coordinator.core import lost_nodes, recovery, rendezvous, scaling, starts
from rallypoint_coordinator.core.directives import SharedDirectives
from rallypoint_coordinator.core.explain import explain
from rallypoint_coordinator.core.gathering import gather, gather_anew
from rallypoint_coordinator.core.holding import release_if_due
from rallypoint_coordinator.core.reactions import Trigger, react
from rallypoint_coordinator.core.records import JobDecided, RecoveryEnded, StopCause
from rallypoint_coordinator.core.revocation import revoke
from rallypoint_coordinator.core.round_changes import Onset, arrived_late
from rallypoint_coordinator.core.step import Step
from rallypoint_coordinator.core.stopping import conclude, stop_round

NAMED_MAX = 8
"""So many nodes are named in a sentence."""


def settle(step: Step) -> None:
    """Take what steps are due, tell the members what changed, and explain the state."""
    facts = step.life.facts
    release_if_due(step)
    while SETTLE[facts.state](step):
        pass
    if facts.directive_revision != step.told_revision:
        broadcast(step)
    explain(step)


def broadcast(step: Step) -> None:
    """Tell every attached member what it should do now."""
    shared = SharedDirectives()
    for presence in step.life.presences.values():
        step.tell(step.life.facts.members[presence.node], presence, shared)


def _run(step: Step) -> bool:
    facts, watch = step.life.facts, step.life.watch
    assert facts.round is not None
    if facts.cancelled_by or not facts.round.is_whole:
        # A crash came between the adoption and the stop that goes with it.
        _stop_adopted(step, f"nodes of round {facts.round.number} did not come back after the records were lost")
        return True
    joined = scaling.due(facts, watch, step.stamp.at_ms)
    if joined is not None:
        stop_round(step, StopCause.NODE_JOINED, joined, Onset(watch.arrival_ms, watch.arrival_ms))
        return True
    if late := starts.overdue(step.life, step.stamp.at_ms):
        _give_up_starting(step, late)
        return True
    outcome = rendezvous.succeeded(facts)
    if outcome is None:
        return False
    step.record(JobDecided(outcome=outcome))
    return True


def _give_up_starting(step: Step, late: list[int]) -> None:
    """End the round, and give up those that did not start their workers, as those that do not stop them in time."""
    life = step.life
    seconds = life.facts.spec.start_timeout_ms / 1000
    nodes = ", ".join(life.presences[lease_id].node for lease_id in late[:NAMED_MAX])
    more = f" and {len(late) - NAMED_MAX} more" if len(late) > NAMED_MAX else ""
    why = f"{nodes}{more} did not start the workers within {seconds:g} s"
    stop_round(step, StopCause.START_TIMEOUT, why, starts.onset_of_delay(life))
    revoke(step, [lease_id for lease_id in late if lease_id in life.watch.remaining], why)


def _recover(step: Step) -> bool:
    """Go on with what the agents hold, or without it."""
    life = step.life
    verdict = recovery.consider(life, step.stamp.at_ms)
    match verdict:
        case recovery.Wait():
            return False
        case recovery.Abandon():
            step.record(RecoveryEnded())
            life.watch.claims = None
            gather_anew(life, step.stamp.at_ms)
        case recovery.Adopt(record, missing):
            earlier = life.facts.round
            step.record(record)
            life.watch.claims = None
            lost_nodes.begin_course(life, goes_on=earlier is not None and earlier.is_that_of(record))
            recovery.withdraw_offer(life, record.offer_node)
            starts.await_starts(life, step.stamp.at_ms)
            _look_anew(step)
            _stop_adopted(step, missing)
    return True


def _look_anew(step: Step) -> None:
    """What the members said while their round was not known means something now."""
    life = step.life
    for presence in list(life.presences.values()):
        react(step, Trigger.OBSERVED, life.facts.members[presence.node], presence)
        presence.observed = replace(presence.observed, failures=())


def _stop_adopted(step: Step, missing: str) -> None:
    """An adopted round that cannot go on is ended, unless what its members said ends it already."""
    facts = step.life.facts
    if facts.state is not JobState.RUNNING:
        return
    if facts.cancelled_by:
        stop_round(step, StopCause.CANCELLED, f"cancelled by {facts.cancelled_by}")
    elif missing:
        stop_round(step, StopCause.NODE_LOST, missing, arrived_late(step.stamp, None))


def _rest(step: Step) -> bool:
    return False


SETTLE: Mapping[JobState, Callable[[Step], bool]] = {
    JobState.GATHERING: gather,
    JobState.RECOVERING: _recover,
    JobState.RUNNING: _run,
    JobState.STOPPING: conclude,
    JobState.SUCCEEDED: _rest,
    JobState.FAILED: _rest,
    JobState.CANCELLED: _rest,
}
"""State -> take one step that is due; False if none is."""
