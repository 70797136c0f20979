"""Bad input is refused at the door: the bounds that the comments in ``protos/`` state, as tables.

Each ``validate_*`` takes a message as it came in and gives the first thing that is wrong with it, or None. A
``check_*`` does the same for a value of the model, so that a command line is refused by the same rule before it
connects. A field is named by its path in the request: ``hello.job_spec.min_nodes``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration

from rallypoint.errors import Reason, Refusal
from rallypoint.limits import (
    DAY_MS,
    DURATION_MS_MAX,
    FAILURES_MAX,
    HOLD_MS_MAX,
    INT32_MAX,
    JOB_NAME_LENGTH,
    LABEL_KEY_BYTES,
    LABEL_VALUE_BYTES,
    LABELS_MAX,
    LEAVE_MESSAGE_BYTES,
    LOCAL_WORLD_SIZE_MAX,
    NODE_NAME_LENGTH,
)
from rallypoint.model import (
    FENCE_MARGIN_MS,
    HEARTBEATS_PER_LEASE,
    PROTOCOL_VERSION,
    UNKILLABLE_PIDS_MAX,
    JobSpec,
    NodeSpec,
)
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.v1.job_service_pb2 import HoldJobRequest, UpdateJobRequest
from rallypoint.v1.types_pb2 import AGENT_PHASE_READY
from rallypoint.wire.scalars import duration_from_proto
from rallypoint.wire.types import (
    AGENT_PHASES,
    ENTRYPOINT_BYTES,
    job_spec_from_proto,
    node_spec_to_proto,
)

NODES_MAX = 100_000
LEASE_TTL_MS_MAX = 3_600_000
COUNTER_MAX = 2**62
"""Ids, epochs and revisions: whoever counts on from one must stay within 64 bits."""

HEARTBEATS_TO_MISS = 3
"""An agent may miss so many heartbeats and yet renew its lease before it has to fence itself."""

FENCE_GRACE_MS_MAX = (
    LEASE_TTL_MS_MAX * (HEARTBEATS_PER_LEASE - HEARTBEATS_TO_MISS) // HEARTBEATS_PER_LEASE - FENCE_MARGIN_MS
)
"""With a longer one no lease_ttl would be long enough."""

_SHOWN_MAX = 80


# --- What is wrong


class Violation(NamedTuple):
    """``path`` must ``must``, but is ``shown``."""

    path: str
    must: str
    shown: str


def _refusal(violation: Violation) -> Refusal:
    path, must, shown = violation
    return Refusal(
        reason=Reason.INVALID_FIELD,
        message=f"{path} must {must}, but is {shown}",
        field=path,
        metadata={"field": path, "must": must, "value": shown},
    )


def _shown(value: object) -> str:
    """A value as a message shows it: one line of bounded length."""
    if value == "":
        return "empty"
    text = repr(value) if isinstance(value, str | bytes) else " ".join(str(value).split())
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


# --- The rules' vocabulary


@dataclass(frozen=True, slots=True)
class Rule:
    """What one value must be. ``must`` completes the sentence "the field must ..."."""

    must: str
    holds: Callable[[Any], bool]


Shape = Mapping[str, "Always | WhenSet | Required | Each"]
"""What a message must be: a rule for each of its fields."""

Spec = Rule | Shape


@dataclass(frozen=True, slots=True)
class Always:
    """A field without presence: its value is checked, zero included."""

    spec: Rule


@dataclass(frozen=True, slots=True)
class WhenSet:
    """A field that may be missing."""

    spec: Spec


@dataclass(frozen=True, slots=True)
class Required:
    """A message that must be there."""

    spec: Spec


@dataclass(frozen=True, slots=True)
class Each:
    """A list: at most so many items, and what each of them must be."""

    most: int
    spec: Spec


def _first(message: Any, shape: Shape, path: str) -> Violation | None:
    """The first violation in a message, in the order of the shape."""
    for name, field in shape.items():
        at = f"{path}.{name}" if path else name
        violation = _in_field(message, name, field, at)
        if violation is not None:
            return violation
    return None


def _in_field(message: Any, name: str, field: Always | WhenSet | Required | Each, at: str) -> Violation | None:
    match field:
        case Always(spec):
            return _in_value(getattr(message, name), spec, at)
        case Each(most, spec):
            return _in_list(getattr(message, name), most, spec, at)
        case WhenSet(spec) | Required(spec):
            if message.HasField(name):
                return _in_value(getattr(message, name), spec, at)
            return Violation(at, "be set", "missing") if isinstance(field, Required) else None


def _in_list(items: Any, most: int, spec: Spec, at: str) -> Violation | None:
    if len(items) > most:
        return Violation(at, f"have at most {most} items", f"{len(items)} items")
    violations = (_in_value(item, spec, f"{at}[{index}]") for index, item in enumerate(items))
    return next((violation for violation in violations if violation is not None), None)


def _in_value(value: Any, spec: Spec, at: str) -> Violation | None:
    if not isinstance(spec, Rule):
        return _first(value, spec, at)
    return None if spec.holds(value) else Violation(at, spec.must, _shown(value))


def _between(low: int, high: int) -> Rule:
    return Rule(f"be {low:,} to {high:,}", lambda value: low <= value <= high)


def _text(most: int) -> Rule:
    return Rule(f"be at most {most} bytes", lambda value: len(value.encode()) <= most)


def _matching(pattern: str, must: str) -> Rule:
    compiled = re.compile(pattern)
    return Rule(must, lambda value: compiled.fullmatch(value) is not None)


def _is_duration(duration: Duration) -> bool:
    return 0 <= duration.seconds <= 315_576_000_000 and 0 <= duration.nanos < 1_000_000_000


def _are_labels(labels: Mapping[str, str]) -> bool:
    return len(labels) <= LABELS_MAX and all(
        len(key.encode()) <= LABEL_KEY_BYTES and len(value.encode()) <= LABEL_VALUE_BYTES
        for key, value in labels.items()
    )


def _are_exit_codes(codes: Sequence[int]) -> bool:
    return len(codes) <= 64 and all(1 <= code <= 255 for code in codes)


ANYTHING = Rule("be anything", lambda value: True)
NOT_NEGATIVE = Rule("be 0 or more", lambda value: value >= 0)
COUNTER = _between(0, COUNTER_MAX)
ID = _between(1, COUNTER_MAX)
MACHINE_WORD = _text(64)
OPAQUE_ID = _text(128)
DURATION = Rule("be a duration of 0 or more", _is_duration)

JOB_NAME = _matching(
    rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{JOB_NAME_LENGTH - 1}}}",
    f"be 1 to {JOB_NAME_LENGTH} characters of [A-Za-z0-9._-], starting with a letter or digit",
)
NODE_NAME = _matching(
    rf"[A-Za-z0-9._-]{{1,{NODE_NAME_LENGTH}}}", f"be 1 to {NODE_NAME_LENGTH} characters of [A-Za-z0-9._-]"
)
INCARNATION = _matching(r"[A-Za-z0-9-]{8,64}", "be 8 to 64 characters of [A-Za-z0-9-]")
EXIT_CODES = Rule("have at most 64 entries, each 1 to 255", _are_exit_codes)
HOST = _matching(r"[!-~]{1,253}", "be a host name or address of at most 253 bytes")


# --- The messages' shapes, field by field as in protos/

_VERSION: Shape = {"epoch": Always(COUNTER), "revision": Always(COUNTER)}

# The other bounds depend on one another: see check_job_spec.
_JOB_SPEC: Shape = {
    "lease_ttl": Required(DURATION),
    "fence_grace": WhenSet(DURATION),
    "coordinator_outage": WhenSet(DURATION),
    "join_timeout": WhenSet(DURATION),
    "last_call_timeout": WhenSet(DURATION),
    "shutdown_timeout": WhenSet(DURATION),
    "exit_barrier_timeout": WhenSet(DURATION),
    "scale_up_delay": WhenSet(DURATION),
    "rejoin_wait": WhenSet(DURATION),
}

_NODE_SPEC: Shape = {
    "local_world_size": Always(_between(1, LOCAL_WORLD_SIZE_MAX)),
    "role": Always(_text(128)),
    "node_rank": WhenSet(NOT_NEGATIVE),
    "labels": Always(
        Rule(
            f"have at most {LABELS_MAX} entries, with keys of at most {LABEL_KEY_BYTES} and values of at most"
            f" {LABEL_VALUE_BYTES} bytes",
            _are_labels,
        )
    ),
    "hostname": Always(_text(253)),
    "entrypoint": Always(_text(ENTRYPOINT_BYTES)),
}

_WORKER_STATUS: Shape = {
    "local_rank": Always(NOT_NEGATIVE),
    "rank": Always(NOT_NEGATIVE),
    "pid": Always(NOT_NEGATIVE),
}

_WORKER_FAILURE: Shape = {
    "node": Always(_text(253)),
    "local_rank": Always(NOT_NEGATIVE),
    "rank": Always(NOT_NEGATIVE),
    "pid": Always(NOT_NEGATIVE),
    "fail_clock": WhenSet(DURATION),
}

_ENDPOINT: Shape = {"host": Always(HOST), "port": Always(_between(1, 65535))}

_OFFER: Shape = {"offer_id": Always(ID), "endpoint": Required(_ENDPOINT)}

_ASSIGNMENT: Shape = {
    "round": Always(COUNTER),
    "restart_count": Always(NOT_NEGATIVE),
    "group_rank": Always(_between(0, NODES_MAX - 1)),
    "group_world_size": Always(_between(1, NODES_MAX)),
    "first_rank": Always(NOT_NEGATIVE),
    "world_size": Always(_between(1, INT32_MAX)),
    "first_role_rank": Always(NOT_NEGATIVE),
    "role_world_size": Always(_between(1, INT32_MAX)),
    "endpoint": Required(_ENDPOINT),
    "offer_id": Always(COUNTER),
}

_WATCHDOG = WhenSet({"live_timers": Always(NOT_NEGATIVE)})

_OBSERVED: Shape = {
    "version": WhenSet(_VERSION),
    "phase": Always(Rule("be a phase of this release", lambda number: AGENT_PHASES.member(number) is not None)),
    "round": WhenSet(COUNTER),
    "workers": Each(LOCAL_WORLD_SIZE_MAX, _WORKER_STATUS),
    "failures": Each(FAILURES_MAX, _WORKER_FAILURE),
    "offer": WhenSet(_OFFER),
    "unsupported_version": WhenSet(_VERSION),
    "unkillable_pids": Each(UNKILLABLE_PIDS_MAX, NOT_NEGATIVE),
    "watchdog": _WATCHDOG,
    "assignment": WhenSet(_ASSIGNMENT),
}

_HELLO: Shape = {
    "features": Each(64, _text(64)),
    "capabilities": Each(64, ANYTHING),
    "agent_version": Always(_text(128)),
    "cluster_id": Always(OPAQUE_ID),
    "job": Always(JOB_NAME),
    "job_uid": Always(OPAQUE_ID),
    "node": Always(NODE_NAME),
    "incarnation": Always(INCARNATION),
    "attach_seq": Always(ID),
    "lease_id": Always(COUNTER),
    "job_spec": Required(_JOB_SPEC),
    "node_spec": Required(_NODE_SPEC),
    "observed": Required(_OBSERVED),
    "highest_version": WhenSet(_VERSION),
}

_HEARTBEAT: Shape = {"version": WhenSet(_VERSION), "watchdog": _WATCHDOG}

_CLOCK: Shape = {"send": Required(DURATION), "acked_seq": Always(COUNTER), "acked": WhenSet(DURATION)}

_GOODBYE: Shape = {
    "reason": Always(MACHINE_WORD),
    "message": Always(_text(LEAVE_MESSAGE_BYTES)),
}

_REPORT_GONE: Shape = {
    "job": Always(JOB_NAME),
    "job_uid": Always(Rule("be 1 to 128 bytes", lambda uid: 0 < len(uid.encode()) <= 128)),
    "lease_id": Always(ID),
    "round": WhenSet(COUNTER),
    "incarnation": Always(INCARNATION),
    "message": Always(_text(LEAVE_MESSAGE_BYTES)),
}


_LABELS = Rule(
    f"have at most {LABELS_MAX} entries, with keys of 1 to {LABEL_KEY_BYTES} and values of at most"
    f" {LABEL_VALUE_BYTES} bytes",
    lambda labels: _are_labels(labels) and "" not in labels,
)

CHANGES: Mapping[str, Rule] = {
    "spec.min_nodes": _between(1, NODES_MAX),
    "spec.max_nodes": _between(1, NODES_MAX),
    "spec.max_restarts": _between(0, INT32_MAX),
    "labels": _LABELS,
}
"""What may be changed of a job, by its path, and what each must be."""

_HOLD = Rule(
    f"be more than 0 s, and at most {HOLD_MS_MAX // DAY_MS} days",
    lambda duration: _is_duration(duration) and 0 < duration_from_proto(duration) <= HOLD_MS_MAX,
)


# --- What operators send


def validate_update_job(request: UpdateJobRequest, paths: Sequence[str]) -> Refusal | None:
    """``paths``: what is to be changed. Bounds that depend on the job as it is are for the core."""
    if not paths:
        return _refusal(Violation("update_mask", f"name some of {', '.join(CHANGES)}", "empty, as they are in job"))
    for path in paths:
        if path not in CHANGES:
            return _refusal(Violation("update_mask", f"name only {', '.join(CHANGES)}", _shown(path)))
        violation = _in_value(changed_value(request, path), CHANGES[path], f"job.{path}")
        if violation is not None:
            return _refusal(violation)
    violation = _in_value(request.job.etag, OPAQUE_ID, "job.etag")
    return _refusal(violation) if violation else None


def changed_value(request: UpdateJobRequest, path: str) -> Any:
    """What an update asks a path of :data:`CHANGES` to be."""
    value: Any = request.job
    for name in path.split("."):
        value = getattr(value, name)
    return value


def validate_hold_job(request: HoldJobRequest) -> Refusal | None:
    violation = _first(request, {"hold_duration": WhenSet(_HOLD)}, "")
    return _refusal(violation) if violation else None


# --- What the agent sends


def validate_hello(hello: pb.Hello) -> Refusal | None:
    """Refuses a protocol that is not spoken here before it judges the fields by this one's rules."""
    if hello.protocol_version != PROTOCOL_VERSION:
        return _unsupported_version(hello.protocol_version)
    violation = _first(hello, _HELLO, "hello")
    if violation is not None:
        return _refusal(violation)
    wrong_round = _wrong_round(hello.observed, "hello.observed")
    return wrong_round or check_job_spec(job_spec_from_proto(hello.job_spec), "hello.job_spec")


