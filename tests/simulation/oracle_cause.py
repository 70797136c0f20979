"""Which failure really came first: it must be the one that is blamed, or among those that may have been."""

from __future__ import annotations

from collections.abc import Mapping

from rallypoint.model import Blame, WorkerFailure
from rallypoint_coordinator.core.records import RoundEnded
from simulation.oracle_workers import WorkerOracle
from simulation.world import WALL_EPOCH_MS, Violation

SLACK_MS = 150
"""A wall clock time is told when the round is judged: until then the coordinator's clock drifts from it."""


def check_cause(uid: str, record: RoundEnded, incarnations: Mapping[str, str], workers: WorkerOracle) -> None:
    """Of all that the record knows of. Whoever was lost before it could tell is known to nobody.

    ``incarnations``: by node, whose places the round's were.
    """
    told = [record.culprit, *record.others] if record.culprit else list(record.others)
    exits_ms = {id(failure): workers.exits_ms[uid, record.round, incarnations[failure.node]] for failure in told}
    for failure in told:
        _check_time(failure, exits_ms[id(failure)])
    if record.culprit is None:
        return
    likeliest = min(_weight(failure) for failure in told)
    alike = [failure for failure in told if _weight(failure) == likeliest]
    first_ms = min(exits_ms[id(failure)] for failure in alike)
    named = [failure for failure in told if failure.blame is not Blame.COLLATERAL]
    if not any(exits_ms[id(failure)] == first_ms and failure in alike for failure in named):
        raise Violation(
            "CAUSE", f"{uid}: a failure at {first_ms} ms came first, but round {record.round} ends: {record}"
        )


def _check_time(failure: WorkerFailure, exit_ms: int) -> None:
    """The corrected time is right to within its error."""
    told_ms = failure.corrected_time_ms - WALL_EPOCH_MS
    error_ms = failure.time_error_ms
    too_early = told_ms + (error_ms or 0) + SLACK_MS < exit_ms
    too_late = error_ms is not None and exit_ms + SLACK_MS < told_ms - error_ms
    if too_early or too_late:
        raise Violation("CAUSE", f"it failed at {exit_ms} ms, but is said to have at {told_ms} ms: {failure}")


def _weight(failure: WorkerFailure) -> tuple[bool, bool]:
    """A signal, a complaint about a peer, and a start that took too long are no exception of the application's own."""
    says_nothing = failure.exit_code < 0 or "reset" in failure.message or "did not start within" in failure.message
    return failure.after_stop, says_nothing
