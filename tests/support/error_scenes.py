"""Scenes in which every method is called, and what each call must end with.

A scene is a coordinator in some condition, shared by all calls of it. They run side by side, so each has a job of its
own to change. The tables of calls are static: what is not in one of them is not tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.json_format import MessageToDict

from rallypoint import wire
from rallypoint.errors import Reason
from rallypoint.model import AgentPhase, Hello, Observed, Version, Welcome
from rallypoint.v1 import cluster_service_pb2, job_service_pb2
from rallypoint.v1.cluster_service_pb2_grpc import ClusterServiceStub
from rallypoint_coordinator.core.history import EPOCH_LEAP_MAX
from rallypoint_coordinator.security.policy import Role
from rallypoint_coordinator.security.quotas import Failures
from rallypoint_coordinator.security.token_file import TokenFile
from rallypoint_coordinator.server.driver import DriverOptions
from rallypoint_coordinator.server.guard import Guard
from rallypoint_coordinator.server.server import Server
from rallypoint_coordinator.server.watch_log import LogBounds
from rallypoint_coordinator.server.watch_tokens import WatchToken
from rallypoint_coordinator.server.watches import WatchOptions
from rallypoint_coordinator.store.journal import AppendResult, Fenced, NotWritten
from rallypoint_coordinator.store.memory import MemoryJournal
from support.held_journal import HeldJournal
from support.tokens import grant, token, token_line, write_lines
from support.wire_client import SPEC, TIMEOUT_S, Coordinator, WireAgent, hello, running_coordinator

REFLECTION, TO_BE_REVOKED, OF_ANOTHER_JOB = 1, 2, 3
"""Numbers of tokens."""

ALONE = replace(SPEC, min_nodes=1, max_nodes=1)


async def _nothing() -> None:
    pass


@dataclass
class Scene:
    """``agents``: by their jobs; a stream ends with the last reference to it. ``welcomes``: what they were told.

    ``before_each`` call, and ``meanwhile``: while all of them are on their way.
    """

    coordinator: Coordinator
    agents: dict[str, WireAgent] = field(default_factory=dict)
    welcomes: dict[str, Welcome] = field(default_factory=dict)
    before_each: Callable[[], Awaitable[None]] = _nothing
    meanwhile: Callable[[], Awaitable[None]] = _nothing

    async def attach(self, job: str, **changes: Any) -> WireAgent:
        agent = self.agents[job] = WireAgent(self.coordinator)
        self.welcomes[job] = await agent.attach(hello(job=job, **changes))
        return agent


Request: TypeAlias = Callable[[Scene], Any]


class Try(NamedTuple):
    """One call. ``reason`` None: it succeeds. ``token``: the number of the one that it shows."""

    method: str
    reason: Reason | None
    request: Request
    token: int | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of scene. ``at_once``: so many calls run side by side."""

    begin: Callable[[Path], AbstractAsyncContextManager[Scene]]
    tries: Sequence[Try]
    at_once: int = 4


# --- What is asked


def saying(**fields: Any) -> Request:
    return lambda scene: fields


def attaching(job: str, *, seq: int = 1, node: str = "node-a", **changes: Any) -> Request:
    first: Hello = hello(node, job=job, **changes)
    return lambda scene: MessageToDict(wire.attach_request_to_proto(first, lease_id=0, seq=seq))


def reporting(job: str, **changes: Any) -> Request:
    def request(scene: Scene) -> Any:
        uid, lease = scene.welcomes[job].job_uid, scene.welcomes[job].lease_id
        report = wire.ReportGone(job=job, job_uid=uid, lease_id=lease, incarnation=hello().incarnation)
        return MessageToDict(wire.report_gone_to_proto(replace(report, **changes)))

    return request


def updating(name: str, *, max_restarts: int = 5, etag: str = "") -> Request:
    return saying(job={"name": name, "etag": etag, "spec": {"maxRestarts": max_restarts}})


