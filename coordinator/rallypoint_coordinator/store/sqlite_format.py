"""The journal as a SQLite file: its tables, and whether a file that is there is whole.

Format 1. ``record`` holds what was decided, ``snapshot`` has at most one row, whose data is in ``snapshot_chunk``. Each
row of data carries a CRC32 of its place and its data. A later release reads every earlier format.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from rallypoint_coordinator.store.journal import DamagedJournal, JournalUnavailable, UnusableJournal
from rallypoint_coordinator.store.sqlite_files import make_ready

FORMAT = 1
APPLICATION_ID = 0x52505931
"""What SQLite's header says of whose file it is: RPY1."""

BUSY_TIMEOUT_S = 5.0
"""Only somebody who writes to the file by hand can make us wait."""

_TABLES = (
    "CREATE TABLE record (revision INTEGER PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL)",
    "CREATE TABLE snapshot (revision INTEGER PRIMARY KEY, chunk_count INTEGER NOT NULL)",
    """
    CREATE TABLE snapshot_chunk (
        revision INTEGER NOT NULL, number INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (revision, number)
    )
    """,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)

LOG_PAGES = 256
"""A write-ahead log of 1 MiB, as much as the largest append, is copied into the file.

That holds one append in a hundred up for two syncs more, and bounds what a start after a crash has to replay.
"""

LOG_BYTES_MAX = 4 << 20
"""Somebody who reads by hand keeps the log from starting over: what it grew by is given back when it can."""

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""Of our statements, which never change, SQLITE_ERROR says that a table or column is not there."""


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """SQLite's errors as the port's: DamagedJournal, else JournalUnavailable, which is an OSError."""
    try:
        yield
    except sqlite3.Error as error:
        raise_if_damage(error, where)
        raise JournalUnavailable(f"{where}: {describe(error)}") from error
    except UnicodeDecodeError as error:
        # SQLite names what it finds, and the module cannot read the name: ours are all ASCII.
        raise DamagedJournal(where, "SQLite finds a name in it that is no text") from error


def raise_if_damage(error: sqlite3.Error, where: str) -> None:
    """Raise DamagedJournal if that is what the error says."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
        raise DamagedJournal(where, describe(error)) from error


def describe(error: sqlite3.Error) -> str:
    """``database or disk is full (SQLITE_FULL)``."""
    name = getattr(error, "sqlite_errorname", "")
    return f"{error} ({name})" if name else str(error)


