"""Which of a round's failures came first, without trust in any node's clock; and how that is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rallypoint.model import Blame, WorkerFailure
from rallypoint.texts import signal_name
from rallypoint.values import dataclass
from rallypoint_coordinator.core.failures import TimedFailure, shortened

CANDIDATES_NAMED = 4
"""So many candidates a sentence names, the others it counts."""
OTHERS_MAX = 64
CANDIDATE_TRACEBACK_BYTES = 4 * 1024
"""Of the candidates that are recorded beside the culprit. Collateral has none."""
LAST_WORDS_MAX = 200


@dataclass(frozen=True, slots=True)
class Cause:
    """``candidates``: what may have come first, the likeliest first; ``others``: what did not."""

    candidates: tuple[TimedFailure, ...]
    others: tuple[TimedFailure, ...]


def first_cause(timed: Iterable[TimedFailure]) -> Cause:
    """Exits before any stop was sent come first; then an application's own exceptions before signals, bare exit codes
    and complaints about a peer that went away; then the earlier.

    On one node the order is known. Between nodes a failure is a candidate if no other must have come before it.
    """
    ordered = sorted(timed, key=lambda each: each.likelihood)
    firsts = _first_of_each_node([each for each in ordered if each.weight == ordered[0].weight])
    bound_ms = min((each.span.latest_ms for each in firsts), default=0)
    candidates = tuple(each for each in firsts if each.span.earliest_ms is None or each.span.earliest_ms <= bound_ms)
    chosen = {id(each) for each in candidates}
    return Cause(candidates, tuple(each for each in ordered if id(each) not in chosen))


def _first_of_each_node(timed: Sequence[TimedFailure]) -> list[TimedFailure]:
    first_ms: dict[int, int] = {}
    for each in timed:
        clock_ms = each.failure.fail_clock_ms
        if clock_ms is not None:
            first_ms[each.lease_id] = min(clock_ms, first_ms.get(each.lease_id, clock_ms))
    return [each for each in timed if each.failure.fail_clock_ms in (None, first_ms.get(each.lease_id))]


def labelled(cause: Cause, wall_offset_ms: int, *, blames_none: bool = False) -> tuple[WorkerFailure, ...]:
    """All that failed, the likeliest cause first, bounded, each with its blame and its corrected time.

    ``wall_offset_ms``: the coordinator's wall clock minus the clock of the spans. ``blames_none``: the round ended for
    another reason.
    """
    judged = [(each, Blame.COLLATERAL if blames_none else Blame.CANDIDATE) for each in cause.candidates]
    if judged and not blames_none:
        judged[0] = judged[0][0], Blame.ROOT_CAUSE
    judged += [(each, Blame.COLLATERAL) for each in cause.others]
    return tuple(_labelled(each, blame, wall_offset_ms) for each, blame in judged[: 1 + OTHERS_MAX])


def _labelled(timed: TimedFailure, blame: Blame, wall_offset_ms: int) -> WorkerFailure:
    failure = timed.failure
    if blame is not Blame.ROOT_CAUSE:
        failure = shortened(failure, CANDIDATE_TRACEBACK_BYTES if blame is Blame.CANDIDATE else 0)
    return replace(
        failure,
        corrected_time_ms=max(0, timed.span.likely_ms + wall_offset_ms),
        time_error_ms=timed.span.error_ms,
        blame=blame,
    )


def told(candidates: Sequence[TimedFailure]) -> str:
    """Who failed and how; if that is not certain, all of whom it may have been, and why it cannot be told."""
    if len(candidates) == 1:
        return describe(candidates[0].failure)
    named = [describe(each.failure) for each in candidates[:CANDIDATES_NAMED]]
    if len(candidates) > CANDIDATES_NAMED:
        named.append(f"{len(candidates) - CANDIDATES_NAMED} more")
    return f"{' or '.join(named)}: {_why_unknown(candidates)}"


def _why_unknown(candidates: Sequence[TimedFailure]) -> str:
    first, *others = (each.span.error_ms for each in candidates)
    errors = [other for other in others if other is not None]
    if first is None or len(errors) < len(others):
        return "which came first cannot be told, since their clocks are not known well enough"
    return f"their times are within the clock error of {first + max(errors)} ms"


def describe(failure: WorkerFailure) -> str:
    """Who failed and how, in one clause: ``rank 5 on node-b exited with -9 (SIGKILL)``."""
    what = f"rank {failure.rank} on {failure.node} {describe_exit(failure.exit_code)}"
    words = last_words(failure)
    return f"{what}, {words}" if words else what


def last_words(failure: WorkerFailure) -> str:
    """The last line of its traceback; "" if there is none."""
    lines = failure.traceback.rstrip().splitlines()
    return " ".join(lines[-1].split())[:LAST_WORDS_MAX] if lines else ""


def describe_exit(exit_code: int) -> str:
    """How a process ended, in words."""
    if exit_code >= 0:
        return f"exited with {exit_code}"
    return f"exited with {exit_code} ({signal_name(-exit_code)})"
