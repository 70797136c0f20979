"""Every call of AgentService, JobService and ClusterService, on a coordinator with two jobs that run.

An input is a byte that says whose credentials are shown, and steps: calls, messages on streams, time that passes.
Each call ends well or with a typed refusal, the invariants hold after each step, a restart would know the same, and
who has credentials for one job changes nothing of the other.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from fuzz.coordinator import Call, Coordinator
from fuzz.messages import changed
from fuzz.script import Step, pack, unpack
from fuzz.target import Target, demand
from rallypoint import wire
from rallypoint.model import (
    AgentPhase,
    Capability,
    Endpoint,
    EndpointOffer,
    Hello,
    JobSpec,
    NodeSpec,
    Observed,
    Run,
    WorkerFailure,
    WorkerState,
    WorkerStatus,
)
from rallypoint.v1 import agent_service_pb2, cluster_service_pb2, types_pb2
from rallypoint.v1 import job_service_pb2 as jobs_pb
from rallypoint_coordinator.core.state import Facts
from rallypoint_coordinator.security.policy import Role
from rallypoint_coordinator.security.tokens import Grant, Table, digest
from rallypoint_coordinator.server.pages import next_page_token
from rallypoint_coordinator.server.watch_tokens import WatchToken, mark_of
from support.tokens import token

_AGENTS, _JOBS = "/rallypoint.v1.AgentService/", "/rallypoint.v1.JobService/"
_CLUSTER = "/rallypoint.v1.ClusterService/"
_TRAIN, _OTHER = "train", "other"

_GRANTS = (
    Grant("agent", frozenset({Role.AGENT}), _TRAIN),
    Grant("operator", frozenset({Role.READ, Role.OPERATOR}), _TRAIN),
    Grant("all-of-train", frozenset(Role), _TRAIN),
    Grant("fleet", frozenset(Role)),
)
_TABLE = Table({digest(token(number)): grant for number, grant in enumerate(_GRANTS)})
_FLEET = 3

_ATTACH, _SAY, _END, _WAIT = range(4)
_UNARY = ("GetJob", "ListJobs", "ListNodes", "ListWorkers", "ListJobEvents", "WatchJob", "CancelJob", "RestartJob")
_METHODS = (
    *(f"{_JOBS}{name}" for name in (*_UNARY, "DrainNode")),
    f"{_AGENTS}ReportGone",
    f"{_CLUSTER}GetCluster",
    *(f"{_JOBS}{name}" for name in ("UpdateJob", "HoldJob", "ReleaseJob")),
)
"""A step has the number of its own: new ones come last, so that the kept cases mean what they meant."""

_FIRST_METHOD = 4

_NODES = {"node-0": _TRAIN, "node-1": _TRAIN, "node-x": _OTHER}
_SPECS = {
    _TRAIN: JobSpec(min_nodes=2, max_nodes=3, max_restarts=2, last_call_timeout_ms=0),
    _OTHER: JobSpec(last_call_timeout_ms=0),
}
_PATIENT_MS = 15_000
"""Longer, and the other job's own leases are over."""


def check(data: bytes) -> None:
    _loop().run_until_complete(_run(_world(), data))


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


async def _run(world: _World, data: bytes) -> None:
    number = data[0] % (len(_GRANTS) + 1) if data else _FLEET
    async with Coordinator(world.records, _TABLE) as coordinator:
        before = _facts_of(coordinator, _OTHER)
        play = _Play(coordinator, token(number) if number < len(_GRANTS) else None)
        for step in unpack(data[1:]):
            await play.step(step)
        if number != _FLEET and play.waited_ms < _PATIENT_MS:
            demand(_facts_of(coordinator, _OTHER) == before, "the other job is not what it was")
        live, replayed = coordinator.cluster.snapshot(), await coordinator.replayed()
        if live != replayed:
            raise AssertionError(f"a restart would know something else: {live} and {replayed}")


class _Play:
    """The steps of one input."""

    def __init__(self, coordinator: Coordinator, shown: str | None) -> None:
        self._coordinator = coordinator
        self._token = shown
        self._streams: list[Call] = []
        self.waited_ms = 0

    async def step(self, step: Step) -> None:
        kind = step.kind % (_FIRST_METHOD + len(_METHODS))
        if kind >= _FIRST_METHOD:
            await self._ask(_METHODS[kind - _FIRST_METHOD], step.data)
        elif kind == _ATTACH:
            self._streams.append(await self._coordinator.call(f"{_AGENTS}Attach", self._token))
            self._streams[-1].say(step.data)
        elif kind == _WAIT:
            self._wait(step.data)
        elif self._streams and step.data:
            stream = self._streams[step.data[0] % len(self._streams)]
            stream.say(step.data[1:] if kind == _SAY else None)
        await self._coordinator.settle()

    async def _ask(self, method: str, data: bytes) -> None:
        call = await self._coordinator.call(method, self._token)
        call.say(data)

    def _wait(self, data: bytes) -> None:
        passed_ms = int.from_bytes(data[:2], "big")
        self._coordinator.clock.now_ms += passed_ms
        self.waited_ms += passed_ms


