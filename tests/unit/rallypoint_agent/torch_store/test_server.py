from __future__ import annotations

import logging
import resource
import socket
import struct
from collections.abc import Iterator

import pytest

from rallypoint_agent.torch_store import StoreServer
from rallypoint_agent.torch_store.commands import Add, Barrier, Get, MultiGet, Ping, Set, Wait
from rallypoint_agent.torch_store.connection import UNREAD_BYTES, Connection
from rallypoint_agent.torch_store.table import ENTRY_BYTES, Table
from support.processes import wait_until
from support.torch_store_words import VALIDATE, RawClient, i64, said, text

DONE = b"\x00"


@pytest.fixture
def server() -> Iterator[StoreServer]:
    server = StoreServer(socket.create_server(("127.0.0.1", 0)), Table(most_bytes=64 * 1024 * 1024))
    server.start()
    yield server
    server.close()


@pytest.fixture
def clients(server: StoreServer) -> Iterator[list[RawClient]]:
    made = [RawClient(server.port) for _ in range(3)]
    yield made
    for client in made:
        client.close()


def test_what_one_says_the_others_read(clients: list[RawClient]) -> None:
    a, b, _ = clients
    b.say(Wait((b"k",)), Get(b"k"))
    assert b.hear(8) == text(b"")
    a.say(Set(b"k", b"v"))
    assert b.hear(1) == DONE
    b.say(Get(b"k"))
    assert b.hear(9) == text(b"v")


def test_a_barrier(clients: list[RawClient]) -> None:
    for client in clients:
        client.say(Barrier(b"b", len(clients)))
    assert [client.hear(1) for client in clients] == [DONE] * 3


def test_commands_that_come_in_pieces(clients: list[RawClient]) -> None:
    a, _, _ = clients
    for byte in said(Set(b"k", b"v")) + said(Get(b"k")):
        a.socket.sendall(bytes([byte]))
    assert a.hear(9) == text(b"v")


@pytest.mark.parametrize("garbage", [b"\xff" * 64, b"\x01" + b"\xff" * 8, said(Set(b"n", b"x")) + said(Add(b"n", 1))])
def test_garbage_ends_that_connection_alone(
    clients: list[RawClient], garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, c = clients
    c.say(Wait((b"k",)))
    with caplog.at_level(logging.WARNING):
        a.socket.sendall(garbage)
        assert a.is_closed()
    assert "closes the connection from 127.0.0.1: " in caplog.text
    b.say(Set(b"k", b""))
    assert c.hear(1) == DONE


def test_a_program_that_is_no_client_is_sent_away(server: StoreServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(1) == b""


def test_a_waiter_that_left_harms_nobody(clients: list[RawClient]) -> None:
    a, b, c = clients
    a.say(Wait((b"k",)))
    assert b.has_heard_nothing()
    a.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    a.close()
    c.say(Wait((b"k",)))
    b.say(Set(b"k", b""))
    assert c.hear(1) == DONE
    assert b.has_heard_nothing()


def test_who_does_not_read_is_not_listened_to_and_loses_nothing(clients: list[RawClient]) -> None:
    a, b, _ = clients
    value = b"v" * UNREAD_BYTES
    a.say(Set(b"k", value))
    asked = 40
    a.say(*[Get(b"k")] * asked, MultiGet((b"k", b"k")), Ping(b"last"))
    assert b.has_heard_nothing()
    for _ in range(asked + 2):
        assert a.hear(8 + len(value)) == text(value)
    assert a.hear(4) == b"last"


@pytest.fixture
def reads_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients take nothing the first time that they are sent something, everything the next time, and so on."""
    send = Connection.send
    refused: set[int] = set()

    def send_every_other_time(connection: Connection) -> None:
        refused.symmetric_difference_update({connection.number})
        if connection.number not in refused:
            connection.sock.setblocking(True)
            send(connection)
            connection.sock.setblocking(False)

    monkeypatch.setattr(Connection, "send", send_every_other_time)


@pytest.mark.usefixtures("reads_late")
def test_who_reads_late_is_answered_everything(clients: list[RawClient]) -> None:
    a, _, _ = clients
    value = b"v" * UNREAD_BYTES
    a.say(Set(b"k", value), *[Get(b"k")] * 5, Ping(b"last"))
    assert a.hear(5 * (8 + len(value)) + 4) == text(value) * 5 + b"last"


@pytest.mark.usefixtures("reads_late")
def test_a_waiter_that_reads_late_is_answered_everything(clients: list[RawClient]) -> None:
    a, b, _ = clients
    value = b"v" * UNREAD_BYTES
    a.say(Set(b"k", value))
    a.say(Wait((b"w",)), *[Get(b"k")] * 5, Ping(b"last"))
    b.say(Set(b"w", b""))
    assert len(a.hear(5 * (8 + len(value)) + 1 + 4)) == 5 * (8 + len(value)) + 1 + 4


def test_a_full_store_sends_away_who_fills_it(clients: list[RawClient]) -> None:
    a, b, _ = clients
    chunk = b"v" * (8 * 1024 * 1024 - 2 * ENTRY_BYTES)
    for number in range(8):
        a.say(Set(b"%d" % number, chunk))
    a.say(Ping(b"here"))
    assert a.hear(4) == b"here"
    a.say(Set(b"one-more", chunk))
    assert a.is_closed()
    b.say(Add(b"n", 1))
    assert b.hear(8) == i64(1)


def test_closing_ends_every_connection_and_frees_the_port(server: StoreServer, clients: list[RawClient]) -> None:
    port = server.port
    server.close()
    assert all(client.is_closed() for client in clients)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_more_clients_than_descriptors_are_served_in_turn(
    server: StoreServer, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = RawClient(server.port)
    assert first.has_heard_nothing()
    # Both ends of a connection are ours here: so connect before there is no descriptor left.
    waiting = [socket.socket() for _ in range(2)]
    used = max(sock.fileno() for sock in waiting) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        with caplog.at_level(logging.WARNING):
            for sock in waiting:
                sock.settimeout(20)
                sock.connect(("127.0.0.1", server.port))
                sock.sendall(VALIDATE + said(Ping(b"turn")))
            wait_until(lambda: "Too many open files" in caplog.text, 20, "no connection was refused")
        assert first.has_heard_nothing()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [sock.recv(4) for sock in waiting] == [b"turn"] * 2
    for sock in (first.socket, *waiting):
        sock.close()
