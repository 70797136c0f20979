"""The SQLite journal when something is wrong: with the disk, with the file, with who opens it."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rallypoint_coordinator.store.journal import (
    Committed,
    DamagedJournal,
    Fenced,
    JournalUnavailable,
    NotWritten,
    Snapshot,
    Stored,
    Unknown,
    UnusableJournal,
)
from rallypoint_coordinator.store.sqlite import SqliteJournal
from rallypoint_coordinator.store.sqlite_file import JournalFile
from rallypoint_coordinator.store.sqlite_format import APPLICATION_ID, FORMAT, LOG_BYTES_MAX, LOG_PAGES
from support.disk import small_disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def file(path: Path) -> Iterator[JournalFile]:
    file = JournalFile(path)
    yield file
    file.close()


def by_hand(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    with db:
        for statement in statements:
            db.execute(statement)
    db.close()


def whole_journal(path: Path) -> None:
    """Records 1 to 30, a snapshot of revision 20, the first ten records dropped."""
    file = JournalFile(path)
    file.append(0, [f"record {revision}".encode() for revision in range(1, 31)])
    file.begin_snapshot(20)
    for chunk in range(3):
        file.add_chunk(20, chunk, f"chunk {chunk}".encode())
    file.finish_snapshot(20, 3)
    file.drop_records(10, 1_000)
    file.close()


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


# --- what opening refuses

HAVOC = [
    ("DELETE FROM record WHERE revision = 25", "revision 26 follows revision 24"),
    ("DELETE FROM record WHERE revision < 25", "begins with revision 25, and no snapshot stands for those before it"),
    ("DELETE FROM record WHERE revision > 15", "ends with revision 15, its snapshot is of revision 20"),
    ("DELETE FROM snapshot", "begins with revision 11, and no snapshot stands for those before it"),
    ("DELETE FROM snapshot_chunk WHERE number = 1", "the snapshot at revision 20 has 2 of 3 chunks"),
    ("UPDATE record SET data = X'00' WHERE revision = 12", "the record at revision 12 is not what was written"),
    ("UPDATE record SET data = 'text' WHERE revision = 12", "the record at revision 12 is not what was written"),
    ("UPDATE record SET crc = crc + 1 WHERE revision = 30", "the record at revision 30 is not what was written"),
    ("UPDATE snapshot_chunk SET data = X'00' WHERE number = 2", "chunk 2 of the snapshot at revision 20 is not what"),
]


@pytest.mark.parametrize(("havoc", "what"), HAVOC)
def test_damage_is_found_when_it_is_opened(path: Path, havoc: str, what: str) -> None:
    whole_journal(path)
    by_hand(path, havoc)
    with pytest.raises(DamagedJournal, match=what) as caught:
        JournalFile(path)
    said = str(caught.value)
    assert said.startswith(f"the journal {path} is damaged: ")
    assert "restore a backup" in said
    assert "move it away" in said
    assert "\n" not in said


SCHEMAS = [
    ("DROP TABLE record", "its table record is missing"),
    ("DROP TABLE snapshot_chunk", "its table snapshot_chunk is missing"),
    ("ALTER TABLE record DROP COLUMN crc", "its table record has other columns than a journal's"),
    ("ALTER TABLE snapshot ADD COLUMN author TEXT NOT NULL DEFAULT ''", "its table snapshot has other columns"),
    ("ALTER TABLE record RENAME COLUMN data TO value", "its table record has other columns"),
    ("PRAGMA user_version = 0", "its header says format 0"),
]


@pytest.mark.parametrize(("havoc", "what"), SCHEMAS)
def test_other_tables_than_a_journal_has_are_damage(path: Path, havoc: str, what: str) -> None:
    whole_journal(path)
    by_hand(path, havoc)
    with pytest.raises(DamagedJournal, match=f"{path} is damaged: {what}"):
        JournalFile(path)


def test_a_database_of_somebody_else_under_our_number_is_damage(path: Path) -> None:
    by_hand(
        path, "CREATE TABLE cake (flavour TEXT)", f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 1"
    )
    with pytest.raises(DamagedJournal, match="its table record is missing"):
        JournalFile(path)


def test_what_somebody_added_for_himself_does_no_harm(path: Path) -> None:
    whole_journal(path)
    by_hand(path, "CREATE INDEX mine ON record (crc)", "CREATE TABLE notes (line TEXT)", "ANALYZE")
    file = JournalFile(path)
    assert file.append(30, [b"more"]) == Committed(31)
    file.close()


def test_text_that_is_no_text_is_damage(path: Path) -> None:
    whole_journal(path)
    by_hand(path, "UPDATE record SET data = CAST(X'ff' AS TEXT) WHERE revision = 12")
    with pytest.raises(DamagedJournal, match="the record at revision 12 is not what was written"):
        JournalFile(path)


def test_a_table_that_is_dropped_under_us_is_damage(file: JournalFile, path: Path) -> None:
    file.append(0, [b"a"])
    by_hand(path, "DROP TABLE record")
    with pytest.raises(DamagedJournal, match="no such table: record"):
        file.append(1, [b"b"])
    with pytest.raises(DamagedJournal, match="no such table: record"):
        file.read(0, 9)


def test_records_that_change_places_are_found(path: Path) -> None:
    whole_journal(path)
    by_hand(
        path,
        "UPDATE record SET revision = 1000 WHERE revision = 12",
        "UPDATE record SET revision = 12 WHERE revision = 13",
        "UPDATE record SET revision = 13 WHERE revision = 1000",
    )
    with pytest.raises(DamagedJournal, match="the record at revision 12 is not what was written"):
        JournalFile(path)


@pytest.mark.parametrize("offset", range(100, 20_000, 1_371))
def test_a_torn_page_is_found(path: Path, offset: int) -> None:
    """Either SQLite says so, or a checksum; or nothing that counts was hit."""
    whole_journal(path)
    file = JournalFile(path)
    before = [file.read_snapshot(), *file.read(10, 99)]
    file.close()
    data = bytearray(path.read_bytes())
    data[offset : offset + 64] = b"\xa5" * len(data[offset : offset + 64])
    path.write_bytes(data)
    try:
        file = JournalFile(path)
    except DamagedJournal:
        return
    assert [file.read_snapshot(), *file.read(10, 99)] == before
    file.close()


def test_damage_that_comes_later_is_found_when_it_is_read(file: JournalFile, path: Path) -> None:
    file.append(0, [b"a", b"b", b"c"])
    by_hand(path, "UPDATE record SET data = X'00' WHERE revision = 2")
    with pytest.raises(DamagedJournal, match="revision 2 is not what was written"):
        file.read(0, 9)
    by_hand(path, "DELETE FROM record WHERE revision = 2")
    with pytest.raises(DamagedJournal, match="revision 3 stands where 2 should"):
        file.read(0, 9)
    with pytest.raises(DamagedJournal, match="revision 3 stands where 2 should"):
        file.read(1, 9)


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"these are not the records you are looking for" * 100)
    with pytest.raises(DamagedJournal, match="file is not a database"):
        JournalFile(path)


def test_the_database_of_somebody_else_is_left_alone(path: Path) -> None:
    by_hand(path, "CREATE TABLE cake (flavour TEXT)")
    before = path.read_bytes()
    with pytest.raises(UnusableJournal, match=f"{path} is no journal of Rallypoint"):
        JournalFile(path)
    assert path.read_bytes() == before


def test_a_later_format_is_left_alone(path: Path) -> None:
    whole_journal(path)
    by_hand(path, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(UnusableJournal, match=f"has format {FORMAT + 1}, this release reads up to format {FORMAT}"):
        JournalFile(path)


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch()
    file = JournalFile(path)
    assert file._db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert file.append(0, [b"a"]) == Committed(1)
    file.close()


def test_a_journal_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UnusableJournal, match=r"cannot be opened: .*missing/journal.db: No such file or directory"):
        SqliteJournal(tmp_path / "missing" / "journal.db")


def crashed_journal(path: Path, folder: Path) -> Path:
    """The journal's files as a SIGKILL leaves them, in a folder of their own."""
    folder.mkdir()
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (folder / name).write_bytes(path.with_name(name).read_bytes())
    return folder / "journal.db"


