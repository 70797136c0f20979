"""``agent_service.proto``: what agents and the coordinator say to each other."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias, assert_never

from rallypoint.limits import LEAVE_MESSAGE_BYTES
from rallypoint.model import (
    NO_ROUND,
    UNKILLABLE_PIDS_MAX,
    Action,
    AgentPhase,
    ClockReading,
    Directive,
    Drain,
    Exit,
    Hello,
    Hold,
    JobSpec,
    Keep,
    Observed,
    Run,
    Stop,
    Version,
    WatchdogStatus,
    Welcome,
)
from rallypoint.texts import cut
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint.values import dataclass
from rallypoint.wire.scalars import (
    duration_from_proto,
    duration_to_proto,
    instant_from_proto,
    instant_to_proto,
)
from rallypoint.wire.types import (
    AGENT_PHASES,
    assignment_from_proto,
    assignment_to_proto,
    capabilities_from_proto,
    capabilities_to_proto,
    failure_from_proto,
    failure_to_proto,
    job_spec_from_proto,
    job_spec_to_proto,
    node_spec_from_proto,
    node_spec_to_proto,
    offer_from_proto,
    offer_to_proto,
    outcome_from_proto,
    outcome_to_proto,
    round_to_proto,
    version_from_proto,
    version_to_proto,
    watchdog_from_proto,
    watchdog_to_proto,
    worker_status_from_proto,
    worker_status_to_proto,
    write_assignment,
)


class Heartbeat(NamedTuple):
    """Renews the lease; ``version`` is the newest directive acted on. ``watchdog`` None: the agent has none."""

    version: Version
    watchdog: WatchdogStatus | None = None


class Goodbye(NamedTuple):
    """The agent leaves for good."""

    reason: str
    message: str


class Ack(NamedTuple):
    """Acknowledges every message of the stream up to and including ``seq``."""

    seq: int


class LeaseStale(NamedTuple):
    """The lease is no longer the agent's own."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportGone:
    """An obituary."""

    job: str
    job_uid: str
    lease_id: int
    incarnation: str
    round: int = NO_ROUND
    message: str = ""


"""The last words of a Goodbye or a ReportGone: cut by our sender, longer ones refused by the reader."""

AgentMessage: TypeAlias = Hello | Observed | Heartbeat | Goodbye
CoordinatorMessage: TypeAlias = Welcome | Directive | Ack | LeaseStale


# What an agent sends.


def hello_to_proto(hello: Hello) -> pb.Hello:
    return pb.Hello(
        protocol_version=hello.protocol_version,
        capabilities=capabilities_to_proto(hello.capabilities),
        agent_version=hello.agent_version,
        cluster_id=hello.cluster_id,
        job=hello.job,
        job_uid=hello.job_uid,
        node=hello.node,
        incarnation=hello.incarnation,
        attach_seq=hello.attach_seq,
        lease_id=hello.lease_id,
        job_spec=job_spec_to_proto(hello.job_spec),
        node_spec=node_spec_to_proto(hello.node_spec),
        observed=observed_to_proto(hello.observed),
        highest_version=version_to_proto(hello.highest_version),
    )


def hello_from_proto(message: pb.Hello) -> Hello:
    return Hello(
        protocol_version=message.protocol_version,
        capabilities=capabilities_from_proto(message.capabilities),
        agent_version=message.agent_version,
        cluster_id=message.cluster_id,
        job=message.job,
        job_uid=message.job_uid,
        node=message.node,
        incarnation=message.incarnation,
        attach_seq=message.attach_seq,
        lease_id=message.lease_id,
        job_spec=job_spec_from_proto(message.job_spec),
        node_spec=node_spec_from_proto(message.node_spec),
        observed=observed_from_proto(message.observed),
        highest_version=version_from_proto(message.highest_version),
    )


def observed_to_proto(observed: Observed) -> pb.Observed:
    return pb.Observed(
        version=version_to_proto(observed.version),
        phase=AGENT_PHASES.number(observed.phase),
        round=round_to_proto(observed.round),
        workers=[worker_status_to_proto(worker) for worker in observed.workers],
        failures=[failure_to_proto(failure) for failure in observed.failures],
        offer=offer_to_proto(observed.offer) if observed.offer else None,
        watchdog=watchdog_to_proto(observed.watchdog),
        observe_time=instant_to_proto(observed.observe_time_ms),
        unsupported_version=version_to_proto(observed.unsupported_version),
        fenced=observed.fenced,
        unkillable_pids=observed.unkillable_pids[:UNKILLABLE_PIDS_MAX],
        assignment=assignment_to_proto(observed.assignment) if observed.assignment else None,
    )


