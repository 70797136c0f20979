"""What a member's news means in each state of the life: :data:`REACTIONS` (state x trigger) decides.

By then :mod:`.handlers` has noted it. Which steps it makes due is a matter of :mod:`.settling`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from rallypoint.model import AgentPhase, JobState, WorkerFailure
from rallypoint.texts import counted
from rallypoint_coordinator.core import quarantine, recovery, scaling, starts
from rallypoint_coordinator.core.causes import describe
from rallypoint_coordinator.core.directives import place_of
from rallypoint_coordinator.core.effects import Explain
from rallypoint_coordinator.core.lost_nodes import note_loss, onset_of_loss
from rallypoint_coordinator.core.records import GoneReason, NodeSucceeded, StopCause
from rallypoint_coordinator.core.round_changes import Onset, arrived, arrived_late
from rallypoint_coordinator.core.state import Member, Presence, Round
from rallypoint_coordinator.core.step import Step
from rallypoint_coordinator.core.stopping import is_clear_of, stop_round


class Trigger(StrEnum):
    OBSERVED = "OBSERVED"
    GONE = "GONE"


Reaction = Callable[[Step, Member, Presence | None], None]


def react(step: Step, trigger: Trigger, member: Member, presence: Presence | None) -> None:
    REACTIONS[step.life.facts.state][trigger](step, member, presence)


def _nothing(step: Step, member: Member, presence: Presence | None) -> None:
    """What was noted is all there is to do."""


def _running_observed(step: Step, member: Member, presence: Presence | None) -> None:
    facts = step.life.facts
    assert facts.round is not None
    assert presence is not None
    if place_of(facts, member) is None:
        if member.lease_id in step.life.watch.ready:
            scaling.arrival(facts, step.life.watch, step.stamp.at_ms)
        return
    report = presence.observed
    if report.round != facts.round.number or member.node in facts.round.succeeded:
        return
    starts.note_report(step.life, member.lease_id, report)
    _note_failures(step, member, presence)
    own = next((failure for failure in report.failures if not failure.after_stop), None)
    if own is not None:
        stop_round(step, StopCause.WORKER_FAILED, describe(own), _onset_of_failure(step, presence, own))
    elif report.phase is AgentPhase.SUCCEEDED:
        step.record(NodeSucceeded(round=facts.round.number, node=member.node))
    elif report.phase is not AgentPhase.RUNNING:
        cause, why = _FENCED if report.fenced else _WITHOUT_FAILURE[report.phase]
        onset = arrived(step.stamp) if cause is StopCause.NODE_LEFT else arrived_late(step.stamp, None)
        stop_round(step, cause, f"{member.node} {why}", onset)
    if facts.state is JobState.RUNNING and starts.have_all_started(step.life):
        _tell_that_all_run(step, facts.round)


def _onset_of_failure(step: Step, presence: Presence, failure: WorkerFailure) -> Onset:
    span = presence.clock.span(failure.fail_clock_ms, step.stamp.at_ms)
    return arrived_late(step.stamp, None if span.error_ms is None else span.likely_ms)


def _tell_that_all_run(step: Step, current: Round) -> None:
    """It is no decision, so it has no record."""
    facts, stamp = step.life.facts, step.stamp
    step.life.watch.sightings.all_run(current.number, stamp.wall_ms - stamp.waited_ms)
    size = f"{counted(current.world_size, 'worker')} on {counted(len(current.places), 'node')}"
    step.effect(Explain(facts.job, facts.uid, "WORKERS_RUN", f"round {current.number} runs: {size}"))


_FENCED = (StopCause.NODE_LOST, "lost contact until its lease ran out, and ends its workers")

_WITHOUT_FAILURE = {
    AgentPhase.FAILED: (StopCause.WORKER_FAILED, "reports failed workers"),
    AgentPhase.STOPPING: (StopCause.NODE_LEFT, "is stopping its workers"),
    AgentPhase.READY: (StopCause.NODE_LOST, "has ended its workers: it had lost contact"),
}


def _running_gone(step: Step, member: Member, presence: Presence | None) -> None:
    facts = step.life.facts
    assert facts.round is not None
    if place_of(facts, member) is None or member.node in facts.round.succeeded:
        return
    note_loss(step, member)
    left_by_itself = member.gone is GoneReason.LEFT
    cause = StopCause.NODE_LEFT if left_by_itself else StopCause.NODE_LOST
    verb = "left" if left_by_itself else "is gone"
    onset = onset_of_loss(member, presence, step.stamp)
    stop_round(step, cause, f"{member.node} {verb}: {member.gone_message}", onset)


def _stopping_observed(step: Step, member: Member, presence: Presence | None) -> None:
    facts = step.life.facts
    assert facts.round is not None
    assert presence is not None
    if place_of(facts, member) is None:
        if not presence.observed.phase.may_have_workers:
            step.life.watch.remaining.discard(member.lease_id)
        return
    if presence.observed.round == facts.round.number:
        _note_failures(step, member, presence)
    if is_clear_of(facts.round, presence.observed):
        step.life.watch.remaining.discard(member.lease_id)
    quarantine.expel_if_stuck(step, member, presence)


def _stopping_gone(step: Step, member: Member, presence: Presence | None) -> None:
    step.life.watch.remaining.discard(member.lease_id)
    if place_of(step.life.facts, member) is not None:
        note_loss(step, member)


def _recovering_observed(step: Step, member: Member, presence: Presence | None) -> None:
    assert presence is not None
    recovery.note(step.life, member, presence)


def _recovering_gone(step: Step, member: Member, presence: Presence | None) -> None:
    recovery.forget(step.life, member.node)


def _note_failures(step: Step, member: Member, presence: Presence) -> None:
    failures = presence.observed.failures
    step.life.watch.course.failures.note(member.lease_id, failures, presence.clock, step.stamp.at_ms)


REACTIONS: Mapping[JobState, Mapping[Trigger, Reaction]] = {
    JobState.GATHERING: {Trigger.OBSERVED: _nothing, Trigger.GONE: _nothing},
    JobState.RECOVERING: {Trigger.OBSERVED: _recovering_observed, Trigger.GONE: _recovering_gone},
    JobState.RUNNING: {Trigger.OBSERVED: _running_observed, Trigger.GONE: _running_gone},
    JobState.STOPPING: {Trigger.OBSERVED: _stopping_observed, Trigger.GONE: _stopping_gone},
    JobState.SUCCEEDED: {Trigger.OBSERVED: _nothing, Trigger.GONE: _nothing},
    JobState.FAILED: {Trigger.OBSERVED: _nothing, Trigger.GONE: _nothing},
    JobState.CANCELLED: {Trigger.OBSERVED: _nothing, Trigger.GONE: _nothing},
}
