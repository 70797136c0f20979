"""The data directory: what is in it, and that one coordinator alone uses it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from rallypoint_coordinator.store.journal import JournalError, JournalUnavailable

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
        self._says = ""
        self._say(f"pid {os.getpid()}, starting")

    @classmethod
    def open(cls, path: Path) -> DataDirectory:
        """Take the directory, made with mode 0700 if it is missing. Raises UnusableDirectory or DirectoryInUse."""
        try:
            _make(path)
            return cls(path, _take_lock(path))
        except OSError as error:
            raise UnusableDirectory(path, error.strerror or str(error)) from error

    def verify(self) -> None:
        """See that the directory is still ours. A lock that was removed is taken again: nobody else has it then.

        Raises DirectoryInUse if somebody has, JournalUnavailable if there is no such directory any more.
        """
        try:
            if _leads_to(self.path / LOCK, self._lock):
                return
            lock = _take_lock(self.path)
        except OSError as error:
            raise JournalUnavailable(
                f"the data directory {self.path} was removed or changed under this coordinator ({error.strerror}),"
                " which writes nothing until it is back in its place; if it is lost, stop it and restore a backup"
            ) from error
        os.dup2(lock, self._lock, inheritable=False)
        os.close(lock)
        self._say(self._says)

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
        self._says = text
        with contextlib.suppress(OSError):  # a full disk, and it is only for people
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{text}\n".encode(), 0)


def _make(path: Path) -> None:
    """Make the directory, and its entry in its parent durable: what is in it may not get lost with it."""
    if path.is_dir():
        return
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError as error:  # a link that leads nowhere too, perhaps to a disk that is not mounted
        raise NotADirectoryError(errno.ENOTDIR, "there is something of that name which is no directory") from error
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _take_lock(path: Path) -> int:
    """A descriptor of the lock's file, locked. Raises DirectoryInUse or OSError."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            raise OSError(errno.EINVAL, f"its {LOCK} is no plain file")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DirectoryInUse(path, _holder(lock)) from error
        except OSError as error:
            raise OSError(error.errno, f"it cannot be locked: {error.strerror}") from error
    except BaseException:
        os.close(lock)
        raise
    return lock


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(lock: int) -> str:
    said = os.pread(lock, HOLDER_BYTES_MAX, 0).decode(errors="replace").strip()
    return said or "of which nothing is known"
