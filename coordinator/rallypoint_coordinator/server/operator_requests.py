"""What operators ask of a job, from the wire to the core's event. Raises RefusedError for what is not well formed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from rallypoint.errors import Refusal, RefusedError
from rallypoint.limits import (
    DAY_MS,
    HOLD_MS_DEFAULT,
    HOLD_MS_MAX,
    INT32_MAX,
    LABEL_KEY_BYTES,
    LABEL_VALUE_BYTES,
    LABELS_MAX,
)
from rallypoint.rules import Fault, Rule, Shape, WhenSet, between, fault_in, refusal_of, shown_as
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.validation import DURATION, NODES_MAX, OPAQUE_ID, are_labels
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

_LABELS = Rule(
    f"have at most {LABELS_MAX} entries, with keys of 1 to {LABEL_KEY_BYTES} and values of at most"
    f" {LABEL_VALUE_BYTES} bytes",
    lambda labels: are_labels(labels) and "" not in labels,
)

_CHANGES: Mapping[str, Rule] = {
    "spec.min_nodes": between(1, NODES_MAX),
    "spec.max_nodes": between(1, NODES_MAX),
    "spec.max_restarts": between(0, INT32_MAX),
    "labels": _LABELS,
}
"""What may be changed of a job, by its path, and what each must be."""

_HOLD = Rule(
    f"be more than 0 s, and at most {HOLD_MS_MAX // DAY_MS} days",
    lambda duration: DURATION.holds(duration) and 0 < duration_from_proto(duration) <= HOLD_MS_MAX,
)

_HOLD_JOB = Shape({"hold_duration": WhenSet(_HOLD)})


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
    refusal = _wrong_update(request, paths)
    if refusal is not None:
        raise RefusedError(refusal)
    asked: dict[str, Any] = {path.rpartition(".")[2]: _changed_value(request, path) for path in paths}
    if "labels" in asked:
        asked["labels"] = dict(asked["labels"])
    return JobChange(**asked, etag=request.job.etag)


def _paths(request: pb.UpdateJobRequest) -> Sequence[str]:
    """As AIP-134 has it: without a mask, the fields that are populated. What is named twice is judged once."""
    named = list(dict.fromkeys(request.update_mask.paths))
    return named or [path for path in _CHANGES if _changed_value(request, path)]


def _hold_ms(request: pb.HoldJobRequest) -> int:
    refusal = _wrong_hold(request)
    if refusal is not None:
        raise RefusedError(refusal)
    return duration_from_proto(request.hold_duration) if request.HasField("hold_duration") else HOLD_MS_DEFAULT


def _wrong_update(request: pb.UpdateJobRequest, paths: Sequence[str]) -> Refusal | None:
    """``paths``: what is to be changed. Bounds that depend on the job as it is are for the core."""
    if not paths:
        return refusal_of(Fault("update_mask", f"name some of {', '.join(_CHANGES)}", "empty, as they are in job"))
    for path in paths:
        if path not in _CHANGES:
            return refusal_of(Fault("update_mask", f"name only {', '.join(_CHANGES)}", shown_as(path)))
        fault = fault_in(_changed_value(request, path), _CHANGES[path], f"job.{path}")
        if fault is not None:
            return refusal_of(fault)
    fault = fault_in(request.job.etag, OPAQUE_ID, "job.etag")
    return refusal_of(fault) if fault else None


def _changed_value(request: pb.UpdateJobRequest, path: str) -> Any:
    """What an update asks a path of :data:`_CHANGES` to be."""
    value: Any = request.job
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _wrong_hold(request: pb.HoldJobRequest) -> Refusal | None:
    fault = fault_in(request, _HOLD_JOB, "")
    return refusal_of(fault) if fault else None
