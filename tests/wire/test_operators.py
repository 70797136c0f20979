"""What operators ask over the wire, and the answers they get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from rallypoint.errors import Reason
from rallypoint.model import Directive, Drain, Exit, Hold, Stop
from rallypoint.rules import Rule
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint.wire.scalars import moment
from rallypoint_coordinator.server import operator_requests
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


async def job_of(coordinator: Coordinator) -> pb.Job:
    answer: pb.GetJobResponse = await coordinator.jobs.GetJob(pb.GetJobRequest(name="jobs/train"))
    return answer.job


def change(paths: str = "", etag: str = "", name: str = "jobs/train", **spec: Any) -> pb.UpdateJobRequest:
    job = pb.Job(name=name, etag=etag, spec=types_pb2.JobSpec(**spec))
    return pb.UpdateJobRequest(job=job, update_mask=FieldMask(paths=paths.split()))


async def test_update(coordinator: Coordinator) -> None:
    agents = await running_pair(coordinator)
    before = await job_of(coordinator)
    assert not before.HasField("agreed_spec")
    request = change("spec.max_restarts labels", before.etag, max_restarts=7)
    request.job.labels["team"] = "vision"
    answer = await coordinator.jobs.UpdateJob(request)
    assert answer.was_news
    assert (answer.job.spec.max_restarts, dict(answer.job.labels)) == (7, {"team": "vision"})
    assert answer.job.agreed_spec == before.spec
    assert answer.job.etag not in ("", before.etag)
    assert not (await coordinator.jobs.UpdateJob(request)).was_news
    assert (await refusal_of(coordinator.jobs.UpdateJob(change("spec.max_restarts", before.etag)))).reason is (
        Reason.ETAG_MISMATCH
    )
    back = await coordinator.jobs.UpdateJob(change("spec.max_restarts", max_restarts=before.spec.max_restarts))
    assert not back.job.HasField("agreed_spec")
    del agents


async def test_without_a_mask_what_is_set_is_meant(coordinator: Coordinator) -> None:
    await WireAgent(coordinator).attach()
    answer = await coordinator.jobs.UpdateJob(change(max_nodes=4))
    assert (answer.job.spec.min_nodes, answer.job.spec.max_nodes) == (2, 4)


async def test_hold_and_release(coordinator: Coordinator) -> None:
    agents = await running_pair(coordinator)
    assert (await coordinator.jobs.HoldJob(pb.HoldJobRequest(name="jobs/train", reason="upkeep"))).was_news
    job = await job_of(coordinator)
    assert (job.hold.requested_by, job.hold.reason) == ("127.0.0.1", "upkeep")
    assert job.hold.expire_time.seconds - job.hold.hold_time.seconds == 86_400
    until = moment(job.hold.expire_time)
    await coordinator.jobs.RestartJob(pb.RestartJobRequest(name="jobs/train"))
    for agent in agents:
        await agent.receive(Directive)
        await agent.send(ready(0, offer_id=2, version=agent.version))
    for agent in agents:
        assert isinstance((await agent.receive(Directive)).action, Hold)
    job = await job_of(coordinator)
    assert (job.state, job.reason) == (types_pb2.JOB_STATE_GATHERING, "HELD")
    assert job.message.startswith("held by 127.0.0.1: upkeep: 2 nodes ready, ")
    assert (await coordinator.jobs.ReleaseJob(pb.ReleaseJobRequest(name="jobs/train"))).was_news
    assert [(await agent.run()).round for agent in agents] == [1, 1]
    assert not (await coordinator.jobs.ReleaseJob(pb.ReleaseJobRequest(name="jobs/train"))).was_news
    events = await coordinator.jobs.ListJobEvents(
        pb.ListJobEventsRequest(parent="jobs/train", kinds=[pb.JOB_EVENT_KIND_JOB_HELD, pb.JOB_EVENT_KIND_JOB_RELEASED])
    )
    assert [(event.requested_by, event.message) for event in events.events] == [
        ("127.0.0.1", f"127.0.0.1 asked that no round be formed until {until}: upkeep"),
        ("127.0.0.1", "127.0.0.1 released the job"),
    ]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (change(), "update_mask"),
        (change("spec.lease_ttl"), "update_mask"),
        (change("spec.min_nodes"), "job.spec.min_nodes"),
        (change(max_nodes=100_001), "job.spec.max_nodes"),
        (change(max_restarts=-1), "job.spec.max_restarts"),
        (change(min_nodes=3), "job.spec.min_nodes"),
        (change("labels", etag="x" * 200), "job.etag"),
        (change(name="train", max_nodes=3), "job.name"),
        (pb.UpdateJobRequest(job=pb.Job(name="jobs/train", labels={"": "v"})), "job.labels"),
        (pb.UpdateJobRequest(job=pb.Job(name="jobs/train", labels={str(n): "v" for n in range(33)})), "job.labels"),
    ],
    ids=str,
)
async def test_a_change_that_cannot_be_is_named(
    coordinator: Coordinator, request_: pb.UpdateJobRequest, field: str
) -> None:
    await WireAgent(coordinator).attach()
    refusal = await refusal_of(coordinator.jobs.UpdateJob(request_))
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, field)


@pytest.mark.parametrize("duration", [Duration(), Duration(seconds=-1), Duration(seconds=30 * 86_400 + 1)], ids=str)
async def test_a_hold_has_an_end(coordinator: Coordinator, duration: Duration) -> None:
    await WireAgent(coordinator).attach()
    refusal = await refusal_of(coordinator.jobs.HoldJob(pb.HoldJobRequest(name="jobs/train", hold_duration=duration)))
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "hold_duration")
    assert refusal.message.endswith(f"but is {duration.seconds} s")


async def test_a_path_that_is_named_often_is_judged_once(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one request of a few MiB keeps the coordinator, and so all jobs, for seconds."""
    judged: list[object] = []

    def judge(value: object) -> bool:
        judged.append(value)
        return True

    monkeypatch.setattr(operator_requests, "_CHANGES", {"labels": Rule("be seen", judge)})
    await WireAgent(coordinator).attach()
    request = pb.UpdateJobRequest(job=pb.Job(name="jobs/train", labels={"a": "b"}))
    request.update_mask.paths.extend(["labels"] * 10_000)
    assert (await coordinator.jobs.UpdateJob(request)).was_news
    assert len(judged) == 1


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
        ("UpdateJob", change(name="jobs/none", max_nodes=3), Reason.JOB_NOT_FOUND),
        ("HoldJob", pb.HoldJobRequest(name="jobs/none"), Reason.JOB_NOT_FOUND),
        ("HoldJob", pb.HoldJobRequest(name="jobs/train", reason="x" * 1025), Reason.INVALID_FIELD),
        ("ReleaseJob", pb.ReleaseJobRequest(name="jobs/none"), Reason.JOB_NOT_FOUND),
    ],
)
async def test_refusals(coordinator: Coordinator, method: str, request_: object, reason: Reason) -> None:
    await WireAgent(coordinator).attach()
    refusal = await refusal_of(getattr(coordinator.jobs, method)(request_))
    assert refusal.reason is reason


async def test_each_of_many_updates_is_answered_with_what_it_led_to(coordinator: Coordinator) -> None:
    """Whoever uses the etag of the answer changes what it has seen, and nothing that others did since."""
    await WireAgent(coordinator).attach()

    async def update(restarts: int) -> pb.UpdateJobResponse:
        job = pb.Job(name="jobs/train", spec=types_pb2.JobSpec(max_restarts=restarts))
        answer: pb.UpdateJobResponse = await coordinator.jobs.UpdateJob(pb.UpdateJobRequest(job=job))
        return answer

    answers = await asyncio.gather(*(update(restarts) for restarts in range(1, 21)))
    assert [answer.job.spec.max_restarts for answer in answers] == list(range(1, 21))
    assert len({answer.job.etag for answer in answers}) == 20
