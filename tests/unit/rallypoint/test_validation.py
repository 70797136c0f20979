from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from rallypoint import wire
from rallypoint.errors import Reason, Refusal
from rallypoint.model import (
    AgentPhase,
    Capability,
    Endpoint,
    EndpointOffer,
    Hello,
    JobSpec,
    NodeSpec,
    Observed,
    Version,
    WorkerFailure,
    WorkerStatus,
)
from rallypoint.v1 import agent_service_pb2, types_pb2
from rallypoint.validation import (
    check_host,
    check_job_name,
    check_job_spec,
    check_node_name,
    check_node_spec,
    validate_clock,
    validate_goodbye,
    validate_heartbeat,
    validate_hello,
    validate_observed,
    validate_report_gone,
)

Hello_ = agent_service_pb2.Hello
Observed_ = agent_service_pb2.Observed

YEAR_MS = 365 * 24 * 3_600_000
SPEC = JobSpec(min_nodes=2, max_nodes=4, max_restarts=3)
FAILURE = WorkerFailure(node="a", local_rank=0, rank=0, pid=7, exit_code=-9)
OBSERVED = Observed(
    phase=AgentPhase.FAILED,
    round=2,
    version=Version(1, 9),
    workers=(WorkerStatus(local_rank=0, rank=4),),
    failures=(FAILURE,),
    offer=EndpointOffer(3, Endpoint("10.0.0.7", 40_000)),
)
HELLO = Hello(
    job="train-7",
    node="node-a.example",
    incarnation="0f3c2a90",
    attach_seq=1,
    job_spec=SPEC,
    node_spec=NodeSpec(local_world_size=8, labels={"rack": "7"}),
    observed=OBSERVED,
    capabilities=frozenset({Capability.SELF_FENCES}),
)


def hello(**changes: Any) -> Hello_:
    return wire.hello_to_proto(replace(HELLO, **changes))


def observed(**changes: Any) -> Observed_:
    return wire.observed_to_proto(replace(OBSERVED, **changes))


def at_fault(refusal: Refusal | None) -> tuple[str, str]:
    assert refusal is not None
    return refusal.reason, refusal.field


