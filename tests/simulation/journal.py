"""The coordinator's disk: what is durable, as the very bytes that the real journal stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import Entry
from rallypoint_coordinator.core.state import Facts
from rallypoint_coordinator.store.codec import decode, encode
from simulation.world import Violation


class SimJournal:
    """Survives every crash. A record's revision is its position, from 1."""

    def __init__(self) -> None:
        self._records: list[bytes] = []

    @property
    def revision(self) -> int:
        return len(self._records)

    def append(self, entries: Iterable[Entry]) -> None:
        self._records.extend(map(encode, entries))

    def __iter__(self) -> Iterator[Entry]:
        return map(decode, self._records)

    def replay(self, undurable: Iterable[Entry] = ()) -> Cluster:
        """A coordinator's state from the journal alone, and from what it had decided beyond it."""
        cluster = Cluster()
        revision = 0
        for entry in self:
            revision += 1
            cluster.apply(entry, revision)
        for entry in undurable:
            revision += 1
            cluster.apply(entry, revision)
        return cluster


def check_replay(journal: SimJournal, undurable: Iterable[Entry], live: Cluster) -> None:
    """C7: replay gives what the live machine has, down to the order of its members."""
    replayed = journal.replay(undurable)
    _must_equal("epoch", replayed.epoch, live.epoch)
    _must_equal("lives", list(replayed.lives), list(live.lives))
    for uid, life in live.lives.items():
        again = replayed.lives[uid].facts
        _must_equal(f"facts of {uid}", again, life.facts)
        _must_equal(f"order of members in {uid}", orders(again), orders(life.facts))


def orders(facts: Facts) -> tuple[list[str], list[str], list[str]]:
    """What equality of dicts does not compare."""
    places = list(facts.round.places) if facts.round else []
    return list(facts.members), list(facts.gone_nodes), places


def _must_equal(what: str, replayed: object, live: object) -> None:
    if replayed != live:
        raise Violation("C7", f"{what}: replay gives {replayed}, the live machine has {live}")
