"""Nodes with processes that SIGKILL does not end: the round ends without them, and they take part in none until it did.

This is the named exception to "the next round begins only when every participant is gone": such a process is stuck in
the kernel, runs none of its program, and nobody can say when it ends. The node is held by name: by its live lease, and
after that by what its next agent says when it attaches.
"""

from __future__ import annotations

from rallypoint.model import JobState
from rallypoint_coordinator.core.records import NodeExpelled, NodeReadmitted
from rallypoint_coordinator.core.state import Life, Member, Presence
from rallypoint_coordinator.core.step import Step


def expel_if_stuck(step: Step, member: Member, presence: Presence) -> None:
    """STOPPING: wait no longer for a participant that says that what is left of the round cannot be ended."""
    life, report = step.life, presence.observed
    current = life.facts.round
    assert current is not None
    stuck = report.unkillable_pids and report.round == current.number
    if not stuck or member.lease_id not in life.watch.remaining:
        return
    step.record(
        NodeExpelled(node=member.node, lease_id=member.lease_id, round=current.number, pids=report.unkillable_pids)
    )
    life.watch.remaining.discard(member.lease_id)
    life.watch.quarantined.add(member.lease_id)
    life.watch.course.overdue.add(member.node)
    step.tell(member, presence)


def expel_those_stuck(step: Step) -> None:
    """The same for all of a round that is being stopped; O(n)."""
    life = step.life
    stuck = [lease_id for lease_id in life.watch.remaining if life.presences[lease_id].observed.unkillable_pids]
    for lease_id in sorted(stuck):
        presence = life.presences[lease_id]
        expel_if_stuck(step, life.facts.members[presence.node], presence)


def readmit_if_clean(step: Step, member: Member, presence: Presence) -> None:
    """Nothing of its workers is left, says its agent: it may take part again.

    Or records are lost, and it holds a round from after the quarantine: it was readmitted before it was given that one,
    which is not to be taken for the one that is stuck.
    """
    life, report = step.life, presence.observed
    recovers = life.facts.state is JobState.RECOVERING
    holds_later = recovers and report.round > life.facts.round_number and not report.unkillable_pids
    if not member.unkillable_pids or life.facts.outcome is not None:
        return
    if report.may_have_workers and not holds_later:
        return
    step.record(NodeReadmitted(node=member.node, lease_id=member.lease_id))
    life.watch.quarantined.discard(member.lease_id)
    step.tell(member, presence)


def rearm(life: Life) -> None:
    """After a coordinator restart, from the facts alone."""
    members = life.facts.members.values()
    life.watch.quarantined = {member.lease_id for member in members if member.unkillable_pids and member.gone is None}