def test_what_is_right_passes() -> None:
    assert validate_hello(hello()) is None
    assert validate_observed(observed()) is None
    assert validate_observed(Observed_(phase=types_pb2.AGENT_PHASE_READY)) is None
    assert validate_heartbeat(agent_service_pb2.Heartbeat()) is None
    assert validate_goodbye(agent_service_pb2.Goodbye(reason="SIGNAL", message="m" * 1024)) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"job": ""}, "job"),
        ({"job": "-x"}, "job"),
        ({"job": "a/b"}, "job"),
        ({"job": "j" * 129}, "job"),
        ({"job": "train\n"}, "job"),
        ({"job_uid": "u" * 129}, "job_uid"),
        ({"node": ""}, "node"),
        ({"node": "a b"}, "node"),
        ({"node": "n" * 254}, "node"),
        ({"incarnation": "short"}, "incarnation"),
        ({"incarnation": "under_score"}, "incarnation"),
        ({"incarnation": "i" * 65}, "incarnation"),
        ({"attach_seq": 0}, "attach_seq"),
        ({"attach_seq": -1}, "attach_seq"),
        ({"attach_seq": 2**62 + 1}, "attach_seq"),
        ({"lease_id": -1}, "lease_id"),
        ({"cluster_id": "c" * 129}, "cluster_id"),
        ({"agent_version": "v" * 129}, "agent_version"),
        ({"highest_version": Version(-1, 0)}, "highest_version.epoch"),
        ({"highest_version": Version(1, 2**63 - 1)}, "highest_version.revision"),
        ({"node_spec": NodeSpec(local_world_size=0)}, "node_spec.local_world_size"),
        ({"node_spec": NodeSpec(local_world_size=4097)}, "node_spec.local_world_size"),
        ({"node_spec": NodeSpec(role="r" * 129)}, "node_spec.role"),
        ({"node_spec": NodeSpec(role="é" * 65)}, "node_spec.role"),
        ({"node_spec": NodeSpec(hostname="h" * 254)}, "node_spec.hostname"),
        ({"node_spec": NodeSpec(node_rank=-1)}, "node_spec.node_rank"),
        ({"node_spec": NodeSpec(labels={"k" * 64: ""})}, "node_spec.labels"),
        ({"node_spec": NodeSpec(labels={"k": "v" * 257})}, "node_spec.labels"),
        ({"node_spec": NodeSpec(labels={str(n): "" for n in range(33)})}, "node_spec.labels"),
        ({"job_spec": replace(SPEC, min_nodes=0)}, "job_spec.min_nodes"),
        ({"job_spec": replace(SPEC, min_nodes=100_001)}, "job_spec.min_nodes"),
        ({"job_spec": replace(SPEC, max_nodes=1)}, "job_spec.max_nodes"),
        ({"job_spec": replace(SPEC, max_nodes=100_001)}, "job_spec.max_nodes"),
        ({"job_spec": replace(SPEC, max_restarts=-1)}, "job_spec.max_restarts"),
        ({"job_spec": replace(SPEC, lease_ttl_ms=7_999)}, "job_spec.lease_ttl"),
        ({"job_spec": replace(SPEC, lease_ttl_ms=3_600_001)}, "job_spec.lease_ttl"),
        ({"job_spec": replace(SPEC, join_timeout_ms=-1)}, "job_spec.join_timeout"),
        ({"job_spec": replace(SPEC, join_timeout_ms=YEAR_MS + 1)}, "job_spec.join_timeout"),
        ({"job_spec": replace(SPEC, fence_grace_ms=1_799_001)}, "job_spec.fence_grace"),
        ({"job_spec": replace(SPEC, no_restart_exit_codes=(0,))}, "job_spec.no_restart_exit_codes"),
        ({"job_spec": replace(SPEC, no_restart_exit_codes=tuple(range(1, 66)))}, "job_spec.no_restart_exit_codes"),
        ({"observed": replace(OBSERVED, round=-1)}, "observed.round"),
    ],
)
def test_hello_field_at_fault(changes: dict[str, Any], field: str) -> None:
    assert at_fault(validate_hello(hello(**changes))) == ("INVALID_FIELD", f"hello.{field}")


@pytest.mark.parametrize(("features", "field"), [(["f"] * 65, "features"), (["ok", "f" * 65], "features[1]")])
def test_features_are_bounded_though_none_is_known_yet(features: list[str], field: str) -> None:
    message = hello()
    message.features.extend(features)
    assert at_fault(validate_hello(message)) == ("INVALID_FIELD", f"hello.{field}")


@pytest.mark.parametrize("field", ["job_spec", "node_spec", "observed"])
def test_hello_lacks_a_required_message(field: str) -> None:
    message = hello()
    message.ClearField(field)  # type: ignore[arg-type]
    refusal = validate_hello(message)
    assert at_fault(refusal) == ("INVALID_FIELD", f"hello.{field}")
    assert refusal is not None
    assert refusal.message == f"hello.{field} must be set, but is missing"


def test_hello_lacks_the_lease_ttl() -> None:
    message = hello()
    message.job_spec.ClearField("lease_ttl")
    assert at_fault(validate_hello(message)) == ("INVALID_FIELD", "hello.job_spec.lease_ttl")


@pytest.mark.parametrize("duration", [Duration(seconds=-1), Duration(seconds=1, nanos=-1)])
def test_hello_has_an_impossible_duration(duration: Duration) -> None:
    message = hello()
    message.job_spec.last_call_timeout.CopyFrom(duration)
    refusal = validate_hello(message)
    assert at_fault(refusal) == ("INVALID_FIELD", "hello.job_spec.last_call_timeout")


def test_hello_may_leave_out_what_has_a_default() -> None:
    message = hello()
    for name in ("fence_grace", "coordinator_outage", "join_timeout", "shutdown_timeout"):
        message.job_spec.ClearField(name)
    message.ClearField("highest_version")
    assert validate_hello(message) is None


