"""What is said of the phases of each restart, against what really happened, and when."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rallypoint.model import NO_ROUND
from rallypoint.v1.job_service_pb2 import GetJobResponse, RoundChange
from rallypoint_coordinator.core.records import Entry
from rallypoint_coordinator.core.round_changes import KEPT_MAX, instants_of, phases_of
from rallypoint_coordinator.core.round_changes import RoundChange as Change
from rallypoint_coordinator.core.state import Life
from simulation.oracle_workers import WorkerOracle
from simulation.world import WALL_EPOCH_MS, Violation, World


class PhaseOracle:
    """Sees each record when it is durable, each life after it was stepped, and what operators are shown."""

    def __init__(self, world: World, workers: WorkerOracle) -> None:
        self.told = 0
        """So many answers told of restarts."""
        self._world = world
        self._workers = workers
        self._durable_ms: dict[int, int] = {}

    def durable(self, entry: Entry, revision: int) -> None:
        self._durable_ms[revision] = self._world.wall_ms

    def stepped(self, life: Life) -> None:
        """What the machine knows."""
        changes = life.facts.round_changes
        self._check_order(life, changes)
        for change in changes[-2:]:
            self._check(life, change)

    def _check_order(self, life: Life, changes: Sequence[Change]) -> None:
        """Each leads to the next: all but the newest have led to a round."""
        rounds = [change.round for change in changes]
        is_bounded = len(changes) <= KEPT_MAX
        is_whole = all(change.round < change.next_round <= after.round for change, after in pairwise(changes))
        if not is_bounded or not is_whole or rounds != sorted(set(rounds)):
            raise Violation("PHASES", f"{life.facts.uid}: {changes}")

    def _check(self, life: Life, change: Change) -> None:
        instants, seen = instants_of(change, life.watch.sightings), life.watch.sightings
        known = [instant for instant in instants if instant]
        phases = [ms for ms in phases_of(instants) if ms is not None]
        if known != sorted(known) or any(ms < 0 for ms in phases) or known[-1] > self._world.wall_ms:
            raise Violation("PHASES", f"{life.facts.uid}: {change} gives {instants}")
        if sum(phases) != known[-1] - known[0]:
            raise Violation("PHASES", f"{life.facts.uid}: {phases} do not add up: {instants}")
        for revision in (change.stop_revision, change.form_revision):
            if revision in seen.durable and seen.durable[revision] < self._durable_ms[revision]:
                raise Violation("PHASES", f"{life.facts.uid}: record {revision} was not durable yet: {change}")
        started_ms = self._workers.last_start_ms.get((life.facts.uid, change.next_round), 0)
        has_one_history = not life.facts.recovery_epoch
        if has_one_history and instants.all_ran_ms and instants.all_ran_ms < WALL_EPOCH_MS + started_ms:
            raise Violation("PHASES", f"{life.facts.uid}: workers of round {change.next_round} start after all ran")
        if change.next_round != NO_ROUND and not instants.all_gone_ms:
            raise Violation("PHASES", f"{life.facts.uid}: {change} did not end")

    def shown(self, answer: GetJobResponse) -> None:
        """What an operator is told: phases that add up to the time from the beginning."""
        for change in answer.round_changes:
            self.told += 1
            self._check_shown(change)

    def _check_shown(self, change: RoundChange) -> None:
        to_the_end = (change.detect, change.decide, change.teardown)
        took_ms = sum(span.ToMilliseconds() for span in to_the_end)
        if (
            change.HasField("end_time")
            and change.end_time.ToMilliseconds() - change.begin_time.ToMilliseconds() != took_ms
        ):
            raise Violation("PHASES", f"it does not add up to its end: {change}")
        if any(span.ToMilliseconds() < 0 for span in (*to_the_end, change.rendezvous, change.spawn)):
            raise Violation("PHASES", f"it took less than no time: {change}")
        if change.HasField("spawn") and not change.HasField("rendezvous"):
            raise Violation("PHASES", f"workers ran before there was a round: {change}")
