"""JobService: what people and tools read and ask for. Every answer is made by the driver, of durable facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.rpc_status import abort
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1.job_service_pb2_grpc import JobServiceServicer
from rallypoint.validation import JOB_NAME, NODE_NAME
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.events import OperatorAsked, Request, Stamp
from rallypoint_coordinator.core.state import Life
from rallypoint_coordinator.server import views
from rallypoint_coordinator.server.caller import caller_name
from rallypoint_coordinator.server.driver import Driver, Query
from rallypoint_coordinator.server.pages import fill, next_page_token, page_size, page_start
from rallypoint_coordinator.server.peers import peer_address

REASON_BYTES = 1024

OperatorRequest: TypeAlias = pb.CancelJobRequest | pb.RestartJobRequest | pb.DrainNodeRequest

A = TypeVar("A")
R = TypeVar("R")


class JobService(JobServiceServicer):
    """Each method makes a query of its request; the driver runs it while nothing changes."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        return await self._answer(get_job, request, context)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        return await self._answer(list_jobs, request, context)

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        return await self._answer(list_nodes, request, context)

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Any) -> pb.ListWorkersResponse:
        return await self._answer(list_workers, request, context)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        was_news = await self._ask(Request.CANCEL, request, context)
        return pb.CancelJobResponse(was_news=was_news)

    async def RestartJob(self, request: pb.RestartJobRequest, context: Any) -> pb.RestartJobResponse:
        await self._ask(Request.RESTART, request, context)
        return pb.RestartJobResponse()

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Any) -> pb.DrainNodeResponse:
        was_news = await self._ask(Request.DRAIN, request, context)
        return pb.DrainNodeResponse(was_news=was_news)

    async def _ask(self, kind: Request, request: OperatorRequest, context: Any) -> bool:
        by = " at ".join(filter(None, (caller_name.get(), peer_address(context.peer())))) or "an operator"
        try:
            return await self._driver.ask(operator_asked(kind, request, by))
        except RefusedError as error:
            await abort(context, error.refusal)

    async def _answer(self, query_for: Callable[[R], Query[A]], request: R, context: Any) -> A:
        try:
            return await self._driver.read(query_for(request))
        except RefusedError as error:
            await abort(context, error.refusal)


# Each of these raises RefusedError, for the request when called, for what it names when the query runs.


def operator_asked(kind: Request, request: OperatorRequest, by: str) -> Callable[[int], OperatorAsked]:
    """The event of an operator's request, once its call has a number."""
    job, node = parse_node(request.name, "name") if kind is Request.DRAIN else (parse_job(request.name, "name"), "")
    if len(request.reason.encode()) > REASON_BYTES:
        raise _invalid("reason", f"reason must have at most {REASON_BYTES} bytes")
    return lambda call: OperatorAsked(call=call, job=job, request=kind, by=by, reason=request.reason, node=node)


def get_job(request: pb.GetJobRequest) -> Query[pb.GetJobResponse]:
    job = parse_job(request.name, "name")

    def query(cluster: Cluster, stamp: Stamp) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=views.job(_life(cluster, job), cluster.epoch, stamp))

    return query


def list_jobs(request: pb.ListJobsRequest) -> Query[pb.ListJobsResponse]:
    size = page_size(request.page_size)
    after = page_start("jobs", request.page_token) or ""

    def query(cluster: Cluster, stamp: Stamp) -> pb.ListJobsResponse:
        page, more = fill(views.jobs(cluster, stamp, after), size)
        token = next_page_token("jobs", _last_part(page[-1].name)) if more else ""
        return pb.ListJobsResponse(jobs=page, next_page_token=token)

    return query


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
    after = parse_rank(page_start(listing, request.page_token))

    def query(cluster: Cluster, stamp: Stamp) -> pb.ListWorkersResponse:
        page, more = fill(views.workers(_life(cluster, job), stamp, after), size)
        token = next_page_token(listing, str(page[-1].rank)) if more else ""
        return pb.ListWorkersResponse(workers=page, next_page_token=token)

    return query


def parse_job(name: str, field: str) -> str:
    """The job in ``jobs/{job}``. Raises RefusedError."""
    collection, _, job = name.partition("/")
    if collection == "jobs" and JOB_NAME.holds(job):
        return job
    raise _invalid(field, f"{field} must be jobs/JOB, where JOB must {JOB_NAME.must}")


def parse_node(name: str, field: str) -> tuple[str, str]:
    """The job and the node in ``jobs/{job}/nodes/{node}``. Raises RefusedError."""
    parent, _, node = name.rpartition("/nodes/")
    if not NODE_NAME.holds(node):
        raise _invalid(field, f"{field} must be jobs/JOB/nodes/NODE, where NODE must {NODE_NAME.must}")
    return parse_job(parent, field), node


def _invalid(field: str, message: str) -> RefusedError:
    return RefusedError(Refusal(reason=Reason.INVALID_FIELD, message=message, field=field, metadata={"field": field}))


def parse_rank(after: str | None) -> int:
    """The rank after which a page begins; all ranks follow -1. A token is ours, but a client may have made it up."""
    if after is None:
        return -1
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
