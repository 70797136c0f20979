"""The watchers: who is told when, so that a thousand of them never hold up a decision.

Nothing is queued for a watcher: it has a position in its life's :class:`.watch_log.Feed`, and whenever its turn comes
it is told all that follows. So what waits for all of them is kept once, and a watcher that falls behind costs nothing
until it is cut off. Turns are given to a few watchers at a time, with a pause in which the loop does other things: told
more slowly, they are told more at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import field

from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.values import dataclass
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.records import Entry
from rallypoint_coordinator.core.state import Life
from rallypoint_coordinator.server import views
from rallypoint_coordinator.server.outbox import Closing
from rallypoint_coordinator.server.watch_log import Feed, LogBounds, WatchLog
from rallypoint_coordinator.server.watch_tokens import WatchToken, expired, invalid_token


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """``at_once`` watchers have their turn, then comes a pause: at 50 us for a message, 4 % of the loop's time.

    ``progress_s``: how old the token of a watcher becomes that has nothing to be told.
    """

    watches_max: int = 10_000
    at_once: int = 4
    pause_s: float = 0.005
    progress_s: float = 10.0
    log: LogBounds = field(default_factory=LogBounds)


class Watch:
    """One watcher. Made by a read of the cluster, then entered, then asked for one message after the other."""

    def __init__(self, feed: Feed, revision: int, first: bytes | None = None) -> None:
        self.feed = feed
        self._revision = revision
        self._lags_from = feed.last_revision
        """What it is behind when it begins is not its fault."""
        self._first = first
        self._turn: asyncio.Future[None] | None = None
        self._refusal: Refusal | None = None
        self._watches: Watches | None = None

    def entered(self, watches: Watches) -> None:
        self._watches = watches

    async def next(self) -> bytes | Closing:
        """What is to be told next. After a Closing there is nothing more."""
        assert self._watches is not None, "enter() comes first"
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if not self._has_ended():
            self._turn = asyncio.get_running_loop().create_future()
            self._watches.line_up(self)
            await self._turn
        return self._take()

    @property
    def has_news(self) -> bool:
        return self.feed.has_news(self._revision)

    def wake(self) -> None:
        """It is its turn."""
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self.wake()

    def _has_ended(self) -> bool:
        return self._refusal is not None or self.feed.is_forgotten or self.feed.is_over(self._revision)

    def _take(self) -> bytes | Closing:
        if self._refusal is not None:
            return Closing(self._refusal)
        if self.feed.is_forgotten:
            return Closing(expired(f"life {self.feed.job_uid} of the job is not kept any more"))
        if self.feed.is_over(self._revision):
            return Closing()
        if self._is_too_slow():
            return Closing(self._too_slow())
        data, self._revision = self.feed.message_after(self._revision)
        return data

    def _too_slow(self) -> Refusal:
        token = self.feed.log.token(self.feed.job_uid, self._revision)
        message = f"more was decided than this watch was read: go on with its last resume_token, after {self._revision}"
        return Refusal(reason=Reason.WATCH_TOO_SLOW, message=message, metadata={"resume_token": str(token)})

    def _is_too_slow(self) -> bool:
        if self.feed.has_dropped_after(self._revision):
            return True
        return self.feed.lags(max(self._revision, self._lags_from))


class Watches:
    """All of them, and the log that they are told from."""

    def __init__(self, options: WatchOptions) -> None:
        self._options = options
        self._open: dict[Watch, None] = {}
        self._due: deque[dict[Watch, None]] = deque()
        self._not_before = 0.0
        self._refusal: Refusal | None = None
        self._pump: asyncio.TimerHandle | None = None
        self._progress: asyncio.TimerHandle | None = None
        self.log = WatchLog(options.log)

    # --- for the driver

    def begin_anew(self) -> None:
        """The journal is about to be read again. Who watched has been refused."""
        self.log.let_go()
        self.log = WatchLog(self._options.log)
        self._refusal = None

    def refuse_all(self, refusal: Refusal) -> None:
        """End every watch with this, and those that come until the journal is read again."""
        self._refusal = refusal
        for watch in self._open:
            watch.refuse(refusal)
        self._due.clear()

    def publish(self, entries: Sequence[Entry], records: Sequence[bytes], after_revision: int) -> None:
        """These follow that revision, and are durable: O(1) for each, however many watch."""
        for revision, (entry, record) in enumerate(zip(entries, records, strict=True), after_revision + 1):
            feed = self.log.add(entry, revision, record)
            if feed is not None:
                self._is_due(feed)

    def _is_due(self, feed: Feed) -> None:
        if feed.idle:
            self._due.append(feed.idle)
            feed.idle = {}
            self._schedule()

    # --- for servicers

    @property
    def open_count(self) -> int:
        return len(self._open)

    def begin(self, life: Life, epoch: int, stamp: Stamp) -> Watch:
        """Watch this life from now on, and first of all be told what it is. For a query, at the stamp's revision."""
        feed = self._feed(life)
        token = str(self.log.token(feed.job_uid, stamp.revision))
        snapshot = views.job(life, epoch, stamp)
        response = pb.WatchJobResponse(resume_token=token, revision=stamp.revision, snapshot=snapshot)
        return Watch(feed, stamp.revision, response.SerializeToString())

    def resume(self, job: str, token: WatchToken, cluster: Cluster) -> Watch:
        """Go on after the token. For a query. Raises RefusedError if it has expired, or is of another job."""
        why = self.log.why_expired(token, cluster)
        if why:
            raise RefusedError(expired(why))
        life = cluster.lives[token.job_uid]
        if life.facts.job != job:
            raise RefusedError(invalid_token(f"resume_token is not of job {job}"))
        return Watch(self._feed(life), token.revision)

    def _feed(self, life: Life) -> Feed:
        feed = self.log.feed(life.facts.uid)
        if life.facts.outcome is not None and feed.decided_revision is None:
            feed.decided_revision = 0  # by a record that is not kept any more
        return feed

    def enter(self, watch: Watch) -> None:
        """Whoever enters a watch must leave it. Raises RefusedError if it cannot be served."""
        if self._refusal is not None:
            raise RefusedError(self._refusal)
        if watch.feed.log is not self.log:
            raise RefusedError(Refusal(reason=Reason.RECOVERING, message="the coordinator has recovered; try again"))
        if len(self._open) >= self._options.watches_max:
            raise RefusedError(_too_many(self._options.watches_max))
        watch.entered(self)
        self._open[watch] = None
        self._arm_progress()

    def leave(self, watch: Watch) -> None:
        """It has ended, however it did."""
        self._open.pop(watch, None)
        watch.feed.idle.pop(watch, None)

    def line_up(self, watch: Watch) -> None:
        """Wake it when it can be told something, in its turn."""
        if watch.has_news:
            self._due.append({watch: None})
            self._schedule()
        else:
            watch.feed.idle[watch] = None

    # --- turns

    def _schedule(self) -> None:
        if self._pump is None:
            loop = asyncio.get_running_loop()
            self._pump = loop.call_later(max(self._not_before - loop.time(), 0), self._give_turns)

    def _give_turns(self) -> None:
        self._pump = None
        for _ in range(self._options.at_once):
            watch = self._next_due()
            if watch is None:
                break
            watch.wake()
        self._not_before = asyncio.get_running_loop().time() + self._options.pause_s
        if self._due:
            self._schedule()

    def _next_due(self) -> Watch | None:
        while self._due:
            if not self._due[0]:
                self._due.popleft()
                continue
            watch, _ = self._due[0].popitem()
            if watch in self._open:
                return watch
        return None

    def _arm_progress(self) -> None:
        if self._progress is None and self._open:
            loop = asyncio.get_running_loop()
            self._progress = loop.call_later(self._options.progress_s, self._make_progress)

    def _make_progress(self) -> None:
        """Who has been told all is told that."""
        self._progress = None
        for feed in {watch.feed: None for watch in self._open}:
            self._is_due(feed)
        self._arm_progress()


def _too_many(most: int) -> Refusal:
    message = f"{most} watches are open, which is the limit; try again later"
    return Refusal(reason=Reason.LIMIT_REACHED, message=message, metadata={"limit": str(most)})
