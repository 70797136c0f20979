from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.model import JobSpec
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.records import (
    CoordinatorStarted,
    Entry,
    JobCancelled,
    JobCreated,
    LifeForgotten,
    LifeRecord,
)
from rallypoint_coordinator.server.outbox import Closing
from rallypoint_coordinator.server.watch_log import LogBounds
from rallypoint_coordinator.server.watch_tokens import parse_watch_token
from rallypoint_coordinator.server.watches import Watch, Watches, WatchOptions
from rallypoint_coordinator.store.codec import encode

STARTED = CoordinatorStarted(cluster_id="cluster-1", epoch=1)
ENOUGH = Refusal(reason=Reason.SHUTTING_DOWN, message="enough")


class Told:
    """Watches of one job, and a cluster that decides what the test says."""

    def __init__(self, **options: Any) -> None:
        self.watches = Watches(WatchOptions(**{"pause_s": 0, **options}))
        self.cluster = Cluster()
        self.revision = 0
        self._publish(Entry(job="", job_uid="", wall_ms=1, record=STARTED))
        self.decide(JobCreated(spec=JobSpec()))

    def decide(self, record: LifeRecord) -> None:
        self._publish(Entry(job="train", job_uid="uid", wall_ms=1, record=record))

    def _publish(self, entry: Entry) -> None:
        self.cluster.apply(entry, self.revision + 1)
        self.watches.publish([entry], [encode(entry)], self.revision)
        self.revision += 1

    def ask(self, times: int = 1) -> None:
        for _ in range(times):
            self.decide(JobCancelled(by="me", reason=""))

    def begin(self) -> Watch:
        life = self.cluster.current("train")
        assert life is not None
        watch = self.watches.begin(life, 1, Stamp(at_ms=0, wall_ms=1, revision=self.revision))
        self.watches.enter(watch)
        return watch

    def resume(self, token: str, job: str = "train") -> Watch:
        watch = self.watches.resume(job, parse_watch_token(token), self.cluster)
        self.watches.enter(watch)
        return watch


async def message(watch: Watch) -> pb.WatchJobResponse:
    data = await asyncio.wait_for(watch.next(), 10)
    assert not isinstance(data, Closing), data
    return pb.WatchJobResponse.FromString(data)


async def end(watch: Watch) -> Refusal | None:
    closing = await asyncio.wait_for(watch.next(), 10)
    assert isinstance(closing, Closing)
    return closing.refusal


def revisions(told: pb.WatchJobResponse) -> list[int]:
    return [event.revision for event in told.events]


async def test_a_snapshot_and_then_what_follows() -> None:
    told = Told()
    watch = told.begin()
    assert (await message(watch)).snapshot.uid == "uid"
    waiting = asyncio.create_task(message(watch))
    await asyncio.sleep(0)
    assert not waiting.done()
    told.ask()
    assert revisions(await waiting) == [3]
    told.ask(2)
    assert revisions(await message(watch)) == [4, 5]


async def test_all_watchers_of_a_job_share_one_encoding() -> None:
    told = Told()
    one, other = told.begin(), told.begin()
    await message(one)
    await message(other)
    told.ask()
    told.watches.log.feed("uid")._events[-1].encoded()
    first, second = await one.next(), await other.next()
    assert first == second


async def test_a_few_have_their_turn_and_then_others_run() -> None:
    told = Told(at_once=2, pause_s=3600)
    watches = [told.begin() for _ in range(5)]
    for watch in watches:
        await message(watch)
    waiting = [asyncio.create_task(message(watch)) for watch in watches]
    await asyncio.sleep(0)
    told.ask()
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for _ in range(5):
        await asyncio.sleep(0)
    assert sum(task.done() for task in waiting) == 2
    told.watches.refuse_all(ENOUGH)
    await asyncio.wait(waiting)


async def test_who_waits_is_told_so_now_and_then() -> None:
    told = Told(progress_s=0.01)
    watch = told.begin()
    first = await message(watch)
    progress = [await message(watch), await message(watch)]
    assert [(list(told.events), told.revision) for told in progress] == [([], first.revision)] * 2


async def test_who_is_too_slow_is_cut_off_and_goes_on_with_its_token() -> None:
    told = Told(log=LogBounds(life_events=8))
    watch = told.begin()
    token = (await message(watch)).resume_token
    told.ask(5)
    refusal = await end(watch)
    assert refusal is not None
    assert (refusal.reason, refusal.metadata["resume_token"]) == (Reason.WATCH_TOO_SLOW, token)
    again = told.resume(token)
    assert revisions(await message(again)) == [3, 4, 5, 6, 7]


async def test_what_was_dropped_before_it_was_told_ends_the_watch() -> None:
    told = Told(log=LogBounds(life_events=8))
    token = (await message(told.begin())).resume_token
    told.ask(4)
    behind = told.resume(token)
    told.ask(8)
    refusal = await end(behind)
    assert refusal is not None
    assert refusal.reason is Reason.WATCH_TOO_SLOW
    with pytest.raises(RefusedError) as caught:
        told.resume(token)
    assert caught.value.refusal.reason is Reason.WATCH_EXPIRED


async def test_a_forgotten_life_ends_its_watches() -> None:
    told = Told()
    watch = told.begin()
    await message(watch)
    waiting = asyncio.create_task(end(watch))
    await asyncio.sleep(0)
    told.decide(LifeForgotten())
    refusal = await waiting
    assert refusal is not None
    assert refusal.reason is Reason.WATCH_EXPIRED


async def test_everybody_is_refused_until_the_journal_is_read_again() -> None:
    told = Told()
    watch, late = told.begin(), told.begin()
    await message(watch)
    told.watches.refuse_all(ENOUGH)
    assert await end(watch) == ENOUGH
    told.watches.leave(late)
    with pytest.raises(RefusedError, match="enough"):
        told.watches.enter(late)
    told.watches.begin_anew()
    with pytest.raises(RefusedError, match="has recovered"):
        told.watches.enter(late)


async def test_so_many_and_no_more() -> None:
    told = Told(watches_max=1)
    watch = told.begin()
    with pytest.raises(RefusedError) as caught:
        told.begin()
    assert caught.value.refusal.reason is Reason.LIMIT_REACHED
    told.watches.leave(watch)
    told.begin()


async def test_who_has_left_is_not_told() -> None:
    told = Told()
    watch = told.begin()
    await message(watch)
    waiting = asyncio.create_task(watch.next())
    await asyncio.sleep(0)
    told.watches.leave(watch)
    told.ask()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()
