"""A record as the bytes of a JournalRecord, and back. Lossless: replay must give the very state that was decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from rallypoint import wire
from rallypoint.model import NO_ROUND, Outcome
from rallypoint.v1 import journal_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint.wire.scalars import EnumTable, instant_from_proto, instant_to_proto
from rallypoint.wire.types import JOB_STATES, capabilities_from_proto, capabilities_to_proto, round_to_proto
from rallypoint_coordinator.core.records import (
    CoordinatorStarted,
    Entry,
    GoneReason,
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
    Place,
    Record,
    RecoveryBegan,
    RecoveryEnded,
    RestartAsked,
    RoundAdopted,
    RoundEnded,
    RoundFormed,
    RoundStopping,
    Seat,
    StateLost,
    StopCause,
)

GONE_REASONS = EnumTable(GoneReason, pb.GoneReason, "GONE_REASON_")
STOP_CAUSES = EnumTable(StopCause, pb.StopCause, "STOP_CAUSE_")

T = TypeVar("T")


class UnreadableRecord(Exception):
    """The bytes are no record, or one with a value that this release does not know."""


class UnknownRecordKind(UnreadableRecord):
    """A later release wrote this record: it cannot be skipped, since nobody here knows what would be forgotten."""


def encode(entry: Entry) -> bytes:
    """The entry as it is stored. Equal entries give equal bytes."""
    codec = _BY_TYPE[type(entry.record)]
    kind: dict[str, Any] = {codec.field: codec.write(entry.record)}
    message = pb.JournalRecord(
        job=entry.job,
        job_uid=entry.job_uid,
        decide_time=instant_to_proto(entry.wall_ms),
        **kind,
    )
    return message.SerializeToString(deterministic=True)


def decode(data: bytes) -> Entry:
    """The entry that was stored. Raises UnreadableRecord."""
    try:
        message = pb.JournalRecord.FromString(data)
    except DecodeError as error:
        raise UnreadableRecord(f"not a record: {error}") from error
    field = message.WhichOneof("record")
    if field is None:
        raise UnknownRecordKind("a record of a kind that this release does not know; was a later release run here?")
    return Entry(
        job=message.job,
        job_uid=message.job_uid,
        wall_ms=instant_from_proto(message.decide_time),
        record=_BY_FIELD[field].read(getattr(message, field)),
    )


def known(member: T | None, what: str, number: int) -> T:
    """The member that an enum's number stands for. Raises UnreadableRecord if there is none."""
    if member is None:
        raise UnreadableRecord(f"{what} {number} is not known to this release; was a later release run here?")
    return member


def _write_started(record: CoordinatorStarted) -> pb.CoordinatorStarted:
    born_time = instant_to_proto(record.born_wall_ms)
    return pb.CoordinatorStarted(cluster_id=record.cluster_id, epoch=record.epoch, born_time=born_time)


def _read_started(message: pb.CoordinatorStarted) -> CoordinatorStarted:
    return CoordinatorStarted(
        cluster_id=message.cluster_id, epoch=message.epoch, born_wall_ms=instant_from_proto(message.born_time)
    )


def _write_created(record: JobCreated) -> pb.JobCreated:
    return pb.JobCreated(spec=wire.job_spec_to_proto(record.spec))


def _read_created(message: pb.JobCreated) -> JobCreated:
    return JobCreated(spec=wire.job_spec_from_proto(message.spec))


def _write_joined(record: MemberJoined) -> pb.MemberJoined:
    return pb.MemberJoined(
        node=record.node,
        incarnation=record.incarnation,
        spec=wire.node_spec_to_proto(record.spec),
        capabilities=capabilities_to_proto(record.capabilities),
        agent_version=record.agent_version,
        consumed_offer_id=record.consumed_offer_id,
    )


def _read_joined(message: pb.MemberJoined) -> MemberJoined:
    return MemberJoined(
        node=message.node,
        incarnation=message.incarnation,
        spec=wire.node_spec_from_proto(message.spec),
        capabilities=capabilities_from_proto(list(message.capabilities)),
        agent_version=message.agent_version,
        consumed_offer_id=message.consumed_offer_id,
    )


