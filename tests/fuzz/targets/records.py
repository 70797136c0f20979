"""What is in a journal, changed before its checksum was made: records and a snapshot.

An input is the number of a kept journal and steps: a byte below 128 is a record's, which is put in the place of the one
there is; any other the snapshot's. A journal is read to its end or refused as damaged; if its records are read, a
restart that begins with a snapshot of what they led to takes the same snapshot.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

from google.protobuf.json_format import ParseDict

from fuzz.messages import changed
from fuzz.script import Step, pack, unpack
from fuzz.target import Target, demand, is_a_sentence
from rallypoint.v1 import journal_pb2
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.server.replay import replay
from rallypoint_coordinator.store.journal import DamagedJournal, Snapshot
from rallypoint_coordinator.store.memory import MemoryJournal
from rallypoint_coordinator.store.snapshot_codec import decode_snapshot, encode_snapshot

_KEPT = Path(__file__).parents[2] / "journals"
_SNAPSHOT = 128


@dataclass(frozen=True)
class _Base:
    records: list[bytes]
    snapshot: bytes


@functools.cache
def _bases() -> list[_Base]:
    return [_base(path) for path in sorted(_KEPT.glob("*.jsonl"))]


def _base(path: Path) -> _Base:
    records = [base64.b64decode(json.loads(line)["data"]) for line in path.read_text().splitlines()]
    state = ParseDict(json.loads(path.with_suffix(".json").read_text()), journal_pb2.ClusterSnapshot())
    return _Base(records, state.SerializeToString())


def check(data: bytes) -> None:
    if data:
        asyncio.run(_check(_bases()[data[0] % len(_bases())], list(unpack(data[1:]))))


async def _check(base: _Base, steps: list[Step]) -> None:
    journal, records = MemoryJournal(), list(base.records)
    for step in steps:
        if step.kind < _SNAPSHOT:
            records[step.kind % len(records)] = step.data
    await journal.append(0, records)
    snapshots = [step.data for step in steps if step.kind >= _SNAPSHOT]
    if snapshots:
        await journal.write_snapshot(Snapshot(len(records), snapshots[-1]), 0)
    cluster = Cluster()
    try:
        await replay(journal, cluster, lambda entry, revision, data: None)
    except DamagedJournal as error:
        is_a_sentence(str(error), "a journal that is refused")
        return
    known = cluster.snapshot()
    if snapshots:
        return  # which says what it likes, twice over for example
    try:
        kept = encode_snapshot(known)
    except ValueError:
        return  # of a number at the end of its range, which no coordinator lets in, the next one is none
    demand(encode_snapshot(decode_snapshot(kept)) == kept, "a snapshot of it says something else")


def generate(rng: Random) -> bytes:
    number = rng.randrange(len(_bases()))
    base = _bases()[number]
    return bytes([number]) + pack(_step(rng, base) for _ in range(rng.choice((1, 1, 2, 3))))


def _step(rng: Random, base: _Base) -> Step:
    if rng.random() < 0.3:
        snapshot = journal_pb2.ClusterSnapshot.FromString(base.snapshot)
        return Step(_SNAPSHOT, changed(rng, snapshot)[:65535])
    at = rng.randrange(len(base.records))
    record = journal_pb2.JournalRecord.FromString(base.records[rng.choice((at, at, rng.randrange(len(base.records))))])
    return Step(at, changed(rng, record)[:65535])


TARGET = Target(check=check, generate=generate)
