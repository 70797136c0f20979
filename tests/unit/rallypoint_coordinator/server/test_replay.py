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


async def test_an_empty_journal_leads_to_nothing() -> None:
    assert await replay(MemoryJournal(), Cluster()) == (0, 0)


async def test_a_snapshot_stands_for_the_records_up_to_it() -> None:
    journal, at_the_snapshot, cluster = MemoryJournal(), Cluster(), Cluster()
    await journal.append(0, [start(1), start(2)])
    assert await replay(journal, at_the_snapshot) == (0, 2)
    await journal.write_snapshot(Snapshot(2, encode_snapshot(at_the_snapshot.snapshot())), keep_records=0)
    await journal.append(2, [start(3)])
    assert await replay(journal, cluster) == (2, 3)
    assert (cluster.cluster_id, cluster.epoch) == ("c", 3)


async def test_a_snapshot_that_cannot_be_read_is_damage() -> None:
    journal = MemoryJournal()
    await journal.append(0, [start(1)])
    await journal.write_snapshot(Snapshot(1, b"\xff"), keep_records=0)
    with pytest.raises(DamagedJournal, match="the snapshot of revision 1 cannot be read"):
        await replay(journal, Cluster())