def validate_observed(observed: pb.Observed) -> Refusal | None:
    violation = _first(observed, _OBSERVED, "observed")
    return _refusal(violation) if violation else _wrong_round(observed, "observed")


def validate_heartbeat(heartbeat: pb.Heartbeat) -> Refusal | None:
    violation = _first(heartbeat, _HEARTBEAT, "heartbeat")
    return _refusal(violation) if violation else None


def validate_goodbye(goodbye: pb.Goodbye) -> Refusal | None:
    violation = _first(goodbye, _GOODBYE, "goodbye")
    return _refusal(violation) if violation else None


def validate_clock(request: pb.AttachRequest) -> Refusal | None:
    """The part of a message that is about its sender's clock, if it has one."""
    violation = _first(request, {"clock": WhenSet(_CLOCK)}, "")
    if violation is None and request.clock.acked_seq and not request.clock.HasField("acked"):
        violation = Violation("clock.acked", "be set with acked_seq", "missing")
    return _refusal(violation) if violation else None


def validate_report_gone(request: pb.ReportGoneRequest) -> Refusal | None:
    violation = _first(request, _REPORT_GONE, "")
    return _refusal(violation) if violation else None


def _wrong_round(observed: pb.Observed, at: str) -> Refusal | None:
    """Every phase but READY speaks of the workers of a round, and an assignment is that round's."""
    has_round = observed.HasField("round")
    if observed.phase != AGENT_PHASE_READY and not has_round:
        phase = AGENT_PHASES.member(observed.phase)
        return _refusal(Violation(f"{at}.round", f"be set in phase {phase}", "missing"))
    held = observed.assignment
    if observed.HasField("assignment") and (not has_round or held.round != observed.round):
        ran = f"that of the round, {observed.round}" if has_round else "missing if there is no round"
        return _refusal(Violation(f"{at}.assignment.round", f"be {ran}", str(held.round)))
    if observed.HasField("assignment") and held.group_rank >= held.group_world_size:
        must = f"be below group_world_size, {held.group_world_size}"
        return _refusal(Violation(f"{at}.assignment.group_rank", must, str(held.group_rank)))
    return None


