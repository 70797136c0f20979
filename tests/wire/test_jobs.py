"""JobService as a tool sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from rallypoint import wire
from rallypoint.commands.restarts import PHASES
from rallypoint.errors import Reason
from rallypoint.model import (
    AgentPhase,
    ClockReading,
    Directive,
    NodeSpec,
    Observed,
    WorkerFailure,
    WorkerState,
    WorkerStatus,
)
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint_coordinator.server import job_servicer
from rallypoint_coordinator.server.server import SERVICES
from support.wire_client import SPEC, Coordinator, WireAgent, hello, ready, refusal_of, running_coordinator


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    async with running_coordinator() as running:
        yield running


async def get_job(coordinator: Coordinator, name: str = "jobs/train") -> pb.Job:
    job: pb.Job = (await coordinator.jobs.GetJob(pb.GetJobRequest(name=name))).job
    return job


async def running_round(coordinator: Coordinator) -> list[WireAgent]:
    agents = [WireAgent(coordinator), WireAgent(coordinator)]
    await agents[0].attach()
    await agents[1].attach(hello("node-b"))
    for agent in agents:
        await agent.run()
    return agents


async def test_a_job_that_waits_says_for_what(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    welcome = await agent.attach()
    job = await get_job(coordinator)
    assert (job.name, job.uid) == ("jobs/train", welcome.job_uid)
    assert (job.state, job.reason) == (types_pb2.JOB_STATE_GATHERING, "WAITING_FOR_NODES")
    assert job.message.startswith("waiting")
    assert job.message.endswith(" s left")
    assert not job.HasField("round")
    assert (job.member_count, job.participant_count, job.world_size) == (1, 0, 0)
    assert wire.job_spec_from_proto(job.spec) == SPEC
    assert job.version.epoch == 1
    assert 0 < job.create_time.seconds <= job.observe_time.seconds


async def test_a_job_that_runs(coordinator: Coordinator) -> None:
    await running_round(coordinator)
    job = await get_job(coordinator)
    assert (job.state, job.round, job.restart_count) == (types_pb2.JOB_STATE_RUNNING, 0, 0)
    assert (job.member_count, job.participant_count, job.world_size) == (2, 2, 4)
    assert job.endpoint.port == 40_001


async def test_a_job_that_failed_shows_its_culprit(coordinator: Coordinator) -> None:
    agent = WireAgent(coordinator)
    await agent.attach(hello(job_spec=replace(SPEC, min_nodes=1, max_nodes=1)))
    await agent.run()
    failure = WorkerFailure(node="node-a", local_rank=1, rank=1, pid=7, exit_code=3, traceback="t" * 100_000)
    await agent.send(Observed(phase=AgentPhase.FAILED, round=0, version=agent.version, failures=(failure,)))
    await agent.acked(agent.seq)
    job = await get_job(coordinator)
    assert job.state == types_pb2.JOB_STATE_FAILED
    assert (job.outcome.culprit.rank, job.outcome.culprit.exit_code) == (1, 3)
    assert len(job.last_failure.traceback) == 64 * 1024
    assert job.last_failure.blame == types_pb2.BLAME_ROOT_CAUSE
    workers = (await coordinator.jobs.ListWorkers(pb.ListWorkersRequest(parent="jobs/train"))).workers
    assert [worker.blame for worker in workers] == [types_pb2.BLAME_UNSPECIFIED, types_pb2.BLAME_ROOT_CAUSE]


async def test_a_failures_time_is_told_by_the_coordinators_clock(coordinator: Coordinator) -> None:
    """The agent's steady clock began anywhere; what it says with its messages bounds how it differs."""
    agent = WireAgent(coordinator)
    await agent.attach(hello(job_spec=replace(SPEC, min_nodes=1, max_nodes=1)))
    await agent.run()
    clock = ClockReading(sent_ms=10**9, acked_seq=1, acked_ms=10**9)
    failure = WorkerFailure(node="node-a", local_rank=1, rank=1, pid=7, exit_code=3, fail_clock_ms=10**9)
    report = Observed(phase=AgentPhase.FAILED, round=0, version=agent.version, failures=(failure,))
    await agent.send(report, clock=clock)
    await agent.acked(agent.seq)
    told = (await get_job(coordinator)).last_failure
    assert told.HasField("corrected_time")
    assert told.HasField("time_error")


