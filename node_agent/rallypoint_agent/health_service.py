"""grpc.health.v1, served. Imports gRPC; :mod:`.health_check_server` does so only when there is something to serve."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from rallypoint.security.server_tls import ServerCertificate, ServerTls
from rallypoint_agent.health_checks import Check, passes

_OPTIONS = (
    # Else a second agent would bind the same port, and every check would ask one of the two by chance.
    ("grpc.so_reuseport", 0),
)
_CALLS_MAX = 64
_LOOK_S = 1.0


class HealthService:
    """A server of the blocking kind, in threads of its own: a second event loop in a process with gRPC's asyncio
    would share a poller with the first, and a watch takes no thread here either.

    Raises OSError if the port cannot be had, and TlsFilesError.
    """

    def __init__(self, checks: Mapping[str, Check], port: int, tls: ServerTls | None = None) -> None:
        credentials = ServerCertificate(tls).credentials() if tls else None
        self._checks = checks
        self._servicer = _Servicer(checks)
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=2, thread_name_prefix="rallypoint-health"),
            options=_OPTIONS,
            maximum_concurrent_rpcs=_CALLS_MAX,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self.port = _bind(self._server, port, credentials)
        self._server.start()
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._look_on, name="rallypoint-health-look", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        self._stopped.set()
        self._server.stop(grace=None).wait()
        self._watcher.join()

    def _look_on(self) -> None:
        """Nobody tells us that there is no progress: those who watch are told by looking."""
        while not self._stopped.wait(_LOOK_S):
            self._servicer.look(self._checks)


class _Servicer(health.HealthServicer):
    """Knows the services that have a check."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        super().__init__()
        self._checks = checks
        self._looking = threading.Lock()
        self._statuses: dict[str, int] = {}
        self.look(checks)

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service in self._checks:
            self.look([request.service])
        return super().Check(request, context)

    def look(self, names: Iterable[str]) -> None:
        """Bring the status of these services up to date, and tell those who watch if one changed."""
        answers = health_pb2.HealthCheckResponse
        with self._looking:
            for name in names:
                status = answers.SERVING if passes(name, self._checks[name]) else answers.NOT_SERVING
                if status != self._statuses.get(name):
                    self._statuses[name] = status
                    self.set(name, status)


def _bind(server: grpc.Server, port: int, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is not None:
            return server.add_secure_port(f"[::]:{port}", credentials)
        return server.add_insecure_port(f"[::]:{port}")
    except RuntimeError as error:
        server.stop(grace=None)
        raise OSError(f"port {port} cannot be bound: {error}") from error
