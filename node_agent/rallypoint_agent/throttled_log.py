"""Lines of the log that others can cause, as many as they like: a flood of them does not become one of lines."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL_S = 10.0


class ThrottledLog:
    """``most`` lines in ``INTERVAL_S`` seconds; the next one, or ``settle``, says how many more there were.

    ``log`` takes a line's text, ``what`` says what the lines are about, in the plural.
    """

    def __init__(
        self, log: Callable[[str], None], what: str, *, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._what = what
        self._most = most
        self._clock = clock
        self._told = 0
        self._untold = 0
        self._until_s = clock()

    def tell(self, text: str) -> None:
        now_s = self._clock()
        if now_s >= self._until_s:
            self._until_s, self._told = now_s + INTERVAL_S, 0
        if self._told == self._most:
            self._untold += 1
            return
        more = f" ({self._untold} more since the last such line)" if self._untold else ""
        self._log(f"{text}{more}")
        self._told, self._untold = self._told + 1, 0

    def settle(self) -> None:
        """No more lines will come, for now: say what was kept back."""
        if self._untold:
            self._log(f"{self._untold} more {self._what}")
            self._untold = 0
