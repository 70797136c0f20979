"""The keeper's end of the socket to its agent. It never blocks on it."""

from __future__ import annotations

import os
import select

from rallypoint_agent.keeper import framing

# See framing.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from rallypoint_agent.keeper.framing import Message

_READ_BYTES = 1 << 16
"""What the allocator gives without asking the system: each command is read into as much."""
_ENOUGH_OUTGOING_BYTES = 1 << 20


class Channel:
    """Frames out, frames in.

    What waits to be written is bounded: while an agent reads nothing, it is not listened to
    either, and without commands there is little to report.
    """

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        self.fd = fd
        self.ended = False
        """The agent's end is closed: nothing more will come, and nobody reads."""
        self._decoder = framing.Decoder()
        self._outgoing = bytearray()

    def interest(self) -> int:
        """What to poll for."""
        writing = select.POLLOUT if self._outgoing else 0
        reading = select.POLLIN if len(self._outgoing) < _ENOUGH_OUTGOING_BYTES else 0
        return writing | reading

    def send(self, message: Message) -> None:
        """With the next ``flush``: what is told together wakes the agent once."""
        if not self.ended:
            self._outgoing += framing.encode(message)

    def flush(self) -> None:
        """Write what the socket takes."""
        try:
            while self._outgoing:
                del self._outgoing[: os.write(self.fd, self._outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing.clear()  # The agent is gone; reading will tell.

    def receive(self) -> list[Message]:
        """What has come in, up to some bound: ask again when poll says so."""
        data = self._read()
        return self._decoder.feed(data) if data else []

    def receive_rest(self) -> list[Message]:
        """All that an agent that is gone has left behind."""
        messages = []
        while data := self._read():
            messages += self._decoder.feed(data)
        self.ended = True
        return messages

    def _read(self) -> bytes:
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        self.ended = not data
        return data