def _write_revoked(record: LeaseRevoked) -> pb.LeaseRevoked:
    return pb.LeaseRevoked(node=record.node, lease_id=record.lease_id, message=record.message)


def _read_revoked(message: pb.LeaseRevoked) -> LeaseRevoked:
    return LeaseRevoked(node=message.node, lease_id=message.lease_id, message=message.message)


def _write_gone(record: MemberGone) -> pb.MemberGone:
    return pb.MemberGone(
        node=record.node,
        lease_id=record.lease_id,
        reason=GONE_REASONS.number(record.reason),
        message=record.message,
    )


def _read_gone(message: pb.MemberGone) -> MemberGone:
    return MemberGone(
        node=message.node,
        lease_id=message.lease_id,
        reason=known(GONE_REASONS.member(message.reason), "GoneReason", message.reason),
        message=message.message,
    )


def seat_to_proto(seat: Seat) -> pb.Seat:
    return pb.Seat(node=seat.node, lease_id=seat.lease_id, local_world_size=seat.local_world_size, role=seat.role)


def seat_from_proto(message: pb.Seat) -> Seat:
    return Seat(
        node=message.node,
        lease_id=message.lease_id,
        local_world_size=message.local_world_size,
        role=message.role,
    )


def place_to_proto(place: Place) -> pb.Place:
    return pb.Place(
        seat=seat_to_proto(place.seat),
        group_rank=place.group_rank,
        first_rank=place.first_rank,
        first_role_rank=place.first_role_rank,
        role_world_size=place.role_world_size,
    )


def place_from_proto(message: pb.Place) -> Place:
    return Place(
        seat=seat_from_proto(message.seat),
        group_rank=message.group_rank,
        first_rank=message.first_rank,
        first_role_rank=message.first_role_rank,
        role_world_size=message.role_world_size,
    )


def _write_lost(record: StateLost) -> pb.StateLost:
    return pb.StateLost(former_cluster_id=record.former_cluster_id, epoch=record.epoch)


def _read_lost(message: pb.StateLost) -> StateLost:
    return StateLost(former_cluster_id=message.former_cluster_id, epoch=message.epoch)


def _write_recovery(record: RecoveryBegan) -> pb.RecoveryBegan:
    return pb.RecoveryBegan(epoch=record.epoch, round=round_to_proto(record.round), restart_count=record.restart_count)


def _read_recovery(message: pb.RecoveryBegan) -> RecoveryBegan:
    return RecoveryBegan(
        epoch=message.epoch,
        round=message.round if message.HasField("round") else NO_ROUND,
        restart_count=message.restart_count,
    )


def _write_adopted(record: RoundAdopted) -> pb.RoundAdopted:
    return pb.RoundAdopted(
        round=record.round,
        restart_count=record.restart_count,
        places=[place_to_proto(place) for place in record.places],
        world_size=record.world_size,
        endpoint=wire.endpoint_to_proto(record.endpoint),
        offer_node=record.offer_node,
        offer_id=record.offer_id,
    )


def _read_adopted(message: pb.RoundAdopted) -> RoundAdopted:
    return RoundAdopted(
        round=message.round,
        restart_count=message.restart_count,
        places=tuple(place_from_proto(place) for place in message.places),
        world_size=message.world_size,
        endpoint=wire.endpoint_from_proto(message.endpoint),
        offer_node=message.offer_node,
        offer_id=message.offer_id,
    )


def _write_recovered(record: RecoveryEnded) -> pb.RecoveryEnded:
    return pb.RecoveryEnded()


def _read_recovered(message: pb.RecoveryEnded) -> RecoveryEnded:
    return RecoveryEnded()


def _write_formed(record: RoundFormed) -> pb.RoundFormed:
    return pb.RoundFormed(
        round=record.round,
        seats=[seat_to_proto(seat) for seat in record.seats],
        endpoint=wire.endpoint_to_proto(record.endpoint),
        offer_id=record.offer_id,
    )


def _read_formed(message: pb.RoundFormed) -> RoundFormed:
    return RoundFormed(
        round=message.round,
        seats=tuple(seat_from_proto(seat) for seat in message.seats),
        endpoint=wire.endpoint_from_proto(message.endpoint),
        offer_id=message.offer_id,
    )


