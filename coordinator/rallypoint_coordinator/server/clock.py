"""The coordinator's two clocks."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """``monotonic_ms`` is what deadlines are on; ``wall_ms``, since 1970, is shown to people."""

    def monotonic_ms(self) -> int: ...

    def wall_ms(self) -> int: ...


class SystemClock:
    """CLOCK_MONOTONIC stands still while the machine is suspended: a lease then lasts longer, never shorter."""

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
