"""What operators ask over the wire, and the answers they get."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rallypoint.errors import Reason
from rallypoint.model import Directive, Drain, Exit, Stop
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2
from support.wire_client import Coordinator, WireAgent, hello, ready, refusal_of, running_coordinator


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    async with running_coordinator() as running:
        yield running


async def running_pair(coordinator: Coordinator) -> list[WireAgent]:
    agents = [WireAgent(coordinator), WireAgent(coordinator)]
    await agents[0].attach()
    await agents[1].attach(hello("node-b"))
    for agent in agents:
        await agent.run()
    return agents


async def test_cancel(coordinator: Coordinator) -> None:
    agents = await running_pair(coordinator)
    assert (await coordinator.jobs.CancelJob(pb.CancelJobRequest(name="jobs/train", reason="wrong data"))).was_news
    for agent in agents:
        stop = await agent.receive(Directive)
        assert isinstance(stop.action, Stop)
        await agent.send(ready(0, offer_id=2, version=agent.version))
    for agent in agents:
        end = await agent.receive(Directive)
        assert isinstance(end.action, Exit)
    job = (await coordinator.jobs.GetJob(pb.GetJobRequest(name="jobs/train"))).job
    assert job.state == types_pb2.JOB_STATE_CANCELLED
    assert job.message == "cancelled by 127.0.0.1: wrong data"


async def test_restart(coordinator: Coordinator) -> None:
    agents = await running_pair(coordinator)
    await coordinator.jobs.RestartJob(pb.RestartJobRequest(name="jobs/train"))
    for agent in agents:
        await agent.receive(Directive)
        await agent.send(ready(0, offer_id=2, version=agent.version))
    assert [(await agent.run()).round for agent in agents] == [1, 1]


async def test_drain(coordinator: Coordinator) -> None:
    _, b = await running_pair(coordinator)
    request = pb.DrainNodeRequest(name="jobs/train/nodes/node-b", reason="a new kernel")
    assert (await coordinator.jobs.DrainNode(request)).was_news
    assert not (await coordinator.jobs.DrainNode(request)).was_news
    assert isinstance((await b.receive(Directive)).action, Drain)


@pytest.mark.parametrize(
    ("method", "request_", "reason"),
    [
        ("CancelJob", pb.CancelJobRequest(name="jobs/none"), Reason.JOB_NOT_FOUND),
        ("CancelJob", pb.CancelJobRequest(name="train"), Reason.INVALID_FIELD),
        ("CancelJob", pb.CancelJobRequest(name="jobs/train", reason="x" * 1025), Reason.INVALID_FIELD),
        ("RestartJob", pb.RestartJobRequest(name="jobs/none"), Reason.JOB_NOT_FOUND),
        ("RestartJob", pb.RestartJobRequest(name=""), Reason.INVALID_FIELD),
        ("RestartJob", pb.RestartJobRequest(name="jobs/train"), Reason.NO_ROUND_RUNS),
        ("DrainNode", pb.DrainNodeRequest(name="jobs/none/nodes/a"), Reason.JOB_NOT_FOUND),
        ("DrainNode", pb.DrainNodeRequest(name="jobs/train"), Reason.INVALID_FIELD),
        ("DrainNode", pb.DrainNodeRequest(name="jobs/train/nodes/z"), Reason.NODE_NOT_FOUND),
    ],
)
async def test_refusals(coordinator: Coordinator, method: str, request_: object, reason: Reason) -> None:
    await WireAgent(coordinator).attach()
    refusal = await refusal_of(getattr(coordinator.jobs, method)(request_))
    assert refusal.reason is reason
