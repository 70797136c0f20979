"""Where targets put the files that they read: in memory, where there is such a place."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")


@functools.cache
def folder() -> Path:
    """This process's own; it is gone when the process is."""
    path = Path(tempfile.mkdtemp(prefix="rallypoint-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
