"""Whether a worker that fails had no room left for what it writes: its log, and its error file, which could say so.

It is asked when the worker has ended, and proves nothing: who had no need to write failed for another reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from rallypoint_agent.logs import LogsDest


def full_disk(dest: LogsDest, local_rank: int) -> str:
    """In words, that no byte is free where this worker's files are; "" if there is room, or if nobody can tell."""
    for path in _files(dest, local_rank):
        if _is_full(folder := os.path.dirname(path)):
            # Not the file: the ranks of a node say the same, and are folded.
            return f"no space is left on the disk at {_mount_point(folder)}, where it writes to"
    return ""


def _files(dest: LogsDest, local_rank: int) -> Iterator[str]:
    for files in (dest.stdouts, dest.stderrs, dest.error_files):
        if (path := files.get(local_rank)) and path != os.devnull:
            yield path


def _is_full(folder: str) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    free = found.f_bavail if os.geteuid() else found.f_bfree
    # Without a size it has no bound that anybody knows of.
    return bool(found.f_blocks) and not free


def _mount_point(folder: str) -> str:
    folder = os.path.realpath(folder)
    while not os.path.ismount(folder):
        folder = os.path.dirname(folder)
    return folder
