"""What can still be told of what was decided: the newest durable records, and the events of each life among them.

Everything is bounded. What has fallen off cannot be told any more: a reader that wants it starts over.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.values import dataclass
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import CoordinatorStarted, Entry, JobDecided, LifeForgotten
from rallypoint_coordinator.server.job_events import is_event, job_event
from rallypoint_coordinator.server.options import KEEP_EVENTS_MIB_DEFAULT
from rallypoint_coordinator.server.watch_tokens import WatchToken, mark_of
from rallypoint_coordinator.store.codec import decode

if TYPE_CHECKING:
    from rallypoint_coordinator.server.watches import Watch

EVENT_COST_BYTES = 512
"""What an event takes beside its record, with what the message to watchers is longer than that."""

LARGE_RECORD_BYTES = 4 << 10
"""What is larger is not kept, but the event made at once: 100 bytes for 200 KB of a round of ten thousand nodes."""

_BYTES_DEFAULT = KEEP_EVENTS_MIB_DEFAULT << 20
_BYTES_PER_RECORD = 1 << 10
_LIFE_SHARE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBounds:
    """``records``: of all together, events or not; ``bytes``: of all events; ``life_*``: of the events of one life.

    Of a record that is no event, or whose event is not kept any more, some 60 bytes are left: its mark.

    A watcher that lags by more than half of what is kept of its life is too slow: so its token is worth something when
    it is cut off. ``message_bytes``: more than this is told in several messages; and so is what would take more than
    ``message_encodings`` to be encoded first, since everything else waits meanwhile.
    """

    records: int = _BYTES_DEFAULT // _BYTES_PER_RECORD
    bytes: int = _BYTES_DEFAULT
    life_events: int = 16_384
    life_bytes: int = _BYTES_DEFAULT // _LIFE_SHARE
    message_bytes: int = 256 << 10
    message_encodings: int = 16


def log_bounds(most_bytes: int) -> LogBounds:
    """For so much memory, in the shares of the default: an eighth of it for one life, and a record for each KiB."""
    return LogBounds(records=most_bytes // _BYTES_PER_RECORD, bytes=most_bytes, life_bytes=most_bytes // _LIFE_SHARE)


class _Event:
    """``count`` and ``bytes_before`` are of all earlier events of its life, dropped ones included."""

    __slots__ = ("_data", "_is_encoded", "bytes_before", "count", "revision", "size")

    def __init__(self, entry: Entry, revision: int, record: bytes, count: int, bytes_before: int) -> None:
        self.revision = revision
        self.count = count
        self.bytes_before = bytes_before
        self._is_encoded = len(record) > LARGE_RECORD_BYTES
        self._data = _message(entry, revision) if self._is_encoded else record
        self.size = len(self._data) + EVENT_COST_BYTES

    @property
    def is_encoded(self) -> bool:
        return self._is_encoded

    def encoded(self) -> bytes:
        """As a WatchJobResponse that has nothing else. Made when it is asked for first, and once for all watchers."""
        if not self._is_encoded:
            self._data = _message(decode(self._data), self.revision)
            self._is_encoded = True
        return self._data


def _message(entry: Entry, revision: int) -> bytes:
    return pb.WatchJobResponse(events=[job_event(entry, revision)]).SerializeToString()


class Message(NamedTuple):
    """A WatchJobResponse as it goes over the wire, and the position that the reader has then."""

    data: bytes
    revision: int


class Feed:
    """The events of one life that are kept. ``idle``: its watchers that have been told all, and wait."""

    def __init__(self, log: WatchLog, job_uid: str) -> None:
        self.job_uid = job_uid
        self.decided_revision: int | None = None
        self.is_forgotten = False
        self.last_revision = 0
        self.dropped_revision = 0
        self.log = log
        self.idle: dict[Watch, None] = {}
        self._events: deque[_Event] = deque()
        self._count = 0
        self._bytes = 0
        self._bytes_dropped = 0
        self._tail = Message(b"", 0)

    # --- what the log does with it

    @property
    def kept_bytes(self) -> int:
        return self._bytes - self._bytes_dropped

    def add(self, entry: Entry, revision: int, data: bytes) -> None:
        event = _Event(entry, revision, data, self._count, self._bytes)
        self._events.append(event)
        self._count += 1
        self._bytes += event.size
        self.last_revision = revision
        if isinstance(entry.record, JobDecided):
            self.decided_revision = revision

    def has_too_much(self) -> bool:
        return len(self._events) > self.log.bounds.life_events or self.kept_bytes > self.log.bounds.life_bytes

    def drop_first(self) -> None:
        event = self._events.popleft()
        self.dropped_revision = event.revision
        self._bytes_dropped += event.size

    def forget(self) -> None:
        """The life is not kept any more. Readers may still hold on to this, and are told so."""
        self.is_forgotten = True
        while self._events:
            self.drop_first()

    def begins_at(self, revision: int) -> bool:
        """Whether the oldest event that is kept has this revision."""
        return bool(self._events) and self._events[0].revision == revision

    # --- what readers ask

    def is_over(self, revision: int) -> bool:
        """Whether who was told all up to there has been told all."""
        return self.decided_revision is not None and revision >= self.decided_revision

    def has_news(self, revision: int) -> bool:
        return self.last_revision > revision and not self.is_over(revision)

    def has_dropped_after(self, revision: int) -> bool:
        """Whether something is not kept that who was told all up to there has yet to be told."""
        return self.dropped_revision > revision

    def lags(self, revision: int) -> bool:
        """Whether more than half of what may be kept follows that position."""
        index = self._index_after(revision)
        if index == len(self._events):
            return False
        following, bounds = self._events[index], self.log.bounds
        lag, lag_bytes = self._count - following.count, self._bytes - following.bytes_before
        return lag > bounds.life_events // 2 or lag_bytes > max(bounds.life_bytes // 2, following.size)

    def message_after(self, revision: int) -> Message:
        """What follows that position, as much as one message holds; an empty one says that nothing does."""
        if not self.has_news(revision):
            return self._tail_at(self.log.last_revision)
        parts: list[bytes] = []
        size, encodings, last = 0, 0, revision
        for event in self._after(revision):
            encodings += not event.is_encoded
            if encodings > self.log.bounds.message_encodings:
                break
            if parts and size + len(event.encoded()) > self.log.bounds.message_bytes:
                break
            parts.append(event.encoded())
            size, last = size + len(event.encoded()), event.revision
            if self.is_over(last):
                break
        tail = self._tail_at(last)
        return Message(b"".join((*parts, tail.data)), last)

    def events_after(self, revision: int) -> Iterator[pb.JobEvent]:
        """For those who only look. A life that is decided goes on: its agents leave."""
        return (pb.WatchJobResponse.FromString(event.encoded()).events[0] for event in self._after(revision))

    @property
    def is_whole(self) -> bool:
        """Whether the life's very first event is kept."""
        first = next(self.events_after(0), None)
        return first is not None and first.kind == pb.JOB_EVENT_KIND_JOB_CREATED

    def _after(self, revision: int) -> Iterator[_Event]:
        return islice(self._events, self._index_after(revision), None)

    def _index_after(self, revision: int) -> int:
        return bisect_right(self._events, revision, key=lambda event: event.revision)

    def _tail_at(self, revision: int) -> Message:
        """The end of a message after which the reader is at that position: the same for all that are."""
        if self._tail.revision != revision:
            token = self.log.token(self.job_uid, revision)
            response = pb.WatchJobResponse(resume_token=str(token), revision=revision)
            self._tail = Message(response.SerializeToString(), revision)
        return self._tail


