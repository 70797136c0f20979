"""STOPPING: a round is ended, and no other begins until every participant is gone and the end is judged."""

from __future__ import annotations

from rallypoint.model import KILL_PATIENCE_MS, Observed
from rallypoint_coordinator.core import lost_nodes, quarantine, recovery, starts
from rallypoint_coordinator.core.gathering import gather_anew
from rallypoint_coordinator.core.records import JobDecided, RoundEnded, RoundStopping, StopCause
from rallypoint_coordinator.core.restarts import Verdict, judge
from rallypoint_coordinator.core.revocation import revoke_overdue
from rallypoint_coordinator.core.round_changes import Onset, arrived
from rallypoint_coordinator.core.state import Course, Life, Round
from rallypoint_coordinator.core.step import Step

STOP_MARGIN_MS = KILL_PATIENCE_MS + 10_000
"""A participant that has not stopped so long after shutdown_timeout, nor said that it cannot, has its lease revoked."""

REMAINS_WAIT_MS = 10_000
"""So long after the last participant is gone may what workers started run on, where an agent does not kill trees."""


def stop_round(step: Step, cause: StopCause, message: str, onset: Onset | None = None) -> None:
    """End the round: from now on the life waits until every participant is gone.

    ``onset``: of what ends it; None: the event that is stepped does.
    """
    life, stamp = step.life, step.stamp
    current = life.facts.round
    assert current is not None
    happened_ms, noticed_ms = onset or arrived(stamp)
    wall_offset_ms = stamp.wall_ms - stamp.at_ms
    step.record(
        RoundStopping(
            round=current.number,
            cause=cause,
            message=message,
            epoch=step.identity.epoch,
            happened_wall_ms=0 if happened_ms is None else happened_ms + wall_offset_ms,
            noticed_wall_ms=noticed_ms + wall_offset_ms,
        )
    )
    starts.forget(life)
    await_participants(life, step.stamp.at_ms)
    quarantine.expel_those_stuck(step)


def await_participants(life: Life, now_ms: int) -> None:
    """Note which participants of the ending round may still have live workers, and until when they may."""
    current = life.facts.round
    assert current is not None
    leases = (place.seat.lease_id for place in current.places.values())
    life.watch.remaining = {
        lease_id
        for lease_id in leases
        if lease_id in life.presences
        and lease_id not in life.watch.quarantined
        and not is_clear_of(current, life.presences[lease_id].observed)
    }
    if life.facts.recovery_epoch:
        life.watch.remaining |= recovery.of_other_rounds(life, current)
    life.watch.stop_deadline_ms = now_ms + life.facts.spec.shutdown_timeout_ms + STOP_MARGIN_MS


def is_clear_of(current: Round, report: Observed) -> bool:
    """Whether an agent that says this has no worker of the round, and will never start one.

    It has none alive, and either it ran the round already (each round is run at most once), or it has seen a directive
    from after the round's end (it acts on newer ones only).
    """
    if report.may_have_workers:
        return False
    return report.round >= current.number or current.is_after_stop(report.version)


def conclude(step: Step) -> bool:
    """Judge the round's end, once every participant is gone; those that are late to go are revoked. False: not yet."""
    life = step.life
    current, watch = life.facts.round, life.watch
    assert current is not None
    if watch.remaining:
        revoke_overdue(step)
        return False
    if current.leaves_remains and not _remains_have_ended(step):
        return False
    verdict = _judge(step, current)
    step.record(
        RoundEnded(
            round=current.number,
            charged=verdict.charged,
            culprit=verdict.culprit,
            message=verdict.message,
            others=verdict.others,
        )
    )
    watch.course = Course()
    gather_anew(life, step.stamp.at_ms)
    if verdict.outcome is not None and not life.facts.cancelled_by:
        step.record(JobDecided(outcome=verdict.outcome))
    return True


def _judge(step: Step, current: Round) -> Verdict:
    life = step.life
    assert current.stop_cause is not None
    return judge(
        cause=current.stop_cause,
        stop_message=current.stop_message,
        failures=life.watch.course.failures.timed(),
        restart_count=life.facts.restart_count,
        spec=life.facts.spec,
        lost=lost_nodes.lost_in(current, life),
        wall_offset_ms=step.stamp.wall_ms - step.stamp.at_ms,
    )


def _remains_have_ended(step: Step) -> bool:
    """Every participant is gone; what their workers started is given its time, counted from the last of them."""
    watch, now_ms = step.life.watch, step.stamp.at_ms
    if watch.remains_until_ms is None:
        watch.remains_until_ms = now_ms + REMAINS_WAIT_MS
    return now_ms >= watch.remains_until_ms
