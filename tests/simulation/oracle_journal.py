"""What is durable, record by record: C1, C2, C3, C5, C9, C10."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from rallypoint.model import Endpoint, JobSpec, JobState, Outcome
from rallypoint_coordinator.core.records import (
    CoordinatorStarted,
    Entry,
    GoneReason,
    JobCancelled,
    JobCreated,
    JobDecided,
    JobHeld,
    JobReleased,
    JobUpdated,
    LeaseRevoked,
    LifeForgotten,
    LifeRecord,
    MemberGone,
    MemberJoined,
    NodeDrained,
    NodeExpelled,
    NodeReadmitted,
    NodeSucceeded,
    Record,
    RecoveryBegan,
    RecoveryEnded,
    RestartAsked,
    RoundAdopted,
    RoundEnded,
    RoundFormed,
    RoundStopping,
    StateLost,
    StopCause,
)
from simulation.options import Options
from simulation.oracle_cause import check_cause
from simulation.oracle_recovery import adopted, check_held
from simulation.oracle_workers import WorkerOracle
from simulation.truth import History, Lease, LifeTruth, RoundTruth
from simulation.world import Violation

FAILURES = frozenset({StopCause.WORKER_FAILED, StopCause.START_TIMEOUT})
"""What ends a round at the price of a restart."""


class JournalOracle:
    """Sees each record once, when it is durable.

    ``history`` is what the journal says now, ``lost`` what it said each time that it was lost. ``outcomes``,
    ``drained`` and ``forgotten`` are of all lives in all of them: an agent may have been told before.
    """

    def __init__(self, options: Options, workers: WorkerOracle) -> None:
        self.history = History()
        self.lost: list[History] = []
        self.offers: dict[tuple[str, int], Endpoint] = {}
        self.outcomes: defaultdict[str, list[Outcome]] = defaultdict(list)
        self.drained: set[str] = set()
        self.forgotten: set[str] = set()
        self.rounds = 0
        self.is_calm = options.is_calm
        self._workers = workers
        self._epoch = 0
        self._cluster_id = ""
        self._clusters: set[str] = set()
        self._rereads = False
        self._abandoned: LifeTruth | None = None
        """What the last record gave up."""
        self._used_endpoints: set[Endpoint] = set()
        self._rounds_ever: defaultdict[str, list[RoundTruth]] = defaultdict(list)

    @property
    def revision(self) -> int:
        return self.history.revision

    @property
    def lives(self) -> dict[str, LifeTruth]:
        return self.history.lives

    @property
    def leases(self) -> dict[int, Lease]:
        return self.history.leases

    @property
    def undecided(self) -> int:
        return sum(life.outcome is None and uid not in self.forgotten for uid, life in self.lives.items())

    def has_other_spec(self, job: str, spec: JobSpec) -> bool:
        """Whether there is, or was, a life of the job that an agent with this one could not join."""
        lives = (life for history in (self.history, *self.lost) for life in history.lives.values())
        return any(life.job == job and life.agreed != spec for life in lives)

    def journal_lost(self, left: Iterable[tuple[int, Entry]]) -> None:
        """Only this is left of it: C1 begins anew after it, and nobody knows yet."""
        self.lost.append(self.history)
        self.history = History()
        self._epoch, self._cluster_id = 0, ""
        self._used_endpoints.clear()
        self._abandoned = None
        self._rereads = True
        for revision, entry in left:
            self.durable(entry, revision)
        self._rereads = False
        for life in self.lives.values():
            life.knows_of_loss = False

    def offered(self, incarnation: str, offer_id: int, endpoint: Endpoint) -> None:
        """An agent really holds this port."""
        self.offers[incarnation, offer_id] = endpoint

    def durable(self, entry: Entry, revision: int) -> None:
        if revision != self.revision + 1:
            raise Violation("C1", f"revision {revision} after {self.revision}")
        self.history.revision = revision
        record, uid = entry.record, entry.job_uid
        self._demand_end_of_partial(uid, record)
        self._demand_another(entry)
        match record:
            case CoordinatorStarted():
                self._started(record)
            case JobCreated():
                self._created(entry, record)
            case MemberJoined():
                self._joined(self.lives[uid], record, revision)
            case LeaseRevoked():
                self._revoked(uid, self.lives[uid], record)
            case MemberGone():
                self._gone(uid, self.lives[uid], record)
            case RoundFormed():
                self._formed(uid, self.lives[uid], record)
            case NodeSucceeded():
                self._succeeded(uid, self.lives[uid], record)
            case RoundStopping():
                self._stopping(uid, self.lives[uid], record)
            case RoundEnded():
                self._ended(uid, self.lives[uid], record)
            case JobDecided():
                self._decided(uid, self.lives[uid], record)
            case NodeDrained():
                self.drained.add(uid)
            case NodeExpelled():
                self._expelled(uid, record)
            case NodeReadmitted():
                self._readmitted(uid, record)
            case JobCancelled() | RestartAsked() | JobHeld() | JobReleased():
                pass  # the operators' oracle has these
            case JobUpdated():
                self.lives[uid].updated(record)
            case LifeForgotten():
                self._forgotten(uid, self.lives[uid])
            case StateLost():
                self._state_lost(record)
            case RecoveryBegan():
                self._recovery_began(uid, self.lives[uid], record)
            case RoundAdopted():
                self._adopted(uid, self.lives[uid], record)
            case RecoveryEnded():
                self.lives[uid].recovers = False

    def _started(self, record: CoordinatorStarted) -> None:
        if record.epoch <= self._epoch:
            raise Violation("C1", f"epoch {record.epoch} after {self._epoch}")
        if self._cluster_id not in ("", record.cluster_id):
            raise Violation("C1", f"cluster {record.cluster_id} was {self._cluster_id}")
        self._epoch, self._cluster_id = record.epoch, record.cluster_id
        self._clusters.add(record.cluster_id)

    def _created(self, entry: Entry, record: JobCreated) -> None:
        uid = entry.job_uid
        gave_way = self.lost and uid in self.forgotten
        if uid in self.lives and not gave_way:
            raise Violation("C1", f"life {uid} is created twice")
        self.forgotten.discard(uid)
        self.lives[uid] = LifeTruth(entry.job, record.spec, record.spec)

    # --- what was lost

    def _demand_loss(self, record: LifeRecord | StateLost) -> None:
        if not self.lost:
            raise Violation("C1", f"nothing was lost, and yet {record}")

    def _demand_end_of_partial(self, uid: str, record: Record) -> None:
        """A round of which places are missing is ended in the step that adopts it, by nothing but its own records."""
        last = self.lives[uid].last if uid in self.lives else None
        goes_on = last is not None and last.is_partial and last.stopping is None and not self.lives[uid].recovers
        if goes_on and not isinstance(record, NodeSucceeded | RoundStopping):
            raise Violation("C4", f"{uid}: {record} while {last} goes on, of which places are missing")

    def _state_lost(self, record: StateLost) -> None:
        self._demand_loss(record)
        if record.epoch < self._epoch:
            raise Violation("C1", f"epoch {record.epoch} after {self._epoch}")
        former = record.former_cluster_id
        if former == self._cluster_id or (former and former not in self._clusters):
            raise Violation("C1", f"cluster {self._cluster_id} takes {former} over, which never was another")
        self._epoch = record.epoch

    def _recovery_began(self, uid: str, life: LifeTruth, record: RecoveryBegan) -> None:
        self._demand_loss(record)
        check_held(uid, record, self._rounds_ever[uid])
        if not life.recovers:
            life.revoked -= set(life.live.values())  # what followed on it is lost
        life.recovers = life.knows_of_loss = True
        life.round_floor = max(life.round_floor, record.round)
        life.spent_before(record.restart_count)

    def _adopted(self, uid: str, life: LifeTruth, record: RoundAdopted) -> None:
        self._demand_loss(record)
        round_, last = adopted(uid, record, self._rounds_ever[uid]), life.last
        if last is not None and (record.round < life.last_number or (record.round == life.last_number and last.ended)):
            raise Violation("C4", f"{uid}: {record} after {last}")
        if last is not None and record.round == life.last_number:
            round_.succeeded = last.succeeded & {seat.node for seat in round_.formed.seats}
            round_.before = last
        life.rounds[record.round] = round_
        life.spent_before(record.restart_count)
        life.recovers = False
        self._used_endpoints.add(record.endpoint)

    # --- members

    def _joined(self, life: LifeTruth, record: MemberJoined, revision: int) -> None:
        if record.node in life.live:
            raise Violation("C2", f"{record.node} gets lease {revision} beside lease {life.live[record.node]}")
        life.live[record.node] = revision
        self.leases[revision] = Lease(record.node, record.incarnation, record.spec.local_world_size)

    def _revoked(self, uid: str, life: LifeTruth, record: LeaseRevoked) -> None:
        """Once, of who had a place in a round that is being stopped."""
        last = life.last
        stops = last is not None and last.stopping is not None and last.ended is None
        seated = last is not None and any(seat.lease_id == record.lease_id for seat in last.formed.seats)
        if not stops or not seated or record.lease_id in life.revoked or life.live.get(record.node) != record.lease_id:
            raise Violation("C8", f"{uid}: {record} in {last}")
        life.revoked.add(record.lease_id)

    def _gone(self, uid: str, life: LifeTruth, record: MemberGone) -> None:
        if (record.reason is GoneReason.REVOKED) != (record.lease_id in life.revoked):
            raise Violation("C5", f"{uid}: {record}, revoked were {life.revoked}")
        if record.reason is not GoneReason.LEFT:
            life.lost.add(record.lease_id)
        given_up = record.reason in (GoneReason.EXPIRED, GoneReason.REVOKED)
        if given_up:
            self._workers.excuse(uid, self.leases[record.lease_id].incarnation, life.last_number)
        if life.live.pop(record.node, None) != record.lease_id:
            raise Violation("C2", f"lease {record.lease_id} of {record.node} ends, but was not live")
        if self.is_calm and given_up and life.outcome is None:
            raise Violation("CALM", f"{record.node} is given up although nothing could cut it off: {record.message}")

    def _expelled(self, uid: str, record: NodeExpelled) -> None:
        incarnation = self.leases[record.lease_id].incarnation
        if (uid, incarnation, record.round) not in self._workers.stuck_groups:
            raise Violation("C4", f"{uid}: {record}, but nothing is stuck there")
        current = self.lives[uid].rounds[record.round]
        if current.stopping is None or current.ended is not None or record.node not in self.lives[uid].live:
            raise Violation("C4", f"{uid}: {record} in {current}")
        self._workers.excuse(uid, incarnation, record.round)

    def _readmitted(self, uid: str, record: NodeReadmitted) -> None:
        incarnation, recovers = self.leases[record.lease_id].incarnation, self.lives[uid].recovers
        # A round that followed in a lost history may run: it is about to be adopted.
        live = [
            group
            for group in self._workers.live_groups
            if (group.job_uid, group.incarnation) == (uid, incarnation)
            and (group.kill_at_ms is not None or not recovers)
        ]
        if live and not self._rereads:
            raise Violation("C4", f"{uid}: {record}, but these are alive: {live}")

    # --- rounds

    def _formed(self, uid: str, life: LifeTruth, record: RoundFormed) -> None:
        self.rounds += 1
        if record.round != life.next_number:
            raise Violation("C1", f"{uid}: round {record.round} is formed, {life.next_number} is next")
        if life.last is not None:
            self._check_end(uid, life.last)
        if not life.spec.min_nodes <= len(record.seats) <= life.spec.max_nodes:
            raise Violation("C3", f"{uid}: round {record.round} has {len(record.seats)} nodes")
        for seat in record.seats:
            lease = self.leases[seat.lease_id]
            if life.live.get(seat.node) != seat.lease_id or lease.local_world_size != seat.local_world_size:
                raise Violation("C3", f"{uid}: round {record.round} has {seat}, whose lease is {lease}")
        self._check_order(uid, life, record)
        self._check_offer(uid, record)
        life.rounds[record.round] = RoundTruth(record, life.charged)
        self._rounds_ever[uid].append(life.rounds[record.round])
        if self.lost:
            members = {self.leases[lease_id].incarnation for lease_id in life.live.values()}
            self._workers.formed_after_loss(uid, record.round, members, life.knows_of_loss)

    def _check_end(self, uid: str, last: RoundTruth) -> None:
        """Another round follows only on one that ended, and on a failure only if it was charged."""
        if last.ended is None or last.stopping is None:
            raise Violation("C4", f"{uid}: a round is formed before round {last.formed.round} ended")
        failed = last.stopping.cause in FAILURES
        # A worker's failure may have been the echo of a lost node.
        lost_one = any(seat.lease_id in self.lives[uid].lost for seat in last.formed.seats)
        may_be_free = last.stopping.cause is StopCause.WORKER_FAILED and (lost_one or last.is_partial)
        if failed != last.ended.charged and not (failed and may_be_free):
            raise Violation("C5", f"{uid}: round {last.formed.round} ended by {last.stopping}, but: {last.ended}")

    def _check_order(self, uid: str, life: LifeTruth, record: RoundFormed) -> None:
        """Nodes that stay keep their order."""
        nodes = [seat.node for seat in record.seats]
        if len(set(nodes)) != len(nodes):
            raise Violation("C3", f"{uid}: round {record.round} has a node twice: {nodes}")
        earlier = [seat.node for seat in life.last.formed.seats] if life.last is not None else []
        stayed = [node for node in earlier if node in nodes]
        if stayed != [node for node in nodes if node in earlier]:
            raise Violation("C3", f"{uid}: the order {earlier} became {nodes}")

    def _check_offer(self, uid: str, record: RoundFormed) -> None:
        incarnation = self.leases[record.seats[0].lease_id].incarnation
        if self.offers.get((incarnation, record.offer_id)) != record.endpoint:
            raise Violation("C10", f"{uid}: {incarnation} never held {record.endpoint} as offer {record.offer_id}")
        if record.endpoint in self._used_endpoints:
            raise Violation("C10", f"{uid}: {record.endpoint} serves a second round, {record.round}")
        self._used_endpoints.add(record.endpoint)

    def _succeeded(self, uid: str, life: LifeTruth, record: NodeSucceeded) -> None:
        if (uid, record.round, record.node) not in self._workers.succeeded_nodes:
            raise Violation("C9", f"{uid}: {record.node} did not succeed in round {record.round}")
        life.rounds[record.round].succeeded.add(record.node)

    def _stopping(self, uid: str, life: LifeTruth, record: RoundStopping) -> None:
        life.rounds[record.round].stopping = record
        if self.is_calm and record.cause in (StopCause.NODE_LOST, StopCause.NODE_LEFT):
            raise Violation("CALM", f"{uid}: round {record.round} ends although nobody was lost: {record.message}")

    def _ended(self, uid: str, life: LifeTruth, record: RoundEnded) -> None:
        current = life.rounds[record.round]
        if current.ended is not None or record.round != life.last_number:
            raise Violation("C5", f"{uid}: round {record.round} ends twice")
        current.ended = record
        incarnations = {seat.node: self.leases[seat.lease_id].incarnation for seat in current.formed.seats}
        check_cause(uid, record, incarnations, self._workers)
        if not record.charged:
            return
        life.charged += 1
        assert current.stopping is not None
        if current.stopping.cause not in FAILURES:
            raise Violation("C5", f"{uid}: round {record.round} is charged for {current.stopping.cause}")
        says_failed = current.stopping.cause is StopCause.WORKER_FAILED
        if says_failed and (uid, record.round) not in self._workers.failed_rounds:
            raise Violation("C5", f"{uid}: round {record.round} is charged, but no worker of it failed")
        if life.charged > life.spec.max_restarts:
            raise Violation("C5", f"{uid}: {life.charged} restarts of {life.spec.max_restarts}")

    def _decided(self, uid: str, life: LifeTruth, record: JobDecided) -> None:
        if life.outcome is not None:
            raise Violation("C9", f"{uid} is decided twice: {life.outcome}, {record.outcome}")
        life.outcome = record.outcome
        self.outcomes[uid].append(record.outcome)
        last = life.last
        if record.outcome.state is JobState.SUCCEEDED:
            if last is None or last.is_partial or last.succeeded != {seat.node for seat in last.formed.seats}:
                raise Violation("C9", f"{uid} succeeded, but not all nodes did")
        elif record.outcome.reason == "RESTARTS_EXHAUSTED":
            self._check_exhausted(uid, life, last)
        elif record.outcome.reason == "ABANDONED":
            self._check_abandoned(uid, life, last)
        elif record.outcome.reason not in ("JOIN_TIMEOUT", "NO_RESTART_EXIT_CODE", "CANCELLED"):
            raise Violation("C9", f"{uid} failed for no known reason: {record.outcome}")

    def _check_abandoned(self, uid: str, life: LifeTruth, last: RoundTruth | None) -> None:
        if life.live or life.recovers or (last is not None and last.ended is None):
            raise Violation("C9", f"{uid} is given up with live leases {life.live} and {last}")
        self._abandoned = life

    def _demand_another(self, entry: Entry) -> None:
        """What gives a life up is another one of its name, which wants something else, and follows at once."""
        life, self._abandoned = self._abandoned, None
        if life is None:
            return
        record = entry.record
        follows = isinstance(record, JobCreated) and entry.job == life.job and record.spec != life.agreed
        if not follows and not isinstance(record, CoordinatorStarted):
            raise Violation("C9", f"{life.job} was given up, and not for {entry}")

    def _forgotten(self, uid: str, life: LifeTruth) -> None:
        gives_way = self.lost and life.last is None
        if (life.outcome is None or life.live) and not gives_way:
            raise Violation("C9", f"{uid} is forgotten: outcome {life.outcome}, live leases {life.live}")
        self.forgotten.add(uid)

    def _check_exhausted(self, uid: str, life: LifeTruth, last: RoundTruth | None) -> None:
        failed = last is not None and (uid, last.formed.round) in self._workers.failed_rounds
        if not failed or life.charged != life.spec.max_restarts:
            raise Violation("C5", f"{uid} gave up after {life.charged} of {life.spec.max_restarts} restarts")
        if last is not None and (last.ended is None or last.ended.charged):
            raise Violation("C5", f"{uid}: the round that ended it all was charged")
