"""glibc's allocator, told to keep one heap for all threads."""

from __future__ import annotations

import ctypes
import os

M_ARENA_MAX = -8
"""Of ``malloc.h``."""

SET_BY_A_PERSON = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


def keep_one_heap() -> None:
    """Call it before there are threads. Does nothing without glibc, or if the environment says what the allocator does.

    glibc gives its threads heaps of their own, up to eight for each core, and what one has let go of another cannot
    use: of gRPC's threads each comes to do what any of them did, so each heap grows to what was needed at most in it,
    for hours. They hardly wait for each other, as each has its last small blocks at hand, and Python its own allocator.
    """
    if any(os.environ.get(name) for name in SET_BY_A_PERSON):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
