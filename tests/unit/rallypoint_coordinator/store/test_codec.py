from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint.model import JobState, Outcome
from rallypoint.v1 import journal_pb2 as pb
from rallypoint_coordinator.core import records
from rallypoint_coordinator.core.records import Entry, GoneReason, JobDecided, LifeRecord, StopCause
from rallypoint_coordinator.store.codec import decode, encode
from rallypoint_coordinator.store.codec_values import (
    GONE_REASONS,
    STOP_CAUSES,
    UnknownRecordKind,
    UnreadableRecord,
)
from unit.strategies import (
    capabilities,
    counts,
    endpoints,
    failures,
    ids,
    instants_ms,
    job_specs,
    node_specs,
    outcomes,
    rounds,
    texts,
)

seats = st.builds(records.Seat, node=texts, lease_id=ids, local_world_size=counts, role=texts)
places = st.builds(
    records.Place, seat=seats, group_rank=counts, first_rank=counts, first_role_rank=counts, role_world_size=counts
)

RECORDS: dict[type[records.Record], st.SearchStrategy[Any]] = {
    records.CoordinatorStarted: st.builds(
        records.CoordinatorStarted, cluster_id=texts, epoch=ids, born_wall_ms=instants_ms
    ),
    records.StateLost: st.builds(records.StateLost, former_cluster_id=texts, epoch=ids),
    records.JobCreated: st.builds(records.JobCreated, spec=job_specs),
    records.MemberJoined: st.builds(
        records.MemberJoined,
        node=texts,
        incarnation=texts,
        spec=node_specs,
        capabilities=capabilities,
        agent_version=texts,
        consumed_offer_id=ids,
    ),
    records.LeaseRevoked: st.builds(records.LeaseRevoked, node=texts, lease_id=ids, message=texts),
    records.MemberGone: st.builds(
        records.MemberGone, node=texts, lease_id=ids, reason=st.sampled_from(GoneReason), message=texts
    ),
    records.RecoveryBegan: st.builds(records.RecoveryBegan, epoch=ids, round=rounds, restart_count=counts),
    records.RoundAdopted: st.builds(
        records.RoundAdopted,
        round=ids,
        restart_count=counts,
        places=st.lists(places, max_size=4).map(tuple),
        world_size=counts,
        endpoint=endpoints,
        offer_node=texts,
        offer_id=ids,
    ),
    records.RecoveryEnded: st.builds(records.RecoveryEnded),
    records.RoundFormed: st.builds(
        records.RoundFormed,
        round=ids,
        seats=st.lists(seats, max_size=4).map(tuple),
        endpoint=endpoints,
        offer_id=ids,
    ),
    records.NodeSucceeded: st.builds(records.NodeSucceeded, round=ids, node=texts),
    records.RoundStopping: st.builds(
        records.RoundStopping,
        round=ids,
        cause=st.sampled_from(StopCause),
        message=texts,
        epoch=ids,
        happened_wall_ms=instants_ms,
        noticed_wall_ms=instants_ms,
    ),
    records.RoundEnded: st.builds(
        records.RoundEnded, round=ids, charged=st.booleans(), culprit=st.none() | failures, message=texts
    ),
    records.JobDecided: st.builds(records.JobDecided, outcome=outcomes),
    records.JobCancelled: st.builds(records.JobCancelled, by=texts, reason=texts, told=texts),
    records.RestartAsked: st.builds(records.RestartAsked, by=texts, reason=texts),
    records.NodeDrained: st.builds(records.NodeDrained, node=texts, lease_id=ids, by=texts, reason=texts, told=texts),
    records.JobUpdated: st.builds(
        records.JobUpdated,
        by=texts,
        reason=texts,
        min_nodes=counts,
        max_nodes=counts,
        max_restarts=counts,
        labels=st.dictionaries(texts, texts, max_size=3),
        told=texts,
    ),
    records.JobHeld: st.builds(
        records.JobHeld, by=texts, reason=texts, since_wall_ms=instants_ms, until_wall_ms=instants_ms
    ),
    records.JobReleased: st.builds(records.JobReleased, by=texts, reason=texts),
    records.NodeExpelled: st.builds(
        records.NodeExpelled, node=texts, lease_id=ids, round=ids, pids=st.lists(ids, max_size=3).map(tuple)
    ),
    records.NodeReadmitted: st.builds(records.NodeReadmitted, node=texts, lease_id=ids),
    records.LifeForgotten: st.builds(records.LifeForgotten),
}


def entry(record: records.Record) -> Entry:
    return Entry(job="train", job_uid="u", wall_ms=1_700_000_000_123, record=record)


def test_every_record_is_tried() -> None:
    assert set(RECORDS) == {records.CoordinatorStarted, records.StateLost, *typing.get_args(LifeRecord)}


def test_every_stored_kind_has_a_record() -> None:
    assert len(pb.JournalRecord.DESCRIPTOR.oneofs_by_name["record"].fields) == len(RECORDS)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_record_survives(kind: type[records.Record], data: st.DataObject) -> None:
    stored = Entry(
        job=data.draw(texts),
        job_uid=data.draw(texts),
        wall_ms=data.draw(instants_ms),
        record=data.draw(RECORDS[kind]),
    )
    assert decode(encode(stored)) == stored
    assert encode(decode(encode(stored))) == encode(stored)


def test_nothing_is_cut() -> None:
    outcome = Outcome(state=JobState.FAILED, reason="RESTARTS_EXHAUSTED", message="m" * 10_000)
    stored = entry(JobDecided(outcome=outcome))
    assert decode(encode(stored)) == stored


def test_a_kind_of_a_later_release_is_refused() -> None:
    later = pb.JournalRecord(job="train").SerializeToString() + b"\xc2\x0c\x00"
    with pytest.raises(UnknownRecordKind, match="later release"):
        decode(later)


@pytest.mark.parametrize(
    "message",
    [
        pb.JournalRecord(member_gone=pb.MemberGone(reason=99)),  # type: ignore[arg-type]
        pb.JournalRecord(round_stopping=pb.RoundStopping(cause=99)),  # type: ignore[arg-type]
        pb.JournalRecord(job_decided=pb.JobDecided()),
    ],
)
def test_a_value_of_a_later_release_is_refused(message: pb.JournalRecord) -> None:
    with pytest.raises(UnreadableRecord, match="not known to this release"):
        decode(message.SerializeToString())


def test_garbage_is_refused() -> None:
    with pytest.raises(UnreadableRecord, match="not a record"):
        decode(b"\xff\xff\xff")


def test_every_enum_value_has_its_twin() -> None:
    gone = [GONE_REASONS.member(value) for value in pb.GoneReason.values()]
    causes = [STOP_CAUSES.member(value) for value in pb.StopCause.values()]
    assert gone == [None, *GoneReason]
    assert causes == [None, *StopCause]
