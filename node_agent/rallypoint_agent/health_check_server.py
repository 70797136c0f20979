"""The agent's answer to "are you well?": grpc.health.v1 on a port of its own.

torch defines the class and leaves it empty. This one has the same constructor and attributes, and serves. To have
health checks of another kind, pass the agent an instance of a subclass with ``start`` and ``stop`` of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from rallypoint.security.server_tls import ServerTls, TlsFilesError
from rallypoint_agent import grpc_setup
from rallypoint_agent.health_checks import OVERALL, Check

if TYPE_CHECKING:
    from rallypoint_agent.health_service import HealthService

DEFAULT_TIMEOUT_S = 60
MAX_PORT = 65535

logger = logging.getLogger(__name__)


class HealthCheckServer:
    """Says SERVING while the agent makes progress.

    ``alive_callback`` gives the time of the last progress in seconds since the epoch; it is called from other threads.
    If that is more than ``timeout`` seconds ago, or the callback raises, the answer is NOT_SERVING. ``port`` 0 lets the
    kernel choose: ``bound_port`` then says which. With ``tls`` it is served over TLS. That answer is the service ""
    (all there is); others have checks of their own.
    """

    _alive_callback: Callable[[], int]
    _port: int
    _timeout: int
    # Of the class, so that a subclass whose __init__ does without ours works.
    _checks: Mapping[str, Check] = MappingProxyType({})
    _service: HealthService | None = None
    _tls: ServerTls | None = None

    def __init__(
        self,
        alive_callback: Callable[[], int],
        port: int,
        timeout: int = DEFAULT_TIMEOUT_S,
        *,
        tls: ServerTls | None = None,
    ) -> None:
        self._alive_callback = alive_callback
        self._port = port
        self._timeout = timeout
        self._tls = tls

    def start(self) -> None:
        """Serve on all interfaces until ``stop``. What cannot be had is logged; nothing is raised."""
        if self._service is not None:
            return
        if not 0 <= self._port <= MAX_PORT:
            logger.error("no health checks are served, the agent goes on without: %d is no port", self._port)
            return
        grpc_setup.prepare_environment()
        # Imports gRPC, which an agent without a health check port leaves to its link.
        from rallypoint_agent.health_service import HealthService

        try:
            self._service = HealthService(self.checks, self._port, self._tls)
        except (OSError, TlsFilesError) as error:
            logger.error("no health checks are served, the agent goes on without: %s", error)
        else:
            logger.info("serving health checks on port %d", self._service.port)

    def stop(self) -> None:
        """End every call and free the port. Stopping again, or without a start, is harmless."""
        if self._service is not None:
            self._service.stop()
            self._service = None

    def add_service(self, name: str, is_well: Check) -> None:
        """Answer for this service as well, from the next ``start`` on."""
        self._checks = {**self._checks, name: is_well}

    @property
    def checks(self) -> Mapping[str, Check]:
        """The check of each service, "" included."""
        return {OVERALL: self.is_alive, **self._checks}

    def is_alive(self) -> bool:
        """Whether the last progress is recent."""
        return time.time() - self.alive_callback() <= self._timeout

    @property
    def alive_callback(self) -> Callable[[], int]:
        return self._alive_callback

    @property
    def bound_port(self) -> int | None:
        """The port that is served on; None while there is none."""
        return self._service.port if self._service else None


def create_healthcheck_server(
    alive_callback: Callable[[], int], port: int, timeout: int, *, tls: ServerTls | None = None
) -> HealthCheckServer:
    """torch's factory, and ``tls``."""
    return HealthCheckServer(alive_callback, port, timeout, tls=tls)
