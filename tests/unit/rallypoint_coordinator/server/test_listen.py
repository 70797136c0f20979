from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from rallypoint_coordinator.server.listen import ListenError, listen
from rallypoint_coordinator.server.options import Address


@pytest.fixture
async def server() -> AsyncIterator[grpc.aio.Server]:
    server = grpc.aio.server()
    yield server
    await server.stop(None)


async def test_port_0_is_some_free_port(server: grpc.aio.Server) -> None:
    bound = listen(server, Address("127.0.0.1", 0))
    assert bound.host == "127.0.0.1"
    assert bound.port > 0


async def test_a_port_in_use(server: grpc.aio.Server, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(ListenError, match=f"cannot listen on {address}: Address already in use; .*--listen"):
            listen(server, address)
    assert capfd.readouterr().err == ""


async def test_an_address_that_is_not_ours(server: grpc.aio.Server) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:4: .+; --listen takes an address"):
        listen(server, Address("192.0.2.1", 4))


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
async def test_a_name_that_no_host_can_have(server: grpc.aio.Server, host: str) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on .+:4: .+; --listen takes an address of this machine"):
        listen(server, Address(host, 4))
