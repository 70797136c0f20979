from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rallypoint.worker import record, write_error_file
from rallypoint_agent.errors import read_error_file


@pytest.fixture
def error_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    return path


@record
def divide(a: int, b: int) -> float:
    """Divides."""
    return a / b


def test_a_function_that_returns_leaves_no_file(error_file: Path) -> None:
    assert divide(1, b=2) == 0.5
    assert not error_file.exists()
    assert divide.__doc__ == "Divides."


def test_an_exception_is_left_in_torchs_format_and_raised_again(error_file: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        divide(1, 0)
    message = json.loads(error_file.read_text())["message"]
    assert message["message"] == "ZeroDivisionError: division by zero"
    assert message["extraInfo"]["py_callstack"].endswith("ZeroDivisionError: division by zero\n")
    assert "return a / b" in message["extraInfo"]["py_callstack"]
    assert message["extraInfo"]["timestamp"].isdecimal()
    assert os.listdir(error_file.parent) == ["error.json"]


def test_the_agent_understands_it(error_file: Path) -> None:
    write_error_file(ValueError("no"))
    report = read_error_file(str(error_file))
    assert (report.message, report.trouble) == ("ValueError: no", "")
    assert "ValueError: no" in report.traceback


@pytest.mark.parametrize("code", [0, None])
def test_exit_0_is_a_return(error_file: Path, code: int | None) -> None:
    assert record(lambda: sys.exit(code))() is None
    assert not error_file.exists()


@pytest.mark.parametrize("raised", [SystemExit(3), SystemExit("no"), KeyboardInterrupt()])
def test_what_is_no_error_passes_without_a_file(error_file: Path, raised: BaseException) -> None:
    @record
    def main() -> None:
        raise raised

    with pytest.raises(type(raised)):
        main()
    assert not error_file.exists()


def test_an_error_without_a_text_is_recorded_all_the_same(error_file: Path) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    write_error_file(Odd())
    assert read_error_file(str(error_file)).message.startswith("Odd: ")


@pytest.mark.parametrize("value", ["", None])
def test_without_an_agent_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if value is None:
        monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    else:
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", value)
    write_error_file(ValueError("no"))
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_written_does_not_hide_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "none" / "error.json"))
    with pytest.raises(ZeroDivisionError):
        divide(1, 0)
    assert "cannot write the error file" in capsys.readouterr().err


def test_a_file_that_is_cut_short_does_not_appear(error_file: Path) -> None:
    """As on a disk that is full."""
    program = (
        "import resource; from rallypoint.worker import write_error_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50)); write_error_file(ValueError('no'))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot write the error file" in run.stderr
    assert not error_file.exists()


def test_it_needs_the_standard_library_alone() -> None:
    program = (
        "import sys, rallypoint.worker\n"
        "print({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    command = [sys.executable, "-S", "-c", program]
    root = Path(__file__).parents[4] / "common"
    env = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert set(eval(run.stdout)) - {"__main__"} == {"rallypoint"}
