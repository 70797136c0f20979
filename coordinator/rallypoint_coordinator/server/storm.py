"""How long a turn of the driver waits for company while much comes at once: what it decides shares a commit then."""

from __future__ import annotations

STORM_EVENTS = 4
"""A turn in which so many led to records is one of a storm. What leads to none needs no commit, and no company."""

PAUSE_S = 0.002
PAUSE_MAX_S = 0.016
PAUSE_PER_EVENT_S = PAUSE_MAX_S / 512
"""For each event of the storm so far. A Hello takes half a millisecond: so this is a fraction of how long it lasts."""


class Storm:
    """Turns in a row that each took many such events. The longer it lasts the longer the next one waits, up to a bound.

    A commit takes the processor from the loop, for the journal's thread and to go there and back. So in the storm of a
    large fleet one should be for many; a small storm is over before that would pay.
    """

    def __init__(self) -> None:
        self._events = 0

    def pause_s(self, events: int) -> float:
        """How long to wait after a turn with so many."""
        if events < STORM_EVENTS:
            self._events = 0
            return 0.0
        self._events += events
        return min(max(PAUSE_S, self._events * PAUSE_PER_EVENT_S), PAUSE_MAX_S)
