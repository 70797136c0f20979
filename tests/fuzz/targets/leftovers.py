"""What an agent reads of what earlier processes left or its keeper says: records on disk, obituaries, frames.

The first byte of an input says which. A record or an obituary is one or none, and an incarnation that could be
anybody's is none; frames are messages or a FrameError, the same in whatever pieces they come.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from fuzz.mutate import WORDS, mutated
from fuzz.target import Target, demand
from rallypoint_agent.keeper.framing import Decoder, FrameError, encode
from rallypoint_agent.obituary import Obituary
from rallypoint_agent.predecessor import parse_record, record_of

if TYPE_CHECKING:
    from rallypoint_agent.keeper.framing import Message

_OBITUARY = Obituary((("head", 29400),), "train", "uid", 7, "0" * 32, "gone", 5_000)


def _record(data: bytes) -> None:
    record = parse_record(data.partition(b"\n")[0].decode("utf-8", "replace"))
    if record is None:
        return
    demand(re.fullmatch("[0-9a-f]{32}", record.incarnation) is not None, f"the mark is {record.incarnation!r}")
    if record.obituary is not None and record.obituary.lease_id:
        json.dumps(record.obituary._replace(message="gone", ttl_ms=1))


def _frames(data: bytes) -> None:
    demand(_decoded(data, len(data) or 1) == _decoded(data, 3), "it is not the same when the bytes come in pieces")


def _decoded(data: bytes, piece: int) -> list[Message]:
    decoder = Decoder()
    found: list[Message] = []
    with contextlib.suppress(FrameError):
        for at in range(0, len(data), piece):
            found += decoder.feed(data[at : at + piece])
        return found
    return []


_KINDS: tuple[tuple[Callable[[bytes], None], tuple[bytes, ...]], ...] = (
    (_record, (record_of("0" * 32).encode(), record_of("0123456789abcdef" * 2, _OBITUARY).encode())),
    (_frames, (encode({"event": "gone", "round": 1, "fenced": False}) * 2, encode({"pids": {"0": 7}}), b"\0\0\0\2{}")),
)


def check(data: bytes) -> None:
    if data:
        look, _ = _KINDS[data[0] % len(_KINDS)]
        look(data[1:])


def generate(rng: Random) -> bytes:
    number = rng.randrange(len(_KINDS))
    return bytes([number]) + mutated(
        rng, _KINDS[number][1], (*WORDS, b"\0\0\0\x09", b"\x03\xff\xff\xff", b"null", b"[]")
    )


TARGET = Target(check=check, generate=generate)
