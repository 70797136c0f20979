"""Where effects go."""

from __future__ import annotations

import pytest

from rallypoint.wire import Ack
from rallypoint_coordinator.core.effects import Explain, SendAck
from rallypoint_coordinator.server.outlets import Outlets


def explain(message: str) -> Explain:
    return Explain(job="train", job_uid="uid", reason="WHY", message=message)


async def test_the_log_comes_behind_what_streams_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    outlets = Outlets()
    stream, outbox = outlets.open_stream()
    outlets.perform_all([explain("first\nline"), SendAck(stream, 2), explain("second")])
    assert await outbox.next() == Ack(2)
    assert not caplog.messages
    outlets.log_all()
    outlets.log_all()
    assert caplog.messages == ["job train (uid): WHY: first line", "job train (uid): WHY: second"]


async def test_a_stream_that_is_gone_swallows_what_it_is_told() -> None:
    outlets = Outlets()
    stream, _ = outlets.open_stream()
    outlets.close_stream(stream)
    outlets.perform(SendAck(stream, 2))
    assert outlets.stream_count == 0