def test_another_protocol_is_not_judged_by_this_ones_rules() -> None:
    refusal = validate_hello(Hello_(protocol_version=2))
    assert at_fault(refusal) == ("UNSUPPORTED_VERSION", "hello.protocol_version")
    assert refusal is not None
    assert refusal.metadata == {"ours": "1", "theirs": "2"}


def test_an_agent_need_not_promise_anything() -> None:
    assert validate_hello(hello(capabilities=frozenset())) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"version": Version(0, -1)}, "version.revision"),
        ({"round": -2}, "round"),
        ({"workers": (WorkerStatus(local_rank=0, rank=0),) * 4097}, "workers"),
        ({"workers": (WorkerStatus(local_rank=-1, rank=0),)}, "workers[0].local_rank"),
        ({"failures": (FAILURE,) * 17}, "failures"),
        ({"failures": (FAILURE, replace(FAILURE, pid=-1))}, "failures[1].pid"),
        ({"offer": EndpointOffer(0, Endpoint("h", 1))}, "offer.offer_id"),
        ({"offer": EndpointOffer(1, Endpoint("", 1))}, "offer.endpoint.host"),
        ({"offer": EndpointOffer(1, Endpoint("a\0b", 1))}, "offer.endpoint.host"),
        ({"offer": EndpointOffer(1, Endpoint("h", 0))}, "offer.endpoint.port"),
        ({"offer": EndpointOffer(1, Endpoint("h", 65_536))}, "offer.endpoint.port"),
    ],
)
def test_observed_field_at_fault(changes: dict[str, Any], field: str) -> None:
    assert at_fault(validate_observed(observed(**changes))) == ("INVALID_FIELD", f"observed.{field}")


def test_observed_lacks_what_is_required() -> None:
    assert at_fault(validate_observed(Observed_())) == ("INVALID_FIELD", "observed.phase")
    running = Observed_(phase=types_pb2.AGENT_PHASE_RUNNING)
    assert at_fault(validate_observed(running)) == ("INVALID_FIELD", "observed.round")
    offering = observed(offer=None)
    offering.offer.offer_id = 1
    assert at_fault(validate_observed(offering)) == ("INVALID_FIELD", "observed.offer.endpoint")


def test_small_messages() -> None:
    heartbeat = agent_service_pb2.Heartbeat(version=types_pb2.Version(epoch=-1))
    assert at_fault(validate_heartbeat(heartbeat)) == ("INVALID_FIELD", "heartbeat.version.epoch")
    goodbye = agent_service_pb2.Goodbye(message="m" * 1025)
    assert at_fault(validate_goodbye(goodbye)) == ("INVALID_FIELD", "goodbye.message")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, ""),
        ({"job": ""}, "job"),
        ({"job_uid": ""}, "job_uid"),
        ({"lease_id": 0}, "lease_id"),
        ({"incarnation": "x"}, "incarnation"),
        ({"round": -2}, "round"),
    ],
)
def test_report_gone(changes: dict[str, Any], field: str) -> None:
    report = wire.ReportGone(job="j", job_uid="u", lease_id=4, incarnation="0f3c2a90")
    refusal = validate_report_gone(wire.report_gone_to_proto(replace(report, **changes)))
    assert (refusal.field if refusal else "") == field


def test_a_refusal_shows_the_rule_and_the_value_on_one_short_line() -> None:
    refusal = validate_hello(hello(job="bad\n" * 100))
    assert refusal is not None
    assert refusal.metadata["value"].startswith("'bad\\n")
    assert "\n" not in refusal.message
    assert len(refusal.message) < 250
    assert set(refusal.metadata) == {"field", "must", "value"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            replace(SPEC, max_nodes=1),
            "job_spec.max_nodes must be 2 to 100,000 (min_nodes or more), but is 1",
        ),
        (
            replace(SPEC, lease_ttl_ms=5_000),
            "job_spec.lease_ttl must be 8 s to 3600 s (3 heartbeats (half of it) + fence_grace + 1 s), but is 5 s",
        ),
        (
            replace(SPEC, join_timeout_ms=-500),
            "job_spec.join_timeout must be 0 s to 31536000 s (a year at most), but is -0.5 s",
        ),
        (
            replace(SPEC, min_nodes=10**11, max_nodes=10**11),
            "job_spec.min_nodes must be 1 to 100,000, but is 100,000,000,000",
        ),
        (
            replace(SPEC, no_restart_exit_codes=(256,)),
            "job_spec.no_restart_exit_codes must have at most 64 entries, each 1 to 255, but is (256,)",
        ),
    ],
)
def test_a_spec_is_refused_in_words_of_the_command_line(spec: JobSpec, message: str) -> None:
    refusal = check_job_spec(spec)
    assert refusal is not None
    assert refusal.message == message


