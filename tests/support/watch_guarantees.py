"""The guarantees of docs/watch.md, one validator each: what a reader was told, against the records of the journal.

Each is a pure function, and raises :class:`Broken`. They do not ask the code that makes events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rallypoint.model import NO_ROUND, JobState
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint.wire.scalars import instant_from_proto
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import (
    Entry,
    JobCancelled,
    JobCreated,
    JobDecided,
    JobHeld,
    JobReleased,
    JobUpdated,
    LeaseRevoked,
    MemberGone,
    MemberJoined,
    NodeDrained,
    NodeExpelled,
    NodeReadmitted,
    NodeSucceeded,
    Record,
    RecoveryBegan,
    RecoveryEnded,
    RestartAsked,
    RoundAdopted,
    RoundEnded,
    RoundFormed,
    RoundStopping,
)
from rallypoint_coordinator.core.state import Facts
from support.watch_history import Chain

Records = Sequence[tuple[int, Entry]]
"""All that the journal ever had, each with its revision."""

KINDS: dict[type[Record], str] = {
    JobCreated: "JOB_CREATED",
    MemberJoined: "NODE_JOINED",
    LeaseRevoked: "NODE_REVOKED",
    MemberGone: "NODE_GONE",
    RoundFormed: "ROUND_BEGAN",
    NodeSucceeded: "NODE_SUCCEEDED",
    RoundStopping: "ROUND_STOPPING",
    RoundEnded: "ROUND_ENDED",
    JobDecided: "JOB_DECIDED",
    JobCancelled: "CANCEL_ASKED",
    RestartAsked: "RESTART_ASKED",
    NodeDrained: "DRAIN_ASKED",
    JobUpdated: "JOB_UPDATED",
    JobHeld: "JOB_HELD",
    JobReleased: "JOB_RELEASED",
    NodeExpelled: "NODE_QUARANTINED",
    NodeReadmitted: "NODE_READMITTED",
    RecoveryBegan: "RECOVERY_BEGAN",
    RoundAdopted: "ROUND_ADOPTED",
    RecoveryEnded: "RECOVERY_ENDED",
}


class Broken(Exception):
    """``guarantee`` does not hold."""

    def __init__(self, guarantee: str, message: str) -> None:
        super().__init__(f"{guarantee}: {message}")
        self.guarantee = guarantee


def ordered(chain: Chain, records: Records) -> None:
    """Nothing comes that is before what has come."""
    told_until = chain.after
    for message in chain.messages:
        revisions = [event.revision for event in message.events]
        if revisions != sorted(revisions) or any(revision < told_until for revision in revisions):
            raise Broken("ordered", f"{revisions} after {told_until}")
        if message.revision < max([told_until, *revisions]):
            raise Broken("ordered", f"a message goes back from {told_until} to {message.revision}: {revisions}")
        told_until = message.revision


def unique(chain: Chain, records: Records) -> None:
    """Nothing comes twice."""
    seen: set[int] = set()
    for event in chain.events:
        if event.revision in seen:
            raise Broken("unique", f"{event.revision} is told twice: {event}")
        seen.add(event.revision)


def atomic(chain: Chain, records: Records) -> None:
    """An event is all that its record is; a snapshot is all that the records up to it lead to, and no more."""
    entries = dict(records)
    for event in chain.events:
        entry = entries.get(event.revision)
        if entry is None or not _is_told_by(event, entry, chain.uid):
            raise Broken("atomic", f"the record is {entry}, told is {event}")
    for message in chain.messages:
        if message.HasField("snapshot"):
            facts = _facts_at(message.revision, chain.uid, records)
            if facts is None or not _is_shown_by(message.snapshot, facts):
                raise Broken("atomic", f"revision {message.revision} is {facts}, told is {message.snapshot}")


def reliable(chain: Chain, records: Records) -> None:
    """Nothing is left out up to where all is told."""
    told = [event.revision for event in chain.events]
    expected = _to_be_told(chain, records, chain.revision)
    if told != expected:
        raise Broken("reliable", f"told {told}, decided in ({chain.after}, {chain.revision}] was {expected}")
    if chain.ended and not any(
        isinstance(entry.record, JobDecided) and entry.job_uid == chain.uid and revision <= chain.revision
        for revision, entry in records
    ):
        raise Broken("reliable", f"the watch of {chain.uid} ended at {chain.revision}, and nothing is decided")


def resumable(chain: Chain, records: Records) -> None:
    """Who goes on with a token is told what follows its message, from the first event on, and needs no snapshot."""
    for count, revision in chain.resumed:
        following = [event.revision for told in chain.told[count:] for event in told.message.events]
        expected = [number for number in _to_be_told(chain, records, chain.revision) if number > revision]
        if following != expected:
            raise Broken("resumable", f"after {revision}: told {following}, decided was {expected}")
    if any(told.message.HasField("snapshot") for told in chain.told[1:]):
        raise Broken("resumable", "a snapshot amid a watch")


def bookmarkable(chain: Chain, records: Records) -> None:
    """A message's revision says that all up to it has been told: whatever it has besides."""
    told: set[int] = set()
    for message in chain.messages:
        told.update(event.revision for event in message.events)
        missing = set(_to_be_told(chain, records, message.revision)) - told
        if missing:
            raise Broken("bookmarkable", f"{message.revision} is said to be reached without {missing}")


