"""What the workers' own records of their lives say, and what must hold for all of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Life:
    """One process of a worker's family, as ``worker.py`` recorded it."""

    kind: str
    pid: int
    born_ns: int
    job_uid: str
    round: int
    restart_count: int
    node: str
    rank: int
    local_rank: int
    group_rank: int
    world_size: int
    endpoint: str
    strangers: list[int]


class Lives:
    """All records of a folder, read as they come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, Life] = {}

    def all(self) -> list[Life]:
        for path in self._folder.glob("life.*[0-9]"):
            if path not in self._seen:
                self._seen[path] = Life(**json.loads(path.read_text()))
        return list(self._seen.values())

    def of_round(self, number: int) -> list[Life]:
        return [life for life in self.all() if life.round == number]

    def workers(self, number: int) -> list[Life]:
        """The round's workers by rank, without their families."""
        return sorted((life for life in self.of_round(number) if life.kind == "worker"), key=lambda life: life.rank)

    def has_heard_of_its_end(self, worker: Life) -> bool:
        """Whether SIGTERM came to it."""
        return (self._folder / f"asked.{worker.pid}").exists()

    def check(self) -> list[str]:
        """Every way in which the lives so far contradict the invariants; empty if none does."""
        workers: dict[int, list[Life]] = defaultdict(list)
        for life in self.all():
            if life.kind == "worker":
                workers[life.round].append(life)
        found = [wrong for number in sorted(workers) for wrong in _wrong_in_round(number, workers[number])]
        return found + list(_wrong_between(workers))


def _wrong_in_round(number: int, workers: list[Life]) -> Iterable[str]:
    for life in workers:
        if life.strangers:
            yield f"round {number}: when rank {life.rank} began, {life.strangers} of another round were alive"
    for name in ("job_uid", "restart_count", "world_size", "endpoint"):
        values = {getattr(life, name) for life in workers}
        if len(values) > 1:
            yield f"round {number}: its workers differ in {name}: {sorted(values, key=str)}"
    ranks = sorted(life.rank for life in workers)
    if len(set(ranks)) < len(ranks):
        yield f"round {number}: a rank began twice: {ranks}"
    if ranks and not 0 <= ranks[0] <= ranks[-1] < workers[0].world_size:
        yield f"round {number}: ranks {ranks} in a world of {workers[0].world_size}"
    if len({life.group_rank for life in workers}) != len({life.node for life in workers}):
        yield f"round {number}: group ranks and nodes are not one to one"
    if len({(life.group_rank, life.rank - life.local_rank) for life in workers}) != len(
        {life.node for life in workers}
    ):
        yield f"round {number}: a node's ranks are not contiguous"


def _wrong_between(workers: dict[int, list[Life]]) -> Iterable[str]:
    counts = [max(life.restart_count for life in workers[number]) for number in sorted(workers)]
    if counts != sorted(counts):
        yield f"the restart count went back from one round to a later one: {counts}"
    for number in workers:
        nodes, before = _group_order(workers[number]), _group_order(workers.get(number - 1, []))
        if set(nodes) == set(before) and nodes != before:
            yield f"round {number}: the same nodes as before in another order: {nodes}, not {before}"


def _group_order(workers: list[Life]) -> list[str]:
    """The round's nodes by group rank; empty if not all of its workers began, so that they are not all known."""
    places = {life.group_rank: life.node for life in workers}
    complete = bool(workers) and len(workers) == workers[0].world_size
    return [places[rank] for rank in sorted(places)] if complete else []
