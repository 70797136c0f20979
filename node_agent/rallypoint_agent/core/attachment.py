"""The stream to the coordinator: welcomed on it, refused, cut off, and told that the lease is lost."""

from __future__ import annotations

import signal

from rallypoint.errors import Reason
from rallypoint_agent.core.effects import Finish, FinishKind, Reattach
from rallypoint_agent.core.ending import end
from rallypoint_agent.core.events import Attached, AttachRefused, Detached, LeaseStaleReceived
from rallypoint_agent.core.fence import hold_workers, set_fence, set_identity
from rallypoint_agent.core.state import Lease
from rallypoint_agent.core.step import Step
from rallypoint_agent.core.teardown import stop_workers


def attached(step: Step, event: Attached) -> None:
    s, welcome = step.state, event.welcome
    objection = s.objection_to(welcome)
    if objection:
        _refuse_welcome(step, objection)
        return
    if not s.attached:
        step.say(f"attached to job life {welcome.job_uid}, lease {welcome.lease_id}")
    s.attached = s.ever_attached = True
    s.last_refusal = s.waiting_said = ""
    s.lease = Lease(
        cluster_id=welcome.cluster_id,
        job_uid=welcome.job_uid,
        lease_id=welcome.lease_id,
        ttl_ms=welcome.lease_ttl_ms,
        contact_ms=event.hello_sent_ms,
        base_ms=event.hello_sent_ms,
    )
    set_identity(step)
    set_fence(step)


def _refuse_welcome(step: Step, objection: str) -> None:
    """Nothing that comes on this stream counts, so it renews no lease either."""
    _lose_contact(step)
    end(step, Finish(kind=FinishKind.REFUSED, message=objection), stop_signal=None)


def detached(step: Step, event: Detached) -> None:
    _lose_contact(step)


def _lose_contact(step: Step) -> None:
    if step.state.attached:
        step.state.attached = False
        step.state.waiting_since_ms = step.now_ms
        step.say("lost contact with the coordinator, trying to attach again")


def attach_refused(step: Step, event: AttachRefused) -> None:
    refusal = event.refusal
    _lose_contact(step)
    refused = f"refused: {refusal.message}"
    # Who has no workers to wait for ends at once, and says it then.
    if not refusal.final or step.state.phase.may_have_workers:
        step.say(refused)
    step.state.last_refusal = refusal.message
    if refusal.reason is Reason.NODE_NAME_BUSY:
        _told_to_come_back(step)
    if refusal.reason is Reason.RECOVERING and event.hello_sent_ms is not None:
        hold_workers(step, event.hello_sent_ms)
    if refusal.final:
        end(step, Finish(kind=FinishKind.REFUSED, message=refused), stop_signal=None)


def _told_to_come_back(step: Step) -> None:
    """A coordinator was reached: the waiting for one begins anew."""
    step.state.waiting_since_ms = step.now_ms


def lease_stale(step: Step, event: LeaseStaleReceived) -> None:
    """The coordinator may have counted us as gone: the workers must end now, before it re-forms the job."""
    step.say(f"the lease is no longer ours: {event.message}")
    _lose_contact(step)
    _told_to_come_back(step)
    step.state.lease.lease_id = 0
    step.state.deferred = None
    set_identity(step)
    if step.state.phase.may_have_workers:
        step.state.reattach_when_gone = True
        stop_workers(step, signal.SIGKILL, 0)
    else:
        step.effect(Reattach())
