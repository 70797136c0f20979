"""Finding the processes a test started, to see that none of them leaks.

A test gives its processes an environment variable of its own, which their descendants inherit.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

MARK_VARIABLE = "RALLYPOINT_TEST_MARK"

T = TypeVar("T")


def new_mark() -> str:
    """A mark no other test has."""
    return f"mark-{uuid.uuid4().hex}"


def pids_with_mark(mark: str) -> set[int]:
    """The processes, zombies excluded, that have ``mark`` in MARK_VARIABLE."""
    entry = f"{MARK_VARIABLE}={mark}".encode()
    return {pid for pid in _all_pids() if entry in _read(pid, "environ").split(b"\0")}


def is_alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    state = _read(pid, "stat").rpartition(b")")[2].split()[:1]
    return state not in ([], [b"Z"], [b"X"])


def wait_until(predicate: Callable[[], T | None], timeout: float = 20.0, message: str = "it did not happen") -> T:
    """Ask ``predicate`` until its answer is true, and return that; AssertionError in the end."""
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{message}: not within {timeout} s")
        time.sleep(0.01)
    return answer


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    """A file of /proc; empty if the process is gone or none of our business."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