def _unsupported_version(theirs: int) -> Refusal:
    return Refusal(
        reason=Reason.UNSUPPORTED_VERSION,
        message=(
            f"the agent speaks protocol version {theirs}, this coordinator speaks {PROTOCOL_VERSION}:"
            " install matching releases"
        ),
        field="hello.protocol_version",
        metadata={"ours": str(PROTOCOL_VERSION), "theirs": str(theirs)},
    )


# --- The model's values


def check_job_name(name: str) -> Refusal | None:
    violation = _in_value(name, JOB_NAME, "job")
    return _refusal(violation) if violation else None


def check_node_name(name: str) -> Refusal | None:
    violation = _in_value(name, NODE_NAME, "node")
    return _refusal(violation) if violation else None


def check_host(host: str, at: str) -> Refusal | None:
    """``at``: what the host is called."""
    violation = _in_value(host, HOST, at)
    return _refusal(violation) if violation else None


def check_node_spec(spec: NodeSpec) -> Refusal | None:
    violation = _first(node_spec_to_proto(spec), _NODE_SPEC, "node_spec")
    return _refusal(violation) if violation else None


class _SpecRule(NamedTuple):
    """A bound of one field of a JobSpec, which may depend on the others."""

    field: str
    high: int
    low: Callable[[JobSpec], int] = lambda spec: 0
    why: str = ""


