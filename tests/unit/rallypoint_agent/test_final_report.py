from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from rallypoint.model import JobState, Outcome, WorkerFailure
from rallypoint_agent.core.effects import Finish, FinishKind
from rallypoint_agent.errors import exit_in_words, read_error_file
from rallypoint_agent.final_report import final_report, leave_error_file

TRACE = 'Traceback\n  File "x.py", line 7, in main\n    load({0})\nValueError: no shard {0}\n'
UNREACHABLE = Finish(kind=FinishKind.UNREACHABLE, message="no coordinator")


def decided(culprit: WorkerFailure | None = None) -> Finish:
    outcome = Outcome(state=JobState.FAILED, reason="R", message="why", culprit=culprit)
    return Finish(kind=FinishKind.DECIDED, message="why", outcome=outcome)


def failed(rank: int, message: str = "", **more: object) -> WorkerFailure:
    exit_code = more.pop("exit_code", 1)
    assert isinstance(exit_code, int)
    return WorkerFailure(
        node="a" if rank < 8 else "b",
        local_rank=rank % 4,
        rank=rank,
        pid=100 + rank,
        exit_code=exit_code,
        message=message or exit_in_words(exit_code),
        **more,  # type: ignore[arg-type]
    )


def raised(rank: int, shard: int = 0) -> WorkerFailure:
    return failed(rank, f"ValueError: no shard {shard}", traceback=TRACE.format(shard))


def told_below(culprit: WorkerFailure, others: list[WorkerFailure]) -> list[str]:
    """What is said below the root cause."""
    alone = final_report(decided(culprit), []).splitlines()
    lines = final_report(decided(culprit), [*others, culprit]).splitlines()
    assert lines[: len(alone)] == alone
    return lines[len(alone) :]


def test_the_root_cause_comes_first_and_the_others_are_folded() -> None:
    culprit = failed(5, "ValueError: no", traceback='Traceback\n  File "x"\nValueError: no\n')
    others = [failed(rank, exit_code=-15, after_stop=True) for rank in (0, 1, 2, 8)] + [
        failed(7, "RuntimeError: reset"),
        culprit,
    ]
    assert final_report(decided(culprit), others, "/logs/attempt_0") == (
        "Root cause: rank 5 (local rank 1) on a, pid 105, exit code 1\n"
        "  ValueError: no\n"
        "  Traceback\n"
        '    File "x"\n'
        "  ValueError: no\n"
        "Collateral, stopped: ranks 0-2 on a, rank 8 on b: SIGTERM\n"
        "Collateral: rank 7 on a: RuntimeError: reset\n"
        "The output of this node's workers is in /logs/attempt_0"
    )


def test_who_said_the_same_is_named_once() -> None:
    assert told_below(raised(0), [raised(rank) for rank in range(1, 8)]) == ["Ranks 1-7 on a said the same"]


def test_who_said_the_same_on_other_nodes_is_named_by_node() -> None:
    others = [raised(rank) for rank in (9, 8, 2, 1)]
    assert told_below(raised(0), others) == ["Ranks 1-2 on a, ranks 8-9 on b said the same"]


def test_numbers_of_ones_own_do_not_make_it_another_failure() -> None:
    others = [raised(1), *(raised(rank, shard=rank) for rank in (2, 3))]
    assert told_below(raised(0), others) == [
        "Rank 1 on a said the same",
        "Ranks 2-3 on a said the same but for numbers",
    ]


def test_another_place_in_the_code_is_another_failure() -> None:
    elsewhere = replace(raised(1), traceback=TRACE.format(0).replace("line 7", "line 8"))
    assert told_below(raised(0), [elsewhere]) == ["Collateral: rank 1 on a: ValueError: no shard 0"]


def test_who_said_the_same_a_moment_late_said_the_same() -> None:
    assert told_below(raised(0), [replace(raised(1), after_stop=True)]) == ["Rank 1 on a said the same"]


def test_who_was_only_stopped_did_not_end_alike() -> None:
    stopped = failed(1, exit_code=-15, after_stop=True)
    assert told_below(failed(0, exit_code=-15), [stopped]) == ["Collateral, stopped: rank 1 on a: SIGTERM"]


def test_another_end_is_another_failure() -> None:
    assert told_below(raised(0), [replace(raised(1), exit_code=2)]) == [
        "Collateral: rank 1 on a: ValueError: no shard 0"
    ]


