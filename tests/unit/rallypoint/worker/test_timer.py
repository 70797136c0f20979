from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rallypoint.worker import FileTimerClient, configure, expires, timer


class Pipe:
    """What a watchdog would read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def read(self) -> list[dict[str, Any]]:
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "timer")
    monkeypatch.setenv("TORCHELASTIC_TIMER_FILE", str(pipe.path))
    yield pipe
    os.close(pipe.fd)


def test_a_block_has_a_timer(pipe: Pipe) -> None:
    before = time.time()
    with expires(60, scope="step"):
        (acquired,) = pipe.read()
    assert before + 60 <= acquired.pop("expiration_time") <= time.time() + 60
    assert acquired == {"version": 1, "pid": os.getpid(), "scope_id": "step", "signal": 9}
    assert pipe.read() == [{"version": 1, "pid": os.getpid(), "scope_id": "step", "expiration_time": -1, "signal": 0}]


def test_an_exception_releases_it_and_passes(pipe: Pipe) -> None:
    with pytest.raises(ZeroDivisionError), expires(60):
        raise ZeroDivisionError
    assert [request["expiration_time"] > 0 for request in pipe.read()] == [True, False]


def test_without_an_agent_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_TIMER_FILE", raising=False)
    with expires(60):
        pass


def test_the_default_scope_says_where_and_is_ones_own(pipe: Pipe) -> None:
    with expires(60), expires(60):
        scopes = [request["scope_id"] for request in pipe.read()]
    assert scopes[0].startswith(f"{__file__}#")
    assert scopes[1] == f"{scopes[0]} (2)"
    assert [request["scope_id"] for request in pipe.read()] == scopes[::-1]
    with expires(60):
        assert "(" not in pipe.read()[0]["scope_id"].rpartition("#")[2]


def test_it_decorates_too(pipe: Pipe) -> None:
    @expires(60, scope="step")
    def step() -> int:
        return len(pipe.read())

    assert (step(), step()) == (1, 2)


def test_a_client_can_be_given_or_configured(pipe: Pipe, tmp_path: Path) -> None:
    others = [Pipe(tmp_path / name) for name in ("given", "configured")]
    given, configured = (FileTimerClient(str(other.path), signal.SIGTERM) for other in others)
    configure(configured)
    try:
        with expires(60), expires(60, client=given):
            assert [[request["signal"] for request in other.read()] for other in others] == [[15], [15]]
    finally:
        configure(None)
    assert pipe.read() == []
    for other in others:
        os.close(other.fd)


def test_a_scope_that_does_not_fit_is_refused_and_not_written(pipe: Pipe) -> None:
    room = (
        select.PIPE_BUF
        - len(json.dumps({"version": 1, "pid": os.getpid(), "scope_id": "", "expiration_time": 1.5, "signal": 9}))
        - 1
    )
    client = FileTimerClient(str(pipe.path))
    client.acquire("x" * room, 1.5)
    assert len(pipe.read()) == 1
    with pytest.raises(ValueError, match="4097 bytes"):
        client.acquire("x" * (room + 1), 1.5)
    assert pipe.read() == []


@pytest.mark.parametrize("number", [-1, 65])
def test_what_is_no_signal_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="no signal"):
        FileTimerClient("x", number)


def test_nan_is_no_time(pipe: Pipe) -> None:
    with pytest.raises(ValueError, match="NaN"), expires(float("nan")):
        pass


def test_an_agent_that_is_gone_is_told_of_and_no_error(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    os.unlink(pipe.path)
    with expires(60):
        pass
    assert f"no watchdog at {pipe.path}" in capsys.readouterr().err


def test_a_full_pipe_is_waited_for(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fcntl.fcntl(pipe.fd, fcntl.F_SETPIPE_SZ, 4096)
    os.write(pipe.fd, b"x" * 4096)
    monkeypatch.setattr(timer, "_PATIENCE_S", 0.0)
    FileTimerClient(str(pipe.path)).release("s")
    assert "nobody read for 0 s" in capsys.readouterr().err
    monkeypatch.setattr(timer, "_PATIENCE_S", 60.0)
    writer = threading.Thread(target=FileTimerClient(str(pipe.path)).release, args=("s",))
    writer.start()
    os.read(pipe.fd, 4096)
    writer.join()
    assert len(pipe.read()) == 1
