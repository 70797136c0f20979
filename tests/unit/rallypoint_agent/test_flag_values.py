from __future__ import annotations

import os

import pytest

from rallypoint_agent import accelerators
from rallypoint_agent.flag_values import whole, workers


@pytest.mark.parametrize("text", ["", "-1", "1.0", "\u0663", "1_0", "9" * 5000])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match="it must"):
        whole(text)


@pytest.mark.parametrize(
    ("given", "gpus", "xpus", "count"),
    [
        ("gpu", 2, 0, 2),
        ("xpu", 0, 3, 3),
        ("auto", 2, 3, 2),
        ("auto", 0, 3, 3),
        ("auto", 0, 0, len(os.sched_getaffinity(0))),
        ("cpu", 2, 3, len(os.sched_getaffinity(0))),
        ("5", 2, 3, 5),
    ],
)
def test_a_worker_for_each_device(
    monkeypatch: pytest.MonkeyPatch, given: str, gpus: int, xpus: int, count: int
) -> None:
    machine(monkeypatch, gpus, xpus)
    assert workers(given) == count


@pytest.mark.parametrize(
    ("given", "gpus", "xpus", "told"),
    [("gpu", 0, 3, "no NVIDIA GPU is visible"), ("xpu", 2, 0, "Level Zero shows no Intel GPU")],
)
def test_a_device_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, given: str, gpus: int, xpus: int, told: str
) -> None:
    machine(monkeypatch, gpus, xpus)
    with pytest.raises(ValueError, match=told):
        workers(given)


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int, xpus: int) -> None:
    monkeypatch.setattr(accelerators, "gpu_count", lambda: gpus)
    monkeypatch.setattr(accelerators, "xpu_count", lambda: xpus)
