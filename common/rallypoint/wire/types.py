"""``types.proto``: the nouns that every service shares."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration

from rallypoint.limits import FAILURE_MESSAGE_BYTES, TRACEBACK_BYTES
from rallypoint.model import (
    NO_ROUND,
    AgentPhase,
    Assignment,
    Blame,
    Capability,
    Endpoint,
    EndpointOffer,
    JobSpec,
    JobState,
    NodeSpec,
    Outcome,
    ScaleUp,
    StoreHost,
    Version,
    WatchdogStatus,
    WorkerFailure,
    WorkerState,
    WorkerStatus,
)
from rallypoint.texts import cut
from rallypoint.v1 import types_pb2 as pb
from rallypoint.wire.scalars import (
    EnumTable,
    duration_from_proto,
    duration_to_proto,
    instant_from_proto,
    instant_to_proto,
)

OUTCOME_MESSAGE_BYTES = 4 * 1024
LAST_EXPIRY_BYTES = 512
"""Longer texts are cut, by whoever sends them and by whoever reads them."""

ENTRYPOINT_BYTES = 256
"""Longer ones are cut by our sender and refused by the reader."""

KNOWN_SPEC_BYTES = 1024
"""A longer one is not remembered: whoever reaches the port may send it."""

DEFAULT_ROLE = "default"

CAPABILITIES = EnumTable(Capability, pb.Capability, "CAPABILITY_")
AGENT_PHASES = EnumTable(AgentPhase, pb.AgentPhase, "AGENT_PHASE_")
WORKER_STATES = EnumTable(WorkerState, pb.WorkerState, "WORKER_STATE_")
SCALE_UPS = EnumTable(ScaleUp, pb.ScaleUp, "SCALE_UP_")
STORE_HOSTS = EnumTable(StoreHost, pb.StoreHost, "STORE_HOST_")
JOB_STATES = EnumTable(JobState, pb.JobState, "JOB_STATE_")
BLAMES = EnumTable(Blame, pb.Blame, "BLAME_")


def version_to_proto(version: Version) -> pb.Version:
    return pb.Version(epoch=version.epoch, revision=version.revision)


def version_from_proto(message: pb.Version) -> Version:
    return Version(message.epoch, message.revision)


def capabilities_to_proto(capabilities: frozenset[Capability]) -> list[pb.Capability.ValueType]:
    """In the order of their numbers, so that equal sets give equal bytes."""
    return sorted(CAPABILITIES.number(capability) for capability in capabilities)


def capabilities_from_proto(numbers: Iterable[pb.Capability.ValueType]) -> frozenset[Capability]:
    """Those that are known here; a promise that nobody here relies on is dropped."""
    return _capabilities(frozenset(numbers))


@lru_cache(maxsize=256)
def _capabilities(numbers: frozenset[pb.Capability.ValueType]) -> frozenset[Capability]:
    """One set for all agents that promise the same."""
    known = (CAPABILITIES.member(number) for number in numbers)
    return frozenset(capability for capability in known if capability is not None)


def round_to_proto(number: int) -> int | None:
    """A round's number, or None (not set) for "none yet"."""
    return None if number == NO_ROUND else number


def job_spec_to_proto(spec: JobSpec) -> pb.JobSpec:
    return pb.JobSpec(
        min_nodes=spec.min_nodes,
        max_nodes=spec.max_nodes,
        max_restarts=spec.max_restarts,
        lease_ttl=duration_to_proto(spec.lease_ttl_ms),
        fence_grace=duration_to_proto(spec.fence_grace_ms),
        coordinator_outage=duration_to_proto(spec.coordinator_outage_ms),
        join_timeout=duration_to_proto(spec.join_timeout_ms),
        last_call_timeout=duration_to_proto(spec.last_call_timeout_ms),
        shutdown_timeout=duration_to_proto(spec.shutdown_timeout_ms),
        exit_barrier_timeout=duration_to_proto(spec.exit_barrier_timeout_ms),
        scale_up=SCALE_UPS.number(spec.scale_up),
        scale_up_delay=duration_to_proto(spec.scale_up_delay_ms),
        rejoin_wait=duration_to_proto(spec.rejoin_wait_ms),
        no_restart_exit_codes=spec.no_restart_exit_codes,
        store_host=STORE_HOSTS.number(spec.store_host),
    )


