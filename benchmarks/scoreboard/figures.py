"""Rows of the scoreboard: what was measured, what it is held against, and whether that is met. Pure.

Less is better in every row. A row's word is its samples' median, unless a target says otherwise.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

SECONDS = "s"
MEBIBYTES = "MiB"
CORES = "cores"
TIMES = "x"
COUNT = ""
RUNS = "runs"
"""Each sample is 1.0 for a run that went as it should, 0.0 for one that did not."""

QUICK_RATIO = 3.0
"""All that a quick run asks of a ratio to the peer: it has few samples, on a machine that may be busy."""


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "FAIL"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Judgement:
    """One target of a row: ``says`` is what was measured against it, and by how much that misses it."""

    verdict: Verdict
    asked: str
    says: str


@dataclass(frozen=True)
class Faster:
    """At least so many times less than the peer; in a quick run at least QUICK_RATIO times."""

    times: float

    def judge(self, row: Row, quick: bool) -> Judgement:
        asked = min(self.times, QUICK_RATIO) if quick else self.times
        ratio = row.ratio
        ok = ratio >= asked
        missed = "" if ok else f", {as_times(asked / ratio)} too slow" if ratio else ", the peer took no time"
        return _judgement(ok, f">= {as_times(asked)}", as_times(ratio) + missed)


@dataclass(frozen=True)
class AtMost:
    """At most this value, in the row's unit. ``worst``: of every sample, else of the median."""

    value: float
    worst: bool = False

    def judge(self, row: Row, quick: bool) -> Judgement:
        asked = f"<= {as_value(self.value, row.unit)}" + (" at worst" if self.worst else "")
        found = max(row.ours) if self.worst else row.median
        says = as_value(found, row.unit)
        if quick:
            return Judgement(Verdict.NOT_JUDGED, asked, says)
        ok = found <= self.value
        return _judgement(ok, asked, says if ok else f"{says}, {as_value(found - self.value, row.unit)} too much")


@dataclass(frozen=True)
class WithinFloor:
    """At most so many times the floor's median, which was measured in the same run."""

    times: float

    def judge(self, row: Row, quick: bool) -> Judgement:
        asked = f"<= {as_times(self.times)} the floor"
        found = row.floor_ratio
        says = f"{as_times(found)} the floor"
        if quick:
            return Judgement(Verdict.NOT_JUDGED, asked, says)
        ok = found <= self.times
        return _judgement(ok, asked, says if ok else f"{says}, {as_times(found / self.times)} too much")


@dataclass(frozen=True)
class AllOf:
    """Every one of so many runs went as it should, and so many there were. In a quick run there are fewer."""

    runs: int

    def judge(self, row: Row, quick: bool) -> Judgement:
        went_well, asked = sum(sample == 1.0 for sample in row.ours), f"{self.runs} of {self.runs}"
        says = f"{went_well} of {len(row.ours)}"
        if quick:
            return Judgement(Verdict.NOT_JUDGED, asked, says)
        ok = went_well == len(row.ours) == self.runs
        return _judgement(ok, asked, says if ok else f"{says}, {self.runs - went_well} short")


Target: TypeAlias = Faster | AtMost | WithinFloor | AllOf


@dataclass(frozen=True)
class Row:
    """One figure. ``peer``: torch's samples, or in words why there are none. ``note``: what a reader should know."""

    figure: str
    unit: str
    ours: Sequence[float]
    targets: tuple[Target, ...]
    peer: Sequence[float] | str = ()
    floor: Sequence[float] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if not self.ours:
            raise ValueError(f"{self.figure}: nothing was measured")
        if not self.targets:
            raise ValueError(f"{self.figure}: no target, so nothing can be said of it")
        for target in self.targets:
            if isinstance(target, Faster) and not self.has_peer:
                raise ValueError(f"{self.figure}: {target} without samples of the peer")
            if isinstance(target, WithinFloor) and not self.floor:
                raise ValueError(f"{self.figure}: {target} without samples of the floor")

    @property
    def has_peer(self) -> bool:
        return not isinstance(self.peer, str) and bool(self.peer)

    @property
    def median(self) -> float:
        return statistics.median(self.ours)

    @property
    def ratio(self) -> float:
        """How many times the peer's median ours is."""
        assert not isinstance(self.peer, str)
        return _ratio(statistics.median(self.peer), self.median)

    @property
    def floor_ratio(self) -> float:
        return _ratio(self.median, statistics.median(self.floor))

    def judgements(self, quick: bool) -> list[Judgement]:
        return [target.judge(self, quick) for target in self.targets]


@dataclass(frozen=True)
class Broken:
    """A suite, or what it was about to measure, that ended with an error: in place of its row."""

    figure: str
    error: str

    def judgements(self, quick: bool) -> list[Judgement]:
        del quick  # what cannot be measured fails either way
        return [Judgement(Verdict.FAIL, "to be measured", self.error)]


@dataclass(frozen=True)
class Skipped:
    """What cannot be measured on this machine, or by this user: in place of its row."""

    figure: str
    reason: str

    def judgements(self, quick: bool) -> list[Judgement]:
        del quick
        return [Judgement(Verdict.NOT_JUDGED, "to be measured", self.reason)]


Line: TypeAlias = Row | Broken | Skipped


def verdict(line: Line, quick: bool) -> Verdict:
    """The worst of its targets'; one that passes weighs more than one that was not judged."""
    found = {judgement.verdict for judgement in line.judgements(quick)}
    return next(verdict for verdict in (Verdict.FAIL, Verdict.PASS, Verdict.NOT_JUDGED) if verdict in found)


def as_value(value: float, unit: str) -> str:
    """Three digits, and the unit; of seconds the fitting one."""
    if unit == SECONDS:
        return _digits(value) + " s" if value >= 1 or not value else _digits(1000 * value) + " ms"
    return f"{_digits(value)} {unit}".rstrip()


def as_times(ratio: float) -> str:
    return f"{_digits(ratio)}x"


def _digits(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("inf")


def _judgement(ok: bool, asked: str, says: str) -> Judgement:
    return Judgement(Verdict.PASS if ok else Verdict.FAIL, asked, says)
