"""Load at a steady rate, evenly, whatever else the event loop has to do; and what the server makes of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from itertools import cycle

from scoreboard.fleet.figures import Steady
from scoreboard.fleet.milestones import Latencies
from scoreboard.fleet.servers import cpu_s, rss_mib

_TICK_S = 0.001


class Pacer:
    """Does the actions in turn, in an order of chance, ``rate`` of them a second. What is late is made up for."""

    def __init__(self, actions: Sequence[Callable[[], None]], rate: float) -> None:
        self._turn = cycle(random.sample(actions, len(actions)))
        self._rate = rate

    async def go_on(self, lasts_s: float) -> None:
        """Where it left off."""
        began, done = time.perf_counter(), 0
        while (passed_s := time.perf_counter() - began) < lasts_s:
            while done < self._rate * passed_s:
                next(self._turn)()
                done += 1
            await asyncio.sleep(_TICK_S)


async def steady(pacer: Pacer, lasts_s: float, pid: int, latencies: list[float]) -> Steady:
    """One window of time. ``pid``: the server's; ``latencies``: what the answers are noted in."""
    latencies.clear()
    began, cpu, own_cpu = time.perf_counter(), cpu_s(pid), time.process_time()
    await pacer.go_on(lasts_s)
    lasted_s = time.perf_counter() - began
    cores, own_cores = (cpu_s(pid) - cpu) / lasted_s, (time.process_time() - own_cpu) / lasted_s
    return Steady(cores, own_cores, rss_mib(pid), Latencies.of(latencies, lasted_s))