@pytest.mark.parametrize("left", ["journal.db-wal", "journal.db-shm"])
@pytest.mark.parametrize("what", ["missing", "empty"])
def test_what_is_left_of_a_journal_does_not_become_a_new_one(
    file: JournalFile, path: Path, tmp_path: Path, left: str, what: str
) -> None:
    file.append(0, [b"a"])
    crashed = crashed_journal(path, tmp_path / "crashed")
    for name in {"journal.db-wal", "journal.db-shm"} - {left}:
        crashed.with_name(name).unlink()
    crashed.unlink()
    if what == "empty":
        crashed.touch()
    before = crashed.with_name(left).read_bytes()
    with pytest.raises(DamagedJournal, match=f"the file is {what}, and {left} of an earlier one is there; restore"):
        JournalFile(crashed)
    assert crashed.with_name(left).read_bytes() == before


def test_a_log_that_is_missing_beside_its_index_is_damage(file: JournalFile, path: Path, tmp_path: Path) -> None:
    file.append(0, [b"a"])
    crashed = crashed_journal(path, tmp_path / "crashed")
    crashed.with_name("journal.db-wal").unlink()
    with pytest.raises(DamagedJournal, match=r"journal\.db-wal, with the newest decisions, is missing beside"):
        JournalFile(crashed)


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


