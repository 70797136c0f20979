"""The clock of leases."""

from __future__ import annotations

from time import CLOCK_BOOTTIME, clock_gettime_ns


def boot_ms() -> int:
    """Now, in milliseconds of CLOCK_BOOTTIME. Unlike CLOCK_MONOTONIC it counts suspended time."""
    return clock_gettime_ns(CLOCK_BOOTTIME) // 1_000_000
