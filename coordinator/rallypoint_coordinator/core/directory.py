"""Every life that is remembered, by uid and by its job's name: how lives are begun, replayed and forgotten."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from rallypoint.limits import DAY_MS
from rallypoint.values import dataclass
from rallypoint_coordinator.core.deadlines import Deadlines
from rallypoint_coordinator.core.effects import Output
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.evolve import evolve
from rallypoint_coordinator.core.history import History
from rallypoint_coordinator.core.records import CoordinatorStarted, Entry, JobCreated, LifeForgotten, Record, StateLost
from rallypoint_coordinator.core.snapshot import ClusterSnapshot, copy_of
from rallypoint_coordinator.core.state import Facts, Life

LIVES_MAX = 10_000
"""So many lives are remembered, decided ones included. A new one takes the place of the earliest decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many decided lives are kept, of how many nodes in all, and for how long, if there is room for them."""

    lives_max: int = 1_000
    nodes_max: int = 100_000
    """The life that was decided last is kept however many it has."""
    age_max_ms: int = 30 * DAY_MS


class Directory:
    """All that the journal says, and for each life when it must be looked at again."""

    def __init__(self) -> None:
        self.history = History()
        self.lives: dict[str, Life] = {}
        self.deadlines: Deadlines[str] = Deadlines()
        self._current: dict[str, str] = {}
        self._names: list[str] = []
        self._decided: dict[str, None] = {}

    def current(self, job: str) -> Life | None:
        """The newest life of a job's name."""
        uid = self._current.get(job)
        return self.lives[uid] if uid is not None else None

    def job_names(self, after: str = "", most: int = LIVES_MAX) -> list[str]:
        """At most so many names of jobs, in order, from the one that follows ``after``. Costs no more than it gives."""
        start = bisect_right(self._names, after)
        return self._names[start : start + most]

    @property
    def is_full(self) -> bool:
        """Whether no other life can begin: all that are remembered are undecided."""
        return len(self.lives) - len(self._decided) >= LIVES_MAX

    # --- snapshots and replay

    def restore(self, snapshot: ClusterSnapshot) -> None:
        """Begin with what a snapshot says; once, before all else. The directory takes its lives over, uncopied."""
        self.history = History(
            cluster_id=snapshot.cluster_id,
            epoch=snapshot.epoch,
            born_wall_ms=snapshot.born_wall_ms,
            former=dict.fromkeys(snapshot.former_cluster_ids),
            epochs=list(snapshot.epochs),
        )
        for facts in snapshot.lives:
            self.lives[facts.uid] = Life(facts)
            self._current[facts.job] = facts.uid
        self._names = sorted(self._current)
        decided = (facts for facts in snapshot.lives if facts.outcome is not None)
        self._decided.update((facts.uid, None) for facts in sorted(decided, key=lambda facts: facts.directive_revision))

    def snapshot(self) -> ClusterSnapshot:
        """The durable facts, copied: O(members), and quick, since the records to come have to wait for it."""
        lives = tuple(copy_of(life.facts) for life in self.lives.values())
        return ClusterSnapshot(
            cluster_id=self.history.cluster_id,
            epoch=self.history.epoch,
            born_wall_ms=self.history.born_wall_ms,
            former_cluster_ids=tuple(self.history.former),
            epochs=tuple(self.history.epochs),
            lives=lives,
        )

    def apply(self, entry: Entry, revision: int) -> None:
        """Replay one durable record. Raises IllegalTransition if the journal is damaged."""
        record = entry.record
        if isinstance(record, CoordinatorStarted):
            self.history.started(record, revision)
        elif isinstance(record, StateLost):
            self.history.lost(record, revision)
        elif isinstance(record, JobCreated):
            self._create(entry, record, revision)
        else:
            evolve(self.lives[entry.job_uid].facts, record, revision=revision, wall_ms=entry.wall_ms)
            self.note_decided(entry.job_uid)
            if isinstance(record, LifeForgotten):
                self._drop(entry.job_uid)

    def _create(self, entry: Entry, record: JobCreated, revision: int) -> None:
        facts = Facts(
            job=entry.job,
            uid=entry.job_uid,
            spec=record.spec,
            created_wall_ms=entry.wall_ms,
            state_wall_ms=entry.wall_ms,
            directive_revision=revision,
            revision=revision,
        )
        self.lives[entry.job_uid] = Life(facts)
        if entry.job not in self._current:
            insort(self._names, entry.job)
        self._current[entry.job] = entry.job_uid

    def note_decided(self, uid: str) -> None:
        """Lives are forgotten in the order in which they were decided."""
        life = self.lives.get(uid)
        if life is not None and life.facts.outcome is not None:
            self._decided.setdefault(uid)

    def _drop(self, uid: str) -> None:
        life = self.lives.pop(uid)
        self._decided.pop(uid, None)
        self.deadlines.clear(uid)
        if self._current.get(life.facts.job) == uid:
            del self._current[life.facts.job]
            del self._names[bisect_left(self._names, life.facts.job)]

    # --- decisions

    def record(self, stamp: Stamp, out: Output, record: Record, job: str = "", uid: str = "") -> None:
        """Decide something that is not a step of one life."""
        entry = Entry(job=job, job_uid=uid, wall_ms=stamp.wall_ms, record=record)
        out.records.append(entry)
        self.apply(entry, stamp.revision + len(out.records))

    def forget(self, uid: str, stamp: Stamp, out: Output) -> None:
        self.record(stamp, out, LifeForgotten(), self.lives[uid].facts.job, uid)

    def make_room(self, stamp: Stamp, out: Output) -> None:
        """Forget the earliest decided if no more fit; there is one unless ``is_full``."""
        if len(self.lives) >= LIVES_MAX:
            self.forget(next(iter(self._decided)), stamp, out)

    def retain(self, retention: Retention, stamp: Stamp, out: Output) -> None:
        """Forget decided lives beyond what is retained, in the order in which they were decided.

        A life whose agents may still ask for its outcome, and all decided after it, wait for the next time: so the
        newest life of a name is always the last one forgotten.
        """
        nodes = sum(self.lives[uid].facts.node_count for uid in self._decided)
        for uid in list(self._decided):
            life = self.lives[uid]
            age_ms = stamp.wall_ms - life.facts.state_wall_ms
            fits = nodes <= retention.nodes_max or len(self._decided) == 1
            kept = fits and len(self._decided) <= retention.lives_max and age_ms <= retention.age_max_ms
            if kept or life.presences:
                break
            nodes -= life.facts.node_count
            self.forget(uid, stamp, out)
