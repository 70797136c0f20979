"""The files of a SQLite journal: what is none, and what becomes of one while it is open."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from rallypoint_coordinator.store.journal import (
    Committed,
    DamagedJournal,
    JournalUnavailable,
    NotWritten,
    Unknown,
    UnusableJournal,
)
from rallypoint_coordinator.store.sqlite_file import JournalFile
from support.sqlite_journal import whole_journal

# --- before it is opened


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


@pytest.mark.parametrize("with_log", [False, True])
def test_a_journal_of_a_single_byte_does_not_become_a_new_one(
    file: JournalFile, path: Path, tmp_path: Path, with_log: bool
) -> None:
    """SQLite takes it for an empty one."""
    file.append(0, [b"a"])
    crashed = crashed_journal(path, tmp_path / "crashed")
    if not with_log:
        crashed.with_name("journal.db-wal").unlink()
        crashed.with_name("journal.db-shm").unlink()
    crashed.write_bytes(b"S")
    with pytest.raises(DamagedJournal, match="all that is left of the file is one byte; restore"):
        JournalFile(crashed)
    assert crashed.read_bytes() == b"S"


def test_a_log_that_is_missing_beside_its_index_is_damage(file: JournalFile, path: Path, tmp_path: Path) -> None:
    file.append(0, [b"a"])
    crashed = crashed_journal(path, tmp_path / "crashed")
    crashed.with_name("journal.db-wal").unlink()
    with pytest.raises(DamagedJournal, match=r"journal\.db-wal, with the newest decisions, is missing beside"):
        JournalFile(crashed)


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
