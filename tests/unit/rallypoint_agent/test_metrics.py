from __future__ import annotations

import re
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rallypoint_agent import metrics
from rallypoint_agent.background import Background
from rallypoint_agent.entry_points import EntryPointError
from rallypoint_agent.metrics import (
    ConsoleMetricHandler,
    MetricData,
    MetricHandler,
    MetricHandlerInBackground,
    NullMetricHandler,
    configure,
    getStream,
    metric_handler,
    prof,
    put_metric,
)
from support.entry_points import plug_in


class Noting(MetricHandler):
    def __init__(self) -> None:
        self.got: list[MetricData] = []
        self.threads: set[threading.Thread] = set()

    def emit(self, metric_data: MetricData) -> None:
        self.got.append(metric_data)
        self.threads.add(threading.current_thread())

    @property
    def values(self) -> list[tuple[str, str, float]]:
        return [(group, name, value) for _, group, name, value in self.got]


@pytest.fixture(autouse=True)
def _unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_default", [NullMetricHandler()])
    monkeypatch.setattr(metrics, "_by_group", {})


@pytest.fixture
def noted() -> Noting:
    handler = Noting()
    configure(handler)
    return handler


def test_by_default_they_go_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    put_metric("a", 1)
    assert capfd.readouterr() == ("", "")


def test_a_value_has_a_group_and_a_time(noted: Noting) -> None:
    before = time.time()
    put_metric("a", 1)
    put_metric("b", 2.5, "mine")
    assert noted.values == [("torchelastic", "a", 1), ("mine", "b", 2.5)]
    assert before <= noted.got[0].timestamp <= time.time()


def test_a_group_may_have_a_handler_of_its_own(noted: Noting) -> None:
    mine = Noting()
    configure(mine, "mine")
    put_metric("a", 1)
    put_metric("b", 2, "mine")
    getStream("mine").add_value("c", 3)
    assert noted.values == [("torchelastic", "a", 1)]
    assert mine.values == [("mine", "b", 2), ("mine", "c", 3)]


def test_the_console_has_torchs_format(capsys: pytest.CaptureFixture[str]) -> None:
    configure(ConsoleMetricHandler())
    put_metric("a", 1)
    assert re.fullmatch(r"\[\d+\.\d+\]\[torchelastic\]: a=1\n", capsys.readouterr().out)


def names(noted: Noting) -> list[str]:
    return [name.rpartition(".<locals>.")[2] for _, name, _ in noted.values]


def test_a_decorated_function_is_counted_and_timed(noted: Noting) -> None:
    @prof
    def double(value: int) -> int:
        """Doubles."""
        return 2 * value

    assert double(3) == 6
    assert double.__doc__ == "Doubles."
    assert names(noted) == ["double.success", "double.duration.ms"]
    assert noted.got[0].value == 1
    assert noted.got[1].value >= 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_is_counted_and_raised(noted: Noting, error: type[BaseException]) -> None:
    @prof(group="mine")
    def fail() -> None:
        raise error

    with pytest.raises(error):
        fail()
    assert names(noted) == ["fail.failure", "fail.duration.ms"]
    assert {group for group, _, _ in noted.values} == {"mine"}


class Trainer:
    @prof
    def step(self) -> None:
        pass


@prof
def outside() -> None:
    pass


def test_a_method_has_its_classs_name_and_a_function_its_modules(noted: Noting) -> None:
    Trainer().step()
    outside()
    assert noted.values[0][1] == "Trainer.step.success"
    assert noted.values[2][1] == "test_metrics.outside.success"


def test_handlers_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(tmp_path, monkeypatch, metrics.ENTRY_POINTS, {"mine": "plugged:Noting", "bad": "plugged:bad"})
    monkeypatch.setitem(sys.modules, "plugged", SimpleNamespace(Noting=Noting, bad=int))
    made = [type(metric_handler(name)) for name in ("null", "console", "mine")]
    assert made == [NullMetricHandler, ConsoleMetricHandler, Noting]
    with pytest.raises(EntryPointError, match=r"no entry point .* nobodys; there are bad, mine"):
        metric_handler("nobodys")
    with pytest.raises(EntryPointError, match="no MetricHandler but 0"):
        metric_handler("bad")


def test_in_the_background_another_thread_handles_it() -> None:
    background, noted = Background("metrics"), Noting()
    configure(MetricHandlerInBackground(noted, background))
    put_metric("a", 1)
    background.close()
    assert noted.values == [("torchelastic", "a", 1)]
    assert threading.current_thread() not in noted.threads
