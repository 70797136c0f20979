from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest

from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.model import AgentPhase, Directive, JobState, Observed
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.effects import Output
from rallypoint_coordinator.core.events import AgentObserved, Event, GoneReported, Stamp
from rallypoint_coordinator.core.records import Entry, NodeSucceeded
from rallypoint_coordinator.server.driver import Driver
from rallypoint_coordinator.store.codec import encode
from rallypoint_coordinator.store.journal import AppendResult, DamagedJournal, Fenced, NotWritten, Stored, Unknown
from rallypoint_coordinator.store.memory import MemoryJournal
from support.driver_script import (
    QUICK,
    SPEC,
    ScriptedJournal,
    attach,
    closing,
    epoch,
    facts,
    running,
    take,
    welcome,
)


async def test_an_event_becomes_a_message() -> None:
    async with running(MemoryJournal()) as driver:
        _, outbox = await attach(driver)
        told = await welcome(outbox)
        assert (told.job_uid, told.directive.reason) == ("uid-of-train", "WAITING_FOR_NODES")


async def test_the_next_start_knows_what_the_last_one_decided() -> None:
    journal = MemoryJournal()
    async with running(journal) as driver:
        for node in ("node-a", "node-b"):
            await welcome((await attach(driver, node))[1])
        before = await driver.read(facts)
        cluster_id = await driver.read(lambda cluster, stamp: cluster.cluster_id)
    async with running(journal) as driver:
        assert await driver.read(epoch) == 2
        assert await driver.read(lambda cluster, stamp: cluster.cluster_id) == cluster_id
        assert await driver.read(facts) == before
        assert before is not None
        assert before.state is JobState.RUNNING


async def test_time_alone_moves_a_job() -> None:
    async with running(MemoryJournal()) as driver:
        _, outbox = await attach(driver, spec=replace(SPEC, join_timeout_ms=30))
        reasons = [(await welcome(outbox)).directive.reason]
        while "JOIN_TIMEOUT" not in reasons:
            message = await take(outbox)
            assert isinstance(message, Directive)
            reasons.append(message.reason)


def write_and_lose_the_answer(journal: MemoryJournal) -> Callable[[Sequence[bytes]], AppendResult]:
    def lose(records: Sequence[bytes]) -> AppendResult:
        journal._records.extend(records)
        return Unknown("the connection broke")

    return lose


def forget(records: Sequence[bytes]) -> AppendResult:
    return Unknown("the disk may be full")


def decline(records: Sequence[bytes]) -> AppendResult:
    return NotWritten("the disk is full")


def fence(records: Sequence[bytes]) -> AppendResult:
    return Fenced(99)


def fail(records: Sequence[bytes]) -> AppendResult:
    raise OSError("no such device")


@pytest.mark.parametrize("answer", [forget, decline, fence, fail])
async def test_what_was_not_committed_never_happened(
    answer: Callable[[Sequence[bytes]], AppendResult], caplog: pytest.LogCaptureFixture
) -> None:
    journal, states = ScriptedJournal(), list[bool]()
    async with running(journal, states=states) as driver:
        journal.script.append(answer)
        stream, outbox = await attach(driver)
        end = await closing(outbox)
        assert end.refusal is not None
        assert end.refusal.reason is (Reason.FENCED if answer is fence else Reason.RECOVERING)
        assert end.refusal.retry_after_ms in (1, 2), "until the journal is tried again"
        driver.close_stream(stream)
        await driver.wait_serving()
        assert await driver.read(facts) is None
        assert await driver.read(epoch) == 2
        assert states == [True, False, True]
        assert "until the journal has been read again" in caplog.text
        await welcome((await attach(driver))[1])


async def test_what_was_committed_unseen_did_happen() -> None:
    journal = ScriptedJournal()
    async with running(journal) as driver:
        journal.script.append(write_and_lose_the_answer(journal))
        _, outbox = await attach(driver)
        await closing(outbox)
        await driver.wait_serving()
        known = await driver.read(facts)
        assert known is not None
        assert list(known.members) == ["node-a"]


async def test_a_journal_that_stays_away_is_tried_again() -> None:
    journal = ScriptedJournal()
    async with running(journal) as driver:
        journal.script += [forget] * 4
        _, outbox = await attach(driver)
        await closing(outbox)
        with pytest.raises(RefusedError):
            driver.open_stream()
        await driver.wait_serving()
        assert journal.script == []


async def test_waiting_calls_and_reads_are_refused_when_the_state_is_lost() -> None:
    journal = ScriptedJournal()
    async with running(journal) as driver:
        journal.gate.clear()
        journal.appending.clear()
        await attach(driver)
        await journal.appending.wait()
        reading = asyncio.create_task(driver.read(epoch))
        asking = asyncio.create_task(driver.ask(obituary))
        await asyncio.sleep(0)
        journal.script.append(forget)
        journal.gate.set()
        for waiting in (reading, asking):
            with pytest.raises(RefusedError) as caught:
                await waiting
            assert caught.value.refusal.code == "UNAVAILABLE"


def obituary(call: int) -> GoneReported:
    return GoneReported(
        call=call,
        job="train",
        job_uid="uid-of-train",
        lease_id=3,
        incarnation="incarnation-of-node-a",
        message="",
    )


async def test_a_call_gets_its_answer() -> None:
    async with running(MemoryJournal()) as driver:
        with pytest.raises(RefusedError) as caught:
            await driver.ask(obituary)
        assert caught.value.refusal.reason is Reason.UNKNOWN_LIFE
        lease_id = (await welcome((await attach(driver))[1])).lease_id
        assert lease_id == 3
        assert await driver.ask(obituary) is True
        assert await driver.ask(obituary) is False


