"""The Linux calls behind the keeper that Python's os module lacks.

Runs in the keeper too: standard library only, and only what is cheap to import.
"""

from __future__ import annotations

import ctypes
import os
from signal import SIGKILL
from time import CLOCK_BOOTTIME, clock_gettime_ns

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TFD_TIMER_ABSTIME = 1

_libc = ctypes.CDLL(None, use_errno=True)


def boot_ns() -> int:
    """Now, in nanoseconds of CLOCK_BOOTTIME: the clock of every deadline, it counts suspended time."""
    return clock_gettime_ns(CLOCK_BOOTTIME)


def become_subreaper() -> None:
    """Adopt every orphan among the descendants of this process, instead of init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Be killed when the thread that forked us ends; ``parent`` is the pid of its process."""
    _prctl(_PR_SET_PDEATHSIG, SIGKILL)
    # The parent may have ended before the line above: then nobody would tell us.
    if os.getppid() != parent:
        os.kill(os.getpid(), SIGKILL)


def trim_memory() -> None:
    """Give the memory that was freed back to the system, where the C library can (glibc)."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class BootTimer:
    """A descriptor that becomes readable at an instant of CLOCK_BOOTTIME.

    A timeout of poll() would not do: it stands still while the machine is suspended.
    """

    def __init__(self) -> None:
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self.fd: int = _check(_libc.timerfd_create(CLOCK_BOOTTIME, flags))
        self._at: int | None = None

    def set(self, at_ns: int | None) -> None:
        """Fire at ``at_ns``, at once if that is past, or never."""
        if at_ns == self._at:
            return
        self._at = at_ns
        # An all-zero time would disarm it. The fields: interval s, ns, then expiry s, ns.
        seconds, nanoseconds = (0, 0) if at_ns is None else divmod(max(at_ns, 1), 10**9)
        spec = (ctypes.c_long * 4)(0, 0, seconds, nanoseconds)
        _check(_libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, spec, None))

    def clear(self) -> None:
        """After it fired: not readable any more until it is set again."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return  # It was set anew in between.
        self._at = None
