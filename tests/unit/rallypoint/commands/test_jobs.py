from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from rallypoint.commands.jobs import jobs_text
from rallypoint.limits import INT32_MAX
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2


def test_a_line_for_each_job() -> None:
    times: Any = {"state_time": Timestamp(seconds=1_000_000), "observe_time": Timestamp(seconds=1_000_041)}
    jobs = [
        pb.Job(
            name="jobs/a",
            state=types_pb2.JOB_STATE_RUNNING,
            round=2,
            restart_count=1,
            spec=types_pb2.JobSpec(max_restarts=3),
            participant_count=2,
            world_size=16,
            message="round 2 runs",
            **times,
        ),
        pb.Job(name="jobs/long-name", spec=types_pb2.JobSpec(max_restarts=INT32_MAX), **times),
    ]
    assert jobs_text(jobs).splitlines() == [
        "JOB        STATE    SINCE  ROUND  RESTARTS  NODES  WORKERS  WHY",
        "a          RUNNING  41s    2      1/3       2      16       round 2 runs",
        "long-name  -        41s    -      0/any     0      0",
    ]
