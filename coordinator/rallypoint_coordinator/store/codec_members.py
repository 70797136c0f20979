"""Records of who is a member of a job, as they are stored and back."""

from __future__ import annotations

from rallypoint import wire
from rallypoint.v1 import journal_pb2 as pb
from rallypoint.wire.types import capabilities_from_proto, capabilities_to_proto
from rallypoint_coordinator.core.records import (
    LeaseRevoked,
    MemberGone,
    MemberJoined,
    NodeExpelled,
    NodeReadmitted,
)
from rallypoint_coordinator.store.codec_values import GONE_REASONS, Codec, known


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


def _write_expelled(record: NodeExpelled) -> pb.NodeExpelled:
    return pb.NodeExpelled(node=record.node, lease_id=record.lease_id, round=record.round, pids=record.pids)


def _read_expelled(message: pb.NodeExpelled) -> NodeExpelled:
    return NodeExpelled(node=message.node, lease_id=message.lease_id, round=message.round, pids=tuple(message.pids))


def _write_readmitted(record: NodeReadmitted) -> pb.NodeReadmitted:
    return pb.NodeReadmitted(node=record.node, lease_id=record.lease_id)


def _read_readmitted(message: pb.NodeReadmitted) -> NodeReadmitted:
    return NodeReadmitted(node=message.node, lease_id=message.lease_id)


MEMBERS = (
    Codec("member_joined", MemberJoined, _write_joined, _read_joined),
    Codec("lease_revoked", LeaseRevoked, _write_revoked, _read_revoked),
    Codec("member_gone", MemberGone, _write_gone, _read_gone),
    Codec("node_expelled", NodeExpelled, _write_expelled, _read_expelled),
    Codec("node_readmitted", NodeReadmitted, _write_readmitted, _read_readmitted),
)
