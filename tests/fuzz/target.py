"""What is fuzzed: where inputs come from, and what must be true of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from fuzz.mutate import WORDS, mutated

Check = Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """``check`` raises if the code under test did what it must not do with this input; whatever it raises is a finding.

    Inputs are ``seeds`` changed with ``words`` put in, unless ``generate`` makes them.
    """

    check: Check
    seeds: Sequence[bytes] = (b"",)
    words: Sequence[bytes] = ()
    generate: Callable[[Random], bytes] | None = None

    def draw(self, rng: Random) -> bytes:
        if self.generate is not None:
            return self.generate(rng)
        return mutated(rng, self.seeds, (*WORDS, *self.words))


def demand(condition: bool, message: str) -> None:
    """An assertion that python -O keeps."""
    if not condition:
        raise AssertionError(message)


def is_a_sentence(text: str, what: str) -> None:
    """What people are told: something, and no traceback of ours."""
    demand(bool(text.strip()), f"{what} says nothing")
    demand("Traceback (most recent call last)" not in text, f"{what} shows a traceback: {text}")
