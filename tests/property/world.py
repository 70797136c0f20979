"""A coordinator's core with its journal as stored bytes, a replica that only sees records, and the truth beside it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from enum import Enum

from property.coordinator_truth import Truth
from property.demand import demand
from rallypoint_coordinator.core import invariants
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.core.effects import Output
from rallypoint_coordinator.core.events import AgentAttached, Event, Stamp, TimeAdvanced
from rallypoint_coordinator.core.state import Facts
from rallypoint_coordinator.store.codec import decode, encode
from rallypoint_coordinator.store.snapshot_codec import decode_snapshot, encode_snapshot
from support.coordinator_script import Script

DEADLINES_MAX = 2_000


class Crash(Enum):
    """Where the coordinator stops within a step."""

    BEFORE_DURABLE = "the records are lost"
    BEFORE_HEARD = "the records are durable, no effect got out"


@dataclass(frozen=True)
class Backup:
    """``records`` of the journal, and what is true of them. Nobody knew any agent when there was none."""

    records: int
    truth: Truth


class World(Script):
    """Every event passes ``feed``, and is remembered, so that it can come again."""

    def __init__(self) -> None:
        self.truth = Truth()
        self.backup = Backup(0, Truth())
        self.replica = Cluster()
        self.stored: list[bytes] = []
        self.history: list[Event] = []
        self.crash: Crash | None = None
        """What the next step meets."""
        self.is_broken = False
        """Within a step, and after one that failed."""
        self.wall_offset_ms = 0
        super().__init__()

    # --- what a script needs

    @property
    def stamp(self) -> Stamp:
        stamp = super().stamp
        return replace(stamp, wall_ms=max(0, stamp.wall_ms + self.wall_offset_ms))

    def keep(self, out: Output) -> None:
        """Of a start or of retention: nobody asked for it."""
        began = not self.journal or self.cluster.epoch != self.truth.history.epoch
        self._make_durable(out)
        (self.truth.started if began else self.truth.retained)(self._stamp_before(out), out)
        self._check_state()
        self.next_deadline_ms = out.next_deadline_ms

    def feed(self, event: Event) -> Output:
        self.is_broken = True
        out = self._step(event)
        self.is_broken = False
        return out

    def _step(self, event: Event) -> Output:
        stamp, crash = self.stamp, self.crash
        self.history.append(event)
        out = self.cluster.step(event, stamp)
        self.crash = None
        if crash is Crash.BEFORE_DURABLE:
            self.restart()
            return Output()
        self._make_durable(out)
        self.truth.stepped(event, stamp, out, heard=crash is None)
        self._check_state()
        if crash is Crash.BEFORE_HEARD:
            self.restart()
            return Output()
        self.next_deadline_ms = out.next_deadline_ms
        for effect in out.effects:
            self._deliver(effect)
        return out

    # --- what else may happen

    def repeat(self, index: int) -> None:
        """An event comes again as it was; only the shell's own numbers are never used again."""
        event = self.history[index % len(self.history)]
        if isinstance(event, AgentAttached):
            agent = self.by_stream[event.stream]
            event = replace(event, stream=self.next_stream(), fresh_uid=f"uid{self.lives_begun}")
            self.by_stream[event.stream] = agent
            agent.stream = event.stream
        self.feed(event)

    def restart(self, snapshot_share: float | None = None) -> None:
        """The coordinator starts again: from its whole journal, or from a snapshot and the records after it."""
        self.cluster = self._read_back(snapshot_share)
        self._must_equal(self.cluster, self.replica)
        self.crash = None
        self.keep(self.cluster.start(self.stamp, "another-cluster"))

    def back_up(self) -> None:
        """Copy what is durable now, with the truth about it."""
        self.backup = Backup(len(self.stored), copy.deepcopy(self.truth))

    def lose_records(self) -> None:
        """The coordinator starts again from the last backup; without one from nothing, as another cluster."""
        backup = self.backup
        self.truth = copy.deepcopy(backup.truth)
        del self.journal[backup.records :], self.stored[backup.records :]
        self.replica = self._read_back(None)
        self.cluster = self._read_back(None)
        self.losses += 1
        self.crash = None
        self.keep(self.cluster.start(self.stamp, f"cluster-{self.losses + 1}"))

    def jump(self, ms: int) -> None:
        """The clock jumps, and only then is it looked at. A coordinator's own never goes back, but for a restart."""
        if ms < 0:
            self.truth.clock_is_steady = False
        self.now_ms = max(0, self.now_ms + ms)
        self.feed(TimeAdvanced())

    def retain(self, retention: Retention) -> None:
        self.keep(self.cluster.retain(retention, self.stamp))

    def fall_silent(self) -> None:
        """C8: nobody says anything any more. Every life comes to its end, and everybody's lease does."""
        for _ in range(DEADLINES_MAX):
            if self.next_deadline_ms is None:
                break
            self.now_ms = max(self.now_ms, self.next_deadline_ms)
            self.feed(TimeAdvanced())
        undecided = [life for life in self.truth.lives.values() if life.outcome is None]
        demand(self.next_deadline_ms is None and not undecided, "C8", f"without end: {undecided}")
        lasting = [lease for lease in self.truth.leases.by_id.values() if not lease.gone]
        demand(not lasting, "C8", f"leases without end: {lasting}")

    # --- replay

    def _make_durable(self, out: Output) -> None:
        for entry in out.records:
            self.journal.append(entry)
            self.stored.append(encode(entry))
            self.replica.apply(decode(self.stored[-1]), len(self.journal))

    def _stamp_before(self, out: Output) -> Stamp:
        return replace(self.stamp, revision=len(self.journal) - len(out.records))

    def _read_back(self, snapshot_share: float | None) -> Cluster:
        cluster, cut = Cluster(), 0
        if snapshot_share is not None:
            cut = int(snapshot_share * len(self.stored))
            earlier = Cluster()
            for revision, data in enumerate(self.stored[:cut], 1):
                earlier.apply(decode(data), revision)
            cluster.restore(decode_snapshot(encode_snapshot(earlier.snapshot())))
        for revision, data in enumerate(self.stored[cut:], cut + 1):
            cluster.apply(decode(data), revision)
        return cluster

    def _check_state(self) -> None:
        """C7 after every step: what replays has all that the live machine has. And the core's own invariants."""
        self._must_equal(self.cluster, self.replica)
        for life in self.cluster.lives.values():
            invariants.check(life)

    def _must_equal(self, live: Cluster, replayed: Cluster) -> None:
        ours, theirs = _of_all(live), _of_all(replayed)
        demand(ours == theirs, "C7", f"{ours}, replayed {theirs}")
        for uid, life in live.lives.items():
            demand(not (differs := difference(life.facts, replayed.lives[uid].facts)), "C7", f"{uid}: {differs}")


def _of_all(cluster: Cluster) -> tuple[str, int, list[str]]:
    return cluster.cluster_id, cluster.epoch, list(cluster.lives)


def difference(live: Facts, replayed: Facts) -> str:
    """The fields that replay gives otherwise."""
    names = [field.name for field in fields(Facts) if getattr(live, field.name) != getattr(replayed, field.name)]
    if not names and _orders(live) != _orders(replayed):
        return f"{_orders(live)}, replayed {_orders(replayed)}"
    return "; ".join(f"{name} {getattr(live, name)}, replayed {getattr(replayed, name)}" for name in names)


def _orders(facts: Facts) -> tuple[list[str], list[str], list[str]]:
    """What equality of dicts does not compare."""
    return list(facts.members), list(facts.gone_nodes), list(facts.round.places) if facts.round else []
