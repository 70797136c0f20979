from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint_agent.torch_store.commands import (
    Add,
    Append,
    Barrier,
    CancelWait,
    Check,
    Command,
    CompareSet,
    CountKeys,
    Delete,
    Get,
    ListKeys,
    MultiGet,
    MultiSet,
    Ping,
    QueueLength,
    QueuePop,
    QueuePush,
    Set,
    Wait,
)
from rallypoint_agent.torch_store.parser import COMMAND_BYTES, KEY_BYTES, KEYS_MAX, VALUE_BYTES, NotTheProtocol, Parser
from support.torch_store_words import VALIDATE, said

texts = st.binary(max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
many = st.lists(texts, max_size=4).map(tuple)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Set, texts, texts),
    st.builds(CompareSet, texts, texts, texts),
    st.builds(Get, texts),
    st.builds(Add, texts, numbers),
    st.builds(Check, many),
    st.builds(Wait, many),
    st.builds(CountKeys),
    st.builds(Delete, texts),
    st.builds(Append, texts, texts),
    st.builds(MultiGet, many),
    st.builds(MultiSet, st.lists(st.tuples(texts, texts), max_size=4).map(tuple)),
    st.builds(CancelWait),
    st.builds(Ping, st.binary(min_size=4, max_size=4)),
    st.builds(QueuePush, texts, texts),
    st.builds(QueuePop, texts),
    st.builds(QueueLength, texts),
    st.builds(ListKeys),
    st.builds(Barrier, texts, numbers),
)


def parsed(data: bytes, piece: int = 2**30) -> list[Command]:
    parser = Parser()
    found = []
    for start in range(0, len(data), piece):
        parser.feed(data[start : start + piece])
        found += list(parser.commands())
    return found


@given(st.lists(commands, max_size=8), st.integers(1, 40))
def test_commands_are_read_however_they_are_cut(sent: list[Command], piece: int) -> None:
    assert parsed(VALIDATE + b"".join(map(said, sent)), piece) == sent


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_refused_or_waited_out(data: bytes, greets: bool) -> None:
    parser = Parser()
    parser.feed(VALIDATE * greets + data)
    with contextlib.suppress(NotTheProtocol):
        for command in parser.commands():
            assert said(command) in data


def test_what_is_not_taken_stays() -> None:
    parser = Parser()
    parser.feed(VALIDATE + said(Get(b"a")) + said(Get(b"b")))
    assert next(parser.commands()) == Get(b"a")
    assert list(parser.commands()) == [Get(b"b")]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "does not begin"),
        (b"\x00\x00\x00\x00\x00", "does not begin"),
        (VALIDATE + VALIDATE, "no operation 0"),
        (VALIDATE + b"\x13", "no operation 19"),
        (VALIDATE + b"\x03" + struct.pack("<Q", KEY_BYTES + 1), "a key of 8,193 bytes"),
        (VALIDATE + b"\x03" + b"\xff" * 8, "a key of 18,446,744,073,709,551,615 bytes"),
        (VALIDATE + said(Set(b"k", b""))[:-8] + struct.pack("<Q", VALUE_BYTES + 1), "a value of 8,388,609 bytes"),
        (VALIDATE + b"\x06" + struct.pack("<Q", KEYS_MAX + 1), "131,073 keys"),
    ],
)
def test_what_no_client_of_a_store_says(data: bytes, why: str) -> None:
    with pytest.raises(NotTheProtocol, match=why):
        parsed(data)


def test_the_largest_of_everything() -> None:
    key, value = b"k" * KEY_BYTES, b"v" * VALUE_BYTES
    assert parsed(VALIDATE + said(Set(key, value)), 64 * 1024) == [Set(key, value)]
    keys = (b"",) * KEYS_MAX
    assert parsed(VALIDATE + said(Wait(keys))) == [Wait(keys)]


def test_one_command_is_bounded_as_a_whole_and_the_next_begins_anew() -> None:
    most = COMMAND_BYTES // VALUE_BYTES
    largest = MultiSet(((b"", b"v" * VALUE_BYTES),) * most)
    assert len(parsed(VALIDATE + said(largest) * 2)) == 2
    with pytest.raises(NotTheProtocol, match="in all"):
        parsed(VALIDATE + said(MultiSet((*largest.items, (b"", b"v")))))
