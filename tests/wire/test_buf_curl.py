"""The protocol through a client that knows nothing but what reflection tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from google.protobuf.json_format import MessageToDict

from rallypoint import wire
from rallypoint.v1.job_service_pb2 import CancelJobRequest
from support.buf_curl import ask, buf_curl
from support.wire_client import Coordinator, WireAgent, hello, running_coordinator


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    async with running_coordinator() as running:
        yield running


async def test_reflection_lists_every_method(coordinator: Coordinator) -> None:
    answer = await buf_curl(coordinator, "--list-methods")
    assert answer.status == "OK"
    assert {
        "rallypoint.v1.AgentService/Attach",
        "rallypoint.v1.AgentService/ReportGone",
        "rallypoint.v1.ClusterService/GetCluster",
        "rallypoint.v1.JobService/GetJob",
        "rallypoint.v1.JobService/ListJobs",
        "rallypoint.v1.JobService/ListNodes",
        "rallypoint.v1.JobService/ListWorkers",
        "rallypoint.v1.JobService/ListJobEvents",
        "rallypoint.v1.JobService/WatchJob",
        "grpc.health.v1.Health/Check",
    } <= set(answer.out.split())


async def test_a_jobs_state_can_be_read(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)  # Its stream ends with the last reference to it.
    await agent.attach()
    job = (await ask(coordinator, "JobService/GetJob", {"name": "jobs/train"})).message["job"]
    assert (job["name"], job["state"]) == ("jobs/train", "JOB_STATE_GATHERING")
    assert (job["spec"]["minNodes"], job["spec"]["leaseTtl"]) == (2, "60s")
    assert job["reason"] == "WAITING_FOR_NODES"
    nodes = (await ask(coordinator, "JobService/ListNodes", {"parent": "jobs/train"})).message["nodes"]
    assert [(node["name"], node["attached"]) for node in nodes] == [("jobs/train/nodes/node-a", True)]


async def test_a_job_can_be_watched_to_its_end(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    await agent.attach()
    await coordinator.jobs.CancelJob(CancelJobRequest(name="jobs/train"))
    events = (await ask(coordinator, "JobService/ListJobEvents", {"parent": "jobs/train"})).message["events"]
    assert [event["kind"] for event in events][-1] == "JOB_EVENT_KIND_JOB_DECIDED"
    answer = await ask(coordinator, "JobService/WatchJob", {"name": "jobs/train"})
    assert (answer.status, answer.message["snapshot"]["state"]) == ("OK", "JOB_STATE_CANCELLED")
    answer = await ask(coordinator, "JobService/WatchJob", {"name": "jobs/nothing"})
    assert answer.status == "NOT_FOUND"


async def test_an_error_comes_with_its_details(coordinator: Coordinator) -> None:
    answer = await ask(coordinator, "JobService/GetJob", {"name": "jobs/nothing"})
    assert answer.status == "NOT_FOUND"
    assert answer.error["code"] == "not_found"
    assert answer.details == ["google.rpc.ErrorInfo"]
    answer = await ask(coordinator, "JobService/GetJob", {"name": "nothing"})
    assert answer.status == "INVALID_ARGUMENT"
    assert answer.details == ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]


async def test_an_agent_can_be_a_shell_script(coordinator: Coordinator) -> None:
    request = MessageToDict(wire.attach_request_to_proto(hello(), lease_id=0, seq=1))
    answer = await ask(coordinator, "AgentService/Attach", request)
    assert answer.status == "OK"
    (message,) = answer.messages
    assert message["welcome"]["leaseTtl"] == "60s"
    assert message["welcome"]["directive"]["hold"] == {}
