"""Many inputs of one target: drawn from a seed, checked, and what was found made small."""

from __future__ import annotations

import hashlib
import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from random import Random
from types import FrameType

from fuzz.target import Target

CORPUS = Path(__file__).parent / "corpus"
TARGETS = {
    "texts": 22,
    "store": 12,
    "coordinator_says": 11,
    "credentials": 10,
    "leftovers": 9,
    "error_files": 8,
    "timers": 8,
    "flags": 7,
    "records": 5,
    "journal": 2,
    "rpc": 2,
    "healthz": 2,
    "grpc_calls": 1,
    "certificates": 1,
}
"""Each target's share of all inputs. Those that cost more have less."""

HANG_S = 20.0
_MINIMISE_TRIES = 2_000


class Hang(BaseException):
    """An input took longer than HANG_S. No Exception: code under test is not to take it for one of its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``where``: the kind of error and the line that raised it, by which findings are told apart."""

    target: str
    where: str
    told: str
    data: bytes

    @property
    def file_name(self) -> str:
        return hashlib.sha256(self.data).hexdigest()[:16]


@dataclass(slots=True)
class Slice:
    """What came of some inputs of a target."""

    target: str
    inputs: int = 0
    findings: list[Finding] = field(default_factory=list)


@cache
def load(name: str) -> Target:
    target: Target = import_module(f"fuzz.targets.{name}").TARGET
    return target


def draw(name: str, seed: int, number: int) -> bytes:
    """The same for the same three, in any process."""
    return load(name).draw(Random(f"{name} {seed} {number}"))


def run_slice(name: str, seed: int, first: int, count: int) -> Slice:
    """Check so many inputs. Of findings at one place the first is kept, made small."""
    found, seen = Slice(name), set[str]()
    with quiet():
        for number in range(first, first + count):
            finding = judge(name, draw(name, seed, number))
            found.inputs += 1
            if finding is not None and finding.where not in seen:
                seen.add(finding.where)
                found.findings.append(minimised(finding))
    return found


def judge(name: str, data: bytes) -> Finding | None:
    """What is wrong with this input, if anything is."""
    try:
        with _watched():
            load(name).check(data)
    except (Exception, Hang) as error:
        return Finding(name, _where(error), "".join(traceback.format_exception(error)), data)
    return None


def minimised(finding: Finding) -> Finding:
    """A shorter input with the same error, as far as leaving out pieces leads."""
    best, piece, tries = finding, len(finding.data) // 2, 0
    while piece and tries < _MINIMISE_TRIES and finding.where[:4] != Hang.__name__:
        at, progress = 0, False
        while at < len(best.data) and tries < _MINIMISE_TRIES:
            tries += 1
            shorter = judge(finding.target, best.data[:at] + best.data[at + piece :])
            if shorter is not None and shorter.where == finding.where:
                best, progress = shorter, True
            else:
                at += piece
        piece = piece if progress else piece // 2
    return best


def corpus_of(name: str) -> list[Path]:
    """The cases that are kept."""
    return sorted((CORPUS / name).glob("*"))


@contextmanager
def quiet() -> Iterator[None]:
    """What the code under test logs is nobody's concern, unless a target listens."""
    silence = logging.NullHandler()
    logging.getLogger().addHandler(silence)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(silence)


@contextmanager
def _watched() -> Iterator[None]:
    """Raise Hang in whatever takes too long."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise Hang(f"it goes on after {HANG_S:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left_s)  # of a test's own deadline


def _where(error: BaseException) -> str:
    """By the innermost lines that are ours: one cause is one finding."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename and sys.prefix not in frame.filename]
    lines = (f"{Path(frame.filename).name}:{frame.lineno}" for frame in (ours or frames)[-2:])
    return f"{type(error).__name__} at {' > '.join(lines)}"
