"""The coordinator's disk: what is durable, as the very bytes that the real journal stores, and what it fails to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import CoordinatorStarted, Entry
from rallypoint_coordinator.core.state import Facts
from rallypoint_coordinator.store.codec import decode, encode
from rallypoint_coordinator.store.journal import Compacted, Snapshot, Stored
from rallypoint_coordinator.store.snapshot_codec import decode_snapshot
from simulation.world import Violation, World

NORMAL_DISK_MS = (1, 10)


class Disk:
    """Survives every crash. Records that a snapshot stands for can be read no more, but are kept to judge by.

    ``durable`` is told of each record that has become so. ``delay_ms``: how long an append takes. ``is_full``:
    nothing can be written. ``unreadable``: so many reads fail. ``losses``: so often was the journal lost.
    """

    def __init__(self, world: World, durable: Callable[[Entry, int], None]) -> None:
        self.delay_ms = NORMAL_DISK_MS
        self.is_full = False
        self.unreadable = 0
        self.snapshot: Snapshot | None = None
        self.snapshots = 0
        self.losses = 0
        self._world = world
        self._durable = durable
        self._records: list[bytes] = []
        self._entries: list[Entry] = []
        self._commits = [0]
        self._dropped = 0

    @property
    def revision(self) -> int:
        return len(self._records)

    @property
    def commits(self) -> Sequence[int]:
        """The revisions that anybody could ever have found: 0, and that after each append."""
        return self._commits

    def append(self, records: Sequence[bytes]) -> None:
        """All of them at once. From now on they are durable."""
        with self._world.judged():
            for record in records:
                self._records.append(record)
                self._entries.append(decode(record))
                self._durable(self._entries[-1], self.revision)
            self._commits.append(self.revision)

    def after(self, revision: int) -> Iterator[Stored]:
        """What a coordinator can read. Raises Compacted."""
        if revision < self._dropped:
            raise Compacted(self._dropped + 1)
        for number in range(revision + 1, self.revision + 1):
            yield Stored(number, self._records[number - 1])

    def replace_snapshot(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.snapshots += 1
        self._world.tell("=", "disk", f"snapshot of revision {snapshot.revision}")

    def drop(self, first: int) -> None:
        """Keep what is after the first so many records."""
        self._dropped = max(self._dropped, first)

    def begin_epoch_of_another(self, wall_ms: int) -> None:
        """A second coordinator on the same store starts, and ends again."""
        cluster = self.replay()
        record = CoordinatorStarted(cluster_id=cluster.cluster_id, epoch=cluster.epoch + 1)
        self.append([encode(Entry(job="", job_uid="", wall_ms=wall_ms, record=record))])

    def lose(self, revision: int) -> None:
        """A backup of that revision, one of ``commits``, takes the place of all that there is; if 0, nothing does."""
        self._world.tell("!", "disk", f"{self.revision - revision} of {self.revision} records are lost")
        self.losses += 1
        del self._records[revision:], self._entries[revision:]
        self._commits = [commit for commit in self._commits if commit <= revision]
        if self.snapshot is not None and self.snapshot.revision > revision:
            self.snapshot, self._dropped = None, 0

    # --- judging by all that was ever written

    def entries(self) -> Iterable[tuple[int, Entry]]:
        """Every record ever that was not lost, with its revision."""
        return enumerate(self._entries, 1)

    def replay(self, undurable: Iterable[Entry] = ()) -> Cluster:
        """A coordinator's state from all records ever, and from what it had decided beyond them."""
        cluster = Cluster()
        for revision, entry in self.entries():
            cluster.apply(entry, revision)
        for revision, entry in enumerate(undurable, self.revision + 1):
            cluster.apply(entry, revision)
        return cluster

    def restore(self, undurable: Iterable[Entry] = ()) -> Cluster:
        """The same from the newest snapshot and the records after it, as a coordinator does it."""
        cluster, revision = Cluster(), 0
        if self.snapshot is not None:
            cluster.restore(decode_snapshot(self.snapshot.data))
            revision = self.snapshot.revision
        for number, entry in enumerate(self._entries[revision:], revision + 1):
            cluster.apply(entry, number)
        for number, entry in enumerate(undurable, self.revision + 1):
            cluster.apply(entry, number)
        return cluster


def check_replay(disk: Disk, undurable: Sequence[Entry], live: Cluster) -> None:
    """C7: replay, with a snapshot and without, gives what the live machine has, down to the order of its members."""
    _must_be_alike("replay", disk.replay(undurable), live)
    if disk.snapshot is not None:
        _must_be_alike("the snapshot and the records after it", disk.restore(undurable), live)


def _must_be_alike(how: str, replayed: Cluster, live: Cluster) -> None:
    _must_equal("epoch", how, replayed.epoch, live.epoch)
    _must_equal("lives", how, list(replayed.lives), list(live.lives))
    _must_equal("current lives", how, _current(replayed), _current(live))
    for uid, life in live.lives.items():
        again = replayed.lives[uid].facts
        _must_equal(f"facts of {uid}", how, again, life.facts)
        _must_equal(f"order of members in {uid}", how, orders(again), orders(life.facts))


def _current(cluster: Cluster) -> dict[str, str]:
    lives = ((name, cluster.current(name)) for name in cluster.job_names())
    return {name: life.facts.uid for name, life in lives if life is not None}


def orders(facts: Facts) -> tuple[list[str], list[str], list[str]]:
    """What equality of dicts does not compare."""
    places = list(facts.round.places) if facts.round else []
    return list(facts.members), list(facts.gone_nodes), places


def _must_equal(what: str, how: str, replayed: object, live: object) -> None:
    if replayed != live:
        raise Violation("C7", f"{what}: {how} gives {replayed}, the live machine has {live}")
