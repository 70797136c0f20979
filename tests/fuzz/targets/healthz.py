"""GET /healthz, from whoever reaches the port: a real server on loopback, and what a client sends before it stops.

Each connection is answered or closed at once, nothing goes wrong inside, and the next probe is answered.
"""

from __future__ import annotations

import errno
import functools
import socket
import sys
import traceback
from random import Random

from fuzz.mutate import WORDS, mutated
from fuzz.target import Target, demand
from rallypoint_agent.healthz import HealthzServer

_PATIENCE_S = 4.0  # less than the server gives a connection that says nothing
_CLOSED = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
"""It was closed before all was said."""

_PROBE = b"GET /healthz HTTP/1.0\r\n\r\n"
_PROBE_EVERY = 50

_SEEDS = (
    _PROBE,
    b"HEAD /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /healthz?a=b HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    b"GET /healthz\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
_WORDS = (
    *WORDS,
    b"\r\n",
    b" HTTP/1.1",
    b" HTTP/9.9",
    b"Transfer-Encoding: chunked\r\n",
    b"X: " + b"y" * 70_000,
    b"a: b\r\n" * 200,
)


@functools.cache
def _server() -> tuple[HealthzServer, list[str]]:
    """And what its threads stumble over; that a client has gone away is no stumble."""
    server = HealthzServer({"": lambda: True, "rallypoint.agent": lambda: False}, 0)
    wrong: list[str] = []

    def note(request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):
            wrong.append(traceback.format_exc())

    server._server.handle_error = note  # type: ignore[method-assign]
    return server, wrong


def check(data: bytes) -> None:
    server, wrong = _server()
    _ask(server.port, data)
    found = [wrong.pop() for _ in wrong[:]]
    demand(not found, "\n".join(found))
    if not data or data[0] % _PROBE_EVERY == 0:
        answer = _ask(server.port, _PROBE)
        demand(answer.startswith(b"HTTP/1.0 200 ") and b'"SERVING"' in answer, f"a probe is answered {answer!r}")


def _ask(port: int, data: bytes) -> bytes:
    """All that is answered until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as connection:
        found = bytearray()
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                found += piece
        except OSError as error:
            if isinstance(error, TimeoutError) or error.errno not in _CLOSED:
                raise
        return bytes(found)


def generate(rng: Random) -> bytes:
    return mutated(rng, _SEEDS, _WORDS)


TARGET = Target(check=check, generate=generate)
