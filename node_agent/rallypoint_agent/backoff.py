"""How long to wait before trying again."""

from __future__ import annotations

import random


class Backoff:
    """Delays that grow from ``first_s`` up to ``longest_s``, each ``growth`` times the last, less up to half at random.

    The jitter keeps agents that lost the coordinator in the same instant from coming back in one. ``longest_told_s``:
    how much counts of a delay that was asked for; by default ``longest_s``.
    """

    def __init__(
        self,
        first_s: float,
        longest_s: float,
        growth: float = 2.0,
        rng: random.Random | None = None,
        longest_told_s: float | None = None,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._longest_told_s = longest_s if longest_told_s is None else longest_told_s
        self._growth = growth
        self._next_s = first_s
        self._rng = rng or random.Random()

    def next_s(self, at_least_s: float = 0.0) -> float:
        """The delay before the next try, in seconds. ``at_least_s``: what was asked for."""
        delay_s = self._next_s * self._rng.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * self._growth, self._longest_s)
        return max(delay_s, min(at_least_s, self._longest_told_s) * self._rng.uniform(1.0, 1.5))

    def reset(self) -> None:
        """Begin with the shortest delay again."""
        self._next_s = self._first_s
