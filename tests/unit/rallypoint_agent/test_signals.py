from __future__ import annotations

import logging
import os
import select
import signal
import threading

import pytest

from rallypoint_agent.signals import SignalWatch, signals_to_handle


def test_torchs_signals_are_the_default() -> None:
    names = [number.name for number in signals_to_handle({})]
    assert names == ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]


def test_an_unknown_signal_is_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGUSR1, SIGBOGUS,"}
    assert signals_to_handle(environ) == (signal.SIGUSR1,)
    assert "SIGBOGUS" in caplog.text


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
