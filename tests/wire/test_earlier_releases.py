"""Agents and clients of earlier releases, which know no more than the kept image of their protocol; and one ahead."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from rallypoint.errors import Reason
from rallypoint.model import AgentPhase, Directive, Observed, Stop, WorkerFailure
from rallypoint_coordinator.store.memory import MemoryJournal
from support.other_release import INCARNATION, JOB, NODE, SPEC, Agent, Reader
from support.protocol import KEPT, RELEASED, Protocol, fill, kept, later
from support.wire_client import TIMEOUT_S, Coordinator, WireAgent, hello, ready, refusal_of, running_coordinator

REPOSITORY = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")


@pytest.fixture(params=KEPT, ids=lambda path: path.stem)
def earlier(request: pytest.FixtureRequest) -> Protocol:
    return kept(request.param)


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    async with running_coordinator() as running:
        yield running


async def start_round_0(protocol: Protocol, coordinator: Coordinator) -> tuple[Agent, WireAgent]:
    """An agent of that protocol and one of today's, both with their workers up."""
    old, new = Agent(protocol, coordinator), WireAgent(coordinator)
    await old.attach()
    await old.told("hold")
    await new.attach(hello(job_spec=SPEC))
    ours, theirs = await new.run(), (await old.told("run")).assignment
    assert (theirs.round, theirs.group_world_size, theirs.world_size) == (0, 2, 4)
    assert {theirs.first_rank, ours.first_rank} == {0, 2}
    assert theirs.endpoint.port == ours.endpoint.port
    await old.report("RUNNING", 0, "HEALTHY")
    await new.send(Observed(phase=AgentPhase.RUNNING, round=0, version=new.version))
    return old, new


# --- Agents


async def test_an_earlier_agent_takes_part_beside_todays(earlier: Protocol, coordinator: Coordinator) -> None:
    old, new = await start_round_0(earlier, coordinator)
    reader = Reader(earlier, coordinator)
    watching = asyncio.create_task(reader.watch()) if ("JobService", "WatchJob") in earlier.methods() else None
    assert await reader.job_state() == "JOB_STATE_RUNNING"
    assert await reader.nodes() == {NODE: "NODE_STATE_PARTICIPANT", "node-a": "NODE_STATE_PARTICIPANT"}

    await old.send(heartbeat=earlier.make("Heartbeat", version=old.directive.version))
    await old.report("RUNNING", 0, "HEALTHY")  # Acknowledged at once, and the heartbeat with it.

    # A worker of the other node fails: the round is stopped and the next one formed, with both.
    failure = WorkerFailure(node="node-a", local_rank=1, rank=1, pid=7, exit_code=3)
    await new.send(Observed(phase=AgentPhase.STOPPING, round=0, version=new.version, failures=(failure,)))
    stop = await old.told("stop")
    assert (stop.round, stop.grace_period.seconds) == (0, 30)
    await old.report("STOPPING", 0, "HEALTHY")
    old.offer_id = 2
    await old.report("READY", 0, "STOPPED")
    await new.send(replace(ready(0, offer_id=2, version=new.version), failures=(failure,)))
    assignment = (await old.told("run")).assignment
    assert (assignment.round, assignment.restart_count) == (1, 1)
    assert (await new.run()).round == 1

    # Its own worker fails: the same, and it is the culprit.
    await old.report("RUNNING", 1, "HEALTHY")
    await new.send(Observed(phase=AgentPhase.RUNNING, round=1, version=new.version))
    own = {"node": NODE, "local_rank": 0, "rank": assignment.first_rank, "pid": 100, "exit_code": -9}
    old.offer_id = 3
    await old.report("FAILED", 1, "FAILED", failures=[own])
    await stopped(new)
    await new.send(ready(1, offer_id=3, version=new.version))
    assert (await old.told("run")).assignment.restart_count == 2
    assert (await new.run()).round == 2
    culprit = (await reader.job()).last_failure
    assert (culprit.node, culprit.exit_code) == (NODE, -9)

    # Both succeed, and the job is over.
    await old.report("SUCCEEDED", 2, "SUCCEEDED")
    await new.send(Observed(phase=AgentPhase.SUCCEEDED, round=2, version=new.version))
    outcome = (await old.told("exit")).outcome
    assert (earlier.word(outcome, "state"), outcome.reason) == ("JOB_STATE_SUCCEEDED", "ALL_SUCCEEDED")
    await old.leave("JOB_DECIDED")
    assert await reader.job_state() == "JOB_STATE_SUCCEEDED"
    if watching is not None:
        state, kinds = await watching
        assert state == "JOB_STATE_RUNNING"
        assert kinds.count("JOB_EVENT_KIND_ROUND_ENDED") == 2
        assert kinds[-1] == "JOB_EVENT_KIND_JOB_DECIDED"


async def stopped(agent: WireAgent) -> None:
    """Until it is told to stop."""
    while not isinstance((await agent.receive(Directive)).action, Stop):
        pass