def _facts_of(coordinator: Coordinator, job: str) -> Facts:
    """A copy: what is durable of the job's newest life."""
    return [facts for facts in coordinator.cluster.snapshot().lives if facts.job == job][-1]


# --- the world that every input begins with


@dataclass(frozen=True)
class _World:
    """``records``: what the journal has. ``hellos``: those of the agents when they come back."""

    records: list[bytes]
    hellos: Mapping[str, Hello]
    rounds: Mapping[str, Observed]


@functools.cache
def _world() -> _World:
    return _loop().run_until_complete(_make_world())


async def _make_world() -> _World:
    async with Coordinator([], _TABLE) as coordinator:
        calls, rounds = {}, {}
        for node in _NODES:
            calls[node] = await coordinator.call(f"{_AGENTS}Attach", token(_FLEET))
            calls[node].say(_request(_hello(node), 0, 1).SerializeToString())
            await coordinator.settle()
        hellos = {}
        for node, call in calls.items():
            said = [_response(answer) for answer in call.answers]
            welcome = next(message for message in said if message is not None and hasattr(message, "lease_id"))
            directive = said[-1].directive if said[-1] is welcome else said[-1]
            demand(isinstance(getattr(directive, "action", None), Run), f"{node} does not run: {said}")
            rounds[node] = _running(directive)
            call.say(_request(rounds[node], welcome.lease_id, 2).SerializeToString())
            await coordinator.settle()
            hellos[node] = replace(
                _hello(node),
                attach_seq=2,
                job_uid=welcome.job_uid,
                lease_id=welcome.lease_id,
                cluster_id=welcome.cluster_id,
                highest_version=directive.version,
                observed=rounds[node],
            )
        return _World(await coordinator.records(), hellos, rounds)


def _response(data: bytes) -> Any:
    return wire.attach_response_from_proto(agent_service_pb2.AttachResponse.FromString(data))


def _hello(node: str) -> Hello:
    return Hello(
        job=_NODES.get(node, _TRAIN),
        node=node,
        incarnation=f"incarnation-of-{node}",
        attach_seq=1,
        job_spec=_SPECS[_NODES.get(node, _TRAIN)],
        node_spec=NodeSpec(local_world_size=2),
        observed=Observed(phase=AgentPhase.READY, offer=EndpointOffer(1, Endpoint("192.0.2.7", 4000))),
        capabilities=frozenset(Capability),
        agent_version="fuzz/1",
    )


def _running(directive: Any) -> Observed:
    assignment = directive.action.assignment
    workers = tuple(
        WorkerStatus(local_rank=rank, rank=assignment.first_rank + rank, pid=100 + rank, state=WorkerState.HEALTHY)
        for rank in range(2)
    )
    return Observed(
        version=directive.version,
        phase=AgentPhase.RUNNING,
        round=assignment.round,
        workers=workers,
        assignment=assignment,
    )


def _request(message: wire.AgentMessage, lease_id: int, seq: int) -> agent_service_pb2.AttachRequest:
    return wire.attach_request_to_proto(message, lease_id=lease_id, seq=seq, clock=None)


# --- inputs


def generate(rng: Random) -> bytes:
    """Mostly an agent that comes back and says something, among what operators and strangers say."""
    writer = _Writer(rng)
    for _ in range(rng.choice((1, 2, 3, 5, 8))):
        rng.choice(_MOVES)(writer)
    number = rng.choice((0, 1, *([2] * 5), *([_FLEET] * 5), _FLEET + 1))
    return bytes([number]) + pack(writer.steps)


