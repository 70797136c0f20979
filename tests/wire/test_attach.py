"""AgentService as an agent written by somebody else sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from rallypoint import wire
from rallypoint.errors import Reason, Violation
from rallypoint.model import (
    AgentPhase,
    Directive,
    Exit,
    Observed,
    Stop,
    Version,
    Welcome,
    WorkerFailure,
)
from rallypoint.rpc_status import DETAILS_KEY
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.v1 import job_service_pb2
from rallypoint_coordinator.server.agent_servicer import AgentService
from rallypoint_coordinator.server.peers import peer_address
from support.held_journal import HeldJournal
from support.wire_client import SPEC, Coordinator, WireAgent, hello, refusal_of, running_coordinator

TOO_FAR = Version(2_000_000, 1)
"""More epochs than a cluster can have lost."""


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    async with running_coordinator() as running:
        yield running


async def test_an_agent_is_welcomed_and_told_to_wait(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    welcome = await agent.attach()
    assert welcome.lease_id > 0
    assert welcome.job_spec == SPEC
    assert welcome.lease_ttl_ms == SPEC.lease_ttl_ms
    assert welcome.heartbeat_interval_ms == SPEC.heartbeat_interval_ms
    assert len(welcome.cluster_id) == len(welcome.job_uid) == 32
    directive = await agent.hold()
    assert (directive.reason, directive.job_uid) == ("WAITING_FOR_NODES", welcome.job_uid)
    assert directive.version.epoch == 1


async def test_enough_agents_get_a_round(coordinator: Coordinator) -> None:
    first, second = WireAgent(coordinator), WireAgent(coordinator)
    await first.attach()
    await second.attach(hello("node-b"))
    one, two = await first.run(), await second.run()
    assert (one.round, one.group_rank, one.first_rank, one.world_size) == (0, 0, 0, 4)
    assert (two.round, two.group_rank, two.first_rank, two.world_size) == (0, 1, 2, 4)
    assert one.endpoint == two.endpoint


async def test_a_job_runs_to_its_end(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    await agent.attach(hello(job_spec=replace(SPEC, min_nodes=1, max_nodes=1)))
    assignment = await agent.run()
    await agent.send(Observed(phase=AgentPhase.SUCCEEDED, round=assignment.round, version=agent.version))
    directive = await agent.receive(Directive)
    assert isinstance(directive.action, Exit)
    assert directive.action.outcome.reason == "ALL_SUCCEEDED"
    await agent.send(wire.Goodbye("JOB_DECIDED", ""))
    await agent.acked(agent.seq)
    assert await agent.end() is grpc.StatusCode.OK


async def test_a_failure_stops_the_round(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    await agent.attach(hello(job_spec=replace(SPEC, min_nodes=1, max_nodes=1)))
    assignment = await agent.run()
    failure = WorkerFailure(node="node-a", local_rank=1, rank=1, pid=7, exit_code=3, traceback="t" * 100_000)
    report = Observed(phase=AgentPhase.STOPPING, round=assignment.round, version=agent.version, failures=(failure,))
    await agent.send(report)
    directive = await agent.receive(Directive)
    assert isinstance(directive.action, Stop)
    assert "rank 1 on node-a" in directive.message
    await agent.send(wire.Goodbye("TEST", "that was all"))
    await agent.acked(agent.seq)


async def test_another_spec_is_refused_with_details(coordinator: Coordinator) -> None:
    await WireAgent(coordinator).attach()
    other = WireAgent(coordinator)
    await other.send(hello("node-b", job_spec=replace(SPEC, max_nodes=7, last_call_timeout_ms=500)))
    refusal = await other.refusal()
    assert (refusal.reason, refusal.field) == (Reason.SPEC_MISMATCH, "hello.job_spec.max_nodes")
    assert refusal.violations == (
        Violation("hello.job_spec.max_nodes", "the job has max_nodes = 2, this agent says 7"),
        Violation("hello.job_spec.last_call_timeout", "the job has last_call_timeout_ms = 0, this agent says 500"),
    )
    # A slow machine makes the other agent a suspect, and then the refusal says until when it holds.
    assert {**refusal.metadata, "held": ""} == {"field": "max_nodes", "job": "2", "agent": "7", "held": ""}


async def test_a_refusal_carries_standard_details(coordinator: Coordinator) -> None:
    call = coordinator.agents.Attach()
    await call.write(pb.AttachRequest(seq=1, hello=wire.hello_to_proto(hello(job="not a name"))))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = status_pb2.Status.FromString(dict(iter(caught.value.trailing_metadata()))[DETAILS_KEY])
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad_request)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "rallypoint")
    assert [violation.field for violation in bad_request.field_violations] == ["hello.job"]


@pytest.mark.parametrize(
    ("first", "reason", "field"),
    [
        (pb.AttachRequest(seq=1), "INVALID_FIELD", "hello"),
        (pb.AttachRequest(seq=1, heartbeat=pb.Heartbeat()), "INVALID_FIELD", "hello"),
        (pb.AttachRequest(seq=1, hello=pb.Hello()), "UNSUPPORTED_VERSION", "hello.protocol_version"),
        (pb.AttachRequest(seq=2, hello=wire.hello_to_proto(hello())), "INVALID_FIELD", "seq"),
        (
            pb.AttachRequest(seq=1, hello=wire.hello_to_proto(hello(job_spec=replace(SPEC, min_nodes=0)))),
            "INVALID_FIELD",
            "hello.job_spec.min_nodes",
        ),
        (
            pb.AttachRequest(seq=1, hello=wire.hello_to_proto(hello(cluster_id="another", highest_version=TOO_FAR))),
            "WRONG_CLUSTER",
            "hello.cluster_id",
        ),
        (pb.AttachRequest(seq=1, hello=wire.hello_to_proto(hello(job_uid="none"))), "UNKNOWN_LIFE", ""),
        (
            pb.AttachRequest(seq=1, hello=wire.hello_to_proto(hello(highest_version=TOO_FAR))),
            "JOURNAL_BEHIND",
            "",
        ),
    ],
)
async def test_a_bad_first_message_is_refused(
    coordinator: Coordinator, first: pb.AttachRequest, reason: str, field: str
) -> None:
    agent = WireAgent(coordinator)
    await agent.send_raw(first)
    refusal = await agent.refusal()
    assert (refusal.reason, refusal.field) == (reason, field)


@pytest.mark.parametrize(
    ("message", "changes", "field"),
    [
        (wire.Heartbeat(Version(1, 1)), {"seq": 3}, "seq"),
        (wire.Heartbeat(Version(1, 1)), {"seq": 1}, "seq"),
        (wire.Heartbeat(Version(1, 1)), {"lease_id": 0}, "lease_id"),
        (wire.Heartbeat(Version(-1, 1)), {}, "heartbeat.version.epoch"),
        (hello(), {}, "hello"),
        (Observed(phase=AgentPhase.RUNNING), {}, "observed.round"),
        (wire.Goodbye("r" * 65, ""), {}, "goodbye.reason"),
    ],
)
async def test_a_bad_later_message_ends_the_stream(
    coordinator: Coordinator, message: wire.AgentMessage, changes: dict[str, Any], field: str
) -> None:
    agent = WireAgent(coordinator)
    await agent.attach()
    await agent.send(message, **changes)
    refusal = await agent.refusal()
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, field)


async def test_a_message_that_says_nothing_is_refused(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    await agent.attach()
    await agent.send_raw(pb.AttachRequest(lease_id=agent.lease_id, seq=2))
    assert (await agent.refusal()).field == "message"


async def test_the_newer_stream_of_an_agent_wins(coordinator: Coordinator) -> None:
    old, new = WireAgent(coordinator), WireAgent(coordinator)
    first = await old.attach()
    second = await new.attach(hello(attach_seq=2))
    assert second.lease_id == first.lease_id
    assert (await old.refusal()).reason is Reason.SUPERSEDED
    await new.send(wire.Goodbye("TEST", "that was all"))
    assert (await new.receive(wire.Ack)).seq == 2


async def test_a_stale_lease_is_told_so_once(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    await agent.attach()
    agent.lease_id += 1000
    await agent.send(wire.Heartbeat(Version(1, 1)))
    assert "has ended" in (await agent.receive(wire.LeaseStale)).message
    assert await agent.end() is grpc.StatusCode.OK


async def test_who_leaves_without_goodbye_comes_back_to_its_lease(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    first = await agent.attach()
    agent.cancel()
    back = WireAgent(coordinator)
    second = await back.attach(hello(attach_seq=2, lease_id=first.lease_id, job_uid=first.job_uid))
    assert second.lease_id == first.lease_id


async def test_half_closing_ends_the_stream(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    await agent.attach()
    await agent.done_writing()
    assert await agent.end() is grpc.StatusCode.OK


async def test_half_closing_does_not_cost_the_answer_to_the_hello() -> None:
    """A driver that is busy finds the stream half closed already."""
    journal = HeldJournal()
    async with running_coordinator(journal) as coordinator:
        await WireAgent(coordinator).attach()
        journal.is_free.clear()
        agents = [WireAgent(coordinator) for _ in range(3)]
        await agents[0].send(hello(job="another"))
        await agents[1].send(hello(job="a-third"))
        await agents[2].send(hello("node-b", job_spec=replace(SPEC, max_nodes=7)))
        for agent in agents:
            await agent.done_writing()
        # The half-closes are read before what is asked after them is answered.
        health: Any = HealthStub(coordinator.channel)
        await health.Check(health_pb2.HealthCheckRequest())
        journal.is_free.set()
        for agent in agents[:2]:
            await agent.receive(Welcome)
        assert (await agents[2].refusal()).reason is Reason.SPEC_MISMATCH


async def test_a_stream_without_a_hello_is_ended() -> None:
    async with running_coordinator() as coordinator:
        agent = WireAgent(coordinator)
        await agent.done_writing()
        assert (await agent.refusal()).field == "hello"


async def test_a_stream_that_says_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AgentService.__init__, "__defaults__", (0.05,))
    async with running_coordinator() as coordinator:
        refusal = await WireAgent(coordinator).refusal()
    assert refusal.field == "hello"
    assert "0.05 s" in refusal.message


async def test_an_obituary_is_answered_once_it_counts(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    welcome = await agent.attach()
    await agent.hold()
    report = wire.ReportGone(
        job="train", job_uid=welcome.job_uid, lease_id=welcome.lease_id, incarnation=hello().incarnation
    )
    request = wire.report_gone_to_proto(report)
    assert (await coordinator.agents.ReportGone(request)).was_news is True
    assert (await coordinator.agents.ReportGone(request)).was_news is False
    nodes = await coordinator.jobs.ListNodes(job_service_pb2.ListNodesRequest(parent="jobs/train"))
    assert [node.state for node in nodes.nodes] == [job_service_pb2.NODE_STATE_GONE]
    await agent.receive(wire.LeaseStale)


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"job_uid": "unknown"}, "UNKNOWN_LIFE", ""),
        ({"lease_id": 10**9}, "UNKNOWN_LEASE", ""),
        ({"lease_id": 0}, "INVALID_FIELD", "lease_id"),
    ],
)
async def test_a_bad_obituary(coordinator: Coordinator, changes: dict[str, Any], reason: str, field: str) -> None:
    welcome = await WireAgent(coordinator).attach()
    report = wire.ReportGone(
        job="train", job_uid=welcome.job_uid, lease_id=welcome.lease_id, incarnation=hello().incarnation
    )
    request = wire.report_gone_to_proto(replace(report, **changes))
    refusal = await refusal_of(coordinator.agents.ReportGone(request))
    assert (refusal.reason, refusal.field) == (reason, field)


async def test_shutdown_ends_streams_so_that_agents_come_back() -> None:
    async with running_coordinator() as coordinator:
        agent = WireAgent(coordinator)
        await agent.attach()
        await coordinator.server.stop()
        assert (await agent.refusal()).reason is Reason.SHUTTING_DOWN


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:443", "10.0.0.7"),
        ("ipv6:%5B::1%5D:443", "::1"),
        ("ipv6:[2001:db8::1]:443", "2001:db8::1"),
        ("unix:socket", ""),
        ("", ""),
    ],
)
def test_peer_address(peer: str, address: str) -> None:
    assert peer_address(peer) == address