async def test_too_many_reads_are_turned_away() -> None:
    journal = ScriptedJournal()
    async with running(journal, replace(QUICK, reads_max=2)) as driver:
        reads = [asyncio.create_task(driver.read(epoch)) for _ in range(3)]
        with pytest.raises(RefusedError) as caught:
            await reads[2]
        assert caught.value.refusal.reason is Reason.LIMIT_REACHED
        assert [await read for read in reads[:2]] == [1, 1]


async def test_too_many_streams_are_turned_away() -> None:
    async with running(MemoryJournal(), replace(QUICK, streams_max=1)) as driver:
        stream, _ = driver.open_stream()
        with pytest.raises(RefusedError) as caught:
            driver.open_stream()
        assert caught.value.refusal.reason is Reason.LIMIT_REACHED
        driver.close_stream(stream)
        driver.open_stream()


async def test_a_read_that_fails_fails_alone() -> None:
    def broken(cluster: Cluster, stamp: Stamp) -> int:
        raise ZeroDivisionError

    async with running(MemoryJournal()) as driver:
        with pytest.raises(ZeroDivisionError):
            await driver.read(broken)
        assert await driver.read(epoch) == 1


async def test_so_does_one_of_what_an_event_leads_to() -> None:
    def broken(cluster: Cluster, stamp: Stamp) -> int:
        raise ZeroDivisionError

    async with running(MemoryJournal()) as driver:
        await welcome((await attach(driver))[1])
        with pytest.raises(ZeroDivisionError):
            await driver.ask_and_read(obituary, broken)
        assert await driver.read(epoch) == 1
        assert await driver.ask(obituary) is False, "it is on record"


class BuggyCluster(Cluster):
    """Fails on one kind of event, as long as ``broken``."""

    broken = True

    def step(self, event: Event, stamp: Stamp) -> Output:
        if BuggyCluster.broken and isinstance(event, AgentObserved):
            raise AssertionError("a bug")
        return super().step(event, stamp)


async def test_a_bug_in_the_core_costs_the_streams_and_no_state(caplog: pytest.LogCaptureFixture) -> None:
    async with running(MemoryJournal(), new_cluster=BuggyCluster) as driver:
        stream, outbox = await attach(driver)
        lease_id = (await welcome(outbox)).lease_id
        observed = Observed(phase=AgentPhase.READY)
        await driver.submit(AgentObserved(stream=stream, lease_id=lease_id, seq=2, observed=observed))
        end = await closing(outbox)
        assert end.refusal is not None
        await driver.wait_serving()
        known = await driver.read(facts)
        assert known is not None
        assert known.members["node-a"].lease_id == lease_id
        assert "the core failed on AgentObserved" in caplog.text


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([b"\xff"], "revision 1 cannot be read: not a record"),
        (
            [encode(Entry(job="j", job_uid="u", wall_ms=1, record=NodeSucceeded(round=0, node="a")))],
            "revision 1 cannot follow",
        ),
    ],
)
async def test_a_damaged_journal_stops_the_start(records: list[bytes], says: str) -> None:
    journal = MemoryJournal()
    await journal.append(0, records)
    with pytest.raises(DamagedJournal, match=says):
        await Driver(journal).run()


async def test_a_journal_with_a_gap_stops_the_start() -> None:
    class Gap(MemoryJournal):
        async def read(self, after_revision: int = 0) -> AsyncIterator[Stored]:
            yield Stored(2, b"")

    with pytest.raises(DamagedJournal, match="revision 2 follows revision 0"):
        await Driver(Gap()).run()


async def test_before_the_journal_is_read_everything_is_refused() -> None:
    driver = Driver(MemoryJournal())
    with pytest.raises(RefusedError) as caught:
        await driver.read(epoch)
    assert caught.value.refusal.code == "UNAVAILABLE"


async def test_refusing_everything_waits_for_the_streams_and_stays() -> None:
    async with running(MemoryJournal()) as driver:
        stream, outbox = await attach(driver)
        await welcome(outbox)
        goodbye = Refusal(reason=Reason.SHUTTING_DOWN, message="bye")
        refusing = asyncio.create_task(driver.refuse_everything(goodbye))
        assert (await closing(outbox)).refusal == goodbye
        assert not refusing.done()
        driver.close_stream(stream)
        await refusing
        with pytest.raises(RefusedError) as caught:
            driver.open_stream()
        assert caught.value.refusal == goodbye


async def test_a_change_of_reason_is_logged_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(MemoryJournal()) as driver:
        await welcome((await attach(driver))[1])
    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("job train (uid-of-train): WAITING_FOR_NODES: ") for line in said)


async def test_who_comes_when_it_is_idle_is_told_that_it_ends() -> None:
    async with running(MemoryJournal(), replace(QUICK, idle_after_s=0.01)) as driver:
        await driver.wait_idle()
        with pytest.raises(RefusedError) as caught:
            await driver.read(epoch)
        assert caught.value.refusal.reason is Reason.SHUTTING_DOWN
        with pytest.raises(RefusedError):
            driver.open_stream()


async def test_it_is_idle_once_nobody_is_attached_or_has_a_lease() -> None:
    async with running(MemoryJournal(), replace(QUICK, idle_after_s=1.0)) as driver:
        stream, outbox = await attach(driver)
        lease_id = (await welcome(outbox)).lease_id
        driver.close_stream(stream)
        assert await driver.read(lambda cluster, stamp: cluster.has_members), "its lease goes on"
        assert await driver.ask(lambda call: replace(obituary(call), lease_id=lease_id))
        assert not await driver.read(lambda cluster, stamp: cluster.has_members)
        await driver.wait_idle()
