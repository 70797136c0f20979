"""One client's connection: what it sent and has not been carried out, what it is owed and has not taken."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable

from rallypoint_agent.torch_store.parser import Parser

READ_BYTES = 64 * 1024
"""Read at once, so that no client keeps the others waiting."""

UNREAD_BYTES = 1024 * 1024
"""A client that is owed more than so much is not listened to until it has read."""

SENT_BYTES = 1024 * 1024
"""After so much, the others have their turn, however fast a client reads."""

_WRITE_BYTES = 256 * 1024


class Connection:
    """``number`` is the table's name for it. Every method that does I/O raises OSError once the client is gone."""

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number = number
        self.sock = sock
        self.parser = Parser()
        self._unsent: deque[bytes | memoryview] = deque()
        self._unsent_bytes = 0

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def is_owed_too_much(self) -> bool:
        return self._unsent_bytes > UNREAD_BYTES

    def receive(self) -> bool:
        """Take in what arrived; False if the client has closed."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return True
        self.parser.feed(data)
        return bool(data)

    def owe(self, parts: Iterable[bytes]) -> None:
        for part in parts:
            self._unsent.append(part)
            self._unsent_bytes += len(part)

    def send(self) -> None:
        """As much as the client takes now, up to a bound."""
        left = SENT_BYTES
        while self._unsent and left > 0:
            batch = self._batch()
            try:
                sent = self.sock.send(batch)
            except BlockingIOError:
                sent = 0
            self._unsent_bytes -= sent
            left -= sent
            if sent < len(batch):
                self._unsent.appendleft(memoryview(batch)[sent:])
                return

    def _batch(self) -> bytes | memoryview:
        """The next few parts as one, so that small replies go out together; a large one goes alone."""
        parts = [self._unsent.popleft()]
        size = len(parts[0])
        while self._unsent and size + len(self._unsent[0]) <= _WRITE_BYTES:
            parts.append(self._unsent.popleft())
            size += len(parts[-1])
        return b"".join(parts) if len(parts) > 1 else parts[0]

    def close(self) -> None:
        self.sock.close()
