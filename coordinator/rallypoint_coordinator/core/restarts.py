"""What the end of a round costs, and who caused it. Decided once, when every participant is gone."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rallypoint.model import JobSpec, JobState, Outcome, WorkerFailure
from rallypoint_coordinator.core.records import StopCause

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
class Verdict:
    """``charged``: one restart is spent. ``outcome`` is set if the job is over."""

    charged: bool
    culprit: WorkerFailure | None
    message: str
    outcome: Outcome | None = None


def judge(
    *,
    cause: StopCause,
    stop_message: str,
    failures: Sequence[WorkerFailure],
    restart_count: int,
    spec: JobSpec,
    lost: Sequence[str] = (),
) -> Verdict:
    """Judge a round that ended. A membership change is free; a failure spends one restart, however many failed.

    ``lost``: nodes that were lost in the round. The workers of the others notice that before the coordinator can, so
    failures that could be its echo do not make it a failure of the job's own.
    """
    if cause is not StopCause.WORKER_FAILED:
        return Verdict(charged=False, culprit=None, message=f"re-forming: {stop_message}")
    culprit = first_cause(failures)
    if lost and failures and all(failure.node not in lost and _could_be_an_echo(failure) for failure in failures):
        message = f"re-forming: {lost[0]} was lost, and what failed elsewhere may be its echo"
        return Verdict(charged=False, culprit=None, message=message)
    what = describe(culprit) if culprit else stop_message
    if culprit is not None and culprit.exit_code in spec.no_restart_exit_codes:
        return _over("NO_RESTART_EXIT_CODE", f"not restarted, that exit code is final: {what}", culprit)
    if restart_count < spec.max_restarts:
        message = f"restart {restart_count + 1} of {spec.max_restarts}: {what}"
        return Verdict(charged=True, culprit=culprit, message=message)
    message = f"all {spec.max_restarts} restarts are spent: {what}"
    if spec.max_restarts == 0:
        message = f"no restarts are allowed (--max-restarts 0): {what}"
    return _over("RESTARTS_EXHAUSTED", message, culprit)


def _over(reason: str, message: str, culprit: WorkerFailure | None) -> Verdict:
    outcome = Outcome(state=JobState.FAILED, reason=reason, message=message, culprit=culprit)
    return Verdict(charged=False, culprit=culprit, message=message, outcome=outcome)


def first_cause(failures: Iterable[WorkerFailure]) -> WorkerFailure | None:
    """The most likely root cause; None if there is no failure.

    Exits before any stop was sent come first; then an application's own exceptions before signals, bare exit codes and
    complaints about a peer that went away; then the earlier.
    """
    return min(failures, key=_likelihood, default=None)


def _likelihood(failure: WorkerFailure) -> tuple[bool, bool, int, int]:
    return failure.after_stop, not _speaks_for_itself(failure), failure.fail_time_ms, failure.rank


def _speaks_for_itself(failure: WorkerFailure) -> bool:
    """An exception of the application's own: not a signal, and not what a worker says when a peer went away."""
    if failure.exit_code <= 0 or not failure.traceback:
        return False
    return not any(word in failure.message.lower() for word in _PEER_WENT_AWAY)


def _could_be_an_echo(failure: WorkerFailure) -> bool:
    """Whether a worker may have ended so because another node was lost."""
    if failure.exit_code < 0:
        return failure.after_stop or -failure.exit_code in (signal.SIGABRT, signal.SIGPIPE, signal.SIGTERM)
    return failure.after_stop or not _speaks_for_itself(failure)


def describe(failure: WorkerFailure) -> str:
    """Who failed and how, in one clause: ``rank 5 on node-b exited with -9 (SIGKILL)``."""
    return f"rank {failure.rank} on {failure.node} {describe_exit(failure.exit_code)}"


def describe_exit(exit_code: int) -> str:
    """How a process ended, in words."""
    if exit_code >= 0:
        return f"exited with {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"exited with {exit_code} ({name})"
