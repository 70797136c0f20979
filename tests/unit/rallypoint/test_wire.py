from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from rallypoint import wire
from rallypoint.limits import FAILURE_MESSAGE_BYTES, TRACEBACK_BYTES
from rallypoint.model import (
    NO_ROUND,
    NO_VERSION,
    AgentPhase,
    Capability,
    ClockReading,
    JobSpec,
    JobState,
    NodeSpec,
    WorkerFailure,
    WorkerState,
)
from rallypoint.v1 import agent_service_pb2, types_pb2
from rallypoint.wire.scalars import (
    duration_from_proto,
    duration_to_proto,
    instant_from_proto,
    instant_to_proto,
    moment,
)
from rallypoint.wire.types import (
    AGENT_PHASES,
    CAPABILITIES,
    JOB_STATES,
    WORKER_STATES,
)
from unit import strategies

heartbeats = st.builds(wire.Heartbeat, strategies.versions, st.none() | strategies.watchdogs)
goodbyes = st.builds(wire.Goodbye, strategies.texts, strategies.texts)
acks = st.builds(wire.Ack, strategies.ids)
stales = st.builds(wire.LeaseStale, strategies.texts)
reports = st.builds(
    wire.ReportGone,
    job=strategies.texts,
    job_uid=strategies.texts,
    lease_id=strategies.ids,
    incarnation=strategies.texts,
    round=strategies.rounds,
    message=strategies.texts,
)

NAMES = {
    "version": strategies.versions,
    "job_spec": strategies.job_specs,
    "node_spec": strategies.node_specs,
    "failure": strategies.failures,
    "worker_status": strategies.worker_statuses,
    "watchdog": strategies.watchdogs,
    "endpoint": strategies.endpoints,
    "offer": strategies.offers,
    "assignment": strategies.assignments,
    "outcome": strategies.outcomes,
    "hello": strategies.hellos,
    "observed": strategies.observations,
    "heartbeat": heartbeats,
    "goodbye": goodbyes,
    "welcome": strategies.welcomes,
    "directive": strategies.directives,
    "ack": acks,
    "lease_stale": stales,
    "report_gone": reports,
}


def pair(name: str) -> tuple[Callable[[Any], Message], Callable[[Any], Any]]:
    return getattr(wire, f"{name}_to_proto"), getattr(wire, f"{name}_from_proto")


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_value_survives_the_wire(name: str, data: st.DataObject) -> None:
    to_proto, from_proto = pair(name)
    value = data.draw(NAMES[name])
    message = to_proto(value)
    assert from_proto(type(message).FromString(message.SerializeToString())) == value


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_message_can_be_read(name: str) -> None:
    to_proto, from_proto = pair(name)
    empty = type(to_proto(from_proto_example(name)))()
    from_proto(empty)


def from_proto_example(name: str) -> Any:
    """Some value of the kind: the simplest that hypothesis finds."""
    return find(NAMES[name], lambda _: True, settings=settings(phases=[Phase.generate]))


@given(st.one_of(strategies.hellos, strategies.observations, heartbeats, goodbyes))
def test_an_attach_request_says_what_went_in(message: wire.AgentMessage) -> None:
    request = wire.attach_request_to_proto(message, lease_id=7, seq=3)
    assert (request.lease_id, request.seq) == (7, 3)
    kind = request.WhichOneof("message")
    assert kind == type(message).__name__.lower()
    assert getattr(wire, f"{kind}_from_proto")(getattr(request, kind)) == message


clocks = st.builds(ClockReading, strategies.durations_ms, st.integers(1, 2**62), strategies.durations_ms)


@given(st.none() | clocks | strategies.durations_ms.map(ClockReading))
def test_an_attach_request_says_what_the_clock_showed(clock: ClockReading | None) -> None:
    request = wire.attach_request_to_proto(wire.Heartbeat(NO_VERSION), lease_id=7, seq=3, clock=clock)
    assert wire.clock_from_proto(request) == clock


@given(st.one_of(strategies.welcomes, strategies.directives, acks, stales))
def test_an_attach_response_says_what_went_in(message: wire.CoordinatorMessage) -> None:
    response = wire.attach_response_to_proto(message)
    assert wire.attach_response_from_proto(response) == message


def test_a_stream_message_of_a_later_release_reads_as_nothing() -> None:
    unknown = b"\xfa\x01\x00"  # field 31, length 0
    response = agent_service_pb2.AttachResponse.FromString(unknown)
    assert wire.attach_response_from_proto(response) is None


def test_an_unknown_action_reads_as_none() -> None:
    message = agent_service_pb2.Directive.FromString(b"\xfa\x01\x00")
    assert wire.directive_from_proto(message).action is None