def _write_succeeded(record: NodeSucceeded) -> pb.NodeSucceeded:
    return pb.NodeSucceeded(round=record.round, node=record.node)


def _read_succeeded(message: pb.NodeSucceeded) -> NodeSucceeded:
    return NodeSucceeded(round=message.round, node=message.node)


def _write_stopping(record: RoundStopping) -> pb.RoundStopping:
    return pb.RoundStopping(
        round=record.round,
        cause=STOP_CAUSES.number(record.cause),
        message=record.message,
        epoch=record.epoch,
        happen_time=instant_to_proto(record.happened_wall_ms),
        notice_time=instant_to_proto(record.noticed_wall_ms),
    )


def _read_stopping(message: pb.RoundStopping) -> RoundStopping:
    return RoundStopping(
        round=message.round,
        cause=known(STOP_CAUSES.member(message.cause), "StopCause", message.cause),
        message=message.message,
        epoch=message.epoch,
        happened_wall_ms=instant_from_proto(message.happen_time),
        noticed_wall_ms=instant_from_proto(message.notice_time),
    )


def _write_ended(record: RoundEnded) -> pb.RoundEnded:
    return pb.RoundEnded(
        round=record.round,
        charged=record.charged,
        culprit=wire.failure_to_proto(record.culprit) if record.culprit else None,
        message=record.message,
        others=[wire.failure_to_proto(failure) for failure in record.others],
    )


def _read_ended(message: pb.RoundEnded) -> RoundEnded:
    return RoundEnded(
        round=message.round,
        charged=message.charged,
        culprit=wire.failure_from_proto(message.culprit) if message.HasField("culprit") else None,
        message=message.message,
        others=tuple(wire.failure_from_proto(failure) for failure in message.others),
    )


def _write_decided(record: JobDecided) -> pb.JobDecided:
    return pb.JobDecided(outcome=outcome_to_proto(record.outcome))


def _read_decided(message: pb.JobDecided) -> JobDecided:
    return JobDecided(outcome=outcome_from_proto(message.outcome))


def outcome_to_proto(outcome: Outcome) -> types_pb2.Outcome:
    message = wire.outcome_to_proto(outcome)
    message.message = outcome.message  # on the wire it is cut, here nothing may be lost
    return message


def outcome_from_proto(message: types_pb2.Outcome) -> Outcome:
    known(JOB_STATES.member(message.state), "JobState", message.state)
    return wire.outcome_from_proto(message)


def _write_cancelled(record: JobCancelled) -> pb.JobCancelled:
    return pb.JobCancelled(by=record.by, reason=record.reason, told=record.told)


def _read_cancelled(message: pb.JobCancelled) -> JobCancelled:
    return JobCancelled(by=message.by, reason=message.reason, told=message.told)


def _write_restart(record: RestartAsked) -> pb.RestartAsked:
    return pb.RestartAsked(by=record.by, reason=record.reason)


def _read_restart(message: pb.RestartAsked) -> RestartAsked:
    return RestartAsked(by=message.by, reason=message.reason)


def _write_drained(record: NodeDrained) -> pb.NodeDrained:
    return pb.NodeDrained(
        node=record.node, lease_id=record.lease_id, by=record.by, reason=record.reason, told=record.told
    )


def _read_drained(message: pb.NodeDrained) -> NodeDrained:
    return NodeDrained(
        node=message.node, lease_id=message.lease_id, by=message.by, reason=message.reason, told=message.told
    )


def _write_updated(record: JobUpdated) -> pb.JobUpdated:
    return pb.JobUpdated(
        by=record.by,
        reason=record.reason,
        min_nodes=record.min_nodes,
        max_nodes=record.max_nodes,
        max_restarts=record.max_restarts,
        labels=record.labels,
        told=record.told,
    )


def _read_updated(message: pb.JobUpdated) -> JobUpdated:
    return JobUpdated(
        by=message.by,
        reason=message.reason,
        min_nodes=message.min_nodes,
        max_nodes=message.max_nodes,
        max_restarts=message.max_restarts,
        labels=dict(message.labels),
        told=message.told,
    )


