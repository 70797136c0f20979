"""What a launch from Python raises when workers failed, with torch's names and its layout of the message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rallypoint.model import WorkerFailure
from rallypoint.texts import signal_name
from rallypoint.values import dataclass
from rallypoint_agent.errors import error_file_data, exit_in_words

NOT_AVAILABLE = "<N/A>"
_NO_OTHERS = "<NO_OTHER_FAILURES>"
_NO_TRACEBACK = "No traceback: decorate the main function with rallypoint.worker.record"
_WIDTH_MAX = 60


@dataclass(frozen=True, slots=True)
class ProcessFailure:
    """How one worker failed; the names are torch's, ``failure`` is all that is known.

    ``error_file``: the path of what the worker left, "<N/A>" if it left none or did so on another node.
    """

    failure: WorkerFailure
    error_file: str = NOT_AVAILABLE

    @property
    def local_rank(self) -> int:
        return self.failure.local_rank

    @property
    def pid(self) -> int:
        return self.failure.pid

    @property
    def exitcode(self) -> int:
        """Minus the signal's number if a signal ended it."""
        return self.failure.exit_code

    @property
    def timestamp(self) -> int:
        """In seconds since the epoch, by the clock of its node."""
        return self.failure.fail_time_ms // 1000

    @property
    def error_file_data(self) -> dict[str, Any]:
        """What an error file says that says this."""
        return error_file_data(self.failure)

    @property
    def message(self) -> str:
        """The worker's own words, or how its process ended."""
        if self.failure.message != exit_in_words(self.exitcode):
            return self.failure.message
        if self.exitcode < 0:
            return f"Signal {-self.exitcode} ({self.signal_name()}) received by PID {self.pid}"
        return _NO_TRACEBACK

    def signal_name(self) -> str:
        """Of the signal that ended it, "<N/A>" if none did."""
        return signal_name(-self.exitcode) if self.exitcode < 0 else NOT_AVAILABLE

    def timestamp_isoformat(self) -> str:
        """In local time, with an underscore between date and time."""
        return datetime.fromtimestamp(self.timestamp, UTC).astimezone().replace(tzinfo=None).isoformat(sep="_")

    def __str__(self) -> str:
        return json.dumps(self.error_file_data)


class ChildFailedError(Exception):
    """Workers of the job failed, and that ended it. ``failures`` are by global rank.

    Those of this node's workers, and the root cause wherever it was: ``first_rank``. Without one the earliest counts.
    """

    def __init__(self, name: str, failures: Mapping[int, ProcessFailure], first_rank: int | None = None) -> None:
        if not failures:
            raise ValueError("without a failure no child failed")
        self.name = name
        self.failures = dict(failures)
        self._first_rank = first_rank
        super().__init__(self.format_msg())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.failures, self._first_rank)

    def get_first_failure(self) -> tuple[int, ProcessFailure]:
        """The root cause and its rank."""
        rank = self._first_rank
        if rank is None:
            rank = min(self.failures, key=lambda rank: self.failures[rank].failure.fail_time_ms)
        return rank, self.failures[rank]

    def format_msg(self) -> str:
        """The whole text. Failures are numbered in their order, the root cause stands last."""
        first_rank, _ = self.get_first_failure()
        texts = {rank: _described(index, rank, self.failures[rank]) for index, rank in enumerate(self.failures)}
        root_cause = texts.pop(first_rank)
        title = f"{self.name} FAILED"
        others = list(texts.values()) or [f"  {_NO_OTHERS}"]
        parts = [title, "Failures:", *others, "Root Cause (first observed failure):", root_cause]
        width = min(_WIDTH_MAX, max(len(line) for part in parts for line in part.splitlines()))
        rule = "-" * width
        border = "=" * width
        return "\n".join(["", border, title, rule, *parts[1:-2], rule, *parts[-2:], border])


def _described(index: int, rank: int, failure: ProcessFailure) -> str:
    by_signal = f" ({failure.signal_name()})" if failure.exitcode < 0 else ""
    words = (failure.failure.traceback or failure.message).rstrip()
    return "\n".join(
        [
            f"[{index}]:",
            f"  time      : {failure.timestamp_isoformat()}",
            f"  host      : {failure.failure.node}",
            f"  rank      : {rank} (local_rank: {failure.local_rank})",
            f"  exitcode  : {failure.exitcode} (pid: {failure.pid}) {by_signal}",
            f"  error_file: {failure.error_file}",
            # Its further lines stay in the paragraph.
            "  traceback : " + words.replace("\n", "\n  "),
        ]
    )
