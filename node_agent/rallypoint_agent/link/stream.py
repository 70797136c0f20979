"""One Attach stream, from its Hello to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import grpc.aio

from rallypoint.errors import Reason, Refusal
from rallypoint.model import NO_VERSION, ClockReading, Directive, Hello, Welcome
from rallypoint.rpc_status import refusal_from_rpc_error
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.values import dataclass
from rallypoint.wire import (
    Ack,
    AgentMessage,
    Goodbye,
    Heartbeat,
    LeaseStale,
    attach_request_to_proto,
    attach_response_from_proto,
)
from rallypoint_agent.core.events import (
    Attached,
    DirectiveReceived,
    LeaseRenewed,
    LeaseStaleReceived,
)
from rallypoint_agent.link import delays
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.link.mailbox import Mailbox
from rallypoint_agent.link.sent import SentLog
from rallypoint_agent.link.wishes import Identity, News, Wishes

Call: TypeAlias = grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse]

_SHORTEST_INTERVAL_S = 0.01

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Broken:
    """It broke, or never came to be."""

    message: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The coordinator ended it with a reason.

    ``hello_sent_ms``: when the Hello that this answers was sent; None if that had been welcomed.
    """

    refusal: Refusal
    hello_sent_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Stale:
    """The coordinator said that the lease is no longer ours."""


