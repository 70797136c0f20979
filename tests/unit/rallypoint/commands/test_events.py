from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from rallypoint.commands.events import event_text
from rallypoint.commands.status import summary
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2


def test_an_event_is_one_line_that_moves_no_cursor() -> None:
    event = pb.JobEvent(
        kind=pb.JOB_EVENT_KIND_ROUND_ENDED, event_time=Timestamp(seconds=60), message="round 0 ended:\nboom \x1b[2J"
    )
    assert event_text(event) == "1970-01-01 00:01:00Z  ROUND_ENDED       round 0 ended: boom \\x1b[2J"


def test_a_kind_of_a_later_release_is_shown_by_its_number() -> None:
    event = pb.JobEvent(message="what is new")
    event.MergeFromString(b"\x28\xe7\x07")  # field 5, kind: 999
    assert event_text(event).split() == ["1970-01-01", "00:00:00Z", "999", "what", "is", "new"]


def test_a_summary_is_the_same_until_something_changes() -> None:
    job = pb.Job(
        state=types_pb2.JOB_STATE_GATHERING,
        state_time=Timestamp(seconds=60),
        message="waiting for 2 nodes: 1 ready, 41 s left",
    )
    assert summary(job) == "1970-01-01 00:01:00Z  GATHERING  waiting for 2 nodes: 1 ready"
