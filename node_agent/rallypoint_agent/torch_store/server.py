"""The store's server: a thread of the agent that does nothing else.

It decides nothing and shares nothing with the agent's other threads but the interpreter's lock, which it gives up every
few milliseconds: a thousand clients do not keep the lease from being renewed (tests/process/test_agent_store.py).
"""

from __future__ import annotations

import contextlib
import logging
import resource
import selectors
import socket
import threading

from rallypoint_agent.torch_store.connection import Connection
from rallypoint_agent.torch_store.parser import NotTheProtocol
from rallypoint_agent.torch_store.table import Reply, Table, Unacceptable

ACCEPT_AGAIN_S = 1.0
"""After so long a connection is accepted again once none could be, for want of descriptors."""

_ACCEPTS_AT_ONCE = 64

logger = logging.getLogger(__name__)


class StoreServer:
    """Serves one store at ``listener``, which it owns, from ``start`` until ``close``."""

    def __init__(self, listener: socket.socket, table: Table | None = None) -> None:
        self._listener = listener
        self._listener.setblocking(False)
        self._table = table or Table()
        self._connections: dict[int, Connection] = {}
        self._ended_wait: list[Connection] = []
        self._numbers = 0
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="rallypoint-store", daemon=True)
        self._is_accepting = True
        self._is_closing = False

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def start(self) -> None:
        _allow_many_connections()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._thread.start()

    def close(self) -> None:
        """End every connection. Returns once the port is free; closing again is harmless."""
        if self._is_closing:
            return
        self._is_closing = True
        self._wake_writer.send(b"\0")
        self._thread.join()
        self._wake_reader.close()
        self._wake_writer.close()

    def _serve(self) -> None:
        with contextlib.ExitStack() as ending:
            ending.callback(self._selector.close)
            ending.callback(self._listener.close)
            ending.callback(self._close_connections)
            try:
                while not self._is_closing:
                    self._turn()
            except Exception:
                # The workers lose their store, fail, and the job restarts: better than a store that is wrong.
                logger.exception("the workers' store has ended by an error of its own")

    def _turn(self) -> None:
        ready = self._selector.select(None if self._is_accepting else ACCEPT_AGAIN_S)
        self._accept_again()
        for key, events in ready:
            if key.data is not None:
                self._attend(key.data, can_read=bool(events & selectors.EVENT_READ))
            elif key.fileobj is self._listener:
                self._accept()
        self._tell_waiters()

    # --- who connects and leaves

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # It is gone already.
            except OSError as error:
                logger.warning("the workers' store, with %d clients: %s", len(self._connections), error.strerror)
                self._selector.unregister(self._listener)
                self._is_accepting = False
                return
            self._greet(sock)

    def _accept_again(self) -> None:
        if not self._is_accepting:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._is_accepting = True

    def _greet(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._numbers += 1
        connection = Connection(self._numbers, sock)
        self._connections[connection.number] = connection
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _drop(self, connection: Connection, why: str = "") -> None:
        if why:
            logger.warning("the workers' store closes the connection from %s: %s", _peer(connection.sock), why)
        del self._connections[connection.number]
        self._table.leave(connection.number)
        self._selector.unregister(connection.sock)
        connection.close()

    def _close_connections(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    # --- what they say and are told

    def _attend(self, connection: Connection, *, can_read: bool) -> None:
        """A client's part of a turn. It is bounded, however much is asked for and however fast it is read."""
        try:
            if can_read and not connection.receive():
                self._drop(connection)
                return
            is_done = self._carry_out(connection)
            connection.send()
            self._listen(connection, is_done=is_done)
        except OSError:
            self._drop(connection)
        except (NotTheProtocol, Unacceptable) as error:
            self._drop(connection, str(error))

    def _carry_out(self, connection: Connection) -> bool:
        """The complete commands, until the client is owed too much; False if some may be left."""
        if connection.is_owed_too_much():
            return False
        for command in connection.parser.commands():
            self._answer(connection, self._table.apply(connection.number, command))
            if connection.is_owed_too_much():
                return False
        return True

    def _answer(self, speaker: Connection, replies: list[Reply]) -> None:
        for client, parts in replies:
            receiver = self._connections[client]
            receiver.owe(parts)
            if receiver is not speaker:
                self._ended_wait.append(receiver)

    def _tell_waiters(self) -> None:
        """Others' commands ended their waits; what they asked for meanwhile may end further ones."""
        for connection in self._ended_wait:
            if connection.number in self._connections:
                self._attend(connection, can_read=False)
        self._ended_wait.clear()

    def _listen(self, connection: Connection, *, is_done: bool) -> None:
        """To a client whose commands are carried out. Whose are not has its next part as soon as it takes something."""
        interest = selectors.EVENT_READ if is_done else selectors.EVENT_WRITE
        if connection.has_unsent:
            interest |= selectors.EVENT_WRITE
        if self._selector.get_key(connection.sock).events != interest:
            self._selector.modify(connection.sock, interest, connection)


def _allow_many_connections() -> None:
    """Every worker of the job has a connection or two. The limit of the workers themselves is their keeper's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _peer(sock: socket.socket) -> str:
    try:
        host: str = sock.getpeername()[0]
    except OSError:
        return "somebody who is gone"
    return host