class _Writer:
    """What an input is made of so far. ``open``: node and last seq by stream."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.steps: list[Step] = []
        self.open: list[tuple[str, int]] = []

    def add(self, kind: int, message: Message, before: bytes = b"") -> None:
        """A third of the messages are as they should be."""
        data = message.SerializeToString() if self.rng.random() < 0.35 else changed(self.rng, message)
        self.steps.append(Step(kind, (before + data)[:65535]))


def _attach(writer: _Writer) -> None:
    rng = writer.rng
    node = rng.choice(("node-0", "node-0", "node-1", "node-2", "node-x"))
    known = _world().hellos
    hello = known[node] if node in known and rng.random() < 0.8 else _hello(node)
    writer.open.append((node, 1))
    writer.add(_ATTACH, _request(replace(hello, attach_seq=hello.attach_seq + len(writer.open)), 0, 1))


def _say(writer: _Writer) -> None:
    if not writer.open:
        _attach(writer)
    rng = writer.rng
    number = rng.randrange(len(writer.open))
    node, seq = writer.open[number]
    writer.open[number] = node, seq + 1
    world = _world()
    lease_id = world.hellos[node].lease_id if node in world.hellos else rng.randint(1, 60)
    observed = world.rounds.get(node, Observed())
    writer.add(_SAY, _request(rng.choice(_SAID)(observed), lease_id, seq + 1), bytes([number]))


def _end(writer: _Writer) -> None:
    writer.steps.append(Step(_END, bytes([writer.rng.randrange(8)])))


def _wait(writer: _Writer) -> None:
    writer.steps.append(Step(_WAIT, writer.rng.choice((1, 1_000, 9_000, 31_500, 65_535)).to_bytes(2, "big")))


def _ask(writer: _Writer) -> None:
    number = writer.rng.randrange(len(_METHODS))
    writer.add(_FIRST_METHOD + number, writer.rng.choice(_requests()[number]))


def _again(writer: _Writer) -> None:
    """Something is said twice."""
    if writer.steps:
        writer.steps.append(writer.rng.choice(writer.steps))


_MOVES: tuple[Callable[[_Writer], None], ...] = (
    _attach,
    _attach,
    _say,
    _say,
    _say,
    _ask,
    _ask,
    _ask,
    _wait,
    _end,
    _again,
)

_FAILURE = WorkerFailure(
    node="node-0",
    local_rank=0,
    rank=0,
    pid=100,
    exit_code=1,
    message="no",
    traceback="",
    fail_time_ms=1_700_000_000_000,
)


def _stopped(observed: Observed) -> Observed:
    return replace(observed, phase=AgentPhase.FAILED, workers=())


_SAID: tuple[Callable[[Observed], wire.AgentMessage], ...] = (
    lambda observed: observed,
    lambda observed: replace(observed, failures=(_FAILURE,)),
    lambda observed: replace(observed, phase=AgentPhase.SUCCEEDED, workers=()),
    lambda observed: replace(_stopped(observed), failures=(_FAILURE,)),
    lambda observed: replace(
        observed, phase=AgentPhase.READY, workers=(), offer=EndpointOffer(2, Endpoint("192.0.2.7", 4001))
    ),
    lambda observed: replace(observed, fenced=True),
    lambda observed: replace(_stopped(observed), unkillable_pids=(7, 8)),
    lambda observed: wire.Heartbeat(observed.version, observed.watchdog),
    lambda observed: wire.Goodbye("DONE", "that was all"),
)


@functools.cache
def _requests() -> tuple[tuple[Message, ...], ...]:
    """What is asked of each of ``_METHODS``."""
    name, parent, node = f"jobs/{_TRAIN}", f"jobs/{_TRAIN}", f"jobs/{_TRAIN}/nodes/node-1"
    gone = [
        agent_service_pb2.ReportGoneRequest(
            job=hello.job, job_uid=hello.job_uid, lease_id=hello.lease_id, incarnation=hello.incarnation, message="gone"
        )
        for hello in _world().hellos.values()
    ]
    return (
        (jobs_pb.GetJobRequest(name=name), jobs_pb.GetJobRequest(name=f"jobs/{_OTHER}")),
        _listings(),
        (jobs_pb.ListNodesRequest(parent=parent, page_token=next_page_token(f"{parent}/nodes", "node-0")),),
        (jobs_pb.ListWorkersRequest(parent=parent, page_token=next_page_token(f"{parent}/workers", "0")),),
        (
            jobs_pb.ListJobEventsRequest(
                parent=parent, page_size=2, page_token=next_page_token(f"{parent}/events", "4")
            ),
        ),
        (jobs_pb.WatchJobRequest(name=name), jobs_pb.WatchJobRequest(name=name, resume_token=_watch_token())),
        (jobs_pb.CancelJobRequest(name=name, reason="enough"),),
        (jobs_pb.RestartJobRequest(name=name),),
        (jobs_pb.DrainNodeRequest(name=node),),
        tuple(gone),
        (cluster_service_pb2.GetClusterRequest(),),
        _updates(name),
        (jobs_pb.HoldJobRequest(name=name), jobs_pb.HoldJobRequest(name=name, hold_duration=Duration(seconds=5))),
        (jobs_pb.ReleaseJobRequest(name=name, reason="go on"),),
    )


def _listings() -> tuple[Message, ...]:
    states = [types_pb2.JOB_STATE_RUNNING, types_pb2.JOB_STATE_GATHERING]
    token = next_page_token("jobs that are GATHERING, RUNNING", _OTHER)
    return (
        jobs_pb.ListJobsRequest(),
        jobs_pb.ListJobsRequest(page_size=1),
        jobs_pb.ListJobsRequest(page_size=1, states=states, page_token=token),
    )


def _updates(name: str) -> tuple[Message, ...]:
    job = jobs_pb.Job(name=name, labels={"team": "vision"})
    job.spec.max_restarts, job.spec.max_nodes = 5, 4
    paths = ["spec.max_restarts", "spec.min_nodes", "labels"]
    return jobs_pb.UpdateJobRequest(job=job), jobs_pb.UpdateJobRequest(job=job, update_mask=FieldMask(paths=paths))


def _watch_token() -> str:
    """After the fifth record."""
    world = _world()
    known = world.hellos["node-0"]
    return str(WatchToken(known.cluster_id, known.job_uid, 5, mark_of(world.records[4])))


TARGET = Target(check=check, generate=generate)
