"""What a row of the scoreboard says of its samples."""

from __future__ import annotations

import pytest

from scoreboard.figures import (
    COUNT,
    MEBIBYTES,
    RUNS,
    SECONDS,
    AllOf,
    AtMost,
    Broken,
    Faster,
    Judgement,
    Row,
    Target,
    Verdict,
    WithinFloor,
    as_times,
    as_value,
    verdict,
)

PASS, FAIL, NOT_JUDGED = Verdict.PASS, Verdict.FAIL, Verdict.NOT_JUDGED


def row(*targets: Target, ours: tuple[float, ...] = (0.3, 0.1, 0.2), unit: str = SECONDS) -> Row:
    return Row("start", unit, ours, targets, peer=(4.0, 1.0, 2.0), floor=(0.08, 0.1, 0.9))


@pytest.mark.parametrize(
    ("target", "quick", "judged"),
    [
        (Faster(10), False, Judgement(PASS, ">= 10x", "10x")),
        (Faster(15), False, Judgement(FAIL, ">= 15x", "10x, 1.5x too slow")),
        (Faster(15), True, Judgement(PASS, ">= 3x", "10x")),
        (Faster(2), True, Judgement(PASS, ">= 2x", "10x")),
        (AtMost(0.2), False, Judgement(PASS, "<= 200 ms", "200 ms")),
        (AtMost(0.15), False, Judgement(FAIL, "<= 150 ms", "200 ms, 50 ms too much")),
        (AtMost(0.15), True, Judgement(NOT_JUDGED, "<= 150 ms", "200 ms")),
        (AtMost(0.25, worst=True), False, Judgement(FAIL, "<= 250 ms at worst", "300 ms, 50 ms too much")),
        (AtMost(0.3, worst=True), False, Judgement(PASS, "<= 300 ms at worst", "300 ms")),
        (WithinFloor(2), False, Judgement(PASS, "<= 2x the floor", "2x the floor")),
        (WithinFloor(1.6), False, Judgement(FAIL, "<= 1.6x the floor", "2x the floor, 1.25x too much")),
        (WithinFloor(1.6), True, Judgement(NOT_JUDGED, "<= 1.6x the floor", "2x the floor")),
    ],
)
def test_the_median_is_held_against_the_target(target: Target, quick: bool, judged: Judgement) -> None:
    assert row(target).judgements(quick) == [judged]


@pytest.mark.parametrize(("ours", "expected"), [((0.8,), FAIL), ((0.6,), PASS)])
def test_a_quick_run_fails_under_three_times(ours: tuple[float, ...], expected: Verdict) -> None:
    assert verdict(row(Faster(20), ours=ours), quick=True) is expected


@pytest.mark.parametrize(
    ("ours", "quick", "judged"),
    [
        ((1.0, 1.0, 1.0), False, Judgement(PASS, "3 of 3", "3 of 3")),
        ((1.0, 0.0, 1.0), False, Judgement(FAIL, "3 of 3", "2 of 3, 1 short")),
        ((1.0, 1.0), False, Judgement(FAIL, "3 of 3", "2 of 2, 1 short")),
        ((1.0, 0.0), True, Judgement(NOT_JUDGED, "3 of 3", "1 of 2")),
    ],
)
def test_all_runs_have_to_go_well(ours: tuple[float, ...], quick: bool, judged: Judgement) -> None:
    assert row(AllOf(3), ours=ours, unit=RUNS).judgements(quick) == [judged]


@pytest.mark.parametrize(
    ("targets", "quick", "expected"),
    [
        ((Faster(10), WithinFloor(2)), False, PASS),
        ((Faster(10), WithinFloor(1)), False, FAIL),
        ((Faster(11), WithinFloor(2)), False, FAIL),
        ((Faster(10), WithinFloor(1)), True, PASS),
        ((WithinFloor(1),), True, NOT_JUDGED),
    ],
)
def test_a_row_is_as_good_as_its_worst_target(targets: tuple[Target, ...], quick: bool, expected: Verdict) -> None:
    assert verdict(row(*targets), quick) is expected


@pytest.mark.parametrize("quick", [False, True])
def test_what_cannot_be_measured_fails(quick: bool) -> None:
    assert verdict(Broken("launch", "OSError: no"), quick) is FAIL


def test_nothing_beside_a_peer_that_took_no_time_is_a_failure() -> None:
    free = Row("start", SECONDS, (0.1,), (Faster(2),), peer=(0.0,))
    assert free.judgements(quick=False) == [Judgement(FAIL, ">= 2x", "0x, the peer took no time")]


@pytest.mark.parametrize(
    ("row_of", "message"),
    [
        (lambda: Row("start", SECONDS, (), (AtMost(1),)), "start: nothing was measured"),
        (lambda: Row("start", SECONDS, (1.0,), ()), "start: no target"),
        (lambda: Row("start", SECONDS, (1.0,), (Faster(2),)), "without samples of the peer"),
        (lambda: Row("start", SECONDS, (1.0,), (Faster(2),), peer="never"), "without samples of the peer"),
        (lambda: Row("start", SECONDS, (1.0,), (WithinFloor(2),)), "without samples of the floor"),
    ],
)
def test_a_row_that_can_say_nothing_is_refused(row_of: object, message: str) -> None:
    assert callable(row_of)
    with pytest.raises(ValueError, match=message):
        row_of()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, SECONDS, "12.3 ms"),
        (0.0001234, SECONDS, "0.123 ms"),
        (1.2345, SECONDS, "1.23 s"),
        (123.4, SECONDS, "123 s"),
        (0.0, SECONDS, "0 s"),
        (40.0, MEBIBYTES, "40 MiB"),
        (40.26, MEBIBYTES, "40.3 MiB"),
        (33_600, COUNT, "33,600"),
    ],
)
def test_values_are_told_with_three_digits(value: float, unit: str, text: str) -> None:
    assert as_value(value, unit) == text


def test_ratios_are_told_with_three_digits() -> None:
    assert [as_times(ratio) for ratio in (0.1234, 2, 12.34, 345.6)] == ["0.123x", "2x", "12.3x", "346x"]
