"""Why workers failed: reading what they left, and saying it in words."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable

from rallypoint.limits import FAILURE_MESSAGE_BYTES, TRACEBACK_BYTES
from rallypoint.model import JobState, WorkerFailure
from rallypoint.texts import cut, signal_name, spans
from rallypoint.values import dataclass
from rallypoint_agent.core.effects import Finish, FinishKind

MAX_ERROR_FILE_BYTES = 4 << 20


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
    """The failure as it is reported: the worker's own words if it left any ("" and /dev/null are no file).

    ``trouble``: what else is known of why it ended.
    """
    report = read_error_file(error_file) if error_file not in ("", os.devnull) else ErrorReport()
    words = [report.message or exit_in_words(ending.exit_code), trouble, report.trouble]
    message = "; ".join(filter(None, words))
    return WorkerFailure(
        node=ending.node,
        local_rank=ending.local_rank,
        rank=ending.rank,
        pid=ending.pid,
        exit_code=ending.exit_code,
        message=cut(message, FAILURE_MESSAGE_BYTES),
        # A traceback says what happened in its last lines.
        traceback=cut(report.traceback, TRACEBACK_BYTES, keep="end"),
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
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
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


def error_file_data(failure: WorkerFailure, *, with_code: bool = False) -> dict[str, object]:
    """The content of an error file that says this, as torch's ``record`` writes it.

    ``with_code``: as its agent passes it on to whoever started it.
    """
    extra = {"timestamp": str(failure.fail_time_ms // 1000)}
    if failure.traceback:
        extra["py_callstack"] = failure.traceback
    code = {"errorCode": failure.exit_code} if with_code else {}
    return {"message": {"message": failure.message, "extraInfo": extra, **code}}


def exit_in_words(exit_code: int) -> str:
    """How a process ended: "exit code 3", or "SIGKILL" for -9."""
    return f"exit code {exit_code}" if exit_code >= 0 else signal_name(-exit_code)


def ranks_in_words(ranks: Iterable[int]) -> str:
    """ "rank 3", or "ranks 0-2, 5"."""
    found = spans(ranks)
    many = len(found) > 1 or any("-" in span for span in found)
    return f"{'ranks' if many else 'rank'} {', '.join(found)}"


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
        case FinishKind.UNKILLABLE:
            return 1
        case FinishKind.UNREACHABLE:
            return 3
        case FinishKind.REFUSED:
            return 4
        case FinishKind.SIGNALLED:
            return 128 + finish.signal
