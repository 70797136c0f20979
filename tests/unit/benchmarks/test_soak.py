"""The pure parts of the soak: what a fault may cost, and what counts as growth."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from soak.__main__ import SIZES, sizes_for
from soak.faults import FAULTS
from soak.ledger import Ended, Rest, overcharged
from soak.samples import BOUNDS, grown
from soak.trend import Bound, Line, Sample, line_through, second_half

BEFORE = Rest("uid", 4, 2, {0: 10, 1: 11}, {0: "a", 1: "b"}, (Ended(2, "NODE_LOST", False), Ended(3, "DRAINED", True)))
FAILED = replace(
    BEFORE, round=5, restart_count=3, pids={0: 20, 1: 21}, ended=(*BEFORE.ended, Ended(4, "WORKER_FAILED", True))
)
LOST = replace(FAILED, restart_count=2, ended=(*BEFORE.ended, Ended(4, "NODE_LOST", False)))
BACK = replace(LOST, round=6, ended=(*LOST.ended, Ended(5, "NODE_JOINED", False)))


@pytest.mark.parametrize(
    ("fault", "after"),
    [
        ("worker SIGKILL", FAILED),
        ("agent SIGKILL", LOST),
        ("agent SIGKILL", BACK),
        ("agent SIGSTOP briefly", BEFORE),
    ],
)
def test_a_fault_at_its_price(fault: str, after: Rest) -> None:
    assert overcharged(FAULTS[fault].price, BEFORE, after) == []


@pytest.mark.parametrize(
    ("fault", "after", "complaint"),
    [
        ("worker SIGKILL", LOST, "0 restarts were spent instead of 1"),
        ("worker SIGKILL", BACK, "2 rounds ended, not 1"),
        ("worker SIGKILL", BEFORE, "0 rounds ended, not 1"),
        ("agent SIGKILL", FAILED, "1 restarts were spent instead of 0"),
        ("agent SIGKILL", FAILED, "not caused by it: .*WORKER_FAILED"),
        ("agent SIGKILL", replace(BACK, ended=LOST.ended), "2 rounds ended, and 1 are told of"),
        ("worker SIGKILL", replace(FAILED, ended=LOST.ended), "1 restarts were spent, and what is told is"),
        ("worker SIGKILL", replace(FAILED, uid="other"), "another life"),
        ("agent SIGSTOP briefly", replace(BEFORE, pids={0: 10, 1: 12}), "workers changed within round 4"),
        ("restart by an operator", FAILED, "not caused by it"),
    ],
)
def test_what_a_fault_should_not_have_cost_is_found(fault: str, after: Rest, complaint: str) -> None:
    found = overcharged(FAULTS[fault].price, BEFORE, after)
    assert any(re.search(complaint, line) for line in found), found


def test_only_failures_are_charged() -> None:
    charged = {name for name, fault in FAULTS.items() if fault.price.charged}
    assert charged == {"worker SIGKILL", "worker SIGTERM", "two workers SIGKILL", "keeper SIGKILL"}


def test_the_jobs_have_as_many_nodes_as_there_are_agents() -> None:
    assert tuple(sizes_for(200)) == SIZES
    assert sizes_for(25) == [2, 2, 4, 4, 4, 8]
    assert [sum(sizes_for(agents)) for agents in (1, 2, 20, 400, 450)] == [0, 2, 20, 400, 450]


def samples(*values: float, every_s: float = 1.0) -> list[Sample]:
    return [Sample(number * every_s, value) for number, value in enumerate(values)]


def test_the_second_half_goes_by_time() -> None:
    late = [Sample(at_s, 0.0) for at_s in (0, 8, 9, 10)]
    assert [sample.at_s for sample in second_half(late)] == [8, 9, 10]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ((5.0, 5.0, 5.0), Line(5.0, 0.0)),
        ((1.0, 2.0, 3.0), Line(2.0, 2.0)),
        ((3.0, 2.0, 1.0), Line(2.0, -2.0)),
        ((0.0, 3.0, 0.0), Line(1.0, 0.0)),
    ],
)
def test_the_line_through_samples(values: tuple[float, ...], line: Line) -> None:
    assert line_through(samples(*values)) == line
    assert line_through(samples(*values, every_s=60.0)) == line, "the rise is over all of it, however long it took"


def test_no_line_goes_through_one_instant() -> None:
    with pytest.raises(ValueError, match="no line through 1 samples"):
        line_through(samples(1.0))


@pytest.mark.parametrize(
    ("rise", "bound", "allowed"),
    [(2.0, Bound(2.0), True), (2.1, Bound(2.0), False), (9.9, Bound(2.0, share=0.1), True), (-50.0, Bound(0.0), True)],
)
def test_what_a_line_may_rise_by(rise: float, bound: Bound, allowed: bool) -> None:
    assert bound.allows(Line(100.0, rise)) is allowed


HALF_S = 1_800
CHANGES = 2_000
"""Of each kind that are made up in the second half of an hour, at least."""


def rss(*, leak_kib: float = 0.0, fills_mib: float = 0.0, full_at_s: float = 1.0) -> list[Sample]:
    """An hour of a coordinator: what fills up, what each change of one kind leaves, and up and down by 0.3 MiB."""
    return [
        Sample(
            at_s,
            50.0
            + fills_mib * min(at_s / full_at_s, 1.0)
            + leak_kib / 1_024 * at_s * CHANGES / HALF_S
            + 0.3 * (at_s % 60 < 30),
        )
        for at_s in range(2 * HALF_S)
    ]


@pytest.mark.parametrize(
    ("samples_of_an_hour", "is_growth"),
    [
        (rss(), False),
        (rss(fills_mib=20.0, full_at_s=0.9 * HALF_S), False),
        (rss(leak_kib=1.0), True),
        (rss(leak_kib=1.0, fills_mib=20.0, full_at_s=0.9 * HALF_S), True),
        (rss(leak_kib=0.1), False),
    ],
)
def test_a_kib_for_each_change_of_a_kind_is_growth_and_what_is_full_is_not(
    samples_of_an_hour: list[Sample], is_growth: bool
) -> None:
    line = line_through(second_half(samples_of_an_hour))
    assert bool(grown({("coordinator", "RSS, MiB"): line})) is is_growth


def test_what_grows_is_named() -> None:
    lines = {("coordinator", kind): Line(50.0, 0.0) for kind in BOUNDS} | {("coordinator", "fds"): Line(50.0, 9.0)}
    assert grown(lines) == ["coordinator: fds rose by 9.00 from about 50.0"]