def checksum(data: bytes, *place: int) -> int:
    """A CRC32 of the data and of where it belongs, so that rows cannot change places unseen."""
    return crc32(data, crc32(",".join(map(str, place)).encode()))


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, or make it if it is missing, and see that it is whole.

    Raises DamagedJournal or UnusableJournal. Reads all of it: 2 s for each gigabyte, if the disk is no slower.
    """
    where = str(path)
    try:
        make_ready(path)
        with translated(where):
            db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
            try:
                _prepare(db, where)
                check(db, where)
            except BaseException:
                db.close()
                raise
    except OSError as error:
        why = str(error) if isinstance(error, JournalUnavailable) else f"{where}: {error.strerror}"
        raise UnusableJournal(
            f"the journal cannot be opened: {why}; the coordinator needs a local file system with some free space"
            " that it may write to"
        ) from error
    return db


def _prepare(db: sqlite3.Connection, where: str) -> None:
    # Else text that is no UTF-8, where none belongs, would be an error of the module's own rather than a finding.
    db.text_factory = lambda data: data.decode(errors="replace")
    is_new = _is_new(db, where)
    # The file's first page is written before there is a log: that it is there has to be durable before the log is.
    db.execute("PRAGMA synchronous = EXTRA")
    if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise UnusableJournal(f"{where} is on a file system that cannot do SQLite's WAL mode: choose a local one")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
    if is_new:
        db.execute("BEGIN IMMEDIATE")
        for statement in _TABLES:
            db.execute(statement)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # nobody reads it yet whom that would wait for


def _is_new(db: sqlite3.Connection, where: str) -> bool:
    """Whether nothing is in it. Raises DamagedJournal or UnusableJournal if it is not what this release writes."""
    application_id, version = number(db, "PRAGMA application_id"), number(db, "PRAGMA user_version")
    if (application_id, version, number(db, "SELECT count(*) FROM sqlite_master")) == (0, 0, 0):
        return True
    if application_id != APPLICATION_ID:
        raise UnusableJournal(f"{where} is no journal of Rallypoint: choose another --data-dir, or move the file away")
    if version > FORMAT:
        raise UnusableJournal(
            f"the journal {where} has format {version}, this release reads up to format {FORMAT}: run the later"
            " release that wrote it, or restore a backup from before the upgrade"
        )
    if version < 1:
        raise DamagedJournal(where, f"its header says format {version}")
    return False


def copy_log(db: sqlite3.Connection) -> None:
    """Copy the log into the file as far as nobody reads it, without waiting for those who do."""
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def check(db: sqlite3.Connection, where: str) -> None:
    """Raise DamagedJournal unless every page, record and snapshot is as it was written, and no revision is missing."""
    findings = [str(row[0]) for row in db.execute("PRAGMA quick_check(1)")]
    if findings != ["ok"]:
        raise DamagedJournal(where, f"SQLite finds {findings[0]!r}")
    _check_tables(db, where)
    snapshot_revision = _check_snapshot(db, where)
    first, previous = 0, 0
    for revision, crc, data in db.execute("SELECT revision, crc, data FROM record ORDER BY revision"):
        check_crc(where, f"the record at revision {revision}", crc, data, revision)
        if previous and revision != previous + 1:
            raise DamagedJournal(where, f"revision {revision} follows revision {previous}")
        first, previous = first or revision, revision
    if first > snapshot_revision + 1:
        raise DamagedJournal(where, f"it begins with revision {first}, and no snapshot stands for those before it")
    if previous and previous < snapshot_revision:
        raise DamagedJournal(
            where, f"it ends with revision {previous}, its snapshot is of revision {snapshot_revision}"
        )


def _check_tables(db: sqlite3.Connection, where: str) -> None:
    """Raise DamagedJournal unless each table is as a new journal has it. Others, and indexes, do no harm."""
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        for statement in _TABLES:
            model.execute(statement)
        expected = _columns(model)
    found = _columns(db)
    for table, columns in expected.items():
        if table not in found:
            raise DamagedJournal(where, f"its table {table} is missing")
        if found[table] != columns:
            raise DamagedJournal(where, f"its table {table} has other columns than a journal's")


def _columns(db: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """By table: place, name, type, NOT NULL, default, place in the primary key of each column."""
    tables = [str(name) for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: db.execute("SELECT * FROM pragma_table_info(?)", (table,)).fetchall() for table in tables}


def _check_snapshot(db: sqlite3.Connection, where: str) -> int:
    """The snapshot's revision, 0 if there is none."""
    row = db.execute("SELECT revision, chunk_count FROM snapshot ORDER BY revision DESC LIMIT 1").fetchone()
    if row is None:
        return 0
    for _ in snapshot_chunks(db, where, *row):
        pass
    return int(row[0])


def snapshot_chunks(db: sqlite3.Connection, where: str, revision: int, count: int) -> Iterator[bytes]:
    """A snapshot's data, in order. Raises DamagedJournal if some of it is missing or not what was written."""
    found = 0
    query = "SELECT number, crc, data FROM snapshot_chunk WHERE revision = ? ORDER BY number"
    for chunk, crc, data in db.execute(query, (revision,)):
        check_crc(where, f"chunk {chunk} of the snapshot at revision {revision}", crc, data, revision, chunk)
        found += 1
        yield data
    if found != count or not found:  # each has one at least: a row that says otherwise is of another table
        raise DamagedJournal(where, f"the snapshot at revision {revision} has {found} of {count} chunks")


def check_crc(where: str, what: str, crc: object, data: object, *place: int) -> None:
    if not isinstance(data, bytes) or crc != checksum(data, *place):
        raise DamagedJournal(where, f"{what} is not what was written")


def number(db: sqlite3.Connection, query: str) -> int:
    """The one integer that a query gives; 0 for NULL."""
    return int(db.execute(query).fetchone()[0] or 0)
