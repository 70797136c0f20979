"""The processes that torchrun's agent started, and theirs: known by a variable that they inherit.

Runs in the guard too: standard library only, and only what is cheap to import.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

MARK_VARIABLE = "RALLYPOINT_TORCHRUN"
"""A process that clears its environment is not found."""

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.25


def marked_pids(mark: str) -> list[int]:
    """Live processes of this user's that carry the mark; the one that put it into its own environment does not."""
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _carries(pid, wanted)]


def kill_marked(mark: str, timeout_s: float) -> list[int]:
    """SIGKILL them until none is left. Returns those that are after ``timeout_s``: they are stuck in the kernel."""
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    until, pause_s = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    while pids := marked_pids(mark):
        for pid in pids:
            _kill(pid, wanted)
        if time.monotonic() >= until:
            return pids
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return []


def _carries(pid: int, wanted: bytes) -> bool:
    # Somebody else's, or gone: a zombie has no environment any more.
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environ:
        return wanted in environ.read().split(b"\0")
    return False


def _kill(pid: int, wanted: bytes) -> None:
    """The pid may be another process's by now; what the descriptor stands for does not change any more."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            if _carries(pid, wanted):
                signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)