class WatchLog:
    """Of one run of the driver: begun empty, then given each durable record in order, those that it reads first."""

    def __init__(self, bounds: LogBounds) -> None:
        self.bounds = bounds
        self.last_revision = 0
        self._cluster_id = ""
        self._marks: deque[int] = deque()
        self._told: deque[str] = deque()
        """For each record that has a mark the life that it is an event of, by its uid; "" for none."""
        self._feeds: dict[str, Feed] = {}
        self._bytes = 0

    def add(self, entry: Entry, revision: int, data: bytes) -> Feed | None:
        """Take in a durable record and its bytes. Returns the life whose watchers have news."""
        if isinstance(entry.record, CoordinatorStarted):
            self._cluster_id = entry.record.cluster_id
        feed = self._feed_of(entry)
        is_told = feed is not None and is_event(entry.record)
        self.last_revision = revision
        self._marks.append(mark_of(data))
        self._told.append(feed.job_uid if feed is not None and is_told else "")
        if feed is not None and is_told:
            self._grow(feed, entry, revision, data)
        while len(self._marks) > self.bounds.records or self._bytes > self.bounds.bytes:
            self._drop_record()
        return feed

    def let_go(self) -> None:
        """Of all that is kept, as another log takes its place: log and feeds know each other, so neither was freed."""
        for feed in self._feeds.values():
            feed.forget()
        self._feeds.clear()
        self._marks.clear()
        self._told.clear()

    def _feed_of(self, entry: Entry) -> Feed | None:
        if not entry.job_uid:
            return None
        if isinstance(entry.record, LifeForgotten):
            return self._forget(entry.job_uid)
        return self.feed(entry.job_uid)

    def _forget(self, job_uid: str) -> Feed | None:
        feed = self._feeds.pop(job_uid, None)
        if feed is not None:
            self._bytes -= feed.kept_bytes
            feed.forget()
        return feed

    def _grow(self, feed: Feed, entry: Entry, revision: int, data: bytes) -> None:
        self._bytes -= feed.kept_bytes
        feed.add(entry, revision, data)
        while feed.has_too_much():
            feed.drop_first()
        self._bytes += feed.kept_bytes

    def _drop_record(self) -> None:
        revision = self._first_revision
        self._marks.popleft()
        feed = self._feeds.get(self._told.popleft())
        if feed is not None and feed.begins_at(revision):
            self._bytes -= feed.kept_bytes
            feed.drop_first()
            self._bytes += feed.kept_bytes

    @property
    def _first_revision(self) -> int:
        return self.last_revision - len(self._marks) + 1

    def feed(self, job_uid: str) -> Feed:
        """Of a life that is known, whether or not anything of it is kept."""
        if job_uid not in self._feeds:
            self._feeds[job_uid] = Feed(self, job_uid)
        return self._feeds[job_uid]

    def token(self, job_uid: str, revision: int) -> WatchToken:
        return WatchToken(self._cluster_id, job_uid, revision, self._mark(revision) or 0)

    def _mark(self, revision: int) -> int | None:
        """None: that record is not kept."""
        if not self._first_revision <= revision <= self.last_revision:
            return None
        return self._marks[revision - self._first_revision]

    def why_expired(self, token: WatchToken, cluster: Cluster) -> str:
        """Why what follows the token cannot all be told; "" if it can."""
        if token.cluster_id != self._cluster_id:
            return f"the token is of cluster {token.cluster_id}, this is {self._cluster_id}"
        mark = self._mark(token.revision)
        if mark is None:
            return f"what was decided since revision {token.revision} is not all known any more"
        if mark != token.mark:
            return f"this journal has another revision {token.revision}: the token's was lost"
        if token.job_uid not in cluster.lives:
            return f"life {token.job_uid} of the job is not kept any more"
        if self.feed(token.job_uid).has_dropped_after(token.revision):
            return f"the job's events since revision {token.revision} are not all kept any more"
        return ""
