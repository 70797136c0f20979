"""The error that says which workers failed: torch's names and layout."""

from __future__ import annotations

import pickle
from datetime import datetime
from typing import Any

import pytest

from rallypoint.model import WorkerFailure
from rallypoint_agent.child_failed_error import ChildFailedError, ProcessFailure

TIME = datetime(2026, 5, 17, 14, 3, 9).timestamp()  # noqa: DTZ001 - local time is what is shown


def failure(rank: int, exit_code: int, message: str, **more: Any) -> WorkerFailure:
    given = {"node": "host", "local_rank": rank % 4, "pid": 100 + rank, "fail_time_ms": round(TIME * 1000), **more}
    return WorkerFailure(rank=rank, exit_code=exit_code, message=message, **given)


KILLED = ProcessFailure(failure(5, -9, "SIGKILL"))
SILENT = ProcessFailure(failure(6, 3, "exit code 3", fail_time_ms=round(TIME * 1000) + 7_000))
RAISED = ProcessFailure(
    failure(4, 1, "ValueError: no", traceback='Traceback\n  File "a"\nValueError: no\n'), "/logs/0/error.json"
)

ONE = """
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
  <NO_OTHER_FAILURES>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-05-17_14:03:16
  host      : host
  rank      : 6 (local_rank: 2)
  exitcode  : 3 (pid: 106)\x20
  error_file: <N/A>
  traceback : No traceback: decorate the main function with rallypoint.worker.record
============================================================"""

SEVERAL = """
====================================================
train.py FAILED
----------------------------------------------------
Failures:
[0]:
  time      : 2026-05-17_14:03:09
  host      : host
  rank      : 5 (local_rank: 1)
  exitcode  : -9 (pid: 105)  (SIGKILL)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 105
----------------------------------------------------
Root Cause (first observed failure):
[1]:
  time      : 2026-05-17_14:03:09
  host      : host
  rank      : 4 (local_rank: 0)
  exitcode  : 1 (pid: 104)\x20
  error_file: /logs/0/error.json
  traceback : Traceback
    File "a"
  ValueError: no
===================================================="""


def test_the_message() -> None:
    assert str(ChildFailedError("train.py", {6: SILENT})) == ONE
    assert str(ChildFailedError("train.py", {5: KILLED, 4: RAISED}, 4)) == SEVERAL


def test_the_root_cause_is_the_earliest_unless_it_is_known() -> None:
    failures = {6: SILENT, 5: KILLED}
    assert ChildFailedError("t", failures).get_first_failure() == (5, KILLED)
    assert ChildFailedError("t", failures, 6).get_first_failure() == (6, SILENT)


def test_torchs_names() -> None:
    assert (KILLED.local_rank, KILLED.pid, KILLED.exitcode, KILLED.signal_name()) == (1, 105, -9, "SIGKILL")
    assert (SILENT.signal_name(), SILENT.error_file, SILENT.timestamp) == ("<N/A>", "<N/A>", TIME + 7)
    assert RAISED.message == "ValueError: no"
    assert RAISED.error_file_data["message"]["message"] == "ValueError: no"


def test_it_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ChildFailedError("t", {6: SILENT, 5: KILLED}, 6)))
    assert error.get_first_failure() == (6, SILENT)


def test_without_a_failure_there_is_none() -> None:
    with pytest.raises(ValueError, match="no child failed"):
        ChildFailedError("t", {})
