from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import Directive, Hold, JobSpec, Version, Welcome
from rallypoint.wire import Ack, CoordinatorMessage, LeaseStale
from rallypoint_coordinator.server.outbox import Closing, Outbox

REFUSAL = Refusal(reason=Reason.SUPERSEDED, message="newer")


def directive(revision: int) -> Directive:
    return Directive(version=Version(1, revision), job_uid="u", reason="R", message="m", action=Hold())


WELCOME = Welcome(
    cluster_id="c",
    job_uid="u",
    lease_id=1,
    lease_ttl_ms=1,
    heartbeat_interval_ms=1,
    job_spec=JobSpec(),
    directive=directive(1),
)


async def written(outbox: Outbox) -> list[CoordinatorMessage | Closing]:
    """What the writer would write now, without waiting."""
    messages = []
    while True:
        try:
            async with asyncio.timeout(0):
                messages.append(await outbox.next())
        except TimeoutError:
            return messages
        if isinstance(messages[-1], Closing):
            return messages


async def test_the_welcome_comes_first() -> None:
    outbox = Outbox()
    outbox.ack(1)
    outbox.welcome(WELCOME)
    assert await written(outbox) == [WELCOME, Ack(1)]


async def test_a_directive_goes_out_in_the_welcome_that_waits() -> None:
    outbox = Outbox()
    outbox.welcome(WELCOME)
    outbox.directive(directive(2))
    outbox.directive(directive(3))
    assert await written(outbox) == [replace(WELCOME, directive=directive(3))]


async def test_a_directive_that_comes_after_the_welcome_was_written_goes_out_by_itself() -> None:
    outbox = Outbox()
    outbox.welcome(WELCOME)
    assert await written(outbox) == [WELCOME]
    outbox.directive(directive(2))
    assert await written(outbox) == [directive(2)]


async def test_the_newest_replaces_what_was_not_written() -> None:
    outbox = Outbox()
    for number in (1, 2, 3):
        outbox.directive(directive(number))
        outbox.ack(number)
    assert await written(outbox) == [directive(3), Ack(3)]
    outbox.directive(directive(4))
    assert await written(outbox) == [directive(4)]


async def test_the_writer_waits_for_what_comes() -> None:
    outbox = Outbox()
    writing = asyncio.create_task(outbox.next())
    await asyncio.sleep(0)
    assert not writing.done()
    outbox.ack(7)
    assert await writing == Ack(7)


async def test_an_end_lets_what_waits_out_first() -> None:
    outbox = Outbox()
    outbox.ack(1)
    outbox.end()
    assert await written(outbox) == [Ack(1), Closing()]


async def test_a_refusal_drops_what_waits() -> None:
    outbox = Outbox()
    outbox.welcome(WELCOME)
    outbox.directive(directive(1))
    outbox.ack(1)
    outbox.refuse(REFUSAL)
    assert await written(outbox) == [Closing(REFUSAL)]


@pytest.mark.parametrize("welcomed", [False, True])
async def test_a_stale_lease_ends_the_stream_without_a_directive(welcomed: bool) -> None:
    outbox = Outbox()
    outbox.welcome(WELCOME)
    if welcomed:
        assert await written(outbox) == [WELCOME]
        outbox.directive(directive(2))
    outbox.lease_stale("over")
    assert await written(outbox) == [LeaseStale("over"), Closing()]


@pytest.mark.parametrize("close", [Outbox.end, lambda outbox: outbox.refuse(REFUSAL)])
async def test_nothing_follows_the_closing(close: object) -> None:
    outbox = Outbox()
    close(outbox)  # type: ignore[operator]
    closing = await outbox.next()
    outbox.welcome(WELCOME)
    outbox.directive(directive(1))
    outbox.ack(1)
    outbox.lease_stale("over")
    outbox.refuse(REFUSAL)
    outbox.end()
    assert await outbox.next() == closing
