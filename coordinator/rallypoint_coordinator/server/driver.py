"""The single writer: it alone steps the core, and lets nothing out before the journal has it.

    events -> step, step, step -> records -> one append -> effects, reads

One turn takes what waits, steps it, appends all records, then lets the effects out in order and answers the reads.
What comes while nothing waits and nothing is on its way to the disk is stepped at once: most heartbeats lead to no
record, and so need no turn at all.

If an append does not come back as committed, what the core believes is no longer known to be true: the driver stops
acting, ends every stream, reads the journal into a fresh cluster and starts over, as often as it takes: so a disk that
was full needs no more than to be emptied. Agents attach again with what they observe, and keep their workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import field, replace
from typing import Any, TypeVar

from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.values import dataclass
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.core.effects import Output
from rallypoint_coordinator.core.events import Event, Stamp, StreamClosed
from rallypoint_coordinator.server.alarm import Alarm
from rallypoint_coordinator.server.clock import Clock, SystemClock
from rallypoint_coordinator.server.commits import EFFECTS_AT_ONCE, Commits, StateLost
from rallypoint_coordinator.server.idleness import Idleness
from rallypoint_coordinator.server.inbox import Inbox
from rallypoint_coordinator.server.outbox import Outbox
from rallypoint_coordinator.server.outlets import Outlets
from rallypoint_coordinator.server.replay import replay
from rallypoint_coordinator.server.snapshots import Snapshots
from rallypoint_coordinator.server.stepper import Arrival, Stepper
from rallypoint_coordinator.server.storm import Storm
from rallypoint_coordinator.server.watches import Watches, WatchOptions
from rallypoint_coordinator.store.journal import Journal

log = logging.getLogger(__name__)

T = TypeVar("T")
Query = Callable[[Cluster, Stamp], T]
"""A read of the cluster: quick, and it must not keep or change what it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverOptions:
    """Bounds on what waits and on what one turn takes; delays in seconds.

    A snapshot is taken after every ``snapshot_records``, and the last ``keep_records`` before it are kept for readers.
    ``idle_after_s``: :meth:`Driver.wait_idle` returns when nobody has been here for so long; None: never.
    """

    streams_max: int = 200_000
    events_max: int = 16_384
    reads_max: int = 256
    turn_events_max: int = 512
    turn_reads_max: int = 8
    retry_delay_s: float = 0.1
    retry_delay_max_s: float = 5.0
    snapshot_records: int = 10_000
    keep_records: int = 1_000
    retention: Retention = field(default_factory=Retention)
    idle_after_s: float | None = None
    watches: WatchOptions = field(default_factory=WatchOptions)


@dataclass(frozen=True, slots=True)
class _Read:
    query: Query[Any]
    answer: asyncio.Future[Any]


STARTING = Refusal(
    reason=Reason.RECOVERING,
    message="the coordinator is reading its journal; try again in a moment",
)


NOBODY_CAME = Refusal(
    reason=Reason.SHUTTING_DOWN,
    message="the coordinator ends, since nobody has been here for some time; try again once there is another one",
)


def _refuse(reads: list[_Read], refusal: Refusal) -> None:
    for read in reads:
        if not read.answer.done():
            read.answer.set_exception(RefusedError(refusal))


READ_RETRY_MS = 100
"""So long a reader is asked to wait when too many do: a turn takes a few milliseconds."""


def _limit_reached(limit: int, what: str, retry_after_ms: int | None = None) -> RefusedError:
    message = f"{limit} {what}, which is the limit; try again later"
    metadata = {"limit": str(limit)}
    return RefusedError(
        Refusal(reason=Reason.LIMIT_REACHED, message=message, metadata=metadata, retry_after_ms=retry_after_ms)
    )


async def _ignore(serving: bool) -> None:
    """Nobody wants to know."""


def fresh_id() -> str:
    """A random id of 32 hexadecimal digits."""
    return os.urandom(16).hex()