@given(st.integers(0, 10**6), st.integers(0, 3_600_000))
def test_the_lease_covers_three_heartbeats_and_the_fence(grace_ms: int, ttl_ms: int) -> None:
    spec = JobSpec(fence_grace_ms=grace_ms, lease_ttl_ms=ttl_ms)
    enough = 6 * ttl_ms >= 3 * ttl_ms + 6 * (grace_ms + 1_000)
    assert (check_job_spec(spec) is None) == enough


@pytest.mark.parametrize("name", [field.name for field in fields(JobSpec) if field.name.endswith("_ms")])
def test_every_duration_is_bounded_and_no_bound_contradicts_another(name: str) -> None:
    changes: dict[str, Any] = {name: 10**18}
    refusal = check_job_spec(replace(JobSpec(), **changes))
    assert refusal is not None
    assert refusal.field == f"job_spec.{name.removesuffix('_ms')}"
    low, high = (float(value) for value in re.findall(r"([0-9]+) s", refusal.metadata["must"])[:2])
    assert low <= high


def test_a_long_list_of_exit_codes_is_not_kept() -> None:
    """Whoever reaches the port may send one of four megabytes, and another."""
    codes = tuple(range(1, 10_000))
    before = sys.getrefcount(codes)
    assert check_job_spec(replace(SPEC, no_restart_exit_codes=codes)) is not None
    assert sys.getrefcount(codes) == before


def test_the_defaults_are_allowed() -> None:
    assert check_job_spec(JobSpec()) is None


def test_a_node_spec_is_refused_by_the_rules_of_the_wire() -> None:
    assert check_node_spec(NodeSpec(node_rank=2**31 - 1)) is None
    refusal = check_node_spec(NodeSpec(role="r" * 129))
    assert refusal is not None
    assert refusal.message == f"node_spec.role must be at most 128 bytes, but is '{'r' * 79}..."


def test_a_host_is_refused_by_the_rule_of_the_wire() -> None:
    assert check_host("10.0.0.1", "addr") is None
    refusal = check_host("a b", "addr")
    assert refusal is not None
    assert refusal.message == "addr must be a host name or address of at most 253 bytes, but is 'a b'"


@pytest.mark.parametrize("check", [check_job_name, check_node_name])
def test_names(check: Callable[[str], Refusal | None]) -> None:
    assert check("run-7.b_2") is None
    refusal = check("")
    assert refusal is not None
    assert (refusal.reason, refusal.message.endswith("but is empty")) == (Reason.INVALID_FIELD, True)


@pytest.mark.parametrize(
    ("clock", "field"),
    [
        (agent_service_pb2.ClockReading(), "clock.send"),
        (agent_service_pb2.ClockReading(send=Duration(seconds=-1)), "clock.send"),
        (agent_service_pb2.ClockReading(send=Duration(), acked_seq=-1), "clock.acked_seq"),
        (agent_service_pb2.ClockReading(send=Duration(), acked_seq=1), "clock.acked"),
    ],
)
def test_clock_field_at_fault(clock: agent_service_pb2.ClockReading, field: str) -> None:
    refusal = validate_clock(agent_service_pb2.AttachRequest(clock=clock))
    assert refusal is not None
    assert refusal.field == field


def test_a_message_may_say_nothing_of_a_clock() -> None:
    assert validate_clock(agent_service_pb2.AttachRequest()) is None