async def test_an_earlier_agent_keeps_its_lease_and_round_over_a_restart(earlier: Protocol) -> None:
    journal = MemoryJournal()
    async with running_coordinator(journal) as first:
        old, _ = await start_round_0(earlier, first)
        lease_id, version = old.lease_id, old.directive.version
    async with running_coordinator(journal) as second:
        old.coordinator = second
        welcome = await old.attach(old.hello(phase="RUNNING", round=0, state="HEALTHY"))
        assert welcome.lease_id == lease_id
        assert (await old.told("run")).assignment.round == 0
        assert old.directive.version.epoch == version.epoch + 1


async def test_an_earlier_agent_is_drained(earlier: Protocol, coordinator: Coordinator) -> None:
    old, new = await start_round_0(earlier, coordinator)
    assert (await Reader(earlier, coordinator).ask("DrainNode", name=f"jobs/{JOB}/nodes/{NODE}")).was_news
    assert (await old.told("drain")).grace_period.seconds == 30
    await old.report("STOPPING", 0, "HEALTHY")
    await old.leave("DRAINED")
    assert (await Reader(earlier, coordinator).nodes())[NODE] == "NODE_STATE_LEFT"
    await stopped(new)


async def test_an_earlier_agents_obituary_frees_its_place(earlier: Protocol, coordinator: Coordinator) -> None:
    old, new = await start_round_0(earlier, coordinator)
    old.lose_connection()
    report = earlier.make(
        "ReportGoneRequest",
        job=JOB,
        job_uid=old.welcome.job_uid,
        lease_id=old.lease_id,
        incarnation=INCARNATION,
    )
    agents = earlier.stub(coordinator.channel, "AgentService")
    assert (await agents.ReportGone(report, timeout=TIMEOUT_S)).was_news
    assert not (await agents.ReportGone(report, timeout=TIMEOUT_S)).was_news
    await stopped(new)
    assert (await Reader(earlier, coordinator).nodes())[NODE] == "NODE_STATE_GONE"


# --- Clients


async def test_an_earlier_client_can_ask_for_what_its_release_had(earlier: Protocol, coordinator: Coordinator) -> None:
    await start_round_0(earlier, coordinator)
    reader = Reader(earlier, coordinator)
    assert [job.name for job in (await reader.ask("ListJobs")).jobs] == [f"jobs/{JOB}"]
    workers = (await reader.ask("ListWorkers", parent=f"jobs/{JOB}")).workers
    assert [worker.rank for worker in workers] == [0, 1, 2, 3]
    await reader.ask("RestartJob", name=f"jobs/{JOB}", reason="to see")
    assert (await reader.ask("CancelJob", name=f"jobs/{JOB}")).was_news
    refusal = await refusal_of(reader.ask("GetJob", name="jobs/nothing"))
    assert refusal.reason is Reason.JOB_NOT_FOUND


async def test_every_method_of_an_earlier_release_is_served(earlier: Protocol, coordinator: Coordinator) -> None:
    """With an empty request: whatever is said to that, it is the method that says it."""
    methods = [method for method in earlier.methods() if method != ("AgentService", "Attach")]
    assert len(methods) >= 5
    for service, name in methods:
        call = getattr(earlier.stub(coordinator.channel, service), name)(
            earlier.make(f"{name}Request"), timeout=TIMEOUT_S
        )
        assert await call.code() in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}, name


def test_nothing_that_was_kept_is_broken() -> None:
    """`make check` asks this of the newest image; here of each."""
    for image in KEPT:
        done = subprocess.run(
            [BUF, "breaking", "--against", str(image)], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, ""), image
    assert any(image.parent == RELEASED for image in KEPT)


# --- Who is ahead


async def test_what_a_later_agent_says_besides_is_ignored(coordinator: Coordinator) -> None:
    protocol = later()
    agent = Agent(protocol, coordinator)
    first = fill(agent.hello())
    first.features.append("time-travel")
    first.capabilities.append(protocol.number("CAPABILITY_ADDED_LATER"))
    welcome = await agent.attach(first)
    assert list(welcome.features) == []
    await agent.told("hold")
    await agent.send(heartbeat=fill(protocol.make("Heartbeat", version=agent.directive.version)))
    await agent.send(observed=fill(agent.observed("READY")))
    await agent.heard()
    node = (await Reader(protocol, coordinator).ask("ListNodes", parent=f"jobs/{JOB}")).nodes[0]
    assert list(node.capabilities) == [1, 2, 3, 4]


async def test_what_a_later_agent_may_not_say_unasked_is_refused(coordinator: Coordinator) -> None:
    """What is acknowledged has been understood."""
    protocol = later()
    agent = Agent(protocol, coordinator)
    await agent.attach()
    await agent.send(added_later_kind={"epoch": 1})
    refusal = await agent.refusal()
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "message")
    await agent.attach()
    await agent.send(observed=agent.observed("ADDED_LATER", 0))
    refusal = await agent.refusal()
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "observed.phase")