class Driver:
    """Owns the cluster. Servicers bring events and reads; everything else is a matter of :meth:`run`."""

    def __init__(
        self,
        journal: Journal,
        *,
        clock: Clock | None = None,
        options: DriverOptions | None = None,
        new_cluster: Callable[[], Cluster] = Cluster,
        new_id: Callable[[], str] = fresh_id,
        on_serving: Callable[[bool], Awaitable[None]] = _ignore,
    ) -> None:
        self._journal = journal
        self._clock = clock or SystemClock()
        self._options = options or DriverOptions()
        self._new_id = new_id
        self._on_serving = on_serving
        self._snapshots = Snapshots(journal, self._options.snapshot_records, self._options.keep_records)
        self._outlets = Outlets()
        self._watches = Watches(self._options.watches)
        self._commits = Commits(journal, self._outlets, self._watches, self._clock)
        self._inbox: Inbox[Arrival, _Read] = Inbox(self._options.events_max, self._options.reads_max)
        self._stepper = Stepper(self._clock, new_cluster)
        self._stepped: list[Output] = []
        """At once, of events whose records are for the next turn to commit."""
        self._storm = Storm()
        self._alarm = Alarm(self._clock, self._inbox.wake)
        self._is_settled = False
        """All that was decided is durable, and its effects are out."""
        self._idleness = Idleness(self._options.idle_after_s, self._is_busy, self._close_idle)
        self._serving = asyncio.Event()
        self._meanwhile = STARTING
        self._closed: Refusal | None = None
        self._stop = asyncio.Event()
        self._doubt = ""

    # --- For servicers

    @property
    def refusal(self) -> Refusal | None:
        """Why nothing can be asked at the moment; None while the driver serves."""
        return self._closed or (None if self._serving.is_set() else self._meanwhile)

    @property
    def watches(self) -> Watches:
        """Who is told of what is durable. They are told by the driver that records are."""
        return self._watches

    @property
    def options(self) -> DriverOptions:
        return self._options

    @property
    def stream_count(self) -> int:
        return self._outlets.stream_count

    def open_stream(self) -> tuple[int, Outbox]:
        """Number a stream. Whoever opens it must close it. Raises RefusedError if it cannot be served now."""
        self._check_serving()
        if self._outlets.stream_count >= self._options.streams_max:
            raise _limit_reached(self._options.streams_max, "streams are open")
        return self._outlets.open_stream()

    def close_stream(self, stream: int) -> None:
        """The stream has ended, however it did. Never waits."""
        self._outlets.close_stream(stream)
        self._inbox.put_urgent(self._stepper.arrival(StreamClosed(stream=stream)))

    async def submit(self, event: Event) -> None:
        """Bring an event: stepped at once if nothing waits, else in its turn. Waits while too many do."""
        arrival = self._stepper.arrival(event)
        if self._is_settled and self._inbox.is_empty and not self._doubt:
            self._step_at_once(arrival)
        else:
            await self._inbox.put(arrival)

    async def ask(self, event_for: Callable[[int], Event]) -> bool:
        """Bring the event of a waiting call, made from the call's number, and wait for its answer.

        Raises RefusedError if that is what the answer is, or if the driver does not serve.
        """
        return await self._ask(event_for)

    async def ask_and_read(self, event_for: Callable[[int], Event], query: Query[T]) -> tuple[bool, T]:
        """The same, and what the query tells of the facts as this event left them, which others may change at once."""
        seen: list[T] = []
        failed: list[Exception] = []

        def look(cluster: Cluster, stamp: Stamp) -> None:
            try:
                seen.append(query(cluster, stamp))
            except Exception as error:  # for who asks, as of every read, and not for the driver
                failed.append(error)

        answer = await self._ask(event_for, look)
        if failed:
            raise failed[0]
        return answer, seen[0]

    async def _ask(
        self, event_for: Callable[[int], Event], look: Callable[[Cluster, Stamp], None] | None = None
    ) -> bool:
        self._check_serving()
        call, answer = self._outlets.open_call()
        try:
            await self._inbox.put(self._stepper.arrival(event_for(call), look))
            return await answer
        finally:
            self._outlets.close_call(call)

    async def read(self, query: Query[T]) -> T:
        """Run a query on durable facts alone. Raises what it raises, or RefusedError if it cannot be run."""
        self._check_serving()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._inbox.put_read(_Read(query, answer)):
            raise _limit_reached(self._options.reads_max, "reads wait", READ_RETRY_MS)
        return await answer

    def _check_serving(self) -> None:
        refusal = self.refusal
        if refusal is not None:
            raise RefusedError(refusal)

    # --- Life

    async def run(self) -> None:
        """Serve until :meth:`stop`. Raises JournalError if the journal is of no use: a person has to look at it."""
        try:
            await self._serve()
        finally:
            self._outlets.log_all()
            self._is_settled = False  # and nobody is to settle it any more
            self._alarm.cancel()
            await self._snapshots.settle()

    async def _serve(self) -> None:
        first_s, most_s = self._options.retry_delay_s, self._options.retry_delay_max_s
        delay_s = first_s
        while not self._stop.is_set():
            began_ms = self._clock.monotonic_ms()
            try:
                await self._recover()
                while not self._stop.is_set():
                    await self._turn()
            except StateLost as lost:
                lasted_s = (self._clock.monotonic_ms() - began_ms) / 1000
                delay_s = first_s if lasted_s > most_s else min(2 * delay_s, most_s)
                await self._suspend(lost, delay_s)
                await self._sleep(delay_s)

    async def wait_serving(self) -> None:
        """Wait until the journal has been read and this epoch has begun."""
        await self._serving.wait()

    async def wait_idle(self) -> None:
        """Wait until no agent has been attached, held a lease, or asked anything for ``idle_after_s``."""
        await self._idleness.wait()

    def _is_busy(self) -> bool:
        return self._outlets.stream_count > 0 or not self._inbox.is_empty or self._stepper.cluster.has_members

    def _close_idle(self) -> None:
        """Who asks from now on must not take the answer for a promise that we stay."""
        self._closed = NOBODY_CAME

    async def refuse_everything(self, refusal: Refusal) -> None:
        """Serve nobody from now on: end all streams and calls with this, and return when the streams have ended."""
        self._closed = refusal
        self._refuse_waiting(refusal)
        await self._outlets.wait_until_no_streams()

    def doubt(self, why: str) -> None:
        """What is appended may not be found again: serve nobody until the journal was read and written to anew."""
        self._doubt = why
        self._inbox.wake()

    def stop(self) -> None:
        """Have :meth:`run` return after the turn that it is in."""
        self._stop.set()
        self._inbox.wake()

    async def _sleep(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), delay_s)

    async def _recover(self) -> None:
        """Read the whole journal into a fresh cluster and begin an epoch."""
        await self._snapshots.settle()
        cluster = self._stepper.begin_anew()
        self._stepped.clear()
        self._watches.begin_anew()
        told, keep_records = self._watches.log.add, self._options.keep_records
        try:
            snapshot_revision, revision = await replay(self._journal, cluster, told, keep_records)
        except OSError as error:
            raise StateLost(f"the journal could not be read: {error}") from error
        self._snapshots.restored(snapshot_revision)
        self._commits.begin_at(revision)
        self._doubt = ""
        await self._commits.commit(cluster, [self._stepper.start(revision, self._new_id())])
        log.info("cluster %s, epoch %d, revision %d", cluster.cluster_id, cluster.epoch, self._stepper.revision)
        self._outlets.log_all()
        self._settle()
        self._meanwhile = STARTING
        self._serving.set()
        await self._on_serving(True)

    async def _suspend(self, lost: StateLost, delay_s: float) -> None:
        """Stop acting for so long: whatever the cluster in memory says may be wrong."""
        self._outlets.log_all()
        log.error("%s; serving nobody until the journal has been read again and written to", lost)
        message = f"the coordinator is recovering: {lost}; try again in a moment"
        retry_after_ms = round(delay_s * 1000)
        self._meanwhile = replace(STARTING, reason=lost.reason, message=message, retry_after_ms=retry_after_ms)
        self._serving.clear()
        self._alarm.cancel()
        await self._on_serving(False)
        self._refuse_waiting(self._closed or self._meanwhile)

    def _refuse_waiting(self, refusal: Refusal) -> None:
        self._outlets.refuse_all(refusal)
        self._watches.refuse_all(refusal)
        _refuse(self._inbox.clear(), refusal)

    # --- A turn

    async def _turn(self) -> None:
        options, stepper = self._options, self._stepper
        events, reads = await self._inbox.take(options.turn_events_max, options.turn_reads_max)
        self._is_settled = False
        try:
            if self._doubt:
                raise StateLost(self._doubt)
            outputs, self._stepped = self._stepped, []
            outputs.extend(stepper.step(arrival) for arrival in events)
            if stepper.is_due():
                outputs.append(stepper.advance())
            snapshot_is_due = self._snapshots.is_due(stepper.revision)
            if snapshot_is_due:
                outputs.append(stepper.retain(options.retention))
            await self._commits.commit(stepper.cluster, outputs)
        except StateLost:
            _refuse(reads, STARTING)
            raise
        self._answer(reads)
        if snapshot_is_due:
            self._snapshots.begin(self._commits.revision, stepper.cluster.snapshot())
        self._settle()
        # The journal may never make us wait, and others want to run.
        await asyncio.sleep(self._storm.pause_s(sum(bool(output.records) for output in outputs)))
        self._outlets.log_all()

    def _settle(self) -> None:
        """All that was decided is out: the next event may be stepped as soon as it comes."""
        self._is_settled = True
        self._idleness.stir()
        self._alarm.set(self._stepper.deadline_ms)

    def _step_at_once(self, arrival: Arrival) -> None:
        """Step it, and let out what it leads to if that is on no record: then all that it rests on is durable."""
        try:
            output = self._stepper.step(arrival)
        except StateLost as lost:
            self.doubt(str(lost))
            return
        if output.records or len(output.effects) > EFFECTS_AT_ONCE:
            self._is_settled = False
            self._stepped.append(output)
            self._inbox.wake()
            return
        self._outlets.perform_all(output.effects)
        self._outlets.log_all()
        self._alarm.set(self._stepper.deadline_ms)

    def _answer(self, reads: list[_Read]) -> None:
        for read in reads:
            if read.answer.done():
                continue
            try:
                read.answer.set_result(read.query(self._stepper.cluster, self._stepper.stamp()))
            except Exception as error:
                read.answer.set_exception(error)
