"""Each validator sees what it is there for, and nothing else is wrong with a watch that is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rallypoint.model import JobSpec, JobState, Outcome
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.records import (
    CoordinatorStarted,
    Entry,
    JobCancelled,
    JobCreated,
    JobDecided,
    NodeDrained,
    Record,
)
from rallypoint_coordinator.server import job_events, views
from support.watch_guarantees import GUARANTEES, KINDS, Broken, Records, check
from support.watch_history import Chain, Reader

CANCELLED = Outcome(state=JobState.CANCELLED, reason="CANCELLED", message="")


def entry(record: Record, uid: str = "uid") -> Entry:
    return Entry(job="train" if uid else "", job_uid=uid, wall_ms=5, record=record)


RECORDS: Records = list(
    enumerate(
        [
            entry(CoordinatorStarted(cluster_id="c", epoch=1), uid=""),
            entry(JobCreated(spec=JobSpec())),
            entry(JobCancelled(by="one", reason="")),
            entry(JobCreated(spec=JobSpec()), uid="other"),
            entry(JobCancelled(by="two", reason="")),
            entry(JobDecided(outcome=CANCELLED)),
            entry(NodeDrained(node="a", lease_id=1, by="me", reason="")),
        ],
        1,
    )
)


def message(*revisions: int, at: int = 0) -> pb.WatchJobResponse:
    events = [job_events.job_event(RECORDS[revision - 1][1], revision) for revision in revisions]
    return pb.WatchJobResponse(resume_token="t", revision=at or revisions[-1], events=events)


def snapshot(at: int) -> pb.WatchJobResponse:
    cluster = Cluster()
    for revision, record in RECORDS[:at]:
        cluster.apply(record, revision)
    job = views.job(cluster.lives["uid"], 1, Stamp(at_ms=0, wall_ms=5, revision=at))
    return pb.WatchJobResponse(resume_token="t", revision=at, snapshot=job)


def read(*messages: pb.WatchJobResponse | str, durable: int | None = None) -> Chain:
    """What a reader makes of it; a word ends a stream, and another one follows."""
    reader = Reader("train")
    reader.request()
    for each in messages:
        if isinstance(each, str):
            reader.ended(each)
            reader.request()
        else:
            reader.told(each, durable)
    return reader.chains[-1]


def changed(told: pb.WatchJobResponse, change: Callable[[pb.WatchJobResponse], None]) -> pb.WatchJobResponse:
    change(told)
    return told


def all_broken(chain: Chain) -> set[str]:
    found = set()
    for guarantee in GUARANTEES:
        try:
            guarantee(chain, RECORDS)
        except Broken as broken:
            found.add(broken.guarantee)
    return found


@pytest.mark.parametrize(
    "chain",
    [
        read(snapshot(2), message(3), message(5, 6), "OK"),
        read(snapshot(2), message(3, at=4), message(at=4), "broken", message(5), "broken", message(6), "OK"),
        read(snapshot(6), "OK"),
        read(snapshot(3)),
    ],
)
def test_a_watch_that_is_right(chain: Chain) -> None:
    assert all_broken(chain) == set()
    check([chain], RECORDS)


@pytest.mark.parametrize(
    ("guarantee", "chain"),
    [
        ("ordered", read(snapshot(2), message(5, 3))),
        ("ordered", read(snapshot(2), message(3, 5), message(at=3))),
        ("unique", read(snapshot(2), message(3), message(3))),
        ("unique", read(snapshot(2), message(3, 3))),
        ("atomic", read(snapshot(2), changed(message(3), lambda told: told.events[0].ClearField("kind")))),
        ("atomic", read(snapshot(2), changed(message(3), lambda told: told.events[0].ClearField("message")))),
        ("atomic", read(changed(snapshot(2), lambda told: setattr(told, "revision", 6)))),
        ("reliable", read(snapshot(2), message(5))),
        ("reliable", read(snapshot(2), message(3), message(5, 6, 7))),
        ("reliable", read(snapshot(2), message(3), "OK")),
        ("resumable", read(snapshot(2), message(3), "broken", message(6))),
        ("resumable", read(snapshot(2), message(3), "broken", snapshot(3))),
        ("bookmarkable", read(snapshot(2), message(at=4), message(3, 5))),
        ("durable", read(snapshot(2), message(3), durable=2)),
    ],
)
def test_what_is_wrong_is_seen(guarantee: str, chain: Chain) -> None:
    assert guarantee in all_broken(chain)


def test_every_kind_of_event_is_known() -> None:
    told = {record: pb.JobEventKind.Name(kind) for record, kind in job_events.EVENT_KINDS.items()}
    assert {record: f"JOB_EVENT_KIND_{kind}" for record, kind in KINDS.items()} == told


def test_a_reader_starts_over_when_its_token_is_no_good() -> None:
    reader = Reader("train")
    reader.request()
    reader.told(snapshot(2))
    reader.ended("broken")
    assert reader.request().resume_token == "t"
    reader.ended("WATCH_EXPIRED")
    assert (reader.request().resume_token, reader.expired) == ("", 1)
