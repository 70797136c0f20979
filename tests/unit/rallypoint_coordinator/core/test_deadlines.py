from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint_coordinator.core.deadlines import LOOK_AHEAD_MS, SPARE_ENTRIES, Deadlines


def test_a_later_deadline_replaces_an_earlier_one() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("a", 10)
    deadlines.set("a", 30)
    assert deadlines.of("a") == 30
    assert deadlines.pop_due(10) == []
    assert deadlines.pop_due(30) == ["a"]
    assert deadlines.next_ms() is None


def test_an_earlier_deadline_replaces_a_later_one() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("a", 30)
    deadlines.set("a", 10)
    assert deadlines.pop_due(10) == ["a"]
    assert deadlines.pop_due(30) == []


def test_ten_thousand_renewals_do_not_grow_the_heap() -> None:
    deadlines = Deadlines[int]()
    for at_ms in range(10_000):
        deadlines.set(1, at_ms)
    assert len(deadlines._heap) == 1


def test_a_far_deadline_that_is_often_earlier_for_a_while_leaves_no_entry_each_time() -> None:
    """So it is with a job that is held for a week while agents come and go."""
    deadlines, week_ms = Deadlines[str](), 7 * 86_400_000
    for at_ms in range(0, 100_000, 10):
        deadlines.set("held", at_ms + 5)
        deadlines.set("held", week_ms)
        assert deadlines.pop_due(at_ms + 5) == []
    assert len(deadlines._heap) <= 2 + SPARE_ENTRIES
    assert deadlines.pop_due(week_ms) == ["held"]


def test_what_is_cleared_long_before_its_time_does_not_stay() -> None:
    deadlines = Deadlines[int]()
    for key in range(10_000):
        deadlines.set(key, 1_000_000 + key)
        deadlines.clear(key)
    deadlines.set(-1, 2_000_000)
    assert len(deadlines._heap) <= 2 + SPARE_ENTRIES
    assert len(deadlines._queued) <= 2 + SPARE_ENTRIES
    assert deadlines.pop_due(2_000_000) == [-1]


def test_renewals_are_looked_at_once_a_second() -> None:
    deadlines, looks = Deadlines[int](), 0
    for key in range(1_000):
        deadlines.set(key, 10_000 + 3 * key)
        deadlines.set(key, 40_000 + 3 * key)
    while (next_ms := deadlines.next_ms()) is not None and next_ms < 40_000:
        assert deadlines.pop_due(next_ms) == []
        looks += 1
    assert looks <= 1 + 3_000 / LOOK_AHEAD_MS


OPERATION = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 50)),
    st.tuples(st.just("clear"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("pop"), st.just(0), st.integers(0, 50)),
)


@given(st.lists(OPERATION))
def test_it_behaves_like_a_plain_dict(operations: list[tuple[str, int, int]]) -> None:
    behaves_like_a_plain_dict(operations)


@given(st.lists(OPERATION))
def test_so_it_does_however_often_the_heap_is_made_anew(operations: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rallypoint_coordinator.core.deadlines.SPARE_ENTRIES", 0)
        behaves_like_a_plain_dict(operations)


def behaves_like_a_plain_dict(operations: list[tuple[str, int, int]]) -> None:
    deadlines, model = Deadlines[int](), dict[int, int]()
    for operation, key, at_ms in operations:
        if operation == "set":
            deadlines.set(key, at_ms)
            model[key] = at_ms
        elif operation == "clear":
            deadlines.clear(key)
            model.pop(key, None)
        else:
            due = {k for k, due_ms in model.items() if due_ms <= at_ms}
            assert set(deadlines.pop_due(at_ms)) == due
            model = {k: due_ms for k, due_ms in model.items() if k not in due}
        earliest = deadlines.next_ms()
        assert not model or (earliest is not None and earliest <= min(model.values()))
