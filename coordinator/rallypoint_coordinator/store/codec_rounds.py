"""Records of rounds, recovered ones included, as they are stored and back."""

from __future__ import annotations

from rallypoint import wire
from rallypoint.model import NO_ROUND
from rallypoint.v1 import journal_pb2 as pb
from rallypoint.wire.scalars import instant_from_proto, instant_to_proto
from rallypoint.wire.types import round_to_proto
from rallypoint_coordinator.core.records import (
    NodeSucceeded,
    RecoveryBegan,
    RecoveryEnded,
    RoundAdopted,
    RoundEnded,
    RoundFormed,
    RoundStopping,
)
from rallypoint_coordinator.store.codec_values import (
    STOP_CAUSES,
    Codec,
    known,
    place_from_proto,
    place_to_proto,
    seat_from_proto,
    seat_to_proto,
)


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


ROUNDS = (
    Codec("recovery_began", RecoveryBegan, _write_recovery, _read_recovery),
    Codec("round_adopted", RoundAdopted, _write_adopted, _read_adopted),
    Codec("recovery_ended", RecoveryEnded, _write_recovered, _read_recovered),
    Codec("round_formed", RoundFormed, _write_formed, _read_formed),
    Codec("node_succeeded", NodeSucceeded, _write_succeeded, _read_succeeded),
    Codec("round_stopping", RoundStopping, _write_stopping, _read_stopping),
    Codec("round_ended", RoundEnded, _write_ended, _read_ended),
)
