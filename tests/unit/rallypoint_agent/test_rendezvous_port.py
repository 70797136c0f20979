from __future__ import annotations

import socket

import pytest

from rallypoint_agent.rendezvous_port import hold_port, hold_port_in
from support.ports import free_range


def bind(port: int, family: socket.AddressFamily = socket.AF_INET, *, reuse: bool = True) -> socket.socket:
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
    try:
        server.bind(("127.0.0.1" if family == socket.AF_INET else "::1", port))
    except OSError:
        server.close()
        raise
    return server


def test_the_store_can_listen_over_it() -> None:
    held = hold_port()
    with bind(held.port) as store:
        store.listen()
        socket.create_connection(("127.0.0.1", held.port)).close()
        with pytest.raises(OSError, match="in use"):
            hold_port(held.port)
    held.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_the_store_can_listen_over_it_on_ipv6() -> None:
    held = hold_port()
    with bind(held.port, socket.AF_INET6) as store:
        store.listen()
        socket.create_connection(("::1", held.port)).close()
    held.close()


def test_nobody_else_can_have_it() -> None:
    held = hold_port()
    with pytest.raises(OSError, match="in use"):
        bind(held.port, reuse=False)
    held.close()
    bind(held.port, reuse=False).close()


def test_a_connect_is_refused_until_the_store_listens() -> None:
    held = hold_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", held.port))
    held.close()


def test_every_port_is_another() -> None:
    ports = [hold_port() for _ in range(50)]
    assert len({held.port for held in ports}) == len(ports)
    for held in ports:
        held.close()


def test_a_port_by_number() -> None:
    held = hold_port()
    port = held.port
    held.close()
    held.close()
    again = hold_port(port)
    assert again.port == port
    again.close()


def test_a_port_that_is_listened_on_cannot_be_held() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(OSError, match="in use"):
        hold_port(server.getsockname()[1])


def test_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    held = hold_port()
    with bind(held.port) as store:
        store.listen()
    held.close()


def test_a_listener_stays_when_the_holder_goes() -> None:
    held = hold_port()
    listener = held.listen()
    held.close()
    for host in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
        socket.create_connection((host, held.port), timeout=10).close()
    listener.close()


class TestRange:
    def test_the_first_that_is_free(self) -> None:
        ports = free_range(3)
        with bind(ports[0], reuse=False):
            held = hold_port_in(ports)
        assert held.port == ports[1]
        held.close()

    def test_two_agents_never_hold_the_same(self) -> None:
        ports = free_range(3)
        held = [hold_port_in(ports) for _ in ports]
        assert [each.port for each in held] == list(ports)
        with pytest.raises(OSError, match="in use"):
            hold_port_in(ports)
        held[1].close()
        again = hold_port_in(ports)
        assert again.port == ports[1]
        for each in (*held, again):
            each.close()

    def test_the_next_is_another_and_the_last_one_comes_after_all(self) -> None:
        ports = free_range(3)
        last, seen = hold_port_in(ports), []
        for _ in range(4):
            held = hold_port_in(ports, last)
            last.close()
            seen.append(held.port)
            last = held
        assert seen == [ports[1], ports[2], ports[0], ports[1]]
        last.close()

    def test_the_last_one_is_taken_again_if_there_is_no_other(self) -> None:
        ports = free_range(1)
        last = hold_port_in(ports)
        again = hold_port_in(ports, last)
        assert again.port == ports[0]
        with bind(again.port) as store:
            store.listen()
        again.close()

    def test_a_port_in_use_frees_its_claim(self) -> None:
        ports = free_range(1)
        with bind(ports[0], reuse=False), pytest.raises(OSError, match="in use"):
            hold_port_in(ports)
        hold_port_in(ports).close()
