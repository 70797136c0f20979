"""Waking the driver when the next deadline passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rallypoint_coordinator.server.clock import Clock


class Alarm:
    """Rings once, at the deadline that was set last or a little before it: it is set anew by whoever looks then.

    A deadline that has moved back is not worth a new timer, since most move with every heartbeat. It is set first in
    the event loop that it belongs to, and from anywhere in its thread then.
    """

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at_ms = 0

    def set(self, deadline_ms: int | None) -> None:
        """By the monotonic clock; None: there is none."""
        if deadline_ms is None:
            self.cancel()
        elif self._timer is None or deadline_ms < self._rings_at_ms:
            self.cancel()
            self._loop = self._loop or asyncio.get_running_loop()
            delay_s = max(deadline_ms - self._clock.monotonic_ms(), 0) / 1000
            self._rings_at_ms = deadline_ms
            self._timer = self._loop.call_later(delay_s, self._rang)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rang(self) -> None:
        self._timer = None
        self._ring()
