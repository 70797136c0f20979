"""What the job's spec asks for: who is waited for, when newcomers are taken in and in which order, what is final."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rallypoint.model import Blame, JobSpec, NodeSpec, ScaleUp
from rallypoint_coordinator.core.records import (
    CoordinatorStarted,
    Entry,
    GoneReason,
    JobCreated,
    JobDecided,
    JobUpdated,
    MemberGone,
    MemberJoined,
    NodeSucceeded,
    RecoveryBegan,
    RecoveryEnded,
    RoundAdopted,
    RoundEnded,
    RoundFormed,
    RoundStopping,
    StateLost,
    StopCause,
)
from simulation.oracle_workers import WorkerOracle
from simulation.world import Violation

TOLERANCE_PER_MILLE = 1
TOLERANCE_MS = 5
"""By so much the coordinator's clock may be ahead of the time of day."""


@dataclass(slots=True)
class _Joined:
    lease_id: int
    spec: NodeSpec


@dataclass(slots=True)
class _Life:
    spec: JobSpec
    members: dict[str, _Joined] = field(default_factory=dict)
    seats: dict[str, int] = field(default_factory=dict)
    """Of the last round: node -> its lease, in the order of ranks."""
    round: int = -1
    formed_ms: int = 0
    ended_ms: int = 0
    runs: bool = False
    """From a round's beginning to its end."""
    succeeded: set[str] = field(default_factory=set)
    awaited: set[str] = field(default_factory=set)
    """Lost in the last round, and not back."""


class PolicyOracle:
    """Times are those on the records."""

    def __init__(self, workers: WorkerOracle) -> None:
        self._workers = workers
        self._lives: dict[str, _Life] = {}

    def journal_lost(self, left: Iterable[tuple[int, Entry]]) -> None:
        """Only this is left of it."""
        self._lives.clear()
        for revision, entry in left:
            self.durable(entry, revision)

    def durable(self, entry: Entry, revision: int) -> None:
        record, uid = entry.record, entry.job_uid
        if isinstance(record, CoordinatorStarted | StateLost):
            pass  # of no life
        elif isinstance(record, JobCreated):
            self._lives[uid] = _Life(record.spec)
        else:
            life = self._lives[uid]
            match record:
                case MemberJoined():
                    life.members[record.node] = _Joined(revision, record.spec)
                    life.awaited.discard(record.node)
                case MemberGone():
                    self._gone(life, record)
                case RoundFormed():
                    self._formed(uid, life, record, entry.wall_ms)
                case RoundAdopted():
                    self._adopted(life, record, entry.wall_ms)
                case RecoveryBegan():
                    life.awaited.clear()
                case RecoveryEnded():
                    life.ended_ms = entry.wall_ms
                case NodeSucceeded():
                    life.succeeded.add(record.node)
                case RoundStopping():
                    self._stopping(uid, life, record, entry.wall_ms)
                case RoundEnded():
                    self._ended(uid, life, record, entry.wall_ms)
                case JobUpdated():
                    life.spec = replace(life.spec, min_nodes=record.min_nodes, max_nodes=record.max_nodes)
                case JobDecided():
                    self._decided(uid, life, record)
                case _:
                    pass

    def _gone(self, life: _Life, record: MemberGone) -> None:
        life.members.pop(record.node, None)
        had_place = life.runs and life.seats.get(record.node) == record.lease_id
        if had_place and record.reason is not GoneReason.LEFT and record.node not in life.succeeded:
            life.awaited.add(record.node)

    # --- rounds

    def _formed(self, uid: str, life: _Life, record: RoundFormed, wall_ms: int) -> None:
        waited_ms = wall_ms - life.ended_ms
        if life.awaited and waited_ms < _at_least(life.spec.rejoin_wait_ms):
            raise Violation("REJOIN", f"{uid}: round {record.round} does not wait for {sorted(life.awaited)}")
        newcomers = [seat.node for seat in record.seats if seat.node not in life.seats]
        if newcomers != sorted(newcomers, key=lambda node: _order(life.members[node])):
            raise Violation("C3", f"{uid}: newcomers of round {record.round} are not in order: {newcomers}")
        life.seats = {seat.node: seat.lease_id for seat in record.seats}
        life.round, life.formed_ms, life.runs = record.round, wall_ms, True
        life.succeeded, life.awaited = set(), set()

    def _adopted(self, life: _Life, record: RoundAdopted, wall_ms: int) -> None:
        """When it was formed is not known any more."""
        succeeded = life.succeeded if record.round == life.round else set()
        life.seats = {place.seat.node: place.seat.lease_id for place in record.places}
        life.round, life.formed_ms, life.runs = record.round, wall_ms, True
        life.succeeded, life.awaited = succeeded & life.seats.keys(), set()

    def _stopping(self, uid: str, life: _Life, record: RoundStopping, wall_ms: int) -> None:
        if record.cause is not StopCause.NODE_JOINED:
            return
        spec = life.spec
        newcomers = life.members.keys() - life.seats.keys()
        has_room = len(life.seats) < spec.max_nodes and not life.succeeded
        enough = len(life.seats) + len(newcomers) >= spec.min_nodes
        waits_for_restart = spec.scale_up is ScaleUp.ON_RESTART
        too_soon = wall_ms - life.formed_ms < _at_least(spec.scale_up_delay_ms)
        if not newcomers or not has_room or not enough or waits_for_restart or too_soon:
            raise Violation("SCALE-UP", f"{uid}: {record} with {spec.scale_up}, newcomers {sorted(newcomers)}")

    def _ended(self, uid: str, life: _Life, record: RoundEnded, wall_ms: int) -> None:
        life.runs, life.ended_ms = False, wall_ms
        if record.culprit is None or record.culprit.after_stop or not record.charged:
            return
        # One of several that may have been the first decides nothing for sure.
        candidates = [other for other in record.others if other.blame is Blame.CANDIDATE]
        if all(failure.exit_code in life.spec.no_restart_exit_codes for failure in (record.culprit, *candidates)):
            raise Violation("FINAL", f"{uid}: round {record.round} is followed by another after {record.culprit}")

    def _decided(self, uid: str, life: _Life, record: JobDecided) -> None:
        if record.outcome.reason != "NO_RESTART_EXIT_CODE":
            return
        culprit = record.outcome.culprit
        if culprit is None or culprit.exit_code not in life.spec.no_restart_exit_codes:
            raise Violation("FINAL", f"{uid} ends by an exit code that is not final: {record.outcome}")
        if culprit.after_stop:
            raise Violation("FINAL", f"{uid} ends by what was told to end: {record.outcome}")
        if (uid, life.round, culprit.exit_code) not in self._workers.exit_codes:
            raise Violation("FINAL", f"{uid}: nobody exited so in round {life.round}: {record.outcome}")


def _order(member: _Joined) -> tuple[bool, int, int]:
    """By --node-rank, then as they joined."""
    rank = member.spec.node_rank
    return rank is None, rank or 0, member.lease_id


def _at_least(delay_ms: int) -> int:
    return delay_ms - delay_ms * TOLERANCE_PER_MILLE // 1000 - TOLERANCE_MS
