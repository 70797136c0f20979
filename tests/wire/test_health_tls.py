"""The agent's health checks over TLS: gRPC and https."""

from __future__ import annotations

import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from rallypoint.security.client import NO_SECURITY, ClientSecurity, open_channel
from rallypoint.security.server_tls import ServerTls
from rallypoint_agent.agent_health import AgentHealth
from rallypoint_agent.health_check_server import HealthCheckServer
from rallypoint_agent.healthz import HealthzServer
from support.certificates import Authority, Pair

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=[False, True], ids=["tls", "mtls"])
def tls(request: pytest.FixtureRequest, ca: Authority) -> ServerTls:
    return ca.server_tls(asks_clients=request.param)


@pytest.fixture
def server(tls: ServerTls) -> Iterator[HealthCheckServer]:
    server = HealthCheckServer(lambda: int(time.time()), 0, tls=tls)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def healthz(tls: ServerTls) -> Iterator[HealthzServer]:
    server = HealthzServer({"": lambda: True}, 0, tls)
    yield server
    server.stop()


def trusting(ca: Authority, *, certified: bool) -> ClientSecurity:
    if not certified:
        return ClientSecurity(tls_ca=str(ca.cert))
    pair = ca.issue("probe")
    return ClientSecurity("", str(ca.cert), str(pair.cert), str(pair.key))


def check(server: HealthCheckServer, security: ClientSecurity) -> int:
    with open_channel(f"127.0.0.1:{server.bound_port}", security) as channel:
        stub: Any = HealthStub(channel)
        status: int = stub.Check(health_pb2.HealthCheckRequest(), timeout=20).status
        return status


def get(port: int, ca: Authority, certificate: Pair | None) -> int:
    context = ssl.create_default_context(cafile=str(ca.cert))
    if certificate is not None:
        context.load_cert_chain(certificate.cert, certificate.key)
    with urllib.request.urlopen(f"https://localhost:{port}/healthz", timeout=20, context=context) as answer:
        status: int = answer.status
        return status


def test_grpc(server: HealthCheckServer, tls: ServerTls, ca: Authority) -> None:
    asks = tls.client_ca is not None
    assert check(server, trusting(ca, certified=asks)) == SERVING
    for refused in (NO_SECURITY, *([trusting(ca, certified=False)] if asks else [])):
        with pytest.raises(grpc.RpcError) as caught:
            check(server, refused)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_new_certificate_needs_no_restart(server: HealthCheckServer, tls: ServerTls, ca: Authority) -> None:
    new = Authority(ca.folder / "new", "new")
    Pair(tls.cert, tls.key).replace_by(new.issue())
    mine = trusting(ca, certified=True)
    assert check(server, mine._replace(tls_ca=str(new.cert))) == SERVING
    with pytest.raises(grpc.RpcError):
        check(server, mine)


def test_https(healthz: HealthzServer, tls: ServerTls, ca: Authority) -> None:
    certificate = ca.issue("probe") if tls.client_ca else None
    assert get(healthz.port, ca, certificate) == 200
    if tls.client_ca:
        with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
            get(healthz.port, ca, None)
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(f"http://localhost:{healthz.port}/healthz", timeout=20)
    assert get(healthz.port, ca, certificate) == 200
    new = Authority(ca.folder / "new", "new")
    Pair(tls.cert, tls.key).replace_by(new.issue())
    assert get(healthz.port, new, certificate) == 200
    tls.key.write_text("half a rotation")
    assert get(healthz.port, new, certificate) == 200


@pytest.mark.parametrize("missing", ["RALLYPOINT_HEALTH_TLS_CERT", "RALLYPOINT_HEALTH_TLS_KEY", "the file"])
def test_without_its_certificate_nothing_is_served_in_plain_text(
    missing: str, ca: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = ca.issue()
    environ = {
        "TORCHELASTIC_HEALTH_CHECK_PORT": "0",
        "RALLYPOINT_HEALTHZ_PORT": "0",
        "RALLYPOINT_HEALTH_TLS_CERT": str(pair.cert),
        "RALLYPOINT_HEALTH_TLS_KEY": str(pair.key),
    }
    environ.pop(missing, None)
    if missing == "the file":
        pair.cert.unlink()
    health = AgentHealth(turned_at=time.time, has_workers=lambda: False, watchdog=None)
    with caplog.at_level(logging.INFO):
        health.start(environ, None)
    health.stop()
    assert not [message for message in caplog.messages if message.startswith("serving")]
    assert [record for record in caplog.records if record.levelno == logging.ERROR]