def observed_from_proto(message: pb.Observed) -> Observed:
    """A phase of a kind not known here reads as STOPPING: workers may be alive, none may be started."""
    return Observed(
        version=version_from_proto(message.version),
        phase=AGENT_PHASES.member(message.phase) or AgentPhase.STOPPING,
        round=message.round if message.HasField("round") else NO_ROUND,
        workers=tuple(map(worker_status_from_proto, message.workers)),
        failures=tuple(map(failure_from_proto, message.failures)),
        offer=offer_from_proto(message.offer) if message.HasField("offer") else None,
        watchdog=watchdog_from_proto(message.watchdog),
        observe_time_ms=instant_from_proto(message.observe_time) if message.HasField("observe_time") else 0,
        unsupported_version=version_from_proto(message.unsupported_version),
        fenced=message.fenced,
        unkillable_pids=tuple(message.unkillable_pids),
        assignment=assignment_from_proto(message.assignment) if message.HasField("assignment") else None,
    )


def heartbeat_to_proto(heartbeat: Heartbeat) -> pb.Heartbeat:
    watchdog = watchdog_to_proto(heartbeat.watchdog) if heartbeat.watchdog else None
    return pb.Heartbeat(version=version_to_proto(heartbeat.version), watchdog=watchdog)


def heartbeat_from_proto(message: pb.Heartbeat) -> Heartbeat:
    watchdog = watchdog_from_proto(message.watchdog) if message.HasField("watchdog") else None
    return Heartbeat(version_from_proto(message.version), watchdog)


def goodbye_to_proto(goodbye: Goodbye) -> pb.Goodbye:
    return pb.Goodbye(reason=goodbye.reason, message=cut(goodbye.message, LEAVE_MESSAGE_BYTES))


def goodbye_from_proto(message: pb.Goodbye) -> Goodbye:
    return Goodbye(message.reason, message.message)


def attach_request_to_proto(
    message: AgentMessage, *, lease_id: int, seq: int, clock: ClockReading | None = None
) -> pb.AttachRequest:
    """An agent's next message: ``lease_id`` is 0 for the Hello, ``seq`` counts from 1 on each stream."""
    request = pb.AttachRequest(lease_id=lease_id, seq=seq, clock=clock_to_proto(clock) if clock else None)
    match message:
        case Hello():
            request.hello.CopyFrom(hello_to_proto(message))
        case Observed():
            request.observed.CopyFrom(observed_to_proto(message))
        case Heartbeat():
            request.heartbeat.CopyFrom(heartbeat_to_proto(message))
        case Goodbye():
            request.goodbye.CopyFrom(goodbye_to_proto(message))
        case _:
            assert_never(message)
    return request


def clock_to_proto(clock: ClockReading) -> pb.ClockReading:
    acked = duration_to_proto(clock.acked_ms) if clock.acked_seq else None
    return pb.ClockReading(send=duration_to_proto(clock.sent_ms), acked_seq=clock.acked_seq, acked=acked)


def clock_from_proto(request: pb.AttachRequest) -> ClockReading | None:
    """What the message says of its sender's clock; None if it says nothing of it."""
    if not request.HasField("clock"):
        return None
    clock = request.clock
    return ClockReading(duration_from_proto(clock.send), clock.acked_seq, duration_from_proto(clock.acked))


def report_gone_to_proto(report: ReportGone) -> pb.ReportGoneRequest:
    return pb.ReportGoneRequest(
        job=report.job,
        job_uid=report.job_uid,
        lease_id=report.lease_id,
        round=round_to_proto(report.round),
        incarnation=report.incarnation,
        message=cut(report.message, LEAVE_MESSAGE_BYTES),
    )


def report_gone_from_proto(request: pb.ReportGoneRequest) -> ReportGone:
    return ReportGone(
        job=request.job,
        job_uid=request.job_uid,
        lease_id=request.lease_id,
        round=request.round if request.HasField("round") else NO_ROUND,
        incarnation=request.incarnation,
        message=request.message,
    )


# What the coordinator sends.


def welcome_to_proto(welcome: Welcome) -> pb.Welcome:
    return pb.Welcome(
        cluster_id=welcome.cluster_id,
        job_uid=welcome.job_uid,
        lease_id=welcome.lease_id,
        lease_ttl=duration_to_proto(welcome.lease_ttl_ms),
        heartbeat_interval=duration_to_proto(welcome.heartbeat_interval_ms),
        coordinator_version=welcome.coordinator_version,
        takes_over_cluster_id=welcome.takes_over_cluster_id,
        job_spec=_told_job_spec(welcome.job_spec),
        directive=directive_to_proto(welcome.directive),
    )


