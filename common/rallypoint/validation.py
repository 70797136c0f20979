"""Bad input is refused at the door: the bounds that the comments in ``protos/`` state, as tables.

Each ``validate_*`` takes a message as it came in and gives the first thing that is wrong with it, or None. A
``check_*`` does the same for a value of the model, so that a command line is refused by the same rule before it
connects. A field is named by its path in the request: ``hello.job_spec.min_nodes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration

from rallypoint.errors import Reason, Refusal
from rallypoint.limits import (
    DURATION_MS_MAX,
    FAILURES_MAX,
    INT32_MAX,
    JOB_NAME_LENGTH,
    JOB_NAME_PATTERN,
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
    HEARTBEATS_TO_MISS,
    PROTOCOL_VERSION,
    UNKILLABLE_PIDS_MAX,
    JobSpec,
    NodeSpec,
)
from rallypoint.rules import (
    ANYTHING,
    NOT_NEGATIVE,
    Always,
    Each,
    Fault,
    Remembered,
    Required,
    Rule,
    Shape,
    WhenSet,
    between,
    fault_in,
    matching,
    refusal_of,
    text_of,
)
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.v1.types_pb2 import AGENT_PHASE_READY
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

FENCE_GRACE_MS_MAX = (
    LEASE_TTL_MS_MAX * (HEARTBEATS_PER_LEASE - HEARTBEATS_TO_MISS) // HEARTBEATS_PER_LEASE - FENCE_MARGIN_MS
)
"""With a longer one no lease_ttl would be long enough."""


def _is_duration(duration: Duration) -> bool:
    return 0 <= duration.seconds <= 315_576_000_000 and 0 <= duration.nanos < 1_000_000_000


def are_labels(labels: Mapping[str, str]) -> bool:
    """Few and short enough."""
    return len(labels) <= LABELS_MAX and all(
        len(key.encode()) <= LABEL_KEY_BYTES and len(value.encode()) <= LABEL_VALUE_BYTES
        for key, value in labels.items()
    )


_EXIT_CODES_MAX = 64


def _are_exit_codes(codes: Sequence[int]) -> bool:
    return len(codes) <= _EXIT_CODES_MAX and all(1 <= code <= 255 for code in codes)


COUNTER = between(0, COUNTER_MAX)
ID = between(1, COUNTER_MAX)
MACHINE_WORD = text_of(64)
OPAQUE_ID = text_of(128)
DURATION = Rule("be a duration of 0 or more", _is_duration)

JOB_NAME = matching(
    JOB_NAME_PATTERN,
    f"be 1 to {JOB_NAME_LENGTH} characters of [A-Za-z0-9._-], starting with a letter or digit",
)
NODE_NAME = matching(
    rf"[A-Za-z0-9._-]{{1,{NODE_NAME_LENGTH}}}", f"be 1 to {NODE_NAME_LENGTH} characters of [A-Za-z0-9._-]"
)
INCARNATION = matching(r"[A-Za-z0-9-]{8,64}", "be 8 to 64 characters of [A-Za-z0-9-]")
EXIT_CODES = Rule(f"have at most {_EXIT_CODES_MAX} entries, each 1 to 255", _are_exit_codes)
HOST = matching(r"[!-~]{1,253}", "be a host name or address of at most 253 bytes")


# --- The messages' shapes, field by field as in protos/

_VERSION = Shape({"epoch": Always(COUNTER), "revision": Always(COUNTER)})

# The other bounds depend on one another: see check_job_spec.
_JOB_SPEC = Shape(
    {
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
)

_NODE_SPEC = Shape(
    {
        "local_world_size": Always(between(1, LOCAL_WORLD_SIZE_MAX)),
        "role": Always(text_of(128)),
        "node_rank": WhenSet(NOT_NEGATIVE),
        "labels": Always(
            Rule(
                f"have at most {LABELS_MAX} entries, with keys of at most {LABEL_KEY_BYTES} and values of at most"
                f" {LABEL_VALUE_BYTES} bytes",
                are_labels,
            )
        ),
        "hostname": Always(text_of(253)),
        "entrypoint": Always(text_of(ENTRYPOINT_BYTES)),
    }
)

_WORKER_STATUS = Shape(
    {
        "local_rank": Always(NOT_NEGATIVE),
        "rank": Always(NOT_NEGATIVE),
        "pid": Always(NOT_NEGATIVE),
    }
)

_WORKER_FAILURE = Shape(
    {
        "node": Always(text_of(253)),
        "local_rank": Always(NOT_NEGATIVE),
        "rank": Always(NOT_NEGATIVE),
        "pid": Always(NOT_NEGATIVE),
        "fail_clock": WhenSet(DURATION),
    }
)

_ENDPOINT = Shape({"host": Always(HOST), "port": Always(between(1, 65535))})

_OFFER = Shape({"offer_id": Always(ID), "endpoint": Required(_ENDPOINT)})

_ASSIGNMENT = Shape(
    {
        "round": Always(COUNTER),
        "restart_count": Always(NOT_NEGATIVE),
        "group_rank": Always(between(0, NODES_MAX - 1)),
        "group_world_size": Always(between(1, NODES_MAX)),
        "first_rank": Always(NOT_NEGATIVE),
        "world_size": Always(between(1, INT32_MAX)),
        "first_role_rank": Always(NOT_NEGATIVE),
        "role_world_size": Always(between(1, INT32_MAX)),
        "endpoint": Required(_ENDPOINT),
        "offer_id": Always(COUNTER),
    }
)

_WATCHDOG = WhenSet(Shape({"live_timers": Always(NOT_NEGATIVE)}))

_OBSERVED = Shape(
    {
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
)

_HELLO = Shape(
    {
        "features": Each(64, text_of(64)),
        "capabilities": Each(64, ANYTHING),
        "agent_version": Always(text_of(128)),
        "cluster_id": Always(OPAQUE_ID),
        "job": Always(JOB_NAME),
        "job_uid": Always(OPAQUE_ID),
        "node": Always(NODE_NAME),
        "incarnation": Always(INCARNATION),
        "attach_seq": Always(ID),
        "lease_id": Always(COUNTER),
        "job_spec": Required(Remembered(_JOB_SPEC)),
        "node_spec": Required(_NODE_SPEC),
        "observed": Required(_OBSERVED),
        "highest_version": WhenSet(_VERSION),
    }
)

_HEARTBEAT = Shape({"version": WhenSet(_VERSION), "watchdog": _WATCHDOG})

_CLOCK = Shape({"send": Required(DURATION), "acked_seq": Always(COUNTER), "acked": WhenSet(DURATION)})

_CLOCKED = Shape({"clock": WhenSet(_CLOCK)})

_GOODBYE = Shape(
    {
        "reason": Always(MACHINE_WORD),
        "message": Always(text_of(LEAVE_MESSAGE_BYTES)),
    }
)

_REPORT_GONE = Shape(
    {
        "job": Always(JOB_NAME),
        "job_uid": Always(Rule("be 1 to 128 bytes", lambda uid: 0 < len(uid.encode()) <= 128)),
        "lease_id": Always(ID),
        "round": WhenSet(COUNTER),
        "incarnation": Always(INCARNATION),
        "message": Always(text_of(LEAVE_MESSAGE_BYTES)),
    }
)


# --- What the agent sends


def validate_hello(hello: pb.Hello) -> Refusal | None:
    """Refuses a protocol that is not spoken here before it judges the fields by this one's rules."""
    if hello.protocol_version != PROTOCOL_VERSION:
        return _unsupported_version(hello.protocol_version)
    fault = fault_in(hello, _HELLO, "hello")
    if fault is not None:
        return refusal_of(fault)
    wrong_round = _wrong_round(hello.observed, "hello.observed")
    return wrong_round or check_job_spec(job_spec_from_proto(hello.job_spec), "hello.job_spec")


