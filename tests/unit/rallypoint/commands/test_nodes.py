from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from rallypoint.commands.nodes import nodes_text
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2


def test_what_is_out_of_the_ordinary_is_noted() -> None:
    now = Timestamp(seconds=1_800_000_000)
    nodes = [
        pb.Node(name="jobs/t/nodes/gone", state=pb.NODE_STATE_LOST, agent_version="an agent", observe_time=now),
        pb.Node(
            name="jobs/t/nodes/stuck",
            state=pb.NODE_STATE_QUARANTINED,
            phase=types_pb2.AGENT_PHASE_FAILED,
            heartbeat_time=now,
            unkillable_pids=[7, 8],
            watchdog=types_pb2.WatchdogStatus(last_expiry="rank 1: scope step"),
            observe_time=now,
        ),
    ]
    workers = [pb.Worker(node="gone", rank=rank) for rank in (0, 1, 4)]
    notes = "not attached; SIGKILL does not end 7, 8; watchdog: rank 1: scope step"
    assert nodes_text(nodes, workers).splitlines() == [
        "NODE   STATE        RANKS  AGENT   HEARTBEAT  ADDRESS  VERSION   NOTES",
        "gone   LOST         0-1,4  -       -          -        an-agent",
        f"stuck  QUARANTINED  -      FAILED  0.0s       -        -         {notes}",
    ]
