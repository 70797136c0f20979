"""WatchJob and ListJobEvents as a tool sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rallypoint import wire
from rallypoint.errors import Reason
from rallypoint.model import AgentPhase, Observed, WorkerFailure
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from rallypoint_coordinator.server.driver import DriverOptions
from rallypoint_coordinator.server.server import Server
from rallypoint_coordinator.server.watch_log import LogBounds
from rallypoint_coordinator.server.watch_tokens import WatchToken
from rallypoint_coordinator.server.watches import WatchOptions
from rallypoint_coordinator.store.memory import MemoryJournal
from support.wire_client import SPEC, TIMEOUT_S, Coordinator, WireAgent, hello, ready, refusal_of, running_coordinator

ALONE = replace(SPEC, min_nodes=1, max_nodes=1, max_restarts=1_000)


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    async with running_coordinator() as running:
        yield running


def watch(coordinator: Coordinator, token: str = "", job: str = "train") -> Any:
    return coordinator.jobs.WatchJob(pb.WatchJobRequest(name=f"jobs/{job}", resume_token=token), timeout=TIMEOUT_S)


async def until(call: Any, kind: pb.JobEventKind.ValueType) -> list[pb.WatchJobResponse]:
    """Read messages until one has an event of the kind."""
    messages: list[pb.WatchJobResponse] = []
    while not messages or kind not in [event.kind for event in messages[-1].events]:
        message = await call.read()
        assert message is not grpc.aio.EOF, await call.code()
        messages.append(message)
    return messages


async def running_alone(coordinator: Coordinator, **changes: Any) -> WireAgent:
    agent = WireAgent(coordinator)
    await agent.attach(hello(job_spec=ALONE, **changes))
    await agent.run()
    return agent


def events_of(messages: list[pb.WatchJobResponse]) -> list[pb.JobEvent]:
    return [event for message in messages for event in message.events]


def kinds_of(events: list[pb.JobEvent]) -> list[str]:
    return [pb.JobEventKind.Name(event.kind).removeprefix("JOB_EVENT_KIND_") for event in events]


async def end_of(call: Any) -> list[pb.WatchJobResponse]:
    """All that is left of a watch that ends with OK."""
    messages = []
    while (message := await call.read()) is not grpc.aio.EOF:
        messages.append(message)
    assert await call.code() is grpc.StatusCode.OK
    return messages


async def test_first_a_snapshot_then_what_is_decided_then_the_end(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    welcome = await agent.attach()
    call = watch(coordinator)
    first = await call.read()
    assert (first.snapshot.name, first.snapshot.uid) == ("jobs/train", welcome.job_uid)
    assert first.snapshot.state == types_pb2.JOB_STATE_GATHERING
    assert first.snapshot.version.revision <= first.revision
    other = WireAgent(coordinator)
    await other.attach(hello("node-b"))
    messages = await until(call, pb.JOB_EVENT_KIND_ROUND_BEGAN)
    for each in (agent, other):
        await each.run()
        await each.send(Observed(phase=AgentPhase.SUCCEEDED, round=0, version=each.version))
    messages += await end_of(call)
    events = events_of(messages)
    assert kinds_of(events) == ["NODE_JOINED", "ROUND_BEGAN", "NODE_SUCCEEDED", "NODE_SUCCEEDED", "JOB_DECIDED"]
    assert not any(message.HasField("snapshot") for message in messages)
    began, decided = events[1], events[-1]
    assert (began.round, began.node_count, began.world_size) == (0, 2, 4)
    assert began.message == "round 0 began: 2 nodes, 4 workers"
    assert (began.state, decided.state) == (types_pb2.JOB_STATE_RUNNING, types_pb2.JOB_STATE_SUCCEEDED)
    assert decided.outcome.state == types_pb2.JOB_STATE_SUCCEEDED
    revisions = [first.revision, *(event.revision for event in events)]
    assert revisions == sorted(set(revisions))


async def test_a_failure_is_told_with_its_culprit(coordinator: Coordinator) -> None:
    agent = await running_alone(coordinator)
    call = watch(coordinator)
    await call.read()
    failure = WorkerFailure(node="node-a", local_rank=1, rank=1, pid=7, exit_code=3, traceback="t" * 50_000)
    await agent.send(Observed(phase=AgentPhase.FAILED, round=0, version=agent.version, failures=(failure,)))
    ended = (await until(call, pb.JOB_EVENT_KIND_ROUND_ENDED))[-1].events[-1]
    assert (ended.culprit.node, ended.culprit.rank, ended.culprit.exit_code) == ("node-a", 1, 3)
    assert (ended.restart_spent, ended.culprit.traceback) == (True, "")


async def test_a_watch_goes_on_where_it_was(coordinator: Coordinator) -> None:
    # Whom nobody keeps has, with older releases of grpcio, gone again.
    a, b, c = WireAgent(coordinator), WireAgent(coordinator), WireAgent(coordinator)
    await a.attach()
    call = watch(coordinator)
    first = await call.read()
    call.cancel()
    await b.attach(hello("node-b"))
    again = watch(coordinator, first.resume_token)
    missed = await until(again, pb.JOB_EVENT_KIND_ROUND_BEGAN)
    assert [event.node for event in events_of(missed)] == ["node-b", ""]
    await c.attach(hello("node-c"))
    more = await until(again, pb.JOB_EVENT_KIND_NODE_JOINED)
    assert [event.node for event in events_of(more)] == ["node-c"]
    from_the_middle = watch(coordinator, missed[-1].resume_token)
    assert events_of(await until(from_the_middle, pb.JOB_EVENT_KIND_NODE_JOINED)) == events_of(more)


async def test_a_decided_job_has_a_snapshot_and_no_more(coordinator: Coordinator) -> None:
    agent = await running_alone(coordinator)
    call = watch(coordinator)
    await call.read()
    await coordinator.jobs.CancelJob(pb.CancelJobRequest(name="jobs/train", reason="enough"))
    await agent.send(Observed(phase=AgentPhase.READY, round=0, version=agent.version))
    await until(call, pb.JOB_EVENT_KIND_JOB_DECIDED)
    assert await end_of(call) == []
    (only,) = await end_of(watch(coordinator))
    assert only.snapshot.state == types_pb2.JOB_STATE_CANCELLED
    assert await end_of(watch(coordinator, only.resume_token)) == []


async def test_a_watch_is_of_one_life(coordinator: Coordinator) -> None:
    agent = await running_alone(coordinator)
    call = watch(coordinator)
    first = await call.read()
    await agent.send(Observed(phase=AgentPhase.SUCCEEDED, round=0, version=agent.version))
    await end_of(call)
    await running_alone(coordinator, incarnation="incarnation-2")
    told = events_of(await end_of(watch(coordinator, first.resume_token)))
    assert kinds_of(told) == ["NODE_SUCCEEDED", "JOB_DECIDED"]
    assert (await watch(coordinator).read()).snapshot.uid != first.snapshot.uid


@pytest.mark.parametrize(
    ("job", "token", "reason"),
    [
        ("nothing", "", Reason.JOB_NOT_FOUND),
        ("-x", "", Reason.INVALID_FIELD),
        ("train", "x", Reason.INVALID_FIELD),
        ("train", "W10=", Reason.INVALID_FIELD),
        ("train", "a" * 5_000, Reason.INVALID_FIELD),
        ("train", str(WatchToken("another", "uid", 1, 1)), Reason.WATCH_EXPIRED),
    ],
)
async def test_what_cannot_be_watched(coordinator: Coordinator, job: str, token: str, reason: Reason) -> None:
    await WireAgent(coordinator).attach()
    refusal = await refusal_of(watch(coordinator, token, job).read())
    assert refusal.reason is reason


async def test_a_token_is_of_its_job(coordinator: Coordinator) -> None:
    await WireAgent(coordinator).attach()
    await WireAgent(coordinator).attach(hello(job="other"))
    token = (await watch(coordinator).read()).resume_token
    refusal = await refusal_of(watch(coordinator, token, "other").read())
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "resume_token")


def server_with(log: LogBounds, **options: Any) -> Server:
    return Server(MemoryJournal(), DriverOptions(watches=WatchOptions(log=log, **options)))


async def come_and_go(coordinator: Coordinator, times: int) -> None:
    """Two events each, of more than a kilobyte together."""
    for number in range(times):
        agent = WireAgent(coordinator)
        await agent.attach(hello("node-x", incarnation=f"incarnation-{number}", observed=replace(ready(), offer=None)))
        await agent.send(wire.Goodbye("LEAVING", "g" * 1_000))
        await agent.end()


async def test_a_token_whose_events_were_dropped_has_expired() -> None:
    async with running_coordinator(server=server_with(LogBounds(life_events=4))) as coordinator:
        await WireAgent(coordinator).attach()
        token = (await watch(coordinator).read()).resume_token
        await come_and_go(coordinator, 3)
        refusal = await refusal_of(watch(coordinator, token).read())
        assert (refusal.reason, refusal.code) == (Reason.WATCH_EXPIRED, "OUT_OF_RANGE")
        assert (await watch(coordinator).read()).HasField("snapshot")


async def test_who_does_not_read_is_cut_off_and_goes_on_with_its_token() -> None:
    """Others are told meanwhile, and decisions are taken."""
    narrow = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with (
        running_coordinator(server=server_with(LogBounds(life_events=400))) as coordinator,
        grpc.aio.insecure_channel(str(coordinator.address), options=narrow) as channel,
    ):
        await WireAgent(coordinator).attach()
        slow: Any = JobServiceStub(channel)
        call = slow.WatchJob(pb.WatchJobRequest(name="jobs/train"), timeout=TIMEOUT_S)
        first = await call.read()
        await come_and_go(coordinator, 300)
        messages = [first]

        async def read_to_the_end() -> None:
            while (message := await call.read()) is not grpc.aio.EOF:
                messages.append(message)

        refusal = await refusal_of(read_to_the_end())
        assert (refusal.reason, refusal.code) == (Reason.WATCH_TOO_SLOW, "RESOURCE_EXHAUSTED")
        assert refusal.metadata["resume_token"] == messages[-1].resume_token


async def test_a_quiet_job_has_a_fresh_token() -> None:
    """Its own events would not be enough: the token is of a record that is not kept any more."""
    async with running_coordinator(server=server_with(LogBounds(records=8), progress_s=0.05)) as coordinator:
        agent = WireAgent(coordinator)
        await agent.attach()
        await WireAgent(coordinator).attach(hello(job="other"))
        call = watch(coordinator)
        first = await call.read()
        other = await watch(coordinator, job="other").read()
        for number in range(8):
            await WireAgent(coordinator).attach(hello(f"node-{number}", job="other"))
        last = first
        while last.revision < other.revision + 8:
            last = await call.read()
            assert not last.events
        refusal = await refusal_of(watch(coordinator, first.resume_token).read())
        assert refusal.reason is Reason.WATCH_EXPIRED
        again = watch(coordinator, last.resume_token)
        await WireAgent(coordinator).attach(hello("node-b"))
        told = events_of(await until(again, pb.JOB_EVENT_KIND_ROUND_BEGAN))
        assert kinds_of(told) == ["NODE_JOINED", "ROUND_BEGAN"]


async def test_so_many_watches_and_no_more() -> None:
    async with running_coordinator(server=server_with(LogBounds(), watches_max=1)) as coordinator:
        await WireAgent(coordinator).attach()
        one = watch(coordinator)
        await one.read()
        assert (await refusal_of(watch(coordinator).read())).reason is Reason.LIMIT_REACHED
        one.cancel()


async def test_at_shutdown_a_watch_ends_with_that() -> None:
    async with running_coordinator() as coordinator:
        await WireAgent(coordinator).attach()
        call = watch(coordinator)
        await call.read()
        stopping = asyncio.create_task(coordinator.server.stop())
        assert (await refusal_of(call.read())).reason is Reason.SHUTTING_DOWN
        await stopping


# --- lists


async def list_events(coordinator: Coordinator, **request: Any) -> pb.ListJobEventsResponse:
    answer: pb.ListJobEventsResponse
    answer = await coordinator.jobs.ListJobEvents(pb.ListJobEventsRequest(parent="jobs/train", **request))
    return answer


async def test_events_are_listed_and_then_watched_without_a_gap(coordinator: Coordinator) -> None:
    agent = await running_alone(coordinator)
    page = await list_events(coordinator, page_size=2)
    assert kinds_of(list(page.events)) == ["JOB_CREATED", "NODE_JOINED"]
    assert (page.resume_token, page.truncated) == ("", False)
    last = await list_events(coordinator, page_size=2, page_token=page.next_page_token)
    assert kinds_of(list(last.events)) == ["ROUND_BEGAN"]
    assert last.next_page_token == ""
    await agent.send(Observed(phase=AgentPhase.SUCCEEDED, round=0, version=agent.version))
    told = events_of(await end_of(watch(coordinator, last.resume_token)))
    assert kinds_of(told) == ["NODE_SUCCEEDED", "JOB_DECIDED"]
    listed = (await list_events(coordinator)).events
    assert list(listed) == [*page.events, *last.events, *told]


async def test_a_list_of_some_events(coordinator: Coordinator) -> None:
    await running_alone(coordinator)
    kinds = [pb.JOB_EVENT_KIND_ROUND_BEGAN, pb.JOB_EVENT_KIND_JOB_CREATED]
    assert kinds_of(list((await list_events(coordinator, kinds=kinds)).events)) == ["JOB_CREATED", "ROUND_BEGAN"]
    began = (await list_events(coordinator, kinds=kinds)).events[-1]
    later = Timestamp(seconds=began.event_time.seconds + 60)
    assert [*(await list_events(coordinator, since_time=later)).events] == []
    assert began in (await list_events(coordinator, since_time=began.event_time)).events


async def test_many_events_have_pages(coordinator: Coordinator) -> None:
    await come_and_go(coordinator, 40)
    listed: list[int] = []
    answer = pb.ListJobEventsResponse(next_page_token="")
    while not listed or answer.next_page_token:
        answer = await list_events(coordinator, page_size=30, page_token=answer.next_page_token)
        listed += [event.revision for event in answer.events]
    assert (len(listed), listed) == (81, sorted(set(listed)))
    some = await list_events(coordinator, page_size=3, kinds=[pb.JOB_EVENT_KIND_NODE_GONE])
    assert kinds_of(list(some.events)) == ["NODE_GONE"] * 3
    assert some.next_page_token


async def test_a_list_says_that_it_is_not_the_whole_story() -> None:
    async with running_coordinator(server=server_with(LogBounds(life_events=2))) as coordinator:
        await running_alone(coordinator)
        answer = await list_events(coordinator)
        assert (kinds_of(list(answer.events)), answer.truncated) == (["NODE_JOINED", "ROUND_BEGAN"], True)


async def test_a_list_that_cannot_be_had(coordinator: Coordinator) -> None:
    await WireAgent(coordinator).attach()
    many = [pb.JOB_EVENT_KIND_JOB_CREATED] * 101
    for request, reason in (
        (pb.ListJobEventsRequest(parent="jobs/nothing"), Reason.JOB_NOT_FOUND),
        (pb.ListJobEventsRequest(parent="jobs/train", kinds=many), Reason.INVALID_FIELD),
        (pb.ListJobEventsRequest(parent="jobs/train", page_token="x"), Reason.INVALID_FIELD),
    ):
        assert (await refusal_of(coordinator.jobs.ListJobEvents(request))).reason is reason
