from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rallypoint.model import JobState, Outcome
from rallypoint_coordinator.core.effects import EndStream, Output
from rallypoint_coordinator.core.records import (
    Entry,
    GoneReason,
    JobDecided,
    MemberGone,
    NodeSucceeded,
    Record,
    RoundEnded,
    RoundStopping,
    StopCause,
)
from rallypoint_coordinator.server.turns import Batch, pack
from rallypoint_coordinator.store.codec import decode
from rallypoint_coordinator.store.journal import Bounds

WIDE = Bounds(records=100, bytes=1 << 20)


def output(step: int, records: int, size: int = 0) -> Output:
    entries = [
        Entry(job="j", job_uid="u", wall_ms=1, record=NodeSucceeded(round=step, node=str(n) + "n" * size))
        for n in range(records)
    ]
    return Output(records=entries, effects=[EndStream(step)])


def shape(batches: list[Batch]) -> list[tuple[int, list[int]]]:
    """How many records each batch has, and of which steps it lets the effects out."""
    return [(len(b.records), [e.stream for e in b.effects if isinstance(e, EndStream)]) for b in batches]


def test_what_fits_goes_together() -> None:
    assert shape(list(pack([output(1, 2), output(2, 0), output(3, 1)], WIDE))) == [(3, [1, 2, 3])]


def test_effects_without_records_need_no_append() -> None:
    assert shape(list(pack([output(1, 0)], WIDE))) == [(0, [1])]


def test_a_step_is_not_torn_apart_where_it_fits() -> None:
    batches = list(pack([output(1, 2), output(2, 2), output(3, 1)], Bounds(records=3, bytes=1 << 20)))
    assert shape(batches) == [(2, [1]), (3, [2, 3])]


def test_a_step_that_fits_nowhere_spans_batches_and_its_effects_come_last() -> None:
    batches = list(pack([output(1, 1), output(2, 7), output(3, 1)], Bounds(records=3, bytes=1 << 20)))
    assert shape(batches) == [(1, [1]), (3, []), (3, []), (2, [2, 3])]


def test_what_ends_a_round_or_a_job_stays_with_what_led_to_it() -> None:
    """A crash between the two would leave a round that ended for good, and a job that goes on."""
    gone = [MemberGone(node=f"n{n}", lease_id=n, reason=GoneReason.EXPIRED, message="") for n in range(3)]
    stopping = RoundStopping(round=0, cause=StopCause.NODE_LOST, message="")
    ended = RoundEnded(round=0, charged=False, culprit=None, message="")
    decided = JobDecided(outcome=Outcome(state=JobState.FAILED, reason="RESTARTS_EXHAUSTED", message=""))
    records: tuple[Record, ...] = (*gone, stopping, ended, decided)
    entries = [Entry(job="j", job_uid="u", wall_ms=1, record=record) for record in records]
    batches = list(pack([Output(records=entries)], Bounds(records=3, bytes=1 << 20)))
    kinds = [[type(decode(record).record) for record in batch.records] for batch in batches]
    assert kinds == [[MemberGone, MemberGone], [MemberGone, RoundStopping], [RoundEnded, JobDecided]]


def test_bytes_count_as_well() -> None:
    batches = list(pack([output(1, 1, 400), output(2, 1, 400), output(3, 1, 400)], Bounds(records=9, bytes=1000)))
    assert shape(batches) == [(2, [1, 2]), (1, [3])]


def test_a_record_too_large_by_itself_goes_alone() -> None:
    batches = list(pack([output(1, 1), output(2, 1, 5000), output(3, 1)], Bounds(records=9, bytes=1000)))
    assert shape(batches) == [(1, [1]), (1, [2]), (1, [3])]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 300))), st.integers(1, 5), st.integers(1, 1500))
def test_nothing_is_lost_reordered_or_shown_early(sizes: list[tuple[int, int]], records: int, size: int) -> None:
    outputs = [output(step, count, length) for step, (count, length) in enumerate(sizes)]
    bounds = Bounds(records=records, bytes=size)
    batches = list(pack(outputs, bounds))
    assert [decode(r) for b in batches for r in b.records] == [e for o in outputs for e in o.records]
    assert [e for b in batches for e in b.effects] == [e for o in outputs for e in o.effects]
    for batch in batches:
        assert len(batch.records) <= records
        assert sum(map(len, batch.records)) <= size or len(batch.records) == 1
    durable, due = 0, 0
    ends = [sum(count for count, _ in sizes[: step + 1]) for step in range(len(sizes))]
    for batch in batches:
        durable += len(batch.records)
        due += len(batch.effects)
        assert due == 0 or ends[due - 1] <= durable
