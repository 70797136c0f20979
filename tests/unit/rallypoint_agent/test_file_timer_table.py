from __future__ import annotations

import signal

import pytest

from rallypoint_agent.file_timer_requests import TimerRequest
from rallypoint_agent.file_timer_table import TIMERS_PER_WORKER_MAX, TimerTable

WALL_S = 1_700_000_000.0
GRACE_MS = 5_000


@pytest.fixture
def table() -> TimerTable:
    return TimerTable(GRACE_MS)


def acquire(
    table: TimerTable,
    scope: str = "s",
    after_s: float = 1,
    *,
    rank: int = 0,
    pid: int = 0,
    sig: int = 9,
    now_ms: int = 0,
) -> bool:
    request = TimerRequest(pid or 100 + rank, scope, WALL_S + after_s, sig)
    return table.acquire(request, rank, 0, now_ms, WALL_S)


def release(table: TimerTable, scope: str = "s", *, rank: int = 0) -> None:
    table.release(TimerRequest(100 + rank, scope, -1, 0))


def expired(table: TimerTable, now_ms: int) -> list[tuple[int, str, int]]:
    return [(timer.local_rank, timer.request.scope_id, timer.request.signal) for timer in table.expire(now_ms)]


def test_a_timer_expires_at_its_instant_and_once(table: TimerTable) -> None:
    assert acquire(table, now_ms=500)
    assert table.next_deadline_ms == 1500
    assert expired(table, 1499) == []
    assert expired(table, 1500) == [(0, "s", 9)]
    assert expired(table, 10**9) == []
    assert len(table) == 0
    assert table.next_deadline_ms is None


def test_one_that_is_released_does_not(table: TimerTable) -> None:
    acquire(table)
    release(table)
    release(table)
    assert (len(table), expired(table, 10**9)) == (0, [])


def test_one_that_was_due_before_it_came_is_due_at_once(table: TimerTable) -> None:
    acquire(table, after_s=-3600, now_ms=70)
    assert expired(table, 70) == [(0, "s", 9)]


def test_for_ever_is_long(table: TimerTable) -> None:
    acquire(table, after_s=float("inf"))
    assert expired(table, 10**12) == []
    assert len(table) == 1


def test_acquiring_again_replaces(table: TimerTable) -> None:
    acquire(table, after_s=1)
    acquire(table, after_s=9)
    assert len(table) == 1
    assert expired(table, 8_999) == []
    assert expired(table, 9_000) == [(0, "s", 9)]


def test_scopes_and_processes_have_timers_of_their_own(table: TimerTable) -> None:
    acquire(table, "a")
    acquire(table, "b")
    acquire(table, "a", rank=1)
    acquire(table, "a", pid=7777)
    release(table, "a")
    assert len(table) == 3


def test_only_the_first_of_a_workers_timers_is_told_and_others_go_on(table: TimerTable) -> None:
    acquire(table, "later", 2)
    acquire(table, "first", 1)
    acquire(table, "other", 1.5, rank=1)
    acquire(table, "child", 1.2, pid=7777)
    acquire(table, "not yet", 60, rank=1)
    assert expired(table, 3_000) == [(0, "first", 9), (1, "other", 9)]
    assert expired(table, 10**9) == []


def test_a_timer_without_a_signal_is_told_and_kills_nobody(table: TimerTable) -> None:
    acquire(table, "told", 1, sig=0)
    acquire(table, "kills", 2)
    assert expired(table, 2_000) == [(0, "told", 0), (0, "kills", 9)]


def test_whom_the_clients_signal_does_not_end_sigkill_does(table: TimerTable) -> None:
    acquire(table, sig=signal.SIGTERM)
    assert expired(table, 1_000) == [(0, "s", signal.SIGTERM)]
    release(table)
    acquire(table, "another", 1, now_ms=1_500)
    assert table.next_deadline_ms == 1_000 + GRACE_MS
    assert expired(table, 1_000 + GRACE_MS - 1) == []
    assert expired(table, 1_000 + GRACE_MS) == [(0, "s", signal.SIGKILL)]
    assert expired(table, 10**9) == []


def test_whoever_is_gone_is_condemned_no_more(table: TimerTable) -> None:
    acquire(table, sig=signal.SIGTERM)
    acquire(table, rank=1, after_s=30)
    expired(table, 1_000)
    table.drop(0)
    assert expired(table, 10_000) == []
    acquire(table, now_ms=10_000)
    assert expired(table, 11_000) == [(0, "s", 9)]
    assert len(table) == 1


def test_a_gone_workers_timers_are_dropped(table: TimerTable) -> None:
    acquire(table)
    acquire(table, "child", pid=7777)
    acquire(table, rank=1)
    table.drop(0)
    assert len(table) == 1
    table.clear()
    assert expired(table, 10**9) == []


def test_a_worker_has_so_many_timers_and_takes_none_of_the_others(table: TimerTable) -> None:
    assert all(acquire(table, str(number)) for number in range(TIMERS_PER_WORKER_MAX))
    assert not acquire(table, "one more")
    assert acquire(table, "0", 2)
    assert acquire(table, rank=1)
    release(table, "0")
    assert acquire(table, "one more")
