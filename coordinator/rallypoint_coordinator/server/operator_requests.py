"""What operators ask of a job, from the wire to the core's event. Raises RefusedError for what is not well formed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from rallypoint.errors import RefusedError
from rallypoint.limits import HOLD_MS_DEFAULT
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.validation import CHANGES, changed_value, validate_hold_job, validate_update_job
from rallypoint.wire.scalars import duration_from_proto
from rallypoint_coordinator.core.events import JobChange, OperatorAsked, Request
from rallypoint_coordinator.server.job_names import invalid, parse_job, parse_node

REASON_BYTES = 1024

OperatorRequest: TypeAlias = (
    pb.CancelJobRequest
    | pb.RestartJobRequest
    | pb.DrainNodeRequest
    | pb.UpdateJobRequest
    | pb.HoldJobRequest
    | pb.ReleaseJobRequest
)


def operator_asked(kind: Request, request: OperatorRequest, by: str) -> Callable[[int], OperatorAsked]:
    """The event of an operator's request, once its call has a number."""
    job, node = _whom(request)
    if len(request.reason.encode()) > REASON_BYTES:
        raise invalid("reason", f"reason must have at most {REASON_BYTES} bytes")
    change = _change(request) if isinstance(request, pb.UpdateJobRequest) else JobChange()
    hold_ms = _hold_ms(request) if isinstance(request, pb.HoldJobRequest) else 0
    return lambda call: OperatorAsked(
        call=call, job=job, request=kind, by=by, reason=request.reason, node=node, change=change, hold_ms=hold_ms
    )


def _whom(request: OperatorRequest) -> tuple[str, str]:
    """The job, and the node if it is about one."""
    match request:
        case pb.DrainNodeRequest():
            return parse_node(request.name, "name")
        case pb.UpdateJobRequest():
            return parse_job(request.job.name, "job.name"), ""
        case _:
            return parse_job(request.name, "name"), ""


def _change(request: pb.UpdateJobRequest) -> JobChange:
    paths = _paths(request)
    refusal = validate_update_job(request, paths)
    if refusal is not None:
        raise RefusedError(refusal)
    asked: dict[str, Any] = {path.rpartition(".")[2]: changed_value(request, path) for path in paths}
    if "labels" in asked:
        asked["labels"] = dict(asked["labels"])
    return JobChange(**asked, etag=request.job.etag)


def _paths(request: pb.UpdateJobRequest) -> Sequence[str]:
    """As AIP-134 has it: without a mask, the fields that are populated."""
    return list(request.update_mask.paths) or [path for path in CHANGES if changed_value(request, path)]


def _hold_ms(request: pb.HoldJobRequest) -> int:
    refusal = validate_hold_job(request)
    if refusal is not None:
        raise RefusedError(refusal)
    return duration_from_proto(request.hold_duration) if request.HasField("hold_duration") else HOLD_MS_DEFAULT
