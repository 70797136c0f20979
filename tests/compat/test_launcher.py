"""Our launcher beside torch's: the same fields in the same order, the same message."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from rallypoint.model import WorkerFailure
from rallypoint_agent import ChildFailedError, LaunchConfig, ProcessFailure

launcher = pytest.importorskip("torch.distributed.launcher.api")
errors = pytest.importorskip("torch.distributed.elastic.multiprocessing.errors")


def test_the_fields_of_the_config_are_torchs() -> None:
    ours, theirs = dataclasses.fields(LaunchConfig), dataclasses.fields(launcher.LaunchConfig)
    assert [field.name for field in ours] == [field.name for field in theirs]
    # torch's own default is one that is not there any more.
    but_one = [(field.name, field.default) for field in ours if field.name != "rdzv_backend"]
    assert but_one == [
        (field.name, field.default if field.default is not dataclasses.MISSING else dataclasses.MISSING)
        for field in theirs
        if field.name != "rdzv_backend"
    ]


def test_the_message_is_laid_out_as_torchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = 'Traceback (most recent call last):\n  File "a"\nValueError: no'
    path = tmp_path / "error.json"
    said = {"message": "ValueError: no", "extraInfo": {"py_callstack": trace, "timestamp": "1700000000"}}
    path.write_text(json.dumps({"message": said}))
    theirs = {
        4: errors.ProcessFailure(0, 104, 1, str(path)),
        5: errors.ProcessFailure(1, 105, -9, str(tmp_path / "none")),
    }
    monkeypatch.setattr(errors.socket, "getfqdn", lambda: "host")
    killed_ms = theirs[5].timestamp * 1000
    ours = {
        4: ProcessFailure(failure(4, 1, "ValueError: no", 1_700_000_000_000, trace), str(path)),
        5: ProcessFailure(failure(5, -9, "SIGKILL", killed_ms)),
    }
    assert str(ChildFailedError("train.py", ours)) == str(errors.ChildFailedError("train.py", theirs))


def failure(rank: int, exit_code: int, message: str, time_ms: int, traceback: str = "") -> WorkerFailure:
    return WorkerFailure(
        node="host",
        local_rank=rank - 4,
        rank=rank,
        pid=100 + rank,
        exit_code=exit_code,
        message=message,
        traceback=traceback,
        fail_time_ms=time_ms,
    )
