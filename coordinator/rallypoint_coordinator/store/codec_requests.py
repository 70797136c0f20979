"""Records of what operators asked for, as they are stored and back."""

from __future__ import annotations

from rallypoint.v1 import journal_pb2 as pb
from rallypoint_coordinator.core.records import (
    JobCancelled,
    JobHeld,
    JobReleased,
    JobUpdated,
    NodeDrained,
    RestartAsked,
)
from rallypoint_coordinator.store.codec_values import Codec, hold_from_proto, hold_to_proto


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


def _write_released(record: JobReleased) -> pb.JobReleased:
    return pb.JobReleased(by=record.by, reason=record.reason)


def _read_released(message: pb.JobReleased) -> JobReleased:
    return JobReleased(by=message.by, reason=message.reason)


REQUESTS = (
    Codec("job_cancelled", JobCancelled, _write_cancelled, _read_cancelled),
    Codec("restart_asked", RestartAsked, _write_restart, _read_restart),
    Codec("node_drained", NodeDrained, _write_drained, _read_drained),
    Codec("job_updated", JobUpdated, _write_updated, _read_updated),
    Codec("job_held", JobHeld, hold_to_proto, hold_from_proto),
    Codec("job_released", JobReleased, _write_released, _read_released),
)
