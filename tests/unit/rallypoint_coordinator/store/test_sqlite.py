"""The SQLite journal: what is durable, what a failing disk does to it, how large it gets."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from rallypoint_coordinator.store.journal import (
    Committed,
    Fenced,
    JournalUnavailable,
    NotWritten,
    Snapshot,
    Stored,
    Unknown,
)
from rallypoint_coordinator.store.sqlite import SqliteJournal
from rallypoint_coordinator.store.sqlite_file import JournalFile
from rallypoint_coordinator.store.sqlite_format import LOG_BYTES_MAX, LOG_PAGES
from support.disk import small_disk
from support.sqlite_journal import whole_journal

# --- durable


def test_it_is_durable_and_ours_alone(file: JournalFile, path: Path) -> None:
    assert file._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert file._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_committed_is_there_again(path: Path) -> None:
    whole_journal(path)
    file = JournalFile(path)
    assert file.read_snapshot() == Snapshot(20, b"chunk 0chunk 1chunk 2")
    assert file.read(28, 10) == [Stored(29, b"record 29"), Stored(30, b"record 30")]
    assert file.append(30, [b"more"]) == Committed(31)
    file.close()


def test_what_was_committed_survives_a_crash(file: JournalFile, path: Path, tmp_path: Path) -> None:
    """The files as they are while the process runs, which is what a SIGKILL leaves."""
    file.append(0, [b"a", b"b"])
    after = tmp_path / "after"
    after.mkdir()
    for suffix in ("", "-wal"):
        (after / f"journal.db{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    again = JournalFile(after / "journal.db")
    assert again.read(0, 9) == [(1, b"a"), (2, b"b")]
    again.close()


def test_a_second_writer_fences_the_first(file: JournalFile, path: Path) -> None:
    other = JournalFile(path)
    other.append(0, [b"a"])
    assert file.append(0, [b"b"]) == Fenced(1)
    assert file.append(1, [b"b"]) == Committed(2)
    other.close()


async def test_the_event_loop_never_waits_for_the_disk(path: Path) -> None:
    journal = SqliteJournal(path)
    let_go, inside = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    thread = ""

    def slow() -> int:
        nonlocal thread
        thread = threading.current_thread().name
        loop.call_soon_threadsafe(inside.set)
        assert let_go.wait(20)
        return 1

    writing = asyncio.create_task(journal._do(slow))
    await inside.wait()
    appending = asyncio.create_task(journal.append(0, [b"a"]))
    await asyncio.sleep(0)
    assert not appending.done()
    let_go.set()
    assert await writing == 1
    assert await appending == Committed(1)
    assert thread.startswith("journal")
    await journal.close()


async def test_appends_get_their_turn_while_a_snapshot_is_written(path: Path) -> None:
    journal = SqliteJournal(path)
    await journal.append(0, [b"a"] * 10)
    snapshot = asyncio.create_task(journal.write_snapshot(Snapshot(10, b"x" * (8 << 20)), keep_records=0))
    revision = 10
    while not snapshot.done():
        result = await journal.append(revision, [b"b"])
        assert isinstance(result, Committed)
        revision = result.revision
    assert revision > 12, "more than one append while nine transactions were made"
    await journal.close()
    again = SqliteJournal(path)
    assert await again.read_snapshot() == Snapshot(10, b"x" * (8 << 20))
    assert len([stored async for stored in again.read(10)]) == revision - 10
    await again.close()


# --- the disk


class Faulty:
    """A connection whose COMMIT fails: after it was done, or instead of it."""

    def __init__(self, db: sqlite3.Connection, *, done: bool) -> None:
        self._db = db
        self._done = done
        self.broken = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        if statement != "COMMIT" or not self.broken:
            return self._db.execute(statement, *parameters)
        if self._done:
            self._db.execute(statement)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"
        raise error


@pytest.mark.parametrize("done", [True, False])
def test_what_a_failed_commit_did_is_not_known(file: JournalFile, done: bool) -> None:
    file.append(0, [b"a"])
    file._db = faulty = Faulty(file._db, done=done)  # type: ignore[assignment]
    answer = file.append(1, [b"b"])
    assert isinstance(answer, Unknown)
    assert answer.why.endswith("journal.db: disk I/O error (SQLITE_IOERR_FSYNC)")
    faulty.broken = False
    written = [(2, b"b")] if done else []
    assert file.read(1, 9) == written
    assert file.append(1 + len(written), [b"c"]) == Committed(2 + len(written))


def test_an_error_before_the_commit_has_written_nothing(file: JournalFile) -> None:
    file.append(0, [b"a"])
    pages = file._db.execute("PRAGMA page_count").fetchone()[0]
    file._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    answer = file.append(1, [b"b" * 50_000])
    assert isinstance(answer, NotWritten)
    assert answer.why.endswith("journal.db: database or disk is full (SQLITE_FULL)")
    assert file.read(0, 9) == [(1, b"a")]
    file._db.execute(f"PRAGMA max_page_count = {pages + 100}")
    assert file.append(1, [b"b" * 50_000]) == Committed(2)


def test_a_disk_that_became_read_only_has_written_nothing(file: JournalFile) -> None:
    file.append(0, [b"a"])
    file._db.execute("PRAGMA query_only = ON")
    answer = file.append(1, [b"b"])
    assert isinstance(answer, NotWritten)
    assert "SQLITE_READONLY" in answer.why
    file._db.execute("PRAGMA query_only = OFF")
    assert file.append(1, [b"b"]) == Committed(2)


def test_a_full_disk_loses_nothing_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        file = JournalFile(disk.path / "journal.db")
        assert file.append(0, [b"a" * 1_000]) == Committed(1)
        disk.fill()
        for _ in range(3):
            answer = file.append(1, [b"b" * 50_000])
            assert isinstance(answer, NotWritten | Unknown)
            assert "database or disk is full" in answer.why
            assert file.read(0, 9) == [(1, b"a" * 1_000)]
        disk.free()
        assert file.append(1, [b"b" * 50_000]) == Committed(2)
        file.close()
        again = JournalFile(disk.path / "journal.db")
        assert again.read(1, 9) == [(2, b"b" * 50_000)]
        again.close()


async def test_a_snapshot_that_does_not_fit_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        journal = SqliteJournal(disk.path / "journal.db")
        await journal.append(0, [b"a"] * 10)
        await journal.write_snapshot(Snapshot(5, b"five"), keep_records=0)
        with pytest.raises(JournalUnavailable, match="database or disk is full"):
            await journal.write_snapshot(Snapshot(10, b"x" * (2 << 20)), keep_records=0)
        assert await journal.read_snapshot() == Snapshot(5, b"five")
        assert len([stored async for stored in journal.read(5)]) == 5
        await journal.write_snapshot(Snapshot(10, b"ten"), keep_records=0)
        assert await journal.read_snapshot() == Snapshot(10, b"ten")
        await journal.close()


def test_what_an_unfinished_snapshot_left_is_cleared(path: Path) -> None:
    whole_journal(path)
    file = JournalFile(path)
    file.begin_snapshot(25)
    file.add_chunk(25, 0, b"half of it")
    file.close()
    file = JournalFile(path)
    assert file.read_snapshot() == Snapshot(20, b"chunk 0chunk 1chunk 2")
    assert file.begin_snapshot(30)
    assert file._db.execute("SELECT DISTINCT revision FROM snapshot_chunk").fetchall() == [(20,)]
    assert not file.begin_snapshot(20), "it is there already"
    file.close()


# --- its size


def pages_of(path: Path) -> int:
    """Of the log, each with its header."""
    return Path(f"{path}-wal").stat().st_size // 4_120


def test_the_log_starts_over_before_it_is_long(file: JournalFile, path: Path) -> None:
    for revision in range(1_000):
        assert file.append(revision, [b"x" * 300]) == Committed(revision + 1)
    assert LOG_PAGES <= pages_of(path) < LOG_PAGES + 16


def test_a_log_that_a_reader_kept_long_is_cut_when_he_has_gone(file: JournalFile, path: Path) -> None:
    file.append(0, [b"a"])
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM record").fetchall()
    revision = 1
    while Path(f"{path}-wal").stat().st_size <= 2 * LOG_BYTES_MAX:
        file.append(revision, [b"x" * 100_000])
        revision += 1
    reader.close()
    file.append(revision, [b"b"])  # copies all of it
    file.append(revision + 1, [b"c"])  # begins at the front
    assert Path(f"{path}-wal").stat().st_size <= LOG_BYTES_MAX


async def test_the_directory_stays_as_large_as_it_is(path: Path) -> None:
    """With as many records between snapshots as ever: what they leave free is used again."""
    journal, revision, sizes = SqliteJournal(path), 0, []
    for _ in range(12):
        for _ in range(100):
            await journal.append(revision, [b"x" * 300] * 10)
            revision += 10
        await journal.write_snapshot(Snapshot(revision, b"s" * 500_000), keep_records=100)
        sizes.append(sum(each.stat().st_size for each in path.parent.iterdir()))
    assert max(sizes[6:]) <= max(sizes[:6]), sizes
    assert sizes[-1] < 10 * 300 * 1_000
    await journal.close()


async def test_a_snapshot_is_in_the_file_itself_once_it_is_written(path: Path) -> None:
    journal = SqliteJournal(path)
    await journal.append(0, [b"a"] * 10)
    await journal.write_snapshot(Snapshot(10, b"ten"), keep_records=0)
    alone = without_log(path)
    assert alone.read_snapshot() == Snapshot(10, b"ten")
    alone.close()
    await journal.close()


def test_nothing_but_the_file_is_left_when_it_is_closed(path: Path) -> None:
    whole_journal(path)
    assert [each.name for each in path.parent.iterdir()] == ["journal.db"]


def without_log(path: Path) -> JournalFile:
    """What the file says by itself."""
    alone = path.with_name("alone.db")
    alone.write_bytes(path.read_bytes())
    return JournalFile(alone)


def test_without_its_log_a_young_journal_still_says_whose_it_is(file: JournalFile, path: Path) -> None:
    """The first append is in the file itself, whatever becomes of the log."""
    file.append(0, [b"the beginning"])
    file.append(1, [b"b"])
    alone = without_log(path)
    assert alone.read(0, 9) == [(1, b"the beginning")]
    alone.close()
