from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint.model import JobState
from rallypoint.v1 import journal_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint_coordinator.core import records
from rallypoint_coordinator.core.history import EpochStart
from rallypoint_coordinator.core.places import places_of
from rallypoint_coordinator.core.records import GoneReason, StopCause
from rallypoint_coordinator.core.round_changes import RoundChange
from rallypoint_coordinator.core.snapshot import ClusterSnapshot
from rallypoint_coordinator.core.state import Facts, Member, Round
from rallypoint_coordinator.store.codec_values import UnreadableRecord
from rallypoint_coordinator.store.snapshot_codec import decode_snapshot, encode_snapshot
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
    texts,
)
from unit.strategies import rounds as round_numbers

holds = st.builds(records.JobHeld, by=texts, reason=texts, since_wall_ms=instants_ms, until_wall_ms=instants_ms)
seats = st.builds(records.Seat, node=texts, lease_id=ids, local_world_size=st.integers(0, 1000), role=texts)


@st.composite
def members(draw: st.DrawFn, node: str) -> Member:
    rest: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {
                "incarnation": texts,
                "lease_id": ids,
                "spec": node_specs,
                "capabilities": capabilities,
                "agent_version": texts,
                "consumed_offer_id": ids,
                "drained_by": texts,
                "directive_revision": ids,
                "unkillable_pids": st.lists(ids, max_size=3).map(tuple),
                "gone": st.none() | st.sampled_from(GoneReason),
                "gone_message": texts,
                "revoked": texts,
            }
        )
    )
    return Member(node=node, **rest)


round_changes = st.builds(
    RoundChange,
    round=ids,
    cause=st.sampled_from(StopCause),
    message=texts,
    charged=st.booleans(),
    happened_wall_ms=instants_ms,
    noticed_wall_ms=instants_ms,
    stopped_wall_ms=instants_ms,
    stop_revision=ids,
    ended_wall_ms=instants_ms,
    next_round=round_numbers,
    formed_wall_ms=instants_ms,
    form_revision=ids,
)


@st.composite
def rounds(draw: st.DrawFn) -> Round:
    """Of one that was adopted in part, the places are known only as they are."""
    chosen = tuple(draw(st.lists(seats, max_size=4, unique_by=lambda seat: seat.node)))
    places, missing = places_of(chosen), draw(st.integers(0, 9)) if chosen else 0
    if missing:
        first = draw(st.integers(0, 9))
        places = {node: replace(place, first_rank=place.first_rank + first) for node, place in places.items()}
    return Round(
        number=draw(ids),
        places=places,
        world_size=sum(seat.local_world_size for seat in chosen) + missing,
        endpoint=draw(endpoints),
        offer_id=draw(ids),
        restart_count=draw(counts),
        succeeded={seat.node for seat in chosen if draw(st.booleans())},
        stop_cause=draw(st.none() | st.sampled_from(StopCause)),
        stop_message=draw(texts),
        stop_revision=draw(ids),
        stop_epoch=draw(ids),
        ended=draw(st.booleans()),
        leaves_remains=draw(st.booleans()),
    )


@st.composite
def lives(draw: st.DrawFn, uid: str) -> Facts:
    known = {node: draw(members(node)) for node in draw(st.lists(texts, max_size=4, unique=True))}
    gone = draw(st.permutations([node for node, member in known.items() if member.gone]))
    return Facts(
        job=draw(texts),
        uid=uid,
        spec=draw(job_specs),
        created_wall_ms=draw(instants_ms),
        state=draw(st.sampled_from(JobState)),
        state_wall_ms=draw(instants_ms),
        members=known,
        gone_nodes=dict.fromkeys(gone),
        round=draw(st.none() | rounds()),
        restart_count=draw(counts),
        last_failure=draw(st.none() | failures),
        outcome=draw(st.none() | outcomes),
        cancelled_by=draw(texts),
        directive_revision=draw(ids),
        revision=draw(ids),
        recovery_epoch=draw(ids),
        round_floor=draw(round_numbers),
        round_changes=tuple(draw(st.lists(round_changes, max_size=2))),
        replaced_spec=draw(st.none() | job_specs),
        labels=draw(st.dictionaries(texts, texts, max_size=2)),
        hold=draw(st.none() | holds),
    )


@given(st.data())
def test_a_snapshot_survives(data: st.DataObject) -> None:
    uids = data.draw(st.lists(texts, max_size=3, unique=True))
    snapshot = ClusterSnapshot(
        cluster_id=data.draw(texts),
        epoch=data.draw(ids),
        born_wall_ms=data.draw(instants_ms),
        former_cluster_ids=tuple(data.draw(st.lists(texts, max_size=3))),
        epochs=tuple(data.draw(st.lists(st.builds(EpochStart, ids, ids, ids), max_size=3))),
        lives=tuple(data.draw(lives(uid)) for uid in uids),
    )
    again = decode_snapshot(encode_snapshot(snapshot))
    assert again == snapshot
    assert encode_snapshot(again) == encode_snapshot(snapshot)
    for before, after in zip(snapshot.lives, again.lives, strict=True):
        assert list(after.members) == list(before.members)
        assert list(after.gone_nodes) == list(before.gone_nodes)
        if before.round is not None:
            assert after.round is not None
            assert list(after.round.places) == list(before.round.places)


def test_garbage_is_refused() -> None:
    with pytest.raises(UnreadableRecord, match="not a snapshot"):
        decode_snapshot(b"\xff\xff\xff")


RUNNING = types_pb2.JOB_STATE_RUNNING


@pytest.mark.parametrize(
    "life",
    [
        pb.LifeSnapshot(),
        pb.LifeSnapshot(state=99),  # type: ignore[arg-type]
        pb.LifeSnapshot(state=RUNNING, outcome=types_pb2.Outcome()),
        pb.LifeSnapshot(state=RUNNING, members=[pb.MemberSnapshot(gone=99)]),  # type: ignore[arg-type]
        pb.LifeSnapshot(state=RUNNING, round=pb.RoundSnapshot(stop_cause=99)),  # type: ignore[arg-type]
    ],
)
def test_a_value_of_a_later_release_is_refused(life: pb.LifeSnapshot) -> None:
    with pytest.raises(UnreadableRecord, match="not known to this release"):
        decode_snapshot(pb.ClusterSnapshot(lives=[life]).SerializeToString())
