from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from rallypoint.limits import TRACEBACK_BYTES
from rallypoint.model import Endpoint, JobSpec, JobState, Outcome, WorkerFailure
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import (
    CoordinatorStarted,
    Entry,
    JobCreated,
    JobDecided,
    LifeForgotten,
    NodeSucceeded,
    Record,
    RestartAsked,
    RoundEnded,
    RoundFormed,
    Seat,
)
from rallypoint_coordinator.server.job_events import job_event
from rallypoint_coordinator.server.watch_log import (
    EVENT_COST_BYTES,
    LARGE_RECORD_BYTES,
    Feed,
    LogBounds,
    WatchLog,
    log_bounds,
)
from rallypoint_coordinator.server.watch_tokens import parse_watch_token
from rallypoint_coordinator.store.codec import encode

STARTED = CoordinatorStarted(cluster_id="cluster-1", epoch=1)


class Written:
    """A log of what is decided here, one record after the other, and a cluster that knows the same."""

    def __init__(self, bounds: LogBounds | None = None) -> None:
        self.log = WatchLog(bounds or LogBounds())
        self.cluster = Cluster()
        self.records: list[Entry] = []
        self.write(STARTED, uid="")
        self.write(JobCreated(spec=JobSpec()))

    def write(self, record: Record, uid: str = "uid") -> int:
        entry = Entry(job="train" if uid else "", job_uid=uid, wall_ms=len(self.records), record=record)
        self.records.append(entry)
        self.log.add(entry, len(self.records), encode(entry))
        if isinstance(record, CoordinatorStarted | JobCreated):
            self.cluster.apply(entry, len(self.records))
        return len(self.records)

    def events(self, count: int, uid: str = "uid", size: int = 0) -> int:
        for _ in range(count):
            self.write(RestartAsked(by="me", reason="r" * size), uid)
        return len(self.records)

    @property
    def feed(self) -> Feed:
        return self.log.feed("uid")

    def told_after(self, revision: int) -> Iterator[pb.WatchJobResponse]:
        while self.feed.has_news(revision):
            data, revision = self.feed.message_after(revision)
            yield pb.WatchJobResponse.FromString(data)

    def why_expired(self, revision: int) -> str:
        return self.log.why_expired(self.log.token("uid", revision), self.cluster)


def revisions(messages: Iterator[pb.WatchJobResponse]) -> list[list[int]]:
    return [[event.revision for event in message.events] for message in messages]


def test_what_follows_comes_in_one_message_with_the_last_ones_token() -> None:
    written = Written()
    written.events(3)
    (message,) = written.told_after(2)
    assert [event.revision for event in message.events] == [3, 4, 5]
    assert message.revision == 5
    assert parse_watch_token(message.resume_token) == written.log.token("uid", 5)


def test_a_message_is_bounded_but_has_one_event_at_least() -> None:
    written = Written(LogBounds(message_bytes=1_000))
    written.events(4, size=400)
    written.events(1, size=5_000)
    assert revisions(written.told_after(2)) == [[3, 4], [5, 6], [7]]


def test_a_message_does_not_wait_for_many_to_be_encoded() -> None:
    written = Written(LogBounds(message_encodings=2))
    written.events(5)
    assert revisions(written.told_after(2)) == [[3, 4], [5, 6], [7]]
    assert revisions(written.told_after(2)) == [[3, 4, 5, 6, 7]]


def test_who_has_been_told_all_is_told_how_far_that_is() -> None:
    written = Written()
    last = written.events(2, uid="other")
    data, revision = written.feed.message_after(2)
    message = pb.WatchJobResponse.FromString(data)
    assert (list(message.events), message.revision, revision) == ([], last, last)
    assert parse_watch_token(message.resume_token).revision == last


def test_a_watch_is_told_nothing_after_the_jobs_end() -> None:
    written = Written()
    decided = written.write(JobDecided(outcome=Outcome(state=JobState.SUCCEEDED, reason="DONE", message="")))
    written.events(1)
    assert revisions(written.told_after(2)) == [[decided]]
    assert written.feed.is_over(decided)
    assert [event.revision for event in written.feed.events_after(2)] == [decided, decided + 1]


def test_a_life_keeps_so_many_events_and_bytes() -> None:
    written = Written(LogBounds(life_events=3))
    written.events(4)
    assert [event.revision for event in written.feed.events_after(0)] == [4, 5, 6]
    assert (written.feed.has_dropped_after(2), written.feed.has_dropped_after(3)) == (True, False)
    assert (written.feed.is_whole, Written().feed.is_whole) == (False, True)
    written = Written(LogBounds(life_bytes=2 * (EVENT_COST_BYTES + 1_100)))
    written.events(4, size=1_000)
    assert [event.revision for event in written.feed.events_after(0)] == [5, 6]


def test_all_lives_together_keep_so_many_bytes() -> None:
    written = Written(LogBounds(bytes=3 * (EVENT_COST_BYTES + 1_100)))
    written.events(2, size=1_000)
    written.events(2, uid="other", size=1_000)
    assert [event.revision for event in written.feed.events_after(0)] == [4]
    assert written.log.feed("other").kept_bytes + written.feed.kept_bytes <= written.log.bounds.bytes


