"""What the journal does to its SQLite file, one blocking call each."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rallypoint_coordinator.store.journal import (
    AppendResult,
    Committed,
    Compacted,
    DamagedJournal,
    Fenced,
    NotWritten,
    Snapshot,
    Stored,
    Unknown,
)
from rallypoint_coordinator.store.sqlite_files import OpenFiles
from rallypoint_coordinator.store.sqlite_format import (
    check_crc,
    checksum,
    copy_log,
    describe,
    number,
    open_database,
    raise_if_damage,
    snapshot_chunks,
    translated,
)

_LAST_REVISION = """
    SELECT max(revision) FROM (SELECT max(revision) AS revision FROM record UNION SELECT max(revision) FROM snapshot)
"""


def no_directory() -> None:
    """Nobody else knows of the file."""


class JournalFile:
    """Made and used by one thread. After an error it stays usable: what a transaction began is rolled back."""

    def __init__(self, path: Path, verify_directory: Callable[[], None] = no_directory) -> None:
        """``verify_directory`` raises JournalError or OSError if others may use the file.

        Raises DamagedJournal or UnusableJournal.
        """
        self.where = str(path)
        self._verify_directory = verify_directory
        self._db = open_database(path)
        self._files = OpenFiles(path)

    def verify(self) -> None:
        """See that the file is still ours, and still what its name leads to. Raises JournalError or OSError."""
        self._verify_directory()
        self._files.verify()

    def close(self) -> None:
        self._db.close()

    # --- records

    def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        """One transaction. An error before its COMMIT is sure to have written nothing; one in it may have."""
        try:
            self._begin()
            actual = number(self._db, _LAST_REVISION)
            if actual != expected_revision:
                self._roll_back()
                return Fenced(actual)
            rows = [(revision, checksum(data, revision), data) for revision, data in enumerate(records, actual + 1)]
            self._db.executemany("INSERT INTO record (revision, crc, data) VALUES (?, ?, ?)", rows)
        except OSError as error:
            return NotWritten(str(error))
        except sqlite3.Error as error:
            self._roll_back()
            raise_if_damage(error, self.where)
            return NotWritten(f"{self.where}: {describe(error)}")
        return self._commit_append(actual + len(rows), is_first=actual == 0)

    def _commit_append(self, revision: int, *, is_first: bool) -> AppendResult:
        try:
            self._db.execute("COMMIT")
            self.verify()  # what went into a file that is deleted is not durable
            if is_first:
                copy_log(self._db)  # so that the file says by itself whose it is, should the log get lost
        except OSError as error:
            return Unknown(str(error))
        except sqlite3.Error as error:
            # A frame that reached the log before the error would count after a crash, unless it is written over.
            self._roll_back()
            raise_if_damage(error, self.where)
            return Unknown(f"{self.where}: {describe(error)}")
        return Committed(revision)

    def read(self, after_revision: int, count_max: int) -> list[Stored]:
        """The next records, at most so many; none at the end. Raises Compacted, DamagedJournal or OSError."""
        query = "SELECT revision, crc, data FROM record WHERE revision > ? ORDER BY revision LIMIT ?"
        self.verify()
        with translated(self.where):
            rows = self._db.execute(query, (after_revision, count_max)).fetchall()
            if not rows and after_revision < number(self._db, _LAST_REVISION):
                raise Compacted(number(self._db, _LAST_REVISION) + 1)
            self._check_follows(after_revision, [revision for revision, _, _ in rows])
        for revision, crc, data in rows:
            check_crc(self.where, f"the record at revision {revision}", crc, data, revision)
        return [Stored(revision, data) for revision, _, data in rows]

    def _check_follows(self, after_revision: int, revisions: list[int]) -> None:
        for expected, revision in enumerate(revisions, after_revision + 1):
            if revision != expected:
                first = number(self._db, "SELECT min(revision) FROM record")
                if first == revision:
                    raise Compacted(first)
                raise DamagedJournal(self.where, f"revision {revision} stands where {expected} should")

    # --- snapshots

    def read_snapshot(self) -> Snapshot | None:
        self.verify()
        with translated(self.where):
            row = self._db.execute("SELECT revision, chunk_count FROM snapshot ORDER BY revision DESC").fetchone()
            if row is None:
                return None
            return Snapshot(row[0], b"".join(snapshot_chunks(self._db, self.where, *row)))

    def begin_snapshot(self, revision: int) -> bool:
        """Clear what an unfinished one left. False if there is one of this revision, or a newer one, already."""
        with self._transaction():
            newest = number(self._db, "SELECT max(revision) FROM snapshot")
            self._db.execute("DELETE FROM snapshot_chunk WHERE revision <> ?", (newest,))
        return revision > newest

    def add_chunk(self, revision: int, chunk: int, data: bytes) -> None:
        row = (revision, chunk, checksum(data, revision, chunk), data)
        with self._transaction():
            self._db.execute("INSERT INTO snapshot_chunk (revision, number, crc, data) VALUES (?, ?, ?, ?)", row)

    def finish_snapshot(self, revision: int, chunk_count: int) -> None:
        """The snapshot counts from now on, the earlier one is gone."""
        with self._transaction():
            self._db.execute("INSERT INTO snapshot (revision, chunk_count) VALUES (?, ?)", (revision, chunk_count))
            self._db.execute("DELETE FROM snapshot WHERE revision < ?", (revision,))
            self._db.execute("DELETE FROM snapshot_chunk WHERE revision < ?", (revision,))

    def drop_records(self, until_revision: int, count_max: int) -> bool:
        """Drop the first records, at most so many, until that revision, which is dropped too. False if none is left.

        From the front, so that what remains has no gap whenever this ends.
        """
        first = "SELECT revision FROM record WHERE revision <= ? ORDER BY revision LIMIT ?"
        with self._transaction():
            dropped = self._db.execute(
                f"DELETE FROM record WHERE revision IN ({first})", (until_revision, count_max)
            ).rowcount
        return dropped == count_max

    def copy_log(self) -> None:
        """Empty the log into the file: what a snapshot wrote is more than all appends until the next."""
        with translated(self.where):
            copy_log(self._db)

    # --- transactions

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit at the end, roll back on an error. Raises DamagedJournal or OSError."""
        with translated(self.where):
            self._begin()
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                self._roll_back()

    def _begin(self) -> None:
        self.verify()
        self._roll_back()  # should an earlier one have failed at that too
        self._db.execute("BEGIN IMMEDIATE")

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
