from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rallypoint_coordinator.store.directory import DataDirectory, DirectoryInUse, UnusableDirectory
from rallypoint_coordinator.store.journal import JournalUnavailable


def test_it_is_made_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    directory = DataDirectory.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert directory.journal == path / "journal.db"
    directory.close()


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir(mode=0o750)
    (path / "notes").write_text("mine")
    DataDirectory.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert (path / "notes").read_text() == "mine"


def test_the_second_one_is_told_who_was_first(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path)
    with pytest.raises(DirectoryInUse, match=rf"in use by another coordinator \(pid {os.getpid()}, starting\)"):
        DataDirectory.open(tmp_path)
    first.announce("127.0.0.1:29400")
    with pytest.raises(DirectoryInUse, match=rf"{tmp_path} .*\(pid {os.getpid()}, listening on 127.0.0.1:29400\)"):
        DataDirectory.open(tmp_path)
    first.close()
    DataDirectory.open(tmp_path).close()


def test_a_shorter_address_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    directory.announce("[2001:db8::1234:5678]:29400")
    directory.announce("h:1")
    assert (tmp_path / "lock").read_text() == f"pid {os.getpid()}, listening on h:1\n"
    directory.close()


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(UnusableDirectory, match=f"{path} cannot be used: there is something of that name which is no"):
        DataDirectory.open(path)


def test_a_link_to_a_disk_that_is_not_there_is_no_directory(tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "disk")
    with pytest.raises(UnusableDirectory, match="which is no directory; --data-dir takes a writable directory"):
        DataDirectory.open(path)


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(UnusableDirectory, match="Is a directory"):
        DataDirectory.open(tmp_path)


def test_a_lock_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(UnusableDirectory, match="its lock is no plain file"):
        DataDirectory.open(tmp_path)


def test_a_lock_that_is_a_link_could_be_that_of_another_directory(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnusableDirectory, match="symbolic link"):
        DataDirectory.open(tmp_path)


def test_a_lock_that_was_removed_is_taken_again(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    directory.announce("127.0.0.1:29400")
    (tmp_path / "lock").unlink()
    directory.verify()
    with pytest.raises(DirectoryInUse, match=r"listening on 127\.0\.0\.1:29400"):
        DataDirectory.open(tmp_path)
    directory.verify()
    directory.close()
    DataDirectory.open(tmp_path).close()


def test_who_lost_the_lock_to_another_is_told_so(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    (tmp_path / "lock").rename(tmp_path / "old-lock")
    other = DataDirectory.open(tmp_path)
    other.announce("127.0.0.1:4")
    with pytest.raises(DirectoryInUse, match=r"in use by another coordinator \(pid .*, listening on 127\.0\.0\.1:4\)"):
        directory.verify()
    other.verify()
    directory.close()
    other.close()


def test_a_directory_that_is_gone_may_come_back(tmp_path: Path) -> None:
    path = tmp_path / "data"
    directory = DataDirectory.open(path)
    path.rename(tmp_path / "aside")
    with pytest.raises(JournalUnavailable, match=f"the data directory {path} was removed or changed .*No such file"):
        directory.verify()
    (tmp_path / "aside").rename(path)
    directory.verify()
    directory.close()
