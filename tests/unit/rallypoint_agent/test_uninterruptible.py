from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rallypoint_agent.uninterruptible import Overslept, Sleep, UninterruptibleWatch, read_sleep, timeout_s

VARIABLE = "TORCHELASTIC_UNINTERRUPTIBLE_STATE_TIMEOUT"
S = 10**9


class Kernel:
    """What processes do, by pid."""

    def __init__(self, sleeps: dict[int, Sleep | None]) -> None:
        self.sleeps = sleeps

    def __call__(self, pid: int) -> Sleep | None:
        return self.sleeps.get(pid)


def test_one_sleep_that_lasts_as_long_as_the_bound_is_told() -> None:
    watch = UninterruptibleWatch(2.5, Kernel({10: Sleep(7), 11: None}))
    pids = {0: 11, 1: 10}
    assert watch.look(pids, 100 * S) == []
    assert watch.look(pids, 102 * S) == []
    assert watch.look(pids, 102 * S + S // 2) == [Overslept(1, 2.5)]


def test_who_ran_in_between_begins_anew() -> None:
    kernel = Kernel({10: Sleep(7)})
    watch = UninterruptibleWatch(2, kernel)
    assert watch.look({0: 10}, 0) == []
    kernel.sleeps[10] = Sleep(9)
    assert watch.look({0: 10}, 2 * S) == []
    kernel.sleeps[10] = None
    assert watch.look({0: 10}, 4 * S) == []
    kernel.sleeps[10] = Sleep(9)
    assert watch.look({0: 10}, 5 * S) == []
    assert watch.look({0: 10}, 7 * S) == [Overslept(0, 2.0)]


def test_who_is_not_looked_at_is_forgotten() -> None:
    watch = UninterruptibleWatch(2, Kernel({10: Sleep(7)}))
    watch.look({0: 10}, 0)
    watch.look({}, 1 * S)
    assert watch.look({0: 10}, 3 * S) == []


def test_without_a_bound_nobody_is_looked_at() -> None:
    def look(pid: int) -> Sleep:
        raise AssertionError

    assert UninterruptibleWatch(0, look).look({0: 10}, 0) == []


@pytest.mark.parametrize(
    ("given", "variable", "seconds"),
    [
        (None, None, 0),
        (None, "", 0),
        (None, "1.5", 1.5),
        (None, "-1", 0),
        (3, "1.5", 3),
        (0, "1.5", 0),
        (-2, None, 0),
    ],
)
def test_the_bound_is_the_arguments_or_else_the_variables(
    given: float | None, variable: str | None, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert timeout_s(given, {} if variable is None else {VARIABLE: variable}) == seconds
    assert not caplog.messages


@pytest.mark.parametrize("text", ["soon", "nan"])
def test_what_is_no_number_is_no_bound_and_that_is_said(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert timeout_s(None, {VARIABLE: text}) == 0
    assert caplog.messages == [f"{VARIABLE} is no number of seconds: {text}; there is no bound"]


def status(proc: Path, state: str) -> Path:
    (proc / "10").mkdir()
    lines = ["Name:\ta: D", f"State:\t{state}", "voluntary_ctxt_switches:\t30", "nonvoluntary_ctxt_switches:\t4"]
    (proc / "10/status").write_text("\n".join([*lines, ""]))
    return proc


def test_the_kernel_tells_of_a_sleep(tmp_path: Path) -> None:
    assert read_sleep(10, status(tmp_path, "D (disk sleep)")) == Sleep(34)


@pytest.mark.parametrize("state", ["R (running)", "S (sleeping)", "Z (zombie)", "I (idle)", "T (stopped)"])
def test_any_other_state_is_none(tmp_path: Path, state: str) -> None:
    assert read_sleep(10, status(tmp_path, state)) is None


def test_who_is_gone_does_not_sleep(tmp_path: Path) -> None:
    assert read_sleep(10, tmp_path) is None