def job_spec_from_proto(message: pb.JobSpec) -> JobSpec:
    """A duration that is not set has its default: a policy may be younger than the agent that speaks."""
    data = message.SerializeToString()
    return _known_job_spec(data) if len(data) <= KNOWN_SPEC_BYTES else _job_spec(message)


@lru_cache(maxsize=256)
def _known_job_spec(data: bytes) -> JobSpec:
    """All agents of a job say the same: it is read once, and kept once."""
    return _job_spec(pb.JobSpec.FromString(data))


def _job_spec(message: pb.JobSpec) -> JobSpec:
    durations = {
        f"{field.name}_ms": duration_from_proto(value)
        for field, value in message.ListFields()
        if isinstance(value, Duration)
    }
    return JobSpec(
        min_nodes=message.min_nodes,
        max_nodes=message.max_nodes,
        max_restarts=message.max_restarts,
        scale_up=SCALE_UPS.member(message.scale_up) or ScaleUp.IMMEDIATE,
        no_restart_exit_codes=tuple(sorted(set(message.no_restart_exit_codes))),
        store_host=STORE_HOSTS.member(message.store_host) or StoreHost.WORKER,
        **durations,
    )


def node_spec_to_proto(spec: NodeSpec) -> pb.NodeSpec:
    return pb.NodeSpec(
        local_world_size=spec.local_world_size,
        role=spec.role,
        node_rank=spec.node_rank,
        labels=spec.labels,
        hostname=spec.hostname,
        entrypoint=cut(spec.entrypoint, ENTRYPOINT_BYTES),
    )


def node_spec_from_proto(message: pb.NodeSpec) -> NodeSpec:
    return NodeSpec(
        local_world_size=message.local_world_size,
        role=message.role or DEFAULT_ROLE,
        node_rank=message.node_rank if message.HasField("node_rank") else None,
        labels=dict(message.labels),
        hostname=message.hostname,
        entrypoint=message.entrypoint,
    )


def failure_to_proto(failure: WorkerFailure) -> pb.WorkerFailure:
    return pb.WorkerFailure(
        node=failure.node,
        local_rank=failure.local_rank,
        rank=failure.rank,
        pid=failure.pid,
        exit_code=failure.exit_code,
        message=cut(failure.message, FAILURE_MESSAGE_BYTES),
        traceback=cut(failure.traceback, TRACEBACK_BYTES, keep="end"),
        fail_time=instant_to_proto(failure.fail_time_ms),
        after_stop=failure.after_stop,
        fail_clock=_optional_to_proto(failure.fail_clock_ms),
        corrected_time=instant_to_proto(failure.corrected_time_ms),
        time_error=_optional_to_proto(failure.time_error_ms),
        blame=BLAMES.number(failure.blame) if failure.blame else pb.BLAME_UNSPECIFIED,
    )


def failure_from_proto(message: pb.WorkerFailure) -> WorkerFailure:
    return WorkerFailure(
        node=message.node,
        local_rank=message.local_rank,
        rank=message.rank,
        pid=message.pid,
        exit_code=message.exit_code,
        message=cut(message.message, FAILURE_MESSAGE_BYTES),
        traceback=cut(message.traceback, TRACEBACK_BYTES, keep="end"),
        fail_time_ms=instant_from_proto(message.fail_time),
        after_stop=message.after_stop,
        fail_clock_ms=duration_from_proto(message.fail_clock) if message.HasField("fail_clock") else None,
        corrected_time_ms=instant_from_proto(message.corrected_time),
        time_error_ms=duration_from_proto(message.time_error) if message.HasField("time_error") else None,
        blame=BLAMES.member(message.blame),
    )


def _optional_to_proto(ms: int | None) -> Duration | None:
    return None if ms is None else duration_to_proto(ms)


