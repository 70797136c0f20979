"""ClusterService: what the coordinator says of itself, also while it serves nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

import rallypoint
from rallypoint import limits
from rallypoint.errors import Reason, Refusal
from rallypoint.v1 import cluster_service_pb2 as pb
from rallypoint.v1 import job_service_pb2, types_pb2
from rallypoint.v1.cluster_service_pb2_grpc import ClusterServiceStub
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.server.driver import Driver, DriverOptions
from rallypoint_coordinator.server.guard import Guard
from rallypoint_coordinator.server.server import Server
from rallypoint_coordinator.store.memory import MemoryJournal
from support.wire_client import SPEC, Coordinator, WireAgent, hello, refusal_of, running_coordinator


async def get_cluster(coordinator: Coordinator) -> pb.Cluster:
    stub: Any = ClusterServiceStub(coordinator.channel)
    answer: pb.GetClusterResponse = await stub.GetCluster(pb.GetClusterRequest())
    return answer.cluster


async def test_who_the_coordinator_is() -> None:
    journal = MemoryJournal()
    async with running_coordinator(journal) as coordinator:
        first = await get_cluster(coordinator)
        assert (first.state, first.message, first.epoch) == (pb.CLUSTER_STATE_SERVING, "", 1)
        assert list(first.addresses) == [str(coordinator.address)]
        assert (first.coordinator_version, list(first.protocol_versions)) == (rallypoint.__version__, [1])
        assert first.start_time.ToMilliseconds() <= first.observe_time.ToMilliseconds()
        agent = WireAgent(coordinator)
        welcome = await agent.attach()
        assert (welcome.cluster_id, agent.version.epoch) == (first.cluster_id, first.epoch)
        assert (await get_cluster(coordinator)).revision > first.revision
    async with running_coordinator(journal) as coordinator:
        again = await get_cluster(coordinator)
        assert (again.cluster_id, again.epoch) == (first.cluster_id, 2)


async def test_what_it_holds() -> None:
    async with running_coordinator() as coordinator:
        assert (await get_cluster(coordinator)).counts == pb.ClusterCounts(calls=1)
        agents = [WireAgent(coordinator) for _ in range(4)]
        alone = replace(SPEC, min_nodes=1, max_nodes=1)
        for agent, job in zip(agents, ("a", "b", "c"), strict=False):
            await agent.attach(hello(job=job, job_spec=alone if job == "b" else SPEC))
        await agents[1].run()
        await agents[3].attach(hello("node-b", job="c"))
        await coordinator.jobs.CancelJob(job_service_pb2.CancelJobRequest(name="jobs/a"))
        watch = coordinator.jobs.WatchJob(job_service_pb2.WatchJobRequest(name="jobs/b"))
        await watch.read()
        counts = (await get_cluster(coordinator)).counts
        assert {of.state: of.count for of in counts.jobs} == {
            types_pb2.JOB_STATE_RUNNING: 2,
            types_pb2.JOB_STATE_CANCELLED: 1,
        }
        assert (counts.lives, counts.agents, counts.agent_streams, counts.watches, counts.calls) == (3, 4, 4, 1, 6)
        watch.cancel()


async def test_the_limits_are_those_in_force() -> None:
    retention = Retention(lives_max=12, nodes_max=14, age_max_ms=2 * limits.DAY_MS)
    options = DriverOptions(streams_max=11, retention=retention)
    server = Server(MemoryJournal(), options, guard=Guard(calls_per_peer=13))
    async with running_coordinator(server=server) as coordinator:
        told = (await get_cluster(coordinator)).limits
        assert (told.agent_streams, told.retained_jobs, told.calls_per_peer) == (11, 12, 13)
        assert told.retained_nodes == 14
        assert told.retained_time.ToSeconds() == 2 * 86_400
        fields = pb.ClusterLimits.DESCRIPTOR.fields
        numbers = {
            field.name: getattr(told, field.name) for field in fields if field.type == FieldDescriptor.TYPE_INT64
        }
        assert min(numbers.values()) > 0, numbers
        too_long = "x" * (told.job_name_length + 1)
        stub = coordinator.jobs.GetJob
        refusal = await refusal_of(stub(job_service_pb2.GetJobRequest(name=f"jobs/{too_long}")))
        assert refusal.reason is Reason.INVALID_FIELD
        refusal = await refusal_of(stub(job_service_pb2.GetJobRequest(name=f"jobs/{too_long[1:]}")))
        assert refusal.reason is Reason.JOB_NOT_FOUND


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (Reason.RECOVERING, pb.CLUSTER_STATE_RECOVERING),
        (Reason.FENCED, pb.CLUSTER_STATE_FENCED),
        (Reason.SHUTTING_DOWN, pb.CLUSTER_STATE_SHUTTING_DOWN),
    ],
)
async def test_it_answers_while_nothing_else_is_answered(
    reason: Reason, state: pb.ClusterState.ValueType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_coordinator() as coordinator:
        refusal = Refusal(reason=reason, message="the disk is full")
        monkeypatch.setattr(Driver, "refusal", refusal)
        assert (await refusal_of(coordinator.jobs.ListJobs(job_service_pb2.ListJobsRequest()))).reason is reason
        cluster = await get_cluster(coordinator)
        assert (cluster.state, cluster.message) == (state, "the disk is full")
        assert (cluster.cluster_id, cluster.epoch, cluster.HasField("counts")) == ("", 0, False)
        assert cluster.limits.message_bytes
        assert list(cluster.addresses) == [str(coordinator.address)]


async def test_what_is_the_calls_own_fault_is_its_answer() -> None:
    async with running_coordinator(server=Server(MemoryJournal(), DriverOptions(reads_max=0))) as coordinator:
        assert (await refusal_of(get_cluster(coordinator))).reason is Reason.LIMIT_REACHED


async def test_it_has_a_health_of_its_own() -> None:
    async with running_coordinator() as coordinator:
        stub: Any = HealthStub(coordinator.channel)
        request = health_pb2.HealthCheckRequest(service="rallypoint.v1.ClusterService")
        answer = await asyncio.wait_for(stub.Check(request), 20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
