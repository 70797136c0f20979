"""What the coordinator decides and says, in one line each.

A number stands before a record: its revision. ``>`` is what an agent is sent, ``?`` an answer, ``=`` the explanation.
"""

from __future__ import annotations

from collections.abc import Mapping

from rallypoint.errors import Refusal
from rallypoint.model import Action, Assignment, Directive, Drain, Exit, Hold, Keep, Run, Stop, WorkerFailure
from rallypoint_coordinator.core.effects import (
    Answer,
    Effect,
    EndStream,
    Explain,
    RefuseStream,
    SendAck,
    SendDirective,
    SendLeaseStale,
    SendWelcome,
)
from rallypoint_coordinator.core.records import (
    CoordinatorStarted,
    JobCancelled,
    JobCreated,
    JobDecided,
    JobHeld,
    JobReleased,
    JobUpdated,
    LeaseRevoked,
    LifeForgotten,
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
    StateLost,
)


def told_record(record: Record, revision: int) -> str:
    return f"{revision:>3} {type(record).__name__}: {_decided(record)}".rstrip()


def told_effect(effect: Effect, node_of: Mapping[int, str]) -> str:
    """``node_of`` says whose stream it is."""
    if isinstance(effect, Explain):
        return f"  = {effect.reason}: {effect.message}"
    if isinstance(effect, Answer):
        return f"  ? {_answer(effect.answer)}"
    return f"  > {node_of[effect.stream]} {_sent(effect)}"


def _sent(effect: SendWelcome | SendDirective | SendAck | SendLeaseStale | EndStream | RefuseStream) -> str:
    match effect:
        case SendWelcome(_, welcome):
            return f"welcome to {welcome.job_uid}, lease {welcome.lease_id}: {_directive(welcome.directive)}"
        case SendDirective(_, directive):
            return _directive(directive)
        case SendAck(_, seq):
            return f"acknowledged {seq}"
        case SendLeaseStale(_, message):
            return f"LEASE_STALE: {message}"
        case EndStream():
            return "end of stream"
        case RefuseStream(_, refusal):
            return f"refused, {_refusal(refusal)}"


def _decided(record: Record) -> str:
    match record:
        case CoordinatorStarted():
            return f"epoch {record.epoch} of {record.cluster_id}"
        case StateLost():
            former = f", it answers for {record.former_cluster_id}" if record.former_cluster_id else ""
            return f"epoch {record.epoch}{former}"
        case RecoveryBegan():
            floor = (
                f", round {record.round} and {record.restart_count} restarts are known of" if record.round >= 0 else ""
            )
            return f"epoch {record.epoch}{floor}"
        case RoundAdopted():
            nodes = ", ".join(f"{place.seat.node} ({place.group_rank})" for place in record.places)
            return f"round {record.round}, restart {record.restart_count}: {nodes}; at {_at(record)}"
        case RecoveryEnded():
            return ""
        case JobCreated(spec=spec):
            return f"{spec.min_nodes} to {spec.max_nodes} nodes, {spec.max_restarts} restarts"
        case MemberJoined():
            return f"{record.node}, incarnation {record.incarnation}"
        case LeaseRevoked():
            return f"{record.node}, lease {record.lease_id}: {record.message}"
        case MemberGone():
            return f"{record.node}, lease {record.lease_id}, {record.reason}: {record.message}"
        case RoundFormed():
            nodes = ", ".join(f"{seat.node} ({seat.local_world_size})" for seat in record.seats)
            return f"round {record.round}: {nodes}; at {_at(record)}, offer {record.offer_id} of {record.seats[0].node}"
        case NodeSucceeded():
            return f"round {record.round}: {record.node}"
        case RoundStopping():
            return f"round {record.round}, {record.cause}: {record.message}"
        case RoundEnded():
            price = "one restart is spent" if record.charged else "nothing is spent"
            blamed = ", ".join([_culprit(record.culprit), *map(_other, record.others)])
            return f"round {record.round}, {price}, {blamed}; {record.message}"
        case JobCancelled() | RestartAsked():
            return f"by {record.by}: {record.reason}"
        case NodeDrained():
            return f"{record.node}, lease {record.lease_id}, by {record.by}: {record.reason}"
        case JobUpdated():
            return f"by {record.by}: {record.reason}: {record.told}"
        case JobHeld():
            held_s = (record.until_wall_ms - record.since_wall_ms) / 1000
            return f"by {record.by}, {held_s:g} s in all: {record.reason}"
        case JobReleased():
            return f"by {record.by or 'nobody'}: {record.reason}"
        case NodeExpelled():
            return f"{record.node}, lease {record.lease_id}, from round {record.round}: {list(record.pids)} do not end"
        case NodeReadmitted():
            return f"{record.node}, lease {record.lease_id}"
        case JobDecided(outcome=outcome):
            return f"{outcome.state}, {outcome.reason}: {outcome.message}"
        case LifeForgotten():
            return ""


def _at(record: RoundFormed | RoundAdopted) -> str:
    return f"{record.endpoint.host}:{record.endpoint.port}"


def _culprit(culprit: WorkerFailure | None) -> str:
    return f"culprit {culprit.node}" if culprit is not None else "no culprit"


def _other(failure: WorkerFailure) -> str:
    assert failure.blame is not None, "what ended with the round was judged"
    return f"{failure.node} {failure.blame.lower()}"


def _directive(directive: Directive) -> str:
    version = f"{directive.version.epoch}.{directive.version.revision}"
    why = "" if isinstance(directive.action, Run) else f", {directive.reason}: {directive.message}"
    return f"[{version}] {_action(directive.action)}{why}"


def _action(action: Action | None) -> str:
    match action:
        case Run(assignment):
            return _assignment(assignment)
        case Stop(number, grace_ms):
            return f"STOP round {number} within {grace_ms / 1_000:g} s"
        case Hold():
            return "HOLD"
        case Keep():
            return "KEEP"
        case Drain():
            return "DRAIN"
        case Exit(outcome):
            return f"EXIT {outcome.state}"
        case None:
            return "UNKNOWN"


def _assignment(assignment: Assignment) -> str:
    ranks = f"ranks from {assignment.first_rank} of {assignment.world_size}"
    node = f"node {assignment.group_rank} of {assignment.group_world_size}"
    host, port = assignment.endpoint
    return f"RUN round {assignment.round}, restart {assignment.restart_count}: {node}, {ranks}, meet at {host}:{port}"


def _answer(answer: bool | Refusal) -> str:
    if isinstance(answer, Refusal):
        return f"no, {_refusal(answer)}"
    return "done" if answer else "no news"


def _refusal(refusal: Refusal) -> str:
    return f"{refusal.reason}: {refusal.message}"
