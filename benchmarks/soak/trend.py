"""Whether what was sampled grows: the least-squares line through the second half. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Sample(NamedTuple):
    at_s: float
    value: float


@dataclass(frozen=True)
class Bound:
    """What the line may rise by over the second half: ``value`` or this share of its middle, whichever is more."""

    value: float
    share: float = 0.0

    def allows(self, line: Line) -> bool:
        return line.rise <= max(self.value, self.share * line.middle)


@dataclass(frozen=True)
class Line:
    """``middle``: the mean. ``rise``: by how much the line is higher at its end than at its beginning."""

    middle: float
    rise: float


def second_half(samples: Sequence[Sample]) -> list[Sample]:
    """By time, not by number."""
    halfway_s = (samples[0].at_s + samples[-1].at_s) / 2
    return [sample for sample in samples if sample.at_s >= halfway_s]


def line_through(samples: Sequence[Sample]) -> Line:
    """ValueError if they are all of one instant."""
    mean_s = sum(sample.at_s for sample in samples) / len(samples)
    middle = sum(sample.value for sample in samples) / len(samples)
    spread = sum((sample.at_s - mean_s) ** 2 for sample in samples)
    if not spread:
        raise ValueError(f"no line through {len(samples)} samples of one instant")
    slope = sum((sample.at_s - mean_s) * (sample.value - middle) for sample in samples) / spread
    return Line(middle, slope * (samples[-1].at_s - samples[0].at_s))
