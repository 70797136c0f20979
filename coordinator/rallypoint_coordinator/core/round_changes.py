"""How long the end of a round and the way to the next one took, phase by phase. Told to who reads; decides nothing.

What records tell is durable (:class:`RoundChange`), so a replay tells the same. No record tells when another one became
durable, nor when all workers ran: that is soft (:class:`Sightings`), and forgotten by a restart of the coordinator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field, replace
from itertools import pairwise
from typing import NamedTuple

from rallypoint.model import NO_ROUND, WorkerFailure
from rallypoint.texts import cut
from rallypoint.values import dataclass
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.records import (
    LifeRecord,
    RecoveryBegan,
    RoundEnded,
    RoundFormed,
    RoundStopping,
    StopCause,
)

KEPT_MAX = 16
"""So many of a life are kept, the newest."""
MESSAGE_BYTES = 512
RE_FORMING = "re-forming: "
"""How the message of an end that costs nothing begins: left out here, where it goes without saying."""


class Onset(NamedTuple):
    """When what ends a round happened (None: not known), and when the coordinator could know. On the stamp's clock."""

    happened_ms: int | None
    noticed_ms: int


def arrived(stamp: Stamp) -> Onset:
    """The event itself is what ends the round."""
    return Onset(stamp.arrived_ms, stamp.arrived_ms)


def arrived_late(stamp: Stamp, happened_ms: int | None) -> Onset:
    """The event tells of something that happened before; None: nobody knows when."""
    return Onset(None if happened_ms is None else min(happened_ms, stamp.arrived_ms), stamp.arrived_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundChange:
    """The end of one round and the way to the next. Instants are the wall clock's; 0: not known, or yet to come."""

    round: int
    cause: StopCause
    message: str
    """What stopped the round; once that has ended: what its end was judged to be."""
    charged: bool = False
    happened_wall_ms: int = 0
    noticed_wall_ms: int = 0
    stopped_wall_ms: int
    stop_revision: int
    ended_wall_ms: int = 0
    next_round: int = NO_ROUND
    formed_wall_ms: int = 0
    form_revision: int = 0


RoundChanges = tuple[RoundChange, ...]


def after(changes: RoundChanges, record: LifeRecord, *, revision: int, wall_ms: int) -> RoundChanges:
    """The newest changes of a life, with what this record says of them."""
    match record:
        case RoundStopping():
            return (*changes, _stopped(record, revision, wall_ms))[-KEPT_MAX:]
        case RoundEnded() if changes and changes[-1].round == record.round:
            return (*changes[:-1], _ended(changes[-1], record, wall_ms))
        case RoundFormed() if changes and changes[-1].next_round == NO_ROUND:
            formed = replace(changes[-1], next_round=record.round, formed_wall_ms=wall_ms, form_revision=revision)
            return (*changes[:-1], formed)
        case RecoveryBegan() if changes and changes[-1].next_round == NO_ROUND:
            return changes[:-1]  # what came of it is lost
        case _:
            return changes


def _stopped(record: RoundStopping, revision: int, wall_ms: int) -> RoundChange:
    return RoundChange(
        round=record.round,
        cause=record.cause,
        message=cut(record.message, MESSAGE_BYTES),
        happened_wall_ms=record.happened_wall_ms,
        noticed_wall_ms=record.noticed_wall_ms,
        stopped_wall_ms=wall_ms,
        stop_revision=revision,
    )


def _ended(change: RoundChange, record: RoundEnded, wall_ms: int) -> RoundChange:
    """By now other failures may be known, which came before the one that stopped the round."""
    known = [change.happened_wall_ms] if change.happened_wall_ms else []
    if record.culprit is not None and change.noticed_wall_ms:
        known += _failed_at((record.culprit, *record.others))
    return replace(
        change,
        message=cut(record.message.removeprefix(RE_FORMING), MESSAGE_BYTES) or change.message,
        charged=record.charged,
        happened_wall_ms=min([*known, change.noticed_wall_ms]) if known else 0,
        ended_wall_ms=wall_ms,
    )


def _failed_at(failures: Iterable[WorkerFailure]) -> list[int]:
    """When those happened of which that is known, and which were no consequence of the stop."""
    return [each.corrected_time_ms for each in failures if each.time_error_ms is not None and not each.after_stop]


@dataclass(slots=True)
class Sightings:
    """What this start of the coordinator saw of the newest changes, by the wall clock. Bounded, the newest are kept."""

    durable: dict[int, int] = field(default_factory=dict)
    """Revision -> when that record was durable."""
    all_ran: dict[int, int] = field(default_factory=dict)
    """Round -> when the last of its participants had started its workers."""

    def became_durable(self, revision: int, wall_ms: int) -> None:
        self.durable[revision] = wall_ms
        _forget_oldest(self.durable, 2 * KEPT_MAX)

    def all_run(self, round_number: int, wall_ms: int) -> None:
        self.all_ran[round_number] = wall_ms
        _forget_oldest(self.all_ran, KEPT_MAX)


def _forget_oldest(seen: dict[int, int], most: int) -> None:
    if len(seen) > most:
        del seen[next(iter(seen))]


class Phases(NamedTuple):
    """In order, each from where the one before ended. None: not known, or not over."""

    detect_ms: int | None
    decide_ms: int | None
    teardown_ms: int | None
    rendezvous_ms: int | None
    spawn_ms: int | None


class Instants(NamedTuple):
    """The bounds of the phases, by the wall clock. 0: not known, or yet to come."""

    happened_ms: int
    noticed_ms: int
    stop_durable_ms: int
    all_gone_ms: int
    next_durable_ms: int
    all_ran_ms: int


def phases_of(instants: Instants) -> Phases:
    return Phases(*(later - earlier if earlier and later else None for earlier, later in pairwise(instants)))


def instants_of(change: RoundChange, seen: Sightings) -> Instants:
    """None is before an earlier one, though a wall clock may be set back."""
    formed = change.next_round != NO_ROUND
    told = (
        change.happened_wall_ms,
        change.noticed_wall_ms,
        seen.durable.get(change.stop_revision, change.stopped_wall_ms),
        change.ended_wall_ms,
        seen.durable.get(change.form_revision, change.formed_wall_ms) if formed else 0,
        seen.all_ran.get(change.next_round, 0) if formed else 0,
    )
    return Instants(*(max(told[: index + 1]) if instant else 0 for index, instant in enumerate(told)))
