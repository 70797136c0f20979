"""The data directory: what is in it, and that one coordinator alone uses it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from rallypoint_coordinator.store.journal import JournalError

JOURNAL = "journal.db"
LOCK = "lock"
HOLDER_BYTES_MAX = 256


class UnusableDirectory(JournalError):
    """The data directory cannot be used, by the fault of the file system or of its permissions."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"the data directory {path} cannot be used: {why}; --data-dir takes a writable directory")


class DirectoryInUse(JournalError):
    """Another coordinator has it."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(
            f"the data directory {path} is in use by another coordinator ({holder}): stop that one, or give this one"
            " a --data-dir of its own"
        )


class DataDirectory:
    """A directory that is ours until :meth:`close`, or until the process ends in whatever way."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._say(f"pid {os.getpid()}, starting")

    @classmethod
    def open(cls, path: Path) -> DataDirectory:
        """Take the directory, made with mode 0700 if it is missing. Raises UnusableDirectory or DirectoryInUse."""
        try:
            _make(path)
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnusableDirectory(path, error.strerror or str(error)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            try:
                if isinstance(error, BlockingIOError):
                    raise DirectoryInUse(path, _holder(lock)) from error
                raise UnusableDirectory(path, f"it cannot be locked: {error.strerror}") from error
            finally:
                os.close(lock)
        return cls(path, lock)

    @property
    def journal(self) -> Path:
        return self.path / JOURNAL

    def announce(self, address: str) -> None:
        """Have the next one that wants the directory told where we listen."""
        self._say(f"pid {os.getpid()}, listening on {address}")

    def close(self) -> None:
        """Let others have it. The lock's file stays: removing it could take the lock from whoever has it by then."""
        os.close(self._lock)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk, and it is only for people
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{text}\n".encode(), 0)


def _make(path: Path) -> None:
    """Make the directory, and its entry in its parent durable: what is in it may not get lost with it."""
    if path.is_dir():
        return
    path.mkdir(mode=0o700, parents=True)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _holder(lock: int) -> str:
    said = os.pread(lock, HOLDER_BYTES_MAX, 0).decode(errors="replace").strip()
    return said or "of which nothing is known"