def worker_status_to_proto(status: WorkerStatus) -> pb.WorkerStatus:
    return pb.WorkerStatus(
        local_rank=status.local_rank,
        rank=status.rank,
        pid=status.pid,
        state=WORKER_STATES.number(status.state),
        exit_code=status.exit_code,
    )


def worker_status_from_proto(message: pb.WorkerStatus) -> WorkerStatus:
    return WorkerStatus(
        local_rank=message.local_rank,
        rank=message.rank,
        pid=message.pid,
        state=WORKER_STATES.member(message.state) or WorkerState.UNKNOWN,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
    )


def watchdog_to_proto(watchdog: WatchdogStatus) -> pb.WatchdogStatus:
    return pb.WatchdogStatus(
        enabled=watchdog.enabled,
        progress_time=instant_to_proto(watchdog.progress_time_ms),
        live_timers=watchdog.live_timers,
        last_expiry=cut(watchdog.last_expiry, LAST_EXPIRY_BYTES),
    )


def watchdog_from_proto(message: pb.WatchdogStatus) -> WatchdogStatus:
    return WatchdogStatus(
        enabled=message.enabled,
        progress_time_ms=instant_from_proto(message.progress_time) if message.HasField("progress_time") else 0,
        live_timers=message.live_timers,
        last_expiry=cut(message.last_expiry, LAST_EXPIRY_BYTES),
    )


def endpoint_to_proto(endpoint: Endpoint) -> pb.Endpoint:
    return pb.Endpoint(host=endpoint.host, port=endpoint.port)


def endpoint_from_proto(message: pb.Endpoint) -> Endpoint:
    return Endpoint(message.host, message.port)


def offer_to_proto(offer: EndpointOffer) -> pb.EndpointOffer:
    return pb.EndpointOffer(offer_id=offer.offer_id, endpoint=endpoint_to_proto(offer.endpoint))


def offer_from_proto(message: pb.EndpointOffer) -> EndpointOffer:
    return EndpointOffer(message.offer_id, endpoint_from_proto(message.endpoint))


def assignment_to_proto(assignment: Assignment) -> pb.Assignment:
    message = pb.Assignment()
    write_assignment(assignment, message)
    return message


def write_assignment(assignment: Assignment, message: pb.Assignment) -> None:
    """Into an empty message, which may be a part of another one."""
    message.round = assignment.round
    message.restart_count = assignment.restart_count
    message.group_rank = assignment.group_rank
    message.group_world_size = assignment.group_world_size
    message.first_rank = assignment.first_rank
    message.world_size = assignment.world_size
    message.first_role_rank = assignment.first_role_rank
    message.role_world_size = assignment.role_world_size
    message.endpoint.host = assignment.endpoint.host
    message.endpoint.port = assignment.endpoint.port
    message.offer_id = assignment.offer_id


def assignment_from_proto(message: pb.Assignment) -> Assignment:
    return Assignment(
        round=message.round,
        restart_count=message.restart_count,
        group_rank=message.group_rank,
        group_world_size=message.group_world_size,
        first_rank=message.first_rank,
        world_size=message.world_size,
        first_role_rank=message.first_role_rank,
        role_world_size=message.role_world_size,
        endpoint=endpoint_from_proto(message.endpoint),
        offer_id=message.offer_id,
    )


def outcome_to_proto(outcome: Outcome) -> pb.Outcome:
    return pb.Outcome(
        state=JOB_STATES.number(outcome.state),
        reason=outcome.reason,
        message=cut(outcome.message, OUTCOME_MESSAGE_BYTES),
        culprit=failure_to_proto(outcome.culprit) if outcome.culprit else None,
        candidates=[failure_to_proto(failure) for failure in outcome.candidates],
    )


def outcome_from_proto(message: pb.Outcome) -> Outcome:
    """An outcome of a kind not known here reads as a failure: it is safer not to claim success."""
    return Outcome(
        state=JOB_STATES.member(message.state) or JobState.FAILED,
        reason=message.reason,
        message=message.message,
        culprit=failure_from_proto(message.culprit) if message.HasField("culprit") else None,
        candidates=tuple(failure_from_proto(failure) for failure in message.candidates),
    )
