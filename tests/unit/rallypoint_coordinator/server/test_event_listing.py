from __future__ import annotations

import asyncio

import pytest

from rallypoint.errors import Reason, RefusedError
from rallypoint.model import JobSpec
from rallypoint_coordinator.core.records import Entry, JobCreated, LifeForgotten, LifeRecord, RestartAsked
from rallypoint_coordinator.server.event_listing import AT_ONCE, EventListing
from rallypoint_coordinator.server.watch_log import LogBounds, WatchLog
from rallypoint_coordinator.store.codec import encode

EVENTS = 2 * AT_ONCE


def a_log() -> WatchLog:
    log = WatchLog(LogBounds())
    add(log, JobCreated(spec=JobSpec()))
    for _ in range(EVENTS - 1):
        add(log, RestartAsked(by="me", reason=""))
    return log


def add(log: WatchLog, record: LifeRecord) -> None:
    entry = Entry(job="train", job_uid="uid", wall_ms=1, record=record)
    log.add(entry, log.last_revision + 1, encode(entry))


def listing(log: WatchLog) -> EventListing:
    return EventListing("jobs/train", log.feed("uid"), 0, log.last_revision, 1_000, lambda event: True)


async def test_all_that_is_kept_is_listed() -> None:
    page = await listing(a_log()).page()
    assert [event.revision for event in page.events] == list(range(1, EVENTS + 1))
    assert not page.truncated


@pytest.mark.parametrize("is_read_again", [True, False])
async def test_what_is_let_go_of_meanwhile_is_not_told_in_part(is_read_again: bool) -> None:
    log = a_log()
    page = asyncio.create_task(listing(log).page())
    await asyncio.sleep(0)
    log.let_go() if is_read_again else add(log, LifeForgotten())
    with pytest.raises(RefusedError) as refused:
        await page
    assert refused.value.refusal.reason is Reason.RECOVERING
