"""JobService: what people and tools read and ask for. Every answer is made by the driver, of durable facts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import grpc
import grpc.aio

from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.model import JobState
from rallypoint.rpc_status import abort
from rallypoint.rules import Each, Rule, Shape, fault_in, refusal_of
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from rallypoint.wire.scalars import instant_from_proto
from rallypoint.wire.types import JOB_STATES
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.events import Request, Stamp
from rallypoint_coordinator.core.state import Life
from rallypoint_coordinator.server import views
from rallypoint_coordinator.server.caller import caller_name
from rallypoint_coordinator.server.driver import Driver, Query
from rallypoint_coordinator.server.encoded import add_encoded
from rallypoint_coordinator.server.event_listing import EventListing
from rallypoint_coordinator.server.job_names import invalid, parse_job
from rallypoint_coordinator.server.operator_requests import OperatorRequest, operator_asked
from rallypoint_coordinator.server.outbox import Closing
from rallypoint_coordinator.server.pages import PAGE_SIZE_MAX, fill, next_page_token, page_size, page_start
from rallypoint_coordinator.server.peers import peer_address
from rallypoint_coordinator.server.watch_tokens import parse_watch_token
from rallypoint_coordinator.server.watches import Watch, Watches

EVENT_KINDS_MAX = 100

JOBS_LOOKED_AT = PAGE_SIZE_MAX
"""For one page of jobs, whether they are in the states that are asked for or not: the driver waits meanwhile."""

STATES_MAX = 32

_LIST_JOBS = Shape(
    {"states": Each(STATES_MAX, Rule("be a state of jobs", lambda number: JOB_STATES.member(number) is not None))}
)

OPENING_WATCHES = 64
"""So many watches are opened at a time, since each reads the job: the others of a thousand that come back wait."""

A = TypeVar("A")
R = TypeVar("R")


class JobService(JobServiceServicer):
    """Each method makes a query of its request; the driver runs it while nothing changes."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._opening = asyncio.Semaphore(OPENING_WATCHES)

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        return await self._answer(get_job, request, context)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        return await self._answer(list_jobs, request, context)

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        return await self._answer(list_nodes, request, context)

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Any) -> pb.ListWorkersResponse:
        return await self._answer(list_workers, request, context)

    async def ListJobEvents(self, request: pb.ListJobEventsRequest, context: Any) -> pb.ListJobEventsResponse:
        listing = await self._answer(partial(list_job_events, self._driver.watches), request, context)
        return await listing.page()

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> None:  # type: ignore[override]
        """Writes messages that are encoded already: see :func:`add_job_service`."""
        async with self._opening:
            watch = await self._answer(partial(watch_job, self._driver.watches), request, context)
        watches = self._driver.watches
        try:
            watches.enter(watch)
            await context.send_initial_metadata(())
            end = await _tell(watch, context)
        except RefusedError as error:
            end = Closing(error.refusal)
        except grpc.aio.BaseError:
            return  # nobody is there any more
        finally:
            watches.leave(watch)
        if end.refusal is not None:
            await abort(context, end.refusal)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        was_news = await self._ask(Request.CANCEL, request, context)
        return pb.CancelJobResponse(was_news=was_news)

    async def RestartJob(self, request: pb.RestartJobRequest, context: Any) -> pb.RestartJobResponse:
        await self._ask(Request.RESTART, request, context)
        return pb.RestartJobResponse()

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Any) -> pb.DrainNodeResponse:
        was_news = await self._ask(Request.DRAIN, request, context)
        return pb.DrainNodeResponse(was_news=was_news)

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Any) -> pb.UpdateJobResponse:
        try:
            event_for = operator_asked(Request.UPDATE, request, _asked_by(context))
            look = get_job(pb.GetJobRequest(name=request.job.name))
            was_news, now = await self._driver.ask_and_read(event_for, look)
        except RefusedError as error:
            await abort(context, error.refusal)
        return pb.UpdateJobResponse(job=now.job, was_news=was_news)

    async def HoldJob(self, request: pb.HoldJobRequest, context: Any) -> pb.HoldJobResponse:
        was_news = await self._ask(Request.HOLD, request, context)
        return pb.HoldJobResponse(was_news=was_news)

    async def ReleaseJob(self, request: pb.ReleaseJobRequest, context: Any) -> pb.ReleaseJobResponse:
        was_news = await self._ask(Request.RELEASE, request, context)
        return pb.ReleaseJobResponse(was_news=was_news)

    async def _ask(self, kind: Request, request: OperatorRequest, context: Any) -> bool:
        try:
            return await self._driver.ask(operator_asked(kind, request, _asked_by(context)))
        except RefusedError as error:
            await abort(context, error.refusal)

    async def _answer(self, query_for: Callable[[R], Query[A]], request: R, context: Any) -> A:
        try:
            return await self._driver.read(query_for(request))
        except RefusedError as error:
            await abort(context, error.refusal)


def _asked_by(context: Any) -> str:
    """Whom records and events name."""
    return " at ".join(filter(None, (caller_name.get(), peer_address(context.peer())))) or "an operator"


async def _tell(watch: Watch, context: Any) -> Closing:
    while not isinstance(message := await watch.next(), Closing):
        await context.write(message)
    return message