@pytest.mark.parametrize("name", ["", "jobs", "jobs/", "train", "nodes/train", "jobs/-x", "jobs/a/nodes/b"])
async def test_a_bad_name_is_refused(coordinator: Coordinator, name: str) -> None:
    refusal = await refusal_of(coordinator.jobs.GetJob(pb.GetJobRequest(name=name)))
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "name")
    for method, request in ((coordinator.jobs.ListNodes, pb.ListNodesRequest(parent=name)),):
        refusal = await refusal_of(method(request))
        assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "parent")


async def test_an_unknown_job_is_not_found(coordinator: Coordinator) -> None:
    calls = [
        coordinator.jobs.GetJob(pb.GetJobRequest(name="jobs/nothing")),
        coordinator.jobs.ListNodes(pb.ListNodesRequest(parent="jobs/nothing")),
        coordinator.jobs.ListWorkers(pb.ListWorkersRequest(parent="jobs/nothing")),
    ]
    for call in calls:
        refusal = await refusal_of(call)
        assert (refusal.reason, refusal.code) == (Reason.JOB_NOT_FOUND, "NOT_FOUND")
        assert refusal.metadata == {"job": "nothing"}


async def test_nodes_show_what_they_are(coordinator: Coordinator) -> None:
    agents = await running_round(coordinator)
    standby = WireAgent(coordinator)
    await standby.attach(hello("node-c", node_spec=NodeSpec(local_world_size=3, labels={"rack": "7"})))
    await agents[0].send(Observed(phase=AgentPhase.SUCCEEDED, round=0, version=agents[0].version))
    await agents[0].acked(2)
    listed = (await coordinator.jobs.ListNodes(pb.ListNodesRequest(parent="jobs/train"))).nodes
    assert [(node.name.rpartition("/")[2], node.state) for node in listed] == [
        ("node-a", pb.NODE_STATE_SUCCEEDED),
        ("node-b", pb.NODE_STATE_PARTICIPANT),
        ("node-c", pb.NODE_STATE_STANDBY),
    ]
    first, _, third = listed
    assert (first.attached, first.suspect, first.peer) == (True, False, "127.0.0.1")
    assert (first.phase, first.group_rank) == (types_pb2.AGENT_PHASE_SUCCEEDED, 0)
    assert first.agent_version == "test-agent/1"
    assert list(first.capabilities) == [number for number in types_pb2.Capability.values() if number]
    assert first.heartbeat_time.seconds > 0
    assert not third.HasField("group_rank")
    assert (third.spec.local_world_size, dict(third.spec.labels)) == (3, {"rack": "7"})


async def test_workers_show_what_their_agents_say(coordinator: Coordinator) -> None:
    agents = await running_round(coordinator)
    said = (
        WorkerStatus(local_rank=0, rank=2, pid=70, state=WorkerState.HEALTHY),
        WorkerStatus(local_rank=1, rank=3, pid=71, state=WorkerState.SUCCEEDED, exit_code=0),
    )
    await agents[1].send(Observed(phase=AgentPhase.RUNNING, round=0, workers=said, version=agents[1].version))
    await agents[1].acked(2)
    listed = (await coordinator.jobs.ListWorkers(pb.ListWorkersRequest(parent="jobs/train"))).workers
    assert [(w.name, w.rank, w.local_rank, w.node, w.pid, w.state) for w in listed] == [
        ("jobs/train/workers/0", 0, 0, "node-a", 0, types_pb2.WORKER_STATE_UNKNOWN),
        ("jobs/train/workers/1", 1, 1, "node-a", 0, types_pb2.WORKER_STATE_UNKNOWN),
        ("jobs/train/workers/2", 2, 0, "node-b", 70, types_pb2.WORKER_STATE_HEALTHY),
        ("jobs/train/workers/3", 3, 1, "node-b", 71, types_pb2.WORKER_STATE_SUCCEEDED),
    ]
    assert [w.HasField("exit_code") for w in listed] == [False, False, False, True]


