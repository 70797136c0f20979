"""Where effects go: the open streams, the waiting calls, the log."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import assert_never

from rallypoint.errors import Refusal, RefusedError
from rallypoint_coordinator.core.effects import (
    Answer,
    Effect,
    EndStream,
    Explain,
    RefuseStream,
    SendAck,
    SendDirective,
    SendLeaseStale,
    SendWelcome,
)
from rallypoint_coordinator.server.outbox import Outbox

log = logging.getLogger(__name__)


class Outlets:
    """Streams and calls are numbered from 1 and no number is used twice. What is gone swallows its effects."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._outboxes: dict[int, Outbox] = {}
        self._calls: dict[int, asyncio.Future[bool]] = {}
        self._explained: deque[Explain] = deque()
        self._no_streams = asyncio.Event()
        self._no_streams.set()

    @property
    def stream_count(self) -> int:
        return len(self._outboxes)

    def open_stream(self) -> tuple[int, Outbox]:
        stream, outbox = next(self._numbers), Outbox()
        self._outboxes[stream] = outbox
        self._no_streams.clear()
        return stream, outbox

    def close_stream(self, stream: int) -> None:
        self._outboxes.pop(stream, None)
        if not self._outboxes:
            self._no_streams.set()

    def open_call(self) -> tuple[int, asyncio.Future[bool]]:
        """A call that waits for an answer; a Refusal becomes its RefusedError."""
        call = next(self._numbers)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._calls[call] = answer
        return call, answer

    def close_call(self, call: int) -> None:
        self._calls.pop(call, None)

    def refuse_all(self, refusal: Refusal) -> None:
        """End every stream and answer every call with a refusal."""
        for outbox in self._outboxes.values():
            outbox.refuse(refusal)
        for call in list(self._calls):
            self._answer(call, refusal)

    async def wait_until_no_streams(self) -> None:
        """Wait until every stream that was open has been closed by its writer."""
        await self._no_streams.wait()

    def perform_all(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self.perform(effect)

    def perform(self, effect: Effect) -> None:
        """Do what the core asks for, but for the log, which :meth:`log_all` writes; never waits."""
        if isinstance(effect, Explain):
            self._explained.append(effect)
        elif isinstance(effect, Answer):
            self._answer(effect.call, effect.answer)
        else:
            outbox = self._outboxes.get(effect.stream)
            if outbox is not None:
                _deliver(outbox, effect)

    def log_all(self) -> None:
        """What was decided, for people: who waits to be told by a stream should not have to wait for that as well."""
        while self._explained:
            told = self._explained.popleft()
            log.info("job %s (%s): %s: %s", told.job, told.job_uid, told.reason, one_line(told.message))

    def _answer(self, call: int, answer: bool | Refusal) -> None:
        future = self._calls.pop(call, None)
        if future is None or future.done():
            return
        if isinstance(answer, Refusal):
            future.set_exception(RefusedError(answer))
        else:
            future.set_result(answer)


def _deliver(
    outbox: Outbox, effect: SendWelcome | SendDirective | SendAck | SendLeaseStale | EndStream | RefuseStream
) -> None:
    match effect:
        case SendWelcome():
            outbox.welcome(effect.welcome)
        case SendDirective():
            outbox.directive(effect.directive)
        case SendAck():
            outbox.ack(effect.seq)
        case SendLeaseStale():
            outbox.lease_stale(effect.message)
        case EndStream():
            outbox.end()
        case RefuseStream():
            outbox.refuse(effect.refusal)
        case _:
            assert_never(effect)


def one_line(text: str) -> str:
    """A sentence as one line of a log: parts of it may have been written by a worker."""
    return " ".join(text.split())