NOBODYS_TOKEN = str(WatchToken("elsewhere", "nobody", 1, 1))
LEAP = Version(2 * EPOCH_LEAP_MAX, 1)

USUAL: Mapping[str, Request] = {
    "AgentService/Attach": attaching("usual", node="node-b"),
    "AgentService/ReportGone": lambda scene: {
        "job": "usual",
        "jobUid": "some-life",
        "leaseId": "7",
        "incarnation": hello().incarnation,
    },
    "ClusterService/GetCluster": saying(),
    "JobService/GetJob": saying(name="jobs/usual"),
    "JobService/ListJobs": saying(),
    "JobService/ListNodes": saying(parent="jobs/usual"),
    "JobService/ListWorkers": saying(parent="jobs/usual"),
    "JobService/WatchJob": saying(name="jobs/usual"),
    "JobService/ListJobEvents": saying(parent="jobs/usual"),
    "JobService/CancelJob": saying(name="jobs/usual"),
    "JobService/RestartJob": saying(name="jobs/usual"),
    "JobService/DrainNode": saying(name="jobs/usual/nodes/node-a"),
    "JobService/UpdateJob": updating("jobs/usual"),
    "JobService/HoldJob": saying(name="jobs/usual"),
    "JobService/ReleaseJob": saying(name="jobs/usual"),
}
"""A request of each method with which nothing is wrong; what comes of it is the scene's matter."""


def all_end_with(reason: Reason, token: int | None = None, *, but: str = "") -> list[Try]:
    """``but``: the one method that does not, for which this is no hindrance."""
    return [Try(method, None if method == but else reason, request, token) for method, request in USUAL.items()]


