"""A page of a life's events: made beside the driver, a few at a time, since a job may have very many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint_coordinator.server.pages import PAGE_BYTES_MAX, fill, next_page_token
from rallypoint_coordinator.server.watch_log import Feed

AT_ONCE = 16
"""So many events are looked at before others run."""

_LET_GO = Refusal(
    reason=Reason.RECOVERING,
    message="the job was forgotten, or the journal read again, while its events were listed; try again",
)


class EventListing:
    """What follows ``after``, up to ``until``, as far as it is asked for. Made by a read, at the revision ``until``."""

    def __init__(
        self,
        name: str,
        feed: Feed,
        after: int,
        until: int,
        size: int,
        is_asked_for: Callable[[pb.JobEvent], bool],
    ) -> None:
        self._name = name
        self._feed = feed
        self._after = after
        self._until = until
        self._size = size
        self._is_asked_for = is_asked_for
        self._resume_token = str(feed.log.token(feed.job_uid, until))

    async def page(self) -> pb.ListJobEventsResponse:
        """Raises RefusedError if what is listed was let go of meanwhile: the rest of it would be missing."""
        page, more = fill(await self._found(), self._size)
        if self._feed.is_forgotten:
            raise RefusedError(_LET_GO)
        return pb.ListJobEventsResponse(
            events=page,
            next_page_token=next_page_token(self._name, str(page[-1].revision)) if more else "",
            resume_token="" if more else self._resume_token,
            truncated=not self._feed.is_whole,
        )

    async def _found(self) -> list[pb.JobEvent]:
        """Enough for a page, and one more if there are more."""
        found: list[pb.JobEvent] = []
        position, found_bytes = self._after, 0
        while events := list(islice(self._feed.events_after(position), AT_ONCE)):
            for event in events:
                if event.revision > self._until or len(found) > self._size or found_bytes > PAGE_BYTES_MAX:
                    return found
                if self._is_asked_for(event):
                    found.append(event)
                    found_bytes += event.ByteSize()
            position = events[-1].revision
            await asyncio.sleep(0)
        return found
