"""The server's turns, with sockets that take and give as much as they are told."""

from __future__ import annotations

import selectors
import socket
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rallypoint_agent.torch_store import connection as connections
from rallypoint_agent.torch_store import server as servers
from rallypoint_agent.torch_store.commands import (
    Add,
    Barrier,
    Command,
    CompareSet,
    Get,
    ListKeys,
    MultiGet,
    Ping,
    QueuePop,
    QueuePush,
    Set,
    Wait,
)
from rallypoint_agent.torch_store.table import Reply, Table
from support.torch_store_words import VALIDATE, said

CLIENTS = 3
LARGE = 50
"""Who is owed so many bytes is owed too much."""


class Client:
    """The far end of a connection as its near end's socket.

    It takes so many bytes as ``takes`` has, one number each time that it is sent something, and in the end everything.
    """

    def __init__(self, takes: Iterable[int] = ()) -> None:
        self.unread = bytearray(VALIDATE)
        self.heard = bytearray()
        self.is_gone = False
        self._takes = deque(takes)

    @property
    def ready(self) -> int:
        return selectors.EVENT_WRITE | (selectors.EVENT_READ if self.is_gone or self.unread else 0)

    def recv(self, most: int) -> bytes:
        if self.is_gone:
            raise ConnectionResetError
        if not self.unread:
            raise BlockingIOError
        data = bytes(self.unread[:most])
        del self.unread[:most]
        return data

    def send(self, data: bytes) -> int:
        if self.is_gone:
            raise BrokenPipeError
        taken = data[: self._takes.popleft() if self._takes else None]
        if not taken:
            raise BlockingIOError
        self.heard += taken
        return len(taken)

    def setblocking(self, flag: bool) -> None: ...

    def setsockopt(self, *option: int) -> None: ...

    def close(self) -> None: ...


class Selector:
    """Of clients."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, sock: Any, events: int, data: object) -> None:
        assert sock not in self._keys
        self._keys[sock] = selectors.SelectorKey(sock, 0, events, data)

    def modify(self, sock: Any, events: int, data: object) -> None:
        self.unregister(sock)
        self.register(sock, events, data)

    def unregister(self, sock: Any) -> None:
        del self._keys[sock]

    def get_key(self, sock: Any) -> selectors.SelectorKey:
        return self._keys[sock]

    def select(self, timeout_s: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = [(key, key.events & sock.ready) for sock, key in self._keys.items()]
        return [(key, events) for key, events in found if events]


class NotedTable(Table):
    """It notes what is carried out for whom, and what each is owed for it."""

    def __init__(self) -> None:
        super().__init__()
        self.carried_out: dict[int, list[Command]] = defaultdict(list)
        self.owed: dict[int, bytes] = defaultdict(bytes)

    def apply(self, client: int, command: Command) -> list[Reply]:
        replies = super().apply(client, command)
        self.carried_out[client].append(command)
        for reply in replies:
            self.owed[reply.client] += b"".join(reply.parts)
        return replies


class Bench:
    """A server and its clients. It takes a turn when told to."""

    def __init__(self, server: servers.StoreServer, selector: Selector, clients: list[Client]) -> None:
        self.clients = clients
        self._server, self._selector = server, selector
        for client in clients:
            server._greet(cast(socket.socket, client))

    def say(self, number: int, *commands: Command) -> None:
        self.clients[number].unread += b"".join(map(said, commands))

    def turn(self) -> None:
        self._server._turn()

    def settle(self) -> None:
        """Turn until there is nothing left to do."""
        for _ in range(10_000):
            if not self._selector.select():
                return
            self.turn()
        raise AssertionError("the server does not come to rest")


@contextmanager
def bench(table: Table, clients: list[Client]) -> Iterator[Bench]:
    selector = Selector()
    server = servers.StoreServer(socket.create_server(("127.0.0.1", 0)), table)
    with ExitStack() as closing:
        for resource in (server._listener, server._wake_reader, server._wake_writer, server._selector):
            closing.callback(resource.close)
        server._selector = cast(selectors.DefaultSelector, selector)
        yield Bench(server, selector, clients)


@pytest.fixture(scope="module")
def small_bounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "READ_BYTES", 100)
        patch.setattr(connections, "UNREAD_BYTES", LARGE)
        patch.setattr(connections, "SENT_BYTES", LARGE)
        patch.setattr(connections, "_WRITE_BYTES", 16)
        yield


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("asked", [[Get(b"a")] * 9, [MultiGet((b"a",) * 9)]])
def test_who_reads_all_at_once_keeps_nobody_waiting(asked: list[Command]) -> None:
    with bench(NotedTable(), [Client() for _ in range(2)]) as running:
        greedy, other = running.clients
        running.say(1, Set(b"a", b"v" * LARGE))
        running.turn()
        running.say(0, *asked)
        running.say(1, Ping(b"ping"))
        running.turn()
        assert other.heard == b"ping"
        assert len(greedy.heard) < 3 * LARGE
        running.settle()
        assert len(greedy.heard) == 9 * (8 + LARGE)


KEYS = st.sampled_from((b"a", b"b"))
VALUES = st.sampled_from((b"", b"v" * LARGE))
ASKS = st.one_of(
    st.builds(Get, KEYS), st.builds(MultiGet, st.tuples(KEYS, KEYS)), st.just(ListKeys()), st.just(Ping(b"ping"))
)
WAITS = st.one_of(st.builds(Wait, st.tuples(KEYS)), st.builds(Barrier, st.just(b"barrier"), st.integers(1, CLIENTS)))
CHANGES = st.one_of(
    st.builds(Set, KEYS, VALUES),
    st.builds(CompareSet, KEYS, VALUES, VALUES),
    st.builds(Add, st.just(b"number"), st.integers(-5, 5)),
    st.builds(QueuePush, st.just(b"queue"), VALUES),
    st.builds(QueuePop, st.just(b"queue")),
)
WHO = st.integers(0, CLIENTS - 1)
WORDS = st.lists(st.one_of(ASKS, WAITS, CHANGES), min_size=1, max_size=8)
TAKES = st.lists(st.sampled_from((0, 1, LARGE, 10 * LARGE)), max_size=20)


@pytest.mark.usefixtures("small_bounds")
@settings(max_examples=200, derandomize=True)
@given(
    takes=st.tuples(*[TAKES] * CLIENTS),
    turns=st.lists(st.dictionaries(WHO, WORDS, min_size=1), max_size=10),
    leaves=st.none() | WHO,
)
def test_all_is_carried_out_in_order_and_answered(
    takes: tuple[list[int], ...], turns: list[dict[int, list[Command]]], leaves: int | None
) -> None:
    table = NotedTable()
    with bench(table, [Client(numbers) for numbers in takes]) as running:
        for words in turns:
            for who, commands in words.items():
                running.say(who, *commands)
            running.turn()
        if leaves is not None:
            running.clients[leaves].is_gone = True
        running.settle()
    for who, client in enumerate(running.clients):
        if who != leaves:
            assert table.carried_out[who + 1] == [command for words in turns for command in words.get(who, ())]
            assert client.heard == table.owed[who + 1]
