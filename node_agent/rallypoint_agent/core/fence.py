"""The lease, and the fence: workers are ended here before the coordinator may count them as gone."""

from __future__ import annotations

import signal

from rallypoint.model import AgentPhase
from rallypoint_agent.core.effects import SetFence, SetIdentity
from rallypoint_agent.core.events import ConnectionsRefused, LeaseRenewed
from rallypoint_agent.core.step import Step
from rallypoint_agent.core.teardown import stop_workers


def strikes_at_ms(step: Step) -> int:
    return step.state.lease.term_at_ms(step.config.job_spec.fence_grace_ms)


def has_lease(step: Step) -> bool:
    """Whether workers may be alive: from the moment the fence strikes on they may not."""
    return bool(step.state.lease.lease_id) and step.now_ms < strikes_at_ms(step)


def set_fence(step: Step) -> None:
    lease = step.state.lease
    if step.state.phase.may_have_workers and lease.lease_id:
        step.effect(SetFence(strikes_at_ms(step), lease.kill_at_ms()))


def set_identity(step: Step) -> None:
    lease = step.state.lease
    step.effect(SetIdentity(lease.cluster_id, lease.job_uid, lease.lease_id))


def lease_renewed(step: Step, event: LeaseRenewed) -> None:
    lease = step.state.lease
    if lease.lease_id and step.state.attached and event.sent_ms > lease.contact_ms:
        lease.contact_ms = event.sent_ms
        lease.base_ms = max(lease.base_ms, event.sent_ms)
        set_fence(step)


def connections_refused(step: Step, event: ConnectionsRefused) -> None:
    step.state.last_refusal = ""
    step.state.met_nobody = True
    hold_workers(step, event.probe_sent_ms)


def hold_workers(step: Step, asked_ms: int) -> None:
    """Nobody could re-form the job when we asked: the workers are held, within the outage that the job allows."""
    lease = step.state.lease
    outage_ms = asked_ms - lease.contact_ms
    if not lease.lease_id or outage_ms > step.config.job_spec.coordinator_outage_ms:
        return
    if asked_ms > lease.base_ms:
        lease.base_ms = asked_ms
        set_fence(step)


def check(step: Step) -> None:
    """Strike, if it is time."""
    if step.state.phase is AgentPhase.RUNNING and not has_lease(step):
        step.say("the lease runs out: ending the workers, the job may go on without this node")
        step.state.fenced = True
        stop_workers(step, signal.SIGTERM, step.config.job_spec.fence_grace_ms)
