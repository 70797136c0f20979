"""What is left behind when a job failed: for people the root cause and what else failed, for torch's tools a file."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Sequence
from itertools import groupby

from rallypoint.model import WorkerFailure
from rallypoint_agent.core.effects import Finish
from rallypoint_agent.errors import error_file_data, exit_in_words, ranks_in_words

_LINE_LENGTH = 160

# How a line begins: for what ended by itself, and for what had been told to stop.
_CANDIDATE = ("May have failed first", "May have failed first")
_COLLATERAL = ("Collateral", "Collateral, stopped")
_UNJUDGED = ("Failed", "Stopped")

_FRAME = re.compile(r"\s+File \".*\", line \d+")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")

logger = logging.getLogger(__name__)


def final_report(finish: Finish, failures: Iterable[WorkerFailure], log_dir: str = "") -> str:
    """What the user reads last: the root cause, what may have come first as well, who said the same, and collateral.

    ``failures``: those of the last round that are known here, of any node; ``log_dir``: where this node's output is.
    Empty if there is nothing to tell.
    """
    culprit = finish.outcome.culprit if finish.outcome else None
    candidates = finish.outcome.candidates if finish.outcome else ()
    named = {_identity(failure) for failure in (culprit, *candidates) if failure}
    others = [failure for failure in failures if _identity(failure) not in named]
    lines = []
    if culprit:
        lines += _root_cause(culprit)
        lines += _folded(candidates, *_CANDIDATE)
        echoes, others = _split(culprit, others)
        lines += _echoed(culprit, echoes)
    lines += _folded(others, *(_COLLATERAL if culprit else _UNJUDGED))
    if lines and log_dir:
        lines.append(f"The output of this node's workers is in {log_dir}")
    return "\n".join(lines)


def leave_error_file(path: str, finish: Finish, failures: Sequence[WorkerFailure]) -> None:
    """Write the root cause to ``path`` in torch's format, with its exit code, as torchrun does for who started it.

    That it cannot be written is logged.
    """
    culprit = finish.outcome.culprit if finish.outcome else None
    cause = culprit or next(iter(failures), None)
    if cause:
        data = error_file_data(cause, with_code=True)
    else:
        extra = {"timestamp": str(int(time.time()))}
        data = {"message": {"message": finish.message, "extraInfo": extra}}
    try:
        _write(path, json.dumps(data))
    except OSError as error:
        logger.warning("cannot write the error file %s: %s", path, error)


def _write(path: str, text: str) -> None:
    """Whole or not at all, unless it is a mount point, as Kubernetes' /dev/termination-log is."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "x", encoding="ascii") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)


def _identity(failure: WorkerFailure) -> tuple[str, int, int]:
    return failure.node, failure.rank, failure.pid


def _root_cause(culprit: WorkerFailure) -> list[str]:
    where = f"rank {culprit.rank} (local rank {culprit.local_rank}) on {culprit.node}"
    words = exit_in_words(culprit.exit_code)
    how = f"pid {culprit.pid}, {words}" if culprit.pid else "not started"
    said = [] if culprit.message == words else culprit.message.rstrip().splitlines()
    said += culprit.traceback.rstrip().splitlines()
    if not said and culprit.exit_code > 0:
        said = ["No traceback: decorate the main function with rallypoint.worker.record"]
    return [f"Root cause: {where}, {how}", *(f"  {line}" for line in said)]


def _split(
    culprit: WorkerFailure, failures: Iterable[WorkerFailure]
) -> tuple[list[WorkerFailure], list[WorkerFailure]]:
    """Those that ended like the root cause, and the others.

    Who had been told to end by then ended like it only if it left an error of its own.
    """
    gist = _gist(culprit)
    echoes: list[WorkerFailure] = []
    others: list[WorkerFailure] = []
    for failure in failures:
        is_own = _has_words(failure) or not failure.after_stop
        (echoes if is_own and _gist(failure) == gist else others).append(failure)
    return echoes, others


def _has_words(failure: WorkerFailure) -> bool:
    return bool(failure.traceback) or failure.message != exit_in_words(failure.exit_code)


def _echoed(culprit: WorkerFailure, echoes: Sequence[WorkerFailure]) -> list[str]:
    """Who said it to the letter, and who but for numbers, such as its own rank."""
    verb = "said the same" if _has_words(culprit) else "ended alike"
    words = (culprit.message, culprit.traceback)
    exact = [echo for echo in echoes if (echo.message, echo.traceback) == words]
    alike = [echo for echo in echoes if (echo.message, echo.traceback) != words]
    lines = [f"{_who(exact)} {verb}"] if exact else []
    lines += [f"{_who(alike)} {verb} but for numbers"] if alike else []
    return [line[0].upper() + line[1:] for line in lines]


def _folded(failures: Iterable[WorkerFailure], word: str, word_if_stopped: str) -> list[str]:
    """One line for all that ended alike, in the order of the first of each."""
    alike: dict[tuple[str, object], list[WorkerFailure]] = {}
    for failure in failures:
        label = word_if_stopped if failure.after_stop else word
        alike.setdefault((label, _gist(failure)), []).append(failure)
    return [f"{label}: {_who(group)}: {_shortened(group[0].message)}" for (label, _), group in alike.items()]


def _who(failures: Iterable[WorkerFailure]) -> str:
    """ "ranks 0-3 on node-a, ranks 4-7 on node-b"."""
    by_node = sorted(failures, key=lambda failure: failure.node)
    groups = [list(group) for _, group in groupby(by_node, key=lambda failure: failure.node)]
    groups.sort(key=lambda group: min(failure.rank for failure in group))
    return ", ".join(f"{ranks_in_words(failure.rank for failure in group)} on {group[0].node}" for group in groups)


def _gist(failure: WorkerFailure) -> tuple[str, str, int]:
    """Equal for two that failed in the same place of the same thing: numbers count in where, not in what."""
    lines = failure.traceback.rstrip().splitlines()
    where = "\n".join(line if _FRAME.match(line) else _NUMBER.sub("0", line) for line in lines)
    return _NUMBER.sub("0", failure.message), where, failure.exit_code


def _shortened(message: str) -> str:
    line = message.partition("\n")[0]
    return line if len(line) <= _LINE_LENGTH else f"{line[:_LINE_LENGTH]}..."
