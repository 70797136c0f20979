from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint_agent.keeper import framing

TEXTS = st.text(st.characters())
MESSAGES = st.lists(st.dictionaries(TEXTS, TEXTS | st.integers() | st.none()), max_size=4)


@given(MESSAGES, st.integers(1, 50))
def test_messages_arrive_whole_however_the_stream_is_cut(messages: list[framing.Message], size: int) -> None:
    stream = b"".join(framing.encode(message) for message in messages)
    decoder = framing.Decoder()
    pieces = (stream[start : start + size] for start in range(0, len(stream), size))
    assert [message for piece in pieces for message in decoder.feed(piece)] == messages


def test_bytes_that_are_no_text_pass() -> None:
    undecodable = b"\xff\xfe/name".decode("utf-8", "surrogateescape")
    assert framing.Decoder().feed(framing.encode({"path": undecodable})) == [{"path": undecodable}]


def test_too_large_a_message_is_refused_by_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = framing.encode({"text": "x" * 100})
    monkeypatch.setattr(framing, "MAX_FRAME_BYTES", 100)
    with pytest.raises(framing.FrameError, match="bound"):
        framing.encode({"text": "x" * 100})
    with pytest.raises(framing.FrameError, match="bound"):
        framing.Decoder().feed(frame[:4])


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"", b"[" * 60_000])
def test_a_frame_that_holds_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(framing.FrameError, match="a frame that"):
        framing.Decoder().feed(len(body).to_bytes(4, "big") + body)


def test_a_frame_is_compact_json() -> None:
    frame = framing.encode({"do": "stop", "signal": 15})
    assert json.loads(frame[4:]) == {"do": "stop", "signal": 15}
    assert b" " not in frame[4:]
