"""GET /healthz: what grpc.health.v1 answers, for whoever speaks HTTP only."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from rallypoint.security.server_tls import ServerContext, ServerTls
from rallypoint_agent.health_checks import OVERALL, Check, passes

PATH = "/healthz"

_CONNECTIONS_MAX = 64
_TIMEOUT_S = 5.0
_POLL_S = 0.2

logger = logging.getLogger(__name__)


class HealthzServer:
    """Answers 200 if the service "" is well, else 503, and says in JSON how each service is.

    Serves on all interfaces, in threads of its own, from here on until ``stop``. ``port`` 0 lets the kernel choose.
    With ``tls`` it is https. Raises OSError if the port cannot be had, and TlsFilesError.
    """

    def __init__(self, checks: Mapping[str, Check], port: int, tls: ServerTls | None = None) -> None:
        context = ServerContext(tls) if tls else None
        self._server = _bind(checks, port)
        self._server.context = context
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="rallypoint-healthz", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Free the port. Who is being answered is answered."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    # Else a port in which the connections of an earlier agent linger could not be had.
    allow_reuse_address = True
    # A main loop that holds the interpreter keeps us from accepting. socketserver's 5 were then soon spent, and who is
    # one too many is answered by silence, which a probe takes for an agent that is not well.
    request_queue_size = _CONNECTIONS_MAX
    context: ServerContext | None = None

    def __init__(self, checks: Mapping[str, Check], family: socket.AddressFamily, port: int) -> None:
        self.checks = checks
        self.address_family = family
        self._room = threading.BoundedSemaphore(_CONNECTIONS_MAX)
        super().__init__(("", port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is None:
            super().finish_request(request, client_address)
            return
        # In the connection's own thread: whoever does not shake hands holds up nobody.
        request.settimeout(_TIMEOUT_S)
        with self.context.current().wrap_socket(request, server_side=True) as encrypted:
            super().finish_request(encrypted, client_address)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a health check over HTTP went wrong: %r", sys.exception())


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _TIMEOUT_S
    server_version = "rallypoint"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"there is {PATH} here and nothing else")
            return
        well = {name: passes(name, check) for name, check in self.server.checks.items()}
        status = HTTPStatus.OK if well.pop(OVERALL) else HTTPStatus.SERVICE_UNAVAILABLE
        words = {name: _word(is_well) for name, is_well in well.items()}
        body = json.dumps({"status": _word(status is HTTPStatus.OK), "services": words}).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


def _word(is_well: bool) -> str:
    return "SERVING" if is_well else "NOT_SERVING"


def _bind(checks: Mapping[str, Check], port: int) -> _Server:
    """Both families on one socket, or IPv4 alone where there is no other."""
    if socket.has_ipv6:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6):
            return _Server(checks, socket.AF_INET6, port)
    return _Server(checks, socket.AF_INET, port)
