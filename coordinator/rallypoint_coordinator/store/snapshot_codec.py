"""A snapshot as the bytes of a ClusterSnapshot, and back. Lossless, like the codec of the records it stands for."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from rallypoint import wire
from rallypoint.model import NO_ROUND
from rallypoint.v1 import journal_pb2 as pb
from rallypoint.wire.scalars import instant_from_proto, instant_to_proto
from rallypoint.wire.types import JOB_STATES, capabilities_from_proto, capabilities_to_proto, round_to_proto
from rallypoint_coordinator.core.history import EpochStart
from rallypoint_coordinator.core.places import places_of
from rallypoint_coordinator.core.round_changes import RoundChange
from rallypoint_coordinator.core.snapshot import ClusterSnapshot
from rallypoint_coordinator.core.state import Facts, Member, Round
from rallypoint_coordinator.store.codec_values import (
    GONE_REASONS,
    STOP_CAUSES,
    UnreadableRecord,
    hold_from_proto,
    hold_to_proto,
    known,
    outcome_from_proto,
    outcome_to_proto,
    place_from_proto,
    place_to_proto,
    seat_from_proto,
    seat_to_proto,
)


def encode_snapshot(snapshot: ClusterSnapshot) -> bytes:
    """The snapshot as it is stored. Equal snapshots of equal order give equal bytes, whatever PYTHONHASHSEED is."""
    return snapshot_to_proto(snapshot).SerializeToString(deterministic=True)


def decode_snapshot(data: bytes) -> ClusterSnapshot:
    """The snapshot that was stored. Raises UnreadableRecord."""
    try:
        message = pb.ClusterSnapshot.FromString(data)
    except DecodeError as error:
        raise UnreadableRecord(f"not a snapshot: {error}") from error
    return snapshot_from_proto(message)


def snapshot_to_proto(snapshot: ClusterSnapshot) -> pb.ClusterSnapshot:
    return pb.ClusterSnapshot(
        cluster_id=snapshot.cluster_id,
        epoch=snapshot.epoch,
        born_time=instant_to_proto(snapshot.born_wall_ms),
        former_cluster_ids=snapshot.former_cluster_ids,
        epochs=[pb.EpochStart(**began._asdict()) for began in snapshot.epochs],
        lives=[_life_to_proto(facts) for facts in snapshot.lives],
    )


def snapshot_from_proto(message: pb.ClusterSnapshot) -> ClusterSnapshot:
    """Raises UnreadableRecord if a value is not known to this release."""
    return ClusterSnapshot(
        cluster_id=message.cluster_id,
        epoch=message.epoch,
        born_wall_ms=instant_from_proto(message.born_time),
        former_cluster_ids=tuple(message.former_cluster_ids),
        epochs=tuple(EpochStart(began.epoch, began.revision, began.last_revision) for began in message.epochs),
        lives=tuple(_life_from_proto(life) for life in message.lives),
    )


def _life_to_proto(facts: Facts) -> pb.LifeSnapshot:
    return pb.LifeSnapshot(
        job=facts.job,
        uid=facts.uid,
        spec=wire.job_spec_to_proto(facts.spec),
        create_time=instant_to_proto(facts.created_wall_ms),
        state=JOB_STATES.number(facts.state),
        state_time=instant_to_proto(facts.state_wall_ms),
        members=[_member_to_proto(member) for member in facts.members.values()],
        gone_nodes=list(facts.gone_nodes),
        round=_round_to_proto(facts.round) if facts.round else None,
        restart_count=facts.restart_count,
        last_failure=wire.failure_to_proto(facts.last_failure) if facts.last_failure else None,
        outcome=outcome_to_proto(facts.outcome) if facts.outcome else None,
        directive_revision=facts.directive_revision,
        revision=facts.revision,
        cancelled_by=facts.cancelled_by,
        recovery_epoch=facts.recovery_epoch,
        round_floor=round_to_proto(facts.round_floor),
        round_changes=[_change_to_proto(change) for change in facts.round_changes],
        agreed_spec=wire.job_spec_to_proto(facts.replaced_spec) if facts.replaced_spec else None,
        labels=facts.labels,
        held=hold_to_proto(facts.hold) if facts.hold else None,
    )


def _life_from_proto(message: pb.LifeSnapshot) -> Facts:
    return Facts(
        job=message.job,
        uid=message.uid,
        spec=wire.job_spec_from_proto(message.spec),
        created_wall_ms=instant_from_proto(message.create_time),
        state=known(JOB_STATES.member(message.state), "JobState", message.state),
        state_wall_ms=instant_from_proto(message.state_time),
        members={member.node: _member_from_proto(member) for member in message.members},
        gone_nodes=dict.fromkeys(message.gone_nodes),
        round=_round_from_proto(message.round) if message.HasField("round") else None,
        restart_count=message.restart_count,
        last_failure=wire.failure_from_proto(message.last_failure) if message.HasField("last_failure") else None,
        outcome=outcome_from_proto(message.outcome) if message.HasField("outcome") else None,
        directive_revision=message.directive_revision,
        revision=message.revision,
        cancelled_by=message.cancelled_by,
        recovery_epoch=message.recovery_epoch,
        round_floor=message.round_floor if message.HasField("round_floor") else NO_ROUND,
        round_changes=tuple(_change_from_proto(change) for change in message.round_changes),
        replaced_spec=wire.job_spec_from_proto(message.agreed_spec) if message.HasField("agreed_spec") else None,
        labels=dict(message.labels),
        hold=hold_from_proto(message.held) if message.HasField("held") else None,
    )


def _change_to_proto(change: RoundChange) -> pb.RoundChangeSnapshot:
    return pb.RoundChangeSnapshot(
        round=change.round,
        cause=STOP_CAUSES.number(change.cause),
        message=change.message,
        charged=change.charged,
        happen_time=instant_to_proto(change.happened_wall_ms),
        notice_time=instant_to_proto(change.noticed_wall_ms),
        stop_time=instant_to_proto(change.stopped_wall_ms),
        stop_revision=change.stop_revision,
        end_time=instant_to_proto(change.ended_wall_ms),
        next_round=round_to_proto(change.next_round),
        form_time=instant_to_proto(change.formed_wall_ms),
        form_revision=change.form_revision,
    )


def _change_from_proto(message: pb.RoundChangeSnapshot) -> RoundChange:
    return RoundChange(
        round=message.round,
        cause=known(STOP_CAUSES.member(message.cause), "StopCause", message.cause),
        message=message.message,
        charged=message.charged,
        happened_wall_ms=instant_from_proto(message.happen_time),
        noticed_wall_ms=instant_from_proto(message.notice_time),
        stopped_wall_ms=instant_from_proto(message.stop_time),
        stop_revision=message.stop_revision,
        ended_wall_ms=instant_from_proto(message.end_time),
        next_round=message.next_round if message.HasField("next_round") else NO_ROUND,
        formed_wall_ms=instant_from_proto(message.form_time),
        form_revision=message.form_revision,
    )


def _member_to_proto(member: Member) -> pb.MemberSnapshot:
    return pb.MemberSnapshot(
        node=member.node,
        incarnation=member.incarnation,
        lease_id=member.lease_id,
        spec=wire.node_spec_to_proto(member.spec),
        capabilities=capabilities_to_proto(member.capabilities),
        agent_version=member.agent_version,
        consumed_offer_id=member.consumed_offer_id,
        drained_by=member.drained_by,
        directive_revision=member.directive_revision,
        gone=GONE_REASONS.number(member.gone) if member.gone else pb.GONE_REASON_UNSPECIFIED,
        gone_message=member.gone_message,
        revoked=member.revoked,
        unkillable_pids=member.unkillable_pids,
    )


def _member_from_proto(message: pb.MemberSnapshot) -> Member:
    return Member(
        node=message.node,
        incarnation=message.incarnation,
        lease_id=message.lease_id,
        spec=wire.node_spec_from_proto(message.spec),
        capabilities=capabilities_from_proto(list(message.capabilities)),
        agent_version=message.agent_version,
        consumed_offer_id=message.consumed_offer_id,
        drained_by=message.drained_by,
        directive_revision=message.directive_revision,
        gone=known(GONE_REASONS.member(message.gone), "GoneReason", message.gone) if message.gone else None,
        gone_message=message.gone_message,
        revoked=message.revoked,
        unkillable_pids=tuple(message.unkillable_pids),
    )


def _round_to_proto(current: Round) -> pb.RoundSnapshot:
    """Ranks follow from the seats, unless some are missing."""
    places = () if current.is_whole else current.places.values()
    return pb.RoundSnapshot(
        round=current.number,
        seats=[seat_to_proto(place.seat) for place in current.places.values()] if current.is_whole else (),
        places=[place_to_proto(place) for place in places],
        world_size=0 if current.is_whole else current.world_size,
        endpoint=wire.endpoint_to_proto(current.endpoint),
        offer_id=current.offer_id,
        restart_count=current.restart_count,
        succeeded=sorted(current.succeeded),
        stop_cause=STOP_CAUSES.number(current.stop_cause) if current.stop_cause else pb.STOP_CAUSE_UNSPECIFIED,
        stop_message=current.stop_message,
        stop_revision=current.stop_revision,
        stop_epoch=current.stop_epoch,
        ended=current.ended,
        failures=[wire.failure_to_proto(failure) for failure in current.failures],
        leaves_remains=current.leaves_remains,
    )


def _round_from_proto(message: pb.RoundSnapshot) -> Round:
    seats = tuple(seat_from_proto(seat) for seat in message.seats)
    in_part = {place.seat.node: place_from_proto(place) for place in message.places}
    cause = message.stop_cause
    return Round(
        number=message.round,
        places=in_part or places_of(seats),
        world_size=message.world_size or sum(seat.local_world_size for seat in seats),
        endpoint=wire.endpoint_from_proto(message.endpoint),
        offer_id=message.offer_id,
        restart_count=message.restart_count,
        succeeded=set(message.succeeded),
        stop_cause=known(STOP_CAUSES.member(cause), "StopCause", cause) if cause else None,
        stop_message=message.stop_message,
        stop_revision=message.stop_revision,
        stop_epoch=message.stop_epoch,
        ended=message.ended,
        failures=tuple(wire.failure_from_proto(failure) for failure in message.failures),
        leaves_remains=message.leaves_remains,
    )