OPEN = [
    Try("AgentService/Attach", None, attaching("fresh")),
    Try("AgentService/Attach", Reason.INVALID_FIELD, attaching("fresh", seq=2)),
    Try("AgentService/Attach", Reason.SPEC_MISMATCH, attaching("waiting", node="node-b", job_spec=ALONE)),
    Try("AgentService/Attach", Reason.NODE_NAME_IN_USE, attaching("waiting", incarnation="another-one")),
    Try("AgentService/Attach", Reason.NODE_NAME_BUSY, attaching("broken", incarnation="another-one")),
    Try("AgentService/Attach", Reason.WRONG_CLUSTER, attaching("fresh", cluster_id="other", highest_version=LEAP)),
    Try("AgentService/Attach", Reason.UNSUPPORTED_VERSION, attaching("fresh", protocol_version=99)),
    Try("AgentService/Attach", Reason.UNKNOWN_LIFE, attaching("unheard-of", job_uid="nobody")),
    Try("AgentService/Attach", Reason.SUPERSEDED, attaching("waiting")),
    Try("AgentService/Attach", Reason.JOURNAL_BEHIND, attaching("fresh", highest_version=LEAP)),
    Try("AgentService/ReportGone", None, reporting("buried")),
    Try("AgentService/ReportGone", Reason.INVALID_FIELD, reporting("waiting", lease_id=0)),
    Try("AgentService/ReportGone", Reason.UNKNOWN_LIFE, reporting("waiting", job_uid="nobody")),
    Try("AgentService/ReportGone", Reason.UNKNOWN_LEASE, reporting("waiting", lease_id=10**9)),
    Try("ClusterService/GetCluster", None, saying()),
    Try("JobService/GetJob", None, saying(name="jobs/waiting")),
    Try("JobService/GetJob", Reason.JOB_NOT_FOUND, saying(name="jobs/nothing")),
    Try("JobService/GetJob", Reason.INVALID_FIELD, saying(name="nothing")),
    Try("JobService/ListJobs", None, saying()),
    Try("JobService/ListJobs", None, saying(states=["JOB_STATE_RUNNING"])),
    Try("JobService/ListJobs", Reason.INVALID_FIELD, saying(page_size=-1)),
    Try("JobService/ListJobs", Reason.INVALID_FIELD, saying(states=["JOB_STATE_UNSPECIFIED"])),
    Try("JobService/ListNodes", None, saying(parent="jobs/waiting")),
    Try("JobService/ListNodes", Reason.JOB_NOT_FOUND, saying(parent="jobs/nothing")),
    Try("JobService/ListNodes", Reason.INVALID_FIELD, saying(parent="jobs/waiting", page_token="?")),
    Try("JobService/ListWorkers", None, saying(parent="jobs/waiting")),
    Try("JobService/ListWorkers", Reason.JOB_NOT_FOUND, saying(parent="jobs/nothing")),
    Try("JobService/ListWorkers", Reason.INVALID_FIELD, saying(parent="waiting")),
    Try("JobService/WatchJob", None, saying(name="jobs/over")),
    Try("JobService/WatchJob", Reason.JOB_NOT_FOUND, saying(name="jobs/nothing")),
    Try("JobService/WatchJob", Reason.INVALID_FIELD, saying(name="jobs/waiting", resume_token="?")),
    Try("JobService/WatchJob", Reason.WATCH_EXPIRED, saying(name="jobs/waiting", resume_token=NOBODYS_TOKEN)),
    Try("JobService/ListJobEvents", None, saying(parent="jobs/waiting")),
    Try("JobService/ListJobEvents", Reason.JOB_NOT_FOUND, saying(parent="jobs/nothing")),
    Try("JobService/ListJobEvents", Reason.INVALID_FIELD, saying(parent="jobs/waiting", page_token="?")),
    Try("JobService/CancelJob", None, saying(name="jobs/to-cancel")),
    Try("JobService/CancelJob", Reason.JOB_NOT_FOUND, saying(name="jobs/nothing")),
    Try("JobService/CancelJob", Reason.JOB_DECIDED, saying(name="jobs/over")),
    Try("JobService/CancelJob", Reason.INVALID_FIELD, saying(name="jobs/waiting", reason="x" * 2_000)),
    Try("JobService/RestartJob", None, saying(name="jobs/running")),
    Try("JobService/RestartJob", Reason.JOB_NOT_FOUND, saying(name="jobs/nothing")),
    Try("JobService/RestartJob", Reason.JOB_DECIDED, saying(name="jobs/over")),
    Try("JobService/RestartJob", Reason.NO_ROUND_RUNS, saying(name="jobs/waiting")),
    Try("JobService/RestartJob", Reason.INVALID_FIELD, saying(name="jobs/")),
    Try("JobService/DrainNode", None, saying(name="jobs/to-drain/nodes/node-a")),
    Try("JobService/DrainNode", Reason.JOB_NOT_FOUND, saying(name="jobs/nothing/nodes/node-a")),
    Try("JobService/DrainNode", Reason.NODE_NOT_FOUND, saying(name="jobs/waiting/nodes/node-x")),
    Try("JobService/DrainNode", Reason.JOB_DECIDED, saying(name="jobs/over/nodes/node-a")),
    Try("JobService/DrainNode", Reason.INVALID_FIELD, saying(name="jobs/waiting")),
    Try("JobService/UpdateJob", None, updating("jobs/waiting")),
    Try("JobService/UpdateJob", Reason.JOB_NOT_FOUND, updating("jobs/nothing")),
    Try("JobService/UpdateJob", Reason.JOB_DECIDED, updating("jobs/over")),
    Try("JobService/UpdateJob", Reason.ETAG_MISMATCH, updating("jobs/waiting", max_restarts=6, etag="old")),
    Try("JobService/UpdateJob", Reason.INVALID_FIELD, updating("jobs/waiting", max_restarts=-1)),
    Try("JobService/HoldJob", None, saying(name="jobs/waiting")),
    Try("JobService/HoldJob", Reason.JOB_NOT_FOUND, saying(name="jobs/nothing")),
    Try("JobService/HoldJob", Reason.JOB_DECIDED, saying(name="jobs/over")),
    Try("JobService/HoldJob", Reason.INVALID_FIELD, saying(name="jobs/waiting", hold_duration="0s")),
    Try("JobService/ReleaseJob", None, saying(name="jobs/waiting")),
    Try("JobService/ReleaseJob", Reason.JOB_NOT_FOUND, saying(name="jobs/nothing")),
    Try("JobService/ReleaseJob", Reason.JOB_DECIDED, saying(name="jobs/over")),
    Try("JobService/ReleaseJob", Reason.INVALID_FIELD, saying(name="waiting")),
]
"""A coordinator that serves everybody."""