def validate_observed(observed: pb.Observed) -> Refusal | None:
    fault = fault_in(observed, _OBSERVED, "observed")
    return refusal_of(fault) if fault else _wrong_round(observed, "observed")


def validate_heartbeat(heartbeat: pb.Heartbeat) -> Refusal | None:
    fault = fault_in(heartbeat, _HEARTBEAT, "heartbeat")
    return refusal_of(fault) if fault else None


def validate_goodbye(goodbye: pb.Goodbye) -> Refusal | None:
    fault = fault_in(goodbye, _GOODBYE, "goodbye")
    return refusal_of(fault) if fault else None


def validate_clock(request: pb.AttachRequest) -> Refusal | None:
    """The part of a message that is about its sender's clock, if it has one."""
    fault = fault_in(request, _CLOCKED, "")
    if fault is None and request.clock.acked_seq and not request.clock.HasField("acked"):
        fault = Fault("clock.acked", "be set with acked_seq", "missing")
    return refusal_of(fault) if fault else None


def validate_report_gone(request: pb.ReportGoneRequest) -> Refusal | None:
    fault = fault_in(request, _REPORT_GONE, "")
    return refusal_of(fault) if fault else None


def _wrong_round(observed: pb.Observed, at: str) -> Refusal | None:
    """Every phase but READY speaks of the workers of a round, and an assignment is that round's."""
    has_round = observed.HasField("round")
    if observed.phase != AGENT_PHASE_READY and not has_round:
        phase = AGENT_PHASES.member(observed.phase)
        return refusal_of(Fault(f"{at}.round", f"be set in phase {phase}", "missing"))
    held = observed.assignment
    if observed.HasField("assignment") and (not has_round or held.round != observed.round):
        ran = f"that of the round, {observed.round}" if has_round else "missing if there is no round"
        return refusal_of(Fault(f"{at}.assignment.round", f"be {ran}", str(held.round)))
    if observed.HasField("assignment") and held.group_rank >= held.group_world_size:
        must = f"be below group_world_size, {held.group_world_size}"
        return refusal_of(Fault(f"{at}.assignment.group_rank", must, str(held.group_rank)))
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
    fault = fault_in(name, JOB_NAME, "job")
    return refusal_of(fault) if fault else None


