"""A coordinator's clock that stands until the test sets it."""

from __future__ import annotations


class HandClock:
    """Both clocks show what the test has set."""

    def __init__(self, now_ms: int = 1_000) -> None:
        self.now_ms = now_ms

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.now_ms