def test_a_forgotten_life_takes_no_room() -> None:
    written = Written(LogBounds(bytes=4 * (EVENT_COST_BYTES + 1_100)))
    feed = written.feed
    written.events(2, size=1_000)
    written.write(LifeForgotten())
    assert feed.is_forgotten
    written.events(3, uid="other", size=1_000)
    assert len(list(written.log.feed("other").events_after(0))) == 3


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """What is freed is freed by its count: the coordinator's collector does not look at what is old."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_a_forgotten_life_leaves_nothing() -> None:
    written = Written()
    written.events(3)
    feed = weakref.ref(written.feed)
    written.write(LifeForgotten())
    assert feed() is None


def test_who_holds_on_to_a_forgotten_life_holds_no_events() -> None:
    written = Written()
    written.events(3)
    feed = written.feed
    written.write(LifeForgotten())
    assert (list(feed.events_after(0)), feed.kept_bytes) == ([], 0)


@pytest.mark.usefixtures("_no_collector")
def test_a_log_that_is_let_go_leaves_nothing() -> None:
    written = Written()
    written.events(3)
    log, feed = weakref.ref(written.log), written.feed
    written.log.let_go()
    written.log = feed.log = WatchLog(LogBounds())
    assert log() is None
    assert feed.is_forgotten


def test_the_default_is_what_so_much_memory_gets() -> None:
    assert log_bounds(LogBounds().bytes) == LogBounds()
    assert log_bounds(1 << 20) == LogBounds(records=1_024, bytes=1 << 20, life_bytes=128 << 10)


FAILURE = WorkerFailure(
    node="n", local_rank=0, rank=0, pid=1, exit_code=1, message="m", traceback="t" * TRACEBACK_BYTES
)
SEATS = tuple(Seat(node=f"node-{number:06}", lease_id=number, local_world_size=8, role="") for number in range(20_000))


@pytest.mark.parametrize(
    "record",
    [
        RoundFormed(round=0, seats=SEATS, endpoint=Endpoint("node-000000", 29500), offer_id=1),
        RoundEnded(round=0, charged=True, message="it failed", culprit=FAILURE, others=(FAILURE,)),
    ],
)
def test_of_a_large_record_the_event_is_kept(record: Record) -> None:
    written = Written(log_bounds(1 << 20))
    revision = written.write(record)
    size = written.feed.kept_bytes
    assert len(encode(written.records[-1])) > LARGE_RECORD_BYTES
    assert size < 3 * EVENT_COST_BYTES
    ((event,),) = (message.events for message in written.told_after(revision - 1))
    assert event == job_event(written.records[-1], revision)
    assert written.feed.is_whole


def test_a_watcher_lags_when_half_of_what_may_be_kept_follows() -> None:
    written = Written(LogBounds(life_events=8))
    last = written.events(5)
    assert [written.feed.lags(revision) for revision in (last - 5, last - 4, last)] == [True, False, False]
    written = Written(LogBounds(life_bytes=8 * (EVENT_COST_BYTES + 1_100)))
    last = written.events(5, size=1_000)
    assert [written.feed.lags(revision) for revision in (last - 5, last - 3)] == [True, False]


# --- tokens


def test_a_token_is_good_as_long_as_all_that_follows_is_kept() -> None:
    written = Written(LogBounds(records=6, life_events=3))
    written.events(1)
    assert [bool(written.why_expired(revision)) for revision in (0, 1, 2, 3, 4)] == [True, False, False, False, True]
    written.events(3)
    assert "not all kept" in written.why_expired(2)
    assert written.why_expired(3) == ""
    token = written.log.token("uid", 3)
    written.events(6, uid="other")
    assert "not all known" in written.log.why_expired(token, written.cluster)


def test_a_token_of_another_cluster_or_life_has_expired() -> None:
    written = Written()
    token = written.log.token("uid", 2)
    assert "another" in written.log.why_expired(token._replace(cluster_id="another"), written.cluster)
    assert "life no-such" in written.log.why_expired(token._replace(job_uid="no-such"), written.cluster)


def test_a_token_of_a_lost_history_has_expired() -> None:
    """A backup was restored, and the journal went on otherwise, with the same numbers."""
    lost, now = Written(), Written()
    token = lost.log.token("uid", lost.write(NodeSucceeded(round=0, node="a")))
    assert now.why_expired(2) == ""
    now.write(RestartAsked(by="me", reason=""))
    assert "was lost" in now.log.why_expired(token, now.cluster)
    assert lost.log.why_expired(token, lost.cluster) == ""


def test_a_log_that_begins_later_knows_only_what_it_was_told() -> None:
    """After a restart: what a snapshot stands for was not read again."""
    whole, later = Written(), Written().log.__class__(LogBounds())
    whole.events(4)
    for revision, entry in list(enumerate(whole.records, 1))[3:]:
        later.add(entry, revision, encode(entry))
    later.add(Entry(job="", job_uid="", wall_ms=9, record=STARTED), 7, b"started")
    tokens = [whole.log.token("uid", revision) for revision in (3, 4, 6)]
    assert [bool(later.why_expired(token, whole.cluster)) for token in tokens] == [True, False, False]
    assert later.feed("uid").message_after(4).revision == 6


@pytest.mark.parametrize("text", ["", "x", "!!", "W10=", "bnVsbA==", "a" * 2_000])
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(Exception, match="resume_token"):
        parse_watch_token(text)
