"""One life's rounds, budget and outcome, as its records tell them: every record is judged against those before it."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace

from property.demand import demand
from property.lease_truth import Leases, LeaseTruth
from rallypoint.model import (
    NO_ROUND,
    NO_VERSION,
    AgentPhase,
    Blame,
    Capability,
    Endpoint,
    JobSpec,
    JobState,
    Observed,
    Outcome,
    Version,
    WorkerFailure,
    WorkerState,
)
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.records import (
    JobDecided,
    JobHeld,
    JobReleased,
    JobUpdated,
    NodeExpelled,
    NodeSucceeded,
    RoundEnded,
    RoundFormed,
    RoundStopping,
    StopCause,
)

START_MIN_MS, REMAINS_MS = 60_000, 10_000

FAILURES = frozenset({StopCause.WORKER_FAILED, StopCause.START_TIMEOUT})
"""What ends a round at the price of a restart."""


@dataclass(slots=True, kw_only=True)
class RoundTruth:
    formed: RoundFormed
    revision: int
    restart_count: int
    start_since_ms: int
    """When it was formed, or the coordinator started after that."""
    started: set[int] = field(default_factory=set)
    """Leases that said since then that their workers run, or ran."""
    is_whole: bool = True
    failures: dict[int, tuple[WorkerFailure, ...]] = field(default_factory=dict)
    """What participants said of this very round last, by lease; a coordinator that starts has to be told again."""
    has_failed: bool = False
    """A participant said that a worker of its own failed, before any stop was decided."""
    succeeded: set[str] = field(default_factory=set)
    stopping: RoundStopping | None = None
    stop_version: Version = NO_VERSION
    stop_since_ms: int = 0
    """When it was decided, or the coordinator started after that."""
    all_gone_ms: int | None = None
    """STOPPING: when the last participant was gone."""
    ended: RoundEnded | None = None

    @property
    def nodes(self) -> list[str]:
        return [seat.node for seat in self.formed.seats]

    def seats_lease(self, lease: LeaseTruth) -> bool:
        return any(seat.lease_id == lease.lease_id for seat in self.formed.seats)

    def note_report(self, lease: LeaseTruth, report: Observed) -> None:
        """C2: the round fences the facts in a message, whoever sent it."""
        if report.round >= self.formed.round and not _is_starting(report):
            self.started.add(lease.lease_id)
        if report.round != self.formed.round or not self.seats_lease(lease):
            return
        if report.failures:
            self.failures[lease.lease_id] = report.failures
        own = any(not failure.after_stop for failure in report.failures)
        if self.stopping is None and (own or report.phase is AgentPhase.FAILED):
            self.has_failed = True

    def is_gone(self, lease: LeaseTruth) -> bool:
        """By evidence, or as the named exception: it was expelled for what it cannot end."""
        return bool(lease.expelled) or lease.is_gone_from(self.formed.round, self.stop_version)

    def note_time(self, leases: Leases, now_ms: int) -> None:
        """When the last participant was gone."""
        if self.stopping is None or self.all_gone_ms is not None:
            return
        if all(self.is_gone(leases.by_id[seat.lease_id]) for seat in self.formed.seats):
            self.all_gone_ms = now_ms

    def late_starters(self, leases: Leases) -> list[LeaseTruth]:
        seats = [seat for seat in self.formed.seats if seat.node not in self.succeeded]
        found = [leases.by_id[seat.lease_id] for seat in seats if seat.lease_id not in self.started]
        return [lease for lease in found if not lease.gone]


def _is_starting(report: Observed) -> bool:
    return report.phase is AgentPhase.RUNNING and any(worker.state is WorkerState.INIT for worker in report.workers)


@dataclass(slots=True, kw_only=True)
class LifeTruth:
    uid: str
    job: str
    spec: JobSpec
    """In force."""
    agreed: JobSpec
    gathering_since_ms: int
    rounds: list[RoundTruth] = field(default_factory=list)
    charged: int = 0
    consumed: dict[str, int] = field(default_factory=dict)
    """Node -> the highest offer of it that a round has used."""
    revision: int = 0
    """Of its last record."""
    endpoints: set[Endpoint] = field(default_factory=set)
    cancelled_by: str = ""
    recovering: bool = False
    recovering_since_ms: int = 0
    floor: int = NO_ROUND
    """A round that agents held when the records were lost."""
    outcome: Outcome | None = None
    hold: JobHeld | None = None
    hold_clock_ms: int | None = None
    """How far the wall clock was ahead of the other one, in this epoch. While that stays, holds can be compared."""

    @property
    def last(self) -> RoundTruth | None:
        return self.rounds[-1] if self.rounds else None

    @property
    def current(self) -> RoundTruth | None:
        """The round that has not ended."""
        return self.last if self.last is not None and self.last.ended is None else None

    # --- what operators change

    def updated(self, record: JobUpdated, now_ms: int) -> None:
        demand(record.max_restarts >= self.charged, "C5", f"{record}: {self.charged} are spent")
        demand(1 <= record.min_nodes <= record.max_nodes, "C3", f"{record} allows no round")
        if record.min_nodes != self.spec.min_nodes and self.current is None and not self.recovering:
            self.gathering_since_ms = now_ms
        self.spec = replace(
            self.spec, min_nodes=record.min_nodes, max_nodes=record.max_nodes, max_restarts=record.max_restarts
        )

    def held(self, record: JobHeld, stamp: Stamp) -> None:
        demand(self.outcome is None, "C9", f"a decided life is held: {record}")
        since_ms = min(self.hold.since_wall_ms, stamp.wall_ms) if self.hold is not None else stamp.wall_ms
        demand(since_ms == record.since_wall_ms < record.until_wall_ms, "HOLD", f"{record} after {self.hold}")
        clock_ms = stamp.wall_ms - stamp.at_ms
        if self.hold is not None and clock_ms == self.hold_clock_ms:
            longer_ms = record.until_wall_ms - self.hold.until_wall_ms
            demand(longer_ms >= 1_000, "HOLD", f"a record for {longer_ms} ms: {record} after {self.hold}")
        self.hold, self.hold_clock_ms = record, clock_ms

    def released(self, record: JobReleased, stamp: Stamp) -> None:
        demand(self.hold is not None, "HOLD", f"{record} of a life that is not held")
        self.hold = None
        if self.current is None:
            self.gathering_since_ms = stamp.at_ms

    def spent_before(self, restart_count: int) -> None:
        """Agents know of so many restarts: by a change that is lost, if they are more than they agreed on."""
        self.charged = max(self.charged, restart_count)
        self.spec = replace(self.spec, max_restarts=max(self.spec.max_restarts, self.charged))

    # --- a round begins

    def formed(self, record: RoundFormed, revision: int, leases: Leases, now_ms: int) -> None:
        demand(self.outcome is None, "C9", f"a round of a decided life: {record}")
        expected = max(self.last.formed.round if self.last else NO_ROUND, self.floor) + 1
        demand(record.round == expected, "C1", f"round {record.round} is formed, {expected} is next")
        demand(not self.recovering, "C4", f"{record} while the life is being recovered")
        demand(self.current is None, "C4", f"{record} while {self.current} has not ended")
        demand(self.hold is None, "HOLD", f"{record} while it is held: {self.hold}")
        self._check_members(record, leases)
        self._check_order(record)
        self._check_offer(record, leases)
        self.rounds.append(
            RoundTruth(formed=record, revision=revision, restart_count=self.charged, start_since_ms=now_ms)
        )

    def _check_members(self, record: RoundFormed, leases: Leases) -> None:
        low, high = self.spec.min_nodes, self.spec.max_nodes
        demand(low <= len(record.seats) <= high, "C3", f"{len(record.seats)} nodes of {low} to {high}")
        demand(len({seat.node for seat in record.seats}) == len(record.seats), "C3", f"a node twice: {record}")
        for seat in record.seats:
            lease = leases.live_of(self.uid, seat.node)
            held = lease is not None and lease.lease_id == seat.lease_id
            demand(held, "C3", f"{seat} has the live lease {lease}")
            assert lease is not None
            demand(seat.local_world_size == lease.spec.local_world_size, "C3", f"{seat}, joined as {lease.spec}")
            demand(lease.stream is not None and not lease.drained, "C3", f"{seat} can take no part: {lease}")
            demand(not lease.expelled, "C4", f"{seat} is quarantined: {lease}")
            demand(not lease.report.may_have_workers, "C4", f"{seat} has workers: {lease.report}")

    def _check_order(self, record: RoundFormed) -> None:
        nodes, earlier = [seat.node for seat in record.seats], self.last.nodes if self.last else []
        stayed = [node for node in earlier if node in nodes]
        demand(stayed == [node for node in nodes if node in earlier], "C3", f"the order {earlier} became {nodes}")

    def _check_offer(self, record: RoundFormed, leases: Leases) -> None:
        node = record.seats[0].node
        offer = leases.by_id[record.seats[0].lease_id].report.offer
        held = [Capability.HOLDS_PORT in leases.by_id[seat.lease_id].capabilities for seat in record.seats]
        demand(held[0] or not any(held), "C10", f"{record}: {node} does not hold its port, another does")
        demand(offer == (record.offer_id, record.endpoint), "C10", f"{record} with {node}'s offer {offer}")
        used = self.consumed.get(node, 0)
        demand(record.offer_id > used, "C10", f"offer {record.offer_id} of {node} again, {used} was used")
        demand(record.endpoint not in self.endpoints, "C10", f"{record.endpoint} serves a second round")
        self.consumed[node] = record.offer_id
        self.endpoints.add(record.endpoint)

    # --- a round ends

    def succeeded(self, record: NodeSucceeded, leases: Leases) -> None:
        current = self._current(record.round, "C9")
        seat = next((seat for seat in current.formed.seats if seat.node == record.node), None)
        report = leases.by_id[seat.lease_id].report if seat else None
        said = report is not None and (report.phase, report.round) == (AgentPhase.SUCCEEDED, record.round)
        demand(said, "C9", f"{record}, but it said {report}")
        demand(record.node not in current.succeeded, "C9", f"{record} a second time")
        current.succeeded.add(record.node)

    def start_ends_ms(self, current: RoundTruth) -> int:
        return current.start_since_ms + max(self.spec.join_timeout_ms, START_MIN_MS)

    def expelled(self, record: NodeExpelled, leases: Leases) -> None:
        """C4: the exception is for what an agent said of this very round, and only while the round is stopped."""
        current, lease = self._current(record.round, "C4"), leases.by_id[record.lease_id]
        demand(current.stopping is not None and current.seats_lease(lease), "C4", f"{record} in {current}")
        demand(not lease.gone and not lease.expelled, "C4", f"{record}, which is gone: {lease}")
        said = (lease.report.unkillable_pids, lease.report.round) == (record.pids, record.round)
        demand(said and record.pids, "C4", f"{record}, but it said {lease.report}")

    def stopping(self, record: RoundStopping, revision: int, now_ms: int, leases: Leases) -> None:
        current = self._current(record.round, "C5")
        if record.cause is StopCause.START_TIMEOUT:
            due = now_ms >= self.start_ends_ms(current) and current.late_starters(leases)
            demand(due, "C8", f"{record} at {now_ms}: {current}")
        demand(current.stopping is None, "C5", f"{record} after {current.stopping}")
        if record.cause is StopCause.WORKER_FAILED:
            demand(current.has_failed, "C5", f"nobody said that a worker of round {record.round} failed: {record}")
        current.stopping, current.stop_since_ms = record, now_ms
        current.stop_version = Version(record.epoch, revision)

    def ended(self, record: RoundEnded, leases: Leases, now_ms: int, *, steady: bool) -> None:
        current = self._current(record.round, "C5")
        demand(current.stopping is not None, "C4", f"{record} without a stop")
        assert current.stopping is not None
        for seat in current.formed.seats:
            lease = leases.by_id[seat.lease_id]
            demand(
                current.is_gone(lease), "C4", f"round {record.round} ends, but {seat.node} may have workers: {lease}"
            )
        leases_of_round = [leases.by_id[seat.lease_id] for seat in current.formed.seats]
        if any(Capability.KILLS_TREES not in lease.capabilities for lease in leases_of_round):
            waited_ms = now_ms - (now_ms if current.all_gone_ms is None else current.all_gone_ms)
            demand(not steady or waited_ms >= REMAINS_MS, "C4", f"{record} {waited_ms} ms after the last was gone")
        self._check_price(record, current, leases)
        current.ended, self.gathering_since_ms = record, now_ms
        self.charged += record.charged

    def _is_final(self, culprit: WorkerFailure | None) -> bool:
        """What had been told to end may have exited so for that."""
        if culprit is None or culprit.after_stop:
            return False
        return culprit.exit_code in self.spec.no_restart_exit_codes

    def _check_price(self, record: RoundEnded, current: RoundTruth, leases: Leases) -> None:
        assert current.stopping is not None
        failed = current.stopping.cause in FAILURES
        left = self.charged < self.spec.max_restarts
        demand(failed or not record.charged, "C5", f"{record} after {current.stopping}")
        demand(left or not record.charged, "C5", f"{record}: {self.charged} of {self.spec.max_restarts} are spent")
        final = self._is_final(record.culprit)
        unstarted = current.stopping.cause is StopCause.START_TIMEOUT
        owed = failed and left and not final and (unstarted or not _may_be_an_echo(current, leases))
        demand(record.charged or not owed, "C5", f"{record} is free: {current.stopping}")
        said = {_identity(failure) for failures in current.failures.values() for failure in failures}
        for failure in (record.culprit, *record.others):
            known = failure is None or _identity(failure) in said
            demand(known, "C5", f"nobody reported {failure} in round {record.round}")
        self._check_blames(record)

    def _check_blames(self, record: RoundEnded) -> None:
        """One root cause if there is a culprit, and candidates for it only then."""
        if record.culprit is not None:
            demand(record.culprit.blame is Blame.ROOT_CAUSE, "CAUSE", f"{record.culprit} is the culprit")
        others = {failure.blame for failure in record.others}
        allowed = {Blame.COLLATERAL, Blame.CANDIDATE} if record.culprit else {Blame.COLLATERAL}
        demand(others <= allowed, "CAUSE", f"{others} beside {record.culprit}")

    def _current(self, number: int, invariant: str) -> RoundTruth:
        demand(self.current is not None, invariant, f"no round is there, the record says {number}")
        assert self.current is not None
        demand(self.current.formed.round == number, invariant, f"{number} is not the round: {self.current}")
        return self.current

    # --- the life ends

    def decided(self, record: JobDecided, now_ms: int) -> None:
        demand(self.outcome is None, "C9", f"{record} after {self.outcome}")
        outcome, self.outcome = record.outcome, record.outcome
        demand(outcome.state.is_decided, "C9", f"no end: {outcome}")
        demand(self._is_earned(outcome, now_ms), "C9", f"{outcome} in {self}")

    def _is_earned(self, outcome: Outcome, now_ms: int) -> bool:
        match outcome.reason:
            case "ALL_SUCCEEDED":
                current = self.current
                everybody = current is not None and current.succeeded == set(current.nodes)
                return everybody and outcome.state is JobState.SUCCEEDED
            case "CANCELLED":
                return bool(self.cancelled_by) and outcome.state is JobState.CANCELLED
            case "JOIN_TIMEOUT":
                waited_ms = now_ms - self.gathering_since_ms
                return waited_ms >= self.spec.join_timeout_ms and self.current is None and self.hold is None
            case "ABANDONED":
                # By whom, and that nobody was left, the cluster's truth has judged.
                return outcome.state is JobState.FAILED and self.current is None
            case "RESTARTS_EXHAUSTED":
                return self._failed_last() and self.charged == self.spec.max_restarts
            case "NO_RESTART_EXIT_CODE":
                return self._is_final(outcome.culprit) and self._failed_last()
            case _:
                return False

    def _failed_last(self) -> bool:
        last = self.last
        if last is None or last.ended is None or last.stopping is None:
            return False
        return last.stopping.cause in FAILURES and not last.ended.charged


def _identity(failure: WorkerFailure) -> tuple[object, ...]:
    """What an agent says of it, without texts, which are cut."""
    return (failure.node, failure.local_rank, failure.rank, failure.pid, failure.exit_code, failure.fail_clock_ms)


def _may_be_an_echo(current: RoundTruth, leases: Leases) -> bool:
    """Whether a node was lost, and no failure is surely one of the job's own: others notice a loss first, and fail."""
    ended = [leases.by_id[seat.lease_id] for seat in current.formed.seats if seat.node not in current.succeeded]
    lost = {lease.node for lease in ended if lease.gone and lease.proof != "it left" and not lease.revoked}
    said = [failure for failures in current.failures.values() for failure in failures]
    own = [failure for failure in said if failure.node in lost or _is_own(failure)]
    return bool(lost or not current.is_whole) and not own


def _is_own(failure: WorkerFailure) -> bool:
    return failure.exit_code in (-signal.SIGKILL, -signal.SIGSEGV) and not failure.after_stop
