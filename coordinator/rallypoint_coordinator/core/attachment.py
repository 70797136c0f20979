"""The life that a Hello comes to: the one that it belongs to, or one that it begins."""

from __future__ import annotations

from rallypoint.errors import Reason, Refusal
from rallypoint_coordinator.core import lineage
from rallypoint_coordinator.core.directory import LIVES_MAX, Directory
from rallypoint_coordinator.core.effects import Output, RefuseStream
from rallypoint_coordinator.core.events import AgentAttached, Stamp
from rallypoint_coordinator.core.history import Known, Lost
from rallypoint_coordinator.core.lineage import Begin, Enter, Revive
from rallypoint_coordinator.core.records import JobCreated
from rallypoint_coordinator.core.state import Life


def enter(directory: Directory, event: AgentAttached, known: Known | Lost, stamp: Stamp, out: Output) -> Life | Refusal:
    """Take the Hello to its life. Returns why not, if there is none for it: then nothing is changed."""
    hello, lost = event.hello, isinstance(known, Lost)
    verdict = lineage.life_for(hello, directory.lives.get(hello.job_uid), directory.current(hello.job), lost=lost)
    if isinstance(verdict, Refusal):
        return verdict
    begins = not isinstance(verdict, Enter)
    if begins and directory.is_full:
        return _too_many_jobs()
    if isinstance(known, Lost) and known.record is not None:
        directory.record(stamp, out, known.record)
    return verdict.life if isinstance(verdict, Enter) else _begin(directory, event, verdict, stamp, out)


def _begin(directory: Directory, event: AgentAttached, verdict: Begin | Revive, stamp: Stamp, out: Output) -> Life:
    hello, uid, before = event.hello, event.fresh_uid, None
    if isinstance(verdict, Revive):
        uid, before = hello.job_uid, verdict.instead_of
        if before is not None:
            _give_way(directory, before, stamp, out)
    directory.make_room(stamp, out)
    directory.record(stamp, out, JobCreated(spec=hello.job_spec), hello.job, uid)
    created = directory.lives[uid]
    created.watch.gathering_since_ms = stamp.at_ms
    if before is not None and before.facts.hold is not None:
        # Who holds a job names it, and knows nothing of its lives.
        directory.record(stamp, out, before.facts.hold, hello.job, uid)
        created.watch.hold_ends_ms = before.watch.hold_ends_ms
    return created


def _give_way(directory: Directory, life: Life, stamp: Stamp, out: Output) -> None:
    """An earlier life of the name comes back: the agents of this one, which has had no round, join that one."""
    refusal = Refusal(
        reason=Reason.RECOVERING,
        message=f"an earlier life of job {life.facts.job} came back: attach again to join it",
        metadata={"job": life.facts.job, "job_uid": life.facts.uid},
    )
    streams = (presence.stream for presence in life.presences.values())
    out.effects.extend(RefuseStream(stream, refusal) for stream in streams if stream is not None)
    directory.forget(life.facts.uid, stamp, out)


def _too_many_jobs() -> Refusal:
    return Refusal(
        reason=Reason.LIMIT_REACHED,
        message=f"this coordinator has {LIVES_MAX} jobs, which is the limit",
        metadata={"limit": str(LIVES_MAX)},
    )