def add_job_service(service: JobService, server: grpc.aio.Server) -> None:
    """Serve it. WatchJob's messages go out as they are: what a thousand watchers are told is encoded once."""
    handle: grpc.RpcMethodHandler[pb.WatchJobRequest, bytes]
    handle = grpc.unary_stream_rpc_method_handler(service.WatchJob, pb.WatchJobRequest.FromString)
    name = pb.DESCRIPTOR.services_by_name["JobService"].full_name
    add_encoded(server, name, {"WatchJob": handle}, lambda: add_JobServiceServicer_to_server(service, server))


# Each of these raises RefusedError, for the request when called, for what it names when the query runs.


def get_job(request: pb.GetJobRequest) -> Query[pb.GetJobResponse]:
    job = parse_job(request.name, "name")

    def query(cluster: Cluster, stamp: Stamp) -> pb.GetJobResponse:
        life = _life(cluster, job)
        return pb.GetJobResponse(job=views.job(life, cluster.epoch, stamp), round_changes=views.round_changes(life))

    return query


def list_jobs(request: pb.ListJobsRequest) -> Query[pb.ListJobsResponse]:
    size, states = page_size(request.page_size), states_asked_for(request)
    listing = f"jobs that are {', '.join(sorted(states))}" if request.states else "jobs"
    after = page_start(listing, request.page_token) or ""

    def query(cluster: Cluster, stamp: Stamp) -> pb.ListJobsResponse:
        names = cluster.job_names(after, JOBS_LOOKED_AT + 1)
        page, more = fill(views.jobs(cluster, stamp, names[:JOBS_LOOKED_AT], states), size)
        token = ""
        if more:
            token = next_page_token(listing, _last_part(page[-1].name))
        elif len(names) > JOBS_LOOKED_AT:
            token = next_page_token(listing, names[JOBS_LOOKED_AT - 1])
        return pb.ListJobsResponse(jobs=page, next_page_token=token)

    return query


def states_asked_for(request: pb.ListJobsRequest) -> set[JobState]:
    """Of jobs that are to be listed: all states, if none is named."""
    fault = fault_in(request, _LIST_JOBS, "")
    if fault is not None:
        raise RefusedError(refusal_of(fault))
    return {state for number in request.states if (state := JOB_STATES.member(number))} or set(JobState)


def list_nodes(request: pb.ListNodesRequest) -> Query[pb.ListNodesResponse]:
    job, size = parse_job(request.parent, "parent"), page_size(request.page_size)
    listing = f"{request.parent}/nodes"
    after = page_start(listing, request.page_token) or ""

    def query(cluster: Cluster, stamp: Stamp) -> pb.ListNodesResponse:
        page, more = fill(views.nodes(_life(cluster, job), stamp, after, size + 1), size)
        token = next_page_token(listing, _last_part(page[-1].name)) if more else ""
        return pb.ListNodesResponse(nodes=page, next_page_token=token)

    return query


def list_workers(request: pb.ListWorkersRequest) -> Query[pb.ListWorkersResponse]:
    job, size = parse_job(request.parent, "parent"), page_size(request.page_size)
    listing = f"{request.parent}/workers"
    after = parse_number(page_start(listing, request.page_token), -1)

    def query(cluster: Cluster, stamp: Stamp) -> pb.ListWorkersResponse:
        page, more = fill(views.workers(_life(cluster, job), stamp, after), size)
        token = next_page_token(listing, str(page[-1].rank)) if more else ""
        return pb.ListWorkersResponse(workers=page, next_page_token=token)

    return query


def list_job_events(watches: Watches, request: pb.ListJobEventsRequest) -> Query[EventListing]:
    job, size = parse_job(request.parent, "parent"), page_size(request.page_size)
    if len(request.kinds) > EVENT_KINDS_MAX:
        raise invalid("kinds", f"kinds must have at most {EVENT_KINDS_MAX} entries")
    listing, kinds, since_ms = f"{request.parent}/events", set(request.kinds), instant_from_proto(request.since_time)
    after = parse_number(page_start(listing, request.page_token), 0)

    def is_asked_for(event: pb.JobEvent) -> bool:
        return (not kinds or event.kind in kinds) and instant_from_proto(event.event_time) >= since_ms

    def query(cluster: Cluster, stamp: Stamp) -> EventListing:
        feed = watches.log.feed(_life(cluster, job).facts.uid)
        return EventListing(listing, feed, after, stamp.revision, size, is_asked_for)

    return query


def watch_job(watches: Watches, request: pb.WatchJobRequest) -> Query[Watch]:
    job = parse_job(request.name, "name")
    token = parse_watch_token(request.resume_token) if request.resume_token else None

    def query(cluster: Cluster, stamp: Stamp) -> Watch:
        if token is not None:
            return watches.resume(job, token, cluster)
        return watches.begin(_life(cluster, job), cluster.epoch, stamp)

    return query


def parse_number(after: str | None, first: int) -> int:
    """After which number a page begins; ``first`` for the first page. A token is ours, but may have been made up."""
    if after is None:
        return first
    if after.isascii() and after.isdecimal():
        return int(after)
    message = "page_token must be a next_page_token of the same list"
    raise RefusedError(Refusal(reason=Reason.INVALID_FIELD, message=message, field="page_token"))


def _life(cluster: Cluster, job: str) -> Life:
    life = cluster.current(job)
    if life is None:
        message = f"there is no job {job}; ListJobs lists those there are"
        raise RefusedError(Refusal(reason=Reason.JOB_NOT_FOUND, message=message, metadata={"job": job}))
    return life


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]
