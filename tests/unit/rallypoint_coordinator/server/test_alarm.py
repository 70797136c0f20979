from __future__ import annotations

import asyncio

from rallypoint_coordinator.server.alarm import Alarm
from support.hand_clock import HandClock

NEVER_MS = 3_600_000


async def test_it_rings_once_and_can_be_set_again() -> None:
    clock, rings = HandClock(), asyncio.Queue[None]()
    alarm = Alarm(clock, lambda: rings.put_nowait(None))
    for _ in range(2):
        alarm.set(clock.now_ms)
        await rings.get()
    assert alarm._timer is None


async def test_a_sooner_deadline_counts_at_once() -> None:
    clock, rings = HandClock(), asyncio.Queue[None]()
    alarm = Alarm(clock, lambda: rings.put_nowait(None))
    alarm.set(clock.now_ms + NEVER_MS)
    alarm.set(clock.now_ms)
    await rings.get()


async def test_a_later_one_needs_no_other_timer() -> None:
    clock = HandClock()
    alarm = Alarm(clock, lambda: None)
    alarm.set(clock.now_ms + NEVER_MS)
    timer = alarm._timer
    alarm.set(clock.now_ms + 2 * NEVER_MS)
    assert alarm._timer is timer
    alarm.cancel()


async def test_without_a_deadline_it_does_not_ring() -> None:
    clock = HandClock()
    alarm = Alarm(clock, lambda: None)
    alarm.set(clock.now_ms + NEVER_MS)
    timer = alarm._timer
    alarm.set(None)
    assert timer is not None
    assert timer.cancelled()
