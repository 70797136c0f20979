"""When a life may be recovered, and what may be adopted: worked out from what agents said, and from time."""

from __future__ import annotations

from property.demand import demand
from property.lease_truth import DRIFT_PER_MILLE, MARGIN_MS, Leases, LeaseTruth
from property.round_truth import LifeTruth, RoundTruth
from rallypoint.model import NO_ROUND, Hello, JobSpec, Version
from rallypoint_coordinator.core.records import Place, RecoveryBegan, RecoveryEnded, RoundAdopted, RoundFormed

LEAP_MAX = 1_000_000


def lease_ms(spec: JobSpec) -> int:
    """After so long without a word no worker is alive."""
    return spec.lease_ttl_ms + spec.lease_ttl_ms * DRIFT_PER_MILLE // 1_000 + MARGIN_MS


class History:
    """What agents may have seen of this journal."""

    def __init__(self) -> None:
        self.cluster_id = ""
        self.born_wall_ms = 0
        self.epoch = 0
        self.began: list[Version] = []
        self.former: set[str] = set()

    def objection(self, hello: Hello, wall_ms: int) -> str:
        """Why an agent that has seen this cannot be one of ours, nor of a history in whose place this one is."""
        if hello.highest_version.epoch > self.epoch + LEAP_MAX and self.is_lost(hello, 0):
            return "so many epochs cannot have been lost"
        if not self._is_foreign(hello) or hello.cluster_id in self.former:
            return ""
        window_ms = hello.job_spec.coordinator_outage_ms + lease_ms(hello.job_spec)
        return "another cluster's agent" if wall_ms - self.born_wall_ms > window_ms else ""

    def is_lost(self, hello: Hello, revision: int, named: LifeTruth | None = None) -> bool:
        seen = hello.highest_version
        if self._is_foreign(hello) or seen > Version(self.epoch, revision):
            return True
        if any(seen.epoch < began.epoch and seen.revision >= began.revision for began in self.began):
            return True
        if named is not None and seen.revision > named.revision:
            return True
        if named is None or named.outcome is not None:
            return False
        last = named.last.formed.round if named.last is not None else NO_ROUND
        return hello.observed.round > max(last, named.floor) or hello.lease_id > revision

    def _is_foreign(self, hello: Hello) -> bool:
        return hello.cluster_id not in ("", self.cluster_id)


def began(life: LifeTruth, record: RecoveryBegan, now_ms: int) -> None:
    demand(life.outcome is None, "C9", f"a decided life is recovered: {record}")
    if not life.recovering:
        life.recovering, life.recovering_since_ms = True, now_ms
    life.floor = max(life.floor, record.round)
    life.spent_before(record.restart_count)


def adopted(life: LifeTruth, record: RoundAdopted, revision: int, leases: Leases, now_ms: int) -> None:
    """C3, C4: what runs goes on if all of it is there, or the rest cannot run any more."""
    demand(life.recovering, "C4", f"{record} outside of a recovery")
    last = life.last
    lowest = last.formed.round + (last.ended is not None) if last is not None else 0
    demand(record.round >= lowest, "C1", f"{record} after {last}")
    holders = [leases.by_id[place.seat.lease_id] for place in record.places]
    for place, lease in zip(record.places, holders, strict=True):
        demand(_is_held(record, place, lease) or _is_on_record(last, record, place), "C3", f"{place}: {lease}")
    whole = _is_whole(record)
    live = any(lease.report.phase.may_have_workers and not lease.report.unkillable_pids for lease in holders)
    waited = now_ms - life.recovering_since_ms >= lease_ms(life.spec)
    demand(waited or (whole and live), "C4", f"{record} too soon")
    _replace(life, record, revision, whole, now_ms)
    for lease in holders:
        if lease.attach_seq >= 0 and life.current is not None:
            life.current.note_report(lease, lease.report)


def _is_held(record: RoundAdopted, place: Place, lease: LeaseTruth) -> bool:
    held = lease.report.assignment
    if held is None or lease.gone or place.seat.local_world_size != lease.spec.local_world_size:
        return False
    said = (held.round, held.restart_count, held.world_size, held.endpoint, held.group_rank, held.first_rank)
    own = (record.round, record.restart_count, record.world_size, record.endpoint, place.group_rank, place.first_rank)
    roles = (held.first_role_rank, held.role_world_size) == (place.first_role_rank, place.role_world_size)
    return said == own and roles


def _is_on_record(last: RoundTruth | None, record: RoundAdopted, place: Place) -> bool:
    """The journal knows the round itself: it may end it if nobody holds it, and counts those that had succeeded."""
    return last is not None and last.formed.round == record.round and place.seat in last.formed.seats


def _is_whole(record: RoundAdopted) -> bool:
    """Every rank has its place, once."""
    ranks = [place.first_rank + local for place in record.places for local in range(place.seat.local_world_size)]
    groups = [place.group_rank for place in record.places]
    return ranks == list(range(record.world_size)) and groups == list(range(len(groups)))


def _replace(life: LifeTruth, record: RoundAdopted, revision: int, whole: bool, now_ms: int) -> None:
    formed = RoundFormed(
        round=record.round,
        seats=tuple(place.seat for place in record.places),
        endpoint=record.endpoint,
        offer_id=record.offer_id,
    )
    made = RoundTruth(
        formed=formed, revision=revision, restart_count=record.restart_count, is_whole=whole, start_since_ms=now_ms
    )
    last = life.last
    if last is not None and last.formed.round == record.round:
        if _is_same(last, record):
            made.succeeded, made.failures = last.succeeded & set(made.nodes), last.failures
        life.rounds.pop()
    life.rounds.append(made)
    life.recovering = False
    life.spent_before(record.restart_count)
    life.endpoints.add(record.endpoint)
    if record.offer_node:
        life.consumed[record.offer_node] = max(life.consumed.get(record.offer_node, 0), record.offer_id)


def _is_same(last: RoundTruth, record: RoundAdopted) -> bool:
    """Another history may have had a round of that number, elsewhere: what was said of the one says nothing here."""
    return (last.formed.endpoint, last.restart_count) == (record.endpoint, record.restart_count)


def ended(life: LifeTruth, record: RecoveryEnded, now_ms: int) -> None:
    demand(life.recovering and life.current is None, "C4", f"{record} in {life}")
    demand(now_ms - life.recovering_since_ms >= lease_ms(life.spec), "C4", f"{record} too soon")
    life.recovering, life.gathering_since_ms = False, now_ms


def in_time(life: LifeTruth, now_ms: int) -> None:
    """C8: nobody is waited for longer than a lease."""
    over = life.recovering and now_ms - life.recovering_since_ms >= lease_ms(life.spec)
    demand(not over, "C8", f"{life} is still being recovered")
