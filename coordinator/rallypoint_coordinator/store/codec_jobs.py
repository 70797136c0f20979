"""Records of jobs, and of the coordinator itself, as they are stored and back."""

from __future__ import annotations

from rallypoint import wire
from rallypoint.v1 import journal_pb2 as pb
from rallypoint.wire.scalars import instant_from_proto, instant_to_proto
from rallypoint_coordinator.core.records import CoordinatorStarted, JobCreated, JobDecided, LifeForgotten, StateLost
from rallypoint_coordinator.store.codec_values import Codec, outcome_from_proto, outcome_to_proto


def _write_started(record: CoordinatorStarted) -> pb.CoordinatorStarted:
    born_time = instant_to_proto(record.born_wall_ms)
    return pb.CoordinatorStarted(cluster_id=record.cluster_id, epoch=record.epoch, born_time=born_time)


def _read_started(message: pb.CoordinatorStarted) -> CoordinatorStarted:
    return CoordinatorStarted(
        cluster_id=message.cluster_id, epoch=message.epoch, born_wall_ms=instant_from_proto(message.born_time)
    )


def _write_lost(record: StateLost) -> pb.StateLost:
    return pb.StateLost(former_cluster_id=record.former_cluster_id, epoch=record.epoch)


def _read_lost(message: pb.StateLost) -> StateLost:
    return StateLost(former_cluster_id=message.former_cluster_id, epoch=message.epoch)


def _write_created(record: JobCreated) -> pb.JobCreated:
    return pb.JobCreated(spec=wire.job_spec_to_proto(record.spec))


def _read_created(message: pb.JobCreated) -> JobCreated:
    return JobCreated(spec=wire.job_spec_from_proto(message.spec))


def _write_decided(record: JobDecided) -> pb.JobDecided:
    return pb.JobDecided(outcome=outcome_to_proto(record.outcome))


def _read_decided(message: pb.JobDecided) -> JobDecided:
    return JobDecided(outcome=outcome_from_proto(message.outcome))


def _write_forgotten(record: LifeForgotten) -> pb.LifeForgotten:
    return pb.LifeForgotten()


def _read_forgotten(message: pb.LifeForgotten) -> LifeForgotten:
    return LifeForgotten()


JOBS = (
    Codec("coordinator_started", CoordinatorStarted, _write_started, _read_started),
    Codec("state_lost", StateLost, _write_lost, _read_lost),
    Codec("job_created", JobCreated, _write_created, _read_created),
    Codec("job_decided", JobDecided, _write_decided, _read_decided),
    Codec("life_forgotten", LifeForgotten, _write_forgotten, _read_forgotten),
)
