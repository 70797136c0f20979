"""Bytes that are nearly right: a seed, changed a few times over. All of it follows from the generator that is given."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

INPUT_BYTES_MAX = 1 << 16

_NUMBERS = (
    *(b"0", b"-1", b"1", b"255", b"256", b"65535", b"65536", b"2147483647", b"2147483648", b"-2147483649"),
    *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"1e309", b"-0", b"0.1", b"NaN"),
    *(b"9" * 40, b"9" * 400, b"9" * 5000),
)
_BYTES = (0x00, 0x01, 0x09, 0x0A, 0x20, 0x22, 0x2F, 0x3A, 0x5B, 0x7B, 0x7F, 0x80, 0xC0, 0xED, 0xF8, 0xFE, 0xFF)
_TEXTS = (
    *("", "\0", "\n", "\r\n", "\x1b[2J", "\u202e", "\ufeff", "\u0660", "\u00b2", "\U0001f600", "a" * 300, "../", "%n"),
    *(
        "'",
        '"',
        "{",
        "}" * 9,
        "[" * 2000,
        '{"a":' * 2000,
        "\\ud800",
        "=",
        "," * 9,
        "--",
        "jobs/",
        "/",
        "\x85",
        "\u2028",
    ),
)
WORDS = (*(text.encode() for text in _TEXTS), b"\xed\xa0\x80", b"\xff", b"\xff" * 9, b"\x80" * 10)
"""What has been trouble elsewhere."""

Mutation = Callable[[Random, bytearray, Sequence[bytes], Sequence[bytes]], None]


def mutated(rng: Random, seeds: Sequence[bytes], words: Sequence[bytes] = WORDS) -> bytes:
    """One of the seeds after one to sixteen changes. ``words``: what is put in beside random bytes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(1 << rng.randrange(5)):
        rng.choice(_MUTATIONS)(rng, data, seeds, words)
    return bytes(data[:INPUT_BYTES_MAX])


def _span(rng: Random, data: bytearray) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + (1 << rng.randrange(8)))


def _flip(rng: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(_BYTES)


def _remove(rng: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    del data[start:end]


def _repeat(rng: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    times = 1 << rng.randrange(10) if rng.random() < 0.1 else 1
    data[end:end] = (data[start:end] * times)[:INPUT_BYTES_MAX]


def _move(rng: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    piece = data[start:end]
    del data[start:end]
    at = rng.randint(0, len(data))
    data[at:at] = piece


def _insert(rng: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.choice(words) if words and rng.random() < 0.7 else rng.randbytes(rng.randint(1, 8))


def _overwrite(rng: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    data[start:end] = rng.choice(words) if words and rng.random() < 0.7 else rng.randbytes(end - start)


def _renumber(rng: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    if found := list(re.finditer(rb"[0-9]+", data)):
        start, end = rng.choice(found).span()
        data[start:end] = rng.choice(_NUMBERS)


def _splice(rng: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    data[rng.randint(0, len(data)) :] = other[rng.randint(0, len(other)) :]


def _cut(rng: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


_MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _flip,
    _set,
    _set,
    _remove,
    _repeat,
    _move,
    _insert,
    _insert,
    _overwrite,
    _renumber,
    _splice,
    _cut,
)
