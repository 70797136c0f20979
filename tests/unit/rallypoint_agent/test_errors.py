from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from rallypoint.limits import FAILURE_MESSAGE_BYTES, TRACEBACK_BYTES
from rallypoint.model import JobState, Outcome, WorkerFailure
from rallypoint_agent.core.effects import Finish, FinishKind
from rallypoint_agent.errors import (
    MAX_ERROR_FILE_BYTES,
    Ending,
    ErrorReport,
    exit_in_words,
    exit_status,
    failure_of,
    ranks_in_words,
    read_error_file,
)


@pytest.fixture
def error_file(tmp_path: Path) -> Path:
    return tmp_path / "error.json"


def torchs(message: object, trace: object = "Traceback: ...") -> object:
    extra = {"py_callstack": trace, "timestamp": "1700000000"}
    return {"message": {"message": message, "extraInfo": extra}}


@pytest.mark.parametrize(
    ("content", "report"),
    [
        (torchs("ValueError: no"), ErrorReport("ValueError: no", "Traceback: ...")),
        ({"message": "plain", "timestamp": 1700000000}, ErrorReport("plain")),
        ({"message": {"message": "bare"}}, ErrorReport("bare")),
        ({"message": {"message": "m", "extraInfo": {"py_callstack": None}}}, ErrorReport("m")),
        ({"message": {"message": "m", "extraInfo": [1]}}, ErrorReport("m")),
    ],
)
def test_both_of_torchs_forms_are_read(error_file: Path, content: object, report: ErrorReport) -> None:
    error_file.write_text(json.dumps(content))
    assert read_error_file(str(error_file)) == report


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (b"", "no JSON"),
        (b'{"message": {"mess', "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"9" * 5_000, "no JSON"),
        (b"null", "no message"),
        (b"[1, 2]", "no message"),
        (b"{}", "no message"),
        (b'{"message": 7}', "no message"),
        (b'{"message": {"message": ["x"]}}', "no text"),
        (b'{"message": "' + b"x" * MAX_ERROR_FILE_BYTES + b'"}', "larger than"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else value,
)
def test_nonsense_is_told_and_never_raised(error_file: Path, content: bytes, trouble: str) -> None:
    error_file.write_bytes(content)
    report = read_error_file(str(error_file))
    assert report.message == ""
    assert trouble in report.trouble


def test_a_missing_file_is_no_trouble(error_file: Path) -> None:
    assert read_error_file(str(error_file)) == ErrorReport()


def test_a_folder_or_a_fifo_in_its_place_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    for path in (tmp_path, tmp_path / "fifo"):
        trouble = read_error_file(str(path)).trouble
        assert "cannot be read" in trouble
        assert str(path) in trouble


def ending(exit_code: int = 1, *, after_stop: bool = False) -> Ending:
    return Ending(
        node="a",
        local_rank=1,
        rank=5,
        pid=77,
        exit_code=exit_code,
        time_ms=1_700_000_000_123,
        boot_ms=4_567,
        after_stop=after_stop,
    )


def test_a_failure_has_the_workers_own_words(error_file: Path) -> None:
    error_file.write_text(json.dumps(torchs("ValueError: no")))
    assert failure_of(ending(after_stop=True), str(error_file)) == WorkerFailure(
        node="a",
        local_rank=1,
        rank=5,
        pid=77,
        exit_code=1,
        message="ValueError: no",
        traceback="Traceback: ...",
        fail_time_ms=1_700_000_000_123,
        after_stop=True,
        fail_clock_ms=4_567,
    )


@pytest.mark.parametrize(
    ("exit_code", "words"), [(3, "exit code 3"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (-99, "signal 99")]
)
def test_without_any_words_it_is_told_how_it_ended(exit_code: int, words: str) -> None:
    assert exit_in_words(exit_code) == words
    assert failure_of(ending(exit_code), "").message == words


def test_what_is_said_of_one_failure_is_said_of_no_other(error_file: Path) -> None:
    alone = failure_of(ending(1), str(error_file))
    killed = failure_of(ending(-9), str(error_file))
    assert "SIGKILL" in killed.message
    assert failure_of(ending(1), str(error_file)) == alone != killed


def test_a_bad_file_is_told_beside_how_it_ended(error_file: Path) -> None:
    error_file.write_text("{")
    message = failure_of(ending(-9), str(error_file)).message
    assert message.startswith("SIGKILL; its error file holds no JSON")


def test_texts_are_cut_to_what_the_wire_takes(error_file: Path) -> None:
    trace = "start" + "ä" * TRACEBACK_BYTES + "the end"
    error_file.write_text(json.dumps(torchs("ü" * FAILURE_MESSAGE_BYTES, trace)))
    failure = failure_of(ending(), str(error_file))
    assert len(failure.message.encode()) <= FAILURE_MESSAGE_BYTES
    assert failure.message == "ü" * (FAILURE_MESSAGE_BYTES // 2)
    assert len(failure.traceback.encode()) <= TRACEBACK_BYTES
    assert failure.traceback.endswith("ä" * 100 + "the end")


def test_half_a_surrogate_pair_does_not_reach_the_wire(error_file: Path) -> None:
    error_file.write_text('{"message": "\\ud800"}')
    assert failure_of(ending(), str(error_file)).message == "\\ud800"


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([3], "rank 3"),
        ([0, 1, 2, 5], "ranks 0-2, 5"),
        ([7, 3, 3], "ranks 3, 7"),
        ([1, 0], "ranks 0-1"),
    ],
)
def test_ranks_are_folded(ranks: list[int], words: str) -> None:
    assert ranks_in_words(ranks) == words


def decided(state: JobState, culprit: WorkerFailure | None = None) -> Finish:
    outcome = Outcome(state=state, reason="R", message="why", culprit=culprit)
    return Finish(kind=FinishKind.DECIDED, message="why", outcome=outcome)


@pytest.mark.parametrize(
    ("finish", "status"),
    [
        (decided(JobState.SUCCEEDED), 0),
        (decided(JobState.FAILED), 1),
        (Finish(kind=FinishKind.BARRIER_TIMEOUT, message=""), 0),
        (Finish(kind=FinishKind.UNREACHABLE, message=""), 3),
        (Finish(kind=FinishKind.NO_PORT, message=""), 1),
        (Finish(kind=FinishKind.REFUSED, message=""), 4),
        (Finish(kind=FinishKind.SIGNALLED, message="", signal=2), 130),
        (Finish(kind=FinishKind.SIGNALLED, message="", signal=15), 143),
    ],
)
def test_the_exit_status(finish: Finish, status: int) -> None:
    assert exit_status(finish) == status
