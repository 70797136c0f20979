from __future__ import annotations

import contextlib
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint_agent.file_timer_requests import (
    MAX_LINE_BYTES,
    BadRequestError,
    LineCutter,
    TimerRequest,
    parse_request,
)

ACQUIRE = b'{"version": 1, "pid": 21954, "scope_id": "s", "expiration_time": 1234567890.123456, "signal": 9}'
RELEASE = b'{"version": 1, "pid": 21954, "scope_id": "s", "expiration_time": -1, "signal": 0}'

requests = st.builds(
    TimerRequest,
    pid=st.integers(1, 2**31 - 1),
    scope_id=st.text(max_size=40),
    expiration_time=st.floats(allow_nan=False),
    signal=st.integers(0, 64),
)


def line(**changes: object) -> bytes:
    return json.dumps({**json.loads(ACQUIRE), **changes}).encode()


def line_of(request: TimerRequest) -> bytes:
    return line(**request._asdict())


def read(*chunks: bytes) -> list[TimerRequest]:
    cutter, found = LineCutter(), []
    for chunk in chunks:
        for text in cutter.feed(chunk):
            try:
                found.append(parse_request(text))
            except BadRequestError:
                continue
    return found


def test_what_torch_writes_is_understood() -> None:
    assert parse_request(ACQUIRE) == TimerRequest(21954, "s", 1234567890.123456, 9)
    assert parse_request(RELEASE) == TimerRequest(21954, "s", -1.0, 0)
    assert not parse_request(ACQUIRE).is_release
    assert parse_request(RELEASE).is_release


def test_a_signal_that_is_not_positive_kills_nobody() -> None:
    assert parse_request(line(signal=-9)).signal == 0


def test_other_keys_are_ignored() -> None:
    assert parse_request(line(more={"a": 1}, version="x")) == parse_request(ACQUIRE)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"pid": -1}, "pid"),
        ({"pid": 0}, "pid"),
        ({"pid": 2**31}, "pid"),
        ({"pid": True}, "pid"),
        ({"pid": "1"}, "pid"),
        ({"pid": 1.0}, "pid"),
        ({"signal": 65}, "signal"),
        ({"signal": 9.0}, "signal"),
        ({"signal": None}, "signal"),
        ({"scope_id": 3}, "scope_id"),
        ({"expiration_time": "1"}, "expiration_time"),
        ({"expiration_time": True}, "expiration_time"),
        ({"expiration_time": float("nan")}, "expiration_time"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], name: str) -> None:
    with pytest.raises(BadRequestError, match=name):
        parse_request(line(**changes))


@pytest.mark.parametrize("name", ["pid", "scope_id", "expiration_time", "signal"])
def test_what_lacks_something_is_refused(name: str) -> None:
    data = json.loads(ACQUIRE)
    del data[name]
    with pytest.raises(BadRequestError, match=name):
        parse_request(json.dumps(data).encode())


@pytest.mark.parametrize("text", [b"", b"x", b"\xff\xfe", b"[1]", b"null", b"[" * 4000, b'{"pid":' * 500, b"9" * 4000])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_request(text)


def test_half_a_surrogate_pair_becomes_text_that_can_be_sent() -> None:
    parse_request(rb'{"pid": 1, "scope_id": "\ud800", "expiration_time": 1, "signal": 9}').scope_id.encode()


def test_a_number_beyond_all_bounds_is_for_ever() -> None:
    assert parse_request(ACQUIRE.replace(b"1234567890.123456", b"1" + b"0" * 400)).expiration_time == float("inf")


def test_a_request_behind_a_torn_one_is_not_lost() -> None:
    for length in range(len(ACQUIRE)):
        assert read(ACQUIRE[:length] + RELEASE + b"\n")[-1] == parse_request(RELEASE)


def test_a_request_inside_a_scope_is_none() -> None:
    request = parse_request(line(scope_id=RELEASE.decode()))
    assert request.scope_id == RELEASE.decode()
    assert not read(line(scope_id=RELEASE.decode(), pid=-1) + b"\n")


def test_a_line_without_end_hides_no_later_one_and_takes_no_memory() -> None:
    cutter = LineCutter()
    for _ in range(100):
        assert cutter.feed(b"x" * 10_000) == []
    assert len(cutter._rest) == MAX_LINE_BYTES
    assert parse_request(cutter.feed(ACQUIRE + b"\n")[0]) == parse_request(ACQUIRE)


def test_what_was_left_of_a_line_can_be_dropped() -> None:
    cutter = LineCutter()
    cutter.feed(ACQUIRE)
    cutter.clear()
    assert cutter.feed(b"\n") == []


@given(st.lists(requests), st.lists(st.integers(0, 10_000)))
def test_requests_are_read_whole_however_they_arrive(wanted: list[TimerRequest], cuts: list[int]) -> None:
    stream = b"".join(line_of(request) + b"\n" for request in wanted)
    ends = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    assert read(*(stream[start:end] for start, end in pairwise(ends))) == wanted


@given(st.lists(st.binary(max_size=300) | requests.map(line_of) | st.just(b"\n")))
def test_nothing_that_is_written_is_an_error_of_ours(chunks: list[bytes]) -> None:
    for request in read(*chunks, b"\n"):
        assert request.pid > 0
        assert 0 <= request.signal <= 64
        assert request.expiration_time == request.expiration_time


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists), requests)
def test_any_json_in_any_place_is_understood_or_refused(value: object, request_: TimerRequest) -> None:
    for name in request_._fields:
        text = line(**{**request_._asdict(), name: value})
        with contextlib.suppress(BadRequestError):
            assert isinstance(parse_request(text), TimerRequest)