async def test_no_workers_before_the_first_round(coordinator: Coordinator) -> None:
    await WireAgent(coordinator).attach()
    answer = await coordinator.jobs.ListWorkers(pb.ListWorkersRequest(parent="jobs/train"))
    assert (list(answer.workers), answer.next_page_token) == ([], "")


async def test_a_restart_says_what_each_phase_took(coordinator: Coordinator) -> None:
    agents = await running_round(coordinator)
    request = pb.GetJobRequest(name="jobs/train")
    assert not (await coordinator.jobs.GetJob(request)).round_changes
    await coordinator.jobs.RestartJob(pb.RestartJobRequest(name="jobs/train", reason="a test"))
    (ending,) = (await coordinator.jobs.GetJob(request)).round_changes
    assert (ending.round, ending.cause, ending.restart_spent) == (0, "RESTART_ASKED", False)
    assert ending.message == "restarted by 127.0.0.1: a test"
    assert [phase for phase in PHASES if ending.HasField(phase)] == ["detect", "decide"]
    for agent in agents:
        await agent.receive(Directive)
        await agent.send(ready(0, offer_id=2, version=agent.version))
    for agent in agents:
        await agent.run()
        await agent.send(Observed(phase=AgentPhase.RUNNING, round=1, version=agent.version))
        await agent.acked(agent.seq)
    (change,) = (await coordinator.jobs.GetJob(request)).round_changes
    assert (change.round, change.next_round) == (0, 1)
    assert all(change.HasField(phase) for phase in PHASES)
    took_ms = [getattr(change, phase).ToMilliseconds() for phase in PHASES]
    assert change.end_time.ToMilliseconds() - change.begin_time.ToMilliseconds() == sum(took_ms[:3])
    assert min(took_ms) >= 0


async def pages(method: Any, request: Any, items: str) -> list[list[str]]:
    """The names on each page, by following the tokens."""
    found = []
    while True:
        answer = await method(request)
        found.append([item.name.rpartition("/")[2] for item in getattr(answer, items)])
        request.page_token = answer.next_page_token
        if not answer.next_page_token:
            return found


async def test_pages(coordinator: Coordinator) -> None:
    big = replace(SPEC, min_nodes=5, max_nodes=5)
    names = [f"node-{letter}" for letter in "edcba"]
    agents = [WireAgent(coordinator) for _ in names]
    for agent, name in zip(agents, names, strict=True):
        await agent.attach(hello(name, job_spec=big))
    for agent in agents:
        await agent.run()
    for job in ("b-job", "a-job"):
        await WireAgent(coordinator).attach(hello(job=job))
    jobs = coordinator.jobs
    nodes = await pages(jobs.ListNodes, pb.ListNodesRequest(parent="jobs/train", page_size=2), "nodes")
    assert nodes == [["node-a", "node-b"], ["node-c", "node-d"], ["node-e"]]
    workers = await pages(jobs.ListWorkers, pb.ListWorkersRequest(parent="jobs/train", page_size=3), "workers")
    assert workers == [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"], ["9"]]
    assert await pages(jobs.ListJobs, pb.ListJobsRequest(page_size=2), "jobs") == [["a-job", "b-job"], ["train"]]
    assert await pages(jobs.ListJobs, pb.ListJobsRequest(), "jobs") == [["a-job", "b-job", "train"]]
    assert await pages(jobs.ListNodes, pb.ListNodesRequest(parent="jobs/train", page_size=5), "nodes") == [
        sorted(names)
    ]


async def test_a_page_stays_within_what_a_client_accepts(coordinator: Coordinator) -> None:
    labels = {f"{key:02}" + "k" * 61: "v" * 256 for key in range(32)}
    for number in range(250):
        agent = WireAgent(coordinator)
        await agent.attach(
            hello(f"node-{number:03}", observed=ready(), node_spec=NodeSpec(labels=labels), job_spec=SPEC_250)
        )
    request = pb.ListNodesRequest(parent="jobs/train", page_size=1000)
    found = await pages(coordinator.jobs.ListNodes, request, "nodes")
    assert [name for page in found for name in page] == [f"node-{number:03}" for number in range(250)]
    assert len(found) == 2


SPEC_250 = replace(SPEC, min_nodes=300, max_nodes=300)


@pytest.mark.parametrize("token", ["x", "!!", "W10=", "WyJqb2JzL290aGVyL25vZGVzIiwgIiJd", "a" * 3000])
async def test_a_foreign_page_token_is_refused(coordinator: Coordinator, token: str) -> None:
    await WireAgent(coordinator).attach()
    request = pb.ListNodesRequest(parent="jobs/train", page_token=token)
    refusal = await refusal_of(coordinator.jobs.ListNodes(request))
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "page_token")


