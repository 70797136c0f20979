"""Files that may be replaced at any time, read again when they were."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

_Stamp = tuple[int, int, int, int] | None


class WatchedFiles:
    """A few files that go together. Not for several threads at once.

    Whoever replaces one should rename a new one over it: half a file that was read is read again when it has grown, but
    what is made of it meanwhile is up to the caller.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._stamps: tuple[_Stamp, ...] | None = None

    def changed(self) -> bool:
        """Whether one is not as it was when they were last read, or has come or gone."""
        return self._stamps != self._look()

    def read(self) -> tuple[bytes, ...]:
        """What they hold, in order. Raises OSError; they count as read all the same, until one changes."""
        # Before the reading: what changes meanwhile is news.
        self._stamps = self._look()
        return tuple(path.read_bytes() for path in self._paths)

    def _look(self) -> tuple[_Stamp, ...]:
        return tuple(map(_stamp, self._paths))


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
