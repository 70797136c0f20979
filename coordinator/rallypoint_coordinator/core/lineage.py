"""Which life of a job a Hello belongs to: one that is known, a new one, or one that comes back."""

from __future__ import annotations

from rallypoint.errors import Reason, Refusal
from rallypoint.model import NO_ROUND, Hello, JobState, Outcome
from rallypoint.values import dataclass
from rallypoint_coordinator.core.membership import first_difference, spec_mismatch
from rallypoint_coordinator.core.records import GoneReason
from rallypoint_coordinator.core.state import Life


@dataclass(frozen=True, slots=True)
class Enter:
    """This one. The Hello may still be refused by it."""

    life: Life


@dataclass(frozen=True, slots=True)
class Begin:
    """A new one."""


@dataclass(frozen=True, slots=True)
class Revive:
    """The one that it names, whose records are lost. ``instead_of`` has had no round, and gives way to it."""

    instead_of: Life | None


def life_for(hello: Hello, named: Life | None, current: Life | None, *, lost: bool) -> Enter | Begin | Revive | Refusal:
    """``named``: the life that the Hello names, if it is known; ``current``: the newest of the job's name.

    ``lost``: the agent comes from a history that was lost.
    """
    open_life = current if current is not None and current.facts.outcome is None else None
    if named is not None and named.facts.job != hello.job:
        return unknown_life(hello.job, hello.job_uid)
    if named is not None:
        mismatch = spec_mismatch(named.facts, hello.job_spec) if lost else None
        return mismatch or Enter(named)
    if not hello.job_uid:
        return Enter(current) if current is not None and (open_life or _is_member(current, hello)) else Begin()
    if open_life is not None and _never_ran(hello):
        return Enter(open_life)
    if not lost:
        return unknown_life(hello.job, hello.job_uid)
    if open_life is not None and _has_round(open_life):
        return _taken_name(hello, open_life)
    return Revive(open_life)


def abandoned(hello: Hello, current: Life | None) -> Outcome | None:
    """How the newest life of the name ends as a new agent comes with another JobSpec; None: it does not.

    It does if nobody is left who wants the old one; an operator who holds it does. Who comes with the same goes on with
    it: nodes that were preempted all at once leave as if they were told to, and have spent no restart.
    """
    if current is None or current.facts.state is not JobState.GATHERING or current.facts.live_count > 0:
        return None
    if current.facts.hold is not None:
        return None
    is_new = not hello.job_uid and hello.lease_id == 0 and not hello.observed.may_have_workers
    if not is_new or _is_member(current, hello):
        return None
    found = first_difference(current.facts, hello.job_spec)
    if found is None:
        return None
    return Outcome(
        state=JobState.FAILED,
        reason="ABANDONED",
        message=(
            f"no node was left, and {hello.node} came with another spec: {found.field} {found.theirs}, not {found.ours}"
        ),
    )


def _is_member(life: Life, hello: Hello) -> bool:
    """Whether the Hello is from a member whose Welcome must have been lost; its lease may have run out since.

    The life's outcome is its own, and the port that it offers may be one that a round of that life used.
    """
    member = life.facts.members.get(hello.node)
    if member is None or member.gone is GoneReason.LEFT:
        return False
    return member.incarnation == hello.incarnation


def _never_ran(hello: Hello) -> bool:
    return hello.observed.round == NO_ROUND


def _has_round(life: Life) -> bool:
    """Whether it ever had one, or may have had one: its agents say so."""
    claims = life.watch.claims
    return life.facts.round is not None or bool(claims)


def unknown_life(job: str, uid: str) -> Refusal:
    return Refusal(
        reason=Reason.UNKNOWN_LIFE,
        message=f"job {job} has no life {uid} here",
        metadata={"job": job, "job_uid": uid},
    )


def _taken_name(hello: Hello, current: Life) -> Refusal:
    uid = current.facts.uid
    doing = "is being recovered" if current.facts.state is JobState.RECOVERING else "has begun a round"
    return Refusal(
        reason=Reason.UNKNOWN_LIFE,
        message=(
            f"the records of life {hello.job_uid} of job {hello.job} are lost, and life {uid} of that name {doing}"
            " meanwhile: this agent's workers end, so that the job does not run twice"
        ),
        metadata={"job": hello.job, "job_uid": hello.job_uid, "current": uid},
    )
