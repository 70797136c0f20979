"""What waits to be written to one stream: a slot for each kind of message, so it is bounded whatever happens."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from rallypoint.errors import Refusal
from rallypoint.model import Directive, Welcome
from rallypoint.values import dataclass
from rallypoint.wire import Ack, CoordinatorMessage, LeaseStale


@dataclass(frozen=True, slots=True)
class Closing:
    """The stream ends: with OK, or with a refusal as its status."""

    refusal: Refusal | None = None


class Outbox:
    """Filled by the driver, emptied by the one task that writes to the stream.

    A message replaces an earlier one of its kind that was not written yet: the newest says all. So does a directive
    that of a Welcome which waits. Once the stream is closing nothing is added any more.

    There are as many as agents. So who waits has a future made for it: an asyncio.Event is 0.8 KB, waited for or not.
    """

    __slots__ = ("_ack", "_closing", "_directive", "_hello_waits", "_is_answered", "_lease_stale", "_waits", "_welcome")

    def __init__(self) -> None:
        self._welcome: Welcome | None = None
        self._directive: Directive | None = None
        self._ack: Ack | None = None
        self._lease_stale: LeaseStale | None = None
        self._closing: Closing | None = None
        self._is_answered = False
        self._waits: asyncio.Future[None] | None = None
        """Of the writer, for something to write."""
        self._hello_waits: asyncio.Future[None] | None = None
        """Of the reader, for the answer to the Hello."""

    @property
    def is_closing(self) -> bool:
        return self._closing is not None

    async def answered(self) -> None:
        """Wait until the Hello is: by a Welcome, or by the stream's end. For one task."""
        if not self._is_answered:
            self._hello_waits = asyncio.get_running_loop().create_future()
            await self._hello_waits

    def welcome(self, welcome: Welcome) -> None:
        if self._closing is None:
            self._welcome = welcome
            self._answer()
            self._wake()

    def directive(self, directive: Directive) -> None:
        if self._closing is not None:
            return
        if self._welcome is not None:
            self._welcome = replace(self._welcome, directive=directive)
        else:
            self._directive = directive
            self._wake()

    def ack(self, seq: int) -> None:
        if self._closing is None:
            self._ack = Ack(seq)
            self._wake()

    def lease_stale(self, message: str) -> None:
        """Say so, then end the stream. A Welcome or directive that waits is dropped: it is not the agent's any more."""
        if self._closing is None:
            self._welcome = self._directive = None
            self._lease_stale = LeaseStale(message)
            self.end()

    def end(self) -> None:
        """Write what waits, then end the stream with OK."""
        if self._closing is None:
            self._closing = Closing()
            self._answer()
            self._wake()

    def refuse(self, refusal: Refusal) -> None:
        """Drop what waits and end the stream with this status, unless it is ending already."""
        if self._closing is None:
            self._welcome = self._directive = self._ack = None
            self._closing = Closing(refusal)
            self._answer()
            self._wake()

    async def next(self) -> CoordinatorMessage | Closing:
        """Wait for what is to be written next. After a Closing there is nothing more. For one task."""
        while True:
            message = self._pop()
            if message is not None:
                return message
            self._waits = asyncio.get_running_loop().create_future()
            await self._waits

    def _wake(self) -> None:
        _resolve(self._waits)

    def _answer(self) -> None:
        self._is_answered = True
        _resolve(self._hello_waits)

    def _pop(self) -> CoordinatorMessage | Closing | None:
        if self._welcome is not None:
            welcome, self._welcome = self._welcome, None
            return welcome
        if self._directive is not None:
            directive, self._directive = self._directive, None
            return directive
        if self._ack is not None:
            ack, self._ack = self._ack, None
            return ack
        if self._lease_stale is not None:
            lease_stale, self._lease_stale = self._lease_stale, None
            return lease_stale
        return self._closing


def _resolve(waits: asyncio.Future[None] | None) -> None:
    if waits is not None and not waits.done():
        waits.set_result(None)