def check_node_name(name: str) -> Refusal | None:
    fault = fault_in(name, NODE_NAME, "node")
    return refusal_of(fault) if fault else None


def check_host(host: str, at: str) -> Refusal | None:
    """``at``: what the host is called."""
    fault = fault_in(host, HOST, at)
    return refusal_of(fault) if fault else None


def check_node_spec(spec: NodeSpec) -> Refusal | None:
    fault = fault_in(node_spec_to_proto(spec), _NODE_SPEC, "node_spec")
    return refusal_of(fault) if fault else None


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
    # Whoever reaches the port may send a longer list: that one is not kept.
    is_short = len(spec.no_restart_exit_codes) <= _EXIT_CODES_MAX
    fault = _known_broken_bound(spec) if is_short else _broken_bound(spec)
    return refusal_of(fault.under(at)) if fault else None


@lru_cache(maxsize=256)
def _known_broken_bound(spec: JobSpec) -> Fault | None:
    """All agents of a job say the same: it is judged once."""
    return _broken_bound(spec)


def _broken_bound(spec: JobSpec) -> Fault | None:
    for rule in _JOB_SPEC_RULES:
        value, low = getattr(spec, rule.field), rule.low(spec)
        if not low <= value <= rule.high:
            return _out_of_bounds(rule, value, low)
    return fault_in(spec.no_restart_exit_codes, EXIT_CODES, "no_restart_exit_codes")


def _out_of_bounds(rule: _SpecRule, value: int, low: int) -> Fault:
    unit = _seconds if rule.field.endswith("_ms") else "{:,}".format
    must = f"be {unit(low)} to {unit(rule.high)}"
    return Fault(rule.field.removesuffix("_ms"), f"{must} ({rule.why})" if rule.why else must, unit(value))


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.15g} s"
