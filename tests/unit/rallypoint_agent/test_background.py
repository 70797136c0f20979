from __future__ import annotations

import threading

import pytest

from rallypoint_agent import background
from rallypoint_agent.background import Background
from support.threads import watch_threads


def test_calls_are_made_in_order_by_another_thread() -> None:
    made: list[tuple[int, bool]] = []
    here = threading.current_thread()
    background = Background("work")
    for number in range(100):
        background.call(lambda number=number: made.append((number, threading.current_thread() is here)))  # type: ignore[misc]
    background.close()
    assert made == [(number, False) for number in range(100)]


def test_no_thread_without_a_call() -> None:
    begun = watch_threads()
    background = Background("work")
    assert begun() == []
    background.close()


def test_who_hands_over_never_waits_and_what_was_dropped_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "MAX_WAITING", 5)
    go, held, made = threading.Event(), threading.Event(), []

    def hold() -> None:
        held.set()
        go.wait()

    work = Background("work")
    work.call(hold)
    held.wait()
    for number in range(8):
        work.call(lambda number=number: made.append(number))  # type: ignore[misc]
    go.set()
    work.close()
    assert made == [0, 1, 2, 3, 4]
    assert "work: 3 dropped" in caplog.text


def test_a_handler_that_raises_is_logged_and_the_next_is_called(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("broken")

    made: list[int] = []
    work = Background("work")
    work.call(fail)
    work.call(lambda: made.append(1))
    work.close()
    assert made == [1]
    assert "ValueError: broken" in caplog.text
