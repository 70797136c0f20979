"""grpc.health.v1, served. Imports gRPC; :mod:`.health_check_server` does so only when there is something to serve."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

_OPTIONS = (
    # Else a second agent would bind the same port, and every check would ask one of the two by chance.
    ("grpc.so_reuseport", 0),
)
_CALLS_MAX = 64
_LOOK_S = 1.0

logger = logging.getLogger(__name__)


class HealthService:
    """A server of the blocking kind, in threads of its own: a second event loop in a process with gRPC's asyncio
    would share a poller with the first, and a watch takes no thread here either.

    Raises OSError if the port cannot be had.
    """

    def __init__(self, alive_callback: Callable[[], int], port: int, timeout_s: float) -> None:
        self._servicer = _Servicer(alive_callback, timeout_s)
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=2, thread_name_prefix="rallypoint-health"),
            options=_OPTIONS,
            maximum_concurrent_rpcs=_CALLS_MAX,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self.port = _bind(self._server, port)
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
            self._servicer.look()


class _Servicer(health.HealthServicer):
    """Knows one service: "", the agent as a whole."""

    def __init__(self, alive_callback: Callable[[], int], timeout_s: float) -> None:
        super().__init__()
        self._alive_callback = alive_callback
        self._timeout_s = timeout_s
        self._looking = threading.Lock()
        self._status: int | None = None
        self.look()

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        self.look()
        return super().Check(request, context)

    def look(self) -> None:
        """Bring the status up to date, and tell those who watch if it changed."""
        with self._looking:
            answers = health_pb2.HealthCheckResponse
            status = answers.SERVING if self._is_alive() else answers.NOT_SERVING
            if status != self._status:
                self._status = status
                self.set(health.OVERALL_HEALTH, status)

    def _is_alive(self) -> bool:
        try:
            return time.time() - self._alive_callback() <= self._timeout_s
        except Exception:
            logger.exception("the health check's callback failed; not healthy")
            return False


def _bind(server: grpc.Server, port: int) -> int:
    try:
        return server.add_insecure_port(f"[::]:{port}")
    except RuntimeError as error:
        server.stop(grace=None)
        raise OSError(f"port {port} cannot be bound: {error}") from error
