"""The coordinator as a process serves it: the driver, the gRPC server around it, and their end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from rallypoint.errors import Reason, Refusal
from rallypoint.v1 import agent_service_pb2, cluster_service_pb2, job_service_pb2
from rallypoint.v1.cluster_service_pb2_grpc import add_ClusterServiceServicer_to_server
from rallypoint_coordinator.server.agent_servicer import AgentService, add_agent_service
from rallypoint_coordinator.server.cluster_servicer import ClusterService
from rallypoint_coordinator.server.driver import Driver, DriverOptions
from rallypoint_coordinator.server.guard import Guard
from rallypoint_coordinator.server.health import Health
from rallypoint_coordinator.server.job_servicer import JobService, add_job_service
from rallypoint_coordinator.server.journal_watch import watch_journal
from rallypoint_coordinator.server.listen import listen
from rallypoint_coordinator.server.looked_up import looked_up
from rallypoint_coordinator.server.options import MESSAGE_BYTES_MAX, METADATA_BYTES_MAX, Address
from rallypoint_coordinator.store.journal import Journal

SERVICES = (
    agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,
    cluster_service_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name,
    job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
)

STREAMS_END_S = 5.0
"""At shutdown, a stream whose peer does not read is cut off after this time."""

CALLS_END_S = 0.5
"""At shutdown, other calls are cut off after this time more; a health watch always lasts so long."""

SHUTTING_DOWN = Refusal(
    reason=Reason.SHUTTING_DOWN,
    message="the coordinator is shutting down; try again until it is back",
)

OPTIONS: Sequence[tuple[str, int]] = (
    # When all agents come at once, gRPC's default is to turn most of them away.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
    # A peer that has vanished is noticed within 15 s; without ping_timeout_ms it would take a minute. This frees
    # sockets: whether an agent is lost is decided by its lease.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    # Else the first message of each stream sets off a PING, to find out how much could be under way at once: a write,
    # a read, and a wake-up at the other end, for who says a few hundred bytes at a time. What is larger than the window
    # (64 KiB) takes a round trip more.
    ("grpc.http2.bdp_probe", 0),
    # Else two coordinators share a port without a word.
    ("grpc.so_reuseport", 0),
    # Who connects and says nothing, or has no more to say, is not kept. Whoever has a stream open has.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
)


class Server:
    """Start, serve until told to stop, stop: once. Without a guard of its own everybody may do everything."""

    def __init__(
        self,
        journal: Journal,
        driver_options: DriverOptions | None = None,
        *,
        guard: Guard | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._credentials = credentials
        self._guard = guard or Guard()
        self._guarding: asyncio.Task[None] | None = None
        self._journal = journal
        self._health = Health(SERVICES)
        self._driver = Driver(journal, options=driver_options, on_serving=self._health.set_serving)
        self._server = grpc.aio.server(interceptors=[self._guard], options=list(OPTIONS))
        self._cluster_service = ClusterService(self._driver, self._guard)
        self._running: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        methods = looked_up(self._server)
        add_agent_service(AgentService(self._driver), methods)
        add_ClusterServiceServicer_to_server(self._cluster_service, methods)
        add_job_service(JobService(self._driver), methods)
        add_HealthServicer_to_server(self._health.servicer, methods)
        # reflection.enable_server_reflection would not see that such a server is one of asyncio.
        reflecting = reflection.aio.ReflectionServicer((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME))
        add_ServerReflectionServicer_to_server(reflecting, methods)  # type: ignore[no-untyped-call]  # its stubs lack it

    async def start(self, address: Address) -> Address:
        """Serve on the address; returns it with the real port. Raises ListenError or JournalError.

        The address comes first: who cannot have it should leave no trace in the journal.
        """
        bound = listen(self._server, address, self._credentials)
        self._cluster_service.listens(bound)
        self._running = asyncio.create_task(self._driver.run())
        await self._driver_serves(self._running)
        self._watching = asyncio.create_task(watch_journal(self._journal, self._driver))
        await self._server.start()
        self._guarding = asyncio.create_task(self._guard.watch())
        return bound

    async def _driver_serves(self, running: asyncio.Task[None]) -> None:
        serving = asyncio.create_task(self._driver.wait_serving())
        await asyncio.wait({running, serving}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            serving.cancel()
            await running

    async def wait(self) -> None:
        """Serve. Returns only if the driver gives up: raises JournalError then."""
        assert self._running is not None, "start() comes first"
        await asyncio.shield(self._running)

    async def wait_idle(self) -> None:
        """Wait until nobody has been here for as long as the driver's options say."""
        await self._driver.wait_idle()

    async def stop(self) -> None:
        """End every stream with UNAVAILABLE, finish the turn, let go of the address and the journal."""
        await self._health.set_serving(False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._driver.refuse_everything(SHUTTING_DOWN), STREAMS_END_S)
        self._driver.stop()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._running is not None:
            await asyncio.wait({self._running})
        await self._server.stop(CALLS_END_S)
        if self._guarding is not None:
            self._guarding.cancel()
        await self._journal.close()