def _lease_ttl_ms_min(spec: JobSpec) -> int:
    """lease_ttl >= 3 heartbeats + fence_grace + 1 s, solved for lease_ttl: a heartbeat is lease_ttl / 6."""
    rest = HEARTBEATS_PER_LEASE - HEARTBEATS_TO_MISS
    needed_ms = spec.fence_grace_ms + FENCE_MARGIN_MS
    return -(-needed_ms * HEARTBEATS_PER_LEASE // rest)


_LEASE_WHY = "3 heartbeats (half of it) + fence_grace + 1 s"


_JOB_SPEC_RULES = (
    _SpecRule("min_nodes", NODES_MAX, lambda spec: 1),
    _SpecRule("max_nodes", NODES_MAX, lambda spec: spec.min_nodes, "min_nodes or more"),
    _SpecRule("max_restarts", INT32_MAX),
    _SpecRule("fence_grace_ms", FENCE_GRACE_MS_MAX),
    _SpecRule("lease_ttl_ms", LEASE_TTL_MS_MAX, _lease_ttl_ms_min, _LEASE_WHY),
    *(
        _SpecRule(name, DURATION_MS_MAX, why="a year at most")
        for name in (
            "coordinator_outage_ms",
            "join_timeout_ms",
            "last_call_timeout_ms",
            "shutdown_timeout_ms",
            "exit_barrier_timeout_ms",
            "scale_up_delay_ms",
            "rejoin_wait_ms",
        )
    ),
)


def check_job_spec(spec: JobSpec, at: str = "job_spec") -> Refusal | None:
    """The first bound that the spec breaks. ``at`` is where the spec stands in the request."""
    for rule in _JOB_SPEC_RULES:
        value, low = getattr(spec, rule.field), rule.low(spec)
        if not low <= value <= rule.high:
            return _refusal(_out_of_bounds(rule, at, value, low))
    violation = _in_value(spec.no_restart_exit_codes, EXIT_CODES, f"{at}.no_restart_exit_codes")
    return _refusal(violation) if violation else None


def _out_of_bounds(rule: _SpecRule, at: str, value: int, low: int) -> Violation:
    unit = _seconds if rule.field.endswith("_ms") else "{:,}".format
    path = f"{at}.{rule.field.removesuffix('_ms')}"
    must = f"be {unit(low)} to {unit(rule.high)}"
    return Violation(path, f"{must} ({rule.why})" if rule.why else must, unit(value))


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.15g} s"
