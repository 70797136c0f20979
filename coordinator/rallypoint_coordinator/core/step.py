"""One step of one life: what it may read, and the output that it builds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from rallypoint.model import Directive
from rallypoint_coordinator.core.directives import SharedDirectives, directive_for
from rallypoint_coordinator.core.effects import Effect, Output, SendDirective
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.evolve import evolve
from rallypoint_coordinator.core.records import Entry, LifeRecord, RoundFormed, RoundStopping
from rallypoint_coordinator.core.state import Life, Member, Presence


class Identity(NamedTuple):
    """Who the coordinator is, in this start of it."""

    cluster_id: str
    epoch: int
    release: str


@dataclass(slots=True)
class Step:
    """Everything outside comes in through here. A record changes the facts at once, so later lines see it."""

    life: Life
    stamp: Stamp
    identity: Identity
    out: Output
    told_revision: int = field(init=False)
    """What every member had been told when the step began."""
    timed_revisions: list[int] = field(default_factory=list)
    """Records of which it is of interest when they are durable."""
    newcomer: int | None = None
    """The stream whose Welcome ends the step, and says what the member should do by then: it is told nothing before."""

    def __post_init__(self) -> None:
        self.told_revision = self.life.facts.directive_revision

    def record(self, record: LifeRecord) -> int:
        """Decide: apply the record to the facts and queue it for the journal. Returns its revision."""
        facts = self.life.facts
        revision = self.stamp.revision + len(self.out.records) + 1
        evolve(facts, record, revision=revision, wall_ms=self.stamp.wall_ms)
        if isinstance(record, RoundStopping | RoundFormed):
            self.timed_revisions.append(revision)
        self.out.records.append(Entry(job=facts.job, job_uid=facts.uid, wall_ms=self.stamp.wall_ms, record=record))
        return revision

    def effect(self, effect: Effect) -> None:
        self.out.effects.append(effect)

    def tell(self, member: Member, presence: Presence, shared: SharedDirectives | None = None) -> None:
        """Send the member what it should do, unless its stream is closed. ``shared``: by who tells many in a row."""
        if presence.stream is not None and presence.stream != self.newcomer:
            self.effect(SendDirective(presence.stream, self.directive(member, presence, shared)))

    def directive(self, member: Member, presence: Presence, shared: SharedDirectives | None = None) -> Directive:
        """What the member should do, which is about to be sent."""
        shared = shared or SharedDirectives()
        directive = directive_for(self.life.facts, member, self.identity.epoch, shared)
        presence.sent_at_ms = self.stamp.at_ms
        return directive