def hold_to_proto(record: JobHeld) -> pb.JobHeld:
    return pb.JobHeld(
        by=record.by,
        reason=record.reason,
        since_time=instant_to_proto(record.since_wall_ms),
        until_time=instant_to_proto(record.until_wall_ms),
    )


def hold_from_proto(message: pb.JobHeld) -> JobHeld:
    return JobHeld(
        by=message.by,
        reason=message.reason,
        since_wall_ms=instant_from_proto(message.since_time),
        until_wall_ms=instant_from_proto(message.until_time),
    )


def _write_released(record: JobReleased) -> pb.JobReleased:
    return pb.JobReleased(by=record.by, reason=record.reason)


def _read_released(message: pb.JobReleased) -> JobReleased:
    return JobReleased(by=message.by, reason=message.reason)


def _write_expelled(record: NodeExpelled) -> pb.NodeExpelled:
    return pb.NodeExpelled(node=record.node, lease_id=record.lease_id, round=record.round, pids=record.pids)


def _read_expelled(message: pb.NodeExpelled) -> NodeExpelled:
    return NodeExpelled(node=message.node, lease_id=message.lease_id, round=message.round, pids=tuple(message.pids))


def _write_readmitted(record: NodeReadmitted) -> pb.NodeReadmitted:
    return pb.NodeReadmitted(node=record.node, lease_id=record.lease_id)


def _read_readmitted(message: pb.NodeReadmitted) -> NodeReadmitted:
    return NodeReadmitted(node=message.node, lease_id=message.lease_id)


def _write_forgotten(record: LifeForgotten) -> pb.LifeForgotten:
    return pb.LifeForgotten()


def _read_forgotten(message: pb.LifeForgotten) -> LifeForgotten:
    return LifeForgotten()


class _Codec(NamedTuple):
    """One kind of record: its field in JournalRecord, its type, and both directions."""

    field: str
    type: type[Record]
    write: Callable[[Any], Message]
    read: Callable[[Any], Record]


_CODECS = (
    _Codec("coordinator_started", CoordinatorStarted, _write_started, _read_started),
    _Codec("state_lost", StateLost, _write_lost, _read_lost),
    _Codec("job_created", JobCreated, _write_created, _read_created),
    _Codec("member_joined", MemberJoined, _write_joined, _read_joined),
    _Codec("lease_revoked", LeaseRevoked, _write_revoked, _read_revoked),
    _Codec("member_gone", MemberGone, _write_gone, _read_gone),
    _Codec("recovery_began", RecoveryBegan, _write_recovery, _read_recovery),
    _Codec("round_adopted", RoundAdopted, _write_adopted, _read_adopted),
    _Codec("recovery_ended", RecoveryEnded, _write_recovered, _read_recovered),
    _Codec("round_formed", RoundFormed, _write_formed, _read_formed),
    _Codec("node_succeeded", NodeSucceeded, _write_succeeded, _read_succeeded),
    _Codec("round_stopping", RoundStopping, _write_stopping, _read_stopping),
    _Codec("round_ended", RoundEnded, _write_ended, _read_ended),
    _Codec("job_decided", JobDecided, _write_decided, _read_decided),
    _Codec("job_cancelled", JobCancelled, _write_cancelled, _read_cancelled),
    _Codec("restart_asked", RestartAsked, _write_restart, _read_restart),
    _Codec("node_drained", NodeDrained, _write_drained, _read_drained),
    _Codec("job_updated", JobUpdated, _write_updated, _read_updated),
    _Codec("job_held", JobHeld, hold_to_proto, hold_from_proto),
    _Codec("job_released", JobReleased, _write_released, _read_released),
    _Codec("node_expelled", NodeExpelled, _write_expelled, _read_expelled),
    _Codec("node_readmitted", NodeReadmitted, _write_readmitted, _read_readmitted),
    _Codec("life_forgotten", LifeForgotten, _write_forgotten, _read_forgotten),
)
_BY_TYPE: Mapping[type[Record], _Codec] = {codec.type: codec for codec in _CODECS}
_BY_FIELD: Mapping[str, _Codec] = {codec.field: codec for codec in _CODECS}