def test_who_said_nothing_ended_alike() -> None:
    assert told_below(failed(0, exit_code=-9), [failed(1, exit_code=-9)]) == ["Rank 1 on a ended alike"]


def test_others_that_agree_with_each_other_are_folded_too() -> None:
    others = [failed(rank, f"RuntimeError: peer {rank + 1} is gone") for rank in (1, 2, 3)]
    assert told_below(raised(0), others) == ["Collateral: ranks 1-3 on a: RuntimeError: peer 2 is gone"]


def test_what_may_have_failed_first_is_told_from_collateral() -> None:
    culprit, here, there = failed(5), failed(6, exit_code=2), replace(failed(9), node="b")
    outcome = Outcome(state=JobState.FAILED, reason="R", message="why", culprit=culprit, candidates=(here, there))
    finish = Finish(kind=FinishKind.DECIDED, message="why", outcome=outcome)
    report = final_report(finish, [culprit, here, failed(7, exit_code=3)])
    assert report.splitlines()[2:] == [
        "May have failed first: rank 6 on a: exit code 2",
        "May have failed first: rank 9 on b: exit code 1",
        "Collateral: rank 7 on a: exit code 3",
    ]


def test_without_a_traceback_it_says_how_to_get_one() -> None:
    report = final_report(decided(failed(0)), [])
    assert "exit code 1\n" in report
    assert "rallypoint.worker.record" in report


def test_a_worker_that_never_ran_has_no_pid() -> None:
    culprit = replace(failed(0, "cannot run 'x'", exit_code=127), pid=0)
    report = final_report(decided(culprit), [culprit])
    assert report == "Root cause: rank 0 (local rank 0) on a, not started\n  cannot run 'x'"


def test_another_that_never_ran_is_another() -> None:
    culprit = replace(failed(0, "cannot run 'x'", exit_code=127), pid=0)
    assert told_below(culprit, [replace(culprit, rank=1)]) == ["Rank 1 on a said the same"]


def test_a_signal_has_no_traceback_to_get() -> None:
    report = final_report(decided(failed(0, exit_code=-9)), [])
    assert report == "Root cause: rank 0 (local rank 0) on a, pid 100, SIGKILL"


def test_without_a_culprit_what_failed_here_is_told() -> None:
    assert final_report(UNREACHABLE, [failed(1)]) == "Failed: rank 1 on a: exit code 1"


def test_a_folded_message_is_one_short_line() -> None:
    (line,) = final_report(UNREACHABLE, [failed(1, "x" * 1000 + "\ny")]).splitlines()
    assert len(line) < 250


def test_nothing_failed_nothing_told() -> None:
    assert final_report(decided(), [], "/logs") == ""


# --- for whoever started the agent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "error.json"


def test_the_root_cause_is_left_in_torchs_format(path: Path) -> None:
    culprit = replace(raised(5), exit_code=-11, fail_time_ms=1_700_000_000_999)
    leave_error_file(str(path), decided(culprit), [failed(1)])
    extra = {"py_callstack": TRACE.format(0), "timestamp": "1700000000"}
    assert json.loads(path.read_text()) == {
        "message": {"message": "ValueError: no shard 0", "extraInfo": extra, "errorCode": -11}
    }
    assert os.listdir(path.parent) == ["error.json"]


@pytest.mark.parametrize(
    ("failures", "message"), [([failed(1, "first"), failed(2, "second")], "first"), ([], "no coordinator")]
)
def test_without_a_culprit_it_is_what_is_known(path: Path, failures: list[WorkerFailure], message: str) -> None:
    leave_error_file(str(path), UNREACHABLE, failures)
    assert read_error_file(str(path)).message == message


def test_a_file_that_cannot_be_replaced_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError("it is a mount point")

    monkeypatch.setattr(os, "replace", refuse)
    path.write_text("x" * 10_000)
    leave_error_file(str(path), UNREACHABLE, [])
    assert read_error_file(str(path)).message == "no coordinator"
    assert os.listdir(path.parent) == ["error.json"]


def test_that_there_is_no_such_folder_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    leave_error_file(str(path / "no" / "folder"), UNREACHABLE, [])
    assert "cannot write the error file" in caplog.text
