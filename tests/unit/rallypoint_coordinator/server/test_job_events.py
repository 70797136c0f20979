from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import get_args

import pytest

from rallypoint.model import JobState, Outcome, WorkerFailure
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.wire.types import JOB_STATES
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import (
    CoordinatorStarted,
    Entry,
    GoneReason,
    JobDecided,
    LifeForgotten,
    LifeRecord,
    MemberGone,
    NodeExpelled,
    Record,
    RoundEnded,
    RoundStopping,
    StateLost,
    StopCause,
)
from rallypoint_coordinator.server.job_events import EVENT_KINDS, job_event
from rallypoint_coordinator.store.codec import decode

FOLDER = Path(__file__).parents[3] / "journals"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
FAILURE = WorkerFailure(node="node-b", local_rank=0, rank=5, pid=7, exit_code=-9, traceback="t" * 9_000)


def told(record: Record) -> pb.JobEvent:
    return job_event(Entry(job="train", job_uid="uid", wall_ms=5_000, record=record), 7)


def test_every_record_of_a_life_but_the_last_is_an_event() -> None:
    assert set(EVENT_KINDS) == set(get_args(LifeRecord)) - {LifeForgotten}
    assert not {CoordinatorStarted, StateLost} & set(EVENT_KINDS)


def test_every_kind_has_one_record() -> None:
    kinds = sorted(EVENT_KINDS.values())
    assert kinds == [number for number in pb.JobEventKind.values() if number]


@pytest.mark.parametrize("name", NAMES)
def test_the_state_that_is_told_is_the_lifes(name: str) -> None:
    cluster, told_states = Cluster(), {}
    for line in map(json.loads, (FOLDER / f"{name}.jsonl").read_text().splitlines()):
        entry = decode(base64.b64decode(line["data"]))
        cluster.apply(entry, line["revision"])
        if type(entry.record) in EVENT_KINDS:
            event = job_event(entry, line["revision"])
            assert event.message
            if event.state:
                told_states[event.job_uid] = JOB_STATES.member(event.state)
            assert told_states[event.job_uid] == cluster.lives[event.job_uid].facts.state


def test_an_event_says_where_when_and_what() -> None:
    event = told(RoundStopping(round=3, cause=StopCause.NODE_LOST, message="node-a is lost"))
    assert (event.revision, event.event_time.seconds, event.job, event.job_uid) == (7, 5, "jobs/train", "uid")
    assert (event.round, event.reason) == (3, "NODE_LOST")
    assert event.message == "round 3 is being stopped: node-a is lost"


def test_a_culprit_comes_without_its_traceback() -> None:
    event = told(RoundEnded(round=0, charged=True, culprit=FAILURE, message="restart 1 of 3: rank 5 failed"))
    assert (event.culprit.node, event.culprit.rank, event.culprit.exit_code) == ("node-b", 5, -9)
    assert (event.culprit.traceback, event.restart_spent) == ("", True)
    outcome = Outcome(
        state=JobState.FAILED, reason="RESTARTS_EXHAUSTED", message="", culprit=FAILURE, candidates=(FAILURE,)
    )
    event = told(JobDecided(outcome=outcome))
    assert (event.outcome.culprit.rank, event.outcome.candidates[0].rank, event.reason) == (5, 5, "RESTARTS_EXHAUSTED")
    assert event.ByteSize() < 500


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (MemberGone(node="a", lease_id=1, reason=GoneReason.LEFT, message=""), "a left"),
        (MemberGone(node="a", lease_id=1, reason=GoneReason.EXPIRED, message="not heard"), "a is lost: not heard"),
        (NodeExpelled(node="a", lease_id=1, round=0, pids=(7, 8)), "a is quarantined: SIGKILL does not end 7, 8"),
        (RoundEnded(round=2, charged=False, culprit=None, message=""), "round 2 ended"),
    ],
)
def test_sentences(record: Record, message: str) -> None:
    assert told(record).message == message
