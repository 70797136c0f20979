"""What every backend of the journal port does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rallypoint_coordinator.store.journal import Committed, Compacted, Fenced, Journal, Snapshot, Stored
from rallypoint_coordinator.store.memory import MemoryJournal
from rallypoint_coordinator.store.sqlite import SqliteJournal


@pytest.fixture(params=["memory", "sqlite"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    journal: Journal = MemoryJournal() if request.param == "memory" else SqliteJournal(tmp_path / "journal.db")
    yield journal
    await journal.close()


async def contents(journal: Journal, after_revision: int = 0) -> list[Stored]:
    return [stored async for stored in journal.read(after_revision)]


async def fill(journal: Journal, count: int) -> list[bytes]:
    records = [f"record {revision}".encode() for revision in range(1, count + 1)]
    assert await journal.append(0, records) == Committed(count)
    return records


async def test_what_was_appended_is_read_in_order(journal: Journal) -> None:
    assert await contents(journal) == []
    assert await journal.append(0, [b"a", b"b"]) == Committed(2)
    assert await journal.append(2, [b""]) == Committed(3)
    assert await contents(journal) == [(1, b"a"), (2, b"b"), (3, b"")]
    assert await contents(journal, 2) == [(3, b"")]
    assert await contents(journal, 3) == []


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_a_writer_that_is_not_where_the_journal_is_is_fenced(journal: Journal, expected: int) -> None:
    await journal.append(0, [b"a", b"b"])
    assert await journal.append(expected, [b"c"]) == Fenced(2)
    assert await contents(journal) == [(1, b"a"), (2, b"b")]
    assert await journal.append(2, [b"c"]) == Committed(3)


async def test_a_long_journal_is_read_whole(journal: Journal) -> None:
    records = await fill(journal, 2_500)
    assert [data for _, data in await contents(journal)] == records


async def test_there_is_no_snapshot_at_first(journal: Journal) -> None:
    await fill(journal, 3)
    assert await journal.read_snapshot() is None


@pytest.mark.parametrize("data", [b"", b"small", b"\x00\x01\x02\x03" * 700_000])
async def test_a_snapshot_is_read_as_it_was_written(journal: Journal, data: bytes) -> None:
    await fill(journal, 10)
    await journal.write_snapshot(Snapshot(7, data), keep_records=2)
    assert await journal.read_snapshot() == Snapshot(7, data)


async def test_the_newest_snapshot_replaces_the_earlier(journal: Journal) -> None:
    await fill(journal, 10)
    await journal.write_snapshot(Snapshot(4, b"four" * 400_000), keep_records=2)
    await journal.write_snapshot(Snapshot(8, b"eight"), keep_records=2)
    assert await journal.read_snapshot() == Snapshot(8, b"eight")


@pytest.mark.parametrize(
    ("keep", "first"), [(0, 3_001), (1, 3_000), (1_000, 2_001), (2_999, 2), (3_000, 1), (9_999, 1)]
)
async def test_records_before_a_snapshot_are_dropped_but_for_the_last_few(
    journal: Journal, keep: int, first: int
) -> None:
    records = await fill(journal, 3_100)
    await journal.write_snapshot(Snapshot(3_000, b"s"), keep)
    kept = [Stored(revision, data) for revision, data in enumerate(records, 1) if revision >= first]
    assert await contents(journal, first - 1) == kept
    if first > 1:
        with pytest.raises(Compacted, match=f"before revision {first} ") as caught:
            await contents(journal, first - 2)
        assert caught.value.first_revision == first


async def test_revisions_go_on_where_everything_was_dropped(journal: Journal) -> None:
    await fill(journal, 3)
    await journal.write_snapshot(Snapshot(3, b"s"), keep_records=0)
    assert await contents(journal, 3) == []
    with pytest.raises(Compacted):
        await contents(journal, 2)
    assert await journal.append(0, [b"x"]) == Fenced(3)
    assert await journal.append(3, [b"d"]) == Committed(4)
    assert await contents(journal, 3) == [(4, b"d")]
