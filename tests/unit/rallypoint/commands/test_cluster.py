from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rallypoint.commands.cluster import cluster_text, coordinator_text
from rallypoint.v1 import cluster_service_pb2 as pb
from rallypoint.v1 import types_pb2

CLUSTER = pb.Cluster(
    cluster_id="c1",
    epoch=3,
    revision=70,
    state=pb.CLUSTER_STATE_SERVING,
    coordinator_version="0.1.0",
    protocol_versions=[1, 2],
    addresses=["127.0.0.1:1", "[::1]:1"],
    start_time=Timestamp(seconds=1_000),
    limits=pb.ClusterLimits(message_bytes=4096, retained_time=Duration(seconds=86_400 * 7)),
    counts=pb.ClusterCounts(
        jobs=[
            pb.JobStateCount(state=types_pb2.JOB_STATE_RUNNING, count=2),
            pb.JobStateCount(state=types_pb2.JOB_STATE_FAILED, count=1),
        ],
        agents=5,
        agent_streams=4,
        watches=1,
        calls=6,
    ),
    observe_time=Timestamp(seconds=1_065),
)


def test_one_that_serves() -> None:
    assert cluster_text(CLUSTER).splitlines() == [
        "state         SERVING",
        "cluster       c1: epoch 3, revision 70",
        "coordinator   0.1.0, protocol 1, 2, up for 1m5s",
        "listens on    127.0.0.1:1, [::1]:1",
        "jobs          3: 2 RUNNING, 1 FAILED",
        "agents        5, with 4 streams open",
        "watches       1",
        "calls         6",
        "limits        message_bytes             4,096",
        "              retained_time             7 days",
    ]
    assert coordinator_text(CLUSTER) == "coordinator 0.1.0, protocol 1, 2"


def test_one_that_does_not_says_why_and_what_it_knows() -> None:
    state, message = pb.CLUSTER_STATE_RECOVERING, "the disk\nis full"
    recovering = pb.Cluster(state=state, message=message, coordinator_version="0.1.0", addresses=["127.0.0.1:1"])
    assert cluster_text(recovering, lambda word: f"<{word}>").splitlines() == [
        "state         <RECOVERING>",
        "why           the disk is full",
        "coordinator   0.1.0, protocol , up for ",
        "listens on    127.0.0.1:1",
    ]


def test_one_without_jobs() -> None:
    assert "jobs          0" in cluster_text(pb.Cluster(counts=pb.ClusterCounts())).splitlines()
