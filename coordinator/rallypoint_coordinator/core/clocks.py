"""How an agent's steady clock differs from the coordinator's, as far as the stream tells. Nobody's clock is trusted.

Two facts bound the difference, and neither needs a guess. What an agent sent at ``s`` and we received at ``r`` was sent
before it came in: our clock is at most ``r - s`` ahead of its. What we acknowledged at ``t`` and it received at ``u``
was sent before it came in: ours is at least ``t - u`` ahead. The newest of both need not be the best, so bounds are
kept, and widened by as much as the two clocks may have drifted apart since (below 0.1 %, as the lease arithmetic
assumes). The width that is left is about the shortest round trip seen, and the drift since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rallypoint.model import ClockReading

DRIFT_PER_MILLE = 1
RESOLUTION_MS = 1
"""Readings are whole milliseconds, rounded down."""


class Span(NamedTuple):
    """When something happened, on the coordinator's clock: no earlier (None: not known) and no later than this."""

    earliest_ms: int | None
    latest_ms: int

    @property
    def error_ms(self) -> int | None:
        """How far off the middle may be; None if it may be off by any amount."""
        return None if self.earliest_ms is None else -(-(self.latest_ms - self.earliest_ms) // 2)

    @property
    def likely_ms(self) -> int:
        """The middle; what is known only to be no later than something is taken to have happened then."""
        return self.latest_ms if self.earliest_ms is None else (self.earliest_ms + self.latest_ms) // 2

    def narrowed(self, other: Span) -> Span:
        """What both say; the newer, ``other``, if they contradict each other: then a clock was not steady."""
        known = [span.earliest_ms for span in (self, other) if span.earliest_ms is not None]
        both = Span(max(known, default=None), min(self.latest_ms, other.latest_ms))
        return other if both.earliest_ms is not None and both.earliest_ms > both.latest_ms else both


@dataclass(slots=True, kw_only=True)
class AgentClock:
    """The bounds of the coordinator's clock minus one agent's, true at ``at_ms``. None: not known yet.

    ``acked_seq`` and ``acked_ms``: the newest acknowledgement that was sent, of the newest stream.
    """

    low_ms: int | None = None
    high_ms: int | None = None
    at_ms: int = 0
    acked_seq: int = 0
    acked_ms: int = 0

    def acknowledged(self, seq: int, now_ms: int) -> None:
        self.acked_seq, self.acked_ms = seq, now_ms

    def read(self, reading: ClockReading, now_ms: int) -> None:
        """Take in what came with a message, now."""
        high_ms = now_ms - reading.sent_ms + RESOLUTION_MS
        low_ms = self._low_ms(reading)
        if low_ms is not None and low_ms > high_ms:
            low_ms = None
        low_before, high_before = self._bounds_at(now_ms)
        low = max((bound for bound in (low_ms, low_before) if bound is not None), default=None)
        high = high_ms if high_before is None else min(high_ms, high_before)
        if low is not None and low > high:
            low, high = low_ms, high_ms  # its clock jumped, or stood still: what was known of it is void
        self.low_ms, self.high_ms, self.at_ms = low, high, now_ms

    def _low_ms(self, reading: ClockReading) -> int | None:
        if reading.acked_seq == 0 or reading.acked_seq != self.acked_seq:
            return None
        since_ms = max(0, reading.sent_ms - reading.acked_ms)
        return self.acked_ms - reading.acked_ms - RESOLUTION_MS - _drift_ms(since_ms)

    def _bounds_at(self, at_ms: int) -> tuple[int | None, int | None]:
        drift_ms = _drift_ms(abs(at_ms - self.at_ms))
        low_ms = None if self.low_ms is None else self.low_ms - drift_ms
        return low_ms, None if self.high_ms is None else self.high_ms + drift_ms

    def span(self, clock_ms: int | None, now_ms: int) -> Span:
        """When its clock showed ``clock_ms``: by now, as far as is known without it."""
        if clock_ms is None or self.high_ms is None:
            return Span(None, now_ms)
        low_ms, high_ms = self._bounds_at(clock_ms + self.high_ms)
        assert high_ms is not None
        latest_ms = min(now_ms, clock_ms + RESOLUTION_MS + high_ms)
        earliest_ms = None if low_ms is None else clock_ms + low_ms
        if earliest_ms is not None and earliest_ms > latest_ms:
            return Span(None, now_ms)  # it says that something is still to happen
        return Span(earliest_ms, latest_ms)


def _drift_ms(elapsed_ms: int) -> int:
    return -(-elapsed_ms * DRIFT_PER_MILLE // 1000)
