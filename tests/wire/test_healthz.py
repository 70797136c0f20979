"""GET /healthz as a load balancer sees it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from rallypoint_agent.healthz import HealthzServer

WELL: dict[str, bool] = {}


@pytest.fixture
def server() -> Iterator[HealthzServer]:
    WELL.update({"": True, "a": True, "b": False})
    checks = {name: lambda name=name: WELL[name] for name in WELL}
    server = HealthzServer(checks, 0)
    yield server
    server.stop()


def ask(
    server: HealthzServer, method: str = "GET", path: str = "/healthz", host: str = "127.0.0.1"
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_it_is_as_well_as_the_whole(server: HealthzServer) -> None:
    status, body = ask(server)
    assert status == 200
    assert json.loads(body) == {"status": "SERVING", "services": {"a": "SERVING", "b": "NOT_SERVING"}}
    WELL[""] = False
    status, body = ask(server, path="/healthz?verbose=1")
    assert status == 503
    assert json.loads(body)["status"] == "NOT_SERVING"


def test_a_check_that_raises_is_not_well(server: HealthzServer, caplog: pytest.LogCaptureFixture) -> None:
    del WELL[""]
    assert ask(server)[0] == 503
    assert "KeyError" in caplog.text


def test_a_head_has_no_body(server: HealthzServer) -> None:
    assert ask(server, "HEAD") == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/healthz/x", 404), ("POST", "/healthz", 501)]
)
def test_there_is_nothing_else(server: HealthzServer, method: str, path: str, status: int) -> None:
    assert ask(server, method, path)[0] == status


def test_who_says_nothing_keeps_nobody_waiting(server: HealthzServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    assert ask(server)[0] == 200
    for connection in silent:
        connection.close()


def test_many_who_ask_while_nobody_accepts_are_let_wait(server: HealthzServer) -> None:
    server._server.shutdown()  # It listens on, and accepts nobody.
    with contextlib.ExitStack() as closing:
        for _ in range(64):
            closing.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))


def test_a_port_in_use_is_an_error(server: HealthzServer) -> None:
    with pytest.raises(OSError, match="in use"):
        HealthzServer({"": lambda: True}, server.port)


def test_its_port_is_free_afterwards() -> None:
    first = HealthzServer({"": lambda: True}, 0)
    assert ask(first)[0] == 200
    first.stop()
    second = HealthzServer({"": lambda: True}, first.port)
    assert ask(second)[0] == 200
    second.stop()
