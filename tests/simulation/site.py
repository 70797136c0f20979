"""What an agent process finds on its node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rallypoint.model import JobSpec, NodeSpec
from simulation.network import Path
from simulation.options import JobOptions
from simulation.world import Clock


class Ports:
    """The rendezvous ports of a node: each is given once. ``taken``: so many reasons why none can be had now."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self.taken = 0
        self._numbers = numbers

    def hold(self) -> int | None:
        return None if self.taken else next(self._numbers)

    def give_back(self) -> None:
        self.taken -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What an agent process finds on its node. ``wall_skew_ms``: how wrong the time of day is there.

    ``job_spec`` is what its command line says, ``job`` what the job was drawn with.
    """

    job: JobOptions
    node: str
    job_spec: JobSpec
    spec: NodeSpec
    path: Path
    clock: Clock
    wall_skew_ms: int
    ports: Ports
