"""Held jobs: no round is formed until an operator releases the job, or until the hold is over by itself."""

from __future__ import annotations

from rallypoint.model import JobState
from rallypoint_coordinator.core import scaling
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.records import JobHeld, JobReleased
from rallypoint_coordinator.core.state import Life
from rallypoint_coordinator.core.step import Step

STEPS_PER_HOLD = 10
STEP_MS = (1_000, 60_000)


def hold(step: Step, hold_ms: int, by: str, reason: str) -> bool:
    """Form no round for so long from now. False if that would not be longer than it is held already.

    Who makes it longer and gives no reason leaves the earlier one.
    """
    facts, watch, now_ms, now_wall_ms = step.life.facts, step.life.watch, step.stamp.at_ms, step.stamp.wall_ms
    since_wall_ms = now_wall_ms
    if facts.hold is not None and watch.hold_ends_ms is not None:
        longer_ms = now_ms + hold_ms - watch.hold_ends_ms
        if longer_ms <= 0:
            return False
        # A wall clock that went back since then does not make it end before it begins.
        since_wall_ms = min(facts.hold.since_wall_ms, now_wall_ms)
        hold_ms += -longer_ms % step_ms(hold_ms)
        reason = reason or facts.hold.reason
    step.record(JobHeld(by=by, reason=reason, since_wall_ms=since_wall_ms, until_wall_ms=now_wall_ms + hold_ms))
    watch.hold_ends_ms = now_ms + hold_ms
    return True


def step_ms(hold_ms: int) -> int:
    """By so much at a time a hold is made longer: a client that repeats it again and again fills no journal."""
    least, most = STEP_MS
    return min(max(hold_ms // STEPS_PER_HOLD, least), most)


def release(step: Step, by: str, reason: str) -> bool:
    """Go on as if the gathering began now, or take in who has arrived meanwhile. False if it is not held."""
    life, now_ms = step.life, step.stamp.at_ms
    if life.facts.hold is None:
        return False
    step.record(JobReleased(by=by, reason=reason))
    life.watch.hold_ends_ms = None
    if life.facts.state is JobState.GATHERING:
        life.watch.gathering_since_ms, life.watch.last_call_ends_ms = now_ms, None
    elif life.facts.state is JobState.RUNNING:
        scaling.look_for_arrivals(life.facts, life.watch, now_ms)
    return True


def release_if_due(step: Step) -> None:
    """Nobody holds a job for ever. What is decided is held no more."""
    facts, watch = step.life.facts, step.life.watch
    if facts.hold is None:
        watch.hold_ends_ms = None
    elif watch.hold_ends_ms is not None and step.stamp.at_ms >= watch.hold_ends_ms:
        release(step, "", "the hold has run out")


def rearm(life: Life, stamp: Stamp) -> None:
    """After a restart of the coordinator: what is left of the hold by the wall clock, at most all of it."""
    held = life.facts.hold
    if held is not None:
        left_ms = min(held.until_wall_ms - stamp.wall_ms, held.until_wall_ms - held.since_wall_ms)
        life.watch.hold_ends_ms = stamp.at_ms + max(left_ms, 0)
