"""What is kept of the failures of one round until it is judged, and when each happened. Bounded for the whole job."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import replace

from rallypoint.model import WorkerFailure
from rallypoint.texts import cut
from rallypoint.values import dataclass
from rallypoint_coordinator.core.clocks import AgentClock, Span

KEPT_MAX = 512
"""So many failures of a round are kept, the likeliest causes; twice as many while they come in."""
FULL_MAX = 8
"""So many of them whole, with up to 68 KiB of text each; of the others only this is kept:"""
SHORT_MESSAGE_BYTES = 256
SHORT_TRACEBACK_BYTES = 512

# What gloo, NCCL and torch's store say, in lower case.
_PEER_WENT_AWAY = (
    "connection reset",
    "connection closed",
    "connection refused",
    "broken pipe",
    "remote process exited",
    "socket timeout",
    "connection was likely closed",
    "timed out waiting",
    "wait timeout",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedFailure:
    """``speaks``: it is an exception of the application's own. Its texts may be cut, so that is not read off them."""

    failure: WorkerFailure
    lease_id: int
    speaks: bool
    span: Span

    @property
    def weight(self) -> tuple[bool, bool]:
        """Less is a likelier cause: an exit before any stop was sent, an exception of the application's own."""
        return self.failure.after_stop, not self.speaks

    @property
    def likelihood(self) -> tuple[tuple[bool, bool], int, int]:
        return self.weight, self.span.likely_ms, self.failure.rank


class FailureLog:
    """One failure a worker: its newest report, and all that was ever known of its time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], TimedFailure] = {}
        self._full: dict[tuple[int, int], WorkerFailure] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        self._kept.clear()
        self._full.clear()

    def note(self, lease_id: int, failures: Iterable[WorkerFailure], clock: AgentClock, now_ms: int) -> None:
        """Failures that a lease's holder reports now, for the first time or again."""
        for failure in failures:
            self._note(lease_id, failure, clock.span(failure.fail_clock_ms, now_ms))
        if len(self._kept) > 2 * KEPT_MAX:
            self._forget_unlikely()

    def _note(self, lease_id: int, failure: WorkerFailure, span: Span) -> None:
        key = lease_id, failure.local_rank
        known = self._kept.get(key)
        self._kept[key] = TimedFailure(
            failure=shortened(failure, SHORT_TRACEBACK_BYTES),
            lease_id=lease_id,
            speaks=_speaks_for_itself(failure),
            span=known.span.narrowed(span) if known else span,
        )
        self._full[key] = failure
        if len(self._full) > FULL_MAX:
            del self._full[max(self._full, key=lambda full: self._kept[full].likelihood)]

    def _forget_unlikely(self) -> None:
        likely = heapq.nsmallest(KEPT_MAX, self._kept, key=lambda key: self._kept[key].likelihood)
        self._kept = {key: self._kept[key] for key in likely}
        self._full = {key: failure for key, failure in self._full.items() if key in self._kept}

    def timed(self) -> list[TimedFailure]:
        """All that are kept, as whole as they are."""
        return [replace(timed, failure=self._full.get(key, timed.failure)) for key, timed in self._kept.items()]


def shortened(failure: WorkerFailure, traceback_bytes: int) -> WorkerFailure:
    """The beginning of its message and the end of its traceback."""
    message = cut(failure.message, SHORT_MESSAGE_BYTES)
    return replace(failure, message=message, traceback=cut(failure.traceback, traceback_bytes, keep="end"))


def _speaks_for_itself(failure: WorkerFailure) -> bool:
    """An exception of the application's own: not a signal, and not what a worker says when a peer went away."""
    if failure.exit_code <= 0 or not failure.traceback:
        return False
    return not any(word in failure.message.lower() for word in _PEER_WENT_AWAY)
