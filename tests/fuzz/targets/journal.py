"""The journal's file, damaged: bits that turned, pages that went or changed places, a file that was cut.

An input says which kept journal, and then what happened to it: steps of a place in the file and what stands there now.
It opens to the state that it had, or is refused with a sentence; never is it opened to another state. (A write-ahead
log that was damaged is another matter: SQLite takes it as one that was torn, so it opens to a state that there was.)
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fuzz.folder import folder
from fuzz.script import Step, pack, unpack
from fuzz.target import Target, is_a_sentence
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import Entry
from rallypoint_coordinator.core.snapshot import ClusterSnapshot
from rallypoint_coordinator.server.replay import replay
from rallypoint_coordinator.store.journal import JournalError
from rallypoint_coordinator.store.sqlite import SqliteJournal

_KEPT = Path(__file__).parents[2] / "journals"
_FLIP, _WRITE, _CUT, _COPY, _DROP = range(5)
_PAGE = 4096
_PLACE_BYTES = 3
_OF_THE_LOG = 0x80
"""In a step's kind: what is damaged is the log, not the file."""


@dataclass(frozen=True)
class _Base:
    """``states``: what the records up to each revision since the snapshot lead to; the last is the journal's."""

    file: bytes
    log: bytes
    states: list[ClusterSnapshot]


@functools.cache
def _bases() -> list[_Base]:
    return [_base(path) for path in sorted(_KEPT.glob("*.db"))]


def _base(kept: Path) -> _Base:
    """The journal with its last records in the log, as a coordinator that was killed leaves it."""
    path = folder() / "base.db"
    shutil.copy(kept, path)
    states: list[ClusterSnapshot] = []
    asyncio.run(_open(path, states))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        newest = "SELECT revision, crc, data FROM record ORDER BY revision DESC LIMIT 2"
        rows = db.execute(newest).fetchall()
        db.execute("DELETE FROM record WHERE revision >= ?", rows[-1][:1])
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for row in reversed(rows):
            db.execute("INSERT INTO record (revision, crc, data) VALUES (?, ?, ?)", row)
        return _Base(path.read_bytes(), Path(f"{path}-wal").read_bytes(), states)


def check(data: bytes) -> None:
    if not data:
        return
    base = _bases()[data[0] % len(_bases())]
    steps = list(unpack(data[1:]))
    path = folder() / "journal.db"
    file, log = bytearray(base.file), bytearray(base.log)
    for step in steps:
        _damage(log if step.kind & _OF_THE_LOG else file, step)
    for name in path.parent.glob("journal.db*"):
        name.unlink()
    path.write_bytes(file)
    Path(f"{path}-wal").write_bytes(log)
    try:
        state = asyncio.run(_open(path))
    except JournalError as error:
        is_a_sentence(str(error), "a journal that is refused")
        return
    may_be_earlier = any(step.kind & _OF_THE_LOG for step in steps)
    if state not in (base.states if may_be_earlier else base.states[-1:]):
        raise AssertionError(f"it opens to another state: {state}")


def _damage(content: bytearray, step: Step) -> None:
    if not content:
        return
    at = int.from_bytes(step.data[:_PLACE_BYTES], "big") % len(content)
    rest = step.data[_PLACE_BYTES:]
    kind = (step.kind & ~_OF_THE_LOG) % 5
    page = at - at % _PAGE
    if kind == _FLIP:
        content[at] ^= 1 << (rest[0] % 8 if rest else 0)
    elif kind == _WRITE:
        content[at : at + len(rest)] = rest
    elif kind == _CUT:
        del content[at:]
    elif kind == _COPY:
        other = (int.from_bytes(rest[:2], "big") * _PAGE) % len(content)
        content[page : page + _PAGE] = content[other : other + _PAGE]
    else:
        del content[page : page + _PAGE]


async def _open(path: Path, states: list[ClusterSnapshot] | None = None) -> ClusterSnapshot:
    """``states``: where the state after each record goes."""
    journal, cluster = SqliteJournal(path), Cluster()

    def note(entry: Entry, revision: int, data: bytes) -> None:
        if states is not None:
            states.append(cluster.snapshot())

    try:
        await replay(journal, cluster, note)
    finally:
        await journal.close()
    return cluster.snapshot()


def generate(rng: Random) -> bytes:
    number = rng.randrange(len(_bases()))
    base = _bases()[number]
    steps = [_step(rng, base) for _ in range(rng.choice((1, 1, 1, 2, 4, 16)))]
    return bytes([number]) + pack(steps)


def _step(rng: Random, base: _Base) -> Step:
    of_the_log = rng.random() < 0.3
    size = len(base.log if of_the_log else base.file)
    kind = rng.choice((_FLIP, _FLIP, _FLIP, _WRITE, _WRITE, _CUT, _COPY, _DROP))
    page = rng.randrange(size // _PAGE or 1) * _PAGE
    # Headers of the file and of its pages say most.
    at = rng.choice((rng.randrange(size), rng.randrange(size), page + rng.randrange(16), rng.randrange(112)))
    rest = rng.randbytes(rng.randint(1, 24)) if rng.random() < 0.8 else bytes(rng.randint(1, 512))
    return Step(kind | (_OF_THE_LOG if of_the_log else 0), at.to_bytes(_PLACE_BYTES, "big") + rest)


TARGET = Target(check=check, generate=generate)
