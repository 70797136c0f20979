"""When the messages of one stream were sent."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 1024


class SentLog:
    """Numbers messages from 1 and remembers when each was sent until it is acknowledged.

    Of more unacknowledged messages than it remembers it forgets the oldest: their acknowledgement
    then renews nothing, the next one does.
    """

    def __init__(self) -> None:
        self.last_seq = 0
        self._waiting: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)

    def number(self, sent_ms: int) -> int:
        """The sequence number of a message that is sent now."""
        self.last_seq += 1
        self._waiting.append((self.last_seq, sent_ms))
        return self.last_seq

    def acknowledge(self, seq: int) -> int | None:
        """When the newest message up to ``seq`` was sent; None if that was acknowledged before."""
        sent_ms = None
        while self._waiting and self._waiting[0][0] <= seq:
            _, sent_ms = self._waiting.popleft()
        return sent_ms
