"""Why workers failed: reading what they left, and telling the user at the end."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from rallypoint.model import JobState, WorkerFailure
from rallypoint_agent.core.effects import Finish, FinishKind

MAX_ERROR_FILE_BYTES = 4 << 20
MAX_MESSAGE_BYTES = 4 << 10
MAX_TRACEBACK_BYTES = 64 << 10

_FOLDED_LENGTH = 160

# How a line begins: for what ended by itself, and for what had been told to stop.
_CANDIDATE = ("May have failed first", "May have failed first")
_COLLATERAL = ("Collateral", "Collateral, stopped")
_UNJUDGED = ("Failed", "Stopped")


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What a worker said of its end. ``trouble``: why the file could not be understood."""

    message: str = ""
    traceback: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one worker ended. ``exit_code`` is minus the signal's number if a signal ended it.

    ``time_ms`` is wall clock time, ``boot_ms`` CLOCK_BOOTTIME. ``after_stop``: it had been told to stop before.
    """

    node: str
    local_rank: int
    rank: int
    pid: int
    exit_code: int
    time_ms: int
    boot_ms: int
    after_stop: bool = False


def failure_of(ending: Ending, error_file: str, trouble: str = "") -> WorkerFailure:
    """The failure as it is reported: the worker's own words if it left any ("" is no file).

    ``trouble``: what else is known of why it ended.
    """
    report = read_error_file(error_file) if error_file else ErrorReport()
    words = [report.message or exit_in_words(ending.exit_code), trouble, report.trouble]
    message = "; ".join(filter(None, words))
    return WorkerFailure(
        node=ending.node,
        local_rank=ending.local_rank,
        rank=ending.rank,
        pid=ending.pid,
        exit_code=ending.exit_code,
        message=_cut_end(message, MAX_MESSAGE_BYTES),
        traceback=_cut_start(report.traceback, MAX_TRACEBACK_BYTES),
        fail_time_ms=ending.time_ms,
        fail_clock_ms=ending.boot_ms,
        after_stop=ending.after_stop,
    )


def read_error_file(path: str) -> ErrorReport:
    """Read an error file in torch's format. Whatever is wrong with it is told, never raised."""
    try:
        content = _read_bounded(path)
    except FileNotFoundError:
        return ErrorReport()
    except (OSError, ValueError) as error:
        return ErrorReport(trouble=f"its error file cannot be read: {error}")
    try:
        return _understand(json.loads(content))
    except (ValueError, RecursionError) as error:
        return ErrorReport(trouble=f"its error file holds no JSON: {error}")


def _read_bounded(path: str) -> bytes:
    # Without O_NONBLOCK a worker could block us with a FIFO in the file's place.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is no regular file")
        content = file.read(MAX_ERROR_FILE_BYTES + 1)
    if len(content) > MAX_ERROR_FILE_BYTES:
        raise ValueError(f"{path} is larger than {MAX_ERROR_FILE_BYTES} bytes")
    return content


def _understand(data: object) -> ErrorReport:
    """The two forms that torch accepts: the message is text, or an object with more about it."""
    message = data.get("message") if isinstance(data, dict) else None
    if isinstance(message, str):
        return ErrorReport(message)
    if not isinstance(message, dict):
        return ErrorReport(trouble="its error file has no message")
    text, extra = message.get("message"), message.get("extraInfo")
    trace = extra.get("py_callstack") if isinstance(extra, dict) else None
    return ErrorReport(
        message=text if isinstance(text, str) else "",
        traceback=trace if isinstance(trace, str) else "",
        trouble="" if isinstance(text, str) else "its error file has a message that is no text",
    )


def _cut_end(text: str, limit: int) -> str:
    return _utf8(text)[:limit].decode(errors="ignore")


def _cut_start(text: str, limit: int) -> str:
    """The last ``limit`` bytes: a traceback says what happened in its last lines."""
    return _utf8(text)[-limit:].decode(errors="ignore")


def _utf8(text: str) -> bytes:
    # JSON can spell half a surrogate pair. On the wire it would be refused.
    return text.encode(errors="backslashreplace")


def signal_name(number: int) -> str:
    """SIGKILL for 9; "signal 99" for what has no name here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_in_words(exit_code: int) -> str:
    """How a process ended: "exit code 3", or "SIGKILL" for -9."""
    return f"exit code {exit_code}" if exit_code >= 0 else signal_name(-exit_code)


def ranks_in_words(ranks: Iterable[int]) -> str:
    """ "rank 3", or "ranks 0-2, 5"."""
    spans: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    text = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
    many = len(spans) > 1 or (spans and spans[0][0] != spans[0][1])
    return f"{'ranks' if many else 'rank'} {text}"


def exit_status(finish: Finish) -> int:
    """What the command exits with."""
    match finish.kind:
        case FinishKind.DECIDED:
            assert finish.outcome is not None
            return 0 if finish.outcome.state is JobState.SUCCEEDED else 1
        case FinishKind.NO_PORT:
            return 1
        case FinishKind.BARRIER_TIMEOUT | FinishKind.DRAINED:
            return 0
        case FinishKind.UNREACHABLE:
            return 3
        case FinishKind.REFUSED:
            return 4
        case FinishKind.SIGNALLED:
            return 128 + finish.signal


def final_report(finish: Finish, failures: Iterable[WorkerFailure], log_dir: str = "") -> str:
    """What the user reads last: the root cause, then in one line each what may have come first as well, and collateral.

    ``failures``: what failed on this node in the last round; ``log_dir``: where its output is.
    Empty if there is nothing to tell.
    """
    culprit = finish.outcome.culprit if finish.outcome else None
    candidates = finish.outcome.candidates if finish.outcome else ()
    named = {(failure.node, failure.pid, failure.rank) for failure in (culprit, *candidates) if failure}
    others = [failure for failure in failures if (failure.node, failure.pid, failure.rank) not in named]
    lines = []
    if culprit:
        lines += _root_cause(culprit)
    lines += _folded(candidates, *_CANDIDATE)
    lines += _folded(others, *(_COLLATERAL if culprit else _UNJUDGED))
    if lines and log_dir:
        lines.append(f"The output of this node's workers is in {log_dir}")
    return "\n".join(lines)


def _root_cause(culprit: WorkerFailure) -> list[str]:
    where = f"rank {culprit.rank} (local rank {culprit.local_rank}) on {culprit.node}"
    words = exit_in_words(culprit.exit_code)
    how = f"pid {culprit.pid}, {words}" if culprit.pid else "not started"
    said = [] if culprit.message == words else culprit.message.rstrip().splitlines()
    said += culprit.traceback.rstrip().splitlines()
    if not said and culprit.exit_code > 0:
        said = ["No traceback: decorate the main function with rallypoint.worker.record"]
    return [f"Root cause: {where}, {how}", *(f"  {line}" for line in said)]


def _folded(failures: Iterable[WorkerFailure], word: str, word_if_stopped: str) -> list[str]:
    """One line for all that ended alike."""
    alike: dict[tuple[str, str, str], list[int]] = {}
    for failure in failures:
        label = word_if_stopped if failure.after_stop else word
        alike.setdefault((label, failure.node, _shortened(failure.message)), []).append(failure.rank)
    return [f"{label}: {ranks_in_words(ranks)} on {node}: {message}" for (label, node, message), ranks in alike.items()]


def _shortened(message: str) -> str:
    line = message.partition("\n")[0]
    return line if len(line) <= _FOLDED_LENGTH else f"{line[:_FOLDED_LENGTH]}..."
