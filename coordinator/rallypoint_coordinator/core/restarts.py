"""What the end of a round costs, and who caused it. Decided once, when every participant is gone."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from rallypoint.model import Blame, JobSpec, JobState, Outcome, WorkerFailure
from rallypoint.values import dataclass
from rallypoint_coordinator.core.causes import Cause, first_cause, labelled, told
from rallypoint_coordinator.core.failures import TimedFailure
from rallypoint_coordinator.core.records import StopCause
from rallypoint_coordinator.core.round_changes import RE_FORMING

CANDIDATES_TOLD = 7
"""So many candidates beside the culprit go into the job's outcome."""

NONE_ALLOWED = "no restarts are allowed (--max-restarts 0)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``charged``: one restart is spent. ``others``: what failed besides. ``outcome`` is set if the job is over."""

    charged: bool
    culprit: WorkerFailure | None
    others: tuple[WorkerFailure, ...]
    message: str
    outcome: Outcome | None = None


def judge(
    *,
    cause: StopCause,
    stop_message: str,
    failures: Sequence[TimedFailure],
    restart_count: int,
    spec: JobSpec,
    lost: Sequence[str] = (),
    wall_offset_ms: int = 0,
) -> Verdict:
    """Judge a round that ended. A membership change is free; a failure spends one restart, however many failed.

    ``lost``: nodes that were lost in the round. The workers of the others notice that before the coordinator can, so
    failures that could be its echo do not make it a failure of the job's own. Workers that did not start are a failure
    of that node, whatever else failed: else a node that never starts them would keep the job busy for ever.
    ``wall_offset_ms``: the wall clock minus the clock of the failures' times.
    """
    found = first_cause(failures)
    if cause is StopCause.CANCELLED:
        return _free(stop_message, found, wall_offset_ms)
    if cause is StopCause.START_TIMEOUT:
        others = labelled(found, wall_offset_ms, blames_none=True)
        return _spent(restart_count, spec, stop_message, others)
    if cause is not StopCause.WORKER_FAILED:
        return _free(f"{RE_FORMING}{stop_message}", found, wall_offset_ms)
    if lost and failures and all(each.failure.node not in lost and _could_be_an_echo(each) for each in failures):
        message = f"{RE_FORMING}{lost[0]} was lost, and what failed elsewhere may be its echo"
        return _free(message, found, wall_offset_ms)
    all_failures = labelled(found, wall_offset_ms)
    culprit, others = (all_failures[0], all_failures[1:]) if all_failures else (None, ())
    what = told(found.candidates) if found.candidates else stop_message
    if _is_final(found, spec):
        return _over("NO_RESTART_EXIT_CODE", f"not restarted, that exit code is final: {what}", culprit, others)
    return _spent(restart_count, spec, what, others, culprit)


def _free(message: str, found: Cause, wall_offset_ms: int) -> Verdict:
    others = labelled(found, wall_offset_ms, blames_none=True)
    return Verdict(charged=False, culprit=None, others=others, message=message)


def _spent(
    restart_count: int,
    spec: JobSpec,
    what: str,
    others: tuple[WorkerFailure, ...],
    culprit: WorkerFailure | None = None,
) -> Verdict:
    """One restart; if none is left, the job is over."""
    if restart_count < spec.max_restarts:
        message = f"restart {restart_count + 1} of {spec.max_restarts}: {what}"
        return Verdict(charged=True, culprit=culprit, others=others, message=message)
    return _over("RESTARTS_EXHAUSTED", f"{_none_left(spec.max_restarts)}: {what}", culprit, others)


def _none_left(max_restarts: int) -> str:
    if max_restarts == 0:
        return NONE_ALLOWED
    return "the only restart is spent" if max_restarts == 1 else f"all {max_restarts} restarts are spent"


def _is_final(found: Cause, spec: JobSpec) -> bool:
    """Only if it is certain: a job that is not restarted for a guess is lost.

    What had been told to end may have exited so for that; if nothing else is known, who failed first could not tell.
    """
    failures = [each.failure for each in found.candidates]
    return bool(failures) and all(
        failure.exit_code in spec.no_restart_exit_codes and not failure.after_stop for failure in failures
    )


def _over(reason: str, message: str, culprit: WorkerFailure | None, others: tuple[WorkerFailure, ...]) -> Verdict:
    candidates = tuple(failure for failure in others if failure.blame is Blame.CANDIDATE)[:CANDIDATES_TOLD]
    outcome = Outcome(state=JobState.FAILED, reason=reason, message=message, culprit=culprit, candidates=candidates)
    return Verdict(charged=False, culprit=culprit, others=others, message=message, outcome=outcome)


def _could_be_an_echo(timed: TimedFailure) -> bool:
    """Whether a worker may have ended so because another node was lost."""
    failure = timed.failure
    if failure.exit_code < 0:
        return failure.after_stop or -failure.exit_code in (signal.SIGABRT, signal.SIGPIPE, signal.SIGTERM)
    return failure.after_stop or not timed.speaks
