"""When nobody needs a coordinator any more, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from rallypoint_coordinator.server.idleness import Idleness


class Timer:
    def __init__(self, at_s: float, ring: Callable[[], None]) -> None:
        self.at_s, self.ring, self.cancelled = at_s, ring, False

    def cancel(self) -> None:
        self.cancelled = True


class Scene:
    """Somebody comes and goes, and time passes."""

    def __init__(self, after_s: float | None = 60.0) -> None:
        self.now_s = 0.0
        self.busy = False
        self.timers: list[Timer] = []
        self.is_closed = False
        self.idleness = Idleness(after_s, lambda: self.busy, self.close)

    def close(self) -> None:
        self.is_closed = True

    def call_later(self, delay_s: float, ring: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now_s + delay_s, ring))
        return self.timers[-1]

    def stir(self, *, busy: bool) -> None:
        self.busy = busy
        self.idleness.stir()

    def passes(self, seconds: float) -> None:
        self.now_s += seconds
        due = [timer for timer in self.timers if timer.at_s <= self.now_s]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            if not timer.cancelled:
                timer.ring()

    @property
    def is_reached(self) -> bool:
        assert self.is_closed is self.idleness.is_reached
        return self.is_closed


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: scene)
    return scene


def test_nobody_ever_comes(scene: Scene) -> None:
    scene.stir(busy=False)
    scene.passes(59)
    assert not scene.is_reached
    scene.passes(1)
    assert scene.is_reached


def test_as_long_as_somebody_is_here_it_is_not_reached(scene: Scene) -> None:
    scene.stir(busy=False)
    scene.passes(30)
    scene.stir(busy=True)
    scene.passes(3600)
    assert not scene.is_reached
    scene.stir(busy=False)
    scene.passes(59)
    assert not scene.is_reached
    scene.passes(1)
    assert scene.is_reached


def test_whatever_is_asked_counts_anew(scene: Scene) -> None:
    for _ in range(5):
        scene.stir(busy=False)
        scene.passes(59)
    assert not scene.is_reached
    scene.passes(1)
    assert scene.is_reached


def test_who_comes_as_the_time_is_over_is_seen(scene: Scene) -> None:
    scene.stir(busy=False)
    scene.busy = True
    scene.passes(60)
    assert not scene.is_reached


def test_without_a_time_it_is_never_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(after_s=None)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: scene)
    scene.stir(busy=False)
    assert scene.timers == []


async def test_it_can_be_waited_for() -> None:
    idleness = Idleness(0.001, lambda: False, lambda: None)
    idleness.stir()
    await asyncio.wait_for(idleness.wait(), 30)
    assert idleness.is_reached
