"""Who may call what, on the wire. The methods are those that reflection tells of: a new one cannot be forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from rallypoint import wire
from rallypoint.errors import Reason, Refusal
from rallypoint.rpc_status import refusal_from_rpc_error
from rallypoint.v1 import agent_service_pb2, job_service_pb2
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from rallypoint_coordinator.security.policy import POLICY, Role
from rallypoint_coordinator.security.quotas import Failures
from rallypoint_coordinator.security.token_file import TokenFile
from rallypoint_coordinator.server.guard import ANONYMOUS_CALLS_PER_PEER, Guard
from rallypoint_coordinator.server.server import SERVICES, Server
from rallypoint_coordinator.store.memory import MemoryJournal
from support.tokens import grant, token, token_line, write_lines
from support.wire_client import TIMEOUT_S, Coordinator, WireAgent, hello, refusal_of, running_coordinator, unless_over

NUMBERS = {Role.READ: 1, Role.AGENT: 2, Role.OPERATOR: 3}
MINE, UNKNOWN = 4, 9
LINES = [
    *(token_line(grant(f"the-{role}", role), number) for role, number in NUMBERS.items()),
    token_line(grant("train-agent", Role.AGENT, job="train"), MINE),
]
LATER = "/grpc.health.v1.Health/List"
"""The lowest grpcio-health-checking does not have it."""
CLOSED = [method for method in POLICY if POLICY[method].roles is not None and method != LATER]
BEARERS: dict[str, str | None] = {
    "nobody": None,
    "a stranger": f"Bearer {token(UNKNOWN)}",
    **{role: f"Bearer {token(number)}" for role, number in NUMBERS.items()},
}


@dataclass
class Guarded:
    """A coordinator with access control, and its token file."""

    coordinator: Coordinator
    guard: Guard
    tokens: Path


def bearer(number: int) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token(number)}"),)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    path = write_lines(tmp_path / "tokens", LINES)
    guard = Guard(TokenFile(path), calls_per_peer=8, failures=Failures(burst=1_000))
    async with running_coordinator(server=Server(MemoryJournal(), guard=guard)) as coordinator:
        yield Guarded(coordinator, guard, path)


def _reflection(channel: Any) -> Any:
    return ServerReflectionStub(channel)


async def methods_by_reflection(channel: grpc.aio.Channel) -> set[str]:
    """The full name of every method that is served."""
    stub = _reflection(channel)
    call = stub.ServerReflectionInfo(metadata=bearer(NUMBERS[Role.READ]), timeout=TIMEOUT_S)

    async def ask(**request: Any) -> reflection_pb2.ServerReflectionResponse:
        await call.write(reflection_pb2.ServerReflectionRequest(**request))
        answer: reflection_pb2.ServerReflectionResponse = await call.read()
        return answer

    found = set()
    for service in (await ask(list_services="")).list_services_response.service:
        files = (await ask(file_containing_symbol=service.name)).file_descriptor_response.file_descriptor_proto
        for file in map(FileDescriptorProto.FromString, files):
            for described in file.service:
                if f"{file.package}.{described.name}" == service.name:
                    found |= {f"/{service.name}/{method.name}" for method in described.method}
    call.cancel()
    return found


async def knock(channel: grpc.aio.Channel, method: str, authorization: str | None, request: bytes = b"") -> Any:
    """Call a method with these bytes for a request, and hang up after its first answer: the error, or None."""
    call: Any = channel.stream_stream(method)(
        metadata=[("authorization", authorization)] if authorization is not None else [], timeout=TIMEOUT_S
    )

    async def speak() -> None:
        await call.write(request)
        await call.done_writing()

    speaking = asyncio.create_task(unless_over(call, speak()))
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return error
    finally:
        call.cancel()
        await speaking
    return None


async def test_what_is_served_is_what_the_table_has(guarded: Guarded) -> None:
    assert await methods_by_reflection(guarded.coordinator.channel) | {LATER} == POLICY.keys()


@pytest.mark.parametrize("who", BEARERS)
async def test_every_method_answers_to_whom_the_table_says(who: str, guarded: Guarded) -> None:
    channel = guarded.coordinator.channel
    for method in await methods_by_reflection(channel):
        error = await knock(channel, method, BEARERS[who])
        refusal = refusal_from_rpc_error(error) if error is not None else None
        reason = refusal.reason if refusal else None
        refused = reason if reason in (Reason.UNAUTHENTICATED, Reason.PERMISSION_DENIED) else None
        roles = POLICY[method].roles
        if roles is None or who in roles:
            assert refused is None, (method, who)
        elif who in ("nobody", "a stranger"):
            assert refused is Reason.UNAUTHENTICATED, (method, who, error)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        else:
            assert refused is Reason.PERMISSION_DENIED, (method, who, error)
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_nobody_learns_of_a_method_that_there_is_not(guarded: Guarded) -> None:
    error = await knock(guarded.coordinator.channel, "/rallypoint.v1.JobService/Nothing", None)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", CLOSED)
async def test_a_stranger_is_refused_before_its_request_is_read(method: str, guarded: Guarded) -> None:
    """It sends none: whoever read first would wait."""
    call: Any = guarded.coordinator.channel.stream_stream(method)(timeout=TIMEOUT_S)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", sorted(POLICY.keys() - {LATER}))
async def test_what_is_no_message_is_refused_without_a_word_in_the_log(
    method: str, guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    role = min(POLICY[method].roles or [Role.READ])
    call: Any = guarded.coordinator.channel.stream_stream(method)
    stream = call(metadata=bearer(NUMBERS[role]), timeout=TIMEOUT_S)
    await stream.write(b"\xff\xff\xff")
    await stream.done_writing()
    refusal = await refusal_of(stream.read())
    assert refusal.reason is Reason.INVALID_FIELD
    assert f"{method} was sent is no message of its kind" in refusal.message
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_method_of_grpcios_that_it_does_not_have_is_unimplemented(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    call: Any = guarded.coordinator.channel.unary_unary(LATER)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", metadata=bearer(NUMBERS[Role.READ]), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_health_says_nothing_of_jobs(guarded: Guarded) -> None:
    stub: Any = HealthStub(guarded.coordinator.channel)

    async def answers() -> list[object]:
        found: list[object] = []
        for service in ("", *SERVICES, "train", "rallypoint.v1.JobService/train"):
            try:
                found.append(await stub.Check(health_pb2.HealthCheckRequest(service=service)))
            except grpc.aio.AioRpcError as error:
                found.append((error.code(), error.details()))
        return found

    before = await answers()
    agent = await attached(guarded, NUMBERS[Role.AGENT])
    assert await answers() == before
    agent.cancel()


async def attached(guarded: Guarded, number: int, **changes: Any) -> WireAgent:
    agent = WireAgent(guarded.coordinator, metadata=bearer(number))
    await agent.attach(hello(**changes))
    return agent


async def refused_attach(guarded: Guarded, number: int, **changes: Any) -> Refusal:
    agent = WireAgent(guarded.coordinator, metadata=bearer(number))
    await agent.send(hello(**changes))
    return await agent.refusal()


async def test_a_token_of_one_job_cannot_touch_another(guarded: Guarded) -> None:
    mine = await attached(guarded, MINE)
    theirs = WireAgent(guarded.coordinator, metadata=bearer(NUMBERS[Role.AGENT]))
    welcome = await theirs.attach(hello(job="other"))
    jobs = JobServiceStub(guarded.coordinator.channel)
    assert (await jobs.GetJob(job_service_pb2.GetJobRequest(name="jobs/train"), metadata=bearer(MINE))).job.name

    assert (await refused_attach(guarded, MINE, job="other", node="b")).reason is Reason.PERMISSION_DENIED
    calls: list[tuple[Any, Any]] = [
        (jobs.GetJob, job_service_pb2.GetJobRequest(name="jobs/other")),
        (jobs.ListNodes, job_service_pb2.ListNodesRequest(parent="jobs/other")),
        (jobs.ListWorkers, job_service_pb2.ListWorkersRequest(parent="jobs/other")),
        (jobs.CancelJob, job_service_pb2.CancelJobRequest(name="jobs/other")),
    ]
    for call, request in calls:
        refusal = await refusal_of(call(request, metadata=bearer(MINE)))
        assert refusal.reason is Reason.PERMISSION_DENIED, request
        assert "train-agent is for job train alone" in refusal.message
    everything = jobs.ListJobs(job_service_pb2.ListJobsRequest(), metadata=bearer(MINE))
    assert (await refusal_of(everything)).reason is Reason.PERMISSION_DENIED
    # The lease of another job does not help: it is looked for in the job that the request names.
    gone = agent_service_pb2.ReportGoneRequest(
        job="other", job_uid=welcome.job_uid, lease_id=welcome.lease_id, incarnation="incarnation-of-node-a"
    )
    agents = guarded.coordinator.agents
    assert (await refusal_of(agents.ReportGone(gone, metadata=bearer(MINE)))).reason is Reason.PERMISSION_DENIED
    gone.job = "train"
    assert (await refusal_of(agents.ReportGone(gone, metadata=bearer(MINE)))).reason is Reason.UNKNOWN_LIFE
    for agent in (mine, theirs):
        agent.cancel()


async def test_the_life_of_another_job_is_not_joined_by_its_uid(guarded: Guarded) -> None:
    theirs = WireAgent(guarded.coordinator, metadata=bearer(NUMBERS[Role.AGENT]))
    welcome = await theirs.attach(hello(job="other"))
    refusal = await refused_attach(guarded, MINE, job_uid=welcome.job_uid, cluster_id=welcome.cluster_id)
    assert refusal.reason is Reason.UNKNOWN_LIFE
    theirs.cancel()


async def test_who_asked_is_told_by_name(guarded: Guarded) -> None:
    agent = await attached(guarded, NUMBERS[Role.AGENT])
    jobs = JobServiceStub(guarded.coordinator.channel)
    request = job_service_pb2.CancelJobRequest(name="jobs/train", reason="enough")
    await jobs.CancelJob(request, metadata=bearer(NUMBERS[Role.OPERATOR]))
    read = bearer(NUMBERS[Role.READ])
    job = (await jobs.GetJob(job_service_pb2.GetJobRequest(name="jobs/train"), metadata=read)).job
    assert "the-operator at 127.0.0.1" in str(job)
    agent.cancel()


async def test_a_token_that_is_taken_out_ends_its_streams(guarded: Guarded) -> None:
    agent = await attached(guarded, NUMBERS[Role.AGENT])
    other = await attached(guarded, MINE, node="node-b")
    write_lines(guarded.tokens, [line for line in LINES if "the-agent" not in line])
    # It is told to attach again, which it does with what is in its file by then.
    assert (await agent.refusal()).reason is Reason.CREDENTIALS_CHANGED
    assert (await refused_attach(guarded, NUMBERS[Role.AGENT])).reason is Reason.UNAUTHENTICATED
    await other.send(wire.Heartbeat(other.version))
    await other.acked(other.seq)
    other.cancel()


async def test_a_token_that_is_put_in_is_good_at_once(guarded: Guarded) -> None:
    assert (await refused_attach(guarded, UNKNOWN)).reason is Reason.UNAUTHENTICATED
    write_lines(guarded.tokens, [*LINES, token_line(grant("new", Role.AGENT), UNKNOWN)])
    (await attached(guarded, UNKNOWN)).cancel()


async def test_a_peer_has_so_many_calls_and_no_more(guarded: Guarded) -> None:
    agents = [await attached(guarded, NUMBERS[Role.AGENT], node=f"node-{number}") for number in range(8)]
    assert (await refused_attach(guarded, NUMBERS[Role.AGENT], node="one-more")).reason is Reason.LIMIT_REACHED
    stub: Any = HealthStub(guarded.coordinator.channel)
    await stub.Check(health_pb2.HealthCheckRequest())
    leaving = agents.pop()
    await leaving.done_writing()
    await leaving.end()
    agents.append(await attached(guarded, NUMBERS[Role.AGENT], node="one-more"))
    for agent in agents:
        agent.cancel()


async def test_watches_of_health_are_counted_as_well(guarded: Guarded) -> None:
    stub: Any = HealthStub(guarded.coordinator.channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(ANONYMOUS_CALLS_PER_PEER)]
    for watch in watches:
        await watch.read()
    assert (await refusal_of(stub.Check(health_pb2.HealthCheckRequest()))).reason is Reason.LIMIT_REACHED
    for watch in watches:
        watch.cancel()


async def test_failures_are_bounded_and_good_credentials_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 0.0
    path = write_lines(tmp_path / "tokens", LINES)
    guard = Guard(TokenFile(path), failures=Failures(burst=2, per_s=1.0), now_s=lambda: now_s)
    caplog.set_level(logging.WARNING)
    async with running_coordinator(server=Server(MemoryJournal(), guard=guard)) as coordinator:
        jobs, request = JobServiceStub(coordinator.channel), job_service_pb2.ListJobsRequest()
        reasons = [(await refusal_of(jobs.ListJobs(request, metadata=bearer(UNKNOWN)))).reason for _ in range(4)]
        assert reasons == [Reason.UNAUTHENTICATED] * 2 + [Reason.TOO_MANY_FAILURES] * 2
        assert (await refusal_of(jobs.ListJobs(request))).retry_ms == 1_000
        await jobs.ListJobs(request, metadata=bearer(NUMBERS[Role.READ]))
        now_s = 0.9
        assert (await refusal_of(jobs.ListJobs(request))).message.endswith("try again in 1 s")
        now_s = 1.0
        assert (await refusal_of(jobs.ListJobs(request))).reason is Reason.UNAUTHENTICATED
    told = [message for message in caplog.messages if message.startswith("refused ")]
    assert len(told) == 3
    assert token(UNKNOWN) not in caplog.text


async def test_a_flood_of_strangers_leaves_nothing_behind(guarded: Guarded) -> None:
    channel = guarded.coordinator.channel
    await asyncio.gather(*(knock(channel, method, None) for method in CLOSED for _ in range(50)))
    assert guarded.guard.open_calls == 0


async def test_headers_are_bounded(guarded: Guarded) -> None:
    error = await knock(guarded.coordinator.channel, "/rallypoint.v1.JobService/ListJobs", "Bearer " + "x" * 100_000)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_two_tokens_are_as_good_as_none(guarded: Guarded) -> None:
    jobs = JobServiceStub(guarded.coordinator.channel)
    both = (*bearer(NUMBERS[Role.READ]), *bearer(UNKNOWN))
    refusal = await refusal_of(jobs.ListJobs(job_service_pb2.ListJobsRequest(), metadata=both))
    assert refusal.reason is Reason.UNAUTHENTICATED
