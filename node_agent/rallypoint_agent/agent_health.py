"""How the agent is, for whoever asks over grpc.health.v1 or HTTP, and on which ports."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rallypoint.security.server_tls import ServerTls, TlsFilesError
from rallypoint_agent.health_check_server import (
    DEFAULT_TIMEOUT_S,
    MAX_PORT,
    HealthCheckServer,
    create_healthcheck_server,
)

if TYPE_CHECKING:
    from rallypoint_agent.file_timer import FileTimerServer
    from rallypoint_agent.healthz import HealthzServer

HEALTH_CHECK_PORT_VARIABLE = "TORCHELASTIC_HEALTH_CHECK_PORT"
HEALTHZ_PORT_VARIABLE = "RALLYPOINT_HEALTHZ_PORT"
TLS_CERT_VARIABLE = "RALLYPOINT_HEALTH_TLS_CERT"
TLS_KEY_VARIABLE = "RALLYPOINT_HEALTH_TLS_KEY"
TLS_CLIENT_CA_VARIABLE = "RALLYPOINT_HEALTH_TLS_CLIENT_CA"

AGENT_SERVICE = "rallypoint.agent"
WATCHDOG_SERVICE = "rallypoint.watchdog"
WORKERS_SERVICE = "rallypoint.workers"

logger = logging.getLogger(__name__)


class AgentHealth:
    """Serves from ``start`` to ``stop``. What it asks is asked from other threads.

    ``turned_at``: when the agent's main loop was last seen turning, in seconds since the epoch. ``has_workers``:
    whether a round runs here.
    """

    def __init__(
        self, *, turned_at: Callable[[], float], has_workers: Callable[[], bool], watchdog: FileTimerServer | None
    ) -> None:
        self._turned_at = turned_at
        self._has_workers = has_workers
        self._watchdog = watchdog
        self._server: HealthCheckServer | None = None
        self._healthz: HealthzServer | None = None

    def start(self, environ: Mapping[str, str], server: HealthCheckServer | None) -> None:
        """Start ``server``, or else one on the port that the environment asks for; and HTTP if it asks for that.

        Both are served over TLS if the environment names a certificate and its key. What cannot be had is logged, and
        no more.
        """
        try:
            tls = _tls(environ)
        except TlsFilesError as error:
            logger.error("no health checks are served, the agent goes on without: %s", error)
            return
        if server is None and (port := _port(environ, HEALTH_CHECK_PORT_VARIABLE)) is not None:
            server = create_healthcheck_server(self.alive_time, port, DEFAULT_TIMEOUT_S, tls=tls)
        if server is not None:
            self._add_services(server)
            self._server = server
            server.start()
        if (port := _port(environ, HEALTHZ_PORT_VARIABLE)) is not None:
            self._start_healthz(server, port, tls)

    def stop(self) -> None:
        """Free the ports."""
        if self._server is not None:
            self._server.stop()
        if self._healthz is not None:
            self._healthz.stop()

    def alive_time(self) -> int:
        """The last sign of life, in seconds since the epoch: the watchdog's, as in torch, and the main loop's."""
        times = [self._turned_at()]
        if self._watchdog is not None:
            times.append(self._watchdog.get_last_progress_time())
        return int(min(times))

    def _add_services(self, server: HealthCheckServer) -> None:
        server.add_service(AGENT_SERVICE, lambda: _is_recent(self._turned_at()))
        if (watchdog := self._watchdog) is not None:
            server.add_service(WATCHDOG_SERVICE, lambda: _is_recent(watchdog.get_last_progress_time()))
        server.add_service(WORKERS_SERVICE, lambda: self._has_workers() and _is_recent(self._turned_at()))

    def _start_healthz(self, server: HealthCheckServer | None, port: int, tls: ServerTls | None) -> None:
        # Imports Python's HTTP server, which an agent that is not asked leaves alone.
        from rallypoint_agent.healthz import HealthzServer

        if server is None:
            server = HealthCheckServer(self.alive_time, port)
            self._add_services(server)
        try:
            self._healthz = HealthzServer(server.checks, port, tls)
        except (OSError, TlsFilesError) as error:
            logger.error("no health checks are served over HTTP, the agent goes on without: port %d: %s", port, error)
        else:
            logger.info("serving health checks over HTTP on port %d", self._healthz.port)


def _tls(environ: Mapping[str, str]) -> ServerTls | None:
    """The files that the environment names; None for plain text. Raises TlsFilesError."""
    cert, key, client_ca = map(environ.get, (TLS_CERT_VARIABLE, TLS_KEY_VARIABLE, TLS_CLIENT_CA_VARIABLE))
    if cert and key:
        return ServerTls(Path(cert), Path(key), Path(client_ca) if client_ca else None)
    if cert or key or client_ca:
        raise TlsFilesError(f"{TLS_CERT_VARIABLE} and {TLS_KEY_VARIABLE} go together")
    return None


def _port(environ: Mapping[str, str], variable: str) -> int | None:
    port = environ.get(variable)
    if port is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > MAX_PORT:
        logger.warning("no health checks are served: %s=%s is no port", variable, port)
        return None
    return int(port)


def _is_recent(wall_s: float) -> bool:
    return time.time() - wall_s <= DEFAULT_TIMEOUT_S