# --- How the coordinators come to be as they are


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Scene]:
    """With jobs in each state that a call needs."""
    async with running_coordinator() as coordinator:
        scene = Scene(coordinator)
        for job in ("waiting", "broken", "buried", "to-cancel", "to-drain"):
            await scene.attach(job)
        for job in ("running", "over"):
            await (await scene.attach(job, job_spec=ALONE)).run()
        over = scene.agents["over"]
        await over.send(Observed(phase=AgentPhase.SUCCEEDED, round=0, version=over.version))
        await over.acked(over.seq)
        scene.agents.pop("broken").cancel()
        await until_detached(coordinator, "broken")
        yield scene


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not await holds():  # noqa: ASYNC110  # the coordinator has no event for it
            await asyncio.sleep(0.01)


async def until_detached(coordinator: Coordinator, job: str) -> None:
    request = job_service_pb2.ListNodesRequest(parent=f"jobs/{job}")

    async def is_detached() -> bool:
        return not any(node.attached for node in (await coordinator.jobs.ListNodes(request)).nodes)

    await until(is_detached)


def locked(tmp_path: Path, **bounds: Any) -> Guard:
    lines = [
        token_line(grant("reflection", Role.READ), REFLECTION),
        token_line(grant("to-be-revoked", *Role), TO_BE_REVOKED),
        token_line(grant("another", Role.AGENT, job="another"), OF_ANOTHER_JOB),
    ]
    return Guard(TokenFile(write_lines(tmp_path / "tokens", lines)), **bounds)


def refusing_strangers(burst: float) -> Callable[[Path], AbstractAsyncContextManager[Scene]]:
    """``burst``: so many of their calls are told why."""

    @asynccontextmanager
    async def begin(tmp_path: Path) -> AsyncIterator[Scene]:
        guard = locked(tmp_path, failures=Failures(burst=burst, per_s=0.001))
        async with running_coordinator(server=Server(MemoryJournal(), guard=guard)) as coordinator:
            yield Scene(coordinator)

    return begin


@asynccontextmanager
async def revoking(tmp_path: Path) -> AsyncIterator[Scene]:
    """The credentials of all calls are revoked while the journal keeps every one of them waiting."""
    journal, guard = HeldJournal(), locked(tmp_path)
    async with running_coordinator(server=Server(journal, guard=guard)) as coordinator:
        scene = Scene(coordinator)
        journal.is_free.clear()
        blocker = WireAgent(coordinator, metadata=(("authorization", f"Bearer {token(TO_BE_REVOKED)}"),))
        await blocker.send(hello(job="blocker"))

        async def revoke() -> None:
            # Each call has a reflection beside it, for as long as it lasts.
            async def all_wait() -> bool:
                return guard.open_calls == 2 * len(USUAL) + 1

            await until(all_wait)
            write_lines(tmp_path / "tokens", [token_line(grant("reflection", Role.READ), REFLECTION)])

        scene.meanwhile = revoke
        yield scene
        journal.is_free.set()


class BrokenJournal(MemoryJournal):
    """Takes everything, until there is another answer."""

    answer: AppendResult | None = None

    async def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        return self.answer or await super().append(expected_revision, records)


