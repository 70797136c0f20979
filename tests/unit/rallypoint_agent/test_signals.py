from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from rallypoint_agent import signals
from rallypoint_agent.signals import LastSignals, SignalWatch, signals_to_handle


def test_torchs_signals_are_the_default() -> None:
    names = [number.name for number in signals_to_handle({})]
    assert names == ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]


def test_an_unknown_signal_is_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGUSR1, SIGBOGUS,"}
    assert signals_to_handle(environ) == (signal.SIGUSR1,)
    assert "SIGBOGUS" in caplog.text


def test_a_signal_that_no_process_can_handle_is_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGKILL,SIGUSR1,SIGSTOP"}
    with SignalWatch(signals_to_handle(environ)) as watch:
        assert watch.numbers == (signal.SIGUSR1,)
    assert "names SIGKILL, which no process can handle" in caplog.text
    assert "names SIGSTOP, which no process can handle" in caplog.text


def readable(watch: SignalWatch, timeout_s: float = 0) -> bool:
    return bool(select.select([watch.fileno()], [], [], timeout_s)[0])


def test_signals_wait_to_be_taken_in_their_order() -> None:
    with SignalWatch([signal.SIGUSR1, signal.SIGUSR2]) as watch:
        assert not readable(watch)
        assert watch.take() == []
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        assert readable(watch)
        assert watch.take() == [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1]
        assert not readable(watch)


def test_a_signal_ends_a_wait() -> None:
    with SignalWatch([signal.SIGUSR1]) as watch:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert readable(watch, timeout_s=20)
        assert watch.take() == [signal.SIGUSR1]


def test_afterwards_all_is_as_before() -> None:
    def handler(number: int, frame: object) -> None:
        raise AssertionError("not this one")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with SignalWatch([signal.SIGUSR1, signal.SIGUSR2]):
            assert signal.getsignal(signal.SIGUSR1) is not handler
        assert signal.getsignal(signal.SIGUSR1) is handler
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with SignalWatch([signal.SIGUSR1]) as watch:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert watch.take() == []
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_in_another_thread_nothing_is_watched_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = signal.getsignal(signal.SIGUSR1)

    def use() -> None:
        with SignalWatch([signal.SIGUSR1]) as watch:
            assert watch.take() == []

    with caplog.at_level(logging.WARNING):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert "main thread" in caplog.text
    assert signal.getsignal(signal.SIGUSR1) is before


class Exited(BaseException):
    """Stands in for the end of the process."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def exit_(status: int) -> None:
        raise Exited(status)

    before = [(number, signal.getsignal(number)) for number in (signal.SIGUSR1, signal.SIGALRM)]
    monkeypatch.setattr(os, "_exit", exit_)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before:
        signal.signal(number, handler)


def test_a_signal_leaves_a_decided_status_and_a_while_to_end(exits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "LAST_WAIT_S", 60)
    with LastSignals() as last:
        last.guard([signal.SIGUSR1], lambda: 7)
        signal.raise_signal(signal.SIGUSR1)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
        with pytest.raises(Exited, match="7"):
            signal.raise_signal(signal.SIGALRM)


def test_a_second_signal_leaves_no_while(exits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "LAST_WAIT_S", 60)
    with LastSignals() as last:
        last.guard([signal.SIGUSR1], lambda: 0)
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(Exited, match="0"):
            signal.raise_signal(signal.SIGUSR1)


def test_before_the_status_is_decided_a_signal_does_what_it_did(exits: None) -> None:
    noted: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: noted.append(number))
    with LastSignals() as last:
        last.guard([signal.SIGUSR1], lambda: None)
        signal.raise_signal(signal.SIGUSR1)
    assert noted == [signal.SIGUSR1]


LAST_WORDS = """
import os, signal, sys
from rallypoint_agent.signals import LastSignals

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)

with LastSignals() as last:
    last.guard([signal.SIGTERM], lambda: 0)
os.late = Late()  # Torn down after all handlers.
"""


def test_until_the_very_end_no_signal_changes_the_status() -> None:
    done = subprocess.run([sys.executable, "-c", LAST_WORDS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
