"""What a record tells the public: a function of the record alone, so that every reader is told the same for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rallypoint import wire
from rallypoint.model import JobState, Outcome, WorkerFailure
from rallypoint.texts import counted
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.wire.scalars import instant_to_proto, moment
from rallypoint.wire.types import JOB_STATES
from rallypoint_coordinator.core.records import (
    Entry,
    GoneReason,
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

_GONE = {
    GoneReason.LEFT: "left",
    GoneReason.OBITUARY: "is gone",
    GoneReason.EXPIRED: "is lost",
    GoneReason.REVOKED: "is given up",
}


def is_event(record: Record) -> bool:
    """Whether those who watch the job are told. What is none concerns no job, or says that one is forgotten."""
    return type(record) in _TOLD


def job_event(entry: Entry, revision: int) -> pb.JobEvent:
    """The event of a record that is one."""
    kind, tell = _TOLD[type(entry.record)]
    event = pb.JobEvent(
        revision=revision,
        event_time=instant_to_proto(entry.wall_ms),
        job=f"jobs/{entry.job}",
        job_uid=entry.job_uid,
        kind=kind,
    )
    tell(event, entry.record)
    return event


def _created(event: pb.JobEvent, record: JobCreated) -> None:
    spec = record.spec
    event.state = JOB_STATES.number(JobState.GATHERING)
    nodes = counted(spec.max_nodes, "node")
    if spec.min_nodes != spec.max_nodes:
        nodes = f"{spec.min_nodes} to {nodes}"
    event.message = f"the job began: {nodes}, {counted(spec.max_restarts, 'restart')} to spend"


def _joined(event: pb.JobEvent, record: MemberJoined) -> None:
    event.node = record.node
    event.message = f"{record.node} joined"


def _revoked(event: pb.JobEvent, record: LeaseRevoked) -> None:
    event.node = record.node
    event.message = _with(f"{record.node} is given up, once its lease is over", record.message)


def _gone(event: pb.JobEvent, record: MemberGone) -> None:
    event.node, event.reason = record.node, record.reason.value
    event.message = _with(f"{record.node} {_GONE[record.reason]}", record.message)


def _formed(event: pb.JobEvent, record: RoundFormed) -> None:
    event.state = JOB_STATES.number(JobState.RUNNING)
    _set_size(event, record.round, len(record.seats), sum(seat.local_world_size for seat in record.seats))
    nodes, workers = counted(event.node_count, "node"), counted(event.world_size, "worker")
    event.message = f"round {record.round} began: {nodes}, {workers}"


def _adopted(event: pb.JobEvent, record: RoundAdopted) -> None:
    event.state = JOB_STATES.number(JobState.RUNNING)
    _set_size(event, record.round, len(record.places), record.world_size)
    event.message = f"round {record.round} goes on: {event.node_count} nodes of it are back"


def _set_size(event: pb.JobEvent, round_number: int, nodes: int, workers: int) -> None:
    event.round, event.node_count, event.world_size = round_number, nodes, workers


def _succeeded(event: pb.JobEvent, record: NodeSucceeded) -> None:
    event.round, event.node = record.round, record.node
    event.message = f"all workers of {record.node} succeeded"


def _stopping(event: pb.JobEvent, record: RoundStopping) -> None:
    event.state = JOB_STATES.number(JobState.STOPPING)
    event.round, event.reason = record.round, record.cause.value
    event.message = _with(f"round {record.round} is being stopped", record.message)


def _ended(event: pb.JobEvent, record: RoundEnded) -> None:
    event.state = JOB_STATES.number(JobState.GATHERING)
    event.round, event.restart_spent = record.round, record.charged
    event.message = _with(f"round {record.round} ended", record.message)
    if record.culprit is not None:
        event.culprit.CopyFrom(wire.failure_to_proto(_brief(record.culprit)))


def _decided(event: pb.JobEvent, record: JobDecided) -> None:
    outcome = record.outcome
    event.state, event.reason = JOB_STATES.number(outcome.state), outcome.reason
    event.outcome.CopyFrom(wire.outcome_to_proto(_brief_outcome(outcome)))
    event.message = _with(f"the job is decided, {outcome.state.value}", outcome.message)


def _cancelled(event: pb.JobEvent, record: JobCancelled) -> None:
    event.requested_by = record.by
    event.message = _with(f"{record.by} asked for the end of the job", record.reason)


def _restart_asked(event: pb.JobEvent, record: RestartAsked) -> None:
    event.requested_by = record.by
    event.message = _with(f"{record.by} asked for a new round", record.reason)


def _drained(event: pb.JobEvent, record: NodeDrained) -> None:
    event.node, event.requested_by = record.node, record.by
    event.message = _with(f"{record.by} asked for {record.node} to leave", record.reason)


def _updated(event: pb.JobEvent, record: JobUpdated) -> None:
    event.requested_by = record.by
    event.message = _with(f"{record.by} changed the job, {record.told}", record.reason)


def _held(event: pb.JobEvent, record: JobHeld) -> None:
    event.requested_by = record.by
    until = instant_to_proto(record.until_wall_ms)
    what = f"{record.by} asked that no round be formed"
    event.message = _with(f"{what} until {moment(until)}" if until else what, record.reason)


def _released(event: pb.JobEvent, record: JobReleased) -> None:
    event.requested_by = record.by
    event.message = _with(f"{record.by} released the job" if record.by else "the job is released", record.reason)


def _expelled(event: pb.JobEvent, record: NodeExpelled) -> None:
    event.node, event.round = record.node, record.round
    pids = ", ".join(map(str, record.pids))
    event.message = f"{record.node} is quarantined: SIGKILL does not end {pids}"


def _readmitted(event: pb.JobEvent, record: NodeReadmitted) -> None:
    event.node = record.node
    event.message = f"{record.node} may take part again: nothing is left of what did not end"


def _recovery_began(event: pb.JobEvent, record: RecoveryBegan) -> None:
    event.state = JOB_STATES.number(JobState.RECOVERING)
    event.message = "the records of this job are lost: its agents are asked what they hold"


def _recovery_ended(event: pb.JobEvent, record: RecoveryEnded) -> None:
    event.state = JOB_STATES.number(JobState.GATHERING)
    event.message = "no round goes on"


def _with(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what


def _brief(failure: WorkerFailure) -> WorkerFailure:
    return replace(failure, traceback="")


def _brief_outcome(outcome: Outcome) -> Outcome:
    return replace(
        outcome,
        culprit=_brief(outcome.culprit) if outcome.culprit else None,
        candidates=tuple(map(_brief, outcome.candidates)),
    )


_TOLD: Mapping[type[Record], tuple[pb.JobEventKind.ValueType, Callable[[pb.JobEvent, Any], None]]] = {
    JobCreated: (pb.JOB_EVENT_KIND_JOB_CREATED, _created),
    MemberJoined: (pb.JOB_EVENT_KIND_NODE_JOINED, _joined),
    LeaseRevoked: (pb.JOB_EVENT_KIND_NODE_REVOKED, _revoked),
    MemberGone: (pb.JOB_EVENT_KIND_NODE_GONE, _gone),
    RoundFormed: (pb.JOB_EVENT_KIND_ROUND_BEGAN, _formed),
    NodeSucceeded: (pb.JOB_EVENT_KIND_NODE_SUCCEEDED, _succeeded),
    RoundStopping: (pb.JOB_EVENT_KIND_ROUND_STOPPING, _stopping),
    RoundEnded: (pb.JOB_EVENT_KIND_ROUND_ENDED, _ended),
    JobDecided: (pb.JOB_EVENT_KIND_JOB_DECIDED, _decided),
    JobCancelled: (pb.JOB_EVENT_KIND_CANCEL_ASKED, _cancelled),
    RestartAsked: (pb.JOB_EVENT_KIND_RESTART_ASKED, _restart_asked),
    NodeDrained: (pb.JOB_EVENT_KIND_DRAIN_ASKED, _drained),
    JobUpdated: (pb.JOB_EVENT_KIND_JOB_UPDATED, _updated),
    JobHeld: (pb.JOB_EVENT_KIND_JOB_HELD, _held),
    JobReleased: (pb.JOB_EVENT_KIND_JOB_RELEASED, _released),
    NodeExpelled: (pb.JOB_EVENT_KIND_NODE_QUARANTINED, _expelled),
    NodeReadmitted: (pb.JOB_EVENT_KIND_NODE_READMITTED, _readmitted),
    RecoveryBegan: (pb.JOB_EVENT_KIND_RECOVERY_BEGAN, _recovery_began),
    RoundAdopted: (pb.JOB_EVENT_KIND_ROUND_ADOPTED, _adopted),
    RecoveryEnded: (pb.JOB_EVENT_KIND_RECOVERY_ENDED, _recovery_ended),
}
"""LifeForgotten is none: it ends what could be told."""

EVENT_KINDS: Mapping[type[Record], pb.JobEventKind.ValueType] = {record: kind for record, (kind, _) in _TOLD.items()}
