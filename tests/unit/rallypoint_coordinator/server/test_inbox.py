from __future__ import annotations

import asyncio

from rallypoint_coordinator.server.inbox import Inbox


def inbox(capacity: int = 3, reads_capacity: int = 2) -> Inbox[str, str]:
    return Inbox(capacity, reads_capacity)


async def settled() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_events_come_out_in_order_and_in_bounded_portions() -> None:
    box = inbox()
    for event in "abc":
        await box.put(event)
    assert await box.take(2, 2) == (["a", "b"], [])
    assert await box.take(2, 2) == (["c"], [])


async def test_a_full_inbox_makes_its_senders_wait() -> None:
    box = inbox(capacity=1)
    await box.put("a")
    sending = asyncio.create_task(box.put("b"))
    await settled()
    assert not sending.done()
    assert await box.take(9, 9) == (["a"], [])
    await sending
    assert await box.take(9, 9) == (["b"], [])


async def test_an_urgent_event_never_waits_and_takes_nobodys_room() -> None:
    box = inbox(capacity=1)
    await box.put("a")
    box.put_urgent("closed")
    assert await box.take(9, 9) == (["a", "closed"], [])
    await box.put("b")
    sending = asyncio.create_task(box.put("c"))
    await settled()
    assert not sending.done()
    sending.cancel()


async def test_reads_are_turned_away_when_too_many_wait() -> None:
    box = inbox(reads_capacity=2)
    assert [box.put_read(read) for read in "xyz"] == [True, True, False]
    assert await box.take(9, 1) == ([], ["x"])
    assert await box.take(9, 9) == ([], ["y"])


async def test_the_taker_waits_and_can_be_woken() -> None:
    box = inbox()
    taking = asyncio.create_task(box.take(9, 9))
    await settled()
    assert not taking.done()
    box.wake()
    assert await taking == ([], [])
    box.wake()
    await box.put("a")
    assert await box.take(9, 9) == (["a"], [])


async def test_clear_forgets_events_makes_room_and_gives_the_reads_back() -> None:
    box = inbox(capacity=1)
    await box.put("a")
    box.put_read("x")
    assert box.clear() == ["x"]
    await box.put("b")
    assert await box.take(9, 9) == (["b"], [])
