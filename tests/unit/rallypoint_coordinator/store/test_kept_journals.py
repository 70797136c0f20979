"""Journals that earlier releases wrote (tests/journals), each of which replays for ever to the state that it led to.

A file there is never changed. If one of these tests fails, the code is wrong.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import typing
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict

from rallypoint.v1 import journal_pb2
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import (
    CoordinatorStarted,
    GoneReason,
    LifeRecord,
    MemberGone,
    RoundStopping,
    StateLost,
    StopCause,
)
from rallypoint_coordinator.core.snapshot import ClusterSnapshot
from rallypoint_coordinator.store.codec import decode
from rallypoint_coordinator.store.journal import Stored
from rallypoint_coordinator.store.snapshot_codec import decode_snapshot, encode_snapshot, snapshot_from_proto
from rallypoint_coordinator.store.sqlite import SqliteJournal

FOLDER = Path(__file__).parents[3] / "journals"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))


def records(name: str) -> list[Stored]:
    lines = map(json.loads, (FOLDER / f"{name}.jsonl").read_text().splitlines())
    return [Stored(line["revision"], base64.b64decode(line["data"])) for line in lines]


def expected(name: str) -> ClusterSnapshot:
    state = json.loads((FOLDER / f"{name}.json").read_text())
    return snapshot_from_proto(ParseDict(state, journal_pb2.ClusterSnapshot()))


def as_kept(cluster: Cluster, kept: ClusterSnapshot) -> ClusterSnapshot:
    """When epochs began, and how rounds ended, is in the records, but the older snapshots did not keep it."""
    found = cluster.snapshot()
    if not any(life.round_changes for life in kept.lives):
        found = replace(found, lives=tuple(replace(life, round_changes=()) for life in found.lives))
    return found if kept.epochs else replace(found, epochs=())


def replayed(name: str) -> Cluster:
    cluster = Cluster()
    for revision, data in records(name):
        cluster.apply(decode(data), revision)
    return cluster


@pytest.mark.parametrize("name", NAMES)
def test_the_records_lead_to_the_state(name: str) -> None:
    assert as_kept(replayed(name), expected(name)) == expected(name)


@pytest.mark.parametrize("name", NAMES)
async def test_the_database_leads_to_the_state(name: str, tmp_path: Path) -> None:
    shutil.copy(FOLDER / f"{name}.db", tmp_path / "journal.db")
    journal, cluster = SqliteJournal(tmp_path / "journal.db"), Cluster()
    snapshot = await journal.read_snapshot()
    assert snapshot is not None
    cluster.restore(decode_snapshot(snapshot.data))
    tail = [stored async for stored in journal.read(snapshot.revision)]
    for revision, data in tail:
        cluster.apply(decode(data), revision)
    assert as_kept(cluster, expected(name)) == expected(name)
    assert tail == records(name)[snapshot.revision :]
    await journal.close()


def test_every_kind_of_record_is_in_one_of_them() -> None:
    """A new kind, reason or cause needs a new journal: tests/journals/make.py."""
    decided = [decode(data).record for name in NAMES for _, data in records(name)]
    assert {type(record) for record in decided} == {CoordinatorStarted, StateLost, *typing.get_args(LifeRecord)}
    assert {record.reason for record in decided if isinstance(record, MemberGone)} == set(GoneReason)
    assert {record.cause for record in decided if isinstance(record, RoundStopping)} == set(StopCause)


def digest(name: str) -> None:
    """What the subprocess below runs."""
    import hashlib

    print(hashlib.sha256(encode_snapshot(replayed(name).snapshot())).hexdigest())


@pytest.mark.parametrize("name", NAMES)
def test_hash_seeds_change_nothing(name: str) -> None:
    folders = os.pathsep.join(path for path in sys.path if path)
    code = f"from unit.rallypoint_coordinator.store.test_kept_journals import digest; digest({name!r})"
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": folders},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1]
    assert len(digests[0].strip()) == 64
