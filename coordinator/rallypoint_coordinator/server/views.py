"""What JobService shows: a life of a job as public messages. Made while the driver waits, so made quickly."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from heapq import nsmallest
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration

from rallypoint import wire
from rallypoint.model import Blame, JobState, WorkerFailure, WorkerState, WorkerStatus
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint.wire.scalars import duration_to_proto, instant_to_proto
from rallypoint.wire.types import (
    AGENT_PHASES,
    BLAMES,
    JOB_STATES,
    WORKER_STATES,
    capabilities_to_proto,
    round_to_proto,
)
from rallypoint_coordinator.core import explain
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.directives import place_of
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.membership import is_suspect
from rallypoint_coordinator.core.records import GoneReason, JobHeld, Place
from rallypoint_coordinator.core.round_changes import RoundChange, Sightings, instants_of, phases_of
from rallypoint_coordinator.core.state import Facts, Life, Member, Round
from rallypoint_coordinator.core.updating import etag_of

GONE_STATES = {
    GoneReason.LEFT: pb.NODE_STATE_LEFT,
    GoneReason.OBITUARY: pb.NODE_STATE_GONE,
    GoneReason.EXPIRED: pb.NODE_STATE_LOST,
    GoneReason.REVOKED: pb.NODE_STATE_LOST,
}


def job_name(job: str) -> str:
    return f"jobs/{job}"


def jobs(cluster: Cluster, stamp: Stamp, names: Iterable[str], states: Container[JobState]) -> Iterator[pb.Job]:
    """The newest life of each of these jobs that is in one of these states."""
    for name in names:
        life = cluster.current(name)
        if life is not None and life.facts.state in states:
            yield job(life, cluster.epoch, stamp)


def job(life: Life, epoch: int, stamp: Stamp) -> pb.Job:
    """One life, in constant time."""
    facts, current = life.facts, life.facts.round
    return pb.Job(
        name=job_name(facts.job),
        uid=facts.uid,
        state=JOB_STATES.number(facts.state),
        reason=life.watch.reason,
        message=_with_time_left(life, stamp),
        round=round_to_proto(facts.round_number),
        restart_count=facts.restart_count,
        spec=wire.job_spec_to_proto(facts.spec),
        world_size=current.world_size if current else 0,
        participant_count=len(current.places) if current else 0,
        member_count=facts.live_count,
        succeeded_count=len(current.succeeded) if current else 0,
        endpoint=wire.endpoint_to_proto(current.endpoint) if current else None,
        last_failure=wire.failure_to_proto(facts.last_failure) if facts.last_failure else None,
        outcome=wire.outcome_to_proto(facts.outcome) if facts.outcome else None,
        version=types_pb2.Version(epoch=epoch, revision=facts.revision),
        create_time=instant_to_proto(facts.created_wall_ms),
        state_time=instant_to_proto(facts.state_wall_ms),
        observe_time=instant_to_proto(stamp.wall_ms),
        agreed_spec=wire.job_spec_to_proto(facts.replaced_spec) if facts.replaced_spec else None,
        labels=facts.labels,
        etag=etag_of(facts),
        hold=_hold(facts.hold) if facts.hold else None,
    )


def _hold(held: JobHeld) -> pb.JobHold:
    return pb.JobHold(
        requested_by=held.by,
        reason=held.reason,
        hold_time=instant_to_proto(held.since_wall_ms),
        expire_time=instant_to_proto(held.until_wall_ms),
    )


def _with_time_left(life: Life, stamp: Stamp) -> str:
    """The life's message and, if it waits for something, how long it still will."""
    message, until_ms = explain.as_of(life, stamp.at_ms)
    if until_ms is None:
        return message
    left_s = max(-(-(until_ms - stamp.at_ms) // 1000), 0)
    return f"{message}, {left_s} s left"


def round_changes(life: Life) -> Iterator[pb.RoundChange]:
    """How the newest rounds ended. Bounded."""
    return (_round_change(change, life.watch.sightings) for change in life.facts.round_changes)


def _round_change(change: RoundChange, seen: Sightings) -> pb.RoundChange:
    instants = instants_of(change, seen)
    phases = phases_of(instants)
    return pb.RoundChange(
        round=change.round,
        cause=change.cause.value,
        message=change.message,
        restart_spent=change.charged,
        next_round=round_to_proto(change.next_round),
        begin_time=instant_to_proto(next(filter(None, instants))),
        end_time=instant_to_proto(instants.all_gone_ms),
        detect=_lasted(phases.detect_ms),
        decide=_lasted(phases.decide_ms),
        teardown=_lasted(phases.teardown_ms),
        rendezvous=_lasted(phases.rendezvous_ms),
        spawn=_lasted(phases.spawn_ms),
    )


def _lasted(ms: int | None) -> Duration | None:
    return None if ms is None else duration_to_proto(ms)


# --- Nodes


def nodes(life: Life, stamp: Stamp, after: str, most: int) -> Iterator[pb.Node]:
    """At most so many nodes, by name, from the one that follows ``after``."""
    members = life.facts.members
    for name in nsmallest(most, (name for name in members if name > after)):
        yield node(life, members[name], stamp)


def node(life: Life, member: Member, stamp: Stamp) -> pb.Node:
    facts = life.facts
    place = place_of(facts, member)
    message = pb.Node(
        name=f"{job_name(facts.job)}/nodes/{member.node}",
        state=_node_state(facts, member),
        incarnation=member.incarnation,
        lease_id=member.lease_id,
        spec=wire.node_spec_to_proto(member.spec),
        group_rank=place.group_rank if place else None,
        agent_version=member.agent_version,
        capabilities=capabilities_to_proto(member.capabilities),
        observe_time=instant_to_proto(stamp.wall_ms),
        unkillable_pids=member.unkillable_pids,
    )
    _add_presence(message, life, member, stamp)
    return message


def _node_state(facts: Facts, member: Member) -> pb.NodeState.ValueType:
    if member.gone is not None:
        return GONE_STATES[member.gone]
    if member.unkillable_pids:
        return pb.NODE_STATE_QUARANTINED
    current = facts.round
    if current is None or current.ended or place_of(facts, member) is None:
        return pb.NODE_STATE_STANDBY
    return pb.NODE_STATE_SUCCEEDED if member.node in current.succeeded else pb.NODE_STATE_PARTICIPANT


def _add_presence(message: pb.Node, life: Life, member: Member, stamp: Stamp) -> None:
    """The soft fields. A member that has not been heard in this epoch has said nothing about itself."""
    presence = life.presences.get(member.lease_id)
    if presence is None:
        return
    message.attached = presence.stream is not None
    message.suspect = is_suspect(presence, stamp.at_ms)
    message.peer = presence.peer
    if presence.heard_wall_ms:
        message.phase = AGENT_PHASES.number(presence.observed.phase)
        message.heartbeat_time.CopyFrom(instant_to_proto(presence.heard_wall_ms) or message.heartbeat_time)
        message.watchdog.CopyFrom(wire.watchdog_to_proto(presence.observed.watchdog))


# --- Workers


class _Seated(NamedTuple):
    """One worker's place in a round."""

    place: Place
    local_rank: int

    @property
    def rank(self) -> int:
        return self.place.first_rank + self.local_rank


def workers(life: Life, stamp: Stamp, after: int) -> Iterator[pb.Worker]:
    """The workers of the current or last round, by rank, from the one that follows rank ``after``."""
    current = life.facts.round
    if current is None:
        return
    failed = {failure.rank: failure for failure in current.failures}
    reports: dict[int, dict[int, WorkerStatus]] = {}
    for seated in _seated_after(current, after):
        lease_id = seated.place.seat.lease_id
        if lease_id not in reports:
            reports[lease_id] = _reported(life, current, lease_id)
        status = reports[lease_id].get(seated.local_rank) or _unreported(current, seated, failed)
        blame = failed[seated.rank].blame if seated.rank in failed else None
        worker = _worker(life.facts, current, seated, status, stamp, blame)
        if (presence := life.presences.get(lease_id)) is not None and presence.heard_wall_ms:
            worker.watchdog.CopyFrom(wire.watchdog_to_proto(presence.observed.watchdog))
        yield worker


def _seated_after(current: Round, after: int) -> Iterator[_Seated]:
    for place in current.places.values():
        size = place.seat.local_world_size
        first = max(after + 1 - place.first_rank, 0)
        for local_rank in range(first, size):
            yield _Seated(place, local_rank)


def _reported(life: Life, current: Round, lease_id: int) -> dict[int, WorkerStatus]:
    """What the node's agent said last of the round's workers, by local rank."""
    presence = life.presences.get(lease_id)
    if presence is None or presence.observed.round != current.number:
        return {}
    return {status.local_rank: status for status in presence.observed.workers}


def _unreported(current: Round, seated: _Seated, failed: dict[int, WorkerFailure]) -> WorkerStatus:
    """What the durable facts say: a node's success is that of each of its workers."""
    failure = failed.get(seated.rank)
    if failure is not None:
        return WorkerStatus(
            local_rank=seated.local_rank,
            rank=seated.rank,
            pid=failure.pid,
            state=WorkerState.FAILED,
            exit_code=failure.exit_code,
        )
    if seated.place.seat.node in current.succeeded:
        return WorkerStatus(local_rank=seated.local_rank, rank=seated.rank, state=WorkerState.SUCCEEDED, exit_code=0)
    return WorkerStatus(local_rank=seated.local_rank, rank=seated.rank, state=WorkerState.UNKNOWN)


def _worker(
    facts: Facts, current: Round, seated: _Seated, status: WorkerStatus, stamp: Stamp, blame: Blame | None
) -> pb.Worker:
    seat = seated.place.seat
    return pb.Worker(
        name=f"{job_name(facts.job)}/workers/{seated.rank}",
        rank=seated.rank,
        local_rank=seated.local_rank,
        node=seat.node,
        round=current.number,
        role=seat.role,
        pid=status.pid,
        state=WORKER_STATES.number(status.state),
        exit_code=status.exit_code,
        blame=BLAMES.number(blame) if blame else types_pb2.BLAME_UNSPECIFIED,
        observe_time=instant_to_proto(stamp.wall_ms),
    )