async def test_a_negative_page_size_is_refused(coordinator: Coordinator) -> None:
    refusal = await refusal_of(coordinator.jobs.ListJobs(pb.ListJobsRequest(page_size=-1)))
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "page_size")


async def jobs_in_states(coordinator: Coordinator) -> list[WireAgent]:
    """a-job and c-job gather, b-job and train run."""
    alone = replace(SPEC, min_nodes=1, max_nodes=1)
    agents = [WireAgent(coordinator) for _ in range(4)]
    for agent, job in zip(agents, ("a-job", "c-job"), strict=False):
        await agent.attach(hello(job=job))
    for agent, job in zip(agents[2:], ("b-job", "train"), strict=True):
        await agent.attach(hello(job=job, job_spec=alone))
        await agent.run()
    return agents


GATHERING, RUNNING, FAILED = types_pb2.JOB_STATE_GATHERING, types_pb2.JOB_STATE_RUNNING, types_pb2.JOB_STATE_FAILED


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], ["a-job", "b-job", "c-job", "train"]),
        ([GATHERING], ["a-job", "c-job"]),
        ([RUNNING, FAILED, RUNNING], ["b-job", "train"]),
        ([RUNNING, GATHERING], ["a-job", "b-job", "c-job", "train"]),
        ([FAILED], []),
    ],
)
@pytest.mark.parametrize("looked_at", [1, 2, 3, 1000])
async def test_jobs_in_some_states(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, states: list[Any], expected: list[str], looked_at: int
) -> None:
    monkeypatch.setattr(job_servicer, "JOBS_LOOKED_AT", looked_at)
    agents = await jobs_in_states(coordinator)
    for size in (1, 2, 0):
        found = await pages(coordinator.jobs.ListJobs, pb.ListJobsRequest(states=states, page_size=size), "jobs")
        assert [name for page in found for name in page] == expected
        assert len(found) <= max(-(-4 // looked_at), 1) + len(expected) // (size or 100)
    del agents


@pytest.mark.parametrize(
    ("states", "field", "said"),
    [
        ([0], "states[0]", "states[0] must be a state of jobs, but is 0"),
        ([RUNNING, 99], "states[1]", "states[1] must be a state of jobs, but is 99"),
        ([RUNNING] * 33, "states", "states must have at most 32 items, but is 33 items"),
    ],
)
async def test_states_that_no_job_is_in_are_refused(
    coordinator: Coordinator, states: list[Any], field: str, said: str
) -> None:
    refusal = await refusal_of(coordinator.jobs.ListJobs(pb.ListJobsRequest(states=states)))
    assert (refusal.reason, refusal.field, refusal.message) == (Reason.INVALID_FIELD, field, said)


async def test_a_page_token_is_of_the_states_that_it_was_given_for(coordinator: Coordinator) -> None:
    agents = await jobs_in_states(coordinator)
    list_jobs = coordinator.jobs.ListJobs
    token = (await list_jobs(pb.ListJobsRequest(states=[RUNNING, FAILED], page_size=1))).next_page_token
    same = await list_jobs(pb.ListJobsRequest(states=[FAILED, RUNNING, FAILED], page_token=token))
    assert [job.name for job in same.jobs] == ["jobs/train"]
    for others in ([], [RUNNING], [FAILED, RUNNING, GATHERING]):
        refusal = await refusal_of(list_jobs(pb.ListJobsRequest(states=others, page_token=token)))
        assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "page_token")
    del agents


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health(coordinator: Coordinator, service: str) -> None:
    stub: Any = HealthStub(coordinator.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