@lru_cache(maxsize=256)
def _told_job_spec(spec: JobSpec) -> types_pb2.JobSpec:
    """The same in every Welcome of a job. Not to be changed: it is copied into the message around it."""
    return job_spec_to_proto(spec)


def welcome_from_proto(message: pb.Welcome) -> Welcome:
    return Welcome(
        cluster_id=message.cluster_id,
        job_uid=message.job_uid,
        lease_id=message.lease_id,
        lease_ttl_ms=duration_from_proto(message.lease_ttl),
        heartbeat_interval_ms=duration_from_proto(message.heartbeat_interval),
        coordinator_version=message.coordinator_version,
        takes_over_cluster_id=message.takes_over_cluster_id,
        job_spec=job_spec_from_proto(message.job_spec),
        directive=directive_from_proto(message.directive),
    )


def directive_to_proto(directive: Directive) -> pb.Directive:
    """A directive without an action stays without one."""
    message = pb.Directive()
    _write_directive(directive, message)
    return message


def _write_directive(directive: Directive, message: pb.Directive) -> None:
    """Into an empty message: what is made apart is copied, and all agents of a job have a directive of their own."""
    message.version.epoch, message.version.revision = directive.version
    message.job_uid = directive.job_uid
    message.reason = directive.reason
    message.message = directive.message
    message.consumed_offer_id = directive.consumed_offer_id
    match directive.action:
        case Run(assignment):
            write_assignment(assignment, message.run.assignment)
        case Hold():
            message.hold.SetInParent()
        case Keep():
            message.keep.SetInParent()
        case Stop(number, grace_ms):
            message.stop.CopyFrom(
                pb.Stop(round=number, grace_period=duration_to_proto(grace_ms)),
            )
        case Drain(grace_ms):
            message.drain.grace_period.CopyFrom(duration_to_proto(grace_ms))
        case Exit(outcome):
            message.exit.outcome.CopyFrom(outcome_to_proto(outcome))
        case None:
            pass


def directive_from_proto(message: pb.Directive) -> Directive:
    """``action`` is None for a kind that is not known here."""
    return Directive(
        version=version_from_proto(message.version),
        job_uid=message.job_uid,
        reason=message.reason,
        message=message.message,
        action=_action_from_proto(message),
        consumed_offer_id=message.consumed_offer_id,
    )


def _action_from_proto(message: pb.Directive) -> Action | None:
    match message.WhichOneof("action"):
        case "hold":
            return Hold()
        case "keep":
            return Keep()
        case "run":
            return Run(assignment_from_proto(message.run.assignment))
        case "stop":
            return Stop(message.stop.round, duration_from_proto(message.stop.grace_period))
        case "drain":
            return Drain(duration_from_proto(message.drain.grace_period))
        case "exit":
            return Exit(outcome_from_proto(message.exit.outcome))
        case None:
            return None


def ack_to_proto(ack: Ack) -> pb.Ack:
    return pb.Ack(seq=ack.seq)


def ack_from_proto(message: pb.Ack) -> Ack:
    return Ack(message.seq)


def lease_stale_to_proto(stale: LeaseStale) -> pb.LeaseStale:
    return pb.LeaseStale(message=stale.message)


def lease_stale_from_proto(message: pb.LeaseStale) -> LeaseStale:
    return LeaseStale(message.message)


def attach_response_to_proto(message: CoordinatorMessage) -> pb.AttachResponse:
    """The coordinator's next message on a stream."""
    match message:
        case Welcome():
            return pb.AttachResponse(welcome=welcome_to_proto(message))
        case Directive():
            response = pb.AttachResponse()
            _write_directive(message, response.directive)
            return response
        case Ack():
            return pb.AttachResponse(ack=ack_to_proto(message))
        case LeaseStale():
            return pb.AttachResponse(lease_stale=lease_stale_to_proto(message))
        case _:
            assert_never(message)


def attach_response_from_proto(response: pb.AttachResponse) -> CoordinatorMessage | None:
    """What the coordinator says; None if it says nothing that is known here."""
    match response.WhichOneof("message"):
        case "ack":
            return ack_from_proto(response.ack)
        case "directive":
            return directive_from_proto(response.directive)
        case "welcome":
            return welcome_from_proto(response.welcome)
        case "lease_stale":
            return lease_stale_from_proto(response.lease_stale)
        case None:
            return None
