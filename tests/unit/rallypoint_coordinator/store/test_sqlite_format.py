"""What opening a SQLite journal finds wrong with what is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rallypoint_coordinator.store.journal import (
    Committed,
    DamagedJournal,
    UnusableJournal,
)
from rallypoint_coordinator.store.sqlite import SqliteJournal
from rallypoint_coordinator.store.sqlite_file import JournalFile
from rallypoint_coordinator.store.sqlite_format import APPLICATION_ID, FORMAT
from support.disk import small_disk
from support.sqlite_journal import by_hand, whole_journal

HAVOC = [
    ("DELETE FROM record WHERE revision = 25", "revision 26 follows revision 24"),
    ("DELETE FROM record WHERE revision < 25", "begins with revision 25, and no snapshot stands for those before it"),
    ("DELETE FROM record WHERE revision > 15", "ends with revision 15, its snapshot is of revision 20"),
    ("DELETE FROM snapshot", "begins with revision 11, and no snapshot stands for those before it"),
    ("DELETE FROM snapshot_chunk WHERE number = 1", "the snapshot at revision 20 has 2 of 3 chunks"),
    ("UPDATE snapshot SET revision = 11, chunk_count = 0", "the snapshot at revision 11 has 0 of 0 chunks"),
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


def test_a_name_that_is_no_text_is_damage(path: Path) -> None:
    """SQLite's complaint has it, and the sqlite3 module cannot read the complaint."""
    whole_journal(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"CREATE TABLE record (", b"CREATE TABLE record \xdd"))
    assert path.read_bytes() != content
    with pytest.raises(DamagedJournal, match="SQLite finds a name in it that is no text; restore"):
        JournalFile(path)


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


def test_a_full_disk_stops_the_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.fill()
        with pytest.raises(UnusableJournal, match=r"cannot be opened: .*; the coordinator needs .* free space"):
            SqliteJournal(disk.path / "journal.db")
