"""Who may be a member: what a Hello is answered with, judged before anything changes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import NamedTuple

from rallypoint.errors import Reason, Refusal, Violation
from rallypoint.model import Capability, Hello, JobSpec, JobState
from rallypoint.texts import cut
from rallypoint.values import dataclass
from rallypoint_coordinator.core.state import Facts, Life, Member, Presence

MEMBERS_MAX = 200_000
"""So many live members a life may have, standbys included."""

LEASE_DRIFT_PER_MILLE = 1
LEASE_MARGIN_MS = 1_000
SUSPECT_MARGIN_MS = 1_000
"""So much later than two heartbeat intervals a holder that was not heard is in doubt."""

HOLDER_BYTES = 256
"""Of who holds a job and why, in a refusal: it is there twice, and all of it has to fit into 8 KiB of headers."""

UNFENCED_WAIT_MS = 600_000
"""The workers of an agent that does not fence itself may outlive its lease by so much."""


@dataclass(frozen=True, slots=True)
class Join:
    """Give it a new lease. ``replaces``: the node's earlier lease, which this Hello proves to be over, and ``why``."""

    replaces: Member | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    """It is the holder of this live lease."""

    member: Member


@dataclass(frozen=True, slots=True)
class Stale:
    """It still has workers of a lease that is not its own: they must end first."""

    message: str


SELF_FENCING = frozenset({Capability.SELF_FENCES})
"""What is assumed of an agent of which nothing is on record."""


def lease_expiry_ms(spec: JobSpec, received_ms: int, capabilities: frozenset[Capability]) -> int:
    """When a lease renewed now is over on the holder's side too: drift below 0.1 % and one second are allowed for.

    A holder that does not fence itself has longer to end its workers in some other way.
    """
    drift_ms = spec.lease_ttl_ms * LEASE_DRIFT_PER_MILLE // 1000
    unfenced_ms = 0 if Capability.SELF_FENCES in capabilities else UNFENCED_WAIT_MS
    return received_ms + spec.lease_ttl_ms + drift_ms + LEASE_MARGIN_MS + unfenced_ms


def admit(life: Life, hello: Hello, now_ms: int, *, lost: bool = False) -> Join | Resume | Stale | Refusal:
    """Judge a Hello to this life. ``lost``: it comes from a history that was lost; then it must name no lease."""
    mismatch = spec_mismatch(life.facts, hello.job_spec)
    if mismatch is not None:
        return _until_when(mismatch, life, now_ms)
    brings_round = lost and life.facts.state is JobState.RECOVERING and hello.observed.assignment is not None
    member = life.facts.members.get(hello.node)
    if member is None or member.gone is not None:
        return _newcomer(life.facts, hello, brings_round)
    presence = life.presences[member.lease_id]
    if member.incarnation != hello.incarnation:
        if brings_round and presence.stream is None:
            # A node has one agent: this one ran a round after the one on record was gone.
            return Join(replaces=member, why="a later agent of the node holds a round that is not on record")
        return _name_taken(life, member, presence, now_ms)
    return _returning(member, presence, hello)


def _newcomer(facts: Facts, hello: Hello, brings_round: bool) -> Join | Stale | Refusal:
    if hello.observed.may_have_workers and not brings_round:
        return Stale("the lease has ended")
    if facts.live_count >= MEMBERS_MAX:
        return Refusal(
            reason=Reason.LIMIT_REACHED,
            message=f"job {facts.job} has {MEMBERS_MAX} nodes, which is the limit",
            metadata={"job": facts.job, "limit": str(MEMBERS_MAX)},
        )
    return Join()


def _returning(member: Member, presence: Presence, hello: Hello) -> Join | Resume | Stale | Refusal:
    if hello.attach_seq <= presence.attach_seq:
        return Refusal(
            reason=Reason.SUPERSEDED,
            message=f"attach_seq {hello.attach_seq} is not above {presence.attach_seq}",
            metadata={"node": member.node},
        )
    if member.revoked:
        # Only a Hello that has dropped the lease is from after LeaseStale, and so can start no worker under it.
        if hello.lease_id != 0 or hello.observed.may_have_workers:
            return Stale(f"the lease was revoked: {member.revoked}")
        return Join(replaces=member, why="its revoked lease is over: the agent attached without workers")
    if hello.lease_id not in (0, member.lease_id):
        return Stale(f"lease {hello.lease_id} is not the node's live lease")
    return Resume(member)


