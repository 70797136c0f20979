"""Texts for people, bounded and in words. Imports no protobuf."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Literal


def cut(text: str, most: int, keep: Literal["start", "end"] = "start") -> str:
    """The text, as far as it fits into ``most`` bytes of UTF-8, in whole characters.

    Lone surrogates (file names and program output that were no UTF-8) are spelled out: the wire cannot carry them.
    """
    if text.isascii() and len(text) <= most:
        return text
    data = text.encode("utf-8", "backslashreplace")
    kept = data[:most] if keep == "start" else data[max(len(data) - most, 0) :]
    return kept.decode("utf-8", "ignore")


def counted(number: int, noun: str) -> str:
    """``1 node``, ``2 nodes``: of nouns whose plural ends in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def spans(numbers: Iterable[int]) -> list[str]:
    """``["0-2", "5"]`` for 0, 1, 2 and 5."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [str(low) if low == high else f"{low}-{high}" for low, high in found]


def signal_name(number: int) -> str:
    """SIGKILL for 9; "signal 99" for what has no name here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
