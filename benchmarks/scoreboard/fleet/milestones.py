"""When the last of many has come so far, and how long answers took. Times are ``time.perf_counter()``'s, in seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple


class Milestone:
    """Reached when it was passed so many times; ``times``: when. What comes later is not counted.

    Make it in a running event loop.
    """

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self.times: list[float] = []
        self._reached: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def passed(self) -> None:
        if self._reached.done():
            return
        self.times.append(time.perf_counter())
        if len(self.times) == self._count:
            self._reached.set_result(self.times[-1])

    async def reached(self, timeout_s: float) -> float:
        """When the last one passed. Raises RuntimeError if it does not."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._reached), timeout_s)
        except TimeoutError:
            so_far = f"{len(self.times)} of {self._count}"
            raise RuntimeError(f"{self._name}: {so_far} after {timeout_s:g} s") from None


class Latencies(NamedTuple):
    """Of all answers of a while, in seconds; ``per_s``: so many came."""

    per_s: float
    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float], lasted_s: float) -> Latencies:
        """Raises ValueError if there was none."""
        if not seconds:
            raise ValueError("nothing was answered")
        ordered = sorted(seconds)
        count = len(ordered)
        return cls(count / lasted_s, ordered[count // 2], ordered[count * 99 // 100], ordered[-1])
