"""The protocol through a client that knows nothing but what reflection tells it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToJson

from rallypoint import wire
from rallypoint.v1.job_service_pb2 import CancelJobRequest
from support.wire_client import Coordinator, WireAgent, hello, running_coordinator

BUF = Path(sys.executable).with_name("buf")


@dataclass
class Answer:
    """``status`` is the name of the RPC's status code."""

    status: str
    out: str
    err: str

    @property
    def message(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    async with running_coordinator() as running:
        yield running


async def buf_curl(coordinator: Coordinator, *arguments: str, path: str = "", data: str = "") -> Answer:
    process = await asyncio.create_subprocess_exec(
        *(str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments),
        f"http://{coordinator.address}{path}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(data.encode())
    code, rest = divmod(process.returncode or 0, 8)
    status = next(status.name for status in grpc.StatusCode if status.value[0] == code)
    return Answer(status if rest == 0 else "buf failed", out.decode(), err.decode())


async def ask(coordinator: Coordinator, method: str, request: dict[str, Any]) -> Answer:
    return await buf_curl(coordinator, "-d", json.dumps(request), path=f"/rallypoint.v1.{method}")


async def test_reflection_lists_every_method(coordinator: Coordinator) -> None:
    answer = await buf_curl(coordinator, "--list-methods")
    assert answer.status == "OK"
    assert {
        "rallypoint.v1.AgentService/Attach",
        "rallypoint.v1.AgentService/ReportGone",
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
    assert [detail["type"] for detail in answer.error["details"]] == ["google.rpc.ErrorInfo"]
    answer = await ask(coordinator, "JobService/GetJob", {"name": "nothing"})
    assert answer.status == "INVALID_ARGUMENT"
    details = {detail["type"] for detail in answer.error["details"]}
    assert details == {"google.rpc.ErrorInfo", "google.rpc.BadRequest"}


async def test_an_agent_can_be_a_shell_script(coordinator: Coordinator) -> None:
    request = MessageToJson(wire.attach_request_to_proto(hello(), lease_id=0, seq=1))
    answer = await buf_curl(coordinator, "-d", "@-", path="/rallypoint.v1.AgentService/Attach", data=request)
    assert answer.status == "OK"
    welcome, directive = (json.loads(part) for part in answer.out.replace("}\n{", "}\0{").split("\0"))
    assert welcome["welcome"]["leaseTtl"] == "60s"
    assert directive["directive"]["hold"] == {}
