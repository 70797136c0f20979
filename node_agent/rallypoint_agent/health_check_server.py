"""The agent's answer to "are you well?": grpc.health.v1 on a port of its own.

torch defines the class and leaves it empty. This one has the same constructor and attributes, and serves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from rallypoint_agent import grpc_setup

if TYPE_CHECKING:
    from rallypoint_agent.health_service import HealthService

DEFAULT_TIMEOUT_S = 60
MAX_PORT = 65535

logger = logging.getLogger(__name__)


class HealthCheckServer:
    """Says SERVING while the agent makes progress.

    ``alive_callback`` gives the time of the last progress in seconds since the epoch; it is called from other threads.
    If that is more than ``timeout`` seconds ago, or the callback raises, the answer is NOT_SERVING. ``port`` 0 lets the
    kernel choose: ``bound_port`` then says which.
    """

    _alive_callback: Callable[[], int]
    _port: int
    _timeout: int

    def __init__(self, alive_callback: Callable[[], int], port: int, timeout: int = DEFAULT_TIMEOUT_S) -> None:
        self._alive_callback = alive_callback
        self._port = port
        self._timeout = timeout
        self._service: HealthService | None = None

    def start(self) -> None:
        """Serve on all interfaces until ``stop``. A port that cannot be had is logged; nothing is raised."""
        if self._service is not None:
            return
        if not 0 <= self._port <= MAX_PORT:
            logger.error("no health checks are served, the agent goes on without: %d is no port", self._port)
            return
        grpc_setup.prepare_environment()
        # Imports gRPC, which an agent without a health check port leaves to its link.
        from rallypoint_agent.health_service import HealthService

        try:
            self._service = HealthService(self._alive_callback, self._port, self._timeout)
        except OSError as error:
            logger.error("no health checks are served, the agent goes on without: %s", error)
        else:
            logger.info("serving health checks on port %d", self._service.port)

    def stop(self) -> None:
        """End every call and free the port. Stopping again, or without a start, is harmless."""
        if self._service is not None:
            self._service.stop()
            self._service = None

    @property
    def alive_callback(self) -> Callable[[], int]:
        return self._alive_callback

    @property
    def bound_port(self) -> int | None:
        """The port that is served on; None while there is none."""
        return self._service.port if self._service else None


def create_healthcheck_server(alive_callback: Callable[[], int], port: int, timeout: int) -> HealthCheckServer:
    """torch's factory."""
    return HealthCheckServer(alive_callback, port, timeout)
