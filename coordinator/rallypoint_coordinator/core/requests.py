"""What operators ask of a job: each request is recorded with who asked, and answered once that is durable."""

from __future__ import annotations

from rallypoint.errors import Reason, Refusal
from rallypoint.model import JobState
from rallypoint_coordinator.core.directives import place_of
from rallypoint_coordinator.core.events import OperatorAsked, Request
from rallypoint_coordinator.core.holding import hold, release
from rallypoint_coordinator.core.records import JobCancelled, NodeDrained, RestartAsked, StopCause
from rallypoint_coordinator.core.state import Member, Watch
from rallypoint_coordinator.core.step import Step
from rallypoint_coordinator.core.stopping import stop_round
from rallypoint_coordinator.core.updating import update


def ask(step: Step, event: OperatorAsked) -> bool | Refusal:
    """What the request is answered with: whether it changed anything, or why it cannot be done."""
    match event.request:
        case Request.CANCEL:
            return cancel(step, event.by, event.reason)
        case Request.RESTART:
            return restart(step, event.by, event.reason)
        case Request.DRAIN:
            return drain(step, event.node, event.by, event.reason)
        case Request.UPDATE:
            return _decided(step) or update(step, event.change, event.by, event.reason)
        case Request.HOLD:
            return _decided(step) or hold(step, event.hold_ms, event.by, event.reason)
        case Request.RELEASE:
            return _decided(step) or release(step, event.by, event.reason)


def cancel(step: Step, by: str, reason: str) -> bool | Refusal:
    """End the job: its workers are stopped, then it is decided as cancelled. False if that was asked already."""
    facts = step.life.facts
    if facts.cancelled_by:
        return False
    if decided := _decided(step):
        return decided
    step.record(JobCancelled(by=by, reason=reason, told=_who(by, reason)))
    if facts.state is JobState.RUNNING:
        stop_round(step, StopCause.CANCELLED, f"cancelled by {facts.cancelled_by}")
    return True


def restart(step: Step, by: str, reason: str) -> bool | Refusal:
    """Stop the workers of the round that runs and form the next one; the budget is not touched."""
    facts = step.life.facts
    if decided := _decided(step):
        return decided
    if facts.state is not JobState.RUNNING:
        return Refusal(
            reason=Reason.NO_ROUND_RUNS,
            message=f"job {facts.job} is {facts.state}: there is no round to restart",
            field=f"jobs/{facts.job}",
            metadata={"job": facts.job, "state": facts.state},
        )
    step.record(RestartAsked(by=by, reason=reason))
    stop_round(step, StopCause.RESTART_ASKED, f"restarted by {_who(by, reason)}")
    return True


def drain(step: Step, node: str, by: str, reason: str) -> bool | Refusal:
    """Have a node leave: its workers get SIGTERM and their grace, its agent leaves, the others go on without it.

    False if that was asked already, even if the agent has left since or the job is over. It holds for the agent that is
    there now: a new one on that node may join.
    """
    facts = step.life.facts
    member = facts.members.get(node)
    if member is not None and member.drained_by:
        return False
    if decided := _decided(step):
        return decided
    if member is None or member.gone is not None:
        return Refusal(
            reason=Reason.NODE_NOT_FOUND,
            message=f"job {facts.job} has no node {node} now",
            metadata={"job": facts.job, "node": node},
        )
    if facts.state is JobState.RECOVERING:
        return Refusal(
            reason=Reason.RECOVERING,
            message=f"job {facts.job} is being recovered from its agents; try again in a moment",
            metadata={"job": facts.job},
        )
    who = _who(by, reason)
    step.record(NodeDrained(node=node, lease_id=member.lease_id, by=by, reason=reason, told=who))
    _wait_no_longer(step.life.watch, member)
    step.tell(member, step.life.presences[member.lease_id])
    runs = facts.state is JobState.RUNNING and facts.round is not None and node not in facts.round.succeeded
    if runs and place_of(facts, member) is not None:
        stop_round(step, StopCause.NODE_DRAINED, f"{node} is drained by {who}")
    return True


def _wait_no_longer(watch: Watch, member: Member) -> None:
    """The next round is formed without it."""
    watch.ready.discard(member.lease_id)
    watch.expected.discard(member.lease_id)
    watch.awaited.pop(member.node, None)


def _who(by: str, reason: str) -> str:
    return f"{by}: {reason}" if reason else by


def _decided(step: Step) -> Refusal | None:
    """None: the job is not decided yet."""
    facts = step.life.facts
    if facts.outcome is None:
        return None
    return Refusal(
        reason=Reason.JOB_DECIDED,
        message=f"job {facts.job} has ended: {facts.state}",
        field=f"jobs/{facts.job}",
        metadata={"job": facts.job, "state": facts.state},
    )
