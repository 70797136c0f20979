"""The simulated world: one clock, one heap of what will happen, and chance for each purpose by itself.

Nothing sleeps and nothing runs beside anything else: a run is a function of its seed alone.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from simulation.transcript import Transcript

Action = Callable[[], None]

EVENTS_MAX = 1_000_000
"""A run that needs more than this goes round in circles."""

PPM = 1_000_000
WALL_EPOCH_MS = 1_700_000_000_000
"""What wall clocks show at virtual time 0."""
DRIFT_MAX_PPM = 450
"""Two clocks differ by less than the 0.1 % that the lease arithmetic allows for."""


class Violation(Exception):
    """Something that must be true is not. ``invariant`` is its id in the design, or what else was demanded."""

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(invariant, message)
        self.invariant = invariant

    def __str__(self) -> str:
        return ": ".join(self.args)


class Chance(random.Random):
    """What one purpose draws. Each purpose has its own, so that a new one changes nothing of what the others draw."""

    def between(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def happens(self, probability: float) -> bool:
        return self.random() < probability


class World:
    """Virtual time in milliseconds from 0. Things of one instant happen in the order in which they were asked for."""

    def __init__(self, seed: int, transcript: Transcript | None = None) -> None:
        self.now_ms = 0
        self.events = 0
        self.transcript = transcript
        self._seed = seed
        self._accusation: Violation | None = None
        self._heap: list[tuple[int, int, Action]] = []
        self._sequence = 0

    @property
    def wall_ms(self) -> int:
        """The time of day, since 1970."""
        return WALL_EPOCH_MS + self.now_ms

    def after(self, delay_ms: int, action: Action) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (self.now_ms + delay_ms, self._sequence, action))

    def chance(self, purpose: str) -> Chance:
        """A function of the seed and the purpose's name alone. Who asks twice begins anew."""
        return Chance(f"{self._seed}/{purpose}")

    def accuse(self, error: BaseException) -> None:
        """Something was wrong where an exception would be caught by what is tested: the run ends with it."""
        if self._accusation is None:
            self._accusation = error if isinstance(error, Violation) else crash(self.now_ms, error)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Whatever is raised inside ends the run, even if what is tested catches it."""
        try:
            yield
        except Exception as error:
            self.accuse(error)
            raise

    def run(self, until_ms: int, is_over: Callable[[], bool]) -> None:
        """Until that instant, or until it is over."""
        while self._heap and self._heap[0][0] <= until_ms and not is_over():
            self.now_ms, _, action = heapq.heappop(self._heap)
            self.events += 1
            if self.events > EVENTS_MAX:
                raise Violation("LIVENESS", f"more than {EVENTS_MAX} events: it goes round in circles")
            action()
            if self._accusation is not None:
                raise self._accusation

    def tell(self, mark: str, who: str, what: object) -> None:
        """A line of the transcript: ``<`` came in, ``>`` goes out, ``=`` changed, ``!`` a fault."""
        if self.transcript is not None:
            self.transcript.write(self.now_ms, mark, who, what)


def crash(now_ms: int, error: BaseException) -> Violation:
    """An exception that nobody should ever see."""
    violation = Violation("CRASH", f"at {now_ms} ms: {error!r}")
    violation.__cause__ = error
    return violation


class Clock:
    """A machine's own monotonic clock: it began anywhere, and drifts a little, as ``whose`` it is decides."""

    def __init__(self, world: World, whose: str) -> None:
        chance = world.chance(f"clock/{whose}")
        self._world = world
        self._offset_ms = chance.between(0, 10_000_000)
        self._drift_ppm = chance.between(-DRIFT_MAX_PPM, DRIFT_MAX_PPM)

    def now_ms(self) -> int:
        now_ms = self._world.now_ms
        return self._offset_ms + now_ms + now_ms * self._drift_ppm // PPM

    def delay_until(self, at_ms: int) -> int:
        """For how long to wait until this clock shows ``at_ms``, or a little less."""
        left_ms = at_ms - self.now_ms()
        return max(0, left_ms * PPM // (PPM + DRIFT_MAX_PPM))


class Alarm:
    """A deadline on a machine's clock that may be moved. Moving it later costs nothing."""

    def __init__(self, world: World, clock: Clock, action: Action) -> None:
        self._world = world
        self._clock = clock
        self._action = action
        self._due_ms: int | None = None
        self._armed_ms: int | None = None

    def set(self, at_ms: int | None) -> None:
        """Ring at this time and no other; None: do not ring."""
        self._due_ms = at_ms
        if at_ms is not None and (self._armed_ms is None or at_ms < self._armed_ms):
            self._arm(at_ms)

    def _arm(self, at_ms: int) -> None:
        self._armed_ms = at_ms
        self._world.after(max(1, self._clock.delay_until(at_ms)), partial(self._ring, at_ms))

    def _ring(self, armed_ms: int) -> None:
        if armed_ms != self._armed_ms:
            return
        self._armed_ms = None
        if self._due_ms is None:
            return
        if self._clock.now_ms() < self._due_ms:
            self._arm(self._due_ms)
            return
        self._due_ms = None
        self._action()
