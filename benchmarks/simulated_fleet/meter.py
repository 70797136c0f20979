"""What a phase of a fleet's life took of the coordinator: counts, the same in each run, and CPU time, which is not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from simulated_fleet.door import Door


@dataclass(slots=True)
class Counts:
    """Things of some kinds, and their bytes. ``largest``: the bytes and the kind of the largest one."""

    number: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    largest: tuple[int, str] = (0, "")

    def add(self, kind: str, size: int) -> None:
        self.number[kind] += 1
        self.bytes[kind] += size
        self.largest = max(self.largest, (size, kind))


@dataclass(slots=True)
class Account:
    """What the events of one sort led to. ``up``: what agents said; ``down``: what they were told."""

    events: Counter[str] = field(default_factory=Counter)
    up: Counts = field(default_factory=Counts)
    down: Counts = field(default_factory=Counts)
    core_s: float = 0.0
    longest_step: tuple[float, str] = (0.0, "")
    encode_s: float = 0.0
    """Of what is said to agents."""

    def stepped(self, kind: str, took_s: float) -> None:
        self.events[kind] += 1
        self.core_s += took_s
        self.longest_step = max(self.longest_step, (took_s, kind))


@dataclass(slots=True)
class Phase:
    """``news`` is what the phase is about. ``renewal``: the heartbeats meanwhile, and the reports in place of some.

    How many reports could wait until then is a matter of when the beats fall, and not of what happens.
    """

    name: str
    news: Account = field(default_factory=Account)
    renewal: Account = field(default_factory=Account)
    door: Door = field(default_factory=Door)
    records: Counts = field(default_factory=Counts)
    batches: int = 0
    """Appends to the journal: transactions."""
    largest_batch: tuple[int, int] = (0, 0)
    """In bytes, and how many records that one has."""
    pack_s: float = 0.0
    """Encoding the records."""
    virtual_ms: int = 0