def offered_before(facts: Facts, hello: Hello) -> int:
    """Its offer, if a round of another life may have used it; 0 if it is as fresh as it seems.

    An agent may have had a place in a round and not have heard of so much as a lease. If it has attached before, and
    was never a member here, who knows where it was: it is made to hold another port (C10).
    """
    offer, member = hello.observed.offer, facts.members.get(hello.node)
    was_here = member is not None and member.incarnation == hello.incarnation
    return 0 if offer is None or was_here or hello.attach_seq <= 1 else offer.offer_id


def _name_taken(life: Life, member: Member, presence: Presence, now_ms: int) -> Refusal:
    holder = f"another agent (incarnation {member.incarnation}, {presence.peer or 'not attached'})"
    metadata = {"node": member.node, "incarnation": member.incarnation}
    if not is_suspect(presence, now_ms):
        message = f"node name {member.node} is in use by {holder}: give this one another --node-name"
        return Refusal(reason=Reason.NODE_NAME_IN_USE, message=message, field="hello.node", metadata=metadata)
    left_ms = max(life.watch.leases.of(member.lease_id) - now_ms, 0)
    # Not what to wait for: an obituary may come any moment.
    return Refusal(
        reason=Reason.NODE_NAME_BUSY,
        message=f"node name {member.node}: {holder} is not known to be gone yet",
        metadata={**metadata, "lease_ends_in_ms": str(left_ms)},
    )


def is_suspect(presence: Presence, now_ms: int) -> bool:
    """Whether the holder of a live lease may be gone: its stream broke, or two heartbeats are overdue."""
    overdue_ms = now_ms - presence.heard_at_ms
    return presence.stream is None or overdue_ms > 2 * presence.heartbeat_interval_ms + SUSPECT_MARGIN_MS


class Difference(NamedTuple):
    """A field of a JobSpec, with the value that the job's agents agreed on, that in force, and another agent's."""

    field: str
    ours: object
    theirs: object
    in_force: object

    @property
    def path(self) -> str:
        """In the Hello."""
        return f"hello.job_spec.{self.field.removesuffix('_ms')}"

    @property
    def is_changed(self) -> bool:
        """Whether operators have changed it since it was agreed on, which is none of the agents' business."""
        return self.in_force != self.ours

    @property
    def told(self) -> str:
        if self.is_changed:
            agreed = f"the job's agents agreed on {self.field} = {self.ours} (changed to {self.in_force} since)"
        else:
            agreed = f"the job has {self.field} = {self.ours}"
        return f"{agreed}, this agent says {self.theirs}"


def differences(facts: Facts, theirs: JobSpec) -> Iterator[Difference]:
    """The fields in which an agent's JobSpec is not what a job's agents agreed on, in their order."""
    if theirs == facts.agreed_spec:  # as nearly always
        return
    for spec_field in fields(JobSpec):
        name = spec_field.name
        job_value, agent_value = getattr(facts.agreed_spec, name), getattr(theirs, name)
        if job_value != agent_value:
            yield Difference(name, job_value, agent_value, getattr(facts.spec, name))


def first_difference(facts: Facts, theirs: JobSpec) -> Difference | None:
    return next(differences(facts, theirs), None)


def spec_mismatch(facts: Facts, theirs: JobSpec) -> Refusal | None:
    """Says in which field an agent's JobSpec differs first, with both values; every one that differs is a violation."""
    found = list(differences(facts, theirs))
    if not found:
        return None
    violations = tuple(Violation(difference.path, difference.told) for difference in found)
    first = found[0]
    metadata = {"field": first.field, "job": str(first.ours), "agent": str(first.theirs)}
    if first.is_changed:
        metadata["in_force"] = str(first.in_force)
    return Refusal(
        reason=Reason.SPEC_MISMATCH, message=first.told, field=first.path, metadata=metadata, violations=violations
    )


def _until_when(mismatch: Refusal, life: Life, now_ms: int) -> Refusal:
    """The same, and what holds the job to its spec if nobody is there. O(1): a whole fleet may come with another."""
    held = "; ".join(_holders(life, now_ms))
    if not held:
        return mismatch
    return replace(mismatch, message=f"{mismatch.message}; {held}", metadata={**mismatch.metadata, "held": held})


def _holders(life: Life, now_ms: int) -> Iterator[str]:
    """A silent agent, and for how long; an operator."""
    newest = next(reversed(life.watch.heard), None)
    presence = life.presences[newest] if newest is not None else None
    if life.facts.outcome is not None or (presence and not is_suspect(presence, now_ms)):
        return
    if newest is not None and presence is not None:
        left_s = math.ceil((life.watch.leases.of(newest) - now_ms) / 1000)
        yield f"{presence.node} was heard last, and its lease ends in {left_s} s"
    if life.facts.hold is not None:
        yield f"the job is {cut(life.facts.hold.told, HOLDER_BYTES)}"
