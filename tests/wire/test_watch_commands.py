"""``rallypoint events`` and ``rallypoint status --watch`` against a coordinator."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest

from rallypoint.model import AgentPhase, Observed
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from rallypoint_coordinator.server.driver import DriverOptions
from rallypoint_coordinator.server.server import Server
from rallypoint_coordinator.server.watch_log import LogBounds
from rallypoint_coordinator.server.watches import WatchOptions
from rallypoint_coordinator.store.memory import MemoryJournal
from support.wire_client import SPEC, Coordinator, WireAgent, hello, running_coordinator

ALONE = replace(SPEC, min_nodes=1, max_nodes=1)
Command = asyncio.subprocess.Process


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    async with running_coordinator() as running:
        yield running


async def begin(address: object, *arguments: str) -> Command:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rallypoint", *arguments, "--coordinator", str(address), "--timeout", "60s"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def line_of(command: Command) -> str:
    assert command.stdout is not None
    return (await asyncio.wait_for(command.stdout.readline(), 90)).decode().rstrip("\n")


async def end_of(command: Command) -> tuple[int | None, list[str], str]:
    """Exit status, what is left of standard output, standard error."""
    out, err = await asyncio.wait_for(command.communicate(), 90)
    return command.returncode, out.decode().splitlines(), err.decode()


async def run(address: object, *arguments: str) -> tuple[int | None, list[str], str]:
    return await end_of(await begin(address, *arguments))


async def running_alone(coordinator: Coordinator) -> WireAgent:
    """Its stream ends with the last reference to it."""
    agent = WireAgent(coordinator)
    await agent.attach(hello(job_spec=ALONE))
    await agent.run()
    return agent


async def succeed(agent: WireAgent) -> None:
    await agent.send(Observed(phase=AgentPhase.SUCCEEDED, round=0, version=agent.version))


def kinds(lines: list[str]) -> list[str]:
    return [line.split()[2] for line in lines]


async def test_events_are_listed(coordinator: Coordinator) -> None:
    _agent = await running_alone(coordinator)
    status, lines, err = await run(coordinator.address, "events", "train")
    assert (status, err, kinds(lines)) == (0, "", ["JOB_CREATED", "NODE_JOINED", "ROUND_BEGAN"])
    assert lines[2].endswith("  round 0 began: 1 node, 2 workers")


async def test_events_are_followed_to_the_jobs_end(coordinator: Coordinator) -> None:
    agent = await running_alone(coordinator)
    command = await begin(coordinator.address, "events", "train", "--follow")
    first = [await line_of(command) for _ in range(3)]
    await succeed(agent)
    status, lines, err = await end_of(command)
    assert (status, err) == (0, "")
    assert kinds(first + lines) == ["JOB_CREATED", "NODE_JOINED", "ROUND_BEGAN", "NODE_SUCCEEDED", "JOB_DECIDED"]


async def test_events_as_json_have_the_protocols_names(coordinator: Coordinator) -> None:
    _agent = await running_alone(coordinator)
    status, lines, err = await run(coordinator.address, "events", "train", "-o", "json")
    assert (status, err) == (0, "")
    last = json.loads(lines[-1])
    assert (last["kind"], last["world_size"]) == ("JOB_EVENT_KIND_ROUND_BEGAN", 2)
    assert last["job_uid"]


async def test_that_events_are_missing_is_said() -> None:
    options = DriverOptions(watches=WatchOptions(log=LogBounds(life_events=1)))
    async with running_coordinator(server=Server(MemoryJournal(), options)) as coordinator:
        _agent = await running_alone(coordinator)
        status, lines, err = await run(coordinator.address, "events", "train")
        assert (status, kinds(lines)) == (0, ["ROUND_BEGAN"])
        assert "not kept any more" in err


async def test_status_is_watched_a_line_for_each_change(coordinator: Coordinator) -> None:
    agent = await running_alone(coordinator)
    command = await begin(coordinator.address, "status", "train", "--watch")
    assert "  RUNNING  round 0 runs" in await line_of(command)
    await succeed(agent)
    status, lines, err = await end_of(command)
    assert (status, err) == (0, "")
    assert "  SUCCEEDED  " in lines[-1]
    assert "\x1b" not in "".join(lines)


async def test_a_watch_goes_on_when_the_coordinator_is_back() -> None:
    journal = MemoryJournal()
    async with running_coordinator(journal) as first:
        _agent = await running_alone(first)
        address = first.address
        command = await begin(address, "events", "train", "--follow")
        for _ in range(3):
            await line_of(command)
    server = Server(journal)
    await server.start(address)
    try:
        async with grpc.aio.insecure_channel(str(address)) as channel:
            stub: Any = JobServiceStub(channel)
            await stub.CancelJob(pb.CancelJobRequest(name="jobs/train"))
        assert kinds([await line_of(command)]) == ["CANCEL_ASKED"]
        command.terminate()
        await command.wait()
    finally:
        await server.stop()