@pytest.mark.parametrize(
    ("table", "descriptor"),
    [
        (CAPABILITIES, types_pb2.Capability.DESCRIPTOR),
        (AGENT_PHASES, types_pb2.AgentPhase.DESCRIPTOR),
        (WORKER_STATES, types_pb2.WorkerState.DESCRIPTOR),
        (JOB_STATES, types_pb2.JobState.DESCRIPTOR),
    ],
)
def test_every_enum_value_has_its_twin(table: Any, descriptor: Any) -> None:
    members = [table.member(value.number) for value in descriptor.values if value.number]
    assert None not in members
    assert [table.number(member) for member in members] == [v.number for v in descriptor.values][1:]


def test_unknown_enum_numbers_read_as_the_careful_default() -> None:
    observed = agent_service_pb2.Observed(phase=99)  # type: ignore[arg-type]
    observed.workers.add(state=99)
    read = wire.observed_from_proto(observed)
    assert (read.phase, read.workers[0].state) == (AgentPhase.STOPPING, WorkerState.UNKNOWN)
    hello = agent_service_pb2.Hello(capabilities=[99, 2])  # type: ignore[list-item]
    assert wire.hello_from_proto(hello).capabilities == {Capability.SELF_FENCES}
    outcome = types_pb2.Outcome(state=99)  # type: ignore[arg-type]
    assert wire.outcome_from_proto(outcome).state is JobState.FAILED


def test_missing_fields_read_as_their_defaults() -> None:
    assert wire.observed_from_proto(agent_service_pb2.Observed()).round == NO_ROUND
    assert wire.node_spec_from_proto(types_pb2.NodeSpec()).role == NodeSpec().role
    spec = wire.job_spec_from_proto(types_pb2.JobSpec(min_nodes=2, max_nodes=3))
    assert spec == JobSpec(min_nodes=2, max_nodes=3)


def test_a_duration_of_zero_is_not_a_missing_one() -> None:
    message = types_pb2.JobSpec(coordinator_outage=Duration())
    assert wire.job_spec_from_proto(message).coordinator_outage_ms == 0


def test_every_field_of_the_job_spec_has_its_twin() -> None:
    suffix = {FieldDescriptor.TYPE_MESSAGE: "_ms"}
    wired = {f.name + suffix.get(f.type, "") for f in types_pb2.JobSpec.DESCRIPTOR.fields}
    assert wired == {f.name for f in fields(JobSpec)}


@given(st.integers(0, 10**14))
def test_durations_and_instants_are_exact_to_the_millisecond(ms: int) -> None:
    assert duration_from_proto(duration_to_proto(ms)) == ms
    assert instant_from_proto(instant_to_proto(ms) or Timestamp()) == ms


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_impossible_times_become_possible_ones(seconds: int, nanos: int) -> None:
    duration = duration_from_proto(Duration(seconds=seconds, nanos=nanos))
    duration_to_proto(duration).ToJsonString()
    instant = instant_from_proto(Timestamp(seconds=seconds, nanos=nanos))
    (instant_to_proto(instant) or Timestamp()).ToJsonString()


def test_no_time_is_not_set() -> None:
    assert instant_to_proto(0) is None
    failure = WorkerFailure(node="a", local_rank=0, rank=0, pid=1, exit_code=1)
    assert not wire.failure_to_proto(failure).HasField("fail_time")


def test_long_failures_are_cut_on_both_sides() -> None:
    failure = WorkerFailure(node="a", local_rank=0, rank=0, pid=1, exit_code=1)
    long = replace(failure, message="m" * 10_000, traceback="t" * 100_000 + "Error: the end")
    sent = wire.failure_to_proto(long)
    assert len(sent.message) == FAILURE_MESSAGE_BYTES
    assert len(sent.traceback) == TRACEBACK_BYTES
    assert sent.traceback.endswith("Error: the end")
    sent.message = "m" * 10_000
    assert len(wire.failure_from_proto(sent).message) == FAILURE_MESSAGE_BYTES


def test_texts_that_are_no_utf8_can_be_sent() -> None:
    wire.node_spec_to_proto(NodeSpec(entrypoint="caf\udce9.py")).SerializeToString()
    wire.goodbye_to_proto(wire.Goodbye("SIGNAL", "\udce9" * 2000)).SerializeToString()


KINDS: list[type[Message]] = [agent_service_pb2.Hello, agent_service_pb2.Directive]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=200))
def test_whatever_parses_can_be_read_and_sent_on(kind: type[Message], data: bytes) -> None:
    try:
        message = kind.FromString(data)
    except DecodeError:
        return
    to_proto, from_proto = pair(kind.DESCRIPTOR.name.lower())
    to_proto(from_proto(message))


def test_exit_codes_that_are_final_are_a_set() -> None:
    message = types_pb2.JobSpec(no_restart_exit_codes=[93, 2, 93])
    assert wire.job_spec_from_proto(message).no_restart_exit_codes == (2, 93)


def test_moment() -> None:
    assert moment(Timestamp(seconds=1_800_000_000)) == "2027-01-15 08:00:00Z"
    assert moment(Timestamp(seconds=253_402_300_799)) == "9999-12-31 23:59:59Z", "the last that protobuf can tell"