def a_directory(path: Path) -> None:
    path.mkdir()


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def a_link_to_a_journal(path: Path) -> None:
    whole_journal(path.with_name("other.db"))
    path.symlink_to(path.with_name("other.db"))


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (a_directory, "a directory"),
        (a_link_to_nowhere, "a symbolic link"),
        (a_link_to_a_journal, "a symbolic link"),
        (a_pipe, "a pipe"),
        (a_socket, "a device or a socket"),
    ],
)
def test_a_journal_is_a_plain_file(path: Path, make: Callable[[Path], None], what: str) -> None:
    make(path)
    with pytest.raises(UnusableJournal, match=f"{path} is {what}, and a journal is a plain file: move it away, or"):
        JournalFile(path)
    assert not path.with_name("nowhere").exists()


# --- while it is open

NAMES = ["journal.db", "journal.db-wal", "journal.db-shm"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_written_to_files_that_are_gone(file: JournalFile, path: Path, name: str) -> None:
    file.append(0, [b"a"])
    gone, aside = path.with_name(name), path.with_name("aside")
    gone.rename(aside)
    answer = file.append(1, [b"b"])
    assert isinstance(answer, NotWritten)
    assert answer.why.startswith(f"{gone} is gone: it was removed, moved or replaced under this coordinator")
    with pytest.raises(JournalUnavailable, match="is gone"):
        file.read(0, 9)
    with pytest.raises(JournalUnavailable, match="is gone"):
        file.read_snapshot()
    with pytest.raises(JournalUnavailable, match="is gone"):
        file.begin_snapshot(1)
    aside.rename(gone)
    assert file.append(1, [b"b"]) == Committed(2)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_written_to_files_that_were_replaced(file: JournalFile, path: Path, name: str) -> None:
    file.append(0, [b"a"])
    replaced, other = path.with_name(name), path.with_name("other")
    other.write_bytes(replaced.read_bytes())
    other.rename(replaced)
    answer = file.append(1, [b"b"])
    assert isinstance(answer, NotWritten)
    assert answer.why.startswith(f"{replaced} is another file now")


def test_what_was_committed_to_a_file_that_is_gone_is_in_doubt(path: Path) -> None:
    """It was removed amid the append: after it was looked for, before the COMMIT."""
    looks = 0

    def remove_at_the_second_look() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            path.rename(path.with_name("aside"))

    file = JournalFile(path, remove_at_the_second_look)
    answer = file.append(0, [b"a"])
    assert isinstance(answer, Unknown)
    assert "journal.db is gone" in answer.why
    file.close()


def test_files_that_are_gone_are_noticed_when_nothing_is_written(file: JournalFile, path: Path) -> None:
    file.verify()
    path.rename(path.with_name("aside"))
    with pytest.raises(JournalUnavailable, match=r"journal\.db is gone"):
        file.verify()
    path.with_name("aside").rename(path)
    file.verify()


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


def test_a_full_disk_stops_the_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.fill()
        with pytest.raises(UnusableJournal, match=r"cannot be opened: .*; the coordinator needs .* free space"):
            SqliteJournal(disk.path / "journal.db")