def durable(chain: Chain, records: Records) -> None:
    """Nothing is told before the journal has it."""
    for message, known in chain.told:
        if known is not None and message.revision > known:
            raise Broken("durable", f"{message.revision} is told while the journal is at {known}: {message}")


GUARANTEES: Sequence[Callable[[Chain, Records], None]] = (
    ordered,
    unique,
    atomic,
    reliable,
    resumable,
    bookmarkable,
    durable,
)


def check(chains: Iterable[Chain], records: Records) -> None:
    """All of them."""
    for chain in chains:
        for guarantee in GUARANTEES:
            guarantee(chain, records)


def _to_be_told(chain: Chain, records: Records, until: int) -> list[int]:
    """The revisions of all that is to be told in this chain, up to that one. Nothing is after the job is decided."""
    found: list[int] = []
    is_decided = False
    for revision, entry in records:
        if entry.job_uid != chain.uid or revision > until:
            continue
        # A life that was decided and forgotten may come back: from agents that know of an earlier history alone.
        if is_decided and not isinstance(entry.record, JobCreated):
            continue
        is_decided = isinstance(entry.record, JobDecided)
        if revision > chain.after and type(entry.record) in KINDS:
            found.append(revision)
    return found


def _is_told_by(event: pb.JobEvent, entry: Entry, uid: str) -> bool:
    record = entry.record
    said = (event.job, event.job_uid, instant_from_proto(event.event_time), pb.JobEventKind.Name(event.kind))
    if said != (f"jobs/{entry.job}", uid, entry.wall_ms, f"JOB_EVENT_KIND_{KINDS.get(type(record))}"):
        return False
    is_node_told = event.node == getattr(record, "node", "")
    of_round = None if isinstance(record, RecoveryBegan) else getattr(record, "round", None)
    is_round_told = (event.round if event.HasField("round") else None) == of_round
    return bool(event.message) and entry.job_uid == uid and is_node_told and is_round_told


def _facts_at(revision: int, uid: str, records: Records) -> Facts | None:
    cluster = Cluster()
    for number, entry in records[:revision]:
        cluster.apply(entry, number)
    life = cluster.lives.get(uid)
    return life.facts if life is not None else None


def _is_shown_by(job: pb.Job, facts: Facts) -> bool:
    shown = (
        types_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_"),
        job.round if job.HasField("round") else NO_ROUND,
        job.restart_count,
        job.member_count,
        job.succeeded_count,
        job.version.revision,
        job.HasField("outcome"),
    )
    return shown == (
        JobState(facts.state).name,
        facts.round_number,
        facts.restart_count,
        facts.live_count,
        len(facts.round.succeeded) if facts.round is not None else 0,
        facts.revision,
        facts.outcome is not None,
    )
