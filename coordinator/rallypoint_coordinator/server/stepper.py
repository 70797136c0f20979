"""The cluster as the driver steps it: when an event came, which revision its records have, when time alone decides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.core.effects import Output
from rallypoint_coordinator.core.events import Event, Stamp, TimeAdvanced
from rallypoint_coordinator.server.clock import Clock
from rallypoint_coordinator.server.commits import StateLost

log = logging.getLogger(__name__)


class Arrival(NamedTuple):
    """An event, when it came in, and who looks at what it leads to, before anything else is decided."""

    event: Event
    at_ms: int
    look: Callable[[Cluster, Stamp], None] | None = None


class Stepper:
    """Holds the cluster. Whoever steps it sees to it that the output is committed, in order, or reads it all anew.

    What decides raises StateLost if the core fails, which is a bug; but the journal is sound then, and nothing of that
    step has been let out.
    """

    def __init__(self, clock: Clock, new_cluster: Callable[[], Cluster]) -> None:
        self._clock = clock
        self._new_cluster = new_cluster
        self._revision = 0
        self.cluster = new_cluster()
        self.deadline_ms: int | None = None
        """By the monotonic clock: when :meth:`advance` has something to decide; None: only an event has."""

    @property
    def revision(self) -> int:
        """Of the last record that was decided, durable or not."""
        return self._revision

    def begin_anew(self) -> Cluster:
        """An empty cluster, for the journal to be read into; then comes :meth:`start`."""
        self.cluster = self._new_cluster()
        return self.cluster

    def start(self, revision: int, new_id: str) -> Output:
        """Begin an epoch: the journal was read up to here."""
        self._revision = revision
        return self._decided(self.cluster.start(self.stamp(), new_id))

    def arrival(self, event: Event, look: Callable[[Cluster, Stamp], None] | None = None) -> Arrival:
        """It came in now."""
        return Arrival(event, self._clock.monotonic_ms(), look)

    def step(self, arrival: Arrival) -> Output:
        stamp = self.stamp(arrival.at_ms)
        output = self._decide(type(arrival.event).__name__, lambda: self.cluster.step(arrival.event, stamp))
        if arrival.look is not None:
            arrival.look(self.cluster, self.stamp())
        return output

    def is_due(self) -> bool:
        return self.deadline_ms is not None and self.deadline_ms <= self._clock.monotonic_ms()

    def advance(self) -> Output:
        """Decide what time alone does."""
        return self.step(self.arrival(TimeAdvanced()))

    def retain(self, retention: Retention) -> Output:
        return self._decide("retention", lambda: self.cluster.retain(retention, self.stamp()))

    def stamp(self, arrived_ms: int | None = None) -> Stamp:
        """Now. ``arrived_ms``: when that came in of which it is."""
        at_ms = self._clock.monotonic_ms()
        waited_ms = max(at_ms - arrived_ms, 0) if arrived_ms is not None else 0
        return Stamp(at_ms=at_ms, wall_ms=self._clock.wall_ms(), revision=self._revision, waited_ms=waited_ms)

    def _decide(self, what: str, ask: Callable[[], Output]) -> Output:
        try:
            return self._decided(ask())
        except Exception as error:
            log.exception("the core failed on %s", what)
            raise StateLost(f"the core failed on {what}") from error

    def _decided(self, output: Output) -> Output:
        """Count the records that the cluster has applied already."""
        self._revision += len(output.records)
        self.deadline_ms = output.next_deadline_ms
        return output