@dataclass(frozen=True, slots=True)
class Left:
    """The coordinator acknowledged our Goodbye."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """We ended it, because the main thread wished so."""


End = Broken | Refused | Stale | Left | Dropped


class Stream:
    """A reader and a writer. What is written is chosen only when it can be written: nothing queues.

    ``make_hello`` is called when the connection stands. ``run`` returns how it ended; it raises what is a fault of our
    own, in an ExceptionGroup.
    """

    def __init__(
        self,
        call: Call,
        make_hello: Callable[[], Hello],
        wishes: Wishes,
        mailbox: Mailbox,
    ) -> None:
        self._call = call
        self._make_hello = make_hello
        self._wishes = wishes
        self._mailbox = mailbox
        self._sent = SentLog()
        self._acked = (0, 0)
        """The newest acknowledgement, and when it came."""
        self._wakeup = asyncio.Event()
        self._welcomed = asyncio.Event()
        self._own_end: End | None = None
        """How we ended it, if we did."""
        self._said = News()
        self._goodbye_seq: int | None = None
        self._next_beat_s = 0.0
        self._patience_s = 0.0
        self._deadline: asyncio.Timeout | None = None
        """Of the Welcome."""
        self.welcome: Welcome | None = None
        self.highest_version = NO_VERSION

    @property
    def has_said_hello(self) -> bool:
        """Whether the connection stood, and it was said."""
        return self._sent.last_seq > 0

    async def run(self, welcome_timeout_s: float) -> End:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write_all())

            def stop_writing(_: object) -> None:
                writer.cancel()

            # In grpc.aio a write that fails puts INTERNAL in the place of the status that has ended the call.
            self._call.add_done_callback(stop_writing)
            self._patience_s = welcome_timeout_s
            end = await self._read_all()
            self._call.cancel()
            # A write that is cancelled makes all later ones on the call fail: there will be none.
            writer.cancel()
        return self._own_end or end

    def wish_changed(self) -> None:
        """The main thread wishes something. To be called in the event loop."""
        if self._wishes.wants_reattach or self._wishes.closing:
            self._end(Dropped())
        self._wakeup.set()

    def _end(self, end: End) -> None:
        self._own_end = end
        self._call.cancel()

    async def _read_all(self) -> End:
        try:
            async with asyncio.timeout(self._patience_s) as self._deadline:
                while True:
                    response = await self._call.read()
                    # Not isinstance: EOF has no type of its own at run time.
                    if response is grpc.aio.EOF:
                        return Broken("the coordinator ended the stream")
                    assert isinstance(response, pb.AttachResponse)
                    end = self._take(response)
                    if end is not None:
                        return end
                    if self.welcome is not None:
                        self._deadline.reschedule(None)
        except TimeoutError:
            return Broken(f"no Welcome within {self._patience_s:g} s")
        except grpc.aio.AioRpcError as error:
            return self._end_of(error)
        except asyncio.CancelledError:
            # Reading from a call that was cancelled looks like being cancelled oneself.
            if _is_cancelled():
                raise
            return Broken("the call was cancelled")

    def _take(self, response: pb.AttachResponse) -> End | None:
        """What the coordinator says."""
        message = attach_response_from_proto(response)
        if self.welcome is None and isinstance(message, Directive | Ack):
            return Broken("the coordinator's first message is no Welcome")
        match message:
            case Welcome():
                return self._take_welcome(message)
            case Directive():
                self._take_directive(message)
            case Ack():
                return self._take_ack(message)
            case LeaseStale():
                self._mailbox.put(LeaseStaleReceived(message.message))
                return Stale()
            case None:
                logger.debug("the coordinator says something that this release does not know")
        return None

    def _take_welcome(self, welcome: Welcome) -> End | None:
        hello_sent_ms = self._sent.acknowledge(1)
        if hello_sent_ms is None:
            return Broken("the coordinator sent a Welcome that answers no Hello")
        self._acked = (1, boot_ms())
        self._wishes.identity = Identity(welcome.cluster_id, welcome.job_uid, welcome.lease_id)
        self.welcome = welcome
        self._next_beat_s = _now_s() + delays.to_first_beat_s(self._interval_s(welcome))
        self._welcomed.set()
        self._mailbox.put(Attached(welcome, hello_sent_ms))
        self._take_directive(welcome.directive)
        return None

    def _take_directive(self, directive: Directive) -> None:
        self.highest_version = max(self.highest_version, directive.version)
        self._mailbox.put(DirectiveReceived(directive))

    def _take_ack(self, ack: Ack) -> End | None:
        if ack.seq > self._sent.last_seq:
            return Broken(f"the coordinator acknowledges message {ack.seq}, but {self._sent.last_seq} was the last one")
        self._acked = (ack.seq, boot_ms())
        sent_ms = self._sent.acknowledge(ack.seq)
        if sent_ms is not None:
            self._mailbox.put(LeaseRenewed(sent_ms))
        if self._goodbye_seq is not None and ack.seq >= self._goodbye_seq:
            return Left()
        return None

    async def _write_all(self) -> None:
        # When a call is over, the reader is told why. A write only notices that it is.
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            # The lease counts from when the Hello is sent, so not before it can be.
            await self._call.wait_for_connection()
            while not self._may_speak():
                await self._sleep()
            hello = self._first_request()
            if hello is None:
                return
            await self._call.write(hello)
            if not hello.hello.lease_id:
                self._be_patient()
            await self._welcomed.wait()
            assert self.welcome is not None
            while True:
                message = await self._next_message(self.welcome)
                await self._call.write(self._request(message, self.welcome.lease_id))

    def _be_patient(self) -> None:
        """Who has no lease to lose may as well wait, now that the Hello is out: to say it again makes more work."""
        if self.welcome is None and self._deadline is not None and not self._deadline.expired():
            self._patience_s = delays.with_hello_said_s(self._patience_s)
            self._deadline.reschedule(_now_s() + self._patience_s)

    def _first_request(self) -> pb.AttachRequest | None:
        """The Hello. None if it cannot be encoded: it never can, so that is the end."""
        # Counted before it is made: what comes in between may be in it, and is not taken for said if it is not.
        urgent = self._wishes.news.urgent
        hello = self._make_hello()
        self._said = News(hello.observed, urgent)
        try:
            return self._request(hello, lease_id=0)
        except (TypeError, ValueError) as error:
            self._end(Refused(_unspeakable(error)))
            return None

    def _request(self, message: AgentMessage, lease_id: int) -> pb.AttachRequest:
        # The instant before the write: a write may wait for the other side, and earlier is safe.
        now_ms = boot_ms()
        seq = self._sent.number(now_ms)
        if isinstance(message, Goodbye):
            self._goodbye_seq = seq
        return attach_request_to_proto(message, lease_id=lease_id, seq=seq, clock=ClockReading(now_ms, *self._acked))

    async def _next_message(self, welcome: Welcome) -> AgentMessage:
        """Sleep until something is to be said."""
        while True:
            message = self._due(welcome)
            if message is not None:
                return message
            await self._sleep()

    def _due(self, welcome: Welcome) -> AgentMessage | None:
        """What is to be said now: news that cannot wait, then the Goodbye, else a sign of life."""
        if self._goodbye_seq is not None or not self._may_speak():
            return None
        leave, said, news = self._wishes.leave, self._said, self._wishes.news
        if news.urgent != said.urgent:
            self._said = news
            if news.observed != said.observed:
                return news.observed
        if leave is not None:
            return Goodbye(leave.reason, leave.message)
        if self._next_beat_s <= _now_s():
            self._next_beat_s = _now_s() + self._interval_s(welcome)
            return self._sign_of_life(news)
        return None

    def _sign_of_life(self, news: News) -> AgentMessage:
        """A heartbeat says that all is as it was; if it is not, here is what could wait."""
        if news.observed == self._said.observed:
            return Heartbeat(news.observed.version, self._wishes.watchdog)
        self._said = news
        return replace(news.observed, watchdog=self._wishes.watchdog or news.observed.watchdog)

    def _may_speak(self) -> bool:
        """Not while the main thread hangs: whatever is sent renews its lease. But a Goodbye ends it."""
        return self._wishes.is_alive(boot_ms()) or self._wishes.leave is not None

    async def _sleep(self) -> None:
        """Until a wish changes or the next heartbeat is due. One that is overdue waits for a wish."""
        self._wakeup.clear()
        left_s = self._next_beat_s - _now_s()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s if left_s > 0 else None):
                await self._wakeup.wait()

    def _end_of(self, error: grpc.aio.AioRpcError) -> End:
        refusal = refusal_from_rpc_error(error)
        if refusal is not None:
            return Refused(refusal, self._sent.acknowledge(1) if self.welcome is None else None)
        return Broken(f"{error.code().name}: {error.details()}")

    @staticmethod
    def _interval_s(welcome: Welcome) -> float:
        return max(welcome.heartbeat_interval_ms / 1000, _SHORTEST_INTERVAL_S)


def _unspeakable(error: Exception) -> Refusal:
    """What stands in for the coordinator's answer to a Hello that does not fit into its message. It is final."""
    return Refusal(reason=Reason.INVALID_FIELD, message=f"what this agent is to say of itself cannot be said: {error}")


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
