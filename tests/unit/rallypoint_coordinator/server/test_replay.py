from __future__ import annotations

import pytest

from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import CoordinatorStarted, Entry
from rallypoint_coordinator.server.replay import replay
from rallypoint_coordinator.store.codec import encode
from rallypoint_coordinator.store.journal import DamagedJournal, Snapshot
from rallypoint_coordinator.store.memory import MemoryJournal
from rallypoint_coordinator.store.snapshot_codec import encode_snapshot


def start(epoch: int) -> bytes:
    return encode(Entry(job="", job_uid="", wall_ms=0, record=CoordinatorStarted(cluster_id="c", epoch=epoch)))


def ignore(entry: Entry, revision: int, data: bytes) -> None:
    """Who wants to know nothing."""


async def test_an_empty_journal_leads_to_nothing() -> None:
    assert await replay(MemoryJournal(), Cluster(), ignore) == (0, 0)


async def test_a_snapshot_stands_for_the_records_up_to_it() -> None:
    journal, at_the_snapshot, cluster = MemoryJournal(), Cluster(), Cluster()
    await journal.append(0, [start(1), start(2)])
    assert await replay(journal, at_the_snapshot, ignore) == (0, 2)
    await journal.write_snapshot(Snapshot(2, encode_snapshot(at_the_snapshot.snapshot())), keep_records=0)
    await journal.append(2, [start(3)])
    assert await replay(journal, cluster, ignore) == (2, 3)
    assert (cluster.cluster_id, cluster.epoch) == ("c", 3)


async def test_a_snapshot_that_cannot_be_read_is_damage() -> None:
    journal = MemoryJournal()
    await journal.append(0, [start(1)])
    await journal.write_snapshot(Snapshot(1, b"\xff"), keep_records=0)
    with pytest.raises(DamagedJournal, match="the snapshot of revision 1 cannot be read"):
        await replay(journal, Cluster(), ignore)


async def told_of(journal: MemoryJournal, keep_records: int) -> list[tuple[int, bytes]]:
    told = []
    await replay(journal, Cluster(), lambda entry, revision, data: told.append((revision, data)), keep_records)
    return told


async def test_what_is_kept_from_before_the_snapshot_is_told_as_well() -> None:
    journal, at_the_snapshot = MemoryJournal(), Cluster()
    records = [start(epoch) for epoch in range(1, 7)]
    await journal.append(0, records[:5])
    await replay(journal, at_the_snapshot, ignore)
    await journal.write_snapshot(Snapshot(5, encode_snapshot(at_the_snapshot.snapshot())), keep_records=3)
    await journal.append(5, records[5:])
    assert await told_of(journal, 0) == [(6, records[5])]
    assert await told_of(journal, 2) == [(4, records[3]), (5, records[4]), (6, records[5])]
    assert [revision for revision, _ in await told_of(journal, 100)] == [3, 4, 5, 6]


async def test_records_that_are_missing_after_the_snapshot_are_damage() -> None:
    journal, at_the_snapshot = MemoryJournal(), Cluster()
    await journal.append(0, [start(1), start(2), start(3)])
    await replay(journal, at_the_snapshot, ignore)
    data = encode_snapshot(at_the_snapshot.snapshot())
    await journal.write_snapshot(Snapshot(3, data), keep_records=0)
    await journal.write_snapshot(Snapshot(1, data), keep_records=0)
    with pytest.raises(DamagedJournal, match="revision 4 follows revision 1"):
        await replay(journal, Cluster(), ignore)