def broken_by(answer: AppendResult) -> Callable[[Path], AbstractAsyncContextManager[Scene]]:
    """The journal said this, and is not tried again before the scene is over."""

    @asynccontextmanager
    async def begin(tmp_path: Path) -> AsyncIterator[Scene]:
        journal = BrokenJournal()
        options = DriverOptions(retry_delay_s=600.0, retry_delay_max_s=600.0)
        async with running_coordinator(server=Server(journal, options)) as coordinator:
            journal.answer = answer
            first = WireAgent(coordinator)
            await first.send(hello())
            await first.refusal()
            yield Scene(coordinator)

    return begin


@asynccontextmanager
async def ending(tmp_path: Path) -> AsyncIterator[Scene]:
    """It ends because nobody came, and has yet to be told to stop."""
    server = Server(MemoryJournal(), DriverOptions(idle_after_s=0.01))
    async with running_coordinator(server=server) as coordinator:
        await server.wait_idle()
        yield Scene(coordinator)


@asynccontextmanager
async def crowded(tmp_path: Path) -> AsyncIterator[Scene]:
    """One call at a time: reflection, which lasts as long as the call that it is for."""
    guard = Guard(calls_per_peer=1)
    async with running_coordinator(server=Server(MemoryJournal(), guard=guard)) as coordinator:

        async def until_quiet() -> None:
            async def is_quiet() -> bool:
                return guard.open_calls == 0

            await until(is_quiet)

        yield Scene(coordinator, before_each=until_quiet)


@asynccontextmanager
async def outpaced(tmp_path: Path) -> AsyncIterator[Scene]:
    """Of a life one event is kept, so that whoever is not told of it at once is too slow."""
    options = DriverOptions(watches=WatchOptions(log=LogBounds(life_events=1)))
    async with running_coordinator(server=Server(MemoryJournal(), options)) as coordinator:
        scene = Scene(coordinator)
        await scene.attach("usual")

        async def decide() -> None:
            stub: Any = ClusterServiceStub(coordinator.channel)
            request = cluster_service_pb2.GetClusterRequest()

            async def is_watched() -> bool:
                answer: cluster_service_pb2.GetClusterResponse = await stub.GetCluster(request)
                return answer.cluster.counts.watches == 1

            await until(is_watched)
            scene.agents["second"] = WireAgent(coordinator)
            await scene.agents["second"].attach(hello("node-b", job="usual"))

        scene.meanwhile = decide
        yield scene


GET_CLUSTER = "ClusterService/GetCluster"

SCENES: Mapping[str, Kind] = {
    "it serves": Kind(serving, OPEN),
    "no credentials": Kind(refusing_strangers(1_000), all_end_with(Reason.UNAUTHENTICATED)),
    "others' credentials": Kind(refusing_strangers(1_000), all_end_with(Reason.PERMISSION_DENIED, OF_ANOTHER_JOB)),
    "too often without credentials": Kind(refusing_strangers(0), all_end_with(Reason.TOO_MANY_FAILURES)),
    "credentials of yesterday": Kind(
        revoking, all_end_with(Reason.CREDENTIALS_CHANGED, TO_BE_REVOKED), at_once=len(USUAL)
    ),
    "too many calls": Kind(crowded, all_end_with(Reason.LIMIT_REACHED), at_once=1),
    "a full disk": Kind(broken_by(NotWritten("the disk is full")), all_end_with(Reason.RECOVERING, but=GET_CLUSTER)),
    "another coordinator": Kind(broken_by(Fenced(99)), all_end_with(Reason.FENCED, but=GET_CLUSTER)),
    "the end": Kind(ending, all_end_with(Reason.SHUTTING_DOWN, but=GET_CLUSTER)),
    "too many events": Kind(
        outpaced, [Try("JobService/WatchJob", Reason.WATCH_TOO_SLOW, USUAL["JobService/WatchJob"])]
    ),
}
