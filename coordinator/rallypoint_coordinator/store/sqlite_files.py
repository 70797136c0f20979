"""The files of a SQLite journal: whether they can be one before they are opened, and are where they were afterwards."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rallypoint_coordinator.store.journal import DamagedJournal, JournalUnavailable, UnusableJournal

LOG_SUFFIX = "-wal"
INDEX_SUFFIX = "-shm"


def make_ready(path: Path) -> None:
    """Make the file if there is none of it, for its owner alone. Raises DamagedJournal, UnusableJournal or OSError.

    SQLite takes an empty file, and one of a single byte, for a new database, and throws a log away that lies beside it.
    """
    found = _status(path)
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise UnusableJournal(
            f"{path} is {_kind(found.st_mode)}, and a journal is a plain file: move it away, or give the directory"
            " that the journal is in as --data-dir"
        )
    if found is not None and found.st_size == 1:
        raise DamagedJournal(str(path), "all that is left of the file is one byte")
    left = [suffix for suffix in (LOG_SUFFIX, INDEX_SUFFIX) if _status(_beside(path, suffix)) is not None]
    if left and (found is None or found.st_size == 0):
        raise DamagedJournal(
            str(path),
            f"the file is {'empty' if found else 'missing'}, and {path.name}{left[0]} of an earlier one is there",
        )
    if left == [INDEX_SUFFIX]:
        raise DamagedJournal(
            str(path),
            f"{path.name}{LOG_SUFFIX}, with the newest decisions, is missing beside {path.name}{INDEX_SUFFIX}",
        )
    # SQLite would make it with the umask's permissions, and says less of what is wrong.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))


class OpenFiles:
    """The files that SQLite has open. It goes on writing to them when they are deleted, and nobody finds that again."""

    def __init__(self, path: Path) -> None:
        """They are there: the database is open, and has been read."""
        self._identities = {
            name: _identity(name) for name in (path, _beside(path, LOG_SUFFIX), _beside(path, INDEX_SUFFIX))
        }

    def verify(self) -> None:
        """Raises JournalUnavailable unless each name leads to the file that it led to at first."""
        for path, identity in self._identities.items():
            now = _identity(path)
            if now != identity:
                what = "is gone" if now is None else "is another file now"
                raise JournalUnavailable(
                    f"{path} {what}: it was removed, moved or replaced under this coordinator, which writes nothing"
                    " until it is back in its place; if it is lost, stop it and restore a backup"
                )


def _identity(path: Path) -> tuple[int, int] | None:
    found = _status(path)
    return (found.st_dev, found.st_ino) if found is not None else None


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe"}
    return kinds.get(stat.S_IFMT(mode), "a device or a socket")
