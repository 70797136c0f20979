"""What operators ask for, as it comes in: the event, or the field that is wrong."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from rallypoint.errors import Reason, RefusedError
from rallypoint.limits import HOLD_MS_DEFAULT, HOLD_MS_MAX
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1.types_pb2 import JobSpec
from rallypoint_coordinator.core.events import JobChange, OperatorAsked, Request
from rallypoint_coordinator.server.operator_requests import OperatorRequest, operator_asked

JOB = "jobs/train"


def asked(kind: Request, request: OperatorRequest) -> OperatorAsked:
    return operator_asked(kind, request, "somebody")(7)


def update(*paths: str, etag: str = "", **job: object) -> pb.UpdateJobRequest:
    return pb.UpdateJobRequest(
        job=pb.Job(name=JOB, etag=etag, **job),  # type: ignore[arg-type]
        update_mask=FieldMask(paths=paths),
    )


def test_the_event_says_who_asks_for_what_of_whom() -> None:
    request = pb.DrainNodeRequest(name=f"{JOB}/nodes/node-a", reason="a rack is worked on")
    assert asked(Request.DRAIN, request) == OperatorAsked(
        call=7, job="train", request=Request.DRAIN, by="somebody", reason="a rack is worked on", node="node-a"
    )


def test_a_mask_names_what_is_meant_zero_included() -> None:
    request = update("spec.max_restarts", "labels", spec=JobSpec(min_nodes=3), etag="e")
    assert asked(Request.UPDATE, request).change == JobChange(max_restarts=0, labels={}, etag="e")


def test_without_a_mask_what_is_set_is_meant() -> None:
    request = update(spec=JobSpec(min_nodes=3), labels={"team": "vision"})
    assert asked(Request.UPDATE, request).change == JobChange(min_nodes=3, labels={"team": "vision"})


def test_a_hold_is_for_as_long_as_is_said_or_a_day() -> None:
    assert asked(Request.HOLD, pb.HoldJobRequest(name=JOB)).hold_ms == HOLD_MS_DEFAULT
    assert asked(Request.HOLD, pb.HoldJobRequest(name=JOB, hold_duration=Duration(seconds=90))).hold_ms == 90_000


@pytest.mark.parametrize(
    ("kind", "request_", "field"),
    [
        (Request.CANCEL, pb.CancelJobRequest(name="train"), "name"),
        (Request.DRAIN, pb.DrainNodeRequest(name=JOB), "name"),
        (Request.RESTART, pb.RestartJobRequest(name=JOB, reason="x" * 1025), "reason"),
        (Request.UPDATE, pb.UpdateJobRequest(job=pb.Job(name="train")), "job.name"),
        (Request.UPDATE, update(), "update_mask"),
        (Request.UPDATE, update("spec.lease_ttl"), "update_mask"),
        (Request.UPDATE, update("spec.min_nodes"), "job.spec.min_nodes"),
        (Request.UPDATE, update("spec.max_restarts", spec=JobSpec(max_restarts=-1)), "job.spec.max_restarts"),
        (Request.UPDATE, update("labels", labels={"": "x"}), "job.labels"),
        (Request.UPDATE, update("labels", labels={str(n): "" for n in range(33)}), "job.labels"),
        (Request.UPDATE, update("labels", etag="x" * 129), "job.etag"),
        (Request.HOLD, pb.HoldJobRequest(name=JOB, hold_duration=Duration()), "hold_duration"),
        (
            Request.HOLD,
            pb.HoldJobRequest(name=JOB, hold_duration=Duration(seconds=HOLD_MS_MAX // 1000 + 1)),
            "hold_duration",
        ),
    ],
)
def test_the_field_that_is_wrong_is_named(kind: Request, request_: OperatorRequest, field: str) -> None:
    with pytest.raises(RefusedError) as caught:
        asked(kind, request_)
    refusal = caught.value.refusal
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, field)
